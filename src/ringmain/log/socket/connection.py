"""The client's end of the log's socket: one thread that receives, calls back, and connects again.

Promises
    - Answers of appends are told in the order in which the appends were handed over, each once, on this thread.
    - A lost connection tells every append that waited, in order, that it failed and may be sent again (some may be
      stored: their repeats are recognised), before anything else is sent; then it is connected again, with growing
      pauses, until `close`.
    - What is on its way is bounded, here and at the other end; nothing that is sent blocks this thread.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from ringmain.log.commit import FORKED
from ringmain.log.frames import Mark
from ringmain.log.interface import (
    Appended,
    Done,
    LogClosedError,
    LogError,
    LogFailedError,
    Position,
)
from ringmain.log.request import Request
from ringmain.log.socket.appends import Appends, Pending
from ringmain.log.socket.channel import Channel, Waker
from ringmain.log.socket.greeting import connect_and_greet
from ringmain.log.socket.wire import (
    DurableUpTo,
    Failure,
    Message,
    Placed,
    ProtocolError,
    RefusedError,
    Type,
    Welcome,
    error_of,
    meta_of,
    pack,
)

_logger = logging.getLogger(__name__)
M = TypeVar("M", bound=msgspec.Struct)
_PAUSE_S_MIN = 0.02
_PAUSE_S_MAX = 0.25
CLOSED = "the log is closed: open it again"


class ReadSink(Protocol):
    """Where the frames of a read go, on the connection's thread."""

    def begun(self) -> None:
        """The log took the read up."""
        ...

    def frames(self, data: memoryview, size: int) -> None:
        """Frames came, in a message of `size` bytes."""
        ...

    def ended(self, error: LogError | None) -> None:
        """The read is over."""
        ...

    def lost(self) -> None:
        """The connection is."""
        ...


class _Call:
    __slots__ = ("answered", "error", "message")

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.message: Message | None = None
        self.error: Exception | None = None


class Connection:
    """A connection to the process that writes a log, made again when it is lost."""

    def __init__(
        self,
        directory: Path,
        *,
        timeout_s: float,
        program: str,
        told: Callable[[Mark | None], None],
        connect_s: float | None = None,
    ) -> None:
        """`told` is called on the connection's thread: how far the log is durable; None: nobody says so any more.

        Raises LogFailedError when nobody listens within `connect_s` (left out: `timeout_s`), RefusedError, ProtocolError.
        """
        self._directory = directory
        self.timeout_s = timeout_s
        self._program = program
        self._told = told
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._channel: Channel | None = None
        self._telling = False
        self._closed = False
        self._pid = os.getpid()
        self._appends = Appends(self._changed, _lost(directory))
        self._calls: dict[int, _Call] = {}
        self._reads: dict[int, ReadSink] = {}
        self._problem: LogError | None = None
        self._refused = False
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._tries = threading.Event()
        self.welcome: Welcome | None = None
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="log-remote", daemon=True)
        self._thread.start()
        try:
            self._connected(timeout_s if connect_s is None else connect_s)
        except BaseException:
            self.close()
            raise

    # -- from any thread -------------------------------------------------------------------------------------

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this connection's thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller is a fork of the process that this connection belongs to."""
        return os.getpid() != self._pid

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._channel is not None

    def check_may_wait(self) -> None:
        """Raise LogError in a callback, and in a fork of the process, where nobody would ever answer."""
        if self.is_elsewhere:
            raise LogError(FORKED)
        if self.is_current:
            raise LogError(
                "expected a call from another thread than the log's own, which would wait for itself: "
                "in a callback use append_nowait()"
            )

    @property
    def granted(self) -> Welcome:
        """What the log said when it was connected last."""
        assert self.welcome is not None
        return self.welcome

    def wait_connected(self, deadline: float | None) -> bool:
        """Wait until there is a connection; False when the deadline passes, LogClosedError is raised after `close`."""
        with self._changed:
            while self._channel is None or self._telling:
                if self._closed:
                    raise LogClosedError(CLOSED)
                if self._refused:
                    assert self._problem is not None
                    raise self._problem
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _connected(self, timeout_s: float | None = None) -> Channel:
        """The channel, waited for. Raises LogFailedError when there is none in time."""
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        if not self.wait_connected(time.monotonic() + wait_s):
            raise self._absent(wait_s)
        with self._lock:
            channel = self._channel
        if channel is None:
            raise LogFailedError(
                f"{self._directory}: the connection to the process that writes this log was lost"
            )
        return channel

    def _absent(self, wait_s: float) -> LogFailedError:
        return LogFailedError(
            f"{self._directory}: no connection to the process that writes this log within {wait_s:g} s "
            f"({self._problem or 'nobody listens'}): send again when it is back"
        )

    def call(self, kind: Type, meta: msgspec.Struct, answer: type[M]) -> tuple[M, memoryview]:
        """Ask and wait for the answer: its map and its data. Raises what the log raised, LogFailedError, LogClosedError."""
        self.check_may_wait()
        channel = self._connected()
        number = next(self._numbers)
        call = _Call()
        with self._lock:
            if self._channel is not channel:
                raise LogFailedError(_lost(self._directory))
            self._calls[number] = call
        self._send(channel, pack(kind, number, meta))
        if not call.answered.wait(self.timeout_s):
            with self._lock:
                self._calls.pop(number, None)
            if call.message is None and call.error is None:
                raise LogFailedError(
                    f"{self._directory}: no answer within {self.timeout_s:g} s from the process that writes this log"
                )
        if call.error is not None:
            raise call.error
        assert call.message is not None
        return meta_of(call.message, answer), call.message.data

    def append(self, request: Request, done: Done) -> None:
        """Hand an append over. `done` is called once: here when the log is closed, else on the connection's thread."""
        if self.is_elsewhere:
            done(None, LogError(FORKED))
            return
        pending = Pending(next(self._numbers), request, done)
        if not self._appends.hand_over(pending, may_wait=not self.is_current):
            self._waker.wake()

    def _send(self, channel: Channel, buffers: list[Any]) -> None:
        if not channel.send(buffers):
            self._waker.wake()

    def start_read(self, meta: msgspec.Struct, sink: ReadSink) -> int:
        """Begin a read; returns its number. Raises LogFailedError, LogError in a fork of the process."""
        if self.is_elsewhere:
            raise LogError(FORKED)
        channel = self._connected()
        number = next(self._numbers)
        with self._lock:
            if self._channel is not channel:
                raise LogFailedError(_lost(self._directory))
            self._reads[number] = sink
        self._send(channel, pack(Type.READ, number, meta))
        return number

    def tell_read(self, number: int, kind: Type, meta: msgspec.Struct) -> None:
        """Grant a read more credit, or stop it."""
        with self._lock:
            channel = self._channel if number in self._reads else None
            if kind == Type.STOP:
                self._reads.pop(number, None)
        if channel is not None:
            self._send(channel, pack(kind, number, meta))

    def on_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when more is durable."""
        with self._lock:
            self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(one for one in self._subscribers if one is not callback)

        return unsubscribe

    def close(self) -> None:
        """Take nothing more, wait for the answers of what was handed over, end the connection. Idempotent."""
        deadline = time.monotonic() + self.timeout_s
        if self.is_elsewhere:  # it goes on where it belongs
            return
        with self._changed:
            if self._closed:
                return
            self._appends.closing = True
            self._changed.notify_all()
            while self._appends.count and self._channel is not None and not self.is_current:
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            self._closed = True
            self._changed.notify_all()
        self._tries.set()
        self._waker.wake()
        if not self.is_current:
            self._thread.join()
            self._waker.close()

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = _PAUSE_S_MIN
        while not self._closed:
            try:
                channel = self._connect()
            except (OSError, LogError) as error:
                with self._changed:
                    self._problem = error if isinstance(error, LogError) else LogError(_problem(error))
                    self._refused = isinstance(error, RefusedError | ProtocolError)
                    self._changed.notify_all()
                before_s = float("inf") if self._refused else time.monotonic() - self.timeout_s
                self._appends.expire(self._absent(self.timeout_s), before_s)
                self._tries.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_S_MAX)
                continue
            pause_s = _PAUSE_S_MIN
            try:
                self._receive(channel)
            except (OSError, LogError) as problem:
                _logger.warning("%s: the connection to the log's writer failed: %s", self._directory, problem)
            except Exception:
                _logger.exception("%s: the connection to the log's writer failed", self._directory)
            lost = LogClosedError(CLOSED) if self._closed else LogFailedError(_lost(self._directory))
            self._lose(channel, lost)
        self._told_mark(None)
        self._appends.expire(LogClosedError(CLOSED), float("inf"))

    def _connect(self) -> Channel:
        """Connect and greet. Raises OSError, RefusedError, ProtocolError, LogError."""
        channel, welcome, others = connect_and_greet(self._directory, self._program)
        try:
            self.welcome = welcome
            for message in others:
                self._take(message)
        except BaseException:
            channel.close()
            raise
        self._appends.connected(channel, welcome)
        with self._changed:
            self._channel = channel
            self._problem = None
            self._refused = False
            self._changed.notify_all()
        return channel

    def _receive(self, channel: Channel) -> None:
        """Until the connection ends. Raises OSError, ProtocolError."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker.handle, selectors.EVENT_READ, "waker")
            selector.register(channel.sock, selectors.EVENT_READ, "log")
            writing = False
            while not self._closed:
                wanted = not channel.flush()
                if wanted != writing:
                    writing = wanted
                    watched = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
                    selector.modify(channel.sock, watched, "log")
                for key, events in selector.select():
                    if key.data == "waker":
                        self._waker.clear()
                    elif events & selectors.EVENT_READ:
                        messages, open_ = channel.receive()
                        for message in messages:
                            self._take(message)
                        if not open_:
                            return

    def _take(self, message: Message) -> None:
        kind = message.type
        if kind == Type.DURABLE:
            told = meta_of(message, DurableUpTo)
            self._told_mark(Mark(told.incarnation, told.lsn, told.segment, told.end, told.arrival_ns))
        elif kind == Type.APPENDED:
            placed = meta_of(message, Placed)
            position = None if placed.offset is None else Position(placed.incarnation, 0, placed.offset)
            self._appends.answer(
                message.request, Appended(position, placed.arrival_ns, placed.duplicate), None
            )
        elif kind == Type.ERROR:
            self._error(message)
        elif kind == Type.ANSWER:
            with self._lock:
                call = self._calls.pop(message.request, None)
                read = self._reads.get(message.request)
            if call is not None:
                call.message = message
                call.answered.set()
            elif read is not None:
                read.begun()
        elif kind == Type.FRAMES:
            read = self._reads.get(message.request)
            if read is not None:
                read.frames(message.data, len(message.data))
        elif kind == Type.READ_END:
            with self._lock:
                read = self._reads.pop(message.request, None)
            if read is not None:
                read.ended(None)
        else:
            raise ProtocolError(f"expected an answer, found a message of type {kind}")

    def _error(self, message: Message) -> None:
        error = error_of(meta_of(message, Failure))
        log_error = error if isinstance(error, LogError) else LogError(str(error))
        if not message.request:
            raise log_error
        with self._lock:
            call = self._calls.pop(message.request, None)
            read = self._reads.pop(message.request, None)
        if call is not None:
            call.error = error
            call.answered.set()
        elif read is not None:
            read.ended(log_error)
        else:
            self._appends.answer(message.request, None, log_error)

    def _told_mark(self, mark: Mark | None) -> None:
        self._told(mark)
        if mark is not None:
            for callback in self._subscribers:
                try:
                    callback()
                except Exception:
                    _logger.exception("a callback of the log failed")

    def _lose(self, channel: Channel, error: LogError) -> None:
        """The connection is gone: whoever waits is told, before anybody can use the next one."""
        with self._changed:
            self._channel = None
            self._telling = True
            calls, self._calls = list(self._calls.values()), {}
            reads, self._reads = list(self._reads.values()), {}
            self._changed.notify_all()
        channel.close()
        self._told_mark(None)
        self._appends.lost(error)
        for call in calls:
            call.error = error
            call.answered.set()
        for read in reads:
            read.lost()
        with self._changed:
            self._telling = False
            self._changed.notify_all()


def _lost(directory: Path) -> str:
    return (
        f"{directory}: the connection to the process that writes this log was lost; what was on its way may be stored "
        "or not: send again, repeats are recognised"
    )


def _problem(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return "nobody listens on its socket"
    return str(error)
