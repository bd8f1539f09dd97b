"""Shared frames are those of the log, for every reader wherever it is, and each is read once where readers go together."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from ringmain.flows.frames import SharedFrames
from ringmain.log import Journal, open_log
from ringmain.log.interface import Batch, Frame, Position, StreamKind
from ringmain.model.schemas import READING
from tests.log.batches import NOTE, notes, reading_batch, wait_until

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


class _Waiter:
    """A flow that reads to the end and waits, over and over."""

    def __init__(self, shared: SharedFrames, log: Journal, streams: list[str]) -> None:
        self.got: list[Frame] = []
        self.turns = 0
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(shared, log, streams))
        shared.announce(streams)
        self._thread.start()

    def _run(self, shared: SharedFrames, log: Journal, streams: list[str]) -> None:
        leave = shared.follow(log)
        try:
            while not self._stop:
                self._wake.clear()
                end = log.end()
                after = self.got[-1].position if self.got else None
                self.got += shared.read(streams, after)
                self.turns += 1
                shared.wait(streams, self.got[-1].position if self.got else None, end, self._wake, 60.0)
        finally:
            leave()

    def stop(self) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_whoever_waits_gets_what_comes_for_him_and_is_left_alone_by_the_rest(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        claim = log.claim("a")
        for name, kind, schema in (("rare", StreamKind.READING, READING), ("notes", StreamKind.ROW, NOTE)):
            log.create_stream(name, kind, schema)
        shared = SharedFrames(log)
        often = [_Waiter(shared, log, ["readings"]) for _ in range(20)]
        rare = [_Waiter(shared, log, ["rare"]) for _ in range(5)]
        for number in range(100):
            log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
        wait_until(lambda: all(len(one.got) == 100 for one in often))
        before = [one.turns for one in often + rare]
        looks = shared.looks
        for number in range(100, 200):  # nobody reads these
            log.append([Batch("notes", notes("x"))], claim=claim, sequence=number)
        log.append([Batch("rare", reading_batch(1).rows)], claim=claim, sequence=200)
        wait_until(lambda: all(len(one.got) == 1 for one in rare))
        # one of them looked at each commit, not all 25
        assert shared.looks - looks <= 102
        assert sum(one.turns for one in often + rare) - sum(before) <= 2 * 101 + len(rare)
        for one in often + rare:
            one.stop()
        assert shared.reads <= 101


def test_one_who_leaves_while_it_was_to_look_leaves_that_to_another(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        claim = log.claim("a")
        shared = SharedFrames(log)
        waiters = [_Waiter(shared, log, ["readings"]) for _ in range(8)]
        for number in range(7):
            log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
            waiters.pop(0).stop()
        wait_until(lambda: len(waiters[0].got) == 7)
        waiters[0].stop()
