"""Runs a flow over a log: in a thread of its own, from where it was, exactly once.

The flow claims `flow/NAME`; its outputs and its position travel in the same append, so what is in the log tells
how far it has come. A batch on which a step fails is tried again, from the state before it; after the stated number
of tries it becomes a dead letter, and the flow goes on without it. A flow that cannot go on by itself stands still
and says why, until somebody acts (`control.py`). A second copy of a flow fences the first, which stops.

Left to others: what is computed (`chain.py`), state and snapshots (`folding.py`), how long input is kept (the log's
retention).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from ringmain.flows.chain import StepFailureError
from ringmain.flows.control import Action, Command, given
from ringmain.flows.counting import FlowCounters
from ringmain.flows.flow import (
    FlowPlan,
    FlowSettings,
    definition_hash,
    definition_of,
    definition_text,
    differences,
    plan_flow,
    stored,
)
from ringmain.flows.flow_status import FlowState, FlowStatus, SnapshotPolicy
from ringmain.flows.folding import FlowStoppedError, Folding
from ringmain.flows.output import Committer, Partial
from ringmain.flows.poison import letters, skipped_from, skipped_text
from ringmain.flows.settings import WindowSettings
from ringmain.flows.short_form import flow_of
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.step import PlanError, Shape, Surroundings
from ringmain.log.files import FileSystem, LocalFileSystem
from ringmain.log.interface import (
    FencedError,
    Frame,
    Log,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    Position,
    PositionGoneError,
    StreamKind,
    UnknownStreamError,
)
from ringmain.runtime.counters import Counters

_BACKOFF_MIN_S = 1.0
_BACKOFF_MAX_S = 60.0
_POSITION_EVERY_S = 10.0
_WAIT_S = 1.0


class FlowRunner:
    """One flow. `start` once, `stop` once; `status` from any thread.

    `directory`: that of the configuration file. `zone`: the node's.
    """

    def __init__(
        self,
        name: str,
        settings: FlowSettings | WindowSettings,
        log: Log,
        counters: Counters,
        snapshots: Path,
        *,
        directory: Path | None = None,
        zone: ZoneInfo | None = None,
        fs: FileSystem | None = None,
        policy: SnapshotPolicy | None = None,
    ) -> None:
        self.name = name
        self.settings = flow_of(settings)
        self._log = log
        self._directory = directory or Path()
        self._zone = zone or ZoneInfo("UTC")
        self._counting = FlowCounters(counters, name, self.lag_s)
        self._snapshots = Snapshots(fs or LocalFileSystem(), snapshots, name)
        self._policy = policy or SnapshotPolicy()
        self._logger = logging.getLogger("ringmain.flow")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._folded_arrival_ns = 0
        self._position: Position | None = None
        self._committed: Position | None = None
        self._settled: Position | None = None
        self._streams: list[str] = []
        self._state = FlowState.STARTING
        self._last_error: str | None = None
        self._waiting_for: str | None = None
        self._failure: StepFailureError | None = None
        self._tries = 0
        self._poison: StepFailureError | None = None
        self._handled: str | None = None
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
        """Wait until the flow stands still by itself or was stopped."""
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
        return self._counting.status(
            name=self.name,
            to=self.settings.to,
            state=self._state,
            position=None if self._position is None else str(self._position),
            lag_s=self.lag_s(),
            last_error=self._last_error,
        )

    # The thread

    def _main(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        try:
            while not self._stop.is_set():
                started_s = time.monotonic()
                try:
                    self._run()
                except (InterruptedError, LogClosedError):
                    break
                except FencedError as error:
                    self._fail(f"another copy of this flow has taken over; this one stops ({error})")
                    return
                except (LogFullError, LogFailedError) as error:
                    self._paused(_BACKOFF_MIN_S, error)
                except StepFailureError as error:
                    self._step_failed(error)
                except UnknownStreamError as error:
                    self._paused(_BACKOFF_MIN_S, error)
                except (FlowStoppedError, PositionGoneError) as error:
                    self._fail(str(error))
                    self._wait_for_command()
                except Exception as error:
                    self._logger.exception("flow %s failed; it starts again in %.0f s", self.name, backoff_s)
                    self._last_error = f"{type(error).__name__}: {error}"
                    self._state = FlowState.BACKOFF
                    if time.monotonic() - started_s > _BACKOFF_MAX_S:
                        backoff_s = _BACKOFF_MIN_S
                    self._stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
            if self._state is not FlowState.FAILED:
                self._state = FlowState.STOPPED
        finally:
            self._ended.set()

    def _fail(self, reason: str) -> None:
        self._last_error = reason
        self._state = FlowState.FAILED
        self._logger.error("flow %s has stopped: %s", self.name, reason)
        self._ended.set()

    def _wait_for_command(self) -> None:
        """Stand still until somebody gives a command or the node stops."""
        while not self._stop.wait(_WAIT_S):
            try:
                command = self._command()
            except LogClosedError:
                return
            if command is None:
                continue
            if command.action is Action.SKIP and self._failure is not None and self._failure.frames:
                self._poison = self._failure
            self._tries = 0
            self._ended.clear()
            self._state = FlowState.STARTING
            return

    def _step_failed(self, error: StepFailureError) -> None:
        """Count the tries of a batch; the last one makes a dead letter of it."""
        again = self._failure
        if again is not None and (again.step, again.frames) == (error.step, error.frames):
            self._tries += 1
        else:
            self._tries = 1
        self._failure = error
        self._logger.warning(
            "flow %s: %s (try %d of %d)",
            self.name,
            error,
            self._tries,
            self.settings.tries,
            exc_info=error.cause,
        )
        if self._tries < self.settings.tries:
            self._last_error = f"{error} (try {self._tries} of {self.settings.tries})"
            self._state = FlowState.BACKOFF
            self._stop.wait(min(_BACKOFF_MIN_S * 2 ** (self._tries - 1), _BACKOFF_MAX_S))
        elif error.frames:
            self._poison = error
        else:
            self._fail(
                f"{error}, while no batch was on its way that could be left out: mend the step, then "
                f"`ringmain flow retry {self.name}`"
            )
            self._wait_for_command()

    def _command(self) -> Command | None:
        """A command that was not carried out yet."""
        command = given(self._log, self.name)
        return None if command is None or command.id == self._handled else command

    def _plan(self) -> FlowPlan:
        """The plan, by what the log holds. Raises UnknownStreamError while nobody has made a stream that it reads."""
        schemas = {
            state.stream.name: Shape(state.stream.kind, state.stream.schema) for state in self._log.streams()
        }
        around = Surroundings(
            self.name,
            self.settings.to,
            self._directory,
            self._zone,
            schemas,
            self.settings.max_ahead_ns,
            self.settings.from_,
        )
        self._need(self.settings.from_, schemas)
        try:
            plan = plan_flow(self.name, self.settings, around)
        except PlanError as error:
            raise FlowStoppedError(f"{error.key}: {error}") from error
        for name in plan.reads:
            self._need(name, schemas)
        return plan

    def _need(self, stream: str, known: Mapping[str, Shape]) -> None:
        if stream not in known:
            raise UnknownStreamError(f"it waits for the stream {stream!r}, which is not in the log yet")

    def _run(self) -> None:
        self._state = FlowState.STARTING
        plan = self._plan()
        claim = self._log.claim(f"flow/{self.name}")
        before = {
            name.removeprefix(claim.name).removeprefix("/"): text for name, text in claim.positions.items()
        }
        handled = before.get("handled")
        self._handled = None if handled is None else handled.decode()
        command = self._command()
        fresh = self._check_definition(plan, before, command)
        self._create_streams(plan)
        committed = None if fresh or "" not in before else Position.parse(before[""].decode())
        committer = Committer(self._log, claim, committed, self._paused, self._went_on)
        skipped = () if fresh else skipped_from(before.get("skipped"))
        partial = None if fresh or "partial" not in before else Partial.parse(before["partial"])
        if fresh:
            committer.note(
                [],
                {"": None, "/partial": None, "/skipped": None, "/definition": definition_text(plan)},
            )
        elif before.get("definition") != definition_text(plan):
            committer.note([], {"/partial": None, "/definition": definition_text(plan)})
            partial = None
        if self._poison is not None:
            skipped, partial = self._leave_out(committer, skipped, self._poison), None
        if command is not None and command.action is not Action.REPLAY:
            self._carried_out(committer, command)
        self._committed = committed
        unsubscribe = self._log.on_durable(self._wake.set)
        try:
            folding = Folding(plan, self._log, self._snapshots, skipped, self._stop.is_set)
            self._streams = folding.chain.streams
            folding.fold_up_to(committed)
            self._position = self._settled = folding.position
            self._folded_arrival_ns = max(self._folded_arrival_ns, folding.chain.now)
            if partial is not None:
                committer.resume(partial)
                folding.chain.emitted_until(partial.before)
            self._counting.begin(folding.chain)
            self._went_on()
            self._follow(_Going(folding, committer, partial))
        finally:
            unsubscribe()

    def _create_streams(self, plan: FlowPlan) -> None:
        for name, shape in plan.streams.items():
            try:
                self._log.create_stream(name, *stored(shape))
            except (LogFullError, LogFailedError, LogClosedError, FencedError):
                raise
            except LogError as error:
                raise FlowStoppedError(
                    f"{error}; name a new stream in `to`, or set the old values again"
                ) from error

    def _check_definition(self, plan: FlowPlan, before: Mapping[str, bytes], command: Command | None) -> bool:
        """Whether the flow begins anew. Raises FlowStoppedError when it must not."""
        told = before.get("definition")
        new = definition_of(plan)
        to = self.settings.to
        if told is not None:
            old = msgspec.json.decode(told)
            if told == definition_text(plan) or old == new:
                return False
            if old.get("to") == to:
                if command is not None and command.action in (Action.CONTINUE, Action.REPLAY):
                    return False
                changes = "; ".join(str(change) for change in differences(old, new))
                raise FlowStoppedError(
                    f"its definition changed, and its output stream {to!r} holds results of the one before "
                    f"({changes}). Choose: `ringmain flow continue {self.name}` goes on from here and leaves what was "
                    f"written; `ringmain replay {self.name} --from TIME` computes from then on anew and writes what "
                    "differs as revisions; or name a new stream in `to`, or set the old values again"
                )
        rows = {state.stream.name: state for state in self._log.streams()}
        held = rows.get(to)
        if held is not None and held.rows and held.stream.kind is not StreamKind.EVENT:
            raise FlowStoppedError(
                f"its output stream {to!r} holds {held.rows} rows already that are not of "
                "this flow and definition: name a new stream in `to`"
            )
        return True

    def _leave_out(
        self, committer: Committer, skipped: tuple[Position, ...], poison: StepFailureError
    ) -> tuple[Position, ...]:
        """Make dead letters of the frames on which a step failed, and remember to pass over them."""
        skipped = (*skipped, *(position for position in poison.frames if position not in skipped))
        committer.note(
            letters(self.name, poison),
            {"/skipped": skipped_text(skipped), "/partial": None},
        )
        self._logger.error(
            "flow %s: %d batch(es) became dead letters: %s", self.name, len(poison.frames), poison
        )
        self._counting.failed(len(poison.frames))
        self._poison = self._failure = None
        self._tries = 0
        return skipped

    def _carried_out(self, committer: Committer, command: Command) -> None:
        committer.note([], {"/handled": command.id.encode()})
        self._handled = command.id

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
        folding, committer = going.folding, going.committer
        started_s = time.perf_counter()
        try:
            for frame in self._log.read(self._streams, after=folding.position):
                blocks = folding.step(frame)
                self._folded(frame)
                skip = going.partial.batches if going.partial is not None else 0
                committer.take(frame, blocks, skip)
                if skip:
                    going.partial = None
                    folding.chain.emitted_until(None)
                self._committed = committer.committed
                if self._stop.is_set():
                    break
        except StepFailureError:
            committer.commit()  # what the frames before gave
            raise
        now_s = time.perf_counter()
        going.folding_s += now_s - started_s
        self._counting.count(folding.chain)
        if committer.pending or now_s - going.position_at_s >= _POSITION_EVERY_S:
            committer.commit()
            going.position_at_s = now_s
        self._committed, self._settled = committer.committed, self._position
        since_s = now_s - going.snapshot_at_s
        if going.folding_s > self._policy.refold_s or (
            since_s > self._policy.interval_s and folding.chain.rows[0].rows_in > going.snapshot_rows
        ):
            committer.commit()
            self._committed = committer.committed
            self._snapshot(going)

    def _snapshot(self, going: _Going) -> None:
        """Save the state, which is that of the committed position. A failure costs time at the next start only."""
        folding = going.folding
        going.folding_s = 0.0
        going.snapshot_at_s = time.perf_counter()
        if folding.position is None or folding.position == going.snapshot_position:
            return
        try:
            size = self._snapshots.save(definition_hash(folding.plan), folding.saved())
        except (OSError, ValueError, pa.ArrowException) as error:
            self._counting.snapshot_failed()
            self._logger.warning("flow %s: no snapshot: %s", self.name, error)
            return
        self._counting.snapshot_taken(size)
        going.snapshot_rows = folding.chain.rows[0].rows_in
        going.snapshot_position = folding.position

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

    def __init__(self, folding: Folding, committer: Committer, partial: Partial | None) -> None:
        self.folding = folding
        self.committer = committer
        self.partial = partial
        now_s = time.perf_counter()
        self.position_at_s = now_s
        self.snapshot_at_s = now_s
        self.folding_s = 0.0
        self.snapshot_rows = 0
        self.snapshot_position: Position | None = folding.position
