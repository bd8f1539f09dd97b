"""The window step: a deterministic fold of stored frames into tumbling windows per series.

`WindowFold.step` is called once per stored frame in log order (readings, ticks, and the catalogue, which names the
devices) and sees nothing else: no wall clock, no randomness. What it gives is the same for every run over the same
log, and does not depend on how rows were cut into frames:

    instant     The frames between two moves of log time (the highest origin arrival and tick so far) form an
                instant. Rows of one instant are simultaneous: none of them can make another one late.
    watermark   By device, its newest time. When an instant ends, windows whose end + grace the watermark has
                reached are closed, for every series of the device, and emitted with revision 0.
    idle        When log time moves, devices that were silent for `idle` have all their open windows closed.
    late        A reading whose window is closed. With `revise` the window is computed again, when log time moves
                and at most once a second of log time, and emitted with the next revision if a value changed.

Values are those of `totals.fold`. Readings that come in order of time are added up as they come, value by value;
a window for which anything else happened is computed from the log when it is emitted (`history.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ringmain.flows.history import History
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX, accepted, column
from ringmain.flows.recent import Keys
from ringmain.flows.settings import Aggregate, Late, WindowSettings
from ringmain.flows.state import NEVER, PARKED, Slot, WindowState
from ringmain.flows.sweep import Sweep
from ringmain.flows.totals import LATE, Bools, Floats, Ids, Ints, Totals, window_schema
from ringmain.log.interface import Frame

REVISE_EVERY_NS = 1_000_000_000
"""Late windows are computed again at most once in this much log time."""
LATE_REASON = "the window of this time was closed"
GONE_REASON = "not computed: its readings may have been removed from the log"


@dataclass(slots=True)
class Counts:
    """What the step saw since it was made. Rows unless said otherwise."""

    rows: int = 0
    late: int = 0
    ahead: int = 0
    invalid: int = 0
    unusable: int = 0
    duplicates: int = 0
    """Repeats of a series' newest reading."""
    windows: int = 0
    """Windows emitted for the first time."""
    revisions: int = 0
    """Windows emitted again."""
    recomputed: int = 0
    """Windows computed from the log."""
    gone: int = 0
    """Windows that could not be: their readings may have been removed."""


@dataclass(slots=True)
class Outputs:
    """What one frame gives: rows of the window stream, in order of (start, series), and of its late stream."""

    windows: list[pa.RecordBatch] = field(default_factory=list)
    late: list[pa.RecordBatch] = field(default_factory=list)


class _Taken:
    """Windows that were closed in a step: with their totals, or to be computed from the log."""

    def __init__(self) -> None:
        self.series: list[Ints] = []
        self.window: list[Ints] = []
        self.totals: list[Totals] = []
        self.deferred_series: list[Ints] = []
        self.deferred_window: list[Ints] = []

    def take(self, slot: Slot, series: Ints) -> None:
        """Free the slot's windows of these series."""
        if not len(series):
            return
        dirty = slot.dirty[series]
        if dirty.any():
            self.defer(series[dirty], slot.window[series[dirty]])
            slot.window[series[dirty]] = NEVER
            series = series[~dirty]
        self.series.append(series)
        self.window.append(slot.window[series])
        self.totals.append(slot.totals(series))
        slot.window[series] = NEVER

    def defer(self, series: Ints, window: Ints) -> None:
        """Have these windows computed from the log."""
        if len(series):
            self.deferred_series.append(series)
            self.deferred_window.append(window)

    def deferred(self) -> Keys:
        """The windows to be computed."""
        none = np.empty(0, np.int64)
        return Keys(
            np.concatenate([none, *self.deferred_series]), np.concatenate([none, *self.deferred_window])
        )


class WindowFold:
    """The step with its settings and state."""

    def __init__(self, settings: WindowSettings, history: History, state: WindowState | None = None) -> None:
        self.settings = settings
        self.state = WindowState.new(settings) if state is None else state
        self.counts = Counts()
        self._history = history
        self._window_ns = settings.window_ns
        self._grace_ns = settings.grace_ns
        self._idle_ns = settings.idle_ns
        self._max_ahead_ns = settings.max_ahead_ns
        self._columns = settings.columns
        self._schema = window_schema(self._columns)
        self._sums = bool({Aggregate.SUM, Aggregate.MEAN} & set(self._columns))
        self._mins = Aggregate.MIN in self._columns
        self._maxs = Aggregate.MAX in self._columns
        self._sweep: Sweep | None = None
        self._idle_check_at = NEVER
        self._members: tuple[int, Ints, Ints] | None = None
        self._series_pinned = int((self.state.device >= 0).sum())

    def step(self, frame: Frame, *, emit: bool = True) -> Outputs:
        """Fold one frame. `emit=False` (its outputs are in the log already) only moves the state."""
        outputs = Outputs()
        with np.errstate(invalid="ignore", over="ignore"):
            if frame.stream == "catalogue":
                self.learn(frame.rows)
            elif frame.stream == "ticks":
                times = column(frame, "time", np.int64)
                if len(times):
                    self._advance(int(times.max()), outputs, emit)
            else:
                self._advance(frame.origin_arrival_ns, outputs, emit)
                self._take(frame, outputs, emit)
        self.state.position = frame.position
        return outputs

    # Devices

    def learn(self, entries: pa.RecordBatch) -> None:
        """Take over which device the catalogue names for a series, for when the series is first seen."""
        state = self.state
        ids = entries.column("id").to_numpy()
        if not len(ids):
            return
        usable = ids < SERIES_MAX
        names = entries.column("device").dictionary_encode()
        numbers = np.array(
            [self._named_device(name) for name in names.dictionary.to_pylist()] or [-1], np.int32
        )
        codes = names.indices.fill_null(0).to_numpy()
        devices = np.where(names.indices.is_valid().to_numpy(zero_copy_only=False), numbers[codes], -1)
        size = int(ids[usable].max(initial=0)) + 1
        if size > len(state.announced):
            larger = np.full(max(size, 2 * len(state.announced)), -1, np.int32)
            larger[: len(state.announced)] = state.announced
            state.announced = larger
        state.announced[ids[usable]] = devices[usable]

    def _named_device(self, name: str | None) -> int:
        if not name:
            return -1
        number = self.state.device_names.get(name)
        if number is None:
            number = self.state.device_names[name] = self.state.devices
            self.state.devices += 1
        return number

    def _pin(self, series: Ids) -> None:
        """Give new series their device, for good: as the catalogue names it now, else one of their own."""
        state = self.state
        state.reserve_series(int(series.max()) + 1)
        new = np.unique(series[state.device[series] < 0])
        if not len(new):
            return
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
        state.closed[new[started]] = (closes_at[started] - self._grace_ns) // self._window_ns - 1
        self._series_pinned += len(new)

    def _series_of(self, devices: Ints) -> Ints:
        """All series of the devices."""
        state = self.state
        if self._members is None or self._members[0] != self._series_pinned:
            pinned = np.flatnonzero(state.device >= 0)
            order = np.argsort(state.device[pinned], kind="stable")
            starts = np.searchsorted(state.device[pinned][order], np.arange(state.devices + 1))
            self._members = (self._series_pinned, pinned[order], starts)
        _, series, starts = self._members
        begin, end = starts[devices], starts[devices + 1]
        counts = end - begin
        total = int(counts.sum())
        if not total:
            return np.empty(0, np.int64)
        offsets = np.repeat(begin - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        found: Ints = series[offsets + np.arange(total)]
        return found

    # Readings

    def _take(self, frame: Frame, outputs: Outputs, emit: bool) -> None:
        """Add a frame's readings to their windows and watermarks."""
        state, counts = self.state, self.counts
        series, time, value, valid, rejected = accepted(frame, self._max_ahead_ns)
        counts.rows += frame.row_count
        counts.ahead += rejected.ahead
        counts.unusable += rejected.unusable
        if not len(series):
            return
        if self._sweep is None or not self._sweep.matches(series):
            self._pin(series)
            self._sweep = Sweep(series, state.device)
        sweep = self._sweep
        if valid is not None:
            counts.invalid += len(valid) - int(valid.sum())
        if valid is not None or not sweep.unique or not self._add_sweep(sweep, time, value):
            self._add_rows(frame, sweep, series, time, value, valid, outputs, emit)
        self._history.add(series, time, value, valid)
        devices = sweep.devices
        newest = np.maximum(sweep.newest_by_device(time), state.watermark[devices])
        state.watermark[devices] = newest
        state.seen[devices] = state.now
        due = newest >= state.closes_at[devices]
        if due.any():
            state.due.append(sweep.device_numbers(due))

    def _add_sweep(self, sweep: Sweep, time: Ints, value: Floats) -> bool:
        """Add one valid reading a series, all in one window and newer than before; False if it is not so."""
        state, places = self.state, sweep.places
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
            opened = sweep.series[new].astype(np.int64)
            slot.open(opened, window, value[new])
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

    def _add_rows(
        self,
        frame: Frame,
        sweep: Sweep,
        ids: Ids,
        time: Ints,
        value: Floats,
        valid: Bools | None,
        outputs: Outputs,
        emit: bool,
    ) -> None:
        """Add readings of any kind."""
        state = self.state
        series = ids.astype(np.int64)
        window = time // self._window_ns
        late = window < state.closed[series]
        if late.any():
            self._take_late(frame, series[late], time[late], window[late], outputs, emit)
            ontime = ~late
            series, time, value, window = series[ontime], time[ontime], value[ontime], window[ontime]
            valid = None if valid is None else valid[ontime]
            if not len(series):
                return
        if not sweep.unique:
            order = np.argsort(series, kind="stable")
            series, time, value, window = series[order], time[order], value[order], window[order]
            valid = None if valid is None else valid[order]
        if valid is None:
            valid = np.ones(len(series), np.bool_)
        self._add_ordered(series, time, np.where(valid, value, np.nan), window)

    def _add_ordered(self, series: Ints, time: Ints, value: Floats, window: Ints) -> None:
        """Add readings that lie series by series, each in log order; a value of NaN is an invalid one."""
        state = self.state
        before_time, before_value = self._before(series, time, value)
        repeats = (time == before_time) & (value == before_value)
        if repeats.any():
            self.counts.duplicates += int(repeats.sum())
            keep = ~repeats
            series, time, value, window = series[keep], time[keep], value[keep], window[keep]
            if not len(series):
                return
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
                return
            before_time, before_value = self._before(series, time, value)
        fresh = window > before_time // self._window_ns
        state.newest[series] = time
        state.newest_value[series] = value
        valid = ~np.isnan(value)
        if not valid.all():
            series, value, window, fresh = series[valid], value[valid], window[valid], fresh[valid]
            if not len(series):
                return
        self._add_groups(series, value, window, fresh)

    def _before(self, series: Ints, time: Ints, value: Floats) -> tuple[Ints, Floats]:
        """For each row time and value of the reading of its series before it."""
        first = np.concatenate(([True], series[1:] != series[:-1]))
        before_time = np.concatenate((time[:1], time[:-1]))
        before_value = np.concatenate((value[:1], value[:-1]))
        before_time[first] = self.state.newest[series[first]]
        before_value[first] = self.state.newest_value[series[first]]
        return before_time, before_value

    def _add_groups(self, series: Ints, value: Floats, window: Ints, fresh: Bools) -> None:
        """Add valid readings in order of (series, time) to the slots of their windows, or defer the windows.

        `fresh`: no reading of the series came in this window or behind it before the row. A window gets a slot
        at its first reading only, so that a slot never holds a part of its window.
        """
        slots = self.state.slots
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
            self.state.deferred.add(of_series[~slotted], of_window[~slotted])
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
        slots = self.state.slots
        for number, slot in enumerate(slots):
            mine = window % len(slots) == number
            of_series, of_window = series[mine], window[mine]
            held = slot.window[of_series] == of_window
            slot.dirty[of_series[held]] = True
            self.state.deferred.add(of_series[~held], of_window[~held])

    def _take_late(
        self, frame: Frame, series: Ints, time: Ints, window: Ints, outputs: Outputs, emit: bool
    ) -> None:
        """Do with late readings as configured."""
        self.counts.late += len(series)
        state = self.state
        raised = time > state.newest[series]
        if raised.any():
            state.newest_value[series[raised]] = np.nan
            np.maximum.at(state.newest, series[raised], time[raised])
        if self.settings.late is Late.REVISE:
            state.late.add(series, window)
        elif self.settings.late is Late.SIDE and emit:
            self._put_aside(frame, outputs)

    def _put_aside(self, frame: Frame, outputs: Outputs) -> None:
        """Copy a frame's late readings to the late stream as they came."""
        ids = column(frame, "series", np.uint32)
        time = column(frame, "time", np.int64)
        late = (time <= frame.origin_arrival_ns + self._max_ahead_ns) & (time >= EARLIEST_NS)
        late &= ids < len(self.state.closed)
        late[late] = time[late] // self._window_ns < self.state.closed[ids[late]]
        rows = frame.rows.filter(pa.array(late))
        count = rows.num_rows
        outputs.late.append(
            pa.RecordBatch.from_arrays(
                [
                    rows.column("series"),
                    rows.column("time"),
                    rows.column("value"),
                    rows.column("quality"),
                    pa.array(np.full(count, frame.origin_arrival_ns), LATE.field("arrived").type),
                    pa.array([LATE_REASON]).take(pa.array(np.zeros(count, np.int64))),
                ],
                schema=LATE,
            )
        )

    # Log time

    def _advance(self, now: int, outputs: Outputs, emit: bool) -> None:
        """Move log time to `now` if that is later: close, and emit what is to be emitted."""
        state = self.state
        if now <= state.now:
            return
        taken = _Taken()
        if state.due:
            self._close_due(taken)
        state.now = now
        if now >= self._idle_check_at:
            self._close_idle(taken)
        late_series, late_window = np.empty(0, np.int64), np.empty(0, np.int64)
        if len(state.late) and (state.revised_at == NEVER or now - state.revised_at >= REVISE_EVERY_NS):
            late_series, late_window = state.late.arrays()
            state.late.replace(late_series[:0], late_window[:0])
            state.revised_at = now
        if emit and (taken.series or taken.deferred_series or len(late_series)):
            self._emit(taken, Keys(late_series, late_window), outputs)

    def _close_due(self, taken: _Taken) -> None:
        """Close the windows that watermarks have passed."""
        state = self.state
        devices = np.unique(np.concatenate(state.due))
        state.due.clear()
        closed = (state.watermark[devices] - self._grace_ns) // self._window_ns
        state.closes_at[devices] = (closed + 1) * self._window_ns + self._grace_ns
        until = np.full(state.devices, NEVER, np.int64)
        until[devices] = closed
        series = self._series_of(devices)
        until_of_series = until[state.device[series]]
        state.closed[series] = np.maximum(state.closed[series], until_of_series)
        for slot in state.slots:
            held = slot.window[series]
            taken.take(slot, series[(held != NEVER) & (held < state.closed[series])])
        if len(state.deferred):
            of_series, window = state.deferred.arrays()
            shut = window < state.closed[of_series]
            taken.defer(of_series[shut], window[shut])
            state.deferred.replace(of_series[~shut], window[~shut])

    def _close_idle(self, taken: _Taken) -> None:
        """Close all open windows of devices that were silent for `idle`."""
        state = self.state
        seen = state.seen[: state.devices]
        idle = np.flatnonzero(seen <= state.now - self._idle_ns)
        if len(idle):
            state.seen[idle] = PARKED
            series = self._series_of(idle)
            newest = state.newest[series]
            behind = np.where(newest == NEVER, NEVER, newest // self._window_ns + 1)
            state.closed[series] = np.maximum(state.closed[series], behind)
            for slot in state.slots:
                taken.take(slot, series[slot.window[series] != NEVER])
            if len(state.deferred):
                of_series, window = state.deferred.arrays()
                is_idle = np.zeros(state.devices, np.bool_)
                is_idle[idle] = True
                silent = is_idle[state.device[of_series]]
                taken.defer(of_series[silent], window[silent])
                state.deferred.replace(of_series[~silent], window[~silent])
        oldest = int(seen.min(initial=PARKED))
        self._idle_check_at = state.now + self._idle_ns if oldest == PARKED else oldest + self._idle_ns

    # Output

    def _emit(self, taken: _Taken, late: Keys, outputs: Outputs) -> None:
        """Emit closed windows with revision 0, and late ones with the next revision where values changed."""
        counts, history = self.counts, self._history
        deferred = taken.deferred()
        wanted = Keys(
            np.concatenate((deferred.series, late.series)), np.concatenate((deferred.window, late.window))
        )
        parts_series, parts_window, parts_totals = taken.series, taken.window, taken.totals
        revisions = [np.zeros(len(series), np.int64) for series in parts_series]
        if len(wanted.series):
            counts.recomputed += len(wanted.series)
            totals, gone = history.totals(wanted, self.state.position)
            if gone.any():
                counts.gone += int(gone.sum())
                outputs.late.append(self._told_gone(wanted.take(gone)))
            revision = np.full(len(wanted.series), -1, np.int64)
            changed = (totals.count > 0) & ~gone
            if len(late.series):
                behind = len(deferred.series)
                before = history.emitted(late)
                revision[behind:] = before.revision
                values = totals.matrix(self._columns)[behind:]
                known = before.revision >= 0
                same = ((values == before.values) | (np.isnan(values) & np.isnan(before.values))).all(axis=1)
                changed[behind:] = ~gone[behind:] & np.where(known, ~same, totals.count[behind:] > 0)
            parts_series.append(wanted.series[changed])
            parts_window.append(wanted.window[changed])
            parts_totals.append(totals.take(changed))
            revisions.append(revision[changed] + 1)
        series, window = np.concatenate(parts_series), np.concatenate(parts_window)
        if not len(series):
            return
        order = np.lexsort((series, window))
        series, window = series[order], window[order]
        totals = Totals.concatenate(parts_totals).take(order)
        revision = np.concatenate(revisions)[order]
        first = int((revision == 0).sum())
        counts.windows += first
        counts.revisions += len(revision) - first
        values = totals.matrix(self._columns)
        outputs.windows.append(self._rows(series, window, totals, values, revision))
        history.add_emitted(series, window, revision, values)

    def _rows(
        self, series: Ints, window: Ints, totals: Totals, values: Floats, revision: Ints
    ) -> pa.RecordBatch:
        start = window * self._window_ns
        empty = totals.count == 0
        mask = empty if empty.any() else None
        arrays = [
            pa.array(series.astype(np.uint32)),
            pa.array(start, self._schema.field("start").type),
            pa.array(start + self._window_ns, self._schema.field("end").type),
        ]
        for place, aggregate in enumerate(self._columns):
            if aggregate is Aggregate.COUNT:
                arrays.append(pa.array(totals.count))
            else:
                arrays.append(pa.array(np.ascontiguousarray(values[:, place]), mask=mask))
        arrays.append(pa.array(revision.astype(np.uint32)))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _told_gone(self, keys: Keys) -> pa.RecordBatch:
        count = len(keys.series)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(keys.series.astype(np.uint32)),
                pa.array(keys.window * self._window_ns, LATE.field("time").type),
                pa.nulls(count, pa.float64()),
                pa.nulls(count, pa.uint16()),
                pa.array(np.full(count, self.state.now), LATE.field("arrived").type),
                pa.array([GONE_REASON]).take(pa.array(np.zeros(count, np.int64))),
            ],
            schema=LATE,
        )
