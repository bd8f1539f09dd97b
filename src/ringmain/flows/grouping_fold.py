"""Windows of series, closed group by group.

The fold is that of `window.py`: series add up their own windows, a device's watermark closes them, silence closes them
too. What a closed window adds up to is held until its group has passed it:

    waits       A group's window is emitted when every device of the group that is waited for has passed it. A device is
                waited for while it was heard of within `idle` and its newest time is not more than `idle` behind the
                median of all devices heard of: a dead meter, a slow clock or a site that sends three days of backlog
                stalls nothing, and neither does one fast clock make the others late.
    behind      What a series adds up to in a window that its group has emitted, because its device was not waited for:
                the group's window is computed again, as for late readings.
    when        All this is looked at once in a second of log time, whatever arrives in between: what a device's message
                costs does not depend on how many devices there are.
    side, drop  Where nothing is computed again, a group that emits a window closes what is still open of its other
                series, so that all that has come is in it; what comes for it later is late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ringmain.flows.aggregates import Late
from ringmain.flows.emission import Closed
from ringmain.flows.grouping_devices import CellDevices
from ringmain.flows.grouping_held import NOTHING, Contributions, GroupState
from ringmain.flows.grouping_members import ALWAYS, Members
from ringmain.flows.history import History
from ringmain.flows.recent import Keys
from ringmain.flows.state import NEVER, PARKED, grown
from ringmain.flows.totals import Bools, Ints, Totals
from ringmain.flows.window import WindowFold
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Position

EVALUATE_EVERY_NS = 1_000_000_000
"""Which windows groups have passed is looked at, and what is late computed again, at most once in this much log time."""
_NONE = Keys(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(slots=True)
class Passed:
    """What follows from an instant: groups' windows that are complete, and what came for windows emitted before."""

    ready: Contributions
    behind: Keys
    """Cells and windows."""
    behind_rows: Ints
    """How many valid readings are behind, by key."""
    gone: Keys
    """Cells and windows that cannot be computed any more."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return len(self.ready) + len(self.behind.series) + len(self.gone.series) > 0


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Devices by the groups that they have series in: those of `group[i]` begin at `starts[i]`."""

    mark: tuple[int, int, int]
    """What they follow from."""
    device: Ints
    starts: Ints
    group: Ints


class GroupFold(WindowFold):
    """See the module. Cells (`Members`) stand for series."""

    def __init__(self, windowing: Windowing, history: History, members: Members) -> None:
        super().__init__(windowing, history)
        self.members = members
        self.groups = GroupState()
        if not members.cells.alike:
            self.devices = CellDevices(windowing, self.state, members.cells)
        self._pairs: _Pairs | None = None

    def pass_instant(self, now: int, until: Position | None) -> Passed | None:
        """The instant has ended, log time is `now`: what follows from it; None: nothing.

        `until`: the position of the last frame that was taken.
        """
        state, groups = self.state, self.groups
        if now <= state.now:
            return None
        taken = Closed()
        if state.due:
            self._close_due(taken)
        state.now = now
        if now >= self._idle_check_at:
            self._close_idle(taken)
        self._follow()
        evaluate = groups.front_at == NEVER or now - groups.front_at >= EVALUATE_EVERY_NS
        if not evaluate and not taken.series and not taken.deferred_series:
            return None
        before = groups.closed
        gone: list[Keys] = []
        came = self._contributions(taken, until, gone)
        groups.add(came.since(before))
        ready, again = NOTHING, NOTHING
        if evaluate:
            groups.front_at = now
            again = self._computed(self._late(), until, gone)
            groups.add(again.since(before))
            if not self._nothing_passes(before):
                groups.closed = self._bounds(before)
            closing = groups.closed > before
            if closing.any() and self.windowing.late is not Late.REVISE:
                taken = Closed()
                self._close_members(closing, taken)
                rest = self._contributions(taken, until, gone)
                groups.add(rest.since(before))
                came = Contributions.together([came, rest])
            if closing.any():
                ready = self._ready()
        behind = came.before(before)
        lost = _NONE
        if gone:
            lost = Keys(
                np.concatenate([keys.series for keys in gone]), np.concatenate([keys.window for keys in gone])
            )
        if self.windowing.late is not Late.REVISE:
            return Passed(ready, Keys(behind.cell, behind.window), behind.totals.count, lost)
        changed = again.before(before)
        groups.behind.add(behind.cell, behind.window)
        groups.behind.add(changed.cell, changed.window)
        keys = _NONE
        if evaluate and len(groups.behind):
            keys = Keys(*groups.behind.arrays())
            groups.behind.replace(*_arrays(_NONE))
        return Passed(ready, keys, np.zeros(len(keys.series), np.int64), lost)

    def _late(self) -> Keys:
        """Closed windows of series that readings came for."""
        if not len(self.state.late):
            return _NONE
        series, window = self.state.late.arrays()
        self.state.late.replace(*_arrays(_NONE))
        return Keys(series, window)

    def _follow(self) -> None:
        """Cells that are new have a group, cells of which the catalogue says something else another one."""
        state, members, groups = self.state, self.members, self.groups
        members.follow(state.device, self.devices._pinned, lambda cells: self._grid.of(state.newest[cells]))
        if members.groups.count > len(groups.closed):
            size = max(members.groups.count, min(2 * len(groups.closed), len(groups.closed) + 65536), 64)
            groups.closed = grown(groups.closed, size, NEVER)
            groups.top = grown(groups.top, size, NEVER)

    # What series add up to

    def _contributions(self, taken: Closed, until: Position | None, gone: list[Keys]) -> Contributions:
        """Closed windows of series, with a count above 0."""
        parts = [
            self._grouped(series, window, totals)
            for series, window, totals in zip(taken.series, taken.window, taken.totals, strict=True)
        ]
        if taken.deferred_series:
            parts.append(self._computed(taken.deferred(), until, gone))
        if not parts:
            return NOTHING
        whole = Contributions.together(parts)
        some = whole.totals.count > 0
        return whole if some.all() else whole.take(some)

    def _computed(self, keys: Keys, until: Position | None, gone: list[Keys]) -> Contributions:
        """Windows of series as the log has them; their count may be 0."""
        if not len(keys.series):
            return NOTHING
        self.counts.recomputed += len(keys.series)
        totals, lost = self._history.totals(keys, until, self.state.lead_ns)
        if lost.any():
            gone.append(keys.take(lost))
            keys, totals = keys.take(~lost), totals.take(~lost)
        return self._grouped(keys.series, keys.window, totals)

    def _grouped(self, cells: Ints, windows: Ints, totals: Totals) -> Contributions:
        return Contributions(cells, windows, self.members.group_of(cells, windows), totals)

    def _close_members(self, closing: Bools, taken: Closed) -> None:
        """Close what cells of these groups have open in windows that their group has passed."""
        state, closed = self.state, self.groups.closed
        spans = self.members.spans(closed, closing)
        before = np.minimum(closed[spans.group], spans.to)
        open_ = before > state.closed[spans.cell]
        cells = spans.cell[open_]
        if not len(cells):
            return
        if self.open_picture is not None:
            self.open_picture.before(cells)
        np.maximum.at(state.closed, cells, before[open_])
        cells = np.unique(cells)
        for slot in state.slots:
            held = slot.window[cells]
            taken.take(self.windowing, slot, cells[(held != NEVER) & (held < state.closed[cells])])
        if len(state.deferred):
            of_cell, window = state.deferred.arrays()
            shut = window < state.closed[of_cell]
            taken.defer(of_cell[shut], window[shut])
            state.deferred.replace(of_cell[~shut], window[~shut])

    # What groups have passed

    def _nothing_passes(self, before: Ints) -> bool:
        """Whether it is plain that no group has passed more than `before` (by group), as at most times it is.

        No group has passed what its fastest device has not; and one that no device is waited for has passed all it holds.
        """
        heard = self.state.watermark[: self.state.devices]
        newest = int(heard.max(initial=NEVER))
        if newest < NEVER + self._grace_ns:
            return False
        top = self.groups.top[: len(before)]
        if ((top >= before) & (top != NEVER)).any():
            return False
        passed = before[self._device_groups().group]
        return bool((passed >= self._grid.at(newest - self._grace_ns)).all())

    def _find_front(self) -> int:
        """The (lower) median of the newest times of the devices heard of."""
        heard = self.state.watermark[: self.state.devices]
        silent = self.state.seen[: self.state.devices] == PARKED
        if silent.any():
            heard = heard[~silent]
        middle = (len(heard) - 1) // 2
        return int(np.partition(heard, middle)[middle]) if len(heard) else NEVER

    def _bounds(self, before: Ints) -> Ints:
        """By group: windows below are passed."""
        state = self.state
        self.groups.front = self._find_front()
        pairs = self._device_groups()
        seen, watermark = state.seen[: state.devices], state.watermark[: state.devices]
        least = max(self.groups.front, NEVER + self._idle_ns) - self._idle_ns
        waited = (seen != PARKED) & (watermark >= least)
        bounds = before.copy()
        alone = np.ones(len(before), np.bool_)
        if len(pairs.group):
            newest = np.where(waited, watermark, ALWAYS)[pairs.device]
            slowest: Ints = np.minimum.reduceat(newest, pairs.starts)
            some = slowest != ALWAYS
            groups, slowest = (pairs.group, slowest) if some.all() else (pairs.group[some], slowest[some])
            bounds[groups] = np.maximum(self._grid.of(slowest - self._grace_ns), before[groups])
            alone[groups] = False
        top = self.groups.top[: len(before)]
        alone &= top != NEVER
        if alone.any():
            bounds[alone] = np.maximum(top[alone] + 1, before[alone])
        return bounds

    def _device_groups(self) -> _Pairs:
        """Devices and the groups that they have series in, each pair once, in order of group."""
        members = self.members
        mark = members.version, self.devices._pinned, members.live(self.groups.closed)
        if self._pairs is None or self._pairs.mark != mark:
            spans = members.spans(self.groups.closed)
            packed = (spans.group << 32) | self.state.device[spans.cell]
            packed = np.unique(packed)
            group = packed >> 32
            starts = (
                np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1]))) if len(group) else group
            )
            self._pairs = _Pairs(mark, packed & 0xFFFFFFFF, starts, group[starts])
        return self._pairs

    def _ready(self) -> Contributions:
        """What is held for windows that their groups have passed now; it is held no longer."""
        closed, held = self.groups.closed, self.groups.held
        ready: list[Contributions] = []
        top = int(closed.max(initial=NEVER))
        for window in sorted(window for window in held if window < top):
            whole = Contributions.together(held[window])
            passed = window < closed[whole.group]
            if passed.all():
                del held[window]
            else:
                held[window] = [whole.take(~passed)]
                whole = whole.take(passed)
            ready.append(whole)
        if not ready:
            return NOTHING
        whole = Contributions.together(ready).newest()
        some = whole.totals.count > 0
        return whole if some.all() else whole.take(some)


def _arrays(keys: Keys) -> tuple[Ints, Ints]:
    return keys.series, keys.window
