from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.model.rfc3339 import rfc3339
from ringmain.serve.instants import instant_ns


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_772_366_400_250_000_000, "2026-03-01T12:00:00.25Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_a_time_has_as_many_digits_as_it_needs(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text


@examples(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_time_is_read_back_as_it_was(time_ns: int) -> None:
    assert instant_ns(rfc3339(time_ns)) == time_ns
