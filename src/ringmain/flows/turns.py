"""Who folds when: the flows of a process take turns of a few milliseconds, and one that takes long slows itself only.

Two threads that need one interpreter get less done than one (measured with a hundred flows on two cores that had nothing
else to do: 0.32 M readings/s x 100 in two threads, 0.44 in one), each has memory of its own that is cold, and a hundred
that wake at once get hardly anything done. So while several flows have something to fold, one thread folds for all of
them, a turn of one after a turn of another, in the order in which they asked; the flows' own threads sleep meanwhile. A
flow that is alone folds in its own thread, and nobody is woken.

Promises
    - A turn that takes longer than `WAIT_S` loses its place: the next one begins beside it, in another thread.
    - Turns of one flow follow one another, whatever threads they run in; what one raises its flow's thread gets.
    - Threads that have had nothing to do for `IDLE_S` end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WAIT_S = 0.05
IDLE_S = 5.0


class _Asked:
    """A flow that wants turns: until one of them gives False, or raises."""

    __slots__ = ("done", "error", "turn")

    def __init__(self, turn: Callable[[], bool]) -> None:
        self.turn = turn
        self.error: BaseException | None = None
        self.done = threading.Event()


class Turns:
    """From any thread. `at_once`: turns that are had at the same time, besides those that take long."""

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = at_once
        self._lock = threading.Lock()
        self._begun_s: dict[_Asked, float] = {}
        """When the turns that are had began, the oldest first, without those that took long."""
        self._waiting: deque[_Asked] = deque()
        self._parked: list[threading.Event] = []
        """Threads that have nothing to do."""
        self._asking = 0
        self._watched = False

    def have(self, turn: Callable[[], bool]) -> None:
        """Call `turn` again and again, in between the turns of others, until it gives False. Raises what it raises."""
        asked = _Asked(turn)
        with self._lock:
            self._asking += 1
            alone = not self._waiting and len(self._begun_s) < self._at_once
            if alone:
                self._begun_s[asked] = time.monotonic()
            else:
                self._waiting.append(asked)
                self._hand_on()
        try:
            if alone and self._had_alone(asked):
                return
            if not asked.done.wait(WAIT_S):
                self._watch()
                asked.done.wait()
        finally:
            with self._lock:
                self._asking -= 1
        if asked.error is not None:
            raise asked.error

    def _had_alone(self, asked: _Asked) -> bool:
        """Have turns in the asking thread while nobody else waits for one; whether that was all."""
        more = True
        while more:
            try:
                more = asked.turn()
            except BaseException:
                self._ended(asked, more=False)
                raise
            if self._ended(asked, more=more):
                return False
        return True

    def _ended(self, asked: _Asked, *, more: bool) -> bool:
        """A turn in the asking thread has ended; whether the next ones are another thread's."""
        with self._lock:
            lost = self._begun_s.pop(asked, None) is None
            if more and not lost and not self._waiting:
                self._begun_s[asked] = time.monotonic()
                return False
            if more:
                self._waiting.append(asked)
            self._hand_on()
            return more

    def _hand_on(self) -> None:
        """See to it that somebody takes up what waits, if there is a place. The lock is held."""
        if not self._waiting or len(self._begun_s) >= self._at_once:
            return
        if self._parked:
            self._parked.pop().set()
        else:
            threading.Thread(target=self._work, name="flow-turns", daemon=True).start()

    def _next(self) -> _Asked | None:
        """The turn to have now; None: there is none for longer."""
        while True:
            with self._lock:
                if self._waiting and len(self._begun_s) < self._at_once:
                    asked = self._waiting.popleft()
                    self._begun_s[asked] = time.monotonic()
                    self._hand_on()
                    return asked
                wake = threading.Event()
                self._parked.append(wake)
            if wake.wait(IDLE_S):
                continue
            with self._lock:
                if wake in self._parked:
                    self._parked.remove(wake)
                    return None

    def _work(self) -> None:
        while (asked := self._next()) is not None:
            more = False
            try:
                more = asked.turn()
            except BaseException as error:
                asked.error = error
            with self._lock:
                self._begun_s.pop(asked, None)
                if more:
                    self._waiting.append(asked)
            if not more:
                asked.done.set()
            del asked  # nothing of a flow is kept by a thread that waits

    def _watch(self) -> None:
        """Somebody has waited for a while: see to it that turns which take long lose their place."""
        with self._lock:
            if self._watched:
                return
            self._watched = True
        threading.Thread(target=self._look_on, name="flow-turns-watch", daemon=True).start()

    def _look_on(self) -> None:
        """While there is anybody who could be kept waiting."""
        while True:
            with self._lock:
                if self._asking < 2:
                    self._watched = False
                    return
                now_s = time.monotonic()
                for asked, begun_s in list(self._begun_s.items()):
                    if now_s - begun_s >= WAIT_S:
                        del self._begun_s[asked]
                        self._hand_on()
                oldest_s = min(self._begun_s.values(), default=now_s)
            time.sleep(max(oldest_s + WAIT_S - now_s, 0.001))
