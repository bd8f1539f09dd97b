"""Turns what sqlglot parses into a small closed tree: whatever else SQL has is refused, with its place.

Nothing here knows columns or types: that is `expression.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ringmain.flows.expression_parser import FUNCTION, parsed
from ringmain.flows.expression_tree import Call, ExpressionError, Literal, Name, Span, Tree

DEPTH_MAX = 64
"""Operators within one another; AND, OR, IN and CASE with many parts count once."""
_BINARY: Final = {
    "EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">=", "Add": "+", "Sub": "-", "Mul": "*",
    "Div": "/", "IntDiv": "//", "Mod": "%", "Pow": "power", "BitwiseAnd": "&", "BitwiseOr": "|", "DPipe": "||",
    "NullSafeEQ": "is not distinct from", "NullSafeNEQ": "is distinct from", "Like": "like", "ILike": "ilike",
}  # fmt: skip
_UNARY: Final = {"Not": "not", "Neg": "neg", "BitwiseNot": "~"}
_HARMLESS: Final = {
    "Div": ("typed", "safe"), "DPipe": ("safe",), "Cast": ("safe",), "TryCast": ("safe",),
    "Interval": ("fraction_in_string",),
}  # fmt: skip
_CASTS: Final = {
    "DOUBLE": "number", "FLOAT": "number", "BIGINT": "integer", "INT": "integer", "BOOLEAN": "boolean",
    "TEXT": "text", "VARCHAR": "text", "TIMESTAMP": "time", "TIMESTAMPTZ": "time", "TIMESTAMPNTZ": "time",
    "TIMESTAMP_NS": "time", "DATE": "date",
}  # fmt: skip
_SPANS_NS: Final = {
    "nanosecond": 1, "microsecond": 1_000, "millisecond": 1_000_000, "second": 1_000_000_000,
    "minute": 60_000_000_000, "hour": 3_600_000_000_000,
}  # fmt: skip
_REFUSED: Final = {
    "Subquery": "a subquery", "Select": "a query", "Exists": "EXISTS", "Window": "a window function (OVER)",
    "Star": "`*`", "Placeholder": "a parameter", "Tuple": "a list in brackets, but after IN", "Alias": "a second name or word",
    "Array": "an array", "Struct": "a struct", "AtTimeZone": "AT TIME ZONE", "Collate": "COLLATE",
    **dict.fromkeys(
        ("CurrentTimestamp", "CurrentDate", "CurrentTime", "Localtime", "Localtimestamp"),
        "the present time: `arrived` is when the row came",
    ),
    "Any": "ANY", "Command": "a command", "JSONExtract": "JSON access", "Values": "VALUES", "Distinct": "DISTINCT",
    "RegexpLike": "`~`; write regexp_matches(text, 'pattern')", "SimilarTo": "SIMILAR TO", "Glob": "GLOB",
}  # fmt: skip


def parse(text: str) -> Tree:
    """The tree of an expression. Raises ExpressionError."""
    node = parsed(text)
    try:
        return _Reader().tree(node, 0, 0)
    except RecursionError:
        raise ExpressionError("the expression is nested too deeply; split it into several steps") from None


class _Reader:
    """Turns sqlglot's nodes into ours; a node, or a part of one, that is not known here is refused."""

    def __init__(self) -> None:
        self._special: dict[str, Callable[[Any, int, int], Tree]] = {
            "Paren": lambda node, at, depth: self.tree(node.this, at, depth + 1),
            "Column": self._name,
            "Bracket": self._bracket,
            "Literal": self._literal,
            "Null": lambda _, at, __: Literal(None, at),
            "Boolean": lambda node, at, _: Literal(bool(node.this), at),
            "And": self._many,
            "Or": self._many,
            "Is": self._is,
            "In": self._in,
            "Between": self._between,
            "Case": self._case,
            "Cast": self._cast,
            "TryCast": self._cast,
            "Extract": self._extract,
            "Interval": self._interval,
            "Anonymous": self._function,
            "Escape": self._escape,
        }

    def tree(self, node: Any, at: int, depth: int) -> Tree:
        """Our form of a node; `at` is taken where sqlglot does not know its place."""
        if node is None:
            raise ExpressionError("something is missing", at)
        if depth > DEPTH_MAX:
            raise ExpressionError(
                f"expected operators within one another at most {DEPTH_MAX} times; split the expression into several "
                "steps",
                at,
            )
        name = type(node).__name__
        at = _place(node, at)
        special = self._special.get(name)
        if special is not None:
            return special(node, at, depth)
        if name in _BINARY:
            self._only(node, at, "this", "expression", "negate")
            both = (
                self.tree(node.this, at, depth + 1),
                self.tree(node.args.get("expression"), at, depth + 1),
            )
            call = Call(_BINARY[name], both, at, function=name == "Pow")
            return Call("not", (call,), at) if node.args.get("negate") else call
        if name in _UNARY:
            self._only(node, at, "this")
            return Call(_UNARY[name], (self.tree(node.this, at, depth + 1),), at)
        raise ExpressionError(f"an expression cannot have {_REFUSED.get(name, name.upper())}", at)

    def _only(self, node: Any, at: int, *known: str) -> None:
        """Refuse a node with a part that nobody would look at."""
        harmless = _HARMLESS.get(type(node).__name__, ())
        for part, value in node.args.items():
            if part not in known and part not in harmless and value not in (None, False, []):
                raise ExpressionError(
                    f"{type(node).__name__.upper()} with {part.upper()} is not known here", at
                )

    def _name(self, node: Any, at: int, _: int) -> Tree:
        self._only(node, at, "this", "table")
        if type(node.this).__name__ != "Identifier":
            raise ExpressionError("expected a column's name", at)
        of = node.args.get("table")
        return Name(str(node.this.this), None if of is None else str(of.this), at)

    def _bracket(self, node: Any, at: int, _: int) -> Tree:
        self._only(node, at, "this", "expressions", "offset")
        inner = node.expressions
        plain = type(node.this).__name__ == "Column" and node.this.args.get("table") is None
        if not (plain and len(inner) == 1 and type(inner[0]).__name__ == "Literal" and inner[0].is_string):
            raise ExpressionError("expected square brackets as in external['MeLo']", at)
        return Name(str(inner[0].this), str(node.this.this.this), at)

    def _literal(self, node: Any, at: int, _: int) -> Tree:
        text = str(node.this)
        if node.is_string:
            return Literal(text, at)
        try:
            number: int | float = int(text) if text.isascii() and text.isdigit() else float(text)
        except ValueError:
            raise ExpressionError(f"expected a number, found {text[:40]!r}", at) from None
        if (isinstance(number, int) and number >= 2**63) or number == float("inf"):
            raise ExpressionError(f"the number {text[:40]} is too large", at)
        return Literal(number, at)

    def _many(self, node: Any, at: int, depth: int) -> Tree:
        """AND or OR of any number of parts, without recursion over them."""
        kind = type(node)
        parts: list[Any] = []
        open_nodes = [node]
        while open_nodes:
            part = open_nodes.pop()
            if type(part) is kind:
                self._only(part, at, "this", "expression")
                open_nodes += [part.args.get("expression"), part.this]
            else:
                parts.append(part)
        trees = tuple(self.tree(part, at, depth + 1) for part in parts)
        return Call(kind.__name__.lower(), trees, trees[0].at)

    def _is(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "expression")
        value, right = self.tree(node.this, at, depth + 1), node.args.get("expression")
        kind = type(right).__name__
        if kind == "Null":
            return Call("is null", (value,), value.at)
        if kind == "Boolean":
            return Call("is true" if right.this else "is false", (value,), value.at)
        raise ExpressionError("expected NULL, TRUE, FALSE or DISTINCT FROM after IS", at)

    def _in(self, node: Any, at: int, depth: int) -> Tree:
        if node.args.get("query") is not None:
            raise ExpressionError("an expression cannot have a subquery; write the values in IN (...)", at)
        if not node.expressions:
            raise ExpressionError("expected values in brackets after IN", at)
        self._only(node, at, "this", "expressions")
        trees = [self.tree(part, at, depth + 1) for part in (node.this, *node.expressions)]
        return Call("in", tuple(trees), trees[0].at)

    def _between(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "low", "high")
        value, low, high = (
            self.tree(part, at, depth + 1) for part in (node.this, node.args["low"], node.args["high"])
        )
        return Call("between", (value, low, high), value.at)

    def _case(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "ifs", "default")
        subject = None if node.this is None else self.tree(node.this, at, depth + 1)
        parts: list[Tree] = []
        for branch in node.args["ifs"]:
            self._only(branch, at, "this", "true")
            when = self.tree(branch.this, at, depth + 1)
            parts.append(when if subject is None else Call("=", (subject, when), when.at))
            parts.append(self.tree(branch.args["true"], at, depth + 1))
        default = node.args.get("default")
        parts.append(Literal(None, at) if default is None else self.tree(default, at, depth + 1))
        return Call("case", tuple(parts), parts[0].at)

    def _cast(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "to")
        to = node.args["to"]
        name = to.this.name if type(to).__name__ == "DataType" and not to.expressions else ""
        if name not in _CASTS:
            raise ExpressionError(
                "expected a cast to double, bigint, boolean, varchar, timestamptz or date", at
            )
        value = self.tree(node.this, at, depth + 1)
        return Call(f"cast to {_CASTS[name]}", (value,), value.at)

    def _extract(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "expression")
        part = str(node.this.this).lower()
        value = self.tree(node.args.get("expression"), at, depth + 1)
        return Call("date_part", (Literal(part, value.at), value), value.at, function=True)

    def _interval(self, node: Any, at: int, _: int) -> Tree:
        self._only(node, at, "this", "unit")
        amount, unit = node.this, node.args.get("unit")
        words = [] if type(amount).__name__ != "Literal" else str(amount.this).split()
        if unit is not None and len(words) == 1:
            words.append(str(unit.this))
        name = words[1].lower().removesuffix("s") if len(words) == 2 else ""
        try:
            ns = float(words[0]) * _SPANS_NS[name]
        except (IndexError, KeyError, ValueError):
            ns = float("nan")
        if not abs(ns) < 2**62:
            raise ExpressionError(
                "expected an interval of a fixed length, such as INTERVAL '15 minutes' (hours, minutes, seconds, "
                "milliseconds)",
                at,
            )
        whole = int(words[0]) * _SPANS_NS[name] if words[0].lstrip("+-").isdigit() else round(ns)
        return Span(whole, at)

    def _function(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "expressions")
        arguments = tuple(self.tree(part, at, depth + 1) for part in node.expressions)
        name = str(node.this)
        if not name.startswith(FUNCTION):
            raise ExpressionError(f"unknown function {name}()", at)
        return Call(name.removeprefix(FUNCTION), arguments, at, function=True)

    def _escape(self, node: Any, at: int, depth: int) -> Tree:
        self._only(node, at, "this", "expression")
        like, sign = self.tree(node.this, at, depth), self.tree(node.args["expression"], at, depth + 1)
        if isinstance(like, Call) and like.name in ("like", "ilike"):
            return Call(like.name, (*like.arguments, sign), like.at)
        if isinstance(like, Call) and like.name == "not":
            inner = like.arguments[0]
            if isinstance(inner, Call) and inner.name in ("like", "ilike"):
                return Call("not", (Call(inner.name, (*inner.arguments, sign), like.at),), like.at)
        raise ExpressionError("expected ESCAPE after LIKE", at)


def _place(node: Any, otherwise: int) -> int:
    """The first character that sqlglot knows of a node, looking down its left side."""
    for _ in range(DEPTH_MAX):
        meta = getattr(node, "_meta", None)
        if meta and "start" in meta:
            return int(meta["start"]) - 1
        node = getattr(node, "args", {}).get("this")
        if node is None or not hasattr(node, "args"):
            break
    return otherwise
