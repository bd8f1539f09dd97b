"""What recovery or a reader found missing or damaged, on its way to the ledger."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from ringmain.log.builtin import ACCOUNTS_ID, CATALOGUE_ID, LedgerKind
from ringmain.log.control import ControlState
from ringmain.log.frames import FRAME_HEADER_BYTES, FrameHeader, offset_of
from ringmain.log.interface import Position
from ringmain.log.ledger.entries import PLACES, PLACES_SHOWN_MAX, LedgerEntry, reason_of

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
    """A line of the operator's log for each of the first places, and one for all others."""
    places = dict.fromkeys((one.kind, one.segment, one.at, one.end, one.reason) for one in found)
    for kind, segment, at, end, reason in islice(places, PLACES_SHOWN_MAX):
        _logger.warning("segment %d, bytes %d to %d: %s (%s)", segment, at, end, reason, kind)
    if len(places) > PLACES_SHOWN_MAX:
        size = sum(end - at for _, _, at, end, _ in places)
        _logger.warning(
            "and %d more places; %d bytes altogether are missing or damaged",
            len(places) - PLACES_SHOWN_MAX,
            size,
        )


def unknown(entries: Sequence[LedgerEntry], known: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Those entries that the ledger does not hold yet: the same damage is found again at each opening.

    What lies within the range of an entry that was joined of several is held by it.
    """
    return KnownPlaces().unknown(entries, known)


class KnownPlaces:
    """The places that a ledger names, for who asks often: what was looked over is not looked over again.

    One thread at a time asks.
    """

    def __init__(self) -> None:
        self._ledger: Sequence[LedgerEntry] = ()
        self._count = 0
        self._held: set[tuple[str, str | None, str, str, int]] = set()
        self._joined: list[LedgerEntry] = []
        self._ranges = _Ranges([])

    def unknown(self, entries: Sequence[LedgerEntry], known: Sequence[LedgerEntry]) -> list[LedgerEntry]:
        """As the function `unknown`. `known` only grows, or is another list than before."""
        count = len(known)
        if known is not self._ledger or count < self._count:
            self._ledger, self._count, self._joined, self._ranges = known, 0, [], _Ranges([])
            self._held = set()
        added = [entry for entry in known[self._count : count] if entry.kind in PLACES]
        self._count = count
        self._held |= {_key(entry) for entry in added}
        joined = [entry for entry in added if reason_of(entry) == entry.reason]
        if joined:
            self._joined += joined
            self._ranges = _Ranges(self._joined)
        return [entry for entry in entries if _key(entry) not in self._held and not self._ranges.hold(entry)]


def _key(entry: LedgerEntry) -> tuple[str, str | None, str, str, int]:
    return entry.kind, entry.stream, entry.start, entry.end, entry.bytes


class _Ranges:
    """Ranges of the positions of entries, by kind and stream, to look up whether one of them holds another."""

    def __init__(self, entries: Sequence[LedgerEntry]) -> None:
        found: dict[tuple[str, str | None], list[tuple[int, int]]] = {}
        for entry in entries:
            whole = range_of(entry)
            if whole is not None:
                found.setdefault((entry.kind, entry.stream), []).append(whole)
        self._starts: dict[tuple[str, str | None], list[int]] = {}
        self._ends: dict[tuple[str, str | None], list[int]] = {}
        for key, ranges in found.items():
            ranges.sort()
            self._starts[key] = [start for start, _ in ranges]
            self._ends[key] = list(accumulate((end for _, end in ranges), max))

    def hold(self, entry: LedgerEntry) -> bool:
        """Whether one of the ranges holds that of the entry."""
        key = entry.kind, entry.stream
        inner = range_of(entry) if key in self._starts else None
        if inner is None:
            return False
        place = bisect_right(self._starts[key], inner[0])
        return place > 0 and inner[1] <= self._ends[key][place - 1]


def range_of(entry: LedgerEntry) -> tuple[int, int] | None:
    """The offsets of the positions that an entry names; None where it names none."""
    try:
        return Position.parse(entry.start).offset, Position.parse(entry.end).offset
    except ValueError:
        return None
