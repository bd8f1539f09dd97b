"""The parts of a node as seen from outside: processes of their own (`layout = "split"`), or one (`single`).

Nothing here needs more than the standard library: the process that watches over the others stays small.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ringmain.runtime.counters import Counters, Kind, declare

WHOLE_NODE = "node"
"""The name of the only part of a node that is one process."""
INTAKE, FLOWS, SINKS, SERVER = "intake", "flows", "sinks", "server"
"""The names of the parts of one that is several."""

RESTARTS = declare(
    "ringmain_part_restarts_total",
    Kind.COUNTER,
    "Times that a process of the node was started again.",
    labels=("part",),
    unit="starts",
)
RUNNING = declare(
    "ringmain_part_running",
    Kind.GAUGE,
    "1 while a process of the node works and is heard of.",
    labels=("part",),
)


class PartState(Enum):
    """Where a process of the node is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    SILENT = "silent"
    """It lives, and nothing has been heard of it for more than five seconds."""
    BACKOFF = "backoff"
    """It ended; `last_error` says why; it will be started again."""
    STOPPED = "stopped"
    """Ended as told."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A process of the node at one moment: in `state` since `since_ns`. `pid` is 0 while there is none."""

    name: str
    pid: int
    state: PartState
    since_ns: int
    restarts: int = 0
    last_error: str | None = None


def count(counters: Counters, parts: Iterable[PartStatus]) -> None:
    """Have the metrics say what the statuses say. Always from the same thread."""
    for part in parts:
        counters.cell(RESTARTS, part.name).set(part.restarts)
        counters.cell(RUNNING, part.name).set(int(part.state is PartState.RUNNING))
