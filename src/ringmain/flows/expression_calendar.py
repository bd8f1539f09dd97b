"""Parts of a time, and times cut off to a unit, in the local time of a zone: NumPy over int64 ns UTC.

The offsets of a zone are looked up once (from Python's zoneinfo, so from the machine's tz data or the package tzdata)
for the years 1900 to 2200; the offset of the first and the last year holds beyond them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows.block import Bools, Ints
from ringmain.flows.expression_values import Column, either

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_STEP = timedelta(days=7)
LIMIT_NS = 2**63 - 1 - 800 * _DAY
"""Times further from 1970 than this (before 1679, after 2260) have no parts."""

_FIXED = {"second": _SECOND, "minute": 60 * _SECOND, "hour": 3600 * _SECOND}
TRUNCATIONS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
PARTS = (
    "second", "minute", "hour", "day", "dayofmonth", "dayofweek", "isodow", "dayofyear", "week", "month", "quarter",
    "year",
)  # fmt: skip
"""`dayofweek` counts from Sunday = 0, `isodow` from Monday = 1; `week` is that of ISO 8601."""


class Offsets:
    """How far a zone's local time is ahead of UTC, by time."""

    def __init__(self, zone: ZoneInfo) -> None:
        def offset_at(moment: datetime) -> int:
            return int((moment.astimezone(zone).utcoffset() or timedelta()).total_seconds())

        begins: list[int] = []
        offsets = [offset_at(_FIRST)]
        moment = _FIRST
        while moment < _LAST:
            following = moment + _STEP
            if offset_at(following) != offsets[-1]:
                low, high = int((moment - _EPOCH).total_seconds()), int((following - _EPOCH).total_seconds())
                while high - low > 1:
                    middle = (low + high) // 2
                    same = offset_at(_EPOCH + timedelta(seconds=middle)) == offsets[-1]
                    low, high = (middle, high) if same else (low, middle)
                begins.append(high)
                offsets.append(offset_at(_EPOCH + timedelta(seconds=high)))
            moment = following
        self._begins: Ints = np.array(begins, np.int64) * _SECOND
        self._offsets: Ints = np.array(offsets, np.int64) * _SECOND

    def at(self, time: Ints) -> Ints:
        """The offset (ns) at these times; one element where it is the same for all of them."""
        if not len(self._begins):
            return self._offsets
        if not len(time):
            return self._offsets[:1]
        first, last = np.searchsorted(self._begins, [time.min(), time.max()], "right")
        if first == last:
            return self._offsets[first : first + 1]
        found: Ints = self._offsets[np.searchsorted(self._begins, time, "right")]
        return found

    def utc(self, local: Ints) -> Ints:
        """The time at which clocks show this: the earlier of two, and where clocks skip it, that of the skip."""
        before, after = self.at(local - _DAY), self.at(local + _DAY)
        early, late = local - before, local - after
        fits_early: Bools = self.at(early) == before
        fits_late: Bools = self.at(late) == after
        return np.where(fits_early | ~fits_late, early, late)


@cache
def offsets_of(zone: ZoneInfo) -> Offsets:
    """The offsets of a zone."""
    return Offsets(zone)


def part(name: str, zone: ZoneInfo) -> Callable[[Column], Column]:
    """The kernel of a part of a time, one of `PARTS`."""
    offsets = offsets_of(zone)

    def kernel(value: Column) -> Column:
        time, null = _usable(value)
        return Column(_PART[name](time + offsets.at(time)), null)

    return kernel


def truncated(unit: str, zone: ZoneInfo) -> Callable[[Column], Column]:
    """The kernel of `date_trunc`: the begin of the unit (one of `TRUNCATIONS`) that a time lies in."""
    offsets = offsets_of(zone)

    def kernel(value: Column) -> Column:
        time, null = _usable(value)
        offset = offsets.at(time)
        if unit in _FIXED:
            return Column(time - (time + offset) % _FIXED[unit], null)
        return Column(offsets.utc(_BEGIN[unit](time + offset)), null)

    return kernel


def time_of(text: str, zone: ZoneInfo) -> int:
    """A time written as ISO 8601 in ns UTC; local time of the zone unless it tells an offset. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if abs(ns) > LIMIT_NS:
        raise ValueError(f"{text} is outside 1679 to 2260")
    return ns


def _usable(value: Column) -> tuple[Ints, Bools | None]:
    time: Ints = value.data
    if not len(time) or (time.min() >= -LIMIT_NS and time.max() <= LIMIT_NS):
        return time, value.null
    outside = (time < -LIMIT_NS) | (time > LIMIT_NS)
    return np.where(outside, 0, time), either(value.null, outside)


def _days(local: Ints) -> Ints:
    return local // _DAY


def _months(local: Ints) -> Ints:
    return local.view("M8[ns]").astype("M8[M]").astype(np.int64)


def _months_begin(months: Ints) -> Ints:
    return months.view("M8[M]").astype("M8[ns]").view(np.int64)


def _week(local: Ints) -> Ints:
    """ISO 8601: that of the year in which the week's Thursday lies."""
    thursday = _days(local) - (_days(local) + 3) % 7 + 3
    year_begin = _months_begin(_months(thursday * _DAY) // 12 * 12) // _DAY
    return (thursday - year_begin) // 7 + 1


_PART: dict[str, Callable[[Ints], Ints]] = {
    "second": lambda local: local // _SECOND % 60,
    "minute": lambda local: local // (60 * _SECOND) % 60,
    "hour": lambda local: local // (3600 * _SECOND) % 24,
    "day": lambda local: _days(local) - _months_begin(_months(local)) // _DAY + 1,
    "dayofmonth": lambda local: _days(local) - _months_begin(_months(local)) // _DAY + 1,
    "dayofweek": lambda local: (_days(local) + 4) % 7,
    "isodow": lambda local: (_days(local) + 3) % 7 + 1,
    "dayofyear": lambda local: _days(local) - _months_begin(_months(local) // 12 * 12) // _DAY + 1,
    "week": _week,
    "month": lambda local: _months(local) % 12 + 1,
    "quarter": lambda local: _months(local) % 12 // 3 + 1,
    "year": lambda local: _months(local) // 12 + 1970,
}
_BEGIN: dict[str, Callable[[Ints], Ints]] = {
    "day": lambda local: _days(local) * _DAY,
    "week": lambda local: (_days(local) - (_days(local) + 3) % 7) * _DAY,
    "month": lambda local: _months_begin(_months(local)),
    "quarter": lambda local: _months_begin(_months(local) // 3 * 3),
    "year": lambda local: _months_begin(_months(local) // 12 * 12),
}
