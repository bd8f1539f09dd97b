"""What `import ringmain` gives a program: a log on this machine to append to, read and ask.

    log = ringmain.open("data")
    log.append({"readings": table}, producer="importer", sequence=7)
    for batch in log.read("readings", since="2026-03-29T00:00:00Z"):
        ...
    table = log.sql("SELECT series, avg(value) FROM readings GROUP BY series")

Promises: an append is durable when it returns and is there once, however often the same sequence is sent; what
cannot be stored whole is refused whole. Opened read-only, nothing is ever written, and a node may be running.
A log has one writer: while a node runs, appends go through the log's socket to it, and reads go on from the files; as a
user who may not read those, both go through the socket, as far as `[log.access]` of the node grants it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.client_rows import as_table, digest, flag_ahead, frames_of, stored_rows
from ringmain.log import RemoteLog, connect_log, open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import (
    Appended,
    Batch,
    Claim,
    ConflictError,
    LogClosedError,
    LogError,
    LogFailedError,
    LogLockedError,
    Position,
    StreamKind,
    StreamState,
    UnknownStreamError,
)
from ringmain.log.socket.channel import connect_socket
from ringmain.model.catalogue import MISSING, Catalogue, SeriesAttributes
from ringmain.serve.instants import instant_ns

if TYPE_CHECKING:
    import datetime as dt

    from ringmain.serve.sql import SqlEngine

MAX_SERIES = 1_000_000
"""Series that one producer may create through a client."""

LOAD_ROWS = 65_536
"""Rows of one append of `load`. Part of what makes a load resumable: the same data is always cut the same way."""

_LOAD_PARTS_MAX = 1 << 20
_CONNECT_S = 0.5
_ANSWER_S = 10.0
"""How long a process that listens may take to greet: a busy node is not one that takes nothing."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load` did: rows and appends written, and appends that had been written before."""

    rows: int
    appends: int
    already_there: int


class Client:
    """An open log. Usable from several threads; also a context manager. See `ringmain.open`."""

    def __init__(self, directory: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.directory = Path(directory)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._claims: dict[tuple[str, int], Claim] = {}
        self._last: dict[tuple[str, int], int | None] = {}
        self._digests: dict[str, bytes] = {}
        self._in_doubt: dict[tuple[str, int], int] = {}
        """Sequences whose append failed in a way that leaves open whether it is stored."""
        self._engine: SqlEngine | None = None
        self._closed = False
        self._log: Any
        if read_only:
            if not self.directory.is_dir():
                raise LogError(f"expected the directory of a log, found nothing at {self.directory}")
            try:
                self._log = open_reader(self.directory)
            except PermissionError:
                self._log = self._through_socket("socket")
            return
        self._series: _Series
        try:
            self._log = open_log(self.directory)
        except LogLockedError as error:
            self._log = self._connected(error)
            self._series = _NodeSeries(self._log)
        except PermissionError:
            self._log = self._through_socket("socket")
            self._series = _NodeSeries(self._log)
        else:
            self._series = _OwnSeries(self._log)

    def _connected(self, locked: LogLockedError) -> RemoteLog:
        """The log through the process that writes it."""
        try:
            try:
                return self._through_socket("files")
            except LogFailedError:
                if not self._somebody_listens():
                    raise
                return self._through_socket("files", _ANSWER_S)
        except LogFailedError as error:
            raise LogLockedError(
                f"{self.directory}: another process writes to this log ({locked}) and takes nothing on its socket "
                f"({error}); a running node does; to read beside it use ringmain.open(..., read_only=True)"
            ) from None

    def _somebody_listens(self) -> bool:
        try:
            connect_socket(self.directory, _CONNECT_S).close()
        except (LogError, OSError):
            return False
        return True

    def _through_socket(self, read: Literal["files", "socket"], connect_s: float = _CONNECT_S) -> RemoteLog:
        return connect_log(self.directory, connect_s=connect_s, read=read, program="ringmain.open")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the log. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._engine is not None:
                    self._engine.close()
                self._log.close()

    def streams(self) -> list[StreamState]:
        """Every stream with its counts."""
        states: list[StreamState] = self._log.streams()
        return states

    def append(
        self,
        streams: Mapping[str, Any],
        *,
        producer: str = "client",
        sequence: int | None = None,
        epoch: int = 0,
    ) -> Appended:
        """Append Arrow data to streams, all or nothing; returns when it is durable.

        `readings` needs series (keys or ids), time and value; quality is 0 unless given. Keys that are new enter the
        catalogue in the same append. `sequence` identifies the append among the producer's, and grows; the same one
        again is answered with `duplicate=True` and writes nothing. Left out, it is one more than the last; after a
        LogFailedError, which may come of an append that is stored, the same data again is stored once, and other data
        goes on behind it.

        Raises ValueError or TypeError for data that does not fit, `TooLargeError` (which names the limit; see `load`),
        `ConflictError` when the sequence was used for other data.
        """
        with self._lock:
            self._writable()
            name = f"{self._series.claims}client/{producer}"
            in_doubt = self._in_doubt.get((name, epoch))
            if in_doubt is not None:  # only the log knows what became of it: claiming anew asks for that
                self._claims.pop((name, epoch), None)
            claim = self._claim(name, epoch)
            self._in_doubt.pop((name, epoch), None)
            last = self._last[name, epoch]
            tables = {stream: as_table(stream, data) for stream, data in streams.items()}
            if sequence is None and last is not None and last == in_doubt:
                with contextlib.suppress(ConflictError):  # it is stored: is this the same again?
                    return self._append(claim, last, last, tables)
            if sequence is None:
                sequence = 0 if last is None else last + 1
            return self._append(claim, last, sequence, tables)

    def load(
        self,
        streams: Mapping[str, Any],
        *,
        producer: str = "client",
        sequence: int | None = None,
        epoch: int = 0,
    ) -> Loaded:
        """Append any amount of data in parts, each all or nothing and durable before the next.

        Data may be an iterable of tables or batches too, and is then never held whole. Interrupted, the same call with
        the same `sequence` and the same data goes on where it was; its sequences are apart from those of `append`.
        """
        with self._lock:
            self._writable()
            name = f"{self._series.claims}load/{producer}"
            claim = self._claim(name, epoch)
            last = self._last[name, epoch]
            if sequence is None:
                sequence = 0 if last is None else last // _LOAD_PARTS_MAX + 1
            rows = appends = there = 0
            part = sequence * _LOAD_PARTS_MAX
            for stream, data in streams.items():
                for table in _parts(stream, data):
                    if part >= (sequence + 1) * _LOAD_PARTS_MAX:
                        raise ValueError(
                            f"expected at most {_LOAD_PARTS_MAX * LOAD_ROWS} rows in one load: split it"
                        )
                    if self._append(claim, self._last[name, epoch], part, {stream: table}).duplicate:
                        there += 1
                    else:
                        appends += 1
                        rows += table.num_rows
                    part += 1
            return Loaded(rows, appends, there)

    def read(
        self,
        stream: str = "readings",
        *,
        since: dt.datetime | str | int | None = None,
        until: dt.datetime | str | int | None = None,
        follow: bool = False,
        after: Position | str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Batches of a stream in log order: of readings (series key, time, value, quality, arrived).

        `since` (inclusive) and `until` (exclusive) bound the readings' own time: datetimes, RFC 3339 texts (without
        offset: UTC) or ns. `after` starts behind a position. `follow=True` goes on with what comes, until `timeout_s`
        passes without any. Raises `UnknownStreamError`, ValueError for a time that is none.
        """
        low = None if since is None else instant_ns(since)
        high = None if until is None else instant_ns(until)
        start = Position.parse(after) if isinstance(after, str) else after
        state = next((state for state in self._log.streams() if state.stream.name == stream), None)
        if state is None:
            known = ", ".join(sorted(state.stream.name for state in self._log.streams()))
            raise UnknownStreamError(f"expected one of the streams {known}; found {stream!r}")
        return self._read(state, low, high, follow, start, timeout_s)

    def sql(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """The rows of a reading SQL statement; docs/sql.md tells the tables. Raises `ringmain.serve.sql.SqlError`."""
        from ringmain.serve.sql import SqlEngine

        with self._lock:
            if self._engine is None:
                self._engine = SqlEngine(self._log, self._log.catalogue())
            engine = self._engine
        return engine.query(statement, parameters).table

    def _read(
        self,
        state: StreamState,
        low: int | None,
        high: int | None,
        follow: bool,
        after: Position | None,
        timeout_s: float | None,
    ) -> Iterator[pa.RecordBatch]:
        from ringmain.serve.keyed import CHUNK_ROWS, Chunk, KeyedRows

        keyed = KeyedRows(state, self._log.catalogue())
        end = None if follow else self._log.end()
        if end is None and not follow:
            return
        frames = self._log.read(
            state.stream.name,
            after=after,
            until=end,
            follow=follow,
            timeout_s=timeout_s,
            time_min_ns=low if keyed.time_column else None,
            time_max_ns=high if keyed.time_column else None,
        )
        waiting: list[Any] = []
        rows = 0
        for frame in frames:
            waiting.append(frame)
            rows += frame.row_count
            if follow or rows >= CHUNK_ROWS:
                yield from keyed.within(Chunk(waiting, rows), low, high)
                waiting, rows = [], 0
        if rows:
            yield from keyed.within(Chunk(waiting, rows), low, high)

    def _writable(self) -> None:
        if self._closed:
            raise LogClosedError("the log was closed: open it again")
        if self.read_only:
            raise LogError(f"{self.directory} was opened read-only: open it without read_only=True to append")

    def _claim(self, name: str, epoch: int) -> Claim:
        claim = self._claims.get((name, epoch))
        if claim is None:
            claim = self._log.claim(name, epoch)
            for other in [key for key in self._claims if key[0] == name]:
                del self._claims[other]
            self._claims[name, epoch] = claim
            self._last[name, epoch] = claim.last_sequence
            self._digests[name] = claim.positions.get(f"{name}/digest", b"")
        return claim

    def _append(self, claim: Claim, last: int | None, sequence: int, tables: dict[str, pa.Table]) -> Appended:
        if sequence < 0:
            raise ValueError(f"expected a sequence of 0 or more, found {sequence}")
        if last is not None and sequence < last:
            return Appended(None, 0, duplicate=True)
        known = {state.stream.name: state.stream for state in self._log.streams()}
        producer = claim.name.removeprefix(self._series.claims).partition("/")[2]
        rows: dict[str, pa.RecordBatch] = {}
        for name, table in tables.items():
            stream = known.get(name)
            if stream is None or stream.kind is StreamKind.CONTROL:
                writable = sorted(n for n, s in known.items() if s.kind is not StreamKind.CONTROL)
                raise UnknownStreamError(f"expected one of the streams {', '.join(writable)}; found {name!r}")
            rows[name] = stored_rows(
                name, stream.schema, table, lambda keys: self._ids(producer, keys), self._series.catalogue
            )
        # the rows as they were given: what is flagged below depends on the clock
        print_of = digest(rows) + sequence.to_bytes(8, "big")
        if last is not None and sequence == last:
            if self._digests[claim.name] in (b"", print_of):
                return Appended(None, 0, duplicate=True)
            raise ConflictError(
                f"producer {claim.name!r} used sequence {sequence} for other data before: use the next one, {last + 1}"
            )
        now = time.time_ns()
        batches: list[Batch] = []
        for name, given in rows.items():
            flagged = flag_ahead(given, now) if known[name].kind is StreamKind.READING else given
            batches.extend(frames_of(name, flagged))
        entries, token = self._series.unsaved()
        try:
            appended: Appended = self._log.append(
                [*(Batch("catalogue", entry) for entry in entries), *batches],
                claim=claim,
                sequence=sequence,
                positions={f"{claim.name}/digest": print_of},
            )
        except LogFailedError:
            self._in_doubt[claim.name, claim.epoch] = sequence
            raise
        self._series.saved(token)
        self._last[claim.name, claim.epoch] = sequence
        self._digests[claim.name] = print_of
        return appended

    def _ids(self, source: str, keys: pa.Array) -> NDArray[np.uint32]:
        ids: NDArray[np.uint32] = self._series.catalogue.ids_of(keys)
        missing = np.flatnonzero(ids == MISSING)
        if len(missing):
            new = keys.take(pa.array(missing)).to_pylist()
            given = self._series.register(source, new)
            if min(given) < 0:
                raise LogError(
                    f"producer {source!r} has reached its limit of series; {new[given.index(-1)]!r} is one more"
                )
            ids[missing] = given
        return ids


class _Series(Protocol):
    """Where ids of new series come from. `claims`: what claims of this program begin with."""

    claims: str

    @property
    def catalogue(self) -> Catalogue: ...

    def register(self, source: str, keys: list[str]) -> list[int]: ...

    def unsaved(self) -> tuple[list[pa.RecordBatch], int]: ...

    def saved(self, token: int) -> None: ...


class _OwnSeries:
    """Of a log that this process writes: ids are given here, entries travel with the first rows that use them."""

    claims = ""

    def __init__(self, log: Any) -> None:
        self._registry = SeriesRegistry(log, max_series=MAX_SERIES)
        self.unsaved = self._registry.unsaved
        self.saved = self._registry.saved

    @property
    def catalogue(self) -> Catalogue:
        return self._registry.catalogue

    def register(self, source: str, keys: list[str]) -> list[int]:
        return [self._registry.register(source, key, SeriesAttributes()) for key in keys]


class _NodeSeries:
    """Of a log that a node writes: it gives the ids, and its entries are durable when it has."""

    def __init__(self, log: RemoteLog) -> None:
        self._log = log
        self.claims = f"{log.claims}/" if log.claims else ""

    @property
    def catalogue(self) -> Catalogue:
        return self._log.catalogue()

    def register(self, source: str, keys: list[str]) -> list[int]:
        return self._log.register(source, keys)

    def unsaved(self) -> tuple[list[pa.RecordBatch], int]:
        return [], 0

    def saved(self, token: int) -> None:
        del token


def _parts(stream: str, data: Any) -> Iterator[pa.Table]:
    """The data in tables of LOAD_ROWS rows, however it was cut before."""
    whole = isinstance(data, pa.Table | pa.RecordBatch) or hasattr(data, "__arrow_c_array__")
    pieces: Iterable[Any]
    if whole:
        pieces = (as_table(stream, data),)
    elif hasattr(data, "__arrow_c_stream__"):
        pieces = pa.RecordBatchReader.from_stream(data)
    elif isinstance(data, Iterable):
        pieces = data
    else:
        raise TypeError(
            f"stream {stream!r}: expected Arrow data or an iterable of it, found {type(data).__name__}"
        )
    held: pa.Table | None = None
    for piece in pieces:
        table = as_table(stream, piece)
        held = table if held is None else pa.concat_tables([held, table], promote_options="permissive")
        start = 0
        while held.num_rows - start >= LOAD_ROWS:
            yield held.slice(start, LOAD_ROWS)
            start += LOAD_ROWS
        held = held.slice(start)
    if held is not None and held.num_rows:
        yield held
