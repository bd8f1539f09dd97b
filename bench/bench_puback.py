"""PUBACK latency of a steady fleet: idle, and while flows compute, a query scans everything and 1 GB is written.

The node is `ringmain run` in the layout that the environment variable BENCH_LAYOUT names (default: the product's).
Its log holds millions of readings in small frames, which four flows of one-second windows fold from the beginning in
every run; a statement over all readings is asked again and again over HTTP; another process writes to the same disk:
1 GB, spread over the time that is measured and synced every 8 MiB (row `puback`); as much as goes, again and again, as the
node's own bulk writes do, synced every 8 MiB with a pause as long as the sync took (row `puback-bulk`); and as fast as it
can, synced every 1 GB (row `puback-unpaced`).

Beside it mosquitto, in memory, under the same load, and a bare program under the same writer, in the same minute: it writes
and syncs what is due, a message a millisecond, each timed from the moment at which it was due until the sync that covers it
has returned. What becomes due during a sync waits for the next one, in the bare program as in the node. It does that to a
file that grows and, as the node does, to one that was written with zeros beforehand: the better one is the disk's share.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
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
from bench.guard import guarded_scratch
from bench.harness import ROOT, Row, process_cpu_seconds
from ringmain.config_layout import DEFAULT_LAYOUT

CONNECTIONS = 50
RATE = 1_000
RUNS = {"spread": 5, "bulk": 3, "unpaced": 1}
SECONDS = 8.0
WARM_S = 3.0
"""Before a run is measured, devices publish for so long: a fleet is steady when the first segment of a start is left behind."""
BUDGETS_S = {"spread": 170.0, "bulk": 230.0, "unpaced": 260.0}
"""Seconds since the start after which no further run begins, so that a busy machine ends in five minutes as well."""
WRITTEN_BYTES = 1 << 30
SERIES = 50
"""Readings in a frame of the log that is there before."""
FLOWS = 4
GOAL_MS = 20
PACES = tuple(RUNS)
BARE = ("growing", "zeros")
_READY = "ready"

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

ROWS = {"spread": "puback", "bulk": "puback-bulk", "unpaced": "puback-unpaced"}
_WRITER = """
import os, sys, time
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
block = os.urandom(1 << 20)
print("ready", flush=True)
count, pace, seconds = int(sys.argv[2]) >> 20, sys.argv[3], float(sys.argv[4])
started = time.perf_counter()
while True:
    for number in range(1, 1 + count):
        os.write(handle, block)
        if pace != "unpaced" and number % 8 == 0:
            before = time.perf_counter()
            os.fdatasync(handle)
            now = time.perf_counter()
            time.sleep(now - before if pace == "bulk" else max(0.0, started + seconds * number / count - now))
        print(number, flush=True)
    os.fsync(handle)
    os.lseek(handle, 0, 0)
    started = time.perf_counter()
"""
_SYNCS = """
import json, os, sys, time
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
if sys.argv[3] == "zeros":
    os.write(handle, bytes(64 << 20))
    os.fsync(handle)
    os.lseek(handle, 0, 0)
print("ready", flush=True)
sys.stdin.readline()
times, waiting, started = [], [], time.perf_counter()
due = started
while due - started < float(sys.argv[2]):
    time.sleep(max(0.0, due - time.perf_counter()))
    now = time.perf_counter()
    while due <= now:
        waiting.append(due)
        due += 0.001
    os.write(handle, bytes(512 * len(waiting)))
    os.fdatasync(handle)
    done = time.perf_counter()
    times += [(done - one) * 1000 for one in waiting]
    waiting.clear()
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
    written_mb_s: float
    queries: int
    other_cpu: float


class _Under(msgspec.Struct):
    """All runs under load of one pace."""

    loaded: list[Loaded] = []
    bare: dict[str, list[Latency]] = {}
    broker: Latency | None = None


class _Measured(msgspec.Struct):
    """All runs."""

    idle: list[Latency] = []
    broker_idle: Latency | None = None
    under: dict[str, _Under] = {}


def rows(quick: bool) -> Iterator[Row]:
    """`puback-idle`, `puback`, `puback-bulk` and `puback-unpaced`: medians over the runs."""
    runs = dict.fromkeys(PACES, 1) if quick else RUNS
    seconds, size_bytes = (5.0, 1 << 26) if quick else (SECONDS, 1 << 28)
    layout = os.environ.get("BENCH_LAYOUT", DEFAULT_LAYOUT.value)
    with guarded_scratch() as directory:
        measured = _measure(directory, layout, runs, seconds, size_bytes)
    idle = _median(measured.idle)
    load = f"layout {layout}, {CONNECTIONS} connections, {RATE} messages/s"
    yield Row(
        name="puback-idle",
        unit="ms",
        value=idle.p99_ms,
        p50_ms=idle.p50_ms,
        p99_ms=idle.p99_ms,
        seconds=seconds,
        peers={"mosquitto in memory": measured.broker_idle.p99_ms} if measured.broker_idle else {},
        durability="fdatasync before PUBACK (mosquitto: in memory)",
        note=f"{load}, median of {len(measured.idle)}, p99",
    )
    for pace in PACES:
        under = measured.under[pace]
        median = _median([one.latency for one in under.loaded])
        bare = {kind: _median(found).p99_ms for kind, found in under.bare.items()}
        disk = min(bare.values())
        peers = {f"bare write and fdatasync, {kind}, same writer": value for kind, value in bare.items()}
        if under.broker:
            peers["mosquitto in memory"] = under.broker.p99_ms
        yield Row(
            name=ROWS[pace],
            unit="ms",
            value=median.p99_ms,
            p50_ms=median.p50_ms,
            p99_ms=median.p99_ms,
            seconds=seconds,
            goal=f"<= {GOAL_MS} ms" if pace == "spread" else "",
            peers=peers,
            durability="fdatasync before PUBACK (mosquitto: in memory)",
            note=f"{load}, median of {len(under.loaded)}, p99, {median.p99_ms / disk:.2f} of the bare program; idle "
            f"{idle.p99_ms:.2f} ms; meanwhile flows compute, "
            f"{statistics.median(one.queries for one in under.loaded):.0f} queries scan all, another process writes "
            f"{statistics.median(one.written_mb_s for one in under.loaded):.0f} MB/s; the node takes "
            f"{statistics.median(one.other_cpu for one in under.loaded):.2f} cores",
        )


def _measure(
    directory: Path, layout: str, runs: dict[str, int], seconds: float, size_bytes: int
) -> _Measured:
    """Runs of the node and of the bare program take turns, so that they meet the same disk."""
    started = time.perf_counter()
    home = directory / "node"
    measured = _Measured()
    with _node(home, layout, 0) as node:
        _publish(directory, node.port("field"), 2.0)
        measured.idle = [_publish(directory, node.port("field"), seconds) for _ in range(runs["spread"])]
        node.stop()
    write_log(home / "data", SERIES, size_bytes, claim="before")
    with _mosquitto(directory) as broker:
        if broker:
            _publish(directory, broker, 1.0)
            measured.broker_idle = _publish(directory, broker, seconds)
        flows = 0
        for pace in PACES:
            under = measured.under[pace] = _Under()
            for run in range(runs[pace]):
                if run and time.perf_counter() - started > BUDGETS_S[pace]:
                    break
                for kind in BARE:
                    with _syncing(directory, seconds / 2, kind) as bare, _written(directory, pace, seconds):
                        under.bare.setdefault(kind, []).append(bare())
                flows += 1  # flows of a new name begin at the start of the log
                with _node(home, layout, flows) as node:
                    port = node.port("field")
                    _publish(directory, port, WARM_S)
                    under.loaded.append(_under_load(node, directory, pace, port, seconds))
                    if broker and not run:
                        under.broker = _under_load(node, directory, pace, broker, seconds / 2).latency
                    node.kill()
    return measured


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
def _mosquitto(directory: Path) -> Iterator[int]:
    """The port of a mosquitto that keeps everything in memory; 0 where there is none."""
    if MOSQUITTO is None:
        yield 0
        return
    port = free_port()
    file = directory / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    broker = subprocess.Popen(
        [MOSQUITTO, "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                _publish(directory, port, 0.1)
                break
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
        yield port
    finally:
        broker.kill()
        broker.wait()


def _publish(directory: Path, port: int, seconds: float) -> Latency:
    arguments = [str(one) for one in (port, CONNECTIONS, RATE, seconds, directory)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.puback_publisher", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return msgspec.json.decode(done.stdout, type=Latency)


@contextmanager
def _syncing(directory: Path, seconds: float, kind: str) -> Iterator[Callable[[], Latency]]:
    """The bare program, ready; call what is given to have it measure."""
    with subprocess.Popen(
        [sys.executable, "-c", _SYNCS, str(directory / "syncs.bin"), str(seconds), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None

        def measure() -> Latency:
            output, _ = process.communicate("\n", timeout=seconds + 60)
            return msgspec.json.decode(output, type=Latency)

        try:
            if process.stdout.readline().strip() != _READY:
                raise RuntimeError("the bare program did not start")
            yield measure
        finally:
            process.kill()


@contextmanager
def _written(directory: Path, pace: str, seconds: float) -> Iterator[Callable[[], float]]:
    """Inside, another process writes 1 GB, again and again; what is given says how many MB it has written so far.

    With the pace `spread` each takes so many seconds.
    """
    path = directory / "other.bin"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(WRITTEN_BYTES), pace, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        told: list[str] = []

        def listen() -> None:
            assert writer.stdout is not None
            told.extend(writer.stdout)

        try:
            if writer.stdout.readline().strip() != _READY:
                raise RuntimeError("the writer did not start")
            listening = threading.Thread(target=listen, daemon=True)
            listening.start()
            yield lambda: len(told) * (1 << 20) / 1e6
        finally:
            writer.kill()
            writer.wait()
            path.unlink(missing_ok=True)
    listening.join()


def _under_load(node: RunningNode, directory: Path, pace: str, port: int, seconds: float) -> Loaded:
    """What devices on the port meet while the node and the disk are loaded."""
    enough = threading.Event()
    queries = 0
    failed: list[str] = []

    def ask() -> None:
        nonlocal queries
        body = json.dumps({"query": STATEMENT})
        while not enough.is_set():
            queries += 1
            connection = http.client.HTTPConnection("127.0.0.1", node.port("serve"), timeout=120)
            try:
                connection.request("POST", "/api/v1/sql", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if not enough.is_set():
                    failed.append(str(error))
                return
            finally:
                connection.close()
            if answer.status not in (200, 408):  # 408: it scanned for as long as it may
                failed.append(f"{answer.status} {text[:200]!r}")
                return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    before, started = _cpu_seconds(node), time.perf_counter()
    try:
        with _written(directory, pace, seconds) as written_mb:
            latency = _publish(directory, port, seconds)
            took_s = time.perf_counter() - started
            written_mb_s = written_mb() / took_s
        cores = (_cpu_seconds(node) - before) / took_s
    finally:
        enough.set()  # its last query ends with the node
    if failed:
        raise RuntimeError(f"the query failed: {failed[0]}")
    return Loaded(latency, written_mb_s, queries, round(cores, 2))


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
