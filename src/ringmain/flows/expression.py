"""Expressions over the rows of a flow: SQL syntax, compiled once, computed over whole columns.

    compiled = compile_expression("medium = 'electricity' and value > 0", scope_of(shape, around.zone), Kind.BOOLEAN)
    evaluator = compiled.evaluator(context.attributes)
    keep = evaluator.true(block)

Names, types and constants are checked when an expression is compiled; from then on it cannot fail: what has no result
is NULL. It sees one row, what the catalogue says of the row's series, and nothing else, so it gives the same whenever
the log is folded. Parts that depend on the series only are computed once a series (`expression_series.py`). How text
is read: `expression_syntax.py`; what functions there are: `expression_functions.py`; what users are told of all this:
docs/expressions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import ATTRIBUTES, Attributes
from ringmain.flows.block import Block, Bools, Ids, Ints
from ringmain.flows.expression_columns import BlockRows, kind_of
from ringmain.flows.expression_functions import apply
from ringmain.flows.expression_rules import as_kind
from ringmain.flows.expression_series import SeriesPart
from ringmain.flows.expression_syntax import parse
from ringmain.flows.expression_tree import Call, ExpressionError, Literal, Name, Span, Tree, nearest
from ringmain.flows.expression_values import DTYPES, Column, Kernel, Kind, Level, Node, Rows, constant
from ringmain.flows.step import Shape
from ringmain.model.quality import Quality

PARTS_MAX = 20_000
"""Operators and functions of an expression, with those that stand for several."""

_QUALITY_WORDS = {
    "valid", "good", "questionable", "invalid", "measured", "substituted", "estimated", "calculated",
    *(bit.name.lower() for bit in Quality if bit.name),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name: columns of the rows, and with `series` among them those of the catalogue.

    `unit`: that of the values where a step has given all rows one.
    """

    schema: pa.Schema
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    unit: str | None = None

    @property
    def names(self) -> list[str]:
        """Every name that can be written, without those of `external`."""
        names = [*self.schema.names, "arrived"]
        if "quality" in self.schema.names:
            names += sorted(_QUALITY_WORDS)
        if self.of_series:
            names += ATTRIBUTES
        return names

    @property
    def of_series(self) -> bool:
        """Whether the rows belong to series."""
        return "series" in self.schema.names and self.schema.field("series").type == pa.uint32()


def scope_of(shape: Shape, zone: ZoneInfo) -> Scope:
    """What an expression over rows of a shape may name."""
    return Scope(shape.schema, zone, shape.unit)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `attributes`: the columns of the catalogue that it asks for (`Plan.attributes`)."""

    text: str
    kind: Kind
    attributes: frozenset[str]
    root: Node
    parts: tuple[Node, ...]
    """What depends on the series only."""
    of_series: bool = False
    """Whether all of it does."""

    def evaluator(self, attributes: Attributes) -> Evaluator:
        """What computes it, with a catalogue."""
        return Evaluator(self, attributes)


def compile_expression(text: str, scope: Scope, *wanted: Kind) -> Expression:
    """Compile an expression that gives one of the wanted kinds (none: any). Raises ExpressionError."""
    making = _Compiler(scope)
    node = making.tree(parse(text))
    if wanted and node.kind not in wanted:
        if node.kind is Kind.NULL or (node.kind is Kind.INTEGER and Kind.NUMBER in wanted):
            node = as_kind(making, node, wanted[0] if node.kind is Kind.NULL else Kind.NUMBER)
        else:
            expected = " or ".join(kind.value for kind in wanted)
            raise ExpressionError(f"expected an expression that gives {expected}, found {node.kind.value}")
    of_series = node.level is Level.SERIES
    if of_series:
        node = making.gathered(node)
    return Expression(text, node.kind, frozenset(making.attributes), node, tuple(making.parts), of_series)


class _Compiler:
    """Makes nodes of a tree, bottom up; what is constant is computed at once."""

    def __init__(self, scope: Scope) -> None:
        self.zone = scope.zone
        self.parts: list[Node] = []
        self.attributes: set[str] = set()
        self._scope = scope
        self._made = 0

    def tree(self, tree: Tree) -> Node:
        """The node of a tree."""
        self._made += 1
        if self._made > PARTS_MAX:
            raise ExpressionError("the expression is too large; split it into several steps")
        match tree:
            case Literal(value, at):
                return self.literal(value, _kind_of_literal(value), at)
            case Span(ns, at):
                return self.literal(ns, Kind.SPAN, at)
            case Name(name, of, at):
                return self.column(name, at) if of is None else self._named(name, of, at)
            case Call():
                return apply(self, tree, [self.tree(argument) for argument in tree.arguments])

    def literal(self, value: Any, kind: Kind, at: int) -> Node:
        """A constant."""
        column = constant(value, kind)
        return Node(kind, Level.CONSTANT, lambda _: column, at, value)

    def node(self, kind: Kind, kernel: Kernel, arguments: Sequence[Node], at: int) -> Node:
        """A node that applies a kernel to its arguments."""
        level = max((argument.level for argument in arguments), default=Level.CONSTANT)
        if level is Level.ROW:
            arguments = [
                self.gathered(argument) if argument.level is Level.SERIES else argument
                for argument in arguments
            ]
        evaluates = tuple(argument.evaluate for argument in arguments)

        def evaluate(rows: Rows) -> Column:
            return kernel(*[evaluate(rows) for evaluate in evaluates])

        if level is Level.CONSTANT:
            with np.errstate(all="ignore"):
                column = evaluate(_NO_ROWS)
            return Node(kind, level, lambda _: column, at, _value(column))
        return Node(kind, level, evaluate, at)

    def gathered(self, node: Node) -> Node:
        """A node of the series as one of the rows."""
        number = len(self.parts)
        self.parts.append(node)
        return Node(node.kind, Level.ROW, lambda rows: rows.part(number), node.at)

    def column(self, name: str, at: int) -> Node:
        """The column of a name: of the rows, else what follows from quality, else of the catalogue."""
        names = self._scope.schema.names
        folded = name if name in names else name.lower()
        if folded == "series" and self._scope.of_series:
            return self._attribute("key", at)
        if folded in names:
            kind = kind_of(self._scope.schema.field(folded).type)
            if kind is None:
                found = self._scope.schema.field(folded).type
                raise ExpressionError(f"column {folded!r} holds {found}, which expressions cannot read", at)
            return Node(kind, Level.ROW, lambda rows: rows.column(folded), at)
        if folded == "arrived":
            return Node(Kind.TIME, Level.ROW, lambda rows: rows.arrived(), at)
        if folded in _QUALITY_WORDS and "quality" in names:
            return Node(Kind.BOOLEAN, Level.ROW, lambda rows: rows.column(f"quality {folded}"), at)
        if folded == "unit" and self._scope.unit is not None:
            return self.literal(self._scope.unit, Kind.TEXT, at)
        if folded in ATTRIBUTES:
            return self._attribute(folded, at)
        if folded == "external":
            raise ExpressionError("expected the name of an external name, such as external['MeLo']", at)
        raise ExpressionError(f"unknown column {name!r}{nearest(name, self._scope.names)}", at)

    def _named(self, name: str, of: str, at: int) -> Node:
        if of.lower() == "external":
            return self._attribute(f"external.{name}", at)
        if of.lower() == "series":
            if name.lower() not in ATTRIBUTES:
                raise ExpressionError(f"unknown attribute {name!r}{nearest(name, ATTRIBUTES)}", at)
            return self._attribute(name.lower(), at)
        raise ExpressionError(
            f"unknown name {of}.{name}; only `series.` and `external.` stand before a name", at
        )

    def _attribute(self, name: str, at: int) -> Node:
        if not self._scope.of_series:
            raise ExpressionError(f"the rows belong to no series, so that there is no {name!r}", at)
        self.attributes.add(name.split(".")[0])
        return Node(Kind.TEXT, Level.SERIES, lambda rows: rows.attribute(name), at)


class Evaluator:
    """Computes an expression over blocks. Used by one thread."""

    def __init__(self, expression: Expression, attributes: Attributes) -> None:
        self.expression = expression
        self._evaluate = expression.root.evaluate
        self._parts = [SeriesPart(part, attributes) for part in expression.parts]
        self._series: Ids = np.empty(0, np.uint32)
        self._index: Ints = np.empty(0, np.int64)
        self._gathered: dict[int, Column] = {}
        self._attributes = attributes
        self._version = -1

    def column(self, block: Block) -> Column:
        """The values, one element a row."""
        size = len(block)
        if not size:
            kind = self.expression.kind
            return Column(pa.array([], pa.string()) if kind is Kind.TEXT else np.empty(0, DTYPES[kind]))
        with np.errstate(all="ignore"):
            found = self._evaluate(BlockRows(block, self._part))
        data, null = found.data, found.null
        if len(data) != size:
            data = pa.repeat(data[0], size) if isinstance(data, pa.Array) else np.broadcast_to(data, size)
        if null is not None and len(null) != size:
            null = np.broadcast_to(null, size)
        return Column(data, null)

    def true(self, block: Block) -> Bools:
        """Where a condition is TRUE."""
        found: Bools = self.column(block).data
        return found

    def _part(self, number: int, series: Ids) -> Column:
        """A part that depends on the series only; gathered once for a run of blocks with the same series column."""
        if self._version != self._attributes.version or not _same(series, self._series):
            self._version = self._attributes.version
            self._series = series.copy()
            self._index = series.astype(np.int64)
            self._gathered.clear()
        found = self._gathered.get(number)
        if found is None:
            found = self._gathered[number] = self._parts[number].gather(self._index)
        return found


class _NoRows:
    """What constants are computed over."""

    def column(self, name: str) -> Column:
        raise AssertionError(f"a constant does not depend on {name}")

    attribute = column

    def part(self, number: int) -> Column:
        raise AssertionError(f"a constant has no part {number}")

    def arrived(self) -> Column:
        raise AssertionError("a constant does not depend on arrival")


_NO_ROWS = _NoRows()


def _same(left: Ids, right: Ids) -> bool:
    return len(left) == len(right) and bool((left == right).all())


def _value(column: Column) -> Any:
    if column.null is not None and column.null[0]:
        return None
    value = column.data[0]
    return value.as_py() if isinstance(value, pa.Scalar) else value.item()


def _kind_of_literal(value: object) -> Kind:
    if value is None:
        return Kind.NULL
    kinds = {bool: Kind.BOOLEAN, int: Kind.INTEGER, float: Kind.NUMBER, str: Kind.TEXT}
    return kinds[type(value)]
