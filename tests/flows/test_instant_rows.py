"""The rows of an instant in their order, whichever loop looks at them, and what is known of their series."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows import instant_rows
from ringmain.flows.block import Block, readings_block
from ringmain.flows.compiled import ROWS_MIN
from ringmain.flows.instant_rows import InstantRows
from ringmain.model.schemas import READING

Row = tuple[int, int]
"""Series and time."""


def block_of(rows: list[Row]) -> Block:
    """Their values tell where they stood."""
    series, time = np.array(rows, np.int64).reshape(-1, 2).T
    count = len(rows)
    return readings_block(
        series.astype(np.uint32), time, np.arange(count, dtype=np.float64), np.zeros(count, np.uint16), 5
    )


def released(blocks: list[Block]) -> tuple[list[Row], list[float], int, bool]:
    """The rows, their values, the end of the series, and whether the column of series is known."""
    step = InstantRows(READING)
    for block in blocks:
        step.take(block)
    found = step.release()
    assert found is not None
    rows, arrival_ns, series = found
    assert arrival_ns == 5
    assert step.release() is None
    if series is not None:
        assert series.equals(rows.column(0))
    table = rows.columns
    times = table[1].cast(pa.int64()).to_pylist()
    pairs = list(zip(table[0].to_pylist(), times, strict=True))
    return pairs, table[2].to_pylist(), step.series_end, series is not None


LOW, HIGH = 0, 2**32 - 2
"""The last id of 32 bits is none: the end behind it would not be one."""


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(LOW, 5) | st.integers(HIGH - 3, HIGH), st.integers(-3, 3)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_rows_come_in_order_of_series_and_time_and_equal_ones_in_that_of_the_log(
    rows: list[Row], cut: int
) -> None:
    blocks = [block_of(rows[:cut]), block_of(rows[cut:])]
    pairs, _, end, _ = released(blocks)
    assert pairs == sorted(rows)
    assert end == max(series for series, _ in rows) + 1
    _, values, _, _ = released([block_of(rows)])
    assert values == sorted(range(len(rows)), key=lambda place: rows[place])


@pytest.mark.parametrize("count", [1, 2, ROWS_MIN - 1, ROWS_MIN, ROWS_MIN + 3])
@pytest.mark.parametrize("changed", ["nothing", "first", "last", "equal"])
def test_both_loops_tell_rising_series_from_others(count: int, changed: str) -> None:
    series = np.arange(10, 10 + count, dtype=np.uint32)
    series[-1] = HIGH
    if changed == "first":
        series[0] = HIGH
    elif changed == "last":
        series[-1] = 10
    elif changed == "equal":
        series[-1] = series[-2:][0]
    rising = bool(np.all(np.diff(series.astype(np.int64)) > 0))
    view = series.view()
    view.flags.writeable = False
    expected = int(series[-1]) if rising else -1
    assert int(instant_rows._last_if_rising(view)) == expected
    assert int(instant_rows._last_if_rising_numpy(view)) == expected
    pairs, _, end, known = released([block_of([(int(one), 0) for one in series])])
    assert [one for one, _ in pairs] == sorted(series.tolist())
    assert end == int(series.max()) + 1
    assert known == rising


def test_series_that_are_null_are_rows_like_others() -> None:
    schema = pa.schema([pa.field("series", pa.uint32()), pa.field("value", pa.float64())])
    ids = pa.array([3, None, 1], pa.uint32())
    batch = pa.RecordBatch.from_arrays([ids, pa.array([1.0, 2.0, 3.0])], schema=schema)
    step = InstantRows(schema)
    step.take(Block(batch, 1))
    found = step.release()
    assert found is not None
    assert sorted(found[0].column(1).to_pylist()) == [1.0, 2.0, 3.0]
    assert found[0].column(0).null_count == 1


def test_a_part_of_a_larger_batch_is_looked_at_where_it_lies() -> None:
    rows = block_of([(9, 0), (1, 0), (2, 0), (3, 0), (0, 0)]).rows.slice(1, 3)
    step = InstantRows(READING)
    step.take(Block(rows, 1))
    found = step.release()
    assert found is not None
    assert found[0].column(0).to_pylist() == [1, 2, 3]
    assert step.series_end == 4
