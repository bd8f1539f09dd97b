"""What happened to alerts as Events: ids, texts, group alarms, and which of it is not told.

Every event of an alert has an id of its own, `ALERT-N`: N counts its events from 0. The alert's id is a hash of the
flow, its subject and when it opened, so the same input gives the same ids in every run, and twice is once.

When a flow's definition changes on its way, what is open is told anew (`tell_anew`): the era, a number that grows with
each such change, is then part of the ids, so no alert of the new definition is taken for one of the old.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringmain.flows.alerts.events import AlarmEvent, event_rows
from ringmain.flows.alerts.groups import Group, Grouping, Groups, Standing
from ringmain.flows.alerts.life import Happening, Happenings
from ringmain.flows.alerts.names import Names
from ringmain.flows.alerts.watch import copied
from ringmain.flows.alerts.wording import Wanted, Wording, worded
from ringmain.flows.block import Block, Ints
from ringmain.flows.state import grown
from ringmain.flows.step import Context, StepState
from ringmain.model.alarm import Alarm, AlarmMember, AlarmNote, AlarmType
from ringmain.model.rfc3339 import rfc3339

GROUP_UPDATE_NS = 10_000_000_000
"""A group alarm is updated at most so often, or as often as others if that is more: it grows fast at first."""


class Teller:
    """Makes events. `grouping=None`: every alert is told by itself."""

    def __init__(self, wording: Wording, grouping: Grouping | None, context: Context, names: Names) -> None:
        self._wording = wording
        self._groups = None if grouping is None else Groups(grouping)
        self._context = context
        self._names = names
        self._events: list[AlarmEvent | None] = []
        self._fresh: dict[int, int] = {}
        """Series -> place in `_events` of the event that opened its alert, while the events are gathered."""
        self._told_groups: dict[int, AlarmEvent] = {}
        """Number of an open group -> its newest event, while the events are gathered."""
        self._opened: Ints = np.empty(0, np.int64)
        self._opens: NDArray[np.uint32] = np.empty(0, np.uint32)
        """By series: alerts so far."""
        self._told: NDArray[np.uint32] = np.empty(0, np.uint32)
        """By series: events of the present alert so far; 0: it is not told by itself."""
        self._group: NDArray[np.int32] = np.empty(0, np.int32)
        """By series: number of the group that has the alert among its members or recent ones, or -1."""
        self.era = 0
        """How often the definition has changed on the way; 0: never."""

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        if size <= len(self._opened):
            return
        self._opened = grown(self._opened, size, 0)
        self._opens = grown(self._opens, size, 0)
        self._told = grown(self._told, size, 0)
        self._group = grown(self._group, size, -1)

    def tell(self, found: Happenings | None, now: int) -> list[Block]:
        """The events of what happened until log time `now`, in order of time."""
        if found is not None:
            for what, one in zip(found.what.tolist(), _standings(found), strict=True):
                if what == Happening.OPENED:
                    self._open(one, now)
                elif what == Happening.UPDATED:
                    self._update(one, now)
                else:
                    self._close(one, now)
        if self._groups is not None:
            for group in self._groups.changed():
                told_now = self._told_groups.get(group.number)
                if told_now is not None:  # what joined later in this instant belongs into it
                    told_now.alarm = self._group_alarm(group, None)
                    group.changed = False
                elif now >= group.told_ns + min(GROUP_UPDATE_NS, self._wording.update_ns):
                    self._tell_group(group, AlarmType.UPDATED, group.changed_ns, now)
        return self._told_block(now)

    def tell_anew(self, standing: Happenings | None, era: int, now: int) -> list[Block]:
        """The definition is another one from here on: all that was told is closed, and what stands is told anew.

        `standing`: the alerts that are open, as opened at `now`. They fall into groups as if they had opened together.
        """
        if standing is not None:
            for one in _standings(standing):
                if self._told[one.series]:
                    self._tell(one, AlarmType.CLOSED, AlarmNote.DEFINITION_CHANGED)
        if self._groups is not None:
            for group in self._groups.standing():
                self._tell_group(group, AlarmType.CLOSED, now, now, AlarmNote.DEFINITION_CHANGED)
            self._groups = Groups(self._groups.grouping)
        closed = self._told_block(now)
        self._told[:] = 0
        self._group[:] = -1
        self.era = era
        return closed + self.tell(standing, now)

    def standing(self, series: Ints) -> dict[str, int]:
        """Ids of the alerts of these series that are told, and of groups, with how many events of each there are."""
        found = {}
        for one in series[self._told[series] > 0].tolist():
            found[self._alert(one, self._subject(one))] = int(self._told[one])
        if self._groups is not None:
            found |= {group.alert: group.events for group in self._groups.standing()}
        return found

    def _told_block(self, now: int) -> list[Block]:
        events, self._events = self._events, []
        self._fresh.clear()
        self._told_groups.clear()
        told = sorted((event for event in events if event is not None), key=lambda event: event.time_ns)
        return [Block(event_rows(self._wording.flow, told), now)] if told else []

    # One alert

    def _open(self, one: Standing, now: int) -> None:
        series = one.series
        self._opened[series] = one.time_ns
        self._opens[series] += 1
        self._told[series] = 0
        self._group[series] = -1
        group = self._group_of(series)
        if group is None or self._groups is None:
            self._tell(one, AlarmType.OPENED)
            return
        if group.is_open:
            if self._join(group, one, suppressed=True):
                self._tell_group(group, AlarmType.UPDATED, one.time_ns, now)
            return
        grouping = self._groups.grouping
        self._group[series] = group.number
        group.recent.append((one.time_ns, one))
        earliest = max(opened for opened, _ in group.recent) - grouping.within_ns
        for opened, found in group.recent:
            if opened < earliest:
                self._group[found.series] = -1
        group.recent = [found for found in group.recent if found[0] >= earliest]
        if len(group.recent) <= grouping.above:
            self._fresh[series] = len(self._events)
            self._tell(one, AlarmType.OPENED)
        else:
            self._open_group(group, one, now)

    def _update(self, one: Standing, now: int) -> None:
        if self._told[one.series]:
            self._tell(one, AlarmType.UPDATED)
        group = self._group_with(one.series)
        if group is None:
            return
        if group.is_open:
            if group.rank(one.priority):
                self._tell_group(group, AlarmType.UPDATED, one.time_ns, now)
        else:
            group.recent = [
                (opened, one if found.series == one.series else found) for opened, found in group.recent
            ]

    def _close(self, one: Standing, now: int) -> None:
        if self._told[one.series]:
            self._tell(one, AlarmType.CLOSED)
        self._fresh.pop(one.series, None)  # the event that opened it stays, whatever opens next
        group = self._group_with(one.series)
        if group is None or self._groups is None:
            return
        if group.is_open:
            group.standing -= 1
            group.change(one.time_ns)
            if not group.standing:
                self._tell_group(group, AlarmType.CLOSED, group.changed_ns, now)
                group.close()
        else:
            group.recent = [found for found in group.recent if found[1].series != one.series]
        self._groups.forget(group)

    def _tell(self, one: Standing, kind: AlarmType, note: AlarmNote | None = None) -> None:
        wording, series = self._wording, one.series
        number = int(self._group[series])
        subject = self._subject(series)
        about = Wanted(
            subject,
            self._names.text("place", series),
            self._names.text("device", series),
            one.value,
            self._unit(series),
        )
        alert = self._alert(series, subject)
        alarm = Alarm(
            alert=alert,
            flow=wording.flow,
            priority=one.priority,
            text=worded(wording, about),
            condition=wording.condition,
            since=rfc3339(one.since_ns),
            opened=rfc3339(int(self._opened[series])),
            closed=rfc3339(one.time_ns) if kind is AlarmType.CLOSED else None,
            value=_finite(one.value),
            limit=wording.limit,
            worst=_finite(one.worst),
            unit=about.unit,
            place=about.place,
            device=about.device,
            group=None if number < 0 or self._groups is None else self._groups.numbered(number).alert or None,
            note=note or (AlarmNote.FLAPPING if one.flapping else None),
        )
        self._events.append(AlarmEvent(alert, int(self._told[series]), kind, subject, one.time_ns, alarm))
        self._told[series] += 1

    # Groups

    def _group_of(self, series: int) -> Group | None:
        """The group that a new alert of the series falls into."""
        if self._groups is None:
            return None
        grouping = self._groups.grouping
        name = grouping.name(
            None if grouping.attribute is None else self._names.text(grouping.attribute, series)
        )
        return None if name is None else self._groups.of(name)

    def _group_with(self, series: int) -> Group | None:
        """The group that has the open alert of the series among its members or, while it is not open, recent ones."""
        number = int(self._group[series])
        return None if number < 0 or self._groups is None else self._groups.numbered(number)

    def _open_group(self, group: Group, one: Standing, now: int) -> None:
        """One alert too many: the recent ones become a group alarm, which is told before them."""
        recent, group.recent = group.recent, []
        group.opens += 1
        group.alert = self._hash("group", group.name, one.time_ns, f"{group.number}.{group.opens}")
        group.opened_ns, group.since_ns, group.changed_ns = one.time_ns, one.since_ns, one.time_ns
        group.priority = one.priority
        if self._groups is not None:
            self._groups.opened(group)
        linked: list[Standing] = []
        for _, found in recent:
            fresh = self._fresh.pop(found.series, None)
            told = fresh is None and found is not one
            self._join(group, found, suppressed=not told)
            if told:
                linked.append(found)
            elif fresh is not None:
                self._events[fresh] = None
                self._told[found.series] = 0
        self._tell_group(group, AlarmType.OPENED, one.time_ns, now)
        for found in linked:
            self._tell(msgspec.structs.replace(found, time_ns=one.time_ns), AlarmType.UPDATED)

    def _join(self, group: Group, one: Standing, *, suppressed: bool) -> bool:
        """An open alert belongs to an open group; whether the group's priority rose."""
        self._group[one.series] = group.number
        if suppressed:
            group.suppressed += 1
            self._context.count("suppressed", 1)
        if group.has_room:
            subject = self._subject(one.series)
            group.members.append(AlarmMember(subject, self._alert(one.series, subject)))
        return group.join(one.time_ns, one.since_ns, one.priority)

    def _tell_group(
        self, group: Group, kind: AlarmType, time_ns: int, now: int, note: AlarmNote | None = None
    ) -> None:
        closed_ns = time_ns if kind is AlarmType.CLOSED else None
        alarm = self._group_alarm(group, closed_ns, note)
        event = AlarmEvent(group.alert, group.events, kind, group.name, time_ns, alarm)
        self._events.append(event)
        if closed_ns is None:
            self._told_groups[group.number] = event
        else:
            self._told_groups.pop(group.number, None)
        group.events += 1
        group.changed = False
        group.told_ns = now

    def _group_alarm(self, group: Group, closed_ns: int | None, note: AlarmNote | None = None) -> Alarm:
        wording = self._wording
        return Alarm(
            alert=group.alert,
            flow=wording.flow,
            priority=group.priority,
            text=f"{group.count} alerts: {wording.condition}",
            condition=wording.condition,
            since=rfc3339(group.since_ns),
            opened=rfc3339(group.opened_ns),
            closed=None if closed_ns is None else rfc3339(closed_ns),
            place=group.name if self._by_place() else None,
            note=note,
            members=tuple(group.members),
            count=group.count,
            standing=group.standing,
            suppressed=group.suppressed,
        )

    def _by_place(self) -> bool:
        return self._groups is not None and self._groups.grouping.attribute == "place"

    # Names

    def _unit(self, series: int) -> str | None:
        wording = self._wording
        if wording.per is None:
            return wording.unit
        unit = wording.unit or self._names.text("unit", series)
        return None if unit is None else unit + wording.per

    def _subject(self, series: int) -> str:
        return (
            self._names.text(self._wording.subject, series)
            or self._names.text("key", series)
            or f"series/{series}"
        )

    def _alert(self, series: int, subject: str) -> str:
        return self._hash("alert", subject, int(self._opened[series]), str(self._opens[series]))

    def _hash(self, kind: str, subject: str, opened_ns: int, number: str) -> str:
        era = (str(self.era),) if self.era else ()
        named = "\0".join((self._wording.flow, kind, subject, str(opened_ns), number, *era))
        return hashlib.blake2b(named.encode(), digest_size=12).hexdigest()

    # State

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "tell_opened": self._opened,
            "tell_opens": self._opens,
            "tell_told": self._told,
            "tell_group": self._group,
            "tell_groups": b"" if self._groups is None else self._groups.encode(),
            "tell_era": np.array([self.era], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._opened = copied(state["tell_opened"], np.int64)
        self._opens = copied(state["tell_opens"], np.uint32)
        self._told = copied(state["tell_told"], np.uint32)
        self._group = copied(state["tell_group"], np.int32)
        self.era = int(copied(state["tell_era"], np.int64)[0]) if "tell_era" in state else 0
        groups = state["tell_groups"]
        assert isinstance(groups, bytes)
        if self._groups is not None:
            self._groups.decode(groups)


def _standings(found: Happenings) -> Iterator[Standing]:
    """The rows of the columns, without what happened."""
    rows = zip(
        found.series.tolist(),
        found.time.tolist(),
        found.since.tolist(),
        found.value.tolist(),
        found.worst.tolist(),
        found.priority.tolist(),
        found.flapping.tolist(),
        strict=True,
    )
    return (Standing(*row) for row in rows)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
