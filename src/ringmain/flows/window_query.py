"""A SELECT over the rows of one window, with DuckDB: checked, described, and run so that it gives the same every time.

One thread, no files, no network, no settings, a bound on memory; the only table is `rows`. Functions whose result depends
on anything but their arguments (`random`, `now` ...) are refused. A result without an order gets one, over all columns.
The query is checked on DuckDB's own parse of it and never touched as text but to be wrapped.

DuckDB is imported with the first query (extra `serve`).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa

from ringmain.model.schemas import TIMESTAMP

QUERY_LENGTH_MAX = 20_000
_CHECK_BYTES = 64 << 20
_AGAIN_S = 0.02
TABLE = "rows"
_CONFIG = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "temp_directory": "",
    "threads": "1",
}
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {"unnest"}
_MACROS = re.compile(
    r"(list|array)_\w+|unnest|histogram|fdiv|fmod|geomean|geometric_mean|wavg|weighted_avg|nullif|round_even|split_part"
)
_CLOCKS = {
    "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "current_user",
    "current_role", "session_user", "user", "current_schema", "current_catalog", "current_database",
}  # fmt: skip


class QueryError(ValueError):
    """A query cannot be used; the message says why."""


class QueryTimeoutError(Exception):
    """A query was stopped because it ran for too long. Nothing of its result is known."""


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that may run, in order, and the columns of its result."""

    text: str
    schema: pa.Schema


@lru_cache(maxsize=256)
def checked(query: str, rows: pa.Schema) -> CheckedQuery:
    """Check a query against the columns of `rows`. Raises QueryError, ImportError without DuckDB."""
    connection = _connection(_CHECK_BYTES)
    try:
        tree = _parsed(connection, query)
        statement = _canonical(connection, query)
        text = statement if _has_order(tree) else f"SELECT * FROM (\n{statement}\n) ORDER BY ALL"
        described = _answer(connection, text, rows.empty_table())
        return CheckedQuery(text, _storable(described.schema))
    finally:
        connection.close()


class WindowQuery:
    """A checked query. Used by one thread."""

    def __init__(self, query: CheckedQuery, memory_bytes: int, limit_s: float) -> None:
        self._query = query
        self._memory_bytes = memory_bytes
        self._limit_s = limit_s

    def run(self, rows: pa.Table) -> pa.RecordBatch:
        """The result over one window's rows, in their order. Raises QueryError, QueryTimeoutError."""
        with _limited(self._memory_bytes, self._limit_s) as connection:
            found = _answer(connection, self._query.text, rows)
        columns = []
        for field in self._query.schema:
            column = found.column(field.name).combine_chunks()
            columns.append(column.cast(field.type) if column.type != field.type else column)
        return pa.RecordBatch.from_arrays(columns, schema=self._query.schema)


def _answer(connection: Any, query: str, rows: pa.Table) -> pa.Table:
    import duckdb

    try:
        connection.register(TABLE, rows)
        return connection.sql(query).to_arrow_table()
    except duckdb.InterruptException:
        raise QueryTimeoutError from None
    except duckdb.Error as error:
        raise QueryError(_plain(str(error))) from None
    finally:
        with suppress(duckdb.InterruptException):  # one that is late: the connection is closed then
            connection.unregister(TABLE)


@contextmanager
def _limited(memory_bytes: int, limit_s: float) -> Iterator[Any]:
    """The thread's database, in which what runs longer than `limit_s` is interrupted. What has ended in time stands."""
    connection = _own_connection(memory_bytes)
    ended, late = threading.Event(), threading.Event()

    def watch() -> None:
        if ended.wait(limit_s):
            return
        late.set()
        while not ended.wait(_AGAIN_S):  # one that comes before the query has quite begun is forgotten
            connection.interrupt()

    watching = threading.Thread(target=watch, name="query-limit", daemon=True)
    watching.start()
    try:
        yield connection
    finally:
        ended.set()
        watching.join()
        if late.is_set():  # an interrupt might meet the next query instead
            del _thread.connections[memory_bytes]
            connection.close()


_thread = threading.local()


def _own_connection(memory_bytes: int) -> Any:
    """The thread's database with that much memory; nothing stays in it from one query to the next."""
    known: dict[int, Any] | None = getattr(_thread, "connections", None)
    if known is None:
        known = _thread.connections = {}
    if memory_bytes not in known:
        known[memory_bytes] = _connection(memory_bytes)
    return known[memory_bytes]


def _connection(memory_bytes: int) -> Any:
    import duckdb

    config = {**_CONFIG, "memory_limit": f"{memory_bytes >> 20}MiB"}
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = true")
    connection.execute("SET lock_configuration = true")
    return connection


def _parsed(connection: Any, query: str) -> dict[str, Any]:
    """The one statement's tree. Raises QueryError."""
    if len(query) > QUERY_LENGTH_MAX:
        raise QueryError(f"expected at most {QUERY_LENGTH_MAX} characters, found {len(query)}")
    found = _asked(connection, "SELECT json_serialize_sql(CAST(? AS VARCHAR))", [query])
    tree: dict[str, Any] = json.loads(found[0][0])
    if tree["error"]:
        message = str(tree.get("error_message", ""))
        raise QueryError("expected one SELECT" if "Only SELECT" in message else _plain(message))
    if len(tree["statements"]) != 1:
        raise QueryError(f"expected one SELECT, found {len(tree['statements'])} statements")
    statement: dict[str, Any] = tree["statements"][0]["node"]
    _check(statement)
    return statement


def _canonical(connection: Any, query: str) -> str:
    """The statement as DuckDB writes it: without comments, and without what ends it."""
    found = _asked(connection, "SELECT json_deserialize_sql(json_serialize_sql(CAST(? AS VARCHAR)))", [query])
    return str(found[0][0]).strip().rstrip(";")


def _asked(connection: Any, statement: str, parameters: list[str]) -> list[Any]:
    """All rows of a statement of ours, on a cursor of its own: a connection does one thing at a time."""
    cursor = connection.cursor()
    try:
        return list(cursor.execute(statement, parameters).fetchall())
    finally:
        cursor.close()


def _check(statement: dict[str, Any]) -> None:
    nodes = list(_objects(statement))
    tables = {TABLE} | {entry["key"] for node in nodes for entry in _entries(node.get("cte_map"))}
    unsteady = _unsteady()
    for node in nodes:
        kind, name = node.get("type"), str(node.get("function_name", "")).lower()
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
            raise QueryError("expected a SELECT without recursion that only reads")
        if kind == "BASE_TABLE" and (node.get("schema_name") or node.get("table_name") not in tables):
            raise QueryError(
                f"no table {node.get('table_name')!r}; the rows of the window are the table `{TABLE}`"
            )
        if kind == "TABLE_FUNCTION":
            function = str((node.get("function") or {}).get("function_name", "")).lower()
            if function not in _TABLE_FUNCTIONS:
                raise QueryError(f"table function {function} is not available: the only table is `{TABLE}`")
        if node.get("sample") is not None:
            raise QueryError("a sample is another one every time: leave TABLESAMPLE and USING SAMPLE out")
        if node.get("class") == "FUNCTION" and name in unsteady:
            raise QueryError(
                f"{name}() depends on something else than its arguments, so results would not repeat"
            )
        if kind == "COLUMN_REF" and str(node["column_names"][-1]).lower() in _CLOCKS:
            raise QueryError(
                f"{node['column_names'][-1]} depends on something else than the rows, so results would not repeat: "
                "the columns `time`, `start` and `end` tell when"
            )


@cache
def _unsteady() -> frozenset[str]:
    """Functions that do not give the same for the same arguments, and those of which that is not known."""
    connection = _connection(_CHECK_BYTES)
    try:
        found = _asked(
            connection,
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability IS DISTINCT FROM 'CONSISTENT'",
            [],
        )
    finally:
        connection.close()
    return frozenset(name for (name,) in found if _MACROS.fullmatch(name) is None)


def _has_order(statement: dict[str, Any]) -> bool:
    node = statement
    while node.get("type") == "CTE_NODE":
        node = node["child"]
    return any(modifier.get("type") == "ORDER_MODIFIER" for modifier in node.get("modifiers", ()))


def _entries(cte_map: Any) -> list[dict[str, Any]]:
    return list(cte_map.get("map", ())) if isinstance(cte_map, dict) else []


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _storable(schema: pa.Schema) -> pa.Schema:
    """The result's columns in types that streams have. Raises QueryError."""
    fields: list[pa.Field] = []
    for field in schema:
        if field.name in [before.name for before in fields]:
            raise QueryError(f"two columns are called {field.name!r}: name one with AS")
        fields.append(pa.field(field.name, _stored_type(field.name, field.type)))
    return pa.schema(fields)


def _stored_type(name: str, kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind) or pa.types.is_float32(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return TIMESTAMP if kind.tz else pa.timestamp("ns")
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_null(kind):
        return pa.string()
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_date32(kind)
    ):
        return kind
    raise QueryError(f"column {name!r} is of type {kind}: cast it to a number, a text or a time")


def _plain(message: str) -> str:
    """DuckDB's message without its drawing of the statement."""
    return message.split("\n\nLINE ")[0].strip()
