"""The readings of a frame that take part in windows, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.attributes import SERIES_MAX as SERIES_MAX
from ringmain.flows.block import Columns, Qualities
from ringmain.flows.compiled import compiled, worth
from ringmain.flows.frame_columns import FrameColumns
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


def accepted(
    columns: Columns, arrival_ns: int, max_ahead_ns: int, *, graded: bool = False, known: bool = False
) -> Accepted:
    """What of some rows that arrived together takes part in windows and watermarks.

    Values are without negative zeros, so that minimum and maximum do not depend on the order of additions.
    `graded=False`: whatever is valid is good. `known`: all series are known to be possible ones. The passes over the
    columns are few: each costs other threads of the process a wait for the interpreter.
    """
    series, time, value, quality = columns
    if not len(series):
        return Accepted(series, time, value, None, _NONE, 0, 0)
    rejected = _NONE
    limit = arrival_ns + max_ahead_ns
    value, time_min, time_max, bits, gaps = _looked_over(columns)
    if time_max > limit or time_min < EARLIEST_NS or (not known and int(series.max()) >= SERIES_MAX):
        ahead, unusable = time > limit, (time < EARLIEST_NS) | (series >= SERIES_MAX)
        keep = ~(ahead | unusable)
        rejected = Rejected(int((ahead & ~unusable).sum()), int(unusable.sum()))
        series, time, value, quality = series[keep], time[keep], value[keep], quality[keep]
        if not len(series):
            return Accepted(series, time, value, None, rejected, 0, 0)
        time_min, time_max = int(time.min()), int(time.max())
    grade = None
    if gaps or bits & (INVALID_BIT | (QUESTIONABLE if graded else 0)):
        invalid = (quality & INVALID_BIT) != 0
        invalid |= np.isnan(value)
        grade = np.where(invalid, INVALID, quality & QUESTIONABLE if graded else GOOD).astype(np.uint8)
        if not grade.any():
            grade = None
    return Accepted(series, time, value, grade, rejected, time_min, time_max)


def _looked_over(columns: Columns) -> tuple[Floats, int, int, int, bool]:
    """As `looked_over`; of a stored frame once for all flows."""
    _, time, value, quality = columns
    if not isinstance(columns, FrameColumns):
        return looked_over(time, value, quality)
    if columns.looked_over is None:
        columns.looked_over = looked_over(time, value, quality)
    return columns.looked_over


def looked_over(time: Ints, value: Floats, quality: Qualities) -> tuple[Floats, int, int, int, bool]:
    """The values without negative zeros; lowest and highest time, all quality bits, whether a value is NaN.

    There is one row at least.
    """
    if worth(len(time)):
        clean = np.empty(len(value))
        for column in (time, value, quality):  # a loop is compiled for one kind of array only
            column.flags.writeable = False
        time_min, time_max, bits, gaps = look_over(time, value, quality, clean)
        return clean, time_min, time_max, bits, gaps
    bits = int(np.bitwise_or.reduce(quality)) if quality.any() else 0
    return value + 0.0, int(time.min()), int(time.max()), bits, bool(np.isnan(value.min()))


@compiled
def look_over(time: Ints, value: Floats, quality: Qualities, clean: Floats) -> tuple[int, int, int, bool]:
    """As `looked_over`, in one go; the values go to `clean`."""
    low = high = time[0]
    for row in range(len(time)):
        low = min(low, time[row])
        high = max(high, time[row])
    bits = 0
    for row in range(len(time)):
        bits |= quality[row]
    gaps = False
    for row in range(len(time)):
        found = value[row]
        gaps |= found != found
        clean[row] = found + 0.0
    return low, high, bits, gaps
