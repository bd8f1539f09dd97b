"""The log without chance: background work when the test says so, and random numbers from a seed.

The journal does its background work on a thread of its own, and draws incarnations from the system's generator. A
campaign of crashes has to meet the same calls in the same order when its seed is run again; so here the thread is a
queue that the test pumps, and whoever waits for that work does it.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ringmain.log.journal import Journal


class PumpedTasks:
    """Stands in for `ringmain.log.background.BackgroundTasks`: tasks run on the thread that pumps."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, name: str, task: Callable[[], None]) -> None:
        """As `BackgroundTasks.put`."""
        with self._lock:
            self._tasks[name] = task

    def pump(self, most: int = 1_000, *, writing_only: bool = False) -> None:
        """Run waiting tasks, oldest first; `writing_only`: not those that wait for the commit thread."""
        for _ in range(most):
            with self._lock:
                name = next(
                    (one for one in self._tasks if not (writing_only and one.startswith("wish"))), None
                )
                if name is None:
                    return
                task = self._tasks.pop(name)
            with contextlib.suppress(OSError):
                task()

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._tasks)

    def drain(self) -> None:
        """As `BackgroundTasks.drain`."""
        self.pump()

    def close(self) -> None:
        """As `BackgroundTasks.close`."""
        self.pump()


class _Drawn:
    """Stands in for `secrets`."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def randbits(self, bits: int) -> int:
        return self._rng.getrandbits(bits)


@contextlib.contextmanager
def without_chance(seed: int) -> Iterator[None]:
    """Logs that are opened inside are pumped, and draw from the seed."""
    with (
        mock.patch("ringmain.log.journal.BackgroundTasks", PumpedTasks),
        mock.patch("ringmain.log.journal.secrets", _Drawn(seed)),
    ):
        yield


class _Tasks:
    """The pumped background work of a log: of its maintenance, and of the preparation of segments."""

    def __init__(self, log: Journal) -> None:
        background: list[Any] = [log._background, log._preparer.background]
        self._all: list[PumpedTasks] = [one for one in background if one is not None]

    @property
    def waiting(self) -> int:
        """How many tasks of the preparation wait."""
        return sum(tasks.waiting for tasks in self._all[1:])

    def pump(self, most: int = 1_000, *, writing_only: bool = False) -> None:
        """As `PumpedTasks.pump`, of each."""
        for tasks in self._all:
            tasks.pump(most, writing_only=writing_only)


def tasks_of(log: Journal) -> _Tasks:
    """The pumped background work of a log."""
    return _Tasks(log)


def settle(log: Journal) -> None:
    """Return when the commit thread has done all that was handed over, its own follow-up included."""
    done = threading.Event()
    if log._commit.call(done.set):
        assert done.wait(60)


@contextlib.contextmanager
def held(log: Journal) -> Iterator[None]:
    """The commit thread stands still inside: what is handed over meanwhile becomes one round."""
    reached, go = threading.Event(), threading.Event()

    def stand() -> None:
        reached.set()
        assert go.wait(60)

    if log._commit.call(stand):
        assert reached.wait(60)
    try:
        yield
    finally:
        go.set()
