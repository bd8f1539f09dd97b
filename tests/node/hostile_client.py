"""MQTT 3.1.1 clients that break rules: plain sockets, sharing no code with the product."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator, Sequence

from tests.node.publisher import connect_packet

WINDOW = 2000
CONNACK = b"\x20\x02\x00\x00"


def remaining_length(n: int) -> bytes:
    """The length of a packet (2.2.3)."""
    encoded = bytearray()
    while True:
        n, low = divmod(n, 128)
        encoded.append(low | (128 if n else 0))
        if not n:
            return bytes(encoded)


def publish(topic: bytes, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH with QoS 1, whatever the topic and payload are."""
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id) + payload
    return b"\x32" + remaining_length(len(body)) + body


def connect_with_will(client_id: str, topic: str, payload: bytes) -> bytes:
    """A CONNECT that leaves a will with QoS 1."""
    body = b"\x00\x04MQTT\x04\x0e\x00\x3c"
    for part in (client_id.encode(), topic.encode(), payload):
        body += struct.pack(">H", len(part)) + part
    return b"\x10" + remaining_length(len(body)) + body


def opened(port: int) -> socket.socket:
    """A connection that has said nothing yet."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def accepted(port: int, client_id: str) -> socket.socket:
    """A connection whose CONNECT was accepted."""
    connection = opened(port)
    connection.sendall(connect_packet(client_id, 0))
    assert read_exactly(connection, 4) == CONNACK
    return connection


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """That many bytes; fewer when the peer ends the connection."""
    received = b""
    while len(received) < size:
        try:
            chunk = connection.recv(size - len(received))
        except ConnectionError:
            break
        if not chunk:
            break
        received += chunk
    return received


def is_ended(connection: socket.socket) -> bool:
    """Whether the node ends the connection, however much it says before, within the socket's timeout."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def acknowledge_all(port: int, client_id: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Publish every (topic, payload) at QoS 1 and wait for all their PUBACKs, in order."""
    with accepted(port, client_id) as connection:
        for start in range(0, len(messages), WINDOW):
            part = messages[start : start + WINDOW]
            packets = [publish(topic, payload, 1 + number) for number, (topic, payload) in enumerate(part)]
            connection.sendall(b"".join(packets))
            expected = b"".join(b"\x40\x02" + struct.pack(">H", 1 + number) for number in range(len(part)))
            assert read_exactly(connection, len(expected)) == expected
        connection.sendall(b"\xe0\x00")


def broken_streams(seed: int, count: int) -> Iterator[bytes]:
    """Random bytes, cut and damaged packets, and packets in the wrong order; some behind a valid CONNECT."""
    chance = random.Random(seed)
    whole = [
        connect_packet("broken"),
        publish(b"broken/never", b'{"t": 1767225600, "v": 1}', 7),
        b"\xc0\x00",
        b"\x62\x02\x00\x07",
        b"\x82\x08\x00\x01\x00\x03a/b\x01",
        b"\xe0\x00",
        b"\x10\xff\xff\xff\xff\x01",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x36\x05\x00\x01a\x00\x01",
        connect_packet("broken").replace(b"MQTT", b"MQQT"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    ]
    for number in range(count):
        stream = bytearray(connect_packet(f"broken-{number}") if chance.random() < 0.6 else b"")
        for _ in range(chance.randrange(1, 5)):
            part = bytearray(chance.choice(whole) if chance.random() < 0.7 else chance.randbytes(200))
            if chance.random() < 0.5:
                part[chance.randrange(len(part))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                del part[chance.randrange(len(part)) :]
            stream += part
        yield bytes(stream)
