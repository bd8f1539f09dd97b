"""The window step alone: 10,000 series, each once a second in one block, windows of a minute that revise."""

from __future__ import annotations

import time
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from bench.flows.folding import Empty, readings
from ringmain.flows.attributes import Attributes
from ringmain.flows.step import READINGS, Context, Surroundings
from ringmain.flows.steps.window import WindowStepSettings

SERIES = 10_000
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def run(
    seconds: float, settings: WindowStepSettings | None = None, *, late_share: float = 0.0, late_s: int = 150
) -> float:
    """Readings a second. `late_share`: this part of the readings comes again with another value, `late_s` later."""
    settings = WindowStepSettings() if settings is None else settings
    context = Context(Surroundings("bench", "out", Path(), ZoneInfo("UTC")), Attributes(), history=Empty())
    step = settings.make(READINGS, context)
    chance = np.random.default_rng(1)
    series = np.arange(SERIES, dtype=np.uint32)
    values = [chance.normal(100, 10, SERIES) for _ in range(16)]
    late = int(SERIES * late_share)
    blocks = rows = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _ in range(50):
            now = START + blocks * SECOND
            times = np.full(SERIES, now)
            ids, of_times, of_values = series, times, values[blocks % 16]
            if late and blocks > late_s:
                ids = np.concatenate((ids, chance.choice(series, late, replace=False)))
                of_times = np.concatenate((times, np.full(late, now - late_s * SECOND)))
                of_values = np.concatenate((of_values, chance.normal(100, 10, late)))
            block = readings(ids, of_times, of_values, now)
            step.advance(now)
            step.take(block)
            blocks += 1
            rows += len(ids)
    return rows / (time.perf_counter() - begin)
