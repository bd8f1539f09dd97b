"""Shared frames are those of the log, for every reader wherever it is, and each is read once where readers go together."""

from __future__ import annotations

import random
import threading

import pytest

from ringmain.flows.frames import SharedFrames, Turns
from ringmain.log.interface import Frame, Position

from .real_log import SECOND, START
from .recording import Recording


def _recorded(frames: int) -> Recording:
    log = Recording()
    log.entries({1: "a"}, START)
    for number in range(frames):
        if number % 3:
            log.readings([(1, START + number * SECOND, float(number), 0)], START + number * SECOND)
        else:
            log.tick(START + number * SECOND)
    return log


STREAMS = ["catalogue", "readings", "ticks"]


@pytest.mark.parametrize("kept_bytes", [1, 200, 1 << 20])
def test_readers_at_any_place_that_come_and_go_get_the_frames_of_the_log(kept_bytes: int) -> None:
    log = _recorded(120)
    end = len(log.frames)
    shared = SharedFrames(log, kept_bytes)
    chance = random.Random(4)
    readers: list[tuple[list[str], Position | None, list[Frame]]] = []
    for number in range(12):
        streams = STREAMS if number % 4 else ["readings", "ticks"]
        shared.announce(streams)
        after = None if number % 2 else log.frames[chance.randrange(end)].position
        readers.append((streams, after, []))
    for _ in range(400):
        streams, after, got = readers[chance.randrange(len(readers))]
        place = got[-1].position if got else after
        for frame in shared.read(streams, place):
            got.append(frame)
            if chance.random() < 0.3:
                break
    for streams, after, got in readers:
        got += shared.read(streams, got[-1].position if got else after)
        assert got == list(log.read(streams, after))


def test_flows_that_go_together_read_each_frame_once() -> None:
    log = _recorded(200)
    shared = SharedFrames(log)
    shared.announce(STREAMS)
    for _ in range(50):
        assert list(shared.read(STREAMS, None)) == log.frames
    assert shared.reads == len(log.frames)
    more = log.readings([(1, START + 500 * SECOND, 1.0, 0)], START + 500 * SECOND)
    for _ in range(3):
        assert list(shared.read(STREAMS, log.frames[-2].position)) == [more]
    assert shared.reads == len(log.frames)


def test_nobody_waits_long_for_a_turn_that_somebody_keeps() -> None:
    turns = Turns(1)
    assert turns.take()
    assert not turns.take()
    waited = threading.Event()
    thread = threading.Thread(target=lambda: waited.set() if not turns.take() else None)
    thread.start()
    thread.join(10)
    assert waited.is_set()
    turns.give_back()
    assert turns.take()
