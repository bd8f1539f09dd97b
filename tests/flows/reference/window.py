"""The window step row by row: every reading of a series is kept, and a window is computed from all of them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from ringmain.flows.aggregates import WEIGHTED, Aggregate, Late
from ringmain.flows.steps.window import Between, WindowStepSettings
from ringmain.model.duration import parse_duration

SECOND = 1_000_000_000
EARLIEST_NS = -2_208_988_800 * SECOND
REACH = {"hour": 3600, "day": 86400, "week": 7 * 86400, "month": 28 * 86400, "quarter": 90 * 86400}
REACH |= {"year": 365 * 86400}


@dataclass(frozen=True)
class Grid:
    """Begin and end of the window that a time lies in, the obvious way."""

    window: str
    calendar: bool
    zone: str
    offset_ns: int

    def bounds(self, time: int) -> tuple[int, int]:
        if self.window not in REACH and not self.calendar:
            width = parse_duration(self.window)
            begin = (time - self.offset_ns) // width * width + self.offset_ns
            return begin, begin + width
        second = time // SECOND
        first = last = self.local(second).date()
        begins = list(self.begins(first))
        while not begins or min(begins) > second:
            first -= datetime.timedelta(1)
            begins += self.begins(first)
        while max(begins) <= second:
            last += datetime.timedelta(1)
            begins += self.begins(last)
        return (
            max(begin for begin in begins if begin <= second) * SECOND,
            min(begin for begin in begins if begin > second) * SECOND,
        )

    def local(self, second: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(second, ZoneInfo(self.zone))

    def day(self, date: datetime.date) -> int:
        begin = datetime.datetime.combine(date, datetime.time(), ZoneInfo(self.zone))
        return int((begin + datetime.timedelta(seconds=self.offset_ns // SECOND)).timestamp())

    @cache  # noqa: B019
    def begins(self, date: datetime.date) -> tuple[int, ...]:
        """Where windows begin on a local day, in seconds."""
        first = {
            "day": True,
            "week": date.weekday() == 0,
            "month": date.day == 1,
            "quarter": date.day == 1 and date.month in (1, 4, 7, 10),
            "year": date.day == 1 and date.month == 1,
        }
        if self.window in first:
            return (self.day(date),) if first[self.window] else ()
        width = 3600 if self.window == "hour" else parse_duration(self.window) // SECOND
        found = [self.day(date)]
        for second in range(self.day(date) + 60, self.day(date + datetime.timedelta(1)), 60):
            before, now = self.shown(second - 60), self.shown(second)
            if before // width != now // width or (now != before + 60 and (before + 60) % width == 0):
                found.append(second)
        return tuple(found)

    def shown(self, second: int) -> int:
        """What the local clock shows, less the offset, in seconds."""
        local = self.local(second)
        naive = local.replace(tzinfo=None) - datetime.datetime(1900, 1, 1)
        return int(naive.total_seconds()) - self.offset_ns // SECOND


@dataclass
class Device:
    watermark: int | None = None
    seen: int | None = None
    closed: int | None = None
    """Windows that begin earlier are closed for every series of the device."""


@dataclass
class Series:
    device: Device
    readings: list[tuple[int, float, int]] = field(default_factory=list)
    """Time, value, quality of every reading that takes part, in log order."""
    known: set[int] = field(default_factory=set)
    """Beginnings of windows that have readings."""
    open: set[int] = field(default_factory=set)
    closed: int | None = None
    emitted: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """By beginning: newest revision and its values."""
    panes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Where windows overlap, by beginning: what closed panes add up to."""
    dealt: int = -(2**80)
    """Where windows overlap: those that begin earlier are out, as far as there was anything."""


class Reference:
    def __init__(
        self,
        settings: WindowStepSettings,
        known: Mapping[int, Mapping[str, str | None]],
        to: str = "out",
        max_ahead_ns: int = 300 * SECOND,
        zone: str = "UTC",
    ) -> None:
        self.settings = settings
        self.known = known
        self.late_stream = f"{to}.late"
        self.max_ahead_ns = max_ahead_ns if settings.max_ahead is None else parse_duration(settings.max_ahead)
        self.grace_ns, self.idle_ns = parse_duration(settings.grace), parse_duration(settings.idle)
        self.grid = Grid(
            settings.window, settings.calendar, settings.zone or zone, parse_duration(settings.offset)
        )
        self.width = self.pane = self.every = 0
        if settings.every is not None:
            self.width, self.every = parse_duration(settings.window), parse_duration(settings.every)
            self.pane = math.gcd(self.width, self.every)
            self.grid = Grid(f"{self.pane // 1_000_000}ms", False, "UTC", parse_duration(settings.offset))
        self.hold_ns = 0
        if {Aggregate.TWA, Aggregate.INTEGRAL, Aggregate.DURATION} & set(settings.values):
            if settings.hold is not None:
                self.hold_ns = parse_duration(settings.hold)
            elif settings.window in REACH:
                self.hold_ns = REACH[settings.window] * SECOND
            else:
                self.hold_ns = parse_duration(settings.window)
        self.revised_at = self.older_at = -(2**80)
        self.older_wait = SECOND
        self.looked_at: set[tuple[int, int]] = set()
        self.devices: dict[str, Device] = {}
        self.series: dict[int, Series] = {}
        self.late: set[tuple[int, int]] = set()
        self.ahead = 0
        self.late_rows = 0

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        number, time, value, quality = row["series"], row["time"], row["value"], row["quality"]
        if time < EARLIEST_NS or number >= 1 << 24:
            return []
        if time > now_ns + self.max_ahead_ns:
            self.ahead += 1
            return []
        if number not in self.series:
            name = (self.known.get(number) or {}).get("device") or f"own/{number}"
            self.series[number] = Series(self.devices.setdefault(name, Device()))
        series = self.series[number]
        device = series.device
        begin = self.grid.bounds(time)[0]
        series.readings.append((time, value + 0.0, quality))
        series.known.add(begin)
        closed = max((bound for bound in (device.closed, series.closed) if bound is not None), default=None)
        aside = []
        if closed is not None and begin < closed:
            self.late_rows += 1
            if self.settings.late is Late.REVISE:
                self.late.add((number, begin))
                for other in series.known:
                    if time < other <= time + self.hold_ns and other < closed:
                        self.late.add((number, other))
            elif self.settings.late is Late.SIDE:
                reason = "the window of this time was closed"
                aside.append({**row, "arrived": now_ns, "reason": reason, "stream": self.late_stream})
        else:
            series.open.add(begin)
        device.seen = now_ns
        device.watermark = time if device.watermark is None else max(device.watermark, time)
        return aside

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        touched: set[tuple[int, int]] = set()
        for device in self.devices.values():
            if device.watermark is not None:
                device.closed = self.grid.bounds(device.watermark - self.grace_ns)[0]
        for number, series in self.series.items():
            silent = series.device.seen is not None and now_ns - series.device.seen >= self.idle_ns
            closing = set(series.open)
            for begin in sorted(series.open):
                passed = series.device.closed is not None and begin < series.device.closed
                if passed or silent:
                    series.open.discard(begin)
                    if not self.every:
                        rows += self.emit(number, series, begin)
                if silent and not passed:
                    end = self.grid.bounds(begin)[1]
                    series.closed = max(series.closed or end, end)
            if self.every:
                touched |= self.close_panes(number, series, closing - series.open, silent)
        for number, begin in self.late_ones(now_ns):
            if self.every:
                touched |= self.revise_pane(number, begin)
            else:
                rows += self.emit(number, self.series[number], begin)
        for number, begin in touched:
            rows += self.emit_overlapping(number, self.series[number], begin)
        return sorted(rows, key=lambda row: (row["start"], row["series"]))

    def late_ones(self, now_ns: int) -> list[tuple[int, int]]:
        """Late windows are computed again once a second, older ones more rarely while they keep coming."""
        if self.late and now_ns - self.revised_at >= SECOND:
            self.revised_at = now_ns
            self.looked_at |= self.late
            self.late.clear()
        found, older = [], []
        for number, begin in self.looked_at:
            end = begin + self.width if self.every else self.grid.bounds(begin)[1]
            (older if end < now_ns - 60 * SECOND else found).append((number, begin))
        passed = now_ns - self.older_at
        if older and passed >= self.older_wait:
            self.older_wait = min(2 * self.older_wait, 4 * SECOND) if passed < 2 * self.older_wait else SECOND
            self.older_at = now_ns
            found += older
        self.looked_at -= set(found)
        return found

    def containing(self, pane: int) -> list[int]:
        """Beginnings of the windows that a pane belongs to, where windows overlap."""
        offset = parse_duration(self.settings.offset)
        last = (pane - offset) // self.every * self.every + offset
        return [begin for begin in range(last, pane - self.width, -self.every) if begin + self.width > pane]

    def close_panes(
        self, number: int, series: Series, closed: set[int], silent: bool
    ) -> set[tuple[int, int]]:
        """Windows to be computed because panes were closed."""
        for begin in closed:
            series.panes[begin] = self.totals(series.readings, begin)
        target = series.dealt
        if series.device.closed is not None:
            target = max(target, series.device.closed - self.width + self.pane)
        if silent:
            target = max(target, max(series.known) + self.pane)
        touched = set()
        for pane in series.panes:
            for begin in self.containing(pane):
                due = series.dealt <= begin < target
                again = begin < series.dealt and pane in closed and self.settings.late is Late.REVISE
                if due or again:
                    touched.add((number, begin))
        series.dealt = target
        return touched

    def revise_pane(self, number: int, pane: int) -> set[tuple[int, int]]:
        series = self.series[number]
        series.panes[pane] = self.totals(series.readings, pane)
        return {(number, begin) for begin in self.containing(pane) if begin < series.dealt}

    def emit_overlapping(self, number: int, series: Series, begin: int) -> list[dict[str, Any]]:
        panes = [
            series.panes[pane] for pane in range(begin, begin + self.width, self.pane) if pane in series.panes
        ]
        count, values = self.combined(panes)
        return self.put_out(number, series, begin, begin + self.width, count, values)

    def totals(self, readings: list[tuple[int, float, int]], start: int) -> dict[str, Any]:
        """What a pane adds up to."""
        newest = {time: (value, quality) for time, value, quality in readings}
        inside = [newest[time] for time in sorted(newest) if start <= time < start + self.pane]
        kept = [value for value, quality in inside if quality & 2 == 0 and not math.isnan(value)]
        good = [value for value, quality in inside if quality & 3 == 0 and not math.isnan(value)]
        shifted = [value - kept[0] for value in kept]
        return {
            "values": kept,
            "sum": summed(kept),
            "shifted": summed(shifted),
            "squared": summed([value * value for value in shifted]),
            "readings": len(inside),
            "good": len(good),
        }

    def combined(self, panes: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        kept = [value for pane in panes for value in pane["values"]]
        by_name: dict[Aggregate, float | None] = {Aggregate.COUNT: len(kept)}
        if kept:
            total = summed([pane["sum"] for pane in panes])
            shifted = squared = 0.0
            for pane in panes:
                if pane["values"]:
                    shift, count = pane["values"][0] - kept[0], len(pane["values"])
                    shifted += pane["shifted"] + count * shift
                    squared += pane["squared"] + 2.0 * shift * pane["shifted"] + count * shift * shift
            variance = (squared - shifted * shifted / len(kept)) / max(len(kept) - 1, 1)
            std = math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0))
            by_name |= {
                Aggregate.SUM: total,
                Aggregate.MEAN: total / len(kept),
                Aggregate.MIN: min(kept),
                Aggregate.MAX: max(kept),
                Aggregate.FIRST: kept[0],
                Aggregate.LAST: kept[-1],
                Aggregate.STD: std if len(kept) > 1 else None,
                Aggregate.RANGE: max(kept) - min(kept),
                Aggregate.DELTA: kept[-1] - kept[0],
                Aggregate.GOOD: 100.0
                * sum(pane["good"] for pane in panes)
                / sum(pane["readings"] for pane in panes),
            }
            if self.settings.interval is not None:
                expected = self.width / parse_duration(self.settings.interval)
                by_name[Aggregate.COMPLETENESS] = 100.0 * len(kept) / expected
        return len(kept), {column.value: by_name.get(column) for column in self.settings.columns}

    def emit(self, number: int, series: Series, begin: int) -> list[dict[str, Any]]:
        start, end = self.grid.bounds(begin)
        return self.put_out(number, series, start, end, *self.values(series.readings, start, end))

    def put_out(
        self, number: int, series: Series, start: int, end: int, count: int, values: dict[str, Any]
    ) -> list[dict[str, Any]]:
        before = series.emitted.get(start)
        if (before is None and count == 0) or (before is not None and same(before[1], values)):
            return []
        revision = 0 if before is None else before[0] + 1
        series.emitted[start] = (revision, values)
        return [{"series": number, "start": start, "end": end, **values, "revision": revision}]

    def values(
        self, readings: list[tuple[int, float, int]], start: int, end: int
    ) -> tuple[int, dict[str, Any]]:
        newest = {time: (value, quality) for time, value, quality in readings}
        inside = [newest[time] for time in newest if start <= time < end]
        valid = {
            time: value
            for time, (value, quality) in sorted(newest.items())
            if quality & 2 == 0 and not math.isnan(value)
        }
        times = [time for time in valid if start <= time < end]
        kept = [valid[time] for time in times]
        by_name: dict[Aggregate, float | None] = {Aggregate.COUNT: len(kept)}
        if kept:
            total = summed(kept)
            by_name |= {
                Aggregate.SUM: total,
                Aggregate.MEAN: total / len(kept),
                Aggregate.MIN: min(kept),
                Aggregate.MAX: max(kept),
                Aggregate.FIRST: kept[0],
                Aggregate.LAST: kept[-1],
                Aggregate.STD: deviation(kept),
                Aggregate.RANGE: max(kept) - min(kept),
                Aggregate.DELTA: kept[-1] - kept[0],
            }
            good = sum(quality & 3 == 0 and not math.isnan(value) for value, quality in inside)
            by_name[Aggregate.GOOD] = 100.0 * good / len(inside)
            if self.settings.interval is not None:
                expected = (end - start) / parse_duration(self.settings.interval)
                by_name[Aggregate.COMPLETENESS] = 100.0 * len(kept) / expected
            if self.hold_ns:
                by_name |= self.weighted(valid, times, start, end)
        return len(kept), {column.value: by_name.get(column) for column in self.settings.columns}

    def weighted(
        self, valid: dict[int, float], times: list[int], start: int, end: int
    ) -> dict[Aggregate, float | None]:
        """Values times ns, covered ns and ns in the state, piece by piece in order of time."""
        hold = self.hold_ns
        areas, covered, active = [], [], []
        earlier = [time for time in valid if time < times[0]]
        for before, time in pairwise([*earlier[-1:], *times]):
            begin = max(before, start)
            held = max(min(time, before + hold) - begin, 0)
            active.append(float(self.in_state(valid[before])) * held)
            if self.settings.between is Between.HELD:
                areas.append(valid[before] * float(held) if held else 0.0)
                covered.append(float(held))
            elif time - before <= hold and time > begin:
                whole = float(time - before)
                at_begin = valid[before] + (valid[time] - valid[before]) * ((begin - before) / whole)
                areas.append((at_begin + valid[time]) * 0.5 * float(time - begin))
                covered.append(float(time - begin))
        rest = float(min(end, times[-1] + hold) - times[-1])
        areas.append(valid[times[-1]] * rest)
        covered.append(rest)
        active.append(float(self.in_state(valid[times[-1]])) * rest)
        return {
            Aggregate.TWA: summed(areas) / summed(covered),
            Aggregate.INTEGRAL: summed(areas) / (3600 * SECOND),
            Aggregate.DURATION: summed(active) / SECOND,
        }

    def in_state(self, value: float) -> bool:
        if self.settings.state is None:
            return False
        _, comparison, number = self.settings.state.split()
        return {
            "<": value < float(number),
            "<=": value <= float(number),
            ">": value > float(number),
            ">=": value >= float(number),
            "==": value == float(number),
            "!=": value != float(number),
        }[comparison]


def summed(values: list[float]) -> float:
    """One after the other; `sum` of Python adds more exactly."""
    total = 0.0
    for value in values:
        total += value
    return total


def deviation(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    shifted = [value - values[0] for value in values]
    squares = summed([value * value for value in shifted])
    sum_of_shifted = summed(shifted)
    variance = (squares - sum_of_shifted * sum_of_shifted / len(values)) / (len(values) - 1)
    return math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal, a value that is not there and NaN included: a stream of windows cannot tell them apart."""

    def told(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else value

    return all(told(one[name]) == told(other[name]) for name in one)


def overlapping(late: tuple[Late, ...] = tuple(Late)) -> st.SearchStrategy[WindowStepSettings]:
    """Settings of windows that overlap."""
    plain = [value for value in Aggregate if value not in WEIGHTED]
    return st.builds(
        lambda lengths, grace, idle, late, values, offset: WindowStepSettings(
            window=lengths[0],
            every=lengths[1],
            grace=f"{grace}s",
            idle=f"{idle}s",
            max_ahead="30s",
            late=late,
            values=tuple(values),
            interval="2s",
            offset=offset,
        ),
        st.sampled_from([("4s", "2s"), ("10s", "3s"), ("20s", "5s"), ("6s", "4s")]),
        st.sampled_from([0, 3, 25]),
        st.sampled_from([5, 30]),
        st.sampled_from(late),
        st.lists(st.sampled_from(plain), min_size=1, max_size=7, unique=True),
        st.sampled_from(["0s", "1s"]),
    )


def settings(late: tuple[Late, ...] = tuple(Late)) -> st.SearchStrategy[WindowStepSettings]:
    """Settings of any kind; `late`: what they may do with late readings."""
    return st.builds(
        lambda window, grace, idle, late, values, hold, between, state, offset: WindowStepSettings(
            window=f"{window}s",
            grace=f"{grace}s",
            idle=f"{idle}s",
            max_ahead="30s",
            late=late,
            values=tuple(values),
            hold=hold,
            between=between,
            state=state,
            interval="2s",
            offset=offset,
        ),
        st.sampled_from([1, 10]),
        st.sampled_from([0, 3, 10, 25]),
        st.sampled_from([5, 30]),
        st.sampled_from(late),
        st.lists(st.sampled_from(list(Aggregate)), min_size=1, max_size=7, unique=True),
        st.sampled_from([None, "1s", "5s", "25s"]),
        st.sampled_from(list(Between)),
        st.sampled_from(["value > 1", "value <= 0.2", "value != 7"]),
        st.sampled_from(["0s", "3s"]),
    )
