"""A real directory behind faults: for what a test wants to see with its own eyes, in files."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from ringmain.log.files import LocalFileSystem
from ringmain.testing.faults import Faults


class FaultyFiles(Faults, LocalFileSystem):
    """The local file system, with calls counted, held back, failed, or shortened. It forgets nothing."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._paths: dict[int, Path] = {}
        self.space_bytes: int | None = None
        """Bytes that may still be written until the disk is full; None: no limit."""

    def heal(self) -> None:
        super().heal()
        self.space_bytes = None

    def create(self, path: Path) -> int:
        self.enter("create", path)
        handle = super().create(path)
        self._paths[handle] = path
        return handle

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        self.enter("open", path)
        handle = super().open_existing(path, write=write)
        self._paths[handle] = path
        return handle

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self.enter("write", self._paths.get(handle))
        size = sum(map(len, buffers))
        allowed = self.shortened(size)
        if self.space_bytes is not None:
            if self.space_bytes <= 0:
                raise OSError(errno.ENOSPC, "injected by the test")
            allowed = min(allowed, self.space_bytes)
            self.space_bytes -= allowed
        if allowed < size:
            return super().pwritev(handle, [b"".join(buffers)[:allowed]], offset)
        return super().pwritev(handle, buffers, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        path = self._paths.get(handle)
        self.enter("read", path)
        self.check_readable(path, min(size, max(self.size(handle) - offset, 0)), offset)
        return self.misread(super().pread(handle, size, offset))

    def pread_into(self, handle: int, buffer: memoryview, offset: int) -> int:
        data = self.pread(handle, len(buffer), offset)
        buffer[: len(data)] = data
        return len(data)

    def fdatasync(self, handle: int) -> None:
        self.enter("sync", self._paths.get(handle))
        super().fdatasync(handle)

    def rename(self, old: Path, new: Path) -> None:
        self.enter("rename", new)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self.enter("remove", path)
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self.enter("sync_directory", path)
        super().sync_directory(path)

    def lock(self, path: Path) -> int:
        self.enter("lock", path)
        return super().lock(path)
