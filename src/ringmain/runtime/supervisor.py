"""Runs sources: each in an event loop in a thread of its own, started again with backoff when it raises.

Promises
    - A source that raises hurts no other; it is started again after 0.5 s, doubling to 30 s, with jitter, and
      from 0.5 s again once it was healthy for a minute. Its state and last error are visible (`statuses`).
    - Before a source runs again, everything that its last run submitted is durable: `positions()` are current.
    - `stop` cancels; what was submitted becomes durable and is acknowledged before the loops close, within
      the time given.
    - A source that another instance took over (FencedError) is not started again: state `failed`.
    - While the log is full or failing a source cannot begin: its storage state says so, and it is tried again
      every few seconds, however long that lasts.

Left to others: what a source does with its connections, queueing and retry of appends (`intake.py`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import threading
import time
from typing import Any

from ringmain.log.interface import (
    FencedError,
    Log,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
)
from ringmain.runtime import source_metrics as metrics
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.contract import Source
from ringmain.runtime.counters import Counters
from ringmain.runtime.intake import RETRY_S_MAX, Registry, SourceIntake
from ringmain.runtime.status import SourceState, SourceStatus, StorageState, Tally


class Supervisor:
    """The sources of one node. `add` each, `start` once, `stop` once."""

    def __init__(self, log: Log, registry: Registry, counters: Counters) -> None:
        self._log = log
        self._registry = registry
        self._counters = counters
        self._runners: dict[str, _Runner] = {}

    def add(self, name: str, kind: str, source: Source, *, backoff: Backoff | None = None) -> None:
        """Have `source` run under `name`; `kind` is its configured type. Before `start`."""
        if name in self._runners:
            raise ValueError(f"expected source names that differ, found {name!r} twice")
        runner = _Runner(name, kind, source, self._log, self._registry, self._counters, backoff or Backoff())
        self._runners = {**self._runners, name: runner}

    def remove(self, name: str, timeout_s: float = 10.0) -> bool:
        """End a source and forget it; whether everything that it took became durable within the time."""
        runner = self._runners[name]
        runner.cancel(timeout_s)
        drained = runner.join(timeout_s + 2.0)
        self._runners = {known: one for known, one in self._runners.items() if known != name}
        runner.forget()
        return drained

    def start_added(self, name: str) -> None:
        """Start a source that was added after `start`."""
        self._runners[name].start()

    def start(self) -> None:
        """Start every source in its thread; returns at once (see `wait_started`)."""
        for runner in self._runners.values():
            runner.start()

    def wait_started(self, timeout_s: float) -> list[SourceStatus]:
        """Wait until each source was running once; the statuses of those that were not within the time."""
        deadline = time.monotonic() + timeout_s
        late = [r for r in self._runners.values() if not r.ran.wait(max(0.0, deadline - time.monotonic()))]
        return [runner.status() for runner in late]

    def statuses(self) -> list[SourceStatus]:
        """Every source's status, in the order in which they were added. From any thread."""
        return [runner.status() for runner in self._runners.values()]

    def stop(self, timeout_s: float = 10.0) -> list[str]:
        """Cancel, drain and end every source; the names of those that could not drain within the time."""
        for runner in self._runners.values():
            runner.cancel(timeout_s)
        deadline = time.monotonic() + timeout_s + 2.0
        return [r.name for r in self._runners.values() if not r.join(max(0.0, deadline - time.monotonic()))]


class _Runner:
    """One source, its thread and its loop."""

    def __init__(
        self,
        name: str,
        kind: str,
        source: Source,
        log: Log,
        registry: Registry,
        counters: Counters,
        backoff: Backoff,
    ) -> None:
        self.name = name
        self.ran = threading.Event()
        self._kind = kind
        self._source = source
        self._log = log
        self._registry = registry
        self._counters = counters
        self._backoff = backoff
        self._logger = logging.getLogger(f"ringmain.sources.{name}")
        self._tally = Tally()
        self._state = SourceState.STARTING
        self._since_ns = time.time_ns()
        self._address = ""
        self._last_error: str | None = None
        self._restarts = 0
        self._intake: SourceIntake | None = None
        self._refused = StorageState.OK
        self._drained = True
        self._running_since_s: float | None = None
        self._running_cell = counters.cell(metrics.RUNNING, name)
        self._restarts_cell = counters.cell(metrics.RESTARTS, name)
        self._restarts_cell.add(0)
        self._running_cell.set(0)
        self._drain_timeout_s = 10.0
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name=f"source-{name}", daemon=True)

    # --- from any thread

    def start(self) -> None:
        self._thread.start()

    def cancel(self, drain_timeout_s: float) -> None:
        """Tell the source to end, allowing it that long to drain."""
        with self._lock:
            self._drain_timeout_s = drain_timeout_s
            self._stopping.set()
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; True when everything submitted became durable and was acknowledged."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return self._drained and not self._thread.is_alive()

    def forget(self) -> None:
        """Tell that it does not run; after its end."""
        self._running_cell.set(0)

    def status(self) -> SourceStatus:
        intake, tally = self._intake, self._tally
        storage = self._refused
        if storage is StorageState.OK and intake is not None:
            storage = intake.storage
        return SourceStatus(
            name=self.name,
            type=self._kind,
            address=self._address,
            state=self._state,
            since_ns=self._since_ns,
            last_error=self._last_error,
            restarts=self._restarts,
            storage=storage,
            queue_rows=intake.queue_rows if intake is not None else 0,
            received=tally.received,
            readings=tally.readings,
            letters=tally.letters,
            events=tally.events,
            last_reading_ns=tally.last_reading_ns,
        )

    # --- in the source's thread

    def _main(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            with self._lock:
                self._loop = loop
                self._task = loop.create_task(self._supervise())
                if self._stopping.is_set():
                    self._task.cancel()
            try:
                loop.run_until_complete(self._task)
            except asyncio.CancelledError:
                self._enter(SourceState.STOPPED)
            except Exception as error:
                self._last_error = describe(error)
                self._logger.exception("source %s ended", self.name)
                self._enter(SourceState.FAILED)
        finally:
            with self._lock:
                self._loop = None
            _close(loop)

    async def _supervise(self) -> None:
        while True:
            try:
                await self._run_once()
                error: BaseException = RuntimeError("the source ended by itself")
            except FencedError as fenced:
                self._last_error = describe(fenced)
                self._logger.error("source %s stopped: %s", self.name, self._last_error)
                self._enter(SourceState.FAILED)
                return
            except LogClosedError:
                self._enter(SourceState.STOPPED)
                return
            except (LogFullError, LogFailedError) as refused:
                full = isinstance(refused, LogFullError)
                self._refused = StorageState.FULL if full else StorageState.FAILING
                self._counters.cell(metrics.RETRIES, self.name, self._refused.value).add()
                error = refused
            except Exception as raised:
                error = raised
            healthy_s = 0.0 if self._running_since_s is None else time.monotonic() - self._running_since_s
            delay_s = self._backoff.failed(healthy_s, random.random())
            if self._refused is not StorageState.OK:
                delay_s = min(delay_s, RETRY_S_MAX)
            self._report(error, delay_s)
            self._enter(SourceState.BACKOFF)
            await asyncio.sleep(delay_s)
            self._restarts += 1
            self._restarts_cell.add()

    async def _run_once(self) -> None:
        """One run, from claim to drained. Raises what the source raised, or why the log takes nothing more."""
        self._running_since_s = None
        self._enter(SourceState.STARTING)
        intake = SourceIntake(self.name, self._log, self._registry, self._counters, tally=self._tally)
        self._intake, self._refused = intake, StorageState.OK
        run = asyncio.ensure_future(self._source.run(intake, self._started))
        try:
            ends: list[asyncio.Future[Any]] = [run, intake.ended]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if intake.ended.done():
                await _cancel(run)
                raise intake.ended.result()
            self._enter(SourceState.BACKOFF)
            await intake.drained()
            if run.cancelled():
                raise RuntimeError("the source cancelled itself")
            if (error := run.exception()) is not None:
                raise error
        except asyncio.CancelledError:
            self._enter(SourceState.STOPPED)
            self._drained = await self._end(run, intake)
            raise

    async def _end(self, run: asyncio.Future[None], intake: SourceIntake) -> bool:
        """Cancel the run and wait until everything is durable and acknowledged; False when time ran out."""
        run.cancel()
        deadline_s = self._drain_timeout_s
        started_s = time.monotonic()
        await asyncio.wait({run}, timeout=deadline_s)
        in_time = run.done()
        if not in_time:
            self._logger.error(
                "source %s did not end within %.1f s; what it could not store stays unacknowledged",
                self.name,
                deadline_s,
            )
            run.cancel()
            await asyncio.wait({run}, timeout=1.0)
        try:
            left_s = max(0.0, deadline_s - (time.monotonic() - started_s))
            await asyncio.wait_for(intake.drained(), left_s)
        except TimeoutError:
            return False
        return in_time

    def _started(self, address: str) -> None:
        self._address = address
        self._running_since_s = time.monotonic()
        self._enter(SourceState.RUNNING)
        self.ran.set()

    def _report(self, error: BaseException, delay_s: float) -> None:
        text = describe(error)
        again = text == self._last_error
        self._last_error = text
        level = logging.INFO if again else logging.ERROR
        expected = isinstance(error, (OSError, LogError)) or hasattr(error, "remedy")
        self._logger.log(
            level,
            "source %s: %s; trying again in %.1f s",
            self.name,
            text,
            delay_s,
            exc_info=None if expected or again else error,
        )

    def _enter(self, state: SourceState) -> None:
        if state is not self._state:
            self._state = state
            self._since_ns = time.time_ns()
        self._running_cell.set(int(state is SourceState.RUNNING))


def describe(error: BaseException) -> str:
    """An exception as one line for an operator, with a remedy where the kind of error has one."""
    text = str(error) or type(error).__name__
    if isinstance(error, FencedError):
        return f"another instance has taken over this source ({text}): stop one of the two"
    if isinstance(error, OSError) and not hasattr(error, "remedy"):
        if error.errno == errno.EADDRINUSE:
            return f"{text}: stop the program that listens there, or give this source another address"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"{text}: use a port above 1023, or grant the permission"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{text}: give an address that this machine has"
    return (
        text
        if isinstance(error, (OSError, LogError)) or hasattr(error, "remedy")
        else (f"{type(error).__name__}: {text}")
    )


async def _cancel(run: asyncio.Future[None]) -> None:
    """Cancel and wait for the end, whatever the run makes of it."""
    run.cancel()
    await asyncio.wait({run})
    if not run.cancelled():
        run.exception()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in the loop, let it end, and close the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
