"""The step `fill`: hand-made cases, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows import gaps as gaps_module
from ringmain.flows import substitutes
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.step import READINGS, Context, PlanError, Shape, Surroundings
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.fill import FillMethod, FillSettings
from ringmain.flows.substitutes import Profile, ProfileError
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING
from tests.flows.recording import batch
from tests.flows.reference import fill as reference
from tests.flows.steps.driving import SECOND, Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import agree, at, context, histories, output, wide_and_deep

ESTIMATED = 0x0008
MARK = 0x100A
MARKS = FillSettings(interval="10s", grace="3s", max_fill="60s")


def row(second: float, value: float, quality: int = 0) -> Instant:
    return at(second), [(1, at(second), value, quality)]


def filled(step: FillSettings, *instants: Instant, tail_s: int = 0) -> list[tuple[float, float | None, int]]:
    """Second, value (None: a mark), quality, in the order of the log."""
    found = output(step, instants, tail_s=tail_s).get("out", [])
    return [(second, None if math.isnan(value) else value, quality) for _, second, value, quality in found]


def method(name: FillMethod, **others: Any) -> FillSettings:
    return FillSettings(interval="10s", grace="3s", max_fill="60s", method=name, **others)


def test_a_gap_is_marked_when_a_newer_reading_comes() -> None:
    found = filled(FillSettings(interval="10s", grace="1h"), row(0, 5), row(30, 6), row(40, 7), tail_s=1)
    assert found == [(0, 5, 0), (10, None, MARK), (20, None, MARK), (30, 6, 0), (40, 7, 0)]


def test_a_silent_series_has_its_gaps_marked_by_log_time() -> None:
    assert filled(MARKS, row(0, 5), tail_s=22) == [(0, 5, 0)]
    assert filled(MARKS, row(0, 5), tail_s=23) == [(0, 5, 0), (10, None, MARK)]
    assert filled(MARKS, row(0, 5), tail_s=33) == [(0, 5, 0), (10, None, MARK), (20, None, MARK)]


def test_a_series_that_is_gone_is_not_marked_for_ever() -> None:
    found = filled(MARKS, row(0, 5), tail_s=200)
    assert [second for second, *_ in found] == [0, 10, 20, 30, 40, 50, 60]
    about = context()
    step = MARKS.make(READINGS, about)
    step.advance(at(0))
    for second in (0, 200):
        step.take(Block(batch([(1, at(second), 5.0, 0)]), at(second)))
        step.advance(at(second + 1))
    assert about.counts["left_open"] == 13
    assert about.counts["marked"] == 6
    assert about.counts["received"] == 2


def test_the_value_before_the_gap_stands_in() -> None:
    found = filled(method(FillMethod.PREVIOUS), row(0, 5), row(31, 6), tail_s=1)
    assert found == [(0, 5, 0), (10, 5, ESTIMATED), (20, 5, ESTIMATED), (31, 6, 0)]


def test_a_straight_line_stands_in_once_the_end_of_the_gap_is_known_and_replaces_the_marks() -> None:
    found = filled(method(FillMethod.LINEAR), row(0, 5), row(40, 9), tail_s=1)
    assert found == [
        (0, 5, 0),
        (10, None, MARK),
        (20, None, MARK),
        (10, 6, ESTIMATED),
        (20, 7, ESTIMATED),
        (30, 8, ESTIMATED),
        (40, 9, 0),
    ]


def test_a_reading_that_comes_late_replaces_what_stood_in() -> None:
    late: Instant = (at(41), [(1, at(10), 5.5, 0), (1, at(23), 5.7, 0)])
    found = filled(method(FillMethod.PREVIOUS), row(0, 5), row(40, 6), late, tail_s=1)
    assert found[-3:] == [(10, 5.5, 0), (20, None, MARK), (23, 5.7, 0)]
    again: Instant = (at(42), [(1, at(25), 5.8, 0)])
    assert filled(method(FillMethod.PREVIOUS), row(0, 5), row(40, 6), late, again, tail_s=1)[-1] == (
        25,
        5.8,
        0,
    )


def test_a_meter_that_was_offline_and_sends_all_of_it_replaces_everything() -> None:
    backlog: Instant = (at(40), [(1, at(second), second / 10, 0) for second in (10, 21, 30, 40)])
    found = filled(method(FillMethod.PREVIOUS), row(0, 5), backlog, tail_s=1)
    assert found == [
        (0, 5, 0),
        (10, 5, ESTIMATED),
        (20, 5, ESTIMATED),
        (10, 1.0, 0),
        (20, None, MARK),
        (21, 2.1, 0),
        (30, 3.0, 0),
        (40, 4.0, 0),
    ]


def test_an_invalid_reading_does_not_settle_its_slot() -> None:
    for value, quality in ((7.0, 2), (math.nan, 0), (math.inf, 0)):
        found = filled(method(FillMethod.PREVIOUS), row(0, 5), row(10, value, quality), row(20, 6), tail_s=1)
        assert [(second, bits) for second, _, bits in found] == [
            (0, 0),
            (10, quality),
            (10, ESTIMATED),
            (20, 0),
        ]


def test_an_invalid_reading_that_comes_late_does_not_take_back_what_stands_in() -> None:
    late: Instant = (at(29), [(1, at(10), 7.0, 2)])
    found = filled(method(FillMethod.PREVIOUS), row(0, 5), late, tail_s=1)
    assert found == [(0, 5, 0), (10, 5, ESTIMATED), (10, 7, 2), (10, 5, ESTIMATED)]
    both: Instant = (at(29), [(1, at(10), 7.0, 2), (1, at(11), 6.0, 0)])
    found = filled(method(FillMethod.PREVIOUS), row(0, 5), both, tail_s=1)
    assert found == [(0, 5, 0), (10, 5, ESTIMATED), (10, 7, 2), (10, None, MARK), (11, 6, 0)]


def test_a_series_is_expected_from_its_first_reading_on() -> None:
    assert filled(MARKS, row(100, 5), tail_s=1) == [(100, 5, 0)]


def test_what_is_far_ahead_moves_nothing() -> None:
    ahead: Instant = (at(1), [(1, at(400), 9.0, 0)])
    assert filled(MARKS, row(0, 5), ahead, row(10, 6), tail_s=1) == [(0, 5, 0), (10, 6, 0)]


def test_the_interval_may_be_one_of_the_medium_and_none_at_all() -> None:
    step = FillSettings(
        interval="10s", grace="3s", max_fill="60s", by="medium", intervals={"gas": "30s", "water": "0s"}
    )
    known = {1: {"medium": "electricity"}, 2: {"medium": "gas"}, 3: {"medium": "water"}, 4: {"medium": None}}
    instants: list[Instant] = [(at(10), [(number, at(10), 1.0, 0) for number in range(1, 5)])]
    found = run(plan_of(step), record(instants, known=known, tail_s=60))["out"]
    marks = [(one["series"], (one["time"] - at(0)) // SECOND) for one in found if one["quality"]]
    # 30 s slots of the epoch begin at 20 s after START here
    assert sorted(marks) == [(1, 20), (1, 30), (1, 40), (1, 50), (2, 20), (4, 20), (4, 30), (4, 40), (4, 50)]


BERLIN = "Europe/Berlin"


def berlin(text: str) -> int:
    return (
        int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN)).astimezone(UTC).timestamp())
        * SECOND
    )


def test_the_same_local_time_a_week_ago_stands_in_across_a_change_of_the_clock() -> None:
    step = FillSettings(interval="1h", grace="1m", max_fill="2d", method=FillMethod.LAST_WEEK)
    first, change = berlin("2025-10-20 00:00"), berlin("2025-10-27 00:00")
    hour = 3600 * SECOND
    week = [(1, first + number * hour, float(number), 0) for number in range(24)]
    rest = [(1, first + number * hour, 1000.0 + number, 0) for number in range(24, 169)]
    instants: list[Instant] = [
        (first + 24 * hour, week),
        (change, rest),
        (change + 6 * hour, [(1, change + 6 * hour, 0.0, 0)]),
    ]
    plan = plan_of(step, zone=BERLIN)
    found = run(plan, record(instants, ticks=False, tail_s=1))["out"]
    formed = [(one["time"], one["value"]) for one in found if one["quality"] == ESTIMATED]
    assert formed == [(change + number * hour, float(number)) for number in range(6)]


def test_without_a_measured_value_a_week_ago_there_is_a_mark() -> None:
    step = FillSettings(interval="1h", grace="1m", max_fill="2d", method=FillMethod.LAST_WEEK)
    hour = 3600
    instants: list[Instant] = [
        (at(hour), [(1, at(0), 1.0, 0), (1, at(hour), 2.0, 0)]),
        (at(168 * hour), [(1, at((168 - 1) * hour), 3.0, 0)]),
        (at(171 * hour), [(1, at(171 * hour), 4.0, 0)]),
    ]
    found = output(step, instants, ticks=False)["out"]
    about = [(second / hour, value) for _, second, value, quality in found if second > 167 * hour and quality]
    assert about[0][1] == 1.0
    assert about[1][1] == 2.0
    assert math.isnan(about[2][1])


def test_series_beyond_what_is_remembered_are_counted_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    step = FillSettings(interval="1h", grace="1m", max_fill="2d", method=FillMethod.LAST_WEEK)
    about = context()
    made = step.make(READINGS, about)
    monkeypatch.setattr(substitutes, "REMEMBERED_MAX", made._week.length * 2)  # type: ignore[attr-defined]
    made.advance(at(0))
    made.take(Block(batch([(number, at(0), 1.0, 0) for number in range(5)]), at(0)))
    made.advance(at(1))
    assert about.counts["not_remembered"] == 3
    made.advance(at(4000 * 2))
    assert about.counts["marked"] == 5


PROFILE = "day,time,value\nworkday,00:00,100\nworkday,06:15,200\nsunday,00:00,1\nall,00:00,50\n"


def test_a_profile_by_day_and_local_time_stands_in(tmp_path: Path) -> None:
    (tmp_path / "h0.csv").write_text(PROFILE)
    step = FillSettings(
        interval="15m", grace="1m", max_fill="1d", method=FillMethod.PROFILE, profile="h0.csv"
    )
    start = berlin("2025-06-20 06:00")  # a Friday
    instants: list[Instant] = [
        (start, [(1, start, 7.0, 0)]),
        (start + 2700 * SECOND, [(1, start + 2700 * SECOND, 8.0, 0)]),
    ]
    plan = plan_of(step, zone=BERLIN, directory=tmp_path)
    found = run(plan, record(instants, ticks=False, tail_s=1))["out"]
    assert [(one["value"], one["quality"]) for one in found] == [
        (7.0, 0),
        (200.0, ESTIMATED),
        (200.0, ESTIMATED),
        (8.0, 0),
    ]
    read = Profile.read(tmp_path / "h0.csv", ZoneInfo(BERLIN))
    moments = ["2025-06-20 06:14", "2025-06-20 06:15", "2025-06-21 12:00", "2025-06-22 12:00"]
    assert read.at(np.array([berlin(text) for text in moments])).tolist() == [100, 200, 50, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns"),
        ("time,value\n00:00,1\n", "expected columns"),
        ("day,time,value\nholiday,00:00,1\n", ":2: expected a day"),
        ("day,time,value\nall,24:00,1\n", ":2: expected a time"),
        ("day,time,value\nall,0,1\n", ":2: expected a time"),
        ("day,time,value\nall,00:00,nan\n", ":2: expected a time"),
        ("day,time,value\nall,00:00\n", ":2: expected a time"),
        ("day,time,value\nworkday,00:00,1\n", "found none for saturday"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_with_file_and_line(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ProfileError, match=message):
        Profile.read(tmp_path / "p.csv", ZoneInfo("UTC"))


def test_a_missing_or_binary_profile_is_an_error_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    about = Surroundings("test", "out", tmp_path, ZoneInfo("UTC"))
    for name in ("none.csv", "binary.csv"):
        step = FillSettings(interval="15m", method=FillMethod.PROFILE, profile=name)
        with pytest.raises(PlanError, match="cannot be read") as error:
            step.plan(READINGS, about)
        assert error.value.key == "profile"


def test_more_missing_slots_than_there_is_room_for_follow_with_the_next_moves_of_log_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gaps_module, "MISSING_ROWS_MAX", 5)
    made = MARKS.make(READINGS, context())
    made.advance(at(0))
    made.take(Block(batch([(number, at(0), 1.0, 0) for number in range(6)]), at(0)))
    made.advance(at(1))
    seen = [sum(len(block) for block in made.advance(at(second))) for second in range(44, 52)]
    assert seen == [3, 3, 3, 3, 3, 3, 0, 0]


@pytest.mark.parametrize("kind", list(FillMethod)[:4])
def test_one_series_many_times_is_as_many_series_once(kind: FillMethod) -> None:
    step = FillSettings(interval="1s", method=kind, max_fill="1h")
    if kind is FillMethod.LAST_WEEK:
        step = FillSettings(interval="1h", method=kind)

    def check(rows: list[dict[str, Any]]) -> None:
        assert len(rows) == 2000

    wide_and_deep(step, check)


def test_settings_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"interval": "soon"},
        {"interval": "0s"},
        {"interval": "1ms"},
        {"interval": "1s", "max_fill": "7d"},
        {"interval": "15m", "max_fill": "5m"},
        {"interval": "15m", "by": "colour", "intervals": {"red": "1h"}},
        {"interval": "15m", "by": "medium"},
        {"interval": "15m", "intervals": {"gas": "1h"}},
        {"interval": "15m", "by": "medium", "intervals": {"gas": "often"}},
        {"interval": "15m", "by": "medium", "intervals": {"gas": "1ms"}},
        {"interval": "15m", "method": FillMethod.PROFILE},
        {"interval": "15m", "profile": "h0.csv"},
        {"interval": "15m", "grace": "-1s"},
    ]
    for table in wrong:
        assert FillSettings(**table).check()[0], table
    made = settings_of({"type": "fill", "interval": "15m", "method": "last-week"})
    assert made == FillSettings(interval="15m", method=FillMethod.LAST_WEEK)
    assert made.check() == ([], [])
    schema = READING.append(pa.field("feeder", pa.string()))
    plan = made.plan(Shape(StreamKind.READING, schema, unit="kW"), context().surroundings)
    assert plan.shape == Shape(StreamKind.READING, READING, unit="kW", late_safe=False)
    with pytest.raises(PlanError, match="works on readings"):
        made.plan(Shape(StreamKind.ROW, pa.schema([pa.field("x", pa.int64())])), context().surroundings)


def test_the_content_of_a_profile_and_the_zone_are_part_of_the_definition(tmp_path: Path) -> None:
    path = tmp_path / "h0.csv"
    path.write_text(PROFILE)
    step = FillSettings(interval="15m", method=FillMethod.PROFILE, profile="h0.csv")
    berlin_, utc = (Surroundings("test", "out", tmp_path, ZoneInfo(zone)) for zone in (BERLIN, "UTC"))
    first = step.definition(berlin_)
    assert first != step.definition(utc)
    path.write_text(PROFILE.replace("200", "201"))
    assert first != step.definition(berlin_)
    same_settings = FillSettings(interval="900s", grace="60s", max_fill="168h")
    assert same_settings.definition(utc) == FillSettings(interval="15m").definition(utc)


KNOWN = {0: {"medium": "gas"}, 1: {"medium": "water"}, 2: {"medium": None}}


@examples(max_examples=25, derandomize=True, deadline=None)
@given(
    step=reference.settings(),
    instants=histories(st.sampled_from([0.0, 1.0, 2.0, -5.0])),
    chance=st.randoms(use_true_random=False),
    by_medium=st.booleans(),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    step: FillSettings, instants: list[Instant], chance: random.Random, by_medium: bool
) -> None:
    if by_medium:
        step = FillSettings(
            interval=step.interval,
            method=step.method,
            grace=step.grace,
            max_fill=step.max_fill,
            by="medium",
            intervals={"gas": "3s", "water": "0s"},
        )
    agree(step, reference.Reference(step, KNOWN), instants, chance, known=KNOWN)


@examples(max_examples=15, derandomize=True, deadline=None)
@given(
    instants=histories(st.sampled_from([0.0, 1.0, 2.0, -5.0]), step_s=6 * 3600.0, span=60),
    chance=st.randoms(use_true_random=False),
    interval=st.sampled_from(["6h", "12h"]),
)
def test_weeks_are_remembered_as_by_the_reference(
    instants: list[Instant], chance: random.Random, interval: str
) -> None:
    step = FillSettings(interval=interval, method=FillMethod.LAST_WEEK, max_fill="20d")
    known: dict[int, dict[str, str | None]] = {0: {}}
    agree(
        step,
        reference.Reference(step, zone=BERLIN),
        instants,
        chance,
        known=known,
        zone=BERLIN,
        ticks=False,
        tail_s=1,
    )


def test_context_is_of_the_step_alone() -> None:
    about = Context(context().surroundings, Attributes())
    step = MARKS.make(READINGS, about)
    assert not step.advance(at(0))
    assert about.counts == {}
