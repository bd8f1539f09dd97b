"""Rows of a stream as an exported file has them: series as keys, with their unit, and the time of arrival beside each row.

Every file reads by itself: no ids of the log are left in it. Work is by column; a row group carries those keys alone that
it uses.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import TIMESTAMP
from ringmain.runtime.sink import SinkBatch

WORDS = pa.dictionary(pa.int32(), pa.string())
ARRIVED = "arrived"
UNIT = "unit"


class ExportedShape:
    """How rows with this schema look outside: `schema`, and the column of their own time, None where there is none."""

    def __init__(self, stored: pa.Schema) -> None:
        self.keyed = "series" in stored.names and stored.field("series").type == pa.uint32()
        fields = [
            pa.field(field.name, WORDS) if self.keyed and field.name == "series" else field.remove_metadata()
            for field in stored
        ]
        self.with_unit = self.keyed and UNIT not in stored.names
        if self.with_unit:
            fields.append(pa.field(UNIT, WORDS))
        self.with_arrived = ARRIVED not in stored.names
        if self.with_arrived:
            fields.append(pa.field(ARRIVED, TIMESTAMP, nullable=False))
        self.schema = pa.schema(fields)
        self.time = next((name for name in ("time", "start") if _is_ns(stored, name)), None)

    def table(self, pieces: list[Piece], catalogue: Catalogue) -> pa.Table:
        """Pieces as one table of `schema`."""
        rows = pa.concat_batches([piece.rows for piece in pieces])
        columns: list[pa.Array] = []
        unit: pa.Array | None = None
        for field in rows.schema:
            if self.keyed and field.name == "series":
                keys, unit = _keys_and_units(rows.column("series").to_numpy(), catalogue)
                columns.append(keys)
            else:
                columns.append(rows.column(field.name))
        if self.with_unit:
            columns.append(unit)
        if self.with_arrived:
            arrived = np.concatenate([piece.arrived for piece in pieces])
            columns.append(pa.array(arrived, pa.int64()).view(TIMESTAMP))
        return pa.Table.from_arrays(columns, schema=self.schema)


class Piece:
    """Copied rows of some batches of one stream, with the arrival of each in ns."""

    __slots__ = ("arrived", "rows")

    def __init__(self, rows: pa.RecordBatch, arrived: NDArray[np.int64]) -> None:
        self.rows = rows
        self.arrived = arrived

    @classmethod
    def of(cls, batches: list[SinkBatch]) -> Piece:
        """The rows of batches, copied: a batch is a view of much that was read with it."""
        rows = pa.concat_batches([batch.rows for batch in batches])
        if len(batches) == 1:  # is not copied by that
            rows = pa.RecordBatch.from_arrays(
                [pa.concat_arrays([column.slice(0, 0), column]) for column in rows.columns],
                schema=rows.schema,
            )
        arrivals = np.array([batch.origin_arrival_ns for batch in batches], np.int64)
        return cls(rows, np.repeat(arrivals, [batch.rows.num_rows for batch in batches]))

    @property
    def nbytes(self) -> int:
        """In memory."""
        return int(self.rows.nbytes) + self.arrived.nbytes


def joined(pieces: list[Piece]) -> Piece:
    """Several as one."""
    return Piece(
        pa.concat_batches([piece.rows for piece in pieces]),
        np.concatenate([piece.arrived for piece in pieces]),
    )


def time_range_ns(column: pa.ChunkedArray) -> tuple[int, int] | None:
    """The earliest and latest of times in ns; None where all are null."""
    found = pc.min_max(column.cast(pa.int64()))
    low, high = found["min"].as_py(), found["max"].as_py()
    return None if low is None else (low, high)


def _keys_and_units(
    ids: NDArray[np.uint32], catalogue: Catalogue
) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
    """The keys of ids, and the units of these series, with the words that are used alone; null where there is none."""
    known = len(catalogue)
    used = np.zeros(known + 1, np.bool_)
    places = np.minimum(ids, known)
    used[places] = True
    unknown = bool(used[known])
    used[known] = False
    wanted = np.flatnonzero(used).astype(np.uint32)
    number = np.full(known + 1, -1, np.int32)
    number[wanted] = np.arange(len(wanted), dtype=np.int32)
    indices = number[places]
    mask = indices < 0 if unknown else None
    keys = catalogue.keys().take(pa.array(wanted))
    entries = catalogue.entries(wanted)
    units = pa.chunked_array([batch.column("unit") for batch in entries], pa.string()).combine_chunks()
    if isinstance(units, pa.ChunkedArray):
        units = pa.concat_arrays(units.chunks) if units.num_chunks else pa.array([], pa.string())
    words = units.dictionary_encode()
    code = words.indices.fill_null(-1).to_numpy().astype(np.int32)
    codes = code[indices] if len(code) else np.full(len(ids), -1, np.int32)
    if mask is not None:
        codes[mask] = -1
    return (
        pa.DictionaryArray.from_arrays(pa.array(indices, mask=mask), keys.cast(pa.string())),
        pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), words.dictionary),
    )


def _is_ns(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")
