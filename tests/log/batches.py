"""Batches for tests, and small ways to look at a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from ringmain.log.interface import Batch, Frame
from ringmain.model.schemas import READING, TIMESTAMP

NOTE = pa.schema([pa.field("time", TIMESTAMP, nullable=False), pa.field("text", pa.string())])


def readings(count: int, start: int = 0, value: float = 0.0) -> pa.RecordBatch:
    """`count` readings of series 0.. with times start, start + 1 ... ns and values from `value` on."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(count, dtype=np.uint32)),
            pa.array(np.arange(start, start + count, dtype=np.int64)).cast(TIMESTAMP),
            pa.array(np.arange(count, dtype=np.float64) + value),
            pa.array(np.zeros(count, np.uint16)),
        ],
        schema=READING,
    )


def notes(*texts: str | None, start: int = 0) -> pa.RecordBatch:
    """Rows of schema `NOTE`."""
    times = pa.array(np.arange(start, start + len(texts), dtype=np.int64)).cast(TIMESTAMP)
    return pa.RecordBatch.from_arrays([times, pa.array(texts, pa.string())], schema=NOTE)


def reading_batch(count: int, start: int = 0, value: float = 0.0) -> Batch:
    """`readings` for stream readings."""
    return Batch("readings", readings(count, start, value))


def values(frames: Iterable[Frame]) -> list[float]:
    """All values of frames of readings."""
    return [value for frame in frames for value in frame.rows.column("value").to_pylist()]


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Return once `condition` holds; fail the test when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.002)
