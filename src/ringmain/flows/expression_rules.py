"""What the rules of operators and functions share: how nodes are made, and how their kinds are brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows import expression_calendar as calendar
from ringmain.flows.expression_tree import ExpressionError
from ringmain.flows.expression_values import Column, Kernel, Kind, Level, Node

_N, _I, _T, _B, _TIME, _SPAN = Kind.NUMBER, Kind.INTEGER, Kind.TEXT, Kind.BOOLEAN, Kind.TIME, Kind.SPAN


class Making(Protocol):
    """What a rule is given to make nodes with."""

    zone: ZoneInfo

    def node(self, kind: Kind, kernel: Kernel, arguments: Sequence[Node], at: int) -> Node:
        """A node that applies a kernel to its arguments."""
        ...

    def literal(self, value: Any, kind: Kind, at: int) -> Node:
        """A constant."""
        ...

    def column(self, name: str, at: int) -> Node:
        """A column by its name."""
        ...


Rule = Callable[[Making, str, "list[Node]", int], Node]
"""Makes the node of a function or operator: its name, its arguments, its place in the text. Raises ExpressionError."""


def as_kind(making: Making, node: Node, kind: Kind) -> Node:
    """The node as one of another kind, where that is always possible: NULL, and whole numbers as numbers."""
    if node.kind is kind:
        return node
    if node.kind is Kind.NULL:
        return making.literal(None, kind, node.at)
    if node.kind is Kind.INTEGER and kind is Kind.NUMBER:
        return making.node(kind, as_number, [node], node.at)
    raise ExpressionError(f"expected {kind.value}, found {node.kind.value}", node.at)


def alike(making: Making, nodes: list[Node], what: str) -> tuple[Kind, list[Node]]:
    """Nodes brought to one kind; a constant text beside a time is read as one."""
    kinds = {node.kind for node in nodes} - {Kind.NULL}
    if kinds == {_TIME, _T}:
        nodes = [time_constant(making, node) if node.kind is _T else node for node in nodes]
        kinds = {_TIME}
    if kinds == {_I, _N}:
        kinds = {_N}
    if len(kinds) > 1:
        first = next(node for node in nodes if node.kind is not Kind.NULL)
        other = next(node for node in nodes if node.kind not in (Kind.NULL, first.kind))
        hint = ""
        if {first.kind, other.kind} & {_I, _N} and _T in {first.kind, other.kind}:
            hint = ": write text in quotes, such as '5', or make it a number with cast(... as double)"
        raise ExpressionError(f"{what} of {first.kind.value} with {other.kind.value}{hint}", other.at)
    if not kinds:
        return Kind.NULL, nodes
    kind = kinds.pop()
    return kind, [as_kind(making, node, kind) for node in nodes]


def as_number(value: Column) -> Column:
    """Whole numbers or truth values as numbers."""
    return Column(value.data.astype(np.float64), value.null)


def need(name: str, arguments: list[Node], at: int, least: int, most: int | None = None) -> None:
    """Raise ExpressionError unless there are so many arguments."""
    most = least if most is None else most
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} or more" if most > 1000 else f"{least} to {most}"
        raise ExpressionError(f"{name}() takes {wanted} arguments, found {len(arguments)}", at)


def constant_of(name: str, node: Node, kind: Kind) -> Any:
    """The value of a constant argument of that kind."""
    if node.kind is not kind or node.level is not Level.CONSTANT or node.constant is None:
        example = "'text'" if kind is _T else "1"
        raise ExpressionError(f"{name} takes a constant such as {example} here", node.at)
    return node.constant


def time_constant(making: Making, node: Node) -> Node:
    """A constant text as a time. Raises ExpressionError."""
    written = constant_of("a comparison with a time", node, _T)
    try:
        return making.literal(calendar.time_of(written, making.zone), _TIME, node.at)
    except ValueError as error:
        raise ExpressionError(
            f"expected a time such as '2026-03-29 02:00' or '2026-03-29T01:00Z', found {written!r}", node.at
        ) from error


def numeric(sign: str, arguments: list[Node]) -> Kind:
    """The kind of numbers that the arguments together are. Raises ExpressionError."""
    for node in arguments:
        if not node.kind.numeric and node.kind is not Kind.NULL:
            hint = "; write epoch(...) for its seconds" if node.kind in (_TIME, _SPAN) else ""
            raise ExpressionError(f"`{sign}` takes numbers, found {node.kind.value}{hint}", node.at)
    return _N if any(node.kind is _N for node in arguments) else _I


def as_texts(making: Making, name: str, arguments: list[Node]) -> list[Node]:
    """The arguments, which are texts or NULL. Raises ExpressionError."""
    for node in arguments:
        if node.kind not in (_T, Kind.NULL):
            raise ExpressionError(f"{name} takes text, found {node.kind.value}", node.at)
    return [as_kind(making, node, _T) for node in arguments]
