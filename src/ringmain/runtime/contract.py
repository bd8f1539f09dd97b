"""The contract between a source and the runtime around it.

A source turns a connection into submissions and learns when each is durable. Everything else (queueing,
coalescing within the commit delay, back-pressure, retry while the disk is full, restart with backoff,
counters) is the runtime's, in `intake.py` and `supervisor.py`, and never the source's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Columns:
    """Readings as four columns of equal length: series ids, ns UTC, value, quality bits."""

    series: NDArray[np.uint32]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message, or an element of one, that could not become a reading (schema: `DEAD_LETTER`).

    `payload_bytes` is the full size where `payload` holds only the first `MAX_LETTER_PAYLOAD` bytes of it;
    None: `payload` is whole.
    """

    topic: str
    payload: bytes
    reason: str
    arrival_ns: int
    payload_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """An event (schema: `EVENT`), e.g. a device's will. `id` unique: twice is once."""

    id: str
    type: str
    subject: str | None
    time_ns: int
    data: bytes | None = None
    datacontenttype: str | None = None


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages and what became of them: `received` = accepted + rejected + ignored + dropped."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    dropped: int = 0
    unacknowledged: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What a source hands over in one go; becomes durable as a whole.

    `received` counts the messages that it stems from, before mapping; of them `rejected` gave dead letters only,
    `ignored` are not to be stored because a rule says so, and `dropped` had to be thrown away. `accepted` gave a
    reading or an event; None: all that are left. `unacknowledged` of the messages are acknowledged to nobody (QoS
    0): what is lost of such ones nobody can count. All that is written down in the log, in the same append.

    `durable` is called once, on the source's event loop, after everything here is durable; never called if the
    log closes before.
    """

    durable: Callable[[], None]
    columns: Columns | None = None
    letters: tuple[Letter, ...] = ()
    happenings: tuple[Happening, ...] = ()
    positions: Mapping[str, bytes | None] = field(default_factory=dict)
    received: int = 0
    rejected: int = 0
    ignored: int = 0
    dropped: int = 0
    unacknowledged: int = 0
    accepted: int | None = None

    def messages(self) -> Messages:
        """The counts of messages."""
        accepted = self.accepted
        if accepted is None:
            accepted = self.received - self.rejected - self.ignored - self.dropped
        return Messages(
            self.received, accepted, self.rejected, self.ignored, self.dropped, self.unacknowledged
        )


class Intake(Protocol):
    """What a source is given to hand its data to. Used on the source's event loop only."""

    source: str
    """The source's configured name."""

    def submit(self, submission: Submission) -> None:
        """Take over the submission. Never blocks, never raises for a full log: see `ready`."""
        ...

    @property
    def ready(self) -> bool:
        """False while the bounded queue is full: the source stops reading from its connections."""
        ...

    async def wait_ready(self) -> None:
        """Return once `ready` is true."""
        ...

    def on_ready(self, callback: Callable[[bool], None]) -> None:
        """Call back on the event loop whenever `ready` changes (for transports that pause and resume)."""
        ...

    async def drained(self) -> None:
        """Return once everything submitted is durable and its `durable` callbacks ran.

        A source that is cancelled stops reading, awaits this, flushes its acknowledgements, and then closes.
        """
        ...

    def positions(self) -> Mapping[str, bytes]:
        """The source's named positions as they were durable at start (names relative to the source)."""
        ...

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Add to the source's metric `name`, declared with `counters.declare` and a first label `source`.

        `labels` are the metric's further labels. A gauge may be added a negative `n`.
        """
        ...


class SourceError(Exception):
    """A source cannot go on: `str()` says what was expected and found, `remedy` what to do about it.

    The runtime shows both in the source's status, and starts the source again with backoff.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class Source(Protocol):
    """A connection to the outside, run in an event loop of its own; `run` is called again after it raised.

    Cancelled while it serves, it stops reading, awaits `intake.drained()`, writes the acknowledgements that
    came of it, closes its connections, and lets the cancellation pass.
    """

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        """Serve until cancelled. Calls `started(address)` once it accepts or is connected."""
        ...
