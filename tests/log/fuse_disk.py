"""A real mount whose disk fails: a directory passed through FUSE, in which chosen calls answer EIO or ENOSPC.

A log on it goes through the kernel as on any disk: nothing of the seam is replaced. The server speaks the kernel's
protocol (include/uapi/linux/fuse.h, version 7.31) over /dev/fuse and is a process of its own, since a process must
not wait for itself in a page fault. It takes one command a line on its standard input and answers `ok`:

    fail CALL ERRNO NTH SUFFIX    the NTH call from now on (0: the next, -1: every one) on files with that suffix
    heal                          no more failures

CALL is write, fsync, fsyncdir, create, rename or unlink; SUFFIX `*` means any file.

    python -m tests.log.fuse_disk MOUNTPOINT BACKING
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_MAX_WRITE_BYTES = 128 << 10
_ROOT = 1
_DIRECT_IO = 1
_SIZE_IS_SET = 1 << 3


class _Op(IntEnum):
    """Operations of the kernel that are answered; others get ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    RENAME2 = 45


_SILENT = {_Op.FORGET, _Op.BATCH_FORGET, _Op.INTERRUPT}


class _Server:
    """Answers one mount."""

    def __init__(self, device: int, backing: Path) -> None:
        self._device = device
        self._paths: dict[int, Path] = {_ROOT: backing}
        self._nodes: dict[Path, int] = {backing: _ROOT}
        self._plans: list[tuple[str, int, int, str]] = []
        self._lock = threading.Lock()

    def plan(self, call: str, error: int, nth: int, suffix: str) -> None:
        with self._lock:
            self._plans.append((call, error, nth, suffix))

    def heal(self) -> None:
        with self._lock:
            self._plans.clear()

    def _may_fail(self, call: str, name: str) -> None:
        with self._lock:
            failing = 0
            for number, (planned, error, nth, suffix) in enumerate(self._plans):
                if planned == call and (suffix == "*" or name.endswith(suffix)):
                    if nth == 0 or nth == -1:
                        failing = error
                    self._plans[number] = (
                        planned,
                        error,
                        nth if nth == -1 else nth - 1 if nth else -2,
                        suffix,
                    )
        if failing:
            raise OSError(failing, "injected by the test", name)

    def run(self) -> None:
        """Until the file system is unmounted."""
        while True:
            try:
                raw = os.read(self._device, _MAX_WRITE_BYTES + 8192)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF):
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            _, number, unique, node, *_ = _IN.unpack_from(raw)
            if number in _SILENT:
                continue
            try:
                answer, failed = self._answer(number, node, raw[_IN.size :]), 0
            except OSError as error:
                answer, failed = b"", error.errno or errno.EIO
            with contextlib.suppress(OSError):
                os.write(self._device, _OUT.pack(_OUT.size + len(answer), -failed, unique) + answer)

    def _answer(self, number: int, node: int, body: bytes) -> bytes:
        name = f"_{_Op(number).name.lower()}" if number in _Op._value2member_map_ else ""
        method: Callable[[int, bytes], bytes] | None = getattr(self, name, None)
        if method is None:
            raise OSError(errno.ENOSYS, "not implemented")
        return method(node, body)

    def _child(self, node: int, name: bytes) -> Path:
        return self._paths[node] / os.fsdecode(name.split(b"\0")[0])

    def _node(self, path: Path) -> int:
        number = self._nodes.get(path)
        if number is None:
            number = self._nodes[path] = max(self._paths) + 1
            self._paths[number] = path
        return number

    def _attributes(self, path: Path) -> bytes:
        one = os.lstat(path)
        times = (int(one.st_atime), int(one.st_mtime), int(one.st_ctime))
        return _ATTR.pack(
            self._node(path), one.st_size, one.st_blocks, *times, 0, 0, 0,
            one.st_mode, one.st_nlink, one.st_uid, one.st_gid, 0, 4096, 0,
        )  # fmt: skip

    def _entry(self, path: Path) -> bytes:
        attributes = self._attributes(path)
        return struct.pack("<QQQQII", self._node(path), 0, 0, 0, 0, 0) + attributes

    # -- operations ------------------------------------------------------------------------------------------

    def _init(self, node: int, body: bytes) -> bytes:
        del node
        readahead = struct.unpack_from("<I", body, 8)[0]
        return struct.pack(
            "<IIIIHHIIHHI7I", 7, 31, readahead, 0, 12, 10, _MAX_WRITE_BYTES, 1, 0, 0, 0, *[0] * 7
        )

    def _destroy(self, node: int, body: bytes) -> bytes:
        del node, body
        return b""

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._child(node, body))

    def _getattr(self, node: int, body: bytes) -> bytes:
        del body
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._paths[node])

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & _SIZE_IS_SET:
            os.truncate(self._paths[node], size)
        return self._getattr(node, body)

    def _mkdir(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body[8:])
        path.mkdir()
        return self._entry(path)

    def _create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        path = self._child(node, body[16:])
        self._may_fail("create", path.name)
        handle = os.open(path, (flags & ~os.O_EXCL) | os.O_CREAT, mode)
        return self._entry(path) + struct.pack("<QII", handle, _DIRECT_IO, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        handle = os.open(self._paths[node], flags & (os.O_ACCMODE | os.O_TRUNC))
        return struct.pack("<QII", handle, _DIRECT_IO, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        del node
        handle, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(handle, size, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        self._may_fail("write", self._paths[node].name)
        return struct.pack("<II", os.pwrite(handle, body[40 : 40 + size], offset), 0)

    def _release(self, node: int, body: bytes) -> bytes:
        del node
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _flush(self, node: int, body: bytes) -> bytes:
        del node, body
        return b""

    def _fsync(self, node: int, body: bytes) -> bytes:
        self._may_fail("fsync", self._paths[node].name)
        os.fdatasync(struct.unpack_from("<Q", body)[0])
        return b""

    def _fsyncdir(self, node: int, body: bytes) -> bytes:
        del body
        self._may_fail("fsyncdir", self._paths[node].name)
        return b""

    def _opendir(self, node: int, body: bytes) -> bytes:
        del node, body
        return bytes(16)

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        answer = b""
        for place, one in enumerate(sorted(os.scandir(self._paths[node]), key=lambda found: found.name), 1):
            if place <= offset:
                continue
            name = os.fsencode(one.name)
            kind = stat.S_IFMT(one.stat(follow_symlinks=False).st_mode) >> 12
            record = struct.pack("<QQII", one.inode(), place, len(name), kind) + name
            record += bytes(-len(record) % 8)
            if len(answer) + len(record) > size:
                break
            answer += record
        return answer

    def _releasedir(self, node: int, body: bytes) -> bytes:
        del node, body
        return b""

    def _unlink(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body)
        self._may_fail("unlink", path.name)
        path.unlink()
        self._nodes.pop(path, None)
        return b""

    def _rmdir(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body)
        path.rmdir()
        self._nodes.pop(path, None)
        return b""

    def _rename(self, node: int, body: bytes) -> bytes:
        return self._renamed(node, struct.unpack_from("<Q", body)[0], body[8:])

    def _rename2(self, node: int, body: bytes) -> bytes:
        return self._renamed(node, struct.unpack_from("<Q", body)[0], body[16:])

    def _renamed(self, node: int, new_node: int, names: bytes) -> bytes:
        old_name, new_name = names.split(b"\0")[:2]
        old, new = self._child(node, old_name), self._child(new_node, new_name)
        self._may_fail("rename", new.name)
        os.replace(old, new)
        number = self._nodes.pop(old, None)
        self._nodes.pop(new, None)
        if number is not None:
            self._nodes[new] = number
            self._paths[number] = new
        return b""

    def _statfs(self, node: int, body: bytes) -> bytes:
        del body
        held = os.statvfs(self._paths[node])
        counts = (held.f_blocks, held.f_bfree, held.f_bavail, held.f_files, held.f_ffree)
        return struct.pack("<5Q4I24x", *counts, held.f_bsize, held.f_namemax, held.f_frsize, 0)


def _main(mountpoint: str, backing: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"ringmain-test", os.fsencode(mountpoint), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), mountpoint)
    server = _Server(device, Path(backing))
    threading.Thread(target=server.run, daemon=True).start()
    print("ok", flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "fail":
            server.plan(words[0], int(words[1]), int(words[2]), words[3])
        else:
            server.heal()
        print("ok", flush=True)
    libc.umount2(os.fsencode(mountpoint), 2)  # MNT_DETACH: whoever has files open keeps them


class FuseDisk:
    """A mounted directory, and what is to fail in it."""

    def __init__(self, process: subprocess.Popen[str], mountpoint: Path) -> None:
        self._process = process
        self.directory = mountpoint

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"

    def fail(self, call: str, error: int = errno.EIO, *, nth: int = -1, suffix: str = "*") -> None:
        """Let a call fail: see the module."""
        self._say(f"fail {call} {error} {nth} {suffix}")

    def heal(self) -> None:
        """No more failures."""
        self._say("heal")


class CannotMountError(Exception):
    """This machine mounts no FUSE; the message says why, in one line."""


@contextlib.contextmanager
def mounted(directory: Path) -> Iterator[FuseDisk]:
    """A disk of this kind below a directory, for as long as the block runs. Raises CannotMountError."""
    if not Path("/dev/fuse").exists():
        raise CannotMountError("there is no /dev/fuse here")
    mountpoint, backing = directory / "mount", directory / "backing"
    mountpoint.mkdir()
    backing.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.log.fuse_disk", str(mountpoint), str(backing)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    with process:
        if process.stdout.readline() != "ok\n":
            raise CannotMountError(
                f"FUSE cannot be mounted here: {process.stderr.read().strip().splitlines()[-1]}"
            )
        try:
            yield FuseDisk(process, mountpoint)
        finally:
            process.stdin.close()
            process.wait(60)


if __name__ == "__main__":
    _main(*sys.argv[1:])
