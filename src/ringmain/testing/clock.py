"""A clock that a test moves: time passes and the wall clock steps when the test says so, and never by itself."""

from __future__ import annotations

START_NS = 1_800_000_000 * 10**9
"""15 January 2027, 08:00 UTC: where a simulated clock starts unless told otherwise."""


class SimulatedClock:
    """Implements `ringmain.log.clock.Clock`; times in ns."""

    def __init__(self, wall_ns: int = START_NS, elapsed_ns: int = 5 * 10**9) -> None:
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns

    def wall_ns(self) -> int:
        """The wall clock as it is set."""
        return self._wall_ns

    def elapsed_ns(self) -> int:
        """The clock that only goes forward."""
        return self._elapsed_ns

    def pass_time(self, ns: int) -> None:
        """Time goes by on both clocks. Raises ValueError for a negative time."""
        if ns < 0:
            raise ValueError(
                f"expected a time of 0 ns or more to pass, found {ns}: use step() to set the wall clock"
            )
        self._wall_ns += ns
        self._elapsed_ns += ns

    def step(self, wall_ns: int) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._wall_ns = wall_ns

    def boot(self, wall_ns: int | None = None) -> None:
        """The machine starts again: the boot clock at zero, the wall clock where it is or at `wall_ns`."""
        self._elapsed_ns = 0
        if wall_ns is not None:
            self._wall_ns = wall_ns
