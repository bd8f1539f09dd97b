"""The log's socket: lets other processes append, be told of what is durable, and read under a policy.

One thread accepts, receives and hands appends to the commit thread; it never waits for a disk or a peer. Answers
and the notification of a round are sent by the commit thread itself, one non-blocking send a connection, so that
a subscriber learns of a commit within microseconds; what does not fit is finished here when the peer reads again.
Calls that wait for the log run on a few threads of their own, each read on one of its own.

Promises: whatever a peer sends or leaves undone costs bounded memory and never delays a commit; a peer that does
not speak the protocol is told why, closed and counted; the end of a connection releases what it held.
What one connection may do and how is in `socket/session.py`, the bytes in `socket/wire.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ringmain.log.interface import LogError
from ringmain.log.socket.access import Policy, UserPolicy
from ringmain.log.socket.channel import Channel, Peer, Waker, bind_socket, peer_of
from ringmain.log.socket.served import Registrar, Served
from ringmain.log.socket.session import Session
from ringmain.log.socket.wire import (
    HELLO_BYTES_MAX,
    SOCKET_NAME,
    DurableUpTo,
    ProtocolError,
    RefusedError,
    Type,
    failure_of,
    pack,
)

_logger = logging.getLogger(__name__)
CONNECTIONS_MAX = 128
"""Connections at a time; one more is refused in words."""
CONNECTIONS_OF_OTHERS_MAX = 16
"""Of these, connections of users other than the log's own."""
RECEIVED_BYTES_MAX = 64 << 20
"""Bytes of appends of all connections that may wait for their answer; no connection is received from beyond."""
READS_MAX = 256
"""Reads of all connections at a time."""
_HELLO_S = 5.0
_MESSAGE_S = 30.0
_FINISH_S = 1.0
_ACCEPT_AGAIN_S = 1.0
_CALL_THREADS = 4


@dataclass(frozen=True, slots=True)
class SocketCounts:
    """What the socket has seen: connections now and ever, those refused, and those closed for what they sent.

    `failures`: appends answered as not stored; `queued_bytes`: what waits for peers to take it.
    """

    connections: int
    accepted: int
    refused: int
    violations: int
    failures: int
    queued_bytes: int


class SocketServer:
    """Serves one journal until `stop` and `finish`."""

    def __init__(
        self, served: Served, policy: Policy | None = None, registrar: Registrar | None = None
    ) -> None:
        """Listens at once. Raises OSError where no socket can be made."""
        self.served = served
        self.policy = UserPolicy() if policy is None else policy
        self.registrar = registrar
        self.calls = ThreadPoolExecutor(_CALL_THREADS, thread_name_prefix="log-socket-call")
        self.received_bytes = 0
        self.failures = 0
        self.reads = threading.BoundedSemaphore(READS_MAX)
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._accepted = self._refused = self._violations = 0
        self._attention: set[Session] = set()
        self._attention_lock = threading.Lock()
        self._marked: tuple[int, list[Any]] = (-1, [])
        self._stopping = False
        self._finish_by = self._accept_again_at = 0.0
        self._held = False
        self._waker = Waker()
        self._selector = selectors.DefaultSelector()
        self._listening = bind_socket(served.directory, 0o666 if self.policy.others else 0o600)
        self._selector.register(self._listening, selectors.EVENT_READ, "listening")
        self._selector.register(self._waker.handle, selectors.EVENT_READ, "waker")
        self._unsubscribe = served.on_durable(self._became_durable)
        self._thread = threading.Thread(target=self._run, name="log-socket", daemon=True)
        self._thread.start()

    def counts(self) -> SocketCounts:
        """What the socket has seen so far."""
        with self._lock:
            queued_bytes = sum(session.channel.queued_bytes for session in self._sessions.values())
            return SocketCounts(
                len(self._sessions),
                self._accepted,
                self._refused,
                self._violations,
                self.failures,
                queued_bytes,
            )

    def stop(self) -> None:
        """Take nothing new; what was handed to the log is still answered. Idempotent."""
        self._stopping = True
        self._waker.wake()
        self.calls.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Send what waits to be sent, as far as peers take it within a second, and close. Call after `stop`."""
        self._finish_by = time.monotonic() + _FINISH_S
        self._waker.wake()
        self._thread.join()
        self._unsubscribe()
        self._waker.close()

    # -- on the commit thread --------------------------------------------------------------------------------

    def _became_durable(self) -> None:
        """After a round: its answers and the notification, one send a connection."""
        for session in tuple(self._sessions.values()):
            if not session.flush_answers(durable=True):
                self.attend(session)

    def mark(self) -> list[Any]:
        """The newest notification as it is sent; nothing while nothing is durable."""
        store = self.served.store
        with store.lock:
            if not store.segments:
                return []
            segment = store.segments[-1]
            lsn, arrival_ns = store.state.lsn, store.state.arrival_ns
            number, end, incarnation = segment.number, segment.end, segment.incarnation
        of_lsn, mark = self._marked
        if lsn != of_lsn:
            told = DurableUpTo(incarnation, lsn, number, end, arrival_ns)
            mark = pack(Type.DURABLE, 0, told)
            self._marked = lsn, mark
        return mark

    def attend(self, session: Session) -> None:
        """Have the socket's thread look at a connection: something waits to be sent, or may be received again."""
        with self._attention_lock:
            self._attention.add(session)
        self._waker.wake()

    def received(self, size: int) -> None:
        """Bytes of appends that wait for their answer from now on, or not any more."""
        with self._attention_lock:
            self.received_bytes += size
        if self._held and self.received_bytes <= RECEIVED_BYTES_MAX // 2:
            self._waker.wake()

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ended():
                self._turn()
        except Exception:
            _logger.exception(
                "the log's socket has failed: other processes cannot append until the node restarts"
            )
        finally:
            for session in list(self._sessions.values()):
                self._end(session)
            self._stop_listening()
            self._selector.close()

    def _ended(self) -> bool:
        if not self._finish_by:
            return False
        waiting = any(session.channel.queued_bytes for session in self._sessions.values())
        return not waiting or time.monotonic() >= self._finish_by

    def _turn(self) -> None:
        timeout = None
        if (
            self._finish_by
            or self._accept_again_at
            or any(session.deadline for session in self._sessions.values())
        ):
            timeout = 0.05 if self._finish_by else 1.0
        for key, events in self._selector.select(timeout):
            if key.data == "listening":
                self._accept()
            elif key.data == "waker":
                self._waker.clear()
            else:
                self._serve(key.data, events)
        if self._stopping:
            self._stop_listening()
        with self._attention_lock:
            attention, self._attention = self._attention, set()
        if self._stopping or self._resumed():
            self._held = False
            attention.update(self._sessions.values())
        for session in attention:
            if session.number in self._sessions:
                session.flush_answers(durable=False)
                session.drained()
                self._watch(session)
        if self._resumed():  # what was held back since, nobody wakes for
            self._waker.wake()
        now = time.monotonic()
        if self._accept_again_at and now > self._accept_again_at and not self._stopping:
            self._accept_again_at = 0.0
            self._selector.register(self._listening, selectors.EVENT_READ, "listening")
        for session in [one for one in self._sessions.values() if one.is_late(now)]:
            self._violated(
                session, ProtocolError(f"expected a whole message within {_MESSAGE_S:g} s, it did not come")
            )

    def _resumed(self) -> bool:
        """Whether connections that waited for others' appends to be answered may be received from again."""
        return self._held and self.received_bytes <= RECEIVED_BYTES_MAX // 2

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                # out of descriptors, say: look again later, rather than at once for ever
                _logger.warning("the log's socket: a connection cannot be accepted: %s", error)
                self._selector.unregister(self._listening)
                self._accept_again_at = time.monotonic() + _ACCEPT_AGAIN_S
            return
        channel = Channel(sock, HELLO_BYTES_MAX)
        try:
            peer = peer_of(sock)
            grant = self._admitted(peer)
        except (OSError, LogError) as error:
            self._refused += 1
            channel.send(pack(Type.ERROR, 0, failure_of(error)))
            channel.close()
            return
        self._accepted += 1
        session = Session(self, channel, peer, grant, self._accepted)
        session.deadline = time.monotonic() + _HELLO_S
        channel.marks(self.mark)
        with self._lock:
            self._sessions[session.number] = session
        self._watch(session)

    def _admitted(self, peer: Peer) -> Any:
        grant = self.policy.grant(peer)
        if grant is None:
            raise RefusedError(
                f"user {peer.uid} may not use this log: expected user {os.geteuid()}, or an entry [log.access.NAME] for it"
            )
        others = sum(1 for session in self._sessions.values() if not session.grant.everything)
        if len(self._sessions) >= CONNECTIONS_MAX or (
            not grant.everything and others >= CONNECTIONS_OF_OTHERS_MAX
        ):
            raise RefusedError(
                f"expected at most {CONNECTIONS_MAX} connections at a time, {CONNECTIONS_OF_OTHERS_MAX} of other users: "
                "close some, or try again later"
            )
        return grant

    def _serve(self, session: Session, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            session.channel.flush()
            session.drained()
        if events & selectors.EVENT_READ:
            try:
                messages, open_ = session.channel.receive()
                for message in messages:
                    session.take(message)
            except ProtocolError as error:
                self._violated(session, error)
                return
            except OSError:
                open_ = False
            except Exception as error:
                _logger.exception("the log's socket: a message of process %d failed", session.peer.pid)
                self._violated(session, ProtocolError(f"expected another message: {error!r}"))
                return
            if not open_:
                self._end(session)
                return
            if session.welcome and (messages or not session.channel.partial):
                session.deadline = 0.0
            if session.welcome and session.channel.partial:
                session.deadline = session.deadline or time.monotonic() + _MESSAGE_S
        if session.failed is not None:
            self._violated(session, session.failed)
            return
        self._watch(session)

    def _watch(self, session: Session) -> None:
        """Wait for what the connection can do next."""
        if session.failed is not None:
            self._violated(session, session.failed)
            return
        wanted = 0
        if session.channel.queued_bytes:
            wanted |= selectors.EVENT_WRITE
        if self.received_bytes > RECEIVED_BYTES_MAX:
            self._held = True
        if not self._stopping and not session.paused and not self._held:
            wanted |= selectors.EVENT_READ
        if wanted == session.watched:
            return
        if wanted & ~session.watched & selectors.EVENT_READ and session.deadline:
            # nothing could come while nothing was received
            session.deadline = time.monotonic() + (_MESSAGE_S if session.welcome else _HELLO_S)
        if not session.watched:
            self._selector.register(session.channel.sock, wanted, session)
        elif not wanted:
            self._selector.unregister(session.channel.sock)
        else:
            self._selector.modify(session.channel.sock, wanted, session)
        session.watched = wanted

    def _violated(self, session: Session, error: LogError) -> None:
        """The peer does not speak the protocol: told, counted, closed."""
        self._violations += 1
        _logger.warning(
            "the log's socket: process %d of user %d: %s; closed", session.peer.pid, session.peer.uid, error
        )
        session.channel.send(pack(Type.ERROR, 0, failure_of(error)))
        self._end(session)

    def _end(self, session: Session) -> None:
        if self._sessions.get(session.number) is not session:
            return
        with self._lock:
            del self._sessions[session.number]
        if session.watched:
            self._selector.unregister(session.channel.sock)
            session.watched = 0
        session.end()

    def _stop_listening(self) -> None:
        if self._listening.fileno() < 0:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._listening)
        with contextlib.suppress(OSError):
            os.unlink(self.served.directory / SOCKET_NAME)
        self._listening.close()
