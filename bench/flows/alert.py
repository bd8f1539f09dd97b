"""Speed of step `alert`: a threshold with hysteresis and hold time over 100 k series, in batches of 10 k readings.

One reading in a thousand is beyond the limit. `python -m bench.flows.alert` prints it, beside other conditions.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.step import READINGS, Context, Surroundings
from ringmain.flows.steps.alert import AlertSettings

SERIES = 100_000
BATCH = 10_000
_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND


def _rounds(shuffled: bool) -> Iterator[list[Block]]:
    """Every series once in each, ten seconds after the one before."""
    random = np.random.default_rng(5)
    order = random.permutation(SERIES) if shuffled else np.arange(SERIES)
    for number in itertools.count(1):
        blocks = []
        for start in range(0, SERIES, BATCH):
            value = random.normal(230.0, 5.0, BATCH)
            value[random.integers(0, BATCH, BATCH // 1000)] = 300.0
            arrival = _START + (number * 10 + start // BATCH) * _SECOND
            stamp = np.full(BATCH, arrival - _SECOND // 2)
            series = order[start : start + BATCH].astype(np.uint32)
            blocks.append(readings_block(series, stamp, value, np.zeros(BATCH, np.uint16), arrival))
        yield blocks


def measure(settings: AlertSettings, seconds: float, *, shuffled: bool = False) -> float:
    """Readings a second of one core, once every series is known."""
    around = Surroundings("bench", "alarms", Path(), ZoneInfo("UTC"))
    attributes = Attributes(settings.plan(READINGS, around).attributes)
    step = settings.make(READINGS, Context(around, attributes))
    rows, spent = 0, 0.0
    for number, blocks in enumerate(_rounds(shuffled)):
        began = time.perf_counter()
        for block in blocks:
            step.advance(block.arrival_ns)
            step.take(block)
        if number:
            rows += SERIES
            spent += time.perf_counter() - began
        if spent > seconds:
            break
    return rows / spent


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure(CASES["threshold"], seconds)


CASES = {
    name: msgspec.convert(table, AlertSettings)
    for name, table in {
        "threshold": {"above": 253.0, "clear_below": 250.0, "for": "1m"},
        "rate": {"rate_above": 100.0, "per": "10s"},
        "silence": {"silent": "5m"},
        "quality": {"bad": 5, "of": 20},
        "all": {"all": [{"above": 253.0}, {"rate_above": 100.0, "per": "10s"}, {"silent": "1h"}]},
    }.items()
}

if __name__ == "__main__":
    for name, settings in CASES.items():
        plain, shuffled = measure(settings, 1.0) / 1e6, measure(settings, 1.0, shuffled=True) / 1e6
        print(f"{name:10} {plain:6.1f} M/s, series in random order {shuffled:6.1f} M/s")
