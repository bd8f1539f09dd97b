"""Closes what flows have open that the configuration does not have any more, beside whatever runs.

Nobody else would: an alarm ends with its condition, and nobody looks at the condition when its flow is gone. A flow that
comes back under its name finds its alarms closed, and tells anew what holds (`succession.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from ringmain.flows.output import Committer
from ringmain.flows.succession import close_removed, removed_flows
from ringmain.log.interface import FencedError, Log, LogClosedError, LogError

AGAIN_S = 5.0
_logger = logging.getLogger("ringmain.flow")


class Removal:
    """One look for such flows, in a thread of its own, until what they left is closed. `start` once, `stop` once."""

    def __init__(self, log: Log, wanted: Collection[str]) -> None:
        self._log = log
        self._wanted = frozenset(wanted)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="flows-removed", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End, what is not closed yet stays so; whether it ended within the time. Idempotent."""
        self._stop.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        while not self._stop.is_set():
            try:
                self._close()
            except (LogClosedError, FencedError, InterruptedError):
                return
            except LogError as error:
                _logger.warning("alarms of flows that were removed are not closed yet: %s", error)
                self._stop.wait(AGAIN_S)
            else:
                return

    def _close(self) -> None:
        for name, definition in removed_flows(self._log.positions("flow/"), self._wanted).items():
            if self._stop.is_set():
                return
            claim = self._log.claim(f"flow/{name}")
            committer = Committer(self._log, claim, None, self._wait, lambda: None)
            count = close_removed(self._log, name, definition, committer)
            _logger.info("flow %s is in the configuration no more: %d alarm(s) closed", name, count)

    def _wait(self, wait_s: float, _error: Exception) -> bool:
        return not self._stop.wait(wait_s)
