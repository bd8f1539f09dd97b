"""The order of readings for references of steps, row by row (`ringmain.flows.ordering`)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ringmain.flows.ordering_settings import Lateness, OrderedSettings
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX

Row = dict[str, Any]
COLUMNS = ("series", "time", "value", "quality")


def equal(one: Row, other: Row) -> bool:
    values = one["value"], other["value"]
    return one["quality"] == other["quality"] and (
        values[0] == values[1] or (values[0] != values[0] and values[1] != values[1])
    )


class OrderingReference:
    """`take` each row; `release` gives the rows to be worked on in order of series and time, and late ones."""

    def __init__(
        self,
        settings: OrderedSettings | None = None,
        *,
        late: Lateness | None = Lateness.SIDE,
        grace_ns: int = 0,
        idle_ns: int = 30_000_000_000,
        max_ahead_ns: int = 300_000_000_000,
        to: str = "out",
    ) -> None:
        self.late = settings.late if settings else late
        self.grace_ns = settings.grace_ns if settings else grace_ns
        self.idle_ns = settings.idle_ns if settings else idle_ns
        self.max_ahead_ns = max_ahead_ns
        self.stream = f"{to}.late"
        self.pending: list[tuple[Row, int]] = []
        self.held: dict[int, dict[int, list[Row]]] = {}
        self.newest: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self.released: dict[int, Row] = {}
        self.counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, row: Row, now_ns: int) -> None:
        self.pending.append((row, now_ns))

    def release(self, now_ns: int) -> tuple[list[Row], list[Row]]:
        late = []
        for row, arrived in self.pending:
            series, time = row["series"], row["time"]
            last = self.released.get(series)
            if time < EARLIEST_NS or series >= SERIES_MAX:
                self.count("unusable")
            elif time > arrived + self.max_ahead_ns:
                self.count("ahead")
            elif last is not None and time == last["time"] and equal(row, last):
                self.count("duplicates")
            elif last is not None and time <= last["time"] and self.late is not None:
                self.count("late")
                if self.late is Lateness.SIDE:
                    late.append(self._late(row, arrived))
            else:
                if last is not None and time <= last["time"]:
                    self.count("late")
                self.held.setdefault(series, {}).setdefault(time, []).append(row)
                self.newest[series] = max(time, self.newest.get(series, time))
                self.seen[series] = arrived
        self.pending.clear()
        out = []
        for series in sorted(self.held):
            rows = self.held[series]
            silent = self.seen[series] + self.idle_ns <= now_ns
            for time in sorted(rows):
                if not self.grace_ns or silent or time <= self.newest[series] - self.grace_ns:
                    same = rows.pop(time)
                    for earlier, later in pairwise(same):
                        self.count("duplicates" if equal(earlier, later) else "replaced")
                    row = same[-1]
                    if series not in self.released or time >= self.released[series]["time"]:
                        self.released[series] = row
                    out.append(row)
        return out, late

    def _late(self, row: Row, arrived: int) -> Row:
        reason = "not newer than a reading of the series that was worked on before"
        return {name: row[name] for name in COLUMNS} | {
            "arrived": arrived,
            "reason": reason,
            "stream": self.stream,
        }


def by_time(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["time"], row["series"]))
