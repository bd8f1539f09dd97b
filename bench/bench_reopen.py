"""How long a node needs to open a journal of 2 GB again after kill -9."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.harness import Row, scratch

_WRITE = """
import sys, numpy as np, pyarrow as pa, threading
from ringmain.log import open_log
from ringmain.log.interface import Batch
from ringmain.model.schemas import READING
log = open_log(sys.argv[1]); claim = log.claim("bench"); n = 10_000; target = int(sys.argv[2]); written = 0; i = 0
room = threading.Semaphore(32)
values = np.random.default_rng(1).normal(230, 1, n)
while written < target:
    i += 1
    times = pa.array(np.full(n, 1_767_225_600_000_000_000 + i * 1_000_000_000)).view(READING.field("time").type)
    ids = pa.array(np.arange(n, dtype=np.uint32))
    batch = pa.RecordBatch.from_arrays([ids, times, pa.array(values), pa.array(np.zeros(n, np.uint16))], schema=READING)
    room.acquire()
    log.append_nowait([Batch("readings", batch)], lambda a, e: room.release(), claim=claim, sequence=i)
    written += n * 22
print(i, flush=True)
sys.stdin.read()
"""

_OPEN = """
import sys, time
from ringmain.log import open_log
start = time.perf_counter()
log = open_log(sys.argv[1])
seconds = time.perf_counter() - start
print(seconds, sum(s.rows for s in log.streams() if s.stream.name == "readings"))
import os; os.kill(os.getpid(), 9)
"""


def rows(quick: bool) -> Iterator[Row]:
    """The median of three, each after a kill."""
    size_bytes = 300_000_000 if quick else 2_000_000_000
    with scratch() as directory:
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITE, directory, str(size_bytes)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert writer.stdout is not None
        batches = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        times_s = []
        started = time.perf_counter()
        for _ in range(3):
            opened = subprocess.run(
                [sys.executable, "-c", _OPEN, directory], capture_output=True, text=True, check=False
            )
            seconds, found = opened.stdout.split()
            times_s.append(float(seconds))
            if int(found) < (batches - 32) * 10_000:
                raise RuntimeError(f"{found} of {batches * 10_000} readings found")
    yield Row(
        name="reopen",
        unit="s",
        value=statistics.median(times_s),
        seconds=round(time.perf_counter() - started, 2),
        goal="<= 1 s",
        durability="everything published again is synced",
        note=f"open_log after kill -9, journal of {size_bytes / 1e9:.1f} GB",
    )
