"""Counts of one run of one source, for the account row that goes along with each of its appends.

The counts are those of everything that was appended so far. A row for the next append is worked out from them and
becomes the new counts when that append is durable, so an append that is tried again carries the same row, and
one that is cut into smaller ones is counted once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ringmain.log.ledger.row import AccountRow
from ringmain.runtime.contract import Messages

REASONS_MAX = 64
"""Reasons of dead letters that a source's account tells apart; what comes beyond is counted as `OTHER_REASON`."""

OTHER_REASON = "other"

_EXPECTED = re.compile(r"expected.*?(?=, found|, which|: |$)")


def reason_class(reason: str) -> str:
    """What a dead letter is counted by: what was expected, at most 60 characters."""
    expected = _EXPECTED.search(reason)
    return (expected[0] if expected is not None else reason.partition(":")[0].lstrip("0123456789 "))[:60]


class SourceCounts:
    """What a source has handed over since its epoch began."""

    def __init__(self, source: str, epoch: int) -> None:
        self.row = AccountRow(source, epoch)
        """The counts as they are durable."""
        self._reasons: dict[str, int] = {}

    def next_row(
        self, messages: Messages, *, readings: int, events: int, letters: Mapping[str, int]
    ) -> AccountRow:
        """The row of an append that adds so much; `letters`: dead letters by `reason_class`."""
        row = self.row
        grown: Counter[str] = Counter()
        for reason, times in letters.items():
            known = reason in self._reasons or len(self._reasons) + len(grown) < REASONS_MAX
            grown[reason if known else OTHER_REASON] += times
        return AccountRow(
            row.source,
            row.epoch,
            row.messages + messages.received,
            row.accepted + messages.accepted,
            row.rejected + messages.rejected,
            row.ignored + messages.ignored,
            row.dropped + messages.dropped,
            row.unacknowledged + messages.unacknowledged,
            row.readings + readings,
            row.events + events,
            row.letters + sum(letters.values()),
            tuple((reason, self._reasons.get(reason, 0) + times) for reason, times in grown.items()),
        )

    def stored(self, row: AccountRow) -> None:
        """The append with this row is durable."""
        self.row = row
        self._reasons.update(row.reasons)
