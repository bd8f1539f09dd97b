"""`ringmain log verify` over a log in the page cache: beside it its other forms, a plain read with CRC-32C, sha256sum
and cksum.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from crc32c import crc32c

from bench.harness import CpuClock, Row, scratch
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.check.scan import Form, can_compile
from ringmain.log.check.verify import THREADS, verify
from ringmain.log.interface import Appended, Batch, LogError
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING

ROUNDS = 3
IN_FLIGHT = 256
BLOCK_BYTES = 8 << 20
START_NS = 1_767_225_600_000_000_000


def rows(quick: bool) -> Iterator[Row]:
    """`verify` with frames of 10,000 readings; others of 1,000 and 50, one in three with a position beside it."""
    for name, series, size_bytes in (
        ("verify", 10_000, 1 << 30),
        ("verify-1000", 1000, 1 << 29),
        ("verify-50", 50, 1 << 29),
    ):
        with scratch() as place:
            directory = Path(place)
            write_log(directory, series, size_bytes >> 2 if quick else size_bytes)
            yield _row(name, series, directory)


def _row(name: str, series: int, directory: Path) -> Row:
    segments = sorted(directory.glob("*.seg"))
    # loads the page cache, and the compiled loops that logs of half a million frames or more are checked with
    verify(directory, form=Form.COMPILED if can_compile() else None)
    clock = CpuClock()
    seconds = _median_s(lambda: _sound(directory))
    cpu_seconds, wall_seconds = clock.cpu_seconds(), clock.wall_seconds()
    size = verify(directory).bytes / 1e6
    whole = (
        sum(path.stat().st_size for path in segments) / 1e6
    )  # with the zeros of a segment that is prepared
    forms = [form for form in Form if form != Form.COMPILED or can_compile()]
    peers = {
        f"verify {form.name.lower()}": size / _median_s(lambda form=form: _sound(directory, form))
        for form in forms
    }
    peers |= {
        program: whole / _median_s(lambda program=program: _program(program, segments))
        for program in ("sha256sum", "cksum")
        if shutil.which(program)
    }
    return Row(
        name=name,
        unit="MB",
        rate=size / seconds,
        rate_per_core=size * ROUNDS / cpu_seconds,
        cores=round(cpu_seconds / wall_seconds, 2),
        seconds=round(seconds, 3),
        goal=">= 1,000 MB/s",
        yardstick=whole / _median_s(lambda: _plain(segments)),
        yardstick_name=f"read + CRC-32C, {THREADS} threads",
        peers=peers,
        note=f"{size:.0f} MB in {len(segments)} segments, frames of {series} readings, page cache, median of {ROUNDS}",
    )


def _sound(directory: Path, form: Form | None = None) -> None:
    report = verify(directory, form=form)
    if not report.sound:
        raise RuntimeError(f"a sound log was expected, found {report.problems}")


def _median_s(function: Callable[[], None]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _plain(segments: list[Path]) -> None:
    def read(path: Path) -> int:
        buffer = bytearray(BLOCK_BYTES)
        crc = at = 0
        handle = os.open(path, os.O_RDONLY)
        try:
            while size := os.preadv(handle, [buffer], at):
                crc = crc32c(memoryview(buffer)[:size], crc)
                at += size
        finally:
            os.close(handle)
        return crc

    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(read, segments))


def _program(program: str, segments: list[Path]) -> None:
    subprocess.run([program, *map(str, segments)], stdout=subprocess.DEVNULL, check=True)


def write_log(directory: Path, series: int, size_bytes: int, claim: str = "bench") -> None:
    """A log of about this size: every append of the claim has one reading of each series."""
    random = np.random.default_rng(1)
    ids, quality = pa.array(np.arange(series, dtype=np.uint32)), pa.array(np.zeros(series, np.uint16))
    room = threading.Semaphore(IN_FLIGHT)

    def done(_appended: Appended | None, error: LogError | None) -> None:
        if error is not None:
            raise error
        room.release()

    with open_log(directory) as log:
        registry = SeriesRegistry(log)
        for number in range(series):
            registry.register("bench", f"bench/{number}/p", SeriesAttributes(unit="W"))
        registry.save()
        owner = log.claim(claim)
        sequence = written = 0
        while written < size_bytes:
            sequence += 1
            times = pa.array(np.full(series, START_NS + sequence * 10**9)).view(READING.field("time").type)
            columns = [ids, times, pa.array(random.normal(230, 1, series)), quality]
            batch = Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))
            moved = {f"{claim}/file": b"%d" % sequence} if sequence % 3 == 0 else None
            room.acquire()
            log.append_nowait([batch], done, claim=owner, sequence=sequence, positions=moved)
            written += series * 22 + 500
        for _ in range(IN_FLIGHT):
            room.acquire()
