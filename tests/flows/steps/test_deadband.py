"""The step `deadband`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import Block
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import deadband, settings_of
from ringmain.flows.steps.deadband import DeadbandSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING
from tests.flows.recording import batch
from tests.flows.reference import deadband as reference
from tests.flows.steps.driving import SECOND, Instant
from tests.flows.steps.ordered_inputs import agree, at, context, histories, output, wide_and_deep


def each_second(*values: float, quality: int = 0) -> list[Instant]:
    return [(at(second), [(1, at(second), value, quality)]) for second, value in enumerate(values)]


def passed(step: DeadbandSettings, instants: list[Instant]) -> list[tuple[float, float]]:
    return [(second, value) for _, second, value, _ in output(step, instants).get("out", [])]


def test_a_reading_within_the_band_of_the_last_one_passed_on_is_left_out() -> None:
    found = passed(DeadbandSettings(absolute=1.0), each_second(10.0, 10.5, 11.0, 11.5, 10.6, 10.4))
    assert found == [(0, 10.0), (3, 11.5), (5, 10.4)]


def test_a_band_in_percent_follows_the_last_value_passed_on() -> None:
    found = passed(DeadbandSettings(percent=10.0), each_second(100.0, 109.0, 111.0, 120.0, 0.0, 1e-9))
    assert found == [(0, 100.0), (2, 111.0), (4, 0.0), (5, 1e-9)]


def test_with_both_bands_the_wider_one_counts() -> None:
    step = DeadbandSettings(absolute=1.0, percent=10.0)
    assert passed(step, each_second(0.0, 0.9, -1.0, 1.1)) == [(0, 0.0), (3, 1.1)]
    assert passed(step, each_second(100.0, 109.0, 111.0)) == [(0, 100.0), (2, 111.0)]


def test_a_reading_is_passed_on_at_least_every_max_interval() -> None:
    step = DeadbandSettings(absolute=1.0, max_interval="3s")
    assert [second for second, _ in passed(step, each_second(*[5.0] * 8))] == [0, 3, 6]


def test_another_quality_and_every_invalid_reading_are_passed_on() -> None:
    rows = [(0, 5.0, 0), (1, 5.0, 0), (2, 5.0, 1), (3, 5.0, 1), (4, 5.0, 2), (5, 5.0, 2), (6, 5.0, 0)]
    instants = [(at(second), [(1, at(second), value, quality)]) for second, value, quality in rows]
    found = passed(DeadbandSettings(absolute=1.0), instants)
    assert [second for second, _ in found] == [0, 2, 4, 5, 6]


def test_what_is_no_finite_number_hides_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    for step in (DeadbandSettings(absolute=1.0), DeadbandSettings(percent=50.0)):
        found = passed(step, each_second(5.0, nan, 5.0, inf, 5.0, -inf, 1e308, -1e308))
        assert [second for second, _ in found] == list(range(8))


def test_minus_zero_is_zero() -> None:
    assert passed(DeadbandSettings(absolute=0.0), each_second(0.0, -0.0, 0.0)) == [(0, 0.0)]


def test_series_have_bands_of_their_own_and_rows_come_in_order_of_time() -> None:
    rows = [(2, at(0), 5.0, 0), (1, at(1), 7.0, 0), (1, at(0), 5.0, 0), (2, at(1), 5.5, 0)]
    found = output(DeadbandSettings(absolute=1.0), [(at(1), rows)])
    assert found["out"] == [(1, 0, 5.0, 0), (2, 0, 5.0, 0), (1, 1, 7.0, 0)]


def test_a_late_reading_goes_aside_and_moves_nothing() -> None:
    instants: list[Instant] = [
        (at(5), [(1, at(5), 10.0, 0)]),
        (at(6), [(1, at(3), 99.0, 0)]),
        (at(7), [(1, at(7), 10.5, 0)]),
    ]
    found = output(DeadbandSettings(absolute=1.0), instants)
    assert found["out"] == [(1, 5, 10.0, 0)]
    assert [row[:3] for row in found["out.late"]] == [(1, 3, 99.0)]
    assert "out.late" not in output(DeadbandSettings(absolute=1.0, late="drop"), instants)  # type: ignore[arg-type]


def test_what_is_left_out_is_counted() -> None:
    about = context()
    step = DeadbandSettings(absolute=1.0).make(READINGS, about)
    step.advance(at(0))
    step.take(Block(batch([(1, at(second), 5.0, 0) for second in range(4)]), at(3)))
    step.advance(at(4))
    assert about.counts == {"suppressed": 3}


def test_further_columns_travel_with_their_rows() -> None:
    schema = READING.append(pa.field("feeder", pa.string()))
    plan = DeadbandSettings(absolute=1.0).plan(
        Shape(StreamKind.ROW, schema, unit="kW"), context().surroundings
    )
    assert plan.shape == Shape(StreamKind.ROW, schema, unit="kW", late_safe=False)
    step = DeadbandSettings(absolute=1.0).make(plan.shape, context())
    step.advance(at(0))
    plain = batch([(1, at(0), 5.0, 0), (1, at(1), 5.0, 0), (2, at(0), 5.0, 0)])
    rows = pa.RecordBatch.from_arrays([*plain.columns, pa.array(["a", "b", "c"])], schema=schema)
    step.take(Block(rows, at(1)))
    (block,) = step.advance(at(2))
    assert block.rows.column("feeder").to_pylist() == ["a", "c"]


@pytest.mark.parametrize("fast", [True, False])
def test_one_series_many_times_is_as_many_series_once(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadband, "FAST", fast)
    wide_and_deep(DeadbandSettings(absolute=5.0), lambda rows: pytest.fail("no rows") if not rows else None)


def test_a_width_is_needed_and_must_make_sense() -> None:
    for wrong in ({}, {"absolute": -1.0}, {"absolute": float("nan")}, {"percent": 0.0}, {"percent": 101.0}):
        assert DeadbandSettings(**wrong).check()[0]  # type: ignore[arg-type]
    assert DeadbandSettings(absolute=1.0, max_interval="soon").check()[0][0][0] == "max_interval"
    assert DeadbandSettings(absolute=1.0, max_interval="0s").check()[0]
    assert DeadbandSettings(absolute=1.0, grace="x").check()[0][0][0] == "grace"
    assert DeadbandSettings(absolute=0.0).check() == ([], [])
    made = settings_of({"type": "deadband", "absolute": 2, "late": "drop"})
    assert made == DeadbandSettings(absolute=2.0, late="drop")  # type: ignore[arg-type]


def test_the_same_duration_in_other_words_is_no_other_definition() -> None:
    about = context().surroundings
    one = DeadbandSettings(absolute=1.0, max_interval="60s", grace="0s")
    assert one.definition(about) == DeadbandSettings(absolute=1.0, max_interval="1m").definition(about)
    assert one.definition(about) != DeadbandSettings(absolute=1.0, max_interval="61s").definition(about)


def test_rows_without_a_value_are_refused_in_the_plan() -> None:
    with pytest.raises(PlanError, match="works on readings"):
        DeadbandSettings(absolute=1.0).plan(
            Shape(StreamKind.ROW, pa.schema([pa.field("x", pa.int64())])), context().surroundings
        )


@examples(max_examples=30, derandomize=True, deadline=None)
@given(
    fast=st.booleans(),
    step=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 100.0, 110.0, 121.0])),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    fast: bool, step: DeadbandSettings, instants: list[Instant], chance: random.Random
) -> None:
    before, deadband.FAST = deadband.FAST, fast
    try:
        agree(step, reference.Reference(step), instants, chance)
    finally:
        deadband.FAST = before


def test_both_forms_choose_the_same_rows_of_a_fleet() -> None:
    forms: list[list[int]] = []
    for fast in (True, False):
        random_ = np.random.default_rng(3)
        before, deadband.FAST = deadband.FAST, fast
        step = DeadbandSettings(absolute=0.3, percent=0.5, max_interval="9s").make(READINGS, context())
        found: list[int] = []
        step.advance(at(0))
        for second in range(30):
            rows = [
                (series, at(second), float(random_.normal(50, 1)), int(random_.random() < 0.02))
                for series in range(100)
            ]
            step.take(Block(batch(rows), at(second)))
            for block in step.advance(at(second) + SECOND // 2):
                found += block.series.tolist()
        forms.append(found)
        deadband.FAST = before
    assert forms[0] == forms[1]
    assert 200 < len(forms[0]) < 2900
