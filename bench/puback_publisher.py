"""A steady fleet of MQTT devices: QoS 1 messages at a fixed rate over many connections, each acknowledgement timed.

    python -m bench.puback_publisher PORT CONNECTIONS MESSAGES_PER_S SECONDS

Sends on schedule whether or not earlier messages are acknowledged, so that a stall delays nobody but is seen in
every message that waits. Prints one JSON object: latencies in ms from the send to the PUBACK.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time

SETTLE_S = 10.0
"""How long to wait for the last acknowledgements."""
_PUBACK = 0x40


class _Device:
    """One connection, with the messages that wait for their acknowledgement."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = f"bench-{os.getpid()}-{number}".encode()
        header = b"\0\4MQTT\4\2\0\x3c" + struct.pack(">H", len(client)) + client
        self.socket.sendall(b"\x10" + bytes([len(header)]) + header)
        answer = self.socket.recv(4)
        if answer[:1] != b"\x20" or answer[3:] != b"\0":
            raise SystemExit(f"expected a CONNACK that accepts, found {answer!r}")
        self.socket.setblocking(False)
        self.topic = b"meters/m%d/p" % number
        self.sent: dict[int, float] = {}
        self._next = 1
        self._buffer = b""

    def publish(self) -> None:
        """Send one reading; never waits: a message is far smaller than the socket's buffer."""
        packet = self._next
        self._next = packet % 65_535 + 1
        payload = b'{"t": %d, "v": %d.5}' % (time.time_ns() // 1_000_000, packet % 500)
        body = struct.pack(">H", len(self.topic)) + self.topic + struct.pack(">H", packet) + payload
        self.sent[packet] = time.perf_counter()
        self.socket.send(b"\x32" + bytes([len(body)]) + body)

    def receive(self, latencies_ms: list[float]) -> None:
        """Take the acknowledgements that have come."""
        now = time.perf_counter()
        self._buffer += self.socket.recv(65_536)
        while len(self._buffer) >= 4:
            kind, packet = self._buffer[0], int.from_bytes(self._buffer[2:4], "big")
            if kind != _PUBACK:
                raise SystemExit(f"expected a PUBACK, found {self._buffer[:4]!r}")
            self._buffer = self._buffer[4:]
            latencies_ms.append((now - self.sent.pop(packet)) * 1000)


def publish(port: int, connections: int, rate: float, seconds: float) -> list[float]:
    """The latency of every message, in ms. Raises SystemExit where one was never acknowledged."""
    devices = [_Device(port, number) for number in range(connections)]
    selector = selectors.DefaultSelector()
    for device in devices:
        selector.register(device.socket, selectors.EVENT_READ, device)
    latencies_ms: list[float] = []
    total = int(rate * seconds)
    start = time.perf_counter()
    sent = 0
    deadline = start + seconds + SETTLE_S
    while len(latencies_ms) < total:
        now = time.perf_counter()
        while sent < total and start + sent / rate <= now:
            devices[sent % connections].publish()
            sent += 1
        wait_s = start + sent / rate - time.perf_counter() if sent < total else deadline - now
        if sent == total and now > deadline:
            raise SystemExit(f"{total - len(latencies_ms)} of {total} messages were never acknowledged")
        for key, _ in selector.select(max(wait_s, 0)):
            key.data.receive(latencies_ms)
    for device in devices:
        device.socket.close()
    return latencies_ms


def main() -> None:
    """See the module."""
    port, connections, rate, seconds = (
        float(argument) for argument in sys.argv[1:5]
    )  # what follows names who started this
    # Devices are other machines: what loads this one delays neither their messages nor how they read the clock. A nice
    # value would count only among the processes of one session (sched(7), autogroup).
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    latencies_ms = sorted(publish(int(port), int(connections), rate, seconds))
    count = len(latencies_ms)
    print(
        json.dumps(
            {
                "messages": count,
                "p50_ms": latencies_ms[count // 2],
                "p99_ms": latencies_ms[count * 99 // 100],
                "max_ms": latencies_ms[-1],
            }
        )
    )


if __name__ == "__main__":
    main()
