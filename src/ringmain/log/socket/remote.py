"""The log of another process: the second engine of the `Log` interface, over the writer's socket.

    log = connect_log("data")
    claim = log.claim("importer")
    log.append([Batch("readings", rows)], claim=claim, sequence=1)

Appends are encoded and checksummed here and go to the writer as they will lie in the journal. Reading is done on the
files, woken by the writer's notifications (`read="files"`), or through the socket where the files may not be read
(`read="socket"`). What an append was answered for is seen by reads that begin behind the answer.

A lost connection (the writer was restarted) is made again by itself. Appends that waited for their answer then fail
with LogFailedError and may be sent again: repeats are recognised. Claims stay valid, because fences are durable.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from ringmain.log.codec import Layout
from ringmain.log.control import ControlState, StreamEntry
from ringmain.log.files import LocalFileSystem
from ringmain.log.follower import JournalReader, open_reader
from ringmain.log.frames import Mark
from ringmain.log.interface import (
    Appended,
    Batch,
    Claim,
    Done,
    Frame,
    LogClosedError,
    LogError,
    Position,
    Stream,
    StreamKind,
    StreamState,
)
from ringmain.log.lock import refuse_network
from ringmain.log.request import encode_append
from ringmain.log.socket.connection import CLOSED, Connection
from ringmain.log.socket.reader import SocketReader
from ringmain.log.socket.wire import (
    ClaimGiven,
    ClaimName,
    Count,
    Limits,
    NewStream,
    RefusedError,
    Series,
    SeriesIds,
    SeriesTold,
    StreamTold,
    Type,
)
from ringmain.log.store import Store
from ringmain.model.catalogue import Catalogue, SeriesAttributes

TIMEOUT_S = 10.0
_KEYS = 4096


def connect_log(
    directory: str | Path,
    *,
    timeout_s: float = TIMEOUT_S,
    connect_s: float | None = None,
    read: Literal["files", "socket"] = "files",
    program: str = "",
) -> RemoteLog:
    """Connect to the process that writes the log in a directory.

    `timeout_s`: how long to wait for a connection, now (unless `connect_s` says otherwise) and after it was lost, and
    for the answer of a call; an append waits for its answer as long as it takes. `program` is shown to people at the
    other end. Raises LogFailedError when nobody listens there in time, RefusedError when the log's policy does not let
    this user in.
    """
    path = Path(directory)
    refuse_network(LocalFileSystem(), path)
    name = program or f"{Path(sys.argv[0]).name} {os.getpid()}"
    return RemoteLog(path, timeout_s=timeout_s, connect_s=connect_s, read=read, program=name)


class RemoteLog:
    """A log that another process writes; implements `interface.Log`."""

    def __init__(
        self,
        directory: Path,
        *,
        timeout_s: float,
        read: Literal["files", "socket"],
        program: str,
        connect_s: float | None = None,
    ) -> None:
        self._reader: JournalReader | SocketReader | None = None
        self._mark: Mark | None = None
        self._telling = threading.Lock()
        self._closed = False
        self._connection = Connection(
            directory, timeout_s=timeout_s, connect_s=connect_s, program=program, told=self._told
        )
        try:
            if read == "socket":
                self._reader = SocketReader(self._connection)
            elif not self._connection.granted.files:
                raise RefusedError(
                    f"{directory}: reading the files is not granted to this user: use read='socket'"
                )
            else:
                reader = open_reader(directory)
                with self._telling:
                    self._reader = reader
                    reader.tell(self._mark)
        except BaseException:
            self._connection.close()
            raise

    def _told(self, mark: Mark | None) -> None:
        """On the connection's thread: how far the log is durable."""
        with self._telling:
            self._mark = mark
            if isinstance(self._reader, JournalReader):
                self._reader.tell(mark)

    @property
    def durable_lsn(self) -> int:
        """The lsn that the writer told last; 0 when it has told none, or the connection is lost."""
        mark = self._mark
        return 0 if mark is None else mark.lsn

    @property
    def claims(self) -> str:
        """What claims of this user must be, or lie below; empty: any."""
        return self._connection.granted.claims

    @property
    def connected(self) -> bool:
        """Whether there is a connection now. It is made again by itself."""
        return self._connection.is_connected

    @property
    def _read(self) -> JournalReader | SocketReader:
        if self._closed:
            raise LogClosedError(CLOSED)
        assert self._reader is not None
        return self._reader

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def published(self) -> Store:
        """What of the log's files is readable. Raises LogError for a log that is read through the socket."""
        reader = self._read
        if isinstance(reader, SocketReader):
            raise LogError("expected a log whose files are read, found one read through the socket")
        return reader.published

    def streams(self) -> list[StreamState]:
        """See `LogReader.streams`."""
        return self._read.streams()

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
        return self._read.read(
            streams,
            after,
            until,
            follow=follow,
            timeout_s=timeout_s,
            time_min_ns=time_min_ns,
            time_max_ns=time_max_ns,
            series=series,
        )

    def end(self) -> Position | None:
        """See `LogReader.end`."""
        return self._read.end()

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """See `LogReader.find`."""
        return self._read.find(stream, arrival_ns)

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """See `LogReader.positions`."""
        return self._read.positions(prefix)

    def catalogue(self) -> Catalogue:
        """The series catalogue as far as it is durable; the same object on each call."""
        return self._read.catalogue()

    def series_count(self) -> int:
        """Every series id below was given out before, even where its catalogue entry was lost to damage."""
        return self._read.series_count()

    def ledger(self) -> pa.RecordBatch:
        """See `LogReader.ledger`."""
        return self._read.ledger()

    # -- writing ---------------------------------------------------------------------------------------------

    def create_stream(self, name: str, kind: StreamKind, schema: pa.Schema) -> Stream:
        """See `Log.create_stream`."""
        self._check_open()
        layout = Layout(schema)
        wanted = NewStream(name, int(kind), layout.schema.serialize().to_pybytes())
        told, _ = self._connection.call(Type.CREATE, wanted, StreamTold)
        return self._learned(told).stream

    def _learned(self, told: StreamTold) -> StreamEntry:
        reader = self._read
        if isinstance(reader, SocketReader):
            return reader.learned(told)
        reader.refresh()
        return reader.state.entry(told.name)

    def claim(self, name: str, epoch: int | None = None) -> Claim:
        """See `Log.claim`."""
        self._check_open()
        if epoch is not None and not 0 <= epoch < 2**64:
            raise LogError(f"claim {name!r}: expected an epoch of 64 bits, found {epoch}")
        given, _ = self._connection.call(Type.CLAIM, ClaimName(name, epoch), ClaimGiven)
        below = {
            key: value
            for key, value in self.positions(name).items()
            if key == name or key.startswith(name + "/")
        }
        return Claim(name, given.fence, given.epoch, given.last_sequence, below)

    def register(
        self, source: str, keys: Sequence[str], attributes: Sequence[SeriesAttributes | None] | None = None
    ) -> list[int]:
        """The ids of series by key, new and durable ones for keys that are new; -1 beyond the source's limit.

        Attributes of a series that is known stay as they are. Raises ValueError for a key that cannot be stored,
        LogError when the writer gives no ids.
        """
        self._check_open()
        ids: list[int] = []
        for start in range(0, len(keys), _KEYS):
            some = None if attributes is None else attributes[start : start + _KEYS]
            told = None if some is None else [None if one is None else _series_told(one) for one in some]
            wanted = Series(source, list(keys[start : start + _KEYS]), told)
            ids += self._connection.call(Type.REGISTER, wanted, SeriesIds)[0].ids
        return ids

    def append(
        self,
        batches: Sequence[Batch],
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> Appended:
        """See `Log.append`."""
        self._connection.check_may_wait()
        answered = threading.Lock()
        answered.acquire()
        result: list[tuple[Appended | None, LogError | None]] = []

        def done(appended: Appended | None, error: LogError | None) -> None:
            result.append((appended, error))
            answered.release()

        self._append(batches, done, claim, sequence, positions, waited=True)
        answered.acquire()
        ((appended, error),) = result
        if appended is None:
            raise error if error is not None else LogError("the log did not answer")
        return appended

    def append_nowait(
        self,
        batches: Sequence[Batch],
        done: Done,
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """See `Log.append_nowait`. Blocks only while as much waits for its answer as the log lets wait.

        Without a connection it waits for one, at most `timeout_s`. An append that cannot be encoded, or that comes after
        close, is answered at once, on the calling thread.
        """
        self._append(batches, done, claim, sequence, positions)

    def _append(
        self,
        batches: Sequence[Batch],
        done: Done,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None,
        *,
        waited: bool = False,
    ) -> None:
        try:
            state = self._state_with(batches)
            request = encode_append(state, batches, claim, sequence, positions)
        except LogError as error:
            done(None, error)
            return
        request.waited = waited
        self._connection.append(request, done)

    def _state_with(self, batches: Sequence[Batch]) -> ControlState:
        """The state that knows the streams, after a look at what is new where it does not."""
        reader = self._read
        state = reader.state
        if any(batch.stream not in state.streams for batch in batches):
            if isinstance(reader, JournalReader):
                reader.refresh()
            elif not self._connection.is_current:
                reader.streams()
        return reader.state

    def on_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Log.on_durable`. Called on the thread of the connection."""
        return self._connection.on_durable(callback)

    def retain(self, *, age_ns: int | None = None, size_bytes: int | None = None) -> int:
        """See `Log.retain`; granted to the log's own user."""
        self._check_open()
        return self._connection.call(Type.RETAIN, Limits(age_ns, size_bytes), Count)[0].count

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError(CLOSED)

    def close(self) -> None:
        """Wait for the answers of what was handed over, then end the connection. Idempotent."""
        if self._closed or self._connection.is_elsewhere:
            return
        self._connection.check_may_wait()
        self._closed = True
        self._connection.close()
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> RemoteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _series_told(attributes: SeriesAttributes) -> SeriesTold:
    return SeriesTold(
        attributes.unit,
        attributes.quantity,
        attributes.medium,
        attributes.device,
        attributes.place,
        attributes.owner,
        dict(attributes.external),
    )
