"""`join` alone: 10,000 series, each once in a batch, with the row as of their time of a reference of 1,000 rows.

The reference has 50 feeders with 20 versions each, 30 s apart; the readings pass through them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa

from bench.flows.latest_sum import FEEDERS, catalogue, rate
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowSettings, plan_flow
from ringmain.flows.step import Shape, Surroundings
from ringmain.flows.steps.join import JoinSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import TIMESTAMP

_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND
_SCHEMA = pa.schema(
    [pa.field("time", TIMESTAMP), pa.field("place", pa.string()), pa.field("price", pa.float64())]
)


def run(seconds: float = 2.0) -> float:
    """Readings a second."""
    settings = JoinSettings(with_="prices", on=("place",), tolerance="100d")
    schemas = {"prices": Shape(StreamKind.ROW, _SCHEMA)}
    around = Surroundings("bench", "out", Path(), ZoneInfo("UTC"), schemas)
    plan = plan_flow("bench", FlowSettings("out", (settings,)), around)
    attributes = Attributes(plan.attributes)
    attributes.learn(catalogue())
    step = Chain(plan, attributes=attributes).steps[0]
    rows = [
        (_START + version * 30 * _SECOND, f"area/feeder-{n}") for version in range(20) for n in range(FEEDERS)
    ]
    reference = pa.RecordBatch.from_arrays(
        [
            pa.array([row[0] for row in rows], pa.int64()).cast(TIMESTAMP),
            pa.array([row[1] for row in rows]),
            pa.array([float(number) for number in range(len(rows))]),
        ],
        schema=_SCHEMA,
    )
    step.take_other("prices", Block(reference, _START))  # type: ignore[attr-defined]
    return rate(step, seconds, every_ns=_SECOND)


if __name__ == "__main__":
    print(f"join: {run(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0) / 1e6:.1f} M readings/s")
