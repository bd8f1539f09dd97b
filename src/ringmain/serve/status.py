"""What the server is told about the node around it.

The rooms of a node never import each other, so whoever makes the server hands it a callable that answers with a
`NodeStatus`. It is called at most about once a second, from the server's thread, and has to be quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ringmain.runtime.part_status import PartStatus
from ringmain.runtime.sink_status import SinkStatus
from ringmain.runtime.status import SourceStatus, StorageState


@dataclass(frozen=True, slots=True)
class StepView:
    """A step of a flow at one moment. Rows since the node started; `aside`: sent to streams past the later steps."""

    step: str
    rows_in: int
    rows_out: int
    rows_aside: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class FlowView:
    """A flow at one moment. Counts are since the node started; `lag_s` is arrival time not yet folded.

    `newest_ns`: the newest event time that it has seen. `failed`: batches that became dead letters.
    """

    name: str
    to: str
    state: str
    lag_s: float | None = None
    rows: int = 0
    late: int = 0
    revisions: int = 0
    ahead: int = 0
    duplicates: int = 0
    last_error: str | None = None
    failed: int = 0
    newest_ns: int | None = None
    steps: tuple[StepView, ...] = ()


@dataclass(frozen=True, slots=True)
class LogView:
    """The log's files. `durable_ns`: when the newest group became durable (0: nothing yet)."""

    size_bytes: int
    segments: int
    state: StorageState = StorageState.OK
    durable_ns: int = 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node at one moment."""

    name: str
    timezone: str
    version: str
    started_ns: int
    ready: bool
    sources: tuple[SourceStatus, ...] = ()
    flows: tuple[FlowView, ...] = ()
    log: LogView = LogView(0, 0)
    parts: tuple[PartStatus, ...] = ()
    """Its processes, one or several."""
    sinks: tuple[SinkStatus, ...] = ()


StatusProvider = Callable[[], NodeStatus]
