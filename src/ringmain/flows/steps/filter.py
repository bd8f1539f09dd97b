"""`filter`: keeps the rows that a condition holds for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ringmain.flows.block import Block
from ringmain.flows.conditions import (
    Condition,
    condition,
    settled_text,
    settled_zone,
    syntax_errors,
    unit_warnings,
)
from ringmain.flows.step import Context, Findings, Plan, Shape, Stateless, Step, StepSettings, Surroundings


class FilterSettings(StepSettings, frozen=True, tag="filter"):
    """Keeps a row when a condition is TRUE for it; rows for which it is FALSE or NULL are counted and left out.

    A reading without a value (NaN) is NULL in comparisons: `value > 0` leaves it out, and so does `not (value > 0)`;
    `value is null` finds it.
    """

    where: Annotated[
        str,
        msgspec.Meta(
            description="an expression that is true for the rows to keep, such as medium = 'electricity' and value > 0; "
            "see docs/expressions.md"
        ),
    ]

    def check(self) -> Findings:
        """What is wrong with the text of the condition."""
        return syntax_errors([("where", self.where)]), unit_warnings([("where", self.where)])

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """The condition, and the zone if it looks at local time."""
        return {"where": settled_text(self.where), **settled_zone(around, self.where)}

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows stay as they are."""
        return Plan(shape, attributes=condition("where", self.where, shape, around).attributes)

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        compiled = condition("where", self.where, shape, context.surroundings)
        return Filter(Condition(compiled, context.attributes), context)


class Filter(Stateless):
    """See `FilterSettings`. Counts `filtered`."""

    def __init__(self, where: Condition, context: Context) -> None:
        self._where = where
        self._context = context

    def take(self, block: Block) -> Sequence[Block]:
        """The rows for which the condition is true; the same block where it is for all."""
        places = self._where.places(block)
        if places is None:
            return (block,)
        self._context.count("filtered", len(block) - len(places))
        return (block.take(places),) if len(places) else ()
