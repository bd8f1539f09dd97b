"""Stored frames as people and programs get them: series as keys, arrival time beside each reading.

Frames are joined into chunks before anything is done with their rows, so that the work is one of columns, and
only the columns asked for are joined. Which frames to read is left to the callers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.log.interface import Frame, StreamKind, StreamState
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import READING_KEYED

CHUNK_ROWS = 131_072
"""Rows from which on frames are handed on."""

CHUNK_FRAMES = 16_384
"""The same, in frames: one of a single row takes some 5 KB of memory."""

KEYS = READING_KEYED.field("series").type
ARRIVED = READING_KEYED.field("arrived")


class Chunk:
    """Consecutive frames of one stream, their columns joined when asked for."""

    def __init__(self, frames: Sequence[Frame], rows: int) -> None:
        self.rows = rows
        self.frames = frames
        self._ids: NDArray[np.uint32] | None = None

    def column(self, name: str) -> pa.Array:
        """A stored column."""
        return pa.concat_arrays([frame.rows.column(name) for frame in self.frames])

    def ids(self) -> NDArray[np.uint32]:
        """The column `series` as stored."""
        if self._ids is None:
            self._ids = np.concatenate([frame.rows.column("series").to_numpy() for frame in self.frames])
        return self._ids

    def times(self, name: str) -> NDArray[np.int64]:
        """A timestamp column in ns (0 for null)."""
        return np.concatenate([ns_of(frame.rows.column(name)) for frame in self.frames])

    def arrivals(self) -> NDArray[np.int64]:
        """The time, in ns, at which each row's batch first arrived in Ringmain."""
        arrivals = np.array([frame.origin_arrival_ns for frame in self.frames], np.int64)
        return np.repeat(arrivals, [frame.row_count for frame in self.frames])


def ns_of(times: pa.Array) -> NDArray[np.int64]:
    """A timestamp array's numbers, in its own unit (0 for null)."""
    numbers = times.view(pa.int64())
    values: NDArray[np.int64] = (numbers.fill_null(0) if numbers.null_count else numbers).to_numpy()
    return values


class KeyedRows:
    """How the rows of one stream look from outside: `schema`, and the column that the log indexes frames by.

    A reading stream gets the column `arrived`. Where rows belong to series, `series` is a dictionary over the
    catalogue's own array of keys, which costs nothing to make.
    """

    def __init__(self, state: StreamState, catalogue: Catalogue) -> None:
        stored = state.stream.schema
        self._catalogue = catalogue
        self.reading = state.stream.kind is StreamKind.READING
        self.keyed = "series" in stored.names and stored.field("series").type == pa.uint32()
        fields = [f.with_type(KEYS) if self.keyed and f.name == "series" else f for f in stored]
        self.schema = pa.schema([*fields, ARRIVED] if self.reading else fields)
        self.time_column: str | None = None
        for name in ("time", "start"):
            if self.time_column is None and name in stored.names and _is_ns(stored.field(name).type):
                self.time_column = name

    def batch(
        self, chunk: Chunk, columns: Sequence[str], keep: NDArray[np.bool_] | None = None
    ) -> pa.RecordBatch:
        """Columns of a chunk's rows, or of those to keep."""
        mask = None if keep is None else pa.array(keep)
        arrays: list[pa.Array] = []
        for name in columns:
            if name == "series" and self.keyed:
                ids = chunk.ids()
                arrays.append(self._catalogue.key_array(ids if keep is None else ids[keep]))
                continue
            if name == "arrived" and self.reading:
                array = pa.array(chunk.arrivals()).view(ARRIVED.type)
            else:
                array = chunk.column(name)
            arrays.append(array if mask is None else array.filter(mask))
        return pa.RecordBatch.from_arrays(
            arrays, schema=pa.schema([self.schema.field(name) for name in columns])
        )

    def within(self, chunk: Chunk, low_ns: int | None, high_ns: int | None) -> Iterator[pa.RecordBatch]:
        """The chunk's rows from `low_ns` until before `high_ns`, by their own time or else by arrival; no empty batch."""
        keep: NDArray[np.bool_] | None = None
        if low_ns is not None or high_ns is not None:
            times = chunk.times(self.time_column) if self.time_column else chunk.arrivals()
            keep = np.ones(len(times), bool)
            if low_ns is not None:
                keep &= times >= low_ns
            if high_ns is not None:
                keep &= times < high_ns
            if not keep.any():
                return
            if keep.all():
                keep = None
        yield self.batch(chunk, self.schema.names, keep)


def _is_ns(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")
