"""What is known about a sink from outside: its state, how far it is, and what went through it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SinkState(Enum):
    """Where a sink is in its life."""

    STARTING = "starting"
    """Not open yet."""
    RUNNING = "running"
    """Delivers, or waits for rows."""
    WAITING = "waiting"
    """Its receiver does not take rows now, or the log takes no positions; `last_error` says why. It tries again."""
    BACKOFF = "backoff"
    """It failed; `last_error` says why; it will be opened again."""
    STOPPED = "stopped"
    """Ended as told."""
    FAILED = "failed"
    """Ended for good: another instance took over."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """A sink at one moment: in `state` since `since_ns`, delivering to `address`. Counts are since the node started.

    `lag_s`, `lag_rows`: how much arrival time, and how many rows, of its streams it has not answered for (None: not
    known). `rows` were accepted, `rejected` are dead letters, `missed` were gone before they could be read.
    """

    name: str
    type: str
    streams: tuple[str, ...]
    address: str
    state: SinkState
    since_ns: int
    last_error: str | None = None
    position: str | None = None
    lag_s: float | None = None
    lag_rows: int | None = None
    rows: int = 0
    batches: int = 0
    retries: int = 0
    rejected: int = 0
    missed: int = 0
