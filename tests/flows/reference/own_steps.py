"""Functions of a user's, as the step `python` calls them."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def doubled(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch:
    """Twice the value, nothing remembered."""
    return rows.set_column(rows.schema.get_field_index("value"), "value", pc.multiply(rows["value"], 2.0))


def rises(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch | None:
    """Readings that are higher than the one before of their series."""
    last: dict[int, float] = state.setdefault("last", {})
    kept = []
    for place, (series, value) in enumerate(
        zip(rows["series"].to_pylist(), rows["value"].to_pylist(), strict=True)
    ):
        if math.isnan(value):
            continue
        if value > last.get(series, -math.inf):
            kept.append(place)
        last[series] = value
    return rows.take(pa.array(kept, pa.int64())) if kept else None


def counted(
    rows: pa.RecordBatch, state: dict[str, Any], now_ns: int
) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """How many rows each instant had, with another state each time."""
    number = state.get("number", 0) + 1
    out = pa.record_batch(
        {
            "time": pa.array([now_ns], pa.timestamp("ns", tz="UTC")),
            "number": pa.array([number]),
            "rows": pa.array([rows.num_rows]),
        }
    )
    return out, {"number": number}


def failing(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch:
    """Fails on a value of 13."""
    if 13.0 in rows["value"].to_pylist():
        raise ArithmeticError("thirteen")
    return rows
