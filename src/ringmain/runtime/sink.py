"""The contract between a sink and the runtime around it.

A sink takes rows out of the log to somewhere else: it is handed batches and answers for each with accepted, rejected
(rows and reason), retry, or held. Everything else (reading the streams, the position, waiting and trying again, dead
letters, counters, restarts) is the runtime's, in `sink_runner.py`, and never the sink's.

What a sink can rely on
    - Batches come in the order of the log, one call at a time, on one thread that is the sink's alone. A sink may
      block there: it slows nobody but itself. Whatever may take long has a timeout, or looks at `context.stopping`.
    - A batch has an identity (`BatchId`): stream, position of its frame, rows of it. It is the same after a restart,
      so a receiver can tell a repeat. At least once: what was answered and whose position was not yet stored when
      the power failed is handed over again, with the same identity.
    - Nothing behind a batch to be tried again is handed over before it.

What a sink promises
    - `Accepted` means that the receiver has the rows for good. The position moves only then.
    - It rejects what will never be taken (that goes to the dead letters, with the reason), and asks for a retry of what
      may be taken later (a lost connection, a full disk, HTTP 503).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

from ringmain.log.interface import Position, StreamKind
from ringmain.model.catalogue import Catalogue
from ringmain.runtime.contract import SourceError
from ringmain.runtime.sink_position import Mark

__all__ = [
    "ACCEPTED",
    "HELD",
    "Accepted",
    "Answer",
    "BatchId",
    "Held",
    "HoldingSink",
    "Mark",
    "Rejected",
    "RejectedRows",
    "Retry",
    "Sink",
    "SinkBatch",
    "SinkContext",
    "SinkError",
]

SinkError = SourceError
"""A sink cannot go on: `SinkError(problem, remedy)`. It is opened again with backoff; both texts are in its status."""


@dataclass(frozen=True, slots=True)
class BatchId:
    """Names rows of a log for good: rows `first_row` to `first_row + rows - 1` of the frame at `position` of `stream`."""

    stream: str
    position: Position
    first_row: int
    rows: int

    def __str__(self) -> str:
        """`STREAM/POSITION/FIRST-LAST`, in printable ASCII but for the stream's name."""
        return f"{self.stream}/{self.position}/{self.first_row}-{self.first_row + self.rows - 1}"


@dataclass(frozen=True, slots=True)
class SinkBatch:
    """Rows for a sink. `rows` has the stream's schema (a column `series` holds ids: see `SinkContext.catalogue`).

    `arrival_ns`: when the frame arrived in this log, ns UTC, never decreasing. `origin_arrival_ns`: when what caused it
    first arrived in Ringmain. `mark`: the position behind this batch, for a sink that holds. `attempt`: 0 the first time
    that this process hands it over.
    """

    id: BatchId
    kind: StreamKind
    rows: pa.RecordBatch
    arrival_ns: int
    origin_arrival_ns: int
    mark: Mark
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receiver has all rows for good."""


@dataclass(frozen=True, slots=True)
class RejectedRows:
    """`rows` rows from place `first` of a batch on will never be taken. `reason` begins with what was expected."""

    first: int
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Some rows will never be taken, and become dead letters; the receiver has all others for good."""

    rows: tuple[RejectedRows, ...]

    @classmethod
    def whole(cls, batch: SinkBatch, reason: str) -> Rejected:
        """None of the batch will ever be taken."""
        return cls((RejectedRows(0, batch.rows.num_rows, reason),))


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: this batch and all behind it are handed over again later.

    `after_s`: not before that, as the receiver asked (HTTP `Retry-After`); None: when the runtime thinks best.
    """

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The sink has the rows and answers for them later, by `settle`. Lost if the process ends before: handed over again."""


Answer = Accepted | Rejected | Retry | Held
ACCEPTED = Accepted()
HELD = Held()


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink is given when it is opened.

    `committed`: the position behind everything that is answered for. `stopping` is set when the node ends: whoever
    waits, waits on it. `count(name, n, **labels)` adds to a metric declared with a first label `sink`.
    """

    name: str
    catalogue: Catalogue
    committed: Mark | None
    stopping: threading.Event
    count: Callable[..., None]


class Sink(Protocol):
    """Where rows go. All calls come on one thread; after an exception the sink is closed and opened anew."""

    def open(self, context: SinkContext) -> str:
        """Connect, as far as that is wanted before there are rows; the address for people to read.

        Raises SinkError or OSError, as `deliver` may: it is tried again with backoff.
        """
        ...

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        """Answers for the first of the batches, in their order: for all of them, or up to and including a `Retry`.

        `now_ns` is log time: the arrival of the newest frame, ticks of the node included, that was read.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent; called after a failed `open` as well."""
        ...


@runtime_checkable
class HoldingSink(Sink, Protocol):
    """A sink that answers `Held`, to put many batches together (into a file, say)."""

    def settle(self, now_ns: int) -> Mark | Retry | None:
        """Log time is `now_ns`: the mark of the last batch up to which all are accepted; None: no more than before.

        Called after `open`, after each `deliver`, and about once a second, with log time as it then is.
        """
        ...
