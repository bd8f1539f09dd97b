"""What a chain of steps is told before it runs: what does not fit together is refused with the key to look at."""

from __future__ import annotations

import pytest

from ringmain.flows.step import PlanError, StepSettings
from ringmain.flows.steps.convert import ConvertSettings
from ringmain.flows.steps.deadband import DeadbandSettings
from ringmain.flows.steps.filter import FilterSettings
from ringmain.flows.steps.route import RouteCase, RouteSettings
from ringmain.flows.steps.window import WindowStepSettings
from tests.flows.steps.driving import plan_of


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


def test_two_steps_that_look_at_rows_one_by_one_do_not_write_one_stream() -> None:
    def route(where: str) -> RouteSettings:
        return RouteSettings(cases=(RouteCase(where=where, to="aside"),))

    key, text = _refusal(route("value > 3"), route("value < 1"))
    assert key == "steps.1.type"
    assert "two steps write 'aside' row by row" in text


def test_units_that_measure_different_things_are_told_before_anything_runs() -> None:
    key, text = _refusal(ConvertSettings(unit="kW"), ConvertSettings(unit="m3"))
    assert key == "steps.1.unit"
    assert "kW" in text
