"""The step `route`: hand-made cases, and any history against the row-by-row reference."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.step import READINGS, PlanError
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.convert import ConvertSettings, Mismatch
from ringmain.flows.steps.filter import FilterSettings
from ringmain.flows.steps.route import RouteCase, RouteSettings
from tests.flows.reference import route as reference
from tests.flows.steps.driving import Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import agree, at, context, histories, wide_and_deep
from tests.flows.steps.row_wise import KNOWN, blocks

ROWS: list[Instant] = [
    (at(0), [(series, at(0), value, 0) for series, value in ((0, 5.0), (1, 6.0), (2, -1.0))])
]


def routed(*cases: tuple[str, str], otherwise: str = "next") -> dict[str, list[tuple[int, float]]]:
    step = RouteSettings(
        cases=tuple(RouteCase(where=where, to=to) for where, to in cases), otherwise=otherwise
    )
    found = run(plan_of(step), record(ROWS, known=KNOWN))
    return {stream: [(row["series"], row["value"]) for row in rows] for stream, rows in found.items()}


def test_each_row_goes_to_the_first_case_that_is_true() -> None:
    assert routed(("medium = 'gas'", "gas"), ("value > 0", "positive")) == {
        "gas": [(1, 6.0)],
        "positive": [(0, 5.0)],
        "out": [(2, -1.0)],
    }


def test_a_condition_without_an_answer_is_not_true() -> None:
    assert routed(("medium <> 'gas'", "other")) == {"other": [(0, 5.0)], "out": [(1, 6.0), (2, -1.0)]}


def test_rows_of_no_case_go_where_otherwise_says() -> None:
    assert routed(("value > 0", "positive"), otherwise="drop") == {"positive": [(0, 5.0), (1, 6.0)]}
    assert routed(("value > 0", "next"), otherwise="rest") == {
        "out": [(0, 5.0), (1, 6.0)],
        "rest": [(2, -1.0)],
    }


def test_two_cases_may_name_one_stream_and_its_rows_stay_in_order() -> None:
    assert routed(("value < 0", "some"), ("medium = 'electricity'", "some")) == {
        "some": [(0, 5.0), (2, -1.0)],
        "out": [(1, 6.0)],
    }


def test_routed_rows_pass_by_later_steps() -> None:
    plan = plan_of(
        RouteSettings(cases=(RouteCase(where="value < 0", to="negative"),)), FilterSettings(where="value > 5")
    )
    found = run(plan, record(ROWS, known=KNOWN))
    assert {stream: [row["value"] for row in rows] for stream, rows in found.items()} == {
        "negative": [-1.0],
        "out": [6.0],
    }


def test_routed_rows_keep_the_unit_that_a_step_before_gave_them() -> None:
    plan = plan_of(
        ConvertSettings(unit="kW", mismatch=Mismatch.DROP),
        RouteSettings(cases=(RouteCase(where="value > 1", to="large"),)),
    )
    assert plan.streams["large"].unit == "kW"
    assert [(row["value"], row["unit"]) for row in run(plan, record(ROWS, known=KNOWN))["large"]] == [
        (6.0, "kW")
    ]


def test_what_is_sent_and_what_is_dropped_is_counted() -> None:
    about = context()
    step = RouteSettings(cases=(RouteCase(where="value > 2", to="large"),), otherwise="drop")
    made = step.make(READINGS, about)
    for block in blocks([1.0, 2.0, 3.0], [3.0]):
        made.take(block)
    assert about.counts == {"dropped": 2, "routed": 2}


def test_a_block_that_goes_on_as_a_whole_is_the_same_block() -> None:
    step = RouteSettings(cases=(RouteCase(where="value > 2", to="large"),)).make(READINGS, context())
    (block,) = blocks([1.0, 2.0])
    assert step.take(block) == [block]


@pytest.mark.parametrize(
    ("step", "key", "told"),
    [
        ({"cases": [{"where": "value > 0", "to": "out"}]}, "cases.0.to", "say next"),
        (
            {"cases": [{"where": "value > 0", "to": "readings"}]},
            "cases.0.to",
            "expected next, drop or a stream",
        ),
        (
            {"cases": [{"where": "true", "to": "a"}, {"where": "vlue > 0", "to": "b"}]},
            "cases.1.where",
            "'value'",
        ),
        ({"cases": [{"where": "true", "to": "no/name"}]}, "cases.0.to", "expected next, drop or a stream"),
        ({"cases": [], "otherwise": "a"}, "cases", "expected at least one case"),
    ],
)
def test_mistakes_are_told_with_their_case(step: dict[str, object], key: str, told: str) -> None:
    settings = settings_of({"type": "route", **step})
    errors = settings.check()[0]
    if not errors:
        with pytest.raises(PlanError) as raised:
            settings.plan(READINGS, context().surroundings)
        errors = [(raised.value.key, str(raised.value))]
    assert errors[0][0] == key
    assert told in errors[0][1]


def test_every_stream_that_is_named_is_in_the_plan() -> None:
    step = RouteSettings(
        cases=(RouteCase(where="true", to="a"), RouteCase(where="medium = 'x'", to="drop")), otherwise="b"
    )
    plan = step.plan(READINGS, context().surroundings)
    assert set(plan.streams) == {"a", "b"}
    assert plan.attributes == {"medium"}


def test_many_series_and_a_long_series_are_routed_without_fuss() -> None:
    def check(rows: list[dict[str, object]]) -> None:
        assert rows == []

    wide_and_deep(RouteSettings(cases=(RouteCase(where="value > 0", to="a"),)), check)


@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([-6.0, 0.0, 1.0, 1.5, 3.0])),
    chance=st.randoms(use_true_random=False),
)
@examples(max_examples=25, derandomize=True, deadline=None)
def test_it_gives_what_the_reference_gives_however_rows_are_cut(
    step: RouteSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(step, reference.Reference(step, KNOWN), instants, chance, known=KNOWN, tail_s=2)
