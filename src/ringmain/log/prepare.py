"""The next segment, written with zeros beforehand, so that a sync need not wait for the file system's journal.

A file that grows makes each fdatasync commit the journal of the file system, and with it whatever other programs
have written meanwhile. A file whose blocks hold zeros already does not. While a segment fills, its successor is
written with zeros under a temporary name, in steps with pauses as long as their syncs; when it is there in full the
writer takes it. A file is prepared only for a log that writes (see `JournalWriter`), never with the last of the
disk's space, and a preparation that fails only means that the next segment grows as it is written. What is left
behind by a crash has the name of a temporary file and is removed at the next opening.

A log that is written as fast as the disk takes it would write everything twice, and has its syncs so full of bytes
that a journal adds little: there (`AppendRate`) segments grow, until appends come slower again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ringmain.log.background import BackgroundTasks
from ringmain.log.files import FileSystem, write_all

_logger = logging.getLogger(__name__)
PREPARED_NAME = "prepared.tmp"
PREPARE_AFTER_BYTES = 1 << 20
"""Bytes in a segment that grows, from which on a prepared one is made and takes over; at once in a log that holds so much."""
_STEP_BYTES = 1 << 20
_SEGMENTS_FREE = 4
"""A file is prepared only where so many segments find room."""
_PAUSE_MAX_S = 1.0
_AGAIN_AFTER_S = 60.0
"""After a preparation that failed: where a quota is reached, each try takes for a moment what appends need."""


_FAST_BYTES_PER_S = 32 << 20
"""1.5 million readings a second; above, a segment is full within two seconds."""
_MEASURED_BYTES = 8 << 20


class AppendRate:
    """Whether appends come so fast that preparing segments costs more than it gains. Used by the commit thread."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._since_s = clock_s()
        self._bytes = 0
        self._was_fast = False

    def add(self, size: int) -> None:
        """So many bytes were appended."""
        self._bytes += size
        if self._bytes >= _MEASURED_BYTES:
            now_s = self._clock_s()
            self._was_fast = now_s - self._since_s < self._bytes / _FAST_BYTES_PER_S
            self._since_s, self._bytes = now_s, 0

    @property
    def is_fast(self) -> bool:
        """So the last 8 MiB came, and no longer ago than as many more take at this speed."""
        return self._was_fast and self._clock_s() - self._since_s < _MEASURED_BYTES / _FAST_BYTES_PER_S


class SegmentPreparer:
    """Makes one file ready at a time. `wish` and `take` are called by the commit thread, `close` by any one after it."""

    def __init__(
        self, fs: FileSystem, directory: Path, segment_bytes: int, background: Callable[[], BackgroundTasks]
    ) -> None:
        self._fs = fs
        self._path = directory / PREPARED_NAME
        self._segment_bytes = segment_bytes
        self._make_background = background
        self._background: BackgroundTasks | None = None
        self._lock = threading.Lock()
        self._handle = -1
        self._under_way = False
        self._not_before_s = 0.0
        self._stop = threading.Event()

    @property
    def path(self) -> Path:
        """The name that a prepared file has until it is taken and renamed."""
        return self._path

    @property
    def background(self) -> BackgroundTasks | None:
        """Where the files are written; None before the first wish."""
        return self._background

    @property
    def is_ready(self) -> bool:
        """Whether `take` would give a file."""
        return self._handle >= 0

    def wish(self) -> None:
        """Prepare a file, unless one is ready or under way. Returns at once."""
        with self._lock:
            if self._under_way or self._handle >= 0 or self._stop.is_set():
                return
            if time.monotonic() < self._not_before_s:
                return
            self._under_way = True
        self._tasks().put("prepared segment", self._prepare)

    def take(self) -> int | None:
        """The handle of a file of zeros as long as a segment, with all of it on the disk; None: there is none.

        It is the caller's from now on, under the name `path`.
        """
        with self._lock:
            handle, self._handle = self._handle, -1
        return handle if handle >= 0 else None

    def give_back(self, path: Path, end: int) -> None:
        """Behind `end` this file has zeros for good: they need take no space. Returns at once."""
        self._tasks().put(f"zeros of {path.name}", lambda: self._free_tail(path, end))

    def close(self) -> None:
        """Stop, and remove what nobody took."""
        self._stop.set()
        if self._background is not None:
            self._background.close()
        handle = self.take()
        if handle is not None:
            self._drop(handle)

    def _tasks(self) -> BackgroundTasks:
        if self._background is None:
            self._background = self._make_background()
        return self._background

    def _free_tail(self, path: Path, end: int) -> None:
        try:
            handle = self._fs.open_existing(path, write=True)
        except FileNotFoundError:
            return  # retention was faster
        try:
            self._fs.free_tail(handle, end)
        finally:
            self._fs.close(handle)

    def _prepare(self) -> None:
        handle = -1
        try:
            if self._fs.free_bytes(self._path.parent) < _SEGMENTS_FREE * self._segment_bytes:
                self._not_before_s = time.monotonic() + _AGAIN_AFTER_S
                return
            handle = self._fs.create(self._path)
            if self._write_zeros(handle):
                with self._lock:
                    self._handle, handle = handle, -1
        except OSError as error:
            # where space is short the next segment takes what it needs as it goes
            _logger.info("the next segment is not prepared: %s", error)
            self._not_before_s = time.monotonic() + _AGAIN_AFTER_S
        finally:
            if handle >= 0:
                self._drop(handle)
            with self._lock:
                self._under_way = False

    def _write_zeros(self, handle: int) -> bool:
        zeros = bytes(min(_STEP_BYTES, self._segment_bytes))
        at = 0
        while at < self._segment_bytes:
            if self._stop.is_set():
                return False
            at = write_all(self._fs, handle, [zeros[: self._segment_bytes - at]], at)
            started = time.monotonic()
            self._fs.fdatasync(handle)
            if at < self._segment_bytes:
                self._stop.wait(min(time.monotonic() - started, _PAUSE_MAX_S))
        return True

    def _drop(self, handle: int) -> None:
        with contextlib.suppress(OSError):
            self._fs.close(handle)
        with contextlib.suppress(OSError):
            self._fs.remove(self._path)
