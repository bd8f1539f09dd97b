"""A read through the log's socket: a thread of its own sends stored frames as far as the peer granted credit.

A peer that does not take its frames stops its own read and nothing else: what was read and not sent is bounded by
the credit, and no segment is kept open while the read waits for more credit (retention may take what was not sent
yet; the peer is then told that its position is gone).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ringmain.log.interface import Position
from ringmain.log.reader import read_raw
from ringmain.log.socket.transport import frame_buffers
from ringmain.log.socket.wire import Nothing, ProtocolError, ReadFrom, Type, failure_of
from ringmain.log.store import Store

if TYPE_CHECKING:
    from ringmain.log.socket.session import Session

_BATCH_BYTES = 256 << 10
CREDIT_BYTES_MAX = 16 << 20
UNSENT_BYTES_MAX = 1 << 20
"""While more than this waits to be sent on a connection its reads wait too, whatever their credit."""
_STREAMS_MAX = 4096
_PATIENCE_S = 0.2


class SocketRead:
    """One read of one connection."""

    def __init__(self, session: Session, store: Store, number: int, wanted: ReadFrom) -> None:
        """Raises ProtocolError for bounds that are none; LogError of the read comes as its answer."""
        self._session = session
        self._store = store
        self._number = number
        self._wanted = wanted
        self._room = threading.Condition()
        self._credit = 0
        self._stopped = self._begun = False
        self._waiting: list[Any] = []
        self._waiting_bytes = 0
        self._after = None if wanted.after is None else Position(*wanted.after)
        if not 0 < len(wanted.streams) <= _STREAMS_MAX:
            raise ProtocolError(f"expected 1 to {_STREAMS_MAX} streams to read, found {len(wanted.streams)}")
        for bound in (*(wanted.after or ()), *(wanted.until or ())):
            if not 0 <= bound < 2**64:
                raise ProtocolError(f"expected positions of 64-bit numbers, found {bound}")
        for time_ns in (wanted.time_min_ns, wanted.time_max_ns, wanted.series, wanted.timeout_ms):
            if time_ns is not None and not -(2**63) <= time_ns < 2**63:
                raise ProtocolError(f"expected bounds of 64 bits, found {time_ns}")
        self.grant(wanted.credit_bytes)

    def start(self) -> None:
        """Begin to send."""
        threading.Thread(target=self._run, name=f"log-socket-read-{self._number}", daemon=True).start()

    def grant(self, size: int) -> None:
        """The peer takes so many bytes more. Raises ProtocolError beyond what one read may have on its way."""
        with self._room:
            if size < 0 or self._credit + size > CREDIT_BYTES_MAX:
                raise ProtocolError(
                    f"expected a credit of at most {CREDIT_BYTES_MAX} bytes, found {self._credit + size}"
                )
            self._credit += size
            self._room.notify_all()

    def wake(self) -> None:
        """The connection takes more again."""
        with self._room:
            self._room.notify_all()

    def stop(self) -> None:
        """End as soon as possible. From any thread."""
        with self._room:
            self._stopped = True
            self._room.notify_all()
        with self._store.lock:
            self._store.changed.notify_all()

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._some() and self._send():
                pass
            self._send()
            self._session.answer(self._number, Type.READ_END, Nothing())
        except Exception as error:
            self._send()
            self._session.answer(self._number, Type.ERROR, failure_of(error))
        finally:
            self._session.read_ended(self._number)

    def _some(self) -> bool:
        """Read until the end or until no credit comes; False at the end.

        Whoever waits for a slow peer keeps no file open: what is removed meanwhile must be gone.
        """
        wanted = self._wanted
        frames = read_raw(
            self._store,
            self._wait,
            wanted.streams,
            self._after,
            None if wanted.until is None else Position(*wanted.until),
            follow=wanted.follow,
            timeout_s=None if wanted.timeout_ms is None else wanted.timeout_ms / 1000,
            time_min_ns=wanted.time_min_ns,
            time_max_ns=wanted.time_max_ns,
            series=wanted.series,
        )
        if not self._begun:
            self._begun = True
            self._session.answer(self._number, Type.ANSWER, Nothing())
        for frame in frames:
            head, body, size = frame_buffers(frame)
            self._waiting += (head, body)
            self._waiting_bytes += size
            self._after = Position(frame.incarnation, 0, frame.offset)
            if self._stopped:
                return False
            if self._waiting_bytes >= _BATCH_BYTES and not self._send(patience_s=_PATIENCE_S):
                return not self._stopped
        return False

    def _wait(self, offset: int, deadline: float | None) -> bool:
        """As `Store.wait_beyond`; what was read so far is sent first."""
        if not self._send():
            return False
        store = self._store
        with store.lock:
            while store.end_offset <= offset:
                if store.closed or self._stopped:
                    return False
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                store.changed.wait(left)
        return True

    def _send(self, patience_s: float | None = None) -> bool:
        """Send what was read once there is credit; False when the read is to end, or none came in time."""
        if not self._waiting:
            return not self._stopped
        with self._room:
            if not self._room.wait_for(self._may_go_on, patience_s) or self._stopped:
                return False
            self._credit -= self._waiting_bytes
        data, size = self._waiting, self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        self._session.answer(self._number, Type.FRAMES, Nothing(), data, size)
        return True

    def _may_go_on(self) -> bool:
        unsent = self._session.channel.queued_bytes
        return self._stopped or (self._credit > 0 and unsent < UNSENT_BYTES_MAX)
