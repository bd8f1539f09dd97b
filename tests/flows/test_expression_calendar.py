"""Parts of times and times cut off, in zones with every kind of oddity, against Python's own calendar."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ringmain.flows import expression_calendar as calendar
from ringmain.flows.calendar import CalendarGrid, Unit
from ringmain.flows.expression_values import Column

SECOND = 1_000_000_000
ZONES = [
    "UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "America/Havana", "Africa/Casablanca",
    "Asia/Kathmandu", "America/St_Johns", "Asia/Gaza", "Pacific/Chatham",
]  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def moments(zone: ZoneInfo) -> list[int]:
    """Times (ns) all over the years, and around every change of the clock from 2007 to 2019."""
    chance = random.Random(11)
    seconds = [chance.randrange(-2_000_000_000, 7_000_000_000) for _ in range(150)]
    seconds += [chance.randrange(1_170_000_000, 1_570_000_000) for _ in range(50)]
    day = datetime(2007, 1, 1, tzinfo=UTC)
    while day.year < 2020:
        after = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            begin = int((day - EPOCH).total_seconds())
            seconds += [begin + 3600 * hour + chance.randrange(3600) for hour in range(-12, 36)]
        day = after
    return [second * SECOND + chance.randrange(SECOND) for second in seconds]


def local(ns: int, zone: ZoneInfo) -> datetime:
    return (EPOCH + timedelta(seconds=ns // SECOND)).astimezone(zone)


@pytest.mark.parametrize("name", ZONES)
def test_parts_are_those_of_the_local_clock(name: str) -> None:
    zone = ZoneInfo(name)
    times = moments(zone)
    clocks = [local(ns, zone) for ns in times]
    expected = {
        "second": [at.second for at in clocks],
        "minute": [at.minute for at in clocks],
        "hour": [at.hour for at in clocks],
        "day": [at.day for at in clocks],
        "dayofmonth": [at.day for at in clocks],
        "dayofweek": [at.isoweekday() % 7 for at in clocks],
        "isodow": [at.isoweekday() for at in clocks],
        "dayofyear": [at.timetuple().tm_yday for at in clocks],
        "week": [at.isocalendar().week for at in clocks],
        "month": [at.month for at in clocks],
        "quarter": [(at.month + 2) // 3 for at in clocks],
        "year": [at.year for at in clocks],
    }
    assert set(expected) == set(calendar.PARTS)
    column = Column(np.array(times, np.int64))
    for part, values in expected.items():
        assert calendar.part(part, zone)(column).data.tolist() == values, part


@pytest.mark.parametrize("name", sorted({*ZONES} - {"America/St_Johns"}))
def test_a_day_begins_when_windows_of_days_begin(name: str) -> None:
    """But where the clock went back across midnight, as in St. John's until 2011, when a date came twice."""
    zone = ZoneInfo(name)
    times = np.array(sorted(moments(zone)[150:]), np.int64)
    for word in ("day", "week", "month"):
        grid = CalendarGrid(Unit(word), zone)
        expected = [grid.start_of(grid.at(int(time))) for time in times.tolist()]
        found = calendar.truncated(word, zone)(Column(times)).data
        wrong = np.flatnonzero(found != np.array(expected))
        assert not len(wrong), [(word, local(int(times[place]), zone)) for place in wrong[:3]]


@pytest.mark.parametrize("name", ZONES)
def test_hours_are_cut_off_by_the_local_clock_and_never_lie_ahead(name: str) -> None:
    zone = ZoneInfo(name)
    times = np.array(moments(zone), np.int64)
    for unit, size in (("second", 1), ("minute", 60), ("hour", 3600)):
        found = calendar.truncated(unit, zone)(Column(times)).data
        assert ((found <= times) & (times - found < size * SECOND)).all()
        for ns, cut in zip(times.tolist(), found.tolist(), strict=True):
            at = local(ns, zone)
            since = {"second": 0, "minute": at.second, "hour": at.minute * 60 + at.second}[unit]
            assert cut == (ns // SECOND - since) * SECOND


def test_the_value_of_a_time_does_not_depend_on_the_times_beside_it() -> None:
    zone = ZoneInfo("Europe/Berlin")
    times = np.array(moments(zone)[:400], np.int64)
    for name in ("hour", "week"):
        kernel = calendar.part(name, zone)
        assert kernel(Column(times)).data.tolist() == [
            kernel(Column(times[place : place + 1])).data.tolist()[0] for place in range(len(times))
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-29 01:59", "2026-03-29T00:59Z"),
        ("2026-03-29 03:00", "2026-03-29T01:00Z"),
        ("2026-10-25 02:30", "2026-10-25T00:30Z"),
        ("2026-10-25T02:30+01:00", "2026-10-25T01:30Z"),
        ("2026-01-15", "2026-01-14T23:00Z"),
        ("1999-12-31T23:59:59.123456Z", "1999-12-31T23:59:59.123456Z"),
    ],
)
def test_times_are_written_in_local_time_or_with_their_offset(text: str, expected: str) -> None:
    ns = (datetime.fromisoformat(expected) - EPOCH) // timedelta(microseconds=1) * 1000
    assert calendar.time_of(text, ZoneInfo("Europe/Berlin")) == ns


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01", "", "1500-01-01", "9999-01-01", "2026-01-01 25:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        calendar.time_of(text, ZoneInfo("UTC"))
