"""Where readings are missing: slots of time in which a series was expected to report and did not.

A slot of a series is one interval, aligned to the UTC epoch; a valid reading in it settles it. A missing slot becomes known
when a newer reading comes, or when log time is past its end by a grace, so that a series that is silent has its gaps as
well. Up to `slots_max` slots after a reading are told; after that a series counts as gone until it reports again.

This keeps the books. What stands in for a missing reading is left to `substitutes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ringmain.flows.block import Bools, Floats, Ids, Ints
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering_rows import kept
from ringmain.flows.picture import Picture
from ringmain.flows.step import StepState

MISSING_ROWS_MAX = 1_000_000
"""Slots told at once; of more, those of gaps before readings are cut, and others wait for the next move of log time."""
_NAMES = ("interval", "slot", "time", "settled", "gap_from", "gap_to")
BY_SERIES = tuple(f"gaps_{name}" for name in (*_NAMES, "value"))
"""What of the state lies by series."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Slots without a reading: time and value of the reading before, and the row of the one after, -1 for none yet."""

    series: Ids
    slot: Ints
    time_before: Ints
    value_before: Floats
    after: Ints
    told: Bools
    """It was told before."""

    def __len__(self) -> int:
        return len(self.series)


class Gaps:
    """State by series: interval (ns, 0: none is expected), slot and time and value of the newest reading, the newest slot
    that is settled or told, and the last gap before the newest reading."""

    def __init__(self, grace_ns: int, fill_ns: int) -> None:
        self._grace_ns = grace_ns
        self._fill_ns = fill_ns
        none = np.empty(0, np.int64)
        self.interval: Ints = none
        self.slot: Ints = none
        self.time: Ints = none
        self.value: Floats = np.empty(0)
        self.settled: Ints = none
        self.gap_from: Ints = none
        self.gap_to: Ints = none
        self._replaced: Ints = none
        """Slots of last gaps that a reading came for: series * 2**32 + place in the gap."""
        self._due: dict[int, int] = {}
        """By interval: slots below are overdue."""
        self._behind = False
        self._intervals: list[int] = []
        self.picture: Picture | None = None
        """Told of a series before it is written to."""
        self.left_open = 0
        """Missing slots that were not told, as there are too many."""

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        have = len(self.interval)
        if size <= have:
            return
        size = max(size, min(2 * have, have + 262_144), 1024)
        for name in _NAMES:
            setattr(self, name, grown(getattr(self, name), size, 0 if name == "interval" else NEVER))
        self.value = grown(self.value, size, np.nan)

    def set_intervals(self, interval: Ints) -> None:
        """By series; a series whose interval is another than before begins anew."""
        self.reserve(len(interval))
        changed = np.flatnonzero(self.interval[: len(interval)] != interval)
        self._before(changed)
        self.interval[changed] = interval[changed]
        for name in ("slot", "time", "settled", "gap_from", "gap_to"):
            getattr(self, name)[changed] = NEVER
        self._intervals = [length for length in np.unique(self.interval).tolist() if length]

    def received(self, series: Ids, time: Ints, value: Floats) -> tuple[Missing, Ints, int]:
        """Valid readings in order of series and time, of series with an interval.

        Gives the slots that are missing before them, the rows whose slot was told and which stand elsewhere in it (so that
        what was told must be taken back), and how many slots were received.
        """
        interval = self.interval[series]
        slot = time // interval
        if self._in_step(series, time, slot):
            return self._none(), np.empty(0, np.int64), self._note(series, slot, time, value)
        known, settled = self.time[series], self.settled[series]
        newer = (known == NEVER) | (time > known)
        late = np.flatnonzero(~newer)
        back = self._late(series[late], slot[late])
        back = late[back]
        rows = np.flatnonzero(newer)
        if not len(rows):
            return self._none(), _aside(back, slot, interval, time), 0
        first = np.concatenate(([True], series[rows[1:]] != series[rows[:-1]]))
        slot_before = np.concatenate(([0], slot[rows[:-1]]))
        time_before = np.concatenate(([0], time[rows[:-1]]))
        value_before = np.concatenate(([0.0], value[rows[:-1]]))
        begin = rows[first]
        slot_before[first] = self.slot[series[begin]]
        time_before[first] = self.time[series[begin]]
        value_before[first] = self.value[series[begin]]
        begins = slot_before == NEVER
        fresh = begins | (slot[rows] != slot_before)
        told = fresh & ~begins & (slot[rows] <= settled[rows])
        back = np.concatenate((back, rows[told]))
        absent = np.where(begins | ~fresh, 0, slot[rows] - slot_before - 1)
        between = np.minimum(absent, self._fill_ns // interval[rows])
        between = np.minimum(between, max(MISSING_ROWS_MAX // max(int((between > 0).sum()), 1), 1))
        self.left_open += int((absent - between).sum())
        gaps = np.flatnonzero(between > 0)
        self._close(series[rows[gaps]], slot_before[gaps] + 1, slot_before[gaps] + between[gaps])
        counts = between[gaps]
        missing_slot = np.repeat(slot_before[gaps] + 1, counts) + _numbered(counts)
        of = np.repeat(gaps, counts)
        missing = Missing(
            series[rows[of]],
            missing_slot,
            time_before[of],
            value_before[of],
            rows[of],
            missing_slot <= settled[rows[of]],
        )
        last = rows[np.concatenate((series[rows[1:]] != series[rows[:-1]], [True]))]
        self._note(series[last], slot[last], time[last], value[last])
        return missing, _aside(back, slot, interval, time), int(fresh.sum())

    def _in_step(self, series: Ids, time: Ints, slot: Ints) -> bool:
        """Whether each series occurs once, with a reading in the slot after the last one, of which nothing was told."""
        if len(series) > 1 and not (series[1:] > series[:-1]).all():
            return False
        before = self.slot[series]
        expected: bool = ((slot == before + 1) & (self.settled[series] == before)).all()
        return bool(expected)

    def _note(self, series: Ids, slot: Ints, time: Ints, value: Floats) -> int:
        """The newest readings of their series, each once; how many."""
        self._before(series)
        self.slot[series], self.time[series], self.value[series] = slot, time, value
        self.settled[series] = np.maximum(self.settled[series], slot)
        return len(series)

    def _late(self, series: Ids, slot: Ints) -> Ints:
        """Which late readings are the first in a slot of their series' last gap."""
        inside = np.flatnonzero((slot >= self.gap_from[series]) & (slot <= self.gap_to[series]))
        if not len(inside):
            return inside
        ids = series[inside].astype(np.int64)
        keys = (ids << 32) + (slot[inside] - self.gap_from[ids])
        fresh = ~np.isin(keys, self._replaced)
        keys, places = np.unique(keys[fresh], return_index=True)
        self._replaced = np.concatenate((self._replaced, keys))
        found: Ints = inside[fresh][places]
        return found

    def _close(self, series: Ids, first: Ints, last: Ints) -> None:
        """Gaps that have ended; of several of a series the last one is kept."""
        if not len(series):
            return
        self._before(series)
        self.gap_from[series], self.gap_to[series] = first, last
        if len(self._replaced):
            self._replaced = self._replaced[~np.isin(self._replaced >> 32, series.astype(np.int64))]

    def standing(self, series: Ids, slot: Ints) -> Missing:
        """Of these slots those that were told and not settled since; as missing ones that were not told."""
        newest = self.slot[series]
        open_ = (newest != NEVER) & (slot > newest) & (slot <= self.settled[series])
        ended = (slot >= self.gap_from[series]) & (slot <= self.gap_to[series])
        if ended.any():
            numbers = series.astype(np.int64)
            ended &= ~np.isin((numbers << 32) + (slot - self.gap_from[series]), self._replaced)
        rows = np.flatnonzero(open_ | ended)
        ids = series[rows]
        value = np.where(open_[rows], self.value[ids], np.nan)
        return Missing(
            ids, slot[rows], self.time[ids], value, np.full(len(rows), -1), np.zeros(len(rows), np.bool_)
        )

    def overdue(self, now_ns: int, touched: Ids) -> Missing:
        """Slots whose reading should have come by now; `touched`: series that reported just now."""
        moved = self._behind
        for length in self._intervals:
            due = (now_ns - self._grace_ns) // length
            moved |= due != self._due.get(length)
            self._due[length] = due
        candidates: Ints = (
            np.flatnonzero((self.interval > 0) & (self.slot != NEVER)) if moved else np.unique(touched)
        ).astype(np.int64)
        if not len(candidates):
            return self._none()
        interval = self.interval[candidates]
        until = np.minimum(
            (now_ns - self._grace_ns) // interval - 1,
            self.slot[candidates] + self._fill_ns // interval,
        )
        counts = np.maximum(until - self.settled[candidates], 0)
        if not counts.any():
            self._behind = False
            return self._none()
        total = np.cumsum(counts)
        self._behind = bool(total[-1] > MISSING_ROWS_MAX)
        if self._behind:
            counts[1:][total[1:] > MISSING_ROWS_MAX] = 0
        self._before(candidates[counts > 0])
        of = np.repeat(candidates, counts)
        slot = np.repeat(self.settled[candidates] + 1, counts) + _numbered(counts)
        self.settled[candidates] += counts
        ids: Ids = of.astype(np.uint32)
        return Missing(
            ids, slot, self.time[of], self.value[of], np.full(len(of), -1), np.zeros(len(of), np.bool_)
        )

    def _none(self) -> Missing:
        none = np.empty(0, np.int64)
        return Missing(np.empty(0, np.uint32), none, none, np.empty(0), none, np.empty(0, np.bool_))

    def _before(self, series: Ints | Ids) -> None:
        if self.picture is not None:
            self.picture.before(series)

    def state(self) -> StepState:
        """Everything remembered."""
        due = [part for pair in sorted(self._due.items()) for part in pair]
        return {
            **{f"gaps_{name}": getattr(self, name) for name in _NAMES},
            "gaps_value": self.value,
            "gaps_replaced": self._replaced,
            "gaps_due": np.array([int(self._behind), *due], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        for name in _NAMES:
            setattr(self, name, kept(state, f"gaps_{name}", np.int64))
        self.value = kept(state, "gaps_value", np.float64)
        self._intervals = [length for length in np.unique(self.interval).tolist() if length]
        self._replaced = kept(state, "gaps_replaced", np.int64)
        behind, *due = kept(state, "gaps_due", np.int64).tolist()
        self._behind = bool(behind)
        self._due = dict(zip(due[::2], due[1::2], strict=True))


def _aside(rows: Ints, slot: Ints, interval: Ints, time: Ints) -> Ints:
    """Those of the rows that do not stand at the beginning of their slot, in order."""
    chosen: Ints = np.sort(rows[slot[rows] * interval[rows] != time[rows]])
    return chosen


def _numbered(counts: Ints) -> Ints:
    """0, 1, 2 ... within each group of so many."""
    numbers: Ints = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers
