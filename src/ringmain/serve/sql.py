"""SQL over the log with DuckDB: what a statement sees, what it may use, and what it may not reach.

Promises
    - A statement sees every durable frame up to the position that was the end of the log when it began, and
      nothing after it, however often it names a table.
    - It only reads: files, network, extensions and configuration are out of reach (external access disabled,
      configuration locked, no replacement scans; `statement.py` admits one reading statement).
    - Memory and threads are bounded for all statements together, time and rows for each; a result that was cut
      says so. Nothing spills to disk, so an opened log directory stays as it was.
    - The log is streamed through the statement, not loaded.

Times are exact to the nanosecond (TIMESTAMPTZ_NS) where DuckDB can do what the statement asks for on such times:
output, comparison, order, minimum, maximum, join. For the rest (`now()`, intervals, `date_trunc`, `time_bucket` ...)
DuckDB knows microseconds only: when it refuses a statement on nanoseconds for that reason, the statement runs on times
cut to whole microseconds (TIMESTAMPTZ). The result's column types tell which.

DuckDB is imported at the first statement.
"""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ringmain.log.interface import LogReader
from ringmain.model.catalogue import Catalogue
from ringmain.serve.statement import StatementError, check_statement, plan_bounds

RESULT_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of a result that is asked for with a limit on its rows; beyond that it is cut, and says so."""

_FETCH_ROWS = 16_384
_AGAIN_S = 0.05
"""Between two attempts to end a statement that has had its time."""
_CONFIG = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "temp_directory": "",
}
_MICROSECONDS_ONLY = re.compile(r"TIMESTAMP(TZ)?_NS")


class SqlError(Exception):
    """The statement cannot be run; the message says why, with the place in the statement where there is one."""


class SqlTimeoutError(SqlError):
    """The statement took longer than it may."""


class SqlCancelledError(SqlError):
    """The statement was cancelled."""


class SqlMemoryError(SqlError):
    """The statement needs more memory than it may use."""

    def __init__(self, limit_mib: int) -> None:
        super().__init__(
            f"the statement needs more than the {limit_mib} MiB that SQL may use: ask for less at a time"
        )


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What statements may use: memory and threads for all together, time for each."""

    memory_mib: int = 1024
    threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class SqlResult:
    """A statement's rows. `types` are DuckDB's names of the columns' types; `truncated`: there are more rows."""

    table: pa.Table
    types: tuple[str, ...]
    truncated: bool
    seconds: float


@dataclass(slots=True)
class Query:
    """One statement on its way. `cancel` may be called from any thread, before or while `run` runs."""

    engine: SqlEngine
    statement: str
    parameters: Sequence[Any] | Mapping[str, Any] | None = None
    limit: int | None = None
    timeout_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connection: Any = None
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _timed_out: bool = False
    _done: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop the statement: `run` raises SqlCancelledError."""
        self._cancelled.set()
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    def run(self) -> SqlResult:
        """The statement's rows. Raises SqlError and its kinds."""
        started = time.monotonic()
        timeout_s = self.timeout_s if self.timeout_s is not None else self.engine.limits.timeout_s
        timer = None
        if timeout_s is not None:
            timer = threading.Timer(timeout_s, self._time_out)
            timer.daemon = True
            timer.start()
        try:
            table, types, truncated = self._run(timeout_s)
        except SqlError:
            raise
        except Exception as error:
            raise self._translated(error, timeout_s) from None
        finally:
            self._done.set()
            if timer is not None:
                timer.cancel()
        return SqlResult(table, types, truncated, time.monotonic() - started)

    def _time_out(self) -> None:
        self._timed_out = True
        self.cancel()
        while not self._done.wait(_AGAIN_S):  # what comes just before DuckDB begins interrupts nothing
            self.cancel()

    def _run(self, timeout_s: float | None) -> tuple[pa.Table, tuple[str, ...], bool]:
        database = self.engine.database()
        check_statement(database, self.statement)
        connection = database.cursor()
        with self._lock:
            self._connection = connection
        if self._cancelled.is_set():
            raise self._stopped(timeout_s)
        try:
            return self._on(connection)
        finally:
            with self._lock:
                self._connection = None
            connection.close()

    def _on(self, connection: Any) -> tuple[pa.Table, tuple[str, ...], bool]:
        import duckdb

        from ringmain.serve.tables import LogDataset, tables

        snapshot = self.engine.snapshot(self._cancelled)
        known = tables(snapshot)
        for name, table in known.items():
            connection.register(name, LogDataset(table, microseconds=False))
        try:
            relation = self._relation(connection)
        except (duckdb.BinderException, duckdb.ConversionException) as error:
            if not _MICROSECONDS_ONLY.search(str(error)):
                raise
            for name, table in known.items():
                connection.register(name, LogDataset(table, microseconds=True))
            try:
                relation = self._relation(connection)
            except duckdb.BinderException as second:
                raise second from None
        else:
            columns = {table.time_column for table in known.values()} - {None}
            if any(re.search(rf"\b{column}\b", self.statement) for column in columns):
                plan = self._plan(connection)
                for name, table in known.items():
                    if plan is not None and table.time_column is not None:
                        bounds = plan_bounds(plan, table.time_column, set(table.schema.names))
                        connection.register(name, LogDataset(table, microseconds=False, bounds=bounds))
                relation = self._relation(connection)
        if relation is None:
            raise StatementError("expected a statement that gives rows")
        types = tuple(str(kind) for kind in relation.types)
        with relation.to_arrow_reader(_FETCH_ROWS) as reader:
            table, truncated = self._fetch(reader)
        return _in_utc(table), types, truncated

    def _relation(self, connection: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return connection.sql(self.statement, params=self.parameters)

    def _plan(self, connection: Any) -> str | None:
        import duckdb

        try:
            rows = connection.execute("EXPLAIN (FORMAT JSON) " + self.statement, self.parameters).fetchall()
        except duckdb.Error:
            return None
        return str(rows[-1][-1])

    def _fetch(self, reader: pa.RecordBatchReader) -> tuple[pa.Table, bool]:
        if self.limit is None:
            return reader.read_all(), False
        batches, rows, size_bytes = [], 0, 0
        for batch in reader:
            left = self.limit - rows
            if batch.num_rows > left or size_bytes > RESULT_BYTES_MAX:
                batches.append(batch.slice(0, left) if size_bytes <= RESULT_BYTES_MAX else batch.slice(0, 0))
                return pa.Table.from_batches(batches, schema=reader.schema), True
            batches.append(batch)
            rows += batch.num_rows
            size_bytes += batch.nbytes
        return pa.Table.from_batches(batches, schema=reader.schema), False

    def _stopped(self, timeout_s: float | None) -> SqlError:
        """What ended a statement that `cancel` ended."""
        if self._timed_out:
            return SqlTimeoutError(
                f"the statement took longer than {timeout_s:g} s: ask for less, or for a shorter time"
            )
        return SqlCancelledError("the statement was cancelled")

    def _translated(self, error: Exception, timeout_s: float | None) -> Exception:
        if self._cancelled.is_set():
            return self._stopped(timeout_s)
        import duckdb

        if isinstance(error, duckdb.OutOfMemoryException):
            return SqlMemoryError(self.engine.limits.memory_mib)
        if isinstance(error, duckdb.Error | StatementError):
            return SqlError(str(error))
        return error


def _in_utc(table: pa.Table) -> pa.Table:
    """The table with its zone called UTC, where DuckDB calls it Etc/UTC."""
    fields = [
        f.with_type(pa.timestamp(f.type.unit, tz="UTC")) if pa.types.is_timestamp(f.type) and f.type.tz else f
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))


class SqlEngine:
    """Runs statements over one log, in any number of threads."""

    def __init__(self, reader: LogReader, catalogue: Catalogue, limits: SqlLimits | None = None) -> None:
        self.limits = limits or SqlLimits()
        self._reader = reader
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._database: Any = None

    def query(
        self,
        statement: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> SqlResult:
        """Run one statement. `limit` cuts the result after so many rows. Raises SqlError."""
        return Query(self, statement, parameters, limit, timeout_s).run()

    def snapshot(self, cancelled: threading.Event) -> Any:
        """What a statement that begins now sees."""
        from ringmain.serve.tables import Snapshot

        end = self._reader.end()
        return Snapshot(self._reader, self._catalogue, self._reader.streams(), end, cancelled)

    def database(self) -> Any:
        """The locked, empty in-memory database that statements run in, each on a cursor of its own."""
        with self._lock:
            if self._database is None:
                self._database = _open_database(self.limits)
            return self._database

    def close(self) -> None:
        """Release DuckDB's memory. Idempotent; statements under way fail."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None


def _open_database(limits: SqlLimits) -> Any:
    try:
        import duckdb
    except ImportError:
        raise SqlError("SQL needs DuckDB: pip install 'ringmain[serve]'") from None
    config = {**_CONFIG, "memory_limit": f"{limits.memory_mib}MiB", "threads": str(limits.threads)}
    database = duckdb.connect(":memory:", config=config)
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute("SET lock_configuration = true")
    return database
