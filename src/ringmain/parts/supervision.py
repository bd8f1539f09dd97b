"""Runs the parts of a node as processes of their own, starts again what dies, and ends all in order.

Promises
    - A part that ends is started again after 0.5 s, doubling to 30 s, and from 0.5 s again once it worked for a
      minute. The others go on meanwhile. Why it ended, and how often, is told to the server part.
    - A part that has the log and does not work within `start_s`, or is not heard of for `silence_s`, is killed
      and started again.
    - `run` returns when told to stop: the intake takes nothing more and acknowledges what it took, then flows and
      server end, then the intake closes the log. What does not end in time is killed.
    - A part whose first start is refused (a wrong configuration, a log that another process has) ends all.
    - When this process dies, however it does, the parts see the end of their channel and end in order by themselves.

Small on purpose, so that it hardly costs memory and hardly can fail: the standard library and msgspec. Left to others:
what the parts do (`process.py`), printing (`cli`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from ringmain.parts import messages
from ringmain.parts.messages import (
    Begin,
    Drain,
    Drained,
    Failed,
    Found,
    FromPart,
    Incoming,
    Informed,
    MalformedError,
    Peers,
    Ready,
    Refused,
    Reload,
    Report,
    Running,
    Stop,
    ToPart,
)
from ringmain.parts.supervised import Limits, PartPlan, Stage, SupervisedPart, cause
from ringmain.runtime.part_status import PartState, PartStatus

_TOLD_EVERY_S = 1.0
_logger = logging.getLogger("ringmain.parts")


class Supervision:
    """The parts of one node. `run` once, on the main thread: a part gets SIGTERM when the thread that started it ends."""

    def __init__(
        self,
        plans: Sequence[PartPlan],
        ready: Callable[[dict[str, str]], None],
        limits: Limits | None = None,
    ) -> None:
        """`ready(addresses)` is called once, when every listener of every part accepts for the first time."""
        self._limits = limits or Limits()
        self._parts = [SupervisedPart(plan, self._limits) for plan in plans]
        self._on_ready = ready
        self._told_ready = False
        self._started_ns = time.time_ns()
        self._selector = selectors.DefaultSelector()
        self._refusal: str | None = None
        self._stages: list[Stage] | None = None
        self._news = True
        self._told_s = 0.0
        self._looked_s = time.monotonic()
        self._waking = socket.socketpair()
        for end in self._waking:
            end.setblocking(False)

    def statuses(self) -> tuple[PartStatus, ...]:
        """Every part at this moment. From any thread."""
        return tuple(part.status() for part in self._parts)

    def wake(self) -> None:
        """Have `run` look at its `stop` now; a signal does that by itself. From any thread, while it runs."""
        with contextlib.suppress(BlockingIOError):
            self._waking[0].send(b"w")

    def run(
        self, stop: threading.Event, reload: Callable[[], Sequence[PartPlan] | None] = lambda: None
    ) -> str | None:
        """Until `stop` is set (by a signal handler): the reason why the parts cannot be started, or None.

        `reload` is asked whenever something happened: plans when the configuration is to be read again.
        """
        waking, woken = self._waking
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: _empty(woken))
        try:
            for part in self._parts:
                self._start(part)
            self._looked_s = time.monotonic()
            while self._stages is None or not self._ended():
                for key, _ in self._selector.select(self._patience_s()):
                    key.data()
                self._look(time.monotonic())
                if self._stages is None and (stop.is_set() or self._refusal is not None):
                    self._stages = self._end_in_order()
                if self._stages is None and (plans := reload()) is not None:
                    self._reload(plans)
        finally:
            signal.set_wakeup_fd(before)
            self._abandon()
            self._selector.close()
            waking.close()
            woken.close()
        return self._refusal

    def _reload(self, plans: Sequence[PartPlan]) -> None:
        """Have every part take over the configuration; begin parts that it needs now, end those that it does not."""
        wanted = {plan.name: plan for plan in plans}
        for part in self._parts:
            part.wanted = part.plan.name in wanted
            if part.begun_s is not None:
                self._say(part, Reload() if part.wanted else Stop())
        known = {part.plan.name for part in self._parts}
        for name, plan in wanted.items():
            if name not in known:
                part = SupervisedPart(plan, self._limits)
                self._parts.append(part)
                self._start(part)
        self._news = True

    # Processes

    def _start(self, part: SupervisedPart) -> None:
        """Start the part's process; a failure counts as its end."""
        part.due_s = None
        part.incoming, part.outgoing = Incoming(FromPart), bytearray()
        part.words, part.begun_s, part.running_s = None, None, None
        part.ready = part.drained = part.killed = False
        part.ending_s = None
        part.enter(PartState.STARTING)
        ours, theirs = socket.socketpair()
        try:
            part.process = subprocess.Popen(
                [*part.plan.command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # standard output is for the line that says ready
                pass_fds=[theirs.fileno()],
            )
            part.pidfd = os.pidfd_open(part.process.pid)
        except OSError as error:
            ours.close()
            self._failed(part, f"its process cannot be started: {error}")
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        part.channel = ours
        part.heard_s, part.heard = time.monotonic(), False
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._exchange(part))
        self._selector.register(part.pidfd, selectors.EVENT_READ, lambda: self._reap(part))
        self._news = True
        self._begin(part)

    def _begin(self, part: SupervisedPart) -> None:
        """Tell the part to begin, if the log can be had."""
        log = next((one for one in self._parts if one.plan.has_log), None)
        open_log = log is None or log is part or log.running_s is not None
        if part.begun_s is None and part.channel is not None and open_log and self._stages is None:
            part.begun_s = time.monotonic()
            self._say(part, Begin(first=not part.ever_begun))
            part.ever_begun = True

    def _reap(self, part: SupervisedPart) -> None:
        """The part's process has ended."""
        assert part.process is not None
        self._exchange(part)  # its last words
        status = part.process.wait()
        self._close(part)
        if self._stages is not None:
            part.enter(PartState.STOPPED)
            return
        if not part.wanted:
            part.enter(PartState.STOPPED)
            self._parts.remove(part)
            self._news = True
            return
        if self._refusal is None:
            self._failed(part, part.words or cause(status))

    def _failed(self, part: SupervisedPart, why: str) -> None:
        now_s = time.monotonic()
        healthy_s = 0.0 if part.running_s is None else now_s - part.running_s
        delay_s = part.backoff.failed(healthy_s, random.random())
        part.running_s, part.ready, part.process = None, False, None
        part.last_error = why
        part.due_s = now_s + delay_s
        part.enter(PartState.BACKOFF)
        self._news = True
        _logger.error(
            "the process %r has ended: %s; starting it again in %.1f s", part.plan.name, why, delay_s
        )

    def _close(self, part: SupervisedPart) -> None:
        if part.channel is not None:
            self._selector.unregister(part.channel)
            part.channel.close()
            part.channel = None
        if part.pidfd >= 0:
            self._selector.unregister(part.pidfd)
            os.close(part.pidfd)
            part.pidfd = -1
        part.process = None

    def _kill(self, part: SupervisedPart, why: str) -> None:
        if part.process is not None and not part.killed:
            _logger.error("the process %r is killed: %s", part.plan.name, why)
            part.killed = True
            part.words = part.words or why
            part.process.kill()

    # Messages

    def _say(self, part: SupervisedPart, message: ToPart) -> None:
        if part.channel is not None:
            part.outgoing += messages.encode(message)
            self._exchange(part)

    def _exchange(self, part: SupervisedPart) -> None:
        """Send what waits, take what is there."""
        if part.channel is None:
            return
        with contextlib.suppress(BlockingIOError, OSError):
            while part.outgoing:
                sent = part.channel.send(part.outgoing)
                del part.outgoing[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if part.outgoing else 0)
        ended = False
        try:
            while received := part.channel.recv(1 << 18):
                for message in part.incoming.feed(received):
                    self._heard(part, message)
            ended = True
        except BlockingIOError:
            pass
        except MalformedError as error:
            self._kill(part, str(error))
            ended = True
        except OSError:
            ended = True
        if ended:  # the process ends as well, or is about to: `_reap` says the rest
            self._selector.unregister(part.channel)
            part.channel.close()
            part.channel = None
        else:
            key = self._selector.get_key(part.channel)
            if key.events != wanted:
                self._selector.modify(part.channel, wanted, key.data)

    def _heard(self, part: SupervisedPart, message: object) -> None:
        part.heard_s, part.heard = time.monotonic(), True
        if part.state is PartState.SILENT:
            part.enter(PartState.RUNNING if part.running_s is not None else PartState.STARTING)
            self._news = True
        match message:
            case Report(body):
                part.report = body or part.report
            case Running():
                part.running_s = part.heard_s
                part.enter(PartState.RUNNING)
                self._news = True
                if part.plan.has_log:
                    for other in self._parts:
                        self._begin(other)
            case Ready(addresses):
                part.ready, part.addresses = True, addresses
                self._news = True
                self._say_ready()
            case Informed():
                self._say_ready(informed=True)
            case Drained():
                part.drained = True
            case Refused(text):
                part.words, part.ending_s = text, part.heard_s
                if part.restarts == 0 and not self._told_ready and self._refusal is None:
                    self._refusal = text
            case Found(text):
                part.last_error = f"{part.last_error}; {text}" if part.last_error else text
                self._news = True
                _logger.warning("the process %r before this one: %s", part.plan.name, text)
            case Failed(text):
                part.words, part.ending_s = text, part.heard_s

    def _all_ready(self) -> bool:
        return self._stages is None and all(
            part.ready and part.state is PartState.RUNNING for part in self._parts
        )

    def _say_ready(self, *, informed: bool = False) -> None:
        if self._told_ready or not self._all_ready():
            return
        if informed or not any(part.plan.informed for part in self._parts):
            self._told_ready = True
            self._on_ready({name: place for part in self._parts for name, place in part.addresses.items()})

    def _inform(self) -> None:
        """Tell who wants to know how all parts are; who has not taken in the last news is left alone."""
        self._told_s = time.monotonic()
        self._news = False
        for part in self._parts:
            if part.plan.informed and part.begun_s is not None and not part.outgoing:
                reports = {one.plan.name: one.report for one in self._parts if one.report and one is not part}
                self._say(part, Peers(self._started_ns, self._all_ready(), self.statuses(), reports))

    # Time

    def _patience_s(self) -> float:
        now_s = time.monotonic()
        due = [part.due_s - now_s for part in self._parts if part.due_s is not None and self._stages is None]
        return max(0.0, min([_TOLD_EVERY_S, *due]))

    def _look(self, now_s: float) -> None:
        """What has to be done because of time that has passed."""
        self._forgive(now_s - self._looked_s - _TOLD_EVERY_S, now_s)
        self._looked_s = now_s
        if self._stages is None:
            for part in self._parts:
                if part.due_s is not None and now_s >= part.due_s:
                    part.restarts += 1
                    self._start(part)
                elif part.process is not None:
                    self._look_at(part, now_s)
        if self._news or now_s - self._told_s >= _TOLD_EVERY_S:
            self._inform()

    def _forgive(self, away_s: float, now_s: float) -> None:
        """Nobody is late because of a time in which this process itself stood still (stopped, or starved)."""
        if away_s <= 0:
            return
        for part in self._parts:
            part.heard_s = min(part.heard_s + away_s, now_s)
            part.begun_s = None if part.begun_s is None else part.begun_s + away_s
            part.ending_s = None if part.ending_s is None else part.ending_s + away_s
        for stage in self._stages or ():
            stage.told_s = None if stage.told_s is None else stage.told_s + away_s

    def _look_at(self, part: SupervisedPart, now_s: float) -> None:
        limits = self._limits
        silent_s = now_s - part.heard_s
        if silent_s > limits.silence_s:
            self._kill(part, f"nothing was heard of it for {silent_s:.0f} s")
        elif part.ending_s is not None and now_s - part.ending_s > limits.stop_s:
            self._kill(part, "it did not end")
        elif part.heard and silent_s > limits.silent_s and part.state is not PartState.SILENT:
            part.enter(PartState.SILENT)
            part.last_error = "nothing is heard of it"
            self._news = True
            _logger.warning("nothing is heard of the process %r", part.plan.name)
        elif (
            not part.plan.has_log  # a large log takes as long to open as it takes
            and part.running_s is None
            and part.begun_s is not None
            and now_s - part.begun_s > limits.start_s
        ):
            self._kill(part, f"it did not come to work within {limits.start_s:.0f} s")

    # The end

    def _end_in_order(self) -> list[Stage]:
        logs = [part for part in self._parts if part.plan.has_log]
        others = [part for part in self._parts if not part.plan.has_log]
        limits = self._limits
        stages = [
            Stage(Drain(), logs, limits.drain_s),
            Stage(Stop(), others, limits.stop_s),
            Stage(Stop(), logs, limits.stop_s),
        ]
        return stages if self._refusal is None else [Stage(Stop(), self._parts, limits.stop_s)]

    def _ended(self) -> bool:
        """Whether all parts have ended; goes on with the next stage of that."""
        assert self._stages is not None
        now_s = time.monotonic()
        while self._stages:
            stage = self._stages[0]
            if stage.told_s is None:
                stage.told_s = now_s
                for part in stage.parts:
                    self._say(part, stage.message)
            if not stage.done():
                if now_s - stage.told_s > stage.limit_s and not stage.killed:
                    stage.killed = True
                    for part in stage.parts:
                        self._kill(part, f"it did not end within {stage.limit_s:.0f} s")
                return False
            self._stages.pop(0)
        return True

    def _abandon(self) -> None:
        """Leave nothing behind: the end of its channel ends a part that still runs."""
        left = [(part, part.process) for part in self._parts if part.process is not None]
        for part, _ in left:
            self._close(part)
        for part, process in left:
            try:
                process.wait(self._limits.stop_s)
            except subprocess.TimeoutExpired:
                _logger.error("the process %r is killed: it did not end", part.plan.name)
                process.kill()
                process.wait()


def _empty(woken: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while woken.recv(4096):
            pass
