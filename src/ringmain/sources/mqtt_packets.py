"""MQTT control packets, 3.1.1 and 5, as values: bytes in, structs out, and back. No I/O.

Promises: `decode` reads exactly one packet's body, refuses with `MqttError` (reason and text) whatever the
standards forbid, and raises nothing else on any bytes. `encode` is its inverse. The listener's hot loop for
PUBLISH (`mqtt_connection.py`) follows the same rules without building these structs; a property test compares.
"""

from __future__ import annotations

import msgspec

from ringmain.sources.mqtt_codes import MqttError, PacketType, Reason, Version, malformed, protocol_error
from ringmain.sources.mqtt_properties import (
    NO_PROPERTIES,
    WILL,
    Properties,
    decode_text,
    read_binary,
    read_properties,
    read_text,
    read_uint,
    write_binary,
    write_properties,
    write_text,
    write_varint,
)


class Will(msgspec.Struct, frozen=True):
    """What the server publishes for a client that goes away without DISCONNECT (3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES


class Connect(msgspec.Struct, frozen=True):
    """CONNECT (3.1). `clean`: Clean Session in 3.1.1, Clean Start in 5."""

    version: Version
    client_id: str
    clean: bool = True
    keep_alive_s: int = 0
    user_name: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = NO_PROPERTIES


class Connack(msgspec.Struct, frozen=True):
    """CONNACK (3.2). `code`: return code in 3.1.1, reason code in 5."""

    session_present: bool
    code: int
    properties: Properties = NO_PROPERTIES


class Publish(msgspec.Struct, frozen=True):
    """PUBLISH (3.3). `packet_id` is 0 at QoS 0; an empty topic comes only with a topic alias (5)."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False
    properties: Properties = NO_PROPERTIES


class Reply(msgspec.Struct, frozen=True):
    """PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7)."""

    type: PacketType
    packet_id: int
    reason: int = 0
    properties: Properties = NO_PROPERTIES


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE (3.8): topic filters with their options byte."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    properties: Properties = NO_PROPERTIES


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE (3.10)."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NO_PROPERTIES


class SubscribeReply(msgspec.Struct, frozen=True):
    """SUBACK and UNSUBACK (3.9, 3.11). A 3.1.1 UNSUBACK has no codes."""

    type: PacketType
    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = NO_PROPERTIES


class Ping(msgspec.Struct, frozen=True):
    """PINGREQ and PINGRESP (3.12, 3.13)."""

    type: PacketType


class Disconnect(msgspec.Struct, frozen=True):
    """DISCONNECT (3.14)."""

    reason: int = 0
    properties: Properties = NO_PROPERTIES


Packet = Connect | Connack | Publish | Reply | Subscribe | Unsubscribe | SubscribeReply | Ping | Disconnect

_REPLIES = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)
_FLAGS = {PacketType.PUBREL: 2, PacketType.SUBSCRIBE: 2, PacketType.UNSUBSCRIBE: 2}


def check_topic_name(topic: str) -> str:
    """The topic, if a PUBLISH may carry it: at least one character, no wildcard (4.7.1, 4.7.3)."""
    if not topic:
        raise MqttError(Reason.PROTOCOL_ERROR, "expected a topic name of at least one character, found none")
    if "+" in topic or "#" in topic:
        raise MqttError(
            Reason.TOPIC_NAME_INVALID, f"expected a topic name without wildcards, found {topic[:80]!r}"
        )
    return topic


def decode_connect(body: bytes) -> Connect:
    """The body of a CONNECT; UNSUPPORTED_VERSION for any protocol but MQTT 3.1.1 and 5 (3.1.2.1, 3.1.2.2)."""
    end = len(body)
    name, at = read_binary(body, 0, end)
    level, at = read_uint(body, at, end, 1)
    if name not in (b"MQTT", b"MQIsdp"):
        raise malformed(f"expected protocol name MQTT, found {name[:16]!r}")
    if name != b"MQTT" or level not in (Version.V311, Version.V5):
        raise MqttError(
            Reason.UNSUPPORTED_VERSION, f"expected protocol level 4 (3.1.1) or 5, found {name!r} {level}"
        )
    version = Version(level)
    flags, at = read_uint(body, at, end, 1)
    keep_alive_s, at = read_uint(body, at, end, 2)
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = read_properties(body, at, end, PacketType.CONNECT)
    qos = flags >> 3 & 3
    if flags & 1:
        raise malformed("expected reserved CONNECT flag 0, found 1")
    if qos == 3 or (not flags & 4 and flags & 0x38):
        raise malformed(f"expected will flags that agree (3.1.2.5 to 3.1.2.7), found {flags:#04x}")
    if version is Version.V311 and flags & 0x40 and not flags & 0x80:
        raise malformed("expected a user name beside the password (MQTT-3.1.2-22), found none")
    client_id, at = read_text(body, at, end)
    will = None
    if flags & 4:
        will_properties = NO_PROPERTIES
        if version is Version.V5:
            will_properties, at = read_properties(body, at, end, WILL)
        topic, at = read_text(body, at, end)
        payload, at = read_binary(body, at, end)
        will = Will(check_topic_name(topic), payload, qos, bool(flags & 0x20), will_properties)
    user_name = password = None
    if flags & 0x80:
        user_name, at = read_text(body, at, end)
    if flags & 0x40:
        password, at = read_binary(body, at, end)
    if at != end:
        raise malformed(f"expected the end of CONNECT, found {end - at} bytes more")
    return Connect(version, client_id, bool(flags & 2), keep_alive_s, user_name, password, will, properties)


def decode_publish(first: int, body: bytes, version: Version) -> Publish:
    """The body of a PUBLISH whose first byte was `first` (3.3)."""
    end = len(body)
    qos = first >> 1 & 3
    if qos == 3:
        raise malformed("expected QoS 0, 1 or 2 (MQTT-3.3.1-4), found 3")
    if first & 8 and qos == 0:
        raise malformed("expected DUP 0 at QoS 0 (MQTT-3.3.1-2), found 1")
    raw, at = read_binary(body, 0, end)
    topic = decode_text(raw)
    packet_id = 0
    if qos:
        packet_id, at = _read_packet_id(body, at, end)
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = read_properties(body, at, end, PacketType.PUBLISH)
    if properties.topic_alias is None or topic:
        check_topic_name(topic)
    return Publish(topic, body[at:], qos, packet_id, bool(first & 8), bool(first & 1), properties)


def _read_packet_id(body: bytes, at: int, end: int) -> tuple[int, int]:
    packet_id, at = read_uint(body, at, end, 2)
    if packet_id == 0:
        raise protocol_error("expected a packet identifier above 0 (2.2.1), found 0")
    return packet_id, at


def _decode_reply(kind: PacketType, body: bytes, version: Version) -> Reply:
    end = len(body)
    packet_id, at = _read_packet_id(body, 0, end)
    reason, properties = 0, NO_PROPERTIES
    if version is Version.V5 and at < end:
        reason, at = read_uint(body, at, end, 1)
        if at < end:
            properties, at = read_properties(body, at, end, kind)
    _expect_end(kind, at, end)
    return Reply(kind, packet_id, reason, properties)


def _decode_subscribe(kind: PacketType, body: bytes, version: Version) -> Subscribe | Unsubscribe:
    end = len(body)
    packet_id, at = _read_packet_id(body, 0, end)
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = read_properties(body, at, end, kind)
    filters: list[tuple[str, int]] = []
    while at < end:
        text, at = read_text(body, at, end)
        if not text:
            raise protocol_error("expected a topic filter of at least one character (4.7.3), found none")
        options = 0
        if kind is PacketType.SUBSCRIBE:
            options, at = read_uint(body, at, end, 1)
            if (
                options & 3 == 3
                or options & (0xC0 if version is Version.V5 else 0xFC)
                or options & 0x30 == 0x30
            ):
                raise malformed(f"expected valid subscription options (3.8.3.1), found {options:#04x}")
        filters.append((text, options))
    if not filters:
        raise protocol_error("expected at least one topic filter (3.8.3, 3.10.3), found none")
    if kind is PacketType.SUBSCRIBE:
        return Subscribe(packet_id, tuple(filters), properties)
    return Unsubscribe(packet_id, tuple(text for text, _ in filters), properties)


def _decode_subscribe_reply(kind: PacketType, body: bytes, version: Version) -> SubscribeReply:
    end = len(body)
    packet_id, at = _read_packet_id(body, 0, end)
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = read_properties(body, at, end, kind)
    return SubscribeReply(kind, packet_id, tuple(body[at:]), properties)


def _decode_disconnect(body: bytes, version: Version) -> Disconnect:
    end = len(body)
    reason, at, properties = 0, 0, NO_PROPERTIES
    if version is Version.V5 and end:
        reason, at = read_uint(body, 0, end, 1)
        if at < end:
            properties, at = read_properties(body, at, end, PacketType.DISCONNECT)
    _expect_end(PacketType.DISCONNECT, at, end)
    return Disconnect(reason, properties)


def _decode_connack(body: bytes, version: Version) -> Connack:
    end = len(body)
    flags, at = read_uint(body, 0, end, 1)
    code, at = read_uint(body, at, end, 1)
    if flags > 1:
        raise malformed(f"expected CONNACK flags 0 or 1, found {flags:#04x}")
    properties = NO_PROPERTIES
    if version is Version.V5:
        properties, at = read_properties(body, at, end, PacketType.CONNACK)
    _expect_end(PacketType.CONNACK, at, end)
    return Connack(bool(flags), code, properties)


def _expect_end(kind: PacketType, at: int, end: int) -> None:
    if at != end:
        raise malformed(f"expected the end of {kind.name}, found {end - at} bytes more")


def decode(first: int, body: bytes, version: Version) -> Packet:
    """The packet with first byte `first` and this body. `version` is ignored for CONNECT. Raises MqttError only."""
    kind = PacketType(first >> 4) if first >> 4 else None
    if kind is PacketType.PUBLISH:
        return decode_publish(first, body, version)
    if kind is None or kind is PacketType.AUTH:
        raise protocol_error(f"expected a packet type from 1 to 14, found {first >> 4}")
    if first & 15 != _FLAGS.get(kind, 0):
        raise malformed(f"expected flags {_FLAGS.get(kind, 0)} in {kind.name} (2.2.2), found {first & 15}")
    if kind is PacketType.CONNECT:
        return decode_connect(body)
    if kind in _REPLIES:
        return _decode_reply(kind, body, version)
    if kind in (PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE):
        return _decode_subscribe(kind, body, version)
    if kind in (PacketType.SUBACK, PacketType.UNSUBACK):
        return _decode_subscribe_reply(kind, body, version)
    if kind is PacketType.DISCONNECT:
        return _decode_disconnect(body, version)
    if kind is PacketType.CONNACK:
        return _decode_connack(body, version)
    _expect_end(kind, 0, len(body))
    return Ping(kind)


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + write_varint(len(body)) + body


def _encode_connect(packet: Connect) -> bytes:
    v5 = packet.version is Version.V5
    flags = packet.clean << 1 | (packet.user_name is not None) << 7 | (packet.password is not None) << 6
    parts = [write_text(packet.client_id)]
    if packet.will is not None:
        flags |= 4 | packet.will.qos << 3 | packet.will.retain << 5
        if v5:
            parts.append(write_properties(packet.will.properties))
        parts += [write_text(packet.will.topic), write_binary(packet.will.payload)]
    if packet.user_name is not None:
        parts.append(write_text(packet.user_name))
    if packet.password is not None:
        parts.append(write_binary(packet.password))
    head = b"\0\x04MQTT" + bytes((packet.version, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return _packet(0x10, head, write_properties(packet.properties) if v5 else b"", *parts)


def encode(packet: Packet, version: Version) -> bytes:
    """The whole packet with its fixed header. ValueError for text or payload beyond what the format can say."""
    v5 = version is Version.V5
    if isinstance(packet, Connect):
        return _encode_connect(packet)
    if isinstance(packet, Ping):
        return bytes((packet.type << 4, 0))
    properties = write_properties(packet.properties) if v5 else b""
    if isinstance(packet, Publish):
        first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
        packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
        return _packet(first, write_text(packet.topic), packet_id, properties, packet.payload)
    if isinstance(packet, Connack):
        return _packet(0x20, bytes((packet.session_present, packet.code)), properties)
    if isinstance(packet, Disconnect):
        short = not v5 or (packet.reason == 0 and properties == b"\0")
        return _packet(0xE0) if short else _packet(0xE0, bytes((packet.reason,)), properties)
    packet_id = packet.packet_id.to_bytes(2, "big")
    if isinstance(packet, Subscribe):
        filters = b"".join(write_text(text) + bytes((options,)) for text, options in packet.filters)
        return _packet(0x82, packet_id, properties, filters)
    if isinstance(packet, Unsubscribe):
        return _packet(0xA2, packet_id, properties, *map(write_text, packet.filters))
    first = packet.type << 4 | _FLAGS.get(packet.type, 0)
    if isinstance(packet, SubscribeReply):
        return _packet(first, packet_id, properties, bytes(packet.codes))
    if not v5 or (packet.reason == 0 and properties == b"\0"):
        return _packet(first, packet_id)
    return _packet(first, packet_id, bytes((packet.reason,)), properties)
