"""Revisions of windows long gone from memory: corrections of readings anywhere in the last 35 days, from log to log.

A log of five weeks is recorded and folded; then corrections come, each for another window, a few hundred in each second
of log time. The clock runs from the first of them until the revisions of all are durable.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.flows.folding import readings
from bench.harness import scratch
from ringmain.flows.block import Block
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState, SnapshotPolicy
from ringmain.flows.runner import FlowRunner
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.log import Journal, open_log
from ringmain.log.interface import Batch
from ringmain.model.schemas import TICK, TIMESTAMP
from ringmain.runtime.counters import Counters

SECOND = 1_000_000_000
START = 1_750_000_000 // 3600 * 3600 * SECOND
DAYS = 35


class Feed:
    """Appends readings and ticks whose log time is what the measurement says."""

    def __init__(self, log: Journal) -> None:
        self._log = log
        self._claim = log.claim("bench")
        self._sequence = 0

    def block(self, block: Block) -> None:
        """Readings."""
        self._append(Batch("readings", block.rows, block.arrival_ns))

    def tick(self, now_ns: int) -> None:
        """Log time moves."""
        tick = pa.record_batch([pa.array([now_ns], TIMESTAMP)], schema=TICK)
        self._append(Batch("ticks", tick, now_ns))

    def _append(self, batch: Batch) -> None:
        self._sequence += 1
        self._log.append([batch], claim=self._claim, sequence=self._sequence)


def run(
    seconds: float = 0.0,
    *,
    series: int = 5_000,
    per_second: int = 500,
    corrections: int = 10_000,
    hours_apart: float = 0.5,
) -> float:
    """Windows revised a second. `seconds` is not looked at: the work is fixed."""
    with scratch() as directory, open_log(Path(directory) / "data") as log:
        feed = Feed(log)
        now = _record(feed, series, hours_apart)
        flow = FlowRunner(
            "late",
            FlowSettings("out", (WindowStepSettings(window="1h", idle="3h"),)),
            log,
            Counters(),
            Path(directory) / "snapshots",
            policy=SnapshotPolicy(refold_s=1e9, interval_s=1e9),
        )
        flow.start()
        _wait(flow)
        before = flow.status().revisions
        for begin in range(0, corrections, per_second):
            now += SECOND
            feed.block(_corrections(begin, min(per_second, corrections - begin), series, hours_apart, now))
        began = time.perf_counter()
        feed.tick(now + 100 * SECOND)
        _wait(flow)
        spent = time.perf_counter() - began
        revised = flow.status().revisions - before
        flow.stop()
    if revised != corrections:
        raise RuntimeError(f"expected {corrections} windows to be revised, found {revised}")
    return revised / spent


def _record(feed: Feed, series: int, hours_apart: float) -> int:
    chance = np.random.default_rng(1)
    ids = np.arange(series, dtype=np.uint32)
    values = [chance.normal(100, 10, series).round(3) for _ in range(16)]
    now = START
    for number in range(int(DAYS * 24 / hours_apart)):
        now = START + int(number * hours_apart * 3600) * SECOND
        feed.block(readings(ids, np.full(series, now), values[number % 16], now))
    return now


def _corrections(begin: int, count: int, series: int, hours_apart: float, now: int) -> Block:
    """One for each of some windows, no window twice, all over the time."""
    chance = np.random.default_rng(begin)
    ids = ((np.arange(begin, begin + count) * 7919) % series).astype(np.uint32)
    hours = (
        chance.integers(0, (DAYS * 24 - 8) // 2, count) * 2 + np.arange(begin, begin + count) // series % 2
    )
    times = START + hours * 3600 * SECOND
    return readings(ids, times, chance.normal(500, 10, count), now)


def _wait(flow: FlowRunner) -> None:
    while not flow.caught_up():
        if flow.state is FlowState.FAILED:
            raise RuntimeError(flow.status().last_error)
        time.sleep(0.002)
