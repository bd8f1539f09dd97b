"""What `Ordering` promises to steps whose rows depend on one another."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows import ordering_held
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.later import made as whole
from ringmain.flows.ordering import Ordering
from ringmain.flows.ordering_rows import Ordered, time_order
from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.step import Context, Surroundings
from ringmain.model.schemas import READING

from .recording import Row, batch, late_rows
from .reference.ordering import OrderingReference

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


def context() -> Context:
    return Context(Surroundings("test", "out", Path(), ZoneInfo("UTC")), Attributes())


def ordering(**settings: Any) -> Ordering:
    made = Ordering(context(), **settings)
    made.release(at(0))
    return made


def take(into: Ordering, seconds: float, *rows: tuple[int, float, float]) -> None:
    full = [(series, at(time), value, 0) for series, time, value in rows]
    into.take(Block(batch(full), at(seconds)))


def rows(ordered: Ordered | None) -> list[tuple[int, float, float]]:
    if ordered is None:
        return []
    times = [(time - START) / SECOND for time in ordered.time.tolist()]
    return list(zip(ordered.series.tolist(), times, ordered.value.tolist(), strict=True))


def late(made: Ordering) -> list[tuple[int, float, float]]:
    return [
        (series, (time - START) / SECOND, value)
        for block in made.late_blocks()
        for series, time, value, _, _ in late_rows(block.rows)
    ]


def counts(made: Ordering) -> dict[str, int]:
    return made._context.counts


def test_rows_of_an_instant_come_in_order_of_series_and_time_once_it_has_ended() -> None:
    made = ordering()
    take(made, 0, (2, -1, 1.0), (1, -2, 2.0))
    take(made, 0, (1, -3, 3.0))
    assert rows(made.release(at(1))) == [(1, -3, 3.0), (1, -2, 2.0), (2, -1, 1.0)]
    assert made.release(at(2)) is None


def test_one_block_in_which_every_series_occurs_once_is_not_copied() -> None:
    made = ordering()
    block = Block(batch([(7, at(0), 1.0, 0), (8, at(0), 2.0, 0), (9, at(0), 3.0, 0)]), at(0))
    made.take(block)
    ordered = made.release(at(1))
    assert ordered is not None
    assert ordered.unique
    assert ordered.places == slice(7, 10)
    assert np.shares_memory(ordered.value, block.value)
    assert ordered.block(None, at(1)).rows is block.rows


def test_the_newest_of_a_series_and_time_wins_and_equal_ones_are_duplicates() -> None:
    made = ordering()
    take(made, 0, (1, 0, 5.0), (1, 0, 5.0), (1, 0, 6.0), (1, 1, 7.0))
    assert rows(made.release(at(1))) == [(1, 0, 6.0), (1, 1, 7.0)]
    assert counts(made) == {"duplicates": 1, "replaced": 1}


def test_a_repeat_of_the_newest_released_reading_is_a_duplicate_and_not_late() -> None:
    made = ordering()
    take(made, 0, (1, 0, 5.0), (2, 0, float("nan")))
    made.release(at(1))
    take(made, 1, (1, 0, 5.0), (2, 0, float("nan")))
    assert made.release(at(2)) is None
    assert late(made) == []
    assert counts(made) == {"duplicates": 2}


def test_another_value_or_an_older_time_than_what_was_released_is_late() -> None:
    made = ordering()
    take(made, 0, (1, 0, 5.0), (2, 9, 1.0))
    made.release(at(1))
    take(made, 1, (2, 3, 2.0), (1, 0, 6.0), (1, -1, 4.0), (1, 1, 7.0))
    assert rows(made.release(at(2))) == [(1, 1, 7.0)]
    assert late(made) == [(2, 3, 2.0), (1, 0, 6.0), (1, -1, 4.0)]
    assert late(made) == []
    assert counts(made) == {"late": 3}


def test_late_readings_tell_arrival_and_reason() -> None:
    made = ordering()
    take(made, 0, (1, 0, 5.0))
    made.release(at(1))
    take(made, 1, (1, -1, 4.0))
    made.release(at(2))
    (block,) = made.late_blocks()
    assert block.stream == "out.late"
    assert late_rows(block.rows) == [(1, at(-1), 4.0, 0, at(1))]
    assert "not newer" in block.rows.column("reason")[0].as_py()


def test_dropped_late_readings_are_counted() -> None:
    made = ordering(late=Lateness.DROP)
    take(made, 0, (1, 0, 5.0))
    made.release(at(1))
    take(made, 1, (1, -1, 4.0))
    assert made.release(at(2)) is None
    assert made.late_blocks() == []
    assert counts(made) == {"late": 1}


def test_far_ahead_readings_take_no_part_and_move_nothing() -> None:
    made = ordering()
    take(made, 0, (1, 301, 1.0), (1, 300, 2.0))
    assert rows(made.release(at(1))) == [(1, 300, 2.0)]
    made = ordering()
    take(made, 0, (1, 301, 1.0))
    made.release(at(1))
    take(made, 1, (1, 1, 2.0))
    assert rows(made.release(at(2))) == [(1, 1, 2.0)]
    assert counts(made) == {"ahead": 1}


def test_times_before_1900_and_impossible_series_are_counted_as_unusable() -> None:
    made = ordering()
    made.take(
        Block(
            batch([(1, EARLIEST_NS - 1, 1.0, 0), (SERIES_MAX, at(0), 2.0, 0), (3, EARLIEST_NS, 3.0, 0)]),
            at(0),
        )
    )
    ordered = made.release(at(1))
    assert ordered is not None
    assert ordered.series.tolist() == [3]
    assert counts(made) == {"unusable": 2}
    made.take(Block(batch([(4_294_967_295, at(0), 1.0, 0)]), at(1)))
    assert made.release(at(2)) is None


def test_grace_holds_readings_until_their_series_is_ahead_by_it() -> None:
    made = ordering(grace_ns=5 * SECOND)
    take(made, 0, (1, 0, 1.0), (2, 0, 1.0))
    assert made.release(at(1)) is None
    take(made, 1, (1, 6, 3.0), (1, 4, 2.0), (1, -9, 0.0))
    assert rows(made.release(at(2))) == [(1, -9, 0.0), (1, 0, 1.0)]
    take(made, 2, (1, 0, 8.0), (1, 3, 1.5), (1, 11, 4.0))
    assert rows(made.release(at(3))) == [(1, 3, 1.5), (1, 4, 2.0), (1, 6, 3.0)]
    assert late(made) == [(1, 0, 8.0)]


def test_held_readings_are_released_once_their_series_is_silent_for_idle() -> None:
    made = ordering(grace_ns=5 * SECOND, idle_ns=10 * SECOND)
    take(made, 0, (1, 0, 1.0))
    made.release(at(4))
    take(made, 4, (2, 4, 2.0))
    assert made.release(at(9)) is None
    assert rows(made.release(at(10))) == [(1, 0, 1.0)]
    assert rows(made.release(at(14))) == [(2, 4, 2.0)]
    assert made.release(at(50)) is None


def test_with_more_held_than_there_is_room_for_all_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ordering_held.HELD_ROWS_MAX >= 1_000_000
    monkeypatch.setattr("ringmain.flows.ordering_held.HELD_ROWS_MAX", 3)
    made = ordering(grace_ns=50 * SECOND)
    take(made, 0, (1, 0, 1.0), (2, 0, 1.0), (3, 0, 1.0))
    assert made.release(at(1)) is None
    take(made, 1, (1, 1, 1.0))
    assert len(rows(made.release(at(2)))) == 4
    assert counts(made) == {"crowded": 4}


def test_rounds_hold_every_row_once_and_no_series_twice() -> None:
    made = ordering()
    take(made, 0, (5, 1, 0.0), (3, 2, 0.0), (5, 3, 0.0), (5, 2, 0.0), (9, 0, 0.0))
    ordered = made.release(at(1))
    assert ordered is not None
    seen = []
    for turn in ordered.rounds():
        series = ordered.series[turn.rows]
        assert len(set(series.tolist())) == len(series)
        assert series.tolist() == (turn.series.tolist() if not isinstance(turn.series, slice) else [])
        seen.append(series.tolist())
    assert seen == [[3, 5, 9], [5], [5]]


def test_rows_keep_further_columns_and_come_in_order_of_time() -> None:
    schema = READING.append(pa.field("feeder", pa.string()))
    made = ordering()
    for part in (0, 1):
        plain = batch([(2, at(1 - part), 1.0, 0), (1, at(5 - part), 2.0, 0)])
        made.take(
            Block(
                pa.RecordBatch.from_arrays([*plain.columns, pa.array(["a", f"b{part}"])], schema=schema),
                at(0),
            )
        )
    ordered = made.release(at(1))
    assert ordered is not None
    block = ordered.block(np.array([True, True, False, True]), at(1))
    assert [(row["series"], row["feeder"]) for row in block.rows.to_pylist()] == [
        (2, "a"),
        (1, "b1"),
        (1, "b0"),
    ]


@pytest.mark.parametrize("spread", [0, 1000, (1 << 39) // 50, (1 << 39) // 49 + 1, (1 << 40) // 50, 1 << 45])
def test_order_by_time_is_stable(spread: int) -> None:
    random_ = np.random.default_rng(1)
    time = START + random_.integers(0, 50, 500) * spread
    order = time_order(time)
    expected = np.argsort(time, kind="stable")
    assert (np.arange(500) if order is None else order).tolist() == expected.tolist()


def test_an_empty_block_is_nothing() -> None:
    made = ordering()
    made.take(Block(batch([]), at(0)))
    assert made.release(at(1)) is None


row_strategy = st.tuples(
    st.sampled_from([0, 1, 2, 3, 70_000, SERIES_MAX, 4_294_967_295]),
    st.one_of(
        st.integers(-20, 20).map(lambda step: at(step / 2)),
        st.sampled_from([-(2**63), 2**63 - 1, EARLIEST_NS - 1, EARLIEST_NS, at(400), at(299)]),
    ),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), float("inf")]),
    st.sampled_from([0, 0, 2]),
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 15), st.lists(row_strategy, max_size=8), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([0, 3 * SECOND]),
    st.sampled_from([1, 4096]),
    st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    instants: list[tuple[int, list[Row], bool]], grace_ns: int, block_rows: int, chance: random.Random
) -> None:
    before, ordering_held.BLOCK_ROWS_MIN = ordering_held.BLOCK_ROWS_MIN, block_rows
    try:
        _compare(instants, grace_ns, chance)
    finally:
        ordering_held.BLOCK_ROWS_MIN = before


def _compare(instants: list[tuple[int, list[Row], bool]], grace_ns: int, chance: random.Random) -> None:
    reference = OrderingReference(grace_ns=grace_ns, idle_ns=8 * SECOND)
    made = Ordering(context(), grace_ns=grace_ns, idle_ns=8 * SECOND)
    now = at(-5)
    made.release(now)
    for step, instant, shared in instants:
        if shared:  # a fleet in a round
            instant = [(series, now, 1.0, 0) for series in range(4)]
        left = list(instant)
        while left:
            size = chance.randint(1, len(left))
            made.take(Block(batch(left[:size]), now))
            left = left[size:]
            if chance.random() < 0.3:
                made = _restarted(made, grace_ns)
        for series, time, value, quality in instant:
            reference.take({"series": series, "time": time, "value": value, "quality": quality}, now)
        now += step * SECOND
        ordered = made.release(now)
        expected, expected_late = reference.release(now)
        columns = [
            [] if ordered is None else getattr(ordered, name).tolist()
            for name in ("series", "time", "value", "quality")
        ]
        names = ("series", "time", "value", "quality")
        assert repr(list(zip(*columns, strict=True))) == repr(
            [tuple(row[name] for name in names) for row in expected]
        )
        if ordered is not None:
            assert made.newest[ordered.series].tolist() == [
                reference.released[series]["time"] for series in ordered.series.tolist()
            ]
        found = [row for block in made.late_blocks() for row in late_rows(block.rows)]
        assert repr(found) == repr(
            [tuple(row[name] for name in (*names, "arrived")) for row in expected_late]
        )
        assert counts(made) == reference.counts


def _restarted(made: Ordering, grace_ns: int) -> Ordering:
    new = Ordering(context(), grace_ns=grace_ns, idle_ns=8 * SECOND)
    new.restore({name: copy.deepcopy(whole(part)) for name, part in made.state().items()})
    new._context.counts = made._context.counts
    return new
