"""The streams that every log has, with fixed ids, and the schemas of those that the log itself writes."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

from ringmain.log.interface import Stream, StreamKind
from ringmain.log.ledger.row import ACCOUNT
from ringmain.model.schemas import DEAD_LETTER, EVENT, READING, SERIES, TICK, TIMESTAMP

LEDGER = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("stream", pa.string()),
        pa.field("source", pa.string()),
        pa.field("from", pa.string(), nullable=False),
        pa.field("to", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("rows", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
    ]
)
"""Something that is not there as it came: kind (`LedgerKind`), where (positions as text), how much (rows: null
where unknown), why, and when it was written down."""

CONFLICT = pa.schema(
    [
        pa.field("claim", pa.string(), nullable=False),
        pa.field("epoch", pa.uint64(), nullable=False),
        pa.field("sequence", pa.uint64(), nullable=False),
        pa.field("stream", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("parts", pa.int32(), nullable=False),
        pa.field("body", pa.binary(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
    ]
)
"""A batch refused because its identity came before with another body. `body` is the frame body, in parts."""


class LedgerKind(StrEnum):
    """What became of records that are not stored as they came."""

    QUARANTINED = "quarantined"
    """Damaged where it lies."""
    CUT = "cut"
    """At the end of the log when it was opened, and not whole."""
    LOST = "lost"
    """Gone with its segment, or from the end of the log."""
    EVICTED = "evicted"
    """Removed by retention."""
    CONFLICT = "conflict"
    """Refused, because its identity came before with another body; kept in stream `conflicts`."""
    DROPPED = "dropped"
    """Messages that a source had to throw away; `from` and `to` are instants."""
    REJECTED = "rejected"
    """Dead letters, by reason; `from` and `to` are instants."""
    UNKNOWN = "unknown"
    """A time range in which nobody can know how much was lost; `from` and `to` are instants, rows is null."""


CONTROL_ID = 1
CATALOGUE_ID = 2
TICKS_ID = 3
LEDGER_ID = 4
CONFLICTS_ID = 5
ACCOUNTS_ID = 6
FIRST_USER_ID = 64
OF_THE_LOG_ALONE = frozenset({LEDGER_ID, CONFLICTS_ID})
"""Streams in which the log says what became of others' records; no producer adds to them."""

STREAMS = (
    Stream("catalogue", StreamKind.CONTROL, SERIES, CATALOGUE_ID),
    Stream("ticks", StreamKind.CONTROL, TICK, TICKS_ID),
    Stream("ledger", StreamKind.CONTROL, LEDGER, LEDGER_ID),
    Stream("conflicts", StreamKind.CONTROL, CONFLICT, CONFLICTS_ID),
    Stream("accounts", StreamKind.CONTROL, ACCOUNT, ACCOUNTS_ID),
    Stream("readings", StreamKind.READING, READING, 16),
    Stream("deadletters", StreamKind.ROW, DEAD_LETTER, 17),
    Stream("events", StreamKind.EVENT, EVENT, 18),
)
"""Schema ids of these are their stream ids."""
