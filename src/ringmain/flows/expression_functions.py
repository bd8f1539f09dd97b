"""The operators and functions of expressions: what each takes, what it gives, and by which kernel.

The list is closed: every function gives the same for the same arguments, today and when the log is folded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows import expression_calendar as calendar
from ringmain.flows import expression_numbers as numbers
from ringmain.flows import expression_text as text
from ringmain.flows.expression_syntax import ExpressionError, nearest
from ringmain.flows.expression_values import Column, Kernel, Kind, Level, Node
from ringmain.model.quality import Quality, Validity

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
        (
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
        ),
        "an expression sees one row; aggregates are a `window` step",
    ),
}


def apply(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    """The node of a function or operator. Raises ExpressionError."""
    rule = RULES.get(name)
    if rule is None:
        if name in _REFUSED:
            raise ExpressionError(f"no function {name}() in expressions: {_REFUSED[name]}", at)
        raise ExpressionError(f"unknown function {name}(){nearest(name, FUNCTIONS)}", at)
    return rule(making, name, arguments, at)


def as_kind(making: Making, node: Node, kind: Kind) -> Node:
    """The node as one of another kind, where that is always possible: NULL, and whole numbers as numbers."""
    if node.kind is kind:
        return node
    if node.kind is Kind.NULL:
        return making.literal(None, kind, node.at)
    if node.kind is Kind.INTEGER and kind is Kind.NUMBER:
        return making.node(kind, _as_number, [node], node.at)
    raise ExpressionError(f"expected {kind.value}, found {node.kind.value}", node.at)


def alike(making: Making, nodes: list[Node], what: str) -> tuple[Kind, list[Node]]:
    """Nodes brought to one kind; a constant text beside a time is read as one."""
    kinds = {node.kind for node in nodes} - {Kind.NULL}
    if kinds == {_TIME, _T}:
        nodes = [_time_constant(making, node) if node.kind is _T else node for node in nodes]
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
    kind = kinds.pop() if kinds else Kind.BOOLEAN
    return kind, [as_kind(making, node, kind) for node in nodes]


def _as_number(value: Column) -> Column:
    return Column(value.data.astype(np.float64), value.null)


def _need(name: str, arguments: list[Node], at: int, least: int, most: int | None = None) -> None:
    most = least if most is None else most
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} or more" if most > 1000 else f"{least} to {most}"
        raise ExpressionError(f"{name}() takes {wanted} arguments, found {len(arguments)}", at)


def _constant(name: str, node: Node, kind: Kind) -> Any:
    """The value of a constant argument of that kind."""
    if node.kind is not kind or node.level is not Level.CONSTANT or node.constant is None:
        example = "'text'" if kind is _T else "1"
        raise ExpressionError(f"{name} takes a constant such as {example} here", node.at)
    return node.constant


# Comparison and logic

_COMPARED: Final = {
    "=": (np.equal, "equal"), "<>": (np.not_equal, "not_equal"), "<": (np.less, "less"),
    "<=": (np.less_equal, "less_equal"), ">": (np.greater, "greater"), ">=": (np.greater_equal, "greater_equal"),
}  # fmt: skip


def _comparison(sign: str, kind: Kind) -> Kernel:
    number, name = _COMPARED[sign]
    return text.compared(name) if kind is _T else numbers.compared(number)


def _compared(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    kind, arguments = alike(making, arguments, "comparison")
    return making.node(_B, _comparison(sign, kind), arguments, at)


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
    node = making.node(_B, numbers.distinct(_comparison("=", kind)), arguments, at)
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
        equal = _comparison("=", kind)
        return making.node(
            _B, numbers.any_of, [making.node(_B, equal, [value, node], at) for node in others], at
        )
    known = [node.constant for node in others if node.constant is not None]
    with_null = len(known) < len(others)
    if kind is _T:
        return making.node(_B, text.among(known, with_null), [value], at)
    dtype = np.float64 if kind is _N else np.int64
    return making.node(_B, numbers.among(np.array(known, dtype), with_null), [value], at)


def _case(making: Making, _: str, arguments: list[Node], at: int) -> Node:
    whens = [as_kind(making, node, _B) for node in arguments[:-1:2]]
    kind, values = alike(making, [*arguments[1::2], arguments[-1]], "CASE")
    mixed = [node for pair in zip(whens, values[:-1], strict=True) for node in pair]
    return making.node(kind, text.case if kind is _T else numbers.case, [*mixed, values[-1]], at)


def _if(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 3)
    return _case(making, name, arguments, at)


def _coalesce(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 2 if name == "ifnull" else 1, 2 if name == "ifnull" else 10_000)
    kind, arguments = alike(making, arguments, f"{name}()")
    return making.node(kind, text.first_known if kind is _T else numbers.first_known, arguments, at)


def _null_if(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 2)
    kind, arguments = alike(making, arguments, "nullif()")
    kernel = text.null_if if kind is _T else numbers.null_if(_comparison("=", kind))
    return making.node(kind, kernel, arguments, at)


def _extreme(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 1, 10_000)
    kind, arguments = alike(making, arguments, f"{name}()")
    if kind is _T or kind is _B:
        raise ExpressionError(f"{name}() takes numbers or times, found {kind.value}", at)
    better = np.less if name == "least" else np.greater
    return making.node(kind, numbers.extreme(better), arguments, at)


# Arithmetic

_SUMS: Final = {"+": (numbers.added, np.add), "-": (numbers.subtracted, np.subtract)}


def _sum(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
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
    kind = _numeric(making, sign, arguments)
    arguments = [as_kind(making, node, kind) for node in arguments]
    return making.node(kind, whole if kind is _I else numbers.floats(number), arguments, at)


def _numeric(making: Making, sign: str, arguments: list[Node]) -> Kind:
    for node in arguments:
        if not node.kind.numeric and node.kind is not Kind.NULL:
            hint = "; write epoch(...) for its seconds" if node.kind in (_TIME, _SPAN) else ""
            raise ExpressionError(f"`{sign}` takes numbers, found {node.kind.value}{hint}", node.at)
    return _N if any(node.kind is _N for node in arguments) else _I


def _product(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    return _arithmetic(making, sign, arguments, at, numbers.multiplied, np.multiply)


def _quotient(making: Making, sign: str, arguments: list[Node], at: int) -> Node:
    _numeric(making, sign, arguments)
    return making.node(_N, numbers.divided, [as_kind(making, node, _N) for node in arguments], at)


def _remainder(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 2)
    kind = _numeric(making, name, arguments)
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


def _unary(whole: Kernel, number: Kernel) -> Rule:
    """A function of one number whose result is of the same kind."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        _need(name, arguments, at, 1)
        kind = _numeric(making, name, arguments)
        kernel = whole if kind is _I else number
        return making.node(kind, kernel, [as_kind(making, arguments[0], kind)], at)

    return rule


def _number(kernel: Kernel, count: int = 1) -> Rule:
    """A function of numbers that gives a number."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        _need(name, arguments, at, count)
        _numeric(making, name, arguments)
        return making.node(_N, kernel, [as_kind(making, node, _N) for node in arguments], at)

    return rule


def _round(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 1, 2)
    places = _constant(name, arguments[1], _I) if len(arguments) == 2 else 0
    if abs(places) > 18:
        raise ExpressionError(f"round() takes at most 18 places, found {places}", arguments[1].at)
    if _numeric(making, name, arguments[:1]) is _I and places >= 0:
        return as_kind(making, arguments[0], _I)
    return making.node(_N, numbers.rounded(places), [as_kind(making, arguments[0], _N)], at)


def _same(value: Column) -> Column:
    return value


# Text


def _texts(making: Making, name: str, arguments: list[Node]) -> list[Node]:
    for node in arguments:
        if node.kind not in (_T, Kind.NULL):
            raise ExpressionError(f"{name} takes text, found {node.kind.value}", node.at)
    return [as_kind(making, node, _T) for node in arguments]


def _text(kind: Kind, make: Callable[..., Kernel], *constants: Kind, fewest: int | None = None) -> Rule:
    """A function of a text and constants, from which `make` makes its kernel."""

    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        _need(name, arguments, at, 1 + (len(constants) if fewest is None else fewest), 1 + len(constants))
        told = [
            _constant(f"{name}()", node, wanted)
            for node, wanted in zip(arguments[1:], constants, strict=False)
        ]
        try:
            kernel = make(*told)
        except ValueError as error:
            raise ExpressionError(f"{name}(): {error}", at) from error
        return making.node(kind, kernel, _texts(making, f"{name}()", arguments[:1]), at)

    return rule


def _joined(kernel: Kernel) -> Rule:
    def rule(making: Making, name: str, arguments: list[Node], at: int) -> Node:
        _need(name, arguments, at, 1, 10_000)
        return making.node(_T, kernel, _texts(making, name, arguments), at)

    return rule


def _like(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    told = [_constant(name.upper(), node, _T) for node in arguments[1:]]
    escape = told[1] if len(told) == 2 else None
    if escape is not None and len(escape) != 1:
        raise ExpressionError("expected one character after ESCAPE", arguments[2].at)
    try:
        question = text.like(told[0], escape, name == "ilike")
    except ValueError as error:
        raise ExpressionError(str(error), arguments[1].at) from error
    return making.node(_B, text.asked(question), _texts(making, name.upper(), arguments[:1]), at)


# Time and quality


def _part(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    if name in ("date_part", "datepart"):
        _need(name, arguments, at, 2)
        name = _constant(name, arguments[0], _T).lower()
        arguments = arguments[1:]
        if name == "epoch":
            return _epoch(making, name, arguments, at)
        name = {"dow": "dayofweek", "doy": "dayofyear"}.get(name, name)
        if name not in calendar.PARTS:
            known = (*calendar.PARTS, "epoch")
            raise ExpressionError(f"no part {name!r} of a time{nearest(name, known)}", at)
    _need(name, arguments, at, 1)
    return making.node(_I, calendar.part(name, making.zone), [_time(making, name, arguments[0])], at)


def _truncated(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 2)
    unit = _constant(name, arguments[0], _T).lower()
    if unit not in calendar.TRUNCATIONS:
        raise ExpressionError(f"no unit {unit!r} to cut a time to{nearest(unit, calendar.TRUNCATIONS)}", at)
    return making.node(_TIME, calendar.truncated(unit, making.zone), [_time(making, name, arguments[1])], at)


def _time(making: Making, name: str, node: Node) -> Node:
    if node.kind is _T:
        return _time_constant(making, node)
    if node.kind not in (_TIME, Kind.NULL):
        raise ExpressionError(f"{name}() takes a time, found {node.kind.value}", node.at)
    return as_kind(making, node, _TIME)


def _time_constant(making: Making, node: Node) -> Node:
    written = _constant("a comparison with a time", node, _T)
    try:
        return making.literal(calendar.time_of(written, making.zone), _TIME, node.at)
    except ValueError as error:
        raise ExpressionError(
            f"expected a time such as '2026-03-29 02:00' or '2026-03-29T01:00Z', found {written!r}", node.at
        ) from error


def _epoch(making: Making, name: str, arguments: list[Node], at: int) -> Node:
    _need(name, arguments, at, 1)
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
    _need(name, arguments, at, 1, 16)
    keep, put = -1, 0
    for node in arguments:
        mark = _constant(f"{name}()", node, _T)
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
    _need(name, arguments, at, 1)
    level = _constant(name, arguments[0], _I)
    if level == 0:
        raise ExpressionError("place_level() counts from 1, from the end below 0", at)
    kernel = text.changed(text.split_part("/", level, None))
    return making.node(_T, kernel, [making.column("place", at)], at)


# Casts

_CASTS: Final[dict[tuple[Kind, Kind], Kernel]] = {
    (_T, _N): text.number_of,
    (_T, _I): lambda value: numbers.whole_of(text.number_of(value)),
    (_T, _B): text.truth_of,
    (_N, _I): numbers.whole_of,
    (_N, _B): lambda value: numbers.compared(np.not_equal)(value, Column(np.zeros(1))),
    (_I, _B): lambda value: numbers.compared(np.not_equal)(value, Column(np.zeros(1, np.int64))),
    (_B, _N): _as_number,
    (_B, _I): lambda value: Column(value.data.astype(np.int64), value.null),
    (_I, _N): _as_number,
    (_I, _T): text.text_of,
    (_B, _T): text.text_of,
}


def _cast(to: Kind) -> Rule:
    def rule(making: Making, _: str, arguments: list[Node], at: int) -> Node:
        node = arguments[0]
        if node.kind in (to, Kind.NULL):
            return as_kind(making, node, to)
        if to is _TIME and node.kind is _T:
            return _time_constant(making, node)
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
    "in": _in, "case": _case, "like": _like, "ilike": _like, "||": _joined(text.joined),
    "+": _sum, "-": _sum, "*": _product, "/": _quotient, "//": _whole(numbers.whole_divided), "%": _remainder,
    "neg": _unary(numbers.negated, numbers.floats(np.negative)),
    "&": _whole(numbers.bits(np.bitwise_and)), "|": _whole(numbers.bits(np.bitwise_or)),
    "~": _whole(numbers.bits(np.invert)),
    "cast to number": _cast(_N), "cast to integer": _cast(_I), "cast to boolean": _cast(_B),
    "cast to text": _cast(_T), "cast to time": _cast(_TIME), "cast to date": _cast_to_date,
}  # fmt: skip

FUNCTIONS: Final[dict[str, Rule]] = {
    "abs": _unary(numbers.absolute, numbers.floats(np.abs)), "round": _round,
    "floor": _unary(_same, numbers.floats(np.floor)), "ceil": _unary(_same, numbers.floats(np.ceil)),
    "ceiling": _unary(_same, numbers.floats(np.ceil)), "trunc": _unary(_same, numbers.floats(np.trunc)),
    "least": _extreme, "greatest": _extreme,
    "sqrt": _number(numbers.floats(np.sqrt)), "exp": _number(numbers.floats(np.exp)),
    "ln": _number(numbers.positive_log(np.log)), "log10": _number(numbers.positive_log(np.log10)),
    "power": _number(numbers.power, 2), "pow": _number(numbers.power, 2), "mod": _remainder,
    "coalesce": _coalesce, "ifnull": _coalesce, "nullif": _null_if, "if": _if,
    "lower": _text(_T, lambda: text.changed(text.lower)), "upper": _text(_T, lambda: text.changed(text.upper)),
    "trim": _text(_T, lambda: text.changed(text.trim)), "length": _text(_I, lambda: text.length),
    "substring": _text(_T, text.substring, _I, _I, fewest=1), "substr": _text(_T, text.substring, _I, _I, fewest=1),
    "split_part": _text(_T, text.part_of, _T, _I), "replace": _text(_T, text.replaced, _T, _T),
    "starts_with": _text(_B, text.starting, _T), "ends_with": _text(_B, text.ending, _T),
    "contains": _text(_B, text.containing, _T), "regexp_matches": _text(_B, text.found, _T),
    "concat": _joined(text.concatenated),
    **dict.fromkeys(calendar.PARTS, _part), "date_part": _part, "date_trunc": _truncated,
    "epoch": _epoch, "epoch_ms": _epoch, "epoch_ns": _epoch,
    "place_level": _place_level, "marked": _marked,
}  # fmt: skip
"""Every function by its name."""

RULES: Final[dict[str, Rule]] = {**OPERATORS, **FUNCTIONS}
