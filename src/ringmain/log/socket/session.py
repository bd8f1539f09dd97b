"""One connection of the log's socket: what its peer asks for, checked against its grant, and its answers.

Appends are checked on the socket's thread and handed to the commit thread in the order in which they came; their
answers are collected there and sent once a round. When one fails, those of its claim that the peer sent before it
could know are refused as well (`AppendHead.failures_seen`): stored without it they would make its repeat a duplicate
of something that is nowhere. Other calls run one after the other on another thread.
"""

from __future__ import annotations

import selectors
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ringmain.log.codec import Codec
from ringmain.log.frames import VERSION as FORMAT_VERSION
from ringmain.log.interface import (
    FRAME_BYTES_MAX,
    GROUP_BYTES_MAX,
    Appended,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
)
from ringmain.log.request import Request
from ringmain.log.socket.access import Grant
from ringmain.log.socket.calls import CALLS, SocketCalls
from ringmain.log.socket.channel import Channel, Peer
from ringmain.log.socket.reading import UNSENT_BYTES_MAX, SocketRead
from ringmain.log.socket.transport import received_append
from ringmain.log.socket.wire import (
    GREETING,
    INFLIGHT_APPENDS_MAX,
    INFLIGHT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PAGE_BYTES,
    VERSION,
    AppendHead,
    Credit,
    Hello,
    Message,
    Placed,
    ProtocolError,
    ReadFrom,
    RefusedError,
    Type,
    Welcome,
    failure_of,
    meta_of,
    pack,
)

if TYPE_CHECKING:
    from ringmain.log.socket.server import SocketServer

PROGRAM = "ringmain 0.1"
POSITIONS_OF_OTHERS_MAX = 4_096
"""Named positions that another user may keep in the log, each of `POSITION_BYTES_OF_OTHERS_MAX` at most."""
POSITION_BYTES_OF_OTHERS_MAX = 4_096
READS_MAX = 16
"""Reads of one connection at a time."""
_CALLS_MAX = 64
CALLS_BYTES_MAX = 1 << 20
"""Bytes of the calls of one connection that may wait to be answered, one message beyond."""
_ANSWERS_BYTES_MAX = 4 << 20


class Session:
    """A connection. `take` is called by the socket's thread, answers come from any."""

    def __init__(self, server: SocketServer, channel: Channel, peer: Peer, grant: Grant, number: int) -> None:
        self.channel = channel
        self.peer = peer
        self.grant = grant
        self.number = number
        self.welcome = False
        self.deadline = 0.0
        self.watched = 0
        self.failed: LogError | None = None
        self._server = server
        self._served = server.served
        self._subscribed = False
        self._answers_to = SocketCalls(server.served, server.registrar, grant)
        self._lock = threading.Lock()
        self._answers: list[Any] = []
        self._inflight = 0
        self._inflight_bytes = 0
        self._failures = 0
        self._failed_claims: dict[tuple[str, int], tuple[int, int]] = {}
        self._calls: deque[Message] = deque()
        self._calls_bytes = 0
        self._over = False
        self._calling = False
        self._reads: dict[int, SocketRead] = {}

    @property
    def paused(self) -> bool:
        """Whether nothing more is to be received for now: the peer is to take answers or wait for them first."""
        return (
            self._inflight_bytes > INFLIGHT_BYTES_MAX
            or self._inflight > INFLIGHT_APPENDS_MAX
            or self.channel.queued_bytes > _ANSWERS_BYTES_MAX
            or len(self._calls) > _CALLS_MAX
            or self._calls_bytes > CALLS_BYTES_MAX
        )

    def is_late(self, now_s: float) -> bool:
        """Whether a message was to be whole by now: while nothing is received none can be."""
        return 0 < self.deadline < now_s and bool(self.watched & selectors.EVENT_READ)

    # -- messages --------------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """A message came. Raises ProtocolError."""
        if not self.welcome:
            self._greet(message)
        elif message.type == Type.APPEND:
            self._append(message)
        elif message.type == Type.READ:
            self._read(message)
        elif message.type == Type.CREDIT:
            read = self._reads.get(message.request)
            if read is not None:
                read.grant(meta_of(message, Credit).bytes)
        elif message.type == Type.STOP:
            read = self._reads.get(message.request)
            if read is not None:
                read.stop()
        elif message.type in CALLS:
            # a copy: a view would keep all that came with it
            kept = message._replace(
                meta=memoryview(bytes(message.meta)), data=memoryview(bytes(message.data))
            )
            with self._lock:
                self._calls.append(kept)
                self._calls_bytes += _size(kept)
            self._call_next()
        else:
            raise ProtocolError(f"expected a request, found a message of type {message.type}")

    def _greet(self, message: Message) -> None:
        if message.type != Type.HELLO:
            raise ProtocolError(
                f"expected the greeting {GREETING!r} first, found a message of type {message.type}"
            )
        hello = meta_of(message, Hello)
        if hello.greeting != GREETING:
            raise ProtocolError(f"expected the greeting {GREETING!r}, found {hello.greeting[:40]!r}")
        if not hello.version_min <= VERSION <= hello.version_max:
            raise ProtocolError(
                f"the peer speaks versions {hello.version_min} to {hello.version_max} of the log's protocol, this Ringmain "
                f"version {VERSION}: use programs of the same release"
            )
        store = self._served.store
        with store.lock:
            incarnation = store.state.lineage[-1].id if store.state.lineage else 0
        grant = self.grant
        self._subscribed = hello.subscribe
        self.welcome = True
        self.deadline = 0.0
        self.channel.limit = MESSAGE_BYTES_MAX
        welcome = Welcome(
            VERSION,
            PROGRAM,
            incarnation,
            FORMAT_VERSION,
            [Codec.ARROW, Codec.IDS_AND_ARROW],
            MESSAGE_BYTES_MAX,
            FRAME_BYTES_MAX,
            GROUP_BYTES_MAX,
            INFLIGHT_BYTES_MAX,
            INFLIGHT_APPENDS_MAX,
            grant.append,
            grant.claims,
            list(grant.streams),
            grant.everything,
            self._server.registrar is not None,
        )
        self.channel.send(pack(Type.WELCOME, message.request, welcome))
        if self._subscribed:
            self.channel.send((), marked=True)

    def answer(
        self, request: int, kind: Type, meta: msgspec.Struct, data: Sequence[Any] = (), size: int = 0
    ) -> None:
        """Send an answer, from any thread. A subscriber learns first how far the log is durable by now."""
        if not self.channel.send(pack(kind, request, meta, data, size), marked=self._subscribed):
            self._server.attend(self)

    def _refuse(self, request: int, error: Exception) -> None:
        self.answer(request, Type.ERROR, failure_of(error))

    # -- appends ---------------------------------------------------------------------------------------------

    def _append(self, message: Message) -> None:
        head = meta_of(message, AppendHead)
        store = self._served.store
        try:
            self._check_append(head)
            request = received_append(
                head,
                message.data,
                store.state.by_id,
                max(store.state.series_count, len(store.catalogue)),
                trusted=self.grant.everything,
            )
            for frame in request.frames:
                self._check_stream(frame.stream)
            request.size += len(message.meta)
        except ProtocolError:
            raise
        except LogError as error:
            self._refuse(message.request, error)
            return
        handed = _Handed(self, message.request, request, head.failures_seen)
        request.done = handed.done
        request.refusal = handed.refusal
        with self._lock:
            self._inflight += 1
            self._inflight_bytes += request.size
        self._server.received(request.size)
        self._served.submit(request)

    def _check_append(self, head: AppendHead) -> None:
        if not self.grant.may_claim(head.claim):
            raise RefusedError(f"claim {head.claim!r}: {self.grant.told()}")
        if self.grant.everything or not head.positions:
            return
        largest = max(len(value or b"") for value in head.positions.values())
        store = self._served.store
        with store.lock:
            known = store.state.positions
            new = sum(1 for name in head.positions if name not in known)
            held = sum(1 for name in known if self.grant.may_claim(name)) if new else 0
        if largest > POSITION_BYTES_OF_OTHERS_MAX or held + new > POSITIONS_OF_OTHERS_MAX:
            raise RefusedError(
                f"claim {head.claim!r}: expected at most {POSITIONS_OF_OTHERS_MAX} positions of at most "
                f"{POSITION_BYTES_OF_OTHERS_MAX} bytes below {self.grant.claims!r}, found {held + new}, {largest}"
            )

    def _check_stream(self, name: str) -> None:
        if not self.grant.may_append_to(name):
            raise RefusedError(f"appending to stream {name!r}: {self.grant.told()}")
        if name == "catalogue" and self._server.registrar is not None:
            raise RefusedError(
                "entries of the catalogue are written by the node, which gives the ids: register the keys"
            )

    def answered(self, handed: _Handed, appended: Appended | None, error: LogError | None) -> None:
        """On the commit thread (or, of a log that is closed, on any): the answer of an append."""
        request = handed.request
        if appended is not None:
            position = appended.position
            incarnation, offset = (0, None) if position is None else (position.incarnation, position.offset)
            placed = Placed(incarnation, offset, appended.arrival_ns, appended.duplicate)
            answer = pack(Type.APPENDED, handed.number, placed)
        else:
            answer = pack(Type.ERROR, handed.number, failure_of(error or LogFailedError("the log failed")))
        with self._lock:
            if isinstance(error, LogFailedError | LogFullError | LogClosedError):
                self._failures += 1
                self._server.failures += 1
                key = (request.claim.name, request.claim.fence)
                before = self._failed_claims.get(key)
                first = request.sequence
                if before is not None and before[0] > handed.failures_seen:
                    first = min(first, before[1])
                self._failed_claims[key] = (self._failures, first)
            was_paused = self.paused
            self._inflight -= 1
            self._inflight_bytes -= request.size
            self._answers += answer
            resumed = was_paused and not self.paused
        self._server.received(-request.size)
        if error is not None or resumed or (appended is not None and appended.duplicate):
            # no round may become durable that would send it
            self._server.attend(self)

    def refusal_of(self, handed: _Handed) -> LogError | None:
        """On the commit thread: whether an append of its claim failed that the peer had not heard of when it sent this."""
        key = (handed.request.claim.name, handed.request.claim.fence)
        failed = self._failed_claims.get(key)
        if failed is None:
            return None
        if handed.failures_seen >= failed[0]:
            del self._failed_claims[key]
            return None
        if handed.request.sequence <= failed[1]:
            return None
        return LogFailedError(
            f"claim {key[0]!r}: sequence {failed[1]}, sent before, could not be stored: {handed.request.sequence} is not "
            "stored without it; send both again, in order"
        )

    def flush_answers(self, *, durable: bool) -> bool:
        """Send the answers that wait, and behind `durable` the notification to a subscriber; False when some still wait."""
        with self._lock:
            answers, self._answers = self._answers, []
        if not answers and not (durable and self._subscribed):
            return True
        return self.channel.send(answers, marked=self._subscribed)

    # -- reads -----------------------------------------------------------------------------------------------

    def _read(self, message: Message) -> None:
        wanted = meta_of(message, ReadFrom)
        try:
            if len(self._reads) >= READS_MAX:
                raise RefusedError(
                    f"expected at most {READS_MAX} reads of a connection at a time: end some first"
                )
            for name in wanted.streams:
                self._answers_to.check_readable(name)
            if message.request in self._reads:
                raise ProtocolError(f"expected a new number for a read, found {message.request} again")
            read = SocketRead(self, self._served.store, message.request, wanted)
            if not self._server.reads.acquire(blocking=False):
                raise RefusedError("expected fewer reads at a time of all connections: end some first")
        except ProtocolError:
            raise
        except LogError as error:
            self._refuse(message.request, error)
            return
        self._reads[message.request] = read
        try:
            read.start()
        except RuntimeError as error:  # the machine has no thread for it
            self.read_ended(message.request)
            self._refuse(message.request, LogError(f"a read cannot be begun: {error}; try again later"))

    def read_ended(self, number: int) -> None:
        """On the read's thread, its last act."""
        self._reads.pop(number, None)
        self._server.reads.release()

    def drained(self) -> None:
        """The peer took something: calls and reads that waited for that go on."""
        self._call_next()
        if self._reads and self.channel.queued_bytes < UNSENT_BYTES_MAX:
            for read in list(self._reads.values()):
                read.wake()

    # -- calls -----------------------------------------------------------------------------------------------

    def _call_next(self) -> None:
        """Have the next call answered, unless one is, or the peer does not take its answers."""
        with self._lock:
            if self._calling or not self._calls or self.channel.queued_bytes > _ANSWERS_BYTES_MAX:
                return
            self._calling = True
        try:
            self._server.calls.submit(self._call)
        except RuntimeError:  # the server is stopping
            with self._lock:
                self._calls.clear()

    def _call(self) -> None:
        with self._lock:
            if self._over:
                return
            message = self._calls.popleft()
            self._calls_bytes -= _size(message)
        try:
            meta, data, size = self._answers_to.answer_to(message)
            if size > MESSAGE_BYTES_MAX - PAGE_BYTES:
                raise LogError(
                    f"expected an answer of at most {MESSAGE_BYTES_MAX} bytes, this one needs {size}"
                )
            self.answer(message.request, Type.ANSWER, meta, data, size)
        except ProtocolError as error:
            self.failed = error
        except Exception as error:
            self._refuse(message.request, error)
        with self._lock:
            self._calling = False
        self._call_next()
        self._server.attend(self)

    def end(self) -> None:
        """The connection is over: release what it held."""
        self.channel.close()
        for read in list(self._reads.values()):
            read.stop()
        with self._lock:
            self._answers = []
            self._over = True
            self._calls.clear()


def _size(message: Message) -> int:
    return len(message.meta) + len(message.data)


class _Handed:
    """An append that was handed to the log."""

    __slots__ = ("failures_seen", "number", "request", "session")

    def __init__(self, session: Session, number: int, request: Request, failures_seen: int) -> None:
        self.session = session
        self.number = number
        self.request = request
        self.failures_seen = failures_seen

    def done(self, appended: Appended | None, error: LogError | None) -> None:
        self.session.answered(self, appended, error)

    def refusal(self) -> LogError | None:
        return self.session.refusal_of(self)
