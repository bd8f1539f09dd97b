"""`sql` row by row: the windows, the flow's watermark, and a few queries written out in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.steps.sql import LATE_REASON, SqlSettings
from ringmain.model.duration import parse_duration

QUERY = "select series, count(*) as n, max(value) as highest, max(time) as newest from rows group by series"
IN_ORDER = "select time, series, value * 2 as value, quality from rows where value > 0 order by time desc, series desc"
TOTAL = "select sum(value) as total, count(value) as n, bit_or(quality) as quality from rows"
PLACES = (
    "select coalesce(place, '-') as place, count(distinct series) as members, min(time) as oldest, last(value) as newest "
    "from rows group by 1 having count(*) > 1"
)
STEPS_UP = (
    "select series, time, value - lag(value) over (partition by series order by time) as rise from rows "
    "order by series, time limit 4"
)
FAILS = "select series, cast(case when value = 7 then 'seven' else '1' end as integer) as number from rows"
QUERIES = (QUERY, IN_ORDER, TOTAL, PLACES, STEPS_UP, FAILS)
REASON = "Conversion Error: Could not convert string 'seven' to INT32"
MAX_AHEAD_NS = 300_000_000_000
Row = dict[str, Any]


class Reference:
    def __init__(self, settings: SqlSettings, known: Any = None, to: str = "out") -> None:
        self.settings = settings
        self.known: Mapping[int, Mapping[str, str | None]] = known or {}
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
        newest = {(row["time"], row["series"]): row for row in rows}
        table = [
            {
                "series": row["series"],
                "time": row["time"] // 1000 * 1000,
                "value": None if row["quality"] & 2 or math.isnan(row["value"]) else row["value"],
                "quality": row["quality"],
                "place": self.known.get(row["series"], {}).get("place"),
            }
            for _, row in sorted(newest.items(), key=lambda item: item[0])
        ]
        window_of = {"start": window * self.window_ns, "end": (window + 1) * self.window_ns}
        if self.settings.query == FAILS and any(row["value"] == 7 for row in table):
            return [{**window_of, "rows": len(table), "reason": REASON, "stream": f"{self.to}.failed"}]
        return [{**window_of, **row} for row in _ANSWERS[self.settings.query](table)]


def _by_series(rows: list[Row]) -> dict[int, list[Row]]:
    return {
        series: [row for row in rows if row["series"] == series]
        for series in sorted({row["series"] for row in rows})
    }


def _highest(rows: list[Row]) -> list[Row]:
    return [
        {
            "series": series,
            "n": len(mine),
            "highest": max((row["value"] for row in mine if row["value"] is not None), default=None),
            "newest": max(row["time"] for row in mine),
        }
        for series, mine in _by_series(rows).items()
    ]


def _in_order(rows: list[Row]) -> list[Row]:
    return [
        {
            "time": row["time"],
            "series": row["series"],
            "value": row["value"] * 2,
            "quality": row["quality"],
        }
        for row in sorted(rows, key=lambda row: (row["time"], row["series"]), reverse=True)
        if row["value"] is not None and row["value"] > 0
    ]


def _total(rows: list[Row]) -> list[Row]:
    values = [row["value"] for row in rows if row["value"] is not None]
    total, quality = 0.0, 0
    for value in values:
        total += value
    for row in rows:
        quality |= row["quality"]
    return [{"total": total if values else None, "n": len(values), "quality": quality}]


def _places(rows: list[Row]) -> list[Row]:
    found = []
    for place in {row["place"] or "-" for row in rows}:
        mine = [row for row in rows if (row["place"] or "-") == place]
        if len(mine) > 1:
            found.append(
                {
                    "place": place,
                    "members": len({row["series"] for row in mine}),
                    "oldest": min(row["time"] for row in mine),
                    "newest": mine[-1]["value"],
                }
            )
    return sorted(found, key=lambda row: row["place"])


def _steps_up(rows: list[Row]) -> list[Row]:
    found = []
    for series, mine in _by_series(rows).items():
        before = None
        for row in mine:
            rise = None if before is None or row["value"] is None else row["value"] - before
            found.append({"series": series, "time": row["time"], "rise": rise})
            before = row["value"]
    return found[:4]


def _ones(rows: list[Row]) -> list[Row]:
    return [{"series": series, "number": 1} for series, mine in _by_series(rows).items() for _ in mine]


_ANSWERS = {
    QUERY: _highest,
    IN_ORDER: _in_order,
    TOTAL: _total,
    PLACES: _places,
    STEPS_UP: _steps_up,
    FAILS: _ones,
}


def settings() -> st.SearchStrategy[SqlSettings]:
    return st.builds(
        SqlSettings,
        query=st.sampled_from(QUERIES),
        attributes=st.just(("place",)),
        window=st.sampled_from(["2s", "10s"]),
        grace=st.sampled_from(["0s", "3s"]),
        idle=st.sampled_from(["5s", "8s"]),
        late=st.sampled_from(list(Lateness)),
    )
