"""Times as devices write them: what each form means, and that columns are read as single times are."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.quality import Quality
from ringmain.sources.mapping_times import TIME_MAX_NS, TimeForm, TimeUnit, epoch_ns, read_time, read_times

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)
BERLIN = ZoneInfo("Europe/Berlin")
NOW_NS = 1_795_419_774_000_000_000  # 2026-11-23T07:42:54Z
AHEAD_NS = 300 * 10**9
PLAIN = TimeForm()


def ns_of(raw: object, form: TimeForm = PLAIN, arrival_ns: int = NOW_NS) -> int:
    return read_time(raw, form, arrival_ns, AHEAD_NS)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "expected_ns"),
    [
        ("2026-11-23T07:42:54Z", NOW_NS),
        ("2026-11-23T08:42:54+01:00", NOW_NS),
        ("2026-11-23t07:42:54z", NOW_NS),
        ("2026-11-23 02:12:54-0530", NOW_NS),
        ("2026-11-23T08:42:54+01", NOW_NS),
        ("2026-11-23T07:42:54.5Z", NOW_NS + 500_000_000),
        ("2026-11-23T07:42:54.000000001Z", NOW_NS + 1),
        ("2026-11-23T07:42:54.0000000019Z", NOW_NS + 1),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * 10**9),
        ("1970-01-01T00:00:00Z", 0),
        ("2262-04-11T23:47:16.854775807Z", TIME_MAX_NS),
        (1_795_419_774, NOW_NS),
        (1_795_419_774_000, NOW_NS),
        (1_795_419_774_000_000, NOW_NS),
        (1_795_419_774_000_000_000, NOW_NS),
        (1_795_419_774.25, NOW_NS + 250_000_000),
        (1_795_419_774_000.5, NOW_NS + 500_000),
        (0, 0),
        (9_223_372_036, 9_223_372_036 * 10**9),
        (9_223_372_037, 9_223_372_037 * 10**6),
        (TIME_MAX_NS, TIME_MAX_NS),
    ],
)
def test_a_time_is_read(raw: object, expected_ns: int) -> None:
    assert ns_of(raw) == expected_ns


@pytest.mark.parametrize(
    "raw",
    [
        "", "now", "2026-11-23", "2026-11-23T07:42Z", "2026-02-30T00:00:00Z", "2026-11-23T24:00:00Z",
        "2026-11-23T07:60:00Z", "2026-11-23T07:42:61Z", "2026-11-23T07:42:54+24:00", "1969-12-31T23:59:59Z",
        "1970-01-01T00:30:00+01:00", "2262-04-11T23:47:16.854775808Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z",
        "1795419774", "２０２６-11-23T07:42:54Z", "2026-11-23T07:42:54Z ", "2026-11-23T07:42:54\n", "\ud800",
        -1, -0.6, 2**63, 10**30, 10**400, 1e300, float("nan"), float("inf"), True, [1], {},
    ],
)  # fmt: skip
def test_what_is_no_time_between_1970_and_2262_is_refused_with_what_was_expected(raw: object) -> None:
    with pytest.raises(ValueError, match="expected "):
        ns_of(raw)


def test_a_given_unit_is_used_whatever_the_magnitude() -> None:
    assert ns_of(1000, TimeForm(TimeUnit.MS)) == 10**9
    assert ns_of(9_223_372_036_855, TimeForm(TimeUnit.US)) == 9_223_372_036_855_000
    with pytest.raises(ValueError, match="1970 to 2262"):
        ns_of(9_223_372_037, TimeForm(TimeUnit.S))


def test_no_time_is_the_time_of_arrival_and_flagged() -> None:
    assert read_time(None, PLAIN, NOW_NS, AHEAD_NS) == (NOW_NS, Quality.ARRIVAL_TIME)


def test_a_time_further_ahead_than_allowed_is_kept_and_flagged() -> None:
    assert read_time(NOW_NS + AHEAD_NS, PLAIN, NOW_NS, AHEAD_NS) == (NOW_NS + AHEAD_NS, 0)
    assert read_time(NOW_NS + AHEAD_NS + 1, PLAIN, NOW_NS, AHEAD_NS)[1] == Quality.CLOCK_FAILED


def test_a_text_without_offset_is_local_time() -> None:
    assert ns_of("2026-11-23T08:42:54", TimeForm(zone=BERLIN)) == NOW_NS
    assert ns_of("2026-11-23T07:42:54") == NOW_NS
    assert ns_of("2026-07-01T12:00:00", TimeForm(zone=BERLIN)) == ns_of("2026-07-01T10:00:00Z")


def test_the_hour_that_comes_twice_is_told_by_the_arrival() -> None:
    form = TimeForm(zone=BERLIN)
    first, second = ns_of("2026-10-25T00:30:00Z"), ns_of("2026-10-25T01:30:00Z")
    assert read_time("2026-10-25T02:30:00", form, first + 10**9, AHEAD_NS) == (first, 0)
    assert read_time("2026-10-25T02:30:00", form, second + 10**9, AHEAD_NS) == (
        second,
        Quality.CLOCK_UNSYNCHRONISED,
    )


def test_the_hour_that_is_skipped_is_read_as_if_the_clock_had_not_been_put_forward() -> None:
    assert read_time("2026-03-29T02:30:00", TimeForm(zone=BERLIN), NOW_NS, AHEAD_NS) == (
        ns_of("2026-03-29T01:30:00Z"),
        Quality.CLOCK_UNSYNCHRONISED,
    )


TEXTS = st.one_of(
    st.datetimes(datetime(1969, 1, 1), datetime(2263, 1, 1)).map(lambda t: t.isoformat()),
    st.builds(
        lambda t, fraction, zone: t.strftime("%Y-%m-%dT%H:%M:%S") + fraction + zone,
        st.datetimes(datetime(1970, 1, 1), datetime(2262, 6, 1)),
        st.from_regex(r"(\.[0-9]{1,12})?", fullmatch=True),
        st.from_regex(r"(Z|z|[+-][0-2][0-9]:?[0-6][0-9]|)", fullmatch=True),
    ),
    st.from_regex(
        r"(19|20|22)[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z?", fullmatch=True
    ),
    st.text(max_size=12),
)
NUMBERS = st.one_of(
    st.integers(-10, 2**64),
    st.integers(0, 64).flatmap(lambda bits: st.integers(2**bits - 2, 2**bits + 2)),
    st.sampled_from([TIME_MAX_NS // unit.ns + step for unit in TimeUnit for step in (-1, 0, 1)]),
    st.floats(),
    st.floats(0, 1e19),
    st.sampled_from(
        [float(TIME_MAX_NS // unit.ns) + step for unit in TimeUnit for step in (-1, -0.5, 0, 0.5, 1)]
    ),
)
AROUND_A_CHANGE = st.builds(
    lambda day, minute: f"{day}T{minute // 60:02}:{minute % 60:02}:30.5",
    st.sampled_from(["2026-03-29", "2026-10-25", "2026-11-23", "1970-01-01", "2259-12-31"]),
    st.integers(0, 239),
)
RAWS = st.one_of(TEXTS, NUMBERS, st.none(), st.booleans())
FORMS = [PLAIN, TimeForm(zone=BERLIN), *(TimeForm(unit) for unit in TimeUnit)]


@SETTINGS
@given(
    st.one_of(
        *(
            st.lists(st.tuples(raw, st.integers(0, 5)))
            for raw in (RAWS, TEXTS, AROUND_A_CHANGE, st.integers(0, 2**62))
        )
    ),
    st.sampled_from([NOW_NS, 1_792_889_000_000_000_000, 1_792_895_400_000_000_000]),
)
def test_columns_of_times_are_read_as_single_times_are(
    rows: list[tuple[object, int]], arrival_ns: int
) -> None:
    raws, codes = [raw for raw, _ in rows], np.array([code for _, code in rows], np.uint8)
    times = read_times(raws, codes, FORMS, arrival_ns, AHEAD_NS)  # type: ignore[arg-type]
    for index, (raw, code) in enumerate(rows):
        try:
            expected = read_time(raw, FORMS[code], arrival_ns, AHEAD_NS)  # type: ignore[arg-type]
        except ValueError:
            assert times.failed[index], raw
        else:
            assert not times.failed[index], raw
            assert (int(times.ns[index]), int(times.quality[index])) == expected, raw


@SETTINGS
@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2262, 4, 1)),
    st.integers(-1439, 1439),
    st.integers(0, 999_999_999),
)
def test_a_text_with_offset_means_what_datetime_says(
    local: datetime, offset_min: int, fraction_ns: int
) -> None:
    sign, minutes = "-" if offset_min < 0 else "+", abs(offset_min)
    text = f"{local:%Y-%m-%dT%H:%M:%S}.{fraction_ns:09}{sign}{minutes // 60:02}:{minutes % 60:02}"
    utc = local.replace(microsecond=0, tzinfo=UTC) - timedelta(minutes=offset_min)
    assert (
        ns_of(text) == (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 10**9 + fraction_ns
    )


@SETTINGS
@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999))
def test_fractions_of_seconds_are_exact_to_the_microsecond(seconds: int, microseconds: int) -> None:
    written = Decimal(seconds) + Decimal(microseconds) / 10**6
    expected = int((written * 10**6).to_integral_value(ROUND_HALF_EVEN)) * 1000
    assert ns_of(float(written), TimeForm(TimeUnit.S)) == expected


@SETTINGS
@given(st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)))
def test_local_texts_mean_what_the_zone_says_where_it_says_one_thing(local: datetime) -> None:
    offsets = {local.replace(tzinfo=BERLIN, fold=fold).utcoffset() for fold in (0, 1)}
    ns, flags = read_time(local.isoformat(), TimeForm(zone=BERLIN), NOW_NS, 2**62)
    if len(offsets) == 1:
        expected = local.replace(tzinfo=BERLIN) - datetime(1970, 1, 1, tzinfo=UTC)
        assert (ns, flags) == (expected // timedelta(microseconds=1) * 1000, 0)
    else:
        assert flags == Quality.CLOCK_UNSYNCHRONISED


def test_whole_numbers_that_are_no_times_are_marked() -> None:
    numbers = np.array([0, -1, TIME_MAX_NS, 1_795_419_774], np.int64)
    ns, good = epoch_ns(numbers, TimeUnit.S)
    assert good.tolist() == [True, False, False, True]
    assert ns[good].tolist() == [0, NOW_NS]
