"""The account rows of one source, in log order, against the frames beside them.

Each row says how many rows the source had handed over when its append was complete. The row before it, and the
frames since then, say how many are there: what lacks is a hole at that place, of exactly that size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import GroupHeader, offset_of
from ringmain.log.interface import Position
from ringmain.log.ledger.claims import Claims
from ringmain.log.ledger.result import Missing, RowAccount, SourceAccount, UnknownRange
from ringmain.log.ledger.row import AccountRow

STREAMS = ("readings", "events", "deadletters")
"""The streams that sources append to, in the order of the counts here."""

MISSING_NAMED_MAX = 100
_END_LSN = 2**63

Counts = list[int]


@dataclass(slots=True)
class Sums:
    """Counts of a source over a stretch of time; lists are by `STREAMS`."""

    messages: Counts = field(default_factory=lambda: [0] * 6)
    handed: Counts = field(default_factory=lambda: [0] * 3)
    found: Counts = field(default_factory=lambda: [0] * 3)
    difference: Counts = field(default_factory=lambda: [0] * 3)
    told: dict[LedgerKind, Counts] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0

    def tell(self, kind: LedgerKind, stream: int, rows: int) -> None:
        """Rows that the ledger accounts for."""
        self.told.setdefault(kind, [0] * 3)[stream] += rows

    def copy(self) -> Sums:
        """Counts that may be changed on their own."""
        return Sums(
            list(self.messages),
            list(self.handed),
            list(self.found),
            list(self.difference),
            {kind: list(rows) for kind, rows in self.told.items()},
            self.first_ns,
            self.last_ns,
        )

    def rows(self) -> tuple[RowAccount, RowAccount, RowAccount]:
        """Readings, events and letters."""
        return self._row(0), self._row(1), self._row(2)

    def _row(self, stream: int) -> RowAccount:
        def told(kind: LedgerKind) -> int:
            return self.told[kind][stream] if kind in self.told else 0

        return RowAccount(
            STREAMS[stream],
            self.handed[stream],
            self.found[stream],
            told(LedgerKind.EVICTED),
            told(LedgerKind.QUARANTINED),
            told(LedgerKind.CUT),
            told(LedgerKind.LOST),
            told(LedgerKind.CONFLICT),
            self.difference[stream],
        )


class Chain:
    """One source. `sums_at(arrival_ns)` gives every `Sums` that a group of that arrival counts in."""

    def __init__(self, source: str, claims: Claims, after_lsn: int) -> None:
        self.source = source
        self.total = Sums()
        self.intervals: dict[int, Sums] = {}
        self.missing: list[Missing] = []
        self.counted = False
        self._claims = claims
        self._epoch: int | None = None
        self._last = [0, 0, 0]
        self._last_messages = [0] * 6
        self._last_lsn = after_lsn
        self._pending = [0, 0, 0]
        self._pending_epoch: int | None = None
        self._incarnation = 0
        self._last_ns = 0
        self._gaps: list[tuple[int, int, int, int]] = []

    def begin(self, last: AccountRow, settled: AccountRow, lsn: int, into: list[Sums]) -> None:
        """What retention removed of this source: its last row there, of that lsn, and the sums of the epochs before."""
        self.counted = True
        handed = [a + b for a, b in zip(_handed(last), _handed(settled), strict=True)]
        for sums in into:
            _add(sums.messages, [a + b for a, b in zip(_messages(last), _messages(settled), strict=True)])
            _add(sums.handed, handed)
        self._holes(handed, -1, lsn + 1, into)
        self._surplus(-1, lsn + 1, into)
        self._epoch, self._last, self._last_messages = last.epoch, _handed(last), _messages(last)
        self._pending_epoch = last.epoch
        self._last_lsn = lsn
        if any(_messages(settled)) or any(_handed(settled)):
            self._gaps.append((-1, lsn, 0, 0))

    def group(
        self,
        header: GroupHeader,
        epoch: int,
        found: Counts,
        row: AccountRow | None,
        into: list[Sums],
    ) -> None:
        """A group of this source and epoch: its rows in `STREAMS`, and its account row if it has one."""
        lsn, arrival_ns = header.lsn, header.arrival_ns
        if epoch != self._pending_epoch:
            self._take_uncounted(into)
            self._pending_epoch = epoch
        for sums in into:
            _add(sums.found, found)
            sums.first_ns = sums.first_ns or arrival_ns
            sums.last_ns = arrival_ns
        if row is None:
            _add(self._pending, found)
            return
        self._incarnation = header.incarnation
        self._row(row, epoch, lsn, arrival_ns, found, into)

    def row_beyond(self, row: AccountRow, lsn: int, arrival_ns: int, into: list[Sums]) -> None:
        """The newest row, of at most that lsn, where only a checkpoint has it: its group is gone."""
        same = row.epoch == self._epoch
        if same and _handed(row) == self._last and _messages(row) == self._last_messages:
            return
        if row.epoch != self._pending_epoch:
            self._take_uncounted(into)
            self._pending_epoch = row.epoch
        self._row(row, row.epoch, lsn, arrival_ns, [0, 0, 0], into)

    def _row(
        self, row: AccountRow, epoch: int, lsn: int, arrival_ns: int, found: Counts, into: list[Sums]
    ) -> None:
        handed, messages = _handed(row), _messages(row)
        another = epoch != self._epoch
        if another:
            self._gaps.append((self._last_lsn, lsn, self._last_ns, arrival_ns))
            self._last, self._last_messages = [0, 0, 0], [0] * 6
        there = [a + b for a, b in zip(found, self._pending, strict=True)]
        grown = [a - b for a, b in zip(handed, self._last, strict=True)]
        holes = [a - b for a, b in zip(grown, there, strict=True)]
        for sums in into:
            _add(sums.handed, grown)
            _add(sums.messages, [a - b for a, b in zip(messages, self._last_messages, strict=True)])
        if any(holes):
            self._holes(holes, self._last_lsn, lsn, into)
        if another:
            self._surplus(self._last_lsn, lsn, into)
        self.counted = True
        self._epoch, self._last, self._last_messages = epoch, handed, messages
        self._last_lsn, self._last_ns, self._pending = lsn, arrival_ns, [0, 0, 0]

    def uncounted(self, first_lsn: int, last_lsn: int) -> tuple[int, int] | None:
        """When (ns UTC; 0: not known) an epoch ended and the next began, if rows at that place lie between.

        None where the rows of one epoch enclose the place: they tell exactly what is missing there.
        """
        open_end = (self._last_lsn, _END_LSN, self._last_ns, 0)
        met = [gap for gap in (*self._gaps, open_end) if gap[0] < last_lsn and first_lsn < gap[1]]
        return (met[0][2], met[-1][3]) if met else None

    def _take_uncounted(self, into: list[Sums]) -> None:
        """Rows behind the last account row of their epoch: nobody counted them, and they are there."""
        for sums in into:
            _add(sums.handed, self._pending)
        self._pending = [0, 0, 0]

    def _holes(self, holes: Counts, after_lsn: int, before_lsn: int, into: list[Sums]) -> None:
        for index, rows in enumerate(holes):
            explained: list[tuple[LedgerKind, int]] = []
            left = rows
            if rows > 0:
                explained, left = self._claims.explain(
                    self.source, STREAMS[index], after_lsn, before_lsn, rows
                )
            for sums in into:
                for kind, count in explained:
                    sums.tell(kind, index, count)
                sums.difference[index] += left
            if left and into and len(self.missing) < MISSING_NAMED_MAX:
                after, before = self._place(after_lsn), self._place(before_lsn)
                self.missing.append(Missing(STREAMS[index], after, before, left))

    def _place(self, lsn: int) -> str:
        return str(Position(self._incarnation, 0, offset_of(lsn, 0))) if lsn > 0 else ""

    def _surplus(self, after_lsn: int, before_lsn: int, into: list[Sums]) -> None:
        """Claims about the end of an epoch, which no row of it counts: handed over, and accounted for."""
        for index, stream in enumerate(STREAMS):
            for kind, rows in self._claims.beyond(self.source, stream, after_lsn, before_lsn, settle=True):
                for sums in into:
                    sums.handed[index] += rows
                    sums.tell(kind, index, rows)

    def move_evicted(self, stream: int, rows: int) -> None:
        """Rows that were found, and that retention has removed since."""
        self.total.found[stream] -= rows
        self.total.tell(LedgerKind.EVICTED, stream, rows)

    def account(
        self, sums: Sums, conflicts: Counts, unknown: tuple[UnknownRange, ...], *, whole: bool
    ) -> SourceAccount:
        """The account as it is now. `whole`: over all of the log, with its open end."""
        sums = sums.copy()
        if whole:
            _add(sums.handed, self._pending)
            for index, stream in enumerate(STREAMS):
                for kind, rows in self._claims.beyond(
                    self.source, stream, self._last_lsn, _END_LSN, settle=False
                ):
                    sums.handed[index] += rows
                    sums.tell(kind, index, rows)
        for index, rows in enumerate(conflicts):
            if rows:
                sums.handed[index] += rows
                sums.tell(LedgerKind.CONFLICT, index, rows)
        readings, events, letters = sums.rows()
        received, accepted, rejected, ignored, dropped, unacknowledged = sums.messages
        return SourceAccount(
            self.source,
            self.counted,
            sums.first_ns,
            sums.last_ns,
            received,
            accepted,
            rejected,
            ignored,
            dropped,
            unacknowledged,
            readings,
            events,
            letters,
            unknown,
            tuple(self.missing),
        )


def _handed(row: AccountRow) -> Counts:
    return [row.readings, row.events, row.letters]


def _messages(row: AccountRow) -> Counts:
    return [row.messages, row.accepted, row.rejected, row.ignored, row.dropped, row.unacknowledged]


def _add(into: Counts, counts: Counts) -> None:
    for index, count in enumerate(counts):
        into[index] += count
