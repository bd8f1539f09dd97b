"""What a chain of steps is told before it runs: what does not fit together is refused with the key to look at."""

from __future__ import annotations

import random

import pytest

from ringmain.flows.step import PlanError, StepSettings
from ringmain.flows.steps.convert import ConvertSettings
from ringmain.flows.steps.deadband import DeadbandSettings
from ringmain.flows.steps.derive import DeriveSettings
from ringmain.flows.steps.filter import FilterSettings
from ringmain.flows.steps.route import RouteCase, RouteSettings
from ringmain.flows.steps.window import WindowStepSettings
from tests.flows.steps.driving import SECOND, START, plan_of, record, run


def _refusal(*steps: StepSettings, to: str = "out") -> tuple[str, str]:
    with pytest.raises(PlanError) as refused:
        plan_of(*steps, to=to)
    return refused.value.key, str(refused.value)


def test_nothing_follows_a_window_that_looks_up_what_it_gave() -> None:
    key, text = _refusal(WindowStepSettings(), FilterSettings(where="count > 1"))
    assert key == "steps.1.type"
    assert "let a flow of its own read 'out'" in text


def test_a_window_behind_a_step_with_a_memory_cannot_revise() -> None:
    key, _ = _refusal(DeadbandSettings(absolute=1.0), WindowStepSettings())
    assert key == "steps.1.late"


def test_two_row_wise_steps_may_write_one_stream_in_an_order_that_does_not_depend_on_batches() -> None:
    def route(where: str) -> RouteSettings:
        return RouteSettings(cases=(RouteCase(where=where, to="aside"),))

    plan = plan_of(route("value > 3"), DeriveSettings(columns={"time": "time"}), route("value < 1"))
    values = (0.0, 5.0, 2.0, 6.0, 0.5)
    instants = [(START + n * SECOND, [(1, START, value, 0) for value in values]) for n in (1, 2)]
    for seed in range(5):
        chance = random.Random(seed)
        log = record(instants, cut=chance, tail_s=1)
        for restarts in (None, chance):
            rows = run(plan, log, restarts=restarts)["aside"]
            assert [row["value"] for row in rows] == [5.0, 6.0, 0.0, 0.5] * 2


def test_two_steps_do_not_write_one_stream_with_different_columns() -> None:
    route = RouteSettings(cases=(RouteCase(where="value > 3", to="aside"),))
    key, text = _refusal(route, DeriveSettings(columns={"more": "1"}), route)
    assert key == "steps.2.type"
    assert "two steps write 'aside' with different columns" in text


def test_units_that_measure_different_things_are_told_before_anything_runs() -> None:
    key, text = _refusal(ConvertSettings(unit="kW"), ConvertSettings(unit="m3"))
    assert key == "steps.1.unit"
    assert "kW" in text
