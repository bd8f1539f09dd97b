"""Runs a sink: in a thread of its own, from where it was, at its own pace.

Promises
    - The sink claims `sink/NAME`; its position moves only behind rows that it has answered for, in one append with the
      dead letters of those that were rejected. Killed at any point, it goes on from the stored position: at least
      once, in order, each batch under the identity that it had before.
    - A `Retry` is tried again after 0.5 s, doubling to a minute, with jitter; never before the time that the receiver
      asked for (an hour at most). An exception closes the sink and opens it anew, with the same waits.
    - A batch on which the sink fails by a mistake of its own (no connection, no disk: any other exception) is tried
      `POISON_TRIES` times, by itself; then it is a dead letter with the traceback, and the sink goes on.
    - Where retention was faster, the sink goes on with the oldest that there is. The rows that it missed are counted, in
      the ledger under `sink/NAME`, and told in its status.
    - It slows nobody: it reads what is durable, and nobody waits for it.

Left to others: where rows go (`ringmain.sinks`), what is read (`sink_reader.py`), storing the position (`sink_commit.py`).
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ringmain.log.interface import FencedError, Log, LogClosedError, LogError, PositionGoneError
from ringmain.runtime import sink_metrics as metrics
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.counters import Cell, Counters, metric_named
from ringmain.runtime.sink import (
    Accepted,
    Answer,
    BatchId,
    Held,
    HoldingSink,
    Rejected,
    Retry,
    Sink,
    SinkBatch,
    SinkContext,
    SinkError,
)
from ringmain.runtime.sink_commit import SinkCommitter
from ringmain.runtime.sink_health import SinkHealth
from ringmain.runtime.sink_position import Mark
from ringmain.runtime.sink_reader import ROUND_BATCHES_MAX, SinkReader
from ringmain.runtime.sink_status import SinkState, SinkStatus

POISON_TRIES = 5
_COMMIT_EVERY_S = 0.1
_IDLE_COMMIT_EVERY_S = 10.0
_WAIT_S = 1.0
_PACE_S = 0.01
"""What comes within this time is handed over together."""


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """How a sink is run: `streams` it reads, from the oldest row on or (`newest`) from what comes after its first start.

    `batch_rows_max`: rows of one batch at most; it is part of the identities of batches.
    """

    name: str
    kind: str
    streams: tuple[str, ...]
    newest: bool = False
    batch_rows_max: int = 40_000


class SinkRunner:
    """One sink. `start` once, `stop` once; `status` from any thread."""

    def __init__(
        self, plan: SinkPlan, sink: Sink, log: Log, counters: Counters, *, backoff: Backoff | None = None
    ) -> None:
        self.plan = plan
        self.name = plan.name
        self._sink = sink
        self._log = log
        self._counters = counters
        self._logger = logging.getLogger("ringmain.sinks")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._address = ""
        self._poison: tuple[BatchId, int] | None = None
        self._singly = 0
        self._last_trace = ""
        self._answered_ns = 0
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._rows = counters.cell(metrics.ROWS, self.name)
        self._batches = counters.cell(metrics.BATCHES, self.name)
        self._missed = counters.cell(metrics.MISSED, self.name)
        self._missed.add(0)
        self._retries = counters.cell(metrics.RETRIES, self.name)
        self._health = SinkHealth(
            self.name,
            backoff or Backoff(0.5, 60.0, healthy_s=0.0),
            counters.cell(metrics.RUNNING, self.name),
            self._retries,
            self._stop,
        )
        self._rejected = 0
        self._unwatch = (
            counters.observe_with(metrics.LAG_SECONDS, lambda: self.lag()[0] or 0.0, self.name),
            counters.observe_with(metrics.LAG_ROWS, lambda: self.lag()[1] or 0, self.name),
        )
        self._mark: Mark | None = None
        self._thread = threading.Thread(target=self._main, name=f"sink-{self.name}", daemon=True)

    # Control, from any thread

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Store the position of what is answered for and end; whether it ended within the time. Idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the sink has ended by itself or was stopped."""
        return self._ended.wait(timeout_s)

    @property
    def state(self) -> SinkState:
        """Where it is in its life."""
        return self._health.state

    def lag(self) -> tuple[float | None, int | None]:
        """Arrival time in s, and rows, of its streams that are not answered for; None: not known (yet)."""
        try:
            states = [one for one in self._log.streams() if one.stream.name in self.plan.streams]
        except LogError:
            return None, None
        mark = self._mark
        if mark is None:
            return None, None
        rows = sum(max(0, one.rows - mark.rows.get(one.stream.name, 0)) for one in states)
        newest_ns = max((one.last_arrival_ns for one in states if one.frames), default=0)
        if not rows:
            return 0.0, 0
        return (max(0.0, (newest_ns - self._answered_ns) / 1e9) if self._answered_ns else None), rows

    def status(self) -> SinkStatus:
        """The sink at this moment."""
        lag_s, lag_rows = self.lag()
        mark = self._mark
        return SinkStatus(
            name=self.name,
            type=self.plan.kind,
            streams=self.plan.streams,
            address=self._address,
            state=self._health.state,
            since_ns=self._health.since_ns,
            last_error=self._health.last_error,
            position=None if mark is None or mark.position is None else str(mark.position),
            lag_s=lag_s,
            lag_rows=lag_rows,
            rows=int(self._rows.value),
            batches=int(self._batches.value),
            retries=int(self._retries.value),
            rejected=self._rejected,
            missed=int(self._missed.value),
        )

    # The thread

    def _main(self) -> None:
        unsubscribe = None
        try:
            unsubscribe = self._log.on_durable(self._wake.set)
            while not self._stop.is_set():
                try:
                    self._run()
                except InterruptedError:
                    break
                except LogClosedError:
                    break
                except FencedError as error:
                    self._health.ended(
                        f"another instance has taken over this sink ({error}): stop one of the two"
                    )
                    return
                except Exception as error:
                    self._health.failed(error)
            self._health.enter(SinkState.STOPPED)
        finally:
            if unsubscribe is not None:
                unsubscribe()
            for end in self._unwatch:
                end()
            self._ended.set()

    def _run(self) -> None:
        """One life of the sink: claimed, opened, and delivering until told to stop. Raises what it raises."""
        if self._health.state is not SinkState.BACKOFF:
            self._health.enter(SinkState.STARTING)
        claim = self._log.claim(f"sink/{self.name}")
        stored = claim.positions.get(claim.name)
        mark = None if stored is None else Mark.decode(stored)
        committer = SinkCommitter(
            self._log, claim, self._missed, mark, self._health.log_refuses, self._health.well
        )
        if mark is None and self.plan.newest:
            mark = self._newest()
            committer.move(mark)
            committer.commit()
        reader = SinkReader(self._log, self.plan.streams, mark, self.plan.batch_rows_max, self._health.missed)
        self._mark = committer.mark or Mark(None, {})
        context = SinkContext(self.name, self._log.catalogue(), mark, self._stop, self._count)
        try:
            self._address = self._sink.open(context)
            life = _Life(reader, committer, self._sink if isinstance(self._sink, HoldingSink) else None)
            self._adopt(life)
            self._follow(life)
        finally:
            try:
                committer.commit()
            finally:
                self._sink.close()

    def _adopt(self, life: _Life) -> None:
        """Go on behind what a holding sink finds that it had for good when its last process ended."""
        if life.holding is None:
            return
        mark = life.holding.settle(0)
        if not isinstance(mark, Mark) or mark == life.committer.mark:
            return
        known = {one.stream.name for one in self._log.streams()}
        streams = [name for name in self.plan.streams if name in known]
        try:
            next(iter(self._log.read(streams, after=mark.position, until=self._log.end())), None)
        except PositionGoneError as error:
            raise SinkError(
                f"expected at {self._address} what this sink of this log has written, found what it does not know ({error})",
                "give another place to write to, or move away what is there",
            ) from error
        life.committer.move(mark)
        life.committer.commit()
        life.reader.skip_to(mark)
        self._mark = mark

    def _newest(self) -> Mark:
        end = self._log.end()
        rows = {one.stream.name: one.rows for one in self._log.streams()}
        return Mark(end, {name: rows[name] for name in self.plan.streams if rows.get(name)})

    def _follow(self, life: _Life) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            if not life.pending:
                life.pending = life.reader.take(1 if self._singly else ROUND_BATCHES_MAX)
            if life.pending:
                self._answered_ns = self._answered_ns or life.pending[0].arrival_ns
                self._deliver(life)
            self._settle(life)
            if self._health.retry_at_s is None and not life.pending:
                self._health.well()
                self._health.awaits(life.reader.unknown)
                if not life.held:
                    life.committer.rest(life.reader.mark)
                    self._mark = life.committer.mark or self._mark
            self._store(life)
            if self._health.retry_at_s is not None:
                self._health.wait_to_retry()
            elif not life.pending and not self._stop.wait(_PACE_S):
                self._wake.wait(_COMMIT_EVERY_S if life.committer.owes else _WAIT_S)

    def _store(self, life: _Life) -> None:
        """Store the position: soon where something was answered for, at once before a wait, now and then in silence."""
        now_s = time.monotonic()
        owes = life.committer.owes
        every_s = (
            (0.0 if self._health.retry_at_s is not None else _COMMIT_EVERY_S)
            if owes
            else _IDLE_COMMIT_EVERY_S
        )
        if now_s - life.committed_s >= every_s:
            life.committer.commit()
            life.committed_s = now_s

    def _deliver(self, life: _Life) -> None:
        """Hand over what is pending, and take the answers."""
        pending = life.pending
        poisoned = self._poisoned(pending[0].id)
        answers: Sequence[Answer]
        if poisoned is not None:
            answers = [Rejected.whole(pending[0], poisoned)]
        else:
            try:
                answers = self._sink.deliver(pending, life.reader.now_ns)
                _check_answers(pending, answers)
            except Exception as error:
                self._note_poison(pending, error, life)
                raise
        done = 0
        for batch, answer in zip(pending, answers, strict=False):
            if isinstance(answer, Retry):
                self._health.again(answer)
                life.pending = [replace(one, attempt=one.attempt + 1) for one in pending[done:]]
                return
            self._take(life, batch, answer)
            done += 1
        life.pending = list(pending[done:])
        self._poison, self._singly = None, max(0, self._singly - done)
        self._health.well(answered=True)

    def _take(self, life: _Life, batch: SinkBatch, answer: Answer) -> None:
        if isinstance(answer, Held):
            if life.holding is None:
                raise TypeError("expected a sink that answers Held to have the method `settle`")
            life.held = True
            life.held_rows += batch.id.rows
            life.held_batches += 1
            return
        if life.held:
            raise TypeError("expected Held for what comes behind a batch that is held")
        rejected = 0
        if isinstance(answer, Rejected):
            by_reason = life.committer.reject(batch, answer)
            rejected = sum(by_reason.values())
            for reason, rows in by_reason.items():
                self._counters.cell(metrics.REJECTED, self.name, reason).add(rows)
            self._rejected += rejected
            self._logger.warning(
                "sink %s: %d rows of %s are dead letters: %s",
                self.name,
                rejected,
                batch.id,
                answer.rows[0].reason,
            )
        elif not isinstance(answer, Accepted):
            raise TypeError(f"expected an answer of a sink, found {answer!r}")
        self._rows.add(batch.id.rows - rejected)
        self._batches.add()
        self._answered_ns = max(self._answered_ns, batch.arrival_ns)
        life.committer.move(batch.mark)
        self._mark = batch.mark
        if life.committer.full:
            life.committer.commit()

    def _settle(self, life: _Life) -> None:
        """Ask a holding sink how far it is."""
        if life.holding is None:
            return
        settled = life.holding.settle(life.reader.now_ns)
        if isinstance(settled, Retry):
            self._health.again(settled)
        elif settled is not None:
            life.committer.move(settled)
            life.committer.commit()
            life.committed_s = time.monotonic()
            rows = sum(settled.rows.values()) - sum((self._mark.rows if self._mark else {}).values())
            self._rows.add(max(0, min(rows, life.held_rows)))
            life.held_rows = max(0, life.held_rows - rows)
            life.held = life.held_rows > 0
            if not life.held:
                self._batches.add(life.held_batches)
                life.held_batches = 0
            self._mark = settled
            self._answered_ns = max(self._answered_ns, life.reader.now_ns)

    # Failures

    def _poisoned(self, batch: BatchId) -> str | None:
        """Why the batch is a dead letter: the sink has failed on it often enough."""
        if self._poison is None or self._poison[0] != batch or self._poison[1] < POISON_TRIES:
            return None
        return f"expected the sink to take the batch, which it failed on {POISON_TRIES} times: {self._last_trace}"

    def _note_poison(self, pending: Sequence[SinkBatch], error: Exception, life: _Life) -> None:
        if isinstance(error, (SinkError, OSError, LogError)) or life.holding is not None:
            return
        self._singly = max(self._singly, len(pending))  # one of these it is
        self._last_trace = "".join(traceback.format_exception(error)[-3:]).strip()
        if len(pending) == 1:
            tries = self._poison[1] if self._poison is not None and self._poison[0] == pending[0].id else 0
            self._poison = (pending[0].id, tries + 1)

    def _count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add to a metric of the sink; raises LookupError when it is not declared."""
        key = (name, *labels, *labels.values())
        cell = self._cells.get(key)
        if cell is None:
            metric = metric_named(name)
            values = {"sink": self.name, **labels}
            if set(values) != set(metric.labels):
                raise LookupError(f"metric {name}: expected labels {metric.labels}, found {tuple(values)}")
            cell = self._counters.cell(metric, *(values[label] for label in metric.labels))
            if len(self._cells) < 4096:
                self._cells[key] = cell
        cell.add(n)


def _check_answers(pending: Sequence[SinkBatch], answers: Sequence[Answer]) -> None:
    """Raise TypeError where a sink has not answered as it has to."""
    count = len(answers)
    if count != len(pending) and not (0 < count < len(pending) and isinstance(answers[-1], Retry)):
        raise TypeError(
            f"expected an answer of the sink for each of {len(pending)} batches, or a Retry as the last, found {count}"
        )


class _Life:
    """What one life of a sink carries along."""

    def __init__(self, reader: SinkReader, committer: SinkCommitter, holding: HoldingSink | None) -> None:
        self.reader = reader
        self.committer = committer
        self.holding = holding
        self.pending: list[SinkBatch] = []
        self.held = False
        self.held_rows = 0
        self.held_batches = 0
        self.committed_s = time.monotonic()
