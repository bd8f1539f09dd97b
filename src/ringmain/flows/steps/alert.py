"""Step `alert`: conditions over readings become alarms, each with one life: opened, updated, closed.

What is decided where: which condition is true for which series in `alerts/watch.py`, when an alert opens and closes in
`alerts/life.py`, what is told of it, and what a group alarm stands for, in `alerts/telling.py` and `alerts/groups.py`,
and what all that is fed with in `alerts/step.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec

from ringmain.flows.alerts.conditions import (
    Above,
    Bad,
    Below,
    ClearAbove,
    ClearBad,
    ClearBelow,
    Condition,
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
from ringmain.flows.alerts.rows import row_form
from ringmain.flows.alerts.step import AlertStep
from ringmain.flows.alerts.wording import PLACEHOLDER, PLACEHOLDERS
from ringmain.flows.conditions import condition, syntax_errors
from ringmain.flows.ordering_settings import Lateness, OrderedSettings, duration_errors
from ringmain.flows.step import Context, Findings, Plan, PlanError, Shape, Step, Surroundings
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.model.schemas import EVENT

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
    value: Annotated[
        str | None,
        msgspec.Meta(
            description="column to watch, where rows are windows or groups (mean, max, count ...); default: value"
        ),
    ] = None
    where: Annotated[
        str | None,
        msgspec.Meta(
            description="an expression that is true for the readings to look at, such as medium = 'heat'; see "
            "docs/expressions.md; default: all"
        ),
    ] = None
    never_sent: Annotated[
        bool,
        msgspec.Meta(
            description="whether `silent` counts from a series' entry in the catalogue on, so that one that never sends is "
            "silent too; where the alert is the first step over `readings`, and `where` looks at the catalogue alone; "
            "else a series is known from its first reading on"
        ),
    ] = True
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
        msgspec.Meta(
            description="an open alarm whose worst value changed is updated at most so often (a group alarm: every 10s, or this)"
        ),
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
    def of_devices(self) -> bool:
        """Whether an alert is about a device."""
        return self.subject is Subject.DEVICE

    @property
    def tree(self) -> Tree:
        """The condition's tree."""
        return tree_of(self.condition)

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = OrderedSettings.check(self)
        errors += list(check_condition(self.condition))
        errors += [] if self.where is None else syntax_errors([("where", self.where)])
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
            if self.of_devices and not tree.of_silence_only:
                errors.append(
                    ("subject", "expected `silent` alone for alerts of devices: values belong to series")
                )
            if tree.has_silence and self.grace_ns:
                errors.append(("grace", "expected none beside `silent`: readings held back are not silence"))
        return errors, warnings

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """All but the text: it may be changed without beginning anew, for alarms from then on."""
        told = OrderedSettings.definition(self, around)
        told.pop("text", None)
        if not self.tree.has_silence:
            told.pop("never_sent", None)
        return told

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Events come out of readings, and of rows of windows and groups."""
        form = row_form(shape, self.value)
        attributes: set[str] = set()
        if form.of_series:
            attributes |= {"key", "place", "device", "unit"}
            if self.group not in (GroupBy.ALL, GroupBy.NONE):
                attributes.add(self.group.value)
        elif self.of_devices:
            raise PlanError("subject", "expected readings for alerts of devices: rows of groups have none")
        elif self.late is Lateness.SIDE:
            raise PlanError(
                "late", "expected `drop`: rows of groups have no place in a stream of late readings"
            )
        if self.where is not None:
            attributes |= condition("where", self.where, shape, around).attributes
        return Plan(
            Shape(StreamKind.EVENT, EVENT, late_safe=False),
            streams=self.late_streams(around),
            attributes=frozenset(attributes),
        )

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return AlertStep(self, shape, context)

    def grouping(self) -> Grouping | None:
        """How alerts are grouped."""
        if self.group is GroupBy.NONE:
            return None
        attribute = None if self.group is GroupBy.ALL else self.group.value
        return Grouping(attribute, self.group_level, self.group_above, parse_duration(self.group_within))
