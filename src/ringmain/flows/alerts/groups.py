"""Alerts of one place as one alarm: what opens in numbers within a short time is told once.

When more than `above` alerts of a group open within `within`, a group alarm opens that stands for them. Those that were
told already are linked to it, those that open while it is open are counted in it and never told by themselves, and it
closes when the last of them has closed. What is told of a group is in `telling.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ringmain.model.alarm import MEMBERS_MAX, AlarmMember


@dataclass(frozen=True, slots=True)
class Grouping:
    """When a group alarm opens. `attribute`: of the catalogue; None: of all series there is one group.

    `level`: how many parts of a path (`leipzig/ss-07/feeder-3`) name the group; 0: all of it.
    """

    attribute: str | None
    level: int
    above: int
    within_ns: int

    def name(self, text: str | None) -> str | None:
        """The group of a series whose attribute has this text; None: none."""
        if self.attribute is None:
            return "all"
        if text is None or not self.level:
            return text
        return "/".join(text.split("/")[: self.level])


class Standing(msgspec.Struct, frozen=True):
    """An alert as it was when something happened to it, at `time_ns`. NaN: nothing was measured."""

    series: int
    time_ns: int
    since_ns: int
    value: float
    worst: float
    priority: int
    flapping: bool


class Group(msgspec.Struct):
    """One group. `number` names it in the state of its members; `told_ns` is log time of its last event.

    While it is not open `recent` has its alerts that are, as (opening time, newest state): those that opened within
    `Grouping.within_ns`, at most `Grouping.above`.
    """

    name: str
    number: int
    recent: list[tuple[int, Standing]] = []
    opens: int = 0
    alert: str = ""
    opened_ns: int = 0
    since_ns: int = 0
    changed_ns: int = 0
    told_ns: int = 0
    events: int = 0
    priority: int = 3
    count: int = 0
    standing: int = 0
    suppressed: int = 0
    members: list[AlarmMember] = []
    changed: bool = False

    @property
    def is_open(self) -> bool:
        """Whether its alarm is open."""
        return bool(self.alert)

    @property
    def has_room(self) -> bool:
        """Whether another member is listed."""
        return len(self.members) < MEMBERS_MAX

    def join(self, time_ns: int, since_ns: int, priority: int) -> bool:
        """An alert belongs to the open group; whether the group's priority rose."""
        self.count += 1
        self.standing += 1
        self.since_ns = min(self.since_ns, since_ns)
        self.change(time_ns)
        return self.rank(priority)

    def rank(self, priority: int) -> bool:
        """A member has this priority; whether the group's rose."""
        rose = priority < self.priority
        self.priority = min(priority, self.priority)
        return rose

    def change(self, time_ns: int) -> None:
        """Something changed at that time."""
        self.changed_ns = max(self.changed_ns, time_ns)
        self.changed = True

    def close(self) -> None:
        """The group alarm is over."""
        self.alert, self.members, self.events, self.changed = "", [], 0, False
        self.count = self.standing = self.suppressed = 0


class Groups:
    """The groups that have open alerts, by name. Used by one thread."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping
        self._by_name: dict[str, Group] = {}
        self._by_number: dict[int, Group] = {}
        self._open: dict[int, Group] = {}
        self._next = 0

    def of(self, name: str) -> Group:
        """The group of that name, made where there is none."""
        found = self._by_name.get(name)
        if found is None:
            found = Group(name, self._next)
            self._next += 1
            self._by_name[name] = self._by_number[found.number] = found
        return found

    def numbered(self, number: int) -> Group:
        """The group of that number."""
        return self._by_number[number]

    def opened(self, group: Group) -> None:
        """The group's alarm is open."""
        self._open[group.number] = group

    def changed(self) -> list[Group]:
        """Open groups that have something to tell, in order of number."""
        return [self._open[number] for number in sorted(self._open) if self._open[number].changed]

    def standing(self) -> list[Group]:
        """Open groups, in order of number."""
        return [self._open[number] for number in sorted(self._open)]

    def forget(self, group: Group) -> None:
        """Let go of a group without open alerts."""
        if not group.is_open:
            self._open.pop(group.number, None)
        if not group.is_open and not group.recent:
            del self._by_name[group.name], self._by_number[group.number]

    def encode(self) -> bytes:
        """As bytes of a snapshot."""
        return msgspec.msgpack.encode((self._next, list(self._by_number.values())))

    def decode(self, data: bytes) -> None:
        """Take over what `encode` gave."""
        self._next, groups = msgspec.msgpack.decode(data, type=tuple[int, list[Group]])
        self._by_number = {group.number: group for group in groups}
        self._by_name = {group.name: group for group in groups}
        self._open = {group.number: group for group in groups if group.is_open}
