"""Which SQL statements may run, decided on the parsed statement, and which stretch of time they ask for.

DuckDB is set up so that a statement cannot reach files, the network or its configuration (`sql.py`). This module
is the second fence: one SELECT (or EXPLAIN, DESCRIBE, SUMMARIZE, SHOW of one), without writing common table
expressions, and only table functions that make rows of their arguments or describe the catalog.

It also reads the bounds of a time column out of what DuckDB tells of its plan. These bounds are only used to
leave out frames that cannot hold a wanted row, so whatever is not understood here widens them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

STATEMENT_LENGTH_MAX = 100_000

_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    "generate_series",
    "histogram",
    "icu_calendar_names",
    "json_each",
    "json_tree",
    "pg_timezone_names",
    "pragma_table_info",
    "pragma_version",
    "range",
    "repeat_row",
    "unnest",
} | {f"duckdb_{what}" for what in ("columns", "functions", "keywords", "tables", "types", "views")}
_REFUSED_FUNCTIONS = {"json_execute_serialized_sql", "pg_sleep", "write_log"}
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)


class StatementError(ValueError):
    """The statement is not one that may run; the message says what may."""


def check_statement(connection: Any, statement: str) -> None:
    """Raise StatementError unless `statement` is a single one that only reads. Parses with `connection`, runs nothing."""
    if len(statement) > STATEMENT_LENGTH_MAX:
        raise StatementError(
            f"expected a statement of at most {STATEMENT_LENGTH_MAX} characters, found {len(statement)}"
        )
    inner = _EXPLAIN.sub("", statement, count=1)
    cursor = connection.cursor()
    try:
        found = cursor.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [inner]).fetchone()
    finally:
        cursor.close()
    tree = json.loads(found[0])
    if tree["error"]:
        message = tree.get("error_message", "")
        if "Only SELECT" in message:
            raise StatementError(
                "expected one SELECT (or WITH, VALUES, DESCRIBE, SUMMARIZE, EXPLAIN): SQL only reads here"
            )
        raise StatementError(message + _dotted_name_hint(statement))
    if len(tree["statements"]) != 1:
        raise StatementError(f"expected one statement, found {len(tree['statements'])}")
    for node in _objects(tree["statements"]):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERY_NODES:
            raise StatementError("expected a WITH that only selects: SQL only reads here")
        if kind == "TABLE_FUNCTION" and isinstance(node.get("function"), dict):
            name = str(node["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise StatementError(
                    f"table function {name} is not available: the tables of the log are (SHOW TABLES)"
                )
        elif (
            node.get("class") == "FUNCTION"
            and str(node.get("function_name", "")).lower() in _REFUSED_FUNCTIONS
        ):
            raise StatementError(f"function {node['function_name']} is not available")


def _dotted_name_hint(statement: str) -> str:
    if re.search(r"\b(?:from|join)\s+[a-z_]\w*\.\d", statement, re.IGNORECASE):
        return '\nA table whose name has a dot is written in double quotes: FROM "readings.1m"'
    return ""


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """Times from `low_ns` to `high_ns`, both inclusive; None: unbounded."""

    low_ns: int | None = None
    high_ns: int | None = None

    def both(self, other: TimeBounds) -> TimeBounds:
        """What lies within both."""
        lows = [low for low in (self.low_ns, other.low_ns) if low is not None]
        highs = [high for high in (self.high_ns, other.high_ns) if high is not None]
        return TimeBounds(max(lows, default=None), min(highs, default=None))

    def either(self, other: TimeBounds) -> TimeBounds:
        """The smallest stretch that holds both."""
        low = None if self.low_ns is None or other.low_ns is None else min(self.low_ns, other.low_ns)
        high = None if self.high_ns is None or other.high_ns is None else max(self.high_ns, other.high_ns)
        return TimeBounds(low, high)


UNBOUNDED = TimeBounds()

_LITERAL = r"(?:'(?P<sql{0}>[^']+)'::TIMESTAMP\w*|TIMESTAMPTZ '(?P<typed{0}>[^']+)'|(?P<arrow{0}>\d{{4}}-[0-9:. -]+Z))"
_COMPARISON = re.compile(r'"?(?P<column>\w+)"? (?P<sign>>=|<=|==|=|>|<) ' + _LITERAL.format("1"))
_BETWEEN = re.compile(r'"?(?P<column>\w+)"? BETWEEN ' + _LITERAL.format("1") + " AND " + _LITERAL.format("2"))
_SERIES = re.compile(r'series == "((?:[^"\\]|\\.)*)"')


def bounds_of(expression: str, column: str) -> TimeBounds:
    """Bounds of `column` in a filter as DuckDB's plan or Arrow's `Expression` prints it."""
    bounds = UNBOUNDED
    for part in _conjuncts(expression):
        if match := _COMPARISON.fullmatch(part):
            at = _instant_ns(match, "1")
            low = at if match["sign"] in (">", ">=", "=", "==") else None
            high = at if match["sign"] in ("<", "<=", "=", "==") else None
        elif match := _BETWEEN.fullmatch(part):
            low, high = _instant_ns(match, "1"), _instant_ns(match, "2")
        else:
            continue
        if match["column"] == column:
            bounds = bounds.both(TimeBounds(low, high))
    return bounds


def series_of(expression: str) -> str | None:
    """The one series key that a filter as Arrow's `Expression` prints it asks for; None: any number of them."""
    for part in _conjuncts(expression):
        if match := _SERIES.fullmatch(part):
            try:
                return str(json.loads(f'"{match[1]}"'))
            except ValueError:
                return None
    return None


def plan_bounds(plan: str, column: str, columns: set[str]) -> TimeBounds:
    """Bounds of `column` for every scan in DuckDB's JSON plan that can be of a table with `columns`."""
    hull: TimeBounds | None = None
    for node, parent in _scans(json.loads(plan)):
        about = node.get("extra_info", {})
        projected = about.get("Projections", [])
        if not set([projected] if isinstance(projected, str) else projected) <= columns:
            continue
        above = (
            parent.get("extra_info", {}).get("Expression", "")
            if parent and parent["name"] == "FILTER"
            else ""
        )
        bounds = bounds_of(above if isinstance(above, str) else "", column)
        hull = bounds if hull is None else hull.either(bounds)
    return hull or UNBOUNDED


def _scans(plan: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    pending: list[tuple[dict[str, Any], dict[str, Any] | None]] = [(node, None) for node in plan]
    while pending:
        node, parent = pending.pop()
        if node["name"].strip().endswith("ARROW_SCAN"):
            yield node, parent
        pending.extend((child, node) for child in node.get("children", ()))


def _instant_ns(match: re.Match[str], which: str) -> int | None:
    text = match["sql" + which] or match["typed" + which] or match["arrow" + which]
    text = text.removesuffix("+00").removesuffix("Z").strip()
    try:
        return int(pa.scalar(text).cast(pa.timestamp("ns")).value)
    except (pa.ArrowInvalid, ValueError):
        return None


def _conjuncts(expression: str) -> Iterator[str]:
    """The parts that AND joins, without their parentheses."""
    pending = [expression]
    while pending:
        text = pending.pop().strip()
        parts = _split(text[1:-1]) if text.startswith("(") and text.endswith(")") else None
        if parts is None:
            yield text
        elif len(parts) == 1 and not parts[0].startswith("("):
            yield parts[0].strip()
        else:
            pending.extend(parts)


def _split(text: str) -> list[str] | None:
    """`text` split at each AND outside of parentheses and quotes; None when its parentheses are not its own."""
    if re.fullmatch(r"""[^()'"]*"?\w+"? BETWEEN '[^']*'::\w+ AND '[^']*'::\w+""", text):
        return [text]
    depth, quote, start, at = 0, "", 0, 0
    parts: list[str] = []
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0 and text[at : at + 5] in (" AND ", " and "):
            parts.append(text[start:at])
            start = at + 5
        elif depth == 0 and text[at : at + 4] in (" OR ", " or "):
            return None
        at += 1
    return [*parts, text[start:]]
