"""What a window adds up to, and the one definition of it: a fold in time order, value by value.

A window's values are those of its readings with one reading for each series and time: the newest in log order.
Readings without a valid value (validity invalid, or NaN) take part in that choice and are then left out, so that
a value can be taken back. Sums start at 0.0 and add float64 values one after the other in time order; the mean
is that sum divided by the count. The incremental path in `window.py` does the same additions in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.aggregates import Aggregate
from ringmain.model.schemas import TIMESTAMP

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.uint32]


@dataclass(slots=True)
class Totals:
    """Columns of equal length, one element a window. Where `count` is 0 the others say nothing."""

    count: Ints
    sum: Floats
    min: Floats
    max: Floats
    first: Floats
    last: Floats

    @classmethod
    def empty(cls, windows: int) -> Totals:
        """Windows without readings."""
        return cls(
            np.zeros(windows, np.int64),
            np.zeros(windows),
            np.full(windows, np.inf),
            np.full(windows, -np.inf),
            np.zeros(windows),
            np.zeros(windows),
        )

    def take(self, index: Ints | Bools) -> Totals:
        """The windows at these places."""
        return Totals(*(getattr(self, name)[index] for name in self.__slots__))

    def put(self, index: Ints, other: Totals) -> None:
        """Take over other windows at these places."""
        for name in self.__slots__:
            getattr(self, name)[index] = getattr(other, name)

    @staticmethod
    def concatenate(parts: list[Totals]) -> Totals:
        """The windows of all parts, one after the other."""
        return Totals(*(np.concatenate([getattr(part, name) for part in parts]) for name in Totals.__slots__))

    def matrix(self, columns: tuple[Aggregate, ...]) -> Floats:
        """The values of `columns`, one row a window; NaN where a window without readings has none."""
        values = np.empty((len(self.count), len(columns)))
        empty = self.count == 0
        for place, column in enumerate(columns):
            if column is Aggregate.COUNT:
                values[:, place] = self.count
                continue
            if column is Aggregate.MEAN:
                with np.errstate(invalid="ignore"):
                    values[:, place] = self.sum / np.maximum(self.count, 1)
            else:
                values[:, place] = getattr(self, column.value)
            values[empty, place] = np.nan
        return values


def fold(window: Ints, time: Ints, value: Floats, valid: Bools, windows: int) -> Totals:
    """Readings in log order to the totals of their windows; `window` numbers each reading's window from 0."""
    totals = Totals.empty(windows)
    if not len(window):
        return totals
    order = np.lexsort((time, window))
    window, time = window[order], time[order]
    newest = np.empty(len(order), np.bool_)
    newest[-1] = True
    np.not_equal(time[1:], time[:-1], out=newest[:-1])
    newest[:-1] |= window[1:] != window[:-1]
    keep = newest & valid[order]
    window, value = window[keep], value[order[keep]]
    if not len(window):
        return totals
    starts = np.flatnonzero(np.concatenate(([True], window[1:] != window[:-1])))
    ends = np.concatenate((starts[1:], [len(window)])) - 1
    present = window[starts]
    totals.count = np.bincount(window, minlength=windows)
    totals.sum = np.bincount(window, weights=value, minlength=windows).astype(np.float64, copy=False)
    totals.min[present] = np.minimum.reduceat(value, starts)
    totals.max[present] = np.maximum.reduceat(value, starts)
    totals.first[present] = value[starts]
    totals.last[present] = value[ends]
    return totals


def window_schema(columns: tuple[Aggregate, ...]) -> pa.Schema:
    """The schema of a window stream: series, start, end, the values, revision."""
    values = [
        pa.field(column.value, pa.int64(), nullable=False)
        if column is Aggregate.COUNT
        else pa.field(column.value, pa.float64())
        for column in columns
    ]
    return pa.schema(
        [
            pa.field("series", pa.uint32(), nullable=False),
            pa.field("start", TIMESTAMP, nullable=False),
            pa.field("end", TIMESTAMP, nullable=False),
            *values,
            pa.field("revision", pa.uint32(), nullable=False),
        ]
    )


LATE = pa.schema(
    [
        pa.field("series", pa.uint32(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("value", pa.float64()),
        pa.field("quality", pa.uint16()),
        pa.field("arrived", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""The schema of `TO.late`: late readings (late = "side"), and windows that could not be computed from the log
any more (`time` is then the window's start, value and quality are null)."""
