"""Adding readings to the accumulators of open windows, value by value.

Every way of adding gives the same bits: frames in which each series occurs once are added as a whole, others row
by row in order of series and time. Whatever does not come in order of time is not added at all: its window is
marked to be computed from the log.
"""

from __future__ import annotations

import numpy as np

from ringmain.flows.aggregates import Accumulator, Aggregate
from ringmain.flows.compiled import compiled, worth
from ringmain.flows.readings import GOOD, VALID_MAX, Grades
from ringmain.flows.state import NEVER, UNKNOWN, Slot, WindowState
from ringmain.flows.sweep import Sweep
from ringmain.flows.totals import Bools, Floats, Ids, Ints
from ringmain.flows.weighting import Weights, between
from ringmain.flows.windowing import Windowing

_SUMS = frozenset({Aggregate.SUM, Aggregate.MEAN})
_MINS = frozenset({Aggregate.MIN, Aggregate.RANGE})
_MAXS = frozenset({Aggregate.MAX, Aggregate.RANGE})
_LASTS = frozenset({Aggregate.LAST, Aggregate.DELTA})


class Accumulation:
    """Adds to the slots of a state. Readings are on time: their windows are not closed."""

    def __init__(self, windowing: Windowing, state: WindowState) -> None:
        self._state = state
        self._windowing = windowing
        self._grid = windowing.grid
        columns = set(windowing.columns)
        several = windowing.panes > 1  # panes are put together by all they have
        self._sums = several or bool(_SUMS & columns)
        self._mins = several or bool(_MINS & columns)
        self._maxs = several or bool(_MAXS & columns)
        self._spread = Accumulator.SHIFTED in windowing.accumulators
        self._weighted = windowing.weighted
        self._lasts = several or self._weighted or bool(_LASTS & columns)
        self._loop = not self._spread and not self._weighted
        self._marks: Bools = np.zeros(0, np.bool_)

    def add_sweep(self, sweep: Sweep, time: Ints, value: Floats, time_min: int, time_max: int) -> bool:
        """Add one valid reading a series, all in one window and newer than before; False if it is not so."""
        state, places = self._state, sweep.places
        window = self._grid.at(time_min)
        start = self._grid.start_of(window)
        if time_max >= self._grid.start_of(window + 1):
            return False
        slot = state.slots[window % len(state.slots)]
        if self._loop and not isinstance(places, slice) and worth(len(time)):
            return self._add_scattered(sweep.ids, time, value, window, slot)
        newest = state.newest[places]
        if not (time > newest).all():
            return False
        before = None
        if self._weighted:
            before = state.held_time[places].copy()
            if (before == UNKNOWN).any():
                return False
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
        if isinstance(places, slice):  # views: the results need no array of their own
            lowest, highest = slot.min[places], slot.max[places]
            if self._mins:
                np.minimum(lowest, value, out=lowest)
            if self._maxs:
                np.maximum(highest, value, out=highest)
        else:
            if self._mins:
                slot.min[places] = np.minimum(slot.min[places], value)
            if self._maxs:
                slot.max[places] = np.maximum(slot.max[places], value)
        if self._lasts:
            slot.last[places] = value
        if self._spread:
            shifted = value - slot.first[places]
            slot.extra[Accumulator.SHIFTED][places] += shifted
            slot.extra[Accumulator.SQUARED][places] += shifted * shifted
        if before is not None:
            weights = between(self._windowing, before, state.held_value[places], time, value, start)
            for name, weight in weights.items():
                slot.extra[name][places] += weight
            slot.last_time[places] = time
            state.held_time[places] = time
            state.held_value[places] = value
        state.newest[places] = time
        state.newest_value[places] = value
        return True

    def _add_scattered(self, ids: Ids, time: Ints, value: Floats, window: int, slot: Slot) -> bool:
        """The same in one go: NumPy would gather from and scatter to each array."""
        state = self._state
        for column in (ids, time, value):  # the loop is compiled for one kind of array only
            column.flags.writeable = False
        done: bool = add_once(
            ids,
            time,
            value,
            window,
            self._grid.start_of(window),
            (self._sums, self._mins, self._maxs, self._lasts),
            (state.newest, state.closed, slot.window, slot.count),
            (state.newest_value, slot.sum, slot.min, slot.max, slot.first, slot.last),
            slot.dirty,
        )
        return done

    def add_rows(self, series: Ints, time: Ints, value: Floats, window: Ints, grade: Grades) -> int:
        """Add readings that lie series by series, each in log order; the value of an invalid one is NaN.

        Returns how many repeat the reading before them.
        """
        not_good = np.flatnonzero(grade != GOOD) if self._windowing.graded else np.empty(0, np.int64)
        marked = series[not_good], window[not_good]
        repeated = self._add_in_order(series, time, value, window, grade)
        if len(not_good):
            self._defer(*marked)
        return repeated

    def _add_in_order(self, series: Ints, time: Ints, value: Floats, window: Ints, grade: Grades) -> int:
        state = self._state
        before_time, before_value = self._before(series, time, value)
        repeats = (time == before_time) & (value == before_value)
        repeated = int(repeats.sum())
        if repeated:
            keep = ~repeats
            series, time, value = series[keep], time[keep], value[keep]
            window, grade = window[keep], grade[keep]
            before_time = before_time[keep]
        backward = time <= before_time
        if backward.any():
            marked = self._marked(series, backward)
            self._defer(series[marked], window[marked])
            np.maximum.at(state.newest, series[marked], time[marked])
            state.newest_value[series[marked]] = np.nan
            if self._weighted:
                self.forget_held(series[marked])
            keep = ~marked
            series, time, value = series[keep], time[keep], value[keep]
            window, grade = window[keep], grade[keep]
            before_time = before_time[keep]
        if not len(series):
            return repeated
        fresh = before_time < self._grid.start(window)
        state.newest[series] = time
        state.newest_value[series] = value
        valid = grade <= VALID_MAX
        if not valid.all():
            series, time, value = series[valid], time[valid], value[valid]
            window, fresh = window[valid], fresh[valid]
            if not len(series):
                return repeated
        self._add_groups(series, time, value, window, fresh)
        return repeated

    def forget_held(self, series: Ints) -> None:
        """The newest valid readings of these series, and what came before their open windows, are not known any more."""
        self._state.held_time[series] = UNKNOWN
        for slot in self._state.slots:
            open_ones = series[slot.window[series] != NEVER]
            slot.dirty[open_ones] = True

    def _marked(self, series: Ints, rows: Bools) -> Bools:
        """All rows of the series that occur in some rows."""
        if len(self._marks) < self._state.series_size:
            self._marks = np.zeros(self._state.series_size, np.bool_)
        self._marks[series[rows]] = True
        marked: Bools = self._marks[series]
        self._marks[series[rows]] = False
        return marked

    def _before(self, series: Ints, time: Ints, value: Floats) -> tuple[Ints, Floats]:
        """For each row time and value of the reading of its series before it."""
        first = np.concatenate(([True], series[1:] != series[:-1]))
        before_time = np.concatenate((time[:1], time[:-1]))
        before_value = np.concatenate((value[:1], value[:-1]))
        before_time[first] = self._state.newest[series[first]]
        before_value[first] = self._state.newest_value[series[first]]
        return before_time, before_value

    def _add_groups(self, series: Ints, time: Ints, value: Floats, window: Ints, fresh: Bools) -> None:
        """Add valid readings in order of (series, time) to the slots of their windows, or defer the windows.

        `fresh`: no reading of the series came in this window or behind it before the row. A window gets a slot
        at its first reading only, so that a slot never holds a part of its window.
        """
        slots = self._state.slots
        number = window % len(slots)
        same_series = series[1:] == series[:-1]
        starts: Ints | slice = slice(None)
        if same_series.any():
            begins = np.concatenate(([True], ~same_series | (window[1:] != window[:-1])))
            starts = np.flatnonzero(begins)
            group = np.cumsum(begins) - 1
            of_series = series[starts]
            first = np.flatnonzero(np.concatenate(([True], of_series[1:] != of_series[:-1])))
            rank = np.arange(len(starts)) - np.repeat(first, np.diff(np.concatenate((first, [len(starts)]))))
            slotted = self._claim(
                of_series, window[starts], number[starts], value[starts], fresh[starts], rank
            )
            rows = slotted[group]
        else:
            rows = slotted = self._claim(series, window, number, value, fresh, None)
        if not slotted.all():
            self._state.deferred.add(series[starts][~slotted], window[starts][~slotted])
        weights: Weights = {}
        before_time: Ints = np.empty(0, np.int64)
        if self._weighted:
            before_time, weights = self._weights(series, time, value, window, starts)
        for mine, slot in enumerate(slots):
            chosen = np.flatnonzero(rows & (number == mine))
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
            if self._lasts:
                slot.last[places] = values
            if self._spread:
                shifted = values - slot.first[places]
                np.add.at(slot.extra[Accumulator.SHIFTED], places, shifted)
                np.add.at(slot.extra[Accumulator.SQUARED], places, shifted * shifted)
            if self._weighted:
                self._add_weights(slot, chosen, series, time, before_time, weights)

    def _weights(
        self, series: Ints, time: Ints, value: Floats, window: Ints, starts: Ints | slice
    ) -> tuple[Ints, Weights]:
        """The time of the valid reading before each, UNKNOWN where it must be looked up, and what lies between."""
        state = self._state
        first = np.concatenate(([True], series[1:] != series[:-1]))
        before_time = np.concatenate((time[:1], time[:-1]))
        before_value = np.concatenate((value[:1], value[:-1]))
        before_time[first] = state.held_time[series[first]]
        before_value[first] = state.held_value[series[first]]
        state.held_time[series] = time
        state.held_value[series] = value
        weights = between(self._windowing, before_time, before_value, time, value, self._grid.start(window))
        return before_time, weights

    def _add_weights(
        self, slot: Slot, chosen: Ints, series: Ints, time: Ints, before_time: Ints, weights: Weights
    ) -> None:
        places = series[chosen]
        for name, weight in weights.items():
            np.add.at(slot.extra[name], places, weight[chosen])
        slot.last_time[places] = time[chosen]
        slot.dirty[places[before_time[chosen] == UNKNOWN]] = True

    def _claim(
        self, series: Ints, window: Ints, number: Ints, first: Floats, fresh: Bools, rank: Ints | None
    ) -> Bools:
        """Which of these windows have a slot (of this number); free slots are opened for those that may.

        `rank` counts the windows of a series from 0, in order; None: each series has one.
        """
        slots = self._state.slots
        slotted = np.zeros(len(series), np.bool_)
        for turn in range(1 if rank is None else min(int(rank.max()) + 1, len(slots))):
            for mine, slot in enumerate(slots):
                wanted = number == mine if rank is None else (number == mine) & (rank == turn)
                places = np.flatnonzero(wanted)
                if not len(places):
                    continue
                held = slot.window[series[places]]
                slotted[places] = held == window[places]
                opening = places[(held == NEVER) & fresh[places]]
                if len(opening):
                    slot.open(series[opening], window[opening], first[opening])
                    slotted[opening] = True
        return slotted

    def _defer(self, series: Ints, window: Ints) -> None:
        """Have these open windows computed from the log when they close."""
        slots = self._state.slots
        for number, slot in enumerate(slots):
            mine = window % len(slots) == number
            if not mine.any():
                continue
            of_series, of_window = series[mine], window[mine]
            held = slot.window[of_series] == of_window
            slot.dirty[of_series[held]] = True
            self._state.deferred.add(of_series[~held], of_window[~held])


@compiled
def add_once(
    ids: Ids,
    time: Ints,
    value: Floats,
    window: int,
    start: int,
    wanted: tuple[bool, bool, bool, bool],
    numbers: tuple[Ints, Ints, Ints, Ints],
    values: tuple[Floats, Floats, Floats, Floats, Floats, Floats],
    dirty: Bools,
) -> bool:
    """Add one reading a series to one window, which `start` is the start of; False, and nothing is done, if it must not be.

    `wanted`: sums, minima, maxima, last values.
    """
    newest, closed, held, count = numbers
    newest_value, sums, lowest, highest, first, last = values
    with_sum, with_min, with_max, with_last = wanted
    for row in range(len(ids)):
        place = ids[row]
        before = newest[place]
        if time[row] <= before:
            return False
        if held[place] != window and (held[place] != NEVER or before >= start or closed[place] > window):
            return False
    for row in range(len(ids)):
        place = ids[row]
        found = value[row]
        if held[place] != window:
            held[place] = window
            dirty[place] = False
            count[place] = 0
            sums[place] = 0.0
            lowest[place] = np.inf
            highest[place] = -np.inf
            first[place] = found
        count[place] += 1
        if with_sum:
            sums[place] += found
        if with_min and found < lowest[place]:
            lowest[place] = found
        if with_max and found > highest[place]:
            highest[place] = found
        if with_last:
            last[place] = found
        newest[place] = time[row]
        newest_value[place] = found
    return True
