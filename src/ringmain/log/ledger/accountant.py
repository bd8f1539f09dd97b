"""Adds up what became of everything that sources received: `received = stored + accounted for`.

An `Accountant` walks the segments themselves, checks the CRCs of what it counts, and believes no counter but the
rows of stream `accounts`, which sources append together with their data. What it finds is compared at each of those
rows, so a difference is known with its place. It goes on from where it was: `advance` looks at what came since.

    rows handed over = found + evicted + quarantined + cut + lost + conflict      by source, for readings, events, letters
    messages received = accepted + rejected + ignored + dropped                   by source
    rows written = found + what the ledger has                                    by stream, whoever wrote

Works beside a writing node, up to what is durable, and without one. Writes nothing. Left to others: the entries of the
ledger (`ledger/findings.py`, `ledger/eviction.py`), the rows (`runtime`), showing the result (`cli/log_account.py`, `serve`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ringmain.log.builtin import ACCOUNTS_ID, CONFLICTS_ID, LedgerKind
from ringmain.log.builtin import STREAMS as BUILT_IN
from ringmain.log.codec import decode_record
from ringmain.log.frames import SEGMENT_HEADER_BYTES, GroupHeader, lsn_of
from ringmain.log.interface import LogError, Position, PositionGoneError
from ringmain.log.ledger.chain import STREAMS, Chain, Sums
from ringmain.log.ledger.claims import Claims, evicted_rows
from ringmain.log.ledger.ending import Durable, durable
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.ledger.result import IntervalAccount, MissingEnd, SourceAccount, StreamAccount
from ringmain.log.ledger.row import decode_account
from ringmain.log.ledger.uncounted import unknown_ranges
from ringmain.log.request import INTERNAL
from ringmain.log.segments import Damage, StoredGroup, walk
from ringmain.log.store import Segment, Store

DAMAGED_NAMED_MAX = 100
INTERVALS_MAX = 100_000
"""Intervals that are told apart, of all sources together."""
_ATTEMPTS = 8

Progress = Callable[[int, int], None]


class Published(Protocol):
    """What an accountant needs of a reader: `Journal`, `JournalReader`, or a `RemoteLog` that reads files."""

    @property
    def published(self) -> Store:
        """What of the log is readable."""
        ...

    def end(self) -> Position | None:
        """The newest durable position; brings `published` up to date."""
        ...


class _RetentionAheadError(Exception):
    """Retention removed what was to be scanned next."""


class Accountant:
    """The accounts of the sources of one log. Used by one thread at a time.

    `from_ns` (inclusive) and `to_ns` (exclusive) leave out what arrived at other times; `interval_ns` gives an
    account for each interval of that length as well. `bodies=False` checks headers only: for whoever looks often.
    `files=True` compares the end of the log with what its mark and its newest checkpoint say was durable: for readers of
    files (`JournalReader`); the writer of a log has done that when it opened it.
    """

    def __init__(
        self,
        reader: Published,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        interval_ns: int | None = None,
        bodies: bool = True,
        files: bool = False,
    ) -> None:
        self._reader = reader
        self._from_ns = from_ns
        self._to_ns = to_ns
        self._interval_ns = interval_ns
        self._bodies = bodies
        self._files = files
        self._reset()

    def _reset(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._claims = Claims()
        self._begun = False
        self._segment = 0
        self._at = SEGMENT_HEADER_BYTES
        self._lsn = 0
        self._ledger: list[LedgerEntry] = []
        self._evicted: dict[tuple[str | None, str | None], int] = {}
        self._written: dict[int, int] = {}
        self._stream_lsns: dict[int, int] = {}
        self._found: dict[int, int] = {}
        self._differences: dict[int, int] = {}
        self._names = {stream.id: stream.name for stream in BUILT_IN}
        self._removed_offset = -1
        self._interval_count = 0
        self._refused: list[LedgerEntry] = []
        self._arrival_ns = 0
        self._sources: tuple[str, ...] = ()
        self.missing_end: MissingEnd | None = None
        """Groups that were durable and are not in the files, behind all that were scanned."""
        self.damaged: list[str] = []
        """Damage that this scan met and that the ledger does not have: place and reason."""

    # -- scanning --------------------------------------------------------------------------------------------

    def advance(self, progress: Progress | None = None) -> None:
        """Take in everything durable that was not looked at before. `progress(done_bytes, all_bytes)` now and then.

        Raises LogError when retention is faster than this, OSError.
        """
        for _ in range(_ATTEMPTS):
            try:
                self._advance(progress)
                return
            except (_RetentionAheadError, PositionGoneError):
                self._reset()
        raise LogError("retention removes segments faster than they can be counted: try again")

    def _advance(self, progress: Progress | None) -> None:
        if self.missing_end is not None:
            self._reset()
        durable_before = durable(self._reader.published) if self._files else None
        self._reader.end()
        store = self._reader.published
        limited = self._from_ns is not None or self._to_ns is not None or self._interval_ns is not None
        with store.lock:
            segments = [(one, one.end) for one in store.segments]
            state = store.state
            self._names.update((entry.stream.id, name) for name, entry in state.streams.items())
            ledger, removed_offset = list(state.ledger), state.removed_offset
            removed = dict(state.accounts.removed)
            self._sources = tuple(state.accounts.sources)
        if self._begun and limited and removed_offset != self._removed_offset:
            raise _RetentionAheadError
        self._removed_offset = removed_offset
        removed_lsn = lsn_of(removed_offset) if removed_offset >= 0 else 0
        if (
            not self._begun
            or len(ledger) != len(self._ledger)
            or (ledger and ledger[-1] is not self._ledger[-1])
        ):
            self._take_ledger(ledger)
        if not self._begun:
            self._begun = True
            self._lsn = removed_lsn
            for source, rows in removed.items():
                chain = self._chain(source)
                into = [chain.total] if self._from_ns is None else []
                chain.begin(rows.last, rows.settled, rows.lsn, into)
        self._scan(store, segments, progress)
        if limited:
            with store.lock:
                if store.state.removed_offset != removed_offset:
                    raise _RetentionAheadError
        if durable_before is not None:
            self._end(store, durable_before)

    def _end(self, store: Store, known: Durable) -> None:
        """Compare the end of what was scanned with what was durable; what is missing there is counted if it can be."""
        if (self._from_ns is not None and known.arrival_ns < self._from_ns) or (
            self._to_ns is not None and self._arrival_ns >= self._to_ns
        ):
            return
        self.missing_end = known.missing_end(store, self._lsn)
        state = known.state
        if self.missing_end is None or state.lsn < self.missing_end.first_lsn:
            return
        for stream, entry in state.by_id.items():
            counted = stream >= CONFLICTS_ID and stream != ACCOUNTS_ID
            if counted and entry.counts.rows > self._written.get(stream, 0):
                self._stream_frame(stream, state.lsn, 0, entry.counts.rows)
        limited = self._from_ns is not None or self._to_ns is not None
        for source, last in state.accounts.sources.items():
            chain = self._chain(source)
            chain.row_beyond(last.row, state.lsn, last.arrival_ns, [] if limited else [chain.total])

    def _take_ledger(self, ledger: list[LedgerEntry]) -> None:
        self._ledger = ledger
        self._claims.take(ledger, self._lsn if self._begun else -1)
        self._refused = [
            entry for entry in ledger if entry.kind == LedgerKind.CONFLICT and entry.stream in STREAMS
        ]
        if self._begun:
            self._move_evicted(evicted_rows(ledger))
        else:
            self._evicted = evicted_rows(ledger)

    def _scan(self, store: Store, segments: Sequence[tuple[Segment, int]], progress: Progress | None) -> None:
        if self._segment and all(segment.number != self._segment for segment, _ in segments):
            raise _RetentionAheadError
        ahead = [(segment, end) for segment, end in segments if segment.number >= self._segment]
        total = sum(end for _, end in ahead)
        done = 0
        for segment, end in ahead:
            if segment.number != self._segment:
                self._segment, self._at = segment.number, SEGMENT_HEADER_BYTES
            with store.opened(segment) as handle:
                for found in walk(
                    store.fs,
                    handle,
                    self._at,
                    end,
                    after_lsn=max(segment.first_lsn - 1, 0),
                    incarnation=segment.incarnation or None,
                    bodies=self._bodies,
                ):
                    if isinstance(found, Damage):
                        self._damage(store, segment, found)
                    elif found.header.lsn > self._lsn:
                        self._group(store, found)
                    self._at = found.end
                    if progress is not None:
                        progress(done + found.end, total)
            done += end

    def _damage(self, store: Store, segment: Segment, found: Damage) -> None:
        store.check_there(segment)
        first = self._lsn + 1 if found.header is None else found.header.lsn
        if not self._claims.tells_of(first, first):
            self._claims.unclear(first, first)
            if len(self.damaged) < DAMAGED_NAMED_MAX:
                self.damaged.append(
                    f"segment {segment.number}, bytes {found.at} to {found.end}: {found.reason}"
                )

    def _group(self, store: Store, found: StoredGroup) -> None:
        header = found.header
        self._lsn, self._arrival_ns = header.lsn, header.arrival_ns
        counts: list[int] | None = None
        row = None
        for number, frame in enumerate(found.frames):
            stream = frame.stream
            if stream == ACCOUNTS_ID:
                data = decode_record(frame, found.body(number))
                row = None if data is None else decode_account(data)
            elif stream >= CONFLICTS_ID:
                self._stream_frame(stream, header.lsn, frame.rows, frame.cumulative_rows)
                name = self._names.get(stream)
                if name in STREAMS:
                    counts = counts or [0, 0, 0]
                    counts[STREAMS.index(name)] += frame.rows
        if row is None and counts is None:
            return
        frame = found.frames[-1]
        source = store.state.source_of(frame.producer)
        if source is None:
            source = INTERNAL.name if row is None else row.source
        if row is not None and row.source != source:
            row = None
        chain = self._chain(source)
        chain.group(header, frame.epoch, counts or [0, 0, 0], row, self._sums(chain, header))

    def _chain(self, source: str) -> Chain:
        chain = self._chains.get(source)
        if chain is None:
            after = lsn_of(self._removed_offset) if self._removed_offset >= 0 else -1
            chain = self._chains[source] = Chain(source, self._claims, after)
        return chain

    def _sums(self, chain: Chain, header: GroupHeader) -> list[Sums]:
        arrival_ns = header.arrival_ns
        if self._from_ns is not None and arrival_ns < self._from_ns:
            return []
        if self._to_ns is not None and arrival_ns >= self._to_ns:
            return []
        if self._interval_ns is None:
            return [chain.total]
        start_ns = arrival_ns // self._interval_ns * self._interval_ns
        interval = chain.intervals.get(start_ns)
        if interval is None:
            self._interval_count += 1
            if self._interval_count > INTERVALS_MAX:
                raise LogError(
                    f"expected at most {INTERVALS_MAX} intervals of all sources together, found more: "
                    "choose longer ones, or a shorter time with from and to"
                )
            interval = chain.intervals[start_ns] = Sums()
        return [chain.total, interval]

    def _stream_frame(self, stream: int, lsn: int, rows: int, cumulative_rows: int) -> None:
        hole = cumulative_rows - rows - self._written.get(stream, 0)
        if hole:
            left = hole
            if hole > 0:
                after = self._stream_lsns.get(stream, -1)
                _, left = self._claims.explain(None, self._names.get(stream, ""), after, lsn, hole)
            self._differences[stream] = self._differences.get(stream, 0) + left
        self._written[stream] = cumulative_rows
        self._stream_lsns[stream] = lsn
        self._found[stream] = self._found.get(stream, 0) + rows

    def _move_evicted(self, evicted: dict[tuple[str | None, str | None], int]) -> None:
        """What was found here, and has been removed since."""
        ids = {name: stream for stream, name in self._names.items()}
        for (source, stream), rows in evicted.items():
            gone = rows - self._evicted.get((source, stream), 0)
            if gone <= 0 or stream is None:
                continue
            if stream in ids:
                self._found[ids[stream]] = self._found.get(ids[stream], 0) - gone
            chain = self._chains.get(source or INTERNAL.name)
            if chain is not None and stream in STREAMS:
                chain.move_evicted(STREAMS.index(stream), gone)
        self._evicted = evicted

    # -- results ---------------------------------------------------------------------------------------------

    def accounts(self) -> list[SourceAccount]:
        """The account of every source and of every other producer that wrote to the streams of sources, by name."""
        whole = self._to_ns is None
        unknown = unknown_ranges(self._ledger, self._chains, self._sources, self._from_ns, self._to_ns)
        named = {*self._chains, *unknown}
        return [
            self._chain(source).account(
                self._chain(source).total,
                self._conflicts(source, self._from_ns, self._to_ns),
                tuple(unknown.get(source, ())),
                whole=whole,
            )
            for source in sorted(named)
            if source != INTERNAL.name
        ]

    def intervals(self, source: str) -> list[IntervalAccount]:
        """A source's account in each interval in which it appended something, oldest first."""
        chain = self._chains.get(source)
        if chain is None or self._interval_ns is None:
            return []
        length = self._interval_ns
        newest = max(chain.intervals, default=0)
        return [
            IntervalAccount(
                start,
                chain.account(
                    sums,
                    self._conflicts(source, start, start + length),
                    (),
                    whole=start == newest and self._to_ns is None,
                ),
            )
            for start, sums in sorted(chain.intervals.items())
        ]

    def streams(self) -> list[StreamAccount]:
        """Rows written and found of every stream, whoever wrote them; what sources lack, streams lack too."""
        return [
            StreamAccount(
                self._names.get(stream, str(stream)),
                written,
                self._found.get(stream, 0),
                self._differences.get(stream, 0),
            )
            for stream, written in sorted(self._written.items())
        ]

    @property
    def closes(self) -> bool:
        """Whether every row and message is there or accounted for."""
        sources = all(account.closes for account in self.accounts())
        return sources and not any(self._differences.values()) and self.missing_end is None

    def _conflicts(self, source: str, from_ns: int | None, to_ns: int | None) -> list[int]:
        """Rows refused as conflicts; the time is that of the entry."""
        rows = [0, 0, 0]
        for entry in self._refused:
            if entry.source != source or entry.stream is None:
                continue
            if (from_ns is None or entry.time_ns >= from_ns) and (to_ns is None or entry.time_ns < to_ns):
                rows[STREAMS.index(entry.stream)] += entry.rows or 0
        return rows
