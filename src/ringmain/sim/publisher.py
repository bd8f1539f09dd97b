"""A small MQTT 3.1.1 publisher: many messages a second at QoS 1 for little CPU, and nothing else.

Why our own: at several thousand messages a second from two shared cores a general client costs more than the
node that it talks to (paho-mqtt: 40 k QoS 1 messages per core-second). This one speaks CONNECT, PUBLISH
QoS 1, PUBACK, PINGREQ and DISCONNECT, and writes once per `flush`.

Promises: at most `window` messages are unacknowledged at a time, in the order of `publish`; after a lost
connection it connects again with backoff and sends the unacknowledged ones again, first and in their order,
with DUP set (MQTT 3.1.1, 3.3.1.1 and 4.4); `acknowledged` is called once for each message, when its PUBACK
arrives, `resent` each time that a message is sent again. The list of messages is kept by the publisher, so a
session of the server's side is not needed and Clean Session is set. It leaves the bound of its queue to
whoever publishes: see `backlog`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_PUBLISH_QOS1 = 0x32
_DUP = 0x08
_CONNACK_TEXT = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorised",
}


@dataclass(slots=True)
class _Message(Generic[T]):
    packet: bytearray
    id_at: int
    tag: T


@dataclass(slots=True)
class Connections:
    """What happened to a publisher's connection so far."""

    connects: int = 0
    losses: int = 0
    resent: int = 0
    last_error: str = ""


def topic_field(topic: str) -> bytes:
    """A topic as it stands in a PUBLISH: two bytes of length, then UTF-8 (MQTT 3.1.1, 1.5.3)."""
    encoded = topic.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def remaining_length(length: int) -> bytes:
    """The variable length encoding of MQTT 3.1.1, 2.2.3."""
    out = bytearray()
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out)


class Publisher(Generic[T]):
    """One connection under one client id. All methods are for the event loop's thread."""

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        acknowledged: Callable[[T], None],
        *,
        resent: Callable[[T], None] | None = None,
        window: int = 100,
        keep_alive_s: int = 30,
        backoff_s: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        if not 1 <= window <= 32_767:
            raise ValueError(f"expected a window of 1 to 32767 messages, found {window}")
        self.client_id = client_id
        self.connections = Connections()
        self._address = (host, port)
        self._acknowledged = acknowledged
        self._resent = resent
        self._window = window
        self._keep_alive_s = keep_alive_s
        self._backoff_s = backoff_s
        self._waiting: deque[_Message[T]] = deque()
        self._unacknowledged: dict[int, _Message[T]] = {}
        self._next_id = 1
        self._protocol: _Protocol[T] | None = None
        self._ready = False
        self._away = False
        self._closing = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> int:
        """Messages that are not acknowledged yet, sent or not."""
        return len(self._waiting) + len(self._unacknowledged)

    @property
    def connected(self) -> bool:
        """Whether the server accepted the connection and it stands."""
        return self._ready

    def start(self) -> None:
        """Begin to connect, in a task of the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    def publish(self, topic: bytes, payload: bytes, tag: T) -> None:
        """Queue a message; `topic` comes from `topic_field`. It leaves at the next `flush`."""
        length = len(topic) + 2 + len(payload)
        head = bytes((_PUBLISH_QOS1, length)) if length < 128 else b"\x32" + remaining_length(length)
        packet = bytearray(b"".join((head, topic, b"\0\0", payload)))
        self._waiting.append(_Message(packet, len(head) + len(topic), tag))

    def flush(self) -> None:
        """Send what the window allows, in one write."""
        if not self._ready or self._away or not self._waiting or self._protocol is None:
            return
        out = []
        waiting, unacknowledged = self._waiting, self._unacknowledged
        for _ in range(min(len(waiting), self._window - len(unacknowledged))):
            message = waiting.popleft()
            number = self._take_id()
            at = message.id_at
            message.packet[at] = number >> 8
            message.packet[at + 1] = number & 0xFF
            unacknowledged[number] = message
            out.append(message.packet)
        if out:
            self._protocol.write(b"".join(out))

    async def go_away(self) -> None:
        """Fall silent like a device whose line is cut: no DISCONNECT, queue instead of sending.

        Waits for outstanding acknowledgements first, so that nothing has to be sent twice.
        """
        self._away = True
        self._wake.clear()
        while self._unacknowledged and self._ready and self._away:
            await self._change()
        if self._away and self._protocol is not None:
            self._protocol.abort()

    def come_back(self) -> None:
        """Connect again and send what was queued meanwhile."""
        self._away = False
        self._wake.set()
        self.flush()

    async def drained(self) -> None:
        """Return once every message is acknowledged."""
        while self.backlog:
            self.flush()
            await self._change()

    async def close(self) -> None:
        """DISCONNECT where connected, and stop. What is not acknowledged stays so."""
        self._closing = True
        if self._protocol is not None:
            if self._ready:
                self._protocol.write(b"\xe0\x00")
            self._protocol.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _take_id(self) -> int:
        """The next free packet identifier, 1..65535 (2.3.1)."""
        number = self._next_id
        while number in self._unacknowledged:
            number = number % 65_535 + 1
        self._next_id = number % 65_535 + 1
        return number

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        shortest_s, longest_s = self._backoff_s
        wait_s = shortest_s
        while not self._closing:
            if self._away:
                await self._wake.wait()
            protocol = _Protocol(self)
            try:
                await loop.create_connection(lambda p=protocol: p, *self._address)  # type: ignore[misc]
            except OSError as error:
                self.connections.last_error = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)
                continue
            self._protocol = protocol
            protocol.write(self._connect_packet())
            while not protocol.lost.done():
                await asyncio.wait((protocol.lost,), timeout=self._keep_alive_s / 2)
                if self._ready:
                    wait_s = shortest_s
                if not protocol.lost.done():
                    self._keep_alive(protocol)
            was_ready, self._ready = self._ready, False
            self._protocol = None
            if was_ready and not self._away:
                self.connections.losses += 1
            self._changed.set()
            if not self._closing and not self._away:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)

    def _connect_packet(self) -> bytes:
        client = topic_field(self.client_id)
        body = b"\x00\x04MQTT\x04\x02" + self._keep_alive_s.to_bytes(2, "big") + client
        return b"\x10" + remaining_length(len(body)) + body

    def _keep_alive(self, protocol: _Protocol[T]) -> None:
        """Called every half keep-alive: ask for a sign of life; without one for 1.5 of them, give up."""
        if protocol.silent_checks >= 3:
            self.connections.last_error = f"nothing heard for {1.5 * self._keep_alive_s:g} s"
            protocol.abort()
            return
        protocol.silent_checks += 1
        protocol.write(b"\xc0\x00")

    def _accepted(self) -> None:
        """CONNACK came: send again what was not acknowledged, then go on."""
        self._ready = True
        self.connections.connects += 1
        if self._unacknowledged and self._protocol is not None:
            for message in self._unacknowledged.values():
                message.packet[0] |= _DUP
                if self._resent is not None:
                    self._resent(message.tag)
            self.connections.resent += len(self._unacknowledged)
            self._protocol.write(b"".join(m.packet for m in self._unacknowledged.values()))
        self._changed.set()
        self.flush()

    def _puback(self, number: int) -> None:
        message = self._unacknowledged.pop(number, None)
        if message is not None:
            self._acknowledged(message.tag)


class _Protocol(asyncio.Protocol, Generic[T]):
    """The bytes of one connection. A packet that a publisher does not expect ends it."""

    def __init__(self, publisher: Publisher[T]) -> None:
        self.publisher = publisher
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.silent_checks = 0
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.publisher.connections.last_error = str(error)
        if not self.lost.done():
            self.lost.set_result(None)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.silent_checks = 0
        if self._rest:
            data = self._rest + data
        publisher = self.publisher
        at, end = 0, len(data)
        acknowledged = False
        while end - at >= 2:
            kind, length = data[at], data[at + 1]
            if end - at < 2 + length:
                break
            if kind == 0x40 and length == 2:
                publisher._puback(data[at + 2] << 8 | data[at + 3])
                acknowledged = True
            elif kind == 0x20 and length == 2:
                code = data[at + 3]
                if code:
                    text = _CONNACK_TEXT.get(code, "unknown return code")
                    publisher.connections.last_error = f"CONNACK {code}: {text}"
                    self.abort()
                    return
                publisher._accepted()
            elif kind != 0xD0 or length:
                publisher.connections.last_error = (
                    f"expected CONNACK, PUBACK or PINGRESP, found packet type 0x{kind:02x}, length {length}"
                )
                self.abort()
                return
            at += 2 + length
        self._rest = data[at:]
        if acknowledged:
            publisher._changed.set()
            publisher.flush()
