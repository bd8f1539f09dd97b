"""What recovery or a reader found missing or damaged, on its way to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringmain.log.builtin import CATALOGUE_ID, LedgerKind
from ringmain.log.control import ControlState
from ringmain.log.frames import FRAME_HEADER_BYTES, FrameHeader, offset_of
from ringmain.log.interface import Position
from ringmain.log.ledger import LedgerEntry


@dataclass(frozen=True, slots=True)
class Finding:
    """A range of a segment that is not there as it came. `rows`: None if unknown; `size`: bytes concerned."""

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

    def entry(self, state: ControlState, now_ns: int) -> LedgerEntry:
        """The finding as a row of the ledger."""
        stream = None if self.stream_id is None else state.by_id.get(self.stream_id)
        incarnation = state.incarnation_at(self.first_lsn)
        return LedgerEntry(
            self.kind,
            None if stream is None else stream.stream.name,
            None,
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
    """One finding for each data stream concerned, where the headers could be read; else one without rows.

    With several streams each gets the bytes of its own frames, otherwise the one gets the whole range.
    """
    if frames is None:
        return [Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, None, None, reason)]
    rows: dict[int, int] = {}
    size: dict[int, int] = {}
    for frame in frames:
        if frame.stream > CATALOGUE_ID:
            rows[frame.stream] = rows.get(frame.stream, 0) + frame.rows
            size[frame.stream] = size.get(frame.stream, 0) + frame.length + FRAME_HEADER_BYTES
    if not rows:
        return [Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, 0, None, reason)]
    if len(rows) == 1:
        ((stream, count),) = rows.items()
        return [Finding(kind, segment, at, end, first_lsn, last_lsn, end - at, count, stream, reason)]
    return [
        Finding(kind, segment, at, end, first_lsn, last_lsn, size[stream], count, stream, reason)
        for stream, count in rows.items()
    ]


def unknown(entries: Sequence[LedgerEntry], known: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Those entries that the ledger does not hold yet: the same damage is found again at each opening."""
    held = {(entry.kind, entry.stream, entry.start, entry.end, entry.bytes) for entry in known}
    return [
        entry
        for entry in entries
        if (entry.kind, entry.stream, entry.start, entry.end, entry.bytes) not in held
    ]
