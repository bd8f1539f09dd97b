"""Conditions of steps: expressions that are TRUE or not, with their mistakes told by the setting they stand in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, Ids, Ints
from ringmain.flows.expression import Expression, compile_expression, scope_of
from ringmain.flows.expression_calendar import PARTS
from ringmain.flows.expression_syntax import parse
from ringmain.flows.expression_tree import Call, ExpressionError, Literal, Name, Tree
from ringmain.flows.expression_values import Kind
from ringmain.flows.step import PlanError, Shape, Surroundings
from ringmain.model.units import canonical_unit

_QUOTED = re.compile(r"""('(?:[^']|'')*'|"[^"]*")""")
_TIME = re.compile(r"\s*\d{4}-?\d\d")
_LOCAL = {*PARTS, "date_part", "date_trunc", "cast to date"}


def syntax_errors(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is wrong with expressions whatever their columns are; (setting, text) in, (setting, message) out."""
    errors = []
    for key, text in texts:
        try:
            parse(text)
        except ExpressionError as error:
            errors.append((key, str(error)))
    return errors


def unit_warnings(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Comparisons of `unit` with a text that is no unit; (setting, text) in, (setting, message) out."""
    warnings = []
    for key, text in texts:
        for part in _parts(text):
            if not (isinstance(part, Call) and part.name in ("=", "<>", "in", "is distinct from")):
                continue
            if not any(isinstance(one, Name) and one.name.lower() == "unit" for one in part.arguments):
                continue
            for one in part.arguments:
                if isinstance(one, Literal) and isinstance(one.value, str) and one.value:
                    try:
                        canonical_unit(one.value)
                    except ValueError as error:
                        warnings.append((key, f"{error} (at character {one.at + 1})"))
    return warnings


def _parts(text: str) -> Iterator[Tree]:
    """Every part of an expression's tree; none of a text that is no expression."""
    try:
        parts: list[Tree] = [parse(text)]
    except ExpressionError:
        return
    while parts:
        part = parts.pop()
        yield part
        if isinstance(part, Call):
            parts += part.arguments


def settled_text(text: str) -> str:
    """The text as part of a flow's definition: how it is broken into lines does not count (unless it has comments)."""
    if "--" in text or "/*" in text:
        return text
    return "".join(
        part if part[:1] in ("'", '"') else re.sub(r"\s+", " ", part) for part in _QUOTED.split(text.strip())
    )


def settled_zone(around: Surroundings, *texts: str) -> dict[str, str]:
    """`{"zone": NAME}` where expressions look at local time, which is then part of a flow's definition; else nothing."""
    return {"zone": around.zone.key} if any(map(_looks_at_local_time, texts)) else {}


def _looks_at_local_time(text: str) -> bool:
    return any(
        (isinstance(part, Call) and part.name in _LOCAL)
        or (isinstance(part, Literal) and isinstance(part.value, str) and _TIME.match(part.value) is not None)
        for part in _parts(text)
    )


def expression(key: str, text: str, shape: Shape, around: Surroundings, *wanted: Kind) -> Expression:
    """A compiled expression over rows of a shape. Raises PlanError."""
    try:
        return compile_expression(text, scope_of(shape, around.zone), *wanted)
    except ExpressionError as error:
        raise PlanError(key, str(error)) from error


def condition(key: str, text: str, shape: Shape, around: Surroundings) -> Expression:
    """A compiled condition over rows of a shape. Raises PlanError."""
    return expression(key, text, shape, around, Kind.BOOLEAN)


class Condition:
    """Finds the rows of blocks for which a condition is TRUE."""

    def __init__(self, compiled: Expression, attributes: Attributes) -> None:
        self._evaluator = compiled.evaluator(attributes)
        self._of_series = compiled.of_series
        self._attributes = attributes
        self._version = -1
        self._series: Ids | None = None
        self._places: Ints | None = None

    @property
    def of_series(self) -> bool:
        """Whether it looks at the series alone, not at what the rows say."""
        return self._of_series

    def places(self, block: Block) -> Ints | None:
        """The places of the rows, in order; None: all.

        Where the condition depends on the series only, they are found once for a run of blocks with the same series.
        """
        if not self._of_series:
            return self._found(block)
        series, before = block.series, self._series
        known = (
            before is not None
            and self._version == self._attributes.version
            and len(series) == len(before)
            and bool((series == before).all())
        )
        if not known:
            self._places = self._found(block)
            self._series, self._version = series.copy(), self._attributes.version
        return self._places

    def _found(self, block: Block) -> Ints | None:
        true = self._evaluator.true(block)
        return None if true.all() else np.flatnonzero(true)
