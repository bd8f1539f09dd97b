"""Reading a log through its socket, for whoever may not read the files: the same frames, sent under a grant.

Implements `interface.LogReader`. A read goes on by itself, behind the last frame that it gave, when the connection
was lost and is there again. Memory is bounded by the credit that a read grants: as much again is only granted when
frames have been taken.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ringmain.log.builtin import LEDGER
from ringmain.log.control import ControlState, StreamEntry
from ringmain.log.interface import (
    Frame,
    LogClosedError,
    LogError,
    LogFailedError,
    Position,
    Stream,
    StreamKind,
    StreamState,
    UnknownStreamError,
)
from ringmain.log.socket.connection import Connection
from ringmain.log.socket.transport import ReceivedFrame, decoded_frame, received_frames
from ringmain.log.socket.wire import (
    CataloguePage,
    Credit,
    FindTime,
    From,
    Nothing,
    PositionPage,
    PositionTold,
    PrefixAfter,
    ReadFrom,
    StreamPage,
    StreamTold,
    Type,
)
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import SERIES

_logger = logging.getLogger(__name__)
CREDIT_BYTES = 4 << 20


class SocketReader:
    """A log as its socket shows it; implements `interface.LogReader`. The connection is another's to close."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._closed = False
        self._lock = threading.Lock()
        self._catalogue = Catalogue()
        self._catalogue_after: Position | None = None
        self._catalogue_known = False
        self._series_count = 0
        self._open: set[_Sink] = set()
        self.state = ControlState()
        """The streams, as far as they were asked for; nothing else of it is filled."""

    def streams(self) -> list[StreamState]:
        """See `LogReader.streams`: those that the grant shows."""
        told: list[StreamTold] = []
        after = None
        while True:
            page, _ = self._connection.call(Type.STREAMS, PrefixAfter("", after), StreamPage)
            told += page.streams
            if not page.more:
                break
            after = page.streams[-1].name
        return [self._state(one) for one in told]

    def learned(self, told: StreamTold) -> StreamEntry:
        """A stream that the log told of, now known here."""
        with self._lock:
            entry = self.state.by_id.get(told.id)
            if entry is None:
                schema = pa.ipc.read_schema(pa.py_buffer(told.schema))
                entry = self.state.add_stream(
                    Stream(told.name, StreamKind(told.kind), schema, told.id), told.schema_id
                )
            return entry

    def _state(self, told: StreamTold) -> StreamState:
        entry = self.learned(told)
        last = None if told.last is None else Position(told.last[0], 0, told.last[1])
        return StreamState(entry.stream, told.rows, told.frames, last, told.last_arrival_ns)

    def read(
        self,
        streams: str | Sequence[str],
        after: Position | None = None,
        until: Position | None = None,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
        time_min_ns: int | None = None,
        time_max_ns: int | None = None,
        series: int | None = None,
    ) -> Iterator[Frame]:
        """See `LogReader.read`."""
        self._check_open()
        names = [streams] if isinstance(streams, str) else list(streams)
        wanted = ReadFrom(
            names,
            CREDIT_BYTES,
            _tuple(after),
            _tuple(until),
            follow,
            None if timeout_s is None else max(int(timeout_s * 1000), 1),
            time_min_ns,
            time_max_ns,
            series,
        )
        sink = _Sink()
        number = self._connection.start_read(wanted, sink)
        # what is wrong with the request is told by the call, as by every engine
        sink.wait_begun(self._connection.timeout_s)
        with self._lock:
            self._open.add(sink)
        return self._frames(sink, number, wanted)

    def _frames(self, sink: _Sink, number: int, wanted: ReadFrom) -> Iterator[Frame]:
        connection = self._connection
        try:
            while True:
                taken = sink.take()
                if taken is None:
                    return
                if isinstance(taken, _Lost):
                    number = self._again(sink, wanted)
                    if number < 0:
                        return
                    continue
                frames, size = taken
                for received in frames:
                    wanted.after = (received.incarnation, 0, received.offset)
                    frame = self._decoded(received)
                    if frame is not None:
                        yield frame
                connection.tell_read(number, Type.CREDIT, Credit(size))
        finally:
            with self._lock:
                self._open.discard(sink)
            connection.tell_read(number, Type.STOP, Nothing())

    def _again(self, sink: _Sink, wanted: ReadFrom) -> int:
        """Read on over a new connection; -1 when none comes within the read's own time."""
        deadline = None if wanted.timeout_ms is None else time.monotonic() + wanted.timeout_ms / 1000
        while True:
            try:
                if not self._connection.wait_connected(deadline):
                    return -1
                sink.renew()
                return self._connection.start_read(wanted, sink)
            except LogClosedError:
                return -1
            except LogFailedError:
                if not wanted.follow:
                    raise

    def _decoded(self, received: ReceivedFrame) -> Frame | None:
        try:
            frame = decoded_frame(self.state, received)
        except UnknownStreamError:
            self.streams()
            frame = decoded_frame(self.state, received)
        if frame is None:
            _logger.warning("frame at offset %d does not check out; skipped", received.offset)
        return frame

    def end(self) -> Position | None:
        """See `LogReader.end`."""
        told, _ = self._connection.call(Type.END, Nothing(), PositionTold)
        return _position(told)

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """See `LogReader.find`."""
        self._check_open()
        told, _ = self._connection.call(Type.FIND, FindTime(stream, arrival_ns), PositionTold)
        return _position(told)

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """See `LogReader.positions`: those that the grant shows."""
        found: dict[str, bytes] = {}
        after = None
        while True:
            page, _ = self._connection.call(Type.POSITIONS, PrefixAfter(prefix, after), PositionPage)
            found.update(page.positions)
            if not page.more:
                return found
            after = max(page.positions)

    def catalogue(self) -> Catalogue:
        """See `LogReader.catalogue`. Raises RefusedError when the grant does not show stream `catalogue`."""
        with self._lock:
            if not self._catalogue_known:
                self._catalogue_after = self.end()
                self._load_catalogue()
                self._catalogue_known = True
                return self._catalogue
            after = self._catalogue_after
        try:
            for frame in self.read("catalogue", after=after):
                self._catalogue.apply(frame.rows)
                self._catalogue_after = frame.position
        except LogError:
            with self._lock:
                self._catalogue_after = self.end()
                self._load_catalogue()
        return self._catalogue

    def _load_catalogue(self) -> None:
        first: int | None = 0
        while first is not None:
            page, data = self._connection.call(Type.CATALOGUE, From(first), CataloguePage)
            self._series_count = max(self._series_count, page.count)
            if len(data):
                for batch in _batches(data, SERIES):
                    self._catalogue.apply(batch)
            first = page.next

    def series_count(self) -> int:
        """Every series id below was given out before."""
        page, _ = self._connection.call(Type.CATALOGUE, From(2**32 - 1), CataloguePage)
        return page.count

    def ledger(self) -> pa.RecordBatch:
        """See `LogReader.ledger`."""
        _, data = self._connection.call(Type.LEDGER, Nothing(), Nothing)
        (batch,) = _batches(data, LEDGER)
        return batch

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("the log is closed: open it again")

    def close(self) -> None:
        """End every read. Idempotent."""
        self._closed = True
        with self._lock:
            for sink in self._open:
                sink.ended(None)


class _Lost:
    """Stands in a sink for the place where the connection was lost."""


class _Sink:
    """Frames that came and were not taken yet; filled by the connection's thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[tuple[list[ReceivedFrame], int] | _Lost] = deque()
        self._begun = self._ended = False
        self._error: LogError | None = None

    def begun(self) -> None:
        with self._changed:
            self._begun = True
            self._changed.notify_all()

    def wait_begun(self, timeout_s: float) -> None:
        """Wait until the log took the read up. Raises what it refused it with, LogFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun or self._ended or self._items, timeout_s)
            if not self._begun:
                if self._error is not None:
                    raise self._error
                raise LogFailedError("the process that writes the log did not answer a read: try again")

    def frames(self, data: memoryview, size: int) -> None:
        received = received_frames(data)
        with self._changed:
            if not self._ended:
                self._items.append((received, size))
            self._changed.notify_all()

    def ended(self, error: LogError | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def lost(self) -> None:
        with self._changed:
            if not self._ended:
                self._items.append(_Lost())
            self._changed.notify_all()

    def renew(self) -> None:
        """Frames of the next connection may come."""
        with self._changed:
            self._items.clear()

    def take(self) -> tuple[list[ReceivedFrame], int] | _Lost | None:
        """What came next, waited for; None at the end. Raises what the read ended with."""
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait()
            if self._items:
                return self._items.popleft()
            if self._error is not None:
                raise self._error
            return None


def _batches(data: memoryview, schema: pa.Schema) -> list[Any]:
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            if not stream.schema.equals(schema):
                raise LogError(
                    f"expected columns {', '.join(schema.names)}, found {', '.join(stream.schema.names)}"
                )
            return list(stream)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise LogError(f"expected an Arrow stream: {error}") from None


def _tuple(position: Position | None) -> tuple[int, int, int] | None:
    if position is None or position.offset < 0:
        return None
    return position.incarnation, position.partition, position.offset


def _position(told: PositionTold) -> Position | None:
    return None if told.position is None else Position(*told.position)
