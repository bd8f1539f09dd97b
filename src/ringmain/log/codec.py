"""Bodies of frames: Arrow record batches to bytes and back, copying as little as possible.

A body is an ids section, where the stream has a `series` column, and then the Arrow IPC encapsulated message
(Arrow columnar format 1.x, "Encapsulated message format") of the other columns. The schema is not repeated: it
is kept once per schema id in the definition of its stream. The ids stand alone, with a CRC of their own, so that
whoever moves a frame to another log rewrites only them.

    ids section   count u32, CRC-32C u32 of the ids with their padding, ids u32 each, zeros up to 8 bytes
    message       0xFFFFFFFF, metadata size i32, flatbuffer, body buffers

Decoding checks both CRCs before anything else looks at the bytes; the columns that it gives are views of the
buffer that it was given.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from crc32c import crc32c

from ringmain.log.frames import TIME_UNKNOWN_MAX, TIME_UNKNOWN_MIN, FrameHeader, header_body_crc
from ringmain.log.interface import FRAME_BYTES_MAX, LogError, TooLargeError
from ringmain.log.ledger.row import AccountRow

_IDS_HEADER = struct.Struct("<II")
IDS_HEADER_BYTES = _IDS_HEADER.size
"""Where the ids begin in a body that has them."""
_PADDING = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")


class Codec(IntEnum):
    """How a body is encoded; stored in each frame header."""

    ARROW = 1
    IDS_AND_ARROW = 2
    MESSAGEPACK = 3


_ARROW, _IDS_AND_ARROW = int(Codec.ARROW), int(Codec.IDS_AND_ARROW)
_UINT32 = pa.uint32()
_from_buffers = pa.UInt32Array.from_buffers


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded batch. `buffers` are its bytes in order; `checked` are those that the body CRC covers."""

    codec: Codec
    rows: int
    time_min_ns: int
    time_max_ns: int
    length: int
    ids_crc: int
    buffers: tuple[Any, ...]
    checked: Any


class Layout:
    """What encoding and decoding need to know of a schema, worked out once."""

    def __init__(self, schema: pa.Schema) -> None:
        """Raises LogError for a schema that frames cannot carry (dictionary-encoded columns)."""
        for field in schema:
            if _has_dictionary(field.type):
                raise LogError(
                    f"column {field.name}: a stream cannot have dictionary-encoded columns; "
                    "use the value type instead (e.g. string)"
                )
        self.schema = schema.remove_metadata()
        self.series = self._series_index(schema)
        self._series_field = None if self.series is None else self.schema.field(self.series)
        self._accounts = schema.names == list(AccountRow.__struct_fields__)
        self.time = self._time_index(schema)
        self.required = [index for index, field in enumerate(schema) if not field.nullable]
        self.rest = (
            self.schema
            if self.series is None
            else pa.schema([field for index, field in enumerate(self.schema) if index != self.series])
        )

    @staticmethod
    def _series_index(schema: pa.Schema) -> int | None:
        index = schema.get_field_index("series")
        return index if index >= 0 and schema.field(index).type == pa.uint32() else None

    @staticmethod
    def _time_index(schema: pa.Schema) -> int | None:
        for name in ("time", "start"):
            index = schema.get_field_index(name)
            if index >= 0:
                kind = schema.field(index).type
                if pa.types.is_timestamp(kind) and kind.unit == "ns":
                    return int(index)
        return None

    def encode(self, rows: pa.RecordBatch | AccountRow) -> Body:
        """The batch as a body. Nothing in it refers to the memory of `rows` afterwards.

        Raises LogError when the columns are not those of the schema, TooLargeError beyond a frame's limit.
        """
        if isinstance(rows, AccountRow):
            if not self._accounts:
                raise LogError(f"an account row is for stream accounts, not for columns {self.schema.names}")
            return encode_record(rows)
        if not rows.schema.equals(self.schema):
            rows = self._fitted(rows)
        for index in self.required:
            if rows.column(index).null_count:
                raise LogError(f"column {rows.schema.field(index).name}: expected no nulls, found some")
        count = rows.num_rows
        time_min, time_max = self.time_range(rows)
        if self.series is None:
            message = rows.serialize()
            size = message.size
            self._check_size(size, count)
            return Body(Codec.ARROW, count, time_min, time_max, size, 0, (message,), message)
        ids = _values(rows.column(self.series), np.uint32).tobytes()
        if count % 2:
            ids += b"\0\0\0\0"
        ids_crc = int(crc32c(ids))
        message = rows.remove_column(self.series).serialize()
        size = _IDS_HEADER.size + len(ids) + message.size
        self._check_size(size, count)
        head = _IDS_HEADER.pack(count, ids_crc)
        return Body(
            Codec.IDS_AND_ARROW, count, time_min, time_max, size, ids_crc, (head, ids, message), message
        )

    @staticmethod
    def _check_size(size: int, count: int) -> None:
        if size + 96 > FRAME_BYTES_MAX:
            raise TooLargeError(
                f"a frame holds at most {FRAME_BYTES_MAX} bytes (900 KiB), this batch of {count} rows needs "
                f"{size + 96}: split it into smaller batches"
            )

    def _fitted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        expected = [(field.name, field.type) for field in self.schema]
        found = [(field.name, field.type) for field in rows.schema]
        if expected != found:
            raise LogError(f"expected columns {_describe(expected)}, found {_describe(found)}")
        return pa.RecordBatch.from_arrays(rows.columns, schema=self.schema)

    def time_range(self, rows: pa.RecordBatch) -> tuple[int, int]:
        """The first and the last time in the rows, ns UTC; (TIME_UNKNOWN_MIN, TIME_UNKNOWN_MAX) where there is none."""
        if self.time is None or not rows.num_rows:
            return TIME_UNKNOWN_MIN, TIME_UNKNOWN_MAX
        column = rows.column(self.time)
        if column.null_count:
            if column.null_count == len(column):
                return TIME_UNKNOWN_MIN, TIME_UNKNOWN_MAX
            bounds = pc.min_max(column)
            return int(bounds["min"].value), int(bounds["max"].value)
        times = _values(column, np.int64)
        return int(times.min()), int(times.max())

    def decode(self, frame: FrameHeader, body: memoryview | bytes) -> pa.RecordBatch | None:
        """The rows of a stored body, views of `body`; None if a CRC or anything else does not check out."""
        data = pa.py_buffer(body)
        codec = frame.codec
        try:
            if codec == _IDS_AND_ARROW and self.series is not None:
                end = ids_end(frame, body)
                if end is None or header_body_crc(frame, memoryview(body)[end:]) != frame.body_crc:
                    return None
                rest = pa.ipc.read_record_batch(data.slice(end), self.rest)
                ids = _from_buffers(_UINT32, frame.rows, [None, data.slice(IDS_HEADER_BYTES, 4 * frame.rows)])
                rows = rest.add_column(self.series, self._series_field, ids)
            elif codec == _ARROW and self.series is None:
                if header_body_crc(frame, body) != frame.body_crc:
                    return None
                rows = pa.ipc.read_record_batch(data, self.rest)
            elif codec == Codec.MESSAGEPACK and self.series is None:
                record = decode_record(frame, body)
                if record is None:
                    return None
                rows = self._row_of(record)
            else:
                return None
        except (pa.ArrowException, ValueError, OSError, TypeError, OverflowError, msgspec.MsgspecError):
            return None
        return rows if rows.num_rows == frame.rows else None

    def _row_of(self, record: bytes) -> pa.RecordBatch:
        """The one row of a MessagePack array of values in the order of the columns. Raises for anything else."""
        values = msgspec.msgpack.decode(record, type=list[Any])
        if len(values) != len(self.schema):
            raise ValueError(f"expected {len(self.schema)} values, found {len(values)}")
        columns = [
            pa.array([[*map(tuple, value)] if pa.types.is_map(field.type) else value], field.type)
            for value, field in zip(values, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def body_is_sound(frame: FrameHeader, body: memoryview) -> bool:
    """Whether a stored body's CRCs are right. Needs no schema."""
    if frame.codec != _IDS_AND_ARROW:
        return header_body_crc(frame, body) == frame.body_crc
    end = ids_end(frame, body)
    return end is not None and header_body_crc(frame, body[end:]) == frame.body_crc


def ids_end(frame: FrameHeader, body: memoryview | bytes) -> int | None:
    """Where the ids section of a body ends; None if it does not check out."""
    if len(body) < IDS_HEADER_BYTES:
        return None
    count, crc = _IDS_HEADER.unpack_from(body)
    end: int = IDS_HEADER_BYTES + (4 * count + 7) // 8 * 8
    if count != frame.rows or end > len(body) or crc32c(memoryview(body)[IDS_HEADER_BYTES:end]) != crc:
        return None
    return end


def encode_record(record: object) -> Body:
    """A control record as a body (MessagePack, zero-padded to 8 bytes behind a u32 length)."""
    data = msgspec.msgpack.encode(record)
    padding = _PADDING[(4 + len(data)) % 8]
    raw = len(data).to_bytes(4, "little") + data + padding
    return Body(Codec.MESSAGEPACK, 1, TIME_UNKNOWN_MIN, TIME_UNKNOWN_MAX, len(raw), 0, (raw,), raw)


def decode_record(frame: FrameHeader, body: memoryview | bytes) -> bytes | None:
    """The MessagePack bytes of a control record; None if they do not check out."""
    if frame.codec != Codec.MESSAGEPACK or len(body) < 4 or header_body_crc(frame, body) != frame.body_crc:
        return None
    size = int.from_bytes(body[:4], "little")
    return bytes(body[4 : 4 + size]) if 4 + size <= len(body) else None


def _values(column: pa.Array, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    """The values of a fixed-width column without nulls, as a view."""
    buffer = column.buffers()[1]
    count = len(column)
    if buffer is None or not count:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, count, column.offset * np.dtype(dtype).itemsize)


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(index).type) for index in range(kind.num_fields))


def _describe(columns: list[tuple[str, pa.DataType]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns)
