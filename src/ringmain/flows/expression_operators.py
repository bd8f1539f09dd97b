"""The operators of expressions: what each takes, what it gives, and by which kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ringmain.flows import expression_calendar as calendar
from ringmain.flows import expression_numbers as numbers
from ringmain.flows import expression_text as text
from ringmain.flows.expression_rules import (
    Making,
    Rule,
    alike,
    as_kind,
    as_number,
    as_texts,
    constant_of,
    need,
    numeric,
    time_constant,
)
from ringmain.flows.expression_tree import ExpressionError
from ringmain.flows.expression_values import Column, Kernel, Kind, Level, Node

_N, _I, _T, _B, _TIME, _SPAN = Kind.NUMBER, Kind.INTEGER, Kind.TEXT, Kind.BOOLEAN, Kind.TIME, Kind.SPAN


# Comparison and logic

_COMPARED: Final = {
    "=": (np.equal, "equal"), "<>": (np.not_equal, "not_equal"), "<": (np.less, "less"),
    "<=": (np.less_equal, "less_equal"), ">": (np.greater, "greater"), ">=": (np.greater_equal, "greater_equal"),
}  # fmt: skip


def comparison(sign: str, kind: Kind) -> Kernel:
    """The kernel of a comparison of two values of one kind."""
    number, name = _COMPARED[sign]
    return text.compared(name) if kind is _T else numbers.compared(number)


def _compared(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    kind, arguments = alike(making, arguments, "comparison")
    return making.node(_B, comparison(sign, kind), arguments, at)


def _between(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    kind, arguments = alike(making, arguments, "comparison")
    if kind is not _T:
        return making.node(_B, numbers.between, arguments, at)
    low, high = text.compared("greater_equal"), text.compared("less_equal")
    return making.node(
        _B,
        lambda value, least, most: numbers.all_of(low(value, least), high(value, most)),
        arguments,
        at,
    )


def _distinct(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    kind, arguments = alike(making, arguments, "comparison")
    node = making.node(_B, numbers.distinct(comparison("=", kind)), arguments, at)
    return node if name == "is distinct from" else making.node(_B, numbers.negation, [node], at)


def _logic(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    arguments = [as_kind(making, node, _B) for node in arguments]
    kernel = numbers.all_of if name == "and" else numbers.any_of
    ready = [node for node in arguments if node.level is not Level.ROW]
    if 1 < len(ready) < len(arguments):  # what does not depend on rows becomes one part
        rest = [node for node in arguments if node.level is Level.ROW]
        arguments = [making.node(_B, kernel, ready, at), *rest]
    return making.node(_B, kernel, arguments, at)


def _not(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    return making.node(_B, numbers.negation, [as_kind(making, arguments[0], _B)], at)


def _is_null(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    return making.node(_B, numbers.is_null, arguments, at)


def _is_truth(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    kernel = numbers.is_true if name == "is true" else numbers.is_false
    return making.node(_B, kernel, [as_kind(making, arguments[0], _B)], at)


def _in(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    kind, (value, *others) = alike(making, arguments, "comparison")
    if any(node.level is not Level.CONSTANT for node in others) or kind is _B:
        equal = comparison("=", kind)
        return making.node(
            _B, numbers.any_of, [making.node(_B, equal, [value, node], at) for node in others], at
        )
    known = [node.constant for node in others if node.constant is not None]
    with_null = len(known) < len(others)
    if kind is _T:
        return making.node(_B, text.among(known, with_null), [value], at)
    dtype = np.float64 if kind is _N else np.int64
    return making.node(_B, numbers.among(np.array(known, dtype), with_null), [value], at)


def case(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    """CASE, and if(): condition, value, condition, value ..., the value otherwise."""
    whens = [as_kind(making, node, _B) for node in arguments[:-1:2]]
    kind, values = alike(making, [*arguments[1::2], arguments[-1]], "CASE")
    mixed = [node for pair in zip(whens, values[:-1], strict=True) for node in pair]
    return making.node(kind, text.case if kind is _T else numbers.case, [*mixed, values[-1]], at)


# Arithmetic

_SUMS: Final = {"+": (numbers.added, np.add), "-": (numbers.subtracted, np.subtract)}


def _sum(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    if _TIME in (node.kind for node in arguments):
        arguments = [time_constant(making, node) if node.kind is _T else node for node in arguments]
    kinds = tuple(node.kind for node in arguments)
    times = {
        (_TIME, _SPAN): _TIME,
        (_SPAN, _SPAN): _SPAN,
        **({(_SPAN, _TIME): _TIME} if sign == "+" else {(_TIME, _TIME): _SPAN}),
    }
    if kinds in times:
        return making.node(times[kinds], _SUMS[sign][0], arguments, at)
    return _arithmetic(making, sign, arguments, at, *_SUMS[sign])


def _arithmetic(
    making: Making, sign: str, arguments: list[Node], at: int, whole: Kernel, number: Callable[..., Any]
) -> Node:
    kind = numeric(sign, arguments)
    arguments = [as_kind(making, node, kind) for node in arguments]
    return making.node(kind, whole if kind is _I else numbers.floats(number), arguments, at)


def _product(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    return _arithmetic(making, sign, arguments, at, numbers.multiplied, np.multiply)


def _quotient(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    numeric(sign, arguments)
    return making.node(_N, numbers.divided, [as_kind(making, node, _N) for node in arguments], at)


def remainder(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    """`%`, and mod()."""
    need(name, arguments, at, 2)
    kind = numeric(name, arguments)
    kernel = numbers.whole_remainder if kind is _I else numbers.remainder
    return making.node(kind, kernel, [as_kind(making, node, kind) for node in arguments], at)


def _whole(kernel: Kernel) -> Rule:
    """An operator of whole numbers only."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        for node in arguments:
            if node.kind not in (_I, Kind.NULL):
                raise ExpressionError(f"`{name}` takes whole numbers, found {node.kind.value}", node.at)
        return making.node(_I, kernel, [as_kind(making, node, _I) for node in arguments], at)

    return rule


def unary(whole: Kernel, number: Kernel) -> Rule:
    """A function of one number whose result is of the same kind."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        need(name, arguments, at, 1)
        kind = numeric(name, arguments)
        kernel = whole if kind is _I else number
        return making.node(kind, kernel, [as_kind(making, arguments[0], kind)], at)

    return rule


def joined(kernel: Kernel) -> Rule:
    """A function of any number of texts."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        need(name, arguments, at, 1, 10_000)
        return making.node(_T, kernel, as_texts(making, name, arguments), at)

    return rule


def _like(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    told = [constant_of(name.upper(), node, _T) for node in arguments[1:]]
    escape = told[1] if len(told) == 2 else None
    if escape is not None and len(escape) != 1:
        raise ExpressionError("expected one character after ESCAPE", arguments[2].at)
    try:
        question = text.like(told[0], escape, name == "ilike")
    except ValueError as error:
        raise ExpressionError(str(error), arguments[1].at) from error
    return making.node(_B, text.asked(question), as_texts(making, name.upper(), arguments[:1]), at)


# Casts

_CASTS: Final[dict[tuple[Kind, Kind], Kernel]] = {
    (_T, _N): text.number_of,
    (_T, _I): text.whole_of,
    (_T, _B): text.truth_of,
    (_N, _I): numbers.whole_of,
    (_N, _B): lambda value: numbers.compared(np.not_equal)(value, Column(np.zeros(1))),
    (_I, _B): lambda value: numbers.compared(np.not_equal)(value, Column(np.zeros(1, np.int64))),
    (_B, _N): as_number,
    (_B, _I): lambda value: Column(value.data.astype(np.int64), value.null),
    (_I, _N): as_number,
    (_I, _T): text.text_of,
    (_B, _T): text.text_of,
}


def _cast(to: Kind) -> Rule:
    def rule(making: Making, _: str, arguments: list[Node], at: int) -> Node:
        node = arguments[0]
        if node.kind in (to, Kind.NULL):
            return as_kind(making, node, to)
        if to is _TIME and node.kind is _T:
            return time_constant(making, node)
        kernel = _CASTS.get((node.kind, to))
        if kernel is None:
            raise ExpressionError(f"no cast of {node.kind.value} to {to.value}", at)
        return making.node(to, kernel, [node], at)

    return rule


def _cast_to_date(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    time = _cast(_TIME)(making, name, arguments, at)
    return making.node(_TIME, calendar.truncated("day", making.zone), [time], at)


OPERATORS: Final[dict[str, Rule]] = {
    **dict.fromkeys(_COMPARED, _compared),
    "between": _between, "is distinct from": _distinct, "is not distinct from": _distinct,
    "and": _logic, "or": _logic, "not": _not, "is null": _is_null, "is true": _is_truth, "is false": _is_truth,
    "in": _in, "case": case, "like": _like, "ilike": _like, "||": joined(text.joined),
    "+": _sum, "-": _sum, "*": _product, "/": _quotient, "//": _whole(numbers.whole_divided), "%": remainder,
    "neg": unary(numbers.negated, numbers.floats(np.negative)),
    "&": _whole(numbers.bits(np.bitwise_and)), "|": _whole(numbers.bits(np.bitwise_or)),
    "~": _whole(numbers.bits(np.invert)),
    "cast to number": _cast(_N), "cast to integer": _cast(_I), "cast to boolean": _cast(_B),
    "cast to text": _cast(_T), "cast to time": _cast(_TIME), "cast to date": _cast_to_date,
}  # fmt: skip
