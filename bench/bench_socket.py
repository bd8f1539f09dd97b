"""The log's socket: how soon another process has what became durable, and appends through it against in process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.harness import ROOT, Row, scratch
from ringmain.log import connect_log, open_log, open_reader
from ringmain.log.interface import Appended, Batch, Log, LogError, LogReader
from ringmain.log.socket.remote import RemoteLog
from ringmain.model.schemas import READING

IN_FLIGHT = 64
START_NS = 1_767_225_600_000_000_000

WRITER = """
import json, sys, threading, time
from bench.bench_socket import batch
from ringmain.log import open_log
log = open_log(sys.argv[1])
log.listen()
durable = []
claim = log.claim("bench")
print("listening", flush=True)
for line in sys.stdin:
    count, pause_s = json.loads(line)
    durable.clear()
    stop = log.on_durable(lambda: durable.append((log.end().offset >> 16, time.monotonic_ns())))
    first = time.time_ns()
    for number in range(count):
        log.append([batch(1)], claim=claim, sequence=first + number)
        time.sleep(pause_s)
    stop()
    print(json.dumps(durable), flush=True)
log.close()
"""


def batch(rows: int) -> Batch:
    """Readings of as many series."""
    times = pa.array(np.full(rows, START_NS)).view(READING.field("time").type)
    values = np.round(np.random.default_rng(1).normal(230, 1, rows), 3)
    columns = [
        pa.array(np.arange(rows, dtype=np.uint32)),
        times,
        pa.array(values),
        pa.array(np.zeros(rows, np.uint16)),
    ]
    return Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))


def rows(quick: bool) -> Iterator[Row]:
    """Wake-up of a reader of another process, and rates of appends of 1 and of 10,000 readings."""
    with scratch() as place:
        yield from _wake_up(Path(place), 200 if quick else 1_000)
    for size, appends in ((1, 4_000 if quick else 20_000), (10_000, 300 if quick else 1_500)):
        yield _appends(size, appends)


def _wake_up(directory: Path, count: int) -> Iterator[Row]:
    command = [sys.executable, "-c", WRITER, str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        with connect_log(directory) as log:
            notified = _latencies_ms(writer, log, count, notified=True)
            through_files = _latencies_ms(writer, log, count)
        with connect_log(directory, read="socket") as log:
            through_socket = _latencies_ms(writer, log, count)
        with open_reader(directory) as reader:
            polling = _latencies_ms(writer, reader, min(count, 200))
        writer.stdin.close()
    for name, found, note in (
        ("socket-notified", notified, "durable to callback of on_durable in another process"),
        ("socket-wake-up", through_files, "durable to frame decoded in another process, read from the files"),
        (
            "socket-wake-up-streamed",
            through_socket,
            "durable to frame decoded in another process, sent through the socket",
        ),
    ):
        yield Row(
            name=name,
            unit="ms",
            value=round(float(np.percentile(found, 50)), 4),
            p50_ms=round(float(np.percentile(found, 50)), 4),
            p99_ms=round(float(np.percentile(found, 99)), 4),
            peers={"polling the mark every 50 ms": round(float(np.percentile(polling, 50)), 2)},
            durability="fdatasync before the notification",
            note=f"{note}; value is p50 of {len(found)} appends, 2 ms apart",
        )


def _latencies_ms(
    writer: subprocess.Popen[str], log: LogReader, count: int, *, notified: bool = False
) -> list[float]:
    """From the writer's durable to this process, for each of its appends."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    seen: dict[int, int] = {}
    done = threading.Event()

    def saw(lsn: int) -> None:
        seen.setdefault(lsn, time.monotonic_ns())
        if len(seen) >= count:
            done.set()

    def follow() -> None:
        for frame in frames:
            saw(frame.position.offset >> 16)
            if done.is_set():
                return

    if notified:
        assert isinstance(log, RemoteLog)
        stop = log.on_durable(lambda: saw(log.durable_lsn))
    else:
        frames = log.read("readings", after=log.end(), follow=True, timeout_s=5)
        threading.Thread(target=follow, daemon=True).start()
    writer.stdin.write(json.dumps([count, 0.002]) + "\n")
    writer.stdin.flush()
    durable = dict(json.loads(writer.stdout.readline()))
    done.wait(10)
    if notified:
        stop()
    return [(seen[lsn] - here) / 1e6 for lsn, here in durable.items() if lsn in seen]


def _appends(size: int, appends: int) -> Row:
    rows = batch(size)
    with scratch() as here, open_log(here) as log:
        inside, _ = _rate(log, rows, appends)
    with scratch() as there:
        command = [sys.executable, "-c", WRITER, there]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdout.readline()
            with connect_log(there) as log:
                through, waits_ms = _rate(log, rows, appends)
            writer.stdin.close()
    return Row(
        name=f"socket-append-{size}",
        unit="readings",
        rate=through * size,
        p50_ms=round(float(np.percentile(waits_ms, 50)), 3),
        p99_ms=round(float(np.percentile(waits_ms, 99)), 3),
        peers={"in process": inside * size},
        durability="fdatasync before acknowledgement, group commit",
        note=f"{through:,.0f} appends/s of {size} readings from another process, in process {inside:,.0f}; "
        f"{IN_FLIGHT} in flight",
    )


def _rate(log: Log, rows: Batch, appends: int) -> tuple[float, list[float]]:
    claim = log.claim("bench")
    room = threading.Semaphore(IN_FLIGHT)
    waits_ms: list[float] = []
    started = time.perf_counter()
    for number in range(appends):
        room.acquire()
        sent = time.perf_counter()

        def done(_: Appended | None, error: LogError | None, sent: float = sent) -> None:
            if error is not None:
                raise error
            waits_ms.append((time.perf_counter() - sent) * 1000)
            room.release()

        log.append_nowait([rows], done, claim=claim, sequence=number)
    for _ in range(IN_FLIGHT):
        room.acquire()
    return appends / (time.perf_counter() - started), waits_ms
