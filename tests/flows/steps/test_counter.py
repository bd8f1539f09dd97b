"""The step `counter`: hand-made cases, hostile input, and any history against the row-by-row reference."""

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
from ringmain.flows.chain import Chain
from ringmain.flows.step import READINGS, PlanError, Shape
from ringmain.flows.steps import counter, settings_of
from ringmain.flows.steps.counter import CounterOutput, CounterSettings, GapRule, Per, ResetRule, rate_unit
from ringmain.log.interface import StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING
from tests.flows.recording import Recording, batch, catalogue
from tests.flows.reference import counter as reference
from tests.flows.steps.driving import SECOND, Instant, plan_of, restarted
from tests.flows.steps.ordered_inputs import agree, at, context, histories, output, wide_and_deep

CALCULATED = int(Quality.CALCULATED)
ESTIMATED = int(Quality.ESTIMATED)


def each_minute(*values: float) -> list[Instant]:
    return [(at(60 * minute), [(1, at(60 * minute), value, 0)]) for minute, value in enumerate(values)]


def counted(step: CounterSettings, instants: list[Instant]) -> list[tuple[float, float]]:
    """Minute and value."""
    return [(second / 60, value) for _, second, value, _ in output(step, instants).get("out", [])]


def breaks(step: CounterSettings, instants: list[Instant]) -> list[tuple[float, float, str]]:
    """Minute, reading, first word of the reason."""
    rows = output(step, instants).get("out.breaks", [])
    return [(second / 60, value, reason.split()[0]) for _, second, value, reason in rows]


def test_consumption_is_the_difference_to_the_reading_before() -> None:
    found = output(CounterSettings(), each_minute(100, 103, 103, 110.5))
    assert found == {"out": [(1, 60, 3.0, CALCULATED), (1, 120, 0.0, CALCULATED), (1, 180, 7.5, CALCULATED)]}


def test_a_register_of_five_digits_rolls_over() -> None:
    assert counted(CounterSettings(digits=5), each_minute(99_990, 99_998, 4, 10)) == [(1, 8), (2, 6), (3, 6)]
    assert counted(CounterSettings(modulus=500.0), each_minute(490, 5)) == [(1, 15)]


def test_a_roll_over_must_be_plausible() -> None:
    step = CounterSettings(digits=5, max_step=50.0)
    assert counted(step, each_minute(50_000, 10, 12)) == [(2, 2)]
    assert breaks(step, each_minute(50_000, 10, 12)) == [(1, 10, "drop")]
    assert counted(CounterSettings(digits=5), each_minute(40_000, 10, 12)) == [(2, 2)]


def test_after_a_reset_nothing_is_known_unless_the_register_counts_from_zero() -> None:
    instants = each_minute(5_000, 5_010, 4, 9, 11)
    assert counted(CounterSettings(), instants) == [(1, 10), (3, 5), (4, 2)]
    found = output(CounterSettings(reset=ResetRule.ZERO), instants)
    doubtful = CALCULATED | int(Quality.QUESTIONABLE | Quality.INACCURATE)
    assert [(second / 60, value, quality) for _, second, value, quality in found["out"]] == [
        (1, 10, CALCULATED),
        (2, 4, doubtful),
        (3, 5, CALCULATED),
        (4, 2, CALCULATED),
    ]
    assert breaks(CounterSettings(), instants) == [(2, 4, "drop")]


def test_a_single_wrong_reading_neither_invents_consumption_nor_loses_any() -> None:
    for wrong in (0.0, 3.0, -7.0):
        instants = each_minute(100, 105, wrong, 112)
        assert counted(CounterSettings(reset=ResetRule.ZERO), instants) == [(1, 5), (3, 7)]
        assert breaks(CounterSettings(), instants) == [(2, wrong, "fits")]
    instants = each_minute(100, 105, 99_999, 112)
    step = CounterSettings(max_rate=600.0)
    assert counted(step, instants) == [(1, 5), (3, 7)]
    assert breaks(step, instants) == [(2, 99_999, "fits")]


def test_a_jump_beyond_what_is_plausible_is_an_exchange_once_it_is_confirmed() -> None:
    step = CounterSettings(max_rate=600.0)
    instants = each_minute(100, 105, 88_000, 88_003, 88_004)
    assert counted(step, instants) == [(1, 5), (3, 3), (4, 1)]
    assert breaks(step, instants) == [(2, 88_000, "implausible")]


def test_readings_that_fit_nothing_are_all_told() -> None:
    step = CounterSettings(max_step=10.0)
    instants = each_minute(100, 5_000, 7_000, 9_000, 9_001)
    assert counted(step, instants) == [(4, 1)]
    assert breaks(step, instants) == [(1, 5_000, "fits"), (2, 7_000, "fits"), (3, 9_000, "implausible")]


def test_another_device_begins_anew_at_once_and_across_a_restart() -> None:
    plan = plan_of(CounterSettings())
    for anew in (False, True):
        log = Recording()
        log.append("catalogue", catalogue({1: None, 2: "meter-8"}), at(0))
        log.append("readings", batch([(1, at(0), 100.0, 0), (2, at(0), 500.0, 0)]), at(0))
        log.append("catalogue", catalogue({1: "meter-1", 2: "meter-8"}), at(1))
        log.append("readings", batch([(1, at(60), 101.0, 0), (2, at(60), 501.0, 0)]), at(60))
        log.tick(at(61))
        log.append("catalogue", catalogue({1: "meter-2", 2: None}), at(62))
        log.append("readings", batch([(1, at(120), 150.0, 0), (2, at(120), 502.0, 0)]), at(120))
        log.append("readings", batch([(1, at(180), 153.0, 0), (2, at(180), 503.0, 0)]), at(180))
        log.tick(at(181))
        chain = Chain(plan, log)
        rows: dict[str, list[Any]] = {}
        for frame in log.frames:
            for block in chain.step(frame):
                rows.setdefault(str(block.stream), []).extend(block.rows.to_pylist())
            if anew:
                chain = restarted(chain, log)
        assert [(row["series"], row["value"]) for row in rows["out"]] == [
            (1, 1),
            (2, 1),
            (2, 1),
            (1, 3),
            (2, 1),
        ]
        assert [(row["series"], row["value"], row["reason"][:14]) for row in rows["out.breaks"]] == [
            (1, 150.0, "another device")
        ]


GAPPED: list[Instant] = [
    (at(60 * minute), [(1, at(60 * minute), 10.0 * minute, 0)]) for minute in (0, 1, 4, 5)
]


def test_consumption_over_a_gap_is_questionable() -> None:
    step = CounterSettings(max_gap="1m")
    found = output(step, GAPPED)["out"]
    assert [(second / 60, value, quality) for _, second, value, quality in found] == [
        (1, 10, CALCULATED),
        (4, 30, CALCULATED | 1),
        (5, 10, CALCULATED),
    ]


def test_consumption_over_a_gap_is_split_into_equal_estimated_parts() -> None:
    found = output(CounterSettings(max_gap="1m", gap=GapRule.SPLIT), GAPPED)["out"]
    assert [(second / 60, value, quality) for _, second, value, quality in found] == [
        (1, 10, CALCULATED),
        (2, 10, ESTIMATED),
        (3, 10, ESTIMATED),
        (4, 10, ESTIMATED),
        (5, 10, CALCULATED),
    ]


def test_a_gap_of_too_many_parts_is_questionable_instead() -> None:
    found = output(CounterSettings(max_gap="1ms", gap=GapRule.SPLIT), each_minute(0, 1))["out"]
    assert found == [(1, 60, 1.0, CALCULATED | 1)]


def test_after_a_gap_the_register_begins_anew_where_told() -> None:
    step = CounterSettings(max_gap="1m", gap=GapRule.SKIP)
    assert counted(step, GAPPED) == [(1, 10), (5, 10)]
    assert breaks(step, GAPPED) == [(4, 40, "longer")]


def test_a_rate_has_the_unit_of_power_or_flow() -> None:
    step = CounterSettings(output=CounterOutput.RATE)
    about = context().surroundings
    assert step.plan(Shape(StreamKind.READING, READING, unit="kWh"), about).shape.unit == "kW"
    with pytest.raises(PlanError, match="convert"):
        step.plan(READINGS, about)
    names = {
        ("Wh", "h"): "W",
        ("kvarh", "h"): "kvar",
        ("m3", "h"): "m3/h",
        ("m3", "s"): "m3/s",
        ("MJ", "s"): "MW",
        ("Ah", "h"): "A",
        ("m3/h", "h"): "m3/h/h",
    }
    for (unit, per), rate in names.items():
        assert rate_unit(unit, Per(per)) == rate
    with pytest.raises(PlanError):
        rate_unit("?", Per.HOUR)
    assert CounterSettings().plan(Shape(StreamKind.READING, READING, unit="kWh"), about).shape.unit == "kWh"


def test_a_rate_is_consumption_by_time() -> None:
    made = CounterSettings(output=CounterOutput.RATE).make(
        Shape(StreamKind.READING, READING, "kWh"), context()
    )
    made.advance(at(900))
    made.take(Block(batch([(1, at(0), 10.0, 0), (1, at(900), 10.5, 0)]), at(900)))
    (block,) = made.advance(at(901))
    assert block.value.tolist() == [2.0]


def test_qualities_of_both_readings_count() -> None:
    cases = [(0, 0, 12), (1, 0, 13), (0, 8, 8), (4, 0, 8), (12, 0, 12), (0x100, 0x4001, 0x4101 | 12)]
    for first, second, expected in cases:
        instants: list[Instant] = [(at(0), [(1, at(0), 1.0, first), (1, at(1), 2.0, second)])]
        assert [row[3] for row in output(CounterSettings(), instants)["out"]] == [expected]


def test_a_reading_without_a_value_is_passed_over_and_the_next_interval_spans_it() -> None:
    for bad, quality in ((50.0, 2), (50.0, 3), (float("nan"), 0), (float("inf"), 0), (-float("inf"), 0)):
        instants: list[Instant] = [
            (at(0), [(1, at(0), 1.0, 0), (1, at(1), bad, quality), (1, at(2), 4.0, 0)])
        ]
        assert [row[:3] for row in output(CounterSettings(), instants)["out"]] == [(1, 2, 3.0)]


def test_a_site_that_was_offline_for_three_days_and_sends_all_of_it_loses_nothing() -> None:
    quarter = 900
    live: list[Instant] = [(at(0), [(1, at(0), 1000.0, 0), (2, at(0), 50.0, 0)])]
    offline = [(1, at(number * quarter), 1000.0 + 2 * number, 0) for number in range(1, 289)]
    random.Random(4).shuffle(offline)
    live.append((at(288 * quarter), [*offline, (2, at(288 * quarter), 51.0, 0)]))
    found = output(CounterSettings(max_rate=10.0), live, ticks=False)["out"]
    assert [row[2] for row in found if row[0] == 1] == [2.0] * 288
    assert [row[:3] for row in found if row[0] == 2] == [(2, 288 * quarter, 1.0)]


@examples(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=2, max_size=40), st.integers(1, 3))
def test_what_is_counted_adds_up_to_what_the_register_shows(steps: list[int], parts: int) -> None:
    shown = np.cumsum([990, *steps]) % 1000
    rows = [(1, at(60 * place), float(value), 0) for place, value in enumerate(shown)]
    about = context()
    made = CounterSettings(digits=3, max_step=400.0).make(READINGS, about)
    made.advance(at(0))
    total = 0.0
    for part in np.array_split(np.arange(len(rows)), parts):
        now = at(60 * len(rows))
        made.advance(now)
        made.take(Block(batch([rows[place] for place in part]), now))
        for block in made.advance(now + 1):
            assert block.stream is None
            total += float(block.value.sum())
    assert total == sum(steps)


def test_late_readings_go_aside() -> None:
    instants: list[Instant] = [(at(5), [(1, at(5), 5.0, 0)]), (at(6), [(1, at(3), 4.0, 0)])]
    assert [row[:3] for row in output(CounterSettings(), instants)["out.late"]] == [(1, 3, 4.0)]


def test_what_happened_is_counted() -> None:
    about = context()
    step = CounterSettings(digits=3, max_step=60.0, max_gap="2m").make(READINGS, about)
    step.advance(at(6000))
    values = [990, 5, float("nan"), 8, 900, 12, 500, 503, 1, 2]
    rows = [(1, at(60 * place), float(value), 0) for place, value in enumerate(values)]
    rows.append((1, at(6000), 4.0, 0))
    step.take(Block(batch(rows), at(6000)))
    step.advance(at(6001))
    assert about.counts == {"rollovers": 1, "invalid": 1, "outlier": 1, "jump": 1, "reset": 1, "gaps": 1}


@pytest.mark.parametrize("fast", [True, False])
def test_one_series_many_times_is_as_many_series_once(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "FAST", fast)
    wide_and_deep(CounterSettings(), lambda rows: None)


def test_both_forms_count_the_same_in_a_fleet() -> None:
    forms: list[list[Any]] = []
    for fast in (True, False):
        random_ = np.random.default_rng(3)
        before, counter.FAST = counter.FAST, fast
        step = CounterSettings(digits=3, max_step=40.0, reset=ResetRule.ZERO).make(READINGS, context())
        value = random_.integers(0, 1000, 100).astype(float)
        found: list[Any] = []
        step.advance(at(0))
        for second in range(40):
            value = (value + random_.integers(0, 20, 100)) % 1000
            odd = random_.random(100) < 0.03
            shown = np.where(odd, random_.choice([0.0, 999.0, np.nan, 500.0], 100), value)
            quality = np.where(random_.random(100) < 0.05, random_.choice([1, 2, 4, 8], 100), 0)
            rows = [
                (series, at(second), float(shown[series]), int(quality[series]))
                for series in range(100)
                if random_.random() < 0.9
            ]
            step.take(Block(batch(rows), at(second)))
            for block in step.advance(at(second) + SECOND // 2):
                names = [
                    name
                    for name in ("series", "time", "value", "quality", "reason")
                    if name in block.rows.schema.names
                ]
                found += zip(*(block.rows.column(name).to_pylist() for name in names), strict=True)
        forms.append(found)
        counter.FAST = before
    assert forms[0] == forms[1]
    assert len({row[4] for row in forms[0] if len(row) == 5}) >= 3


def test_settings_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"digits": 0},
        {"digits": 16},
        {"digits": 5, "modulus": 100.0},
        {"modulus": 0.0},
        {"max_rate": -1.0},
        {"max_step": float("nan")},
        {"max_gap": "0s"},
        {"max_gap": "soon"},
        {"gap": GapRule.SPLIT},
    ]
    for table in wrong:
        assert CounterSettings(**table).check()[0], table
    assert settings_of({"type": "counter", "digits": 6, "gap": "skip", "max_gap": "1h"}).check() == ([], [])


def test_the_plan_tells_its_streams_and_leaves_further_columns_behind() -> None:
    schema = READING.append(pa.field("feeder", pa.string()))
    plan = CounterSettings().plan(Shape(StreamKind.READING, schema), context().surroundings)
    assert plan.shape == Shape(StreamKind.READING, READING, late_safe=False)
    assert sorted(plan.streams) == ["out.breaks", "out.late"]
    assert plan.attributes == {"device"}


VALUES = st.one_of(
    st.integers(0, 30).map(float),
    st.sampled_from([0.0, 4.0, 90.0, 99.0, 100.0, 101.0, 480.0, 990.0, 999.0, 5000.0, -3.0]),
)


@examples(max_examples=35, derandomize=True, deadline=None)
@given(
    fast=st.booleans(),
    step=reference.settings(),
    instants=histories(VALUES),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    fast: bool, step: CounterSettings, instants: list[Instant], chance: random.Random
) -> None:
    before, counter.FAST = counter.FAST, fast
    try:
        agree(step, reference.Reference(step), instants, chance)
    finally:
        counter.FAST = before
