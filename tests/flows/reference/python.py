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
        self.instants = 0
        self.now = 0

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.rows.append(row)
        self.now = now_ns
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, self.rows = self.rows, []
        if self.function == "counted":
            self.instants += bool(rows)
            return [{"time": self.now, "number": self.instants, "rows": len(rows)}] if rows else []
        rows.sort(key=lambda row: (row["series"], row["time"]))
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
