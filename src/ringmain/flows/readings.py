"""The readings of a frame that take part in windows, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.totals import Bools, Floats, Ids, Ints
from ringmain.log.interface import Frame
from ringmain.model.quality import VALIDITY_MASK

EARLIEST_NS = -2_208_988_800_000_000_000
"""1900-01-01: a reading that claims an earlier time stays outside windows and watermarks."""
SERIES_MAX = 1 << 24
"""A log's series ids are dense and below; a higher one is damage, and its reading is left out."""
INVALID_BIT = VALIDITY_MASK & 2

_Number = TypeVar("_Number", bound=np.generic)


def column(frame: Frame, name: str | int, dtype: type[_Number]) -> NDArray[_Number]:
    """A fixed-width column without nulls as a view of the frame's memory."""
    array = frame.rows.column(name)
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.empty(0, dtype)
    view = np.frombuffer(buffer, dtype, len(array), array.offset * np.dtype(dtype).itemsize)
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True)
class Rejected:
    """Readings that take no part in windows and watermarks: too far ahead; before 1900 or of no known series."""

    ahead: int = 0
    unusable: int = 0


_NONE = Rejected()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The readings of a frame that take part, in order; `valid=None`: all are. Their times lie within the bounds."""

    series: Ids
    time: Ints
    value: Floats
    valid: Bools | None
    rejected: Rejected
    time_min: int
    time_max: int

    def __len__(self) -> int:
        return len(self.series)


def accepted(frame: Frame, max_ahead_ns: int) -> Accepted:
    """What of a frame takes part in windows and watermarks.

    Values are without negative zeros, so that minimum and maximum do not depend on the order of additions. The
    passes over the columns are few: each costs other threads of the process a wait for the interpreter.
    """
    series = column(frame, 0, np.uint32)
    time = column(frame, 1, np.int64)
    value: Floats = column(frame, 2, np.float64) + 0.0
    quality = column(frame, 3, np.uint16)
    rejected = _NONE
    if not len(series):
        return Accepted(series, time, value, None, rejected, 0, 0)
    limit = frame.origin_arrival_ns + max_ahead_ns
    time_min, time_max = int(time.min()), int(time.max())
    if time_max > limit or time_min < EARLIEST_NS or int(series.max()) >= SERIES_MAX:
        ahead, unusable = time > limit, (time < EARLIEST_NS) | (series >= SERIES_MAX)
        keep = ~(ahead | unusable)
        rejected = Rejected(int((ahead & ~unusable).sum()), int(unusable.sum()))
        series, time, value, quality = series[keep], time[keep], value[keep], quality[keep]
        if not len(series):
            return Accepted(series, time, value, None, rejected, 0, 0)
        time_min, time_max = int(time.min()), int(time.max())
    valid = None
    if quality.any() or np.isnan(value.min()):
        invalid = (quality & INVALID_BIT) != 0
        invalid |= np.isnan(value)
        if invalid.any():
            valid = ~invalid
    return Accepted(series, time, value, valid, rejected, time_min, time_max)
