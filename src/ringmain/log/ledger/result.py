"""The equation of a source, as `ledger/accountant.py` works it out and as a page or a table shows it.

    messages   received = accepted + rejected + ignored + dropped
    rows       handed over = found + evicted + quarantined + cut + lost + conflict      (readings, events, letters)

What nobody can count (`UnknownRange`) stands beside it, as a time range, and is never a number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowAccount:
    """Rows of one source in one stream. `difference`: missing (positive) or too many (negative), not accounted for."""

    stream: str
    handed_over: int = 0
    found: int = 0
    evicted: int = 0
    quarantined: int = 0
    cut: int = 0
    lost: int = 0
    conflict: int = 0
    difference: int = 0

    @property
    def accounted_for(self) -> int:
        """What is written down of what is not found."""
        return self.evicted + self.quarantined + self.cut + self.lost + self.conflict


@dataclass(frozen=True, slots=True)
class UnknownRange:
    """A time range (ns UTC) in which messages or rows may have been lost that nobody can count."""

    from_ns: int
    to_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Rows that are neither there nor accounted for: between two positions of the log (text; empty: from its start)."""

    stream: str
    after: str
    before: str
    rows: int


@dataclass(frozen=True, slots=True)
class MissingEnd:
    """Groups at the end of the log that were durable and are not in its files: at least those of these lsns.

    The rows of those up to `counted_lsn` are known, from a checkpoint.
    """

    first_lsn: int
    last_lsn: int
    counted_lsn: int

    @property
    def groups(self) -> int:
        """How many they are."""
        return self.last_lsn - self.first_lsn + 1


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """One source's account over a stretch of time, ns UTC: its first and its last append there.

    `counted`: the source says in its appends what it received; without that only `found` of the rows is known, and
    there is no equation. `readings`, `events` and `letters` are rows of the streams of that name (letters: dead
    letters). `missing` names at most the first hundred places.
    """

    source: str
    counted: bool
    first_ns: int
    last_ns: int
    received: int
    accepted: int
    rejected: int
    ignored: int
    dropped: int
    unacknowledged: int
    readings: RowAccount
    events: RowAccount
    letters: RowAccount
    unknown: tuple[UnknownRange, ...] = ()
    missing: tuple[Missing, ...] = ()

    @property
    def rows(self) -> tuple[RowAccount, RowAccount, RowAccount]:
        """Readings, events and letters."""
        return self.readings, self.events, self.letters

    @property
    def difference_messages(self) -> int:
        """Messages received of which nobody says what became."""
        return self.received - self.accepted - self.rejected - self.ignored - self.dropped

    @property
    def difference_rows(self) -> int:
        """Rows that are missing and not accounted for, and rows too many, together: 0 when all is well."""
        return sum(abs(one.difference) for one in self.rows)

    @property
    def closes(self) -> bool:
        """Whether both equations hold."""
        return not self.difference_rows and not self.difference_messages


@dataclass(frozen=True, slots=True)
class StreamAccount:
    """Rows of a stream, whoever wrote them: those ever `written` (as the newest frame says) against those `found`.

    `difference`: rows that are neither found nor accounted for in the ledger.
    """

    stream: str
    written: int
    found: int
    difference: int


@dataclass(frozen=True, slots=True)
class IntervalAccount:
    """A source's account in one interval that begins at `start_ns`."""

    start_ns: int
    account: SourceAccount
