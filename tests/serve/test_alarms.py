"""Alarms as they stand: what is open, in which order, what closed last, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringmain.log.interface import Batch, StreamKind
from ringmain.model.alarm import AlarmMember, AlarmType
from ringmain.model.schemas import EVENT
from ringmain.serve import alarms
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.alarmshapes import AlarmInfo
from tests.conftest import wait_until
from tests.runtime.sink_rig import SECOND, Room
from tests.serve.rig import Rig, ServerRig
from tests.serve.test_live import page
from tests.sinks.alarm_events import START, put, row, rows_of


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    found = Room(tmp_path / "log")
    yield found
    found.close()


@pytest.fixture
def board(room: Room) -> Iterator[AlarmBoard]:
    found = AlarmBoard(room.log, room.log.on_durable, lambda: ["hot"], lambda: START + 300 * SECOND)
    found.start()
    yield found
    found.stop()


def listed(board: AlarmBoard, **limits: int) -> list[AlarmInfo]:
    return board.alarms(**limits).alarms


def wait_for(board: AlarmBoard, changes: int) -> None:
    wait_until(lambda: board.revision >= changes, what=f"{changes} changes, found {board.revision}")


def test_open_alarms_come_by_priority_and_then_the_newest_first(room: Room, board: AlarmBoard) -> None:
    put(room, row(1, priority=3), row(2, priority=3, opened="2025-06-15T15:06:50Z"), row(3, priority=1))
    wait_for(board, 3)
    found = board.alarms()
    assert [alarm.alert for alarm in found.alarms] == ["a3", "a2", "a1"]
    assert (found.open, found.more, found.opened_10min) == ([1, 0, 2], 0, 3)
    first = found.alarms[0]
    assert (first.subject, first.value, first.limit, first.unit) == ("ss-07/t3/oil", 91.5, 90.0, "°C")
    assert (first.opened_ms, first.updated_ms) == (START // 1_000_000, (START + 3 * SECOND) // 1_000_000)


def test_the_newest_event_tells_everything_and_a_closed_alarm_stays_closed(
    room: Room, board: AlarmBoard
) -> None:
    put(room, row(1), row(1, AlarmType.UPDATED, worst=99.0, note="flapping"))
    wait_for(board, 2)
    (found,) = listed(board)
    assert (found.worst, found.note, found.state) == (99.0, "flapping", "open")
    put(room, row(1, AlarmType.CLOSED, value=80.0))
    wait_for(board, 3)
    (found,) = listed(board)
    assert (found.state, found.value, found.closed_ms) == ("closed", 80.0, (START + SECOND) // 1_000_000)
    put(room, row(1, AlarmType.UPDATED), row(2))
    wait_for(board, 4)
    assert [(alarm.alert, alarm.state) for alarm in listed(board)] == [("a2", "open"), ("a1", "closed")]


def test_what_a_group_stands_for_is_listed_and_counted_once(room: Room, board: AlarmBoard) -> None:
    members = (AlarmMember("ss-07/t1/oil", "a1"), AlarmMember("x", "b"))
    put(
        room,
        row(1),
        row(9, members=members, count=2, standing=2, suppressed=1),
        row(1, AlarmType.UPDATED, group="a9"),
    )
    wait_for(board, 3)
    found = board.alarms()
    assert (found.open, found.opened_10min) == ([0, 1, 0], 1)
    assert {alarm.alert for alarm in found.alarms} == {"a1", "a9"}
    group = next(alarm for alarm in found.alarms if alarm.count)
    assert [member.subject for member in group.members] == ["ss-07/t1/oil", "x"]


def test_an_alarm_whose_flow_is_gone_says_so_stands_last_and_is_not_counted(
    room: Room, board: AlarmBoard
) -> None:
    put(room, row(1), row(2, flow="cold", priority=1))
    wait_for(board, 2)
    assert [(alarm.alert, alarm.watched) for alarm in listed(board)] == [("a1", True), ("a2", False)]
    assert board.alarms().open == [0, 1, 0]


def test_limits_are_kept_and_what_is_not_listed_is_counted(
    room: Room, board: AlarmBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "OPEN_MAX", 10)
    put(room, *(row(number, priority=1 + number % 3) for number in range(30)))
    wait_for(board, 30)
    found = board.alarms(open_max=4)
    assert found.open == [10, 10, 10]
    assert found.more == 26
    assert len(found.alarms) == 4
    put(room, *(row(number, AlarmType.CLOSED, priority=1 + number % 3) for number in range(30)))
    wait_for(board, 60)
    found = board.alarms(closed_max=7)
    assert (found.open, found.more, len(found.alarms)) == ([0, 0, 0], 0, 7)


def test_events_that_are_no_alarms_are_passed_over(room: Room, board: AlarmBoard) -> None:
    other = [
        {**row(1), "type": "charging.started"},
        {**row(2), "data": b"{}"},
        {**row(3), "data": None},
        {**row(4), "data": b"\xff\xfe"},
        row(5, priority=9),
        row(6, opened="yesterday"),
    ]
    put(room, *other)
    wait_for(board, 1)
    (found,) = listed(board)
    assert (found.alert, found.opened_ms) == ("a6", (START + 6 * SECOND) // 1_000_000)


def test_alarms_are_answered_for_over_http_and_pushed_when_one_changes(
    rig: Rig, serve: Callable[..., ServerRig]
) -> None:
    server = serve()
    assert server.get("/api/v1/alarms")[1] == {
        "revision": 0,
        "open": [0, 0, 0],
        "more": 0,
        "opened_10min": 0,
        "alarms": [],
        "unacknowledged": [0, 0, 0],
    }
    with page(server) as opened:
        rig.log.create_stream("alarms", StreamKind.EVENT, EVENT)
        rig.append([Batch("alarms", rows_of(row(1), row(2, priority=1), row(1, AlarmType.CLOSED)))])
        pushed = opened.until(lambda batch: (batch.get("alarms") or {}).get("alarms"))
    assert [(alarm["alert"], alarm["state"]) for alarm in pushed] == [("a2", "open"), ("a1", "closed")]
    for state, expected in (("open", ["a2"]), ("closed", ["a1"]), ("all", ["a2", "a1"])):
        status, found = server.get(f"/api/v1/alarms?state={state}")
        assert (status, [alarm["alert"] for alarm in found["alarms"]]) == (200, expected)
    assert server.get("/api/v1/alarms?state=all&limit=0")[1]["alarms"] == []
    assert server.get("/api/v1/alarms?state=ajar")[0] == 400


def test_a_board_that_starts_later_knows_what_happened_before(room: Room) -> None:
    put(room, row(1), row(2))
    put(room, row(1, AlarmType.CLOSED))
    told: list[int] = []
    board = AlarmBoard(room.log, room.log.on_durable, list)
    board.listen(lambda: told.append(board.revision))
    board.start()
    assert board.wait_caught_up(10)
    assert [(alarm.alert, alarm.state) for alarm in listed(board)] == [("a2", "open"), ("a1", "closed")]
    assert all(alarm.watched for alarm in listed(board))
    wait_until(lambda: told == [3], what="a call")
    board.stop()
