"""Writes `docs/metrics.md`: the catalogue of every metric that any module of the package declares.

`python -m ringmain.runtime.reference` prints the page; `make docs` stores it, and a test compares the two.
"""

from __future__ import annotations

import importlib
import pkgutil

from ringmain.runtime import counters


def metrics_page() -> str:
    """The text of `docs/metrics.md`. Imports every module of the package, so needs every extra installed."""
    package = counters.__name__.partition(".")[0]
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return counters.reference()


if __name__ == "__main__":
    print(metrics_page(), end="")
