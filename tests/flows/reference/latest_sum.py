"""`latest-sum`, one row after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.grouping import terms_of
from ringmain.flows.latest import WhenStale
from ringmain.flows.steps.latest_sum import LatestSumSettings

SECOND = 1_000_000_000
MAX_AHEAD = 300 * SECOND
FIRST = -2_208_988_800 * SECOND

WEIGHTS: dict[str, dict[str | None, float | None]] = {
    "case medium when 'feed-in' then -1.0 when 'electricity' then 0.5 else 1.0 end": {
        "feed-in": -1.0,
        "electricity": 0.5,
    },
    "case when medium = 'load' then 2 end": {"load": 2.0, "else": None},
}
"""Expressions, and what they give by medium."""

Group = tuple[str | None, ...]


@dataclass
class Series:
    time: int
    value: float
    good: bool
    doubtful: bool
    seen: int
    stale: bool = False


class Reference:
    def __init__(
        self,
        settings: LatestSumSettings,
        known: Mapping[int, Mapping[str, str | None]],
        unit: str | None = None,
    ) -> None:
        self.settings = settings
        self.known = known
        self.terms = [(term.name, term) for term in terms_of(settings.by)]
        if unit is None and "unit" not in dict(self.terms):
            self.terms.append(("unit", terms_of(("unit",))[0]))
        self.series: dict[int, Series] = {}
        self.rows: list[dict[str, Any]] = []
        self.order: list[Group] = []
        self.changed: set[Group] = set()
        self.told: dict[Group, int] = {}
        self.now = -(2**63)
        self.counts = {"older": 0, "ahead": 0, "unusable": 0}

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        self.rows.append(row)
        return []

    def group(self, series: int) -> Group:
        about = self.known.get(series, {})
        return tuple(term.part(about.get(term.attribute)) for _, term in self.terms)

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        moment, self.now = self.now, now_ns
        before = {number: series.time for number, series in self.series.items()}
        found: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            if row["time"] < FIRST or row["series"] >= 1 << 24:
                self.counts["unusable"] += 1
            elif row["time"] > moment + MAX_AHEAD:
                self.counts["ahead"] += 1
            elif row["time"] < before.get(row["series"], -(2**63)):
                self.counts["older"] += 1
            elif row["series"] not in found or row["time"] >= found[row["series"]]["time"]:
                found[row["series"]] = row
        self.rows.clear()
        for number in sorted(found):
            row = found[number]
            good = row["quality"] & 2 == 0 and not math.isnan(row["value"])
            good = good and self.factor(number) is not None
            self.series[number] = Series(row["time"], row["value"], good, row["quality"] & 3 != 0, moment)
            group = self.group(number)
            if group not in self.order:
                self.order.append(group)
            self.changed.add(group)
        if self.settings.stale_ns is not None:
            for number, series in self.series.items():
                if not series.stale and series.seen + self.settings.stale_ns <= moment:
                    series.stale = True
                    self.changed.add(self.group(number))
        out = []
        for group in self.order:
            waits = group in self.told and moment - self.told[group] < self.settings.every_ns
            if group in self.changed and not waits:
                self.changed.remove(group)
                self.told[group] = moment
                out.append(self.total(group, moment))
        return out

    def factor(self, number: int) -> float | None:
        if self.settings.weight is None:
            return 1.0
        table = WEIGHTS[self.settings.weight]
        return table.get(self.known.get(number, {}).get("medium"), table.get("else", 1.0))

    def total(self, group: Group, moment: int) -> dict[str, Any]:
        numbers = [number for number in sorted(self.series) if self.group(number) == group]
        members = [self.series[number] for number in numbers]
        keep = self.settings.when_stale is WhenStale.KEEP
        used = [(n, s) for n, s in zip(numbers, members, strict=True) if s.good and (keep or not s.stale)]
        total = 0.0
        for number, series in used:
            factor = self.factor(number)
            assert factor is not None
            total += series.value * factor
        quality = 12
        if not used:
            quality |= 2
        elif len(used) < len(members) or any(series.doubtful or series.stale for _, series in used):
            quality |= 1
        return {
            **dict(zip((name for name, _ in self.terms), group, strict=True)),
            "time": moment,
            "value": total if used else None,
            "quality": quality,
            "reporting": len(used),
            "expected": len(members),
            "stale": sum(series.stale for series in members),
            "oldest": min((series.time for _, series in used), default=None),
        }


def settings() -> st.SearchStrategy[LatestSumSettings]:
    return st.builds(
        LatestSumSettings,
        by=st.sampled_from([(), ("place",), ("place[1]", "medium"), {"feeder": "place[:2]"}, ("unit",)]),
        weight=st.sampled_from([None, *WEIGHTS]),
        stale=st.sampled_from([None, "3s", "20s"]),
        when_stale=st.sampled_from(list(WhenStale)),
        every=st.sampled_from(["0s", "0s", "5s"]),
    )
