"""Copies of the control state and the catalogue, so that reopening is quick and old segments may go.

A checkpoint is one file, `state-N.ckp` or `catalogue-N.ckp`, N counting up: a 64-byte header with the lsn up to
which it holds everything, and a body, each with a CRC. Files are published by rename; the two newest of each
are kept, so that one that does not check out only means a longer replay.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
from crc32c import crc32c

from ringmain.log.codec import Layout
from ringmain.log.control import (
    ControlState,
    Incarnation,
    Producer,
    StreamCounts,
    StreamDefined,
    StreamEntry,
)
from ringmain.log.files import FileSystem, publish_file, read_file
from ringmain.log.frames import VERSION, NewerFormatError, newer_format
from ringmain.log.interface import Stream, StreamKind
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.ledger.fold import AccountFold
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import SERIES

_MAGIC = 0x544E504B43474E52
_HEADER = struct.Struct("<QHHIQQQI20x")
_NAME = re.compile(r"(state|catalogue)-([0-9a-f]{12})\.ckp")
STATE = "state"
CATALOGUE = "catalogue"
_KEPT = 2


class _StateBody(msgspec.Struct):
    """The body of a state checkpoint (MessagePack)."""

    arrival_ns: int
    clock_segment: int
    series_count: int
    streams: list[tuple[StreamDefined, StreamCounts]]
    positions: dict[str, bytes]
    producers: list[Producer]
    lineage: list[Incarnation]
    ledger: list[LedgerEntry]
    ledger_offset: int
    end_offset: int
    end_incarnation: int
    removed_offset: int
    accounts: AccountFold = msgspec.field(default_factory=AccountFold)


_STATE_DECODER = msgspec.msgpack.Decoder(_StateBody)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint file that checks out."""

    kind: str
    number: int
    lsn: int
    incarnation: int
    body: bytes


def encode_state(state: ControlState, end_offset: int, end_incarnation: int) -> bytes:
    """The state as the body of a checkpoint."""
    streams = []
    for entry in state.streams.values():
        stream = entry.stream
        schema = stream.schema.serialize().to_pybytes()
        streams.append(
            (StreamDefined(stream.id, stream.name, stream.kind, entry.schema_id, schema), entry.counts)
        )
    return msgspec.msgpack.encode(
        _StateBody(
            state.arrival_ns,
            state.clock_segment,
            state.series_count,
            streams,
            state.positions,
            list(state.producers.values()),
            state.lineage,
            state.ledger,
            state.ledger_offset,
            end_offset,
            end_incarnation,
            state.removed_offset,
            state.accounts,
        )
    )


def restore_state(checkpoint: Checkpoint) -> tuple[ControlState, int, int] | None:
    """(state, end offset, end incarnation) of a state checkpoint; None if its body cannot be read."""
    try:
        body = _STATE_DECODER.decode(checkpoint.body)
        state = ControlState()
        for defined, counts in body.streams:
            schema = pa.ipc.read_schema(pa.py_buffer(defined.schema))
            stream = Stream(defined.name, StreamKind(defined.kind), schema, defined.id)
            known = state.by_id.get(defined.id)
            layout = (
                known.layout if known is not None and known.layout.schema.equals(schema) else Layout(schema)
            )
            entry = StreamEntry(stream, layout, defined.schema_id, counts)
            state.streams[defined.name] = entry
            state.by_id[defined.id] = entry
            state.next_stream_id = max(state.next_stream_id, defined.id + 1)
    except (msgspec.MsgspecError, pa.ArrowException, ValueError, OSError):
        return None
    state.lsn = checkpoint.lsn
    state.arrival_ns = body.arrival_ns
    state.clock_segment = body.clock_segment
    state.series_count = body.series_count
    state.positions = body.positions
    state.producers = {producer.name: producer for producer in body.producers}
    state.producers_by_id = {producer.id: producer for producer in body.producers}
    state.lineage = body.lineage
    state.ledger = body.ledger
    state.ledger_offset = body.ledger_offset
    state.removed_offset = body.removed_offset
    state.accounts = body.accounts
    return state, body.end_offset, body.end_incarnation


def encode_catalogue(catalogue: Catalogue) -> bytes:
    """The catalogue as the body of a checkpoint: an Arrow IPC stream of schema `SERIES`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SERIES) as stream:
        for batch in catalogue.to_batches():
            stream.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def restore_catalogue(checkpoint: Checkpoint, catalogue: Catalogue) -> bool:
    """Fill an empty catalogue; False if the body cannot be read."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(checkpoint.body)) as stream:
            for batch in stream:
                catalogue.apply(batch)
    except (pa.ArrowException, ValueError, OSError, KeyError):
        return False
    return True


def pack_checkpoint(lsn: int, incarnation: int, body: bytes) -> list[bytes]:
    """A checkpoint file's header and body: everything up to the lsn, of a log in that incarnation."""
    header = _HEADER.pack(_MAGIC, VERSION, 0, 0, lsn, incarnation, len(body), crc32c(body))
    return [header[:12] + struct.pack("<I", crc32c(header)) + header[16:], body]


def checkpoint_name(kind: str, number: int) -> str:
    """The name of the checkpoint file of that kind and number."""
    return f"{kind}-{number:012x}.ckp"


class Checkpoints:
    """The checkpoint files of a log. Written by one thread at a time."""

    def __init__(self, fs: FileSystem, directory: Path) -> None:
        self._fs = fs
        self._directory = directory
        self.lsns: dict[str, list[int]] = {STATE: [], CATALOGUE: []}
        self._unreadable: dict[str, set[int]] = {STATE: set(), CATALOGUE: set()}
        self._disowned: set[tuple[str, int]] = set()

    def _numbers(self, kind: str) -> list[int]:
        found = (_NAME.fullmatch(name) for name in self._fs.list_directory(self._directory))
        return sorted(int(match[2], 16) for match in found if match is not None and match[1] == kind)

    def _path(self, kind: str, number: int) -> Path:
        return self._directory / checkpoint_name(kind, number)

    def write(self, kind: str, lsn: int, incarnation: int, body: bytes) -> None:
        """Publish a checkpoint and remove all but the newest two that check out of its kind. Raises OSError."""
        numbers = self._numbers(kind)
        number = (numbers[-1] if numbers else 0) + 1
        publish_file(self._fs, self._path(kind, number), pack_checkpoint(lsn, incarnation, body))
        self.lsns[kind] = [*self.lsns[kind], lsn][-_KEPT:]
        damaged = self._unreadable[kind].intersection(numbers)
        sound = [one for one in numbers if one not in damaged]
        for old in (*damaged, *sound[: 1 - _KEPT]):
            with contextlib.suppress(OSError):
                self._fs.remove(self._path(kind, old))

    def load(self, kind: str) -> list[Checkpoint]:
        """The checkpoints of a kind that check out, newest first. Raises NewerFormatError."""
        while True:
            numbers = self._numbers(kind)
            read = {
                number: None if (kind, number) in self._disowned else self.read(kind, number)
                for number in reversed(numbers)
            }
            loaded = [one for one in read.values() if one is not None]
            if loaded or self._numbers(kind) == numbers:
                break
            # the writer has replaced every one of them while another process read
        self._unreadable[kind] = {number for number, one in read.items() if one is None}
        self.lsns[kind] = [checkpoint.lsn for checkpoint in reversed(loaded)][-_KEPT:]
        return loaded

    def disown(self, ahead: Iterable[Checkpoint]) -> None:
        """These hold what the log has lost: they are not loaded any more, and go with the next that is written."""
        self._disowned.update((one.kind, one.number) for one in ahead)

    def owned(self, loaded: Iterable[Checkpoint]) -> list[Checkpoint]:
        """Those of them that are not disowned."""
        return [one for one in loaded if (one.kind, one.number) not in self._disowned]

    def read(self, kind: str, number: int) -> Checkpoint | None:
        """One checkpoint; None if it is missing or does not check out. Raises NewerFormatError."""
        try:
            raw = read_file(self._fs, self._path(kind, number))
        except (OSError, ValueError):
            return None
        if len(raw) < _HEADER.size:
            return None
        magic, version, _, crc, lsn, incarnation, length, body_crc = _HEADER.unpack_from(raw)
        header = raw[:12] + b"\0\0\0\0" + raw[16 : _HEADER.size]
        if magic != _MAGIC or crc32c(header) != crc:
            return None
        if version > VERSION:
            raise NewerFormatError(newer_format(version))
        body = raw[_HEADER.size :]
        if len(body) != length or crc32c(body) != body_crc:
            return None
        return Checkpoint(kind, number, lsn, incarnation, body)

    def damaged(self) -> list[str]:
        """Names of checkpoint files that do not check out."""
        return [
            self._path(kind, number).name
            for kind in (STATE, CATALOGUE)
            for number in self._numbers(kind)
            if self.read(kind, number) is None
        ]

    def safe_lsn(self, kind: str) -> int:
        """Up to here two checkpoints of the kind hold everything; 0 when there are not two."""
        return min(self.lsns[kind]) if len(self.lsns[kind]) == _KEPT else 0
