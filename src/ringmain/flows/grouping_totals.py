"""What a group's window is made of, and the one definition of its values: a fold in order of series.

Each series gives what its own window adds up to (`totals.Totals`). Of a group these are combined one after the other in
order of series, starting from 0.0, so that the result depends neither on the order of arrival nor on which device was
heard of first. Series whose window holds no valid reading are not there.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pyarrow as pa

from ringmain.flows.aggregates import Aggregate
from ringmain.flows.block import Bools, Floats, Ints
from ringmain.flows.grouping import Term, group_fields
from ringmain.flows.totals import Totals
from ringmain.model.schemas import TIMESTAMP


class GroupValue(StrEnum):
    """A column of a group's window; the value is its name in configuration and in the stream."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM_OF_MEANS = "sum_of_means"


NEEDS = {
    GroupValue.COUNT: (),
    GroupValue.SUM: (Aggregate.SUM,),
    GroupValue.MEAN: (Aggregate.SUM,),
    GroupValue.MIN: (Aggregate.MIN,),
    GroupValue.MAX: (Aggregate.MAX,),
    GroupValue.SUM_OF_MEANS: (Aggregate.SUM,),
}
"""What of a series' window each value is made of."""


def per_series(values: tuple[GroupValue, ...]) -> tuple[Aggregate, ...]:
    """What windows of series must be computed for."""
    needed = {Aggregate.COUNT, *(aggregate for value in values for aggregate in NEEDS[value])}
    return tuple(aggregate for aggregate in Aggregate if aggregate in needed)


def group_schema(terms: tuple[Term, ...], values: tuple[GroupValue, ...]) -> pa.Schema:
    """Group, start, end, the values, series that contributed, series known, their ratio, revision."""
    columns = [
        pa.field(value.value, pa.int64(), nullable=False)
        if value is GroupValue.COUNT
        else pa.field(value.value, pa.float64())
        for value in values
    ]
    return pa.schema(
        [
            *group_fields(terms),
            pa.field("start", TIMESTAMP, nullable=False),
            pa.field("end", TIMESTAMP, nullable=False),
            *columns,
            pa.field("reporting", pa.int64(), nullable=False),
            pa.field("expected", pa.int64(), nullable=False),
            pa.field("completeness", pa.float64(), nullable=False),
            pa.field("revision", pa.uint32(), nullable=False),
        ]
    )


def combined(place: Ints, totals: Totals, rows: int, values: tuple[GroupValue, ...]) -> tuple[Floats, Ints]:
    """Values (one column each) and the number of series, by row.

    `place`: the row that each series' totals belong to; those of a row are in order of series, with a count above 0.
    """
    matrix = np.full((rows, len(values)), np.nan)
    series = np.bincount(place, minlength=rows).astype(np.int64)
    count = _added(place, totals.count.astype(np.float64), rows)
    none: Bools = series == 0
    for number, value in enumerate(values):
        matrix[:, number] = _column(value, place, totals, rows, count)
        if value is not GroupValue.COUNT:
            matrix[none, number] = np.nan
    return matrix, series


def _column(value: GroupValue, place: Ints, totals: Totals, rows: int, count: Floats) -> Floats:
    if value is GroupValue.COUNT:
        return count
    if value is GroupValue.SUM:
        return _added(place, totals.sum, rows)
    if value is GroupValue.MEAN:
        return _added(place, totals.sum, rows) / np.maximum(count, 1.0)
    if value is GroupValue.SUM_OF_MEANS:
        return _added(place, totals.sum / totals.count, rows)
    if value is GroupValue.MIN:
        lowest = np.full(rows, np.inf)
        np.minimum.at(lowest, place, totals.min)
        return lowest
    highest = np.full(rows, -np.inf)
    np.maximum.at(highest, place, totals.max)
    return highest


def _added(place: Ints, numbers: Floats, rows: int) -> Floats:
    """Sums by row; `bincount` adds one after the other in the order given."""
    return np.bincount(place, weights=numbers, minlength=rows).astype(np.float64, copy=False)
