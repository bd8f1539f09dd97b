"""Arrival time: the wall clock, kept from running backwards, with its steps told.

Within a clock segment arrival time follows the wall clock. When the wall clock moves by clearly other than the
time that passed since the last look (NTP stepping it, a box that boots in 1970 and learns the date, a GPS
receiver that jumps), a new clock segment begins and the step is recorded. After a backward step arrival goes on
from where it was, at the pace of the boot clock, until the wall clock has caught up.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

_TOLERANCE_NS = 1_000_000_000
_DRIFT_PER_MILLION = 1_000
_STEPS_MAX = 1_000
BEHIND = 0x8000
"""Bit of the clock state: the wall clock is behind arrival time."""


class Clock(Protocol):
    """Where times come from."""

    def wall_ns(self) -> int:
        """Wall clock, ns since 1970 UTC."""
        ...

    def elapsed_ns(self) -> int:
        """A clock that only goes forward, suspend included."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def elapsed_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Stamp:
    """One look at the clock. `step`: (expected, found) wall time when it was stepped."""

    arrival_ns: int
    wall_ns: int
    state: int
    step: tuple[int, int] | None = None


class ArrivalClock:
    """Stamps appends. `stamp` is used by one thread, `age_ns` by any."""

    def __init__(self, clock: Clock, last_arrival_ns: int, segment: int) -> None:
        self._clock = clock
        self._arrival_ns = last_arrival_ns
        self._wall_ns = clock.wall_ns()
        self._elapsed_ns = clock.elapsed_ns()
        self.segment = segment
        self._first_step: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._steps: list[tuple[int, int]] = []  # (last arrival before it, by how much) of this opening
        if self._wall_ns < last_arrival_ns - _TOLERANCE_NS:
            self._first_step = (last_arrival_ns, self._wall_ns)

    def stamp(self) -> Stamp:
        """The arrival time now: never before the last one given."""
        with self._lock:
            return self._stamp()

    def age_ns(self, arrival_ns: int) -> int:
        """How long ago something arrived: by the wall clock, less what that was stepped by since, while open.

        A clock that jumps to 2038, or from 1970 to today, makes nothing old.
        """
        with self._lock:
            wall, elapsed = self._clock.wall_ns(), self._clock.elapsed_ns()
            passed = max(elapsed - self._elapsed_ns, 0)
            stepped = sum(by for at, by in self._steps if at >= arrival_ns)
            by = wall - self._wall_ns - passed
            if abs(by) > _tolerance_ns(passed) and self._arrival_ns >= arrival_ns:
                stepped += by
        return wall - stepped - arrival_ns

    def _stamp(self) -> Stamp:
        wall, elapsed = self._clock.wall_ns(), self._clock.elapsed_ns()
        passed = max(elapsed - self._elapsed_ns, 0)
        expected = self._wall_ns + passed
        step = self._first_step
        self._first_step = None
        if abs(wall - expected) > _tolerance_ns(passed):
            step = (expected, wall)
            self._steps.append((self._arrival_ns, wall - expected))
            if len(self._steps) > _STEPS_MAX:
                (at, by), (_, more) = self._steps[:2]
                self._steps[:2] = [(at, by + more)]
        if step is not None:
            self.segment = (self.segment + 1) & 0x7FFF
        self._wall_ns, self._elapsed_ns = wall, elapsed
        behind = wall < self._arrival_ns
        self._arrival_ns = self._arrival_ns + passed if behind else wall
        state = self.segment | (BEHIND if self._arrival_ns > wall + _TOLERANCE_NS else 0)
        return Stamp(self._arrival_ns, wall, state, step)


def _tolerance_ns(passed_ns: int) -> int:
    return _TOLERANCE_NS + passed_ns * _DRIFT_PER_MILLION // 1_000_000
