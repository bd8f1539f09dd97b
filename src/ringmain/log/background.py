"""What the log does beside committing: sidecars of sealed segments, checkpoints. One sleeping thread.

Tasks wait in a short queue; a task of a kind that is waiting already replaces the older one, so that a slow
disk cannot make the queue grow. A task that fails is logged and comes again with the next occasion.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

_logger = logging.getLogger(__name__)


class BackgroundTasks:
    """Runs tasks one after the other on a thread of its own."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._changed = threading.Condition()
        self._running = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-background", daemon=True)
        self._thread.start()

    def put(self, name: str, task: Callable[[], None]) -> None:
        """Run the task soon; it replaces one of the same name that has not begun."""
        with self._changed:
            if not self._closed:
                self._tasks[name] = task
                self._changed.notify_all()

    def drain(self) -> None:
        """Return when nothing waits or runs."""
        with self._changed:
            while self._tasks or self._running:
                self._changed.wait()

    def close(self) -> None:
        """Finish what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = False
                self._changed.notify_all()
                while not self._tasks:
                    if self._closed:
                        return
                    self._changed.wait()
                name, task = self._tasks.popitem(last=False)
                self._running = True
            try:
                task()
            except OSError as error:
                _logger.warning("%s: %s; tried again later", name, error)
            except Exception:
                _logger.exception("%s failed", name)
