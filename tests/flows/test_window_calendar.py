"""Windows of the local calendar: days of 23, 24 and 25 hours, and everything that they are cut into."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.aggregates import Aggregate
from ringmain.flows.calendar import CalendarGrid, Unit
from ringmain.flows.steps.window import WindowStepSettings
from tests.flows.reference.window import Grid
from tests.flows.steps.driving import Instant, plan_of, record, run

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
ZONES = ["Europe/Berlin", "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo", "America/St_Johns"]


def ns(text: str, zone: str = "Europe/Berlin") -> int:
    """A local time."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def lengths(unit: Unit | int, zone: str, begin: str, end: str, offset_ns: int = 0) -> list[float]:
    """Lengths in minutes of the windows from one local time to another."""
    grid = CalendarGrid(unit, ZoneInfo(zone), offset_ns)
    first, last = grid.at(ns(begin, zone)), grid.at(ns(end, zone))
    assert grid.start_of(first) == ns(begin, zone)
    assert grid.start_of(last) == ns(end, zone)
    starts = grid.start(np.arange(first, last + 1))
    minutes: list[float] = (np.diff(starts) / (60 * SECOND)).tolist()
    return minutes


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2025-03-30", 23),
        ("Europe/Berlin", "2025-10-26", 25),
        ("Europe/Berlin", "2025-10-27", 24),
        ("Europe/London", "2025-03-30", 23),
        ("Europe/London", "2025-10-26", 25),
        ("Australia/Lord_Howe", "2025-04-06", 24.5),
        ("Australia/Lord_Howe", "2025-10-05", 23.5),
        ("America/Sao_Paulo", "2018-02-17", 25),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("UTC", "2025-03-30", 24),
    ],
)
def test_a_settlement_day_has_the_hours_that_the_local_clock_gives_it(
    zone: str, day: str, hours: float
) -> None:
    following = (datetime.date.fromisoformat(day) + datetime.timedelta(1)).isoformat()
    begin = "2018-11-04T01:00" if (zone, day) == ("America/Sao_Paulo", "2018-11-04") else f"{day}T00:00"
    assert lengths(Unit.DAY, zone, begin, f"{following}T00:00") == [hours * 60]
    assert sum(lengths(900, zone, begin, f"{following}T00:00")) == hours * 60
    assert len(lengths(1800, zone, begin, f"{following}T00:00")) == hours * 2


def test_the_hour_that_comes_twice_is_two_windows_and_the_one_that_is_left_out_is_none() -> None:
    berlin = "Europe/Berlin"
    assert lengths(Unit.HOUR, berlin, "2025-10-26T00:00", "2025-10-27T00:00") == [60] * 25
    assert lengths(Unit.HOUR, berlin, "2025-03-30T00:00", "2025-03-31T00:00") == [60] * 23
    assert lengths(900, berlin, "2025-10-26T00:00", "2025-10-27T00:00") == [15] * 100
    assert lengths(4 * 3600, berlin, "2025-10-26T00:00", "2025-10-27T00:00") == [300] + [240] * 5


def test_where_the_clock_steps_by_half_an_hour_one_hour_is_half_as_long() -> None:
    howe = "Australia/Lord_Howe"
    assert lengths(Unit.HOUR, howe, "2025-04-06T00:00", "2025-04-07T00:00") == [60, 60, 30] + [60] * 22
    assert lengths(Unit.HOUR, howe, "2025-10-05T00:00", "2025-10-06T00:00") == [60, 60, 30] + [60] * 21


def test_months_quarters_and_years_follow_the_calendar() -> None:
    berlin = "Europe/Berlin"
    days = [minutes / 1440 for minutes in lengths(Unit.MONTH, berlin, "2024-01-01T00:00", "2025-01-01T00:00")]
    assert [round(day, 3) for day in days] == [31, 29, 30.958, 30, 31, 30, 31, 31, 30, 31.042, 30, 31]
    assert len(lengths(Unit.QUARTER, berlin, "2024-01-01T00:00", "2026-01-01T00:00")) == 8
    assert lengths(Unit.YEAR, berlin, "2024-01-01T00:00", "2025-01-01T00:00") == [366 * 1440]
    assert lengths(Unit.WEEK, berlin, "2025-10-20T00:00", "2025-11-03T00:00") == [10080 + 60, 10080]


def test_a_gas_day_begins_at_six_and_has_23_or_25_hours_too() -> None:
    berlin = "Europe/Berlin"
    assert lengths(Unit.DAY, berlin, "2025-03-28T06:00", "2025-03-31T06:00", 6 * HOUR) == [1440, 1380, 1440]
    assert lengths(Unit.DAY, berlin, "2025-10-25T06:00", "2025-10-27T06:00", 6 * HOUR) == [1500, 1440]
    assert len(lengths(Unit.HOUR, berlin, "2025-10-25T06:00", "2025-10-26T06:00", 6 * HOUR)) == 25


def test_a_day_that_a_place_left_out_has_no_window() -> None:
    grid = CalendarGrid(Unit.HOUR, ZoneInfo("Pacific/Apia"))
    before, after = ns("2011-12-29T23:00", "Pacific/Apia"), ns("2011-12-31T00:00", "Pacific/Apia")
    assert after - before == HOUR
    assert grid.at(after) == grid.at(before) + 1


def test_numbers_do_not_depend_on_which_times_came_first_nor_do_far_ones_hurt() -> None:
    one, other = (CalendarGrid(Unit.DAY, ZoneInfo("Europe/Berlin")) for _ in range(2))
    now, old = ns("2026-11-23T12:00"), ns("1901-05-05T05:00")
    assert [one.at(now), one.at(old)] == [other.at(old), other.at(now)][::-1]
    for far in (-(2**63), -(2**62), 2**62, 2**63 - 1):
        assert one.start_of(one.at(far)) <= 2**63 - 1
        assert one.of(np.array([far, now]))[1] == one.at(now)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["15m", "30m", "hour", "2h", "4h", "12h", "day", "week", "month"]),
    st.sampled_from(["0s", "6h", "90m"]),
    st.lists(st.integers(-40 * 24 * 60, 40 * 24 * 60), min_size=1, max_size=5),
    st.sampled_from(["2025-03-30", "2025-10-26", "2025-04-06", "2025-10-05", "2018-02-18", "2006-10-29"]),
)
def test_every_time_lies_in_the_window_that_walking_the_local_clock_finds(
    zone: str, window: str, offset: str, minutes: list[int], around: str
) -> None:
    step = WindowStepSettings(window=window, calendar=True, zone=zone, offset=offset)
    assert step.check()[0] == []
    grid = step.windowing(plan_of(step).around).grid
    reference = Grid(window, True, zone, {"0s": 0, "6h": 6 * HOUR, "90m": 90 * 60 * SECOND}[offset])
    center = ns(f"{around}T02:00", zone)
    times = np.array([center + minute * 60 * SECOND + 1 for minute in minutes])
    for time, number in zip(times.tolist(), grid.of(times).tolist(), strict=True):
        assert (grid.start_of(number), grid.start_of(number + 1)) == reference.bounds(time)


def test_a_value_holds_across_the_half_hour_that_a_clock_leaves_of_a_window() -> None:
    # Lord Howe, 6 April 2025: at 02:00 the clock goes back to 01:30, and that half hour is a window of its own
    at = ns("2025-04-06T01:10", "Australia/Lord_Howe")
    step = WindowStepSettings(
        window="hour",
        zone="Australia/Lord_Howe",
        values=(Aggregate.COUNT, Aggregate.INTEGRAL),
        grace="0s",
        idle="3h",
    )
    minute = 60 * SECOND
    story: list[Instant] = [
        (at, [(0, at, 60.0, 0)]),
        (at + 55 * minute, [(0, at + 55 * minute, 0.0, 0)]),
        (at + 90 * minute, [(0, at + 90 * minute, 0.0, 0)]),
        (at + 180 * minute, [(0, at + 180 * minute, 0.0, 0)]),
        (at + 181 * minute, [(0, at + 1 * minute, 120.0, 0)]),
    ]
    rows = run(plan_of(step), record(story, ticks=False, tail_s=100))["out"]
    told = [((row["start"] - at) // minute, row["integral"], row["revision"]) for row in rows]
    assert told[:1] == [(-10, 50.0, 0)]
    assert (50, 5.0, 0) in told
    assert told[-2:] == [(-10, 99.0, 1), (50, 10.0, 1)]


def test_days_of_23_and_25_hours_hold_92_and_100_quarter_hours_of_energy() -> None:
    begin, end = ns("2025-10-25T00:00"), ns("2025-10-28T00:00")
    story: list[Instant] = [(at, [(0, at, 4.0, 0)]) for at in range(begin, end, 900 * SECOND)]
    step = WindowStepSettings(
        window="day",
        values=(Aggregate.COUNT, Aggregate.INTEGRAL, Aggregate.COMPLETENESS),
        interval="15m",
        idle="1h",
        hold="15m",
    )
    rows = run(plan_of(step, zone="Europe/Berlin"), record(story, ticks=False, tail_s=1))["out"]
    told = [(row["start"], row["end"], row["count"], row["integral"], row["completeness"]) for row in rows]
    assert told == [
        (begin, begin + 24 * HOUR, 96, 96.0, 100.0),
        (begin + 24 * HOUR, begin + 49 * HOUR, 100, 100.0, 100.0),
    ]
