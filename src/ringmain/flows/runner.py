"""Runs a flow over a log: in a thread of its own, from where it was, exactly once.

The flow claims `flow/NAME`; its outputs and its position travel in the same append, so what is in the log tells
how far it has come. A batch on which a step fails is tried again, from the state before it; after the stated number
of tries it becomes a dead letter, and the flow goes on without it. A flow that cannot go on by itself stands still
and says why, until somebody acts (`control.py`). A second copy of a flow fences the first, which stops.

Left to others: what is computed (`chain.py`), state and snapshots (`folding.py`), what is left out (`failing.py`) and
computed anew (`recomputing.py`), how long input is kept (the log's retention).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

from ringmain.flows.at_work import longest, set_down
from ringmain.flows.chain import StepFailureError
from ringmain.flows.continuing import carry_on
from ringmain.flows.control import Action, Command, given
from ringmain.flows.counting import FlowCounters
from ringmain.flows.failing import Failing
from ringmain.flows.flow import FlowPlan, FlowSettings, definition_hash, definition_text
from ringmain.flows.flow_site import FlowSite
from ringmain.flows.flow_status import FlowState, FlowStatus, SnapshotPolicy
from ringmain.flows.folding import FlowStoppedError
from ringmain.flows.following import Following, Shared
from ringmain.flows.opening import begins_anew, create_streams, plan_by_log
from ringmain.flows.output import Committer, Partial
from ringmain.flows.poison import PassedOver, can_be_left_out, noting
from ringmain.flows.recomputing import Recomputing
from ringmain.flows.settings import WindowSettings
from ringmain.flows.short_form import flow_of
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.step import StepBrokenError
from ringmain.flows.succession import take_over, takeovers_of
from ringmain.flows.takeovers import Takeovers
from ringmain.log.files import FileSystem, LocalFileSystem
from ringmain.log.interface import (
    FencedError,
    Log,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    Position,
    PositionGoneError,
    UnknownStreamError,
)
from ringmain.runtime.counters import Counters

_BACKOFF_MIN_S = 1.0
_BACKOFF_MAX_S = 60.0
_WAIT_S = 1.0
_LONG_S = 5.0
"""In one call of a user's function or query: the status tells."""


class FlowRunner:
    """One flow. `start` once, `stop` once; `status` from any thread.

    `directory`: that of the configuration file. `zone`: the node's. `shared`: with other flows of the process.
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
        shared: Shared | None = None,
    ) -> None:
        self.name = name
        self._shared = shared or Shared.of(log)
        self.settings = flow_of(settings)
        self._log = log
        self._directory = directory or Path()
        self._zone = zone or ZoneInfo("UTC")
        self._counting = FlowCounters(counters, name, self.lag_s)
        self._snapshots = Snapshots(fs or LocalFileSystem(), snapshots, name)
        self._notes = snapshots / f"flow-{quote(name, safe='')}"
        self._policy = policy or SnapshotPolicy()
        self._logger = logging.getLogger("ringmain.flow")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._following: Following | None = None
        self._state = FlowState.STARTING
        self._last_error: str | None = None
        self._waiting_for: str | None = None
        self._handled: str | None = None
        self._taken = Takeovers()
        self._command_at_s = 0.0
        site = FlowSite(name, self.settings.tries, log, self._snapshots, self._counting, self._stop.is_set)
        self._site = site
        self._failing = Failing(site)
        self._recomputing = Recomputing(site)
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
        if self._thread.is_alive():
            set_down(self._notes)
        return not self._thread.is_alive()

    def files_changed(self) -> bool:
        """Whether files that the settings name have another content than when it began."""
        following = self._following
        if following is None:
            return True
        plan = following.folding.plan
        return following.definition != definition_hash(plan)

    def forget(self) -> None:
        """Tell nothing more of a flow that has ended."""
        self._counting.end()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the flow stands still by itself or was stopped."""
        return self._ended.wait(timeout_s)

    @property
    def committed(self) -> Position | None:
        """The input position up to which everything that follows from it is durable."""
        following = self._following
        return None if following is None else following.committer.committed

    @property
    def state(self) -> FlowState:
        """Where it is in its life."""
        return self._state

    def caught_up(self) -> bool:
        """Whether everything in its input is folded and all that follows from it is durable.

        What follows from the newest instant comes when log time moves on: with the next tick.
        """
        following = self._following
        if self._state is not FlowState.RUNNING or following is None:
            return False
        settled = following.settled
        if settled != following.position:
            return False
        return next(iter(self._log.read(following.streams, after=settled)), None) is None

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
        following = self._following
        folded_ns = 0 if following is None else following.folded_arrival_ns
        return max(0.0, (newest - folded_ns) / 1e9) if folded_ns else None

    def status(self) -> FlowStatus:
        """The flow at this moment."""
        following = self._following
        position = None if following is None else following.position
        return self._counting.status(
            name=self.name,
            to=self.settings.to,
            state=self._state,
            position=None if position is None else str(position),
            lag_s=self.lag_s(),
            last_error=self._last_error or self._long_at_work(),
        )

    def _long_at_work(self) -> str | None:
        """What to tell of a step that has been in one call for long."""
        found = longest(self._notes)
        if found is None or found[1] < _LONG_S:
            return None
        following = self._following
        thread = None if following is None else following.thread
        frame = sys._current_frames().get(thread or self._thread.ident or 0)
        where = traceback.extract_stack(frame)[-1] if frame is not None else None
        line = "" if where is None else f" ({where.filename}:{where.lineno} in {where.name})"
        return (
            f"a step has been in one call for {found[1]:.0f} s, behind position {found[0]}{line}; to make a dead letter "
            f"of that batch: `ringmain flow skip {self.name}`, then start the node again"
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
                    self._stands_still()
                except (FlowStoppedError, PositionGoneError, StepBrokenError) as error:
                    self._fail(str(error))
                    self._stands_still()
                    self._wait_for_command()
                except Exception as error:
                    self._logger.exception("flow %s failed; it starts again in %.0f s", self.name, backoff_s)
                    self._last_error = f"{type(error).__name__}: {error}"
                    self._state = FlowState.BACKOFF
                    self._stands_still()
                    if time.monotonic() - started_s > _BACKOFF_MAX_S:
                        backoff_s = _BACKOFF_MIN_S
                    self._stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
            if self._state is not FlowState.FAILED:
                self._state = FlowState.STOPPED
        finally:
            self._recomputing.close()
            self._ended.set()

    def _fail(self, reason: str) -> None:
        self._last_error = reason
        self._state = FlowState.FAILED
        self._logger.error("flow %s has stopped: %s", self.name, reason)
        self._ended.set()

    def _stands_still(self) -> None:
        """Tell whoever waits for a replay. This copy of the flow is the one that counts."""
        with contextlib.suppress(LogError):
            self._recomputing.stands_still(self._command(), self._state, self._last_error or "")

    def _wait_for_command(self) -> None:
        """Stand still until somebody gives a command or the node stops."""
        while not self._stop.wait(_WAIT_S):
            try:
                command = self._command()
            except LogClosedError:
                return
            if command is None:
                continue
            self._ended.clear()
            self._state = FlowState.STARTING
            return

    def _step_failed(self, error: StepFailureError) -> None:
        """Count the tries of a batch; the last one makes a dead letter of it."""
        failing, tries = self._failing, self.settings.tries
        failing.failed(error, None if self._following is None else self._following.position)
        done = failing.tries
        self._logger.warning(
            "flow %s: %s (try %d of %d)", self.name, error, done, tries, exc_info=error.cause
        )
        if done < tries:
            self._last_error = f"{error} (try {done} of {tries})"
            self._state = FlowState.BACKOFF
            self._wait_to_try_again(min(_BACKOFF_MIN_S * 2 ** (done - 1), _BACKOFF_MAX_S))
        elif can_be_left_out(error):
            failing.poison = error
        else:
            self._fail(
                f"{error}, and there is no batch that could be left out instead: mend the step, then "
                f"`ringmain flow retry {self.name}`"
            )
            self._stands_still()
            self._wait_for_command()

    def _wait_to_try_again(self, wait_s: float) -> None:
        """Until then, or until somebody gives a command."""
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self._stop.wait(min(left_s, _WAIT_S)) or self._command() is not None:
                return

    def _command(self) -> Command | None:
        """A command that was not carried out yet."""
        command = given(self._log, self.name)
        return None if command is None or command.id == self._handled else command

    def _run(self) -> None:
        self._state = FlowState.STARTING
        plan = plan_by_log(self.name, self.settings, self._log, self._directory, self._zone)
        claim = self._log.claim(f"flow/{self.name}")
        before = {
            name.removeprefix(claim.name).removeprefix("/"): text for name, text in claim.positions.items()
        }
        handled = before.get("handled")
        self._handled = None if handled is None else handled.decode()
        command = self._command()
        skipping = command is not None and command.action is Action.SKIP
        again = command is not None and command.action is Action.RETRY
        plan = noting(plan, self._notes, 0 if skipping else self.settings.tries, anew=again)
        fresh = begins_anew(plan, before, command, self._log)
        create_streams(plan, self._log)
        committed = None if fresh or "" not in before else Position.parse(before[""].decode())
        committer = Committer(self._log, claim, committed, self._paused, self._went_on)
        passed_over = PassedOver() if fresh else PassedOver.parse(before)
        partial = None if fresh or "partial" not in before else Partial.parse(before["partial"])
        self._taken = takeovers_of(before, plan, committed, fresh=fresh)
        if (
            command is not None
            and command.action is Action.REPLAY
            and self._refused(plan, committer, command)
        ):
            begins_anew(plan, before, command := None, self._log)
        if command is not None and command.action is Action.CONTINUE and committed is not None:
            try:
                carry_on(self._site, plan, passed_over, self._taken, committed, before.get("definition"))
            except FlowStoppedError:
                self._handled = command.id  # it is not tried again and again
                raise
        defined = {"/definition": definition_text(plan), "/taken": self._taken.text(), "/removed": None}
        if fresh:
            committer.note([], {"": None, "/partial": None, "/skipped": None, "/given-up": None, **defined})
        elif before.get("definition") != definition_text(plan):
            committer.note([], {"/partial": None, **defined})
            partial = None
        elif before.get("taken") != self._taken.text():
            committer.note([], defined)
        if command is not None:
            self._failing.told(skip=skipping)
        if self._failing.poison is not None:
            passed_over, partial = self._failing.leave_out(plan, committer, passed_over, self._taken), None
        if command is not None and command.action is Action.REPLAY:
            self._recomputing.takes_up(committer, command)
            if partial is None:
                self._last_error = "computes its outputs anew"
                passed_over, self._taken, told = self._recomputing.finish(
                    plan, committer, passed_over, command, self._taken
                )
                self._carried_out(committer, command, told)
        elif command is not None and not skipping:
            self._carried_out(committer, command)
        leave = self._shared.frames.follow(self._log)
        try:
            folding = self._site.folding(plan, passed_over, self._taken)
            if command is not None and skipping:  # the steps know of it now, also after the next start
                self._carried_out(committer, command)
            folding.fold_up_to(committed)
            self._taken = take_over(folding, committer, self._log, self._taken)
            if partial is not None:
                committer.resume(partial)
                folding.chain.emitted_until(partial.before)
            self._counting.begin(folding.chain)
            self._following = Following(
                folding, committer, partial, self._counting, self._snapshots, self._policy, self._shared
            )
            self._went_on()
            self._follow(self._following)
        finally:
            leave()
            if self._following is not None:
                self._following.finish()

    def _carried_out(
        self, committer: Committer, command: Command, more: dict[str, bytes | None] | None = None
    ) -> None:
        committer.note([], {"/handled": command.id.encode(), **(more or {})})
        self._handled = command.id

    def _refused(self, plan: FlowPlan, committer: Committer, command: Command) -> bool:
        """Whether a replay cannot be done; whoever waits for it is told."""
        told = self._recomputing.refusal(plan, command, self._state)
        if told is not None:
            committer.commit()
            self._carried_out(committer, command, {"/standing": bytes(told)})
        return told is not None

    def _look_at_commands(self, going: Following) -> bool:
        """Whether the run must begin again: outputs that are computed anew beside are far enough."""
        command = self._command()
        if command is None:
            return False
        if command.action is Action.SKIP and self._failing.failure is not None:
            return False  # meant for what it is going to fail on again
        if command.action is not Action.REPLAY:
            self._carried_out(going.committer, command)  # nothing stands still that it could be meant for
            return False
        if self._refused(going.folding.plan, going.committer, command):
            return False
        self._recomputing.takes_up(going.committer, command)
        return self._recomputing.far_enough(
            going.folding.plan, command, self._taken, going.committer.committed
        )

    def _follow(self, going: Following) -> None:
        """Fold what comes until told to stop."""
        while True:
            self._wake.clear()
            end = self._log.end()
            more = going.fold_available(self._stop.is_set)
            if self._stop.is_set():
                going.save()
                return
            self._failing.got_over(going.position)
            now_s = time.monotonic()
            if now_s >= self._command_at_s:
                self._command_at_s = now_s + _WAIT_S
                if self._look_at_commands(going):
                    going.committer.commit()
                    return
            if not more:
                self._shared.frames.wait(going.streams, going.position, end, self._wake, _WAIT_S)

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
