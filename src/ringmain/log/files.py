"""The file-system seam: every access of the log to a disk goes through `FileSystem`.

The log uses a file system in few ways: it appends to files with `pwritev`, makes them durable with `fdatasync`,
publishes small files by renaming, and reads with `pread`. Keeping that behind one small protocol lets a test
count, delay, fail, shorten or forget any of it. Handles are plain file descriptors where the disk is local.

Errors are `OSError` with the errno of the system call; nothing here retries except a short read at the end of
a file, which is what `pread` is for.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from ringmain.log.buffers import BUFFERS

IOV_MAX = 1024
"""Buffers that one `pwritev` takes (Linux UIO_MAXIOV)."""
_BLOCK_BYTES = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""Flags of fallocate(2)."""

_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "ncpfs",
        "ocfs2",
        "gfs2",
        "beegfs",
    }
)
_NETWORK_FUSE = (
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.ceph",
    "fuse.davfs",
    "fuse.curlftpfs",
)


class FileSystem(Protocol):
    """What the log needs of a disk. Paths are absolute or relative to the process, handles are opaque."""

    def make_directory(self, path: Path) -> None:
        """Create the directory with its parents if it does not exist yet; their names are then on stable storage."""
        ...

    def list_directory(self, path: Path) -> list[str]:
        """Names in a directory, in no order; empty when the directory does not exist."""
        ...

    def create(self, path: Path) -> int:
        """Open for reading and writing, created if needed, cut to nothing if it existed."""
        ...

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        """Open an existing file. Raises FileNotFoundError."""
        ...

    def close(self, handle: int) -> None:
        """Close the handle."""
        ...

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        """Write buffers (at most `IOV_MAX`) at offset; returns the bytes written, which may be fewer."""
        ...

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes at offset; fewer only at the end of the file."""
        ...

    def pread_into(self, handle: int, buffer: memoryview, offset: int) -> int:
        """Fill the buffer with the bytes at offset; how many these were: fewer only at the end of the file."""
        ...

    def size(self, handle: int) -> int:
        """Bytes in the file."""
        ...

    def fdatasync(self, handle: int) -> None:
        """Return once the file's data and size are on stable storage."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Rename within a directory, replacing `new`."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return once the directory's entries are on stable storage."""
        ...

    def drop_cache(self, handle: int, offset: int, size: int) -> None:
        """Hint that this range is not needed in memory any more. Never fails."""
        ...

    def free(self, handle: int) -> None:
        """Cut a file that was removed to nothing, so that whoever has it open holds none of its space. Never fails."""
        ...

    def free_tail(self, handle: int, offset: int) -> None:
        """Hint that all from offset on are zeros and need take no space; the file stays as long. Never fails."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Bytes that may still be written to the file system of this directory. Raises OSError."""
        ...

    def lock(self, path: Path) -> int:
        """Lock the file exclusively without waiting. Raises BlockingIOError when somebody holds it."""
        ...

    def kind(self, path: Path) -> str:
        """The file system's type name as the mount table has it, e.g. `ext4`; empty if unknown."""
        ...


class LocalFileSystem:
    """A local disk of this machine."""

    def make_directory(self, path: Path) -> None:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for one in missing:
            self.sync_directory(one.parent)

    def list_directory(self, path: Path) -> list[str]:
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)

    def close(self, handle: int) -> None:
        os.close(handle)

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        return os.pwritev(handle, buffers, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        data = os.pread(handle, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(handle, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pread_into(self, handle: int, buffer: memoryview, offset: int) -> int:
        got = os.preadv(handle, [buffer], offset)
        while 0 < got < len(buffer):
            more = os.preadv(handle, [buffer[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def fdatasync(self, handle: int) -> None:
        os.fdatasync(handle)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def drop_cache(self, handle: int, offset: int, size: int) -> None:
        with contextlib.suppress(OSError):
            os.posix_fadvise(handle, offset, size, os.POSIX_FADV_DONTNEED)

    def free(self, handle: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)

    def free_tail(self, handle: int, offset: int) -> None:
        with contextlib.suppress(OSError):
            punch_hole(handle, offset, os.fstat(handle).st_size)

    def free_bytes(self, path: Path) -> int:
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def lock(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def kind(self, path: Path) -> str:
        wanted = os.path.realpath(path)
        best, best_kind = "", ""
        try:
            with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
                for line in mounts:
                    fields = line.split(" ")
                    point = fields[1].encode().decode("unicode_escape", errors="replace")
                    inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
                    if inside and len(point) >= len(best):
                        best, best_kind = point, fields[2]
        except (OSError, IndexError):
            return ""
        return best_kind


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """`fallocate` of the C library, which the standard library has not; None where there is none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return cast(Callable[[int, int, int, int], int], function)


def punch_hole(handle: int, start: int, end: int) -> None:
    """Make whole blocks between two bytes a hole: zeros that take no space. The file stays as long.

    Does nothing where the file system has no holes.
    """
    start = -(-start // _BLOCK_BYTES) * _BLOCK_BYTES
    function = _fallocate()
    if function is not None and start < end:
        function(handle, _KEEP_SIZE | _PUNCH_HOLE, start, end - start)


def is_network(kind: str) -> bool:
    """Whether locks and syncs of a file system of this type cannot be relied on."""
    return kind in _NETWORK_FILE_SYSTEMS or kind.startswith(_NETWORK_FUSE)


def write_all(
    fs: FileSystem, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int
) -> int:
    """Write every byte of the buffers at offset, in as many calls as it takes; returns the offset behind them.

    Raises OSError of the first failing call; a call that writes nothing counts as a full disk.
    """
    start = 0
    while start < len(buffers):
        chunk = buffers[start : start + IOV_MAX]
        start += IOV_MAX
        size = sum(map(len, chunk))
        written = fs.pwritev(handle, chunk, offset)
        offset += written
        if written == size:
            continue
        rest = b"".join(chunk)[written:]
        while rest:
            written = fs.pwritev(handle, [rest], offset)
            if written == 0:
                raise OSError(28, "the file system accepted no more bytes")
            offset += written
            rest = rest[written:]
    return offset


def publish_file(fs: FileSystem, path: Path, parts: Sequence[bytes], *, synced: bool = True) -> None:
    """Write a whole small file so that either the old or the new one is there after any crash.

    Temporary file, fdatasync, rename, sync of the directory. Raises OSError; the temporary file is then removed.
    Not `synced`: after a power cut it may hold anything, so its reader must check a CRC.
    """
    temporary = path.with_name(path.name + ".tmp")
    handle = fs.create(temporary)
    try:
        try:
            write_all(fs, handle, parts, 0)
            if synced:
                fs.fdatasync(handle)
        finally:
            fs.close(handle)
        fs.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            fs.remove(temporary)
        raise
    if synced:
        fs.sync_directory(path.parent)


def read_window(fs: FileSystem, handle: int, size: int, offset: int) -> memoryview:
    """As `read_around`, read-only, in memory that is used again when nobody refers to it (`buffers.py`)."""
    buffer = BUFFERS.take(size)
    if buffer is None:
        return memoryview(read_around(fs, handle, size, offset))
    return buffer[: read_around_into(fs, handle, buffer, offset)].toreadonly()


def read_around_into(fs: FileSystem, handle: int, buffer: memoryview, offset: int) -> int:
    """As `read_around`, into a buffer; how many bytes of it there are."""
    try:
        return fs.pread_into(handle, buffer, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    data = read_around(fs, handle, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def read_around(fs: FileSystem, handle: int, size: int, offset: int) -> bytes:
    """As `pread`, with zeros for blocks that the disk cannot read any more: what lay there fails its CRC.

    Raises OSError when nothing of a file of several blocks can be read: that is no damage, the disk is gone.
    """
    try:
        return fs.pread(handle, size, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        failure = error
    file_bytes = fs.size(handle)
    end = min(offset + size, file_bytes)
    data = bytearray(max(end - offset, 0))
    found = False
    for start in range(offset // _BLOCK_BYTES * _BLOCK_BYTES, end, _BLOCK_BYTES):
        at, stop = max(start, offset), min(start + _BLOCK_BYTES, end)
        piece = _block(fs, handle, stop - at, at)
        if piece is not None:
            data[at - offset : at - offset + len(piece)] = piece
            found = True
    elsewhere = range(0, file_bytes, max(file_bytes // 8, _BLOCK_BYTES))
    if not found and len(elsewhere) > 1 and all(_block(fs, handle, 1, at) is None for at in elsewhere):
        raise failure
    return bytes(data)


def _block(fs: FileSystem, handle: int, size: int, offset: int) -> bytes | None:
    try:
        return fs.pread(handle, size, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def read_file(fs: FileSystem, path: Path, limit_bytes: int = 1 << 32) -> bytes:
    """The whole file. Raises FileNotFoundError, OSError; ValueError when it is larger than the limit."""
    handle = fs.open_existing(path)
    try:
        size = fs.size(handle)
        if size > limit_bytes:
            raise ValueError(f"{path.name}: expected at most {limit_bytes} bytes, found {size}")
        return fs.pread(handle, size, 0)
    finally:
        fs.close(handle)
