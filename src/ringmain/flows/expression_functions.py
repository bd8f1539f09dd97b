"""The functions of expressions: what each takes, what it gives, and by which kernel.

The list is closed: every function gives the same for the same arguments, today and when the log is folded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from ringmain.flows import expression_calendar as calendar
from ringmain.flows import expression_numbers as numbers
from ringmain.flows import expression_text as text
from ringmain.flows.expression_operators import OPERATORS, case, comparison, joined, remainder, unary
from ringmain.flows.expression_rules import (
    Making,
    Rule,
    alike,
    as_kind,
    as_texts,
    constant_of,
    need,
    numeric,
    time_constant,
)
from ringmain.flows.expression_tree import Call, ExpressionError, nearest
from ringmain.flows.expression_values import Column, Kernel, Kind, Node
from ringmain.model.quality import Quality, Validity

_N, _I, _T, _B, _TIME, _SPAN = Kind.NUMBER, Kind.INTEGER, Kind.TEXT, Kind.BOOLEAN, Kind.TIME, Kind.SPAN


_MARKS: Final = {bit.name.lower(): int(bit) for bit in Quality if bit.name}
_VALIDITY: Final = {"good": Validity.GOOD, "questionable": Validity.QUESTIONABLE, "invalid": Validity.INVALID}
_ORIGIN: Final = {"measured": 0, "substituted": 4, "estimated": 8, "calculated": 12}
_REFUSED: Final = {
    **dict.fromkeys(
        ("now", "current_timestamp", "current_date", "today", "localtime", "get_current_timestamp"),
        "a result must not depend on when it is computed; `arrived` is when the row came",
    ),
    **dict.fromkeys(
        ("random", "uuid", "gen_random_uuid", "setseed"), "results must be the same in every run"
    ),
    **dict.fromkeys(
        [
            "sum",
            "avg",
            "mean",
            "count",
            "min",
            "max",
            "first",
            "last",
            "median",
            "stddev",
            "lag",
            "lead",
            "any",
        ],
        "an expression sees one row; aggregates are a `window` step",
    ),
}


def apply(making: Making, call: Call, arguments: list[Node]) -> Node:
    """The node of a function or operator with its arguments. Raises ExpressionError."""
    name, at = call.name, call.at
    if not call.function:
        return OPERATORS[name](making, name, arguments, at)
    rule = FUNCTIONS.get(name)
    if rule is None:
        if name in _REFUSED:
            raise ExpressionError(f"no function {name}() in expressions: {_REFUSED[name]}", at)
        raise ExpressionError(f"unknown function {name}(){nearest(name, FUNCTIONS)}", at)
    return rule(making, name, arguments, at)


def _if(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 3)
    return case(making, name, arguments, at)


def _coalesce(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 2 if name == "ifnull" else 1, 2 if name == "ifnull" else 10_000)
    kind, arguments = alike(making, arguments, f"{name}()")
    return making.node(kind, text.first_known if kind is _T else numbers.first_known, arguments, at)


def _null_if(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 2)
    kind, arguments = alike(making, arguments, "nullif()")
    kernel = text.null_if if kind is _T else numbers.null_if(comparison("=", kind))
    return making.node(kind, kernel, arguments, at)


def _extreme(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 1, 10_000)
    kind, arguments = alike(making, arguments, f"{name}()")
    if kind is _T or kind is _B:
        raise ExpressionError(f"{name}() takes numbers or times, found {kind.value}", at)
    better = np.less if name == "least" else np.greater
    return making.node(kind, numbers.extreme(better), arguments, at)


def _number(kernel: Kernel, count: int = 1) -> Rule:
    """A function of numbers that gives a number."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        need(name, arguments, at, count)
        numeric(name, arguments)
        return making.node(_N, kernel, [as_kind(making, node, _N) for node in arguments], at)

    return rule


def _round(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 1, 2)
    places = constant_of(name, arguments[1], _I) if len(arguments) == 2 else 0
    if abs(places) > 18:
        raise ExpressionError(f"round() takes at most 18 places, found {places}", arguments[1].at)
    if numeric(name, arguments[:1]) is _I and places >= 0:
        return as_kind(making, arguments[0], _I)
    return making.node(_N, numbers.rounded(places), [as_kind(making, arguments[0], _N)], at)


def _same(value: Column) -> Column:
    return value


# Text


def _text(kind: Kind, make: Callable[..., Kernel], *constants: Kind, fewest: int | None = None) -> Rule:
    """A function of a text and constants, from which `make` makes its kernel."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        need(name, arguments, at, 1 + (len(constants) if fewest is None else fewest), 1 + len(constants))
        told = [
            constant_of(f"{name}()", node, wanted)
            for node, wanted in zip(arguments[1:], constants, strict=False)
        ]
        try:
            kernel = make(*told)
        except ValueError as error:
            raise ExpressionError(f"{name}(): {error}", at) from error
        return making.node(kind, kernel, as_texts(making, f"{name}()", arguments[:1]), at)

    return rule


# Time and quality


def _part(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    if name in ("date_part", "datepart"):
        need(name, arguments, at, 2)
        name, unit_at = constant_of(name, arguments[0], _T).lower(), arguments[0].at
        arguments = arguments[1:]
        if name == "epoch":
            return _epoch(making, name, arguments, at)
        name = {"dow": "dayofweek", "doy": "dayofyear"}.get(name, name)
        if name not in calendar.PARTS:
            known = (*calendar.PARTS, "epoch")
            raise ExpressionError(f"no part {name!r} of a time{nearest(name, known)}", unit_at)
    need(name, arguments, at, 1)
    return making.node(_I, calendar.part(name, making.zone), [_time(making, name, arguments[0])], at)


def _truncated(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 2)
    unit = constant_of(name, arguments[0], _T).lower()
    if unit not in calendar.TRUNCATIONS:
        raise ExpressionError(
            f"no unit {unit!r} to cut a time to{nearest(unit, calendar.TRUNCATIONS)}", arguments[0].at
        )
    return making.node(_TIME, calendar.truncated(unit, making.zone), [_time(making, name, arguments[1])], at)


def _time(making: Making, name: str, node: Node) -> Node:
    if node.kind is _T:
        return time_constant(making, node)
    if node.kind not in (_TIME, Kind.NULL):
        raise ExpressionError(f"{name}() takes a time, found {node.kind.value}", node.at)
    return as_kind(making, node, _TIME)


def _epoch(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 1)
    node = arguments[0]
    if node.kind not in (_TIME, _SPAN):
        raise ExpressionError(f"{name}() takes a time or an interval, found {node.kind.value}", node.at)
    if name == "epoch":
        return making.node(_N, lambda value: Column(value.data / 1e9, value.null), [node], at)
    if name == "epoch_ns":
        return making.node(_I, _same, [node], at)
    return making.node(_I, lambda value: Column(value.data // 1_000_000, value.null), [node], at)


def _marked(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    """The row's quality with marks set; one of validity or origin replaces the present one."""
    need(name, arguments, at, 1, 16)
    keep, put = -1, 0
    for node in arguments:
        mark = constant_of(f"{name}()", node, _T)
        if mark in _VALIDITY:
            keep, put = keep & ~3, (put & ~3) | _VALIDITY[mark]
        elif mark in _ORIGIN:
            keep, put = keep & ~12, (put & ~12) | _ORIGIN[mark]
        elif mark in _MARKS:
            put |= _MARKS[mark]
        else:
            known = (*_VALIDITY, *_ORIGIN, *_MARKS)
            raise ExpressionError(f"no quality {mark!r}{nearest(mark, known)}", node.at)
    quality = making.column("quality", at)
    return making.node(_I, lambda value: Column((value.data & keep) | put, value.null), [quality], at)


def _place_level(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    need(name, arguments, at, 1)
    level = constant_of(name, arguments[0], _I)
    if level == 0:
        raise ExpressionError("place_level() counts from 1, from the end below 0", at)
    kernel = text.changed(text.split_part("/", level, None))
    return making.node(_T, kernel, [making.column("place", at)], at)


FUNCTIONS: Final[dict[str, Rule]] = {
    "abs": unary(numbers.absolute, numbers.floats(np.abs)), "round": _round,
    "floor": unary(_same, numbers.floats(np.floor)), "ceil": unary(_same, numbers.floats(np.ceil)),
    "ceiling": unary(_same, numbers.floats(np.ceil)), "trunc": unary(_same, numbers.floats(np.trunc)),
    "least": _extreme, "greatest": _extreme,
    "sqrt": _number(numbers.floats(np.sqrt)), "exp": _number(numbers.floats(np.exp)),
    "ln": _number(numbers.positive_log(np.log)), "log10": _number(numbers.positive_log(np.log10)),
    "power": _number(numbers.power, 2), "pow": _number(numbers.power, 2), "mod": remainder,
    "coalesce": _coalesce, "ifnull": _coalesce, "nullif": _null_if, "if": _if,
    "lower": _text(_T, lambda: text.changed(text.lower)), "upper": _text(_T, lambda: text.changed(text.upper)),
    "trim": _text(_T, lambda: text.changed(text.trim)), "length": _text(_I, lambda: text.length),
    "substring": _text(_T, text.substring, _I, _I, fewest=1), "substr": _text(_T, text.substring, _I, _I, fewest=1),
    "split_part": _text(_T, text.part_of, _T, _I), "replace": _text(_T, text.replaced, _T, _T),
    "starts_with": _text(_B, text.starting, _T), "ends_with": _text(_B, text.ending, _T),
    "contains": _text(_B, text.containing, _T), "regexp_matches": _text(_B, text.found, _T),
    "concat": joined(text.concatenated),
    **dict.fromkeys(calendar.PARTS, _part), "date_part": _part, "date_trunc": _truncated,
    "epoch": _epoch, "epoch_ms": _epoch, "epoch_ns": _epoch,
    "place_level": _place_level, "marked": _marked,
}  # fmt: skip
"""Every function by its name."""
