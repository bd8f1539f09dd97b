"""Steps of our own."""

from typing import Any

import pyarrow as pa


def performance(rows: pa.RecordBatch, state: dict[str, Any]) -> pa.RecordBatch | None:
    """Heat over electrical power of each device, whenever its heat arrives. A row is written under the heat's series."""
    power: dict[str, float] = state.setdefault("power", {})
    places: list[int] = []
    electrical: list[float] = []
    columns = (rows[name].to_pylist() for name in ("device", "quantity", "value", "quality"))
    for place, (device, quantity, value, quality) in enumerate(zip(*columns, strict=True)):
        if quality & 2:  # invalid: never a value
            continue
        if quantity == "power":
            power[device] = value
        elif quantity == "heat" and power.get(device, 0.0) > 0.0:
            places.append(place)
            electrical.append(power[device])
    if not places:
        return None
    found = rows.take(pa.array(places))
    heat = found["value"].to_pylist()
    return pa.record_batch(
        {
            "series": found["series"],
            "time": found["time"],
            "power": pa.array(electrical),
            "heat": found["value"],
            "cop": pa.array([thermal / used for thermal, used in zip(heat, electrical, strict=True)]),
        }
    )
