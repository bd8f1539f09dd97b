"""The `Log` interface: what every engine promises, and nothing that a socket or Kafka could not offer.

A log keeps streams of batches. `append` writes several batches to several streams, with positions, all or
nothing, and answers when they are durable. `read` yields what is durable, in log order, from a position on.
The embedded journal (`journal.py`) is the first engine; one contract suite (`tests/log/contract.py`) runs
over every engine.

Vocabulary
    batch       an Arrow record batch on its way into one stream
    frame       a batch as stored: one stream, one producer, one arrival time
    group       the frames of one append: atomic
    lsn         log sequence number of a group, dense within an incarnation
    position    where a reader is: opaque, only ever compared for equality or handed back
    claim       ownership of a named position; a later claim of the same name fences the earlier one
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import msgspec
import pyarrow as pa

from ringmain.log.ledger.row import AccountRow
from ringmain.model.catalogue import Catalogue

GROUP_BYTES_MAX = 4 * 1024 * 1024
FRAME_BYTES_MAX = 900 * 1024
PRODUCERS_MAX = 65_536


class StreamKind(IntEnum):
    """What the frames of a stream hold. Stored in each frame header."""

    READING = 1
    EVENT = 2
    ROW = 3
    CONTROL = 4


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's definition. `schema` has a `series` uint32 field where its rows belong to series."""

    name: str
    kind: StreamKind
    schema: pa.Schema
    id: int = 0


@dataclass(frozen=True, slots=True)
class StreamState:
    """What `streams()` tells of a stream: rows and frames ever appended, and the newest durable position."""

    stream: Stream
    rows: int
    frames: int
    last: Position | None
    last_arrival_ns: int


class Position(msgspec.Struct, frozen=True):
    """Names a frame: (incarnation, partition, offset). Opaque and batch-granular: no arithmetic on it."""

    incarnation: int
    partition: int
    offset: int

    def __str__(self) -> str:
        """Text form, accepted by `parse`."""
        return f"{self.incarnation:016x}-{self.partition:x}-{self.offset:x}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `str()` printed. Raises ValueError for anything else."""
        parts = text.split("-")
        if len(parts) != 3:
            raise ValueError(f"expected INCARNATION-PARTITION-OFFSET in hexadecimal, found {text!r}")
        incarnation, partition, offset = (int(part, 16) for part in parts)
        return cls(incarnation, partition, offset)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one stream. `origin_arrival_ns` is kept by derived frames; None: the log's arrival time.

    An `AccountRow` is for stream `accounts`, at most one an append.
    """

    stream: str
    rows: pa.RecordBatch | AccountRow
    origin_arrival_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Ownership of position `name` and of every position below `name + "/"`.

    `fence` grows with each claim of the name. `epoch` and `sequence` identify the claimant's appends;
    `last_sequence` is the highest sequence of `epoch` that the log holds (None: none yet), and
    `positions` are the named positions below the claim at the time of claiming.
    """

    name: str
    fence: int
    epoch: int
    last_sequence: int | None = None
    positions: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to an append, once durable. `duplicate`: the same identity was durable before; nothing new written."""

    position: Position | None
    arrival_ns: int
    duplicate: bool = False


class Frame(msgspec.Struct, frozen=True):
    """A stored batch as a reader sees it. `rows` has the stream's schema (series as ids).

    `clock_state` changes in its low 15 bits with each step of the wall clock; timers restart there.
    """

    stream: str
    position: Position
    arrival_ns: int
    origin_arrival_ns: int
    producer: int
    epoch: int
    sequence: int
    row_count: int
    time_min_ns: int
    time_max_ns: int
    cumulative_rows: int
    rows: pa.RecordBatch
    clock_state: int = 0


class LogError(Exception):
    """Base of everything that a log refuses or fails with."""


class LogLockedError(LogError):
    """Another process holds the log's lock."""


class LogFullError(LogError):
    """No space. Nothing of the append is stored; the same append may be tried again later."""


class LogFailedError(LogError):
    """The device failed. Nothing was acknowledged; the same append may be tried again."""


class LogClosedError(LogError):
    """The log was closed."""


class FencedError(LogError):
    """A newer claim of the same name exists: this claimant must stop."""


class ConflictError(LogError):
    """Same producer, epoch and sequence with another body: a cloned or restored box. Kept in `conflicts`."""


class TooLargeError(LogError):
    """An append or frame exceeds its limit; the message names the limit."""


class UnknownStreamError(LogError):
    """No such stream."""


class PositionGoneError(LogError):
    """The position's segment has been removed by retention, or belongs to an incarnation that diverged."""


Done = Callable[["Appended | None", "LogError | None"], None]


class LogReader(Protocol):
    """What whoever only reads gets; opening one never writes."""

    def streams(self) -> list[StreamState]:
        """Every stream with its counts, durable ones only, by name."""
        ...

    def read(
        self,
        streams: str | Sequence[str],
        after: Position | None = None,
        until: Position | None = None,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
        time_min_ns: int | None = None,
        time_max_ns: int | None = None,
        series: int | None = None,
    ) -> Iterator[Frame]:
        """Durable frames of the streams in log order, strictly after `after` and up to and including `until`.

        `follow=True` waits for more (ends when `timeout_s` passes without a frame, or the log closes).
        `time_min_ns`/`time_max_ns` skip frames whose time range lies wholly outside (inclusive bounds).
        `series` skips frames that hold no row of that series id, as far as that is cheap to know: others may come too,
        and some do now and then, so that whoever reads can stop.
        Damaged ranges are skipped (they are in the ledger). Raises UnknownStreamError, PositionGoneError.
        """
        ...

    def end(self) -> Position | None:
        """The position of the newest durable frame of any stream; None in an empty log."""
        ...

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """The newest position whose arrival is before `arrival_ns`: `read(after=it)` starts at that time."""
        ...

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """Named positions whose name starts with `prefix`."""
        ...

    def catalogue(self) -> Catalogue:
        """The series catalogue as far as it is durable; the same object on each call."""
        ...

    def ledger(self) -> pa.RecordBatch:
        """The ledger, entries whose frames retention has removed included (schema of stream `ledger`).

        Entries that are alike are joined by minute, older ones by hour or day; dead letters and dropped messages, which
        the sources' accounts tell of, are among them.
        """
        ...

    def close(self) -> None:
        """Release files. Idempotent."""
        ...


class Log(LogReader, Protocol):
    """The one writer of a log."""

    def create_stream(self, name: str, kind: StreamKind, schema: pa.Schema) -> Stream:
        """Create or return the stream; the same name with another kind or schema raises LogError."""
        ...

    def claim(self, name: str, epoch: int | None = None) -> Claim:
        """Own `name`, fencing an earlier owner. `epoch=None` draws 64 random bits. Durable on return."""
        ...

    def append(
        self,
        batches: Sequence[Batch],
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> Appended:
        """Append all or nothing; returns when durable.

        `sequence` identifies the append within the claim's epoch and must grow (gaps are allowed): a repeat is
        answered as duplicate without a second copy. Names in `positions` are `claim.name` or lie below it; None
        removes. Raises TooLargeError, FencedError, ConflictError, UnknownStreamError, LogFullError, LogFailedError.
        """
        ...

    def append_nowait(
        self,
        batches: Sequence[Batch],
        done: Done,
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """As `append`, but calls `done(appended, error)` exactly once, in append order, on a thread of the log.

        `done` must not block; calls that wait for the log raise LogError in it. Appends become durable in the order
        of these calls: when one fails, those of its claim with higher sequences that were handed over before this
        was told (by another thread than `done`'s: before `done` had returned) fail as well, so that all of them can
        be sent again, in order.
        """
        ...

    def on_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back (on a thread of the log, coalesced) when more became durable; returns the unsubscriber."""
        ...

    def retain(self, *, age_ns: int | None = None, size_bytes: int | None = None) -> int:
        """Remove whole oldest segments beyond the limits; returns how many. The active segment stays."""
        ...
