"""Conditions of steps: expressions that are TRUE or not, with their mistakes told by the setting they stand in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, Ids, Ints
from ringmain.flows.expression import Expression, compile_expression, scope_of
from ringmain.flows.expression_syntax import ExpressionError, parse
from ringmain.flows.expression_values import Kind
from ringmain.flows.step import PlanError, Shape, Surroundings


def syntax_errors(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is wrong with expressions whatever their columns are; (setting, text) in, (setting, message) out."""
    errors = []
    for key, text in texts:
        try:
            parse(text)
        except ExpressionError as error:
            errors.append((key, str(error)))
    return errors


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
