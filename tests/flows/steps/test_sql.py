"""The step `sql`: hand-made cases, what a query may not do, and any history against the row-by-row reference."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import readings_block
from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps.sql import LATE_REASON, SqlSettings
from ringmain.flows.window_query import QueryTimeoutError, WindowQuery
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import SERIES
from tests.flows.reference import sql as reference
from tests.flows.steps.driving import SECOND, START, Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import ODD_TIMES, agree, at, context, histories

COUNT = "select count(*) as n, sum(value) as total from rows"


def windows(
    step: SqlSettings, instants: list[Instant], *, tail_s: int = 0, **known: object
) -> list[tuple[object, ...]]:
    """Rows as (second of the start, columns ...)."""
    found = run(plan_of(step), record(instants, tail_s=tail_s, **known)).get("out", [])  # type: ignore[arg-type]
    return [((row.pop("start") - at(0)) // SECOND, *list(row.values())[1:]) for row in found]


def test_a_window_is_worked_on_once_the_slowest_series_is_past_it_by_grace() -> None:
    step = SqlSettings(query=COUNT, window="10s", grace="2s", idle="60s")
    instants: list[Instant] = [
        (at(1), [(1, at(1), 10.0, 0), (2, at(1), 20.0, 0)]),
        (at(13), [(1, at(13), 1.0, 0)]),  # series 2 holds the window
        (at(14), [(2, at(11), 1.0, 0)]),  # within grace
        (at(15), [(2, at(12), 1.0, 0)]),
    ]
    assert windows(step, instants) == []
    assert windows(step, instants, tail_s=1) == [(0, 2, 30.0)]


def test_a_dead_series_holds_a_window_until_it_is_idle_and_no_longer() -> None:
    step = SqlSettings(query=COUNT, window="10s", grace="0s", idle="20s")
    instants: list[Instant] = [(at(1), [(1, at(1), 10.0, 0), (2, at(1), 20.0, 0)])]
    instants += [(at(second), [(1, at(second), 1.0, 0)]) for second in (5, 11, 15, 20)]
    assert windows(step, [*instants]) == []
    assert windows(step, [*instants, (at(22), [(1, at(21), 1.0, 0)])], tail_s=1) == [
        (0, 3, 31.0),
        (10, 2, 2.0),
    ]


def test_windows_are_worked_on_when_everything_is_silent() -> None:
    step = SqlSettings(query=COUNT, window="10s", idle="5s")
    assert windows(step, [(at(1), [(1, at(1), 10.0, 0)])], tail_s=4) == []
    assert windows(step, [(at(1), [(1, at(1), 10.0, 0)])], tail_s=6) == [(0, 1, 10.0)]


def test_a_site_that_was_away_for_days_holds_nothing_up() -> None:
    step = SqlSettings(query=COUNT, window="10s", grace="0s", idle="20s", late=Lateness.SIDE)
    day = 86_400
    instants: list[Instant] = [(at(1), [(1, at(1), 1.0, 0), (2, at(1), 1.0, 0)])]
    instants += [(at(3 * day + 1), [(1, at(3 * day + 1), 1.0, 0)])]
    instants += [(at(3 * day + 5), [(2, at(second), 5.0, 0) for second in range(2, 40)])]
    instants += [(at(3 * day + 12), [(1, at(3 * day + 12), 1.0, 0)])]
    log = record(instants, tail_s=2, ticks=False)
    found = run(plan_of(step), log)
    assert [((row["start"] - at(0)) // SECOND, row["n"]) for row in found["out"]] == [(0, 2), (3 * day, 1)]
    assert len(found["out.late"]) == 38
    assert {row["reason"] for row in found["out.late"]} == {LATE_REASON}


def test_repeats_count_once_corrections_replace_and_invalid_values_are_null() -> None:
    step = SqlSettings(query=COUNT, window="10s", idle="5s")
    rows = [
        (1, at(1), 10.0, 0), (1, at(1), 10.0, 0), (1, at(2), 5.0, 0), (1, at(2), 6.0, 0),
        (1, at(3), 100.0, 2), (1, at(4), float("nan"), 0),
    ]  # fmt: skip
    assert windows(step, [(at(4), rows)], tail_s=10) == [(0, 4, 16.0)]


def test_rows_have_keys_and_the_attributes_that_are_asked_for() -> None:
    step = SqlSettings(
        query="select key, place, unit, value from rows",
        attributes=("place", "unit"),
        window="10s",
        idle="5s",
    )
    known = {1: {"key": "b", "place": "west", "unit": "W"}, 2: {"key": "a", "place": None, "unit": "kW"}}
    instants: list[Instant] = [(at(1), [(1, at(1), 1.0, 0), (2, at(1), 2.0, 0), (7, at(1), 3.0, 0)])]
    assert windows(step, instants, tail_s=10, known=known) == [
        (0, "a", None, "kW", 2.0),
        (0, "b", "west", "W", 1.0),
        (0, None, None, None, 3.0),
    ]


def test_an_order_of_the_query_is_kept_and_without_one_all_columns_order() -> None:
    instants: list[Instant] = [(at(1), [(3, at(1), 2.0, 0), (1, at(1), 9.0, 0), (2, at(1), 2.0, 0)])]
    plain = SqlSettings(query="select value, series from rows", window="10s", idle="5s")
    assert [row[1:] for row in windows(plain, instants, tail_s=9)] == [(2.0, 2), (2.0, 3), (9.0, 1)]
    ordered = SqlSettings(
        query="select value, series from rows order by value desc, series desc limit 2",
        window="10s",
        idle="5s",
    )
    assert [row[1:] for row in windows(ordered, instants, tail_s=9)] == [(9.0, 1), (2.0, 3)]


def test_a_query_that_fails_on_a_window_tells_it_in_a_stream_and_the_flow_goes_on() -> None:
    step = SqlSettings(
        query="select cast(case when value = 13 then 'x' else '1' end as integer) as n from rows",
        window="10s",
        idle="30s",
        grace="0s",
    )
    instants: list[Instant] = [(at(s), [(1, at(s), v, 0)]) for s, v in ((1, 13.0), (12, 1.0), (25, 1.0))]
    found = run(plan_of(step), record(instants, tail_s=40))
    assert [(row["start"] - at(0)) // SECOND for row in found["out"]] == [10, 20]
    (failed,) = found["out.failed"]
    assert (failed["start"], failed["rows"]) == (at(0), 1)
    assert "x" in failed["reason"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("select random() as r from rows", r"random\(\) depends on something else"),
        ("select now() as t from rows", r"now\(\) depends on"),
        ("select current_timestamp as t from rows", "current_timestamp depends on"),
        ("select uuid() as t from rows", "depends on"),
        ("select ago(interval 1 hour) as t from rows", "depends on"),
        ("select getvariable('x') as t from rows", "depends on"),
        ("select * from rows using sample 10%", "sample"),
        ("select * from rows tablesample 2", "sample"),
        ("select * from readings", "no table 'readings'"),
        ("select * from duckdb_settings()", "not available"),
        ("select * from read_csv('/etc/passwd')", "not available"),
        ("select * from '/etc/passwd'", "no table '/etc/passwd'"),
        ("select * from range(1000000000000)", "not available"),
        ("with recursive a as (select 1 as x union all select x + 1 from a) select * from a", "recursion|no table"),
        ("insert into rows values (1)", "expected one SELECT"),
        ("select 1 as a; select 2 as b", "expected one SELECT, found 2"),
        ("copy rows to '/tmp/x'", "expected one SELECT"),
        ("set threads = 4", "expected one SELECT"),
        ("select volt from rows", "volt"),
        ("selekt 1", "syntax"),
        ("select time as start from rows", "the rows have `start`"),
        ("select [1, 2] as l from rows", "column 'l' is of type"),
        ("select value as series from rows", "`series` is the id of a series"),
        ("", "expected|syntax"),
        ("select " + "1 + " * 6000 + "1 as x from rows", "at most 20000 characters"),
    ],
)  # fmt: skip
def test_a_query_that_may_not_run_is_refused_when_it_is_planned(query: str, told: str) -> None:
    with pytest.raises(PlanError, match=told) as refused:
        plan_of(SqlSettings(query=query))
    assert refused.value.key.endswith("query")


@pytest.mark.parametrize(
    "query",
    [
        "select unnest([1, 2]) as x, series from rows",
        "/* why */ select value from rows; -- done",
        "select value from rows -- order by nothing",
        "from rows select series, histogram(value)::varchar as h group by all",
        "with p as (select * from rows) select * from p order by all",
        "select time_bucket(interval 5 minute, time) as b, count(*) as n from rows group by 1",
        "select series, value - lag(value) over (partition by series order by time) as rise from rows qualify rise > 0",
        "select value from rows union all select 5 order by 1",
        "select timezone('Europe/Berlin', time)::date as day, list_sum([value, 1]) as s from rows",
    ],
)
def test_what_depends_on_the_rows_alone_may_run(query: str) -> None:
    step = SqlSettings(query=query, window="10s", idle="5s")
    assert windows(step, [(at(s), [(1, at(s), float(s), 0)]) for s in (1, 2)], tail_s=9) is not None


@pytest.mark.parametrize("limit_s", [0.0001, 0.002, 0.01, 0.1])
def test_a_query_is_stopped_after_its_time_whenever_that_comes_and_the_next_one_runs(limit_s: float) -> None:
    """An interrupt that came before a query had quite begun was forgotten, and the query ran for ever."""
    pairs = "a.value + b.value > c.value * d.value"
    endless = SqlSettings(
        query=f"select count(*) as n from rows a, rows b, rows c, rows d, rows e where {pairs}"
    )
    brief = SqlSettings(query="select count(*) as n from rows")
    rows = pa.table(
        {
            "series": pa.array(range(300), pa.uint32()),
            "key": ["key"] * 300,
            "time": pa.array([START // 1000] * 300, pa.timestamp("us", tz="UTC")),
            "value": [7.0] * 300,
            "quality": pa.array([0] * 300, pa.uint16()),
        },
        schema=brief.rows_schema(),
    )
    with pytest.raises(QueryTimeoutError):
        WindowQuery(endless.checked(), 64 << 20, limit_s).run(rows)
    assert WindowQuery(brief.checked(), 64 << 20, 60.0).run(rows).to_pylist() == [{"n": 300}]


def test_only_readings_can_be_asked() -> None:
    with pytest.raises(PlanError, match="`sql` works on readings"):
        plan_of(SqlSettings(query=COUNT), from_="other", schemas={"other": Shape(StreamKind.ROW, SERIES)})


def test_settings_are_checked() -> None:
    errors, _ = SqlSettings(
        query=COUNT, window="soon", grace="x", idle="0s", attributes=("colour", "colour")
    ).check()
    assert [key for key, _ in errors] == ["window", "grace", "idle", "attributes", "attributes", "attributes"]


def test_hostile_times_and_values_do_no_harm() -> None:
    step = SqlSettings(query=COUNT, window="10s", idle="5s")
    rows = [(1, time, 1.0, 0) for time in ODD_TIMES] + [(1 << 24, at(1), 1.0, 0), (2, at(999), 1.0, 0)]
    rows += [(1, at(1), float("inf"), 0), (1, at(2), -0.0, 0)]
    found = windows(step, [(at(2), rows)], tail_s=9)
    assert [row[1:] for row in found] == [(1, 1.0), (2, float("inf"))]  # the year 1900, and now


def test_many_series_and_many_rows_are_one_query() -> None:
    around = context()
    around.attributes = Attributes(("key",))
    made = SqlSettings(query=COUNT, window="10s", idle="5s").make(READINGS, around)
    count = 10_000
    for series, time in (
        (np.arange(count), np.full(count, at(1))),
        (np.zeros(count), np.linspace(at(2), at(9), count)),
    ):
        block = readings_block(
            series.astype(np.uint32), time.astype(np.int64), np.ones(count), np.zeros(count, np.uint16), at(9)
        )
        assert not made.take(block)
    (out,) = made.advance(at(20))
    assert out.rows.column("n").to_pylist() == [2 * count]


@examples(derandomize=True, deadline=None, max_examples=15)
@given(
    reference.settings(), histories(st.sampled_from([0.0, 1.0, 2.5, -4.0])), st.randoms(use_true_random=False)
)
def test_any_history_gives_what_the_reference_gives(
    step: SqlSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(step, reference.Reference(step), instants, chance, tail_s=20)
