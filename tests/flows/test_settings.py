"""Settings of a flow: defaults that make sense, and errors that say what was expected."""

from __future__ import annotations

import msgspec
import pytest

from ringmain.flows.settings import Aggregate, Late, WindowSettings


def test_only_the_output_has_to_be_named() -> None:
    flow = msgspec.convert({"to": "readings.1m"}, WindowSettings)
    assert (flow.from_, flow.window_ns, flow.grace_ns) == ("readings", 60_000_000_000, 10_000_000_000)
    assert (flow.idle_ns, flow.max_ahead_ns, flow.late) == (30_000_000_000, 300_000_000_000, Late.REVISE)
    assert flow.check() == ([], [])
    assert flow.late_stream == "readings.1m.late"


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
        ("grace", "365d", "expected at most 4094 windows of 1m, found 365d"),
        ("idle", "0s", "expected more than 0s, found 0s"),
        ("values", [], "expected at least one of count, sum, mean, min, max, first, last"),
        ("values", ["min", "min"], "expected each value once, found min, min"),
        ("to", "readings", "expected a stream of the flow's own"),
        ("to", "a b", "expected a stream name of letters, digits"),
        ("from", "", "expected a stream name of letters, digits"),
    ],
)
def test_an_error_says_what_was_expected_and_what_came(key: str, value: object, message: str) -> None:
    flow = msgspec.convert({"to": "out", key: value}, WindowSettings)
    errors, warnings = flow.check()
    assert [found for found, _ in errors] == [key]
    assert message in errors[0][1]
    assert warnings == []


def test_unknown_keys_and_words_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="late"):
        msgspec.convert({"to": "out", "late": "never"}, WindowSettings)
    with pytest.raises(msgspec.ValidationError, match="unknown field `windows`"):
        msgspec.convert({"to": "out", "windows": "1m"}, WindowSettings)
