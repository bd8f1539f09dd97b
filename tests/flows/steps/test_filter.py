"""The step `filter`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import readings_block
from ringmain.flows.flow import definition_hash
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps.filter import FilterSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import EVENT
from tests.flows.reference import filter as reference
from tests.flows.steps.driving import Instant, plan_of
from tests.flows.steps.ordered_inputs import agree, at, context, histories, wide_and_deep
from tests.flows.steps.row_wise import KNOWN, blocks, kept, learn, rows_of, values_of


def passed(where: str, *values: float) -> list[float]:
    return kept(FilterSettings(where=where), *values)


def test_rows_stay_for_which_the_condition_is_true() -> None:
    assert passed("value > 1", 0.0, 1.0, 2.0, 3.0) == [2.0, 3.0]


def test_a_reading_without_a_value_is_neither_above_nor_below() -> None:
    nan = float("nan")
    assert passed("value > 1", 2.0, nan) == [2.0]
    assert passed("not (value > 1)", 2.0, nan) == []
    assert len(passed("value is null", 2.0, nan)) == 1


def test_rows_that_are_left_out_are_counted() -> None:
    about = context()
    step = FilterSettings(where="value > 1").make(READINGS, about)
    for block in blocks([0.0, 1.0, 2.0], [5.0], [0.5]):
        step.take(block)
    assert about.counts == {"filtered": 3}


def test_a_block_of_which_every_row_stays_is_the_same_block() -> None:
    step = FilterSettings(where="value > 1").make(READINGS, context())
    (block,) = blocks([2.0, 3.0])
    assert step.take(block) == (block,)


def test_a_condition_on_the_catalogue_follows_what_is_learnt_between_blocks() -> None:
    about = context()
    about.attributes = learn(["medium"], {0: {"medium": "gas"}})
    step = FilterSettings(where="medium = 'gas'").make(READINGS, about)
    first, second = blocks([1.0, 2.0], [1.0, 2.0], series=[0, 1])
    assert values_of(step.take(first)) == [1.0]
    learn(["medium"], {0: {"medium": "water"}, 1: {"medium": "gas"}}, about.attributes)
    assert values_of(step.take(second)) == [2.0]


def test_series_that_the_catalogue_does_not_know_have_no_attributes() -> None:
    instants: list[Instant] = [(at(0), [(900, at(0), 1.0, 0), (0, at(0), 2.0, 0)])]
    assert rows_of(FilterSettings(where="medium is null"), instants, known=KNOWN) == [(900, 1.0)]
    assert rows_of(FilterSettings(where="medium is not null"), instants, known=KNOWN) == [(0, 2.0)]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("valu > 1", "did you mean 'value'?"),
        ("medium > 5", "comparison of text with a whole number"),
        ("value", "expected an expression that gives a truth value, found a number"),
        ("value > 1 and", "something is missing"),
        ("now() > time", "must not depend on when it is computed"),
        ("sum(value) > 1", "aggregates are a `window` step"),
    ],
)
def test_a_wrong_condition_is_told_with_its_setting(where: str, told: str) -> None:
    step = FilterSettings(where=where)
    with pytest.raises(PlanError, match=None) as raised:
        step.plan(READINGS, context().surroundings)
    assert raised.value.key == "where"
    assert told in str(raised.value)


def test_what_is_wrong_with_the_text_alone_is_found_without_a_plan() -> None:
    assert FilterSettings(where="value >").check()[0][0][0] == "where"
    assert FilterSettings(where="no_such_column > 1").check() == ([], [])


def test_a_unit_that_is_none_is_warned_of() -> None:
    errors, warnings = FilterSettings(where="value > 1 and (unit = 'kw' or unit in ('W', 'kWW'))").check()
    assert errors == []
    assert sorted(key for key, _ in warnings) == ["where", "where"]
    assert {"did you mean 'kW'?" in message for _, message in warnings} == {True}
    assert FilterSettings(where="unit = 'm3/h' or medium = 'kw' or unit = ''").check() == ([], [])


def test_rows_that_are_no_readings_are_filtered_by_their_columns() -> None:
    events = Shape(StreamKind.EVENT, EVENT)
    plan = FilterSettings(where="type like 'alarm.%' and source <> 'test'").plan(
        events, context().surroundings
    )
    assert plan.shape == events
    assert plan.attributes == frozenset()
    with pytest.raises(PlanError, match="belong to no series"):
        FilterSettings(where="medium = 'gas'").plan(events, context().surroundings)


def test_the_plan_asks_for_the_attributes_that_the_condition_names() -> None:
    step = FilterSettings(where="medium = 'gas' and external['MeLo'] is null and place_level(1) = 'a'")
    assert plan_of(step).attributes == {"medium", "external", "place"}


def test_many_series_and_a_long_series_are_filtered_without_fuss() -> None:
    def check(rows: list[dict[str, object]]) -> None:
        assert rows == []

    wide_and_deep(FilterSettings(where="value > 1e9 or medium = 'gas'"), check)


def test_an_empty_block_gives_nothing() -> None:
    step = FilterSettings(where="value > 1 or medium is null or external['x'] = 'y'").make(
        READINGS, context()
    )
    empty = readings_block(
        np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16), at(0)
    )
    assert sum(len(block) for block in step.take(empty)) == 0


def test_how_a_condition_is_broken_into_lines_and_the_zone_it_does_not_look_at_are_no_part_of_the_definition() -> (
    None
):
    def told(where: str, zone: str = "Europe/Berlin") -> str:
        return definition_hash(plan_of(FilterSettings(where=where), zone=zone))

    assert told("value > 0\n  and medium = 'a  b'") == told(" value > 0 and medium = 'a  b'", "UTC")
    assert told("medium = 'a  b'") != told("medium = 'a b'")
    assert told("value > 0 -- x\n and good") != told("value > 0 -- x and good")
    for where in (
        "hour(time) = 1",
        "time > '2026-01-01'",
        "extract(day from time) = 1",
        "cast(time as date) < arrived",
    ):
        assert told(where) != told(where, "UTC"), where


@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([-6.0, -1.0, 0.0, 0.5, 1.0, 1.5, 3.0, 12.0])),
    chance=st.randoms(use_true_random=False),
)
@examples(max_examples=25, derandomize=True, deadline=None)
def test_it_gives_what_the_reference_gives_however_rows_are_cut(
    step: FilterSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(step, reference.Reference(step, KNOWN), instants, chance, known=KNOWN, tail_s=2)
