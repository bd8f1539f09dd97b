"""What nobody can count, as time ranges beside the equation of a source.

Of two sorts: messages without acknowledgement that were under way when a process died, and rows that were lost or
damaged where no later row of the same epoch of their source tells how many they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import lsn_of
from ringmain.log.ledger.chain import Chain
from ringmain.log.ledger.entries import LedgerEntry, instant_ns
from ringmain.log.ledger.findings import range_of
from ringmain.log.ledger.result import UnknownRange

UNKNOWN_NAMED_MAX = 100

_ROWS = (LedgerKind.LOST, LedgerKind.QUARANTINED)


def unknown_ranges(
    ledger: Iterable[LedgerEntry],
    chains: Mapping[str, Chain],
    sources: Iterable[str],
    from_ns: int | None,
    to_ns: int | None,
) -> dict[str, list[UnknownRange]]:
    """By source, the newest of each, oldest first. An entry without a source is one of every source."""
    found: dict[str, list[UnknownRange]] = {}
    every = sorted({*chains, *sources})
    for entry in ledger:
        for source in every if entry.source is None else (entry.source,):
            if entry.kind == LedgerKind.UNKNOWN:
                one = _messages(entry)
            elif entry.kind in _ROWS and entry.rows is None:
                one = _rows(entry, chains.get(source))
            else:
                break
            if one is None:
                continue
            if (from_ns is not None and one.to_ns < from_ns) or (to_ns is not None and one.from_ns >= to_ns):
                continue
            ranges = found.setdefault(source, [])
            ranges.append(one)
            del ranges[:-UNKNOWN_NAMED_MAX]
    return found


def _messages(entry: LedgerEntry) -> UnknownRange | None:
    start, end = instant_ns(entry.start), instant_ns(entry.end)
    return None if start is None or end is None else UnknownRange(start, end, entry.reason)


def _rows(entry: LedgerEntry, chain: Chain | None) -> UnknownRange | None:
    """From the last row of an epoch to the first of the next; None where the rows of one epoch tell the number."""
    place = range_of(entry)
    if place is None:
        return None
    gap = None if chain is None else chain.uncounted(lsn_of(place[0]), lsn_of(place[1]))
    if chain is not None and gap is None:
        return None
    from_ns, to_ns = gap or (0, 0)
    to_ns = min(to_ns or entry.time_ns, entry.time_ns)
    rows = "rows" if entry.stream is None else f"rows of {entry.stream}"
    return UnknownRange(
        min(from_ns or to_ns, to_ns), to_ns, f"{rows} that nobody can count are {entry.kind}: {entry.reason}"
    )
