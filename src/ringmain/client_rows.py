"""Arrow data of a program turned into rows as the log stores them, or refused with the place of what is wrong.

What is accepted: series as keys (strings, dictionary of strings) or ids of this log, times as timestamps of any
unit and zone (without a zone: UTC) or int64 nanoseconds, numbers of any type as values. Columns are checked and
converted whole; nothing is dropped or rounded silently. Writing is left to the client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.log.interface import FRAME_BYTES_MAX, Batch
from ringmain.model.catalogue import MISSING, Catalogue
from ringmain.model.quality import Quality

AHEAD_MAX_NS = 300_000_000_000
"""A reading further ahead of the present than this is stored with Quality.CLOCK_FAILED."""

_FRAME_BYTES = FRAME_BYTES_MAX - 8 * 1024


def as_table(stream: str, data: Any) -> pa.Table:
    """A Table of an Arrow table, record batch, or whatever else has `__arrow_c_stream__` or `__arrow_c_array__`."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data).read_all()
    if hasattr(data, "__arrow_c_array__"):
        return pa.Table.from_batches([pa.record_batch(data)])
    raise TypeError(
        f"stream {stream!r}: expected an Arrow table or record batch, found {type(data).__name__}"
    )


def stored_rows(
    stream: str,
    schema: pa.Schema,
    table: pa.Table,
    ids_of: Callable[[pa.Array], NDArray[np.uint32]],
    catalogue: Catalogue,
) -> pa.RecordBatch:
    """The rows of `table` in the stream's schema. `ids_of` gives the ids of keys, registering those that are new.

    Raises ValueError (TypeError for a wrong type) that names stream, column and row.
    """
    unknown = [name for name in table.schema.names if name not in schema.names]
    if unknown:
        raise ValueError(
            f"stream {stream!r}: unknown column{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(schema.names)}"
        )
    doubled = {name for name in table.schema.names if table.schema.names.count(name) > 1}
    if doubled:
        raise ValueError(f"stream {stream!r}: column {sorted(doubled)[0]!r} comes more than once")
    columns: dict[str, pa.Array] = {}
    # series last: new keys are registered only when all the rest can be stored
    for field in sorted(schema, key=lambda field: field.name == "series"):
        where = f"stream {stream!r}, column {field.name!r}"
        if field.name not in table.schema.names:
            columns[field.name] = _absent(where, field, table.num_rows)
            continue
        column = _one_array(table.column(field.name))
        if not field.nullable:
            _refuse_rows(where, "a value", column.is_null(), "null")
        if field.name == "series" and field.type == pa.uint32():
            columns[field.name] = _series(where, column, ids_of, catalogue)
        elif pa.types.is_timestamp(field.type):
            columns[field.name] = _times(where, column, field.type)
        else:
            columns[field.name] = _values(where, column, field.type, finite=field.name == "value")
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def flag_ahead(rows: pa.RecordBatch, now_ns: int) -> pa.RecordBatch:
    """Readings with CLOCK_FAILED added to the quality of those too far ahead of `now_ns`."""
    ahead = rows.column("time").view(pa.int64()).to_numpy() > now_ns + AHEAD_MAX_NS
    if not ahead.any():
        return rows
    quality = rows.column("quality").to_numpy() | np.where(
        ahead, np.uint16(Quality.CLOCK_FAILED), np.uint16(0)
    )
    return rows.set_column(
        rows.schema.get_field_index("quality"), rows.schema.field("quality"), pa.array(quality, pa.uint16())
    )


def digest(streams: dict[str, pa.RecordBatch]) -> bytes:
    """What two appends of the same rows to the same streams have in common."""
    hashed = hashlib.blake2b(digest_size=16)
    for name in sorted(streams):
        rows = streams[name]
        hashed.update(f"{name}\0{rows.num_rows}\0".encode())
        for column in rows.columns:
            if not column.null_count and not pa.types.is_nested(column.type):
                if pa.types.is_timestamp(column.type):
                    column = column.view(pa.int64())
                if pa.types.is_primitive(column.type) and not pa.types.is_boolean(column.type):
                    hashed.update(column.to_numpy().tobytes())
                    continue
            # a copy, so that neither slices nor needless validity bits show
            copied = column.take(pa.array(np.arange(len(column))))
            hashed.update(pa.record_batch([copied], names=["c"]).serialize())
    return hashed.digest()


def frames_of(stream: str, rows: pa.RecordBatch) -> Iterator[Batch]:
    """The rows cut so that each batch fits a frame."""
    pending = [rows]
    while pending:
        batch = pending.pop()
        if batch.num_rows > 1 and pa.ipc.get_record_batch_size(batch) + 1024 > _FRAME_BYTES:
            half = batch.num_rows // 2
            pending += [batch.slice(half), batch.slice(0, half)]
        elif batch.num_rows:
            yield Batch(stream, batch)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.unify_dictionaries().combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _refuse_rows(where: str, expected: str, wrong: pa.Array, found: str) -> None:
    mask = wrong.to_numpy(zero_copy_only=False)
    if mask.any():
        rows = np.flatnonzero(mask)
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise ValueError(f"{where}, row {rows[0]}{more}: expected {expected}, found {found}")


def _absent(where: str, field: pa.Field, rows: int) -> pa.Array:
    if field.name == "quality" and field.type == pa.uint16():
        return pa.array(np.zeros(rows, np.uint16))
    if field.nullable:
        return pa.nulls(rows, field.type)
    raise ValueError(f"{where}: expected, not found")


def _series(
    where: str, column: pa.Array, ids_of: Callable[[pa.Array], NDArray[np.uint32]], catalogue: Catalogue
) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        keys, indices = column.dictionary, column.indices
    elif pa.types.is_integer(column.type):
        known = len(catalogue)
        wrong = pc.or_(pc.less(column, 0), pc.greater_equal(column, known))
        if known == 0 or pc.any(wrong).as_py():
            row = int(np.flatnonzero(wrong.to_numpy(zero_copy_only=False))[0]) if len(column) else 0
            if len(column):
                raise ValueError(
                    f"{where}, row {row}: expected an id below {known}, found {column[row].as_py()}"
                )
        return column.cast(pa.uint32())
    elif _is_text(column.type):
        encoded = column.dictionary_encode()
        keys, indices = encoded.dictionary, encoded.indices
    else:
        raise TypeError(f"{where}: expected keys (strings) or ids (integers), found {column.type}")
    if not _is_text(keys.type):
        raise TypeError(f"{where}: expected keys (strings), found a dictionary of {keys.type}")
    used = pc.unique(indices)
    names = keys.take(used).cast(pa.string())
    if names.null_count:
        raise ValueError(f"{where}: expected keys, found null")
    ids = np.full(len(keys), MISSING, np.uint32)
    ids[used.to_numpy()] = ids_of(names)
    return pa.array(ids[indices.to_numpy()])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _times(where: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_int64(column.type):
        return column.view(kind)
    if not pa.types.is_timestamp(column.type):
        raise TypeError(f"{where}: expected timestamps or int64 nanoseconds, found {column.type}")
    if column.type.unit == kind.unit:
        return column.view(pa.int64()).view(kind)
    try:
        return column.cast(pa.timestamp(kind.unit, tz=column.type.tz)).view(pa.int64()).view(kind)
    except pa.ArrowInvalid:
        raise ValueError(f"{where}: expected times between 1677 and 2262, found one outside") from None


def _values(where: str, column: pa.Array, kind: pa.DataType, *, finite: bool) -> pa.Array:
    if column.type != kind:
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if number and not (
            pa.types.is_floating(column.type)
            or pa.types.is_integer(column.type)
            or pa.types.is_decimal(column.type)
        ):
            raise TypeError(f"{where}: expected numbers, found {column.type}")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            # a float holds every integer up to 2**53; a larger one is rounded, as any measured number is
            column = column.cast(kind, safe=not pa.types.is_floating(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{where}: expected {kind}: {error}") from None
    if finite and pa.types.is_floating(kind):
        wrong = pc.invert(pc.is_finite(column)).fill_null(False)
        row = pc.index(wrong, True).as_py()
        if row >= 0:
            _refuse_rows(where, "a finite number", wrong, str(column[row].as_py()))
    return column
