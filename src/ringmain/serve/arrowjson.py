"""Arrow columns as JSON values, for people and programs that have no Arrow.

Timestamps become RFC 3339 texts in UTC with as many digits as they need (0, 3, 6 or 9), other times ISO 8601 texts,
decimals without fraction integers and others floats, bytes texts (what is not UTF-8 as `\\xNN`), NaN and infinity null.
"""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.serve.keyed import ns_of

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def rows_of(table: pa.Table) -> list[list[Any]]:
    """The rows of a table as JSON values."""
    if not table.num_columns:
        return []
    columns = [_values(column) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return [text for chunk in column.chunks for text in rfc3339(chunk)]
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type))
    if pa.types.is_floating(kind):
        finite = pc.is_finite(column)
        return pc.if_else(finite, column, None).to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case decimal.Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def rfc3339(times: pa.Array) -> list[str | None]:
    """Timestamps as texts, exactly; null stays None."""
    per_second = _PER_SECOND[times.type.unit]
    numbers = ns_of(times)
    seconds, parts = np.divmod(numbers, per_second)
    suffix = "Z" if times.type.tz is not None else ""
    fractions = _fractions(parts, per_second)
    dates = np.datetime_as_string(seconds.astype("datetime64[s]"), unit="s").tolist()
    texts: list[str | None] = [
        f"{date}{fraction}{suffix}" for date, fraction in zip(dates, fractions, strict=True)
    ]
    if times.null_count:
        texts = [
            None if gone else text for text, gone in zip(texts, times.is_null().to_pylist(), strict=True)
        ]
    return texts


def _fractions(parts: NDArray[np.int64], per_second: int) -> list[str]:
    ns = parts * (1_000_000_000 // per_second)
    if not ns.any():
        return [""] * len(ns)
    texts = []
    for value in ns.tolist():
        if not value:
            texts.append("")
        elif value % 1_000_000 == 0:
            texts.append(f".{value // 1_000_000:03d}")
        elif value % 1_000 == 0:
            texts.append(f".{value // 1_000:06d}")
        else:
            texts.append(f".{value:09d}")
    return texts
