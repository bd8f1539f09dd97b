"""A file system in memory, for tests that open thousands of logs. It never fails and forgets nothing."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path


class MemoryFiles:
    """Implements `ringmain.log.files.FileSystem` over a dictionary of byte arrays."""

    def __init__(self, files: dict[Path, bytes] | None = None) -> None:
        self.files: dict[Path, bytearray] = {path: bytearray(data) for path, data in (files or {}).items()}
        self._handles: dict[int, bytearray] = {}
        self._numbers = itertools.count(1_000)
        self._lock = threading.Lock()
        self._locked: dict[int, Path] = {}

    def snapshot(self) -> dict[Path, bytes]:
        """Every file as it is now."""
        with self._lock:
            return {path: bytes(data) for path, data in self.files.items()}

    def make_directory(self, path: Path) -> None:
        del path

    def list_directory(self, path: Path) -> list[str]:
        with self._lock:
            return [one.name for one in self.files if one.parent == path]

    def _open(self, data: bytearray) -> int:
        handle = next(self._numbers)
        self._handles[handle] = data
        return handle

    def create(self, path: Path) -> int:
        with self._lock:
            data = self.files[path] = bytearray()
            return self._open(data)

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        del write
        with self._lock:
            if path not in self.files:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            return self._open(self.files[path])

    def close(self, handle: int) -> None:
        with self._lock:
            self._handles.pop(handle, None)
            self._locked.pop(handle, None)

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        data = b"".join(buffers)
        with self._lock:
            held = self._handles[handle]
            if len(held) < offset:
                held.extend(bytes(offset - len(held)))
            held[offset : offset + len(data)] = data
        return len(data)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        with self._lock:
            return bytes(self._handles[handle][offset : offset + size])

    def size(self, handle: int) -> int:
        return len(self._handles[handle])

    def fdatasync(self, handle: int) -> None:
        del handle

    def rename(self, old: Path, new: Path) -> None:
        with self._lock:
            self.files[new] = self.files.pop(old)

    def remove(self, path: Path) -> None:
        with self._lock:
            if self.files.pop(path, None) is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))

    def sync_directory(self, path: Path) -> None:
        del path

    def drop_cache(self, handle: int, offset: int, size: int) -> None:
        del handle, offset, size

    def lock(self, path: Path) -> int:
        with self._lock:
            if path in self._locked.values():
                raise BlockingIOError(errno.EAGAIN, "locked")
            handle = self._open(self.files.setdefault(path, bytearray()))
            self._locked[handle] = path
            return handle

    def kind(self, path: Path) -> str:
        del path
        return "memory"
