"""A real node in a process of its own, for tests: started from a configuration text, killed or stopped."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import psutil


class RunningNode:
    """`ringmain run` on a configuration file in `directory`. Use as a context manager, or `kill()` and make another."""

    layout: ClassVar[str | None] = None
    """The layout that a configuration gets that names none; None: the product's default. See `conftest.py`."""

    def __init__(
        self,
        directory: Path,
        configuration: str,
        *,
        ready_within_s: float = 60,
        wait: bool = True,
        command: Sequence[str] = (),
    ) -> None:
        """`wait=False`: do not wait for the line that says ready, see `wait_ready`; `command` runs it, e.g. prlimit."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "ringmain.toml"
        self.file.write_text(self.laid_out(configuration))
        self.errors = (directory / "stderr.txt").open("ab")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", "ringmain.cli.main", "run", str(self.file)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
        self.addresses = self.wait_ready(ready_within_s) if wait else {}

    @classmethod
    def laid_out(cls, configuration: str) -> str:
        """The configuration with the layout of the test, where it names none itself."""
        if cls.layout is None or "\nlayout" in configuration:
            return configuration
        return configuration.replace("[node]\n", f'[node]\nlayout = "{cls.layout}"\n', 1)

    def wait_ready(self, within_s: float = 60) -> dict[str, str]:
        """Wait for the line that says ready, and return its addresses."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + within_s
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left))
            chunk = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                self.kill()
                raise AssertionError(f"the node was not ready: {line!r}\n{self.stderr()}")
            line += chunk
        text = line.decode()
        assert "ready" in text, text
        self.addresses = dict(re.findall(r"(\S+)=(\S+)", text))
        return self.addresses

    def port(self, name: str) -> int:
        """The port of the listener of that name (`serve` or a source's)."""
        return int(self.addresses[name].rpartition(":")[2])

    def parts(self) -> dict[str, int]:
        """The pids of the processes that are parts of the node, by name; with `layout = "single"` none."""
        found = {}
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "ringmain.parts.process" in command:
                    found[command[command.index("ringmain.parts.process") + 1]] = process.pid
        return found

    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return (self.directory / "stderr.txt").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9 of the node and everything that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        self._close()

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_s)
        self._close()
        return status

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
