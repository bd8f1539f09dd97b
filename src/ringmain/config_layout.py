"""Into how many processes a node is split, and what has to be known of a configuration file before it is read whole.

Reading the whole file imports what the parts need; the process that only watches over them must stay small. Needs
the standard library alone.
"""

from __future__ import annotations

import re
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
DEFAULT_SILENCE = "60s"
SILENCE_MIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Outline:
    """What `ringmain run` has to know before anything else."""

    layout: Layout = DEFAULT_LAYOUT
    flows: bool = False
    sinks: bool = False
    serve: bool = False
    silence_s: float = 60.0
    """After so long without a sign of life a process is killed."""


def read_outline(path: Path) -> Outline | None:
    """The outline of a configuration file; None where it cannot be told: reading the whole file says what is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        node: Any = tables["node"]
        layout = Layout(node.get("layout", DEFAULT_LAYOUT))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    flows = bool(tables.get("flows") or tables.get("alerts"))
    silence_s = silence_of(node.get("silence", DEFAULT_SILENCE))
    if silence_s is None:
        return None
    return Outline(layout, flows, bool(tables.get("sinks")), "serve" in tables, silence_s)


def silence_of(text: object) -> float | None:
    """The seconds of a duration such as 60s or 1m that may be `silence`; None for what may not."""
    found = re.fullmatch(r"(\d{1,5})(s|m)", text) if isinstance(text, str) else None
    if found is None:
        return None
    silence_s = float(found[1]) * (60.0 if found[2] == "m" else 1.0)
    return silence_s if silence_s >= SILENCE_MIN_S else None
