"""`group`, one row after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.aggregates import Late
from ringmain.flows.grouping import terms_of
from ringmain.flows.grouping_totals import GroupValue
from ringmain.flows.steps.group import GroupSettings
from ringmain.model.duration import parse_duration

SECOND = 1_000_000_000
MAX_AHEAD = 300 * SECOND
FIRST = -2_208_988_800 * SECOND
LATE_REASON = "the window of this time was closed"
BEHIND_REASON = "its group's window was emitted before its device, which was not waited for, had passed it"

Group = tuple[str | None, ...]
Known = Mapping[int, Mapping[str, str | None]]


@dataclass
class Totals:
    count: int = 0
    sum: float = 0.0
    min: float = math.inf
    max: float = -math.inf


@dataclass
class Device:
    watermark: int | None = None
    seen: int = 0
    parked: bool = False
    closed: int | None = None


@dataclass
class Series:
    device: Device
    newest: int
    closed: int | None = None
    groups: list[tuple[int, Group]] = field(default_factory=list)
    """From which window on it belongs to which group."""
    readings: dict[int, list[tuple[int, float, bool]]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)


class Reference:
    """Terms that are columns of the rows are taken from there, the others from the catalogue."""

    def __init__(self, settings: GroupSettings, known: Known, unit: str | None = None) -> None:
        self.settings = settings
        self.known = {number: dict(about) for number, about in known.items()}
        self.width = parse_duration(settings.window)
        self.grace = parse_duration(settings.grace)
        self.idle = parse_duration(settings.idle)
        self.terms = list(terms_of(settings.by))
        if unit is None and "unit" not in [term.name for term in self.terms]:
            self.terms += terms_of(("unit",))
        self.columns: set[str] = set()
        self.devices: dict[object, Device] = {}
        self.series: dict[tuple[Any, ...], Series] = {}
        self.groups: list[Group] = []
        self.closed: dict[Group, int] = {}
        self.held: dict[tuple[tuple[Any, ...], int], Totals] = {}
        self.was_held: set[tuple[Group, int]] = set()
        self.late: set[tuple[tuple[Any, ...], int]] = set()
        self.emitted: dict[tuple[Group, int], tuple[int, tuple[Any, ...]]] = {}
        self.behind: set[tuple[tuple[Any, ...], int]] = set()
        self.front: int | None = None
        self.front_at: int | None = None
        self.now = -(2**63)
        self.late_rows = 0

    def learn(self, number: int, about: Mapping[str, str | None]) -> None:
        """The catalogue says this of a series."""
        self.known[number] = dict(about)

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        number, time = row["series"], row["time"]
        if time < FIRST or number >= 1 << 24 or time > self.now + MAX_AHEAD:
            return []
        self.columns = {term.source for term in self.terms if term.source in row}
        key = (number, *(row[term.source] for term in self.terms if term.source in row))
        if key not in self.series:
            device = self.devices.setdefault(self.known.get(number, {}).get("device") or number, Device())
            self.series[key] = Series(device, time, device.closed)
        series = self.series[key]
        series.newest = max(series.newest, time)
        device = series.device
        device.watermark = time if device.watermark is None else max(device.watermark, time)
        device.seen, device.parked = self.now, False
        window = time // self.width
        valid = row["quality"] & 2 == 0 and not math.isnan(row["value"])
        reading = (time, row["value"] + 0.0, valid)
        if series.closed is not None and window < series.closed:
            self.late_rows += 1
            if self.settings.late is Late.REVISE:
                series.readings.setdefault(window, []).append(reading)
                self.late.add((key, window))
            elif self.settings.late is Late.SIDE:
                return [self.aside(number, time, self.now, LATE_REASON, row["value"], row["quality"])]
            return []
        series.readings.setdefault(window, []).append(reading)
        series.open.add(window)
        return []

    def aside(
        self, number: int, time: int, arrived: int, reason: str, value: float | None, quality: int | None
    ) -> dict[str, Any]:
        return {
            "stream": "out.late",
            "series": number,
            "time": time,
            "value": value,
            "quality": quality,
            "arrived": arrived,
            "reason": reason,
        }

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        came: list[tuple[tuple[Any, ...], int]] = []
        for device in self.devices.values():
            if device.watermark is not None:
                closed = (device.watermark - self.grace) // self.width
                device.closed = closed if device.closed is None else max(closed, device.closed)
        for series in self.series.values():
            if series.device.closed is not None:
                series.closed = max(series.device.closed, series.closed or -(2**63))
        came += self.close()
        self.now = now_ns
        for device in self.devices.values():
            if not device.parked and now_ns - device.seen >= self.idle:
                device.parked = True
                for series in self.series.values():
                    if series.device is device:
                        series.closed = max(series.newest // self.width + 1, series.closed or -(2**63))
        came += self.close()
        by_column = any(len(key) > 1 for key in self.series)
        for key in list(self.series) if by_column else sorted(self.series):
            self.join(key, self.series[key])
        before = dict(self.closed)
        came = [key for key in came if self.totals(*key).count]
        behind = [key for key in came if not self.hold(*key, before)]
        rows: list[tuple[int, int, int, tuple[Any, ...]]] = []
        if self.front_at is None or now_ns - self.front_at >= SECOND:
            self.set_front(now_ns)
            again = sorted(self.late, key=lambda key: (key[1], key[0]))
            self.late.clear()
            behind += [key for key in again if not self.hold(*key, before)]
            behind += self.pass_windows(before)
            rows = self.ready()
            if self.settings.late is Late.REVISE:
                self.behind |= set(behind)
                told = {
                    (window, self.groups.index(self.group_of(key, window))) for key, window in self.behind
                }
                self.behind.clear()
                rows += [row for key in sorted(told) if (row := self.revised(*key)) is not None]
        elif self.settings.late is Late.REVISE:
            self.behind |= set(behind)
        out: list[dict[str, Any]] = []
        if self.settings.late is Late.SIDE:
            behind = [key for key in behind if self.totals(*key).count]
            out = [
                self.aside(key[0], window * self.width, now_ns, BEHIND_REASON, None, None)
                for key, window in sorted(behind, key=lambda key: (key[1], key[0]))
            ]
        return [self.row(*row) for row in sorted(rows, key=lambda row: row[:3])] + out

    def pass_windows(self, before: Mapping[Group, int]) -> list[tuple[tuple[Any, ...], int]]:
        """Find what groups have passed; where nothing is revised, close it for their series. What is behind."""
        for group in self.groups:
            bound = self.bound(group)
            if bound is not None and bound > before.get(group, -(2**63)):
                self.closed[group] = bound
                for series in self.series.values():
                    for until, of in self.spans(series):
                        if of == group and self.settings.late is not Late.REVISE:
                            series.closed = max(min(bound, until), series.closed or -(2**63))
        came = [key for key in self.close() if self.totals(*key).count]
        return [key for key in came if not self.hold(*key, before)]

    def ready(self) -> list[tuple[int, int, int, tuple[Any, ...]]]:
        """The windows that groups have passed: window, group, revision, values."""
        found: dict[tuple[int, int], list[tuple[int, Totals]]] = {}
        for (key, window), totals in list(self.held.items()):
            group = self.group_of(key, window)
            if window < self.closed.get(group, -(2**63)):
                del self.held[key, window]
                if totals.count:
                    found.setdefault((window, self.groups.index(group)), []).append((key[0], totals))
        rows = []
        for (window, number), parts in found.items():
            values = self.values(parts)
            self.emitted[self.groups[number], window] = (0, values)
            rows.append((window, number, 0, values))
        return rows

    def close(self) -> list[tuple[tuple[Any, ...], int]]:
        found = []
        for key, series in self.series.items():
            for window in sorted(series.open):
                if series.closed is not None and window < series.closed:
                    series.open.discard(window)
                    found.append((key, window))
        return found

    def hold(self, key: tuple[Any, ...], window: int, before: Mapping[Group, int]) -> bool:
        group = self.group_of(key, window)
        if window < before.get(group, -(2**63)):
            return False
        self.was_held.add((group, window))
        self.held.pop((key, window), None)
        self.held[key, window] = self.totals(key, window)
        return True

    def group(self, key: tuple[Any, ...]) -> Group:
        columns = iter(key[1:])
        about = self.known.get(key[0], {})
        return tuple(
            term.part(next(columns)) if term.source in self.columns else term.part(about.get(term.attribute))
            for term in self.terms
        )

    def join(self, key: tuple[Any, ...], series: Series) -> None:
        """Take over the group that the catalogue names, from the next window on."""
        group = self.group(key)
        if group not in self.groups:
            self.groups.append(group)
        if not series.groups:
            series.groups.append((-(2**63), group))
        elif series.groups[-1][1] != group:
            since = series.newest // self.width + 1
            if since <= series.groups[-1][0]:
                series.groups[-1] = (series.groups[-1][0], group)
            else:
                series.groups.append((since, group))

    def spans(self, series: Series) -> list[tuple[int, Group]]:
        """Groups with the window before which they end."""
        ends = [since for since, _ in series.groups[1:]] + [2**63 - 1]
        return [(end, group) for end, (_, group) in zip(ends, series.groups, strict=True)]

    def group_of(self, key: tuple[Any, ...], window: int) -> Group:
        return next(group for end, group in self.spans(self.series[key]) if window < end)

    def set_front(self, now_ns: int) -> None:
        self.front_at = now_ns
        heard = sorted(
            device.watermark
            for device in self.devices.values()
            if not device.parked and device.watermark is not None
        )
        self.front = heard[(len(heard) - 1) // 2] if heard else None

    def bound(self, group: Group) -> int | None:
        waited = [
            series.device
            for series in self.series.values()
            if any(of == group and end > self.closed.get(group, -(2**63)) for end, of in self.spans(series))
            and not series.device.parked
            and series.device.watermark is not None
            and (self.front is None or series.device.watermark >= self.front - self.idle)
        ]
        if waited:
            return min(
                (device.watermark - self.grace) // self.width
                for device in waited
                if device.watermark is not None
            )
        return max((window + 1 for group_, window in self.was_held if group_ == group), default=None)

    def totals(self, key: tuple[Any, ...], window: int) -> Totals:
        newest = {time: (value, valid) for time, value, valid in self.series[key].readings.get(window, [])}
        found = Totals()
        for time in sorted(newest):
            value, valid = newest[time]
            if valid:
                found.count += 1
                found.sum += value
                found.min = min(found.min, value)
                found.max = max(found.max, value)
        return found

    def values(self, parts: list[tuple[int, Totals]]) -> tuple[Any, ...]:
        count, total, means = 0, 0.0, 0.0
        for _, part in sorted(parts, key=lambda part: part[0]):
            count += part.count
            total += part.sum
            means += part.sum / part.count
        by_name: dict[GroupValue, Any] = {GroupValue.COUNT: count}
        if parts:
            by_name |= {
                GroupValue.SUM: total,
                GroupValue.MEAN: total / count,
                GroupValue.MIN: min(part.min for _, part in parts),
                GroupValue.MAX: max(part.max for _, part in parts),
                GroupValue.SUM_OF_MEANS: means,
            }
        return (*(by_name.get(value) for value in self.settings.columns), len(parts))

    def revised(self, window: int, number: int) -> tuple[int, int, int, tuple[Any, ...]] | None:
        group = self.groups[number]
        parts = [
            (key[0], self.totals(key, window)) for key in self.series if self.group_of(key, window) == group
        ]
        values = self.values([part for part in parts if part[1].count])
        before = self.emitted.get((group, window))
        if (before is None and not values[-1]) or (before is not None and repr(before[1]) == repr(values)):
            return None
        revision = 0 if before is None else before[0] + 1
        self.emitted[group, window] = (revision, values)
        return window, number, revision, values

    def row(self, window: int, number: int, revision: int, values: tuple[Any, ...]) -> dict[str, Any]:
        group = self.groups[number]
        expected = max(sum(self.group_of(key, window) == group for key in self.series), values[-1])
        names = [value.value for value in self.settings.columns]
        return {
            **dict(zip((term.name for term in self.terms), group, strict=True)),
            "start": window * self.width,
            "end": (window + 1) * self.width,
            **dict(zip(names, values, strict=False)),
            "reporting": values[-1],
            "expected": expected,
            "completeness": 100.0 * values[-1] / expected,
            "revision": revision,
        }


def settings(late: tuple[Late, ...] = tuple(Late)) -> st.SearchStrategy[GroupSettings]:
    return st.builds(
        GroupSettings,
        by=st.sampled_from([(), ("place",), ("place[1]", "medium"), {"feeder": "place[:2]"}, ("device",)]),
        window=st.sampled_from(["1s", "10s"]),
        values=st.lists(st.sampled_from(list(GroupValue)), min_size=1, unique=True).map(tuple),
        late=st.sampled_from(late),
        grace=st.sampled_from(["0s", "3s", "25s"]),
        idle=st.sampled_from(["5s", "30s"]),
    )
