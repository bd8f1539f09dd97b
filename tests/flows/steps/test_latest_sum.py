"""The step `latest-sum`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import readings_block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan
from ringmain.flows.latest import WhenStale
from ringmain.flows.latest_step import LatestSum
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.latest_sum import LatestSumSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING, SERIES
from tests.flows.recording import Recording
from tests.flows.reference import latest_sum as reference
from tests.flows.steps.driving import SECOND, START, Instant, plan_of, record, run, run_reference, same

KNOWN = {
    0: {"place": "west/f1", "unit": "W", "medium": "load"},
    1: {"place": "west/f1", "unit": "W", "medium": "feed-in"},
    2: {"place": "west/f2", "unit": "W", "medium": "load"},
    3: {"place": "east/f1", "unit": "W", "medium": "load"},
    4: {"place": "east/f1", "unit": "Wh", "medium": None},
    5: {"place": None, "unit": None, "medium": None},
}


def at(second: float) -> int:
    return START + int(second * SECOND)


def totals(
    step: LatestSumSettings, instants: list[Instant], known: Any = KNOWN, tail_s: int = 2
) -> list[dict[str, Any]]:
    return run(plan_of(step), record(instants, known=known, tail_s=tail_s)).get("out", [])


def test_the_newest_values_of_a_place_add_up_and_every_change_gives_a_row() -> None:
    step = LatestSumSettings(by={"area": "place[1]"}, stale=None)
    rows = totals(
        step,
        [
            (at(0), [(0, at(0), 100.0, 0), (2, at(0), 20.0, 0), (3, at(0), 7.0, 0)]),
            (at(1), [(2, at(1), 25.0, 0)]),
        ],
    )
    assert [(row["area"], row["unit"], row["time"], row["value"], row["reporting"]) for row in rows] == [
        ("west", "W", at(0), 120.0, 2),
        ("east", "W", at(0), 7.0, 1),
        ("west", "W", at(1), 125.0, 2),
    ]
    assert [row["oldest"] for row in rows] == [at(0), at(0), at(0)]
    assert {row["quality"] for row in rows} == {12}


def test_series_of_different_units_are_never_added() -> None:
    rows = totals(
        LatestSumSettings(by=("place[1]",), stale=None),
        [(at(0), [(3, at(0), 7.0, 0), (4, at(0), 1000.0, 0)])],
    )
    assert [(row["place_1"], row["unit"], row["value"]) for row in rows] == [
        ("east", "W", 7.0),
        ("east", "Wh", 1000.0),
    ]


def test_feed_in_counts_with_its_sign() -> None:
    rows = totals(
        LatestSumSettings(
            by=("place[1]",), weight="case medium when 'feed-in' then -1 else 1 end", stale=None
        ),
        [(at(0), [(0, at(0), 100.0, 0), (1, at(0), 130.0, 0)])],
    )
    assert [row["value"] for row in rows] == [-30.0]


def test_an_older_value_never_replaces_a_newer_one_and_is_counted() -> None:
    plan = plan_of(LatestSumSettings(stale=None))
    log = record(
        [
            (at(0), [(0, at(0), 1.0, 0)]),
            (at(1), [(0, at(-5), 99.0, 0)]),
            (at(2), [(0, at(1), 2.0, 0), (0, at(0.5), 77.0, 0)]),
        ],
        known=KNOWN,
        tail_s=1,
    )
    chain = Chain(plan, log)
    rows = [row for frame in log.frames for block in chain.step(frame) for row in block.rows.to_pylist()]
    assert [row["value"] for row in rows] == [1.0, 2.0]
    assert chain.contexts[0].counts == {"older": 1}


def test_another_value_for_the_newest_time_is_a_correction() -> None:
    rows = totals(
        LatestSumSettings(stale=None),
        [(at(0), [(0, at(0), 1.0, 0)]), (at(1), [(0, at(0), 5.0, 0), (0, at(0), 6.0, 0)])],
    )
    assert [row["value"] for row in rows] == [1.0, 6.0]


def test_an_invalid_value_takes_its_series_out_until_a_valid_one_comes() -> None:
    rows = totals(
        LatestSumSettings(stale=None),
        [
            (at(0), [(0, at(0), 1.0, 0), (2, at(0), 10.0, 0)]),
            (at(1), [(0, at(1), 1.0, 2)]),
            (at(2), [(2, at(2), math.nan, 0)]),
            (at(3), [(0, at(3), 4.0, 0)]),
        ],
    )
    assert [(row["value"], row["reporting"], row["expected"], row["quality"]) for row in rows] == [
        (11.0, 2, 2, 12),
        (10.0, 1, 2, 13),
        (None, 0, 2, 14),
        (4.0, 1, 2, 13),
    ]


@pytest.mark.parametrize(("when", "values"), [("remove", [11.0, 10.0, 12.0]), ("keep", [11.0, 11.0, 12.0])])
def test_a_series_that_falls_silent_leaves_the_sum_or_stays_as_told(when: str, values: list[float]) -> None:
    rows = totals(
        LatestSumSettings(stale="10s", when_stale=WhenStale(when)),
        [
            (at(0), [(0, at(0), 1.0, 0), (2, at(0), 10.0, 0)]),
            (at(8), [(2, at(8), 10.0, 0)]),
            (at(15), [(0, at(15), 2.0, 0)]),
        ],
    )
    del rows[1]
    assert [row["value"] for row in rows] == values
    assert [(row["time"], row["stale"], row["quality"] & 1) for row in rows] == [
        (at(0), 0, 0),
        (at(10), 1, 1),
        (at(15), 0, 0),
    ]


def test_a_reading_in_the_instant_in_which_its_series_would_become_stale_keeps_it_fresh() -> None:
    rows = totals(
        LatestSumSettings(stale="10s"),
        [(at(0), [(0, at(0), 1.0, 0)]), (at(10), [(0, at(10), 2.0, 0)])],
        tail_s=3,
    )
    assert [(row["value"], row["stale"]) for row in rows] == [(1.0, 0), (2.0, 0)]


def test_at_most_one_row_a_group_in_the_configured_time() -> None:
    rows = totals(
        LatestSumSettings(stale=None, every="5s"),
        [(at(second), [(0, at(second), float(second), 0)]) for second in range(12)],
        tail_s=5,
    )
    assert [(row["time"], row["value"]) for row in rows] == [
        (at(0), 0.0),
        (at(5), 5.0),
        (at(10), 10.0),
        (at(15), 11.0),
    ]


def test_a_series_that_moves_to_another_place_changes_both_sums() -> None:
    log = Recording()
    entry = {"key": "k", "source": "test", "unit": "W"}

    def entries(*found: tuple[int, str], now: int) -> None:
        rows = [{**entry, "id": number, "place": place} for number, place in found]
        log.append("catalogue", pa.RecordBatch.from_pylist(rows, schema=SERIES), now)

    entries((0, "a"), (1, "a"), (2, "b"), now=at(0))
    log.readings([(0, at(0), 1.0, 0), (1, at(0), 2.0, 0), (2, at(0), 4.0, 0)], at(0))
    log.tick(at(1))
    entries((1, "b"), now=at(1))
    log.tick(at(2))
    entries((0, "b"), now=at(2))
    log.tick(at(3))
    rows = run(plan_of(LatestSumSettings(by=("place",), stale=None)), log)["out"]
    assert [(row["place"], row["time"], row["value"], row["expected"]) for row in rows] == [
        ("a", at(0), 3.0, 2),
        ("b", at(0), 4.0, 1),
        ("a", at(1), 1.0, 1),
        ("b", at(1), 6.0, 2),
        ("a", at(2), None, 0),
        ("b", at(2), 7.0, 3),
    ]


def test_rows_are_grouped_by_a_column_of_theirs_that_may_change() -> None:
    schema = READING.append(pa.field("tariff", pa.string()))
    step = LatestSumSettings(by=("tariff",), stale=None)
    shape = Shape(StreamKind.ROW, schema, unit="W")
    plan = plan_of(step, from_="priced", schemas={"priced": shape})
    log = Recording()
    for second, rows in enumerate(
        [[(0, 1.0, "day"), (1, 2.0, "day")], [(0, 3.0, "night")], [(1, 5.0, None), (0, 4.0, "night")]]
    ):
        columns = [
            pa.array([row[0] for row in rows], pa.uint32()),
            pa.array([at(second)] * len(rows), pa.int64()).cast(schema.field("time").type),
            pa.array([row[1] for row in rows], pa.float64()),
            pa.array([0] * len(rows), pa.uint16()),
            pa.array([row[2] for row in rows], pa.string()),
        ]
        log.append("priced", pa.RecordBatch.from_arrays(columns, schema=schema), at(second))
    log.tick(at(9))
    rows = run(plan, log)["out"]
    assert [(row["tariff"], row["value"], row["unit"]) for row in rows] == [
        ("day", 3.0, "W"),
        ("day", 2.0, "W"),
        ("night", 3.0, "W"),
        ("day", None, "W"),
        ("night", 4.0, "W"),
        (None, 5.0, "W"),
    ]


def test_what_takes_no_part_is_counted_and_moves_nothing() -> None:
    plan = plan_of(LatestSumSettings(stale="5s"))
    log = record(
        [
            (at(0), [(0, at(0), 1.0, 0)]),
            (
                at(1),
                [
                    (0, at(900), 9.0, 0),
                    (0, -(2**62), 9.0, 0),
                    (2**24, at(1), 9.0, 0),
                    (2**32 - 1, at(1), 9.0, 0),
                ],
            ),
            (at(2), []),
            (at(3), [(0, at(3), -0.0, 0)]),
            (at(4), [(0, at(4), math.inf, 0), (2, at(4), -math.inf, 0)]),
        ],
        known=KNOWN,
        tail_s=1,
    )
    chain = Chain(plan, log)
    rows = [row for frame in log.frames for block in chain.step(frame) for row in block.rows.to_pylist()]
    assert [repr(row["value"]) for row in rows] == ["1.0", "0.0", "nan"]
    assert chain.contexts[0].counts == {"unusable": 3, "ahead": 1}


@pytest.mark.parametrize("time", [-(2**63), 2**63 - 1, -(2**62)])
def test_a_first_row_that_takes_no_part_leaves_the_rest_as_it_is(time: int) -> None:
    """Its series is known by then, and stands for nothing."""
    rows = totals(
        LatestSumSettings(stale="3s"), [(at(0), [(1, time, 1.0, 0)]), (at(5), [(1, at(5), 2.0, 0)])]
    )
    assert [row["value"] for row in rows] == [2.0]


def test_one_series_with_ten_thousand_rows_and_ten_thousand_series_with_one() -> None:
    step = LatestSumSettings(stale=None)
    many = [(0, at(0) + number, float(number), 0) for number in range(10_000)]
    assert [row["value"] for row in totals(step, [(at(1), many)])] == [9_999.0]
    wide = [(number, at(0), 1.0, 0) for number in range(10_000)]
    (row,) = totals(step, [(at(1), wide)], known=None)
    assert (row["value"], row["expected"], row["unit"]) == (10_000.0, 10_000, None)


def test_sums_are_formed_in_order_of_series_whatever_the_order_of_arrival() -> None:
    values = [1e16, 1.0, -1e16, 1.0, 3.0, 1e-3]
    expected = 0.0
    for value in values:
        expected += value
    rng = random.Random(1)
    for _ in range(5):
        order = rng.sample(range(6), 6)
        rows = totals(
            LatestSumSettings(stale=None),
            [(at(0), [(number, at(0), values[number], 0) for number in order])],
            known=None,
        )
        assert [row["value"] for row in rows] == [expected]


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ({"by": ["place", "place"]}, "by", "two terms make a column 'place'"),
        ({"by": ["place[0]"]}, "by", "levels count from 1"),
        ({"by": {"value": "place"}}, "by", "column 'value' already"),
        ({"stale": "0s"}, "stale", "more than 0s"),
        ({"stale": "soon"}, "stale", "soon"),
        ({"weight": "case when"}, "weight", ""),
    ],
)
def test_settings_that_cannot_work_are_named(table: dict[str, Any], key: str, text: str) -> None:
    errors, _ = settings_of({"type": "latest-sum", **table}).check()
    assert [error[0] for error in errors] == [key]
    assert text in errors[0][1]


def test_a_term_that_does_not_exist_is_named_with_what_there_is() -> None:
    with pytest.raises(PlanError, match=r"expected one of key, unit, .* found 'plaice'"):
        plan_of(LatestSumSettings(by=("plaice",)))
    with pytest.raises(PlanError, match="mediun"):
        plan_of(LatestSumSettings(weight="mediun"))
    with pytest.raises(PlanError, match="expected an expression that gives a number"):
        plan_of(LatestSumSettings(weight="medium"))


def test_what_means_the_same_is_the_same_definition() -> None:
    around = plan_of(LatestSumSettings(by=("place",))).around
    step = LatestSumSettings(by=("place[1]",), stale="60s")
    assert step.definition(around) == LatestSumSettings(by={"place_1": "place[1]"}, stale="1m").definition(
        around
    )
    assert step.definition(around) != LatestSumSettings(by=("place[2]",), stale="60s").definition(around)


VALUE = st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16, -0.0, 1.0, math.nan, math.inf])


@st.composite
def histories(draw: st.DrawFn) -> list[Instant]:
    now, instants = 0, []
    for _ in range(draw(st.integers(1, 9))):
        now += draw(st.sampled_from([1, 1, 1, 4, 25]))
        rows = draw(
            st.lists(
                st.tuples(
                    st.integers(0, 6),
                    st.sampled_from([-20, -2, -1, 0, 0, 0, 299, 301]).map(lambda s, now=now: at(now + s)),
                    VALUE,
                    st.sampled_from([0, 0, 0, 1, 2, 0x100]),
                ),
                max_size=10,
            )
        )
        instants.append((at(now), rows))
    return instants


@settings(max_examples=60, derandomize=True, deadline=None)
@given(reference.settings(), histories(), st.integers(0, 2**32))
def test_every_history_gives_the_rows_of_the_reference_however_cut_and_restarted(
    step: LatestSumSettings, instants: list[Instant], seed: int
) -> None:
    expected = run_reference([reference.Reference(step, KNOWN)], instants, tail_s=3)
    plan = plan_of(step)
    rng = random.Random(seed)
    whole = run(plan, record(instants, known=KNOWN, tail_s=3))
    assert same(whole, expected), (whole, expected)
    assert same(run(plan, record(instants, known=KNOWN, tail_s=3, cut=rng), restarts=rng), expected)


def test_the_whole_column_path_gives_what_the_row_path_gives() -> None:
    rng = np.random.default_rng(3)
    plan: FlowPlan = plan_of(LatestSumSettings(by=("place",), stale="4s"))

    def made() -> LatestSum:
        attributes = Attributes(["place", "unit"])
        entries = [
            {"id": n, "key": str(n), "place": f"p{n % 7}", "unit": "W", "source": "s"} for n in range(200)
        ]
        attributes.learn(pa.RecordBatch.from_pylist(entries, schema=SERIES))
        context = Chain(plan).contexts[0]
        context.attributes = attributes
        return LatestSumSettings(by=("place",), stale="4s").make(READINGS, context)

    sorted_step, shuffled = made(), made()
    for second in range(12):
        ids = np.flatnonzero(rng.random(200) < (1.0 if second % 3 else 0.5)).astype(np.uint32)
        time = np.full(len(ids), at(second), np.int64)
        value = rng.normal(size=len(ids)) * 10.0 ** rng.integers(-8, 8, len(ids))
        quality = np.zeros(len(ids), np.uint16)
        order = rng.permutation(len(ids))
        given: list[list[dict[str, Any]]] = []
        for step, index in ((sorted_step, slice(None)), (shuffled, order)):
            out = step.advance(at(second))
            given.append([row for block in out for row in block.rows.to_pylist()])
            step.take(readings_block(ids[index], time[index], value[index], quality[index], at(second)))
        assert given[0] == given[1]
        assert second == 0 or given[0]
