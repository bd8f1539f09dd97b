"""The tables that SQL sees, as Arrow datasets that read the log only when and as far as a statement scans them.

DuckDB asks a `pyarrow.dataset.Dataset` for a scanner with the columns and filters that it wants, once for each
place where the statement names the table. Each scan streams the frames up to the statement's snapshot, some
`CHUNK_ROWS` rows at a time; nothing holds the whole log. Frames outside of the statement's stretch of time are
left out, and a filter on one series is applied to ids before any key is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ringmain.log.builtin import LEDGER
from ringmain.log.interface import Frame, LogReader, Position, StreamKind, StreamState
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import SERIES
from ringmain.serve.keyed import ARRIVED, CHUNK_FRAMES, CHUNK_ROWS, Chunk, KeyedRows, ns_of
from ringmain.serve.statement import UNBOUNDED, TimeBounds, bounds_of, series_of
from ringmain.serve.superseded import Superseded


class ScanCancelledError(Exception):
    """The statement was cancelled while the log was being read."""


@dataclass(slots=True)
class Snapshot:
    """What one statement sees: every durable frame up to `end` (None: an empty log)."""

    reader: LogReader
    catalogue: Catalogue
    streams: Sequence[StreamState]
    end: Position | None
    cancelled: Event = field(default_factory=Event)

    def frames(self, stream: str, bounds: TimeBounds = UNBOUNDED) -> Iterator[Frame]:
        """The frames of a stream that can hold times within the bounds."""
        if self.end is None:
            return
        low, high = bounds.low_ns, bounds.high_ns
        for frame in self.reader.read(stream, until=self.end, time_min_ns=low, time_max_ns=high):
            if self.cancelled.is_set():
                raise ScanCancelledError("the statement was cancelled")
            yield frame


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a scan asks for: columns by name, one series, a stretch of time."""

    columns: tuple[str, ...]
    series: str | None
    bounds: TimeBounds


class Table:
    """A named table of a snapshot: its schema (times in ns) and its rows as batches of the wanted columns."""

    name: str
    schema: pa.Schema
    time_column: str | None = None
    """The column that the log's frames are indexed by."""

    def scan(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        """Batches with exactly the wanted columns; rows outside of `series` and `bounds` may be among them."""
        raise NotImplementedError


class StreamTable(Table):
    """A stream as stored, or only its rows that no later row of the same series and `newest_by` time replaced."""

    def __init__(
        self, snapshot: Snapshot, state: StreamState, name: str, newest_by: str | None = None
    ) -> None:
        self.name = name
        self._snapshot = snapshot
        self._stream = state.stream.name
        self._newest_by = newest_by
        self._rows = KeyedRows(state, snapshot.catalogue)
        self._groups = GroupNumbers(state.stream.schema)
        self.schema = self._rows.schema
        self.time_column = self._rows.time_column

    def scan(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        """See Table."""
        series = None
        if wanted.series is not None and self._rows.keyed:
            series = self._snapshot.catalogue.id_of(wanted.series)
            if series is None:
                return
        superseded = self._superseded(wanted.bounds)
        row = 0
        for chunk in self._chunks(wanted.bounds):
            keep: NDArray[np.bool_] | None = None
            if superseded is not None and self._newest_by is not None:
                replaced = superseded.replaced(self._whose(chunk), chunk.times(self._newest_by), row)
                keep = None if replaced is None else ~replaced
            row += chunk.rows
            if series is not None:
                ours = chunk.ids() == series
                keep = ours if keep is None else keep & ours
                if not keep.any():
                    continue
            yield self._rows.batch(chunk, wanted.columns, keep)
        if superseded is not None and row != superseded.rows:
            raise ScanCancelledError(
                f"retention removed rows of {self._stream!r} while the statement read them: run it again"
            )

    def _superseded(self, bounds: TimeBounds) -> Superseded | None:
        if self._newest_by is None:
            return None
        superseded = Superseded(len(self._snapshot.catalogue))
        for chunk in self._chunks(bounds):
            superseded.see(self._whose(chunk), chunk.times(self._newest_by))
        superseded.finish()
        return superseded

    def _whose(self, chunk: Chunk) -> NDArray[np.uint32]:
        """By row a number of its series, or of its group where rows belong to none."""
        return chunk.ids() if self._rows.keyed else self._groups.numbers(chunk)

    def _chunks(self, bounds: TimeBounds) -> Iterator[Chunk]:
        frames: list[Frame] = []
        rows = 0
        # DuckDB converts the whole dictionary once a batch: the more keys, the larger the batches
        target = max(CHUNK_ROWS, min(len(self._snapshot.catalogue), 8 * CHUNK_ROWS))
        for frame in self._snapshot.frames(self._stream, bounds):
            frames.append(frame)
            rows += frame.row_count
            if rows >= target or len(frames) >= CHUNK_FRAMES:
                yield Chunk(frames, rows)
                frames, rows = [], 0
        if rows:
            yield Chunk(frames, rows)


class GroupNumbers:
    """Numbers of groups, by what the text columns of their rows say."""

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [field.name for field in schema if pa.types.is_string(field.type)]
        self._known: dict[tuple[str | None, ...], int] = {}

    def numbers(self, chunk: Chunk) -> NDArray[np.uint32]:
        """A number for each row, equal for rows with equal texts, and the same whenever it is asked for."""
        table = pa.table({name: chunk.column(name) for name in self._columns}) if self._columns else None
        if table is None:
            return np.zeros(chunk.rows, np.uint32)
        codes = np.zeros(chunk.rows, np.int64)
        for name in self._columns:
            column = table.column(name).combine_chunks()
            encoded = column.dictionary_encode(null_encoding="encode")
            encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
            texts = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            codes = np.unique(codes * (len(encoded.dictionary) + 1) + texts, return_inverse=True)[1]
        first = np.unique(codes, return_index=True)[1]
        rows = table.take(pa.array(first)).to_pylist()
        known = self._known
        mine = [known.setdefault(tuple(row.values()), len(known)) for row in rows]
        return np.array(mine, np.uint32)[codes]


class MadeTable(Table):
    """A small table that is made when it is first scanned."""

    def __init__(self, name: str, schema: pa.Schema, make: Callable[[], list[pa.RecordBatch]]) -> None:
        self.name = name
        self.schema = schema
        self._make = make

    def scan(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        """See Table."""
        columns = list(wanted.columns)
        for batch in self._make():
            yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema).select(columns)


STREAMS = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("frames", pa.int64()),
        pa.field("last_position", pa.string()),
        pa.field("last_arrival", ARRIVED.type),
        pa.field("columns", pa.string()),
    ]
)
"""The table `streams`. `columns` is a JSON object of column names and Arrow types."""


def is_window_schema(schema: pa.Schema) -> bool:
    """Whether rows of this schema are windows, of a series or of a group: with a start and a revision."""
    return {"start", "revision"} <= set(schema.names)


def tables(snapshot: Snapshot) -> dict[str, Table]:
    """Every table of a snapshot, by name. A stream named as one of the last three stays hidden behind it."""
    found: dict[str, Table] = {}
    for state in snapshot.streams:
        name = state.stream.name
        if is_window_schema(state.stream.schema):
            found[name] = StreamTable(snapshot, state, name, newest_by="start")
            found[name + ".all"] = StreamTable(snapshot, state, name + ".all")
        else:
            found[name] = StreamTable(snapshot, state, name)
        if state.stream.kind is StreamKind.READING:
            found[name + "_current"] = StreamTable(snapshot, state, name + "_current", newest_by="time")
    found["series"] = MadeTable("series", SERIES, snapshot.catalogue.to_batches)
    # with what retention has removed of the stream, and what is worked out from the accounts
    found["ledger"] = MadeTable("ledger", LEDGER, lambda: [snapshot.reader.ledger()])
    found["streams"] = MadeTable("streams", STREAMS, lambda: [_streams_batch(snapshot.streams)])
    return found


def _streams_batch(states: Sequence[StreamState]) -> pa.RecordBatch:
    rows = [
        {
            "name": state.stream.name,
            "kind": state.stream.kind.name.lower(),
            "rows": state.rows,
            "frames": state.frames,
            "last_position": None if state.last is None else str(state.last),
            "last_arrival": state.last_arrival_ns or None,
            "columns": msgspec.json.encode({f.name: str(f.type) for f in state.stream.schema}).decode(),
        }
        for state in states
    ]
    return pa.RecordBatch.from_pylist(rows, schema=STREAMS)


class LogDataset(ds.Dataset):  # type: ignore[misc]  # pyarrow is untyped here
    """A Table as DuckDB takes it. `microseconds`: with every time cut to whole microseconds (see `sql.py`)."""

    def __init__(self, table: Table, *, microseconds: bool, bounds: TimeBounds = UNBOUNDED) -> None:
        # not calling the base class: it forbids instances, and only `schema` and `scanner` are asked for
        self._table = table
        self._microseconds = microseconds
        self._bounds = bounds
        self._schema = (
            pa.schema([_in_microseconds(f) for f in table.schema]) if microseconds else table.schema
        )

    @property
    def schema(self) -> pa.Schema:
        """Column names and types."""
        return self._schema

    def scanner(self, columns: list[str] | None = None, filter: Any = None, **_options: Any) -> _Scan:  # noqa: A002
        """One scan: exactly the columns asked for, of exactly the rows that pass the filter."""
        names = tuple(columns) if columns is not None else tuple(self._schema.names)
        text = "" if filter is None else str(filter)
        read = names + tuple(n for n in self._schema.names if n not in names and n in text)
        bounds, series = self._bounds, None
        if text:
            if self._table.time_column is not None:
                bounds = bounds.both(bounds_of(text, self._table.time_column))
            series = series_of(text)
        wanted = Wanted(read, series, _widened(bounds))
        schema = pa.schema([self._schema.field(name) for name in names])
        return _Scan(schema, self._batches(wanted, names, filter))

    def _batches(self, wanted: Wanted, names: tuple[str, ...], filter: Any) -> Iterator[pa.RecordBatch]:  # noqa: A002
        for batch in self._table.scan(wanted):
            rows = _cut_to_microseconds(batch) if self._microseconds else batch
            if filter is not None:
                rows = rows.filter(filter)
            if rows.num_rows:
                yield rows.select(list(names))


class _Scan:
    """What DuckDB turns into a stream of batches."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.projected_schema = schema
        self._batches = batches

    def to_reader(self) -> pa.RecordBatchReader:
        """The stream; to be asked for once."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches)


def _widened(bounds: TimeBounds) -> TimeBounds:
    """A bound in microseconds holds every nanosecond of its last microsecond."""
    return TimeBounds(
        None if bounds.low_ns is None else bounds.low_ns - 1_000,
        None if bounds.high_ns is None else bounds.high_ns + 1_000,
    )


def _in_microseconds(column: pa.Field) -> pa.Field:
    return (
        column.with_type(pa.timestamp("us", tz=column.type.tz))
        if pa.types.is_timestamp(column.type)
        else column
    )


def _cut_to_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays, fields = [], []
    for array, column in zip(batch.columns, batch.schema, strict=True):
        wide = _in_microseconds(column)
        if wide is not column and column.type.unit == "ns":
            # floor, also before 1970; Arrow's cast would cut towards zero
            mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
            array = pa.array(ns_of(array) // 1_000, pa.int64(), mask=mask).view(wide.type)
        arrays.append(array)
        fields.append(wide)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
