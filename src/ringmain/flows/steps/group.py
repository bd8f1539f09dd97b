"""The step `group`: values of windows over all series of a group."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ringmain.flows.aggregates import Late
from ringmain.flows.grouping import By, Term, attributes_of, named_terms, resolved, terms_of, unit_kept
from ringmain.flows.grouping_step import GroupStep
from ringmain.flows.grouping_totals import GroupValue, group_schema, per_series
from ringmain.flows.step import Context, Findings, Plan, PlanError, Shape, StepSettings, Surroundings
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.flows.totals import LATE
from ringmain.log.interface import StreamKind

_NAMES = ("start", "end", "series", "reporting", "expected", "completeness", "revision", *GroupValue)


class GroupSettings(StepSettings, frozen=True, kw_only=True, tag="group"):
    """Values of windows in event time over all series of a group: feeder, substation, area, tariff.

    A group's window is emitted when every device of the group has passed it, by `grace`; a device that was silent for
    `idle`, or is behind the median of all devices by more than `idle`, is not waited for. A row is a group's window:
    the group, start, end, the values, how many series are in it and how many are known, and `revision`, which grows each
    time the window is emitted again. Values are formed in order of series, so they do not depend on the order of arrival.
    """

    by: Annotated[
        By,
        msgspec.Meta(
            description="what makes a group: attributes of the series (place, place[2], place[:2], medium, device, "
            "owner, external.NAME) or columns of the rows; a table names the columns: { area = 'place[1]' }. Nothing: "
            "all series"
        ),
    ]
    window: Annotated[
        str,
        msgspec.Meta(
            description="length of a window: a duration aligned to the UTC epoch (1m, 15m, 1h), or hour, day, week, "
            "month, quarter, year of the local calendar"
        ),
    ] = "1m"
    values: Annotated[
        tuple[GroupValue, ...],
        msgspec.Meta(
            description="what to compute: count, sum, mean, min, max of all readings, and sum_of_means: the sum over the "
            "series of each series' mean, which is the total load where values are powers"
        ),
    ] = (GroupValue.COUNT, GroupValue.MEAN, GroupValue.MIN, GroupValue.MAX, GroupValue.SUM_OF_MEANS)
    late: Annotated[
        Late,
        msgspec.Meta(
            description="a reading whose window is closed: revise (compute the group's window again), "
            "side (to the stream TO.late) or drop (counted)"
        ),
    ] = Late.REVISE
    grace: Annotated[
        str,
        msgspec.Meta(description="how far a device's newest time must be past a window's end to close it"),
    ] = "10s"
    idle: Annotated[
        str,
        msgspec.Meta(
            description="a device that was silent for so long, or is so far behind the others, is not waited for"
        ),
    ] = "30s"
    calendar: Annotated[
        bool,
        msgspec.Meta(description="align a `window` of 15m to 1d to local midnight instead of the UTC epoch"),
    ] = False
    zone: Annotated[
        str | None,
        msgspec.Meta(description="time zone of the calendar, e.g. Europe/Berlin; the node's by default"),
    ] = None
    offset: Annotated[
        str, msgspec.Meta(description="windows begin so much later: 6h makes gas days of calendar days")
    ] = "0s"

    @property
    def columns(self) -> tuple[GroupValue, ...]:
        """The values in the order in which they stand in the stream."""
        return tuple(value for value in GroupValue if value in self.values)

    def windows(self) -> WindowStepSettings:
        """The windows of the series."""
        return WindowStepSettings(
            window=self.window,
            values=per_series(self.columns),
            late=self.late,
            grace=self.grace,
            idle=self.idle,
            calendar=self.calendar,
            zone=self.zone,
            offset=self.offset,
        )

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = self.windows().check()
        try:
            terms = terms_of(self.by)
        except ValueError as error:
            errors.append(("by", str(error)))
        else:
            taken = next((term.name for term in terms if term.name in _NAMES), None)
            if taken is not None:
                errors.append(("by", f"the rows have a column {taken!r} already: give the term another name"))
        if not self.values:
            errors.append(("values", f"expected at least one of {', '.join(GroupValue)}"))
        if len(set(self.values)) != len(self.values):
            found = ", ".join(value.value for value in self.values)
            errors.append(("values", f"expected each value once, found {found}"))
        return errors, warnings

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results; `60s` and `1m` are the same."""
        told = self.windows().definition(around)
        told["values"] = [value.value for value in self.columns]
        told["by"] = named_terms(self.by)
        return told

    def terms(self, shape: Shape) -> tuple[Term, ...]:
        """What makes a group; the unit does so too where series have different ones."""
        return unit_kept(resolved(terms_of(self.by), shape), shape)

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows of groups' windows, and late readings beside them."""
        shape.need_readings("group")
        if self.late is Late.REVISE and not shape.late_safe:
            raise PlanError(
                "late",
                'a group with late = "revise" is computed again from the log, which a step with a memory before it makes '
                'impossible: set late = "side" or "drop", or let a flow of its own form the groups',
            )
        terms = self.terms(shape)
        return Plan(
            Shape(StreamKind.ROW, group_schema(terms, self.columns), shape.unit, late_safe=False),
            streams={f"{around.to}.late": Shape(StreamKind.ROW, LATE)},
            attributes=attributes_of(terms),
            chained=self.late is not Late.REVISE,
        )

    def make(self, shape: Shape, context: Context) -> GroupStep:
        """The step."""
        windowing = self.windows().windowing(context.surroundings)
        return GroupStep(windowing, self.terms(shape), self.columns, context, late_safe=shape.late_safe)
