"""Speed of step `swinging-door` over 10 k series that report once a frame; about one reading in ten is passed on.

`python -m bench.flows.swinging_door` prints it.
"""

from __future__ import annotations

from bench.flows.ordered import measure
from ringmain.flows.steps.swinging_door import SwingingDoorSettings


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure(SwingingDoorSettings(deviation=1.0, max_interval="15m"), seconds)


if __name__ == "__main__":
    print(f"swinging-door {run(1.0) / 1e6:6.1f} M/s")
