"""A disk in memory that crashes as disks do, behind the log's file-system seam.

What was synced survives a power cut. What was not may be there, be missing, be torn at 512 bytes, or be there in
another order than it was written: bytes of files, and the creations, renames and removals of a directory that was not
synced. Which of it happens is drawn from the seed, anew at each cut. A kill of the process alone loses nothing that
was written, and makes nothing durable either. Faults of single calls are those of `Faults`.

Paths are names only; directories exist as soon as something is in them. Thread-safe as the calls of a kernel are.
"""

from __future__ import annotations

import errno
import itertools
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ringmain.testing.contents import PAGE_BYTES, SECTOR_BYTES, FileContents
from ringmain.testing.faults import Faults

__all__ = ["PAGE_BYTES", "SECTOR_BYTES", "SimulatedDisk"]


class _NameChange(NamedTuple):
    """A change of a directory that may not be on the medium yet. `gone` loses the file, `come` gets it."""

    gone: Path | None
    come: Path | None
    file: FileContents


class SimulatedDisk(Faults):
    """Implements `ringmain.log.files.FileSystem`. `files`: what lies there, synced, from the start."""

    def __init__(
        self, files: Mapping[Path, bytes] | None = None, *, seed: int = 0, capacity_bytes: int | None = None
    ) -> None:
        super().__init__(seed)
        self.capacity_bytes = capacity_bytes
        """Bytes that all files together may have; None: no limit."""
        self.off = False
        """The machine is off: every call fails, except `close`."""
        self._names = {path: FileContents(data, synced=True) for path, data in (files or {}).items()}
        self._synced_names = dict(self._names)
        self._changes: list[_NameChange] = []
        self._handles: dict[int, tuple[Path, FileContents]] = {}
        self._numbers = itertools.count(1_000)
        self._lock = threading.RLock()
        self._locked: dict[int, Path] = {}

    # -- what a test does with it ----------------------------------------------------------------------------

    def contents(self) -> dict[Path, bytes]:
        """Every file as processes see it now."""
        with self._lock:
            return {path: bytes(file.data) for path, file in self._names.items()}

    def used_bytes(self) -> int:
        """Bytes of all files."""
        with self._lock:
            return sum(len(file.data) for file in self._names.values())

    def flip(self, path: Path, at: int, mask: int = 1) -> None:
        """Damage one byte on the medium, for good. Raises FileNotFoundError, IndexError."""
        with self._lock:
            self._file(path).data[at] ^= mask

    def copy(self) -> SimulatedDisk:
        """The disk as another process would find it if this one were killed now: nothing open, nothing locked.

        What was not synced is still not. The copy draws from a generator of its own.
        """
        with self._lock:
            other = SimulatedDisk(seed=self.rng.getrandbits(64), capacity_bytes=self.capacity_bytes)
            copies = {id(file): file.copy() for file in self._all_files()}
            other._names = {path: copies[id(file)] for path, file in self._names.items()}
            other._synced_names = {path: copies[id(file)] for path, file in self._synced_names.items()}
            other._changes = [change._replace(file=copies[id(change.file)]) for change in self._changes]
            return other

    def kill(self) -> SimulatedDisk:
        """End the process that uses this disk; returns the disk as the next one finds it.

        The page cache stays, except that pages whose sync failed may be read from the medium again.
        """
        self.off = True
        after = self.copy()
        for file in after._all_files():
            if after.rng.random() < 0.5:
                file.evict()
        return after

    def cut_power(self) -> SimulatedDisk:
        """Cut the power; returns the disk as it is found afterwards: what is there is on the medium."""
        self.off = True
        return self.after_power_cut()

    def after_power_cut(self, rng: random.Random | None = None) -> SimulatedDisk:
        """As `cut_power`, without turning this one off: one of the many disks that may be found afterwards."""
        with self._lock:
            chance = rng or self.rng
            names = self._names_after_power_cut(chance)
            held = {path: file.after_power_cut(chance) for path, file in names.items()}
            return SimulatedDisk(held, seed=chance.getrandbits(64), capacity_bytes=self.capacity_bytes)

    def _names_after_power_cut(self, rng: random.Random) -> dict[Path, FileContents]:
        names = dict(self._synced_names)
        how = rng.random()
        if how < 0.4:  # a journalled file system: in order, up to some point
            kept = self._changes[: rng.randrange(len(self._changes) + 1)]
        else:
            kept = [change for change in self._changes if rng.random() < 0.5]
        for change in kept:
            _apply(names, change)
        return names

    def _all_files(self) -> list[FileContents]:
        found = {id(file): file for names in (self._names, self._synced_names) for file in names.values()}
        found.update((id(change.file), change.file) for change in self._changes)
        return list(found.values())

    def heal(self) -> None:
        """No more faults, and room again."""
        super().heal()
        self.capacity_bytes = None

    # -- FileSystem ------------------------------------------------------------------------------------------

    def enter(self, name: str, path: Path | None) -> None:
        """A call comes in. Raises OSError when it is to fail, or the machine is off."""
        self._check_on()
        super().enter(name, path)
        self._check_on()

    def _check_on(self) -> None:
        if self.off:
            raise OSError(errno.EIO, "the machine is off")

    def make_directory(self, path: Path) -> None:
        """Directories need not be made: see the module."""
        del path

    def list_directory(self, path: Path) -> list[str]:
        """See `FileSystem.list_directory`."""
        self._check_on()
        with self._lock:
            return [one.name for one in self._names if one.parent == path]

    def _file(self, path: Path) -> FileContents:
        file = self._names.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    def _open(self, path: Path, file: FileContents) -> int:
        handle = next(self._numbers)
        self._handles[handle] = (path, file)
        return handle

    def _held(self, handle: int) -> tuple[Path, FileContents]:
        held = self._handles.get(handle)
        if held is None:
            raise OSError(errno.EBADF, f"handle {handle} is not open")
        return held

    def _new_file(self, path: Path) -> FileContents:
        file = self._names[path] = FileContents()
        self._changes.append(_NameChange(None, path, file))
        return file

    def create(self, path: Path) -> int:
        """See `FileSystem.create`: an existing file is cut, with its name and its place."""
        self.enter("create", path)
        with self._lock:
            file = self._names.get(path)
            if file is None:
                file = self._new_file(path)
            else:
                file.cut()
            return self._open(path, file)

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        """See `FileSystem.open_existing`."""
        del write
        self.enter("open", path)
        with self._lock:
            return self._open(path, self._file(path))

    def close(self, handle: int) -> None:
        """See `FileSystem.close`."""
        with self._lock:
            self._handles.pop(handle, None)
            self._locked.pop(handle, None)

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        """See `FileSystem.pwritev`. A write that fails may have written some sectors of its beginning."""
        path, file = self._held(handle)
        data = b"".join(buffers)
        try:
            self.enter("write", path)
        except OSError:
            if not self.off:
                with self._lock:
                    sectors = self.rng.choice([0, len(data) // 2]) // SECTOR_BYTES
                    self._write(file, data[: sectors * SECTOR_BYTES], offset)
            raise
        with self._lock:
            room = self.shortened(len(data))
            if self.capacity_bytes is not None:
                grows = max(offset + len(data) - len(file.data), 0)
                room = min(room, len(data) - grows + max(self.capacity_bytes - self.used_bytes(), 0))
                if room <= 0 < len(data):
                    raise OSError(errno.ENOSPC, "the simulated disk is full", str(path))
            self._write(file, data[:room], offset)
            return min(room, len(data))

    def _write(self, file: FileContents, data: bytes, offset: int) -> None:
        if data:
            file.write(data, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """See `FileSystem.pread`."""
        path, file = self._held(handle)
        self.enter("read", path)
        with self._lock:
            data = bytes(file.data[offset : offset + size])
        self.check_readable(path, len(data), offset)
        return self.misread(data)

    def pread_into(self, handle: int, buffer: memoryview, offset: int) -> int:
        """See `FileSystem.pread_into`."""
        data = self.pread(handle, len(buffer), offset)
        buffer[: len(data)] = data
        return len(data)

    def size(self, handle: int) -> int:
        """See `FileSystem.size`."""
        return len(self._held(handle)[1].data)

    def fdatasync(self, handle: int) -> None:
        """See `FileSystem.fdatasync`. After one that failed, another succeeds without writing what was lost."""
        path, file = self._held(handle)
        try:
            self.enter("sync", path)
        except OSError:
            if not self.off:
                with self._lock:
                    file.sync_failed(self.rng)
            raise
        with self._lock:
            file.synced()

    def rename(self, old: Path, new: Path) -> None:
        """See `FileSystem.rename`."""
        self.enter("rename", new)
        with self._lock:
            change = _NameChange(old, new, self._file(old))
            _apply(self._names, change)
            self._changes.append(change)

    def remove(self, path: Path) -> None:
        """See `FileSystem.remove`. Whoever has the file open keeps it."""
        self.enter("remove", path)
        with self._lock:
            change = _NameChange(path, None, self._file(path))
            _apply(self._names, change)
            self._changes.append(change)

    def sync_directory(self, path: Path) -> None:
        """See `FileSystem.sync_directory`: the names in it are on the medium, the bytes of its files are not."""
        self.enter("sync_directory", path)
        with self._lock:
            waiting = []
            for change in self._changes:
                touched = {one.parent for one in (change.gone, change.come) if one is not None}
                if path in touched:
                    _apply(self._synced_names, change)
                else:
                    waiting.append(change)
            self._changes = waiting

    def free(self, handle: int) -> None:
        """See `FileSystem.free`."""
        with self._lock:
            held = self._handles.get(handle)
            if held is not None and not self.off:
                held[1].cut()

    def free_tail(self, handle: int, offset: int) -> None:
        """See `FileSystem.free_tail`. Raises AssertionError where anything but zeros would go."""
        with self._lock:
            held = self._handles.get(handle)
            if held is not None and not self.off:
                assert not any(held[1].data[offset:]), (
                    f"{held[0].name}: what lies behind byte {offset} is in use"
                )

    def free_bytes(self, path: Path) -> int:
        """See `FileSystem.free_bytes`."""
        del path
        self._check_on()
        with self._lock:
            return 1 << 62 if self.capacity_bytes is None else max(self.capacity_bytes - self.used_bytes(), 0)

    def drop_cache(self, handle: int, offset: int, size: int) -> None:
        """See `FileSystem.drop_cache`."""
        del offset, size
        with self._lock:
            held = self._handles.get(handle)
            if held is not None:
                held[1].evict()

    def lock(self, path: Path) -> int:
        """See `FileSystem.lock`."""
        self.enter("lock", path)
        with self._lock:
            if path in self._locked.values():
                raise BlockingIOError(errno.EAGAIN, "somebody holds the lock", str(path))
            handle = self._open(path, self._names.get(path) or self._new_file(path))
            self._locked[handle] = path
            return handle

    def kind(self, path: Path) -> str:
        """See `FileSystem.kind`."""
        del path
        return "simulated"


def _apply(names: dict[Path, FileContents], change: _NameChange) -> None:
    if change.gone is not None:
        if names.get(change.gone) is change.file:
            del names[change.gone]
        elif change.come is None:
            return
    if change.come is not None:
        names[change.come] = change.file
