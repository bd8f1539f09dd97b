"""Speed of step `counter` over 10 k registers that are read once a frame; each reading gives a row.

`python -m bench.flows.counter` prints it.
"""

from __future__ import annotations

from bench.flows.ordered import measure
from ringmain.flows.steps.counter import CounterSettings


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure(CounterSettings(digits=8, max_rate=36_000.0, max_gap="1h"), seconds, registers=True)


if __name__ == "__main__":
    print(f"counter {run(1.0) / 1e6:6.1f} M/s")
