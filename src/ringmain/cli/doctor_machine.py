"""The machine under a node: versions, limits, memory, clock, time zones."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
import time
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import crc32c

from ringmain.cli.doctor_findings import Finding, bad, good, note
from ringmain.log.frames import VERSION
from ringmain.log.settings import SEGMENT_BYTES_MAX

OPEN_FILES_MIN = 4096
PROCESSES_MIN = 256
MEMORY_BYTES_MIN = 512 << 20
BUILD_TIME_S = 1_704_067_200
"""2024-01-01: a clock before it has not been set since the machine booted."""
FUTURE_TIME_S = 2_145_916_800
"""2038-01-01: a clock behind it was set by a receiver that is wrong about the week."""
_STA_UNSYNC = 0x40
_EXTRAS = {"duckdb": "serve", "uvicorn": "serve", "numba": "fast", "paho": "mqtt", "pint": "units"}
_CGROUPS = Path("/sys/fs/cgroup")


def versions() -> Iterator[Finding]:
    """Of Python, the packages that a node rests on, the kernel and the log's format."""
    yield good("python", platform.python_version())
    for name in ("ringmain", "numpy", "pyarrow", "msgspec", "crc32c"):
        yield good(name, importlib.metadata.version(name))
    missing = sorted({extra for module, extra in _EXTRAS.items() if importlib.util.find_spec(module) is None})
    if missing:
        yield note(
            "extras",
            f"without {', '.join(missing)}",
            f"pip install 'ringmain[{','.join(missing)}]' where needed",
        )
    else:
        yield good("extras", "all installed")
    yield good("log format", f"version {VERSION}")
    yield good("kernel", f"{platform.system()} {platform.release()} {platform.machine()}")
    if not crc32c.hardware_based:
        yield note(
            "crc",
            "no CRC-32C instruction",
            "checksums take much longer: use a processor that has it",
        )


def limits() -> Iterator[Finding]:
    """What this process may have: open files, processes, locked memory, file size, cores."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)} (hard limit {_limit(hard)})"
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        yield note(
            "open files",
            found,
            "each connection needs one: LimitNOFILE=65536 in the unit, or ulimit -n 65536",
        )
    else:
        yield good("open files", found)
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < PROCESSES_MIN:
        yield note(
            "user processes",
            _limit(soft),
            "threads count too: LimitNPROC=4096 in the unit, or ulimit -u 4096",
        )
    else:
        yield good("user processes", _limit(soft))
    yield good("locked memory", _limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]) + " bytes")
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY and soft < SEGMENT_BYTES_MAX:
        yield bad(
            "file size",
            f"{soft} bytes",
            "segments are up to 1 GiB: LimitFSIZE=infinity, or ulimit -f unlimited",
        )
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield good("cores", str(cores))


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def memory() -> Iterator[Finding]:
    """What can be had, of the machine and of the control group."""
    available = None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return
    if available is None:
        return
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (_CGROUPS / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            available = min(available, int(text))
    found = f"{available / (1 << 20):.0f} MiB available"
    if available < MEMORY_BYTES_MIN:
        yield note(
            "memory", found, "the server takes the most of a node's memory: leave out [serve], or free memory"
        )
    else:
        yield good("memory", found)


def clock() -> Iterator[Finding]:
    """Whether the clock is set, disciplined, and kept while the machine is off."""
    now = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < BUILD_TIME_S:
        yield bad("clock", text, "set the clock, or run an NTP client and start the node after it")
    elif now > FUTURE_TIME_S:
        yield bad("clock", text, "the clock is ahead by years: set it, and check the receiver that set it")
    else:
        yield good("clock", text)
    kernel = kernel_clock()
    if kernel is not None:
        synchronised, error_ms = kernel
        if synchronised:
            yield good("clock synchronised", f"yes, off by at most {error_ms:.1f} ms")
        else:
            yield note(
                "clock synchronised",
                "no",
                "run an NTP client (chrony, systemd-timesyncd): arrival times are only as good as this clock",
            )
    if sys.platform == "linux":
        if any(Path("/sys/class/rtc").glob("rtc*")):
            yield good("clock while off", "kept by a real-time clock")
        else:
            yield note(
                "clock while off",
                "not kept, there is no real-time clock",
                "after a power cut it may begin in 1970; let the node start after time-sync.target",
            )


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` of adjtimex(2), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def kernel_clock() -> tuple[bool, float] | None:
    """(whether the kernel's clock is disciplined, its largest error in ms), from adjtimex(2); None: it cannot be told."""
    state = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError):
        return None
    if answer < 0:
        return None
    return not state.status & _STA_UNSYNC and answer != 5, state.maxerror / 1000


def time_zones(configured: str | None) -> Iterator[Finding]:
    """Whether the zones by which people read times are known here."""
    wanted = configured or "Europe/Berlin"
    try:
        zoneinfo.ZoneInfo(wanted)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "install the time zone data: apt install tzdata, or pip install tzdata"
        found = f"{wanted} is not known"
        yield bad("time zones", found, remedy) if configured else note("time zones", found, remedy)
        return
    version = ""
    for directory in zoneinfo.TZPATH:
        try:
            with (Path(directory) / "tzdata.zi").open() as file:
                version = file.readline().removeprefix("# version ").strip()
                break
        except OSError:
            continue
    yield good("time zones", f"{wanted} is known{f', data {version}' if version else ''}")
