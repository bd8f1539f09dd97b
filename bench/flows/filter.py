"""Speed of step `filter` over 10 k series, half of whose rows stay.

`python -m bench.flows.filter` prints several conditions, with frames of one order and in an order of their own.
"""

from __future__ import annotations

from bench.flows.row_wise import measure
from ringmain.flows.steps.filter import FilterSettings

WHERE = "medium = 'electricity' and unit = 'W' and value > 0"


def run(seconds: float) -> float:
    """Readings a second of the step alone."""
    return measure([FilterSettings(where=WHERE)], seconds)


if __name__ == "__main__":
    for where in (
        WHERE,
        "medium = 'electricity'",
        "value > 0",
        "medium <> 'water'",
        "valid",
        "hour(time) < 12",
    ):
        for shuffled in (False, True):
            speed = measure([FilterSettings(where=where)], 0.3, shuffled=shuffled)
            print(f"{'shuffled' if shuffled else '':10} {speed / 1e6:8.1f} M/s  {where}")
