"""What of a log is durable, as every reader in this process sees it: segments, index, control state.

The writer publishes groups here after their sync, a read-only opening after it has seen proof of their
durability; nothing that is not durable is ever reachable from here. One lock guards it; waiting readers are
woken through its condition. Files of segments are opened when read and kept open while somebody uses them, so
that a segment may be removed under a reader.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ringmain.log.builtin import ACCOUNTS_ID, CATALOGUE_ID, CONTROL_ID, LEDGER_ID
from ringmain.log.codec import decode_record
from ringmain.log.control import ControlState, needs_body
from ringmain.log.files import FileSystem
from ringmain.log.frames import SEGMENT_HEADER_BYTES, FrameHeader, GroupHeader, offset_of
from ringmain.log.index import Entries, FrameIndex, Sidecar
from ringmain.log.interface import Position, PositionGoneError
from ringmain.log.segments import Damage, StoredGroup, segment_path, sidecar_path, walk
from ringmain.model.catalogue import Catalogue

_logger = logging.getLogger(__name__)
_OPEN_FILES_MAX = 32
_UNTOLD_MAX = 65_536
_INDEX_CACHE_BYTES = 16 << 20

BodyOf = Callable[[int], "memoryview | bytes"]


class Segment:
    """A segment of the published log. `end` is the byte behind its last durable group."""

    __slots__ = (
        "end",
        "first_lsn",
        "handle",
        "incarnation",
        "index",
        "last_lsn",
        "last_offset",
        "number",
        "path",
        "removed",
        "users",
    )

    def __init__(
        self, directory: Path, number: int, incarnation: int, first_lsn: int, end: int = SEGMENT_HEADER_BYTES
    ) -> None:
        self.number = number
        self.path = segment_path(directory, number)
        self.incarnation = incarnation
        self.first_lsn = first_lsn
        self.end = end
        self.last_offset = -1
        self.last_lsn = first_lsn - 1
        self.index: FrameIndex | None = None
        self.handle: int | None = None
        self.users = 0
        self.removed = False


class Store:
    """The published log."""

    def __init__(self, fs: FileSystem, directory: Path) -> None:
        self.fs = fs
        self.directory = directory
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.state = ControlState()
        self.catalogue = Catalogue()
        self.segments: tuple[Segment, ...] = ()
        self.end_offset = -1
        self.end_incarnation = 0
        self.closed = False
        self._on_damage: Callable[[Segment, Damage, int], None] | None = None
        self._untold: list[tuple[Segment, Damage, int]] = []
        self._reported: set[tuple[int, int]] = set()
        self._sidecars: OrderedDict[int, Entries] = OrderedDict()
        self._sidecar_bytes = 0
        self._open: OrderedDict[int, Segment] = OrderedDict()

    # -- publishing ------------------------------------------------------------------------------------------

    def apply(self, group: GroupHeader, frames: Sequence[FrameHeader], body: BodyOf) -> None:
        """Fold a durable group into the control state. Call with the lock held."""
        state = self.state
        if group.lsn <= state.lsn:
            return
        for number, frame in enumerate(frames):
            if needs_body(frame):
                self._apply_body(group, number, frame, body(number))
        state.apply_headers(group, list(frames))

    def _apply_body(
        self, group: GroupHeader, number: int, frame: FrameHeader, body: memoryview | bytes
    ) -> None:
        state = self.state
        if frame.stream == CONTROL_ID:
            data = decode_record(frame, body)
            if data is None or not state.apply_record(data, group):
                _logger.warning("control record of lsn %d cannot be read and is not used", group.lsn)
            return
        if frame.stream == ACCOUNTS_ID:
            data = decode_record(frame, body)
            if data is None or not state.apply_account(frame, data, group.arrival_ns):
                _logger.warning("account row of lsn %d cannot be read and is not used", group.lsn)
            return
        entry = state.by_id[frame.stream]
        rows = entry.layout.decode(frame, body)
        if rows is None:
            _logger.warning("%s frame of lsn %d cannot be read and is not used", entry.stream.name, group.lsn)
        elif frame.stream == LEDGER_ID:
            state.apply_ledger(rows, offset_of(group.lsn, number))
        elif frame.stream == CATALOGUE_ID:
            for problem in self.catalogue.apply(rows).problems:
                _logger.warning("catalogue frame of lsn %d: %s", group.lsn, problem)

    def publish(
        self, segment: Segment, groups: Sequence[tuple[int, GroupHeader, list[FrameHeader], BodyOf]]
    ) -> None:
        """Make groups of a segment readable: (byte, header, frames, bodies) each, in log order, durable."""
        with self.lock:
            index = segment.index
            if index is None:
                index = segment.index = FrameIndex()
            for at, header, frames, body in groups:
                index.add(at, header, frames)
                try:
                    self.apply(header, frames, body)
                except Exception:
                    # the group is durable whatever its contents do to the state in memory
                    _logger.exception("group of lsn %d cannot be applied", header.lsn)
                segment.end = at + header.length
                self.moved_end(segment, header.lsn, len(frames), header.incarnation)
            self.changed.notify_all()

    def moved_end(self, segment: Segment, lsn: int, frame_count: int, incarnation: int) -> None:
        """Note the newest durable group. Call with the lock held."""
        segment.last_lsn = max(segment.last_lsn, lsn)
        if frame_count:
            segment.last_offset = offset_of(lsn, frame_count - 1)
            if segment.last_offset > self.end_offset:
                self.end_offset = segment.last_offset
                self.end_incarnation = incarnation

    def add_segment(self, segment: Segment) -> None:
        """A new last segment."""
        with self.lock:
            self.segments = (*self.segments, segment)

    def seal(self, segment: Segment) -> None:
        """No more will be published to this segment: its index moves to the cache of sidecars."""
        with self.lock:
            if segment.index is not None:
                self._remember(segment.number, segment.index.entries().copy())
                segment.index = None

    def close(self) -> None:
        """Wake every waiting reader and close files that nobody uses."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
            for segment in list(self._open.values()):
                if not segment.users:
                    self._close_file(segment)

    # -- reading ---------------------------------------------------------------------------------------------

    def end(self) -> Position | None:
        """The newest durable frame's position."""
        with self.lock:
            return Position(self.end_incarnation, 0, self.end_offset) if self.end_offset >= 0 else None

    def wait_beyond(self, offset: int, deadline: float | None) -> bool:
        """Wait until something behind `offset` is durable; False when the deadline passes or the log closes."""
        with self.lock:
            while self.end_offset <= offset:
                if self.closed:
                    return False
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self.changed.wait(left)
            return True

    def entries(self, segment: Segment) -> Entries:
        """The index of a segment, from memory, its sidecar or, failing that, its headers."""
        with self.lock:
            if segment.index is not None:
                return segment.index.entries()
            known = self._sidecars.get(segment.number)
            if known is not None:
                self._sidecars.move_to_end(segment.number)
                return known
        loaded = self.load_entries(segment)
        with self.lock:
            if segment.index is None and segment.number not in self._sidecars:
                self._remember(segment.number, loaded)
        return loaded

    def load_entries(self, segment: Segment) -> Entries:
        """The index of a sealed segment from its sidecar, or made again from its headers."""
        path = sidecar_path(self.directory, segment.number)
        sidecar = Sidecar.read(self.fs, path, segment.number)
        if sidecar is not None and sidecar.end == segment.end:
            return sidecar.entries
        return self.rebuild_entries(segment)

    def rebuild_entries(self, segment: Segment) -> Entries:
        """The index of a segment, made from its headers."""
        index = FrameIndex()
        with self.opened(segment) as handle:
            incarnation = segment.incarnation or None
            start, lsn = SEGMENT_HEADER_BYTES, max(segment.first_lsn - 1, 0)
            for found in walk(
                self.fs, handle, start, segment.end, after_lsn=lsn, incarnation=incarnation, bodies=False
            ):
                if isinstance(found, StoredGroup):
                    index.add(found.at, found.header, found.frames)
                    lsn = found.header.lsn
                else:
                    self.report(segment, found, lsn + 1)
        return index.entries()

    def report(self, segment: Segment, damage: Damage, lsn: int) -> None:
        """Tell of damage found while reading, once for each place.

        Raises PositionGoneError when it is none: the segment was removed, and cut, under its reader.
        """
        self.check_there(segment)
        place = (segment.number, damage.at)
        with self.lock:
            if place in self._reported:
                return
            self._reported.add(place)
        _logger.warning(
            "segment %d, bytes %d to %d: %s; skipped", segment.number, damage.at, damage.end, damage.reason
        )
        with self.lock:
            on_damage = self._on_damage
            if on_damage is None and len(self._untold) < _UNTOLD_MAX:
                self._untold.append((segment, damage, lsn))
        if on_damage is not None:
            on_damage(segment, damage, lsn)

    def tell_damage(self, on_damage: Callable[[Segment, Damage, int], None]) -> None:
        """Have damage told from now on, and now what was met before, as an index was made anew at opening."""
        with self.lock:
            self._on_damage = on_damage
            untold, self._untold = self._untold, []
        for segment, damage, lsn in untold:
            on_damage(segment, damage, lsn)

    def check_there(self, segment: Segment) -> None:
        """Raise PositionGoneError when the segment was removed, and cut, under its reader."""
        if not segment.removed:
            try:
                self.fs.close(self.fs.open_existing(segment.path))
            except FileNotFoundError:
                pass
            except OSError:
                return
            else:
                return
        raise PositionGoneError(
            f"segment {segment.number} was removed by retention while it was read: "
            "read from the start of what is kept"
        )

    def _remember(self, number: int, entries: Entries) -> None:
        self._sidecars[number] = entries
        self._sidecar_bytes += entries.nbytes
        while self._sidecar_bytes > _INDEX_CACHE_BYTES and len(self._sidecars) > 1:
            _, dropped = self._sidecars.popitem(last=False)
            self._sidecar_bytes -= dropped.nbytes

    def forget_sidecars(self) -> None:
        """Load indexes again when they are needed. Call with the lock held."""
        self._sidecars.clear()
        self._sidecar_bytes = 0

    def _forget(self, number: int) -> None:
        dropped = self._sidecars.pop(number, None)
        if dropped is not None:
            self._sidecar_bytes -= dropped.nbytes

    @contextlib.contextmanager
    def opened(self, segment: Segment) -> Iterator[int]:
        """The segment's file, kept open at least as long as the block runs. Raises PositionGoneError."""
        handle = self.acquire(segment)
        try:
            yield handle
        finally:
            self.release(segment)

    def acquire(self, segment: Segment) -> int:
        """Open the segment's file for somebody who will `release` it. Raises PositionGoneError when it is gone."""
        with self.lock:
            if segment.handle is None:
                try:
                    segment.handle = self.fs.open_existing(segment.path)
                except FileNotFoundError:
                    raise PositionGoneError(
                        f"segment {segment.number} was removed by retention while it was to be read: "
                        "read from the start of what is kept"
                    ) from None
                self._open[segment.number] = segment
            segment.users += 1
            if not segment.removed:
                self._open.move_to_end(segment.number)
            return segment.handle

    def release(self, segment: Segment) -> None:
        """The file is not needed any more by whoever acquired it."""
        with self.lock:
            segment.users -= 1
            if not segment.users and (segment.removed or self.closed):
                self._close_file(segment)
            while len(self._open) > _OPEN_FILES_MAX:
                idle = next((one for one in self._open.values() if not one.users), None)
                if idle is None:
                    break
                self._close_file(idle)

    def _close_file(self, segment: Segment) -> None:
        self._open.pop(segment.number, None)
        if segment.handle is not None:
            self.fs.close(segment.handle)
            segment.handle = None

    def remove_segment(self, segment: Segment) -> None:
        """Take a segment out of the log; whoever reads it keeps its file until done."""
        with self.lock:
            self.segments = tuple(one for one in self.segments if one is not segment)
            segment.removed = True
            self._forget(segment.number)
            if not segment.users:
                self._close_file(segment)
            else:
                self._open.pop(segment.number, None)
