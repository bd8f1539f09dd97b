"""The rows of a stream as they leave a log for good: series by key and unit, quality in words, column by column.

Frames are joined into chunks of bounded rows and bytes; nothing is done row by row. Which rows: by time of the rows,
by arrival in the log, by series. Rows stay in the order of the log. What is missing in between (damaged, or removed
by retention) is counted where nothing was left out on purpose.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.log.interface import Frame, LogReader, Position, StreamState
from ringmain.model.catalogue import Catalogue
from ringmain.model.quality import ORIGIN_MASK, VALIDITY_MASK, Origin, Quality, Validity
from ringmain.model.schemas import TIMESTAMP
from ringmain.serve.keyed import Chunk

WORDS = pa.dictionary(pa.int32(), pa.string())
_FRAMES_HELD = 256
_FLAGS = [flag for flag in Quality if flag > ORIGIN_MASK]


class NothingToExportError(Exception):
    """The stream has no such rows by its kind, or no series has such a key."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows. Times are ns UTC, from inclusive, to exclusive; `patterns` of series keys, none: every series."""

    time_from_ns: int | None = None
    time_to_ns: int | None = None
    arrival_from_ns: int | None = None
    arrival_to_ns: int | None = None
    patterns: tuple[str, ...] = ()

    @property
    def skips_frames(self) -> bool:
        """Whether frames are left out, so that rows that are missing cannot be told from them."""
        return self.time_from_ns is not None or self.time_to_ns is not None or bool(self.patterns)


def quality_words(bits: int) -> str:
    """A quality in words: validity, then origin unless measured, then its flags; `good` for 0."""
    validity, origin = bits & VALIDITY_MASK, (bits & ORIGIN_MASK) >> 2
    words = [(Validity(validity) if validity < 3 else Validity.INVALID).name.lower()]
    if origin:
        words.append(Origin(origin).name.lower())
    return " ".join([*words, *(flag.name.lower() for flag in _FLAGS if bits & flag and flag.name)])


class ExportedRows:
    """A stream's rows up to the newest frame that is durable now. `rows`, `missing`, ... are counted as they pass."""

    def __init__(self, reader: LogReader, state: StreamState, selection: Selection, *, origin: bool) -> None:
        """`origin`: with the columns `arrived` and `position`. Raises NothingToExportError."""
        self.state = state
        self.end = reader.end()
        self.rows = 0
        self.missing = 0
        self.before = 0
        self.passed_rows = 0
        self._reader = reader
        self._selection = selection
        self._origin = origin
        schema = state.stream.schema
        self._keyed = "series" in schema.names and schema.field("series").type == pa.uint32()
        self._time = next((name for name in ("time", "start") if _is_ns(schema, name)), None)
        self._catalogue = reader.catalogue()
        self.keys = self._catalogue.keys()
        self._chosen = self._choose(self._catalogue)
        bounded = selection.time_from_ns is not None or selection.time_to_ns is not None
        if bounded and self._time is None:
            raise NothingToExportError(
                f"stream {state.stream.name} has no time in its rows: expected --arrival-from or --arrival-to"
            )
        self._units, self._unit_of = _units(self._catalogue if self._keyed else Catalogue())
        self._words: dict[int, int] = {}
        self._texts: list[str] = []
        self.schema = self._schema(schema)

    def _choose(self, catalogue: Catalogue) -> NDArray[np.bool_] | None:
        patterns = self._selection.patterns
        if not patterns:
            return None
        name = self.state.stream.name
        if not self._keyed:
            raise NothingToExportError(f"the rows of stream {name} belong to no series: expected no --series")
        chosen = np.fromiter(
            (any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns) for key in catalogue),
            np.bool_,
            len(catalogue),
        )
        if not chosen.any():
            raise NothingToExportError(
                f"expected a pattern of series keys, such as 'ss-07/*', found {', '.join(patterns)}: "
                f"none of {len(catalogue)} series has such a key"
            )
        return chosen

    def _schema(self, stored: pa.Schema) -> pa.Schema:
        fields: list[pa.Field] = []
        for field in stored:
            fields.append(
                field.with_type(WORDS).with_nullable(True) if self._is_series(field.name) else field
            )
            if field.name == "quality" and field.type == pa.uint16() and "quality_text" not in stored.names:
                fields.append(pa.field("quality_text", WORDS, nullable=False))
        if self._keyed and "unit" not in stored.names:
            fields.append(pa.field("unit", WORDS))
        if self._origin:
            fields.append(pa.field("arrived", TIMESTAMP, nullable=False))
            fields.append(pa.field("position", WORDS, nullable=False))
        names = [field.name for field in fields]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise NothingToExportError(f"stream {self.state.stream.name} has a column {doubled!r} of its own")
        return pa.schema(fields)

    def _is_series(self, name: str) -> bool:
        return self._keyed and name == "series"

    def batches(
        self, chunk_rows: int, chunk_bytes: int, progress: Callable[[int, int], None]
    ) -> Iterator[pa.RecordBatch]:
        """The rows, some `chunk_rows` or `chunk_bytes` at a time, whichever comes first. Raises LogError."""
        pieces: list[pa.RecordBatch] = []
        held: list[Frame] = []
        held_rows = rows = size = 0
        for frame in self._frames():
            held.append(frame)
            held_rows += frame.row_count
            size += frame.rows.nbytes
            full = rows + held_rows >= chunk_rows or size >= chunk_bytes
            # a small frame keeps all the bytes in memory that were read together with it, until its rows are copied
            if not full and len(held) < _FRAMES_HELD:
                continue
            pieces += self._batch(held, held_rows)
            rows, held, held_rows = rows + held_rows, [], 0
            if full:
                yield from _joined(pieces)
                progress(self.passed_rows, self.state.rows)
                pieces, rows, size = [], 0, 0
        if held:
            pieces += self._batch(held, held_rows)
        yield from _joined(pieces)
        progress(1, 1)

    def _frames(self) -> Iterator[Frame]:
        if self.end is None:
            return
        wanted, name = self._selection, self.state.stream.name
        after: Position | None = None
        if wanted.arrival_from_ns is not None:
            after = self._reader.find(name, wanted.arrival_from_ns)
        only = None
        if self._chosen is not None and np.count_nonzero(self._chosen) == 1:
            only = int(np.argmax(self._chosen))
        frames = self._reader.read(
            name,
            after=after,
            until=self.end,
            time_min_ns=wanted.time_from_ns,
            time_max_ns=None if wanted.time_to_ns is None else wanted.time_to_ns - 1,
            series=only,
        )
        counted: int | None = None
        for frame in frames:
            if wanted.arrival_from_ns is not None and frame.arrival_ns < wanted.arrival_from_ns:
                continue
            if wanted.arrival_to_ns is not None and frame.arrival_ns >= wanted.arrival_to_ns:
                return
            first = frame.cumulative_rows - frame.row_count
            if counted is not None:
                self.missing += max(0, first - counted)
            elif wanted.arrival_from_ns is None:
                self.before = first
            counted = self.passed_rows = frame.cumulative_rows
            yield frame

    def _batch(self, frames: Sequence[Frame], rows: int) -> list[pa.RecordBatch]:
        """The wanted rows of some frames as one batch, or none."""
        chunk = Chunk(frames, rows)
        keep = self._keep(chunk)
        if keep is not None and not keep.any():
            return []
        mask = None if keep is None or keep.all() else pa.array(keep)
        arrays = [self._column(chunk, field) for field in self.schema]
        if mask is not None:
            arrays = [array.filter(mask) for array in arrays]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        self.rows += batch.num_rows
        return [batch]

    def _keep(self, chunk: Chunk) -> NDArray[np.bool_] | None:
        wanted = self._selection
        keep: NDArray[np.bool_] | None = None
        if self._time is not None and (wanted.time_from_ns is not None or wanted.time_to_ns is not None):
            times = chunk.times(self._time)
            keep = np.ones(len(times), np.bool_)
            if wanted.time_from_ns is not None:
                keep &= times >= wanted.time_from_ns
            if wanted.time_to_ns is not None:
                keep &= times < wanted.time_to_ns
        if self._chosen is not None:
            ids = chunk.ids()
            chosen = self._chosen[np.minimum(ids, len(self._chosen) - 1)] & (ids < len(self._chosen))
            keep = chosen if keep is None else keep & chosen
        return keep

    def _column(self, chunk: Chunk, field: pa.Field) -> pa.Array:
        stored = self.state.stream.schema.names
        if self._is_series(field.name):
            return _dictionary(chunk.ids(), self.keys)
        if field.name in stored:
            return chunk.column(field.name)
        if field.name == "quality_text":
            return self._quality_text(chunk.column("quality"))
        if field.name == "unit":
            ids = chunk.ids()
            known = np.where(
                ids < len(self._unit_of), self._unit_of[np.minimum(ids, len(self._unit_of) - 1)], -1
            )
            return _dictionary(known, self._units)
        if field.name == "arrived":
            return pa.array(chunk.arrivals()).view(TIMESTAMP)
        frames = chunk.frames
        places = np.repeat(np.arange(len(frames), dtype=np.int32), [frame.row_count for frame in frames])
        return _dictionary(places, pa.array([str(frame.position) for frame in frames], pa.string()))

    def _quality_text(self, quality: pa.Array) -> pa.Array:
        bits = quality.fill_null(0).to_numpy()
        used = np.flatnonzero(np.bincount(bits))
        place = np.zeros(1 << 16, np.int32)
        for one in used.tolist():
            if one not in self._words:
                self._words[one] = len(self._texts)
                self._texts.append(quality_words(one))
            place[one] = self._words[one]
        return _dictionary(place[bits], pa.array(self._texts, pa.string()))


def _joined(pieces: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if pieces:
        yield pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _is_ns(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def _units(catalogue: Catalogue) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """Every unit, and for each series id which of them it has (-1: none)."""
    columns = [batch.column("unit") for batch in catalogue.to_batches()]
    units = pa.chunked_array(columns, pa.string()).combine_chunks().dictionary_encode()
    if isinstance(units, pa.ChunkedArray):
        units = units.chunk(0) if units.num_chunks else pa.array([], pa.string()).dictionary_encode()
    codes = units.indices.fill_null(-1).to_numpy().astype(np.int32)
    return units.dictionary, codes if len(codes) else np.full(1, -1, np.int32)


def _dictionary(places: NDArray[np.generic], words: pa.StringArray) -> pa.DictionaryArray:
    """Words by their places; null for a place that is none."""
    indices = places.astype(np.int32, copy=False)
    unknown = (indices < 0) | (indices >= len(words))
    chosen = pa.array(indices, mask=unknown if unknown.any() else None)
    return pa.DictionaryArray.from_arrays(chosen, words)
