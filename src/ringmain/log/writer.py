"""The end of the journal: writes prepared groups to the active segment and makes them durable.

`commit` returns once an fdatasync that covers the groups has returned, and raises with nothing acknowledged
otherwise. After a failed write or sync the segment ends at its last durable group for good: the groups go to a
new segment, whose header states that end, and if that fails too the log waits for the next call with no active
segment. A failed fdatasync is never tried again on the same file: the kernel may have dropped the pages and
would report success.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringmain.log.codec import Body
from ringmain.log.files import FileSystem, write_all
from ringmain.log.frames import (
    SEGMENT_HEADER_BYTES,
    SEGMENT_PREPARED,
    FrameHeader,
    GroupHeader,
    Mark,
    headers_bytes,
    lsn_of,
    pack_segment_header,
)
from ringmain.log.interface import LogError, LogFailedError, LogFullError
from ringmain.log.prepare import AppendRate, SegmentPreparer
from ringmain.log.segments import segment_numbers
from ringmain.log.store import Segment, Store

_logger = logging.getLogger(__name__)
_KEEP_CACHED_BYTES = 16 << 20
_DROP_STEP_BYTES = 4 << 20
MARK_NAME = "durable"


@dataclass(slots=True)
class PreparedGroup:
    """A group ready to be written: its headers as they go to disk, and the buffers of its bodies."""

    header: GroupHeader
    frames: list[FrameHeader]
    buffers: list[Any]
    bodies: list[Body] | None = None
    raw: memoryview | None = None

    def body(self, number: int) -> memoryview | bytes:
        """The bytes of the body of frame `number`."""
        if self.bodies is not None:
            return b"".join(self.bodies[number].buffers)
        assert self.raw is not None
        at = headers_bytes(self.header) + sum(frame.length for frame in self.frames[:number])
        return self.raw[at : at + self.frames[number].length]


class JournalWriter:
    """Owns the active segment. Used by the commit thread alone."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        store: Store,
        *,
        segment_bytes: int,
        incarnation: int,
        wall_ns: Callable[[], int],
        previous: Segment | None,
        carried: Sequence[PreparedGroup],
        sealed: Callable[[Segment], None],
        preparer: SegmentPreparer | None = None,
        prepare_after_bytes: int = 0,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._store = store
        self._segment_bytes = segment_bytes
        self._incarnation = incarnation
        self._wall_ns = wall_ns
        self._previous = previous
        self._carried = list(carried)
        self._sealed = sealed
        self._preparer = preparer
        held_bytes = sum(segment.end for segment in store.segments)
        self._prepare_after_bytes = 0 if held_bytes >= prepare_after_bytes else prepare_after_bytes
        self._rate = AppendRate()
        self._active: Segment | None = None
        self._is_prepared = False
        self._handle = -1
        self._dropped_bytes = 0
        self._mark_handle = -1
        self._next_number = 1 + max([0, *segment_numbers(fs, directory)])

    @property
    def active_end(self) -> tuple[int, int]:
        """(segment number, byte) behind the last durable group."""
        segment = self._active or self._previous
        return (0, 0) if segment is None else (segment.number, segment.end)

    @property
    def carried_lsn(self) -> int:
        """The last lsn that recovery found unproven and that is still to be written again; 0: none."""
        return self._carried[-1].header.lsn if self._carried else 0

    def commit(self, groups: Sequence[PreparedGroup], published: Callable[[int], None]) -> None:
        """Make the groups durable and publish them, in order.

        Calls `published(count)` after each sync with how many of the groups are durable by then. Raises
        LogFullError or LogFailedError; the groups beyond the last such count are then not in the log.
        """
        done = 0
        if self._carried:
            # Together with the first groups, which tell of the tail that the new segment cuts off: a crash in between
            # would leave neither the tail nor its entry in the ledger.
            self._commit_some([*self._carried, *groups])
            self._carried = []
            done = len(groups)
            if done:
                published(done)
        while done < len(groups):
            active = self._active
            end = SEGMENT_HEADER_BYTES if active is None else active.end
            room = self._segment_bytes - end
            if active is not None and (groups[done].header.length > room or self._is_outgrown(end)):
                self._seal()
                continue
            count, size = 0, 0
            for group in groups[done:]:
                size += group.header.length
                if count and size > room:
                    break
                count += 1
            self._commit_some(groups[done : done + count])
            done += count
            published(done)

    def _is_outgrown(self, end: int) -> bool:
        """Whether a prepared segment is ready to take over from the active one, which grows as it is written."""
        return (
            self._preparer is not None
            and not self._is_prepared
            and end >= self._prepare_after_bytes
            and self._preparer.is_ready
        )

    def _commit_some(self, groups: Sequence[PreparedGroup]) -> None:
        if self._active is not None:
            try:
                self._write_and_sync(self._active, self._handle, groups)
            except OSError as error:
                _logger.error(
                    "segment %d: %s; it ends at byte %d, a new segment takes over",
                    self._active.number,
                    error,
                    self._active.end,
                )
                self._abandon()
            else:
                self._publish(self._active, groups)
                return
        prepared = None if self._preparer is None else self._preparer.take()
        try:
            segment, handle = self._create(groups, prepared)
        except OSError as error:
            raise _as_log_error(error) from error
        self._active, self._handle, self._is_prepared = segment, handle, prepared is not None
        self._dropped_bytes = 0
        self._store.add_segment(segment)
        self._publish(segment, groups)

    def _write_and_sync(self, segment: Segment, handle: int, groups: Sequence[PreparedGroup]) -> None:
        buffers: list[Any] = []
        for group in groups:
            buffers.extend(group.buffers)
        write_all(self._fs, handle, buffers, segment.end)
        self._fs.fdatasync(handle)

    def _create(self, groups: Sequence[PreparedGroup], prepared: int | None) -> tuple[Segment, int]:
        """A new segment that holds the groups, durable with its name. Nothing of it stays when that fails.

        `prepared`: the handle of a prepared file to make it of.
        """
        number = self._next_number
        self._next_number += 1
        previous = self._previous
        last_offset = previous.last_offset if previous is not None else -1
        header = pack_segment_header(
            incarnation=self._incarnation,
            first_lsn=groups[0].header.lsn,
            number=number,
            previous_number=0 if previous is None else previous.number,
            previous_end=0 if previous is None else previous.end,
            previous_offset=max(last_offset, 0),
            created_ns=self._wall_ns(),
            flags=0 if prepared is None else SEGMENT_PREPARED,
        )
        segment = Segment(self._directory, number, self._incarnation, groups[0].header.lsn)
        handle = self._fs.create(segment.path) if prepared is None else prepared
        try:
            # The header cuts off the predecessor's tail, which may be the only copy of these groups:
            # it must not be there before they are durable here.
            self._write_and_sync(segment, handle, groups)
            write_all(self._fs, handle, [header], 0)
            self._fs.fdatasync(handle)
            if prepared is not None:
                assert self._preparer is not None
                self._fs.rename(self._preparer.path, segment.path)
            self._fs.sync_directory(self._directory)
        except OSError:
            with contextlib.suppress(OSError):
                self._fs.close(handle)
            with contextlib.suppress(OSError):
                self._fs.remove(segment.path)
            if prepared is not None and self._preparer is not None:
                with contextlib.suppress(OSError):
                    self._fs.remove(self._preparer.path)
            raise
        return segment, handle

    def _publish(self, segment: Segment, groups: Sequence[PreparedGroup]) -> None:
        at = segment.end
        placed = []
        for group in groups:
            placed.append((at, group.header, group.frames, group.body))
            at += group.header.length
        written = at - segment.end
        self._write_mark(segment, groups[-1].header, at)
        self._store.publish(segment, placed)
        if at - self._dropped_bytes > _KEEP_CACHED_BYTES + _DROP_STEP_BYTES:
            upto = at - _KEEP_CACHED_BYTES
            self._fs.drop_cache(self._handle, self._dropped_bytes, upto - self._dropped_bytes)
            self._dropped_bytes = upto
        if self._preparer is not None:
            begin = self._segment_bytes // 2 if self._is_prepared else self._prepare_after_bytes
            self._rate.add(written)
            if at >= begin and not self._rate.is_fast:
                self._preparer.wish()

    def _write_mark(self, segment: Segment, last: GroupHeader, end: int) -> None:
        """Tell other processes how far the log is durable. A failure only delays what they see."""
        mark = Mark(last.incarnation, last.lsn, segment.number, end, last.arrival_ns)
        try:
            if self._mark_handle < 0:
                path = self._directory / MARK_NAME
                try:
                    self._mark_handle = self._fs.open_existing(path, write=True)
                except FileNotFoundError:
                    self._mark_handle = self._fs.create(path)
            write_all(self._fs, self._mark_handle, [mark.pack()], 0)
        except OSError as error:
            _logger.debug("mark of durability not written: %s", error)

    def _seal(self) -> None:
        """The active segment is full; everything in it is durable."""
        segment = self._active
        assert segment is not None
        self._fs.drop_cache(self._handle, self._dropped_bytes, segment.end - self._dropped_bytes)
        with contextlib.suppress(OSError):
            self._fs.close(self._handle)
        self._give_back(segment)
        self._active, self._previous, self._handle = None, segment, -1
        self._sealed(segment)

    def _give_back(self, segment: Segment) -> None:
        if self._is_prepared and self._preparer is not None:
            self._preparer.give_back(segment.path, segment.end)

    def _abandon(self) -> None:
        """The active segment failed; its durable part stays, with that end."""
        segment = self._active
        assert segment is not None
        with contextlib.suppress(OSError):
            self._fs.close(self._handle)
        self._active, self._previous, self._handle = None, segment, -1
        self._sealed(segment)

    def close(self) -> None:
        """Close the files. What is durable stays so."""
        if self._active is not None:
            self._give_back(self._active)
        for handle in (self._handle, self._mark_handle):
            if handle >= 0:
                with contextlib.suppress(OSError):
                    self._fs.close(handle)
        self._handle = self._mark_handle = -1


def _as_log_error(error: OSError) -> LogError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LogFullError(
            f"no space for the journal ({error.strerror}): nothing of the append is stored; "
            "free space or lower the retention, the log goes on by itself"
        )
    return LogFailedError(
        f"the journal's disk failed ({error}): nothing of the append is stored; it may be tried again"
    )


def last_lsn(segment: Segment) -> int:
    """The lsn of a segment's last durable group; the one before its first when it has none."""
    return lsn_of(segment.last_offset) if segment.last_offset >= 0 else segment.first_lsn - 1
