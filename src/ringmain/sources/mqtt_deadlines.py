"""Coarse timers for many connections: one tick a second, one list a second, nothing to cancel.

Ten thousand keep-alives as `loop.call_later` handles, moved at every packet, would cost more than the
messages. Here a callback is asked at about its time, looks for itself whether the time has really come, and
answers when to ask again (None: never). Promises: never early, at most about two seconds late.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

Due = Callable[[float], float | None]
"""Given the loop's time: does what is due, and returns the time at which to be asked again, or None."""

WAIT_MAX_S = 60.0
"""Longest time between two questions, so that whatever has ended is let go of soon."""


class Deadlines:
    """Callbacks by the second in which they are to be asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seconds: dict[int, list[Due]] = {}
        self._asked_up_to = math.floor(loop.time())

    def ask(self, due: Due, at_s: float) -> None:
        """Call `due` at loop time `at_s` or up to two seconds later, at the latest after `WAIT_MAX_S`."""
        second = math.ceil(min(at_s, self._loop.time() + WAIT_MAX_S))
        self._seconds.setdefault(max(second, self._asked_up_to + 1), []).append(due)

    def advance(self, now_s: float) -> None:
        """Ask everything whose second has passed."""
        while self._asked_up_to < math.floor(now_s):
            self._asked_up_to += 1
            for due in self._seconds.pop(self._asked_up_to, ()):
                again_s = due(now_s)
                if again_s is not None:
                    self.ask(due, again_s)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(1)
            self.advance(self._loop.time())
