"""A plain MQTT 3.1.1 publisher over a socket, at QoS 1, that remembers what was acknowledged.

It stands for a device with a memory: what was not acknowledged is sent again after the next connection. It shares no code
with the product.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field


def _remaining_length(n: int) -> bytes:
    encoded = bytearray()
    while True:
        n, low = divmod(n, 128)
        encoded.append(low | (128 if n else 0))
        if not n:
            return bytes(encoded)


def connect_packet(client_id: str, keep_alive_s: int = 60) -> bytes:
    body = b"\x00\x04MQTT\x04\x02" + struct.pack(">H", keep_alive_s)
    body += struct.pack(">H", len(client_id)) + client_id.encode()
    return b"\x10" + _remaining_length(len(body)) + body


def publish_packet(topic: str, payload: bytes, packet_id: int, dup: bool = False) -> bytes:
    body = struct.pack(">H", len(topic)) + topic.encode() + struct.pack(">H", packet_id) + payload
    return bytes([0x32 | (8 if dup else 0)]) + _remaining_length(len(body)) + body


@dataclass(slots=True)
class Publisher(threading.Thread):
    """Publishes `{"t": ms, "v": n}` round robin over `series` topics until told to stop, then waits for every acknowledgement.

    `acknowledged` holds (topic, t_ms, value) in the order of their PUBACKs.
    """

    port: int
    name_id: str
    series: int = 50
    window: int = 200
    rate: float = 1500.0
    acknowledged: list[tuple[str, int, float]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        threading.Thread.__init__(self, name=self.name_id, daemon=True)
        self.stopping = threading.Event()
        self.unacknowledged: dict[int, tuple[str, int, float]] = {}
        self.next_packet_id = 1
        self.count = 0
        self.start_ms = 1_767_225_600_000 + random.Random(self.name_id).randrange(1000)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not (self.stopping.is_set() and not self.unacknowledged):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                    self._session(connection)
            except OSError:
                self.stopping.wait(0.05) if not self.stopping.is_set() else time.sleep(0.02)

    def _session(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(connect_packet(self.name_id))
        received = bytearray()
        connection.settimeout(5)
        while len(received) < 4:
            if not (chunk := connection.recv(4096)):
                return
            received += chunk
        if received[:2] != b"\x20\x02" or received[3] != 0:
            raise OSError(f"CONNACK {bytes(received[:4])!r}")
        del received[:4]
        self.connections += 1
        for packet_id, message in list(self.unacknowledged.items()):
            connection.sendall(self._packet(packet_id, message, dup=True))
        started = time.monotonic()
        sent = 0
        connection.settimeout(0.01)
        while not (self.stopping.is_set() and not self.unacknowledged):
            burst = bytearray()
            due = int((time.monotonic() - started) * self.rate) - sent
            while due > 0 and len(self.unacknowledged) < self.window and not self.stopping.is_set():
                packet_id = self._free_packet_id()
                message = self._next_message()
                self.unacknowledged[packet_id] = message
                burst += self._packet(packet_id, message)
                due -= 1
                sent += 1
            if burst:
                connection.settimeout(30)
                connection.sendall(burst)
                connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if not (chunk := connection.recv(65536)):
                    return
                received += chunk
            while len(received) >= 4:
                assert received[:2] == b"\x40\x02", bytes(received[:4])
                message = self.unacknowledged.pop((received[2] << 8) | received[3], None)
                if message is not None:
                    self.acknowledged.append(message)
                del received[:4]

    def _free_packet_id(self) -> int:
        while self.next_packet_id in self.unacknowledged:
            self.next_packet_id = self.next_packet_id % 65535 + 1
        packet_id = self.next_packet_id
        self.next_packet_id = packet_id % 65535 + 1
        return packet_id

    def _next_message(self) -> tuple[str, int, float]:
        step, index = divmod(self.count, self.series)
        self.count += 1
        return f"meters/{self.name_id}-{index}/power", self.start_ms + step * 1000, float(self.count % 977)

    @staticmethod
    def _packet(packet_id: int, message: tuple[str, int, float], dup: bool = False) -> bytes:
        topic, t_ms, value = message
        return publish_packet(topic, f'{{"t": {t_ms}, "v": {value}}}'.encode(), packet_id, dup)

    def finish(self, timeout_s: float = 60) -> None:
        """Stop sending, wait until everything sent is acknowledged. Raises AssertionError if that does not happen."""
        self.stopping.set()
        self.join(timeout_s)
        assert not self.is_alive(), (
            f"{len(self.unacknowledged)} messages of {self.name_id} were never acknowledged"
        )
