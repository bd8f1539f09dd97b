"""Settings of a flow: defaults that make sense, and errors that say what was expected."""

from __future__ import annotations

import msgspec
import pytest

from ringmain.flows.settings import Aggregate, Late, WindowSettings


def test_only_the_output_has_to_be_named() -> None:
    flow = msgspec.convert({"to": "readings.1m"}, WindowSettings)
    told = flow.told()
    assert (told.source, told.to, told.late_stream) == ("readings", "readings.1m", "readings.1m.late")
    assert (told.grid.start_of(1), told.grace_ns) == (60_000_000_000, 10_000_000_000)
    assert (told.idle_ns, told.max_ahead_ns, told.late) == (30_000_000_000, 300_000_000_000, Late.REVISE)
    assert flow.check() == ([], [])


def test_values_stand_in_the_stream_in_one_order_however_they_are_configured() -> None:
    flow = msgspec.convert({"to": "out", "values": ["last", "count", "max"]}, WindowSettings)
    assert flow.columns == (Aggregate.COUNT, Aggregate.MAX, Aggregate.LAST)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("window", "soon", "expected a duration such as 500ms, 10s, 1m, 1h or 7d, found 'soon'"),
        ("window", "0s", "expected 1ms to 366d, found 0s"),
        ("window", "400d", "expected 1ms to 366d, found 400d"),
        ("grace", "-1s", "expected a duration such as 500ms, 10s, 1m, 1h or 7d, found '-1s'"),
        ("grace", "365d", "expected at most 4094 times 1m, found 365d"),
        ("idle", "0s", "expected more than 0s, found 0s"),
        ("window", "fortnight", "or one of hour, day, week, month, quarter, year"),
        ("values", [], "expected at least one of count, sum, mean, min, max, first, last, std"),
        ("values", ["duration"], "expected the condition that `duration` measures, such as `value > 10`"),
        ("values", ["completeness"], "expected how often a reading should come, such as 15m"),
        (
            "zone",
            "Europe/Leipzig",
            "expected an IANA time zone such as Europe/Berlin, found 'Europe/Leipzig'",
        ),
        ("hold", "65m", "expected at most 64 windows of 1m, found 65m"),
        ("hold", "0s", "expected more than 0s, found 0s"),
        ("offset", "x", "expected a duration such as"),
        ("values", ["min", "min"], "expected each value once, found min, min"),
        ("to", "readings", "expected a stream of the flow's own"),
        ("to", "a b", "expected a stream name of letters, digits"),
        ("from", "", "expected a stream name of letters, digits"),
    ],
)
def test_an_error_says_what_was_expected_and_what_came(key: str, value: object, message: str) -> None:
    flow = msgspec.convert({"to": "out", key: value}, WindowSettings)
    errors, _ = flow.check()
    where = {"duration": "state", "completeness": "interval"}
    expected = where.get(value[0], key) if isinstance(value, list) and value else key
    assert [found for found, _ in errors] == [expected]
    assert message in errors[0][1]


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        (
            {"window": "7m", "calendar": True},
            "window",
            "expected a length of 15m or more that divides the day",
        ),
        ({"window": "1m", "calendar": True}, "window", "expected a length of 15m or more"),
        ({"window": "day", "offset": "25h"}, "offset", "expected whole seconds below 1d, found 25h"),
        (
            {"values": ["duration"], "state": "power > 1"},
            "state",
            "expected a comparison such as `value > 10`",
        ),
        ({"values": ["duration"], "state": "value > __import__('os')"}, "state", "expected a comparison"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_named(
    settings: dict[str, object], key: str, message: str
) -> None:
    errors, _ = msgspec.convert({"to": "out", **settings}, WindowSettings).check()
    assert [found for found, _ in errors] == [key]
    assert message in errors[0][1]


def test_settings_that_mean_nothing_are_warned_of() -> None:
    flow = msgspec.convert(
        {"to": "out", "hold": "1m", "interval": "1m", "state": "value > 1"}, WindowSettings
    )
    assert [key for key, _ in flow.check()[1]] == ["state", "interval", "hold"]


def test_unknown_keys_and_words_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="late"):
        msgspec.convert({"to": "out", "late": "never"}, WindowSettings)
    with pytest.raises(msgspec.ValidationError, match="unknown field `windows`"):
        msgspec.convert({"to": "out", "windows": "1m"}, WindowSettings)
