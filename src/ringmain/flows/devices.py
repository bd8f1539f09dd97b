"""Which series belong to which device.

The catalogue, read in log order like everything else, names the device of a series. At a series' first reading
its device is pinned in the state: a later entry changes nothing, so that folding again gives the same windows. A
series without a device is a device of its own.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.state import NEVER, WindowState
from ringmain.flows.totals import Ids, Ints
from ringmain.flows.windowing import Windowing


class Devices:
    """The devices of a state."""

    def __init__(self, windowing: Windowing, state: WindowState) -> None:
        self._state = state
        self._grid = windowing.grid
        self._grace_ns = windowing.grace_ns
        self._panes = windowing.panes
        self._pinned = int((state.device >= 0).sum())
        self._members: tuple[int, Ints, Ints] | None = None

    def restart(self) -> None:
        """The state was taken over from somewhere else."""
        self._pinned = int((self._state.device >= 0).sum())
        self._members = None

    def learn(self, entries: pa.RecordBatch) -> None:
        """Take over which device the catalogue names for a series, for when the series is first seen."""
        state = self._state
        ids = entries.column("id").to_numpy()
        if not len(ids):
            return
        usable = ids < SERIES_MAX
        names = entries.column("device").dictionary_encode()
        numbers = np.array(self._named_devices(names.dictionary.to_pylist()) or [-1], np.int32)
        codes = names.indices.fill_null(0).to_numpy()
        devices = np.where(names.indices.is_valid().to_numpy(zero_copy_only=False), numbers[codes], -1)
        size = int(ids[usable].max(initial=0)) + 1
        if size > len(state.announced):
            larger = np.full(max(size, 2 * len(state.announced)), -1, np.int32)
            larger[: len(state.announced)] = state.announced
            state.announced = larger
        state.announced[ids[usable]] = devices[usable]

    def _named_devices(self, names: list[str]) -> list[int]:
        """The numbers of devices, each name being there once; new ones get the next. -1 for an empty name."""
        state = self._state
        known = state.device_names
        found = known.get_all(names)
        new = [name for name, number in zip(names, found, strict=True) if number is None and name]
        if new:
            known.add(new, state.devices)
            state.devices += len(new)
            found = known.get_all(names)
        return [-1 if number is None else number for number in found]

    def pin(self, series: Ids) -> None:
        """Give new series their device, for good: as the catalogue names it now, else one of their own."""
        state = self._state
        state.reserve_series(int(series.max()) + 1)
        unknown = state.device[series] < 0
        if not unknown.any():
            return
        new = np.unique(series[unknown])
        devices = np.full(len(new), -1, np.int32)
        known = new < len(state.announced)
        devices[known] = state.announced[new[known]]
        own = devices < 0
        devices[own] = np.arange(state.devices, state.devices + int(own.sum()), dtype=np.int32)
        state.devices += int(own.sum())
        state.reserve_devices(state.devices)
        state.device[new] = devices
        closes_at = state.closes_at[devices]
        started = closes_at != NEVER
        state.closed[new[started]] = self._grid.of(closes_at[started] - self._grace_ns) - 1
        if state.panes is not None:
            state.panes.reserve(state.series_size)
            state.panes.deal(new[started], state.closed[new[started]] - self._panes + 1)
        self._pinned += len(new)

    def series_of(self, devices: Ints) -> Ints:
        """All series of the devices."""
        state = self._state
        if self._members is None or self._members[0] != self._pinned:
            pinned = np.flatnonzero(state.device >= 0)
            order = np.argsort(state.device[pinned], kind="stable")
            starts = np.searchsorted(state.device[pinned][order], np.arange(state.devices + 1))
            self._members = (self._pinned, pinned[order], starts)
        _, series, starts = self._members
        begin, end = starts[devices], starts[devices + 1]
        counts = end - begin
        total = int(counts.sum())
        if not total:
            return np.empty(0, np.int64)
        offsets = np.repeat(begin - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        found: Ints = series[offsets + np.arange(total)]
        return found
