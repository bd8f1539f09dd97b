"""Frames of a fleet for the steps that need order of time: 10 k series, each once in a frame, a frame a second."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.step import READINGS, Context, Shape, StepSettings, Surroundings

SERIES = 10_000
_FRAMES = 200
_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND


@cache
def fleet(registers: bool, jitter: bool) -> list[Block]:
    """Voltages that walk, or registers that rise. `jitter`: every device has stamps of its own."""
    random = np.random.default_rng(5)
    blocks = []
    value = random.normal(230.0, 2.0, SERIES)
    for number in range(_FRAMES):
        arrival = _START + number * _SECOND
        value = value + (random.random(SERIES) if registers else random.normal(0.0, 0.2, SERIES))
        stamp = np.full(SERIES, arrival - _SECOND // 2)
        if jitter:
            stamp -= random.integers(0, _SECOND // 4, SERIES)
        blocks.append(
            readings_block(
                np.arange(SERIES, dtype=np.uint32), stamp, value, np.zeros(SERIES, np.uint16), arrival
            )
        )
    return blocks


def measure(
    settings: StepSettings,
    seconds: float,
    *,
    registers: bool = False,
    jitter: bool = False,
    shape: Shape = READINGS,
) -> float:
    """Readings a second of one core through the step alone."""
    around = Surroundings("bench", "out", Path(), ZoneInfo("Europe/Berlin"))
    attributes = Attributes(settings.plan(shape, around).attributes)
    blocks = fleet(registers, jitter)
    rows, spent = 0, 0.0
    while spent < seconds:
        step = settings.make(shape, Context(around, attributes))
        step.advance(_START - 1)
        step.take(blocks[0].take(np.arange(1)))
        step.advance(_START - 1)  # compiled now, if it is compiled
        began = time.perf_counter()
        with np.errstate(all="ignore"):
            for block in blocks:
                step.advance(block.arrival_ns)
                step.take(block)
                rows += len(block)
        spent += time.perf_counter() - began
    return rows / spent
