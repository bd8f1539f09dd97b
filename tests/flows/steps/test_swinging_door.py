"""The step `swinging-door`: its bound over adversarial inputs, hand-made cases, and any history against the reference."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import Block
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import settings_of, swinging_door
from ringmain.flows.steps.swinging_door import SwingingDoorSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING
from tests.flows.recording import Row, batch
from tests.flows.reference import swinging_door as reference
from tests.flows.steps.driving import SECOND, Instant
from tests.flows.steps.ordered_inputs import agree, at, context, histories, output, wide_and_deep

ONE = SwingingDoorSettings(deviation=1.0)


def each_second(*values: float, quality: int = 0) -> list[Instant]:
    return [(at(second), [(1, at(second), value, quality)]) for second, value in enumerate(values)]


def passed(
    step: SwingingDoorSettings, instants: list[Instant], *, tail_s: int = 35
) -> list[tuple[float, float]]:
    return [(second, value) for _, second, value, _ in output(step, instants, tail_s=tail_s).get("out", [])]


def folded(step: SwingingDoorSettings, rows: list[Row]) -> list[Row]:
    """Rows of one instant, and then a long silence."""
    made = step.make(READINGS, context(2**62))
    made.advance(at(0))
    out: list[Row] = []
    made.take(Block(batch(rows), at(0)))
    for now in (at(1), at(10_000)):
        with np.errstate(all="ignore"):
            blocks = made.advance(now)
        for block in blocks:
            columns = (block.series, block.time, block.value, block.quality)
            out += zip(*(column.tolist() for column in columns), strict=True)
    return out


def worst_error(rows: list[Row], given: list[Row], step: SwingingDoorSettings) -> Fraction:
    """The largest distance of a reading from the lines, in parts of what is allowed; in real numbers."""
    times = [row[1] for row in given]
    worst = Fraction(0)
    for _, time, value, _ in rows:
        if not math.isfinite(value):
            continue
        after = next(place for place, found in enumerate(times) if found >= time)
        right = given[after]
        if right[1] == time:
            assert right[2] == value
            continue
        left = given[after - 1]
        share = Fraction(time - left[1], right[1] - left[1])
        line = Fraction(left[2]) + (Fraction(right[2]) - Fraction(left[2])) * share
        if step.deviation is not None:
            allowed = Fraction(step.deviation)
        else:
            allowed = abs(Fraction(left[2])) * Fraction(step.percent or 0) / 100
        error = abs(line - Fraction(value))
        assert error <= allowed, f"{float(error)} of {float(allowed)} at {time} between {left} and {right}"
        if allowed:
            worst = max(worst, error / allowed)
    return worst


def test_a_straight_line_needs_its_ends_only() -> None:
    assert passed(ONE, each_second(*range(0, 50, 5))) == [(0, 0.0), (9, 45.0)]


def test_a_corner_is_passed_on() -> None:
    found = passed(ONE, each_second(0, 0, 0, 0, 0, 10, 20, 30))
    assert found == [(0, 0.0), (4, 0.0), (7, 30.0)]


def test_no_reading_left_out_is_further_from_the_line_than_the_deviation_where_doors_alone_allow_it() -> None:
    # Doors that only ask whether they are parallel pass (0, 0) and (3, 2.9) on, whose line is 1.93 at 2, and 0.97 at 1.
    rows = [(1, at(second), value, 0) for second, value in enumerate([0.0, 0.0, 0.95, 2.9, -5.0])]
    assert worst_error(rows, folded(ONE, rows), ONE) <= 1


def test_the_last_reading_is_passed_on_when_its_series_falls_silent() -> None:
    assert passed(ONE, each_second(5, 5, 5), tail_s=29) == [(0, 5.0)]
    assert passed(ONE, each_second(5, 5, 5), tail_s=31) == [(0, 5.0), (2, 5.0)]
    step = SwingingDoorSettings(deviation=1.0, idle="5s")
    assert passed(step, each_second(5, 5, 5), tail_s=6) == [(0, 5.0), (2, 5.0)]


def test_readings_passed_on_are_no_further_apart_than_max_interval() -> None:
    step = SwingingDoorSettings(deviation=1.0, max_interval="4s")
    assert [second for second, _ in passed(step, each_second(*[5.0] * 11))] == [0, 4, 8, 10]


def test_a_reading_is_not_held_for_longer_than_max_interval_of_log_time() -> None:
    step = SwingingDoorSettings(deviation=1.0, max_interval="10s", idle="1h")
    found = output(step, [(at(0), [(1, at(0), 5.0, 0)]), (at(2), [(1, at(2), 5.0, 0)])], tail_s=12)
    assert [second for _, second, *_ in found["out"]] == [0, 2]


def test_after_a_gap_longer_than_max_interval_the_first_reading_is_passed_on_at_once() -> None:
    step = SwingingDoorSettings(deviation=1.0, max_interval="4s", idle="1h")
    instants: list[Instant] = [(at(second), [(1, at(second), 5.0, 0)]) for second in (0, 100)]
    assert [second for _, second, *_ in output(step, instants, tail_s=0).get("out", [])] == [0]
    assert [second for _, second, *_ in output(step, instants, tail_s=1)["out"]] == [0, 100]


def test_another_quality_ends_a_line_and_invalid_readings_are_passed_on() -> None:
    rows = [
        (0, 5.0, 0),
        (1, 5.0, 0),
        (2, 5.0, 1),
        (3, 5.0, 1),
        (4, 5.0, 2),
        (5, 5.0, 2),
        (6, 5.0, 0),
        (7, 5, 0),
    ]
    instants = [(at(second), [(1, at(second), float(value), quality)]) for second, value, quality in rows]
    found = output(ONE, instants, tail_s=35)["out"]
    assert [(second, quality) for _, second, _, quality in found] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 2),
        (6, 0),
        (7, 0),
    ]


def test_what_is_no_finite_number_is_passed_on_and_ends_a_line() -> None:
    nan, inf = float("nan"), float("inf")
    found = passed(ONE, each_second(5, 5, 5, nan, 5, 5, 5, inf, 5, 5, 5))
    assert [second for second, _ in found] == [0, 2, 3, 4, 6, 7, 8, 10]


def test_percent_is_of_the_value_that_the_line_begins_with() -> None:
    step = SwingingDoorSettings(percent=10.0)
    assert len(passed(step, each_second(100, 109, 100, 109, 100))) == 2
    assert len(passed(step, each_second(10, 19, 10, 19, 10))) == 5
    assert passed(step, each_second(0, 0, 0, 0)) == [(0, 0.0), (3, 0.0)]


def test_late_readings_go_aside() -> None:
    instants: list[Instant] = [(at(5), [(1, at(5), 5.0, 0)]), (at(6), [(1, at(3), 9.0, 0)])]
    found = output(ONE, instants)
    assert [row[:3] for row in found["out.late"]] == [(1, 3, 9.0)]


DECIMALS = st.integers(-300, 300).map(lambda number: number / 10)
WALKS = st.lists(st.sampled_from([-0.3, -0.1, 0.0, 0.1, 0.3, 0.7, 1.0]), min_size=3, max_size=60)
WILD = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e-300, 1e-9, 1.0, 1e9, 1e15, 1e16, 1e292, -1e300]
    ),
    st.sampled_from([1.7e308, -1.7e308, float("nan"), float("inf")]),
    st.floats(-1e6, 1e6),
    DECIMALS,
)
GAPS = st.sampled_from([1, 2, 999, SECOND, SECOND + 1, 900 * SECOND, 86_400 * SECOND, 40_000_000 * SECOND])


@st.composite
def adversarial(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        values = draw(st.lists(WILD, min_size=3, max_size=40))
    elif kind == 1:  # lines with noise of about the deviation: the edge of the corridor
        slope, offset = draw(st.sampled_from([0.0, 0.1, 1 / 3, 1e7])), draw(st.sampled_from([0.0, 1e5, 1e12]))
        noise = draw(st.lists(st.sampled_from([-1.0, -0.999, 0.0, 0.5, 0.999, 1.0]), min_size=3, max_size=60))
        values = [offset + slope * place + part for place, part in enumerate(noise)]
    elif kind == 2:
        values = np.cumsum(draw(WALKS)).tolist()
    else:  # tiny numbers
        scale = draw(st.sampled_from([5e-324, 1e-310, 1e-300, 1e-290]))
        values = [scale * part for part in draw(st.lists(st.integers(-9, 9), min_size=3, max_size=40))]
    same = draw(st.booleans())
    first = draw(GAPS)
    gaps = [first if same else draw(GAPS) for _ in values]
    return values, gaps


BOUNDS = st.one_of(
    st.sampled_from([1e-290, 1e-288, 1e-12, 0.1, 1.0, 1 / 3, 1e6, 1e290, 1e300, 1.7e308]).map(
        lambda width: SwingingDoorSettings(deviation=width)
    ),
    st.sampled_from([1e-12, 0.1, 1.0, 100.0]).map(lambda width: SwingingDoorSettings(percent=width)),
)


def check_bound(step: SwingingDoorSettings, values: list[float], gaps: list[int], fast: bool) -> None:
    times = at(-2_000_000_000) + np.cumsum(np.array(gaps, np.int64))
    rows: list[Row] = [(0, time, value, 0) for time, value in zip(times.tolist(), values, strict=True)]
    before, swinging_door.FAST = swinging_door.FAST, fast
    try:
        found = folded(step, rows)
    finally:
        swinging_door.FAST = before
    assert set(map(repr, found)) <= set(map(repr, rows))
    assert repr(found[0]) == repr(rows[0])
    assert repr(found[-1]) == repr(rows[-1])
    worst_error(rows, found, step)


@examples(max_examples=120, derandomize=True, deadline=None)
@given(adversarial(), BOUNDS, st.booleans())
def test_lines_between_what_is_passed_on_are_never_further_off_than_the_deviation(
    input_: tuple[list[float], list[int]], step: SwingingDoorSettings, fast: bool
) -> None:
    check_bound(step, *input_, fast)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@examples(max_examples=20_000, derandomize=False, deadline=None)
@given(adversarial(), BOUNDS, st.booleans())
def test_lines_are_never_further_off_in_many_more_cases(
    input_: tuple[list[float], list[int]], step: SwingingDoorSettings, fast: bool
) -> None:
    check_bound(step, *input_, fast)


@pytest.mark.parametrize("offset", [0.0, 230.0, 1e6])
def test_a_long_noisy_measurement_stays_within_the_bound_and_gets_much_shorter(offset: float) -> None:
    random_ = np.random.default_rng(11)
    step = SwingingDoorSettings(deviation=2.0)
    values = offset + random_.normal(0, 0.6, 3000) + 50 * np.sin(np.arange(3000) / 200)
    rows: list[Row] = [(0, at(place - 3000), float(value), 0) for place, value in enumerate(values)]
    found = folded(step, rows)
    assert 0.9 < worst_error(rows, found, step) <= 1
    assert len(found) < 500


@pytest.mark.parametrize("fast", [True, False])
def test_one_series_many_times_is_as_many_series_once(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swinging_door, "FAST", fast)
    wide_and_deep(
        SwingingDoorSettings(deviation=5.0), lambda rows: pytest.fail("no rows") if not rows else None
    )


def test_both_forms_pass_the_same_readings_of_a_fleet_on() -> None:
    forms: list[list[Any]] = []
    for fast in (True, False):
        random_ = np.random.default_rng(3)
        before, swinging_door.FAST = swinging_door.FAST, fast
        step = SwingingDoorSettings(deviation=0.7, max_interval="9s", idle="5s").make(READINGS, context())
        found: list[Any] = []
        step.advance(at(0))
        for second in range(40):
            rows = [
                (series, at(second), float(random_.normal(50, 1)), int(random_.random() < 0.02))
                for series in range(100)
                if random_.random() < 0.9 and (series < 90 or second < 20)
            ]
            step.take(Block(batch(rows), at(second)))
            for block in step.advance(at(second) + SECOND // 2):
                found += zip(block.series.tolist(), block.time.tolist(), block.value.tolist(), strict=True)
        forms.append(found)
        swinging_door.FAST = before
    assert forms[0] == forms[1]
    assert 500 < len(forms[0]) < 3400


def test_a_deviation_is_needed_and_must_make_sense() -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"deviation": 1.0, "percent": 1.0},
        {"deviation": 0.0},
        {"deviation": float("nan")},
        {"deviation": 5e-324},
        {"percent": 0.0},
        {"percent": 101.0},
        {"deviation": 1.0, "max_interval": "0s"},
        {"deviation": 1.0, "max_interval": "soon"},
        {"deviation": 1.0, "idle": "0s"},
    ]
    for table in wrong:
        assert SwingingDoorSettings(**table).check()[0], table
    assert settings_of({"type": "swinging-door", "deviation": 1}).check() == ([], [])


def test_the_plan_keeps_the_unit_and_leaves_further_columns_behind() -> None:
    schema = READING.append(pa.field("feeder", pa.string()))
    plan = ONE.plan(Shape(StreamKind.READING, schema, unit="kW"), context().surroundings)
    assert plan.shape == Shape(StreamKind.READING, READING, unit="kW", late_safe=False)
    with pytest.raises(PlanError, match="works on readings"):
        ONE.plan(Shape(StreamKind.ROW, pa.schema([pa.field("x", pa.int64())])), context().surroundings)


@examples(max_examples=30, derandomize=True, deadline=None)
@given(
    fast=st.booleans(),
    step=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 3.0, 100.0, 110.0, 121.0])),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    fast: bool, step: SwingingDoorSettings, instants: list[Instant], chance: random.Random
) -> None:
    before, swinging_door.FAST = swinging_door.FAST, fast
    try:
        agree(step, reference.Reference(step), instants, chance, tail_s=35)
    finally:
        swinging_door.FAST = before
