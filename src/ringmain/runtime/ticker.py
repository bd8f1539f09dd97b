"""The node's clock as flows may see it: one row a second in stream `ticks`.

A silent fleet is noticed only because time goes on in the log. The ticker is a thread that waits for nothing
but the clock: while an append is under way, or the log is full or failing, it leaves ticks out and goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from ringmain.log.interface import Appended, Batch, FencedError, Log, LogClosedError, LogError
from ringmain.model.schemas import TICK
from ringmain.runtime.counters import Counters, Kind, declare

_TICKS = declare("ringmain_ticks_total", Kind.COUNTER, "Ticks that are durable.", unit="ticks")
_SKIPPED = declare(
    "ringmain_ticks_skipped_total",
    Kind.COUNTER,
    "Ticks left out because an append was still under way or the log took nothing.",
    unit="ticks",
)


class Ticker:
    """Appends a tick every `interval_s`. `start` once, `stop` once."""

    def __init__(
        self,
        log: Log,
        counters: Counters,
        *,
        interval_s: float = 1.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._sequence = 0
        self._trouble = False
        self._counters = counters
        self._logger = logging.getLogger("ringmain.ticker")
        self._thread = threading.Thread(target=self._main, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin to tick, with the first tick at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and wait for the tick under way, within the time."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
            self._idle.wait(timeout_s)

    def _main(self) -> None:
        due_s = time.monotonic()
        claim = None
        while not self._stop.is_set():
            try:
                if claim is None:
                    claim = self._log.claim("ticks")
                if self._idle.is_set():
                    self._sequence += 1
                    self._idle.clear()
                    now = pa.array([self._clock_ns()], pa.int64()).view(TICK.field("time").type)
                    batch = Batch("ticks", pa.RecordBatch.from_arrays([now], schema=TICK))
                    self._log.append_nowait([batch], self._done, claim=claim, sequence=self._sequence)
                else:
                    self._counters.add(_SKIPPED)
            except (FencedError, LogClosedError) as error:
                self._idle.set()
                self._end(error)
            except LogError as error:
                self._idle.set()
                self._skip(error)
            due_s = max(due_s + self._interval_s, time.monotonic())
            self._stop.wait(max(0.0, due_s - time.monotonic()))

    def _done(self, appended: Appended | None, error: LogError | None) -> None:
        """On a thread of the log."""
        if error is None:
            self._counters.add(_TICKS)
            self._trouble = False
        elif isinstance(error, (FencedError, LogClosedError)):
            self._end(error)
        else:
            self._skip(error)
        self._idle.set()

    def _skip(self, error: LogError) -> None:
        self._counters.add(_SKIPPED)
        if not self._trouble:
            self._trouble = True
            self._logger.warning("no ticks for now: %s", error)

    def _end(self, error: LogError) -> None:
        if not self._stop.is_set():
            self._stop.set()
            if isinstance(error, FencedError):
                self._logger.error("ticks end: another instance has taken over (%s)", error)
