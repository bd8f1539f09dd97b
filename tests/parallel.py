"""How `make test` shares the tests out among processes (pytest-xdist), and what every test process has in common.

A module is the unit: its tests run in one process, in their order, since some modules keep a node for all their tests
and count at the end. Rooms whose tests take long begin, so that the short ones fill what is left at the end.
Whatever else two modules could meet at (ports, mounts, brokers, browsers) belongs to a test or a process already:
ports are reserved among all of them (`tests.ports`), directories are pytest's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
FIRST = ("node", "cli", "parts", "web", "serve", "sources")
"""Rooms by the length of their longest module, the longest first."""


def let_children_keep_bytecode(environment: dict[str, str] | os._Environ[str]) -> None:
    """Some hundred processes are started by tests: let the first write what all would compile anew."""
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def order(items: list[pytest.Item]) -> None:
    """Bring the longest rooms to the front; modules and tests within a room keep their order."""
    places = {room: place for place, room in enumerate(FIRST)}

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(TESTS).parts if item.path.is_relative_to(TESTS) else ()
        return places.get(parts[0], len(places)) if parts else len(places)

    items.sort(key=place)


def scheduler(config: pytest.Config, log: Any) -> Any:
    """The one that hands out whole modules, in the order of `order`."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)
