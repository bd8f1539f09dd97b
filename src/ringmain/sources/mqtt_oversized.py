"""Packets longer than the listener takes.

An MQTT 5 client was told Maximum Packet Size in CONNACK: it is disconnected with Packet too large (3.2.2.3.6).
A 3.1.1 client cannot be told, and would send the same message for ever: up to `SKIP_FACTOR` times the limit, the
message is read past without being kept, and acknowledged once a dead letter with its beginning is durable.
What is longer still, or no PUBLISH, ends the connection at its header.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ringmain.model.schemas import MAX_LETTER_PAYLOAD
from ringmain.sources.mqtt_codes import MqttError, PacketType, Reason, malformed, protocol_error
from ringmain.sources.mqtt_properties import read_properties
from ringmain.sources.mqtt_publish import PUBACK, PUBREC

if TYPE_CHECKING:
    from ringmain.sources.mqtt_connection import Connection
    from ringmain.sources.mqtt_device import Device

SKIP_FACTOR = 16
TOPIC_BYTES_MAX = 1024
"""Longest topic of a message that is read past; its memory is what a hostile client could fill."""

_HEAD_BYTES_MAX = 2 + TOPIC_BYTES_MAX + 2 + MAX_LETTER_PAYLOAD


class Oversized:
    """One such PUBLISH that is being read past; its beginning is kept for the letter."""

    def __init__(self, first: int, header_bytes: int, length: int, limit_bytes: int) -> None:
        self._first = first
        self._header_left = header_bytes
        self._left = length
        self._length = length
        self._limit_bytes = limit_bytes
        self._head = bytearray()

    @classmethod
    def begin(cls, device: Device, data: bytes, at: int, body: int, stop: int) -> Oversized:
        """For the packet at `at` with its body from `body` to `stop`. Raises MqttError when it is refused."""
        limit_bytes = device.packet_bytes_max
        first, size = data[at], stop - at
        publish = device.open and first >> 4 == PacketType.PUBLISH and first & 6 != 6
        if publish and not device.v5 and size <= limit_bytes * SKIP_FACTOR:
            return cls(first, body - at, stop - body, limit_bytes)
        if publish:
            refused = cls(first, 0, stop - body, limit_bytes)
            refused._head += data[body : body + _HEAD_BYTES_MAX]
            refused._letter(device, whole=False)
        raise MqttError(
            Reason.PACKET_TOO_LARGE, f"expected at most {limit_bytes} bytes in a packet, found {size}"
        )

    def resume(self, connection: Connection, data: bytes, at: int) -> int:
        """Take what has come of it from `data[at:]`; returns the offset behind it."""
        header = min(self._header_left, len(data) - at)
        self._header_left -= header
        at += header
        here = min(self._left, len(data) - at)
        self._head += data[at : at + min(here, _HEAD_BYTES_MAX - len(self._head))]
        self._left -= here
        if not self._left:
            connection.oversized_done()
            self._finish(connection)
        return at + here

    def _finish(self, connection: Connection) -> None:
        gathering = connection.shared.gathering
        packet_id = self._letter(connection.device, whole=True)
        qos = self._first >> 1 & 3
        if qos:
            if packet_id == b"\0\0":
                raise protocol_error("expected a packet identifier above 0 (2.2.1), found 0")
            connection.reply((PUBACK if qos == 1 else PUBREC) + packet_id)
        gathering.received += 1
        gathering.rejected += 1
        gathering.by_qos[qos] += 1

    def _letter(self, device: Device, *, whole: bool) -> bytes:
        """Write the dead letter, as far as topic and payload have come; returns the packet identifier."""
        head = bytes(self._head)
        behind_topic = 2 + int.from_bytes(head[:2], "big")
        content = behind_topic + (2 if self._first & 6 else 0)
        if len(head) < content:
            if whole and behind_topic > 2 + TOPIC_BYTES_MAX:
                text = f"expected at most {TOPIC_BYTES_MAX} bytes of topic, found {behind_topic - 2}"
                raise MqttError(Reason.PACKET_TOO_LARGE, text)
            if whole:
                raise malformed("expected topic and packet identifier within PUBLISH, found its end")
            return b""
        topic = device.shared.topic(head[2:behind_topic])
        packet_id = head[behind_topic:content]
        if device.v5:
            with contextlib.suppress(MqttError):  # properties that have not come yet count as payload
                _, content = read_properties(head, content, len(head), PacketType.PUBLISH)
        if self._first & 6 == 4 and whole and not device.receive_exactly_once(packet_id):
            return packet_id
        reason = f"packet too large: expected at most {self._limit_bytes} bytes, found a payload of {self._length - content}"
        payload = head[content : content + MAX_LETTER_PAYLOAD]
        device.shared.gathering.letter(topic, payload, reason, self._length - content)
        return packet_id
