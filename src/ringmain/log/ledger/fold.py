"""What the log remembers of the account rows that sources append: for the ledger, and beyond retention.

A fold over the rows of stream `accounts`, part of the log's state and of its checkpoints. It keeps for each source
its newest row (whether messages without acknowledgement may be lost when it starts again is known from it), what
dead letters and dropped messages belong in the ledger (from the cumulative counts, so that a flood of rejected
messages costs no ledger row, and a lost row no count), and the last rows of segments that retention removed.
Its size depends on the number of sources and reasons alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ringmain.log.builtin import LedgerKind
from ringmain.log.interface import PRODUCERS_MAX
from ringmain.log.ledger.entries import MINUTE_NS, LedgerEntry, compacted, instant_text
from ringmain.log.ledger.row import AccountRow

COUNTED_ENTRIES_MAX = 1_024
"""With more entries of counted messages than this the older half is merged, by hour, by day, at last all of it."""

REASONS_MAX = 256
"""Reasons of one source that are told apart."""


class LastRow(msgspec.Struct):
    """A source's newest row. `known_until_ns`: up to here the ledger or the rows say what was lost."""

    row: AccountRow
    arrival_ns: int
    known_until_ns: int
    clean: bool = False
    reasons: dict[str, int] = {}


class RemovedRows(msgspec.Struct):
    """Rows of a source that retention removed: the last one with its lsn, and the sums of the epochs before it."""

    last: AccountRow
    settled: AccountRow
    lsn: int


class AccountFold(msgspec.Struct):
    """The fold. Not locked: `control.ControlState` holds it."""

    sources: dict[str, LastRow] = {}
    removed: dict[str, RemovedRows] = {}
    counted: list[LedgerEntry] = []

    def apply(self, row: AccountRow, arrival_ns: int) -> None:
        """A row became durable."""
        last = self.sources.get(row.source)
        if last is None:
            if len(self.sources) >= PRODUCERS_MAX:
                return
            last = LastRow(AccountRow(row.source, row.epoch), arrival_ns, arrival_ns)
            self.sources[row.source] = last
        if last.row.epoch != row.epoch:
            last.row, last.reasons = AccountRow(row.source, row.epoch), {}
        for reason, times in row.reasons:
            grown = times - last.reasons.get(reason, 0)
            if grown > 0 and (reason in last.reasons or len(last.reasons) < REASONS_MAX):
                last.reasons[reason] = times
                self._count(LedgerKind.REJECTED, "deadletters", row.source, reason, grown, arrival_ns)
        dropped = row.dropped - last.row.dropped
        if dropped > 0:
            self._count(
                LedgerKind.DROPPED, None, row.source, "messages that the source dropped", dropped, arrival_ns
            )
        last.row, last.arrival_ns, last.known_until_ns, last.clean = row, arrival_ns, arrival_ns, False

    def _count(
        self, kind: LedgerKind, stream: str | None, source: str, reason: str, rows: int, arrival_ns: int
    ) -> None:
        minute = arrival_ns // MINUTE_NS
        at = instant_text(arrival_ns)
        entry = LedgerEntry(kind, stream, source, at, at, 0, rows, reason, arrival_ns)
        for place in range(len(self.counted) - 1, max(-1, len(self.counted) - 65), -1):
            held = self.counted[place]
            if held.time_ns // MINUTE_NS != minute:
                break
            if (held.kind, held.source, held.reason) == (kind, source, reason):
                self.counted[place] = held.joined(entry)
                return
        self.counted.append(entry)
        if len(self.counted) > COUNTED_ENTRIES_MAX:
            self.counted = compacted(self.counted, COUNTED_ENTRIES_MAX)

    def closed(self) -> None:
        """The log was closed cleanly: nothing that a source had taken is lost."""
        for last in self.sources.values():
            last.clean = True

    def told_unknown(self, source: str, until_ns: int) -> None:
        """The ledger has an entry for the time up to then."""
        last = self.sources.get(source)
        if last is not None:
            last.known_until_ns = max(last.known_until_ns, until_ns)

    def uncounted(self, source: str, epoch: int, now_ns: int) -> LedgerEntry | None:
        """The ledger entry that a source's new epoch begins with, if messages may be lost that nobody counted."""
        last = self.sources.get(source)
        if last is None or last.clean or not last.row.unacknowledged or last.row.epoch == epoch:
            return None
        return LedgerEntry(
            LedgerKind.UNKNOWN,
            None,
            source,
            instant_text(last.known_until_ns),
            instant_text(max(now_ns, last.known_until_ns)),
            0,
            None,
            "messages without acknowledgement (QoS 0) may have been lost: the source ended without a clean close",
            now_ns,
        )

    def remove(self, rows: Sequence[tuple[int, AccountRow]]) -> None:
        """Retention removed these: the last row of each source and epoch there with its lsn, in the order of the log."""
        for lsn, row in rows:
            held = self.removed.get(row.source)
            if held is None:
                self.removed[row.source] = RemovedRows(row, AccountRow(row.source, 0), lsn)
                continue
            if held.last.epoch != row.epoch:
                held.settled = added(held.settled, held.last)
            held.last, held.lsn = row, lsn


def added(first: AccountRow, second: AccountRow) -> AccountRow:
    """The counts of two rows together, without reasons."""
    return AccountRow(
        first.source,
        0,
        first.messages + second.messages,
        first.accepted + second.accepted,
        first.rejected + second.rejected,
        first.ignored + second.ignored,
        first.dropped + second.dropped,
        first.unacknowledged + second.unacknowledged,
        first.readings + second.readings,
        first.events + second.events,
        first.letters + second.letters,
    )
