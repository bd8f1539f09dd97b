"""Local times become UTC as the tz database says, compared with the standard library time by time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.sources.file_settings import RepeatedHour
from ringmain.sources.file_times import Zone, casted, read_times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [
    "Europe/Berlin",
    "UTC",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
]


def ns_of(moment: datetime) -> int:
    passed = moment - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + passed.microseconds * 1000


def naive_ns(moment: datetime) -> int:
    return ns_of(moment.replace(tzinfo=UTC))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(1920, 1, 1), datetime(2200, 1, 1)),
    minutes=st.lists(st.integers(0, 600_000), min_size=1, max_size=30),
    later=st.booleans(),
)
def test_single_times_as_the_standard_library_has_them(
    zone: str, start: datetime, minutes: list[int], later: bool
) -> None:
    where = ZoneInfo(zone)
    moments = [start + timedelta(minutes=n) for n in minutes]
    local = np.array([naive_ns(one) for one in moments])
    rule = RepeatedHour.LATER if later else RepeatedHour.EARLIER
    found, gone = Zone(zone, rule).to_utc(local, np.zeros(len(local), np.uint32))
    for place, one in enumerate(moments):
        aware = one.replace(tzinfo=where, fold=int(later)).astimezone(UTC)
        back = aware.astimezone(where).replace(tzinfo=None)
        if back != one:
            assert gone is not None
            assert gone[place]
        else:
            assert gone is None or not gone[place]
            assert found[place] == ns_of(aware)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    zone=st.sampled_from(ZONES),
    year=st.sampled_from([1996, 2026, 2050]),
    step=st.sampled_from([60, 300, 900, 1800]),
    series=st.integers(1, 4),
    cut=st.integers(1, 400),
)
def test_a_night_written_in_local_time_is_read_back_as_it_was_however_it_is_cut(
    zone: str, year: int, step: int, series: int, cut: int
) -> None:
    where = ZoneInfo(zone)
    changes = _autumns(where, year)
    if not changes:
        return
    instants = [changes[0] + timedelta(seconds=n) for n in range(-10_800, 10_800, step)]
    utc = np.array([ns_of(one) for one in instants for _ in range(series)])
    local = np.array(
        [naive_ns(one.astimezone(where).replace(tzinfo=None)) for one in instants for _ in range(series)]
    )
    ids = np.tile(np.arange(series, dtype=np.uint32), len(instants))
    reader = Zone(zone, RepeatedHour.ORDER)
    read: list[int] = []
    for start in range(0, len(local), cut):
        part, gone = reader.to_utc(local[start : start + cut].copy(), ids[start : start + cut])
        assert gone is None
        read += part.tolist()
        restarted = Zone(zone, RepeatedHour.ORDER)
        restarted.restore(reader.save())
        reader = restarted
    assert read == utc.tolist()


@cache
def _autumns(where: ZoneInfo, year: int) -> list[datetime]:
    """Instants of a year at which clocks are put back."""
    found = []
    hour = datetime(year, 1, 1, tzinfo=UTC)
    before = hour.astimezone(where).utcoffset()
    while hour.year == year:
        hour += timedelta(minutes=30)
        now = hour.astimezone(where).utcoffset()
        if before is not None and now is not None and now < before:
            found.append(hour)
        before = now
    return found


@pytest.mark.parametrize(
    ("texts", "form", "good"),
    [
        (["2026-01-01", "2026-13-01", "", "x", "2026-01-01T24:00:00Z", "0000-01-01"], "iso", [0]),
        (["9999999999999999999", "1e9", "-5", "NaN", "inf", "5.5"], "s", [2, 5]),
        (
            ["01.02.2026", "31.02.2026", "32.01.2026", "1.1.26", "1.2.2026", " 03.04.2026 "],
            "%d.%m.%Y",
            [0, 4, 5],
        ),
        (["9223372036854775807", "1", "99999999999999999999"], "ns", [1]),
    ],
)
def test_texts_that_are_no_times_are_told_apart(texts: list[str], form: str, good: list[int]) -> None:
    read = read_times(pa.array(texts), form)
    bad = np.zeros(len(texts), bool) if read.bad is None else read.bad
    assert np.flatnonzero(~bad).tolist() == good


def test_columns_of_all_kinds_and_far_times() -> None:
    far = pa.array([0, 2**62, -(2**62)], pa.timestamp("s"))
    read = read_times(far, "iso")
    assert read.bad is not None
    assert read.bad.tolist() == [False, True, True]
    words = pa.array(["2026-01-01T00:00:00Z", None, "no"]).dictionary_encode()
    read = read_times(words, "iso")
    assert read.bad is not None
    assert read.bad.tolist() == [False, True, True]
    assert read_times(pa.array([True]), "iso").bad is not None
    assert read_times(pa.nulls(2), "iso").bad is not None


def test_elements_that_cannot_be_cast_are_null_and_told() -> None:
    found, bad = casted(pa.array(["1", "x", "3", "4", "y"]), pa.int64())
    assert found.to_pylist() == [1, None, 3, 4, None]
    assert bad is not None
    assert np.flatnonzero(bad).tolist() == [1, 4]
