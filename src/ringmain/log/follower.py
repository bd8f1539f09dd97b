"""Reading a log from another process: never writes, works beside the writer and without one.

What is durable is known from the mark, which the writer renews after each sync, and where there is none that
checks out, from the headers alone. Each call looks at the mark first (one small read) and takes over what came;
a reader that follows looks again every 50 ms, unless somebody is connected to the writer and tells it
(`socket/remote.py`). Where retention or a new opening of the writer has changed more than the end of the log, the
directory is read anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ringmain.log.backup.restored import refuse_unfinished
from ringmain.log.control import ControlState
from ringmain.log.files import FileSystem, LocalFileSystem, read_around
from ringmain.log.frames import SEGMENT_HEADER_BYTES, Mark, read_segment_header
from ringmain.log.interface import Frame, LogClosedError, LogError, Position, StreamState
from ringmain.log.ledger.entries import ledger_batch
from ringmain.log.lock import refuse_network
from ringmain.log.look import holds_log, recover_beside
from ringmain.log.reader import find, read
from ringmain.log.recovery import read_mark
from ringmain.log.segments import Damage, StoredGroup, segment_path, walk
from ringmain.log.store import Segment, Store
from ringmain.model.catalogue import Catalogue

POLL_S = 0.05
"""How often a following reader of another process looks for more."""
_TOLD_POLL_S = 1.0


def open_reader(
    directory: str | Path, *, fs: FileSystem | None = None, poll_s: float = POLL_S
) -> JournalReader:
    """Open a log for reading only. Raises LogError when there is none, NewerFormatError."""
    path = Path(directory)
    files = fs or LocalFileSystem()
    refuse_network(files, path)
    refuse_unfinished(files, path)
    if not holds_log(files, path):
        raise LogError(
            f"{path}: expected the directory of a log, found none; a log appears when a node has run there"
        )
    return JournalReader(files, path, poll_s)


class JournalReader:
    """A log as another process sees it; implements `interface.LogReader`."""

    def __init__(self, fs: FileSystem, directory: Path, poll_s: float) -> None:
        self._fs = fs
        self._directory = directory
        self._poll_s = poll_s
        self._refreshing = threading.Lock()
        self._closed = False
        self._mark: Mark | None = None
        self._told: Mark | None = None
        self._tellings = 0
        self._store = Store(fs, directory)
        self._reopen()

    def _reopen(self) -> None:
        """Read the directory anew. What readers hold (store, catalogue) stays the same object."""
        mark = read_mark(self._fs, self._directory)
        fresh = recover_beside(self._fs, self._directory).store
        store = self._store
        batches = fresh.catalogue.to_batches()
        with store.lock:
            for batch in batches:
                store.catalogue.apply(batch)
            known = {segment.number: segment for segment in store.segments}
            store.state = fresh.state
            store.segments = tuple(_kept(known.get(segment.number), segment) for segment in fresh.segments)
            store.end_offset, store.end_incarnation = fresh.end_offset, fresh.end_incarnation
            store.forget_sidecars()
            store.changed.notify_all()
        fresh.close()
        self._mark = mark

    def refresh(self, *, told: bool = False) -> None:
        """Take over what has become durable since the last look.

        The writer renews the mark before it acknowledges, so whoever asks after an acknowledgement finds what it
        was for, to whomever it was given. With `told` a reader that is told looks at no file: what it was told may
        still be on its way.
        """
        with self._refreshing:
            if self._closed:
                return
            mark = self._told
            if mark is None or not told:
                mark = _further(mark, read_mark(self._fs, self._directory))
            if mark is None or mark == self._mark or (mark is self._told and self._knows(mark)):
                return
            if self._advance(mark):
                self._forget_removed()
            else:
                self._reopen()
            self._mark = mark

    def tell(self, mark: Mark | None) -> None:
        """Whoever is connected to the writer says how far the log is durable; None: nobody is told any more.

        While it is told, waiting readers do not look at the file of the mark, and wake up at once.
        """
        store = self._store
        with store.lock:
            self._told = mark
            self._tellings += 1
            store.changed.notify_all()

    def _knows(self, mark: Mark) -> bool:
        store = self._store
        last = store.segments[-1] if store.segments else None
        return last is not None and last.incarnation == mark.incarnation and store.state.lsn >= mark.lsn

    def _forget_removed(self) -> None:
        """Retention took these segments: whoever follows for years must not keep them in mind."""
        store = self._store
        for segment in store.segments[:-1]:
            if segment.last_offset > store.state.removed_offset:
                return
            store.remove_segment(segment)

    def _advance(self, mark: Mark) -> bool:
        """Walk from the known end to the mark; False where the directory has to be read anew."""
        store = self._store
        if not store.segments:
            return False
        segment = store.segments[-1]
        if mark.incarnation != segment.incarnation or mark.segment < segment.number:
            return False
        while segment.number < mark.segment:
            successor = self._successor(segment)
            if successor is None:
                return False
            following, end = successor
            if end < segment.end or not self._walk(segment, end):
                return False
            store.seal(segment)
            store.add_segment(following)
            segment = following
        return self._walk(segment, mark.end)

    def _successor(self, segment: Segment) -> tuple[Segment, int] | None:
        number = segment.number + 1
        try:
            handle = self._fs.open_existing(segment_path(self._directory, number))
        except OSError:
            return None
        try:
            header = read_segment_header(read_around(self._fs, handle, SEGMENT_HEADER_BYTES, 0))
        finally:
            self._fs.close(handle)
        if (
            header is None
            or header.previous_number != segment.number
            or header.incarnation != segment.incarnation
        ):
            return None
        return Segment(self._directory, number, header.incarnation, header.first_lsn), header.previous_end

    def _walk(self, segment: Segment, end: int) -> bool:
        """Publish the groups of a segment up to a byte; False when something does not check out."""
        if end <= segment.end:
            return True
        store = self._store
        lsn = store.state.lsn
        placed = []
        with store.opened(segment) as handle:
            for found in walk(self._fs, handle, segment.end, end, after_lsn=lsn, bodies=False):
                if isinstance(found, Damage):
                    return False
                assert isinstance(found, StoredGroup)
                placed.append((found.at, found.header, found.frames, found.body))
        store.publish(segment, placed)
        return True

    def _wait(self, offset: int, deadline: float | None) -> bool:
        """As `Store.wait_beyond`, looking at the mark while waiting, or waiting to be told."""
        store = self._store
        while True:
            tellings = self._tellings
            self.refresh(told=True)
            if store.wait_beyond(offset, 0.0):
                return True
            if self._closed:
                return False
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            with store.lock:
                pause = self._poll_s if self._told is None else _TOLD_POLL_S
                if deadline is not None:
                    pause = min(pause, deadline - now)
                if tellings == self._tellings and store.end_offset <= offset and not store.closed:
                    store.changed.wait(pause)

    # -- interface -------------------------------------------------------------------------------------------

    @property
    def published(self) -> Store:
        """What of the log is readable, for whoever scans its segments itself (`account.Accountant`)."""
        return self._store

    def streams(self) -> list[StreamState]:
        """See `LogReader.streams`."""
        self.refresh()
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
        self.refresh()
        return read(
            self._store,
            self._wait,
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
        self.refresh()
        return self._store.end()

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """See `LogReader.find`."""
        self._check_open()
        self.refresh()
        return find(self._store, stream, arrival_ns)

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """See `LogReader.positions`."""
        self.refresh()
        with self._store.lock:
            return {
                name: value for name, value in self._store.state.positions.items() if name.startswith(prefix)
            }

    def catalogue(self) -> Catalogue:
        """The series catalogue as far as it is durable; the same object on each call."""
        self.refresh()
        return self._store.catalogue

    def series_count(self) -> int:
        """Every series id below was given out before, even where its catalogue entry was lost to damage."""
        self.refresh()
        with self._store.lock:
            return max(self._store.state.series_count, len(self._store.catalogue))

    @property
    def state(self) -> ControlState:
        """The control state as it is known now, for whoever encodes appends."""
        return self._store.state

    def ledger(self) -> pa.RecordBatch:
        """Every ledger entry (schema `builtin.LEDGER`), those whose segments are gone included."""
        self.refresh()
        return ledger_batch(self._store.state.ledger_shown())

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("the log is closed: open it again")

    def close(self) -> None:
        """Release files and wake waiting readers. Idempotent."""
        self._closed = True
        self._store.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _further(told: Mark | None, found: Mark | None) -> Mark | None:
    if told is None or found is None:
        return told or found
    return found if found.lsn > told.lsn else told


def _kept(known: Segment | None, fresh: Segment) -> Segment:
    """The segment object that readers may hold, with what is known of it now."""
    if known is None:
        return fresh
    known.end, known.first_lsn, known.incarnation = fresh.end, fresh.first_lsn, fresh.incarnation
    known.last_offset, known.index = fresh.last_offset, fresh.index
    return known
