"""The readings of a frame that take part in windows, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import SERIES_MAX as SERIES_MAX
from ringmain.flows.block import numbers
from ringmain.flows.totals import Floats, Ids, Ints
from ringmain.model.quality import VALIDITY_MASK

EARLIEST_NS = -2_208_988_800_000_000_000
"""1900-01-01: a reading that claims an earlier time stays outside windows and watermarks."""
INVALID_BIT = VALIDITY_MASK & 2

Grades = NDArray[np.uint8]
"""How good readings are, as far as windows care."""
GOOD, QUESTIONABLE, INVALID = 0, 1, 2
VALID_MAX = QUESTIONABLE


@dataclass(frozen=True, slots=True)
class Rejected:
    """Readings that take no part in windows and watermarks: too far ahead; before 1900 or of no known series."""

    ahead: int = 0
    unusable: int = 0


_NONE = Rejected()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The readings of a frame that take part, in order; `grade=None`: all are good. Their times lie within the bounds."""

    series: Ids
    time: Ints
    value: Floats
    grade: Grades | None
    rejected: Rejected
    time_min: int
    time_max: int

    def __len__(self) -> int:
        return len(self.series)


def accepted(rows: pa.RecordBatch, arrival_ns: int, max_ahead_ns: int, *, graded: bool = False) -> Accepted:
    """What of some rows that arrived together takes part in windows and watermarks.

    Values are without negative zeros, so that minimum and maximum do not depend on the order of additions.
    `graded=False`: whatever is valid is good. The passes over the columns are few: each costs other threads of the
    process a wait for the interpreter.
    """
    series = numbers(rows, "series", np.uint32)
    time = numbers(rows, "time", np.int64)
    value: Floats = numbers(rows, "value", np.float64) + 0.0
    quality = numbers(rows, "quality", np.uint16)
    rejected = _NONE
    if not len(series):
        return Accepted(series, time, value, None, rejected, 0, 0)
    limit = arrival_ns + max_ahead_ns
    time_min, time_max = int(time.min()), int(time.max())
    if time_max > limit or time_min < EARLIEST_NS or int(series.max()) >= SERIES_MAX:
        ahead, unusable = time > limit, (time < EARLIEST_NS) | (series >= SERIES_MAX)
        keep = ~(ahead | unusable)
        rejected = Rejected(int((ahead & ~unusable).sum()), int(unusable.sum()))
        series, time, value, quality = series[keep], time[keep], value[keep], quality[keep]
        if not len(series):
            return Accepted(series, time, value, None, rejected, 0, 0)
        time_min, time_max = int(time.min()), int(time.max())
    grade = None
    if quality.any() or np.isnan(value.min()):
        invalid = (quality & INVALID_BIT) != 0
        invalid |= np.isnan(value)
        grade = np.where(invalid, INVALID, quality & QUESTIONABLE if graded else GOOD).astype(np.uint8)
        if not grade.any():
            grade = None
    return Accepted(series, time, value, grade, rejected, time_min, time_max)
