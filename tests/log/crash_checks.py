"""What a history of appends knows, and what must hold of a disk that a power cut left of it.

`check` opens such a disk and compares: everything acknowledged is there once, in order, whole, at its position; the
rest wholly or not at all; positions are those of the data; every row is readable or in the ledger; a torn tail has an
entry; and a power cut right behind takes nothing that could be read.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.control import producer_id
from ringmain.log.frames import SEGMENT_HEADER_BYTES, lsn_of, read_segment_header
from ringmain.log.interface import (
    Batch,
    ConflictError,
    Frame,
    Position,
)
from ringmain.log.journal import Journal
from ringmain.log.segments import Damage, segment_numbers, segment_path, walk
from ringmain.testing import SimulatedClock, SimulatedDisk
from tests.log.batches import notes, reading_batch

DIRECTORY = Path("log")
PRODUCERS = ("a", "b")
NAMES = {producer_id(name): name for name in PRODUCERS}
STREAMS = ("readings", "notes")
_MISSING = {LedgerKind.EVICTED, LedgerKind.QUARANTINED, LedgerKind.LOST}


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """An append: everything in it follows from this."""

    producer: str
    epoch: int
    sequence: int

    @property
    def draw(self) -> int:
        return crc32(f"{self.producer} {self.epoch} {self.sequence}".encode())

    def batches(self, changed: int = 0) -> list[Batch]:
        """Readings, notes, or both. `changed`: another body under the same identity."""
        draw = self.draw
        batches = []
        if draw % 4 != 0:
            batches.append(reading_batch(1 + draw % 37, value=draw % 1_000 + changed))
        if draw % 3 != 1 or not batches:
            batches.append(Batch("notes", notes(*[f"{draw + changed} {n}" for n in range(1 + draw % 3)])))
        return batches

    def positions(self) -> dict[str, bytes | None] | None:
        """What the append moves its producer's position to; now and then nothing, or it is removed."""
        if self.draw % 5 == 0:
            return None
        value = None if self.draw % 17 == 0 else f"{self.epoch} {self.sequence}".encode()
        return {f"{self.producer}/at": value}


@dataclass(slots=True)
class Known:
    """What whoever uses the log knows."""

    sent: set[Identity] = field(default_factory=set)
    acknowledged: list[tuple[Identity, int]] = field(default_factory=list)
    seen: dict[tuple[str, int], Identity] = field(default_factory=dict)
    full: bool = False
    """The disk was full at some time: what retention removed then could not be written down before it went."""


@dataclass(slots=True)
class Point:
    """A moment at which the power may go: `told` of the acknowledgements had been given, `end` could be read."""

    number: int
    call: str
    disk: SimulatedDisk
    told: int
    end: Position | None


def identity_of(frame: Frame) -> Identity:
    """The append that a frame belongs to."""
    return Identity(NAMES[frame.producer], frame.epoch, frame.sequence)


def _frames(log: Journal) -> list[Frame]:
    known = {state.stream.name for state in log.streams()}
    return list(log.read([name for name in STREAMS if name in known]))


def check(point: Point, known: Known, disk: SimulatedDisk) -> SimulatedDisk:
    """Open the disk that a power cut at the point left; returns it as it was found. Raises AssertionError."""
    found = disk.copy()
    torn = _torn_segment(disk)
    shown: list[Position] = []
    if found.contents():
        with open_reader(DIRECTORY, fs=disk.copy()) as reader:
            shown = [frame.position for frame in reader.read("readings")]
    log = open_log(DIRECTORY, fs=disk, clock=SimulatedClock())
    try:
        frames = _frames(log)
        end = log.end()
        _check_contents(log, frames, known, point.told)
        if torn:
            reasons = [row["reason"] for row in _entries(log) if row["kind"] == LedgerKind.CUT]
            assert any(f"segment {torn}," in reason for reason in reasons), (
                "a torn tail without a ledger entry"
            )
        gone = max([0, *(one.offset for one in _removed_up_to(log, "readings"))])
        assert {one for one in shown if one.offset > gone} <= {one.position for one in frames}, (
            "another process could read what the writer's recovery took away again"
        )
        if point.end is not None:
            assert end is not None
            assert point.end.incarnation == end.incarnation
            assert point.end.offset <= end.offset, "something could be read that a power cut took away again"
        # what was just read must be there after a power cut that comes now
        again = disk.after_power_cut()
    finally:
        disk.off = True
        log.close()
    log = open_log(DIRECTORY, fs=again, clock=SimulatedClock())
    try:
        kept = {(frame.stream, frame.position): frame.sequence for frame in _frames(log)}
        assert kept == {(frame.stream, frame.position): frame.sequence for frame in frames}, (
            "a power cut right after an opening took what had been read"
        )
        _check_identities(log, frames)
    finally:
        again.off = True
        log.close()
    return found


def _removed_up_to(log: Journal, stream: str) -> list[Position]:
    kinds = {LedgerKind.EVICTED}
    return [
        Position.parse(row["to"]) for row in _entries(log) if row["stream"] == stream and row["kind"] in kinds
    ]


def _entries(log: Journal) -> list[dict[str, Any]]:
    columns = ["kind", "stream", "from", "to", "rows", "reason"]
    entries: list[dict[str, Any]] = log.ledger().select(columns).to_pylist()
    return entries


def _torn_segment(disk: SimulatedDisk) -> int:
    """The number of the newest segment if bytes at its end are no whole group; else 0."""
    for number in reversed(segment_numbers(disk, DIRECTORY)):
        raw = disk.contents()[segment_path(DIRECTORY, number)]
        header = read_segment_header(raw)
        if header is not None:
            handle = disk.open_existing(segment_path(DIRECTORY, number))
            found = walk(disk, handle, SEGMENT_HEADER_BYTES, len(raw), after_lsn=header.first_lsn - 1)
            torn = any(isinstance(one, Damage) and any(raw[one.at : one.end]) for one in found)
            disk.close(handle)
            return number if torn else 0
    return 0


def _check_contents(log: Journal, frames: list[Frame], known: Known, told: int) -> None:
    offsets = [frame.position.offset for frame in frames]
    assert offsets == sorted(set(offsets))
    stored: dict[Identity, dict[str, Frame]] = {}
    newest: dict[tuple[str, int], int] = {}
    for frame in frames:
        identity = identity_of(frame)
        assert identity in known.sent
        parts = stored.setdefault(identity, {})
        if not parts:
            before = newest.get((identity.producer, identity.epoch), -1)
            assert identity.sequence > before, f"{identity} is behind {before}"
            newest[identity.producer, identity.epoch] = identity.sequence
        assert frame.stream not in parts, f"{identity} is stored twice"
        parts[frame.stream] = frame
        at = (frame.stream, frame.position.offset)
        assert known.seen.get(at, identity) == identity, f"position {frame.position} was given out twice"
    for identity, parts in stored.items():
        expected = {batch.stream: batch.rows for batch in identity.batches()}
        assert parts.keys() == expected.keys(), f"{identity} is there in part"
        for stream, frame in parts.items():
            assert frame.rows.equals(expected[stream]), f"{identity} is not what was appended"
    _check_ledger(log, frames, stored, known.acknowledged[:told], known.full)
    _check_positions(log, list(stored))


def _check_ledger(
    log: Journal,
    frames: list[Frame],
    stored: dict[Identity, dict[str, Frame]],
    told: list[tuple[Identity, int]],
    full: bool,
) -> None:
    entries = _entries(log)
    known = {LedgerKind.CUT, LedgerKind.EVICTED, LedgerKind.CONFLICT}
    assert {entry["kind"] for entry in entries} <= known | ({LedgerKind.LOST} if full else set()), entries
    lost = [
        lsn_of(Position.parse(entry["to"]).offset) for entry in entries if entry["kind"] == LedgerKind.LOST
    ]
    evicted = dict.fromkeys(STREAMS, 0)
    missing = dict.fromkeys(STREAMS, 0)
    for entry in entries:
        if entry["stream"] in evicted and entry["kind"] in _MISSING:
            stream = entry["stream"]
            evicted[stream] = max(evicted[stream], Position.parse(entry["to"]).offset)
            missing[stream] += entry["rows"]
    for identity, offset in told:
        if identity in stored:
            last = max(frame.position.offset for frame in stored[identity].values())
            assert last in (offset, offset - 1), f"{identity} is at another position than was answered"
            continue
        streams = [batch.stream for batch in identity.batches()]
        gone = all(max(lsn_of(evicted[stream]), *lost, 0) >= lsn_of(offset) for stream in streams)
        assert gone, f"{identity} was acknowledged and is gone"
    appended = {state.stream.name: state.rows for state in log.streams()}
    for stream in STREAMS:
        readable = sum(frame.row_count for frame in frames if frame.stream == stream)
        closes = appended.get(stream, 0) == readable + missing[stream]
        assert closes or lost, f"the ledger of {stream} does not close"


def _check_positions(log: Journal, stored: list[Identity]) -> None:
    positions = log.positions()
    for name in PRODUCERS:
        moves = [one.positions() for one in stored if one.producer == name]
        values = [move[f"{name}/at"] for move in moves if move is not None]
        if values:
            assert positions.get(f"{name}/at") == values[-1], "the position and the data were not one append"


def _check_identities(log: Journal, frames: list[Frame]) -> None:
    """Whoever sends its newest append again is told that it is there; with another body, that it differs."""
    identities = [identity_of(frame) for frame in frames]
    for name in PRODUCERS:
        mine = [one for one in identities if one.producer == name and (name == "b" or one.epoch == 0)]
        if not mine:
            continue
        newest = mine[-1]
        claim = log.claim(name, newest.epoch)
        known_sequence = claim.last_sequence
        if known_sequence is None:
            assert name == "b", f"the log has forgotten what {name} appended"
            continue  # another epoch was claimed since
        assert known_sequence == newest.sequence
        assert log.append(newest.batches(), claim=claim, sequence=newest.sequence).duplicate
        with contextlib.suppress(ConflictError):
            log.append(newest.batches(changed=1), claim=claim, sequence=newest.sequence)
            raise AssertionError(f"{newest} with another body was taken for a repeat")
