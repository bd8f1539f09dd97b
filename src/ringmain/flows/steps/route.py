"""`route`: sends rows to streams by conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from ringmain.flows.block import Block, Bools
from ringmain.flows.conditions import condition, settled_text, settled_zone, syntax_errors, unit_warnings
from ringmain.flows.expression import Evaluator
from ringmain.flows.flow import RESERVED, STREAM
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    Stateless,
    Step,
    StepSettings,
    Surroundings,
)

NEXT, DROP = "next", "drop"


class RouteCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[flows.NAME.steps.cases]]`: rows for which a condition is TRUE, and where they go."""

    where: Annotated[str, msgspec.Meta(description="an expression, see docs/expressions.md")]
    to: Annotated[
        str, msgspec.Meta(description="the stream that they go to; or next (the next step), or drop")
    ]


class RouteSettings(StepSettings, frozen=True, tag="route"):
    """Sends each row to the first case whose condition is TRUE for it, past all later steps.

    Rows for which no condition is TRUE do what `otherwise` says.
    """

    cases: Annotated[tuple[RouteCase, ...], msgspec.Meta(description="the cases, in order")]
    otherwise: Annotated[
        str, msgspec.Meta(description="rows of no case: next (the next step), drop (counted), or a stream")
    ] = NEXT

    def check(self) -> Findings:
        """What is wrong with the conditions' text and the streams' names."""
        wheres = [(f"cases.{number}.where", case.where) for number, case in enumerate(self.cases)]
        errors = syntax_errors(wheres)
        targets = [(f"cases.{number}.to", case.to) for number, case in enumerate(self.cases)]
        for key, name in (*targets, ("otherwise", self.otherwise)):
            if not STREAM.fullmatch(name) or name in RESERVED:
                errors.append((key, f"expected next, drop or a stream of the flow's own, found {name!r}"))
        if not self.cases:
            errors.append(("cases", "expected at least one case, found none"))
        return errors, unit_warnings(wheres)

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """The cases, and the zone if one looks at local time."""
        return {
            "cases": [{"where": settled_text(case.where), "to": case.to} for case in self.cases],
            "otherwise": self.otherwise,
            **settled_zone(around, *(case.where for case in self.cases)),
        }

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows stay as they are; every stream that is named gets some."""
        attributes: set[str] = set()
        for number, case in enumerate(self.cases):
            attributes |= condition(f"cases.{number}.where", case.where, shape, around).attributes
        targets = [(f"cases.{number}.to", case.to) for number, case in enumerate(self.cases)]
        streams: dict[str, Shape] = {}
        for key, name in (*targets, ("otherwise", self.otherwise)):
            if name == around.to:
                raise PlanError(
                    key, f"{name!r} is what the flow itself writes: say next to let rows go on to it"
                )
            if name == around.input:
                raise PlanError(key, f"the flow reads {name!r}, and would get its own rows again")
            if name not in (NEXT, DROP):
                streams[name] = shape
        return Plan(shape, streams=streams, attributes=frozenset(attributes))

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        around = context.surroundings
        wheres = [
            condition(f"cases.{number}.where", case.where, shape, around).evaluator(context.attributes)
            for number, case in enumerate(self.cases)
        ]
        return Route(wheres, [case.to for case in self.cases], self.otherwise, context)


class Route(Stateless):
    """See `RouteSettings`. Counts `dropped`, and `routed`: rows sent to streams."""

    def __init__(self, wheres: list[Evaluator], to: list[str], otherwise: str, context: Context) -> None:
        self._wheres = wheres
        targets = list(dict.fromkeys([*to, otherwise]))
        self._targets = targets
        self._number = [targets.index(name) for name in to]
        self._otherwise = targets.index(otherwise)
        self._context = context

    def take(self, block: Block) -> Sequence[Block]:
        """A block for each target that gets rows, in the order in which the cases name them."""
        target = np.full(len(block), self._otherwise, np.int32)
        free: Bools = np.ones(len(block), np.bool_)
        for where, number in zip(self._wheres, self._number, strict=True):
            taken = where.true(block) & free
            target[taken] = number
            free &= ~taken
        counts = np.bincount(target, minlength=len(self._targets))
        out: list[Block] = []
        for number, name in enumerate(self._targets):
            rows = int(counts[number])
            if not rows:
                continue
            if name == DROP:
                self._context.count("dropped", rows)
                continue
            part = block if rows == len(block) else block.take(target == number)
            if name != NEXT:
                self._context.count("routed", rows)
                part = Block(part.rows, part.arrival_ns, name)
            out.append(part)
        return out
