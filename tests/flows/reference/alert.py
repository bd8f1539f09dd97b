"""The step `alert` row by row: one object a series, plain loops."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from ringmain.flows.alerts.conditions import Condition, tree_of
from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.steps.alert import AlertSettings, Escalation, GroupBy, Subject
from ringmain.model.alarm import Alarm, AlarmMember
from ringmain.model.duration import format_duration, parse_duration

from .ordering import OrderingReference, Row

Settings = AlertSettings
NAN = math.nan


@dataclass
class Pending:
    since: int
    due: int


@dataclass
class Series:
    number: int
    truth: dict[int, bool] = field(default_factory=dict)
    """By leaf."""
    before: tuple[int, float] | None = None
    bad: list[bool] = field(default_factory=list)
    seen: int | None = None
    open: bool = False
    pending: Pending | None = None
    flapping: bool = False
    changed: bool = False
    began: int = 0
    told: int = 0
    value: float = NAN
    worst: float = NAN
    priority: int = 3
    changes: list[int] = field(default_factory=list)
    opened: int = 0
    opens: int = 0
    events: int = 0
    group: Group | None = None


@dataclass
class Happened:
    what: str
    time: int
    series: int
    since: int
    value: float
    worst: float
    priority: int
    flapping: bool


@dataclass
class Group:
    name: str
    number: int
    recent: list[tuple[int, Happened]] = field(default_factory=list)
    alert: str | None = None
    opens: int = 0
    opened: int = 0
    since: int = 0
    changed_at: int = 0
    changed: bool = False
    told: int = 0
    events: int = 0
    priority: int = 3
    count: int = 0
    standing: int = 0
    suppressed: int = 0
    members: list[AlarmMember] = field(default_factory=list)
    newest: Row | None = None
    """Its newest event of this instant."""


class Reference:
    def __init__(
        self, settings: AlertSettings, known: Any = None, flow: str = "test", first: bool = True
    ) -> None:
        self.settings = settings
        self.known = known or {}
        self.flow = flow
        self.order = OrderingReference(settings)
        self.series: dict[int, Series] = {}
        self.devices: dict[str, int] = {}
        self.groups: dict[str, Group] = {}
        self.group_count = 0
        self.now: int | None = None
        self.clock = 0
        self.condition = settings.condition
        self.leaves = _leaves(self.condition)
        self.silences = {n: parse_duration(leaf.silent) for n, leaf in enumerate(self.leaves) if leaf.silent}
        self.values = len(self.silences) < len(self.leaves)
        self.measured = next((n for n, leaf in enumerate(self.leaves) if not leaf.silent), None)
        self.step = min([60_000_000_000, *(wait // 4 for wait in self.silences.values())])
        self.text = tree_of(self.condition).text
        self.found: list[Happened] = []
        self.out: list[Row] = []
        self.era = 0
        if self.silences and settings.never_sent and first:  # the catalogue is there before anything else
            for number in sorted(number for number in self.known if number < SERIES_MAX):
                one = self.of(self.spokesman(number))
                one.seen = 0

    # The protocol of a step

    def take(self, row: Row, now_ns: int) -> list[Row]:
        if self.silences and row["series"] < SERIES_MAX:
            self.of(self.spokesman(row["series"])).seen = self.clock
        if self.values:
            self.order.take(row, now_ns)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        late: list[Row] = []
        before = self.now if self.now is not None else now_ns
        self.log_time = before
        for one in self.in_order():
            if one.seen == self.clock and any(one.truth.get(n) for n in self.silences):
                for n in self.silences:
                    one.truth[n] = False
                self.follow(one, before, NAN, silence=True)
        if self.values:
            rows, late = self.order.release(now_ns)
            for row in rows:
                one = self.of(row["series"])
                measured = self.look(one, row)
                self.follow(one, before if self.silences else row["time"], measured)
        for one in self.in_order():
            if one.pending is not None and one.pending.due <= self.clock:
                self.happen(one, one.pending.since + self.wait(one))
        for one in self.in_order():
            fresh = [
                n
                for n, wait in self.silences.items()
                if one.seen is not None and not one.truth.get(n) and one.seen <= self.clock - wait
            ]
            for n in fresh:
                one.truth[n] = True
            if fresh:
                self.follow(one, before, NAN, silence=True)
        self.clock += min(now_ns - before, self.step)
        self.now = now_ns
        return late + self.tell(now_ns)

    def take_over(self, era: int) -> list[Row]:
        """The definition is this one from here on: what was told is closed, what is open is told anew."""
        now, self.out = self.now or 0, []
        standing = []
        for one in self.in_order():
            if one.open:
                one.changed, one.told = False, now
                values = (one.began, one.value, one.worst, one.priority, one.flapping)
                standing.append(Happened("opened", now, one.number, *values))
                if one.events:
                    self.event(standing[-1], "closed", "definition changed")
        for group in sorted(self.groups.values(), key=lambda group: group.number):
            if group.alert:
                self.group_event(group, "closed", now, now, "definition changed")
        closed = self.out
        self.groups, self.group_count = {}, 0
        for one in self.series.values():
            one.events, one.group = 0, None
        self.era, self.found = era, standing
        return closed + self.tell(now)

    # Conditions

    def in_order(self) -> list[Series]:
        return [self.series[number] for number in sorted(self.series)]

    def of(self, number: int) -> Series:
        return self.series.setdefault(number, Series(number))

    def spokesman(self, number: int) -> int:
        if self.settings.subject is not Subject.DEVICE:
            return number
        device = self.attribute(number, "device")
        return number if device is None else self.devices.setdefault(device, number)

    def look(self, one: Series, row: Row) -> float:
        """What a reading says; the quantity that an alarm tells, or NaN."""
        value, time = row["value"], row["time"]
        if row["quality"] & 2:
            value = NAN
        rate = NAN
        if one.before is not None and not math.isnan(value):
            rate = (value - one.before[1]) / float(time - one.before[0])
        if not math.isnan(value):
            one.before = (time, value)
        one.bad = [*one.bad, bool(row["quality"] & 3) or math.isnan(value)][-64:]
        told = NAN
        for n, leaf in enumerate(self.leaves):
            if leaf.silent:
                continue
            if leaf.bad is not None:
                quantity = float(sum(one.bad[-leaf.of :]))
                clear = leaf.bad - 1 if leaf.clear_bad is None else leaf.clear_bad
                on, off = quantity >= leaf.bad, quantity <= clear
            elif leaf.rate_above is not None or leaf.rate_below is not None:
                quantity = rate * float(parse_duration(leaf.per))
                on = _beyond(quantity, leaf.rate_above, leaf.rate_below)
                off = not on and not math.isnan(quantity)
            else:
                quantity = value
                on = _beyond(quantity, leaf.above, leaf.below)
                high = leaf.above if leaf.clear_below is None else leaf.clear_below
                low = leaf.below if leaf.clear_above is None else leaf.clear_above
                off = (high is None or quantity <= high) and (low is None or quantity >= low)
            one.truth[n] = on or (one.truth.get(n, False) and not off)
            if n == self.measured:
                told = quantity
        return told

    def holds(self, one: Series) -> bool:
        numbers = iter(range(len(self.leaves)))

        def of(condition: Condition) -> bool:
            parts = condition.all or condition.any
            if not parts:
                return one.truth.get(next(numbers), False)
            found = [of(part) for part in parts]
            return all(found) if condition.all else any(found)

        return of(self.condition)

    # The life of an alert

    def wait(self, one: Series) -> int:
        settings = self.settings
        if not one.open:
            return parse_duration(settings.for_)
        return parse_duration(settings.flap_within if one.flapping else settings.clear_for)

    def follow(self, one: Series, time: int, measured: float, silence: bool = False) -> None:
        holds = self.holds(one)
        while one.pending is not None:
            at = one.pending.since + self.wait(one)
            if not (time > at or (time == at and holds != one.open)):
                break
            self.happen(one, at)
        if one.pending is not None and holds == one.open:
            one.pending = None
            one.changed = one.changed and one.open
        starts = holds != one.open and one.pending is None
        if starts and holds:
            one.began, one.value, one.worst = time, NAN, NAN
        if (holds or one.open) and not math.isnan(measured):
            one.value = measured
            if math.isnan(one.worst) or self.excess(measured) > self.excess(one.worst):
                one.worst, one.changed = measured, True
        if starts:
            self.pend(one, time)
            if self.wait(one) == 0:
                self.happen(one, time)
        if not silence and one.open and one.changed and self.measured is not None:
            priority = self.rank(one.worst)
            if priority < one.priority or time >= one.told + parse_duration(self.settings.update):
                one.priority = min(priority, one.priority)
                one.changed = False
                self.record("updated", one, time)

    def pend(self, one: Series, since: int) -> None:
        one.pending = Pending(since, self.clock + self.wait(one) + max(0, since - self.log_time))

    def happen(self, one: Series, time: int) -> None:
        one.pending = None
        many = self.too_many(one, time) and not one.flapping
        was_open = one.open
        one.open = not was_open or many
        one.flapping, one.changed = many, False
        if one.open:
            one.priority = self.rank(one.worst)
        if was_open and many:
            self.pend(one, time)
        self.record("closed" if not one.open else "updated" if was_open else "opened", one, time)

    def too_many(self, one: Series, time: int) -> bool:
        flap = self.settings.flap
        if not flap:
            return False
        one.changes.append(time)
        before = one.changes[-flap - 1 : -1]
        return len(before) == flap and time <= before[0] + parse_duration(self.settings.flap_within)

    def excess(self, measured: float) -> float:
        assert self.measured is not None
        leaf = self.leaves[self.measured]
        if leaf.bad is not None:
            return measured
        above = leaf.above if leaf.above is not None else leaf.rate_above
        below = leaf.below if leaf.below is not None else leaf.rate_below
        return max(
            measured - above if above is not None else -math.inf,
            below - measured if below is not None else -math.inf,
        )

    def rank(self, worst: float) -> int:
        ranks = [step.priority for step in self.settings.escalate if _beyond(worst, step.above, step.below)]
        return min([self.settings.priority, *ranks])

    def record(self, what: str, one: Series, time: int) -> None:
        one.told = time
        self.found.append(
            Happened(what, time, one.number, one.began, one.value, one.worst, one.priority, one.flapping)
        )

    # What is told

    def attribute(self, series: int, name: str) -> str | None:
        if name == "key":
            return f"key/{series}" if series in self.known else None
        return self.known.get(series, {}).get(name)

    def tell(self, now: int) -> list[Row]:
        found, self.found = sorted(self.found, key=lambda one: (one.time, one.series)), []
        self.out = []
        for one in found:
            if one.what == "opened":
                self.tell_opened(one, now)
            elif one.what == "updated":
                self.tell_updated(one, now)
            else:
                self.tell_closed(one, now)
        for group in sorted(self.groups.values(), key=lambda group: group.number):
            every = min(10_000_000_000, parse_duration(self.settings.update))
            if group.alert and group.changed and group.newest is not None:
                group.newest["data"] = msgspec.json.encode(self.group_alarm(group, None))
                group.changed = False
            elif group.alert and group.changed and now >= group.told + every:
                self.group_event(group, "updated", group.changed_at, now)
        for group in self.groups.values():
            group.newest = None
        return sorted((row for row in self.out if row), key=lambda row: row["time"])

    def tell_opened(self, one: Happened, now: int) -> None:
        series = self.series[one.series]
        series.opened, series.opens, series.events, series.group = one.time, series.opens + 1, 0, None
        group = self.group_for(one.series)
        if group is None:
            self.event(one, "opened")
        elif group.alert:
            rose = self.join(group, one, suppressed=True)
            if rose:
                self.group_event(group, "updated", one.time, now)
        else:
            series.group = group
            group.recent.append((one.time, one))
            oldest = max(opened for opened, _ in group.recent) - parse_duration(self.settings.group_within)
            for opened, member in group.recent:
                if opened < oldest:
                    self.series[member.series].group = None
            group.recent = [member for member in group.recent if member[0] >= oldest]
            if len(group.recent) > self.settings.group_above:
                self.open_group(group, one, now)
            else:
                self.event(one, "opened")

    def open_group(self, group: Group, one: Happened, now: int) -> None:
        group.opens += 1
        group.alert = self.id_of("group", group.name, one.time, f"{group.number}.{group.opens}")
        group.opened, group.since, group.changed_at, group.priority = (
            one.time,
            one.since,
            one.time,
            one.priority,
        )
        recent, group.recent = group.recent, []
        linked = []
        for _, member in recent:
            series = self.series[member.series]
            mine = self.id_of("alert", self.subject(member.series), series.opened, str(series.opens))
            places = [place for place, row in enumerate(self.out) if row and row["id"] == f"{mine}-0"]
            told = member is not one and not places
            self.join(group, member, suppressed=not told)
            if told:
                linked.append(member)
            for place in places:
                self.out[place] = {}
                series.events = 0
        self.group_event(group, "opened", one.time, now)
        for member in linked:
            self.event(_later(member, one.time), "updated")

    def tell_updated(self, one: Happened, now: int) -> None:
        series = self.series[one.series]
        if series.events:
            self.event(one, "updated")
        group = series.group
        if group is not None and group.alert:
            rose = one.priority < group.priority
            group.priority = min(one.priority, group.priority)
            if rose:
                self.group_event(group, "updated", one.time, now)
        elif group is not None:
            group.recent = [(at, one if old.series == one.series else old) for at, old in group.recent]

    def tell_closed(self, one: Happened, now: int) -> None:
        series = self.series[one.series]
        if series.events:
            self.event(one, "closed")
        group = series.group
        if group is None:
            return
        if group.alert:
            group.standing -= 1
            group.changed_at, group.changed = max(group.changed_at, one.time), True
            if not group.standing:
                self.group_event(group, "closed", group.changed_at, now)
                group.alert = None
        else:
            group.recent = [member for member in group.recent if member[1].series != one.series]
        if not group.alert and not group.recent:
            del self.groups[group.name]

    def group_for(self, series: int) -> Group | None:
        by = self.settings.group
        if by is GroupBy.NONE:
            return None
        name = "all" if by is GroupBy.ALL else self.attribute(series, by.value)
        if name is None:
            return None
        if self.settings.group_level and by is not GroupBy.ALL:
            name = "/".join(name.split("/")[: self.settings.group_level])
        if name not in self.groups:
            self.groups[name] = Group(name, self.group_count)
            self.group_count += 1
        return self.groups[name]

    def join(self, group: Group, one: Happened, *, suppressed: bool) -> bool:
        series = self.series[one.series]
        series.group = group
        group.suppressed += suppressed
        group.count += 1
        group.standing += 1
        group.since = min(group.since, one.since)
        subject = self.subject(one.series)
        if len(group.members) < 50:
            group.members.append(
                AlarmMember(subject, self.id_of("alert", subject, series.opened, str(series.opens)))
            )
        group.changed_at, group.changed = max(group.changed_at, one.time), True
        rose = one.priority < group.priority
        group.priority = min(one.priority, group.priority)
        return rose

    def subject(self, series: int) -> str:
        name = "device" if self.settings.subject is Subject.DEVICE else "key"
        return self.attribute(series, name) or self.attribute(series, "key") or f"series/{series}"

    def id_of(self, kind: str, subject: str, opened: int, number: str) -> str:
        text = "\0".join(
            [self.flow, kind, subject, str(opened), number, *([str(self.era)] if self.era else [])]
        )
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def event(self, one: Happened, what: str, note: str | None = None) -> None:
        series, subject = self.series[one.series], self.subject(one.series)
        alert = self.id_of("alert", subject, series.opened, str(series.opens))
        leaf = None if self.measured is None else self.leaves[self.measured]
        unit, limit = None, None
        if leaf is not None:
            unit = self.attribute(one.series, "unit")
            limits = [n for n in (leaf.above, leaf.below, leaf.rate_above, leaf.rate_below) if n is not None]
            limit = limits[0] if len(limits) == 1 else None
            if leaf.bad is not None:
                unit, limit = "readings", float(leaf.bad)
            elif unit and (leaf.rate_above is not None or leaf.rate_below is not None):
                unit = f"{unit}/{format_duration(parse_duration(leaf.per))}"
        alarm = Alarm(
            alert=alert,
            flow=self.flow,
            priority=one.priority,
            text=self.settings.text or self.text,
            condition=self.text,
            since=_told(one.since),
            opened=_told(series.opened),
            closed=_told(one.time) if what == "closed" else None,
            value=one.value if math.isfinite(one.value) else None,
            limit=limit,
            worst=one.worst if math.isfinite(one.worst) else None,
            unit=unit,
            place=self.attribute(one.series, "place"),
            device=self.attribute(one.series, "device"),
            group=series.group.alert if series.group else None,
            note=note or ("flapping" if one.flapping else None),
        )
        self.out.append(self.row(alert, series.events, what, subject, one.time, alarm))
        series.events += 1

    def group_event(self, group: Group, what: str, time: int, now: int, note: str | None = None) -> None:
        assert group.alert is not None
        alarm = self.group_alarm(group, time if what == "closed" else None, note)
        self.out.append(self.row(group.alert, group.events, what, group.name, time, alarm))
        group.newest = None if what == "closed" else self.out[-1]
        group.events, group.changed, group.told = group.events + 1, False, now

    def group_alarm(self, group: Group, closed: int | None, note: str | None = None) -> Alarm:
        assert group.alert is not None
        return Alarm(
            alert=group.alert,
            flow=self.flow,
            priority=group.priority,
            text=f"{group.count} alerts: {self.text}",
            condition=self.text,
            since=_told(group.since),
            opened=_told(group.opened),
            closed=None if closed is None else _told(closed),
            place=group.name if self.settings.group is GroupBy.PLACE else None,
            note=note,
            members=tuple(group.members),
            count=group.count,
            standing=group.standing,
            suppressed=group.suppressed,
        )

    def row(self, alert: str, number: int, what: str, subject: str, time: int, alarm: Alarm) -> Row:
        return {
            "id": f"{alert}-{number}",
            "source": f"flow/{self.flow}",
            "type": f"ringmain.alarm.{what}",
            "subject": subject,
            "time": time,
            "datacontenttype": "application/json",
            "data": msgspec.json.encode(alarm),
        }


def _later(one: Happened, time: int) -> Happened:
    return Happened(one.what, time, one.series, one.since, one.value, one.worst, one.priority, one.flapping)


def _leaves(condition: Condition) -> list[Condition]:
    parts = condition.all or condition.any
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [condition]


def _beyond(quantity: float, above: float | None, below: float | None) -> bool:
    return (above is not None and quantity > above) or (below is not None and quantity < below)


def _told(time_ns: int) -> str:
    text = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{time_ns % 1_000_000_000:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def _conditions(silence: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Values of an input between -1 and 121."""
    kinds: list[st.SearchStrategy[dict[str, Any]]] = [
        st.sampled_from(
            [
                {"above": 50.0},
                {"above": 50.0, "clear_below": 0.5},
                {"below": 0.2},
                {"below": 0.2, "clear_above": 1.5},
                {"above": 105.0, "below": 0.2, "clear_below": 100.0, "clear_above": 0.5},
            ]
        ),
        st.sampled_from([{"rate_above": 60.0}, {"rate_above": 1.0, "rate_below": -1.0, "per": "1s"}]),
        st.sampled_from([{"bad": 1, "of": 3}, {"bad": 2, "of": 4, "clear_bad": 0}]),
    ]
    if silence:
        kinds.append(st.sampled_from([{"silent": "5s"}, {"silent": "9s"}]))
    return st.one_of(kinds)


@st.composite
def settings(draw: st.DrawFn) -> AlertSettings:
    grace = draw(st.sampled_from(["0s", "0s", "0s", "4s"]))
    simple = _conditions(grace == "0s")
    kind = draw(st.sampled_from(["one", "one", "all", "any", "deep"]))
    if kind == "one":
        condition = draw(simple)
    elif kind == "deep":
        condition = {"any": [draw(simple), {"all": [draw(simple), draw(simple)]}]}
    else:
        condition = {kind: draw(st.lists(simple, min_size=1, max_size=3))}
    table: dict[str, Any] = {
        **condition,
        "for": draw(st.sampled_from(["0s", "0s", "2s", "5s"])),
        "clear_for": draw(st.sampled_from(["0s", "0s", "3s"])),
        "update": draw(st.sampled_from(["0s", "3s", "5m"])),
        "flap": draw(st.sampled_from([0, 1, 2, 6])),
        "flap_within": draw(st.sampled_from(["4s", "30s"])),
        "group": draw(st.sampled_from(["none", "place", "place", "all", "medium"])),
        "group_above": draw(st.sampled_from([1, 1, 2])),
        "group_within": draw(st.sampled_from(["2s", "1m"])),
        "group_level": draw(st.sampled_from([0, 1])),
        "late": draw(st.sampled_from(["side", "drop"])),
        "grace": grace,
        "idle": "8s",
        "never_sent": draw(st.booleans()),
    }
    found = msgspec.convert(table, AlertSettings)
    if found.tree.of_silence_only and draw(st.booleans()):
        return msgspec.structs.replace(found, subject=Subject.DEVICE)
    if found.tree.measured is not None and draw(st.booleans()):
        return msgspec.structs.replace(found, escalate=(Escalation(priority=1, above=100.0),))
    return found


KNOWN: dict[int, dict[str, str | None]] = {
    0: {"place": "town/ss-1", "medium": "electricity", "device": "meter-1", "unit": "W"},
    1: {"place": "town/ss-1", "medium": "electricity", "device": "meter-1", "unit": None},
    2: {"place": "town/ss-2", "medium": None, "device": None, "unit": "kW"},
    900: {"place": None, "medium": "gas", "device": "meter-9", "unit": "m3/h"},
}
"""The catalogue that alarms name things from."""
