"""Into how many processes a node is split, and what has to be known of a configuration file before it is read whole.

Reading the whole file imports what the parts need; the process that only watches over them must stay small. Needs
the standard library alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Layout(StrEnum):
    """The processes of a node."""

    SINGLE = "single"
    """One, for small machines."""
    SPLIT = "split"
    """One that acknowledges, one each for flows, sinks and server, and one that watches over them."""


DEFAULT_LAYOUT = Layout.SPLIT


@dataclass(frozen=True, slots=True)
class Outline:
    """What `ringmain run` has to know before anything else."""

    layout: Layout = DEFAULT_LAYOUT
    flows: bool = False
    sinks: bool = False
    serve: bool = False


def read_outline(path: Path) -> Outline | None:
    """The outline of a configuration file; None where it cannot be told: reading the whole file says what is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        node: Any = tables["node"]
        layout = Layout(node.get("layout", DEFAULT_LAYOUT))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    flows = bool(tables.get("flows") or tables.get("alerts"))
    return Outline(layout, flows=flows, sinks=bool(tables.get("sinks")), serve="serve" in tables)
