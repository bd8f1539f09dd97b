"""What the supervising process knows of a part, how a part is to be run, and the steps of the end.

No behaviour but bookkeeping: what is done when is in `supervision.py`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

from ringmain.parts.messages import Drain, FromPart, Incoming, Stop
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.part_status import PartState, PartStatus


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How to run a part: `command` gets the descriptor of its channel and the supervisor's pid as last arguments."""

    name: str
    command: tuple[str, ...]
    has_log: bool = False
    """It owns the log: it begins at once, is drained before the others end, and ends last."""
    informed: bool = False
    """It is told about all parts, and confirms that it knows the node ready."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    start_s: float = 60.0
    silent_s: float = 5.0
    silence_s: float = 60.0
    drain_s: float = 20.0
    stop_s: float = 40.0
    backoff_first_s: float = 0.5


class SupervisedPart:
    """A part, its process if there is one, and what is known of it."""

    def __init__(self, plan: PartPlan, limits: Limits) -> None:
        self.plan = plan
        self.backoff = Backoff(first_s=limits.backoff_first_s)
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.pidfd = -1
        self.incoming = Incoming(FromPart)
        self.outgoing = bytearray()
        self.state = PartState.STARTING
        self.since_ns = time.time_ns()
        self.restarts = 0
        self.last_error: str | None = None
        self.words: str | None = None
        self.report = b""
        self.addresses: dict[str, str] = {}
        self.begun_s: float | None = None
        self.running_s: float | None = None
        self.heard_s = 0.0
        self.heard = False
        self.due_s: float | None = None
        self.ever_begun = False
        self.ready = False
        self.drained = False
        self.ending_s: float | None = None
        self.killed = False
        self.wanted = True
        """The configuration has it; if not, its end is the end of it."""

    def enter(self, state: PartState) -> None:
        if state is not self.state:
            self.state = state
            self.since_ns = time.time_ns()

    def status(self) -> PartStatus:
        pid = 0 if self.process is None else self.process.pid
        return PartStatus(self.plan.name, pid, self.state, self.since_ns, self.restarts, self.last_error)


@dataclass(slots=True)
class Stage:
    """A step of the end: what is said to whom, and when it is done."""

    message: Drain | Stop
    parts: list[SupervisedPart]
    limit_s: float
    told_s: float | None = None
    killed: bool = field(default=False)

    def done(self) -> bool:
        return all(
            part.process is None or (isinstance(self.message, Drain) and part.drained) for part in self.parts
        )


def cause(status: int) -> str:
    """Why a process ended, out of its exit status."""
    if status >= 0:
        return f"it ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"it was ended by signal {name}"
