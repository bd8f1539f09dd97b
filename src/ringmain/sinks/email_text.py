"""What a mail about alarms says, and how it is put together so that nothing in an alarm can become a header.

Times are in the node's zone, with UTC's offset. Texts come from configuration and from devices' names: characters that are
not printable become spaces before anything is made of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from ringmain.model.alarm import Alarm, AlarmType, alarm_of

SUBJECT_CHARACTERS_MAX = 150
TEXT_CHARACTERS_MAX = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = {AlarmType.OPENED: "opened", AlarmType.UPDATED: "updated", AlarmType.CLOSED: "closed"}


@dataclass(frozen=True, slots=True)
class Line:
    """One event in a mail. `happened`: opened, updated or closed."""

    id: str
    happened: str
    priority: int
    subject: str
    time_ns: int
    alarm: Alarm

    @property
    def grouped(self) -> bool:
        """Whether a group alarm tells of it."""
        return self.alarm.group is not None


@dataclass(frozen=True, slots=True)
class Mail:
    """The events of an interval, in the order of the log."""

    node: str
    sink: str
    start_ns: int
    end_ns: int
    lines: list[Line] = field(default_factory=list)


def lines_of(rows: pa.RecordBatch) -> list[Line]:
    """The alarms among rows of an Event stream."""
    times = rows.column("time").cast(pa.int64()).to_pylist()
    others = rows.drop_columns(["time"]).to_pylist()
    found = (_line(row, time_ns) for row, time_ns in zip(others, times, strict=True))
    return [line for line in found if line is not None]


def _line(row: dict[str, Any], time_ns: int) -> Line | None:
    alarm = alarm_of(row["data"])
    try:
        happened = _WORDS[AlarmType(row["type"])]
    except ValueError:
        return None
    if alarm is None:
        return None
    return Line(row["id"], happened, alarm.priority, row["subject"] or "", time_ns, alarm)


def message_of(
    mail: Mail, sender: str, recipients: tuple[str, ...], subject: str, lines_max: int, timezone: str
) -> EmailMessage:
    """The mail. It follows from its arguments alone."""
    zone = ZoneInfo(timezone)
    lines = sorted(mail.lines, key=lambda line: (line.happened == "closed", line.priority, line.time_ns))
    message = EmailMessage()
    message["From"] = _address(sender)
    message["To"] = tuple(_address(recipient) for recipient in recipients)
    message["Subject"] = clean(f"[{subject or mail.node}] {_summary(lines)}", SUBJECT_CHARACTERS_MAX)
    message["Date"] = format_datetime(_EPOCH + timedelta(seconds=mail.end_ns // 1_000_000_000))
    message["Message-ID"] = f"<{_identity(mail)}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_text(mail, lines, lines_max, zone), cte="quoted-printable")
    return message


def address_problem(text: str) -> str | None:
    """What is wrong with an e-mail address; None: nothing."""
    try:
        found = _address(text)
    except (ValueError, MessageError, IndexError):
        return f"expected an address such as control@utility.example, found {text!r}"
    if not found.username or ("." not in found.domain.strip(".") and found.domain != "localhost"):
        return f"expected an address such as control@utility.example, found {text!r}"
    return None


def clean(text: str, characters_max: int) -> str:
    """A line of printable characters."""
    told = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return told if len(told) <= characters_max else told[: characters_max - 1] + "…"


def _address(text: str) -> Address:
    if not text.isascii() or not text.isprintable():
        raise ValueError("expected printable ASCII")
    return Address(addr_spec=text)


def _summary(lines: list[Line]) -> str:
    """The subject: the one alarm, or how many of which."""
    if len(lines) == 1:
        line = lines[0]
        return f"P{line.priority} {line.happened}: {line.subject} {line.alarm.text}"
    counts = []
    for happened in ("opened", "updated", "closed"):
        number = sum(line.happened == happened for line in lines)
        if number:
            counts.append(f"{number} {happened}")
    urgent = min(line.priority for line in lines)
    return f"P{urgent}: alarms {', '.join(counts)}"


def _text(mail: Mail, lines: list[Line], lines_max: int, zone: ZoneInfo) -> str:
    told = [
        f"Alarms of {clean(mail.node, 100)}, {_moment(mail.start_ns, zone)} to {_moment(mail.end_ns, zone)}",
        "",
    ]
    for line in lines[:lines_max]:
        told += [_first(line, zone), *(f"    {text}" for text in _more(line, zone)), ""]
    rest = lines[lines_max:]
    if rest:
        by_priority = ", ".join(
            f"{sum(line.priority == priority for line in rest)} of priority {priority}"
            for priority in (1, 2, 3)
            if any(line.priority == priority for line in rest)
        )
        told.append(f"and {len(rest)} more: {by_priority}. The node's page and the stream have them all.")
    return "\n".join(told) + "\n"


def _first(line: Line, zone: ZoneInfo) -> str:
    return clean(
        f"P{line.priority} {line.happened.upper()} {_moment(line.time_ns, zone)}  {line.subject}: {line.alarm.text}",
        TEXT_CHARACTERS_MAX,
    )


def _more(line: Line, zone: ZoneInfo) -> list[str]:
    alarm = line.alarm
    unit = f" {alarm.unit}" if alarm.unit else ""
    facts = []
    if alarm.value is not None:
        limit = "" if alarm.limit is None else f" (limit {alarm.limit:g}{unit})"
        worst = "" if alarm.worst is None or alarm.worst == alarm.value else f", worst {alarm.worst:g}{unit}"
        facts.append(f"value {alarm.value:g}{unit}{limit}{worst}")
    if alarm.count:
        facts.append(f"{alarm.standing} of {alarm.count} still open")
    facts.append(f"condition: {alarm.condition}, since {alarm.since}")
    where = [f"place {alarm.place}" if alarm.place else "", f"device {alarm.device}" if alarm.device else ""]
    facts += [text for text in where if text]
    if alarm.note:
        facts.append(alarm.note)
    told = [clean("; ".join(facts), TEXT_CHARACTERS_MAX)]
    if alarm.members:
        names = ", ".join(member.subject for member in alarm.members[:10])
        told.append(clean(names + (" ..." if alarm.count > 10 else ""), TEXT_CHARACTERS_MAX))
    return told


def _moment(time_ns: int, zone: ZoneInfo) -> str:
    try:
        return (
            (_EPOCH + timedelta(seconds=time_ns // 1_000_000_000))
            .astimezone(zone)
            .strftime("%Y-%m-%d %H:%M:%S%z")
        )
    except OverflowError:
        return str(time_ns)


def _identity(mail: Mail) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in (
        mail.node,
        mail.sink,
        str(mail.start_ns),
        str(mail.end_ns),
        *(line.id for line in mail.lines),
    ):
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
