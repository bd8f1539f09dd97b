"""Times and plans as they are read, JSON as it is written."""

from __future__ import annotations

import contextlib
import datetime as dt
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.serve.access import Refused
from ringmain.serve.arrowjson import rows_of
from ringmain.serve.history import bucket_s
from ringmain.serve.instants import instant_ns
from ringmain.serve.queries import stretch_ns
from ringmain.serve.settings import ServeSettings, is_loopback, parse_listen
from ringmain.serve.statement import TimeBounds, bounds_of, series_of

NS = st.integers(-(2**63) + 1, 2**63 - 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ns=NS)
def test_a_time_written_as_json_is_read_back_exactly(ns: int) -> None:
    table = pa.table({"t": pa.array([ns], pa.int64()).view(pa.timestamp("ns", tz="UTC"))})
    [[text]] = rows_of(table)
    assert text.endswith("Z")
    assert instant_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-03-29T01:30:00Z", 1_774_747_800_000_000_000),
        ("2026-03-29T03:30:00+02:00", 1_774_747_800_000_000_000),
        ("2026-03-29 01:30", 1_774_747_800_000_000_000),
        ("2026-03-29t01:30:00.000000001z", 1_774_747_800_000_000_001),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-03-29", 1_774_742_400_000_000_000),
    ],
)
def test_times_are_read_as_rfc_3339_to_the_nanosecond(text: str, ns: int) -> None:
    assert instant_ns(text) == ns


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.one_of(st.text(max_size=40), st.from_regex(r"[0-9T:Z+. -]{0,30}", fullmatch=True)))
def test_any_other_text_is_a_refusal_and_never_a_crash(text: str) -> None:
    with contextlib.suppress(Refused):
        low, high = stretch_ns(text, None, 1_700_000_000_000_000_000)
        assert low < high


def test_datetimes_without_zone_mean_utc() -> None:
    assert instant_ns(dt.datetime(1970, 1, 1, 0, 0, 1)) == 1_000_000_000
    with pytest.raises(ValueError, match="between 1677 and 2262"):
        instant_ns(dt.datetime(2300, 1, 1))
    with pytest.raises(ValueError, match="expected a time"):
        instant_ns(True)


def test_bounds_are_found_only_where_every_row_has_to_meet_them() -> None:
    at = 1_672_531_200_000_000_000
    plain = "(time > '2023-01-01 00:00:00+00'::TIMESTAMPTZ_NS)"
    assert bounds_of(plain, "time") == TimeBounds(at, None)
    assert bounds_of(plain, "start") == TimeBounds(None, None)
    both = f"({plain} AND (value > 2.0))"
    assert bounds_of(both, "time") == TimeBounds(at, None)
    assert bounds_of(
        f"({both} AND (time <= '2023-01-01 00:00:01+00'::TIMESTAMPTZ_NS))", "time"
    ) == TimeBounds(at, at + 1_000_000_000)
    between = (
        "(time BETWEEN '2023-01-01 00:00:00+00'::TIMESTAMPTZ_NS AND '2023-01-01 00:00:01+00'::TIMESTAMPTZ_NS)"
    )
    assert bounds_of(between, "time") == TimeBounds(at, at + 1_000_000_000)
    assert bounds_of(f"({between} AND (value > 2.0))", "time") == TimeBounds(at, at + 1_000_000_000)
    arrow = '((time >= 2023-01-01 00:00:00.000000Z) and (series == "a"))'
    assert bounds_of(arrow, "time") == TimeBounds(at, None)
    assert series_of(arrow) == "a"
    for loose in (
        f"({plain} OR (value > 2.0))",
        f"(NOT {plain})",
        f"coalesce({plain}, true)",
        f"({plain} = false)",
        f"((value > 2.0) OR ({plain} AND (value < 1.0)))",
        f"(series = '{plain.replace(chr(39), chr(39) * 2)}')",
        "(CASE  WHEN (time > '2023-01-01'::TIMESTAMPTZ_NS) THEN true ELSE false END)",
        "",
    ):
        assert bounds_of(loose, "time") == TimeBounds(None, None), loose


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(alphabet="()'\" ANDORtime<>=2023-01Zs\\", max_size=80))
def test_any_filter_text_is_read_without_failing(text: str) -> None:
    bounds_of(text, "time")
    series_of(text)


def test_a_key_in_a_filter_is_unescaped_or_not_used() -> None:
    assert series_of('(series == "a\\"b\\\\c")') == 'a"b\\c'
    assert series_of('((series == "a") or (series == "b"))') is None
    assert series_of('if_else(is_valid(series), (series == "a"), null[bool])') is None


def test_values_that_json_lacks_are_null_or_text() -> None:
    table = pa.table(
        {
            "f": [float("nan"), 1.0],
            "b": pa.array([b"\xff", None], pa.binary()),
            "d": pa.array([dt.date(2026, 1, 2), None]),
            "l": pa.array([[1.0, float("inf")], None]),
            "k": pa.array(["x", "y"]).dictionary_encode(),
            "t": pa.array([1, None], pa.timestamp("us")),
        }
    )
    rows = rows_of(table)
    assert rows == [
        [None, "\\xff", "2026-01-02", [1.0, None], "x", "1970-01-01T00:00:00.000001"],
        [1.0, None, None, None, "y", None],
    ]
    json.dumps(rows, allow_nan=False)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(stretch=st.integers(1, 2**62), points=st.integers(1, 20_000))
def test_no_stretch_gives_more_buckets_than_points_wanted(stretch: int, points: int) -> None:
    step = bucket_s(stretch, points) * 1_000_000_000
    # a stretch that begins in the middle of a bucket touches one more than fits; one point is never fewer than two
    assert -(-stretch // step) + 1 <= max(points, 2)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("node.example:0", ("node.example", 0)),
    ],
)
def test_addresses_are_read(text: str, place: tuple[str, int]) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize(
    "text", ["", "8080", "127.0.0.1", "127.0.0.1:", "::1:80", "a b:80", "x:99999", "x:-1", "u@x:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_listen(text)
    errors, _ = ServeSettings(listen=text).check()
    assert [key for key, _ in errors] == ["listen"]


def test_another_address_than_loopback_needs_a_token() -> None:
    assert ServeSettings().check() == ([], [])
    errors, _ = ServeSettings(listen="0.0.0.0:8080").check()
    assert "needs `token`" in errors[0][1]
    errors, warnings = ServeSettings(listen="0.0.0.0:8080", token="x" * 16).check()
    assert errors == []
    assert "unencrypted" in warnings[0][1]
    assert ServeSettings(token="short").check()[0][0][0] == "token"
    assert "short" not in ServeSettings(token="short").check()[0][0][1]
    assert ServeSettings(hosts=["http://x"]).check()[0][0][0] == "hosts"
    assert ServeSettings(sql_timeout="2h").check()[0][0][0] == "sql_timeout"
    assert not is_loopback("0.0.0.0")
    assert is_loopback("::1")
