"""A client's appends: those on their way to the log, in order, and those that wait for a connection.

Keeps the promise of `Log.append_nowait` where a connection is in between: answers are told once each and in order, and
behind an append that failed none of its claim with a higher sequence is stored that was handed over before this was
told. What is handed over without a connection waits for one, as long as a call would; what was on its way when a
connection was lost fails (it may be stored or not), and those handed over meanwhile behind it fail with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from ringmain.log.interface import Appended, Done, LogClosedError, LogError, LogFailedError, LogFullError
from ringmain.log.request import Request
from ringmain.log.socket.channel import Channel
from ringmain.log.socket.transport import append_message
from ringmain.log.socket.wire import INFLIGHT_APPENDS_MAX, INFLIGHT_BYTES_MAX, Type, Welcome, pack

_logger = logging.getLogger(__name__)


class Pending:
    """An append that was handed over and is not told yet. `error`: how it failed, to be told in its turn."""

    __slots__ = ("answer", "done", "error", "handed_s", "in_callback", "number", "request")

    def __init__(self, number: int, request: Request, done: Done) -> None:
        self.number = number
        self.request = request
        self.done = done
        self.answer: Appended | None = None
        self.error: LogError | None = None
        self.handed_s = time.monotonic()
        self.in_callback = False

    @property
    def answered(self) -> bool:
        """Whether there is something to tell."""
        return self.answer is not None or self.error is not None

    def is_behind(self, other: Pending) -> bool:
        """Whether it is of the same claim, with a higher sequence."""
        mine, its = self.request, other.request
        return (
            mine.sequence > its.sequence
            and mine.claim.name == its.claim.name
            and mine.claim.fence == its.claim.fence
        )


class Appends:
    """The appends of one connection. `changed` guards it and is its connection's own."""

    def __init__(self, changed: threading.Condition, lost: str) -> None:
        """`lost`: what is said to those that failed with a connection."""
        self._changed = changed
        self._lost = lost
        self._channel: Channel | None = None
        self._sent: deque[Pending] = deque()
        self._by_number: dict[int, Pending] = {}
        self._late: deque[Pending] = deque()
        self._bytes = 0
        self._bytes_max, self._count_max = INFLIGHT_BYTES_MAX, INFLIGHT_APPENDS_MAX
        self._failures_seen = 0
        self._failures_told = 0
        self._told_lost = 0
        self.closing = False

    # -- from any thread -------------------------------------------------------------------------------------

    def hand_over(self, append: Pending, *, may_wait: bool) -> bool:
        """Send the append or have it wait for a connection; False when the owner has to finish sending.

        `may_wait`: for room; not so in a callback. Told at once, by the caller's thread, when the log is closed.
        """
        size = append.request.size
        append.in_callback = not may_wait
        told_before: int | None = None
        while True:
            with self._changed:
                if told_before is None:
                    told_before = self._told_lost
                if self.closing:
                    append.error = LogClosedError("the log is closed: open it again to append")
                    break
                if may_wait and self._is_full(size):
                    self._changed.wait()
                    continue
                if self._told_lost != told_before:
                    # handed over before its predecessors were told that they are lost
                    append.error = LogFailedError(self._lost)
                    if not self._late:
                        break
                if self._channel is None or append.error is not None:
                    self._late.append(append)
                    self._bytes += size
                    return True
                channel = self._channel
                # In a callback all failures up to this one are known; to other threads those whose callbacks returned.
                seen = self._failures_told if may_wait else self._failures_seen
            buffers = _message(append, seen)
            with self._changed:
                if self._channel is channel and not self.closing:
                    return self._send(channel, append, buffers)
        tell(append)
        return True

    def _is_full(self, size: int) -> bool:
        count = len(self._sent) + len(self._late)
        return bool(count) and (self._bytes + size > self._bytes_max or count >= self._count_max)

    def _send(self, channel: Channel, append: Pending, buffers: list[Any]) -> bool:
        self._sent.append(append)
        self._by_number[append.number] = append
        self._bytes += append.request.size
        return channel.send(buffers)

    @property
    def count(self) -> int:
        """How many are not told yet. Call with the lock held."""
        return len(self._sent) + len(self._late)

    # -- on the connection's thread --------------------------------------------------------------------------

    def answer(self, number: int, answer: Appended | None, error: LogError | None) -> None:
        """An answer came: tell it, and those that it held up."""
        append = self._by_number.get(number)
        if append is None:
            return
        append.answer, append.error = answer, error
        while True:
            with self._changed:
                if not self._sent or not self._sent[0].answered:
                    return
                append = self._sent.popleft()
                del self._by_number[append.number]
                self._bytes -= append.request.size
                failed = isinstance(append.error, LogFailedError | LogFullError)
                self._failures_seen += failed
                if append.request.waited:
                    self._failures_told = self._failures_seen
                self._changed.notify_all()
            tell(append)
            if failed:
                with self._changed:
                    self._failures_told = self._failures_seen

    def connected(self, channel: Channel, welcome: Welcome) -> None:
        """There is a connection: what waited for it is sent before anything else."""
        self._bytes_max, self._count_max = welcome.inflight_bytes_max, welcome.inflight_appends_max
        while True:
            self._tell_failed()
            with self._changed:
                if any(append.error is not None for append in self._late):
                    continue
                self._failures_seen = self._failures_told = 0
                for append in self._late:
                    self._bytes -= append.request.size
                    self._send(channel, append, _message(append, 0))
                self._late.clear()
                self._channel = channel
                self._changed.notify_all()
                return

    def lost(self, error: LogError) -> None:
        """The connection is gone: what was on its way failed."""
        with self._changed:
            self._channel = None
            sent, self._sent = self._sent, deque()
            self._by_number.clear()
            for append in sent:
                self._bytes -= append.request.size
            self._changed.notify_all()
        self._fail(sent, error)
        self._tell_failed()

    def expire(self, error: LogError, before_s: float) -> None:
        """Without a connection: when the oldest was handed over before then, all that wait failed."""
        with self._changed:
            if not self._late or self._late[0].handed_s > before_s:
                return
            late, self._late = self._late, deque()
            for append in late:
                self._bytes -= append.request.size
            self._changed.notify_all()
        self._fail(late, error)
        self._tell_failed()

    def _fail(self, appends: Iterable[Pending], error: LogError) -> None:
        """Tell that these failed, in order; what waits behind one of them fails with it."""
        for append in appends:
            if not append.answered:
                append.error = error
            self._spread(append, error, in_callback=True)
            tell(append)
            # whoever handed over while the callback ran could not know either
            if not append.request.waited:
                self._spread(append, error, in_callback=False)

    def _spread(self, failed: Pending, error: LogError, *, in_callback: bool) -> None:
        """What waits behind an append that failed fails with it; of those from callbacks only where `in_callback`."""
        with self._changed:
            self._told_lost += 1
            for waiting in self._late:
                if (
                    waiting.error is None
                    and waiting.is_behind(failed)
                    and (in_callback or not waiting.in_callback)
                ):
                    waiting.error = error

    def _tell_failed(self) -> None:
        """Tell those that wait and failed already."""
        while True:
            with self._changed:
                failed = [append for append in self._late if append.error is not None]
                if not failed:
                    return
                self._late = deque(append for append in self._late if append.error is None)
                for append in failed:
                    self._bytes -= append.request.size
                self._changed.notify_all()
            self._fail(failed, LogFailedError(self._lost))


def tell(append: Pending) -> None:
    """Call back, once."""
    try:
        append.done(append.answer, append.error)
    except Exception:
        _logger.exception("a callback of an append failed")


def _message(append: Pending, failures_seen: int) -> list[Any]:
    head, data, size = append_message(append.request, failures_seen)
    return pack(Type.APPEND, append.number, head, data, size)
