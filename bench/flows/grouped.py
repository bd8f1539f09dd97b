"""`group` alone: 10,000 series of 500 devices in 50 feeders, each once in a batch, a second apart, windows of a minute."""

from __future__ import annotations

import sys

from bench.flows.latest_sum import rate, step_of
from ringmain.flows.steps.group import GroupSettings


def run(seconds: float = 2.0) -> float:
    """Readings a second."""
    return rate(step_of(GroupSettings(by=("place",))), seconds)


if __name__ == "__main__":
    print(f"grouped: {run(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0) / 1e6:.1f} M readings/s")
