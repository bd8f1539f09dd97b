"""`ringmain doctor`: what about this machine will or will not carry a node, each finding with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import click
import pyarrow as pa

from ringmain.cli.output import format_option, print_rows

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs", "lustre")
SYNCS = 50
FREE_BYTES_MIN = 1 << 30
SYNC_MS_GOOD = 10.0
OPEN_FILES_MIN = 4096
BUILD_TIME_S = 1_704_067_200
"""2024-01-01: a clock before it has not been set since the machine booted."""


class Grade(Enum):
    """How a finding is to be taken."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined."""

    check: str
    found: str
    grade: str
    remedy: str = ""


@click.command(
    epilog="\b\nExamples:\n  ringmain doctor\n  ringmain doctor --data /var/lib/ringmain --format json"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Directory of the log.",
)
@format_option
def doctor(data: Path, output: str) -> None:
    """Examine this machine: disk, file system, sync latency, clock, limits, versions.

    Exit status 1 if anything is bad enough to keep a node from working.
    """
    findings = list(examine(data))
    schema = pa.schema([(name, pa.string()) for name in ("check", "found", "grade", "remedy")])
    print_rows(
        schema, [pa.RecordBatch.from_pylist([asdict(finding) for finding in findings], schema)], output
    )
    if any(finding.grade == Grade.BAD.value for finding in findings):
        raise SystemExit(1)


def examine(data: Path) -> Iterator[Finding]:
    """Every finding for a node whose log lies in `data` (which need not exist yet). Leaves no file behind."""
    yield Finding("python", platform.python_version(), Grade.GOOD.value)
    yield from _versions()
    directory = next(path for path in [data.absolute(), *data.absolute().parents] if path.is_dir())
    yield from _disk(directory)
    yield _sync_latency(directory)
    yield from _limits()
    yield from _clock()


def _versions() -> Iterator[Finding]:
    for name in ("ringmain", "numpy", "pyarrow", "msgspec", "crc32c"):
        yield Finding(name, importlib.metadata.version(name), Grade.GOOD.value)
    extras = {"duckdb": "serve", "uvicorn": "serve", "numba": "fast", "paho": "mqtt", "pint": "units"}
    missing = sorted({extra for module, extra in extras.items() if importlib.util.find_spec(module) is None})
    if missing:
        yield Finding(
            "extras",
            f"without {', '.join(missing)}",
            Grade.NOTE.value,
            f"pip install 'ringmain[{','.join(missing)}]' where needed",
        )
    else:
        yield Finding("extras", "all installed", Grade.GOOD.value)


def _disk(directory: Path) -> Iterator[Finding]:
    kind = file_system_type(directory)
    network = any(kind.startswith(name) for name in NETWORK_FILE_SYSTEMS)
    yield Finding(
        "file system",
        f"{kind} ({directory})",
        Grade.BAD.value if network else Grade.NOTE.value if kind == "tmpfs" else Grade.GOOD.value,
        "put the log on a local disk"
        if network
        else "tmpfs does not survive a restart"
        if kind == "tmpfs"
        else "",
    )
    free = shutil.disk_usage(directory).free
    low = free < FREE_BYTES_MIN
    yield Finding(
        "free space",
        f"{free / (1 << 30):.1f} GiB",
        Grade.BAD.value if low else Grade.GOOD.value,
        "free at least 1 GiB" if low else "",
    )
    if not os.access(directory, os.W_OK):
        yield Finding(
            "write access",
            f"no right to write in {directory}",
            Grade.BAD.value,
            f"chown {os.getuid()} {directory}",
        )


def file_system_type(directory: Path) -> str:
    """The type of the file system that holds the directory, as /proc/mounts names it; `unknown` elsewhere than Linux."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    resolved = directory.resolve()
    holding = [
        (mount[1], mount[2]) for mount in mounts if resolved.is_relative_to(mount[1].replace("\\040", " "))
    ]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown"


def _sync_latency(directory: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            times_ms = []
            for _ in range(SYNCS):
                os.write(file.fileno(), b"\0" * 4096)
                start = time.perf_counter()
                os.fdatasync(file.fileno())
                times_ms.append((time.perf_counter() - start) * 1000)
    except OSError as error:
        return Finding("fdatasync", str(error), Grade.BAD.value, f"make {directory} writable")
    median, worst = statistics.median(times_ms), max(times_ms)
    slow = median > SYNC_MS_GOOD
    return Finding(
        "fdatasync",
        f"median {median:.2f} ms, worst {worst:.2f} ms of {SYNCS}",
        Grade.NOTE.value if slow else Grade.GOOD.value,
        "every acknowledgement waits this long: use a disk with power-loss protection" if slow else "",
    )


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < OPEN_FILES_MIN
    yield Finding(
        "open files",
        f"{soft} (hard limit {hard})",
        Grade.NOTE.value if few else Grade.GOOD.value,
        "each connection needs one: LimitNOFILE=65536 in the unit, or ulimit -n" if few else "",
    )
    yield Finding(
        "cores",
        str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()),
        Grade.GOOD.value,
    )


def _clock() -> Iterator[Finding]:
    now = time.time()
    unset = now < BUILD_TIME_S
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    yield Finding(
        "clock",
        text,
        Grade.BAD.value if unset else Grade.GOOD.value,
        "set the clock, or run an NTP client" if unset else "",
    )
    synchronised = _clock_synchronised()
    if synchronised is not None:
        yield Finding(
            "clock synchronised",
            "yes" if synchronised else "no",
            Grade.GOOD.value if synchronised else Grade.NOTE.value,
            ""
            if synchronised
            else "run an NTP client (chrony, systemd-timesyncd): arrival times are only as good as this clock",
        )


def _clock_synchronised() -> bool | None:
    """Whether the kernel says that its clock is disciplined (adjtimex(2), STA_UNSYNC); None if it cannot be told."""
    import ctypes

    try:
        buffer = ctypes.create_string_buffer(256)
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    time_error = 5
    return None if state < 0 else state != time_error
