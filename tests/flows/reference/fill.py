"""Gaps and what stands in, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from ringmain.flows.steps.fill import FillMethod, FillSettings
from ringmain.model.duration import parse_duration

from .ordering import COLUMNS, OrderingReference, Row, by_time

Settings = FillSettings
ESTIMATED, MARKED = 8, 8 | 2 | 0x1000


@dataclass
class Series:
    interval: int
    slot: int | None = None
    time: int = 0
    value: float = 0.0
    settled: int = -(2**63)
    gap: range = range(0)
    replaced: set[int] = field(default_factory=set)


class Reference:
    def __init__(
        self,
        settings: FillSettings,
        known: Mapping[int, Mapping[str, str | None]] | None = None,
        zone: str = "UTC",
    ) -> None:
        self.settings = settings
        self.known = known or {}
        self.zone = ZoneInfo(zone)
        self.order = OrderingReference(late=None)
        self.series: dict[int, Series] = {}
        self.week: dict[tuple[int, int], float] = {}
        self.newest: dict[int, int] = {}
        shortest = settings.interval_min_ns
        self.length = -(-169 * 3600 * 10**9 // shortest) + settings.max_fill_ns // shortest + 2
        """A slot is remembered as long as it lies fewer than so many slots before the newest of its series."""

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.order.take({name: row[name] for name in COLUMNS}, now_ns)
        return []

    def interval(self, series: int) -> int:
        settings = self.settings
        name = self.known.get(series, {}).get(settings.by) if settings.by else None
        return parse_duration(settings.intervals.get(name or "", settings.interval))

    def advance(self, now_ns: int) -> list[Row]:
        rows, _ = self.order.release(now_ns)
        valid = [
            row
            for row in rows
            if not row["quality"] & 2 and math.isfinite(row["value"]) and self.interval(row["series"])
        ]
        for row in valid:
            number = row["series"]
            one = self.series.setdefault(number, Series(self.interval(number)))
            slot = row["time"] // one.interval
            self.week[number, slot] = row["value"]
            self.newest[number] = max(slot, self.newest.get(number, slot))
        standing = self.standing([row for row in rows if self.interval(row["series"])], valid)
        back: list[Row] = []
        newer: list[Row] = []
        for row in valid:
            one = self.series[row["series"]]
            if one.slot is None or row["time"] > one.time:
                newer.append(row)
                continue
            slot = row["time"] // one.interval
            if slot in one.gap and slot not in one.replaced:
                one.replaced.add(slot)
                self.take_back(row, slot, one, back)
        settled = {number: one.settled for number, one in self.series.items()}
        out: list[Row] = []
        for row in newer:
            self.received(row, self.series[row["series"]], settled[row["series"]], out, back)
        again = [
            row
            for number, slot, one in standing
            if (row := self.formed(number, slot, one, None))["quality"] == ESTIMATED
        ]
        overdue: list[Row] = []
        for number, one in self.series.items():
            if one.slot is None:
                continue
            until = min(
                (now_ns - parse_duration(self.settings.grace)) // one.interval - 1,
                one.slot + self.settings.max_fill_ns // one.interval,
            )
            for slot in range(one.settled + 1, until + 1):
                overdue.append(self.formed(number, slot, one, None))
                one.settled = slot
        return by_time([*rows, *out, *back, *again, *overdue])

    def standing(self, rows: list[Row], valid: list[Row]) -> list[tuple[int, int, Series]]:
        """Invalid readings at the beginning of a slot that was told and is not settled, with the state before them."""
        settled = {(row["series"], row["time"] // self.interval(row["series"])) for row in valid}
        found = []
        for row in rows:
            number, interval = row["series"], self.interval(row["series"])
            slot, one = row["time"] // interval, self.series.get(number)
            if row["time"] % interval or (number, slot) in settled or one is None or one.slot is None:
                continue
            if one.slot < slot <= one.settled:
                found.append((number, slot, replace(one)))
            elif slot in one.gap and slot not in one.replaced:
                found.append((number, slot, replace(one, value=math.nan)))
        return found

    def received(self, row: Row, one: Series, settled: int, out: list[Row], back: list[Row]) -> None:
        slot = row["time"] // one.interval
        if one.slot is not None and slot != one.slot:
            if slot <= settled:
                self.take_back(row, slot, one, back)
            last = min(slot - 1, one.slot + self.settings.max_fill_ns // one.interval)
            for missing in range(one.slot + 1, last + 1):
                formed = self.formed(row["series"], missing, one, row)
                told = missing <= settled
                if not told or (self.settings.method is FillMethod.LINEAR and formed["quality"] == ESTIMATED):
                    out.append(formed)
            if last > one.slot:
                one.gap, one.replaced = range(one.slot + 1, last + 1), set()
        one.settled = slot if one.slot is None else max(one.settled, slot)
        one.slot, one.time, one.value = slot, row["time"], row["value"]

    def take_back(self, row: Row, slot: int, one: Series, back: list[Row]) -> None:
        start = slot * one.interval
        if start != row["time"]:
            back.append({"series": row["series"], "time": start, "value": math.nan, "quality": MARKED})

    def formed(self, series: int, slot: int, one: Series, after: Row | None) -> Row:
        start = slot * one.interval
        value = math.nan
        method = self.settings.method
        if method is FillMethod.PREVIOUS:
            value = one.value
        elif method is FillMethod.LINEAR and after is not None:
            share = (start - one.time) / (after["time"] - one.time)
            value = one.value + (after["value"] - one.value) * share
        elif method is FillMethod.LAST_WEEK:
            local = datetime.fromtimestamp(start // 10**9, UTC).astimezone(self.zone)
            before = int((local - timedelta(days=7)).astimezone(UTC).timestamp()) * 10**9
            slot = before // one.interval
            if slot > self.newest.get(series, slot) - self.length:
                value = self.week.get((series, slot), math.nan)
        if not math.isfinite(value):
            return {"series": series, "time": start, "value": math.nan, "quality": MARKED}
        return {"series": series, "time": start, "value": value, "quality": ESTIMATED}


def settings() -> st.SearchStrategy[FillSettings]:
    return st.builds(
        FillSettings,
        interval=st.sampled_from(["1s", "2s", "5s"]),
        method=st.sampled_from([FillMethod.MARK, FillMethod.PREVIOUS, FillMethod.LINEAR]),
        grace=st.sampled_from(["0s", "1s", "4s"]),
        max_fill=st.sampled_from(["6s", "20s"]),
    )
