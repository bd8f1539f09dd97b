"""Entries of the ledger: what of the log is missing, damaged, removed or refused, and why.

Most entries are rows of stream `ledger`. The log keeps them in memory and in its checkpoints as well, beyond the life
of those rows, and joins entries that are alike when there are many, so that a flood of whatever kind does not flood
the ledger. Dead letters and dropped messages have entries without such rows: they are worked out from what sources
say in stream `accounts` (`ledger/fold.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pyarrow as pa

from ringmain.log.builtin import LEDGER, LedgerKind

LEDGER_ENTRIES_MAX = 4_096
"""With more entries than this the older half is joined."""

PLACES_SHOWN_MAX = 16
"""So many damaged places of one source and reason in one interval are shown one by one; more as one."""

PLACES = (LedgerKind.QUARANTINED, LedgerKind.CUT, LedgerKind.LOST)
"""Kinds whose entries name places that are damaged or gone."""

MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
_REQUIRED = [field.name for field in LEDGER if not field.nullable]


class LedgerEntry(msgspec.Struct, frozen=True):
    """A row of the ledger (see `builtin.LEDGER`)."""

    kind: str
    stream: str | None
    source: str | None
    start: str
    end: str
    bytes: int
    rows: int | None
    reason: str
    time_ns: int

    def joined(self, later: LedgerEntry) -> LedgerEntry:
        """This entry and a later one that is like it, as one."""
        return LedgerEntry(
            self.kind,
            self.stream,
            self.source,
            self.start,
            later.end,
            self.bytes + later.bytes,
            None if self.rows is None or later.rows is None else self.rows + later.rows,
            reason_of(later),
            later.time_ns,
        )


def entries_of(rows: pa.RecordBatch) -> list[LedgerEntry]:
    """The entries in rows of the ledger stream; rows that lack what every entry has say nothing."""
    return [
        LedgerEntry(
            row["kind"],
            row["stream"],
            row["source"],
            row["from"],
            row["to"],
            row["bytes"],
            row["rows"],
            row["reason"],
            row["time"],
        )
        for row in rows.set_column(8, "time", rows.column(8).cast(pa.int64())).to_pylist()
        if all(row[name] is not None for name in _REQUIRED)
    ]


def ledger_batch(entries: list[LedgerEntry]) -> pa.RecordBatch:
    """The entries as rows of the ledger stream."""
    columns = [
        pa.array([entry.kind for entry in entries], pa.string()),
        pa.array([entry.stream for entry in entries], pa.string()),
        pa.array([entry.source for entry in entries], pa.string()),
        pa.array([entry.start for entry in entries], pa.string()),
        pa.array([entry.end for entry in entries], pa.string()),
        pa.array([entry.bytes for entry in entries], pa.int64()),
        pa.array([entry.rows for entry in entries], pa.int64()),
        pa.array([entry.reason for entry in entries], pa.string()),
        pa.array([entry.time_ns for entry in entries], pa.int64()).cast(LEDGER.field("time").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LEDGER)


def merged(
    entries: Sequence[LedgerEntry], interval_ns: int | None, *, kept: int = 1, places_kept: int = 1
) -> list[LedgerEntry]:
    """The entries with those joined that are alike: same kind, stream, source and reason, in one interval.

    `interval_ns` None: however far apart. Up to `kept` of them stay as they are, and up to `places_kept` of those
    that name a place which is damaged or gone. Sums and ranges stay right.
    """
    alike: dict[tuple[object, ...], list[LedgerEntry]] = {}
    for entry in entries:
        interval = 0 if interval_ns is None else entry.time_ns // interval_ns
        alike.setdefault((entry.kind, entry.stream, entry.source, reason_of(entry), interval), []).append(
            entry
        )
    result: list[LedgerEntry] = []
    for found in alike.values():
        if len(found) <= (places_kept if found[0].kind in PLACES else kept):
            result += found
        elif found[0].kind == LedgerKind.UNKNOWN and interval_ns is not None:
            result += _adjoining(found)
        else:
            whole = found[0]
            for entry in found[1:]:
                whole = whole.joined(entry)
            result.append(whole)
    result.sort(key=lambda entry: entry.time_ns)
    return result


def _adjoining(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Time ranges joined where one begins as the other ends: nothing in between is said to be unknown."""
    result = [entries[0]]
    for entry in entries[1:]:
        if entry.start == result[-1].end:
            result[-1] = result[-1].joined(entry)
        else:
            result.append(entry)
    return result


def compacted(entries: Sequence[LedgerEntry], entries_max: int) -> list[LedgerEntry]:
    """At most so many entries: the older half joined by minute, hour or day, or altogether, as far as needed."""
    half = len(entries) // 2
    older = list(entries[:half])
    for interval_ns in (MINUTE_NS, HOUR_NS, DAY_NS, None):
        older = merged(older, interval_ns)
        if len(older) <= entries_max // 4:
            break
    return [*older, *entries[half:]]


def bounded(entries: Sequence[LedgerEntry], entries_max: int) -> list[LedgerEntry]:
    """The entries, neighbours that are alike joined where there are more: places stay as near as so many can tell.

    For each kind, stream, source and reason at least one is left.
    """
    share = -(-len(entries) // entries_max)
    if share <= 1:
        return list(entries)
    result: list[LedgerEntry] = []
    last: dict[tuple[object, ...], tuple[int, int]] = {}
    for entry in entries:
        key = entry.kind, entry.stream, entry.source, reason_of(entry)
        place, count = last.get(key, (0, share))
        if count == share:
            last[key] = len(result), 1
            result.append(entry)
        else:
            last[key] = place, count + 1
            result[place] = result[place].joined(entry)
    return result


def shown(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The entries as people see them: joined by minute, those older than two hours by hour, than two days by day.

    The age is that against the newest entry.
    """
    newest = max((entry.time_ns for entry in entries), default=0)
    days = [entry for entry in entries if entry.time_ns < newest - 2 * DAY_NS]
    hours = [entry for entry in entries if newest - 2 * DAY_NS <= entry.time_ns < newest - 2 * HOUR_NS]
    minutes = [entry for entry in entries if newest - 2 * HOUR_NS <= entry.time_ns]
    parts = ((days, DAY_NS), (hours, HOUR_NS), (minutes, MINUTE_NS))
    return [
        entry
        for part, interval_ns in parts
        for entry in merged(part, interval_ns, places_kept=PLACES_SHOWN_MAX)
    ]


def reason_of(entry: LedgerEntry) -> str:
    """The reason without the place in a file that it may name."""
    return entry.reason.partition(" (segment ")[0]


def instant_text(ns: int) -> str:
    """A time in ns since 1970 UTC as RFC 3339 text, to the nanosecond."""
    seconds, rest = divmod(ns, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"
    return f"{moment.isoformat(timespec='seconds')}.{rest:09}Z"


def instant_ns(text: str) -> int | None:
    """The time that `instant_text` wrote; None for other text."""
    if len(text) < 21 or text[-1] != "Z" or text[-11] != ".":
        return None
    try:
        moment = datetime.fromisoformat(text[:-11]).replace(tzinfo=UTC)
        return int(moment.timestamp()) * 10**9 + int(text[-10:-1])
    except ValueError:
        return None
