"""The state of a window flow: flat arrays by series and by device.

Everything that the step remembers between two frames is here, so that a snapshot of it is complete; nothing here
decides anything. Arrays grow by doubling with the series and devices that appear; what is open at a time is
bounded by the settings (`OPEN_WINDOWS_MAX` windows a series) because a device's watermark closes the rest.

A series' open windows have accumulators in one of a few slots (window number modulo the number of slots). A
window that cannot be kept there, or whose readings did not come in order of time, is only remembered by its
key; its values are computed from the log when it closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.aggregates import Accumulator
from ringmain.flows.device_names import DeviceNames
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.later import Later, Part
from ringmain.flows.panes import PaneRing
from ringmain.flows.panes import compact as compact_panes
from ringmain.flows.totals import Bools, Floats, Ints, Totals
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Position

__all__ = [
    "NEVER",
    "PARKED",
    "SLOTS_MAX",
    "UNKNOWN",
    "Slot",
    "WindowKeys",
    "WindowState",
    "grown",
    "restore",
    "stored",
]

UNKNOWN = NEVER + 1
"""In place of a time: there may be one, it has to be looked up."""
PARKED = 2**63 - 1
"""`seen` of a device that is idle: its windows are closed, there is nothing to wait for."""
SLOTS_MAX = 4
_LOOKED_AT = 65536
"""Series looked at in one piece."""
COUNTED = (Accumulator.READINGS, Accumulator.GOOD)
"""In a slot all readings are valid and good, so their number is the count."""


class WindowKeys:
    """A set of windows by (series, window number), as arrays."""

    def __init__(self) -> None:
        self._series: list[Ints] = []
        self._window: list[Ints] = []
        self._rows = 0
        self._merged_rows = 0

    def __len__(self) -> int:
        """How many are held, counting those that were added twice twice."""
        return self._rows

    def add(self, series: NDArray[np.integer], window: Ints) -> None:
        """Add windows."""
        if not len(window):
            return
        self._series.append(series.astype(np.int64))
        self._window.append(window.astype(np.int64))
        self._rows += len(window)
        if self._rows > 2 * self._merged_rows + 65536:
            self.arrays()

    @property
    def _merged(self) -> bool:
        return len(self._series) <= 1 and self._merged_rows == self._rows

    def arrays(self) -> tuple[Ints, Ints]:
        """The windows, each once, in order of (window, series)."""
        if not self._rows:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if not self._merged:
            self.replace(*_merged(self._series, self._window))
        return self._series[0], self._window[0]

    def later(self) -> tuple[Part, Part]:
        """The same, put in order later where they are not."""
        if self._merged:
            return self.arrays()
        series, window = list(self._series), list(self._window)
        nbytes = 8 * self._rows
        return (
            Later(lambda: _merged(series, window)[0], nbytes),
            Later(lambda: _merged(series, window)[1], nbytes),
        )

    def replace(self, series: Ints, window: Ints) -> None:
        """Hold these windows, each once and in order of (window, series), instead."""
        self._series, self._window = ([series], [window]) if len(series) else ([], [])
        self._rows = self._merged_rows = len(series)


def _merged(some_series: Sequence[Ints], some_window: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Windows, each once, in order of (window, series)."""
    series, window = np.concatenate(some_series), np.concatenate(some_window)
    order = np.lexsort((series, window))
    series, window = series[order], window[order]
    fresh = np.empty(len(order), np.bool_)
    fresh[0] = True
    np.not_equal(series[1:], series[:-1], out=fresh[1:])
    fresh[1:] |= window[1:] != window[:-1]
    return series[fresh], window[fresh]


class Slot:
    """Accumulators of one window a series. `window` is NEVER where the slot is free."""

    BASE = ("window", "dirty", "count", "sum", "min", "max", "first", "last")
    WEIGHTED = ("last_time",)

    def __init__(self, size: int, windowing: Windowing) -> None:
        self._counted = tuple(name for name in windowing.accumulators if name in COUNTED)
        self.names = (*self.BASE, *self.WEIGHTED) if windowing.weighted else self.BASE
        self.window: Ints = np.full(size, NEVER, np.int64)
        self.dirty: Bools = np.zeros(size, np.bool_)
        self.count: Ints = np.zeros(size, np.int64)
        self.sum: Floats = np.zeros(size)
        self.min: Floats = np.zeros(size)
        self.max: Floats = np.zeros(size)
        self.first: Floats = np.zeros(size)
        self.last: Floats = np.zeros(size)
        self.last_time: Ints = np.zeros(size, np.int64)
        """When the last reading was, where that matters."""
        self.extra: dict[Accumulator, Floats] = {
            name: np.zeros(size) for name in windowing.accumulators if name not in COUNTED
        }

    def grow(self, size: int) -> None:
        """Make room for series ids below `size`."""
        for name in self.names:
            fill = NEVER if name == "window" else 0
            setattr(self, name, grown(getattr(self, name), size, fill))
        for extra, values in self.extra.items():
            self.extra[extra] = grown(values, size, 0.0)

    def open(self, series: Ints, window: Ints | int, first: Floats) -> None:
        """Begin windows whose first values these are; the values are not added yet."""
        self.window[series] = window
        self.dirty[series] = False
        self.count[series] = 0
        self.sum[series] = 0.0
        self.min[series] = np.inf
        self.max[series] = -np.inf
        self.first[series] = first
        for values in self.extra.values():
            values[series] = 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that is kept by series."""
        return {name: getattr(self, name) for name in self.names} | {
            f"extra.{name}": values for name, values in self.extra.items()
        }

    def totals(self, series: Ints) -> Totals:
        """What the windows of these series add up to, without what their last values stand for."""
        count = self.count[series]
        return Totals(
            count,
            self.sum[series],
            self.min[series],
            self.max[series],
            self.first[series],
            self.last[series],
            extra={name: values[series] for name, values in self.extra.items()}
            | {name: count.astype(np.float64) for name in self._counted},
        )


@dataclass(slots=True)
class WindowState:
    """See the module. Times are ns UTC; a window's number is its start divided by the window's length."""

    slots: list[Slot]
    weighted: bool = False
    """Whether `held_time` and `held_value` are kept."""
    panes: PaneRing | None = None
    """Closed panes, where windows hop."""
    now: int = NEVER
    """Log time: the highest origin arrival and tick so far."""
    revised_at: int = NEVER
    """Log time at which late windows were last emitted again."""
    older_revised_at: int = NEVER
    """The same for windows that ended long ago."""
    older_wait_ns: int = 1_000_000_000
    """How much log time has to pass until that happens again."""
    lead_ns: int = 0
    """How far an origin arrival was ahead of its arrival in this log at most (another node's clock)."""
    position: Position | None = None
    """The last frame that was folded."""
    watermark: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By device: the newest time."""
    seen: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By device: log time of its last frame, or PARKED."""
    closes_at: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By device: the watermark at which its next window closes."""
    devices: int = 0
    device_names: DeviceNames = field(default_factory=DeviceNames)
    announced: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """By series: device number according to the newest catalogue entry, -1 if it names none."""
    device: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """By series: device number as it was at the series' first reading, and stays; -1 before."""
    newest: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By series: the newest time."""
    newest_value: Floats = field(default_factory=lambda: np.empty(0))
    """By series: the value at the newest time; NaN if there is none or it is not known."""
    closed: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By series: windows with a lower number are closed."""
    held_time: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By series: the time of its newest valid reading; NEVER if there is none, UNKNOWN if it must be looked up."""
    held_value: Floats = field(default_factory=lambda: np.empty(0))
    """By series: the value of that reading."""
    deferred: WindowKeys = field(default_factory=WindowKeys)
    """Open windows without a slot."""
    late: WindowKeys = field(default_factory=WindowKeys)
    """Closed windows that readings came for."""
    waiting: WindowKeys = field(default_factory=WindowKeys)
    """Those of them that ended long ago: they are computed again more rarely, many at a time."""
    due: list[Ints] = field(default_factory=list)
    """Devices whose watermark reached `closes_at` since log time last moved."""

    @classmethod
    def new(cls, windowing: Windowing) -> WindowState:
        """The state before the first frame."""
        return cls(
            [Slot(0, windowing) for _ in range(slot_count(windowing))],
            windowing.weighted,
            PaneRing(windowing) if windowing.panes > 1 else None,
        )

    def series_used(self) -> int:
        """Every series with a reading has an id below."""
        for stop in range(len(self.device), 0, -_LOOKED_AT):
            start = max(stop - _LOOKED_AT, 0)
            known = np.flatnonzero(self.device[start:stop] >= 0)
            if len(known):
                return start + int(known[-1]) + 1
        return 0

    @property
    def series_size(self) -> int:
        """Length of the arrays by series."""
        return len(self.device)

    def reserve_series(self, size: int) -> None:
        """Make room for series ids below `size`."""
        if size <= self.series_size:
            return
        size = max(size, min(2 * self.series_size, self.series_size + 262_144), 1024)
        for slot in self.slots:
            slot.grow(size)
        self.device = grown(self.device, size, -1)
        self.newest = grown(self.newest, size, NEVER)
        self.newest_value = grown(self.newest_value, size, np.nan)
        self.closed = grown(self.closed, size, NEVER)
        if self.weighted:
            self.held_time = grown(self.held_time, size, NEVER)
            self.held_value = grown(self.held_value, size, 0.0)

    def reserve_devices(self, size: int) -> None:
        """Make room for device numbers below `size`."""
        if size <= len(self.watermark):
            return
        size = max(size, min(2 * len(self.watermark), len(self.watermark) + 262_144), 1024)
        self.watermark = grown(self.watermark, size, NEVER)
        self.seen = grown(self.seen, size, PARKED)
        self.closes_at = grown(self.closes_at, size, NEVER)


def slot_count(windowing: Windowing) -> int:
    """Slots that in-order readings need: the windows in their grace, the running one, and the next."""
    return min(windowing.grace_ns // windowing.grid.width_min_ns + 2, SLOTS_MAX)


_SERIES = ("device", "newest", "newest_value", "closed")
_HELD = ("held_time", "held_value")
_DEVICES = ("watermark", "seen", "closes_at")
_OF_OPEN = frozenset({"closed", "device", "window", "dirty"})
"""Parts of a state by series that say which windows are open; closing windows writes to no other ones."""


def stored(state: WindowState) -> dict[str, Part]:
    """Everything that a state holds, as arrays and bytes by name. Log time and devices' names included."""
    size = state.series_used()
    devices = min(state.devices, len(state.watermark))
    found: dict[str, Part] = {
        "head": np.array([state.now, state.revised_at, state.lead_ns, state.devices], np.int64),
        "revised": np.array([state.older_revised_at, state.older_wait_ns], np.int64),
        "announced": state.announced,
        "due": np.concatenate([np.empty(0, np.int64), *state.due]),
    }
    found |= state.device_names.stored()
    by_series = (*_SERIES, *_HELD) if state.weighted else _SERIES
    found |= {f"series.{name}": getattr(state, name)[:size] for name in by_series}
    found |= {f"devices.{name}": getattr(state, name)[:devices] for name in _DEVICES}
    for name, keys in (("deferred", state.deferred), ("late", state.late), ("waiting", state.waiting)):
        found[f"{name}.series"], found[f"{name}.window"] = keys.later()
    for number, slot in enumerate(state.slots):
        if int(slot.window[:size].max(initial=NEVER)) != NEVER:
            found |= {f"slot{number}.{name}": values[:size] for name, values in slot.arrays().items()}
    if state.panes is not None:
        found |= state.panes.stored()
    return found


def tables(found: Mapping[str, Part]) -> dict[str, list[str]]:
    """Of what `stored` gave, what lies by series, that which closing windows writes to apart; by device; panes."""
    by_series = [name for name in found if name.startswith(("series.", "slot"))]
    open_ones = [name for name in by_series if name.partition(".")[2] in _OF_OPEN]
    return {
        "open": open_ones,
        "values": [name for name in by_series if name not in open_ones],
        "devices": [name for name in found if name.startswith("devices.")],
        "panes": [name for name in found if name.startswith("panes.")],
    }


def compact(found: Mapping[str, Part]) -> dict[str, Part]:
    """What `stored` gave without the places of slots in which no window is open."""
    kept = compact_panes(found)
    for number in range(SLOTS_MAX):
        if f"slot{number}.window" not in found:
            continue
        names = [name for name in found if name.startswith(f"slot{number}.")]
        held = np.flatnonzero(np.asarray(found[f"slot{number}.window"]) != NEVER)
        kept |= {name: np.asarray(found[name])[held] for name in names}
        kept[f"slot{number}.series"] = held
    return kept


def restore(state: WindowState, found: Mapping[str, Part]) -> None:
    """Fill a new state with what `stored` gave. Raises KeyError, ValueError for what is not of its settings."""
    arrays = {name: np.asarray(part) for name, part in found.items() if isinstance(part, np.ndarray)}
    state.now, state.revised_at, state.lead_ns, state.devices = map(int, arrays["head"])
    state.older_revised_at, state.older_wait_ns = map(int, arrays["revised"])
    state.device_names = DeviceNames.restored(found)
    state.announced = arrays["announced"].astype(np.int32)
    due = arrays["due"].astype(np.int64)
    state.due = [due] if len(due) else []
    size = len(arrays["series.device"])
    state.reserve_series(size)
    for name in (*_SERIES, *_HELD) if state.weighted else _SERIES:
        getattr(state, name)[:size] = arrays[f"series.{name}"]
    state.reserve_devices(state.devices)
    for name in _DEVICES:
        held = arrays[f"devices.{name}"]
        getattr(state, name)[: len(held)] = held
    for name, keys in (("deferred", state.deferred), ("late", state.late), ("waiting", state.waiting)):
        keys.replace(arrays[f"{name}.series"].astype(np.int64), arrays[f"{name}.window"].astype(np.int64))
    if state.panes is not None:
        state.panes.restore(found)
    for number, slot in enumerate(state.slots):
        if f"slot{number}.window" not in arrays:
            continue
        places = arrays.get(f"slot{number}.series", slice(0, size))
        for name, values in slot.arrays().items():
            values[places] = arrays[f"slot{number}.{name}"]
