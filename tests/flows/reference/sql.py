"""`sql` row by row: the windows, the flow's watermark, and one query written out in Python."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.steps.sql import LATE_REASON, SqlSettings
from ringmain.model.duration import parse_duration

QUERY = "select series, count(*) as n, max(value) as highest, max(time) as newest from rows group by series"
MAX_AHEAD_NS = 300_000_000_000
Row = dict[str, Any]


class Reference:
    def __init__(self, settings: SqlSettings, known: Any = None, to: str = "out") -> None:
        self.settings = settings
        self.to = to
        self.window_ns = parse_duration(settings.window)
        self.newest: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self.watermark: int | None = None
        self.open: dict[int, list[Row]] = {}
        self.closed: int | None = None

    def take(self, row: Row, now_ns: int) -> list[Row]:
        series, time = row["series"], row["time"]
        if time < EARLIEST_NS or series >= SERIES_MAX or time > now_ns + MAX_AHEAD_NS:
            return []
        self.newest[series] = max(time, self.newest.get(series, time))
        self.seen[series] = now_ns
        window = time // self.window_ns
        if self.closed is not None and window < self.closed:
            if self.settings.late is Lateness.DROP:
                return []
            return [{**row, "arrived": now_ns, "reason": LATE_REASON, "stream": f"{self.to}.late"}]
        self.open.setdefault(window, []).append(row)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        if not self.open:
            return []
        active = [one for one in self.seen if self.seen[one] > now_ns - self.settings.idle_ns]
        holding = [
            self.newest[one] for one in active if self.watermark is None or self.newest[one] >= self.watermark
        ]
        reached = min(holding) if holding else max(self.newest.values())
        self.watermark = reached if self.watermark is None else max(self.watermark, reached)
        first_open = (self.watermark - parse_duration(self.settings.grace)) // self.window_ns
        due = sorted(window for window in self.open if not holding or window < first_open)
        self.closed = max([first_open, *(window + 1 for window in due), self.closed or first_open])
        return [row for window in due for row in self.query(window, self.open.pop(window))]

    def query(self, window: int, rows: list[Row]) -> list[Row]:
        newest = {(row["series"], row["time"]): row for row in rows}
        by_series: dict[int, list[Row]] = {}
        for _, series in sorted((time, series) for series, time in newest):
            by_series.setdefault(series, [])
        for time, series in sorted((time, series) for series, time in newest):
            by_series[series].append(newest[series, time])
        found = []
        for series in sorted(by_series):
            values = [
                row["value"]
                for row in by_series[series]
                if not row["quality"] & 2 and not math.isnan(row["value"])
            ]
            found.append(
                {
                    "start": window * self.window_ns,
                    "end": (window + 1) * self.window_ns,
                    "series": series,
                    "n": len(by_series[series]),
                    "highest": max(values, default=None),
                    "newest": max(row["time"] for row in by_series[series]) // 1000 * 1000,
                }
            )
        return sorted(found, key=lambda row: (row["series"], row["n"]))


def settings() -> st.SearchStrategy[SqlSettings]:
    return st.builds(
        SqlSettings,
        query=st.just(QUERY),
        window=st.sampled_from(["2s", "10s"]),
        grace=st.sampled_from(["0s", "3s"]),
        idle=st.sampled_from(["5s", "8s"]),
        late=st.sampled_from(list(Lateness)),
    )
