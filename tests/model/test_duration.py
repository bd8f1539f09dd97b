"""Durations of the configuration."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("500ms", 500_000_000),
        ("10s", 10**10),
        ("1m", 60 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("7d", 604_800 * 10**9),
    ],
)
def test_a_duration_is_read_in_its_unit(text: str, expected_ns: int) -> None:
    assert parse_duration(text) == expected_ns


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 m", "1y", "1e3s", "١s"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 10**8))
def test_a_printed_duration_reads_back_as_itself(duration_ns: int) -> None:
    assert parse_duration(format_duration(duration_ns)) == duration_ns
