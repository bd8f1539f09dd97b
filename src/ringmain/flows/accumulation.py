"""Adding readings to the accumulators of open windows, value by value.

Every way of adding gives the same bits: frames in which each series occurs once are added as a whole, others row
by row in order of series and time. Whatever does not come in order of time is not added at all: its window is
marked to be computed from the log.
"""

from __future__ import annotations

import numpy as np

from ringmain.flows.settings import Aggregate, WindowSettings
from ringmain.flows.state import NEVER, WindowState
from ringmain.flows.sweep import Sweep
from ringmain.flows.totals import Bools, Floats, Ints


class Accumulation:
    """Adds to the slots of a state. Readings are on time: their windows are not closed."""

    def __init__(self, settings: WindowSettings, state: WindowState) -> None:
        self._state = state
        self._window_ns = settings.window_ns
        columns = settings.columns
        self._sums = bool({Aggregate.SUM, Aggregate.MEAN} & set(columns))
        self._mins = Aggregate.MIN in columns
        self._maxs = Aggregate.MAX in columns

    def add_sweep(self, sweep: Sweep, time: Ints, value: Floats) -> bool:
        """Add one valid reading a series, all in one window and newer than before; False if it is not so."""
        state, places = self._state, sweep.places
        window = int(time.min()) // self._window_ns
        start = window * self._window_ns
        if int(time.max()) >= start + self._window_ns:
            return False
        newest = state.newest[places]
        if not (time > newest).all():
            return False
        slot = state.slots[window % len(state.slots)]
        held = slot.window[places]
        new = held != window
        if new.any():
            if ((held != NEVER) & new).any() or (new & (newest >= start)).any():
                return False
            if (new & (state.closed[places] > window)).any():
                return False
            slot.open(sweep.series[new], window, value[new])
        slot.count[places] += 1
        if self._sums:
            slot.sum[places] += value
        if self._mins:
            slot.min[places] = np.minimum(slot.min[places], value)
        if self._maxs:
            slot.max[places] = np.maximum(slot.max[places], value)
        slot.last[places] = value
        state.newest[places] = time
        state.newest_value[places] = value
        return True

    def add_rows(self, series: Ints, time: Ints, value: Floats, window: Ints) -> int:
        """Add readings that lie series by series, each in log order; a value of NaN is an invalid one.

        Returns how many repeat the reading before them.
        """
        state = self._state
        before_time, before_value = self._before(series, time, value)
        repeats = (time == before_time) & (value == before_value)
        repeated = int(repeats.sum())
        if repeated:
            keep = ~repeats
            series, time, value, window = series[keep], time[keep], value[keep], window[keep]
            if not len(series):
                return repeated
            before_time, before_value = self._before(series, time, value)
        backward = time <= before_time
        if backward.any():
            disordered = np.unique(series[backward])
            bad = np.isin(series, disordered)
            self._defer(series[bad], window[bad])
            np.maximum.at(state.newest, series[bad], time[bad])
            state.newest_value[disordered] = np.nan
            good = ~bad
            series, time, value, window = series[good], time[good], value[good], window[good]
            if not len(series):
                return repeated
            before_time, before_value = self._before(series, time, value)
        fresh = window > before_time // self._window_ns
        state.newest[series] = time
        state.newest_value[series] = value
        valid = ~np.isnan(value)
        if not valid.all():
            series, value, window, fresh = series[valid], value[valid], window[valid], fresh[valid]
            if not len(series):
                return repeated
        self._add_groups(series, value, window, fresh)
        return repeated

    def _before(self, series: Ints, time: Ints, value: Floats) -> tuple[Ints, Floats]:
        """For each row time and value of the reading of its series before it."""
        first = np.concatenate(([True], series[1:] != series[:-1]))
        before_time = np.concatenate((time[:1], time[:-1]))
        before_value = np.concatenate((value[:1], value[:-1]))
        before_time[first] = self._state.newest[series[first]]
        before_value[first] = self._state.newest_value[series[first]]
        return before_time, before_value

    def _add_groups(self, series: Ints, value: Floats, window: Ints, fresh: Bools) -> None:
        """Add valid readings in order of (series, time) to the slots of their windows, or defer the windows.

        `fresh`: no reading of the series came in this window or behind it before the row. A window gets a slot
        at its first reading only, so that a slot never holds a part of its window.
        """
        slots = self._state.slots
        begins = np.concatenate(([True], (series[1:] != series[:-1]) | (window[1:] != window[:-1])))
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.concatenate((starts, [len(series)])))
        of_series, of_window, is_fresh = series[starts], window[starts], fresh[starts]
        first_group = np.flatnonzero(np.concatenate(([True], of_series[1:] != of_series[:-1])))
        rank = np.arange(len(starts)) - np.repeat(
            first_group, np.diff(np.concatenate((first_group, [len(starts)])))
        )
        slotted = np.zeros(len(starts), np.bool_)
        for turn in range(min(int(rank.max()) + 1, len(slots))):
            for number, slot in enumerate(slots):
                groups = np.flatnonzero((rank == turn) & (of_window % len(slots) == number))
                if not len(groups):
                    continue
                held = slot.window[of_series[groups]]
                slotted[groups] = held == of_window[groups]
                opening = groups[(held == NEVER) & is_fresh[groups]]
                if len(opening):
                    slot.open(of_series[opening], of_window[opening], value[starts[opening]])
                    slotted[opening] = True
        if not slotted.all():
            self._state.deferred.add(of_series[~slotted], of_window[~slotted])
        rows = np.repeat(slotted, lengths)
        for number, slot in enumerate(slots):
            chosen = np.flatnonzero(rows & (window % len(slots) == number))
            if not len(chosen):
                continue
            places, values = series[chosen], value[chosen]
            np.add.at(slot.count, places, 1)
            if self._sums:
                np.add.at(slot.sum, places, values)
            if self._mins:
                np.minimum.at(slot.min, places, values)
            if self._maxs:
                np.maximum.at(slot.max, places, values)
            slot.last[places] = values

    def _defer(self, series: Ints, window: Ints) -> None:
        """Have these open windows computed from the log when they close."""
        slots = self._state.slots
        for number, slot in enumerate(slots):
            mine = window % len(slots) == number
            of_series, of_window = series[mine], window[mine]
            held = slot.window[of_series] == of_window
            slot.dirty[of_series[held]] = True
            self._state.deferred.add(of_series[~held], of_window[~held])
