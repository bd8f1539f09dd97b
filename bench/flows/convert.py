"""Speed of step `convert` over 10 k series in W, and of `filter` and `convert` one behind the other.

`python -m bench.flows.convert` prints them, with frames of one order and in an order of their own.
"""

from __future__ import annotations

from bench.flows.row_wise import measure
from ringmain.flows.step import StepSettings
from ringmain.flows.steps.convert import ConvertSettings, Mismatch
from ringmain.flows.steps.filter import FilterSettings

_FILTER = FilterSettings(where="medium = 'electricity' and unit = 'W'")
_KILOWATT = ConvertSettings(unit="kW", mismatch=Mismatch.DROP)


def run(seconds: float) -> float:
    """Readings a second of the step alone; a quarter of them cannot be converted."""
    return measure([_KILOWATT], seconds)


def run_behind_filter(seconds: float) -> float:
    """Readings a second that come into `filter`, half of which go on to `convert`."""
    return measure([_FILTER, _KILOWATT], seconds)


if __name__ == "__main__":
    chains: dict[str, list[StepSettings]] = {
        "convert": [_KILOWATT],
        "filter + convert": [_FILTER, _KILOWATT],
        "filter (all stay) + convert": [FilterSettings(where="value > -1e9 and unit <> 'x'"), _KILOWATT],
    }
    for name, chain in chains.items():
        for shuffled in (False, True):
            speed = measure(chain, 0.3, shuffled=shuffled)
            print(f"{'shuffled' if shuffled else '':10} {speed / 1e6:8.1f} M/s  {name}")
