"""How a sink's position, and the dead letters of what its receiver will never take, get into the log together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ringmain.log.interface import Batch, Claim, Log, LogError, LogFailedError, LogFullError
from ringmain.runtime.account import SourceCounts
from ringmain.runtime.contract import Messages
from ringmain.runtime.counters import Cell
from ringmain.runtime.sink import Rejected, SinkBatch
from ringmain.runtime.sink_letters import DEAD_LETTERS, Letters
from ringmain.runtime.sink_position import Mark

_LETTER_BYTES = 400 * 1024
"""Beyond this letters are appended, before more batches are answered for."""
_RETRY_S_MIN = 0.1
_RETRY_S_MAX = 5.0


class SinkCommitter:
    """Appends under the sink's claim. Used by the sink's thread.

    `refused(error, wait_s)` waits while the log takes nothing, or raises to give up; `takes()` is called when it does again.
    """

    def __init__(
        self,
        log: Log,
        claim: Claim,
        missed: Cell,
        mark: Mark | None,
        refused: Callable[[LogError, float], None],
        takes: Callable[[], None],
    ) -> None:
        self._log = log
        self._claim = claim
        self._missed = missed
        self._refused = refused
        self._takes = takes
        self._sequence = 0
        self._stored = mark
        self.mark = mark
        """Behind everything that is answered for."""
        self._letters = Letters(claim.name, log.catalogue())
        self._rejected_rows = 0
        self._counts = SourceCounts(claim.name, claim.epoch)
        self._resting = False

    @property
    def owes(self) -> bool:
        """Whether something was answered for whose position is not stored."""
        return not self._resting and self.mark != self._stored

    @property
    def full(self) -> bool:
        """Whether letters enough for an append wait."""
        return self._letters.size_bytes > _LETTER_BYTES

    def reject(self, batch: SinkBatch, rejected: Rejected) -> Counter[str]:
        """Keep rows as dead letters, for the append with the position behind them; rows by reason."""
        rows = self._letters.add(batch, rejected, batch.arrival_ns)
        self._rejected_rows += sum(rows.values())
        return rows

    def move(self, mark: Mark) -> None:
        """Everything up to there is answered for."""
        self.mark, self._resting = mark, False

    def rest(self, mark: Mark) -> None:
        """As `move`, where nothing lies in between but ticks: to be stored now and then."""
        if not self.owes and mark != self.mark:
            missed = self._stored.missed if self._stored is not None else 0
            self.mark, self._resting = mark, mark.missed == missed

    def commit(self) -> None:
        """Store the position, and what became dead letters up to it. Returns when durable. Raises LogError."""
        mark = self.mark
        if mark is None or mark == self._stored:
            return
        batches: list[Batch] = []
        row = None
        missed = mark.missed - (self._stored.missed if self._stored is not None else 0)
        if self._rejected_rows or missed > 0:
            letters = len(self._letters)
            row = self._counts.next_row(
                Messages(
                    received=self._rejected_rows + max(0, missed),
                    rejected=self._rejected_rows,
                    dropped=max(0, missed),
                ),
                readings=0,
                events=0,
                letters=self._letters.reasons,
            )
            if letters:
                batches.append(Batch(DEAD_LETTERS, self._letters.batch()))
            batches.append(Batch("accounts", row))
        self._sequence += 1
        self._append(batches, mark)
        self._missed.add(max(0, missed))
        if row is not None:
            self._counts.stored(row)
        self._letters.clear()
        self._rejected_rows = 0
        self._stored = mark

    def _append(self, batches: list[Batch], mark: Mark) -> None:
        wait_s = _RETRY_S_MIN
        positions = {self._claim.name: mark.encode()}
        while True:
            try:
                self._log.append(batches, claim=self._claim, sequence=self._sequence, positions=positions)
            except (LogFullError, LogFailedError) as error:
                self._refused(error, wait_s)
                wait_s = min(2 * wait_s, _RETRY_S_MAX)
            else:
                if wait_s > _RETRY_S_MIN:
                    self._takes()
                return
