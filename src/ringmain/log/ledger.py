"""Entries of the ledger: what of the log is missing, damaged or removed, and why.

Every entry is a row of stream `ledger`. The log keeps them in memory and in its checkpoints as well, beyond the
life of those rows: entries of removals, which come for as long as a log lives, are therefore merged when there are
many. What was damaged or lost keeps an entry each.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from ringmain.log.builtin import LEDGER, LedgerKind

LEDGER_ENTRIES_MAX = 4_096
"""With more entries than this the older half of the removals becomes one entry a stream."""


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


def entries_of(rows: pa.RecordBatch) -> list[LedgerEntry]:
    """The entries in rows of the ledger stream."""
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


def shortened(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The entries with the older half of the removals merged: each stream's first to last, with their sums."""
    half = len(entries) // 2
    kept: list[LedgerEntry] = []
    place: dict[str | None, int] = {}
    for entry in entries[:half]:
        if entry.kind != LedgerKind.EVICTED:
            kept.append(entry)
        elif entry.stream not in place:
            place[entry.stream] = len(kept)
            kept.append(entry)
        else:
            before = kept[place[entry.stream]]
            kept[place[entry.stream]] = LedgerEntry(
                entry.kind,
                entry.stream,
                entry.source,
                before.start,
                entry.end,
                before.bytes + entry.bytes,
                None if before.rows is None or entry.rows is None else before.rows + entry.rows,
                entry.reason,
                entry.time_ns,
            )
    return [*kept, *entries[half:]]
