"""What every benchmark shares: the row it gives, the machine it ran on, the yardstick and peers beside it.

A benchmark is a module `bench_NAME.py` here with a function `rows(quick: bool) -> Iterator[Row]`.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


class Row(msgspec.Struct, omit_defaults=True):
    """One figure. `rate` in `unit` a second, wall clock; `rate_per_core` by user and system time of our processes.

    `yardstick` is the rate of the bare program named in `yardstick_name`, `ratio` is `rate / yardstick`, `peers`
    are rates (or values, where the row has one) of other products at the same work in the same run; all in `unit`.
    """

    name: str
    unit: str
    rate: float | None = None
    rate_per_core: float | None = None
    cores: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    seconds: float | None = None
    value: float | None = None
    goal: str = ""
    yardstick: float | None = None
    yardstick_name: str = ""
    ratio: float | None = None
    peers: dict[str, float] = {}
    durability: str = ""
    machine: str = ""
    note: str = ""


def machine() -> str:
    """Processor, cores, memory, Python."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    return f"{cores} x {model}, {memory_gib:.0f} GiB, Linux {platform.release()}, Python {python}"


def benchmarks() -> Mapping[str, Callable[[bool], Iterator[Row]]]:
    """Every benchmark by its name; a module is imported when its benchmark runs."""

    def runner(module: str) -> Callable[[bool], Iterator[Row]]:
        def run(quick: bool) -> Iterator[Row]:
            here = machine()
            for row in importlib.import_module(f"bench.{module}").rows(quick):
                row.machine = here
                if row.yardstick and row.rate and row.ratio is None:
                    row.ratio = round(row.rate / row.yardstick, 3)
                yield row

        return run

    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    return {name.removeprefix("bench_").replace("_", "-"): runner(name) for name in names}


def describe(row: Row) -> str:
    """A row as a line for people."""
    parts = [f"{row.name:28s}"]
    if row.rate is not None:
        parts.append(f"{row.rate:,.0f} {row.unit}/s")
    if row.value is not None:
        parts.append(f"{row.value:,.3g} {row.unit}")
    if row.rate_per_core is not None:
        parts.append(f"{row.rate_per_core:,.0f}/s a core")
    if row.p99_ms is not None:
        parts.append(f"p99 {row.p99_ms:.2f} ms")
    if row.goal:
        parts.append(f"goal {row.goal}")
    if row.ratio is not None:
        parts.append(f"{row.ratio:.2f} of {row.yardstick_name} ({row.yardstick:,.0f}/s)")
    if row.rate is not None:
        parts += [f"{peer} {rate:,.0f}/s" for peer, rate in row.peers.items()]
    else:
        parts += [f"{peer} {value:,.3g} {row.unit}" for peer, value in row.peers.items()]
    return "  ".join(part for part in [*parts, row.durability, row.note] if part)


class CpuClock:
    """User and system seconds of this process since it was made."""

    def __init__(self) -> None:
        self._start = self._now()
        self._wall = time.perf_counter()

    @staticmethod
    def _now() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def cpu_seconds(self) -> float:
        """CPU seconds since the start."""
        return self._now() - self._start

    def wall_seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.perf_counter() - self._wall


def process_cpu_seconds(pid: int) -> float:
    """User and system seconds that the process `pid` has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_set_bytes(pid: int) -> int:
    """Proportional set size of the process `pid` (smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory on the checkout's disk (not on a memory file system), removed after use."""
    place = ROOT / ".yardstick"
    place.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=place)


def yardstick_environment() -> dict[str, str]:
    """The environment in which a yardstick program finds its modules and a place for its files."""
    scratch = ROOT / ".yardstick"
    scratch.mkdir(exist_ok=True)
    return {
        **os.environ,
        "YARDSTICK_DIR": str(scratch),
        "PYTHONPATH": str(SHARED / "yardstick"),
        "NUMBA_CACHE_DIR": str(scratch),
    }


def yardstick_program(script: str, *arguments: str, timeout_s: float = 120) -> str | None:
    """Standard output of a yardstick program in a process of its own; None where the yardstick is not at hand."""
    path = SHARED / "yardstick" / script
    if not path.is_file():
        return None
    done = subprocess.run(
        [sys.executable, "-B", str(path), *arguments],
        env=yardstick_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def load_generator() -> Path | None:
    """The MQTT load generator, built once; None where its source or Go is not at hand."""
    source = SHARED / "loadgen" / "mqtt"
    target = ROOT / ".yardstick" / "mqload"
    if target.is_file():
        return target
    if not source.is_dir():
        return None
    target.parent.mkdir(exist_ok=True)
    try:
        subprocess.run(["go", "build", "-o", str(target), "."], cwd=source, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return target


def mqtt_load(
    generator: Path,
    port: int,
    *,
    connections: int,
    window: int,
    messages: int,
    seconds: float,
    series: int = 100,
) -> float:
    """Messages acknowledged a second by whatever listens on the port."""
    done = subprocess.run(
        [
            *(
                str(generator),
                "-addr",
                f"127.0.0.1:{port}",
                "-conns",
                str(connections),
                "-window",
                str(window),
            ),
            *("-n", str(messages), "-max", f"{seconds}s", "-series", str(series)),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    )
    found = re.search(r"rate=(\d+)/s", done.stdout)
    if found is None:
        raise RuntimeError(f"the load generator said: {done.stdout}{done.stderr}")
    return float(found[1])
