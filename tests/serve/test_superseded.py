from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.serve import superseded
from ringmain.serve.superseded import Superseded, TooManyRevisionsError

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 6)), max_size=60)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_exactly_the_rows_with_a_later_row_of_the_same_series_and_time_are_replaced_however_they_are_cut(
    rows: list[tuple[int, int]], cuts: list[int]
) -> None:
    expected = [row in rows[place + 1 :] for place, row in enumerate(rows)]
    ids = np.array([series for series, _ in rows], np.uint32)
    times = np.array([at for _, at in rows], np.int64)
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    found = Superseded(2)
    for start, stop in itertools.pairwise(edges):
        found.see(ids[start:stop], times[start:stop])
    found.finish()
    replaced: list[bool] = []
    for start, stop in itertools.pairwise(edges):
        mask = found.replaced(ids[start:stop], times[start:stop], start)
        replaced += [False] * (stop - start) if mask is None else mask.tolist()
    assert replaced == expected
    assert found.rows == len(rows)


def test_rows_in_order_are_not_remembered() -> None:
    found = Superseded(1000)
    ids = np.arange(1000, dtype=np.uint32)
    for second in range(100):
        found.see(ids, np.full(1000, second, np.int64))
    found.finish()
    assert found.replaced(ids, np.zeros(1000, np.int64), 0) is None


def test_more_revisions_than_memory_is_set_aside_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superseded, "SUSPECTS_MAX", 10)
    found = Superseded(1)
    with pytest.raises(TooManyRevisionsError, match="shorter stretch"):
        found.see(np.zeros(20, np.uint32), np.zeros(20, np.int64))
