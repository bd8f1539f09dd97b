"""Speed of step `fill` over 10 k series that report once a frame, a frame a second, nothing missing.

`python -m bench.flows.fill` prints it.
"""

from __future__ import annotations

from bench.flows.ordered import measure
from ringmain.flows.steps.fill import FillMethod, FillSettings


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure(FillSettings(interval="1s", grace="10s", method=FillMethod.LINEAR), seconds)


if __name__ == "__main__":
    print(f"fill {run(1.0) / 1e6:6.1f} M/s")
