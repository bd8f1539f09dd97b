"""Outputs that are handed to the log while folding goes on are there once each, in order, whatever the log answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from msgspec.structs import replace

from ringmain.flows.block import Block
from ringmain.flows.output import Committer
from ringmain.log import Journal, open_log
from ringmain.log.interface import (
    FencedError,
    Frame,
    LogError,
    LogFailedError,
    LogFullError,
    Position,
    StreamKind,
)
from ringmain.model.schemas import READING

from .real_log import SECOND, START, Feed

ROWS = 30_000
"""Of an output: enough to be sent, in two frames."""


class _Flow:
    """Gives `ROWS` rows for each frame of its input."""

    def __init__(self, log: Journal) -> None:
        self.log = log
        self.waited: list[Exception] = []
        self.sending = threading.Semaphore(1)
        claim = log.claim("flow/f")
        before = claim.positions.get("flow/f")
        committed = None if before is None else Position.parse(before.decode())
        self.committer = Committer(log, claim, committed, self._wait, lambda: None)

    def _wait(self, seconds: float, error: Exception) -> bool:
        self.waited.append(error)
        return True

    def fold(self, frame: Frame) -> None:
        frame = replace(frame, arrival_ns=START)  # long ago: the flow is behind
        number = float(frame.time_min_ns - START)
        rows = pa.RecordBatch.from_arrays(
            [
                pa.array(np.arange(ROWS, dtype=np.uint32)),
                pa.array(np.full(ROWS, START)).view(READING.field("time").type),
                pa.array(np.full(ROWS, number)),
                pa.array(np.zeros(ROWS, np.uint16)),
            ],
            schema=READING,
        )
        self.committer.take(frame, [Block(rows, frame.arrival_ns, "out")])
        self.committer.send(self.sending)


def _input(log: Journal, frames: int) -> list[Frame]:
    log.create_stream("out", StreamKind.READING, READING)
    feed = Feed(log)
    for number in range(frames):
        feed.readings([(0, START + number, 1.0, 0)], START + number * SECOND)
    return list(log.read("readings"))


def _given(log: Journal) -> list[float]:
    """The numbers of the outputs that are there, one for each time that all rows are."""
    values = [frame.rows.column("value").to_numpy() for frame in log.read("out")]
    return np.concatenate([np.zeros(0), *values])[::ROWS].tolist()  # type: ignore[no-any-return]


def _answering(log: Journal, answer: Callable[[int], LogError | None]) -> list[int]:
    """Let the log refuse appends that nobody waits for, by their number; the sequences of those that came."""
    real, sequences = log.append_nowait, []

    def append_nowait(batches: Any, done: Any, *, claim: Any, sequence: int, positions: Any = None) -> None:
        sequences.append(sequence)
        error = answer(len(sequences))
        if error is not None:
            done(None, error)
        else:
            real(batches, done, claim=claim, sequence=sequence, positions=positions)

    log.append_nowait = append_nowait  # type: ignore[method-assign]
    return sequences


@pytest.mark.parametrize("error", [LogFullError("no space"), LogFailedError("no disk")])
def test_what_the_log_does_not_take_is_sent_again_before_what_follows(
    tmp_path: Path, error: LogError
) -> None:
    with open_log(tmp_path) as log:
        frames = _input(log, 12)
        sent = _answering(log, lambda number: error if number % 2 else None)
        flow = _Flow(log)
        for frame in frames:
            flow.fold(frame)
        flow.committer.commit()
        assert len(sent) > 1
        assert flow.waited
        assert _given(log) == [float(number) for number in range(12)]
        assert flow.committer.committed == frames[-1].position
        assert log.positions("flow/f")["flow/f"] == str(frames[-1].position).encode()
        assert flow.sending.acquire(blocking=False)


def test_a_flow_that_dies_with_an_append_on_its_way_goes_on_behind_what_the_log_took(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        frames = _input(log, 30)
        for life in range(10):
            flow = _Flow(log)
            start = flow.committer.committed
            left = [frame for frame in frames if start is None or frame.position.offset > start.offset]
            for frame in left[: 1 + life % 4]:
                flow.fold(frame)
        last = _Flow(log)
        start = last.committer.committed
        assert start is not None
        for frame in frames:
            if frame.position.offset > start.offset:
                last.fold(frame)
        last.committer.commit()
        assert _given(log) == [float(number) for number in range(30)]


def test_one_that_was_fenced_is_told_when_it_waits_for_what_it_sent(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        frames = _input(log, 2)
        flow = _Flow(log)
        log.claim("flow/f")
        flow.fold(frames[0])
        flow.fold(frames[1])
        with pytest.raises(FencedError):
            flow.committer.commit()
        assert _given(log) == []
