"""PUBACK latency of a steady fleet: idle, and while flows compute, a query scans everything and 1 GB is written.

The node is `ringmain run` in the layout that the environment variable BENCH_LAYOUT names (default: the product's).
Its log holds millions of readings in small frames, which four flows of one-second windows fold from the beginning in
every run; a statement over all readings is asked again and again over HTTP; another process writes 1 GB to the same disk:
as the node's own bulk writes do (row `puback`: synced every 8 MiB, with a pause as long as the sync took), and as fast as
it can (row `puback-unpaced`). Beside it mosquitto, in memory, under the same load, and a bare write and fdatasync every
millisecond while the same 1 GB is written, each timed from the moment at which it was due, as the messages are.
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
PACES = ("paced", "unpaced")

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
for number in range(1, 1 + (int(sys.argv[2]) >> 20)):
    os.write(handle, block)
    if sys.argv[3] == "paced" and number % 8 == 0:
        before = time.perf_counter()
        os.fdatasync(handle)
        time.sleep(time.perf_counter() - before)
os.fsync(handle)
print(time.perf_counter() - started)
os.unlink(sys.argv[1])
"""
_SYNCS = """
import json, os, sys, time
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
times, started = [], time.perf_counter()
due = started
while time.perf_counter() - started < float(sys.argv[2]):
    time.sleep(max(0.0, due - time.perf_counter()))
    os.write(handle, bytes(4096))
    os.fdatasync(handle)
    done = time.perf_counter()
    while due <= done:
        times.append((done - due) * 1000)
        due += 0.001
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
    """`puback-idle`, `puback` and `puback-unpaced`: medians over the runs."""
    runs, seconds, size_bytes = (1, 5.0, 1 << 26) if quick else (RUNS, SECONDS, 1 << 28)
    layout = os.environ.get("BENCH_LAYOUT", DEFAULT_LAYOUT.value)
    with scratch() as place:
        directory = Path(place)
        idle, loaded, peers_idle, peers = _measure(directory, layout, runs, seconds, size_bytes)
        raw = {
            pace: [
                _while_written(directory, pace, lambda: _syncs(directory, seconds))[0] for _ in range(runs)
            ]
            for pace in PACES
        }
    load = f"layout {layout}, {CONNECTIONS} connections, {RATE} messages/s, median of {runs}, p99"
    yield Row(
        name="puback-idle",
        unit="ms",
        value=_median(idle).p99_ms,
        p50_ms=_median(idle).p50_ms,
        p99_ms=_median(idle).p99_ms,
        seconds=seconds,
        peers={"mosquitto in memory": _median(peers_idle).p99_ms} if peers_idle else {},
        durability="fdatasync before PUBACK (mosquitto: in memory)",
        note=load,
    )
    for pace in PACES:
        latencies = [one.latency for one in loaded[pace]]
        beside = {"bare write and fdatasync, same 1 GB": _median(raw[pace]).p99_ms}
        if peers[pace]:
            beside["mosquitto in memory"] = _median(peers[pace]).p99_ms
        yield Row(
            name="puback" if pace == "paced" else "puback-unpaced",
            unit="ms",
            value=_median(latencies).p99_ms,
            p50_ms=_median(latencies).p50_ms,
            p99_ms=_median(latencies).p99_ms,
            seconds=seconds,
            goal=f"<= {GOAL_MS} ms" if pace == "paced" else "",
            peers=beside,
            durability="fdatasync before PUBACK (mosquitto: in memory)",
            note=f"{load}, idle {_median(idle).p99_ms:.2f} ms; while flows compute, "
            f"{statistics.median(one.queries for one in loaded[pace]):.0f} queries scan all, 1 GB is written in "
            f"{statistics.median(one.writer_s for one in loaded[pace]):.1f} s; the node takes "
            f"{statistics.median(one.other_cpu for one in loaded[pace]):.2f} cores",
        )


def _measure(
    directory: Path, layout: str, runs: int, seconds: float, size_bytes: int
) -> tuple[list[Latency], dict[str, list[Loaded]], list[Latency], dict[str, list[Latency]]]:
    loaded: dict[str, list[Loaded]] = {pace: [] for pace in PACES}
    peers: dict[str, list[Latency]] = {pace: [] for pace in PACES}
    peers_idle: list[Latency] = []
    home = directory / "node"
    with _node(home, layout, 0) as node:
        _publish(node.port("field"), 2.0)
        idle = [_publish(node.port("field"), seconds) for _ in range(runs)]
        node.stop()
    write_log(home / "data", SERIES, size_bytes, claim="before")
    with _mosquitto() as broker:
        if broker:
            _publish(broker, 1.0)
            peers_idle = [_publish(broker, seconds)]
        for number, pace in enumerate(PACES):
            for run in range(1, runs + 1):
                # flows of a new name begin at the start of the log
                with _node(home, layout, number * runs + run) as node:
                    _publish(node.port("field"), 1.0)
                    port = node.port("field")
                    loaded[pace].append(
                        _under_load(node, directory, pace, lambda port=port: _publish(port, seconds))
                    )
                    if broker and run == 1:
                        one = _under_load(node, directory, pace, lambda: _publish(broker, seconds))
                        peers[pace].append(one.latency)
                    node.stop()
    return idle, loaded, peers_idle, peers


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


def _while_written(directory: Path, pace: str, measure: Callable[[], Latency]) -> tuple[Latency, float]:
    """What is measured while another process writes 1 GB, and how long that took in seconds."""
    path = directory / "other.bin"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(WRITTEN_BYTES), pace],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        latency = measure()
        output, _ = writer.communicate(timeout=300)
    return latency, float(output)


def _under_load(node: RunningNode, directory: Path, pace: str, measure: Callable[[], Latency]) -> Loaded:
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
        latency, writer_s = _while_written(directory, pace, measure)
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
