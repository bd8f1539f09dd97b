"""Append -> durable -> one-minute windows: Arrow batches of 10 k readings of 10 k series, made by another process."""

from __future__ import annotations

import multiprocessing
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.harness import CpuClock, Row, scratch, yardstick_program
from ringmain.flows.runner import FlowRunner
from ringmain.flows.settings import WindowSettings
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Appended, Batch, LogError
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING
from ringmain.parts.intake import SWITCH_INTERVAL_S
from ringmain.runtime.counters import Counters

SERIES = 10_000
ROWS = 10_000
IN_FLIGHT = 64
START_NS = 1_767_225_600_000_000_000
STEP_NS = 1_000_000_000


def _produce(path: str, batches: int, seed: int) -> None:
    """Pre-encode the load into an Arrow IPC file: every series once a second of event time, random walks."""
    random = np.random.default_rng(seed)
    ids = np.arange(SERIES, dtype=np.uint32)
    values = np.full(SERIES, 230.0)
    quality = np.zeros(ROWS, np.uint16)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, READING) as writer:
        for step in range(batches):
            values = np.round(values + random.normal(0, 0.5, SERIES), 3)
            times = pa.array(np.full(ROWS, START_NS + step * STEP_NS)).view(READING.field("time").type)
            writer.write_batch(
                pa.RecordBatch.from_arrays(
                    [pa.array(ids), times, pa.array(values), pa.array(quality)], schema=READING
                )
            )


def rows(quick: bool) -> Iterator[Row]:
    """Flat out: the clock stops when the last batch is durable and folded into windows."""
    batches = 1_500 if quick else 9_000
    yardstick = _yardstick(5 if quick else 10)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as load, scratch() as data:
        path = f"{load}/load.arrow"
        producer = multiprocessing.get_context("spawn").Process(target=_produce, args=(path, batches, 7))
        producer.start()
        producer.join()
        seconds, cpu_seconds, append_p99_ms = _run(path, Path(data))
    readings = batches * ROWS
    yield Row(
        name="append",
        unit="readings",
        rate=readings / seconds,
        rate_per_core=readings / cpu_seconds,
        cores=round(cpu_seconds / seconds, 2),
        p99_ms=append_p99_ms,
        seconds=round(seconds, 2),
        goal=">= 10 M readings/s",
        yardstick=yardstick,
        yardstick_name="s8_e2e.py raw 10k x 10k mem" if yardstick else "",
        durability="fdatasync before acknowledgement, group commit",
        note=f"append of {ROWS} readings -> durable -> windows; p99 is append to durable, {IN_FLIGHT} in flight",
    )


def _run(path: str, data: Path) -> tuple[float, float, float]:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log = open_log(data)
    registry = SeriesRegistry(log, max_series=SERIES)
    for number in range(SERIES):
        registry.register(
            "bench", f"bench/{number}/p", SeriesAttributes(unit="W", device=f"bench/{number // 4}")
        )
    claim = log.claim("bench")
    entries, token = registry.unsaved()
    for sequence, entry in enumerate(entries, 1):
        log.append([Batch("catalogue", entry)], claim=claim, sequence=sequence)
    registry.saved(token)
    sequence = len(entries)
    settings = WindowSettings(
        from_="readings", window="1m", values=["count", "mean", "min", "max"], to="readings.1m"
    )
    flow = FlowRunner("bench", settings, log, Counters(), data / "snapshots")
    flow.start()
    room = threading.Semaphore(IN_FLIGHT)
    waits_ms: list[float] = []
    with pa.memory_map(path) as source:
        reader = pa.ipc.open_file(source)
        clock = CpuClock()
        for index in range(reader.num_record_batches):
            room.acquire()
            sequence += 1
            sent = time.perf_counter()

            def done(_appended: Appended | None, error: LogError | None, sent: float = sent) -> None:
                if error is not None:
                    raise error
                waits_ms.append((time.perf_counter() - sent) * 1000)
                room.release()

            log.append_nowait(
                [Batch("readings", reader.get_batch(index))], done, claim=claim, sequence=sequence
            )
        for _ in range(IN_FLIGHT):
            room.acquire()
        while not flow.caught_up():
            time.sleep(0.002)
        seconds, cpu_seconds = clock.wall_seconds(), clock.cpu_seconds()
    flow.stop()
    log.close()
    return seconds, cpu_seconds, float(np.percentile(waits_ms, 99))


def _yardstick(seconds: int) -> float | None:
    output = yardstick_program("s8_e2e.py", "raw", str(SERIES), str(ROWS), "0", str(seconds), "mem")
    found = re.search(r"-> ([0-9.]+) M readings/s", output or "")
    return float(found[1]) * 1e6 if found else None
