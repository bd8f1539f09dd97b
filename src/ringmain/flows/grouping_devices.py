"""Devices of cells: those of their series."""

from __future__ import annotations

import numpy as np

from ringmain.flows.devices import Devices
from ringmain.flows.grouping_members import Cells
from ringmain.flows.state import NEVER, WindowState
from ringmain.flows.totals import Ids
from ringmain.flows.windowing import Windowing


class CellDevices(Devices):
    """Pins the devices of cells. The cells of a series without a named device share one of their own."""

    def __init__(self, windowing: Windowing, state: WindowState, cells: Cells) -> None:
        super().__init__(windowing, state)
        self._cells = cells
        self._own: dict[int, int] | None = None
        """The devices of series without a named one."""

    def restart(self) -> None:
        """The state was taken over from somewhere else."""
        super().restart()
        self._own = None

    def pin(self, series: Ids) -> None:
        """Give new cells the device of their series."""
        state = self._state
        state.reserve_series(int(series.max()) + 1)
        unknown = state.device[series] < 0
        if not unknown.any():
            return
        if self._own is None:
            named = state.device_names.numbers()
            pinned = np.flatnonzero(state.device >= 0)
            of = zip(self._cells.series(pinned).tolist(), state.device[pinned].tolist(), strict=True)
            self._own = {number: device for number, device in of if device not in named}
        new = np.unique(series[unknown])
        devices = np.full(len(new), -1, np.int32)
        for place, number in enumerate(self._cells.series(new).tolist()):
            device = int(state.announced[number]) if number < len(state.announced) else -1
            if device < 0:
                device = self._own.get(number, -1)
            if device < 0:
                device = self._own[number] = state.devices
                state.devices += 1
            devices[place] = device
        state.reserve_devices(state.devices)
        state.device[new] = devices
        closes_at = state.closes_at[devices]
        started = closes_at != NEVER
        state.closed[new[started]] = self._grid.of(closes_at[started] - self._grace_ns) - 1
        self._pinned += len(new)
