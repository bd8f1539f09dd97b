"""What recovery or a reader found missing or damaged, on its way to the ledger."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ringmain.log.builtin import ACCOUNTS_ID, CATALOGUE_ID, LedgerKind
from ringmain.log.control import ControlState
from ringmain.log.frames import FRAME_HEADER_BYTES, FrameHeader, offset_of
from ringmain.log.interface import Position
from ringmain.log.ledger.entries import PLACES, LedgerEntry, reason_of

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """A range of a segment that is not there as it came.

    `rows` and `producer`: None if unknown; `size`: bytes concerned.
    """

    kind: LedgerKind
    segment: int
    at: int
    end: int
    first_lsn: int
    last_lsn: int
    size: int
    rows: int | None
    stream_id: int | None
    reason: str
    producer: int | None = None

    def entry(self, state: ControlState, now_ns: int) -> LedgerEntry:
        """The finding as a row of the ledger."""
        stream = None if self.stream_id is None else state.by_id.get(self.stream_id)
        incarnation = state.incarnation_at(self.first_lsn)
        return LedgerEntry(
            self.kind,
            None if stream is None else stream.stream.name,
            state.source_of(self.producer),
            str(Position(incarnation, 0, offset_of(self.first_lsn, 0))),
            str(Position(incarnation, 0, offset_of(self.last_lsn, 0))),
            self.size,
            self.rows,
            f"{self.reason} (segment {self.segment}, bytes {self.at} to {self.end})",
            now_ns,
        )


def findings(
    kind: LedgerKind,
    segment: int,
    at: int,
    end: int,
    first_lsn: int,
    last_lsn: int,
    frames: Sequence[FrameHeader] | None,
    reason: str,
) -> list[Finding]:
    """One finding for each data stream and producer concerned, where the headers could be read; else one without rows.

    With several of them each gets the bytes of its own frames, otherwise the one gets the whole range.
    """
    if frames is None:
        return [Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, None, None, reason)]
    rows: dict[tuple[int, int], int] = {}
    size: dict[tuple[int, int], int] = {}
    for frame in frames:
        if frame.stream > CATALOGUE_ID and frame.stream != ACCOUNTS_ID:
            key = frame.stream, frame.producer
            rows[key] = rows.get(key, 0) + frame.rows
            size[key] = size.get(key, 0) + frame.length + FRAME_HEADER_BYTES
    if not rows:
        return [Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, 0, None, reason)]
    if len(rows) == 1:
        (((stream, producer), count),) = rows.items()
        return [
            Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, count, stream, reason, producer)
        ]
    return [
        Finding(kind, segment, at, end, first_lsn, last_lsn, size[key], count, key[0], reason, key[1])
        for key, count in rows.items()
    ]


def warn_of(found: Sequence[Finding]) -> None:
    """A line of the operator's log for each place."""
    for kind, segment, at, end, reason in dict.fromkeys(
        (one.kind, one.segment, one.at, one.end, one.reason) for one in found
    ):
        _logger.warning("segment %d, bytes %d to %d: %s (%s)", segment, at, end, reason, kind)


def unknown(entries: Sequence[LedgerEntry], known: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Those entries that the ledger does not hold yet: the same damage is found again at each opening.

    What lies within the range of an entry that was joined of several is held by it.
    """
    places = [entry for entry in known if entry.kind in PLACES]
    held = {(entry.kind, entry.stream, entry.start, entry.end, entry.bytes) for entry in places}
    joined = [
        (entry.kind, entry.stream, range_of(entry)) for entry in places if reason_of(entry) == entry.reason
    ]
    return [
        entry
        for entry in entries
        if (entry.kind, entry.stream, entry.start, entry.end, entry.bytes) not in held
        and not any(
            (kind, stream) == (entry.kind, entry.stream) and _within(range_of(entry), whole)
            for kind, stream, whole in joined
        )
    ]


def range_of(entry: LedgerEntry) -> tuple[int, int] | None:
    """The offsets of the positions that an entry names; None where it names none."""
    try:
        return Position.parse(entry.start).offset, Position.parse(entry.end).offset
    except ValueError:
        return None


def _within(inner: tuple[int, int] | None, outer: tuple[int, int] | None) -> bool:
    return inner is not None and outer is not None and outer[0] <= inner[0] and inner[1] <= outer[1]
