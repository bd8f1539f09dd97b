"""Devices publish straight to a node: QoS 1, JSON, PUBACK after fdatasync. mosquitto and a bare program beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import MOSQUITTO, free_port, wait_until
from tests.node.running import RunningNode

from bench.harness import (
    SHARED,
    Row,
    load_generator,
    mqtt_load,
    scratch,
    yardstick_environment,
)
from bench.whole_node import cpu_seconds as node_cpu_seconds

CONFIGURATION = """\
[node]
name = "bench"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"
fast   = "{fast}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"
"""

LOADS = ((4, 500), (1, 500), (4, 50), (100, 50))


def rows(quick: bool) -> Iterator[Row]:
    """`mqtt-listener` and `mqtt-listener-fast` at 4 connections x 500 in flight; further loads without `quick`."""
    generator = load_generator()
    if generator is None:
        raise SystemExit("the load generator needs Go and ../shared/loadgen")
    seconds = 3.0 if quick else 10.0
    loads = LOADS[:1] if quick else LOADS
    for connections, window in loads:
        yardstick = _yardstick(generator, connections, window, seconds)
        peers = _peers(generator, connections, window, seconds)
        for name, fast, goal in (
            ("mqtt-listener", "off", "60 k"),
            ("mqtt-listener-fast", "auto", "400 k"),
        ):
            rate, cpu_seconds, messages, took = _node(generator, fast, connections, window, seconds)
            yield Row(
                name=name if (connections, window) == LOADS[0] else f"{name} {connections}x{window}",
                unit="messages",
                rate=rate,
                rate_per_core=messages / cpu_seconds,
                cores=round(cpu_seconds / took, 2),
                seconds=took,
                goal=f">= {goal} messages/s" if (connections, window) == LOADS[0] else "",
                yardstick=yardstick,
                yardstick_name="s9_mqtt.py" if yardstick else "",
                peers=peers,
                durability="fdatasync before PUBACK (mosquitto: in memory)",
                note=f"{connections} connections x {window} in flight, QoS 1, JSON, generator on the same cores",
            )


def _node(
    generator: Path, fast: str, connections: int, window: int, seconds: float
) -> tuple[float, float, int, float]:
    with scratch() as directory:
        port = free_port()
        with RunningNode(Path(directory), CONFIGURATION.format(port=port, fast=fast)) as node:
            if fast == "auto":
                wait_until(lambda: "compiled path" in node.stderr(), 60, "the compiled path")
            mqtt_load(
                generator, port, connections=connections, window=window, messages=20_000, seconds=seconds
            )
            probe = mqtt_load(
                generator, port, connections=connections, window=window, messages=100_000, seconds=seconds
            )
            messages = int(probe * seconds)
            before, started = node_cpu_seconds(node), time.perf_counter()
            rate = mqtt_load(
                generator,
                port,
                connections=connections,
                window=window,
                messages=messages,
                seconds=4 * seconds,
            )
            took = time.perf_counter() - started
            cpu_seconds = node_cpu_seconds(node) - before
            if node.stop() != 0:
                raise RuntimeError(node.stderr())
    return rate, cpu_seconds, messages, took


def _peers(generator: Path, connections: int, window: int, seconds: float) -> dict[str, float]:
    if MOSQUITTO is None:
        return {}
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        file = Path(directory) / "mosquitto.conf"
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        broker = subprocess.Popen(
            [MOSQUITTO, "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return {"mosquitto": _loaded(generator, port, connections, window, seconds, 150_000)}
        finally:
            broker.kill()
            broker.wait()


def _yardstick(generator: Path, connections: int, window: int, seconds: float) -> float | None:
    script = SHARED / "yardstick" / "s9_mqtt.py"
    if not script.is_file() or shutil.which("go") is None:
        return None
    port = free_port()
    bare = subprocess.Popen(
        [sys.executable, "-B", str(script), str(port)],
        env=yardstick_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert bare.stdout is not None
        if b"ready" not in bare.stdout.readline():
            return None
        return _loaded(generator, port, connections, window, seconds, 1_000_000)
    finally:
        bare.kill()
        bare.wait()


def _loaded(
    generator: Path, port: int, connections: int, window: int, seconds: float, guess_per_s: int
) -> float:
    deadline = time.monotonic() + 10
    while not mqtt_load(generator, port, connections=connections, window=window, messages=20_000, seconds=5):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing acknowledges on port {port}")
    return mqtt_load(
        generator,
        port,
        connections=connections,
        window=window,
        messages=int(guess_per_s * seconds / 2),
        seconds=2 * seconds,
    )
