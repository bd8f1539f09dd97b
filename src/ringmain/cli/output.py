"""How rows leave the command line: `--format table|json|csv|arrow`, streamed batch by batch.

json   one array; one object a line; times as RFC 3339 in UTC with as many digits as they have
csv    RFC 4180 with a header line, times as in json
arrow  an Arrow IPC stream
table  aligned columns for people, at most as wide as its longest cell of the first rows
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, BinaryIO

import click
import msgspec
import pyarrow as pa
import pyarrow.compute as pc


class Format(Enum):
    """Ways to print rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--format`, shared by every command where data comes out."""
    return click.option(
        "--format",
        "output",
        type=click.Choice([choice.value for choice in Format]),
        default=Format.TABLE.value,
        show_default=True,
        help="How the rows are printed.",
    )(function)


def print_rows(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], output: str, stream: BinaryIO | None = None
) -> int:
    """Print all batches in the format; flushes after each batch, so that live output is live. Returns the rows."""
    out = stream if stream is not None else sys.stdout.buffer
    match Format(output):
        case Format.ARROW:
            return _arrow(schema, batches, out)
        case Format.JSON:
            return _json(batches, out)
        case Format.CSV:
            return _csv(schema, batches, out)
        case Format.TABLE:
            return _table(schema, batches, out)


def _arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> int:
    rows = 0
    with pa.ipc.new_stream(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            out.flush()
    out.flush()
    return rows


def _json(batches: Iterable[pa.RecordBatch], out: BinaryIO) -> int:
    encode = msgspec.json.Encoder(enc_hook=str).encode
    rows = 0
    out.write(b"[")
    for batch in batches:
        for row in readable(batch).to_pylist():
            out.write(b",\n" if rows else b"")
            out.write(encode(row))
            rows += 1
        out.flush()
    out.write(b"]\n")
    out.flush()
    return rows


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> int:
    rows = 0

    def lines(values: Iterable[Iterable[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(values)
        return text.getvalue().encode()

    out.write(lines([schema.names]))
    for batch in batches:
        columns = [column.to_pylist() for column in readable(batch).columns]
        out.write(lines(zip(*columns, strict=True)))
        rows += batch.num_rows
        out.flush()
    return rows


def _table(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> int:
    widths: list[int] | None = None
    numeric = [
        pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type)
        for f in schema
    ]
    rows = 0

    def line(cells: Iterable[str]) -> bytes:
        assert widths is not None
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return ("  ".join(padded).rstrip() + "\n").encode("utf-8", "replace")

    for batch in _or_empty(schema, batches):
        cells = [
            [_cell(value, whole=name == schema.names[-1]) for value in column.to_pylist()]
            for name, column in zip(schema.names, readable(batch).columns, strict=True)
        ]
        if widths is None:
            widths = [
                min(max([len(name), *map(len, column)]), 200)
                for name, column in zip(schema.names, cells, strict=True)
            ]
            out.write(line(schema.names))
            out.write(line("-" * width for width in widths))
        for row in zip(*cells, strict=True):
            out.write(line(row))
        rows += batch.num_rows
        out.flush()
    return rows


def _or_empty(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        yield pa.RecordBatch.from_pylist([], schema)


def readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with times as RFC 3339 text in UTC, bytes as text (what is not UTF-8 escaped), dictionaries decoded."""
    arrays = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_timestamp(column.type):
            column = rfc3339(column)
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = pa.array(
                [None if v is None else v.decode("utf-8", "backslashreplace") for v in column.to_pylist()],
                pa.string(),
            )
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def rfc3339(times: pa.Array) -> pa.Array:
    """Timestamps as RFC 3339 text in UTC, fraction only where there is one, exact to the nanosecond."""
    instants = times.cast(pa.timestamp("ns", tz="UTC"), safe=False)
    text = pc.strftime(instants, format="%Y-%m-%dT%H:%M:%S", locale="C")
    trimmed = pc.replace_substring_regex(pc.utf8_rtrim(text, characters="0"), pattern=r"\.$", replacement="")
    return pc.binary_join_element_wise(trimmed, pa.scalar("Z"), pa.scalar(""))


def _cell(value: Any, whole: bool = False) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value).replace("\n", "⏎").replace("\r", "␍")
    if not text.isprintable():  # what a device sent does not command this terminal
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    limit = max(40, shutil.get_terminal_size((160, 24)).columns // 2)
    return text if whole or len(text) <= limit else text[: limit - 1] + "…"
