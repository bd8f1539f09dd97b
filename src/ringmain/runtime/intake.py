"""The intake: what stands between one source and the log.

Promises
    - What is submitted while no append of the source is under way is appended at once; what comes meanwhile
      is collected and appended together when that append is durable. So the commit delay is the time of one
      sync, and under load one append carries many submissions.
    - `durable` of each submission is called once, in the order of submission, on the source's loop, after
      the log answered; never when the log failed or closed before.
    - A full or failing disk loses nothing: the same append (same epoch and sequence, so never a second copy)
      is tried again until it is durable, nothing is acknowledged meanwhile, and `ready` turns false once
      the bounded queue is full.
    - Series that are new travel in the append of the first readings that use them, or before it.
    - Every append carries what the source has received and handed over so far (stream `accounts`), so that the log
      itself says what became of it, after any fault (`log/ledger/accountant.py`).

Left to others: cutting appends to the log's limits (`lots.py`), running the source (`supervisor.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Protocol

import pyarrow as pa

from ringmain.log.interface import (
    Appended,
    Batch,
    Log,
    LogError,
    LogFailedError,
    LogFullError,
    TooLargeError,
)
from ringmain.log.ledger.row import AccountRow
from ringmain.runtime import source_metrics as metrics
from ringmain.runtime.account import SourceCounts, reason_class
from ringmain.runtime.contract import Submission
from ringmain.runtime.counters import Cell, Counters, metric_named
from ringmain.runtime.lots import NO_MESSAGES, Lot, Piece, lots_of, piece_of
from ringmain.runtime.status import StorageState, Tally

QUEUE_ROWS_MAX = 262_144
"""Rows handed over and not yet durable beyond which a source is told to stop reading."""

QUEUE_BYTES_MAX = 32 * 1024 * 1024
"""The same, in estimated bytes."""

CATALOGUE_BYTES_MAX = 512 * 1024
"""Unsaved catalogue entries beyond this go ahead in appends of their own."""

RETRY_S_MIN = 0.1
RETRY_S_MAX = 2.0


class Registry(Protocol):
    """What the intake needs of the series registry (`log.catalogue.SeriesRegistry`)."""

    def unsaved(self) -> tuple[list[pa.RecordBatch], int]:
        """Entries that are not durable yet, as batches of stream `catalogue`, and a token for `saved`."""
        ...

    def saved(self, token: int) -> None:
        """The entries that `unsaved` gave together with this token are durable."""
        ...


class SourceIntake:
    """The `Intake` of one run of one source. Everything but `storage` and `queue_rows` is for its loop only.

    Made on the source's event loop; claims `source/NAME`, so it raises LogFullError or LogFailedError when
    that cannot be made durable.
    """

    def __init__(
        self,
        source: str,
        log: Log,
        registry: Registry,
        counters: Counters,
        *,
        tally: Tally | None = None,
        queue_rows_max: int = QUEUE_ROWS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self.source = source
        self.tally = tally if tally is not None else Tally()
        self.storage = StorageState.OK
        self.queue_rows = 0
        self._queue_bytes = 0
        self._rows_max = queue_rows_max
        self._bytes_max = queue_bytes_max
        self._log = log
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._logger = logging.getLogger(f"ringmain.sources.{source}")
        self._claim = log.claim(f"source/{source}")
        self._sequence = 0
        self._queue: deque[Piece] = deque()
        self._lots: deque[Lot] = deque()
        self._counts = SourceCounts(source, self._claim.epoch)
        self._row: AccountRow | None = None
        self._letters_by_reason: Counter[str] = Counter()
        self._batches: list[Batch] | None = None
        self._token: int | None = None
        self._appended_at_s = 0.0
        self._retry_s = RETRY_S_MIN
        self._ready = True
        self._ready_event = asyncio.Event()
        self._ready_event.set()
        self._idle_event = asyncio.Event()
        self._idle_event.set()
        self._listeners: list[Callable[[bool], None]] = []
        self.ended: asyncio.Future[LogError] = self._loop.create_future()
        """Resolved with the reason when the log will take nothing more from this intake."""
        self._counters = counters
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._received = counters.cell(metrics.RECEIVED, source)
        self._readings = counters.cell(metrics.READINGS, source)
        self._events = counters.cell(metrics.EVENTS, source)
        self._bytes = counters.cell(metrics.BYTES, source)
        self._appends = counters.cell(metrics.APPENDS, source)
        self._append_seconds = counters.histogram(metrics.APPEND_SECONDS, source)
        self._queue_cell = counters.cell(metrics.QUEUE_ROWS, source)
        self._ready_cell = counters.cell(metrics.READY, source)
        self._queue_cell.set(0)
        self._ready_cell.set(1)

    # --- what the source uses (contract.Intake)

    def submit(self, submission: Submission) -> None:
        """Take over the submission. Never blocks, never raises for a full log: see `ready`."""
        if submission.received:
            self.tally.received += submission.received
            self._received.add(submission.received)
        if self.ended.done():
            return
        piece = piece_of(submission)
        self.queue_rows += piece.rows
        self._queue_bytes += piece.size_bytes
        self._queue.append(piece)
        self._idle_event.clear()
        if not self._lots:
            self._append_next()
        self._update_ready()

    @property
    def ready(self) -> bool:
        """False while the bounded queue is full: the source stops reading from its connections."""
        return self._ready

    async def wait_ready(self) -> None:
        """Return once `ready` is true."""
        await self._ready_event.wait()

    def on_ready(self, callback: Callable[[bool], None]) -> None:
        """Call back on the event loop whenever `ready` changes."""
        self._listeners.append(callback)

    async def drained(self) -> None:
        """Return once everything submitted is durable and its callbacks ran, or the log takes nothing more."""
        await self._idle_event.wait()

    def positions(self) -> Mapping[str, bytes]:
        """The source's named positions as they were durable at start (names relative to the source)."""
        prefix = f"source/{self.source}/"
        return {name.removeprefix(prefix): value for name, value in self._claim.positions.items()}

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Add to the source's metric `name`; raises LookupError when it is not declared."""
        key = (name, *labels, *labels.values())
        cell = self._cells.get(key)
        if cell is None:
            metric = metric_named(name)
            values = {"source": self.source, **labels}
            if set(values) != set(metric.labels):
                raise LookupError(f"metric {name}: expected labels {metric.labels}, found {tuple(values)}")
            cell = self._counters.cell(metric, *(values[label] for label in metric.labels))
            if len(self._cells) < 4096:
                self._cells[key] = cell
        cell.add(n)

    # --- appending

    def _append_next(self) -> None:
        """Begin the append of the next lot. None is under way."""
        if not self._lots:
            self._lots.extend(lots_of(self._queue))
            self._queue.clear()
        if not self._lots:
            return
        self._batches, self._token, self._row = None, None, None
        self._sequence += 1
        self._appended_at_s = time.perf_counter()
        self._append()

    def _prepare(self) -> None:
        """Build the batches of the first lot, with the catalogue entries that it needs. May raise LogError."""
        batches = self._prepare_rows()
        lot = self._lots[0]
        messages = lot.messages()
        letters = Counter(reason_class(letter.reason) for letter in lot.letters())
        events = sum(1 for _ in lot.happenings())
        if batches or messages != NO_MESSAGES or lot.positions():
            row = self._counts.next_row(messages, readings=lot.readings, events=events, letters=letters)
            batches.append(Batch("accounts", row))
            self._row = row
        self._letters_by_reason = letters
        self._batches = batches

    def _prepare_rows(self) -> list[Batch]:
        if not isinstance(self._lots[0], _CatalogueLot):
            entries, token = self._registry.unsaved()
            catalogue = [Batch("catalogue", rows) for rows in entries]
            if sum(batch.rows.nbytes for batch in catalogue) <= CATALOGUE_BYTES_MAX:
                self._token = token if catalogue else None
                return [*catalogue, *self._lots[0].batches(self.source)]
            # Too many to go along: they go ahead, one batch an append; the token with the last of them.
            ahead = [_CatalogueLot(batch) for batch in catalogue]
            ahead[-1].token = token
            self._lots.extendleft(reversed(ahead))
        first = self._lots[0]
        assert isinstance(first, _CatalogueLot)
        self._token = first.token
        return [first.catalogue]

    def _append(self) -> None:
        """Hand the next append to the log; called again with the same append while the log is full."""
        if self.ended.done():
            return
        try:
            if self._batches is None:
                self._prepare()
            assert self._batches is not None
            positions = self._absolute(self._lots[0].positions())
            if not self._batches and not positions:
                self._loop.call_soon(self._done, None, None)
                return
            self._log.append_nowait(
                self._batches,
                self._answered,
                claim=self._claim,
                sequence=self._sequence,
                positions=positions or None,
            )
        except LogError as error:
            self._loop.call_soon(self._done, None, error)

    def _absolute(self, positions: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        return {f"source/{self.source}/{name}": value for name, value in positions.items()}

    def _answered(self, appended: Appended | None, error: LogError | None) -> None:
        """On a thread of the log: hop to the source's loop."""
        try:
            self._loop.call_soon_threadsafe(self._done, appended, error)
        except RuntimeError:
            self._logger.debug("append answered after the source's loop had closed")

    def _done(self, appended: Appended | None, error: LogError | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self._stored(appended)
        elif isinstance(error, LogFullError):
            self._retry(StorageState.FULL, error)
        elif isinstance(error, LogFailedError):
            self._retry(StorageState.FAILING, error)
        elif isinstance(error, TooLargeError) and (halves := self._lots[0].halves()) is not None:
            self._lots.popleft()
            self._lots.extendleft(reversed(halves))
            self._append_next()
        else:
            self._end(error)

    def _stored(self, appended: Appended | None) -> None:
        lot = self._lots.popleft()
        if appended is not None:
            self._count(lot, appended)
        if self._token is not None:
            self._registry.saved(self._token)
        self.queue_rows -= lot.rows
        self._queue_bytes -= lot.size_bytes
        # The next append first: its sync runs while the acknowledgements of this one are written.
        self._append_next()
        for piece in lot.pieces:
            if piece.durable is not None:
                self._call(piece.durable)
        self._update_ready()
        if not self._lots and not self._queue:
            self._idle_event.set()

    def _count(self, lot: Lot, appended: Appended) -> None:
        if self.storage is not StorageState.OK:
            self._logger.info("source %s: storing again", self.source)
            self.storage = StorageState.OK
        self._retry_s = RETRY_S_MIN
        self._append_seconds.observe(time.perf_counter() - self._appended_at_s)
        self._appends.add()
        self._bytes.add(sum(batch.rows.nbytes for batch in self._batches or ()))
        readings = lot.readings
        if readings:
            self._readings.add(readings)
            self.tally.readings += readings
            self.tally.last_reading_ns = appended.arrival_ns
        if self._row is not None:
            self._counts.stored(self._row)
        for reason, times in self._letters_by_reason.items():
            self.tally.letters += times
            self._counters.cell(metrics.LETTERS, self.source, reason).add(times)
        events = sum(1 for _ in lot.happenings())
        self._events.add(events)
        self.tally.events += events

    def _retry(self, state: StorageState, error: LogError) -> None:
        if self.storage is not state:
            self._logger.error(
                "source %s: %s; nothing is acknowledged until it can be stored", self.source, error
            )
        self.storage = state
        self._counters.cell(metrics.RETRIES, self.source, state.value).add()
        self._loop.call_later(self._retry_s, self._append)
        self._retry_s = min(self._retry_s * 2, RETRY_S_MAX)

    def _end(self, error: LogError) -> None:
        """The log takes nothing more: what is queued stays unacknowledged, for its sender to send again."""
        self._queue.clear()
        self._lots.clear()
        self.queue_rows = self._queue_bytes = 0
        self._idle_event.set()
        self.ended.set_result(error)
        self._update_ready()

    # --- back-pressure

    def _update_ready(self) -> None:
        self._queue_cell.set(self.queue_rows)
        if self.ended.done():
            ready = False
        elif self._ready:
            ready = self.queue_rows < self._rows_max and self._queue_bytes < self._bytes_max
        else:
            ready = self.queue_rows <= self._rows_max // 2 and self._queue_bytes <= self._bytes_max // 2
        if ready == self._ready:
            return
        self._ready = ready
        self._ready_cell.set(int(ready))
        if ready:
            self._ready_event.set()
        else:
            self._ready_event.clear()
        for listener in tuple(self._listeners):
            self._call(listener, ready)

    def _call(self, callback: Callable[..., None], *arguments: bool) -> None:
        try:
            callback(*arguments)
        except Exception:
            self._counters.cell(metrics.CALLBACK_ERRORS, self.source).add()
            self._logger.exception("source %s: a callback of the source raised", self.source)


class _CatalogueLot(Lot):
    """Catalogue entries that go ahead of the readings that use them."""

    def __init__(self, catalogue: Batch) -> None:
        super().__init__()
        self.catalogue = catalogue
        self.token: int | None = None
