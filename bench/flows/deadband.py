"""Speed of step `deadband` over 10 k series that report once a frame; about one reading in twenty is passed on.

`python -m bench.flows.deadband` prints it.
"""

from __future__ import annotations

from bench.flows.ordered import measure
from ringmain.flows.steps.deadband import DeadbandSettings


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure(DeadbandSettings(absolute=2.0, max_interval="15m"), seconds)


if __name__ == "__main__":
    print(f"deadband {run(1.0) / 1e6:6.1f} M/s")
