"""The embedded engine: one journal for all streams of a node, written by one process.

`open_log` recovers a directory and gives the one writer of it; what it promises is in `interface.py`. The path
of an append: encoded and checksummed here on the caller's thread, planned, written, synced and published by the
commit thread (`commit.py`, `planner.py`, `writer.py`), answered, and read from `store.py` by `reader.py`.
Sidecars and checkpoints are made on a background thread.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ringmain.log.background import BackgroundTasks
from ringmain.log.backup.restored import forget_restored, refuse_unfinished
from ringmain.log.builtin import LEDGER_ID, LedgerKind
from ringmain.log.clock import ArrivalClock, Clock, SystemClock
from ringmain.log.codec import Layout
from ringmain.log.commit import FORKED, CommitThread
from ringmain.log.control import Opened, Removed, StreamDefined
from ringmain.log.files import FileSystem, LocalFileSystem
from ringmain.log.frames import FLAG_CLOSING, FLAG_OPENING
from ringmain.log.interface import (
    Appended,
    Batch,
    Claim,
    Done,
    Frame,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    Position,
    Stream,
    StreamKind,
    StreamState,
)
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX, LedgerEntry, bounded, ledger_batch
from ringmain.log.ledger.findings import KnownPlaces, findings, unknown, warn_of
from ringmain.log.lock import refuse_network, take_lock
from ringmain.log.maintenance import Maintenance
from ringmain.log.planner import Planner
from ringmain.log.prepare import PREPARE_AFTER_BYTES, SegmentPreparer
from ringmain.log.reader import find, read
from ringmain.log.recovered import Recovered
from ringmain.log.recovery import recover
from ringmain.log.request import INTERNAL, Request, encode_append, internal_frame
from ringmain.log.segments import Damage
from ringmain.log.socket.access import Policy
from ringmain.log.socket.served import Registrar, Served
from ringmain.log.socket.server import SocketServer
from ringmain.log.store import Segment, Store
from ringmain.log.writer import JournalWriter, PreparedGroup
from ringmain.model.catalogue import Catalogue

_logger = logging.getLogger(__name__)
SEGMENT_BYTES = 64 << 20
QUEUE_BYTES = 64 << 20
NAME_BYTES_MAX = 255
_ENTRIES_A_FRAME = 512
"""Entries of the ledger in one frame: with names of any length it holds them."""
_WRITER = "ringmain 0.1"


def open_log(
    directory: str | Path,
    *,
    fs: FileSystem | None = None,
    clock: Clock | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    queue_bytes: int = QUEUE_BYTES,
    sync_delay_ns: int = 0,
    prepare_after_bytes: int | None = PREPARE_AFTER_BYTES,
) -> Journal:
    """Open a log for writing, creating it in an empty or missing directory.

    `segment_bytes` is the size at which a new segment begins, `queue_bytes` bounds the appends waiting for
    their commit, `sync_delay_ns` is how long appends are gathered before they are synced together and then
    acknowledged. From `prepare_after_bytes` in a segment on, and at once in a log that holds as many (None: never), the
    next one is written with zeros beforehand, in the background (`prepare.py`). Never refuses damaged data: that is
    quarantined, and told in stream `ledger`. Raises LogLockedError, NewerFormatError, LogError on a network file system,
    OSError when nothing can be read.
    """
    path = Path(directory)
    files = fs or LocalFileSystem()
    files.make_directory(path)
    refuse_network(files, path)
    refuse_unfinished(files, path)
    lock = take_lock(files, path)
    try:
        return Journal(
            files,
            path,
            lock,
            clock or SystemClock(),
            segment_bytes,
            queue_bytes,
            sync_delay_ns,
            prepare_after_bytes,
        )
    except BaseException:
        files.close(lock)
        raise


class Journal:
    """The writer of a log; implements `interface.Log`."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        lock: int,
        clock: Clock,
        segment_bytes: int,
        queue_bytes: int,
        sync_delay_ns: int = 0,
        prepare_after_bytes: int | None = None,
    ) -> None:
        recovered = recover(fs, directory)
        warn_of(recovered.findings)
        self._fs = fs
        self._lock = lock
        self._store: Store = recovered.store
        self._wall_ns = clock.wall_ns
        self._creation = threading.Lock()
        self._created = 0
        self._copying = threading.Lock()
        self._copied = 0
        """How many streams this journal has made, and how many of their definitions are in a checkpoint."""
        self._closed = False
        state = self._store.state
        carried = [PreparedGroup(one.header, one.frames, [one.raw], raw=one.raw) for one in recovered.carried]
        incarnation = recovered.incarnation if recovered.continuous else secrets.randbits(64) or 1
        planner = Planner(state, incarnation, recovered.next_lsn)
        for group in carried:
            planner.absorb(group)
        self._background = BackgroundTasks()
        self._maintenance = Maintenance(fs, directory, self._store, recovered.checkpoints, self._background)
        self._maintenance.sweep(recovered.strangers)
        last = self._store.segments[-1] if self._store.segments else None
        self._preparer = SegmentPreparer(fs, directory, segment_bytes, lambda: BackgroundTasks())
        writer = JournalWriter(
            fs,
            directory,
            self._store,
            segment_bytes=segment_bytes,
            incarnation=incarnation,
            wall_ns=clock.wall_ns,
            previous=last,
            carried=carried,
            sealed=self._maintenance.sealed,
            preparer=None if prepare_after_bytes is None else self._preparer,
            prepare_after_bytes=prepare_after_bytes or 0,
        )
        if last is not None:
            self._maintenance.sealed(last)
            if recovered.zeros_from is not None:
                self._preparer.give_back(last.path, recovered.zeros_from)
        arrival = max([state.arrival_ns, *(group.header.arrival_ns for group in carried)])
        self._clock = ArrivalClock(clock, arrival, state.clock_segment)
        self._commit = CommitThread(
            planner,
            writer,
            self._clock,
            queue_bytes=queue_bytes,
            first=self._opening(recovered, incarnation),
            after_round=self._maintenance.after_round,
            delay_ns=sync_delay_ns,
        )
        self._writer = writer
        self._maintenance.attach(self._commit.call)
        self._socket: SocketServer | None = None
        self._commit.start()
        self._known, self._known_lock = KnownPlaces(), threading.Lock()
        settled = self._settle()
        self._store.tell_damage(self._damaged)
        if settled and recovered.restored is not None:
            self._maintenance.checkpoint()
            forget_restored(fs, directory)

    def _opening(self, recovered: Recovered, incarnation: int) -> list[Request]:
        """The records of this opening: lineage, and what recovery found for the ledger."""
        restored = recovered.restored
        origin = "" if restored is None else restored.origin
        record = Opened(incarnation, recovered.next_lsn, recovered.kept_lsn, self._wall_ns(), _WRITER, origin)
        requests = [Request(INTERNAL, 0, [], 0, 1024, None, record=record, flags=FLAG_OPENING)]
        state = self._store.state
        told = [one.entry(state, self._wall_ns()) for one in recovered.findings]
        if restored is not None:
            told.append(restored.entry(self._wall_ns()))
        entries = bounded(unknown(told, state.ledger), LEDGER_ENTRIES_MAX // 4)
        firsts = range(0, len(entries), _ENTRIES_A_FRAME)
        requests += [self._ledger_request(entries[first : first + _ENTRIES_A_FRAME]) for first in firsts]
        return requests

    def _settle(self) -> bool:
        """Write the opening at once; with a full or failing disk the log is open all the same, and this is False."""
        answered = threading.Event()
        failed: list[LogError] = []

        def done(_: Appended | None, error: LogError | None) -> None:
            if error is not None:
                failed.append(error)
            answered.set()

        self._commit.submit(Request(INTERNAL, 0, [], 0, 0, done))
        answered.wait()
        if failed:
            _logger.warning("the log is open and readable, but cannot be written yet: %s", failed[0])
        return not failed

    # -- the ledger ------------------------------------------------------------------------------------------

    def _ledger_request(self, entries: list[LedgerEntry]) -> Request:
        body = Layout(self._store.state.by_id[LEDGER_ID].stream.schema).encode(ledger_batch(entries))
        return Request(
            INTERNAL, 0, [internal_frame(LEDGER_ID, "ledger", LEDGER_ID, body)], 0, body.length, None
        )

    def _damaged(self, segment: Segment, damage: Damage, lsn: int) -> None:
        """Damage of something durable, found while reading: into the ledger."""
        found = findings(
            LedgerKind.QUARANTINED,
            segment.number,
            damage.at,
            damage.end,
            lsn,
            lsn,
            damage.frames or None,
            f"damaged: {damage.reason}",
        )
        state = self._store.state
        told = [one.entry(state, self._wall_ns()) for one in found]
        with self._known_lock:
            entries = self._known.unknown(told, state.ledger)
        if entries and not self._closed:
            self._commit.submit(self._ledger_request(entries))

    def ledger(self) -> pa.RecordBatch:
        """Every ledger entry (schema `builtin.LEDGER`), those whose segments are gone included."""
        return ledger_batch(self._store.state.ledger_shown())

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def published(self) -> Store:
        """What of the log is readable, for whoever scans its segments itself (`account.Accountant`)."""
        return self._store

    def streams(self) -> list[StreamState]:
        """See `LogReader.streams`."""
        with self._store.lock:
            return self._store.state.stream_states()

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
        return read(
            self._store,
            self._store.wait_beyond,
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
        return self._store.end()

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """See `LogReader.find`."""
        self._check_open()
        return find(self._store, stream, arrival_ns)

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """See `LogReader.positions`."""
        with self._store.lock:
            return {
                name: value for name, value in self._store.state.positions.items() if name.startswith(prefix)
            }

    def catalogue(self) -> Catalogue:
        """The series catalogue as far as it is durable; the same object on each call."""
        return self._store.catalogue

    def series_count(self) -> int:
        """Every series id below was given out before, even where its catalogue entry was lost to damage."""
        with self._store.lock:
            return max(self._store.state.series_count, len(self._store.catalogue))

    # -- writing ---------------------------------------------------------------------------------------------

    def create_stream(self, name: str, kind: StreamKind, schema: pa.Schema) -> Stream:
        """See `Log.create_stream`."""
        self._check_open()
        _check_name("stream", name)
        layout = Layout(schema)
        with self._creation:
            with self._store.lock:
                known = self._store.state.streams.get(name)
                identity = self._store.state.next_stream_id
            if known is None:
                record = StreamDefined(
                    identity, name, int(kind), identity, layout.schema.serialize().to_pybytes()
                )
                self._submit_and_wait(Request(INTERNAL, 0, [], 0, len(record.schema), None, record=record))
                self._created += 1
            elif known.stream.kind != kind or not known.layout.schema.equals(layout.schema):
                raise LogError(
                    f"stream {name!r} exists as {known.stream.kind.name} with columns "
                    f"{', '.join(known.stream.schema.names)}: expected the same kind and schema, found {kind.name} "
                    f"with {', '.join(schema.names)}"
                )
            created = self._created
        self._copy_definitions(created)
        with self._store.lock:
            return self._store.state.streams[name].stream

    def _copy_definitions(self, created: int) -> None:
        """A stream is unreadable without its definition: a second copy of it, in a checkpoint, one for many streams.

        `created`: how many had been made when the one was that must be among them.
        """
        with self._copying:
            if self._copied < created and not self._closed:  # else the last checkpoint holds it
                all_created = self._created
                self._maintenance.checkpoint()
                self._copied = all_created

    def claim(self, name: str, epoch: int | None = None) -> Claim:
        """See `Log.claim`."""
        self._check_open()
        _check_name("claim", name)
        if epoch is not None and not 0 <= epoch < 2**64:
            raise LogError(f"claim {name!r}: expected an epoch of 64 bits, found {epoch}")
        chosen = (secrets.randbits(64) or 1) if epoch is None else epoch
        fence, last = self._submit_and_wait(Request(INTERNAL, 0, [], 0, 0, None, claiming=(name, chosen)))
        if fence == 1:
            self._maintenance.checkpoint_soon()
        with self._store.lock:
            held = self._store.state.positions
            below = {key: value for key, value in held.items() if key == name or key.startswith(name + "/")}
        return Claim(name, fence, chosen, last, below)

    def append(
        self,
        batches: Sequence[Batch],
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> Appended:
        """See `Log.append`."""
        request = self._request(batches, claim, sequence, positions)
        appended = self._submit_and_wait(request)
        assert isinstance(appended, Appended)
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
        """See `Log.append_nowait`. Blocks only while the queue of waiting appends is full.

        An append that cannot even be encoded (UnknownStreamError, TooLargeError, wrong columns) or that comes
        after close is answered at once, on the calling thread.
        """
        try:
            request = self._request(batches, claim, sequence, positions)
        except LogError as error:
            done(None, error)
            return
        request.done = done
        if self._commit.is_elsewhere:
            done(None, LogError(FORKED))
            return
        self._commit.submit(request)

    def _request(
        self,
        batches: Sequence[Batch],
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None,
    ) -> Request:
        if self._closed:
            raise LogClosedError("the log is closed: open it again to append")
        return encode_append(self._store.state, batches, claim, sequence, positions)

    def _check_may_wait(self) -> None:
        if self._commit.is_current:
            raise LogError(
                "expected a call from another thread than the log's own, which would wait for itself: "
                "in a callback use append_nowait()"
            )

    def _submit_and_wait(self, request: Request) -> Any:
        self._check_may_wait()
        answered = threading.Lock()
        answered.acquire()
        result: list[Any] = []

        def done(answer: Any, error: LogError | None) -> None:
            result.append(answer)
            result.append(error)
            answered.release()

        request.done = done
        request.waited = True
        self._commit.submit(request)
        answered.acquire()
        answer, error = result
        if error is not None:
            raise error
        return answer

    def on_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Log.on_durable`."""
        return self._commit.on_durable(callback)

    def retain(self, *, age_ns: int | None = None, size_bytes: int | None = None) -> int:
        """See `Log.retain`."""
        self._check_open()
        self._check_may_wait()
        try:
            return self._maintenance.retain(
                self._wall_ns(), self._clock.age_ns, age_ns, size_bytes, self._tell_removed
            )
        except OSError as error:
            raise LogFailedError(
                f"the oldest segments cannot be read ({error}): none is removed that cannot be counted; tried again later"
            ) from error

    def _tell_removed(self, entries: list[LedgerEntry], removed: Removed) -> bool:
        """Write to the ledger what goes, in one group with the fact that it is gone; False on a full disk.

        A disk that fails otherwise raises: nothing is removed that could not be written down.
        """
        request = self._ledger_request(entries)
        request.record = removed
        try:
            self._submit_and_wait(request)
        except LogFullError as error:
            _logger.warning("removal of segments cannot be recorded yet: %s", error)
            return False
        return True

    def listen(self, *, policy: Policy | None = None, registrar: Registrar | None = None) -> SocketServer:
        """Serve other processes on the socket of this log's directory (docs/wire-protocol.md) until it closes.

        `policy` decides who may do what: left out, this user and root everything and others nothing. `registrar`
        gives ids to the series that others bring; without one they write entries of the catalogue themselves.
        Raises OSError where no socket can be made.
        """
        self._check_open()
        if self._socket is None:
            served = Served(
                self._store.directory,
                self._store,
                self._commit.submit,
                self.claim,
                self.create_stream,
                lambda age_ns, size_bytes: self.retain(age_ns=age_ns, size_bytes=size_bytes),
                self.on_durable,
            )
            self._socket = SocketServer(served, policy, registrar)
        return self._socket

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("the log is closed: open it again")

    def close(self) -> None:
        """Make everything submitted durable, prove it with a closing group, and release the lock. Idempotent."""
        if self._commit.is_elsewhere:  # it goes on where it belongs
            return
        self._check_may_wait()
        with self._creation, self._copying:
            if self._closed:
                return
            self._closed = True
        if self._socket is not None:
            self._socket.stop()
        self._maintenance.stop_retention()
        with contextlib.suppress(LogError):
            self._submit_and_wait(Request(INTERNAL, 0, [], 0, 0, None, flags=FLAG_CLOSING))
        self._maintenance.checkpoint(final=True)
        self._commit.close()
        if self._socket is not None:
            self._socket.finish()
        self._background.close()
        self._writer.close()
        self._preparer.close()
        self._store.close()
        self._fs.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_name(what: str, name: str) -> None:
    if not name or len(name.encode()) > NAME_BYTES_MAX or not name.isprintable():
        raise LogError(f"expected a {what} name of 1 to {NAME_BYTES_MAX} printable bytes, found {name!r}")
