"""The window step: a deterministic fold of stored frames into tumbling windows per series.

`WindowFold` is given readings in log order (`take`) and the moves of log time (`advance`), and sees nothing else: no
wall clock, no randomness. What it gives is the same for every run over the same log, and does not depend on how rows
were cut into frames:

    instant     The frames between two moves of log time (the highest origin arrival and tick so far) form an
                instant. Rows of one instant are simultaneous: none of them can make another one late.
    watermark   By device, its newest time. When an instant ends, windows whose end + grace the watermark has
                reached are closed, for every series of the device, and emitted with revision 0.
    idle        When log time moves, devices that were silent for `idle` have all their open windows closed.
    late        A reading whose window is closed. With `revise` the window is computed again, when log time moves
                and at most once a second of log time, and emitted with the next revision if a value changed.

Values are those of `summing.fold`. Readings that come in order of time are added up as they come, value by value;
a window for which anything else happened is computed from the log when it is emitted (`history.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ringmain.flows.accumulation import Accumulation
from ringmain.flows.aggregates import Late
from ringmain.flows.block import Block, numbers
from ringmain.flows.devices import Devices
from ringmain.flows.emission import Closed, Counts, Emission, Outputs
from ringmain.flows.history import History
from ringmain.flows.hopping import HoppingEmission
from ringmain.flows.keys import Keys
from ringmain.flows.picture import Picture
from ringmain.flows.readings import VALID_MAX, Grades, accepted
from ringmain.flows.state import NEVER, PARKED, WindowState
from ringmain.flows.sweep import Known, Sweep
from ringmain.flows.totals import Bools, Floats, Ints
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Frame, Position

REVISE_EVERY_NS = 1_000_000_000
"""Late windows are computed again at most once in this much log time."""
LONG_AGO_NS = 60_000_000_000
OLDER_WAIT_NS = (1_000_000_000, 4_000_000_000)
"""Windows that ended longer ago are computed again in intervals that double from the first to the second as long as
more come all the time: a look into the log costs much the same for one and for thousands of them."""

_NONE: Ints = np.empty(0, np.int64)


class WindowFold:
    """The step with its settings and state."""

    def __init__(self, windowing: Windowing, history: History, state: WindowState | None = None) -> None:
        self.windowing = windowing
        self.state = WindowState.new(windowing) if state is None else state
        self.counts = Counts()
        self.devices = Devices(windowing, self.state)
        self._accumulation = Accumulation(windowing, self.state)
        self._emission = (
            Emission(windowing, history)
            if self.state.panes is None
            else HoppingEmission(windowing, history, self.state.panes)
        )
        self._history = history
        self._grid = windowing.grid
        self._grace_ns = windowing.grace_ns
        self._idle_ns = windowing.idle_ns
        self._max_ahead_ns = windowing.max_ahead_ns
        self._graded = windowing.graded
        self.told_late: Callable[[Ints], None] | None = None
        """Called with the series of late readings, each as often as it occurs."""
        self.open_picture: Picture | None = None
        """Told of a series before it is written to which of its windows are open."""
        self.values_picture: Picture | None = None
        """Told of a series before its values are written to."""
        self.devices_picture: Picture | None = None
        """Told of a device before it is written to."""
        self._sweeps: Known[Sweep] = Known()
        self._idle_check_at = NEVER

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say from now on of series and devices when they are about to be written to (`state.tables`)."""
        self.open_picture, self.values_picture = pictures.get("open"), pictures.get("values")
        self.devices_picture = pictures.get("devices")
        if self.state.panes is not None:
            self.state.panes.picture = pictures.get("panes")

    def take(self, block: Block, *, emit: bool = True) -> Outputs:
        """Readings of the present instant. Gives the late ones that are put aside."""
        outputs = Outputs()
        self._take(block, outputs, emit)
        return outputs

    def advance(self, now: int, until: Position | None, *, emit: bool = True) -> Outputs:
        """The instant has ended, log time is `now` (later than before): close, and emit what is to be emitted.

        `until`: the position of the last frame that was taken. `emit=False` (its outputs are in the log already) only
        moves the state.
        """
        outputs = Outputs()
        if now > self.state.now:
            self._advance(now, until, outputs, emit)
        return outputs

    def step(self, frame: Frame, *, emit: bool = True) -> Outputs:
        """Fold one stored frame of the input, of the catalogue, or of ticks."""
        with np.errstate(all="ignore"):
            return self._step(frame, emit)

    def _step(self, frame: Frame, emit: bool) -> Outputs:
        state = self.state
        state.lead_ns = max(state.lead_ns, frame.origin_arrival_ns - frame.arrival_ns)
        outputs = Outputs()
        if frame.stream == "catalogue":
            self.devices.learn(frame.rows)
        elif frame.stream == "ticks":
            times = numbers(frame.rows, "time", np.int64)
            if len(times):
                outputs = self.advance(int(times.max()), state.position, emit=emit)
        else:
            outputs = self.advance(frame.origin_arrival_ns, state.position, emit=emit)
            outputs.late += self.take(Block(frame.rows, frame.origin_arrival_ns), emit=emit).late
        state.position = frame.position
        return outputs

    # Readings

    def _take(self, block: Block, outputs: Outputs, emit: bool) -> None:
        """Add readings to their windows and watermarks."""
        state, counts = self.state, self.counts
        columns = block.columns
        count = len(columns.series)
        counts.rows += count
        if not count:
            return
        sweep = self._sweeps.find(columns.series)
        taking = accepted(
            columns, block.arrival_ns, self._max_ahead_ns, graded=self._graded, known=sweep is not None
        )
        series, time, value, grade = taking.series, taking.time, taking.value, taking.grade
        counts.ahead += taking.rejected.ahead
        counts.unusable += taking.rejected.unusable
        if not len(series):
            return
        if self.open_picture is not None:
            self.open_picture.before(series)
        if self.values_picture is not None:
            self.values_picture.before(series)
        bounds = taking.time_min, taking.time_max
        if sweep is None or len(series) < count:
            sweep = self._sweeps.find(series)
            if sweep is None:
                self.devices.pin(series)
                sweep = Sweep(series, state.device)
                self._sweeps.add(sweep)
        if sweep.order is not None:
            time, value = time[sweep.order], value[sweep.order]
            grade = None if grade is None else grade[sweep.order]
        if grade is not None:
            counts.invalid += int((grade > VALID_MAX).sum())
        late = None
        if grade is not None or not self._add_whole(sweep, time, value, bounds):
            late = self._add_rows(block, sweep.series, time, value, grade, outputs, emit)
        self._remember(sweep, time, value, grade, late, bounds)
        devices = sweep.devices
        if self.devices_picture is not None:
            self.devices_picture.before(devices)
        newest = np.maximum(sweep.newest_by_device(time, *bounds), state.watermark[devices])
        state.watermark[devices] = newest
        state.seen[devices] = state.now
        due = newest >= state.closes_at[devices]
        if due.any():
            state.due.append(sweep.device_numbers(due))

    def _remember(
        self,
        sweep: Sweep,
        time: Ints,
        value: Floats,
        grade: Grades | None,
        late: Bools | None,
        bounds: tuple[int, int],
    ) -> None:
        """Readings for windows that have to be computed from them: late ones apart, they may lie anywhere in time."""
        if late is None:
            self._history.add(sweep.ids, time, value, grade, *bounds, sweep.unique)
            return
        for rows, add in ((~late, self._history.add), (late, self._history.add_late)):
            times = time[rows]
            if len(times):
                grades = None if grade is None else grade[rows]
                low, high = int(times.min()), int(times.max())
                add(sweep.ids[rows], times, value[rows], grades, low, high, sweep.unique)

    def _add_whole(self, sweep: Sweep, time: Ints, value: Floats, bounds: tuple[int, int]) -> bool:
        """Add a frame as a whole if each series occurs once, repeats aside; False if that cannot be."""
        if sweep.unique:
            return self._accumulation.add_sweep(sweep, time, value, *bounds)
        series = sweep.series
        repeats = (series[1:] == series[:-1]) & (time[1:] == time[:-1]) & (value[1:] == value[:-1])
        count = int(repeats.sum())
        if len(series) - count != sweep.distinct:
            return False
        keep = np.concatenate(([True], ~repeats))
        once = Sweep(series[keep].astype(np.uint32), self.state.device)
        if not self._accumulation.add_sweep(once, time[keep], value[keep], *bounds):
            return False
        self.counts.duplicates += count
        return True

    def _add_rows(
        self,
        block: Block,
        series: Ints,
        time: Ints,
        value: Floats,
        grade: Grades | None,
        outputs: Outputs,
        emit: bool,
    ) -> Bools | None:
        """Add readings of any kind, in order of series and then of the log; which are late, None for none."""
        window = self._grid.of(time)
        late = window < self.state.closed[series]
        any_late = bool(late.any())
        if any_late:
            self._take_late(series[late], time[late], window[late])
            if self.windowing.late == Late.SIDE and emit:
                self._emission.put_aside(block.rows, block.arrival_ns, self.state, outputs)
            ontime = ~late
            series, time, value, window = series[ontime], time[ontime], value[ontime], window[ontime]
            grade = None if grade is None else grade[ontime]
            if not len(series):
                return late
        if grade is None:
            grade = np.zeros(len(series), np.uint8)
        value = np.where(grade <= VALID_MAX, value, np.nan)
        self.counts.duplicates += self._accumulation.add_rows(series, time, value, window, grade)
        return late if any_late else None

    def _take_late(self, series: Ints, time: Ints, window: Ints) -> None:
        """Do with late readings as configured."""
        self.counts.late += len(series)
        if self.told_late is not None:
            self.told_late(series)
        state = self.state
        raised = time > state.newest[series]
        if raised.any():
            state.newest_value[series[raised]] = np.nan
            np.maximum.at(state.newest, series[raised], time[raised])
        reach = self.windowing.reach
        if reach:
            behind = self._grid.of(time + self.windowing.hold_ns)
            self._accumulation.forget_held(
                series[(behind >= state.closed[series]) | (time >= state.held_time[series])]
            )
        if self.windowing.late == Late.REVISE:
            state.late.add(series, window)
            for further in range(1, reach + 1):
                reached = (window + further <= behind) & (window + further < state.closed[series])
                state.late.add(series[reached], window[reached] + further)

    # Log time

    def _advance(self, now: int, until: Position | None, outputs: Outputs, emit: bool) -> None:
        state = self.state
        taken = Closed()
        if state.due:
            self._close_due(taken)
        state.now = now
        if now >= self._idle_check_at:
            self._close_idle(taken)
        late_series, late_window = self._late_ones(now)
        if taken or len(late_series):
            late = Keys(late_series, late_window)
            self._emission.emit(taken, late, state, until, self.counts, outputs, silent=not emit)

    def _late_ones(self, now: int) -> tuple[Ints, Ints]:
        """The late windows whose turn it is."""
        state = self.state
        series, window = _NONE, _NONE
        if not len(state.late) and not len(state.waiting):
            return series, window
        if len(state.late) and (state.revised_at == NEVER or now - state.revised_at >= REVISE_EVERY_NS):
            state.revised_at = now
            series, window = state.late.arrays()
            old = self._ended(window) < now - LONG_AGO_NS
            state.waiting.add(series[old], window[old])
            state.late.replace(series[:0], window[:0])
            series, window = series[~old], window[~old]
        passed = OLDER_WAIT_NS[1] if state.older_revised_at == NEVER else now - state.older_revised_at
        if len(state.waiting) and passed >= state.older_wait_ns:
            first, last = OLDER_WAIT_NS
            wait_ns = state.older_wait_ns
            state.older_wait_ns = min(2 * wait_ns, last) if passed < 2 * wait_ns else first
            state.older_revised_at = now
            old_series, old_window = state.waiting.arrays()
            state.waiting.replace(series[:0], window[:0])
            series = np.concatenate((series, old_series))
            window = np.concatenate((window, old_window))
        return series, window

    def _ended(self, window: Ints) -> Ints:
        return self._grid.start(window + self.windowing.panes)

    def _close_due(self, taken: Closed) -> None:
        """Close the windows that watermarks have passed."""
        state = self.state
        is_due = np.zeros(state.devices, np.bool_)
        for some in state.due:
            is_due[some] = True
        state.due.clear()
        devices: Ints = np.flatnonzero(is_due)
        closed = self._grid.of(state.watermark[devices] - self._grace_ns)
        if self.devices_picture is not None:
            self.devices_picture.before(devices)
        state.closes_at[devices] = self._grid.start(closed + 1) + self._grace_ns
        until = np.full(state.devices, NEVER, np.int64)
        until[devices] = closed
        series = self.devices.series_of(devices)
        if self.open_picture is not None:
            self.open_picture.before(series)
        until_of_series = until[state.device[series]]
        state.closed[series] = np.maximum(state.closed[series], until_of_series)
        if state.panes is not None:
            taken.move(series, state.closed[series] - self.windowing.panes + 1)
        for slot in state.slots:
            held = slot.window[series]
            taken.take(self.windowing, slot, series[(held != NEVER) & (held < state.closed[series])])
        if len(state.deferred):
            of_series, window = state.deferred.arrays()
            shut = window < state.closed[of_series]
            taken.defer(of_series[shut], window[shut])
            state.deferred.replace(of_series[~shut], window[~shut])

    def _close_idle(self, taken: Closed) -> None:
        """Close all open windows of devices that were silent for `idle`."""
        state = self.state
        seen = state.seen[: state.devices]
        idle = np.flatnonzero(seen <= state.now - self._idle_ns)
        if len(idle):
            if self.devices_picture is not None:
                self.devices_picture.before(idle)
            state.seen[idle] = PARKED
            series = self.devices.series_of(idle)
            if self.open_picture is not None:
                self.open_picture.before(series)
            known = series[state.newest[series] != NEVER]
            behind = self._grid.of(state.newest[known]) + 1
            state.closed[known] = np.maximum(state.closed[known], behind)
            if state.panes is not None:
                taken.move(known, behind)
            for slot in state.slots:
                taken.take(self.windowing, slot, series[slot.window[series] != NEVER])
            if len(state.deferred):
                of_series, window = state.deferred.arrays()
                is_idle = np.zeros(state.devices, np.bool_)
                is_idle[idle] = True
                silent = is_idle[state.device[of_series]]
                taken.defer(of_series[silent], window[silent])
                state.deferred.replace(of_series[~silent], window[~silent])
        oldest = int(seen.min(initial=PARKED))
        self._idle_check_at = state.now + self._idle_ns if oldest == PARKED else oldest + self._idle_ns
