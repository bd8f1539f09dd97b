"""Windows of the local calendar: quarter hours, hours, days, weeks, months, quarters, years as a time zone has them.

A settlement day has 23, 24 or 25 hours; where the clock steps by 30 minutes (Lord Howe) 23.5 or 24.5. The boundaries
are worked out year by year from the time zone's rules (IANA, through `zoneinfo`) and kept in a table, so that looking
a time up is a search in an array.

    day and more   begins when the local clock first shows the day's beginning (or, if the clock skips it, when it does)
    shorter        begins whenever the local clock reaches a multiple of the length since midnight; the hour that the
                   clock repeats in autumn is two hours, the one that it skips in spring is none. Where a length of
                   more than the step spans it (4 hours), that window is longer or shorter by the step.

`offset` moves every boundary by local time: the gas day begins at 06:00.
"""

from __future__ import annotations

import datetime
from enum import StrEnum
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows.grid import Ints

_SECOND = 1_000_000_000
_DAY_S = 86_400
_YEAR_NS = 31_556_952 * _SECOND
_EPOCH_YEAR = 1970
_ANCHOR_YEAR = 2000
"""Numbers count from the first window of this year, so that they do not depend on which times come first."""
_FIRST_YEAR, _LAST_YEAR = 1899, 2261
"""Times outside count for the first or last window: no reading is accepted from before 1900, and 64 bits end in 2262."""


class Unit(StrEnum):
    """A length that the calendar has a word for."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


DAYS_MIN = {Unit.DAY: 1, Unit.WEEK: 7, Unit.MONTH: 28, Unit.QUARTER: 90, Unit.YEAR: 365}
"""How many days a unit has at least."""


class CalendarGrid:
    """Windows of a calendar unit, or of a number of seconds that divides the day, in local time."""

    def __init__(self, unit: Unit | int, zone: ZoneInfo, offset_ns: int = 0) -> None:
        self._unit = 3600 if unit is Unit.HOUR else unit
        self._zone = zone
        self._offset_s = offset_ns // _SECOND
        if isinstance(self._unit, Unit):
            self.width_min_ns = (DAYS_MIN[self._unit] * _DAY_S - 7200) * _SECOND
        else:  # what a step of the clock by half an hour or an hour leaves of a window
            cut = self._unit if self._unit <= 1800 else max(self._unit - 3600, self._unit // 2)
            self.width_min_ns = cut * _SECOND
        self._years = (_ANCHOR_YEAR, _ANCHOR_YEAR)
        self._starts: Ints = self._year(_ANCHOR_YEAR)
        self._first = 0
        self._recent = (0, 0, 0)
        """Begin, end and number of the window that was asked for last."""

    def of(self, time: Ints) -> Ints:
        if not len(time):
            return np.empty(0, np.int64)
        number = self.at(int(time.min()))
        if number == self.at(int(time.max())):
            return np.full(len(time), number)
        place: Ints = np.searchsorted(self._starts, time, side="right") - 1
        return np.maximum(place, 0) + self._first

    def at(self, time: int) -> int:
        begin, end, number = self._recent
        if begin <= time < end:
            return number
        if not self._starts[0] <= time < self._starts[-1]:
            self._cover(_EPOCH_YEAR + time // _YEAR_NS)
        place = max(int(np.searchsorted(self._starts, time, side="right")) - 1, 0)
        if place + 1 < len(self._starts):
            begin, end = self._starts[place : place + 2].tolist()
            self._recent = (begin, end, place + self._first)
        return place + self._first

    def start(self, number: Ints) -> Ints:
        if not len(number):
            return np.empty(0, np.int64)
        self._hold(int(number.min()), int(number.max()))
        return self._starts[np.clip(number - self._first, 0, len(self._starts) - 1)]

    def start_of(self, number: int) -> int:
        self._hold(number, number)
        return int(self._starts[min(max(number - self._first, 0), len(self._starts) - 1)])

    # The table

    def _hold(self, low: int, high: int) -> None:
        """Have the windows from one number to another."""
        while low < self._first and self._years[0] > _FIRST_YEAR:
            self._cover(self._years[0] - 50)
        while high >= self._first + len(self._starts) and self._years[1] < _LAST_YEAR:
            self._cover(self._years[1] + 10)

    def _cover(self, year: int) -> None:
        """Have this year and the next ones before and behind it."""
        first, last = self._years
        low, high = max(min(first, year - 1), _FIRST_YEAR), min(max(last, year + 2), _LAST_YEAR)
        before = [self._year(number) for number in range(low, first)]
        behind = [self._year(number) for number in range(last + 1, high + 1)]
        self._first -= sum(map(len, before))
        self._starts = np.concatenate((*before, self._starts, *behind))
        self._years = (low, high)

    def _year(self, year: int) -> Ints:
        """Beginnings of the windows that begin on a local date of the year."""
        first = datetime.date(year, 1, 1)
        days = (datetime.date(year + 1, 1, 1) - first).days
        if isinstance(self._unit, Unit):
            dates = [first + datetime.timedelta(number) for number in range(days)]
            chosen = [date for date in dates if _begins(self._unit, date)]
            return np.array([self._begin_s(date) for date in chosen], np.int64) * _SECOND
        bounds = [self._begin_s(first + datetime.timedelta(number)) for number in range(days + 1)]
        return self._parts(bounds, self._unit) * _SECOND

    def _begin_s(self, date: datetime.date) -> int:
        """When the local clock first shows the date (moved by the offset), in seconds since the epoch."""
        local = datetime.datetime.combine(date, datetime.time(), self._zone) + datetime.timedelta(
            seconds=self._offset_s
        )
        return int(local.timestamp())

    def _parts(self, bounds: list[int], width: int) -> Ints:
        """Boundaries inside of days that begin at these seconds."""
        parts: list[Ints] = []
        regular: list[int] = []
        for begin, end in pairwise(bounds):
            if end - begin == _DAY_S:
                regular.append(begin)
            elif end > begin:  # else the day was left out (Samoa, 30 December 2011)
                parts.append(self._irregular(begin, end, width))
        steps = np.arange(0, _DAY_S, width)
        parts.append((np.array(regular, np.int64)[:, None] + steps).ravel())
        return np.sort(np.concatenate(parts))

    def _irregular(self, begin: int, end: int, width: int) -> Ints:
        """Boundaries of a day in which the local clock steps."""
        before, after = self._utc_offset(begin), self._utc_offset(end - 1)
        low, high = begin, end - 1
        while high - low > 1:  # the last second before the step, and the first one after it
            middle = (low + high) // 2
            low, high = (middle, high) if self._utc_offset(middle) == before else (low, middle)
        step = high
        found = {begin}
        for start, stop, offset in ((begin, step, before), (step, end, after)):
            boundary = start - (start + offset - self._offset_s) % -width
            found.update(range(boundary, stop, width))
        reached, shown = step + before - self._offset_s, step + after - self._offset_s
        if reached % width == 0 or (reached - 1) // width != shown // width:
            found.add(step)
        else:
            found.discard(step)  # the clock steps inside of a window
        return np.array(sorted(found), np.int64)

    def _utc_offset(self, second: int) -> int:
        found = datetime.datetime.fromtimestamp(second, self._zone).utcoffset()
        return 0 if found is None else int(found.total_seconds())


def _begins(unit: Unit, date: datetime.date) -> bool:
    if unit is Unit.DAY:
        return True
    if unit is Unit.WEEK:
        return date.weekday() == 0
    if date.day != 1:
        return False
    return unit is Unit.MONTH or date.month in ((1,) if unit is Unit.YEAR else (1, 4, 7, 10))
