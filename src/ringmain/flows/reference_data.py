"""Reference data out of files: CSV or Parquet, versioned by validity time.

A file is read whole when a flow is planned and made; what it holds is a part of the flow's definition, by the hash of
its content. Columns `valid_from` and `valid_to` (not included) tell from when until when a row holds; times without a
zone, and dates, are of the node's zone. Without them a row always holds.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    texts = dict.fromkeys((*keys, VALID_FROM, VALID_TO), pa.string())
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
    """A column of times as ns UTC. One beyond what ns can tell (1677 to 2262, as 9999-12-31) is as far as they go."""
    if name not in rows.schema.names:
        return np.full(rows.num_rows, missing, np.int64)
    column = rows.column(name)
    if pa.types.is_string(column.type):
        column = _parsed(column, name, zone, path)
    elif pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
        if column.type.tz is None:
            column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="latest")
    else:
        raise ValueError(f"{path}: expected dates or times such as 2026-01-01 in {name}, found {column.type}")
    given = column.is_valid().to_numpy(zero_copy_only=False)
    microseconds = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    furthest = (OPEN - 1) // 1000
    found: Ints = np.clip(microseconds, -furthest, furthest) * 1000
    found[microseconds > furthest] = OPEN
    found[microseconds < -furthest] = NEVER
    found[~given] = missing
    return found


def _parsed(column: pa.Array, name: str, zone: str, path: Path) -> pa.Array:
    """Dates and times in ISO 8601 as microseconds UTC."""
    local = ZoneInfo(zone)
    found: list[int | None] = []
    for row, text in enumerate(column.to_pylist(), 1):
        if text is None or not text.strip():
            found.append(None)
            continue
        try:
            time = datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise ValueError(
                f"{path}, row {row}: expected a date or time such as 2026-01-01 or 2026-01-01T06:00:00Z in {name}, "
                f"found {text!r}"
            ) from error
        zoned = time if time.tzinfo is not None else time.replace(tzinfo=local)
        found.append((zoned - _EPOCH) // timedelta(microseconds=1))
    return pa.array(found, pa.int64())


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
