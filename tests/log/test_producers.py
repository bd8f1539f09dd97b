"""A log remembers the newest append of 65,536 producers across restarts, in bounded memory, and never forgets a live one."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ringmain.log import open_log
from ringmain.log.checkpoints import STATE, Checkpoints, restore_state
from ringmain.log.control import Claimed, producer_id
from ringmain.log.interface import PRODUCERS_MAX, Appended, Claim, LogError
from ringmain.log.journal import Journal
from ringmain.log.planner import Planner
from ringmain.log.request import INTERNAL, Request
from ringmain.testing import SimulatedDisk
from tests.log.batches import reading_batch

DIRECTORY = Path("log")
WRITTEN = 4_096
"""Producers that really claim and append; the others are folded into the state beside them, which takes less time."""
PRODUCER_BYTES_MAX = 1_000
"""What a producer with a name of some twenty characters may take in memory, planned and durable."""
Answers = list[tuple[object, LogError | None]]


def _all_answered(count: int, hand_over: Callable[[int, Callable[..., None]], None]) -> Answers:
    """Hand over so many requests without waiting for each; their answers, in order."""
    answers: Answers = []
    finished = threading.Event()

    def done(answer: object, error: LogError | None) -> None:
        answers.append((answer, error))
        if len(answers) == count:
            finished.set()

    for number in range(count):
        hand_over(number, done)
    assert finished.wait(60)
    return answers


def _claim_all(log: Journal, names: Sequence[str]) -> list[Claim]:
    """As `log.claim(name, epoch=0)` for each, without waiting for one before the next."""
    answers = _all_answered(
        len(names),
        lambda number, done: log._commit.submit(
            Request(INTERNAL, 0, [], 0, 0, done, claiming=(names[number], 0))
        ),
    )
    assert [error for _, error in answers if error is not None] == []
    return [Claim(name, answer[0], 0) for name, (answer, _) in zip(names, answers, strict=True)]  # type: ignore[index]


def _append_all(log: Journal, claims: Sequence[Claim], sequence: int) -> Iterator[Appended]:
    answers = _all_answered(
        len(claims),
        lambda number, done: log.append_nowait([], done, claim=claims[number], sequence=sequence),
    )
    for appended, error in answers:
        assert error is None
        assert isinstance(appended, Appended)
        yield appended


def _fold_all(log: Journal, names: Sequence[str], sequence: int) -> list[Claim]:
    """Put producers into the durable state as replaying their claims and appends does, without writing these."""
    claims = []
    with log._store.lock:
        state = log._store.state
        for name in names:
            state.claimed(Claimed(name, producer_id(name), 1, 0))
            state.producers[name].appended(0, sequence, 0, 0, state.arrival_ns)
            claims.append(Claim(name, 1, 0))
    return claims


def test_65536_producers_are_recognised_after_a_restart_and_one_more_is_refused() -> None:
    disk = SimulatedDisk()
    names = [f"source/field-{number:05}" for number in range(PRODUCERS_MAX)]
    with open_log(DIRECTORY, fs=disk) as log:
        claims = _claim_all(log, names[:WRITTEN])
        assert not any(appended.duplicate for appended in _append_all(log, claims, 7))
        claims += _fold_all(log, names[WRITTEN:], 7)
    with open_log(DIRECTORY, fs=disk) as log:
        for refused in range(3):
            with pytest.raises(LogError, match=f"at most {PRODUCERS_MAX} producers: 'one more' is refused"):
                log.claim("one more")
            assert log.claim(names[refused], epoch=0).last_sequence == 7, "those that are there still may"
        known = claims[3:]
        assert all(appended.duplicate for appended in _append_all(log, known, 7))
        assert not log.append([reading_batch(1)], claim=known[0], sequence=8).duplicate
        assert log.append([reading_batch(1)], claim=known[0], sequence=8).duplicate
    (newest, *_) = Checkpoints(disk, DIRECTORY).load(STATE)
    tracemalloc.start()
    try:
        restored = restore_state(newest)
        assert restored is not None
        planner = Planner(restored[0], 1, 1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(planner._producers) == PRODUCERS_MAX
    assert held / PRODUCERS_MAX < PRODUCER_BYTES_MAX
