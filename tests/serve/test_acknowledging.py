"""Acknowledging alarms: durable, ordered, once; over HTTP and at the command line; in the states of IEC 62682."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ringmain.cli.main import cli
from ringmain.log import open_log
from ringmain.log.interface import Batch, StreamKind
from ringmain.model.alarm import ACKNOWLEDGED, AlarmMember, AlarmType, acknowledgement_of, alarm_of
from ringmain.model.schemas import EVENT
from ringmain.serve.acknowledging import acknowledge
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.alarmshapes import AlarmInfo
from ringmain.serve.settings import ServeSettings
from ringmain.sinks.email_text import lines_of
from tests.conftest import wait_until
from tests.runtime.sink_rig import SECOND, Room
from tests.serve.rig import Rig, ServerRig
from tests.serve.test_live import page
from tests.sinks.alarm_events import START, put, row, rows_of

NOW = START + 100 * SECOND
PATH = "/api/v1/alarms/acknowledge"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    found = Room(tmp_path / "log")
    yield found
    found.close()


def board_of(room: Room) -> AlarmBoard:
    found = AlarmBoard(room.log, room.log.on_durable, lambda: ["hot"], lambda: NOW)
    found.start()
    assert found.wait_caught_up(10)
    return found


@pytest.fixture
def board(room: Room) -> Iterator[AlarmBoard]:
    found = board_of(room)
    yield found
    found.stop()


def wait_for(board: AlarmBoard, changes: int) -> None:
    wait_until(lambda: board.revision >= changes, what=f"{changes} changes")


def states(board: AlarmBoard) -> dict[str, str]:
    return {alarm.alert: alarm.annunciation.value for alarm in board.alarms().alarms}


def only(board: AlarmBoard) -> AlarmInfo:
    (found,) = board.alarms().alarms
    return found


def acknowledgements(room: Room, stream: str = "alarms") -> list[dict[str, Any]]:
    rows = [one for frame in room.log.read(stream) for one in frame.rows.to_pylist()]
    return [one for one in rows if one["type"] == ACKNOWLEDGED]


def test_an_alarm_passes_through_the_four_states_in_either_order(room: Room, board: AlarmBoard) -> None:
    put(room, row(1), row(2))
    wait_for(board, 2)
    assert states(board) == {"a1": "unacknowledged", "a2": "unacknowledged"}
    acknowledge(room.log, board, ["a1"], "ada", None, lambda: NOW)
    wait_for(board, 3)
    assert states(board) == {"a1": "acknowledged", "a2": "unacknowledged"}
    assert (board.alarms().open, board.alarms().unacknowledged) == ([0, 2, 0], [0, 1, 0])
    put(room, row(1, AlarmType.CLOSED), row(2, AlarmType.CLOSED))
    wait_for(board, 5)
    assert states(board) == {"a1": "normal", "a2": "returned"}
    acknowledge(room.log, board, ["a2"], "ada", None, lambda: NOW)
    wait_for(board, 6)
    assert states(board) == {"a1": "normal", "a2": "normal"}


def test_who_when_and_what_they_added_stay_with_the_alarm_through_updates_and_a_restart(
    room: Room, board: AlarmBoard
) -> None:
    put(room, row(1))
    wait_for(board, 1)
    answer = acknowledge(room.log, board, ["a1"], " Ada Lovelace ", "crew is on its way", lambda: NOW)
    assert (answer.acknowledged, answer.already, answer.unknown) == (["a1"], [], [])
    put(room, row(1, AlarmType.UPDATED, worst=99.0))
    wait_for(board, 3)
    board.stop()
    room.reopen()
    again = board_of(room)
    try:
        found = only(again)
        assert found.worst == 99.0
        assert found.acknowledged is not None
        assert (found.acknowledged.by, found.acknowledged.note) == ("Ada Lovelace", "crew is on its way")
        assert found.acknowledged.at_ms == NOW // 1_000_000
    finally:
        again.stop()


def test_it_is_one_event_on_the_stream_of_the_alarm_that_no_reader_of_alarms_takes_for_one(
    room: Room, board: AlarmBoard
) -> None:
    room.log.create_stream("alarms.b", StreamKind.EVENT, EVENT)
    room.append(Batch("alarms.b", rows_of(row(7))))
    wait_for(board, 1)
    acknowledge(room.log, board, ["a7"], "ada", None, lambda: NOW)
    (found,) = acknowledgements(room, "alarms.b")
    assert (found["id"], found["source"]) == ("a7-acknowledged", "acknowledgement")
    assert (found["subject"], alarm_of(found["data"])) == ("ss-07/t7/oil", None)
    told = acknowledgement_of(found["data"])
    assert told is not None
    assert (told.alert, told.flow, told.by, told.at) == ("a7", "hot", "ada", "2025-06-15T15:08:20Z")


def test_a_mail_does_not_tell_of_it(room: Room, board: AlarmBoard) -> None:
    put(room, row(1))
    wait_for(board, 1)
    acknowledge(room.log, board, ["a1"], "ada", None)
    lines = [line.happened for frame in room.log.read("alarms") for line in lines_of(frame.rows)]
    assert lines == ["opened"]


def test_an_alarm_is_acknowledged_once_however_many_do_it_at_the_same_moment(
    room: Room, board: AlarmBoard
) -> None:
    put(room, row(1))
    wait_for(board, 1)
    names = [f"operator-{number}" for number in range(8)]
    together = threading.Barrier(len(names))
    failed: list[BaseException] = []

    def one(name: str) -> None:
        together.wait()
        try:
            acknowledge(room.log, board, ["a1"], name, None, lambda: NOW)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    written = acknowledgements(room)
    assert {found["id"] for found in written} == {"a1-acknowledged"}
    wait_until(lambda: only(board).acknowledged is not None, what="seen")
    first = acknowledgement_of(written[0]["data"])
    assert first is not None
    assert only(board).acknowledged.by == first.by  # type: ignore[union-attr]
    before = len(written)
    assert acknowledge(room.log, board, ["a1"], "late", None).already == ["a1"]
    assert len(acknowledgements(room)) == before


def test_one_that_opens_again_is_another_alarm_that_nobody_has_acknowledged(
    room: Room, board: AlarmBoard
) -> None:
    put(room, row(1))
    wait_for(board, 1)
    acknowledge(room.log, board, ["a1"], "ada", None)
    put(room, row(1, AlarmType.CLOSED), row(2, subject="ss-07/t1/oil"))
    wait_for(board, 4)
    assert states(board) == {"a2": "unacknowledged", "a1": "normal"}


def test_a_group_is_acknowledged_with_those_that_are_linked_to_it(room: Room, board: AlarmBoard) -> None:
    members = (AlarmMember("ss-07/t1/oil", "a1"),)
    put(room, row(1), row(2), row(9, members=members, count=2, standing=2, suppressed=1))
    put(room, row(1, AlarmType.UPDATED, group="a9"))
    wait_for(board, 4)
    assert acknowledge(room.log, board, ["a9"], "ada", None).acknowledged == ["a9", "a1"]
    wait_for(board, 6)
    assert states(board) == {"a1": "acknowledged", "a2": "unacknowledged", "a9": "acknowledged"}
    assert board.alarms().unacknowledged == [0, 1, 0]


@pytest.mark.parametrize(
    ("by", "note"),
    [("", None), ("  ", None), ("a\nb", None), ("x" * 101, None), ("ada", "x" * 501), ("ada", "\x1b[2J")],
)
def test_what_cannot_be_shown_as_it_is_is_refused(
    room: Room, board: AlarmBoard, by: str, note: str | None
) -> None:
    put(room, row(1))
    wait_for(board, 1)
    with pytest.raises(ValueError, match="printable characters"):
        acknowledge(room.log, board, ["a1"], by, note)
    assert acknowledgements(room) == []


def test_events_that_claim_to_be_acknowledgements_and_are_none_change_nothing(
    room: Room, board: AlarmBoard
) -> None:
    odd = [
        {**row(1), "id": f"x-{n}", "type": ACKNOWLEDGED, "data": data}
        for n, data in enumerate([b"", b"{}", None, b"\xff", b'{"alert": 3}'])
    ]
    put(room, *odd, row(2))
    wait_for(board, 1)
    assert (states(board), board.revision) == ({"a2": "unacknowledged"}, 1)


# Over HTTP


def post(server: ServerRig, body: object, **headers: str) -> tuple[int, Any]:
    status, answer, _ = server.request(PATH, json.dumps(body).encode(), headers)
    return status, answer


def test_it_is_done_over_http_and_pushed_to_every_page(rig: Rig, serve: Callable[..., ServerRig]) -> None:
    server = serve()
    rig.log.create_stream("alarms", StreamKind.EVENT, EVENT)
    with page(server) as opened:
        rig.append([Batch("alarms", rows_of(row(1)))])
        opened.until(lambda batch: (batch.get("alarms") or {}).get("alarms"))
        status, answer = post(server, {"alerts": ["a1", "zz"], "by": "ada", "note": "on it"})
        assert (status, answer) == (200, {"acknowledged": ["a1"], "already": [], "unknown": ["zz"]})
        pushed = opened.until(
            lambda batch: next(
                (one for one in (batch.get("alarms") or {}).get("alarms", []) if one["acknowledged"]), None
            )
        )
    assert (pushed["annunciation"], pushed["acknowledged"]["by"]) == ("acknowledged", "ada")
    assert server.get("/api/v1/alarms")[1]["unacknowledged"] == [0, 0, 0]
    assert post(server, {"alerts": ["a1"], "by": "bob"})[1]["already"] == ["a1"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"alerts": []},
        {"alerts": [], "by": "ada"},
        {"alerts": ["a1"], "by": ""},
        {"alerts": ["a"] * 201, "by": "ada"},
        {"alerts": ["a1"], "by": "ada", "sudo": True},
        {"alerts": [1], "by": "ada"},
    ],
)
def test_what_is_no_acknowledgement_is_refused(serve: Callable[..., ServerRig], body: object) -> None:
    assert post(serve(), body)[0] == 400


def test_it_needs_the_token_where_there_is_one_and_no_page_of_another_site_can_do_it(
    rig: Rig, serve: Callable[..., ServerRig]
) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", token="a-token-of-the-node"))
    rig.log.create_stream("alarms", StreamKind.EVENT, EVENT)
    rig.append([Batch("alarms", rows_of(row(1)))])
    body = {"alerts": ["a1"], "by": "mallory"}
    assert post(server, body)[0] == 401
    assert post(server, body, Authorization="Bearer wrong")[0] == 401
    right = {"Authorization": "Bearer a-token-of-the-node"}
    assert post(server, body, Origin="https://evil.example", **right)[0] == 403
    assert [one for frame in rig.log.read("alarms") for one in frame.rows.column("type").to_pylist()] == [
        "ringmain.alarm.opened"
    ]


# At the command line


def ringmain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_alarms_are_listed_and_acknowledged_at_the_command_line(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with open_log(directory) as log:
        log.create_stream("alarms", StreamKind.EVENT, EVENT)
        rows = rows_of(row(100001), row(100002, AlarmType.OPENED), row(100002, AlarmType.CLOSED))
        log.append([Batch("alarms", rows)], claim=log.claim("test"), sequence=1)
    by_id = ("alarm", "ack", "a100001", "--note", "on it", "--by", "ada", "--data", str(directory))
    acked = ringmain(*by_id)
    assert (acked.exit_code, acked.output) == (0, "a100001: acknowledged\n"), acked.output
    again = ringmain("alarm", "ack", "a100001", "a100002", "--data", str(directory))
    assert again.output == "a100002: acknowledged\na100001: was acknowledged before\n", again.output
    listed = ringmain("alarm", "list", "--data", str(directory), "--format", "json")
    (found,) = json.loads(listed.output)
    assert (found["state"], found["acknowledged_by"], found["note"]) == ("acknowledged", "ada", "on it")
    every = json.loads(
        ringmain("alarm", "list", "--all", "--data", str(directory), "--format", "json").output
    )
    assert [one["state"] for one in every] == ["acknowledged", "normal"]
    assert ringmain("alarm", "ack", "a10000", "--data", str(directory)).exit_code == 1
    unknown = ringmain("alarm", "ack", "b100009", "--data", str(directory))
    assert (unknown.exit_code, "is no alarm's" in unknown.output) == (1, True)
