"""PUBACK latency of a steady fleet: idle, and while flows compute, a query scans everything and 1 GB is written.

The node is `ringmain run` in the layout that the environment variable BENCH_LAYOUT names (default: the product's).
Its log holds millions of readings in small frames, which four flows of one-second windows fold from the beginning in
every run; a statement over all readings is asked again and again over HTTP; another process writes 1 GB to the same disk.
Beside it mosquitto, in memory, under the same load, and a bare fdatasync while the same 1 GB is written.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tests.conftest import MOSQUITTO
from tests.node.running import RunningNode
from tests.ports import free_port

from bench.bench_verify import write_log
from bench.harness import ROOT, Row, process_cpu_seconds, scratch
from ringmain.config_layout import DEFAULT_LAYOUT

CONNECTIONS = 50
RATE = 1_000
RUNS = 5
SECONDS = 10.0
WRITTEN_BYTES = 1 << 30
SERIES = 50
"""Readings in a frame of the log that is there before."""
FLOWS = 4
GOAL_MS = 20

CONFIGURATION = """\
[node]
name   = "bench"
layout = "{layout}"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"

[serve]
listen      = "127.0.0.1:{http}"
sql_timeout = "60s"
"""
FLOW = """
[flows.burn{run}-{number}]
from   = "readings"
window = "1s"
values = ["count", "mean", "min", "max"]
to     = "burnt.{run}.{number}"
"""
STATEMENT = "SELECT series, count(*), avg(value), max(time) FROM readings GROUP BY series"

_WRITER = """
import os, sys, time
started = time.perf_counter()
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
block = os.urandom(1 << 20)
for _ in range(int(sys.argv[2]) >> 20):
    os.write(handle, block)
os.fsync(handle)
print(time.perf_counter() - started)
os.unlink(sys.argv[1])
"""
_SYNCS = """
import json, os, sys, time
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
times, started = [], time.perf_counter()
while time.perf_counter() - started < float(sys.argv[2]):
    os.write(handle, bytes(4096))
    before = time.perf_counter()
    os.fdatasync(handle)
    times.append((time.perf_counter() - before) * 1000)
times.sort()
os.unlink(sys.argv[1])
print(json.dumps({"messages": len(times), "p50_ms": times[len(times) // 2], "p99_ms": times[len(times) * 99 // 100],
                  "max_ms": times[-1]}))
"""


class Latency(msgspec.Struct):
    """What a run of the publisher, or of the bare syncs, measured."""

    messages: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Loaded(msgspec.Struct):
    """A run under load, and proof that the load was there."""

    latency: Latency
    writer_s: float
    queries: int
    other_cpu: float


def rows(quick: bool) -> Iterator[Row]:
    """`puback-idle` and `puback`: medians over the runs."""
    runs, seconds, size_bytes = (1, 5.0, 1 << 26) if quick else (RUNS, SECONDS, 1 << 28)
    layout = os.environ.get("BENCH_LAYOUT", DEFAULT_LAYOUT.value)
    with scratch() as place:
        directory = Path(place)
        idle, loaded, mosquitto_idle, mosquitto_loaded = _measure(
            directory, layout, runs, seconds, size_bytes
        )
        raw = [_while_written(directory, lambda: _syncs(directory, seconds))[0] for _ in range(runs)]
    peers = {"raw fdatasync, same 1 GB": _median(raw).p99_ms}
    if mosquitto_loaded:
        peers["mosquitto in memory"] = _median(mosquitto_loaded).p99_ms
    load = f"layout {layout}, {CONNECTIONS} connections, {RATE} messages/s, median of {runs}, p99"
    yield Row(
        name="puback-idle",
        unit="ms",
        value=_median(idle).p99_ms,
        p50_ms=_median(idle).p50_ms,
        p99_ms=_median(idle).p99_ms,
        seconds=seconds,
        peers={"mosquitto in memory": _median(mosquitto_idle).p99_ms} if mosquitto_idle else {},
        durability="fdatasync before PUBACK (mosquitto: in memory)",
        note=load,
    )
    latencies = [one.latency for one in loaded]
    yield Row(
        name="puback",
        unit="ms",
        value=_median(latencies).p99_ms,
        p50_ms=_median(latencies).p50_ms,
        p99_ms=_median(latencies).p99_ms,
        seconds=seconds,
        goal=f"<= {GOAL_MS} ms",
        peers=peers,
        durability="fdatasync before PUBACK (mosquitto: in memory)",
        note=f"{load}, idle {_median(idle).p99_ms:.2f} ms; while flows compute, "
        f"{statistics.median(one.queries for one in loaded):.0f} queries scan all, "
        f"1 GB is written in {statistics.median(one.writer_s for one in loaded):.1f} s; the node takes "
        f"{statistics.median(one.other_cpu for one in loaded):.2f} cores",
    )


def _measure(
    directory: Path, layout: str, runs: int, seconds: float, size_bytes: int
) -> tuple[list[Latency], list[Loaded], list[Latency], list[Latency]]:
    idle: list[Latency] = []
    loaded: list[Loaded] = []
    peer_idle: list[Latency] = []
    peer_loaded: list[Latency] = []
    home = directory / "node"
    with _node(home, layout, 0) as node:
        _publish(node.port("field"), 2.0)
        idle = [_publish(node.port("field"), seconds) for _ in range(runs)]
        node.stop()
    write_log(home / "data", SERIES, size_bytes, claim="before")
    with _mosquitto() as broker:
        if broker:
            _publish(broker, 1.0)
            peer_idle = [_publish(broker, seconds) for _ in range(min(runs, 3))]
        for run in range(1, runs + 1):
            # flows of a new name begin at the start of the log
            with _node(home, layout, run) as node:
                _publish(node.port("field"), 1.0)
                loaded.append(
                    _under_load(node, directory, lambda node=node: _publish(node.port("field"), seconds))
                )
                if broker and run <= 3:
                    one = _under_load(node, directory, lambda: _publish(broker, seconds))
                    peer_loaded.append(one.latency)
                node.stop()
    return idle, loaded, peer_idle, peer_loaded


def _median(latencies: list[Latency]) -> Latency:
    """The medians over the runs."""
    names = ("messages", "p50_ms", "p99_ms", "max_ms")
    return Latency(*(statistics.median(getattr(one, name) for one in latencies) for name in names))


@contextmanager
def _node(home: Path, layout: str, run: int) -> Iterator[RunningNode]:
    text = CONFIGURATION.format(layout=layout, port=free_port(), http=free_port())
    if run:
        text += "".join(FLOW.format(run=run, number=number) for number in range(FLOWS))
    with RunningNode(home, text) as node:
        yield node


@contextmanager
def _mosquitto() -> Iterator[int]:
    """The port of a mosquitto that keeps everything in memory; 0 where there is none."""
    if MOSQUITTO is None:
        yield 0
        return
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        file = Path(directory) / "mosquitto.conf"
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        broker = subprocess.Popen(
            [MOSQUITTO, "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    _publish(port, 0.1)
                    break
                except RuntimeError:
                    if time.monotonic() > deadline:
                        raise
            yield port
        finally:
            broker.kill()
            broker.wait()


def _program(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def _publish(port: int, seconds: float) -> Latency:
    output = _program("-m", "bench.puback_publisher", str(port), str(CONNECTIONS), str(RATE), str(seconds))
    return msgspec.json.decode(output, type=Latency)


def _syncs(directory: Path, seconds: float) -> Latency:
    return msgspec.json.decode(
        _program("-c", _SYNCS, str(directory / "syncs.bin"), str(seconds)), type=Latency
    )


def _while_written(directory: Path, measure: Callable[[], Latency]) -> tuple[Latency, float]:
    """What is measured while another process writes 1 GB, and how long that took in seconds."""
    path = directory / "other.bin"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(WRITTEN_BYTES)], stdout=subprocess.PIPE, text=True
    ) as writer:
        latency = measure()
        output, _ = writer.communicate(timeout=300)
    return latency, float(output)


def _under_load(node: RunningNode, directory: Path, measure: Callable[[], Latency]) -> Loaded:
    enough = threading.Event()
    queries = 0
    failed: list[str] = []

    def ask() -> None:
        nonlocal queries
        body = json.dumps({"query": STATEMENT})
        while not enough.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", node.port("serve"), timeout=120)
            try:
                connection.request("POST", "/api/v1/sql", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
            except OSError as error:
                failed.append(str(error))
                return
            finally:
                connection.close()
            if answer.status not in (200, 408):  # 408: it scanned for as long as it may
                failed.append(f"{answer.status} {text[:200]!r}")
                return
            queries += 1

    asking = threading.Thread(target=ask)
    asking.start()
    before, started = _cpu_seconds(node), time.perf_counter()
    try:
        latency, writer_s = _while_written(directory, measure)
        cores = (_cpu_seconds(node) - before) / (time.perf_counter() - started)
    finally:
        enough.set()
        asking.join()
    if failed:
        raise RuntimeError(f"the query failed: {failed[0]}")
    return Loaded(latency, writer_s, queries, round(cores, 2))


def _cpu_seconds(node: RunningNode) -> float:
    """Of the node's first process and every process below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    total = 0.0
    for process in parents:
        above = process
        while above in parents and above != node.process.pid:
            above = parents[above]
        if above == node.process.pid:
            with contextlib.suppress(OSError):
                total += process_cpu_seconds(process)
    return total
