"""`python` row by row: the functions of `own_steps`, written once more."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.steps.python import PythonSettings

HERE = "tests.flows.reference.own_steps"
Row = dict[str, Any]


class Reference:
    def __init__(self, settings: PythonSettings, known: Any = None) -> None:
        self.function = settings.function.partition(":")[2]
        self.rows: list[Row] = []
        self.last: dict[int, float] = {}

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.rows.append(row)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, self.rows = sorted(self.rows, key=lambda row: (row["series"], row["time"])), []
        if self.function == "doubled":
            return [{**row, "value": row["value"] * 2.0} for row in rows]
        kept = []
        for row in rows:
            if math.isnan(row["value"]):
                continue
            if row["value"] > self.last.get(row["series"], -math.inf):
                kept.append(row)
            self.last[row["series"]] = row["value"]
        return kept


def settings() -> st.SearchStrategy[PythonSettings]:
    return st.builds(
        PythonSettings,
        function=st.sampled_from([f"{HERE}:doubled", f"{HERE}:rises"]),
    )
