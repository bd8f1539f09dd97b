"""What the measurements of steps that look at each row by itself share: a fleet of which the catalogue knows everything.

10,000 series in a frame, each once: half of them electricity in W, the rest gas in m3 and heat in kW.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.step import READINGS, Context, Shape, Step, StepSettings, Surroundings
from ringmain.model.schemas import SERIES

SERIES_COUNT = 10_000
_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND
_KINDS = (("electricity", "W"), ("electricity", "W"), ("gas", "m3"), ("heat", "kW"))


def entries() -> pa.RecordBatch:
    """The fleet's catalogue."""
    rows = []
    for number in range(SERIES_COUNT):
        medium, unit = _KINDS[number % len(_KINDS)]
        place = f"area-{number % 7}/ss-{number % 50}/feeder-{number % 200}"
        rows.append(
            {"id": number, "key": f"{place}/{number}", "unit": unit, "medium": medium, "place": place}
        )
    return pa.RecordBatch.from_pylist(rows, schema=SERIES)


def frames(count: int = 50, *, shuffled: bool = False) -> list[Block]:
    """Frames of the fleet; `shuffled`: each in an order of its own."""
    random = np.random.default_rng(3)
    blocks = []
    for number in range(count):
        series = np.arange(SERIES_COUNT, dtype=np.uint32)
        if shuffled:
            random.shuffle(series)
        blocks.append(
            readings_block(
                series,
                np.full(SERIES_COUNT, _START + number * _SECOND),
                random.normal(500.0, 200.0, SERIES_COUNT),
                np.zeros(SERIES_COUNT, np.uint16),
                _START + number * _SECOND,
            )
        )
    return blocks


def made(settings: Sequence[StepSettings], shape: Shape = READINGS) -> list[Step]:
    """Steps one behind the other, with the fleet's catalogue."""
    around = Surroundings("bench", "out", Path(), ZoneInfo("Europe/Berlin"))
    shapes, names = [shape], set()
    for one in settings:
        plan = one.plan(shapes[-1], around)
        names |= plan.attributes
        shapes.append(plan.shape)
    attributes = Attributes(names)
    attributes.learn(entries())
    return [
        one.make(before, Context(around, attributes))
        for one, before in zip(settings, shapes[:-1], strict=True)
    ]


def measure(settings: Sequence[StepSettings], seconds: float, *, shuffled: bool = False) -> float:
    """Readings a second that come into a chain of steps, on one core."""
    steps = made(settings)
    blocks = frames(shuffled=shuffled)
    _pass(steps, blocks[:1])
    rows, spent = 0, 0.0
    clock: Callable[[], float] = time.perf_counter
    with np.errstate(all="ignore"):
        while spent < seconds:
            began = clock()
            rows += _pass(steps, blocks)
            spent += clock() - began
    return rows / spent


def _pass(steps: list[Step], blocks: list[Block]) -> int:
    rows = 0
    for block in blocks:
        rows += len(block)
        going = [block]
        for step in steps:
            going = [out for part in going for out in step.take(part) if out.stream is None and len(out)]
    return rows
