"""What an alarm is as it travels: the data of its Events, which page, API, webhook and e-mail read.

Every transition of an alarm is one Event (CloudEvents 1.0) on stream `alarms`: type `ringmain.alarm.opened`, `.updated`
or `.closed`, its subject the series, device or group that it is about, and an `Alarm` as JSON data. All Events of an
alarm have the same `alert`; the newest one tells everything about it, but for who acknowledged
it (`ACKNOWLEDGED`). Ids follow from the readings, so the same input
gives the same ids again.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

ALARMS = "alarms"
"""The stream of alarms, unless a configuration says otherwise."""
MEMBERS_MAX = 50
"""Members that the data of a group alarm list; `count` has them all."""
PRIORITY_LOWEST = 3


class AlarmType(StrEnum):
    """Type of an alarm's Event."""

    OPENED = "ringmain.alarm.opened"
    UPDATED = "ringmain.alarm.updated"
    CLOSED = "ringmain.alarm.closed"


ACKNOWLEDGED = "ringmain.alarm.acknowledged"
"""Type of the Event that says that somebody has seen an alarm: no transition of the alarm itself."""


class AlarmNote(StrEnum):
    """What `Alarm.note` says."""

    FLAPPING = "flapping"
    """It changes too often: it stays open until its condition was false for long enough."""
    DEFINITION_CHANGED = "definition changed"
    """Closed because what raised it is defined otherwise from then on; what holds under the new definition opened anew."""
    REMOVED = "removed"
    """Closed because what raised it is in the configuration no more."""
    RECOMPUTED = "computed anew"
    """Closed because a replay found other alarms open; those opened anew."""


class AlarmMember(msgspec.Struct, frozen=True):
    """An alert that a group alarm stands for."""

    subject: str
    alert: str


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of an alarm's Event. Times are RFC 3339 in UTC; a value that JSON has no number for is absent.

    `alert`: its id. `flow`: what raised it. `priority`: 1 (first) to 3. `since`: when the condition began, `opened`:
    when it had held for long enough. `value`, `worst`: of what the condition is about, now and furthest beyond `limit`.
    `group`: id of the group alarm that it belongs to. `note`: what else there is to know, an `AlarmNote`.

    A group alarm has `members` (the first `MEMBERS_MAX`), `count` of all that ever belonged to it, `standing` of those
    that are open, and `suppressed` of those that have no Events of their own.
    """

    alert: str
    flow: str
    priority: int
    text: str
    condition: str
    since: str
    opened: str
    closed: str | None = None
    value: float | None = None
    limit: float | None = None
    worst: float | None = None
    unit: str | None = None
    place: str | None = None
    device: str | None = None
    group: str | None = None
    note: str | None = None
    members: tuple[AlarmMember, ...] = ()
    count: int = 0
    standing: int = 0
    suppressed: int = 0


class Acknowledgement(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of the Event by which somebody acknowledges an alarm; on the alarm's own stream, behind what it answers to.

    `alert`, `flow`, `priority`, `text`: the alarm's. `by`: who says so. `at`: when, RFC 3339 in UTC. `note`: what they add.
    An alarm is acknowledged once: the first of these counts. One that opens again is another alarm.
    """

    alert: str
    flow: str
    by: str
    at: str
    priority: int
    text: str
    note: str | None = None


def acknowledgement_of(data: bytes | None) -> Acknowledgement | None:
    """The acknowledgement in an Event's data; None for what is none."""
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Acknowledgement)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def alarm_of(data: bytes | None) -> Alarm | None:
    """The alarm in an Event's data; None for what is none."""
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Alarm)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
