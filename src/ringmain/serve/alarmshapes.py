"""Alarms as the API tells them."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class AlarmMemberInfo(msgspec.Struct, frozen=True):
    """An alert that a group alarm stands for: what it is about, and its id."""

    subject: str
    alert: str


class AcknowledgedInfo(msgspec.Struct, frozen=True):
    """Who acknowledged an alarm, when, and what they added."""

    by: str
    at_ms: int
    note: str | None


class Annunciation(StrEnum):
    """What an alarm asks of an operator: the states of IEC 62682 and ISA-18.2, 5.2.2."""

    UNACKNOWLEDGED = "unacknowledged"
    """Active, and nobody has acknowledged it (UNACK)."""
    ACKNOWLEDGED = "acknowledged"
    """Active, and somebody takes care of it (ACKED)."""
    RETURNED = "returned"
    """Over before anybody acknowledged it (RTNUN)."""
    NORMAL = "normal"
    """Over, and acknowledged (NORM)."""

    @classmethod
    def of(cls, *, active: bool, acknowledged: bool) -> Annunciation:
        """The state that follows."""
        if active:
            return cls.ACKNOWLEDGED if acknowledged else cls.UNACKNOWLEDGED
        return cls.NORMAL if acknowledged else cls.RETURNED


class AlarmInfo(msgspec.Struct, frozen=True):
    """An alarm as its newest Event tells it.

    `since_ms`: when its condition began; `opened_ms`: when it had held long enough; `updated_ms`: time of the newest
    Event. `watched`: whether a flow of that name runs, so that it may still close. `members`, `count`, `standing` and
    `suppressed` are those of a group alarm: alerts listed, all that ever belonged to it, open ones, and those that are
    told nowhere else. `group`: id of the group alarm that it belongs to. `stream`: where its Events are.
    """

    alert: str
    state: str
    priority: int
    subject: str
    text: str
    condition: str
    flow: str
    since_ms: int
    opened_ms: int
    updated_ms: int
    closed_ms: int | None
    value: float | None
    limit: float | None
    worst: float | None
    unit: str | None
    place: str | None
    device: str | None
    group: str | None
    note: str | None
    members: list[AlarmMemberInfo]
    count: int
    standing: int
    suppressed: int
    watched: bool = True
    annunciation: Annunciation = Annunciation.UNACKNOWLEDGED
    acknowledged: AcknowledgedInfo | None = None
    stream: str = "alarms"


class AlarmList(msgspec.Struct, frozen=True):
    """Alarms: how many are open by priority 1, 2, 3, and those asked for: open ones first, of them unacknowledged ones,
    by priority, newest first.

    Those that an open group alarm stands for are listed, and counted as that one; those that nobody watches any more are
    listed last, and not counted. `more`: open alarms that are not listed. `unacknowledged`: those of `open` that nobody
    has acknowledged, by priority. `opened_10min`: alarms that opened in the last ten minutes, those that a group stands
    for left out. `revision` grows with each change.
    """

    revision: int
    open: list[int]
    more: int
    opened_10min: int
    alarms: list[AlarmInfo]
    unacknowledged: list[int]


class AcknowledgeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Alarms that somebody acknowledges, by id; a group's id stands for those that the group has linked to it."""

    alerts: list[str]
    by: str
    note: str | None = None


class AcknowledgeAnswer(msgspec.Struct, frozen=True):
    """Ids: acknowledged now; acknowledged before, by whomever; and unknown ones."""

    acknowledged: list[str]
    already: list[str]
    unknown: list[str]
