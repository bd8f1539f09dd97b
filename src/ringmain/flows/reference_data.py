"""Reference data out of files: CSV or Parquet, versioned by validity time.

A file is read whole when a flow is planned and made; what it holds is a part of the flow's definition, by the hash of
its content. Columns `valid_from` and `valid_to` (not included) tell from when until when a row holds; times without a
zone, and dates, are of the node's zone. Without them a row always holds.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ringmain.flows.asof import OPEN, ROWS_MAX
from ringmain.flows.block import Ints
from ringmain.flows.state import NEVER
from ringmain.model.schemas import TIMESTAMP

FILE_BYTES_MAX = 64 * 1024 * 1024
VALID_FROM, VALID_TO = "valid_from", "valid_to"


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """Rows of a file with the times between which they hold (ns UTC)."""

    rows: pa.RecordBatch
    valid_from: Ints
    valid_to: Ints
    sha256: str

    def texts(self, column: str) -> list[str | None]:
        """A column as text, for keys."""
        found: list[str | None] = self.rows.column(column).cast(pa.string()).to_pylist()
        return found


def reference_data(path: Path, keys: tuple[str, ...], zone: ZoneInfo) -> ReferenceData:
    """What a file holds; columns `keys` stay text. Raises ValueError, which names what to mend, and OSError."""
    status = path.stat()
    if status.st_size > FILE_BYTES_MAX:
        raise ValueError(
            f"expected at most {FILE_BYTES_MAX >> 20} MiB, {path} has {status.st_size >> 20} MiB"
        )
    return _read(path, keys, zone.key, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, keys: tuple[str, ...], zone: str, size_bytes: int, changed_ns: int) -> ReferenceData:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        table = _parquet(content) if content[:4] == b"PAR1" else _csv(content, keys)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is neither CSV nor Parquet that can be read: {error}") from error
    if table.num_rows > ROWS_MAX:
        raise ValueError(f"expected at most {ROWS_MAX} rows, {path} has {table.num_rows}")
    missing = [key for key in keys if key not in table.schema.names]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(table.schema.names)}: name the columns in `on`"
        )
    columns, fields = [], []
    for field in table.schema:
        column = _plain(table.column(field.name).combine_chunks())
        columns.append(column)
        fields.append(pa.field(field.name, column.type))
    rows = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    begin = _validity(rows, VALID_FROM, zone, NEVER, path)
    end = _validity(rows, VALID_TO, zone, OPEN, path)
    backward = np.flatnonzero(end <= begin)
    if len(backward):
        raise ValueError(f"{path}, row {int(backward[0]) + 1}: {VALID_TO} is not behind {VALID_FROM}")
    data = ReferenceData(rows, begin, end, sha256)
    _check_once(data, keys, path)
    return data


def _csv(content: bytes, keys: tuple[str, ...]) -> pa.Table:
    texts = dict.fromkeys(keys, pa.string())
    return pyarrow.csv.read_csv(
        io.BytesIO(content),
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=True),
    )


def _parquet(content: bytes) -> pa.Table:
    return pyarrow.parquet.read_table(io.BytesIO(content), use_threads=False)


def _plain(column: pa.Array) -> pa.Array:
    """The column in a type that a stream of the log holds."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    return column


def _validity(rows: pa.RecordBatch, name: str, zone: str, missing: int, path: Path) -> Ints:
    if name not in rows.schema.names:
        return np.full(rows.num_rows, missing, np.int64)
    column = rows.column(name)
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
        kind = column.type
    if not pa.types.is_timestamp(kind):
        if column.null_count == len(column):
            return np.full(rows.num_rows, missing, np.int64)
        raise ValueError(
            f"{path}: expected dates or times such as 2026-01-01T00:00:00Z in {name}, found {kind}"
        )
    if kind.tz is None:
        column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="latest")
    try:
        column = column.cast(TIMESTAMP)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: a time in {name} is too far away: {error}") from error
    found: Ints = column.cast(pa.int64()).fill_null(missing).to_numpy(zero_copy_only=False)
    return found


def _check_once(data: ReferenceData, keys: tuple[str, ...], path: Path) -> None:
    seen: dict[tuple[str | None, ...], int] = {}
    texts = [data.texts(key) for key in keys]
    for number, begin in enumerate(data.valid_from.tolist()):
        key = (*(text[number] for text in texts), str(begin))
        before = seen.setdefault(key, number)
        if before != number:
            named = ", ".join(f"{name} {text[number]!r}" for name, text in zip(keys, texts, strict=True))
            raise ValueError(
                f"{path}: rows {before + 1} and {number + 1} hold for the same time ({named or 'no key'}): expected one "
                f"row a key and {VALID_FROM}"
            )


__all__ = ["FILE_BYTES_MAX", "VALID_FROM", "VALID_TO", "ReferenceData", "reference_data"]
