"""How long to wait before what failed is started again: the same rule for sources and for whole processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Waiting times between starts: `first_s` doubling to `last_s`, reset after `healthy_s` of health."""

    first_s: float = 0.5
    last_s: float = 30.0
    healthy_s: float = 60.0
    failures: int = 0

    def failed(self, healthy_for_s: float, chance: float) -> float:
        """How long to wait after a run that was healthy for so long; `chance` in [0, 1) spreads by a quarter."""
        if healthy_for_s >= self.healthy_s:
            self.failures = 0
        delay = min(self.first_s * 2.0 ** min(self.failures, 32), self.last_s)
        self.failures += 1
        return min(delay * (0.75 + 0.5 * chance), self.last_s)
