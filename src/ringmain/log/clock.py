"""Arrival time: the wall clock, kept from running backwards, with its steps told.

Within a clock segment arrival time follows the wall clock. When the wall clock moves by clearly other than the
time that passed since the last look (NTP stepping it, a box that boots in 1970 and learns the date, a GPS
receiver that jumps), a new clock segment begins and the step is recorded. After a backward step arrival goes on
from where it was, at the pace of the boot clock, until the wall clock has caught up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

_TOLERANCE_NS = 1_000_000_000
_DRIFT_PER_MILLION = 1_000
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
    """Stamps appends. Used by one thread."""

    def __init__(self, clock: Clock, last_arrival_ns: int, segment: int) -> None:
        self._clock = clock
        self._arrival_ns = last_arrival_ns
        self._wall_ns = clock.wall_ns()
        self._elapsed_ns = clock.elapsed_ns()
        self.segment = segment
        self._first_step: tuple[int, int] | None = None
        if self._wall_ns < last_arrival_ns - _TOLERANCE_NS:
            self._first_step = (last_arrival_ns, self._wall_ns)

    def stamp(self) -> Stamp:
        """The arrival time now: never before the last one given."""
        wall, elapsed = self._clock.wall_ns(), self._clock.elapsed_ns()
        passed = max(elapsed - self._elapsed_ns, 0)
        expected = self._wall_ns + passed
        step = self._first_step
        self._first_step = None
        if abs(wall - expected) > _TOLERANCE_NS + passed * _DRIFT_PER_MILLION // 1_000_000:
            step = (expected, wall)
        if step is not None:
            self.segment = (self.segment + 1) & 0x7FFF
        self._wall_ns, self._elapsed_ns = wall, elapsed
        behind = wall < self._arrival_ns
        self._arrival_ns = self._arrival_ns + passed if behind else wall
        state = self.segment | (BEHIND if self._arrival_ns > wall + _TOLERANCE_NS else 0)
        return Stamp(self._arrival_ns, wall, state, step)
