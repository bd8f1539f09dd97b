"""Runs a flow over a log: in a thread of its own, from where it was, exactly once.

The flow claims `flow/NAME`; its outputs and its position travel in the same append, so what is in the log tells
how far it has come. At start the newest usable snapshot of the state is loaded and the input between it and the
position is folded again without output. A flow that has neither snapshot nor the beginning of its input stops
and says so. A second copy of a flow fences the first, which stops.

Left to others: what is computed (`window.py`), how long input is kept (the log's retention).
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec
import pyarrow as pa

from ringmain.flows.counting import FlowCounters
from ringmain.flows.definition import Definition, definition_hash, definition_of, definition_text
from ringmain.flows.emission import Counts
from ringmain.flows.history import LogHistory
from ringmain.flows.output import Committer, Partial
from ringmain.flows.settings import WindowSettings
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.totals import LATE, window_schema
from ringmain.flows.window import WindowFold
from ringmain.log.files import FileSystem, LocalFileSystem
from ringmain.log.interface import (
    FencedError,
    Frame,
    Log,
    LogClosedError,
    LogFailedError,
    LogFullError,
    Position,
    PositionGoneError,
    StreamKind,
    UnknownStreamError,
)
from ringmain.model.catalogue import Catalogue
from ringmain.runtime.counters import Counters

_BACKOFF_MIN_S = 1.0
_BACKOFF_MAX_S = 60.0
_POSITION_EVERY_S = 10.0
_WAIT_S = 1.0


class FlowState(StrEnum):
    """Where a flow is in its life."""

    STARTING = "starting"
    """Folding up to its position, without output."""
    RUNNING = "running"
    WAITING = "waiting"
    """The log takes nothing at the moment; `last_error` says why."""
    BACKOFF = "backoff"
    """It failed; `last_error` says why; it will be started again."""
    FAILED = "failed"
    """Ended for good; `last_error` says why and what to do."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow at one moment. Counts are since the node started, in rows of the input unless said otherwise.

    `lag_s`: how much arrival time of the input is not yet folded. `windows`, `revisions`: emitted rows.
    """

    name: str
    to: str
    state: FlowState
    position: str | None
    lag_s: float | None
    rows: int
    late: int
    revisions: int
    ahead: int
    duplicates: int
    invalid: int
    windows: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When a snapshot is taken: once folding again would take `refold_s`, or after `interval_s` with readings."""

    refold_s: float = 2.0
    interval_s: float = 60.0


class FlowStoppedError(Exception):
    """The flow cannot go on by itself; the message says what to do."""


class FlowLog(Log, Protocol):
    """A log that keeps its series catalogue in memory."""

    def catalogue(self) -> Catalogue:
        """The series catalogue as far as it is durable."""
        ...


class FlowRunner:
    """One flow. `start` once, `stop` once; `status` from any thread."""

    def __init__(
        self,
        name: str,
        settings: WindowSettings,
        log: FlowLog,
        counters: Counters,
        snapshots: Path,
        *,
        fs: FileSystem | None = None,
        policy: SnapshotPolicy | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._log = log
        self._counting = FlowCounters(counters, name, self.lag_s)
        self._snapshots = Snapshots(fs or LocalFileSystem(), snapshots, name)
        self._policy = policy or SnapshotPolicy()
        self._streams = ["catalogue", settings.from_, "ticks"]
        self._definition = definition_hash(settings)
        self._logger = logging.getLogger("ringmain.flow")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._folded_arrival_ns = 0
        self._position: Position | None = None
        self._committed: Position | None = None
        self._settled: Position | None = None
        self._state = FlowState.STARTING
        self._last_error: str | None = None
        self._waiting_for: str | None = None
        self._thread = threading.Thread(target=self._main, name=f"flow-{name}", daemon=True)

    # Control, from any thread

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Commit what is done and end; whether it ended within the time. Idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the flow has ended by itself or was stopped."""
        return self._ended.wait(timeout_s)

    @property
    def committed(self) -> Position | None:
        """The input position up to which everything that follows from it is durable."""
        return self._committed

    @property
    def state(self) -> FlowState:
        """Where it is in its life."""
        return self._state

    def caught_up(self) -> bool:
        """Whether everything in its input is folded and all that follows from it is durable.

        What follows from the newest instant comes when log time moves on: with the next tick.
        """
        settled = self._settled
        if self._state is not FlowState.RUNNING or settled != self._position:
            return False
        return next(iter(self._log.read(self._streams, after=settled)), None) is None

    def lag_s(self) -> float | None:
        """How much arrival time of the input is not yet folded; None before the first frame was."""
        newest = max(
            (
                state.last_arrival_ns
                for state in self._log.streams()
                if state.stream.name == self.settings.from_
            ),
            default=0,
        )
        if not newest:
            return 0.0
        return max(0.0, (newest - self._folded_arrival_ns) / 1e9) if self._folded_arrival_ns else None

    def status(self) -> FlowStatus:
        """The flow at this moment."""
        counted = self._counting.counted
        return FlowStatus(
            self.name,
            self.settings.to,
            self._state,
            None if self._position is None else str(self._position),
            self.lag_s(),
            counted.rows,
            counted.late,
            counted.revisions,
            counted.ahead,
            counted.duplicates,
            counted.invalid,
            counted.windows,
            self._last_error,
        )

    # The thread

    def _main(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        try:
            while not self._stop.is_set():
                started_s = time.monotonic()
                try:
                    self._run()
                except InterruptedError:
                    break
                except LogClosedError:
                    break
                except FencedError as error:
                    self._fail(f"another copy of this flow has taken over; this one stops ({error})")
                    return
                except (LogFullError, LogFailedError) as error:
                    self._paused(_BACKOFF_MIN_S, error)
                except (FlowStoppedError, PositionGoneError, UnknownStreamError) as error:
                    self._fail(str(error))
                    return
                except Exception as error:
                    self._logger.exception("flow %s failed; it starts again in %.0f s", self.name, backoff_s)
                    self._last_error = f"{type(error).__name__}: {error}"
                    self._state = FlowState.BACKOFF
                    if time.monotonic() - started_s > _BACKOFF_MAX_S:
                        backoff_s = _BACKOFF_MIN_S
                    self._stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
            self._state = FlowState.STOPPED
        finally:
            self._ended.set()

    def _fail(self, reason: str) -> None:
        self._last_error = reason
        self._state = FlowState.FAILED
        self._logger.error("flow %s has stopped: %s", self.name, reason)

    def _run(self) -> None:
        self._state = FlowState.STARTING
        claim = self._log.claim(f"flow/{self.name}")
        before = {
            name.removeprefix(claim.name).removeprefix("/"): text for name, text in claim.positions.items()
        }
        fresh = self._check_definition(before)
        self._log.create_stream(self.settings.to, StreamKind.ROW, window_schema(self.settings.columns))
        self._log.create_stream(self.settings.late_stream, StreamKind.ROW, LATE)
        committed = None if fresh or "" not in before else Position.parse(before[""].decode())
        committer = Committer(self._log, claim, self.settings, committed, self._paused, self._went_on)
        if fresh:
            committer.define(definition_text(self.settings))
        self._committed = committed
        unsubscribe = self._log.on_durable(self._wake.set)
        try:
            self._counting.begin()
            fold, history = self._fold_up_to(committed)
            partial = None if fresh or "partial" not in before else Partial.parse(before["partial"])
            if partial is not None:
                committer.resume(partial)
                history.emitted_until = partial.before
            self._went_on()
            self._follow(_Going(fold, history, committer, partial))
        finally:
            unsubscribe()

    def _check_definition(self, before: dict[str, bytes]) -> bool:
        """Whether the flow begins anew. Raises FlowStoppedError when it must not."""
        stored = before.get("definition")
        if stored is not None:
            old = msgspec.json.decode(stored, type=Definition)
            if old == definition_of(self.settings):
                return False
            if old.to == self.settings.to:
                raise FlowStoppedError(
                    f"its output stream {old.to!r} holds results of another definition ({old.differences(self.settings)}): "
                    "name a new stream in `to`, or set the old values again"
                )
        rows = {state.stream.name: state.rows for state in self._log.streams()}
        if rows.get(self.settings.to):
            raise FlowStoppedError(
                f"its output stream {self.settings.to!r} holds {rows[self.settings.to]} rows already that are not of "
                "this flow and definition: name a new stream in `to`"
            )
        return True

    def _fold_up_to(self, committed: Position | None) -> tuple[WindowFold, LogHistory]:
        """The fold as it was at the committed position: out of a snapshot, or out of the input."""
        history = LogHistory(self._log, self.settings)
        if committed is None:
            fold = WindowFold(self.settings, history)
            self._name_devices(fold)
            return fold, history
        for state in self._snapshots.load(self._definition, self.settings):
            fold = WindowFold(self.settings, history, state)
            history.restart(state)
            try:
                self._fold_silently(fold, committed)
            except PositionGoneError as error:
                self._logger.warning("flow %s: a snapshot is passed over: %s", self.name, error)
                continue
            if fold.state.position == committed:
                return self._caught_up(fold, history)
            self._logger.warning("flow %s: a snapshot is passed over: it is not of this log", self.name)
        history = LogHistory(self._log, self.settings)
        fold = WindowFold(self.settings, history)
        self._logger.info("flow %s: no usable snapshot, folding its input from the beginning", self.name)
        self._fold_silently(fold, committed, whole=True)
        if fold.state.position != committed:
            raise FlowStoppedError(
                f"the frame at its position {committed} is not in the log any more, and no snapshot replaces it: "
                "name a new stream in `to` to begin anew with what the log holds"
            )
        return self._caught_up(fold, history)

    def _caught_up(self, fold: WindowFold, history: LogHistory) -> tuple[WindowFold, LogHistory]:
        history.restart_emitted(fold.state)
        fold.counts = Counts()
        self._position = self._settled = fold.state.position
        self._folded_arrival_ns = max(self._folded_arrival_ns, fold.state.now)
        return fold, history

    def _fold_silently(self, fold: WindowFold, committed: Position, *, whole: bool = False) -> None:
        """Fold what lies between the state and the position; its outputs are in the log already."""
        seen: set[str] = set()
        if fold.state.position == committed:
            return
        for frame in self._log.read(self._streams, after=fold.state.position, until=committed):
            if whole and frame.stream not in seen:
                seen.add(frame.stream)
                if frame.cumulative_rows != frame.row_count:
                    raise FlowStoppedError(
                        f"the first {frame.cumulative_rows - frame.row_count} rows of {frame.stream!r} have been "
                        "removed from the log, and no snapshot holds what followed from them: name a new stream in "
                        "`to` to begin anew with what the log holds"
                    )
            fold.step(frame, emit=False)
            self._folded(frame)
            if self._stop.is_set():
                raise InterruptedError("stopped while folding up to the position")

    def _name_devices(self, fold: WindowFold) -> None:
        """Where the beginning of the catalogue is gone from the log, take the devices from what is known now."""
        first = next(iter(self._log.read("catalogue")), None)
        if first is not None and first.cumulative_rows != first.row_count:
            for entries in self._log.catalogue().to_batches():
                fold.devices.learn(entries)

    def _folded(self, frame: Frame) -> None:
        self._position = frame.position
        self._folded_arrival_ns = max(self._folded_arrival_ns, frame.arrival_ns)

    def _follow(self, going: _Going) -> None:
        """Fold what comes until told to stop."""
        while True:
            self._wake.clear()
            self._fold_available(going)
            if self._stop.is_set():
                going.committer.commit()
                self._committed = going.committer.committed
                self._snapshot(going)
                return
            self._wake.wait(_WAIT_S)

    def _fold_available(self, going: _Going) -> None:
        """Fold what is durable and commit what follows from it."""
        fold, committer = going.fold, going.committer
        started_s = time.perf_counter()
        for frame in self._log.read(self._streams, after=fold.state.position):
            outputs = fold.step(frame)
            self._folded(frame)
            skip = going.partial.batches if going.partial is not None else 0
            committer.take(frame, outputs, skip)
            if skip:
                going.partial = None
                going.history.emitted_until = None
            self._committed = committer.committed
            if self._stop.is_set():
                break
        now_s = time.perf_counter()
        going.folding_s += now_s - started_s
        self._counting.count(fold.counts, going.history.scans)
        if committer.pending or now_s - going.position_at_s >= _POSITION_EVERY_S:
            committer.commit()
            going.position_at_s = now_s
        self._committed, self._settled = committer.committed, self._position
        since_s = now_s - going.snapshot_at_s
        if going.folding_s > self._policy.refold_s or (
            since_s > self._policy.interval_s and fold.counts.rows > going.snapshot_rows
        ):
            committer.commit()
            self._committed = committer.committed
            self._snapshot(going)

    def _snapshot(self, going: _Going) -> None:
        """Save the state, which is that of the committed position. A failure costs time at the next start only."""
        state = going.fold.state
        going.folding_s = 0.0
        going.snapshot_at_s = time.perf_counter()
        if state.position is None or state.position == going.snapshot_position:
            return
        try:
            size = self._snapshots.save(self._definition, state)
        except (OSError, ValueError, pa.ArrowException) as error:
            self._counting.snapshot_failed()
            self._logger.warning("flow %s: no snapshot: %s", self.name, error)
            return
        self._counting.snapshot_taken(size)
        going.snapshot_rows = going.fold.counts.rows
        going.snapshot_position = state.position

    def _paused(self, wait_s: float, error: Exception) -> bool:
        """Wait while the log takes nothing; False to give up."""
        if self._waiting_for != str(error):  # once, however often it is tried
            self._logger.warning("flow %s waits: %s", self.name, error)
        self._state = FlowState.WAITING
        self._last_error = self._waiting_for = str(error)
        return not self._stop.wait(wait_s)

    def _went_on(self) -> None:
        if self._waiting_for is not None:
            self._logger.info("flow %s goes on", self.name)
        self._state, self._last_error, self._waiting_for = FlowState.RUNNING, None, None


class _Going:
    """What a run of a flow carries along."""

    def __init__(
        self,
        fold: WindowFold,
        history: LogHistory,
        committer: Committer,
        partial: Partial | None,
    ) -> None:
        self.fold = fold
        self.history = history
        self.committer = committer
        self.partial = partial
        now_s = time.perf_counter()
        self.position_at_s = now_s
        self.snapshot_at_s = now_s
        self.folding_s = 0.0
        self.snapshot_rows = 0
        self.snapshot_position: Position | None = fold.state.position
