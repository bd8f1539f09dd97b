"""How a sink is: its state, what was wrong last, and how long to wait before it tries again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence

from ringmain.log.interface import LogError
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.counters import Cell
from ringmain.runtime.sink import Retry, SinkError
from ringmain.runtime.sink_status import SinkState

RETRY_AFTER_S_MAX = 3600.0
"""Longer than this no receiver makes a sink wait."""


class SinkHealth:
    """Written by the sink's thread, read by any."""

    def __init__(
        self, name: str, backoff: Backoff, running: Cell, retries: Cell, stop: threading.Event
    ) -> None:
        self._name = name
        self._backoff = backoff
        self._running = running
        self._retries = retries
        self._stop = stop
        self._logger = logging.getLogger("ringmain.sinks")
        self._error: str | None = None
        self._missed: str | None = None
        self._awaited: str | None = None
        self.state = SinkState.STARTING
        self.since_ns = time.time_ns()
        self.retry_at_s: float | None = None
        """When (monotonic) what the receiver did not take is tried again; None: nothing is to be tried again."""

    @property
    def last_error(self) -> str | None:
        """What is wrong now, or what was missed."""
        return self._error or self._awaited or self._missed

    def enter(self, state: SinkState) -> None:
        """Be in this state from now on."""
        if state is not self.state:
            self.state = state
            self.since_ns = time.time_ns()
        self._running.set(int(state is SinkState.RUNNING))

    def well(self, *, answered: bool = False) -> None:
        """Nothing is wrong now; `answered`: a receiver took something, so that the next wait is a short one."""
        if answered:
            self._backoff.failures = 0
        if self._error is not None:
            self._logger.info("sink %s goes on", self._name)
        self._error = None
        self.enter(SinkState.RUNNING)

    def again(self, retry: Retry) -> None:
        """The receiver does not take it now."""
        wait_s = self._backoff.failed(0.0, random.random())
        if retry.after_s is not None:
            wait_s = max(wait_s, min(retry.after_s, RETRY_AFTER_S_MAX))
        self.retry_at_s = time.monotonic() + wait_s
        self._retries.add()
        if self._error != retry.reason:
            self._logger.warning("sink %s waits, next try in %.1f s: %s", self._name, wait_s, retry.reason)
        self._error = retry.reason
        self.enter(SinkState.WAITING)

    def wait_to_retry(self) -> None:
        """Wait until it is to be tried again, or the sink is told to stop."""
        if self.retry_at_s is not None:
            self._stop.wait(max(0.0, self.retry_at_s - time.monotonic()))
            self.retry_at_s = None

    def failed(self, error: Exception) -> None:
        """The sink raised: wait; then it is opened anew."""
        wait_s = self._backoff.failed(0.0, random.random())
        self._retries.add()
        expected = isinstance(error, (SinkError, OSError, LogError))
        text = str(error) if expected and str(error) else f"{type(error).__name__}: {error}"
        self._logger.log(
            logging.INFO if text == self._error else logging.ERROR,
            "sink %s: %s; trying again in %.1f s",
            self._name,
            text,
            wait_s,
            exc_info=None if expected or text == self._error else error,
        )
        self._error, self.retry_at_s = text, None
        self.enter(SinkState.BACKOFF)
        self._stop.wait(wait_s)

    def ended(self, reason: str) -> None:
        """It has ended for good."""
        self._error = reason
        self.enter(SinkState.FAILED)
        self._logger.error("sink %s has stopped: %s", self._name, reason)

    def log_refuses(self, error: LogError, wait_s: float) -> None:
        """The log takes no positions now: wait. Raises InterruptedError when told to stop."""
        if self._error != str(error):
            self._logger.warning("sink %s waits: %s", self._name, error)
        self._error = str(error)
        self.enter(SinkState.WAITING)
        if self._stop.wait(wait_s):
            raise InterruptedError("stopped while the log takes nothing") from error

    def missed(self, text: str) -> None:
        """Rows were gone before they could be read."""
        self._missed = text
        self._logger.error("sink %s: %s", self._name, text)

    def awaits(self, streams: Sequence[str]) -> None:
        """These streams are not there yet."""
        self._awaited = None
        if streams:
            names = ", ".join(repr(name) for name in streams)
            self._awaited = f"no stream {names} yet: the sink waits for it"
