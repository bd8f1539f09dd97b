"""A window flow in plain Python, row by row, against which the real one is compared. Slow and obvious."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ringmain.flows.settings import Aggregate, Late, WindowSettings
from ringmain.log.interface import Frame

SECOND = 1_000_000_000


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
    emitted: dict[int, tuple[int, tuple[float | None, ...]]] = field(default_factory=dict)
    """By window number: newest revision and its values."""


class Model:
    def __init__(self, settings: WindowSettings) -> None:
        self.settings = settings
        self.now: int | None = None
        self.revised_at: int | None = None
        self.devices: dict[str, Device] = {}
        self.announced: dict[int, str] = {}
        self.series: dict[int, Series] = {}
        self.late: set[tuple[int, int]] = set()
        self.windows: list[tuple[object, ...]] = []
        self.side: list[tuple[object, ...]] = []
        self.ahead = 0
        self.late_rows = 0

    def step(self, frame: Frame) -> None:
        if frame.stream == "catalogue":
            for entry in frame.rows.to_pylist():
                self.announced[entry["id"]] = entry["device"]
        elif frame.stream == "ticks":
            self.advance(max(int(time.value) for time in frame.rows.column("time")))
        else:
            self.advance(frame.origin_arrival_ns)
            columns = [frame.rows.column(name).to_numpy() for name in ("series", "time", "value", "quality")]
            columns[1] = columns[1].astype(np.int64)
            for series, time, value, quality in zip(*(column.tolist() for column in columns), strict=True):
                self.reading(frame.origin_arrival_ns, series, time, value, quality)

    def reading(self, arrival: int, number: int, time: int, value: float, quality: int) -> None:
        if time > arrival + self.settings.max_ahead_ns:
            self.ahead += 1
            return
        if number not in self.series:
            name = self.announced.get(number) or f"own/{number}"
            self.series[number] = Series(self.devices.setdefault(name, Device()))
        series = self.series[number]
        device = series.device
        window = time // self.settings.window_ns
        valid = quality & 2 == 0 and not math.isnan(value)
        series.readings.setdefault(window, []).append((time, value + 0.0, valid))
        closed = [bound for bound in (device.closed, series.closed) if bound is not None]
        if closed and window < max(closed):
            self.late_rows += 1
            if self.settings.late is Late.REVISE:
                self.late.add((number, window))
            elif self.settings.late is Late.SIDE:
                self.side.append((number, time, value, quality, arrival))
        else:
            series.open.add(window)
        device.seen = self.now
        device.watermark = time if device.watermark is None else max(device.watermark, time)

    def advance(self, now: int) -> None:
        if self.now is not None and now <= self.now:
            return
        self.now = now
        width = self.settings.window_ns
        for device in self.devices.values():
            if device.watermark is not None:
                device.closed = (device.watermark - self.settings.grace_ns) // width
        for number, series in self.series.items():
            device = series.device
            for window in sorted(series.open):
                if device.closed is not None and window < device.closed:
                    self.close(number, series, window)
        for number, series in self.series.items():
            if series.device.seen is not None and now - series.device.seen >= self.settings.idle_ns:
                for window in sorted(series.open):
                    self.close(number, series, window)
                    series.closed = window + 1 if series.closed is None else max(series.closed, window + 1)
        if self.late and (self.revised_at is None or now - self.revised_at >= SECOND):
            self.revised_at = now
            for number, window in sorted(self.late):
                self.emit(number, self.series[number], window)
            self.late.clear()

    def close(self, number: int, series: Series, window: int) -> None:
        series.open.discard(window)
        self.emit(number, series, window)

    def emit(self, number: int, series: Series, window: int) -> None:
        values = self.values(series.readings[window])
        before = series.emitted.get(window)
        if before is None and values[0] == 0:
            return
        shown = values[1]
        if before is not None and before[1] == shown:
            return
        revision = 0 if before is None else before[0] + 1
        series.emitted[window] = (revision, shown)
        self.windows.append((number, window * self.settings.window_ns, revision, *shown))

    def values(self, readings: list[tuple[int, float, bool]]) -> tuple[int, tuple[float | None, ...]]:
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
        return len(kept), tuple(by_name.get(column) for column in self.settings.columns)
