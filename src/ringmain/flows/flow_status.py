"""What a flow tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FlowState(StrEnum):
    """Where a flow is in its life."""

    STARTING = "starting"
    """Folding up to its position, without output."""
    RUNNING = "running"
    WAITING = "waiting"
    """The log takes nothing at the moment; `last_error` says why."""
    BACKOFF = "backoff"
    """It failed; `last_error` says why; it will be started again."""
    FAILED = "failed"
    """It stands still until somebody acts; `last_error` says why and what to do."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step of a flow at one moment. Rows since the node started."""

    step: str
    rows_in: int
    rows_out: int
    rows_aside: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow at one moment. Counts are since the node started, in rows of the input unless said otherwise.

    `lag_s`: how much arrival time of the input is not yet folded. `windows`, `revisions`: emitted rows.
    `failed`: batches that became dead letters, because a step failed on them. `newest_ns`: the newest event time.
    """

    name: str
    to: str
    state: FlowState
    position: str | None
    lag_s: float | None
    rows: int
    late: int
    revisions: int
    ahead: int
    duplicates: int
    invalid: int
    windows: int
    last_error: str | None
    failed: int = 0
    newest_ns: int | None = None
    steps: tuple[StepStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When a snapshot is taken: once folding again would take `refold_s`, or after `interval_s` with readings."""

    refold_s: float = 2.0
    interval_s: float = 60.0
