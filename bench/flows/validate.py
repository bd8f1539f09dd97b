"""Speed of step `validate` over 10 k series that report once a frame: by range, with rate and stuck, with spikes as well.

`python -m bench.flows.validate` prints it.
"""

from __future__ import annotations

from bench.flows.ordered import measure
from ringmain.flows.steps.validate import ValidateSettings

CASES = {
    "range": ValidateSettings(min=0.0, max=400.0),
    "memory": ValidateSettings(min=0.0, max=400.0, max_rate=50.0, stuck="6h"),
    "spike": ValidateSettings(min=0.0, max=400.0, max_rate=50.0, stuck="6h", spike=6.0),
}


def run(seconds: float) -> float:
    """Readings a second of the step alone, with every rule."""
    return measure(CASES["spike"], seconds)


if __name__ == "__main__":
    for name, settings in CASES.items():
        print(f"validate {name:8} {measure(settings, 1.0) / 1e6:6.1f} M/s")
