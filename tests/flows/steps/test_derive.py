"""The step `derive`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import math
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import Block
from ringmain.flows.flow import definition_hash
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.derive import DeriveSettings
from ringmain.flows.steps.filter import FilterSettings
from ringmain.log.interface import StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import EVENT, READING, TIMESTAMP
from tests.flows.reference import derive as reference
from tests.flows.steps.driving import START, Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import ODD_VALUES, agree, at, context, histories, wide_and_deep
from tests.flows.steps.row_wise import KNOWN, blocks, kept

ROWS: list[Instant] = [(at(0), [(0, at(0), 5.0, 0), (1, at(1), math.nan, 8), (900, at(2), -1.0, 4)])]


def derived(step: DeriveSettings) -> list[dict[str, object]]:
    return run(plan_of(step, zone="Europe/Berlin"), record(ROWS, known=KNOWN)).get("out", [])


def column(text: str) -> list[object]:
    return [row["made"] for row in derived(DeriveSettings(columns={"made": text}))]


def test_a_new_column_has_the_type_of_its_expression_and_null_without_a_result() -> None:
    assert column("value * 2") == [10.0, None, -2.0]
    assert column("quality + 1") == [1, 9, 5]
    assert column("value > 0") == [True, None, False]
    assert column("medium") == ["electricity", "gas", None]
    assert column("time") == [at(0), at(1), at(2)]
    assert column("nullif(time, time)") == [None, None, None]
    assert column("'x'") == ["x", "x", "x"]
    assert column("hour(time)") == [17, 17, 17]
    made = plan_of(
        DeriveSettings(columns={"n": "quality", "w": "medium", "b": "good", "t": "time"})
    ).output.schema
    assert made.types[4:] == [pa.int64(), pa.string(), pa.bool_(), TIMESTAMP]


def test_rows_with_new_columns_are_rows_and_later_steps_see_them() -> None:
    plan = plan_of(
        DeriveSettings(columns={"area": "place_level(1)"}),
        FilterSettings(where="area = 'area-1' and value > 0"),
    )
    assert plan.output.kind is StreamKind.ROW
    assert [row["area"] for row in run(plan, record(ROWS, known=KNOWN))["out"]] == ["area-1"]


def test_a_replaced_value_counts_as_calculated_where_it_was_measured() -> None:
    rows = derived(DeriveSettings(value="value + 1"))
    assert [row["quality"] for row in rows] == [Quality.CALCULATED, Quality.ESTIMATED, Quality.SUBSTITUTED]
    assert rows[0]["value"] == 6.0
    assert plan_of(DeriveSettings(value="value + 1")).output == READINGS


def test_a_value_without_a_result_is_no_value_and_is_counted_unless_there_was_none() -> None:
    about = context()
    step = DeriveSettings(value="value / 0").make(READINGS, about)
    (block,) = step.take(blocks([1.0, math.nan])[0])
    assert all(map(math.isnan, block.value.tolist()))
    assert about.counts == {"no_value": 1}


def test_quality_is_replaced_by_what_the_expression_says() -> None:
    step = DeriveSettings(
        quality="case when value < 0 then marked('questionable', 'out_of_range', 'measured') else quality end"
    )
    assert [row["quality"] for row in derived(step)] == [0, 8, 0x0801]


def test_a_quality_that_is_none_leaves_it_as_it_was_and_is_counted() -> None:
    for text in ("null", "-1", "65536"):
        about = context()
        step = DeriveSettings(quality=text).make(READINGS, about)
        (block,) = step.take(blocks([1.0, 2.0], quality=9)[0])
        assert block.quality.tolist() == [9, 9]
        assert about.counts == {"bad_quality": 2}


def test_all_expressions_see_the_row_as_it_came() -> None:
    rows = derived(DeriveSettings(value="value + 1", columns={"before": "value", "value_sign": "value < 0"}))
    assert (rows[0]["value"], rows[0]["before"], rows[0]["value_sign"]) == (6.0, 5.0, False)


def test_a_unit_may_be_stated() -> None:
    plan = plan_of(DeriveSettings(value="value / 1000", unit="kW"), FilterSettings(where="unit = 'kW'"))
    assert [row["unit"] for row in run(plan, record(ROWS, known=KNOWN))["out"]] == ["kW", "kW", "kW"]


def test_a_stated_unit_replaces_that_of_rows_with_a_column_for_it() -> None:
    schema = pa.schema([*READING, pa.field("unit", pa.dictionary(pa.int32(), pa.string()), nullable=False)])
    (plain,) = blocks([1.0, 2.0])
    units = pa.array(["kW", "kW"]).dictionary_encode()
    rows = pa.RecordBatch.from_arrays([*plain.rows.columns, units], schema=schema)
    step = DeriveSettings(value="value / 1000", unit="MW")
    (block,) = step.make(Shape(StreamKind.ROW, schema), context()).take(Block(rows, at(0)))
    assert block.rows.column("unit").to_pylist() == ["MW", "MW"]
    assert block.rows.schema == schema


def test_a_column_may_be_replaced_in_its_place() -> None:
    plan = plan_of(DeriveSettings(columns={"time": "date_trunc('hour', time)"}))
    assert plan.output.schema == READING
    assert not plan.output.late_safe
    assert {row["time"] for row in run(plan, record(ROWS, known=KNOWN))["out"]} == {
        START - START % 3_600_000_000_000
    }


def test_a_row_without_a_time_is_left_out_and_counted() -> None:
    about = context()
    step = DeriveSettings(columns={"time": "case when value > 1 then time end", "n": "value"})
    made = step.make(READINGS, about)
    (block,) = made.take(blocks([1.0, 2.0, 3.0])[0])
    assert block.rows.column("n").to_pylist() == [2.0, 3.0]
    assert block.series.tolist() == [1, 2]
    assert about.counts == {"no_time": 1}


def test_events_get_columns_too() -> None:
    events = Shape(StreamKind.EVENT, EVENT)
    plan = DeriveSettings(columns={"kind": "split_part(type, '.', 2)"}).plan(events, context().surroundings)
    assert plan.shape.kind is StreamKind.ROW
    assert plan.shape.schema.field("kind").type == pa.string()


@pytest.mark.parametrize(
    ("table", "key", "told"),
    [
        ({}, "type", "found none of them"),
        ({"value": "valu"}, "value", "did you mean 'value'"),
        ({"value": "medium"}, "value", "expected an expression that gives a number, found text"),
        ({"quality": "value"}, "quality", "expected an expression that gives a whole number"),
        ({"columns": {"series": "1"}}, "columns.series", "expected a name"),
        ({"columns": {"a b": "1"}}, "columns.a b", "expected a name"),
        ({"columns": {"a": "arrived - time"}}, "columns.a", "write epoch(...)"),
        ({"columns": {"a": "null"}}, "columns.a", "write cast(NULL as ...)"),
        ({"columns": {"time": "value"}}, "columns.time", "expected an expression that gives a time"),
        ({"columns": {"a": "(value"}}, "columns.a", "expected a closing bracket"),
        ({"value": "value", "unit": "kWW"}, "unit", "did you mean"),
        ({"columns": {f"c{n}": "1" for n in range(65)}}, "columns", "at most 64"),
    ],
)
def test_mistakes_are_told_with_their_setting(table: dict[str, object], key: str, told: str) -> None:
    settings = settings_of({"type": "derive", **table})
    errors = settings.check()[0]
    if not errors:
        with pytest.raises(PlanError) as raised:
            settings.plan(READINGS, context().surroundings)
        errors = [(raised.value.key, str(raised.value))]
    assert errors[0][0] == key
    assert told in errors[0][1]


def test_infinite_values_stay_values() -> None:
    assert kept(DeriveSettings(value="value * 10"), math.inf, 1e308, -0.0) == [math.inf, math.inf, -0.0]


def test_many_series_and_a_long_series_are_derived_without_fuss() -> None:
    def check(rows: list[dict[str, object]]) -> None:
        assert rows == []

    wide_and_deep(DeriveSettings(value="value * 2", columns={"a": "medium"}), check)


def test_the_order_of_columns_is_part_of_the_definition() -> None:
    def told(**columns: str) -> str:
        return definition_hash(plan_of(DeriveSettings(columns=columns)))

    assert told(a="value", b="quality") != told(b="quality", a="value")
    assert told(a="value  +\n1") == told(a="value + 1")


@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([-6.0, 0.0, 1.0, 1.5, 3.0, *ODD_VALUES])),
    chance=st.randoms(use_true_random=False),
)
@examples(max_examples=25, derandomize=True, deadline=None)
def test_it_gives_what_the_reference_gives_however_rows_are_cut(
    step: DeriveSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(step, reference.Reference(step, KNOWN), instants, chance, known=KNOWN, tail_s=2)
