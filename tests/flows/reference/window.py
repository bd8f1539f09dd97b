"""The window step row by row: every reading of a series is kept, and a window is computed from all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.aggregates import Aggregate, Late
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.model.duration import parse_duration

SECOND = 1_000_000_000
EARLIEST_NS = -2_208_988_800 * SECOND


@dataclass
class Device:
    watermark: int | None = None
    seen: int | None = None
    closed: int | None = None
    """Windows with a lower number are closed for every series of the device."""


@dataclass
class Series:
    device: Device
    readings: dict[int, list[tuple[int, float, bool]]] = field(default_factory=dict)
    """By window number: time, value, valid of every reading that takes part, in log order."""
    open: set[int] = field(default_factory=set)
    closed: int | None = None
    emitted: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """By window number: newest revision and its values."""


class Reference:
    def __init__(
        self,
        settings: WindowStepSettings,
        known: Mapping[int, Mapping[str, str | None]],
        to: str = "out",
        max_ahead_ns: int = 300 * SECOND,
    ) -> None:
        self.settings = settings
        self.known = known
        self.late_stream = f"{to}.late"
        self.max_ahead_ns = max_ahead_ns if settings.max_ahead is None else parse_duration(settings.max_ahead)
        self.now: int | None = None
        self.revised_at: int | None = None
        self.devices: dict[str, Device] = {}
        self.series: dict[int, Series] = {}
        self.late: set[tuple[int, int]] = set()

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        number, time, value, quality = row["series"], row["time"], row["value"], row["quality"]
        if time < EARLIEST_NS or number >= 1 << 24 or time > now_ns + self.max_ahead_ns:
            return []
        if number not in self.series:
            name = (self.known.get(number) or {}).get("device") or f"own/{number}"
            self.series[number] = Series(self.devices.setdefault(name, Device()))
        series = self.series[number]
        device = series.device
        window = time // self.settings.window_ns
        valid = quality & 2 == 0 and not math.isnan(value)
        series.readings.setdefault(window, []).append((time, value + 0.0, valid))
        closed = [bound for bound in (device.closed, series.closed) if bound is not None]
        aside = []
        if closed and window < max(closed):
            if self.settings.late is Late.REVISE:
                self.late.add((number, window))
            elif self.settings.late is Late.SIDE:
                reason = "the window of this time was closed"
                aside.append({**row, "arrived": now_ns, "reason": reason, "stream": self.late_stream})
        else:
            series.open.add(window)
        device.seen = now_ns
        device.watermark = time if device.watermark is None else max(device.watermark, time)
        return aside

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        self.now = now_ns
        rows: list[dict[str, Any]] = []
        for device in self.devices.values():
            if device.watermark is not None:
                device.closed = (device.watermark - self.settings.grace_ns) // self.settings.window_ns
        for number, series in self.series.items():
            silent = series.device.seen is not None and now_ns - series.device.seen >= self.settings.idle_ns
            for window in sorted(series.open):
                passed = series.device.closed is not None and window < series.device.closed
                if passed or silent:
                    series.open.discard(window)
                    rows += self.emit(number, series, window)
                if silent and not passed:
                    series.closed = max(series.closed or window + 1, window + 1)
        if self.late and (self.revised_at is None or now_ns - self.revised_at >= SECOND):
            self.revised_at = now_ns
            for number, window in self.late:
                rows += self.emit(number, self.series[number], window)
            self.late.clear()
        return sorted(rows, key=lambda row: (row["start"], row["series"]))

    def emit(self, number: int, series: Series, window: int) -> list[dict[str, Any]]:
        count, values = self.values(series.readings[window])
        before = series.emitted.get(window)
        if (before is None and count == 0) or (before is not None and before[1] == values):
            return []
        revision = 0 if before is None else before[0] + 1
        series.emitted[window] = (revision, values)
        start = window * self.settings.window_ns
        end = start + self.settings.window_ns
        return [{"series": number, "start": start, "end": end, **values, "revision": revision}]

    def values(self, readings: list[tuple[int, float, bool]]) -> tuple[int, dict[str, Any]]:
        newest = {time: (value, valid) for time, value, valid in readings}
        kept = [newest[time][0] for time in sorted(newest) if newest[time][1]]
        total = 0.0
        for value in kept:
            total += value
        by_name: dict[Aggregate, float | None] = {Aggregate.COUNT: len(kept)}
        if kept:
            by_name |= {
                Aggregate.SUM: total,
                Aggregate.MEAN: total / len(kept),
                Aggregate.MIN: min(kept),
                Aggregate.MAX: max(kept),
                Aggregate.FIRST: kept[0],
                Aggregate.LAST: kept[-1],
            }
        return len(kept), {column.value: by_name.get(column) for column in self.settings.columns}


def settings(late: tuple[Late, ...] = tuple(Late)) -> st.SearchStrategy[WindowStepSettings]:
    """Settings of any kind; `late`: what they may do with late readings."""
    return st.builds(
        lambda window, grace, idle, late, values: WindowStepSettings(
            window=f"{window}s",
            grace=f"{grace}s",
            idle=f"{idle}s",
            max_ahead="30s",
            late=late,
            values=tuple(values),
        ),
        st.sampled_from([1, 10]),
        st.sampled_from([0, 3, 10, 25]),
        st.sampled_from([5, 30]),
        st.sampled_from(late),
        st.lists(st.sampled_from(list(Aggregate)), min_size=1, max_size=7, unique=True),
    )
