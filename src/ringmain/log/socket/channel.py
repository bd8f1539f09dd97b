"""One end of a connection of the log's socket: whole messages in, buffers out, nothing ever blocks.

Any thread may send; one thread, the owner, receives and finishes what did not fit. What waits to be sent is the
owner's to bound: it stops receiving from a peer that does not take its answers. A mark (how far the log is
durable) is only queued once, and resolved to the newest when it is sent, so that a peer that never reads costs
one place in the queue.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ringmain.log.interface import LogError
from ringmain.log.socket.wire import HEADER_BYTES, SOCKET_NAME, Message, message_bytes, unpack

RECEIVE_BYTES = 256 << 10
SEND_BYTES = 2 << 20
"""What a client asks the kernel to hold of what it sends (SO_SNDBUF)."""
_IOV = 64
_CREDENTIALS = struct.Struct("3i")
_TIMEVAL = struct.Struct("qq")


class Peer(NamedTuple):
    """Who is at the other end, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Channel:
    """A connected stream socket that speaks messages."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        """`limit`: bytes of a message that are accepted; may be raised later."""
        sock.setblocking(False)
        self.sock = sock
        self.limit = limit
        self.lock = threading.Lock()
        self.closed = self._broken = False
        self.queued_bytes = 0
        self.received_bytes = 0
        self._out: deque[Any] = deque()
        self._mark: Callable[[], list[Any]] | None = None
        self._mark_queued = False
        self._in = bytearray()
        self._needed = HEADER_BYTES

    # -- sending ---------------------------------------------------------------------------------------------

    def marks(self, newest: Callable[[], list[Any]]) -> None:
        """Where a queued mark gets its bytes from when it is sent."""
        self._mark = newest

    def send(self, buffers: Iterable[Any], *, marked: bool = False) -> bool:
        """Queue buffers and send as much as goes now; False when something waits (the owner then calls `flush`).

        `marked`: the newest mark goes before them. Never raises: a lost connection is seen by who receives.
        """
        with self.lock:
            if self.closed or self._broken:
                return True
            if marked and not self._mark_queued:
                self._out.append(None)
                self._mark_queued = True
            for buffer in buffers:
                view = memoryview(buffer).cast("B")
                if len(view):
                    self._out.append(view)
                    self.queued_bytes += len(view)
            return self._flush()

    def flush(self) -> bool:
        """Send what waits as far as it goes now; True when nothing waits any more."""
        with self.lock:
            return self.closed or self._flush()

    def _flush(self) -> bool:
        out = self._out
        while out:
            chunk: list[Any] = []
            for buffer in out:
                if buffer is None:
                    break
                chunk.append(buffer)
                if len(chunk) == _IOV:
                    break
            if not chunk:
                # the mark is the next to be sent: whatever is the newest now
                self._mark_queued = False
                out.popleft()
                assert self._mark is not None
                for buffer in reversed(self._mark()):
                    out.appendleft(memoryview(buffer).cast("B"))
                    self.queued_bytes += len(buffer)
                continue
            try:
                sent = self.sock.sendmsg(chunk, (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                # what lies behind the bytes that did not go must not go either
                self._broken = True
                out.clear()
                self.queued_bytes = 0
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return True
            self.queued_bytes -= sent
            while sent:
                first = out[0]
                if len(first) <= sent:
                    sent -= len(first)
                    out.popleft()
                else:
                    out[0] = first[sent:]
                    sent = 0
        return True

    # -- receiving -------------------------------------------------------------------------------------------

    @property
    def partial(self) -> bool:
        """Whether a message has begun to arrive and has not ended."""
        return bool(self._in)

    def receive(self) -> tuple[list[Message], bool]:
        """(messages that are complete now, whether the peer may send more). Call when readable; reads once.

        Raises ProtocolError, OSError of a connection that broke.
        """
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return [], True
        if not data:
            return [], False
        self.received_bytes += len(data)
        held = self._in
        held += data
        if len(held) < self._needed:
            return [], True
        messages: list[Message] = []
        view = memoryview(held)
        at = 0
        needed = HEADER_BYTES
        while len(held) - at >= HEADER_BYTES:
            size = message_bytes(view[at : at + HEADER_BYTES], self.limit)
            if len(held) - at < size:
                needed = size
                break
            messages.append(unpack(view[at : at + size]))
            at += size
        if messages:
            # the messages are views of what was held: it stays as it is, only the rest goes on growing
            self._in = bytearray(view[at:])
        self._needed = needed
        return messages, True

    def close(self) -> None:
        """Close the socket. Idempotent."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._out.clear()
            self.queued_bytes = 0
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Waker:
    """Lets other threads wake one that waits in a selector."""

    def __init__(self) -> None:
        self.handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._set = False
        self._closed = False

    def wake(self) -> None:
        """The selector that `handle` is registered with returns."""
        with self._lock:
            if not self._set and not self._closed:
                self._set = True
                os.eventfd_write(self.handle, 1)

    def clear(self) -> None:
        """Call before looking at what there is to do."""
        with self._lock:
            self._set = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.handle)

    def close(self) -> None:
        """Release the handle. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.handle)


def peer_of(sock: socket.socket) -> Peer:
    """Who connected. Raises OSError."""
    return Peer(
        *_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def bind_socket(directory: Path, mode: int) -> socket.socket:
    """Listen on the log's socket in a directory whose lock the caller holds: one that is there is of a dead writer.

    The address goes through /proc/self/fd, so that a long path is no problem. Raises OSError.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory / SOCKET_NAME)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
            os.chmod(directory / SOCKET_NAME, mode)
            sock.listen(128)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(handle)


def _timeval(seconds: float) -> bytes:
    microseconds = max(int(seconds * 1_000_000), 1)
    return _TIMEVAL.pack(*divmod(microseconds, 1_000_000))


def connect_socket(directory: Path, timeout_s: float) -> socket.socket:
    """A connection to the log's socket in a directory. Raises LogError when nobody listens there, OSError."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LogError(f"expected the directory of a log, found nothing at {directory}") from None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # a whole append goes in one call, as far as the machine allows it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            # not settimeout(): a socket that does not block is refused while others wait to be accepted
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_s))
            sock.connect(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
            sock.settimeout(timeout_s)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(handle)
