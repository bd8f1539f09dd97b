"""`latest-sum` alone: 10,000 series in 50 feeders, each once in a batch, a row a feeder for each batch."""

from __future__ import annotations

import sys
import time
from typing import cast

import numpy as np
import pyarrow as pa

from bench.flows.folding import Empty
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowSettings, plan_flow
from ringmain.flows.step import Step, StepSettings, Surroundings
from ringmain.flows.steps.latest_sum import LatestSumSettings
from ringmain.log.interface import LogReader
from ringmain.model.schemas import SERIES

SERIES_COUNT = 10_000
FEEDERS = 50
_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND


def catalogue(series: int = SERIES_COUNT, feeders: int = FEEDERS) -> pa.RecordBatch:
    """Series in feeders, 20 to a device."""
    entries = [
        {
            "id": number,
            "key": f"k/{number}",
            "source": "bench",
            "unit": "W",
            "device": f"d{number // 20}",
            "place": f"area/feeder-{number * feeders // series}",
        }
        for number in range(series)
    ]
    return pa.RecordBatch.from_pylist(entries, schema=SERIES)


def step_of(settings: StepSettings) -> Step:
    """A step as a flow of it alone has it."""
    from pathlib import Path
    from zoneinfo import ZoneInfo

    around = Surroundings("bench", "out", Path(), ZoneInfo("UTC"))
    plan = plan_flow("bench", FlowSettings("out", (settings,)), around)
    attributes = Attributes(plan.attributes)
    attributes.learn(catalogue())
    chain = Chain(plan, cast(LogReader, Empty()), attributes=attributes)
    learn = getattr(chain.steps[0], "learn", None)
    if learn is not None:
        learn(catalogue())
    return chain.steps[0]


def batches(count: int = 16, every_ns: int = _SECOND) -> list[Block]:
    """Every series once in each, a second apart."""
    rng = np.random.default_rng(1)
    ids = np.arange(SERIES_COUNT, dtype=np.uint32)
    good = np.zeros(SERIES_COUNT, np.uint16)
    return [
        readings_block(
            ids,
            np.full(SERIES_COUNT, _START + number * every_ns, np.int64),
            rng.normal(100.0, 20.0, SERIES_COUNT),
            good,
            _START + number * every_ns,
        )
        for number in range(count)
    ]


def rate(step: Step, seconds: float, every_ns: int = _SECOND) -> float:
    """Readings a second through the step, one batch an instant. Batches are made beforehand."""
    made = batches(256, every_ns)
    ids, good, values = made[0].series, made[0].quality, [block.value for block in made]
    now, rows, spent = _START, 0, 0.0
    number = 0
    while spent < seconds:
        now += every_ns
        block = readings_block(ids, np.full(len(ids), now, np.int64), values[number % len(values)], good, now)
        number += 1
        begin = time.perf_counter()
        step.advance(now)
        step.take(block)
        spent += time.perf_counter() - begin
        rows += len(block)
    return rows / spent


def run(seconds: float = 2.0) -> float:
    """Readings a second."""
    return rate(step_of(LatestSumSettings(by=("place",))), seconds)


if __name__ == "__main__":
    print(f"latest-sum: {run(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0) / 1e6:.1f} M readings/s")
