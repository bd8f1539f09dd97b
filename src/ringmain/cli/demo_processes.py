"""The processes of the demo: the node and the simulators, started, listened to, and ended without orphans.

Each child has a session of its own, so that Ctrl-C reaches the command alone, which ends them in order. If the
command is killed outright, the simulators see their pipe end, and the node gets SIGTERM from the kernel
(PR_SET_PDEATHSIG); nothing outlives the command.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from ringmain.sim.gateways import Plan
from ringmain.sim.tally import Tally

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_LOG_TAIL_LINES = 15


class ChildFailedError(Exception):
    """A process of the demo ended or never came up; the message carries its last words."""


class NodeProcess:
    """`ringmain run FILE` as a child. Its standard error goes to `log_file`."""

    def __init__(self, config_file: Path, log_file: Path) -> None:
        self._log_file = log_file
        self._lines: queue.Queue[str | None] = queue.Queue()
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ringmain.cli.main", "run", str(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def wait_ready(self, timeout_s: float) -> str:
        """The line with "ready". Raises ChildFailedError when the node ends or stays silent."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left_s)
            except queue.Empty:
                break
            if line is None:
                self.check()
                break
            if "ready" in line:
                return line.strip()
        raise ChildFailedError(
            f'expected the node\'s line with "ready" within {timeout_s:g} s.{self._tail()}'
        )

    def check(self) -> None:
        """Raises ChildFailedError if the node has ended."""
        status = self._process.poll()
        if status is not None:
            raise ChildFailedError(f"the node ended with status {status}.{self._tail()}")

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit status; SIGKILL when that takes longer than `timeout_s`."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                return self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def _listen(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self._lines.put(line.decode("utf-8", "replace"))
        self._process.wait()
        self._lines.put(None)

    def _tail(self) -> str:
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines:
            return f" It said nothing ({self._log_file})."
        return f" Its last words ({self._log_file}):\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


class Progress(msgspec.Struct):
    """A simulator's news, once a second."""

    messages: int = 0
    readings: int = 0
    backlog: int = 0
    losses: int = 0
    last_error: str = ""


class _Event(msgspec.Struct):
    event: str
    rate: float = 0.0
    series: int = 0
    messages: int = 0
    readings: int = 0
    backlog: int = 0
    losses: int = 0
    last_error: str = ""
    skipped: int = 0
    cpu_s: float = 0.0
    tally: Tally | None = None


class SimulatorProcess:
    """`python -m ringmain.sim PLAN` as a child, ruled over its pipe."""

    def __init__(self, plan: Plan, log_file: Path) -> None:
        self.progress = Progress()
        self.tally: Tally | None = None
        self.skipped = 0
        self.cpu_s = 0.0
        self.rate = 0.0
        self._log_file = log_file
        self._prepared = threading.Event()
        self._finished = threading.Event()
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ringmain.sim", msgspec.json.encode(plan).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def wait_prepared(self, timeout_s: float) -> None:
        """Return when the fleet stands. Raises ChildFailedError."""
        self._prepared.wait(timeout_s)
        self.check()
        if not self._prepared.is_set():
            raise ChildFailedError(f"expected a simulator to be prepared within {timeout_s:g} s")

    def start(self, start_ms: int) -> None:
        """Let the devices live, their clocks counting from `start_ms`."""
        self._tell(f"start {start_ms}\n")

    def stop(self) -> None:
        """Ask for the end: everything acknowledged, then the tally."""
        self._tell("stop\n")

    def wait_tally(self, timeout_s: float) -> Tally:
        """The tally after `stop`. Raises ChildFailedError when it does not come."""
        self._finished.wait(timeout_s)
        if self.tally is None:
            raise ChildFailedError(f"expected a simulator's tally within {timeout_s:g} s.{self._words()}")
        return self.tally

    def check(self) -> None:
        """Raises ChildFailedError if the simulator ended before it was told to."""
        if self._finished.is_set() and self.tally is None:
            status = self._process.wait()
            raise ChildFailedError(f"a simulator ended with status {status}.{self._words()}")

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self.check()

    def _listen(self, stdout: IO[bytes]) -> None:
        decoder = msgspec.json.Decoder(_Event)
        for line in stdout:
            self._heard(decoder.decode(line))
        self._process.wait()
        self._finished.set()
        self._prepared.set()

    def _heard(self, event: _Event) -> None:
        if event.event == "prepared":
            self.rate = event.rate
            self._prepared.set()
        elif event.event == "progress":
            self.progress = Progress(
                event.messages, event.readings, event.backlog, event.losses, event.last_error
            )
        elif event.event == "tally":
            self.skipped, self.cpu_s = event.skipped, event.cpu_s
            self.tally = event.tally
            self._finished.set()

    def _words(self) -> str:
        text = self._log_file.read_text(encoding="utf-8", errors="replace").strip()
        return f" It said: {text}" if text else ""


def _die_with(parent: int) -> Any:
    def arrange() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
