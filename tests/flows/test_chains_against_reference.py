"""Any chain of steps over any history gives what its slow, row-by-row form gives, record for record.

However rows are cut into frames, and however often the chain is made anew out of a snapshot.
"""

from __future__ import annotations

import importlib
import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.flow import FlowPlan, tag_of
from ringmain.flows.settings import Late
from ringmain.flows.step import PlanError, StepSettings
from tests.flows.steps.driving import Instant, ReferenceStep, plan_of, record, run, run_reference, same
from tests.flows.steps.ordered_inputs import histories
from tests.flows.steps.row_wise import KNOWN

ROW_WISE = ("filter", "convert", "derive", "route")
IN_ORDER = ("deadband", "swinging_door", "python")
LAST = ("window", "latest_sum", "alert")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.flows.reference.{name}")


def _settings(name: str) -> st.SearchStrategy[StepSettings]:
    if name == "window":
        return _module(name).settings((Late.SIDE, Late.DROP))  # type: ignore[no-any-return]
    return _module(name).settings()  # type: ignore[no-any-return]


@st.composite
def chains(draw: st.DrawFn) -> list[StepSettings]:
    """Some row-wise steps, perhaps one that needs order of time, perhaps one that sums up."""
    names = draw(st.lists(st.sampled_from(ROW_WISE), max_size=2))
    names += draw(st.lists(st.sampled_from(IN_ORDER), max_size=2, unique=True))
    names += draw(st.lists(st.sampled_from(LAST), max_size=1))
    return [draw(_settings(name)) for name in names or ["filter"]]


def reference_of(plan: FlowPlan) -> list[ReferenceStep]:
    made: list[ReferenceStep] = []
    for step in plan.steps:
        name = tag_of(step.settings).replace("-", "_")
        more: dict[str, Any] = {}
        known = KNOWN
        if name == "alert" and step.before.unit is not None:  # it tells the unit of the rows
            known = {series: {**told, "unit": step.before.unit} for series, told in KNOWN.items()}
        if name == "latest_sum":
            more["unit"] = step.before.unit
        made.append(_module(name).Reference(step.settings, known, **more))
    return made


def expected_of(plan: FlowPlan, instants: list[Instant], tail_s: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of the references, in the columns of their streams."""
    found = run_reference(reference_of(plan), instants, tail_s=tail_s)
    for stream, rows in found.items():
        shape = plan.streams[stream]
        for row in rows:
            if shape.unit is not None and "unit" not in row:
                row["unit"] = shape.unit
    return found


CASES = examples(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
VALUES = st.sampled_from([0.0, 0.1, 1.0, 1.5, 2.0, 7.0, 10.0, 99.5, -3.0, 1e6])


def _check(steps: list[StepSettings], instants: list[Instant], seed: int) -> bool:
    try:
        plan = plan_of(*steps)
    except (PlanError, AssertionError):
        return False  # steps that do not fit together are refused before anything runs
    tail_s = 40
    expected = expected_of(plan, instants, tail_s)
    chance = random.Random(seed)
    for restarts in (None, chance):
        log = record(instants, known=KNOWN, cut=chance, tail_s=tail_s)
        found = run(plan, log, restarts=restarts)
        assert same(found, expected), f"\n{steps}\nfound    {found}\nexpected {expected}"
    return True


@CASES
@given(chains(), histories(VALUES), st.integers(0, 2**32))
def test_any_chain_gives_what_its_row_by_row_form_gives(
    steps: list[StepSettings], instants: list[Instant], seed: int
) -> None:
    _check(steps, instants, seed)


@pytest.mark.soak
@pytest.mark.timeout(0)
@examples(CASES, max_examples=20_000)
@given(chains(), histories(VALUES), st.integers(0, 2**32))
def test_any_chain_gives_what_its_row_by_row_form_gives_very_often(
    steps: list[StepSettings], instants: list[Instant], seed: int
) -> None:
    _check(steps, instants, seed)
