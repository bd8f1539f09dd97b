"""The log's own state: streams, positions, producers, lineage, ledger; a fold over control frames.

Everything here is rebuilt from frames: records of the control stream (MessagePack) and the headers of ordinary
frames. `ControlState` holds what is durable; `checkpoints.py` keeps copies of it so that old segments may go.
Applying the same group twice changes nothing, which recovery relies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import msgspec
import pyarrow as pa

from ringmain.log.builtin import (
    ACCOUNTS_ID,
    CATALOGUE_ID,
    CONTROL_ID,
    FIRST_USER_ID,
    LEDGER_ID,
    STREAMS,
    LedgerKind,
)
from ringmain.log.codec import Layout
from ringmain.log.frames import FLAG_CLOSING, FrameHeader, GroupHeader, lsn_of, offset_of
from ringmain.log.interface import (
    Frame,
    Position,
    PositionGoneError,
    Stream,
    StreamKind,
    StreamState,
    UnknownStreamError,
)
from ringmain.log.ledger.entries import (
    LEDGER_ENTRIES_MAX,
    LedgerEntry,
    compacted,
    entries_of,
    instant_ns,
    shown,
)
from ringmain.log.ledger.fold import AccountFold
from ringmain.log.ledger.row import AccountRow, decode_account


class StreamDefined(msgspec.Struct, frozen=True, tag="stream"):
    """A stream and its schema (Arrow IPC schema message)."""

    id: int
    name: str
    kind: int
    schema_id: int
    schema: bytes


class Claimed(msgspec.Struct, frozen=True, tag="claim"):
    """`name` has a new owner."""

    name: str
    producer: int
    fence: int
    epoch: int


class Moved(msgspec.Struct, frozen=True, tag="positions"):
    """Named positions after this append; None: removed."""

    values: dict[str, bytes | None]


class Opened(msgspec.Struct, frozen=True, tag="open"):
    """The log was opened for writing. `kept_lsn`: the last lsn of the incarnation before that is still valid.

    `origin`: why the incarnation is a new one, where a person decided it (a restored backup).
    """

    incarnation: int
    first_lsn: int
    kept_lsn: int
    wall_ns: int
    writer: str
    origin: str = ""


class ClockStepped(msgspec.Struct, frozen=True, tag="clock"):
    """The wall clock moved by other than the time that passed. `segment` counts such steps."""

    segment: int
    expected_ns: int
    found_ns: int


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """Retention removed every frame up to and including `offset`; `streams`: the last one that went of each.

    `accounts`: the last account row of each source and epoch among them with its lsn, in the order of the log.
    """

    offset: int
    streams: dict[int, int]
    accounts: list[tuple[int, AccountRow]] = []


Record = StreamDefined | Claimed | Moved | Opened | ClockStepped | Removed
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a record raises where its bytes are none: of text that is no UTF-8, msgspec passes on Python's word."""


_BUILTIN_LAYOUTS = {stream.id: Layout(stream.schema) for stream in STREAMS}


class Producer(msgspec.Struct):
    """A claimed name: who owns it, and the newest append of its epoch and of epoch 0."""

    name: str
    id: int
    fence: int
    epoch: int
    sequence: int = -1
    digest: int = 0
    offset: int = 0
    arrival_ns: int = 0
    zero_sequence: int = -1
    zero_digest: int = 0
    zero_offset: int = 0
    zero_arrival_ns: int = 0

    def last(self, epoch: int) -> tuple[int, int, int, int]:
        """(sequence, digest, offset, arrival) of the newest append of an epoch; sequence -1: none known."""
        if epoch == self.epoch:
            return self.sequence, self.digest, self.offset, self.arrival_ns
        if epoch == 0:
            return self.zero_sequence, self.zero_digest, self.zero_offset, self.zero_arrival_ns
        return -1, 0, 0, 0

    def own(self, fence: int, epoch: int) -> None:
        """A new claim: what epoch 0 appended is remembered across claims with other epochs."""
        self.fence = fence
        if epoch != self.epoch:
            self.sequence, self.digest, self.offset, self.arrival_ns = self.last(epoch)
            self.epoch = epoch

    def appended(self, epoch: int, sequence: int, digest: int, offset: int, arrival_ns: int) -> None:
        """An append of this producer, if it is newer than what is known."""
        if epoch == self.epoch and sequence > self.sequence:
            self.sequence, self.digest, self.offset, self.arrival_ns = sequence, digest, offset, arrival_ns
        if epoch == 0 and sequence > self.zero_sequence:
            self.zero_sequence, self.zero_digest = sequence, digest
            self.zero_offset, self.zero_arrival_ns = offset, arrival_ns


class StreamCounts(msgspec.Struct):
    """What was ever appended to a stream, and up to where its frames have been removed."""

    rows: int = 0
    frames: int = 0
    last_offset: int = -1
    last_incarnation: int = 0
    last_arrival_ns: int = 0
    removed_offset: int = -1


class Incarnation(msgspec.Struct):
    """A stretch of the log in which continuity is proved. `last_lsn`: -1 while it lasts; `origin`: as in `Opened`."""

    id: int
    first_lsn: int
    last_lsn: int = -1
    origin: str = ""


@dataclass(slots=True)
class StreamEntry:
    """A stream as the state keeps it."""

    stream: Stream
    layout: Layout
    schema_id: int
    counts: StreamCounts

    def frame(
        self, header: FrameHeader, body: memoryview, position: Position, arrival_ns: int, clock_state: int
    ) -> Frame | None:
        """A stored frame of this stream as readers see it; None where its body does not check out."""
        rows = self.layout.decode(header, body)
        if rows is None:
            return None
        return Frame(
            self.stream.name,
            position,
            arrival_ns,
            header.origin_arrival_ns,
            header.producer,
            header.epoch,
            header.sequence,
            header.rows,
            header.time_min_ns,
            header.time_max_ns,
            header.cumulative_rows,
            rows,
            clock_state,
        )


def producer_id(name: str) -> int:
    """The u64 of a producer in frame headers: the first 8 bytes of BLAKE2b of its name, the same in every log."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


class ControlState:
    """The durable state. Not locked: `store.py` changes it under its lock."""

    def __init__(self) -> None:
        self.lsn = 0
        self.arrival_ns = 0
        self.clock_segment = 0
        self.series_count = 0
        self.removed_offset = -1
        self.next_stream_id = FIRST_USER_ID
        self.streams: dict[str, StreamEntry] = {}
        self.by_id: dict[int, StreamEntry] = {}
        self.positions: dict[str, bytes] = {}
        self.producers: dict[str, Producer] = {}
        self.producers_by_id: dict[int, Producer] = {}
        self.lineage: list[Incarnation] = []
        self.ledger: list[LedgerEntry] = []
        self.ledger_offset = -1
        self.accounts = AccountFold()
        for stream in STREAMS:
            entry = StreamEntry(stream, _BUILTIN_LAYOUTS[stream.id], stream.id, StreamCounts())
            self.streams[stream.name] = self.by_id[stream.id] = entry

    def add_stream(self, stream: Stream, schema_id: int) -> StreamEntry:
        """Make the stream known; one that is known already stays as it is."""
        known = self.streams.get(stream.name)
        if known is not None:
            return known
        entry = StreamEntry(stream, Layout(stream.schema), schema_id, StreamCounts())
        self.streams[stream.name] = entry
        self.by_id[stream.id] = entry
        self.next_stream_id = max(self.next_stream_id, stream.id + 1)
        return entry

    def entry(self, name: str) -> StreamEntry:
        """The stream of that name. Raises UnknownStreamError."""
        entry = self.streams.get(name)
        if entry is None:
            raise UnknownStreamError(f"no stream {name!r}; there are: {', '.join(sorted(self.streams))}")
        return entry

    def apply_record(self, data: bytes, group: GroupHeader) -> bool:
        """Apply a control record; False if the bytes are none."""
        try:
            record = _DECODER.decode(data)
        except UNREADABLE:
            return False
        match record:
            case StreamDefined():
                try:
                    schema = pa.ipc.read_schema(pa.py_buffer(record.schema))
                    kind = StreamKind(record.kind)
                except (pa.ArrowException, ValueError, OSError):
                    return False
                self.add_stream(Stream(record.name, kind, schema, record.id), record.schema_id)
            case Claimed():
                self.claimed(record)
            case Moved():
                for name, value in record.values.items():
                    if value is None:
                        self.positions.pop(name, None)
                    else:
                        self.positions[name] = value
            case Opened():
                self.opened(record)
            case ClockStepped():
                self.clock_segment = record.segment
            case Removed():
                self.removed(record)
        return True

    def removed(self, record: Removed) -> None:
        """Frames are gone."""
        if record.offset > self.removed_offset:
            self.accounts.remove(record.accounts)
        self.removed_offset = max(self.removed_offset, record.offset)
        for stream_id, offset in record.streams.items():
            entry = self.by_id.get(stream_id)
            if entry is not None:
                entry.counts.removed_offset = max(entry.counts.removed_offset, offset)

    def claimed(self, record: Claimed) -> None:
        """A claim became durable."""
        producer = self.producers.get(record.name)
        if producer is None:
            producer = Producer(record.name, record.producer, record.fence, record.epoch)
            self.producers[record.name] = producer
            self.producers_by_id[record.producer] = producer
        elif record.fence > producer.fence:
            producer.own(record.fence, record.epoch)

    def opened(self, record: Opened) -> None:
        """The log was opened, perhaps as a new incarnation."""
        if self.lineage and self.lineage[-1].id == record.incarnation:
            return
        if any(known.id == record.incarnation for known in self.lineage):
            return
        if self.lineage:
            self.lineage[-1].last_lsn = record.kept_lsn
        self.lineage.append(Incarnation(record.incarnation, record.first_lsn, origin=record.origin))

    def apply_headers(self, group: GroupHeader, frames: list[FrameHeader]) -> None:
        """Count the frames of a durable group, and remember its producer's identity."""
        if group.lsn <= self.lsn:
            return
        self.lsn = group.lsn
        if group.flags & FLAG_CLOSING:
            self.accounts.closed()
        self.arrival_ns = max(self.arrival_ns, group.arrival_ns)
        self.clock_segment = max(self.clock_segment, group.clock_state & 0x7FFF)
        by_id = self.by_id
        for number, frame in enumerate(frames):
            if frame.catalogue_position > self.series_count:
                self.series_count = frame.catalogue_position
            entry = by_id.get(frame.stream)
            if entry is None:
                continue
            counts = entry.counts
            counts.rows = frame.cumulative_rows
            counts.frames += 1
            counts.last_offset = offset_of(group.lsn, number)
            counts.last_incarnation = group.incarnation
            counts.last_arrival_ns = group.arrival_ns
        if frames:
            last = frames[-1]
            producer = self.producers_by_id.get(last.producer)
            if producer is not None:
                offset = offset_of(group.lsn, len(frames) - 1)
                producer.appended(last.epoch, last.sequence, group.digest, offset, group.arrival_ns)

    def apply_ledger(self, rows: pa.RecordBatch, offset: int) -> None:
        """Take over the rows of a ledger frame."""
        if offset <= self.ledger_offset:
            return
        self.ledger_offset = offset
        entries = entries_of(rows)
        self.ledger += entries
        for entry in entries:
            if entry.kind == LedgerKind.UNKNOWN and entry.source is not None:
                self.accounts.told_unknown(entry.source, instant_ns(entry.end) or 0)
        if len(self.ledger) > LEDGER_ENTRIES_MAX:
            self.ledger = compacted(self.ledger, LEDGER_ENTRIES_MAX)

    def apply_account(self, frame: FrameHeader, data: bytes, arrival_ns: int) -> bool:
        """Take over the row of an account frame; False if the bytes are none, or another source's."""
        row = decode_account(data)
        if row is None or self.source_of(frame.producer) not in (row.source, None):
            return False
        self.accounts.apply(row, arrival_ns)
        return True

    def source_of(self, producer: int | None) -> str | None:
        """The name that ledger and accounts have for a producer: its claim, for sources without `source/`."""
        known = None if producer is None else self.producers_by_id.get(producer)
        return None if known is None else known.name.removeprefix("source/")

    def ledger_shown(self) -> list[LedgerEntry]:
        """Every entry of the ledger, those of counted messages among them, joined where they are many.

        Works on a copy, made at once: needs no lock, so that nobody who appends waits for it.
        """
        return shown(self.ledger.copy() + self.accounts.counted.copy())

    def check_position(self, position: Position, streams: list[StreamEntry]) -> int:
        """The offset to read after. Raises PositionGoneError when frames behind it are gone or it diverged."""
        if position.offset < 0:
            return -1
        for place, known in enumerate(self.lineage):
            if known.id != position.incarnation:
                continue
            if known.last_lsn >= 0 and lsn_of(position.offset) > known.last_lsn:
                origin = self.lineage[place + 1].origin if place + 1 < len(self.lineage) else ""
                raise PositionGoneError(
                    f"position {position}: incarnation {known.id:016x} of the log ended at lsn {known.last_lsn}; what came "
                    "behind it was lost, and the log went on under a new incarnation"
                    f"{f', {origin}' if origin else ''}: choose where to read on"
                )
            break
        else:
            raise PositionGoneError(
                f"position {position}: incarnation {position.incarnation:016x} is not one of this log: "
                "it belongs to another log, or to a copy that diverged"
            )
        for entry in streams:
            removed = entry.counts.removed_offset
            if removed > position.offset:
                raise PositionGoneError(
                    f"position {position}: frames of stream {entry.stream.name} behind it were removed by retention "
                    f"(up to lsn {lsn_of(removed)}): read from the start of what is kept"
                )
        return position.offset

    def stream_states(self) -> list[StreamState]:
        """Every stream with its counts, by name."""
        states = []
        for name in sorted(self.streams):
            entry = self.streams[name]
            counts = entry.counts
            last = (
                Position(counts.last_incarnation, 0, counts.last_offset) if counts.last_offset >= 0 else None
            )
            states.append(StreamState(entry.stream, counts.rows, counts.frames, last, counts.last_arrival_ns))
        return states

    def incarnation_at(self, lsn: int) -> int:
        """The incarnation that a group of that lsn belongs to."""
        found = 0
        for known in self.lineage:
            if known.first_lsn > lsn:
                break
            found = known.id
        return found


def decode_claim(data: bytes) -> Claimed | None:
    """The claim in a control record's bytes, if it is one."""
    try:
        record = _DECODER.decode(data)
    except UNREADABLE:
        return None
    return record if isinstance(record, Claimed) else None


def needs_body(frame: FrameHeader) -> bool:
    """Whether applying a frame to the state needs its body."""
    return frame.stream in (CONTROL_ID, CATALOGUE_ID, LEDGER_ID, ACCOUNTS_ID)
