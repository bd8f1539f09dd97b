"""The step `latest-sum`: the live total of the newest values, by group."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ringmain.flows.conditions import expression, syntax_errors
from ringmain.flows.expression import Expression
from ringmain.flows.expression_values import Kind
from ringmain.flows.grouping import (
    By,
    Term,
    attributes_of,
    named_terms,
    resolved,
    terms_of,
    unit_kept,
)
from ringmain.flows.latest import WhenStale
from ringmain.flows.latest_step import LatestSum, total_schema
from ringmain.flows.ordering_settings import duration_errors, durations_told
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    Shape,
    StepSettings,
    Surroundings,
)
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration

_NAMES = ("time", "value", "quality", "series", "reporting", "expected", "stale", "oldest")


class LatestSumSettings(StepSettings, frozen=True, tag="latest-sum"):
    """The live total of the newest value of each series, by group: area load, feed-in, residual load.

    A row a group for every instant in which something changed. Values are added in order of their series, so the sum
    does not depend on the order of arrival. A value that is older than the known one of its series never replaces it; a
    newest value that is invalid takes its series out.
    """

    by: Annotated[
        By,
        msgspec.Meta(
            description="what makes a group: attributes of the series (place, place[2], place[:2], medium, device, "
            "owner, external.NAME) or columns of the rows; a table names the columns: { area = 'place[1]' }. Nothing: "
            "one total"
        ),
    ] = ()
    weight: Annotated[
        str | None,
        msgspec.Meta(
            description="an expression by which each value is multiplied, such as case quantity when 'feed-in' then -1 else "
            "1 end; taken with each series' newest value. A series for which it is NULL is left out"
        ),
    ] = None
    stale: Annotated[
        str | None,
        msgspec.Meta(description="a series that was silent for so long (by log time) is stale; none: never"),
    ] = "15m"
    when_stale: Annotated[
        WhenStale,
        msgspec.Meta(description="the value of a stale series leaves the sum (remove) or stays (keep)"),
    ] = WhenStale.REMOVE
    every: Annotated[
        str, msgspec.Meta(description="at most one row a group in so much log time; 0s: with every change")
    ] = "0s"

    @property
    def stale_ns(self) -> int | None:
        """See `stale`."""
        return None if self.stale is None else parse_duration(self.stale)

    @property
    def every_ns(self) -> int:
        """See `every`."""
        return parse_duration(self.every)

    def check(self) -> Findings:
        """Errors that the settings alone show."""
        errors = duration_errors(self, ("stale", "every"))
        if not errors and self.stale_ns is not None and self.stale_ns <= 0:
            errors.append(("stale", f"expected more than 0s, found {self.stale}"))
        try:
            terms = terms_of(self.by)
        except ValueError as error:
            errors.append(("by", str(error)))
        else:
            taken = next((term.name for term in terms if term.name in _NAMES), None)
            if taken is not None:
                errors.append(("by", f"the rows have a column {taken!r} already: give the term another name"))
        if self.weight is not None:
            errors += syntax_errors([("weight", self.weight)])
        return errors, []

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results; `60s` and `1m` are the same."""
        told = durations_told(super().definition(around), ("stale", "every"))
        return {**told, "by": named_terms(self.by)}

    def terms(self, shape: Shape) -> tuple[Term, ...]:
        """What makes a group; the unit does so too where series have different ones."""
        return unit_kept(resolved(terms_of(self.by), shape), shape)

    def factor(self, shape: Shape, around: Surroundings) -> Expression | None:
        """The compiled weight. Raises PlanError."""
        if self.weight is None:
            return None
        return expression("weight", self.weight, shape, around, Kind.NUMBER)

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows of totals."""
        shape.need_readings("latest-sum")
        terms, factor = self.terms(shape), self.factor(shape, around)
        needed = attributes_of(terms) | (frozenset() if factor is None else factor.attributes)
        return Plan(
            Shape(StreamKind.ROW, total_schema(terms), shape.unit, late_safe=False), attributes=needed
        )

    def make(self, shape: Shape, context: Context) -> LatestSum:
        """The step."""
        return LatestSum(self, self.terms(shape), self.factor(shape, context.surroundings), context)
