"""The step `validate`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import Block
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import settings_of, validate
from ringmain.flows.steps.validate import RatePer, ValidateSettings, Verdict
from ringmain.log.interface import StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING
from tests.flows.recording import batch
from tests.flows.reference import validate as reference
from tests.flows.steps.driving import SECOND, Instant
from tests.flows.steps.ordered_inputs import agree, at, context, histories, output, wide_and_deep

RANGE = int(Quality.OUT_OF_RANGE | Quality.QUESTIONABLE)
RATE = SPIKE = int(Quality.INCONSISTENT | Quality.QUESTIONABLE)
STUCK = int(Quality.OLD_DATA | Quality.QUESTIONABLE)


def each_second(*values: float, quality: int = 0) -> list[Instant]:
    return [(at(second), [(1, at(second), value, quality)]) for second, value in enumerate(values)]


def qualities(step: ValidateSettings, instants: list[Instant]) -> list[int]:
    return [quality for *_, quality in output(step, instants)["out"]]


def test_values_outside_the_range_are_marked_and_stay_what_they_are() -> None:
    step = ValidateSettings(min=0.0, max=10.0)
    found = output(step, each_second(0, 10, 10.1, -0.1, float("inf")))["out"]
    assert [row[2] for row in found] == [0, 10, 10.1, -0.1, float("inf")]
    assert [row[3] for row in found] == [0, 0, RANGE, RANGE, RANGE]


def test_a_reading_may_become_invalid_instead_of_questionable() -> None:
    step = ValidateSettings(max=10.0, as_=Verdict.INVALID)
    invalid = int(Quality.OUT_OF_RANGE | Quality.INVALID)
    assert qualities(step, each_second(11, quality=0)) == [invalid]
    assert qualities(step, each_second(11, quality=1 | 0x100)) == [invalid | 0x100]


def test_readings_without_a_value_are_passed_on_as_they_are_and_compared_with_nothing() -> None:
    rows = [(5.0, 0), (500.0, 2), (500.0, 3), (float("nan"), 0), (5.0, 0)]
    instants = [(at(second), [(1, at(second), *row)]) for second, row in enumerate(rows)]
    for step in (ValidateSettings(max=10.0), ValidateSettings(max=10.0, max_rate=1.0)):
        assert qualities(step, instants) == [0, 2, 3, 0, 0]


def test_a_change_that_is_too_fast_is_marked() -> None:
    step = ValidateSettings(max_rate=60.0, per=RatePer.MINUTE)
    assert qualities(step, each_second(5, 6, 7.5, 7, 5, 6)) == [0, 0, RATE, 0, RATE, 0]
    instants: list[Instant] = [
        (at(second), [(1, at(second), value, 0)]) for second, value in ((0, 0), (9, 9))
    ]
    assert qualities(step, instants) == [0, 0]


def test_a_value_that_stays_the_same_for_too_long_is_marked_until_it_changes() -> None:
    step = ValidateSettings(stuck="2s")
    assert qualities(step, each_second(5, 5, 5, 5, 5, 6, 5)) == [0, 0, 0, STUCK, STUCK, 0, 0]
    zero = ValidateSettings(stuck="2s", stuck_except=0.0)
    assert qualities(zero, each_second(0, 0, 0, 0, -0.0)) == [0] * 5


def test_a_spike_is_far_from_the_median_of_the_values_before_it() -> None:
    step = ValidateSettings(spike=5.0, spike_values=5, spike_floor=2.0)
    values = [10, 11, 10, 12, 11, 11, 90, 11, 10, 12]
    assert qualities(step, each_second(*values)) == [0] * 6 + [SPIKE] + [0] * 3


def test_with_spread_zero_the_floor_says_what_is_a_spike() -> None:
    values = [10, 10, 10, 10.5, 12]
    assert qualities(ValidateSettings(spike=5.0, spike_values=3), each_second(*values)) == [
        0,
        0,
        0,
        SPIKE,
        SPIKE,
    ]
    step = ValidateSettings(spike=5.0, spike_values=3, spike_floor=1.0)
    assert qualities(step, each_second(*values)) == [0, 0, 0, 0, SPIKE]


def test_after_a_true_jump_values_are_believed_again_once_half_of_those_compared_with_lie_there() -> None:
    step = ValidateSettings(spike=5.0, spike_values=5, spike_floor=2.0)
    values = [10, 11, 10, 11, 10, *[50, 51, 50, 51, 50, 51]]
    assert qualities(step, each_second(*values)) == [0] * 5 + [SPIKE] * 3 + [0] * 3


def test_a_reading_that_breaks_several_rules_has_the_bit_of_each() -> None:
    step = ValidateSettings(max=10.0, max_rate=1.0)
    assert qualities(step, each_second(5, 20)) == [0, RANGE | RATE]


def test_what_breaks_rules_is_counted_by_rule() -> None:
    about = context()
    step = ValidateSettings(max=10.0, max_rate=1.0, stuck="1s").make(READINGS, about)
    step.advance(at(0))
    values = [5.0, 20.0, 20.0, 20.0, 21.0]
    step.take(Block(batch([(1, at(second), value, 0) for second, value in enumerate(values)]), at(4)))
    step.advance(at(5))
    assert about.counts == {"range": 4, "rate": 1, "stuck": 1}


def test_range_alone_looks_at_each_row_by_itself_and_keeps_its_place() -> None:
    step = ValidateSettings(max=10.0)
    shape = Shape(StreamKind.READING, READING)
    assert step.plan(shape, context().surroundings).shape == shape
    assert not step.plan(shape, context().surroundings).streams
    made = step.make(shape, context())
    block = Block(batch([(2, at(1), 5.0, 0), (1, at(0), 50.0, 0)]), at(1))
    (found,) = made.take(block)
    assert found.quality.tolist() == [0, RANGE]
    good = Block(batch([(2, at(1), 5.0, 0)]), at(1))
    assert made.take(good) == (good,)
    assert not made.advance(at(2))
    memory = ValidateSettings(max=10.0, stuck="1h").plan(shape, context().surroundings)
    assert not memory.shape.late_safe
    assert list(memory.streams) == ["out.late"]


def test_further_columns_travel_with_their_rows() -> None:
    schema = READING.append(pa.field("feeder", pa.string()))
    for step in (ValidateSettings(max=10.0), ValidateSettings(max=10.0, max_rate=1e9)):
        plan = step.plan(Shape(StreamKind.ROW, schema), context().surroundings)
        assert plan.shape.schema == schema
        made = step.make(plan.shape, context())
        made.advance(at(0))
        plain = batch([(2, at(1), 50.0, 0), (1, at(0), 5.0, 0)])
        rows = pa.RecordBatch.from_arrays([*plain.columns, pa.array(["a", "b"])], schema=schema)
        found = [
            row
            for block in (*made.take(Block(rows, at(1))), *made.advance(at(2)))
            for row in block.rows.to_pylist()
        ]
        assert sorted((row["feeder"], row["quality"]) for row in found) == [("a", RANGE), ("b", 0)]


def test_late_readings_go_aside() -> None:
    instants: list[Instant] = [(at(5), [(1, at(5), 5.0, 0)]), (at(6), [(1, at(3), 9.0, 0)])]
    assert [row[:3] for row in output(ValidateSettings(stuck="1h"), instants)["out.late"]] == [(1, 3, 9.0)]


@pytest.mark.parametrize("fast", [True, False])
def test_one_series_many_times_is_as_many_series_once(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "FAST", fast)
    step = ValidateSettings(min=0.0, max_rate=5.0, stuck="1m", spike=3.0, spike_values=5)

    def check(rows: list[dict[str, Any]]) -> None:
        assert len(rows) == 2000

    wide_and_deep(step, check)


def test_both_forms_mark_the_same_in_a_fleet() -> None:
    forms: list[list[Any]] = []
    for fast in (True, False):
        random_ = np.random.default_rng(3)
        before, validate.FAST = validate.FAST, fast
        step = ValidateSettings(max=54.0, max_rate=4.0, stuck="2s", spike=2.5, spike_values=8).make(
            READINGS, context()
        )
        found: list[Any] = []
        step.advance(at(0))
        for second in range(40):
            rows = [
                (
                    series,
                    at(second),
                    float(np.round(random_.normal(50, 2))),
                    int(random_.choice([0, 0, 0, 1, 2])),
                )
                for series in range(100)
                if random_.random() < 0.9
            ]
            step.take(Block(batch(rows), at(second)))
            for block in step.advance(at(second) + SECOND // 2):
                found += zip(block.series.tolist(), block.time.tolist(), block.quality.tolist(), strict=True)
        forms.append(found)
        validate.FAST = before
    assert forms[0] == forms[1]
    assert len({row[2] for row in forms[0]}) >= 8


def test_settings_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"min": 5.0, "max": 4.0},
        {"min": float("nan")},
        {"max_rate": 0.0},
        {"stuck": "long"},
        {"spike": -1.0},
        {"spike": 3.0, "spike_values": 2},
        {"spike": 3.0, "spike_values": 65},
        {"spike": 3.0, "spike_floor": -1.0},
    ]
    for table in wrong:
        assert ValidateSettings(**table).check()[0], table
    made = settings_of({"type": "validate", "min": 0, "as": "invalid"})
    assert made == ValidateSettings(min=0.0, as_=Verdict.INVALID)
    assert made.check() == ([], [])
    with pytest.raises(PlanError, match="works on readings"):
        made.plan(Shape(StreamKind.ROW, pa.schema([pa.field("x", pa.int64())])), context().surroundings)


@examples(max_examples=30, derandomize=True, deadline=None)
@given(
    fast=st.booleans(),
    step=reference.settings(),
    instants=histories(st.sampled_from([0.0, -1.0, -2.0, 1.0, 2.0, 3.0, 2.5, 100.0])),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    fast: bool, step: ValidateSettings, instants: list[Instant], chance: random.Random
) -> None:
    before, validate.FAST = validate.FAST, fast
    try:
        agree(step, reference.Reference(step), instants, chance)
    finally:
        validate.FAST = before
