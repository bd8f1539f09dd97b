"""What the ledger claims is missing, ready to be compared with what is missing.

A claim is an entry with a place in the log and, where it is known, a number of rows. A hole in what a source or a
stream counted is explained by the claims in its place, and by no others; a claim whose rows are unknown explains
what is left of the hole, exactly. What no claim explains is a difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import lsn_of
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.ledger.findings import range_of

MISSING = (LedgerKind.EVICTED, LedgerKind.QUARANTINED, LedgerKind.CUT, LedgerKind.LOST)
"""Kinds of entries that tell of rows that are not there."""


@dataclass(slots=True)
class Held:
    """A claim. `left`: rows of it that explain nothing yet; None: their number is not known."""

    kind: LedgerKind
    first_lsn: int
    last_lsn: int
    left: int | None


class Claims:
    """The claims about one log, by source and by stream."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str | None, str | None, str, str, int | None]] = set()
        self._of_source: dict[tuple[str, str], list[Held]] = defaultdict(list)
        self._of_stream: dict[str, list[Held]] = defaultdict(list)
        self._nobodys: dict[str, list[Held]] = defaultdict(list)
        self._unclear: list[Held] = []

    def take(self, entries: Iterable[LedgerEntry], after_lsn: int) -> None:
        """Take over entries about places behind an lsn. Those that are held already count once."""
        for entry in entries:
            key = (entry.kind, entry.stream, entry.source, entry.start, entry.end, entry.rows)
            if entry.kind not in MISSING or key in self._known:
                continue
            place = range_of(entry)
            if place is None or lsn_of(place[1]) <= after_lsn:
                continue
            self._known.add(key)
            kind, first, last = LedgerKind(entry.kind), lsn_of(place[0]), lsn_of(place[1])
            if entry.rows is None:
                self._unclear.append(Held(kind, first, last, None))
            elif entry.stream is not None:
                self._of_stream[entry.stream].append(Held(kind, first, last, entry.rows))
                owned = self._nobodys[entry.stream]
                if entry.source is not None:
                    owned = self._of_source[entry.source, entry.stream]
                owned.append(Held(kind, first, last, entry.rows))

    def unclear(self, first_lsn: int, last_lsn: int) -> None:
        """Something damaged that the ledger does not have yet."""
        self._unclear.append(Held(LedgerKind.QUARANTINED, first_lsn, last_lsn, None))

    def tells_of(self, first_lsn: int, last_lsn: int) -> bool:
        """Whether the ledger has anything about this place."""
        held = [*self._unclear, *(one for many in self._of_stream.values() for one in many)]
        return any(one.first_lsn <= last_lsn and one.last_lsn >= first_lsn for one in held)

    def explain(
        self, source: str | None, stream: str, after_lsn: int, before_lsn: int, rows: int
    ) -> tuple[list[tuple[LedgerKind, int]], int]:
        """What explains `rows` missing between two groups, for a source or (None) a stream; and how many it leaves."""
        explained: list[tuple[LedgerKind, int]] = []
        if source is None:
            candidates: Sequence[Held] = self._of_stream.get(stream, ())
        else:
            candidates = (*self._of_source.get((source, stream), ()), *self._nobodys.get(stream, ()))
        for held in candidates:
            if held.left and held.last_lsn > after_lsn and held.first_lsn < before_lsn:
                taken = min(held.left, rows)
                held.left -= taken
                rows -= taken
                explained.append((held.kind, taken))
                if not rows:
                    return explained, 0
        for held in self._unclear:
            if held.last_lsn > after_lsn and held.first_lsn < before_lsn:
                return [*explained, (held.kind, rows)], 0
        return explained, rows

    def beyond(
        self, source: str, stream: str, after_lsn: int, before_lsn: int, *, settle: bool
    ) -> list[tuple[LedgerKind, int]]:
        """Claims of a source that lie wholly between two groups and explained no hole there.

        Right where an epoch of the source ended: the rows were handed over, and no later row of that epoch counts
        them. `settle`: they are not given again.
        """
        found = []
        for held in self._of_source.get((source, stream), ()):
            if held.left and held.first_lsn > after_lsn and held.last_lsn < before_lsn:
                found.append((held.kind, held.left))
                if settle:
                    held.left = 0
        return found


def evicted_rows(entries: Iterable[LedgerEntry]) -> dict[tuple[str | None, str | None], int]:
    """Rows that retention removed, by source and stream."""
    sums: dict[tuple[str | None, str | None], int] = defaultdict(int)
    for entry in entries:
        if entry.kind == LedgerKind.EVICTED:
            sums[entry.source, entry.stream] += entry.rows or 0
    return dict(sums)
