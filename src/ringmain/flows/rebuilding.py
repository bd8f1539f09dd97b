"""A replay on its way: built in a thread of its own while the flow goes on, finished in the flow's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ringmain.flows.control import Command
from ringmain.flows.flow import FlowPlan
from ringmain.flows.replay import Replay
from ringmain.flows.takeovers import Takeover
from ringmain.log.interface import Log, Position

_logger = logging.getLogger("ringmain.flow")


class Rebuilding:
    """The replay that a command asks for. `begin` or not, then `finish`; `close` gives up."""

    def __init__(
        self,
        plan: FlowPlan,
        log: Log,
        directory: Path,
        skipped: tuple[Position, ...],
        command: Command,
        stopping: Callable[[], bool],
        takeovers: tuple[Takeover, ...] = (),
    ) -> None:
        self.command = command
        self._closed = threading.Event()
        self._plan = plan
        self._log = log
        self._directory = directory / f"replay-{quote(plan.name, safe='')}"
        self.skipped = skipped
        self._stopping = stopping
        self._takeovers = takeovers
        self._replay: Replay | None = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def _make(self) -> Replay:
        def stopping() -> bool:
            return self._stopping() or self._closed.is_set()

        return Replay(self._plan, self._log, self._directory, self.skipped, stopping, self._takeovers)

    def begin(self, committed: Position | None) -> None:
        """Fold up to a position beside the flow."""
        self._thread = threading.Thread(
            target=self._build, args=(committed,), name=f"replay-{self._plan.name}", daemon=True
        )
        self._thread.start()

    def _build(self, committed: Position | None) -> None:
        try:
            self._replay = self._make()
            self._replay.fold_up_to(committed)
        except Exception as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether the thread has come to its end."""
        return self._thread is None or not self._thread.is_alive()

    def finish(self) -> Replay:
        """The replay, as far as it has come. Raises what the thread raised."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            self.close()
            raise error
        if self._replay is None:
            self._replay = self._make()
        return self._replay

    def close(self) -> None:
        """Give up and remove what was built."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._replay is not None:
            self._replay.close()
            self._replay = None
