"""What a step with hopping windows puts out: windows of several panes, beginning every so many of them.

The fold closes panes; here they become windows. A window is due when its last pane is closed, or when its device falls
silent (then every window that holds anything is, whatever its end). A window that is out already and gets another pane,
or a late reading, is computed again from the readings of all its panes, where the step revises.
"""

from __future__ import annotations

import numpy as np

from ringmain.flows.aggregates import Late
from ringmain.flows.emission import Closed, Counts, Emission, Formed, Outputs
from ringmain.flows.history import History
from ringmain.flows.keys import Keys
from ringmain.flows.panes import PaneRing, combined
from ringmain.flows.state import WindowState
from ringmain.flows.totals import Bools, Ints, Totals
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Position

_NONE = np.empty(0, np.int64)


class HoppingEmission(Emission):
    """Makes output rows of windows that hop."""

    def __init__(self, windowing: Windowing, history: History, ring: PaneRing) -> None:
        super().__init__(windowing, history)
        self._ring = ring
        self._panes = windowing.panes
        self._hop = windowing.hop
        self._revises = windowing.late is Late.REVISE

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
        ring = self._ring
        ring.reserve(state.series_size)
        new_series, new_pane, new_totals = self._closed_panes(taken, state, until, counts, outputs)
        if len(late.series):
            counts.recomputed += len(late.series)
            late_totals, gone = self._history.totals(late, until, state.lead_ns)
            order = np.lexsort((late.window, late.series))
            kept = order[~gone[order]]
            ring.put(late.series[kept], late.window[kept], late_totals.take(kept))
        touched = self._touched(late, new_series, new_pane)
        moved, target = taken.moved()
        due = self._due(moved, target, new_series, new_pane, new_totals)
        ring.put(new_series, new_pane, new_totals)
        ring.deal(moved, np.maximum(ring.dealt[moved], target))
        if silent:
            return
        parts = [due]
        if len(touched.series):
            parts.append(self._revised(touched, state, until, counts, outputs))
        self._put_out(parts, counts, outputs)

    def _closed_panes(
        self, taken: Closed, state: WindowState, until: Position | None, counts: Counts, outputs: Outputs
    ) -> tuple[Ints, Ints, Totals]:
        """The panes that were closed, in order of (series, number)."""
        deferred = taken.deferred()
        series, pane, totals = [*taken.series], [*taken.window], [*taken.totals]
        if len(deferred.series):
            counts.recomputed += len(deferred.series)
            found, gone = self._history.totals(deferred, until, state.lead_ns)
            if gone.any():
                self._tell_gone(deferred.take(gone), state, counts, outputs)
            kept = np.flatnonzero(~gone)
            series.append(deferred.series[kept])
            pane.append(deferred.window[kept])
            totals.append(found.take(kept))
        if not series:
            return _NONE, _NONE, Totals.empty(0, self._windowing.accumulators)
        of_series, number = np.concatenate(series), np.concatenate(pane)
        order = np.lexsort((number, of_series))
        return of_series[order], number[order], Totals.concatenate(totals).take(order)

    def _touched(self, late: Keys, new_series: Ints, new_pane: Ints) -> Keys:
        """Windows that are out already and that these panes belong to."""
        if not self._revises:
            return Keys(_NONE, _NONE)
        series = np.concatenate((late.series, new_series))
        pane = np.concatenate((late.window, new_pane))
        parts_series, parts_window = [_NONE], [_NONE]
        for back in range(self._panes):
            window = pane - back
            out = (window % self._hop == 0) & (window < self._ring.dealt[series])
            parts_series.append(series[out])
            parts_window.append(window[out])
        return _unique(np.concatenate(parts_series), np.concatenate(parts_window))

    def _due(
        self, series: Ints, target: Ints, new_series: Ints, new_pane: Ints, new_totals: Totals
    ) -> Formed:
        """The windows of these series that hold anything, begin before pane `target`, and are not out yet."""
        held_series, held_pane, held_totals = self._ring.held(series)
        of_series = np.concatenate((held_series, new_series))
        pane = np.concatenate((held_pane, new_pane))
        totals = Totals.concatenate([held_totals, new_totals])
        order = np.lexsort((pane, of_series))
        of_series, pane, totals = of_series[order], pane[order], totals.take(order)
        # windows whose newest pane that is not empty is this one
        begin = np.maximum(self._ring.dealt[of_series], pane - self._panes + 1)
        begin = -(-begin // self._hop) * self._hop
        end = np.minimum(target[np.searchsorted(series, of_series)], pane + 1)
        followed = np.flatnonzero(of_series[1:] == of_series[:-1])
        end[followed] = np.minimum(end[followed], pane[followed + 1] - self._panes + 1)
        count = np.maximum(-(-(end - begin) // self._hop), 0)
        newest = np.repeat(np.arange(len(pane)), count)
        rank = np.arange(len(newest)) - np.repeat(np.cumsum(count) - count, count)
        window = begin[newest] + rank * self._hop
        formed = combined(self._windowing, of_series, pane, totals, newest, window)
        valued = formed.count > 0
        return Formed(
            of_series[newest][valued],
            window[valued],
            formed.take(valued),
            np.zeros(int(valued.sum()), np.int64),
        )

    def _revised(
        self, touched: Keys, state: WindowState, until: Position | None, counts: Counts, outputs: Outputs
    ) -> Formed:
        """What of these windows changed, out of the readings of all their closed panes."""
        count = np.minimum(self._panes, state.closed[touched.series] - touched.window)
        owner = np.repeat(np.arange(len(count)), count)
        pane = touched.window[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        series = touched.series[owner]
        order = np.lexsort((pane, series))
        fresh = np.ones(len(order), np.bool_)
        fresh[1:] = (series[order][1:] != series[order][:-1]) | (pane[order][1:] != pane[order][:-1])
        place = np.empty(len(order), np.int64)
        place[order] = np.cumsum(fresh) - 1
        keys = Keys(series[order][fresh], pane[order][fresh])
        panes, pane_gone = self._history.totals(keys, until, state.lead_ns)
        counts.recomputed += len(keys.series)
        newest = place[np.cumsum(count) - 1]
        formed = combined(self._windowing, keys.series, keys.window, panes, newest, touched.window)
        gone = np.zeros(len(count), np.bool_)
        np.logical_or.at(gone, owner, pane_gone[place])
        changed, revision = self._changed(touched, formed, gone, state, counts, outputs)
        return Formed(
            touched.series[changed], touched.window[changed], formed.take(changed), revision[changed]
        )


def _unique(series: Ints, window: Ints) -> Keys:
    order = np.lexsort((window, series))
    series, window = series[order], window[order]
    fresh: Bools = np.ones(len(order), np.bool_)
    fresh[1:] = (series[1:] != series[:-1]) | (window[1:] != window[:-1])
    return Keys(series[fresh], window[fresh])
