"""The CSV files of a case: rows of streams with series as keys and times as RFC 3339, read and written.

A column's type is that of the stream where it is known, else what stands behind the name (`start:timestamp`), else what
its name or its cells say. An empty cell is no value; `""` in quotes is an empty text.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from ringmain.flows.cases.layout import FILE_BYTES_MAX, INPUT, Case, CaseError
from ringmain.log.interface import StreamKind
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import EVENT, READING, TIMESTAMP
from ringmain.model.series_attributes import SeriesAttributes, check_key

KEYS = pa.dictionary(pa.int32(), pa.string())
"""A column of series keys (or another text that repeats) towards people."""
_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "string": pa.string(),
    "number": pa.float64(),
    "double": pa.float64(),
    "float64": pa.float64(),
    "integer": pa.int64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "uint32": pa.uint32(),
    "uint16": pa.uint16(),
    "bool": pa.bool_(),
    "timestamp": TIMESTAMP,
}
_NAMED: dict[str, pa.DataType] = {
    "time": TIMESTAMP,
    "start": TIMESTAMP,
    "end": TIMESTAMP,
    "value": pa.float64(),
    "quality": pa.uint16(),
    "count": pa.int64(),
    "revision": pa.uint32(),
}
_ZONED = r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows of one stream that arrived at the same time, as they are stored: series as ids."""

    arrival_ns: int
    stream: str
    kind: StreamKind
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Recorded:
    """The input of a case: the catalogue as it is before the first arrival, and arrivals in order."""

    catalogue: Catalogue
    arrivals: tuple[Arrival, ...]
    schemas: Mapping[str, tuple[StreamKind, pa.Schema]]
    """Kind and columns of each stream of the input, those without rows too."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A CSV file, each cell as its text, null where it is empty.

    `lines`: where each row stands; `stated`: types in its header.
    """

    path: Path
    rows: pa.Table
    lines: NDArray[np.int64]
    stated: Mapping[str, pa.DataType]

    def take(self, mask: pa.ChunkedArray) -> Texts:
        """The rows where it is true."""
        return Texts(self.path, self.rows.filter(mask), self.lines[np.asarray(mask)], self.stated)

    def without(self, name: str) -> Texts:
        """Without a column."""
        return Texts(self.path, self.rows.drop_columns([name]), self.lines, self.stated)

    def type_of(self, name: str) -> pa.DataType:
        """The type of a column of which nothing else is known: stated, by its name, or by its cells."""
        stated = self.stated.get(name) or _NAMED.get(name)
        if stated is not None:
            return stated
        column = self.rows.column(name)
        try:
            pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            return pa.string()
        return pa.string() if column.null_count == len(column) else pa.float64()

    def column(self, name: str, kind: pa.DataType, *, nullable: bool = True) -> pa.Array:
        """A column's cells as values. Raises CaseError with the line of the first that is none."""
        texts = self.rows.column(name).combine_chunks()
        texts = (
            texts if isinstance(texts, pa.Array) else pa.chunked_array(texts, pa.string()).combine_chunks()
        )
        if not nullable and texts.null_count:
            place = int(np.flatnonzero(np.asarray(texts.is_null()))[0])
            raise CaseError(
                f"{self.path}:{self.lines[place]}: expected a value in column `{name}`, found none"
            )
        try:
            return _cast(texts, kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            for place, text in enumerate(texts.to_pylist()):
                try:
                    _cast(pa.array([text], pa.string()), kind)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    raise CaseError(
                        f"{self.path}:{self.lines[place]}: {name}: expected {_expected(kind)}, found {text!r}"
                    ) from None
            raise


def _cast(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        zoned = pc.match_substring_regex(texts, _ZONED)
        whole = pc.if_else(zoned, texts, pc.binary_join_element_wise(texts, "Z", ""))
        return whole.cast(TIMESTAMP).cast(kind)
    if pa.types.is_dictionary(kind):
        return _cast(texts, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_binary(kind):
        return texts.cast(pa.binary())
    return texts.cast(kind)


def _expected(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "a time such as 2026-03-01T12:00:00Z"
    if pa.types.is_integer(kind):
        return f"a whole number ({kind})"
    if pa.types.is_floating(kind):
        return "a number"
    return "true or false" if pa.types.is_boolean(kind) else f"a value of type {kind}"


def read_texts(path: Path) -> Texts:
    """A CSV file. Raises CaseError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CaseError(
                f"{path}: expected at most {FILE_BYTES_MAX >> 20} MiB, found more: take a shorter time"
            )
        with path.open("rb") as file:
            header = file.readline(64 * 1024).decode("utf-8-sig")
            empty = not file.read(1)
        cells = [cell.strip().partition(":") for cell in next(csv.reader([header]), [])]
        names = [name for name, _, _ in cells]
        if not names or len(set(names)) != len(names) or not all(names):
            raise CaseError(f"{path}:1: expected a name for each column, each once, found {header.strip()!r}")
        for name, _, kind in cells:
            if kind and kind not in _TYPES:
                raise CaseError(
                    f"{path}:1: {name}: unknown type {kind!r}; expected one of {', '.join(_TYPES)}"
                )
        stated = {name: _TYPES[kind] for name, _, kind in cells if kind}
        if empty:
            rows = pa.table({name: pa.array([], pa.string()) for name in names})
        else:
            rows = arrow_csv.read_csv(
                path,
                read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        text = str(error).replace("CSV parse error: ", "")
        raise CaseError(f"{path}: expected a CSV file in UTF-8 with a line of column names: {text}") from None
    except OSError as error:
        raise CaseError(f"{path}: cannot be read: {error.strerror or error}") from None
    return Texts(path, rows, np.arange(2, rows.num_rows + 2), stated)


def read_input(
    case: Case,
    series: Sequence[tuple[str, SeriesAttributes]] = (),
    known: Mapping[str, pa.Schema] | None = None,
) -> Recorded:
    """The input files of a case. `series`: the catalogue file; `known`: the columns of streams, as far as they are.

    Raises CaseError.
    """
    catalogue = Catalogue()
    for key, attributes in series:
        catalogue.add(key, "case", attributes)
    tables: list[_Table] = []
    for path in case.inputs():
        stream = path.name.removeprefix(INPUT).removesuffix(".csv").removeprefix(".") or "readings"
        for name, texts in _by_stream(read_texts(path), stream):
            tables.append(_input_rows(name, texts, (known or {}).get(name), catalogue))
    schemas = {table.stream: (table.kind, table.rows.schema) for table in tables}
    return Recorded(catalogue, tuple(_arrivals(tables)), schemas)


def _by_stream(texts: Texts, stream: str) -> list[tuple[str, Texts]]:
    """The rows of each stream of a file, in order of their first row."""
    if "stream" not in texts.rows.column_names:
        return [(stream, texts)]
    if stream != "readings":
        raise CaseError(
            f"{texts.path}:1: the file's name says its stream already: leave the column `stream` out"
        )
    names = pc.fill_null(texts.rows.column("stream"), stream)
    rest = texts.without("stream")
    return [(name, rest.take(pc.equal(names, name))) for name in pc.unique(names).to_pylist()]


@dataclass(frozen=True, slots=True)
class _Table:
    stream: str
    kind: StreamKind
    rows: pa.RecordBatch
    arrived: NDArray[np.int64]


def _input_rows(stream: str, texts: Texts, known: pa.Schema | None, catalogue: Catalogue) -> _Table:
    path, names = texts.path, [name for name in texts.rows.column_names if name != "arrived"]
    if known is not None:
        kind, schema = StreamKind.READING if known.equals(READING) else StreamKind.ROW, known
    elif {"series", "time", "value"} <= set(names) <= {"series", "time", "value", "quality"}:
        kind, schema = StreamKind.READING, READING
    elif stream == "readings":
        raise CaseError(
            f"{path}:1: expected columns series, time, value, and if need be quality and arrived, "
            f"found {', '.join(texts.rows.column_names)}"
        )
    elif stream == "events":
        kind, schema = StreamKind.EVENT, EVENT
    else:
        fields = [pa.field(name, pa.uint32() if name == "series" else texts.type_of(name)) for name in names]
        kind, schema = StreamKind.ROW, pa.schema(fields)
    for name in names:
        if name not in schema.names:
            raise CaseError(
                f"{path}:1: stream {stream!r} has no column `{name}`; it has {', '.join(schema.names)}, "
                "and `arrived` beside them"
            )
    columns = [_input_column(stream, texts, field, catalogue) for field in schema]
    rows = pa.RecordBatch.from_arrays(columns, schema=schema)
    named = "arrived" if "arrived" in texts.rows.column_names else "time"
    if named not in texts.rows.column_names:
        raise CaseError(
            f"{path}:1: expected a column `arrived` (or `time`, which stands in for it), found neither"
        )
    arrived = texts.column(named, TIMESTAMP, nullable=False).cast(pa.int64())
    return _Table(stream, kind, rows, arrived.to_numpy())


def _input_column(stream: str, texts: Texts, field: pa.Field, catalogue: Catalogue) -> pa.Array:
    count = texts.rows.num_rows
    if field.name in texts.rows.column_names:
        if field.name == "quality":
            return texts.column("quality", field.type).fill_null(0)
        if field.name != "series":
            return texts.column(field.name, field.type, nullable=field.nullable)
        keys = texts.column("series", KEYS, nullable=field.nullable)
        return _ids(texts, keys, catalogue)
    if field.name == "quality":
        return pa.array(np.zeros(count, np.uint16))
    if field.nullable:
        return pa.nulls(count, field.type)
    raise CaseError(
        f"{texts.path}:1: expected a column `{field.name}` of stream {stream!r}, "
        f"found {', '.join(texts.rows.column_names)}"
    )


def _ids(texts: Texts, keys: pa.DictionaryArray, catalogue: Catalogue) -> pa.Array:
    """The ids of series keys, null where there is none; a key that is new gets the next id."""
    known: list[int] = []
    for code, key in enumerate(keys.dictionary.to_pylist()):
        try:
            check_key(key)
        except ValueError as error:
            line = texts.lines[int(np.flatnonzero(np.asarray(pc.equal(keys.indices, code)))[0])]
            raise CaseError(f"{texts.path}:{line}: series: {error}") from None
        known.append(catalogue.add(key, "case", SeriesAttributes()))
    return pa.array(known, pa.uint32()).take(keys.indices)


def _arrivals(tables: list[_Table]) -> list[Arrival]:
    """Rows of all streams in order of arrival; rows of a stream with one arrival together."""
    if not tables:
        return []
    arrived = np.concatenate([table.arrived for table in tables])
    owner = np.repeat(np.arange(len(tables)), [len(table.arrived) for table in tables])
    place = np.concatenate([np.arange(len(table.arrived)) for table in tables])
    order = np.lexsort((place, owner, arrived))
    arrived, owner, place = arrived[order], owner[order], place[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (arrived[1:] != arrived[:-1]) | (owner[1:] != owner[:-1])
    bounds = [*np.flatnonzero(begins).tolist(), len(order)]
    return [
        Arrival(
            int(arrived[start]),
            tables[owner[start]].stream,
            tables[owner[start]].kind,
            tables[owner[start]].rows.take(pa.array(place[start:stop])),
        )
        for start, stop in pairwise(bounds)
    ]


def keyed(rows: pa.RecordBatch, catalogue: Catalogue) -> pa.RecordBatch:
    """Rows as people see them: column `series` with keys."""
    place = rows.schema.get_field_index("series")
    if place < 0 or not pa.types.is_uint32(rows.schema.field(place).type):
        return rows
    ids = rows.column(place)
    keys = catalogue.key_array(ids.fill_null(0).to_numpy()) if len(ids) else pa.array([], KEYS)
    if ids.null_count:
        keys = pc.if_else(ids.is_valid(), keys.dictionary_decode(), pa.scalar(None, pa.string()))
    return rows.set_column(place, pa.field("series", keys.type), keys)


def csv_text(table: pa.Table | pa.RecordBatch) -> str:
    """Rows as CSV, in the form that `read_texts` reads: RFC 3339 in UTC, numbers exact, `""` for an empty text."""
    columns = [_texts(column) for column in table.columns]
    lines = [",".join(map(cell_text, table.schema.names))]
    lines += [",".join(cells) for cells in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def _texts(column: pa.ChunkedArray | pa.Array) -> list[str]:
    if pa.types.is_timestamp(column.type):
        return ["" if text is None else text for text in rfc3339(column).to_pylist()]
    return [cell_text(value) for value in column.to_pylist()]


def cell_text(value: Any) -> str:
    """A value as a cell of CSV."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, str) and (not text or any(mark in text for mark in ',"\r\n')):
        return '"' + text.replace('"', '""') + '"'
    return text if isinstance(value, str | int) else '"' + text.replace('"', '""') + '"'


def rfc3339(times: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Timestamps as RFC 3339 text in UTC, a fraction only where there is one, exact to the nanosecond."""
    text = pc.strftime(times.cast(TIMESTAMP), format="%Y-%m-%dT%H:%M:%S", locale="C")
    trimmed = pc.replace_substring_regex(text, pattern=r"\.?0*$", replacement="")
    return pc.binary_join_element_wise(trimmed, "Z", "")
