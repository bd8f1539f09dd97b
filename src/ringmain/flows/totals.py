"""What a window adds up to, and the one definition of it: a fold in time order, value by value.

A window's values are those of its readings with one reading for each series and time: the newest in log order.
Readings without a valid value (validity invalid, or NaN) take part in that choice and are then left out, so that
a value can be taken back. Sums start at 0.0 and add float64 values one after the other in time order; the mean
is that sum divided by the count. The incremental path in `accumulation.py` does the same additions in the same order.

Standard deviations come from sums of differences to the window's first value d: (sum(d*d) - sum(d)**2 / n) / (n - 1).
Because the shift is a value of the window, what is lost to cancellation is at most a factor of n (Chan, Golub, LeVeque,
"Algorithms for computing the sample variance", The American Statistician 37, 1983, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.aggregates import Accumulator, Aggregate
from ringmain.model.schemas import TIMESTAMP

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.uint32]

_BASE = ("count", "sum", "min", "max", "first", "last")
_HOUR_NS = 3_600_000_000_000
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Totals:
    """Columns of equal length, one element a window. Where `count` is 0 the others say nothing."""

    count: Ints
    sum: Floats
    min: Floats
    max: Floats
    first: Floats
    last: Floats
    extra: dict[Accumulator, Floats] = field(default_factory=dict, kw_only=True)

    @classmethod
    def empty(cls, windows: int, extra: tuple[Accumulator, ...] = ()) -> Totals:
        """Windows without readings."""
        return cls(
            np.zeros(windows, np.int64),
            np.zeros(windows),
            np.full(windows, np.inf),
            np.full(windows, -np.inf),
            np.zeros(windows),
            np.zeros(windows),
            extra={name: np.zeros(windows) for name in extra},
        )

    def take(self, index: Ints | Bools) -> Totals:
        """The windows at these places."""
        return Totals(
            self.count[index],
            self.sum[index],
            self.min[index],
            self.max[index],
            self.first[index],
            self.last[index],
            extra={name: values[index] for name, values in self.extra.items()},
        )

    def put(self, index: Ints, other: Totals) -> None:
        """Take over other windows at these places."""
        for name in _BASE:
            getattr(self, name)[index] = getattr(other, name)
        for extra, values in self.extra.items():
            values[index] = other.extra[extra]

    @staticmethod
    def concatenate(parts: list[Totals]) -> Totals:
        """The windows of all parts, one after the other."""
        return Totals(
            np.concatenate([part.count for part in parts]),
            np.concatenate([part.sum for part in parts]),
            np.concatenate([part.min for part in parts]),
            np.concatenate([part.max for part in parts]),
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.last for part in parts]),
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra},
        )

    def matrix(self, columns: tuple[Aggregate, ...], expected: Floats | None = None) -> Floats:
        """The values of `columns`, one row a window; NaN where a window has none.

        `expected`: how many readings each window should have, for `completeness`.
        """
        values = np.empty((len(self.count), len(columns)), order="F")
        empty = self.count == 0
        some_empty = bool(empty.any())
        for place, column in enumerate(columns):
            values[:, place] = self._column(column, expected)
            if some_empty and column is not Aggregate.COUNT:
                values[empty, place] = np.nan
        return values

    def _column(self, column: Aggregate, expected: Floats | None) -> Floats | Ints:
        extra = self.extra
        count = np.maximum(self.count, 1)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            match column:
                case Aggregate.MEAN:
                    return self.sum / count
                case Aggregate.RANGE:
                    return self.max - self.min
                case Aggregate.DELTA:
                    return self.last - self.first
                case Aggregate.STD:
                    shifted, squared = extra[Accumulator.SHIFTED], extra[Accumulator.SQUARED]
                    variance = (squared - shifted * shifted / count) / np.maximum(self.count - 1, 1)
                    return np.where(self.count > 1, np.sqrt(np.maximum(variance, 0.0)), np.nan)
                case Aggregate.TWA:
                    return extra[Accumulator.AREA] / extra[Accumulator.COVERED]
                case Aggregate.INTEGRAL:
                    return extra[Accumulator.AREA] / _HOUR_NS
                case Aggregate.DURATION:
                    return extra[Accumulator.ACTIVE] / _SECOND_NS
                case Aggregate.COMPLETENESS:
                    assert expected is not None
                    return 100.0 * self.count / expected
                case Aggregate.GOOD:
                    return 100.0 * extra[Accumulator.GOOD] / np.maximum(extra[Accumulator.READINGS], 1.0)
                case _:
                    found: Floats | Ints = getattr(self, column.value)
                    return found


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
