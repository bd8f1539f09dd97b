"""Inputs for steps that look at each row by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.step import READINGS, StepSettings
from ringmain.model.schemas import SERIES
from tests.flows.steps.driving import Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import at, context

KNOWN: dict[int, dict[str, str | None]] = {
    0: {"unit": "W", "medium": "electricity", "place": "area-1/ss-1"},
    1: {"unit": "kW", "medium": "gas", "place": "area-1/ss-2"},
    2: {"unit": None, "medium": None, "place": "area-2"},
}
"""Series 0 to 2 as `histories` uses them; 900 and beyond are unknown."""


def learn(
    names: Sequence[str], known: Mapping[int, Mapping[str, Any]], attributes: Attributes | None = None
) -> Attributes:
    """A catalogue, or more of one."""
    attributes = Attributes(names) if attributes is None else attributes
    entries = [{"id": series, "key": f"key/{series}", **told} for series, told in known.items()]
    attributes.learn(pa.RecordBatch.from_pylist(entries, schema=SERIES))
    return attributes


def blocks(*values: Sequence[float], series: Sequence[int] | None = None, quality: int = 0) -> list[Block]:
    """A block for each list of values."""
    return [
        readings_block(
            np.array(range(len(part)) if series is None else series, np.uint32),
            np.full(len(part), at(number), np.int64),
            np.array(part, np.float64),
            np.full(len(part), quality, np.uint16),
            at(number),
        )
        for number, part in enumerate(values)
    ]


def values_of(given: Sequence[Block]) -> list[float]:
    """The values of blocks."""
    return [value for block in given for value in block.value.tolist()]


def kept(step: StepSettings, *values: float) -> list[float]:
    """The values that a step gives of one block of these."""
    return values_of(step.make(READINGS, context()).take(blocks(values)[0]))


def rows_of(
    step: StepSettings, instants: Sequence[Instant], *, stream: str = "out", **about: Any
) -> list[tuple[Any, ...]]:
    """(series, value) of the rows that a flow of this one step gives."""
    found = run(plan_of(step), record(instants, **about))
    return [(row["series"], row["value"]) for row in found.get(stream, [])]
