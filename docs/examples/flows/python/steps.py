"""Steps of our own."""

from typing import Any

import pyarrow as pa


def performance(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch | None:
    """Heat over electrical power of each device, whenever its heat arrives. A row is written under the heat's series."""
    power: dict[str, float] = state.setdefault("power", {})
    found: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        if row["quality"] & 2:  # invalid: never a value
            continue
        if row["quantity"] == "power":
            power[row["device"]] = row["value"]
        elif row["quantity"] == "heat" and power.get(row["device"], 0.0) > 0.0:
            electrical = power[row["device"]]
            found.append(
                {
                    "series": row["series"],
                    "time": row["time"],
                    "power": electrical,
                    "heat": row["value"],
                    "cop": row["value"] / electrical,
                }
            )
    if not found:
        return None
    return pa.RecordBatch.from_pylist(
        found,
        schema=pa.schema(
            [
                ("series", pa.uint32()),
                ("time", pa.timestamp("ns", tz="UTC")),
                ("power", pa.float64()),
                ("heat", pa.float64()),
                ("cop", pa.float64()),
            ]
        ),
    )
