"""Unit conversion row by row."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.steps.convert import ConvertSettings, Mismatch

TO_WATT = {"W": Fraction(1), "kW": Fraction(1000), "MW": Fraction(1_000_000), "J/s": Fraction(1)}


class Reference:
    """Knows units of power only, and rows of one unit (`unit` in the row) as a step before may leave them."""

    def __init__(self, settings: ConvertSettings, known: Any = None) -> None:
        self.settings, self.known = settings, known or {}

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        target = self.settings.unit
        told = self.known.get(row["series"], {}).get("unit")
        source = row.get("unit") or told or self.settings.from_
        if source in TO_WATT:
            factor = TO_WATT[source] / TO_WATT[target]
            value = row["value"]
            if factor > 1:
                value = value * float(factor)
            elif factor < 1:
                value = value / float(1 / factor)
            return [{**row, "value": value, "unit": target}]
        if self.settings.mismatch is Mismatch.DROP:
            return []
        if self.settings.mismatch is Mismatch.KEEP:
            return [{**row, "value": math.nan, "quality": row["quality"] & ~3 | 2, "unit": target}]
        reason = f"unit {told} is no unit like {target}" if told is not None else "it has no unit"
        late = {name: row[name] for name in ("series", "time", "value", "quality")}
        return [{**late, "arrived": now_ns, "reason": reason, "stream": "out.unconverted"}]

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        return []


def settings() -> st.SearchStrategy[ConvertSettings]:
    return st.builds(
        ConvertSettings,
        unit=st.sampled_from(["W", "kW"]),
        from_=st.sampled_from([None, None, "W", "MW"]),
        mismatch=st.sampled_from(list(Mismatch)),
    )
