"""`ringmain alarm`: what is open, and that somebody takes care of it; while a node runs on the log or not."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pyarrow as pa

from ringmain.cli.flow import data_of_node, log_of
from ringmain.cli.log import reader_of
from ringmain.cli.main import Refusal
from ringmain.cli.output import format_option, print_rows
from ringmain.log.interface import LogError, LogReader
from ringmain.serve.acknowledging import acknowledge
from ringmain.serve.alarms import CLOSED_MAX, OPEN_MAX, AlarmBoard
from ringmain.serve.alarmshapes import AlarmInfo

READ_S = 600.0
ID_CHARACTERS_MIN = 6
_SCHEMA = pa.schema(
    [
        ("alert", pa.string()),
        ("state", pa.string()),
        ("priority", pa.int64()),
        ("subject", pa.string()),
        ("text", pa.string()),
        ("opened", pa.timestamp("ms", tz="UTC")),
        ("closed", pa.timestamp("ms", tz="UTC")),
        ("acknowledged_by", pa.string()),
        ("acknowledged", pa.timestamp("ms", tz="UTC")),
        ("note", pa.string()),
    ]
)


@click.group()
def alarm() -> None:
    """What is open, and that somebody takes care of it."""


@alarm.command(
    "list", epilog="\b\nExamples:\n  ringmain alarm list\n  ringmain alarm list --all --format json"
)
@click.option("--all", "every", is_flag=True, help="Those that closed last as well.")
@data_of_node
@format_option
def list_(every: bool, data: Path, output: str) -> None:
    """List alarms: open ones by priority, the newest first; `state` as in IEC 62682.

    unacknowledged, acknowledged: open. returned: closed before anybody acknowledged it. normal: closed and acknowledged.
    """
    reader = reader_of(data)
    try:
        with _board(reader) as board:
            found = board.alarms(open_max=OPEN_MAX, closed_max=CLOSED_MAX if every else 0).alarms
    except LogError as error:
        raise Refusal(f"{data}: {error}") from None
    finally:
        reader.close()
    print_rows(_SCHEMA, [pa.RecordBatch.from_pylist([_row(one) for one in found], schema=_SCHEMA)], output)


@alarm.command(epilog="\b\nExample:\n  ringmain alarm ack 3f9a21 --note 'crew is on its way'")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--note", help="What to add, for those who read it.")
@click.option("--by", default=getpass.getuser, show_default="the user that is signed in", help="Who says so.")
@data_of_node
def ack(ids: tuple[str, ...], note: str | None, by: str, data: Path) -> None:
    """Acknowledge alarms by id, or the first characters of one; a group's id stands for its members too.

    Durable when it returns. An alarm is acknowledged once; one that opens again is another alarm.
    """
    try:
        log = log_of(data)
        try:
            with _board(log) as board:
                alerts = [_whole(board, start) for start in ids]
                answer = acknowledge(log, board, alerts, by, note)
        finally:
            log.close()
    except ValueError as error:
        raise Refusal(str(error)) from None
    except LogError as error:
        raise Refusal(f"{data}: {error}") from None
    for alert in answer.acknowledged:
        click.echo(f"{alert}: acknowledged")
    for alert in answer.already:
        click.echo(f"{alert}: was acknowledged before")


@contextmanager
def _board(log: LogReader) -> Iterator[AlarmBoard]:
    """The alarms of a log as they stand now."""
    board = AlarmBoard(log, lambda _: lambda: None, list)
    board.start()
    try:
        if not board.wait_caught_up(READ_S):
            raise Refusal(f"the log's alarms could not be read within {READ_S:g} s")
        yield board
    finally:
        board.stop()


def _whole(board: AlarmBoard, start: str) -> str:
    """The id that begins so. Raises Refusal."""
    known = [one.alert for one in board.alarms(open_max=OPEN_MAX, closed_max=CLOSED_MAX).alarms]
    found = [alert for alert in known if alert.startswith(start)] if len(start) >= ID_CHARACTERS_MIN else []
    if start in known:
        return start
    if len(found) != 1:
        wrong = "is the beginning of several alarms' ids" if found else "is no alarm's"
        raise Refusal(
            f"{start!r} {wrong}: expected an id, or at least its first {ID_CHARACTERS_MIN} characters; "
            "`ringmain alarm list --all` shows them"
        )
    return found[0]


def _row(one: AlarmInfo) -> dict[str, object]:
    told = one.acknowledged
    return {
        "alert": one.alert,
        "state": one.annunciation.value,
        "priority": one.priority,
        "subject": one.subject,
        "text": one.text,
        "opened": one.opened_ms,
        "closed": one.closed_ms,
        "acknowledged_by": None if told is None else told.by,
        "acknowledged": None if told is None else told.at_ms,
        "note": one.note if told is None or told.note is None else told.note,
    }
