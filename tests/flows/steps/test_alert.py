"""The step `alert`: hand-made cases with exact events, hostile input, and any history against the reference."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import definition_text
from ringmain.flows.later import made as whole
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.step import READINGS, Context, PlanError, Shape, StepState
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.alert import AlertSettings
from ringmain.log.interface import Frame, StreamKind
from ringmain.model.alarm import Alarm
from ringmain.model.schemas import TIMESTAMP
from tests.flows.recording import Recording, Row, batch
from tests.flows.reference import alert as reference
from tests.flows.steps.driving import (
    SECOND,
    START,
    Instant,
    plain,
    plan_of,
    record,
    restarted,
    run,
    run_reference,
    same,
)
from tests.flows.steps.ordered_inputs import ODD_TIMES, ODD_VALUES, agree, at, context, histories

Told = tuple[str, str, float]
"""What happened (opened, updated, closed), to what, at which second."""
FEEDERS = {
    number: {
        "key": f"ss-07/feeder-{number}",
        "place": "leipzig/ss-07",
        "device": f"rtu-{number}",
        "unit": "V",
    }
    for number in range(1, 10)
}


def step(**table: Any) -> AlertSettings:
    found = settings_of({"type": "alert", "group": "none", "flap": 0, **table})
    assert isinstance(found, AlertSettings)
    assert found.check() == ([], [])
    return found


def events(
    alert: AlertSettings,
    instants: Sequence[Instant],
    *,
    known: Any = None,
    tail_s: int = 3,
    ticks: bool = True,
) -> list[dict[str, Any]]:
    log = record(instants, known=known, tail_s=tail_s, ticks=ticks)
    return run(plan_of(alert, to="alarms"), log).get("alarms", [])


def knowing() -> Context:
    """What a step is given that is made by hand."""
    return replace(context(), attributes=Attributes(("key", "place", "device", "unit")))


def told(rows: Sequence[dict[str, Any]]) -> list[Told]:
    return [(row["type"].rpartition(".")[2], row["subject"], (row["time"] - START) / SECOND) for row in rows]


def data(row: dict[str, Any]) -> Alarm:
    return msgspec.json.decode(row["data"], type=Alarm)


def each_second(*values: float, series: int = 1) -> list[Instant]:
    return [(at(second), [(series, at(second), value, 0)]) for second, value in enumerate(values)]


def rows_at(second: float, rows: Sequence[tuple[int, float]]) -> Instant:
    return at(second), [(series, at(second), value, 0) for series, value in rows]


# Conditions


def test_a_value_above_the_limit_opens_an_alarm_that_closes_when_it_is_back() -> None:
    found = events(step(above=90), each_second(80, 90, 91, 95, 90, 80), known=FEEDERS)
    assert told(found) == [("opened", "ss-07/feeder-1", 2), ("closed", "ss-07/feeder-1", 4)]
    assert found[0]["source"] == "flow/test"
    assert [row["id"] for row in found] == [f"{data(found[0]).alert}-0", f"{data(found[0]).alert}-1"]
    assert data(found[1]) == Alarm(
        alert=data(found[0]).alert,
        flow="test",
        priority=3,
        text="above 90",
        condition="above 90",
        since="2025-06-15T15:06:42Z",
        opened="2025-06-15T15:06:42Z",
        closed="2025-06-15T15:06:44Z",
        value=90.0,
        limit=90.0,
        worst=95.0,
        unit="V",
        place="leipzig/ss-07",
        device="rtu-1",
    )


def test_with_hysteresis_it_stays_open_until_it_is_back_far_enough() -> None:
    values = (80, 91, 89, 86, 91, 85, 91)
    assert told(events(step(above=90, clear_below=85), each_second(*values))) == [
        ("opened", "series/1", 1),
        ("closed", "series/1", 5),
        ("opened", "series/1", 6),
    ]
    assert told(events(step(below=10, clear_above=12), each_second(10, 9, 11, 12))) == [
        ("opened", "series/1", 1),
        ("closed", "series/1", 3),
    ]


def test_a_band_is_left_on_either_side() -> None:
    found = events(
        step(above=253, below=207, clear_below=250, clear_above=210), each_second(230, 206, 209, 230, 254)
    )
    assert told(found) == [("opened", "series/1", 1), ("closed", "series/1", 3), ("opened", "series/1", 4)]
    assert data(found[0]).limit is None


def test_it_opens_when_it_was_true_for_long_enough_by_the_readings_own_times() -> None:
    alert = step(above=90, **{"for": "3s"})
    found = events(alert, each_second(91, 92, 80, 91, 95, 91, 93, 91))
    assert told(found) == [("opened", "series/1", 6)]
    assert data(found[0]).since == "2025-06-15T15:06:43Z"
    assert data(found[0]).worst == 95.0
    # readings that come late, all at once, give the same alarm at the same time
    late: list[Instant] = [
        (at(100), [row for _, rows in each_second(91, 92, 80, 91, 95, 91, 93, 91) for row in rows])
    ]
    assert events(alert, late) == found


def test_it_opens_though_the_meter_sends_no_more() -> None:
    found = events(step(above=90, **{"for": "3s"}), each_second(80, 91), tail_s=6)
    assert told(found) == [("opened", "series/1", 4)]


def test_a_value_holds_until_the_next_reading_however_far_that_is() -> None:
    instants: list[Instant] = [(at(60), [(1, at(0), 91.0, 0), (1, at(50), 80.0, 0)])]
    assert told(events(step(above=90, **{"for": "3s"}), instants)) == [
        ("opened", "series/1", 3),
        ("closed", "series/1", 50),
    ]
    instants = [(at(60), [(1, at(0), 91.0, 0), (1, at(3), 80.0, 0)])]
    assert events(step(above=90, **{"for": "3s"}), instants) == []


def test_it_closes_when_it_was_false_for_long_enough() -> None:
    found = events(step(above=90, clear_for="3s"), each_second(91, 80, 91, 80, 80, 80, 80))
    assert told(found) == [("opened", "series/1", 0), ("closed", "series/1", 6)]


def test_the_rate_of_change_is_that_between_two_readings_with_a_value() -> None:
    instants: list[Instant] = [
        (at(second), [(1, at(second), value, quality)])
        for second, value, quality in [
            (0, 0.0, 0),
            (10, 9.0, 0),
            (20, 20.0, 0),
            (25, 99.0, 2),
            (30, 20.0, 0),
            (40, 5.0, 0),
        ]
    ]
    found = events(step(rate_above=60, rate_below=-60, per="1m"), instants, known=FEEDERS)
    assert told(found) == [
        ("opened", "ss-07/feeder-1", 20),
        ("closed", "ss-07/feeder-1", 30),
        ("opened", "ss-07/feeder-1", 40),
    ]
    assert [data(row).value for row in found] == [66.0, 0.0, -90.0]
    assert data(found[0]).unit == "V/1m"


def test_bad_quality_is_counted_over_the_last_readings() -> None:
    qualities = (0, 2, 0, 1, 3, 0, 0, 0, 0)
    instants: list[Instant] = [
        (at(second), [(1, at(second), float(second), quality)]) for second, quality in enumerate(qualities)
    ]
    found = events(step(bad=3, of=5, clear_bad=1), instants)
    assert told(found) == [("opened", "series/1", 4), ("closed", "series/1", 8)]
    assert (data(found[0]).value, data(found[0]).limit, data(found[0]).unit) == (3.0, 3.0, "readings")


def test_a_reading_without_a_value_leaves_a_threshold_as_it_is() -> None:
    nan = float("nan")
    assert told(events(step(above=90), each_second(91, nan, nan, 80))) == [
        ("opened", "series/1", 0),
        ("closed", "series/1", 3),
    ]
    assert events(step(above=90), [(at(0), [(1, at(0), 99.0, 2), (2, at(0), 99.0, 3)])]) == []


def test_conditions_are_put_together_by_all_and_any() -> None:
    both = step(all=[{"above": 90}, {"rate_above": 5, "per": "1s"}])
    assert told(events(both, each_second(80, 92, 93, 99, 80))) == [
        ("opened", "series/1", 1),
        ("closed", "series/1", 2),
        ("opened", "series/1", 3),
        ("closed", "series/1", 4),
    ]
    either = step(any=[{"below": 10}, {"all": [{"above": 90}, {"bad": 1, "of": 1}]}])
    instants = each_second(50, 5, 50, 95)
    instants.append((at(4), [(1, at(4), 95.0, 1)]))
    found = events(either, instants)
    assert told(found) == [("opened", "series/1", 1), ("closed", "series/1", 2), ("opened", "series/1", 4)]
    assert data(found[0]).condition == "below 10 or (above 90 and 1 of 1 readings not good)"


def test_only_the_readings_that_where_says_are_looked_at() -> None:
    known = {1: {"quantity": "temperature"}, 2: {"quantity": "power"}}
    alert = step(above=90, where="quantity = 'temperature'")
    found = events(alert, [rows_at(0, [(1, 99.0), (2, 99.0)])], known=known)
    assert told(found) == [("opened", "key/1", 0)]


# Silence and time


def test_a_series_that_falls_silent_is_an_alarm_until_it_is_heard_again() -> None:
    instants = [*each_second(1, 2, 3), rows_at(20, [(1, 4.0)])]
    assert told(events(step(silent="10s"), instants)) == [
        ("opened", "series/1", 12),
        ("closed", "series/1", 20),
    ]


def test_whatever_arrives_is_no_silence() -> None:
    odd: list[Row] = [
        (1, at(0), 1.0, 2),
        (1, at(0), 1.0, 2),
        (1, at(-100), 1.0, 0),
        (1, EARLIEST_NS - 1, 1.0, 0),
    ]
    instants: list[Instant] = [(at(8 * number), [row]) for number, row in enumerate(odd)]
    assert events(step(silent="10s"), instants) == []


def test_a_device_is_silent_when_none_of_its_series_sends() -> None:
    known = {1: {"device": "rtu-1"}, 2: {"device": "rtu-1"}, 3: {"device": "rtu-2"}}
    instants = [rows_at(0, [(1, 1.0), (2, 1.0), (3, 1.0)]), rows_at(8, [(2, 1.0)]), rows_at(15, [(2, 1.0)])]
    found = events(step(silent="10s", subject="device"), instants, known=known)
    assert told(found) == [("opened", "rtu-2", 10)]


@pytest.mark.parametrize("years", [0.001, 1, 50])
def test_a_clock_that_is_set_and_a_node_that_was_down_raise_no_silence(years: float) -> None:
    away = int(years * 365 * 86_400)
    log = Recording()
    for second in range(0, 100, 5):
        log.readings([(series, at(second), 1.0, 0) for series in range(50)], at(second))
        log.tick(at(second) + 1)
    for second in range(away + 100, away + 200, 5):
        log.readings([(series, at(second), 1.0, 0) for series in range(50)], at(second))
        log.tick(at(second) + 1)
    assert run(plan_of(step(silent="20s"), to="alarms"), log).get("alarms", []) == []


def test_a_node_that_was_down_does_not_open_what_may_be_over_long_since() -> None:
    log = Recording()
    log.readings([(1, at(0), 99.0, 0)], at(0))
    log.tick(at(1))
    log.readings([(1, at(3599), 10.0, 0)], at(3600))
    log.tick(at(3601))
    found = run(plan_of(step(above=90, **{"for": "2h"}), to="alarms"), log)
    assert found.get("alarms", []) == []


# The life of an alarm


def test_it_is_updated_when_it_got_worse_and_not_too_often() -> None:
    found = events(step(above=90, update="3s"), each_second(91, 92, 95, 93, 94, 96, 97, 98, 99))
    assert told(found) == [
        ("opened", "series/1", 0),
        ("updated", "series/1", 3),
        ("updated", "series/1", 6),
    ]
    assert [data(row).worst for row in found] == [91.0, 95.0, 97.0]
    assert [data(row).value for row in found] == [91.0, 93.0, 97.0]


def test_a_higher_priority_is_told_at_once() -> None:
    alert = step(
        above=90, priority=3, escalate=[{"above": 100, "priority": 2}, {"above": 110, "priority": 1}]
    )
    found = events(alert, each_second(91, 99, 101, 100, 111, 95, 80, 91))
    assert [(*row[::2], data(event).priority) for row, event in zip(told(found), found, strict=True)] == [
        ("opened", 0, 3),
        ("updated", 2, 2),
        ("updated", 4, 1),
        ("closed", 6, 1),
        ("opened", 7, 3),
    ]


def test_one_that_flaps_stays_open_with_a_note_until_it_was_quiet() -> None:
    values = [91, 80] * 4 + [80] * 12
    found = events(step(above=90, flap=3, flap_within="10s"), each_second(*values))
    assert told(found) == [
        ("opened", "series/1", 0),
        ("closed", "series/1", 1),
        ("opened", "series/1", 2),
        ("updated", "series/1", 3),
        ("closed", "series/1", 17),
    ]
    assert [data(row).note for row in found] == [None, None, None, "flapping", None]


def test_ids_are_the_same_in_every_run_and_no_two_alarms_share_one() -> None:
    instants = [*each_second(91, 80, 91, 80, 91), rows_at(9, [(2, 99.0)])]
    alert = step(above=90)
    first, again = events(alert, instants), events(alert, instants)
    assert first == again
    assert len({row["id"] for row in first}) == len(first)
    assert len({data(row).alert for row in first}) == 4


def test_a_text_names_what_it_is_about() -> None:
    alert = step(
        above=90, text="{subject} at {place}: {value} {unit} of {limit} ({condition}, {device}, {flow})"
    )
    (found,) = events(alert, each_second(91.25), known=FEEDERS)
    assert data(found).text == "ss-07/feeder-1 at leipzig/ss-07: 91.25 V of 90 (above 90, rtu-1, test)"
    (unknown,) = events(alert, each_second(91.25))
    assert data(unknown).text.startswith("series/1 at —: 91.25 — of 90")


def test_its_text_is_no_part_of_what_it_computes() -> None:
    one, other = (definition_text(plan_of(step(above=90, text=text), to="alarms")) for text in ("a", "b"))
    assert one == other
    assert one != definition_text(plan_of(step(above=91, text="a"), to="alarms"))


# Groups


def dark(second: float, numbers: Sequence[int], value: float = 0.0) -> Instant:
    return rows_at(second, [(number, value) for number in numbers])


def test_a_substation_that_goes_dark_is_one_alarm_with_its_members() -> None:
    alert = step(below=100, group="place", group_above=2, group_within="10s", update="1s")
    instants = [
        dark(0, range(1, 9), 230.0),
        dark(1, [1, 2]),
        dark(2, [3]),
        dark(3, [4, 5, 6]),
        dark(7, [1, 2, 3, 4], 230.0),
        dark(8, [5, 6], 230.0),
    ]
    found = events(alert, instants, known=FEEDERS)
    group = "leipzig/ss-07"
    assert told(found) == [
        ("opened", "ss-07/feeder-1", 1),
        ("opened", "ss-07/feeder-2", 1),
        ("opened", group, 2),
        ("updated", "ss-07/feeder-1", 2),
        ("updated", "ss-07/feeder-2", 2),
        ("updated", group, 3),
        ("closed", "ss-07/feeder-1", 7),
        ("closed", "ss-07/feeder-2", 7),
        ("updated", group, 7),
        ("closed", group, 8),
    ]
    opened, grown, ended = (data(found[place]) for place in (2, 5, 9))
    assert (opened.count, opened.standing, opened.suppressed) == (3, 3, 1)
    assert (grown.count, grown.standing, grown.suppressed) == (6, 6, 4)
    assert (ended.count, ended.standing, ended.suppressed) == (6, 0, 4)
    assert [member.subject for member in grown.members] == [f"ss-07/feeder-{n}" for n in range(1, 7)]
    assert {data(found[place]).group for place in (3, 4, 6, 7)} == {opened.alert}
    assert data(found[0]).group is None


def test_alarms_that_open_in_one_instant_are_told_by_their_group_alone() -> None:
    known = {n: {"key": f"m{n}", "place": f"town/ss-{n % 2}/f-{n}"} for n in range(1000)}
    alert = step(below=100, group="place", group_above=5, group_level=2)
    plan = plan_of(alert, to="alarms")
    log = record([rows_at(0, [(n, 0.0) for n in range(1000)])], known=known, tail_s=1)
    found = run(plan, log)["alarms"]
    assert told(found) == [("opened", "town/ss-0", 0), ("opened", "town/ss-1", 0)]
    assert [data(row).count for row in found] == [500, 500]
    assert [len(data(row).members) for row in found] == [50, 50]


def test_an_alarm_that_was_over_before_its_group_opened_is_told_though_both_came_at_once() -> None:
    """Protects against a group that took the event of an earlier alarm of the same series for that of its member."""
    alert = step(below=100, group="all", group_above=1, group_within="10s")
    late = [(2, at(0), 0.0, 0), (2, at(1), 230.0, 0), (1, at(20), 0.0, 0), (2, at(20), 0.0, 0)]
    assert told(events(alert, [(at(20), late)], known=FEEDERS)) == [
        ("opened", "ss-07/feeder-2", 0),
        ("closed", "ss-07/feeder-2", 1),
        ("opened", "all", 20),
    ]


def test_alarms_far_apart_in_time_are_no_flood_and_those_without_a_place_no_group() -> None:
    alert = step(below=100, group="place", group_above=2, group_within="5s")
    apart = [dark(10 * n, [n]) for n in range(1, 6)]
    assert [what for what, _, _ in told(events(alert, apart, known=FEEDERS))] == ["opened"] * 5
    assert [what for what, _, _ in told(events(alert, [dark(0, range(1, 6))]))] == ["opened"] * 5


def test_what_is_told_by_its_group_alone_is_counted() -> None:
    alert = step(below=100, group="all", group_above=2)
    about = knowing()
    made = alert.make(READINGS, about)
    made.advance(at(0))
    made.take(Block(batch([(n, at(0), 0.0, 0) for n in range(10)]), at(0)))
    made.advance(at(1))
    assert about.counts == {"suppressed": 10}


# Windows and groups


def test_a_column_of_windows_is_watched() -> None:
    schema = pa.schema(
        [
            ("series", pa.uint32()),
            ("start", TIMESTAMP),
            ("end", TIMESTAMP),
            ("mean", pa.float64()),
            ("revision", pa.uint32()),
        ]
    )
    shape = Shape(StreamKind.ROW, schema)
    alert = step(above=90, value="mean")
    made = alert.make(shape, knowing())
    made.advance(at(0))
    times = pa.array([at(0), at(60), at(120)], pa.int64()).view(TIMESTAMP)
    rows = [
        pa.array([1, 1, 1], pa.uint32()),
        times,
        times,
        pa.array([95.0, None, 80.0]),
        pa.array([0, 0, 0], pa.uint32()),
    ]
    made.take(Block(pa.RecordBatch.from_arrays(rows, schema=schema), at(1)))
    (found,) = made.advance(at(2))
    assert found.rows.column("type").to_pylist() == ["ringmain.alarm.opened", "ringmain.alarm.closed"]
    with pytest.raises(PlanError, match="expected the column to watch, one of mean, revision, found 'value'"):
        step(above=90).plan(shape, context().surroundings)


GROUPS = pa.schema(
    [
        ("area", pa.string()),
        ("unit", pa.dictionary(pa.int32(), pa.string())),
        ("time", TIMESTAMP),
        ("value", pa.float64()),
        ("quality", pa.uint16()),
        ("series", pa.int64()),
    ]
)


def loads(second: float, areas: Sequence[tuple[str | None, float | None]]) -> Block:
    names, values = zip(*areas, strict=True)
    count = len(areas)
    columns = [
        pa.array(names, pa.string()),
        pa.array(["kW"] * count).dictionary_encode(),
        pa.array([at(second)] * count, pa.int64()).view(TIMESTAMP),
        pa.array(values, pa.float64()),
        pa.array([12] * count, pa.uint16()),
        pa.array([3] * count, pa.int64()),
    ]
    return Block(pa.RecordBatch.from_arrays(columns, schema=GROUPS), at(second))


def test_a_group_is_named_by_its_columns_and_goes_on_after_a_restart() -> None:
    shape = Shape(StreamKind.ROW, GROUPS)
    alert = step(above=400, **{"for": "2s"})
    assert alert.plan(shape, context().surroundings).attributes == frozenset()
    made = alert.make(shape, context())
    made.advance(at(0))
    made.take(loads(0, [("west", 430.0), ("east", 300.0), (None, 500.0)]))
    assert made.advance(at(1)) == []
    made.take(loads(1, [("east", 410.0), ("west", None)]))
    state: StepState = {name: whole(part) for name, part in made.state().items()}
    again = alert.make(shape, context())
    again.restore(state)
    blocks = [block for second in (2, 3, 4, 5) for block in again.advance(at(second))]
    rows = [row for block in blocks for row in block.rows.drop_columns(["time"]).to_pylist()]
    assert [(row["subject"], data(row).unit, data(row).place) for row in rows] == [
        ("west", "kW", "west"),
        ("-", "kW", None),
        ("east", "kW", "east"),
    ]
    assert step(above=1).plan(shape, context().surroundings).shape.kind is StreamKind.EVENT
    with pytest.raises(PlanError, match="rows of groups have none"):
        step(silent="1m", subject="device").plan(shape, context().surroundings)


# Hostile input


def test_odd_values_and_times_do_no_harm() -> None:
    alert = step(
        any=[{"above": 90}, {"below": -90}, {"rate_above": 1}, {"bad": 2, "of": 3}, {"silent": "5s"}]
    )
    rows: list[Row] = [(1, at(number / 100), value, 0) for number, value in enumerate(ODD_VALUES)]
    rows += [(2, time, 1.0, 0) for time in ODD_TIMES] + [(3, at(4000), 1.0, 0), (SERIES_MAX, at(0), 1.0, 0)]
    rows += [(2**32 - 1, at(0), 99.0, 0)]
    found = events(alert, [(at(0), rows), (at(1), [])], tail_s=8)
    assert {row["subject"] for row in found} <= {"series/1", "series/2", "series/3"}
    for row in found:
        data(row)  # is JSON, though JSON has no infinity


def test_one_series_many_times_and_many_series_once() -> None:
    for series, time in (
        (np.arange(10_000), np.full(10_000, at(0))),
        (np.zeros(10_000, np.int64), at(-10_000) + np.arange(10_000) * SECOND),
    ):
        made = step(above=90, update="0s").make(READINGS, knowing())
        made.advance(at(0))
        value = np.where(np.arange(10_000) % 100 < 50, 95.0, 10.0)
        made.take(
            readings_block(
                series.astype(np.uint32), time.astype(np.int64), value, np.zeros(10_000, np.uint16), at(0)
            )
        )
        (block,) = made.advance(at(1))
        assert len(block) == (5000 if series[-1] else 200)


def test_a_late_reading_changes_nothing() -> None:
    instants: list[Instant] = [
        *each_second(80, 80, 80),
        (at(3), [(1, at(1), 99.0, 0)]),
        rows_at(4, [(1, 80.0)]),
    ]
    assert events(step(above=90), instants) == []


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({}, "above"),
        ({"above": 1, "silent": "1m"}, "silent"),
        ({"above": float("nan")}, "above"),
        ({"clear_below": 1}, "above"),
        ({"above": 1, "clear_below": 2}, "clear_below"),
        ({"above": 1, "clear_above": 0}, "clear_above"),
        ({"above": 1, "below": 2}, "below"),
        ({"rate_above": -1}, "rate_above"),
        ({"rate_below": 1}, "rate_below"),
        ({"rate_above": 1, "per": "0s"}, "per"),
        ({"silent": "1s"}, "silent"),
        ({"silent": "soon"}, "silent"),
        ({"bad": 30, "of": 20}, "bad"),
        ({"bad": 3, "clear_bad": 3}, "clear_bad"),
        ({"all": [{"above": 1}, {"silent": "1s"}]}, "all.1.silent"),
        ({"any": [{"any": [{"any": [{"any": [{"above": 1}]}]}]}]}, "any.0.any.0.any.0.any"),
        ({"any": [{"above": 1}] * 17}, "any"),
        ({"above": 1, "for": "1"}, "for"),
        ({"above": 1, "update": "400d"}, "update"),
        ({"above": 1, "text": "{who} is it"}, "text"),
        ({"above": 1, "where": "value >"}, "where"),
        ({"above": 1, "priority": 2, "escalate": [{"above": 2, "priority": 2}]}, "escalate.0.priority"),
        ({"above": 1, "escalate": [{"priority": 1}]}, "escalate.0"),
        ({"silent": "1m", "escalate": [{"above": 2, "priority": 1}]}, "escalate"),
        ({"above": 1, "subject": "device"}, "subject"),
        ({"silent": "1m", "grace": "1s"}, "grace"),
    ],
)
def test_a_mistake_in_the_settings_is_named(table: dict[str, Any], key: str) -> None:
    found = settings_of({"type": "alert", **table})
    assert key in [name for name, _ in found.check()[0]]


def test_rows_without_a_time_are_refused_in_the_plan() -> None:
    with pytest.raises(PlanError, match="works on readings"):
        step(above=1).plan(Shape(StreamKind.ROW, pa.schema([("x", pa.int64())])), context().surroundings)


@examples(max_examples=30, derandomize=True, deadline=None)
@given(
    alert=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 100.0, 110.0, 121.0])),
    chance=st.randoms(use_true_random=False),
)
def test_it_is_as_the_reference_however_cut_and_restarted(
    alert: AlertSettings, instants: list[Instant], chance: random.Random
) -> None:
    assert alert.check() == ([], [])
    agree(
        alert,
        reference.Reference(alert, reference.KNOWN),
        instants,
        chance,
        known=reference.KNOWN,
        tail_s=20,
    )


class TakenOver:
    """A reference that is told, before log time passes an instant for the first time, that its definition changed."""

    def __init__(self, about: reference.Reference, at_ns: Sequence[int]) -> None:
        self._about = about
        self._left = list(at_ns)

    def take(self, row: Row, now_ns: int) -> list[Row]:
        return self._about.take(row, now_ns)

    def advance(self, now_ns: int) -> list[Row]:
        told: list[Row] = []
        while self._left and now_ns > self._left[0]:
            del self._left[0]
            told += self._about.take_over(self._about.era + 1)
        return told + self._about.advance(now_ns)


def taken_over(
    alert: AlertSettings, log: Recording, at_ns: Sequence[int], chance: random.Random
) -> list[Row]:
    """What the chain gives of recorded frames when it is told so at these instants; made anew now and then."""
    chain, left, found = Chain(plan_of(alert), log), list(at_ns), []
    for frame in log.frames:
        blocks = []
        while left and frame.origin_arrival_ns > left[0]:
            del left[0]
            blocks += chain.take_over((chain.era or 0) + 1)
        blocks += chain.step(frame)
        found += [row for block in blocks if block.stream == "out" for row in plain(block.rows)]
        if chance.random() < 0.3:
            chain = restarted(chain, log)
    return found


def check_taken_over(
    alert: AlertSettings, instants: list[Instant], after: list[int], chance: random.Random
) -> None:
    begin = min(arrival for arrival, _ in instants)
    at_ns = sorted(begin + second * SECOND for second in after)
    about = TakenOver(reference.Reference(alert, reference.KNOWN), at_ns)
    expected = run_reference([about], instants, tail_s=20).get("out", [])
    log = record(instants, known=reference.KNOWN, cut=chance, tail_s=20)
    found = taken_over(alert, log, at_ns, chance)
    assert same(found, expected), f"\nfound    {found}\nexpected {expected}"
    assert len({row["id"] for row in found}) == len(found)


CHANGES = given(
    alert=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 100.0, 110.0, 121.0])),
    after=st.lists(st.integers(0, 40), min_size=1, max_size=2),
    chance=st.randoms(use_true_random=False),
)


@examples(max_examples=30, derandomize=True, deadline=None)
@CHANGES
def test_what_it_tells_when_its_definition_changes_on_the_way_is_as_the_reference_tells_it(
    alert: AlertSettings, instants: list[Instant], after: list[int], chance: random.Random
) -> None:
    check_taken_over(alert, instants, after, chance)


@pytest.mark.soak
@pytest.mark.timeout(0)
@examples(max_examples=2000, derandomize=True, deadline=None)
@CHANGES
def test_many_changes_on_the_way_are_told_as_the_reference_tells_them(
    alert: AlertSettings, instants: list[Instant], after: list[int], chance: random.Random
) -> None:
    check_taken_over(alert, instants, after, chance)


def test_the_worst_value_is_told_again_after_one_that_fell_without_bound() -> None:
    alert = step(any=[{"rate_above": 60, "per": "1m"}, {"above": 50}], clear_for="3s", update="0s")
    history = [rows_at(0, [(1, math.inf)]), rows_at(7, [(1, 0.0)]), rows_at(9, [(1, 0.0)])]
    agree(alert, reference.Reference(alert, {}), history, random.Random(1), tail_s=40)
    assert told(events(alert, history, tail_s=40)) == [
        ("opened", "series/1", 0),
        ("updated", "series/1", 7),
        ("updated", "series/1", 9),
        ("closed", "series/1", 10),
    ]


@pytest.mark.soak
@pytest.mark.timeout(0)
@examples(max_examples=3000, derandomize=True, deadline=None)
@given(
    alert=reference.settings(),
    instants=histories(st.sampled_from([0.0, 0.4, 1.0, -1.0, 2.0, 100.0, 110.0, 121.0])),
    chance=st.randoms(use_true_random=False),
)
def test_many_histories_are_as_the_reference(
    alert: AlertSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(
        alert,
        reference.Reference(alert, reference.KNOWN),
        instants,
        chance,
        known=reference.KNOWN,
        tail_s=40,
    )


# Series that never sent


def known_for(*names: str, **more: str) -> dict[int, dict[str, str | None]]:
    return {number: {"key": name, "place": f"town/{name}", **more} for number, name in enumerate(names, 1)}


def test_a_series_that_is_known_and_never_sends_is_silent_from_its_entry_on_until_it_sends() -> None:
    instants = [rows_at(0, [(1, 1.0)]), rows_at(9, [(1, 1.0)]), rows_at(20, [(1, 1.0), (2, 5.0)])]
    assert told(events(step(silent="15s"), instants, known=known_for("sends", "never", "not-either"))) == [
        ("opened", "never", 15),
        ("opened", "not-either", 15),
        ("closed", "never", 20),
    ]
    assert told(events(step(silent="15s", never_sent=False), instants, known=known_for("a", "b"))) == []


def test_the_silence_of_a_series_that_becomes_known_later_begins_then() -> None:
    log = record([rows_at(second, [(1, 1.0)]) for second in range(0, 40, 5)], known=known_for("sends"))
    half = next(place for place, frame in enumerate(log.frames) if frame.origin_arrival_ns >= at(20))
    later = record([rows_at(20, [])], known={2: {"key": "later"}}).frames[0]
    frames = [*log.frames[:half], replace_frame(later, log.frames[half - 1]), *log.frames[half:]]
    found = run(plan_of(step(silent="10s"), to="alarms"), log, frames=frames)["alarms"]
    assert [(row["subject"], (row["time"] - START) / SECOND) for row in found] == [("later", 29)]


def replace_frame(frame: Frame, before: Frame) -> Frame:
    position = msgspec.structs.replace(before.position, partition=before.position.partition + 1)
    return msgspec.structs.replace(frame, position=position)


def test_only_series_that_where_can_tell_by_the_catalogue_are_expected_to_send() -> None:
    known = {1: {"key": "heat", "medium": "heat"}, 2: {"key": "gas", "medium": "gas"}}
    instants = [rows_at(0, [])]
    by_catalogue = step(silent="10s", where="medium = 'heat'")
    assert [row[1] for row in told(events(by_catalogue, instants, known=known, tail_s=20))] == ["heat"]
    by_reading = step(silent="10s", where="medium = 'heat' and value > 0")
    assert events(by_reading, instants, known=known, tail_s=20) == []


def test_behind_another_step_series_are_known_from_their_first_reading_on() -> None:
    keep = settings_of({"type": "filter", "where": "value > 0"})
    log = record([rows_at(0, [(1, 1.0)])], known=known_for("sends", "never"), tail_s=20)
    found = run(plan_of(keep, step(silent="10s"), to="alarms"), log)["alarms"]
    assert [row[1] for row in told(found)] == ["sends"]


def test_a_device_of_which_no_series_ever_sent_is_silent_once() -> None:
    known = {1: {"device": "rtu-1"}, 2: {"device": "rtu-1"}, 3: {"device": "rtu-2"}, 4: {"device": "rtu-2"}}
    instants = [rows_at(0, [(2, 1.0)]), rows_at(8, [(2, 1.0)]), rows_at(16, [(2, 1.0)])]
    found = events(step(silent="10s", subject="device"), instants, known=known)
    assert told(found) == [("opened", "rtu-2", 10)]


def test_a_place_where_nothing_was_ever_heard_of_is_one_alarm() -> None:
    known = {n: {"key": f"m{n}", "place": "town/ss-1"} for n in range(200)}
    found = events(step(silent="10s", group="place", group_above=5), [rows_at(0, [])], known=known, tail_s=15)
    assert [(row["subject"], data(row).count) for row in found] == [("town/ss-1", 200)]


def test_whether_series_must_send_is_part_of_the_definition_of_alerts_of_silence_alone() -> None:
    def defined(**table: Any) -> bytes:
        return definition_text(plan_of(step(**table), to="alarms"))

    assert defined(silent="1m") != defined(silent="1m", never_sent=False)
    assert defined(above=1) == defined(above=1, never_sent=False)
    assert b"never_sent" not in defined(above=1)
