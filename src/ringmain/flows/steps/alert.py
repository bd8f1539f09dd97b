"""Step `alert`: conditions over readings become alarms, each with one life: opened, updated, closed.

What is decided where: which condition is true for which series in `alerts/watch.py`, when an alert opens and closes in
`alerts/life.py`, what is told of it, and what a group alarm stands for, in `alerts/telling.py` and `alerts/groups.py`.

Log time is looked at as far as it passed under observation: a node writes a tick every second, so a longer pause (the
node was down, its clock was set, it booted in 1970) is nobody's silence and counts as `UNSEEN_NS` at most, or a quarter
of the silence that is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from ringmain.flows.alerts.conditions import (
    Above,
    Bad,
    Below,
    ClearAbove,
    ClearBad,
    ClearBelow,
    Condition,
    Leaf,
    LeafKind,
    Of,
    Per,
    RateAbove,
    RateBelow,
    Silent,
    Tree,
    check_condition,
    tree_of,
)
from ringmain.flows.alerts.groups import Grouping
from ringmain.flows.alerts.life import Lives, Ranks, Timing
from ringmain.flows.alerts.spokesmen import Spokesmen
from ringmain.flows.alerts.telling import PLACEHOLDER, PLACEHOLDERS, Teller, Wording
from ringmain.flows.alerts.watch import Watch
from ringmain.flows.block import Block, Ids, Ints
from ringmain.flows.ordering import Ordering
from ringmain.flows.ordering_rows import Ordered
from ringmain.flows.ordering_settings import Lateness, OrderedSettings, duration_errors
from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.state import NEVER
from ringmain.flows.step import Context, Findings, Plan, Shape, StepState, Surroundings
from ringmain.log.interface import StreamKind
from ringmain.model.duration import format_duration, parse_duration
from ringmain.model.schemas import EVENT

UNSEEN_NS = 10_000_000_000
DURATION_MAX_NS = 366 * 86_400_000_000_000
_DURATIONS = ("for_", "clear_for", "update", "flap_within", "group_within")


class GroupBy(StrEnum):
    """What alerts are grouped by."""

    PLACE = "place"
    DEVICE = "device"
    MEDIUM = "medium"
    OWNER = "owner"
    SOURCE = "source"
    ALL = "all"
    NONE = "none"


class Subject(StrEnum):
    """What an alert is about."""

    SERIES = "series"
    DEVICE = "device"


class Escalation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further limit, beyond which an alert has a higher priority."""

    priority: Annotated[int, msgspec.Meta(description="the priority then", ge=1, le=3)]
    above: Annotated[float | None, msgspec.Meta(description="when the worst value is greater")] = None
    below: Annotated[float | None, msgspec.Meta(description="when the worst value is less")] = None


class AlertSettings(OrderedSettings, frozen=True, tag="alert", rename={"for_": "for"}):
    """Opens an alarm for each series (or device) whose condition is true, updates it, and closes it: one alarm, one id.

    The alarms are Events on the stream that the flow writes (`to = "alarms"`). `[alerts.NAME]` is the short form.
    """

    version: ClassVar[int] = 1

    above: Above = None
    below: Below = None
    clear_below: ClearBelow = None
    clear_above: ClearAbove = None
    rate_above: RateAbove = None
    rate_below: RateBelow = None
    per: Per = "1m"
    silent: Silent = None
    bad: Bad = None
    of: Of = 20
    clear_bad: ClearBad = None
    all: Annotated[
        tuple[Condition, ...],
        msgspec.Meta(description="several conditions of a series, true when all of them are"),
    ] = ()
    any: Annotated[
        tuple[Condition, ...],
        msgspec.Meta(description="several conditions of a series, true when at least one of them is"),
    ] = ()
    subject: Annotated[
        Subject,
        msgspec.Meta(
            description="what an alert is about: series, or device (for `silent` alone: nothing from any of its series)"
        ),
    ] = Subject.SERIES
    for_: Annotated[str, msgspec.Meta(description="how long the condition must be true to open an alarm")] = (
        "0s"
    )
    clear_for: Annotated[
        str, msgspec.Meta(description="how long it must be false again to close the alarm")
    ] = "0s"
    priority: Annotated[int, msgspec.Meta(description="1 (first), 2 or 3", ge=1, le=3)] = 3
    escalate: Annotated[
        tuple[Escalation, ...],
        msgspec.Meta(
            description="further limits of the first condition with a value, and the priority beyond them"
        ),
    ] = ()
    text: Annotated[
        str,
        msgspec.Meta(
            description="what an operator reads; {subject}, {place}, {device}, {value}, {limit}, {unit}, {condition} and "
            "{flow} are replaced; default: the condition",
            max_length=500,
        ),
    ] = ""
    update: Annotated[
        str,
        msgspec.Meta(description="an open alarm whose worst value changed is updated at most so often"),
    ] = "5m"
    flap: Annotated[
        int,
        msgspec.Meta(
            description="an alarm that changed more often than this within `flap_within` stays open until its condition was "
            "false for so long; 0: never",
            ge=0,
            le=32,
        ),
    ] = 6
    flap_within: Annotated[str, msgspec.Meta(description="see `flap`")] = "10m"
    group: Annotated[
        GroupBy,
        msgspec.Meta(
            description="alerts that become one alarm when many open at once: those of a place, device, medium, owner or "
            "source, all of them, or none"
        ),
    ] = GroupBy.PLACE
    group_level: Annotated[
        int,
        msgspec.Meta(
            description="parts of the place's path that name the group, e.g. 2 of leipzig/ss-07/feeder-3; 0: all",
            ge=0,
        ),
    ] = 0
    group_above: Annotated[
        int,
        msgspec.Meta(
            description="a group alarm opens when more alerts than this open within `group_within`",
            ge=1,
            le=1000,
        ),
    ] = 5
    group_within: Annotated[str, msgspec.Meta(description="see `group_above`")] = "1m"
    late: Annotated[
        Lateness,
        msgspec.Meta(
            description="a reading that is not newer than one of its series that was worked on before: "
            "side (to the stream TO.late) or drop (counted)"
        ),
    ] = Lateness.DROP

    @property
    def condition(self) -> Condition:
        """The condition that stands in the settings."""
        return Condition(**{name: getattr(self, name) for name in Condition.__struct_fields__})

    @property
    def tree(self) -> Tree:
        """The condition's tree."""
        return tree_of(self.condition)

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = OrderedSettings.check(self)
        errors += list(check_condition(self.condition))
        bad = duration_errors(self, _DURATIONS)
        errors += [(key.rstrip("_"), message) for key, message in bad]
        if not bad:
            for name in _DURATIONS:
                if parse_duration(getattr(self, name)) > DURATION_MAX_NS:
                    errors.append((name.rstrip("_"), f"expected 366d at most, found {getattr(self, name)}"))
        for number, step in enumerate(self.escalate):
            if (step.above is None) == (step.below is None):
                errors.append((f"escalate.{number}", "expected either `above` or `below`"))
            elif step.priority >= self.priority:
                errors.append(
                    (
                        f"escalate.{number}.priority",
                        f"expected one before {self.priority}, found {step.priority}",
                    )
                )
        for name in PLACEHOLDER.findall(self.text):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
                errors.append(("text", f"expected {known}, found {{{name}}}"))
        if not errors:
            tree = self.tree
            if self.escalate and tree.measured is None:
                errors.append(
                    ("escalate", "expected a condition with a limit beside it, found silence alone")
                )
            if self.subject is Subject.DEVICE and not tree.of_silence_only:
                errors.append(
                    ("subject", "expected `silent` alone for alerts of devices: values belong to series")
                )
            if tree.has_silence and self.grace_ns:
                errors.append(("grace", "expected none beside `silent`: readings held back are not silence"))
        return errors, warnings

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Events come out of readings."""
        shape.need_readings("alert")
        attributes = {"key", "place", "device", "unit"}
        if self.group not in (GroupBy.ALL, GroupBy.NONE):
            attributes.add(self.group.value)
        return Plan(
            Shape(StreamKind.EVENT, EVENT, late_safe=False),
            streams=self.late_streams(around),
            attributes=frozenset(attributes),
        )

    def make(self, shape: Shape, context: Context) -> AlertStep:
        """The step."""
        return AlertStep(self, shape, context)

    def grouping(self) -> Grouping | None:
        """How alerts are grouped."""
        if self.group is GroupBy.NONE:
            return None
        attribute = None if self.group is GroupBy.ALL else self.group.value
        return Grouping(attribute, self.group_level, self.group_above, parse_duration(self.group_within))


class AlertStep:
    """The fold. An instant's readings are worked on when log time moves, then what log time itself brings."""

    def __init__(self, settings: AlertSettings, shape: Shape, context: Context) -> None:
        tree = settings.tree
        leaf = None if tree.measured is None else tree.leaves[tree.measured]
        timing = Timing(
            parse_duration(settings.for_),
            parse_duration(settings.clear_for),
            parse_duration(settings.update),
            settings.flap,
            parse_duration(settings.flap_within),
        )
        beyond = tuple(
            (
                np.inf if one.above is None else one.above,
                -np.inf if one.below is None else one.below,
                one.priority,
            )
            for one in settings.escalate
        )
        unit, per = _unit(leaf, shape)
        wording = Wording(
            flow=context.surroundings.flow,
            subject="device" if settings.subject is Subject.DEVICE else "key",
            text=settings.text,
            condition=tree.text,
            limit=None if leaf is None else leaf.limit,
            unit=unit,
            per=per,
            update_ns=timing.update_ns,
        )
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._watch = Watch(tree)
        self._lives = Lives(timing, Ranks(settings.priority, beyond), leaf)
        self._teller = Teller(wording, settings.grouping(), context)
        self._devices = Spokesmen(context) if settings.subject is Subject.DEVICE else None
        self._values = not tree.of_silence_only
        self._silence = tree.has_silence
        shortest = min(
            (leaf.duration_ns for leaf in tree.leaves if leaf.kind is LeafKind.SILENCE), default=4 * UNSEEN_NS
        )
        self._step_ns = min(UNSEEN_NS, shortest // 4)
        self._now = NEVER
        self._clock = 0
        """Log time as far as it passed under observation, from 0 on."""

    def take(self, block: Block) -> Sequence[Block]:
        """Rows of the present instant."""
        if self._silence and len(block):
            self._arrived(block.series)
        if self._values:
            self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The instant has ended: what its readings say, then what the time says."""
        before, clock = self._now, self._clock
        if self._silence:
            self._follow(self._watch.heard(clock), before, clock)
        ordered = self._ordering.release(now_ns) if self._values else None
        if ordered is not None:
            self._readings(ordered, before, clock)
        if before != NEVER:
            self._clock += min(now_ns - before, self._step_ns)
        self._now = now_ns
        self._lives.pass_time(self._clock, now_ns)
        if self._silence:
            self._follow(self._watch.silent(self._clock), now_ns, self._clock)
        return [*self._ordering.late_blocks(), *self._teller.tell(self._lives.happenings(), now_ns)]

    def _arrived(self, series: Ids) -> None:
        if int(series.max()) >= SERIES_MAX:
            series = series[series < SERIES_MAX]
        if not len(series):
            return
        self._reserve(int(series.max()) + 1)
        if self._devices is None:
            self._watch.arrived(series, self._clock)
        else:
            self._watch.arrived(self._devices.of(series), self._clock)

    def _follow(self, series: Ints, time_ns: int, clock: int) -> None:
        """The silence of these series began or ended."""
        if len(series):
            holds = self._watch.holds(self._watch.truth[series])
            time = np.full(len(series), time_ns, np.int64)
            self._lives.follow(series, time, holds, None, clock, time_ns)

    def _readings(self, ordered: Ordered, now: int, clock: int) -> None:
        self._reserve(ordered.size)
        for step in ordered.rounds():
            time = ordered.time[step.rows]
            bits, measured = self._watch.readings(
                step.series, time, ordered.value[step.rows], ordered.quality[step.rows]
            )
            holds = self._watch.holds(bits)
            matters = holds | (self._lives.status[step.series] != 0)
            if not matters.any():
                continue
            at = np.flatnonzero(matters)
            series = at + step.series.start if isinstance(step.series, slice) else step.series[at]
            when = np.full(len(at), now, np.int64) if self._silence else time[at]
            self._lives.follow(
                series, when, holds[at], None if measured is None else measured[at], clock, now
            )

    def _reserve(self, size: int) -> None:
        self._watch.reserve(size)
        self._lives.reserve(self._watch.size)
        self._teller.reserve(self._watch.size)

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "alert_moments": np.array([self._now, self._clock], np.int64),
            **self._ordering.state(),
            **self._watch.state(),
            **self._lives.state(),
            **self._teller.state(),
            **({} if self._devices is None else self._devices.state()),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        moments = state["alert_moments"]
        assert not isinstance(moments, bytes)
        self._now, self._clock = int(moments[0]), int(moments[1])
        self._ordering.restore(state)
        self._watch.restore(state)
        self._lives.restore(state)
        self._teller.restore(state)
        if self._devices is not None:
            self._devices.restore(state)


def _unit(leaf: Leaf | None, shape: Shape) -> tuple[str | None, str | None]:
    """The unit of what an alarm tells, and what follows a series' unit (None: it is not told in that)."""
    if leaf is None:
        return None, None
    if leaf.kind is LeafKind.QUALITY:
        return "readings", None
    return shape.unit, f"/{format_duration(leaf.duration_ns)}" if leaf.kind is LeafKind.RATE else ""
