"""A disk in memory that crashes: what was not synced may be there, torn at 512 bytes, reordered, or not at all."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path

from tests.log.memory_files import MemoryFiles

SECTOR_BYTES = 512


class _File(bytearray):
    """A file's contents as processes see them; `synced` is what is certain to survive."""

    synced: bytes = b""


class CrashingFiles(MemoryFiles):
    """As `MemoryFiles`; after `crash_after` changing calls every call fails and `image` gives what the disk kept."""

    def __init__(self, files: dict[Path, bytes] | None = None, crash_after: int | None = None) -> None:
        super().__init__()
        for path, data in (files or {}).items():
            file = _File(data)
            file.synced = data
            self.files[path] = file
        self._synced_names: dict[Path, bytearray] = dict(self.files)
        self.calls_left = crash_after
        self.crashed = False

    def _change(self) -> None:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                self.crashed = True
            self.calls_left -= 1
        if self.crashed:
            raise OSError(errno.EIO, "the machine is off")

    def create(self, path: Path) -> int:
        self._change()
        with self._lock:
            file = self.files[path] = _File()
            return self._open(file)

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._change()
        return super().pwritev(handle, buffers, offset)

    def fdatasync(self, handle: int) -> None:
        self._change()
        with self._lock:
            file = self._handles[handle]
            assert isinstance(file, _File)
            file.synced = bytes(file)

    def rename(self, old: Path, new: Path) -> None:
        self._change()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._change()
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._change()
        with self._lock:
            self._synced_names = dict(self.files)

    def image(self, rng: random.Random) -> dict[Path, bytes]:
        """The files after the crash, as the disk may have kept them."""
        names = dict(self._synced_names)
        for path, file in self.files.items():
            if names.get(path) is not file and rng.random() < 0.5:
                names[path] = file
        for path in list(names):
            if path not in self.files and rng.random() < 0.5:
                del names[path]
        return {path: self._kept(file, rng) for path, file in names.items() if path.name != "lock"}

    def _kept(self, file: bytearray, rng: random.Random) -> bytes:
        synced = file.synced if isinstance(file, _File) else bytes(file)
        new = bytes(file)
        how = rng.random()
        if how < 0.25:
            return synced
        if how < 0.4:
            return new
        size = rng.choice(
            [len(synced), len(new), rng.randint(min(len(synced), len(new)), max(len(synced), len(new)))]
        )
        kept = bytearray(synced[:size].ljust(size, b"\0"))
        for at in range(0, size, SECTOR_BYTES):
            if rng.random() < 0.6:
                piece = new[at : min(at + SECTOR_BYTES, size)]
                kept[at : at + len(piece)] = piece
        return bytes(kept)
