"""The general path: packets out of a connection's received bytes, PUBLISH without building a struct each.

Follows the same rules as `mqtt_packets.decode_publish` (a property test compares the two). Promises: takes
whole packets only, in order; costs the same for a packet however many pieces it came in; adds each message
and the reply it is owed to the listener's batch, so that the reply leaves after the message is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringmain.sources.mqtt_codes import MqttError, PacketType, Reason, malformed, protocol_error
from ringmain.sources.mqtt_properties import Properties, read_properties

if TYPE_CHECKING:
    from ringmain.sources.mqtt_connection import Connection
    from ringmain.sources.mqtt_device import Device

CONNECT = PacketType.CONNECT << 4
PUBACK = b"\x40\x02"
PUBREC = b"\x50\x02"
ALIAS_BYTES_MAX = 16 * 1024
"""Bytes of topics that one connection's aliases may name together."""


class TopicAliases:
    """Topic aliases of one connection (3.3.2.3.4 in 5)."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._topics: dict[int, str] = {}
        self._bytes = 0

    def resolve(self, alias: int, topic: str) -> str:
        """The topic that is meant: `topic` itself, which the alias then names, or the one it named before."""
        if not 1 <= alias <= self._maximum:
            raise MqttError(
                Reason.TOPIC_ALIAS_INVALID, f"expected a topic alias from 1 to {self._maximum}, found {alias}"
            )
        if topic:
            self._bytes += len(topic) * 4 - len(self._topics.get(alias, "")) * 4
            if self._bytes > ALIAS_BYTES_MAX:
                raise MqttError(
                    Reason.QUOTA_EXCEEDED,
                    f"expected aliases for {ALIAS_BYTES_MAX // 4} characters of topics at most",
                )
            self._topics[alias] = topic
            return topic
        known = self._topics.get(alias)
        if known is None:
            raise protocol_error(f"expected topic alias {alias} to be set before it is used, found it unset")
        return known


def remaining_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Remaining Length whose first byte is at `at` (2.1.4): (length, offset behind it); offset 0: not all here yet."""
    length = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            return 0, 0
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, at
    raise malformed("expected a Remaining Length of at most four bytes, found a longer one")


def take(connection: Connection, data: bytes, at: int, packets_max: int) -> int:
    """Handle up to `packets_max` whole packets of `data` from offset `at` on.

    Returns the offset behind the last one; `connection.need` is then the size of the next packet as far as it
    is known. Ends early when the connection is no longer open. Raises MqttError at the first bad packet:
    everything before it has been taken.
    """
    shared = connection.shared
    gathering = shared.gathering
    gathering.begin()
    gathering.close_rows()
    known = shared.topics
    replies = connection.replies
    device = connection.device
    v5 = device.v5
    packet_bytes_max = device.packet_bytes_max
    topics, payloads, by_qos = gathering.topics, gathering.payloads, gathering.by_qos
    end = len(data)
    connection.need = 2
    while packets_max and at + 2 <= end:
        first = data[at]
        length = data[at + 1]
        body = at + 2
        if length > 127:
            length, body = remaining_length(data, at + 1, end)
            if not body:
                connection.need = end - at + 1
                break
        stop = body + length
        if first != CONNECT and not device.open:
            raise protocol_error(f"expected CONNECT first (MQTT-3.1.0-1), found first byte {first:#04x}")
        if stop - at > packet_bytes_max:
            return connection.oversized(data, at, body, stop)
        if stop > end:
            connection.need = stop - at
            break
        packets_max -= 1
        if first & 0xF0 != 0x30 or not device.open:
            device.control(first, data[body:stop])
            at = stop
            if not device.open:
                break
            v5 = device.v5
            packet_bytes_max = device.packet_bytes_max
            topics, payloads, by_qos = gathering.topics, gathering.payloads, gathering.by_qos
            continue
        qos = first & 6
        if length < 2:
            raise malformed(f"expected a topic in PUBLISH, found {length} bytes")
        behind_topic = body + 2 + (data[body] << 8 | data[body + 1])
        content = behind_topic + 2 if qos else behind_topic
        if content > stop:
            raise malformed("expected topic and packet identifier within PUBLISH, found its end")
        raw = data[body + 2 : behind_topic]
        topic = known.get(raw)
        if topic is None:
            topic = shared.topic(raw) if raw or not v5 else ""
        if v5:
            if content < stop and data[content] == 0 and topic:
                content += 1
            else:
                properties, content = read_properties(data, content, stop, PacketType.PUBLISH)
                topic = _checked(device, topic, properties)
        if qos:
            if qos == 6:
                raise malformed("expected QoS 0, 1 or 2 (MQTT-3.3.1-4), found 3")
            packet_id = data[behind_topic : behind_topic + 2]
            if packet_id == b"\0\0":
                raise protocol_error("expected a packet identifier above 0 (2.2.1), found 0")
            if not replies:
                gathering.touched.append(connection)
            if qos == 4:
                fresh = device.receive_exactly_once(packet_id)
                replies += PUBREC
                replies += packet_id
                if not fresh:
                    at = stop
                    continue
                by_qos[2] += 1
            else:
                if v5:
                    device.count_in_flight()
                    device.releasing += 1
                replies += PUBACK
                replies += packet_id
                by_qos[1] += 1
        else:
            if first & 8:
                raise malformed("expected DUP 0 at QoS 0 (MQTT-3.3.1-2), found 1")
            by_qos[0] += 1
        topics.append(topic)
        payloads.append(data[content:stop])
        gathering.received += 1
        gathering.received_bytes += length
        at = stop
    return at


def _checked(device: Device, topic: str, properties: Properties) -> str:
    """The topic of a PUBLISH with properties (3.3.2.3)."""
    if properties.subscription_identifier is not None:
        raise protocol_error("expected no subscription identifier from a client (3.3.4), found one")
    if properties.response_topic is not None and (
        "+" in properties.response_topic or "#" in properties.response_topic
    ):
        raise protocol_error("expected a response topic without wildcards (3.3.2.3.5), found one")
    if properties.topic_alias is not None:
        return device.aliases().resolve(properties.topic_alias, topic)
    if not topic:
        raise protocol_error("expected a topic name or a topic alias (3.3.2.1), found neither")
    return topic
