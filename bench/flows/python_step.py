"""The step `python`: what it costs beside the user's function, on batches of 10,000 rows.

The function is one that a user might write with NumPy; it gives a column of its own and leaves the others as they are.
Rows come as the log gives them, and the step notes what it is at in a file, as it does in a flow. What it adds is timed
around each call, with the caches as the function leaves them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ringmain.flows.at_work import Notes
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.step import READINGS, Context, Surroundings
from ringmain.flows.steps.python import PythonSettings
from ringmain.log.interface import Position

ROWS = 10_000


def smoothed(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch:
    """An exponential mean of each series: what a user might write with NumPy."""
    series = rows["series"].to_numpy()
    value = rows["value"].to_numpy()
    mean = state.get("mean")
    if mean is None or len(mean) <= int(series.max()):
        grown = np.full(int(series.max()) + 1, np.nan)
        grown[: 0 if mean is None else len(mean)] = [] if mean is None else mean
        mean = state["mean"] = grown
    before = mean[series]
    after = np.where(np.isnan(before), value, before + 0.1 * (value - before))
    spread = np.abs(after - value)
    after = np.where(spread > 3 * np.median(spread), before, after)
    mean[series] = after
    order = np.argsort(after, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    return rows.set_column(2, "value", pa.array(after + 0.0 * rank))


def run(seconds: float) -> float:
    """Readings a second through the step."""
    return measure(seconds)[0]


def measure(seconds: float) -> tuple[float, float]:
    """Readings a second through the step, and what the step takes beside the function, as a share of it."""
    with TemporaryDirectory() as directory:
        return _measure(seconds, Notes(Path(directory) / "bench", 3))


def _measure(seconds: float, notes: Notes) -> tuple[float, float]:
    surroundings = Surroundings("bench", "out", Path(), ZoneInfo("UTC"), notes=notes)
    context = Context(surroundings, Attributes())
    spent: list[float] = []

    def timed(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch:
        began = time.perf_counter()
        out = smoothed(rows, state)
        spent.append(time.perf_counter() - began)
        return out

    step = PythonSettings(function="bench.flows.python_step:smoothed").make(READINGS, context)
    step._call = timed  # what the step calls is watched from within, so both times are of the same call
    series = np.arange(ROWS, dtype=np.uint32)
    quality = np.zeros(ROWS, np.uint16)
    dice = np.random.default_rng(1)
    whole: list[float] = []
    now = 1_750_000_000_000_000_000
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        now += 1_000_000_000
        columns = readings_block(series, np.full(ROWS, now), dice.normal(size=ROWS), quality, now)
        block = Block(columns.rows, now)
        context.position = Position(1, 0, len(whole) + 1)
        began = time.perf_counter()
        step.take(block)
        step.advance(now + 1)
        whole.append(time.perf_counter() - began)
    beside = statistics.median(total - own for total, own in zip(whole, spent, strict=True))
    return ROWS / statistics.median(whole), beside / statistics.median(spent)


if __name__ == "__main__":
    rate, share = measure(5.0)
    print(f"{rate / 1e6:.1f} M readings/s, {100 * share:+.1f} % beside the function")
