"""What a step puts out: rows of windows and of the late stream, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import pyarrow as pa

from ringmain.flows.aggregates import Aggregate
from ringmain.flows.block import numbers
from ringmain.flows.history import History
from ringmain.flows.keys import Keys
from ringmain.flows.readings import EARLIEST_NS
from ringmain.flows.state import NEVER, Slot, WindowState
from ringmain.flows.totals import LATE, Bools, Floats, Ints, Totals, window_schema
from ringmain.flows.weighting import behind
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Position

LATE_REASON = "the window of this time was closed"
GONE_REASON = "not computed: its readings may have been removed from the log"


@dataclass(slots=True)
class Counts:
    """What the step saw since it handed its counts over. Rows unless said otherwise."""

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

    def move_to(self, count: Callable[[str, int], None]) -> None:
        """Hand over what was counted, by name, and begin anew; the rows that came are counted by the chain."""
        self.rows = 0
        if not any(_COUNTED(self)):
            return
        for name in self.__slots__:
            rows = getattr(self, name)
            if rows:
                count(name, rows)
                setattr(self, name, 0)


_COUNTED = attrgetter(*Counts.__slots__[1:])


@dataclass(slots=True)
class Outputs:
    """What one frame gives: rows of the window stream, in order of (start, series), and of its late stream."""

    windows: list[pa.RecordBatch] = field(default_factory=list)
    late: list[pa.RecordBatch] = field(default_factory=list)


class Closed:
    """Windows that were closed in a step: with their totals, or to be computed from the log."""

    def __init__(self) -> None:
        self.series: list[Ints] = []
        self.window: list[Ints] = []
        self.totals: list[Totals] = []
        self.deferred_series: list[Ints] = []
        self.deferred_window: list[Ints] = []
        self._moved: list[tuple[Ints, Ints]] = []

    def __bool__(self) -> bool:
        """Whether there is anything to put out."""
        return bool(self.series or self.deferred_series or self._moved)

    def move(self, series: Ints, target: Ints) -> None:
        """Windows of these series that begin before `target` (each its own) are due."""
        self._moved.append((series, target))

    def moved(self) -> tuple[Ints, Ints]:
        """The series whose windows became due, in order, each once, and up to where."""
        if not self._moved:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        series = np.concatenate([series for series, _ in self._moved])
        target = np.concatenate([target for _, target in self._moved])
        order = np.lexsort((target, series))
        last = np.ones(len(order), np.bool_)
        last[:-1] = series[order][1:] != series[order][:-1]
        return series[order][last], target[order][last]

    def take(self, windowing: Windowing, slot: Slot, series: Ints) -> None:
        """Free the slot's windows of these series."""
        if not len(series):
            return
        dirty = slot.dirty[series]
        if dirty.any():
            self.defer(series[dirty], slot.window[series[dirty]])
            slot.window[series[dirty]] = NEVER
            series = series[~dirty]
        window, totals = slot.window[series], slot.totals(series)
        if windowing.weighted:
            end = windowing.grid.start(window + 1)
            for name, weight in behind(windowing, slot.last_time[series], totals.last, end).items():
                totals.extra[name] += weight
        self.series.append(series)
        self.window.append(window)
        self.totals.append(totals)
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


@dataclass(frozen=True, slots=True)
class Formed:
    """Windows with what they add up to and the revision that they are put out as."""

    series: Ints
    window: Ints
    totals: Totals
    revision: Ints

    @staticmethod
    def together(parts: list[Formed]) -> Formed:
        """All of them."""
        return Formed(
            np.concatenate([part.series for part in parts]),
            np.concatenate([part.window for part in parts]),
            Totals.concatenate([part.totals for part in parts]),
            np.concatenate([part.revision for part in parts]),
        )


def _in_order(series: Ints, window: Ints) -> bool:
    """Whether they are in order of (window, series) already, as windows are that a fleet closes together."""
    return bool((window == window[0]).all() and (series[1:] > series[:-1]).all())


class Emission:
    """Makes output rows."""

    def __init__(self, windowing: Windowing, history: History) -> None:
        self._history = history
        self._windowing = windowing
        self._grid = windowing.grid
        self._max_ahead_ns = windowing.max_ahead_ns
        self._columns = windowing.columns
        self._schema = window_schema(self._columns)

    def emit(
        self,
        taken: Closed,
        late: Keys,
        state: WindowState,
        until: Position | None,
        counts: Counts,
        outputs: Outputs,
        *,
        silent: bool = False,
    ) -> None:
        """Emit closed windows with revision 0, and late ones with the next revision where values changed.

        What is computed from the log is computed from the input up to `until`. `silent`: the rows are in the log
        already, nothing but the state moves.
        """
        if silent:
            return
        deferred = taken.deferred()
        parts = [
            Formed(series, window, totals, np.zeros(len(series), np.int64))
            for series, window, totals in zip(taken.series, taken.window, taken.totals, strict=True)
        ]
        wanted = Keys(
            np.concatenate((deferred.series, late.series)), np.concatenate((deferred.window, late.window))
        )
        if len(wanted.series):
            counts.recomputed += len(wanted.series)
            first = len(deferred.series)
            totals, gone = self._history.totals(wanted, until, state.lead_ns)
            if gone[:first].any():
                self._tell_gone(deferred.take(gone[:first]), state, counts, outputs)
            revision = np.zeros(len(wanted.series), np.int64)
            changed = (totals.count > 0) & ~gone
            changed[first:], revision[first:] = self._changed(
                late, totals.take(np.arange(first, len(gone))), gone[first:], state, counts, outputs
            )
            parts.append(
                Formed(
                    wanted.series[changed], wanted.window[changed], totals.take(changed), revision[changed]
                )
            )
        self._put_out(parts, counts, outputs)

    def _changed(
        self, keys: Keys, totals: Totals, gone: Bools, state: WindowState, counts: Counts, outputs: Outputs
    ) -> tuple[Bools, Ints]:
        """Which of these windows, computed again, have other values than were emitted, and their next revision."""
        if not len(keys.series):
            return np.zeros(0, np.bool_), np.zeros(0, np.int64)
        before = self._history.emitted(keys, state.lead_ns)
        gone = gone | before.gone
        if gone.any():
            self._tell_gone(keys.take(gone), state, counts, outputs)
        values = self._values(keys.window, totals)
        same = ((values == before.values) | (np.isnan(values) & np.isnan(before.values))).all(axis=1)
        changed = ~gone & np.where(before.revision >= 0, ~same, totals.count > 0)
        return changed, before.revision + 1

    def _put_out(self, parts: list[Formed], counts: Counts, outputs: Outputs) -> None:
        """Make rows of windows, in order of (start, series)."""
        parts = [part for part in parts if len(part.series)]
        if not parts:
            return
        whole = parts[0] if len(parts) == 1 else Formed.together(parts)
        series, window, totals, revision = whole.series, whole.window, whole.totals, whole.revision
        if not _in_order(series, window):
            order = np.lexsort((series, window))
            series, window, totals, revision = (
                series[order],
                window[order],
                totals.take(order),
                revision[order],
            )
        first = int((revision == 0).sum())
        counts.windows += first
        counts.revisions += len(revision) - first
        values = self._values(window, totals)
        outputs.windows.append(self._rows(series, window, totals, values, revision))
        self._history.add_emitted(series, window, revision, values)

    def _values(self, window: Ints, totals: Totals) -> Floats:
        expected = None
        if Aggregate.COMPLETENESS in self._columns:
            lengths = self._grid.start(window + self._windowing.panes) - self._grid.start(window)
            expected = lengths / self._windowing.interval_ns
        return totals.matrix(self._columns, expected)

    def _rows(
        self, series: Ints, window: Ints, totals: Totals, values: Floats, revision: Ints
    ) -> pa.RecordBatch:
        start = self._grid.start(window)
        end = self._grid.start(window + self._windowing.panes)
        empty = totals.count == 0
        mask = empty if empty.any() else None
        arrays = [
            pa.array(series.astype(np.uint32)),
            pa.array(start, self._schema.field("start").type),
            pa.array(end, self._schema.field("end").type),
        ]
        for place, aggregate in enumerate(self._columns):
            if aggregate is Aggregate.COUNT:
                arrays.append(pa.array(totals.count))
            elif aggregate is Aggregate.STD:
                arrays.append(pa.array(np.ascontiguousarray(values[:, place]), mask=totals.count < 2))
            else:
                arrays.append(pa.array(np.ascontiguousarray(values[:, place]), mask=mask))
        arrays.append(pa.array(revision.astype(np.uint32)))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _tell_gone(self, keys: Keys, state: WindowState, counts: Counts, outputs: Outputs) -> None:
        """Say of which windows the readings are not all there any more."""
        count = len(keys.series)
        counts.gone += count
        told = pa.RecordBatch.from_arrays(
            [
                pa.array(keys.series.astype(np.uint32)),
                pa.array(self._grid.start(keys.window), LATE.field("time").type),
                pa.nulls(count, pa.float64()),
                pa.nulls(count, pa.uint16()),
                pa.array(np.full(count, state.now), LATE.field("arrived").type),
                pa.array([GONE_REASON]).take(pa.array(np.zeros(count, np.int64))),
            ],
            schema=LATE,
        )
        outputs.late.append(told)

    def put_aside(self, taken: pa.RecordBatch, arrival_ns: int, state: WindowState, outputs: Outputs) -> None:
        """Copy late readings to the late stream as they came."""
        ids = numbers(taken, "series", np.uint32)
        time = numbers(taken, "time", np.int64)
        late = (time <= arrival_ns + self._max_ahead_ns) & (time >= EARLIEST_NS)
        late &= ids < len(state.closed)
        late[late] = self._grid.of(time[late]) < state.closed[ids[late]]
        rows = taken.filter(pa.array(late))
        count = rows.num_rows
        outputs.late.append(
            pa.RecordBatch.from_arrays(
                [
                    rows.column("series"),
                    rows.column("time"),
                    rows.column("value"),
                    rows.column("quality"),
                    pa.array(np.full(count, arrival_ns), LATE.field("arrived").type),
                    pa.array([LATE_REASON]).take(pa.array(np.zeros(count, np.int64))),
                ],
                schema=LATE,
            )
        )
