"""The life of alerts, by series: pending, open, pending to close, flapping; and what happened, as columns.

    closed ──condition true──▶ pending ──held for `hold`──▶ open ──condition false for `clear`──▶ closed

A condition is taken to last from the reading that made it true to the one that makes it false: `hold` has passed when a
reading of the series comes that is newer by it, whatever it says, or when the log's time has moved on by it (an alert
opens though its meter has sent no more). Either way the alert opens at the time `since + hold`, so a recorded or a
delayed stream gives the alerts that a live one gave.

An alert that changed more than `flap` times within `flap_within` stays open, with a note, until its condition has been
false for that long.

Times are those of readings, or of the log where silence is among the conditions. `clock` is the log's time as far as
it passed while somebody looked: see `steps/alert.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.alerts.conditions import Leaf, LeafKind
from ringmain.flows.alerts.watch import copied
from ringmain.flows.block import Bools, Floats, Ints
from ringmain.flows.picture import Picture
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import StepState

PARKED = 2**63 - 1
OPEN, PENDING, FLAPPING, CHANGED = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
"""Bits of the status of a series. CHANGED: `worst` went up since the last event."""


class Happening(IntEnum):
    """What happened to an alert."""

    OPENED = 1
    UPDATED = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a condition must last. `flap`: changes within `flap_ns` that are too many; 0: never."""

    hold_ns: int
    clear_ns: int
    update_ns: int
    flap: int
    flap_ns: int


@dataclass(frozen=True, slots=True)
class Ranks:
    """Priorities: `base`, and a higher one beyond further limits of the measured leaf, as (above, below, priority)."""

    base: int
    beyond: tuple[tuple[float, float, int], ...] = ()

    def of(self, worst: Floats) -> NDArray[np.uint8]:
        """The priority that each worst value has."""
        found = np.full(len(worst), self.base, np.uint8)
        for above, below, priority in self.beyond:
            found = np.where((worst > above) | (worst < below), np.minimum(found, np.uint8(priority)), found)
        return found


@dataclass(frozen=True, slots=True)
class Happenings:
    """What happened, in columns; `since`: when the condition began."""

    what: NDArray[np.uint8]
    time: Ints
    series: Ints
    since: Ints
    value: Floats
    worst: Floats
    priority: NDArray[np.uint8]
    flapping: Bools

    def __len__(self) -> int:
        return len(self.what)


class Lives:
    """Alerts over series. Series given in a call are distinct; `leaf` is the one whose quantity is told, if any."""

    def __init__(self, timing: Timing, ranks: Ranks, leaf: Leaf | None) -> None:
        self._timing = timing
        self._ranks = ranks
        self._above = 0.0 if leaf is None or leaf.kind is LeafKind.QUALITY else leaf.above
        self._below = -np.inf if leaf is None else leaf.below
        self._found: list[Happenings] = []
        self._clock = self._now = NEVER
        self._next = NEVER
        """Before this clock nothing that is pending happens: a hint, not a part of the state."""
        self.picture: Picture | None = None
        """Told of a series before it is written to."""
        self.status: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._since: Ints = np.empty(0, np.int64)
        """Since when the condition is other than what the alert shows, where that is pending."""
        self._due: Ints = np.empty(0, np.int64)
        """The clock at which what is pending happens; PARKED: nothing is."""
        self._began: Ints = np.empty(0, np.int64)
        """When the condition began that an alert is open for, or may open for."""
        self._told: Ints = np.empty(0, np.int64)
        """Time of the last happening."""
        self._value: Floats = np.empty(0)
        self._worst: Floats = np.empty(0)
        self._priority: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._slot: NDArray[np.int32] = np.empty(0, np.int32)
        """Row of `_changes`; -1: it never changed."""
        self._changes: Ints = np.empty((0, max(timing.flap, 1)), np.int64)
        """Times of the newest changes of a series, the n-th change in place n modulo the number of places."""
        self._change_count: Ints = np.empty(0, np.int64)
        self._slots = 0

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        if size <= len(self.status):
            return
        self.status = grown(self.status, size, 0)
        self._since = grown(self._since, size, NEVER)
        self._due = grown(self._due, size, PARKED)
        self._began = grown(self._began, size, NEVER)
        self._told = grown(self._told, size, NEVER)
        self._value = grown(self._value, size, np.nan)
        self._worst = grown(self._worst, size, np.nan)
        self._priority = grown(self._priority, size, 0)
        self._slot = grown(self._slot, size, -1)

    def follow(
        self, series: Ints, time: Ints, holds: Bools, measured: Floats | None, clock: int, now: int
    ) -> None:
        """The condition of these series is `holds` from `time` on; `now` is log time."""
        self._clock, self._now = clock, now
        self._before(series)
        self._settle(series, time, holds)
        status = self.status[series]
        opened, pending = (status & OPEN) != 0, (status & PENDING) != 0
        differs = holds != opened
        undone = pending & ~differs
        if undone.any():
            at = series[undone]
            self.status[at] = np.where(opened[undone], status[undone] & ~PENDING, np.uint8(0))
            self._due[at] = PARKED
        starts = differs & ~pending
        rising = starts & holds
        began = series[rising]
        self._began[began] = time[rising]
        self._value[began] = self._worst[began] = np.nan
        if measured is not None:
            self._measure(series, measured, holds | opened)
        if starts.any():
            at, when = series[starts], time[starts]
            wait = self._wait(self.status[at])
            later = wait > 0
            self._pend(at[later], when[later], wait[later])
            self._happen(at[~later], when[~later])
        if measured is not None:
            self._tell(series, time)

    def pass_time(self, clock: int, now: int) -> None:
        """The clock moved on: what was pending for long enough happens."""
        if clock < self._next:
            return
        self._clock, self._now = clock, now
        due = np.flatnonzero(self._due <= clock)
        if len(due):
            self._before(due)
            self._happen(due, self._since[due] + self._wait(self.status[due]))
        self._next = int(self._due.min()) if len(self._due) else PARKED

    def happenings(self) -> Happenings | None:
        """What happened since the last call, in order of time and series."""
        found, self._found = self._found, []
        if not found:
            return None
        parts = zip(*([getattr(one, name) for name in _COLUMNS] for one in found), strict=True)
        columns = [np.concatenate(part) for part in parts]
        order = np.lexsort((columns[2], columns[1]))
        return Happenings(*(column[order] for column in columns))

    def open(self) -> Ints:
        """The series whose alerts are open, in order."""
        found: Ints = np.flatnonzero((self.status & OPEN) != 0)
        return found

    def standing(self, now: int) -> Happenings | None:
        """Every alert that is open, as if it opened now (log time, ns UTC)."""
        at = self.open()
        if len(at):
            self._before(at)
            self.status[at] &= ~CHANGED
            self._record(np.full(len(at), Happening.OPENED, np.uint8), at, np.full(len(at), now, np.int64))
        return self.happenings()

    # How it happens

    def _wait(self, status: NDArray[np.uint8]) -> Ints:
        """How long the condition must be other than what the alert shows."""
        timing = self._timing
        closing = np.where((status & FLAPPING) != 0, timing.flap_ns, timing.clear_ns)
        return np.where((status & OPEN) != 0, closing, timing.hold_ns)

    def _settle(self, series: Ints, time: Ints, holds: Bools) -> None:
        """What was pending for long enough before these times happens. Flapping may begin with it, and end."""
        for _ in range(2):
            status = self.status[series]
            pending = (status & PENDING) != 0
            if not pending.any():
                return
            at = series[pending]
            since = self._since[at] + self._wait(status[pending])
            goes_on = holds[pending] != ((status[pending] & OPEN) != 0)
            passed = (time[pending] > since) | ((time[pending] == since) & goes_on)
            if not passed.any():
                return
            self._happen(at[passed], since[passed])

    def _pend(self, series: Ints, since: Ints, wait: Ints) -> None:
        if not len(series):
            return
        due = self._clock + wait + np.maximum(0, since - self._now)
        self.status[series] |= PENDING
        self._since[series] = since
        self._due[series] = due
        self._next = min(self._next, int(due.min()))

    def _happen(self, series: Ints, time: Ints) -> None:
        """Alerts open that were closed, and close that were open, unless they flap."""
        if not len(series):
            return
        self._due[series] = PARKED
        status = self.status[series] & ~PENDING
        rising = (status & OPEN) == 0
        calm = (status & FLAPPING) != 0  # and for long enough: it closes, whatever went before
        many = self._too_many(series, time) & ~calm
        stays = many & ~rising
        open_after = rising | stays
        self.status[series] = np.where(open_after, OPEN, np.uint8(0)) | np.where(many, FLAPPING, np.uint8(0))
        wait = np.full(int(stays.sum()), self._timing.flap_ns, np.int64)
        self._pend(series[stays], time[stays], wait)
        what = np.where(rising, Happening.OPENED, np.where(stays, Happening.UPDATED, Happening.CLOSED))
        self._priority[series[open_after]] = self._ranks.of(self._worst[series[open_after]])
        self._record(what.astype(np.uint8), series, time)

    def _too_many(self, series: Ints, time: Ints) -> Bools:
        """Note a change of each; whether it was one too many."""
        places = self._timing.flap
        if not places:
            return np.zeros(len(series), bool)
        new = series[self._slot[series] < 0]
        if len(new):
            self._slot[new] = np.arange(self._slots, self._slots + len(new))
            self._slots += len(new)
            if self._slots > len(self._changes):
                rows = max(2 * len(self._changes), self._slots, 64)
                larger = np.full((rows, places), NEVER, np.int64)
                larger[: len(self._changes)] = self._changes
                self._changes = larger
                self._change_count = grown(self._change_count, rows, 0)
        slot = self._slot[series]
        count = self._change_count[slot]
        place = count % places
        many: Bools = (count >= places) & (time <= self._changes[slot, place] + self._timing.flap_ns)
        self._changes[slot, place] = time
        self._change_count[slot] = count + 1
        return many

    def _measure(self, series: Ints, measured: Floats, matters: Bools) -> None:
        """Keep the newest quantity, and the worst, of alerts that are open or pending."""
        known = matters & ~np.isnan(measured)
        at, found = series[known], measured[known]
        self._value[at] = found
        before = self._worst[at]
        worse = np.isnan(before) | (self._excess(found) > self._excess(before))
        self._worst[at[worse]] = found[worse]
        self.status[at[worse]] |= CHANGED

    def _excess(self, measured: Floats) -> Floats:
        # a limit that is not there is infinite, and an infinite quantity lies beyond it by no number: that side is left out
        return np.fmax(measured - self._above, self._below - measured)

    def _tell(self, series: Ints, time: Ints) -> None:
        """Open alerts whose worst value or priority changed are updated, not too often unless the priority rose."""
        status = self.status[series]
        changed = (status & (OPEN | CHANGED)) == (OPEN | CHANGED)
        if not changed.any():
            return
        at, when = series[changed], time[changed]
        priority = self._ranks.of(self._worst[at])
        told = (priority < self._priority[at]) | (when >= self._told[at] + self._timing.update_ns)
        at, when = at[told], when[told]
        if len(at):
            self._priority[at] = np.minimum(priority[told], self._priority[at])
            self.status[at] &= ~CHANGED
            self._record(np.full(len(at), Happening.UPDATED, np.uint8), at, when)

    def _record(self, what: NDArray[np.uint8], series: Ints, time: Ints) -> None:
        self._told[series] = time
        self._found.append(
            Happenings(
                what,
                time,
                series,
                self._began[series],
                self._value[series],
                self._worst[series],
                self._priority[series],
                (self.status[series] & FLAPPING) != 0,
            )
        )

    # State

    def _before(self, series: Ints) -> None:
        if self.picture is not None:
            self.picture.before(series)

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "life_status": self.status,
            "life_since": self._since,
            "life_due": self._due,
            "life_began": self._began,
            "life_told": self._told,
            "life_value": self._value,
            "life_worst": self._worst,
            "life_priority": self._priority,
            "life_slot": self._slot,
            "life_changes": self._changes[: self._slots].reshape(-1),
            "life_change_count": self._change_count[: self._slots],
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self.status = copied(state["life_status"], np.uint8)
        self._since = copied(state["life_since"], np.int64)
        self._due = copied(state["life_due"], np.int64)
        self._began = copied(state["life_began"], np.int64)
        self._told = copied(state["life_told"], np.int64)
        self._value = copied(state["life_value"], np.float64)
        self._worst = copied(state["life_worst"], np.float64)
        self._priority = copied(state["life_priority"], np.uint8)
        self._slot = copied(state["life_slot"], np.int32)
        self._changes = copied(state["life_changes"], np.int64).reshape(-1, max(self._timing.flap, 1))
        self._change_count = copied(state["life_change_count"], np.int64)
        self._slots = len(self._change_count)
        self._next = NEVER


BY_SERIES = tuple(
    f"life_{name}"
    for name in ("status", "since", "due", "began", "told", "value", "worst", "priority", "slot")
)
"""What of the state lies by series."""
_COLUMNS = ("what", "time", "series", "since", "value", "worst", "priority", "flapping")
