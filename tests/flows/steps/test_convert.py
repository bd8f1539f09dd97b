"""The step `convert`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import Block, readings_block
from ringmain.flows.conversions import conversion_of
from ringmain.flows.flow import stored
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.convert import ConvertSettings, Mismatch
from ringmain.flows.steps.filter import FilterSettings
from ringmain.log.interface import StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING, TIMESTAMP
from tests.flows.reference import convert as reference
from tests.flows.steps.driving import Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import ODD_VALUES, agree, at, context, histories, wide_and_deep
from tests.flows.steps.row_wise import KNOWN, blocks, learn, rows_of, values_of

MIXED: list[Instant] = [(at(0), [(0, at(0), 1001.0, 0), (1, at(0), 2.0, 0), (2, at(0), 3.0, 1)])]


def converted(unit: str, source: str, *values: float) -> list[float]:
    about = context()
    about.attributes = learn(["unit"], {0: {"unit": source}})
    step = ConvertSettings(unit=unit).make(READINGS, about)
    return values_of(step.take(blocks(values, series=[0] * len(values))[0]))


def test_each_value_comes_from_the_unit_of_its_series() -> None:
    assert rows_of(ConvertSettings(unit="kW", mismatch=Mismatch.DROP), MIXED, known=KNOWN) == [
        (0, 1.001),
        (1, 2.0),
    ]


def test_a_thousandth_is_a_division_so_that_decimal_values_stay_short() -> None:
    assert converted("kW", "W", 1001.0, 1234.0, 0.1) == [1.001, 1.234, 0.0001]
    assert converted("l/s", "m3/h", 18.0) == [5.0]
    assert converted("kWh", "MJ", 3.6) == [1.0]


def test_temperatures_have_an_offset() -> None:
    assert converted("K", "°C", 0.0, -273.15) == [273.15, 0.0]


def test_what_is_no_ordinary_number_stays_what_it_is() -> None:
    found = converted("kW", "W", math.nan, math.inf, -math.inf, -0.0)
    assert math.isnan(found[0])
    assert found[1:3] == [math.inf, -math.inf]
    assert math.copysign(1.0, found[3]) == -1.0


def test_minus_zero_does_not_depend_on_the_units_beside_it() -> None:
    about = context()
    about.attributes = learn(["unit"], {0: {"unit": "W"}, 1: {"unit": "°C"}, 2: {"unit": "K"}})
    step = ConvertSettings(unit="K", mismatch=Mismatch.KEEP).make(READINGS, about)
    (alone,), (beside,) = blocks([-0.0], series=[2]), blocks([-0.0] * 3, series=[0, 1, 2])
    assert math.copysign(1.0, values_of(step.take(alone))[0]) == -1.0
    assert math.copysign(1.0, values_of(step.take(beside))[2]) == -1.0


def test_behind_it_every_row_has_the_unit_and_the_output_names_it() -> None:
    found = run(plan_of(ConvertSettings(unit="kW")), record(MIXED, known=KNOWN))
    assert [(row["value"], row["unit"]) for row in found["out"]] == [(1.001, "kW"), (2.0, "kW")]
    after = plan_of(ConvertSettings(unit="kW"), FilterSettings(where="unit = 'W'"))
    assert "out" not in run(after, record(MIXED, known=KNOWN))


def test_what_cannot_be_converted_goes_aside_with_the_reason() -> None:
    known = {**KNOWN, 1: {"unit": "m3"}}
    found = run(plan_of(ConvertSettings(unit="kW")), record(MIXED, known=known))
    assert [(row["series"], row["value"], row["reason"]) for row in found["out.unconverted"]] == [
        (1, 2.0, "unit m3 is no unit like kW"),
        (2, 3.0, "it has no unit"),
    ]


def test_what_cannot_be_converted_may_be_kept_without_a_value() -> None:
    found = run(plan_of(ConvertSettings(unit="kW", mismatch=Mismatch.KEEP)), record(MIXED, known=KNOWN))
    last = found["out"][2]
    assert math.isnan(last["value"])
    assert last["quality"] == Quality.INVALID


def test_rows_that_cannot_be_converted_are_counted_whatever_becomes_of_them() -> None:
    for mismatch in Mismatch:
        about = context()
        about.attributes = learn(["unit"], KNOWN)
        step = ConvertSettings(unit="kW", mismatch=mismatch).make(READINGS, about)
        for block in blocks([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]):
            step.take(block)
        assert about.counts == {"unconverted": 2}


def test_series_without_a_unit_have_the_unit_that_is_said() -> None:
    step = ConvertSettings(unit="kW", from_="MW")
    assert rows_of(step, MIXED, known=KNOWN) == [(0, 1.001), (1, 2.0), (2, 3000.0)]


def test_a_block_that_has_the_unit_is_the_same_block() -> None:
    about = context()
    about.attributes = learn(["unit"], {0: {"unit": "kW"}, 1: {"unit": "kW"}})
    (block,) = blocks([1.0, 2.0])
    assert ConvertSettings(unit="kW").make(READINGS, about).take(block) == (block,)


def test_units_that_are_learnt_between_blocks_count_from_then_on() -> None:
    about = context()
    about.attributes = learn(["unit"], {0: {"unit": "W"}})
    step = ConvertSettings(unit="kW", mismatch=Mismatch.DROP).make(READINGS, about)
    first, second = blocks([1000.0, 1000.0], [1000.0, 1000.0])
    assert values_of(step.take(first)) == [1.0]
    learn(["unit"], {1: {"unit": "MW"}}, about.attributes)
    assert values_of(step.take(second)) == [1.0, 1_000_000.0]


@pytest.mark.parametrize(
    ("table", "key", "told"),
    [
        ({"unit": "kWW"}, "unit", "did you mean 'kW'"),
        ({"unit": "kW", "from": "m3"}, "from", "expected two units of one quantity"),
        ({"unit": "kW", "columns": []}, "columns", "expected one column or more"),
    ],
)
def test_units_that_are_none_or_do_not_go_together_are_told(
    table: dict[str, object], key: str, told: str
) -> None:
    errors, _ = settings_of({"type": "convert", **table}).check()
    assert [found for found, _ in errors] == [key]
    assert told in errors[0][1]


def test_a_second_conversion_to_another_quantity_is_refused_when_it_is_planned() -> None:
    with pytest.raises(PlanError, match="expected two units of one quantity, found 'kW' and 'm3'") as raised:
        plan_of(ConvertSettings(unit="kW"), ConvertSettings(unit="m3"))
    assert raised.value.key == "steps.1.unit"


def test_a_second_conversion_starts_from_the_unit_of_the_first() -> None:
    plan = plan_of(ConvertSettings(unit="kW", mismatch=Mismatch.DROP), ConvertSettings(unit="MW"))
    assert [row["value"] for row in run(plan, record(MIXED, known=KNOWN))["out"]] == [
        1.001 / 1000,
        2.0 / 1000,
    ]


def test_logarithmic_units_are_refused() -> None:
    with pytest.raises(ValueError, match="one is logarithmic"):
        conversion_of("dBm", "W")


WINDOWS = Shape(
    StreamKind.ROW,
    pa.schema(
        [
            pa.field("series", pa.uint32(), nullable=False),
            pa.field("start", TIMESTAMP, nullable=False),
            pa.field("count", pa.int64(), nullable=False),
            pa.field("mean", pa.float64()),
            pa.field("max", pa.float64()),
        ]
    ),
)


def test_columns_of_windows_are_converted_where_they_are_named() -> None:
    about = context()
    about.attributes = learn(["unit"], KNOWN)
    step = ConvertSettings(unit="kW", columns=("mean", "max"), mismatch=Mismatch.KEEP)
    assert step.plan(WINDOWS, about.surroundings).shape.unit == "kW"
    rows = pa.RecordBatch.from_pylist(
        [
            {"series": series, "start": at(0), "count": 1, "mean": mean, "max": 5.0}
            for series, mean in ((0, 500.0), (0, None), (1, 7.0), (2, 9.0))
        ],
        schema=WINDOWS.schema,
    )
    (block,) = step.make(WINDOWS, about).take(Block(rows, at(0)))
    assert block.rows.column("mean").to_pylist() == [0.5, None, 7.0, None]
    assert block.rows.column("max").to_pylist() == [0.005, 0.005, 5.0, None]


def test_rows_that_tell_their_unit_themselves_are_converted_from_it_and_not_from_that_of_the_series() -> None:
    """A stream that a flow with a unit wrote has a column `unit`; the series' unit is not that of its values."""
    written = run(plan_of(ConvertSettings(unit="kW", mismatch=Mismatch.DROP)), record(MIXED, known=KNOWN))[
        "out"
    ]
    schema = stored(plan_of(ConvertSettings(unit="kW")).output)[1]
    rows = pa.RecordBatch.from_pylist([{**row, "time": row["time"]} for row in written], schema=schema)
    for kind in (schema.field("unit").type, pa.string()):
        cast = schema.set(schema.get_field_index("unit"), pa.field("unit", kind))
        about = context()
        about.attributes = learn(["unit"], KNOWN)
        step = ConvertSettings(unit="MW")
        shape = Shape(StreamKind.ROW, cast)
        assert step.plan(shape, about.surroundings).attributes == frozenset()
        (block,) = step.make(shape, about).take(Block(rows.cast(cast), at(0)))
        assert block.value.tolist() == [1.001 / 1000, 2.0 / 1000]
        assert block.rows.column("unit").to_pylist() == ["MW", "MW"]
        assert block.rows.schema == cast


def test_rows_whose_own_unit_cannot_be_converted_go_aside() -> None:
    schema = pa.schema([*READING, pa.field("unit", pa.string())])
    (plain,) = blocks([1.0, 2.0, 3.0, 4.0])
    units = pa.array(["kW", "m3", None, "W"])
    rows = pa.RecordBatch.from_arrays([*plain.rows.columns, units], schema=schema)
    kept, aside = (
        ConvertSettings(unit="kW").make(Shape(StreamKind.ROW, schema), context()).take(Block(rows, at(0)))
    )
    assert kept.rows.to_pydict()["value"] == [1.0, 0.004]
    assert aside.rows.column("reason").to_pylist() == ["unit m3 is no unit like kW", "it has no unit"]


@pytest.mark.parametrize(
    ("step", "key", "told"),
    [
        (ConvertSettings(unit="kW", mismatch=Mismatch.DROP), "columns", "there is none of that name"),
        (ConvertSettings(unit="kW", columns=("count",)), "columns", "it holds int64"),
        (ConvertSettings(unit="kW", columns=("mean",)), "mismatch", "only readings can go aside"),
    ],
)
def test_columns_that_cannot_be_converted_are_refused(step: ConvertSettings, key: str, told: str) -> None:
    with pytest.raises(PlanError) as raised:
        step.plan(WINDOWS, context().surroundings)
    assert raised.value.key == key
    assert told in str(raised.value)


def test_many_series_and_a_long_series_are_converted_without_fuss() -> None:
    def check(rows: list[dict[str, object]]) -> None:
        assert rows == []

    wide_and_deep(ConvertSettings(unit="kW", from_="W"), check)


def test_an_empty_block_gives_nothing() -> None:
    step = ConvertSettings(unit="kW").make(READINGS, context())
    empty = readings_block(
        np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16), at(0)
    )
    assert sum(len(block) for block in step.take(empty)) == 0


@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([1001.0, 0.1, -5.0, *ODD_VALUES])),
    chance=st.randoms(use_true_random=False),
)
@examples(max_examples=25, derandomize=True, deadline=None)
def test_it_gives_what_the_reference_gives_however_rows_are_cut(
    step: ConvertSettings, instants: list[Instant], chance: random.Random
) -> None:
    known = {**KNOWN, 2: {"unit": chance.choice(["J/s", "m3", "furlong", None])}}
    agree(step, reference.Reference(step, known), instants, chance, known=known, tail_s=2)
