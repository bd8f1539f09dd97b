"""The disk under a log: its file system and how it is mounted, space, sync latency, write cache, sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringmain.cli.doctor_findings import Finding, bad, good, note
from ringmain.log.files import is_network

FREE_BYTES_MIN = 1 << 30
FREE_INODES_MIN = 1_000
SYNCS = 200
SYNC_SECONDS_MAX = 1.0
SYNC_MS_GOOD = 10.0
SYNC_P99_MS_GOOD = 50.0
SYNC_MS_BELIEVABLE = 0.015
"""No disk makes 4 KiB durable sooner; a sync that returns before has not waited for one."""
_GIB = 1 << 30
_WITHOUT_JOURNAL = frozenset({"vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk", "ext2"})
_UNSAFE_OPTIONS = {
    "nobarrier": "syncs do not reach the disk: mount it without nobarrier",
    "barrier=0": "syncs do not reach the disk: mount it with barrier=1",
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the mount table."""

    point: str
    kind: str
    options: tuple[str, ...]


def mount_of(directory: Path) -> Mount | None:
    """What is mounted where the directory lies (/proc/self/mounts); None elsewhere than Linux."""
    wanted = os.path.realpath(directory)
    best: Mount | None = None
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        point = fields[1].encode().decode("unicode_escape", errors="replace")
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, fields[2], tuple(fields[3].split(",")))
    return best


def file_system_type(directory: Path) -> str:
    """The type of the file system that holds the directory; `unknown` elsewhere than Linux."""
    mount = mount_of(directory)
    return "unknown" if mount is None else mount.kind


def disk(data: Path, keep_size_bytes: int | None) -> Iterator[Finding]:
    """Findings for a log in `data`, or in what will hold it. `keep_size_bytes`: how large it may become."""
    directory = next(path for path in (data, *data.parents) if path.is_dir())
    mount = mount_of(directory)
    yield _file_system(directory, mount)
    if mount is not None:
        yield _mount_options(mount)
    if not os.access(directory, os.W_OK | os.X_OK):
        yield bad(
            "write access",
            f"no right to write in {directory}",
            f"give it to the user that runs the node: chown {os.getuid()} {directory}",
        )
        return
    yield from _space(directory, data, keep_size_bytes)
    yield sync_latency(directory)
    yield from _write_cache(directory)
    yield _socket(directory)


def _file_system(directory: Path, mount: Mount | None) -> Finding:
    kind = "unknown" if mount is None else mount.kind
    found = f"{kind} ({directory})"
    if is_network(kind):
        return bad(
            "file system", found, "locks and syncs cannot be relied on there: put the log on a local disk"
        )
    if kind in ("tmpfs", "ramfs"):
        return note("file system", found, "it is memory and does not survive a restart: for tests only")
    if kind.startswith("overlay"):
        return note(
            "file system",
            found,
            "the layer of a container goes with the container: mount a volume for the log",
        )
    if kind in _WITHOUT_JOURNAL:
        return note(
            "file system", found, "it has no journal and may lose names in a power cut: use ext4 or xfs"
        )
    return good("file system", found)


def _mount_options(mount: Mount) -> Finding:
    found = f"{mount.point}: {','.join(mount.options)}"
    if "ro" in mount.options:
        return bad("mount options", found, f"mount it writable: mount -o remount,rw {mount.point}")
    for option, remedy in _UNSAFE_OPTIONS.items():
        if option in mount.options:
            return bad("mount options", found, remedy)
    if "sync" in mount.options:
        return note(
            "mount options", found, "every write waits for the disk: mount it without sync, the log syncs"
        )
    return good("mount options", found)


def _space(directory: Path, data: Path, keep_size_bytes: int | None) -> Iterator[Finding]:
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    found = f"{free / _GIB:.1f} GiB"
    held = sum(path.stat().st_blocks * 512 for path in data.glob("*.seg")) if data.is_dir() else 0
    if free < FREE_BYTES_MIN:
        yield bad(
            "free space",
            found,
            "free at least 1 GiB, or set keep_size or keep_age in [log] to a smaller value",
        )
    elif keep_size_bytes is not None and keep_size_bytes > held + free:
        yield note(
            "free space",
            f"{found}, the log has {held / _GIB:.1f} GiB and may grow to {keep_size_bytes / _GIB:.1f} GiB",
            f"the disk is full before keep_size is reached: set it below {(held + free) / _GIB:.0f} GiB in [log]",
        )
    else:
        yield good("free space", found)
    if status.f_files:
        inodes = status.f_favail
        if inodes < FREE_INODES_MIN:
            yield bad("free inodes", str(inodes), "remove small files: each segment needs two files")
        else:
            yield good("free inodes", str(inodes))


def sync_latency(directory: Path) -> Finding:
    """How long an fdatasync of 4 KiB takes there, really."""
    times_ms: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            begun = time.perf_counter()
            while len(times_ms) < SYNCS and time.perf_counter() - begun < SYNC_SECONDS_MAX:
                os.write(file.fileno(), b"\0" * 4096)
                start = time.perf_counter()
                os.fdatasync(file.fileno())
                times_ms.append((time.perf_counter() - start) * 1000)
    except OSError as error:
        return bad("fdatasync", str(error), f"make {directory} writable, see dmesg for errors of the disk")
    times_ms.sort()
    median = statistics.median(times_ms)
    p99 = times_ms[min(len(times_ms) - 1, len(times_ms) * 99 // 100)]
    found = f"median {median:.2f} ms, p99 {p99:.2f} ms, worst {times_ms[-1]:.2f} ms of {len(times_ms)}"
    if median > SYNC_MS_GOOD or p99 > SYNC_P99_MS_GOOD:
        return note(
            "fdatasync", found, "every acknowledgement waits this long: use a disk with power-loss protection"
        )
    if median < SYNC_MS_BELIEVABLE and file_system_type(directory) not in ("tmpfs", "ramfs"):
        return note(
            "fdatasync",
            found,
            "no disk is so fast: something between does not pass syncs on; check it and its settings",
        )
    return good("fdatasync", found)


def _block_device(directory: Path) -> Path | None:
    """The directory in /sys of the disk below a directory; None where there is none, as for tmpfs."""
    number = os.stat(directory).st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    with contextlib.suppress(OSError):
        path = device.resolve(strict=True)
        for candidate in (path, path.parent):  # a partition has no queue of its own
            if (candidate / "queue").is_dir():
                return candidate
    return None


def _write_cache(directory: Path) -> Iterator[Finding]:
    device = _block_device(directory)
    if device is None:
        return
    try:
        cache = (device / "queue" / "write_cache").read_text().strip()
        rotational = (device / "queue" / "rotational").read_text().strip() == "1"
    except OSError:
        return
    virtual = device.name.startswith(("vd", "xvd"))  # these say that they rotate, whatever they lie on
    rotational = rotational and not virtual
    found = f"{device.name}: {cache}, {'virtual' if virtual else 'rotating' if rotational else 'solid state'}"
    if cache == "write back":
        found += ", flushed by every sync"
    if rotational:
        yield note("disk", found, "every sync waits for the platter to turn: use a solid state disk")
    else:
        yield good("disk", found)


def _socket(directory: Path) -> Finding:
    """Whether a socket can lie in the directory, however long its path is."""
    name = f".doctor-{os.getpid()}.sock"
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.bind(f"/proc/self/fd/{handle}/{name}")
        os.unlink(name, dir_fd=handle)
    except OSError as error:
        return bad(
            "socket",
            f"no Unix socket can be made in {directory}: {error.strerror or error}",
            "the processes of a node meet there: use a file system that has sockets, with /proc mounted",
        )
    finally:
        os.close(handle)
    return good("socket", f"{directory} can hold one")
