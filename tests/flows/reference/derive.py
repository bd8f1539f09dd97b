"""Derived columns row by row."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.steps.derive import DeriveSettings

from .expressions import value_of


class Reference:
    def __init__(self, settings: DeriveSettings, known: Any = None) -> None:
        self.settings, self.known = settings, known or {}

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        made = dict(row)
        if self.settings.value is not None:
            found = value_of(self.settings.value, row, self.known)
            made["value"] = math.nan if found is None else float(found)
            if self.settings.quality is None and row["quality"] & 12 == 0:
                made["quality"] = row["quality"] | 12
        if self.settings.quality is not None:
            found = value_of(self.settings.quality, row, self.known)
            made["quality"] = row["quality"] if found is None or not 0 <= found < 65536 else found
        for name, text in self.settings.columns.items():
            made[name] = value_of(text, row, self.known)
        if self.settings.unit is not None:
            made["unit"] = self.settings.unit
        return [made]

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        return []


def settings() -> st.SearchStrategy[DeriveSettings]:
    """Steps whose rows remain readings; `value`, `quality` and `unit` in any combination."""
    return st.builds(
        DeriveSettings,
        value=st.sampled_from(
            [
                "value * 2", "value / value", "-value", "case when valid then value + 0.5 end", "abs(value) - 3",
                "coalesce(value, 0)", "least(value, 4)", "case when medium = 'gas' then value / 10 else value end",
            ]
        ),
        quality=st.sampled_from(
            [None, None, "quality | 1", "case when value > 3 then quality | 2048 else quality end", "null", "-1", "70000"]
        ),
    )  # fmt: skip
