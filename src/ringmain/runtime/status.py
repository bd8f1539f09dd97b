"""What is known about a source from outside: its state, and what went through it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ringmain.log.ledger.result import Missing, RowAccount, SourceAccount, UnknownRange

__all__ = [
    "Missing",
    "RowAccount",
    "SourceAccount",
    "SourceState",
    "SourceStatus",
    "StorageState",
    "Tally",
    "UnknownRange",
]


class SourceState(Enum):
    """Where a source is in its life."""

    STARTING = "starting"
    """Called to run; neither accepting nor connected yet."""
    RUNNING = "running"
    """Accepting, or connected."""
    BACKOFF = "backoff"
    """It raised; `last_error` says why; it will be started again."""
    STOPPED = "stopped"
    """Ended as told."""
    FAILED = "failed"
    """Ended for good: starting it again cannot help (another instance took over, say)."""


class StorageState(Enum):
    """Whether what a source hands over gets stored."""

    OK = "ok"
    FULL = "full"
    """No space: nothing is acknowledged; the append is tried again until there is."""
    FAILING = "failing"
    """The device fails: nothing is acknowledged; the append is tried again."""


@dataclass(slots=True)
class Tally:
    """What went through a source since the node started. Written on the source's loop, read by any thread.

    `received` counts messages as they come; the others count what is durable. `last_reading_ns` is the
    arrival time of the newest durable reading, 0 before the first.
    """

    received: int = 0
    readings: int = 0
    letters: int = 0
    events: int = 0
    last_reading_ns: int = 0


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A source at one moment: in `state` since `since_ns`, accepting at or connected to `address`."""

    name: str
    type: str
    address: str
    state: SourceState
    since_ns: int
    last_error: str | None
    restarts: int
    storage: StorageState
    queue_rows: int
    received: int
    readings: int
    letters: int
    events: int
    last_reading_ns: int
