"""The step `group`: when a group's window is emitted, what it adds up to, and any history against the reference."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from msgspec import structs

from ringmain.flows.aggregates import Late
from ringmain.flows.chain import Chain
from ringmain.flows.grouping_totals import GroupValue
from ringmain.flows.step import PlanError, Shape
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.derive import DeriveSettings
from ringmain.flows.steps.group import GroupSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING, SERIES, TIMESTAMP
from tests.flows.recording import Recording
from tests.flows.reference import group as reference
from tests.flows.steps.driving import SECOND, START, Instant, plain, plan_of, record, run_reference, same
from tests.flows.steps.growing import run_growing
from tests.flows.steps.test_window import Remembering
from tests.soak import run_campaign

KNOWN: dict[int, dict[str, str | None]] = {
    0: {"place": "west/f1", "unit": "W", "medium": "load", "device": "a"},
    1: {"place": "west/f1", "unit": "W", "medium": "feed-in", "device": "b"},
    2: {"place": "west/f2", "unit": "W", "medium": "load", "device": "a"},
    3: {"place": "east/f1", "unit": "W", "medium": "load", "device": "c"},
    4: {"place": "east/f1", "unit": "Wh", "medium": None, "device": "c"},
    5: {"place": None, "unit": None, "medium": None, "device": None},
}
LOAD = (GroupValue.COUNT, GroupValue.SUM_OF_MEANS)


def at(second: float) -> int:
    return START + int(second * SECOND)


def by_place(**more: Any) -> GroupSettings:
    return GroupSettings(**{"by": ("place",), "window": "10s", "grace": "0s", "values": LOAD, **more})


def out(
    step: GroupSettings, instants: list[Instant], tail_s: int = 0, **more: Any
) -> dict[str, list[dict[str, Any]]]:
    return run_growing(plan_of(step), record(instants, known=KNOWN, tail_s=tail_s, **more).frames)


def brief(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Group, start (seconds), count, sum of means, series, revision."""
    return [
        (
            row["place"],
            (row["start"] - START) // SECOND,
            row["count"],
            row["sum_of_means"],
            row["reporting"],
            row["revision"],
        )
        for row in rows
    ]


def test_the_load_of_a_feeder_is_the_sum_of_its_series_means() -> None:
    step = GroupSettings(by=("place",), window="10s", grace="0s", values=tuple(GroupValue))
    rows = out(
        step,
        [
            (at(1), [(0, at(1), 100.0, 0), (1, at(1), 10.0, 0), (0, at(3), 200.0, 0)]),
            (at(11), [(0, at(11), 1.0, 0), (1, at(11), 1.0, 0)]),
        ],
        tail_s=1,
    )["out"]
    assert rows == [
        {
            "place": "west/f1",
            "unit": "W",
            "start": at(0),
            "end": at(10),
            "count": 3,
            "sum": 310.0,
            "mean": 310.0 / 3,
            "min": 10.0,
            "max": 200.0,
            "sum_of_means": 160.0,
            "reporting": 2,
            "expected": 2,
            "completeness": 100.0,
            "revision": 0,
        }
    ]


def test_a_window_waits_for_every_device_of_its_group_and_for_no_other() -> None:
    rows = out(
        by_place(),
        [
            (at(1), [(0, at(1), 1.0, 0), (1, at(1), 2.0, 0), (2, at(1), 4.0, 0), (3, at(1), 8.0, 0)]),
            (at(11), [(0, at(11), 1.0, 0), (2, at(11), 1.0, 0)]),
            (at(12), []),
            (at(20), [(1, at(15), 1.0, 0)]),
        ],
        tail_s=1,
    )["out"]
    assert brief(rows) == [("west/f2", 0, 1, 4.0, 1, 0), ("west/f1", 0, 2, 3.0, 2, 0)]


def test_a_dead_meter_stalls_its_group_for_idle_and_no_longer() -> None:
    story: list[Instant] = [(at(0), [(0, at(0), 1.0, 0), (1, at(0), 2.0, 0)])]
    story += [(at(second), [(0, at(second), 1.0, 0)]) for second in range(1, 60)]
    plan = plan_of(by_place(idle="15s"))
    log = record(story, known=KNOWN)
    chain = Chain(plan, log)
    found = [
        ((chain.now - START) // SECOND, *brief(plain(block.rows))[0][1:])
        for frame in log.frames
        for block in chain.step(frame)
    ]
    assert found == [
        (15, 0, 11, 3.0, 2, 0),
        (21, 10, 10, 1.0, 1, 0),
        (31, 20, 10, 1.0, 1, 0),
        (41, 30, 10, 1.0, 1, 0),
        (51, 40, 10, 1.0, 1, 0),
    ]


@pytest.mark.parametrize("wrong_s", [-86_400 * 365 * 50, -3 * 86_400, 250])
def test_a_clock_that_is_wrong_neither_stalls_the_group_nor_makes_the_others_late(wrong_s: int) -> None:
    known = {number: {"place": "p", "device": f"d{number}", "unit": "W"} for number in range(5)}
    story: list[Instant] = [
        (at(second), [(number, at(second + (wrong_s if number == 4 else 0)), 1.0, 0) for number in range(5)])
        for second in range(60)
    ]
    plan = plan_of(by_place())
    chain = Chain(plan, record(story, known=known))
    rows = [
        row
        for frame in record(story, known=known).frames
        for block in chain.step(frame)
        for row in plain(block.rows)
    ]
    right = [row for row in rows if START <= row["start"] < at(50) and row["revision"] == 0]
    assert [row["reporting"] for row in right if row["start"] < at(40)] == [4, 4, 4, 4]
    assert chain.contexts[0].counts.get("late", 0) == 0


def test_a_site_that_was_offline_for_three_days_does_not_stall_its_group_and_revises_what_was_told() -> None:
    known = {number: {"place": "p", "device": f"d{number}", "unit": "W"} for number in range(4)}
    noon = 32_000  # seconds to a multiple of 12 hours

    def hour(number: int) -> int:
        return at(noon + number * 3600)

    story: list[Instant] = [
        (hour(passed), [(number, hour(passed), 1.0, 0) for number in range(4 if passed == 0 else 3)])
        for passed in range(73)
    ]
    for burst in range(6):  # three days within six seconds
        backlog = range(1 + burst * 12, 13 + burst * 12)
        story.append((hour(72) + (burst + 1) * SECOND, [(3, hour(passed), 10.0, 0) for passed in backlog]))
    plan = plan_of(by_place(window="12h", idle="2h"))
    log = record(story, known=known, ticks=False, tail_s=2)
    rows = run_growing(plan, log.frames)["out"]
    halves = [(start - noon) // 43_200 for _, start, *_ in brief(rows)]
    assert [(half, *row[2:]) for half, row in zip(halves, brief(rows), strict=True)] == [
        (0, 37, 3 + 1.0, 4, 0),
        *((half, 36, 3.0, 3, 0) for half in range(1, 6)),
        (0, 48, 3 + 111 / 12, 4, 1),
        *((half, 48, 13.0, 4, 1) for half in range(1, 6)),
    ]
    assert same(run_growing(plan, log.frames, random.Random(1))["out"], rows)


def test_a_late_reading_revises_its_group_and_one_that_changes_nothing_does_not() -> None:
    story: list[Instant] = [
        (at(1), [(0, at(1), 1.0, 0), (1, at(1), 2.0, 0)]),
        (at(11), [(0, at(11), 1.0, 0), (1, at(11), 2.0, 0)]),
        (at(15), [(1, at(2), 4.0, 0)]),
        (at(17), [(1, at(2), 4.0, 0)]),
        (at(19), [(1, at(2), 4.0, 2), (1, at(1), 2.0, 2), (0, at(1), 1.0, 2)]),
    ]
    rows = out(by_place(), story, tail_s=3)["out"]
    assert brief(rows) == [
        ("west/f1", 0, 2, 3.0, 2, 0),
        ("west/f1", 0, 3, 4.0, 2, 1),
        ("west/f1", 0, 0, None, 0, 2),
    ]


@pytest.mark.parametrize("late", [Late.SIDE, Late.DROP])
def test_a_late_reading_goes_aside_or_is_counted_as_told(late: Late) -> None:
    story: list[Instant] = [
        (at(1), [(0, at(1), 1.0, 0), (1, at(1), 2.0, 0)]),
        (at(11), [(0, at(11), 1.0, 0), (1, at(11), 2.0, 0)]),
        (at(15), [(1, at(2), 4.0, 1)]),
    ]
    log = record(story, known=KNOWN, tail_s=3)
    chain = Chain(plan_of(by_place(late=late)), log)
    found = [block for frame in log.frames for block in chain.step(frame)]
    assert [block.stream for block in found] == ["out", "out.late"][: 2 if late is Late.SIDE else 1]
    assert chain.contexts[0].counts["late"] == 1
    if late is Late.SIDE:
        assert plain(found[1].rows) == [
            {
                "series": 1,
                "time": at(2),
                "value": 4.0,
                "quality": 1,
                "arrived": at(15),
                "reason": "the window of this time was closed",
            }
        ]


def test_a_series_that_moves_counts_for_its_new_group_from_its_next_window_on() -> None:
    log = Recording()

    def entry(number: int, place: str, device: str, now: int) -> None:
        about = {
            "id": number,
            "key": str(number),
            "source": "t",
            "unit": "W",
            "place": place,
            "device": device,
        }
        log.append("catalogue", pa.RecordBatch.from_pylist([about], schema=SERIES), now)

    entry(0, "a", "x", at(0))
    entry(1, "a", "y", at(0))
    entry(2, "b", "z", at(0))
    for second in range(0, 41, 5):
        log.readings([(number, at(second), 10.0**number, 0) for number in range(3)], at(second))
        if second == 10:
            entry(1, "b", "y", at(second))
    log.tick(at(41))
    log.readings([(1, at(12), 90.0, 0), (1, at(22), 90.0, 0)], at(42))
    log.tick(at(43))
    plan = plan_of(by_place())
    rows = run_growing(plan, log.frames)["out"]
    assert brief(rows) == [
        ("a", 0, 4, 11.0, 2, 0),
        ("b", 0, 2, 100.0, 1, 0),
        ("a", 10, 4, 11.0, 2, 0),
        ("b", 10, 2, 100.0, 1, 0),
        ("a", 20, 2, 1.0, 1, 0),
        ("b", 20, 4, 110.0, 2, 0),
        ("a", 30, 2, 1.0, 1, 0),
        ("b", 30, 4, 110.0, 2, 0),
        ("a", 10, 5, 1.0 + 110.0 / 3, 2, 1),
        ("b", 20, 5, 110.0 / 3 + 100.0, 2, 1),
    ]
    assert [(row["place"], row["expected"]) for row in rows[:6]] == [
        ("a", 2),
        ("b", 1),
        ("a", 2),
        ("b", 1),
        ("a", 1),
        ("b", 2),
    ]
    assert same(run_growing(plan, log.frames, random.Random(1))["out"], rows)


TARIFFED = READING.append(pa.field("tariff", pa.string()))


def tariffed(rows: list[tuple[int, float, float, str | None]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(columns[0], pa.uint32()),
            pa.array([at(second) for second in columns[1]], pa.int64()).cast(TIMESTAMP),
            pa.array(columns[2], pa.float64()),
            pa.array([0] * len(rows), pa.uint16()),
            pa.array(columns[3], pa.string()),
        ],
        schema=TARIFFED,
    )


def test_rows_are_grouped_by_a_column_and_a_series_may_be_in_several_groups() -> None:
    shape = Shape(StreamKind.ROW, TARIFFED, unit="W")
    plan = plan_of(by_place(by=("tariff",)), from_="priced", schemas={"priced": shape})
    log = Recording()
    entries = [{"id": n, "key": str(n), "source": "t", **about} for n, about in KNOWN.items()]
    log.append("catalogue", pa.RecordBatch.from_pylist(entries, schema=SERIES), at(0))
    rows = [
        (0, 1, 1.0, "day"),
        (1, 1, 2.0, "day"),
        (0, 2, 4.0, "night"),
        (5, 2, 8.0, None),
        (5, 3, 16.0, "day"),
    ]
    log.append("priced", tariffed(rows), at(3))
    log.append("priced", tariffed([(n, 12, 0.0, "day") for n in (0, 1, 5)]), at(12))
    log.tick(at(13))
    log.append("priced", tariffed([(1, 4, 64.0, "night"), (2**31, 4, 1.0, "day")]), at(14))
    log.tick(at(16))
    for restarts in (None, random.Random(2)):
        found = run_growing(plan, log.frames, restarts)["out"]
        assert [(row["tariff"], row["sum_of_means"], row["reporting"], row["revision"]) for row in found] == [
            ("day", 19.0, 3, 0),
            ("night", 4.0, 1, 0),
            (None, 8.0, 1, 0),
            ("night", 68.0, 2, 1),
        ]


def test_sums_are_formed_in_order_of_series_whatever_the_order_of_arrival() -> None:
    values = [1e16, 1.0, -1e16, 1.0, 3.0, 1e-3]
    added = 0.0
    for value in values:
        added += value
    known = {number: {"device": f"d{number}", "unit": "W"} for number in range(6)}
    for shuffle in range(5):
        order = random.Random(shuffle).sample(range(6), 6)
        story: list[Instant] = [
            (at(step + 1), [(number, at(1), values[number], 0)]) for step, number in enumerate(order)
        ]
        story += [(at(step + 11), [(number, at(11), 0.0, 0)]) for step, number in enumerate(reversed(order))]
        step = by_place(by=())
        (row,) = run_growing(plan_of(step), record(story, known=known, tail_s=2).frames)["out"]
        assert (row["sum_of_means"], row["reporting"]) == (added, 6)


def test_windows_of_groups_follow_the_local_calendar() -> None:
    day = 86_400
    first = int(np.datetime64("2026-03-28T12:00:00", "s").astype(np.int64)) * SECOND
    story: list[Instant] = [
        (first + hour * 3600 * SECOND, [(0, first + hour * 3600 * SECOND, 1.0, 0)]) for hour in range(60)
    ]
    step = by_place(window="day", zone="Europe/Berlin", idle="2h", grace="0s")
    rows = run_growing(plan_of(step), record(story, known=KNOWN, ticks=False, tail_s=1).frames)["out"]
    assert [((row["end"] - row["start"]) // SECOND, row["count"]) for row in rows] == [
        (day, 11),
        (day - 3600, 23),
        (day, 24),
    ]


def test_hostile_rows_move_nothing_and_are_counted() -> None:
    story: list[Instant] = [
        (at(1), [(0, at(1), 1.0, 0), (1, at(1), math.nan, 0)]),
        (at(2), [(0, at(9_000), 1.0, 0), (0, -(2**62), 1.0, 0), (2**31, at(2), 1.0, 0), (0, at(2), -0.0, 0)]),
        (at(3), [(0, at(2), -0.0, 0), (0, at(4), math.inf, 0), (1, at(3), 2.0, 2)]),
        (at(11), [(0, at(11), 1.0, 0), (1, at(11), 1.0, 0)]),
    ]
    log = record(story, known=KNOWN, tail_s=1)
    chain = Chain(plan_of(by_place()), log)
    rows = [row for frame in log.frames for block in chain.step(frame) for row in plain(block.rows)]
    assert brief(rows) == [("west/f1", 0, 3, math.inf, 1, 0)]
    counts = chain.contexts[0].counts
    assert (counts["ahead"], counts["unusable"], counts["invalid"], counts["duplicates"]) == (1, 2, 2, 1)


def test_ten_thousand_series_and_ten_thousand_rows_of_one() -> None:
    wide = [(number, at(1), 1.0, 0) for number in range(10_000)]
    step = by_place(by=())
    found = run_growing(plan_of(step), record([(at(1), wide)], tail_s=40).frames)["out"]
    assert [(row["count"], row["reporting"]) for row in found] == [(10_000, 10_000)]
    long = [(0, at(0) + number * SECOND // 1000, 0.5, 0) for number in range(10_000)]
    found = run_growing(plan_of(step), record([(at(10), long)], tail_s=40).frames)["out"]
    assert [(row["count"], row["sum_of_means"]) for row in found] == [(10_000, 0.5)]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"by": ["place", "place"]}, "by"),
        ({"by": {"start": "place"}}, "by"),
        ({"by": ["place"], "values": []}, "values"),
        ({"by": ["place"], "window": "0s"}, "window"),
        ({"by": ["place"], "idle": "0s"}, "idle"),
        ({"by": ["place"], "zone": "Europe/Berlln"}, "zone"),
    ],
)
def test_settings_that_cannot_work_are_named(table: dict[str, Any], key: str) -> None:
    errors, _ = settings_of({"type": "group", **table}).check()
    assert key in [error[0] for error in errors]


def test_what_cannot_be_computed_again_must_not_revise() -> None:
    unsafe = Shape(StreamKind.READING, READING, late_safe=False)
    with pytest.raises(PlanError, match="side"):
        plan_of(by_place(), from_="other", schemas={"other": unsafe})
    with pytest.raises(PlanError, match="no step can follow"):
        plan_of(by_place(), by_place())


def test_what_means_the_same_is_the_same_definition() -> None:
    around = plan_of(GroupSettings(by=("place",))).around
    step = GroupSettings(by=("place[1]",), window="60s")
    assert step.definition(around) == GroupSettings(by={"place_1": "place[1]"}, window="1m").definition(
        around
    )
    assert step.definition(around) != GroupSettings(by=("place[2]",), window="60s").definition(around)


VALUE = st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16, -0.0, 1.0, math.nan, math.inf])


@st.composite
def histories(draw: st.DrawFn) -> list[Instant]:
    now = 0.0
    instants: list[Instant] = []
    past: list[tuple[int, int, float, int]] = []
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([1, 1, 0.4, 0.4, 2, 7, 40]))
        kind = draw(st.sampled_from(["sweep", "sweep", "mixed", "repeat"]))
        if kind == "sweep":
            ids = sorted(draw(st.sets(st.integers(0, 6), min_size=1)))
            offset = draw(st.sampled_from([0, 0, 0, -1, -12]))
            rows = [(number, at(now + offset), draw(VALUE), 0) for number in ids]
        elif kind == "mixed" or not past:
            seconds = st.sampled_from([-60, -25, -11, -2, -1, 0, 0, 0, 1, 299, 301])
            rows = draw(
                st.lists(
                    st.tuples(
                        st.integers(0, 6),
                        seconds.map(lambda second, now=now: at(now + second)),
                        VALUE,
                        st.sampled_from([0, 0, 0, 1, 2, 0x100]),
                    ),
                    max_size=10,
                )
            )
        else:
            again = draw(st.lists(st.sampled_from(past), min_size=1, max_size=5))
            rows = [(number, time, draw(VALUE), quality) for number, time, _, quality in again]
        past += rows
        instants.append((at(now), rows))
    return instants


def compared(step: GroupSettings, instants: list[Instant], number: int) -> None:
    expected = run_reference([reference.Reference(step, KNOWN)], instants, tail_s=33)
    plan = plan_of(step)
    whole = run_growing(plan, record(instants, known=KNOWN, tail_s=33).frames)
    assert same(whole, expected), (whole, expected)
    chance = random.Random(number)
    cut = record(instants, known=KNOWN, tail_s=33, cut=chance)
    assert same(run_growing(plan, cut.frames, chance), expected)


@settings(max_examples=10, derandomize=True, deadline=None)
@given(reference.settings(), histories(), st.integers(0, 2**32))
def test_every_history_gives_the_rows_of_the_reference_however_cut_and_restarted(
    step: GroupSettings, instants: list[Instant], number: int
) -> None:
    compared(step, instants, number)


@settings(max_examples=10, derandomize=True, deadline=None)
@given(reference.settings((Late.SIDE, Late.DROP)), histories(), st.integers(0, 2**32))
def test_behind_a_step_with_a_memory_open_windows_are_kept_in_memory_with_the_same_result(
    step: GroupSettings, instants: list[Instant], number: int
) -> None:
    expected = run_reference([reference.Reference(step, KNOWN)], instants, tail_s=33)
    chance = random.Random(number)
    cut = record(instants, known=KNOWN, tail_s=33, cut=chance)
    assert same(run_growing(plan_of(Remembering(), step), cut.frames, chance), expected)


class Tariffs:
    """The reference of the `derive` step of the test below."""

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        return [{**row, "tariff": "high" if row["value"] > 0.15 else "low"}]

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        return []


@settings(max_examples=6, derandomize=True, deadline=None)
@given(reference.settings(), histories(), st.integers(0, 2**32))
def test_groups_by_a_column_are_those_of_the_reference_however_cut_and_restarted(
    step: GroupSettings, instants: list[Instant], number: int
) -> None:
    step = structs.replace(step, by=("tariff", "place[1]"))
    expected = run_reference([Tariffs(), reference.Reference(step, KNOWN)], instants, tail_s=33)
    plan = plan_of(
        DeriveSettings(columns={"tariff": "case when value > 0.15 then 'high' else 'low' end"}), step
    )
    chance = random.Random(number)
    cut = record(instants, known=KNOWN, tail_s=33, cut=chance)
    assert same(run_growing(plan, cut.frames, chance), expected)


MOVES = st.lists(
    st.tuples(
        st.integers(0, 11), st.integers(0, 5), st.sampled_from(["west/f1", "west/f2", "east/f1", None])
    ),
    min_size=1,
    max_size=8,
)


def compared_with_moves(
    step: GroupSettings, instants: list[Instant], moves: list[tuple[int, int, str | None]], number: int
) -> None:
    """As `compared`; behind the rows of some instants the catalogue says that series moved."""
    model = reference.Reference(step, KNOWN)
    whole, cut = Recording(), Recording()
    chance = random.Random(number)
    expected: dict[str, list[dict[str, Any]]] = {}

    def told(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            expected.setdefault(row.pop("stream", "out"), []).append(row)

    def entries(known: dict[int, dict[str, str | None]], now: int) -> None:
        rows = [{"id": n, "key": f"key/{n}", "source": "test", **about} for n, about in known.items()]
        for log in (whole, cut):
            log.append("catalogue", pa.RecordBatch.from_pylist(rows, schema=SERIES), now)

    entries(KNOWN, START)
    for place, (now, rows) in enumerate(
        [*instants, *((instants[-1][0] + n * SECOND, []) for n in range(1, 40))]
    ):
        for log in (whole, cut):
            log.tick(now)
        told(model.advance(now))
        for series, time, value, quality in rows:
            told(model.take({"series": series, "time": time, "value": value, "quality": quality}, now))
        rest = list(rows)
        if rest:
            whole.readings(rest, now)
        while rest:
            size = chance.randint(1, 4)
            cut.readings(rest[:size], now)
            rest = rest[size:]
        for when, series, to in moves:
            if when == place:
                about = {**KNOWN[series], "place": to}
                entries({series: about}, now)
                model.learn(series, about)
    plan = plan_of(step)
    found = run_growing(plan, whole.frames)
    assert same(found, expected), (found, expected)
    assert same(run_growing(plan, cut.frames, chance), expected)


@settings(max_examples=12, derandomize=True, deadline=None)
@given(reference.settings(), histories(), MOVES, st.integers(0, 2**32))
def test_series_that_move_are_in_the_groups_of_the_reference_window_by_window(
    step: GroupSettings, instants: list[Instant], moves: list[tuple[int, int, str | None]], number: int
) -> None:
    compared_with_moves(step, instants, moves, number)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_thousands_of_histories_give_the_rows_of_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    examples = 25

    def run(item: int) -> int:
        @seed(item)
        @settings(max_examples=examples, deadline=None, database=None)
        @given(reference.settings(), histories(), MOVES, st.integers(0, 2**32))
        def campaign(
            step: GroupSettings,
            instants: list[Instant],
            moves: list[tuple[int, int, str | None]],
            number: int,
        ) -> None:
            compared(step, instants, number)
            compared_with_moves(step, instants, moves, number)

        campaign()
        return examples

    told = run_campaign("group-histories", 2000, run, "histories")
    with capsys.disabled():
        print(f"\n{told}")
