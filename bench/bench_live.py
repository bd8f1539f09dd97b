"""From a device to a browser: QoS 1 publish -> durable -> WebSocket -> the page's script, at 10 k readings a second."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
from playwright.sync_api import sync_playwright
from tests.node.publisher import connect_packet, publish_packet

from bench.harness import Row, load_generator
from bench.whole_node import whole_node

RATE = 10_000
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_WATCH = """
() => {
  window.delays = [];
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/api/v1/ws");
  socket.onopen = () => {
    socket.send(JSON.stringify({op: "hello", token: null}));
    socket.send(JSON.stringify({op: "watch", series: ["probe/power"], stream: "readings.1m"}));
  };
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type !== "batch") return;
    const now = Date.now();
    for (const [key, , value] of message.values) if (key === "probe/power") window.delays.push(now - value);
    socket.send(JSON.stringify({op: "ack", seq: message.seq}));
  };
}
"""


def rows(quick: bool) -> Iterator[Row]:
    """`live`: a probe's value is the time at which it was sent; a script in real Chromium takes the difference."""
    generator = load_generator()
    if generator is None:
        raise SystemExit("the load generator needs Go and ../shared/loadgen")
    seconds = 8 if quick else 30
    with whole_node("auto") as node, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"http://127.0.0.1:{node.port('serve')}/")
        command = [
            str(generator),
            "-addr",
            f"127.0.0.1:{node.port('field')}",
            "-conns",
            "4",
            "-window",
            "500",
        ]
        command += [
            "-series",
            "10000",
            "-rate",
            str(RATE),
            "-n",
            str(RATE * (seconds + 4)),
            "-max",
            f"{seconds + 20}s",
        ]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stop = threading.Event()
        probe = threading.Thread(target=_probe, args=(node.port("field"), stop))
        probe.start()
        threading.Event().wait(2)
        page.evaluate(_WATCH)
        started = time.perf_counter()
        page.wait_for_timeout(seconds * 1000)
        delays_ms = np.array(page.evaluate("window.delays")[3:], np.float64)
        took = time.perf_counter() - started
        stop.set()
        probe.join()
        output, _ = load.communicate(timeout=60)
        browser.close()
    if len(delays_ms) < 5:
        raise RuntimeError("the page saw no values")
    yield Row(
        name="live",
        unit="readings",
        rate=float(output.split("rate=")[1].split("/")[0]),
        p50_ms=float(np.percentile(delays_ms, 50)),
        p99_ms=float(np.percentile(delays_ms, 99)),
        seconds=round(took, 1),
        goal="p99 <= 500 ms",
        durability="fdatasync before PUBACK and before the push",
        note=f"{len(delays_ms)} values of one watched series, page open beside it, Chromium on the same cores",
    )


def _probe(port: int, stop: threading.Event) -> None:
    """Send the wall clock as a value 50 times a second."""
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(connect_packet("probe"))
        connection.recv(4)
        packet_id = 0
        while not stop.wait(0.02):
            packet_id = packet_id % 60_000 + 1
            now_ms = int(time.time() * 1000)
            payload = f'{{"t": {now_ms}, "v": {now_ms}}}'.encode()
            connection.sendall(publish_packet("meters/probe/power", payload, packet_id))
            connection.recv(4096)
