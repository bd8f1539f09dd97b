"""The formats that an export writes: Parquet, Arrow, CSV and NDJSON, each batch by batch in bounded memory.

parquet  version 2.6, zstd, page checksums on; a row group a batch; words dictionary-encoded, times by delta, values
         by byte-stream split (Apache Parquet format, "Encodings")
arrow    Arrow IPC file format (stream format into a pipe), buffers compressed with lz4
csv      RFC 4180 with a header line; texts are quoted, so that an empty text and no value stay two things
ndjson   one JSON object a line (RFC 8259); a number that JSON does not know (NaN, infinite) is null, and counted

In CSV and NDJSON times are ISO 8601 in UTC with nine digits, numbers have the digits that give back the same double,
and bytes are text where they are UTF-8; where they are not, the text is null and `NAME_base64` has them. Lists and structs
are JSON in both.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from enum import Enum
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 1_000_000
CHUNK_ROWS = 131_072
CHUNK_BYTES = 64 << 20
"""Beyond this a batch is handed on whatever its rows; bounds memory where rows are large."""


class ExportFormat(Enum):
    """Ways to export rows."""

    PARQUET = "parquet"
    ARROW = "arrow"
    CSV = "csv"
    NDJSON = "ndjson"

    @property
    def chunk_rows(self) -> int:
        """Rows of one batch."""
        return ROW_GROUP_ROWS if self is ExportFormat.PARQUET else CHUNK_ROWS

    @property
    def binary(self) -> bool:
        """Whether it is nothing for a terminal."""
        return self in (ExportFormat.PARQUET, ExportFormat.ARROW)


class Output(Protocol):
    """A format on its way into a file. `not_numbers`: values that it had no number for."""

    not_numbers: int

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the next rows."""
        ...

    def close(self) -> None:
        """Write what comes last. The file stays open."""
        ...


def output_of(
    choice: ExportFormat, schema: pa.Schema, out: BinaryIO, *, seekable: bool, constant: frozenset[str]
) -> Output:
    """A writer of that format. Columns named in `constant` have the same dictionary in every batch."""
    match choice:
        case ExportFormat.PARQUET:
            return _Parquet(schema, out)
        case ExportFormat.ARROW:
            return _Arrow(schema, out, seekable, constant)
        case ExportFormat.CSV:
            return _Csv(schema, out)
        case ExportFormat.NDJSON:
            return _Ndjson(schema, out)


class _Parquet:
    def __init__(self, schema: pa.Schema, out: BinaryIO) -> None:
        self.not_numbers = 0
        words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        encodings = {}
        for field in schema:
            if pa.types.is_timestamp(field.type):
                encodings[field.name] = "DELTA_BINARY_PACKED"
            elif pa.types.is_floating(field.type):
                encodings[field.name] = "BYTE_STREAM_SPLIT"
        small = [field.name for field in schema if field.name not in encodings and not _nested(field.type)]
        # the smallest and largest word of a million rows choose nothing, and cost half of the writing
        ordered = [field.name for field in schema if _is_ordered(field.type)]
        self._writer = pq.ParquetWriter(
            out,
            schema,
            version="2.6",
            compression="zstd",
            compression_level=1,
            use_dictionary=[*dict.fromkeys([*words, *small])],
            column_encoding=encodings or None,
            write_statistics=ordered or False,
            write_page_checksum=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            _used(column) if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        group = pa.Table.from_arrays(columns, schema=batch.schema)
        self._writer.write_table(group, row_group_size=max(1, group.num_rows))

    def close(self) -> None:
        self._writer.close()


def _used(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column with only those words in its dictionary that it uses: a row group carries its own."""
    words = len(column.dictionary)
    places = column.indices.fill_null(0).to_numpy()
    used = np.zeros(max(words, 1), np.bool_)
    used[places] = True
    if not words or used.all():
        return column
    renumbered = (np.cumsum(used) - 1).astype(np.int32)[places]
    mask = column.indices.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return pa.DictionaryArray.from_arrays(
        pa.array(renumbered, mask=mask), column.dictionary.take(pa.array(np.flatnonzero(used)))
    )


class _Arrow:
    def __init__(self, schema: pa.Schema, out: BinaryIO, seekable: bool, constant: frozenset[str]) -> None:
        self.not_numbers = 0
        self._schema = pa.schema(
            [
                field.with_type(field.type.value_type)
                if pa.types.is_dictionary(field.type) and field.name not in constant
                else field
                for field in schema
            ]
        )
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        opened = pa.ipc.new_file if seekable else pa.ipc.new_stream
        self._writer = opened(out, self._schema, options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            column if column.type == field.type else column.dictionary_decode()
            for field, column in zip(self._schema, batch.columns, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, schema: pa.Schema, out: BinaryIO) -> None:
        self.not_numbers = 0
        self._schema = pa.schema(
            [
                pa.field(name, pa.string() if _is_text(field.type) else field.type)
                for field in schema
                for name in _names(field)
            ]
        )
        self._writer = pyarrow.csv.CSVWriter(out, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            text if _is_text(field.type) else column
            for field, column in zip(batch.schema, batch.columns, strict=True)
            for text in (_texts(column) if _is_text(field.type) else [column])
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _Ndjson:
    def __init__(self, schema: pa.Schema, out: BinaryIO) -> None:
        self.not_numbers = 0
        self._out = out
        names = [name for field in schema for name in _names(field)]
        self._labels = [
            f"{'{' if number == 0 else ','}{msgspec.json.encode(name).decode()}:"
            for number, name in enumerate(names)
        ]

    def write(self, batch: pa.RecordBatch) -> None:
        values = [value for column in batch.columns for value in self._json(column)]
        parts: list[Any] = []
        for label, value in zip(self._labels, values, strict=True):
            parts += [pa.scalar(label), value]
        lines = pc.binary_join_element_wise(*parts, pa.scalar("}\n"), pa.scalar(""))
        self._out.write(_bytes_of(lines))

    def _json(self, column: pa.Array) -> list[pa.Array]:
        kind = column.type
        if pa.types.is_floating(kind):
            column = column.cast(pa.float64())
            known = pc.is_finite(column)
            self.not_numbers += int(pc.sum(pc.invert(known)).as_py() or 0)
            text = pc.if_else(known, column, None).cast(pa.string())
            # without its point a JSON reader would take it for the integer 0, which has no sign
            text = pc.if_else(pc.equal(text, "-0"), "-0.0", text)
            return [text.fill_null("null")]
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return [column.cast(pa.string()).fill_null("null")]
        if pa.types.is_timestamp(kind):
            quoted = pc.binary_join_element_wise('"', iso_times(column), '"', "")
            return [quoted.fill_null("null")]
        if _nested(kind):
            return [text.fill_null("null") for text in _texts(column)]
        return [_quoted(text) for text in _texts(column)]

    def close(self) -> None:
        self._out.flush()


def _quoted(column: pa.Array) -> pa.Array:
    """Texts as JSON strings: each different one is encoded once."""
    words = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encode = msgspec.json.encode
    encoded = [None if word is None else encode(word).decode() for word in words.dictionary.to_pylist()]
    return pa.array(encoded, pa.string()).take(words.indices).fill_null("null")


def _names(field: pa.Field) -> list[str]:
    """The names under which a column is written as text."""
    return [field.name, f"{field.name}_base64"] if _is_binary(field.type) else [field.name]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_ordered(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind))


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column becomes text here; numbers and booleans are left to the writer."""
    return not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _texts(column: pa.Array) -> list[pa.Array]:
    """A column that is no number as text: one column, for bytes two."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return [column.dictionary_decode().cast(pa.string())]
    if pa.types.is_string(kind):
        return [column]
    if pa.types.is_timestamp(kind):
        return [iso_times(column)]
    if _is_binary(kind):
        values = column.to_pylist()
        texts = [None if value is None else _utf8(value) for value in values]
        others = [
            base64.b64encode(value).decode() if value is not None and text is None else None
            for value, text in zip(values, texts, strict=True)
        ]
        return [pa.array(texts, pa.string()), pa.array(others, pa.string())]
    if _nested(kind):
        encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=str).encode
        return [
            pa.array(
                [None if value is None else encode(value).decode() for value in column.to_pylist()],
                pa.string(),
            )
        ]
    return [column.cast(pa.string())]


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def iso_times(times: pa.Array) -> pa.Array:
    """Timestamps as ISO 8601 in UTC with nine digits behind the second, null for null."""
    numbers = times.view(pa.int64()).fill_null(0)
    if times.type.unit != "ns":
        digits = {"s": ".000000000Z", "ms": "000000Z", "us": "000Z"}[times.type.unit]
        text = pc.utf8_replace_slice(
            numbers.cast(pa.timestamp(times.type.unit)).cast(pa.string()), 10, 11, "T"
        )
        written = pc.binary_join_element_wise(text, digits, "")
        return pc.if_else(times.is_valid(), written, None)
    text = numbers.cast(pa.timestamp("ns")).cast(pa.string())  # every one of 29 bytes: 1677 to 2262
    count = len(text)
    if not count:
        return text
    start = int(np.frombuffer(text.buffers()[1], np.int32, 1, text.offset * 4)[0])
    wide = np.empty((count, 30), np.uint8)
    wide[:, :29] = np.frombuffer(text.buffers()[2], np.uint8, 29 * count, start).reshape(count, 29)
    wide[:, 10] = ord("T")
    wide[:, 29] = ord("Z")
    offsets = np.arange(0, 30 * (count + 1), 30, dtype=np.int32)
    written = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(wide))
    return pc.if_else(times.is_valid(), written, None) if times.null_count else written


def _bytes_of(lines: pa.StringArray) -> memoryview:
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]
