"""Data types of the MQTT wire format, and the properties of MQTT 5 built from them.

Promises: reads nothing beyond `end`, refuses what the standard calls malformed (1.5) and properties that
are unknown, repeated or out of place (2.2.2). The property table is the standard's own (2.2.2.2, table 2-4).
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from ringmain.sources.mqtt_codes import REMAINING_LENGTH_MAX, PacketType, malformed, protocol_error

WILL = 0
"""Stands for the will properties in CONNECT's payload (3.1.3.2), beside the packet types."""


class Wire(IntEnum):
    """Data types of property values (1.5)."""

    BYTE = 1
    U16 = 2
    U32 = 4
    VARINT = 5
    TEXT = 6
    BINARY = 7
    PAIR = 8


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every property of MQTT 5 (2.2.2.2); None: not sent. Integers as on the wire, intervals in seconds."""

    payload_format: int | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifier: int | None = None
    session_expiry_s: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_s: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_bytes: int | None = None
    wildcard_available: int | None = None
    subscription_identifiers_available: int | None = None
    shared_available: int | None = None


NO_PROPERTIES = Properties()

_P = PacketType
_ANY_REPLY = (
    _P.CONNACK,
    _P.PUBACK,
    _P.PUBREC,
    _P.PUBREL,
    _P.PUBCOMP,
    _P.SUBACK,
    _P.UNSUBACK,
    _P.DISCONNECT,
    _P.AUTH,
)
_ANYWHERE = (*_ANY_REPLY, _P.CONNECT, _P.PUBLISH, WILL, _P.SUBSCRIBE, _P.UNSUBSCRIBE)

TABLE: dict[int, tuple[str, Wire, tuple[int, ...]]] = {
    0x01: ("payload_format", Wire.BYTE, (_P.PUBLISH, WILL)),
    0x02: ("message_expiry_s", Wire.U32, (_P.PUBLISH, WILL)),
    0x03: ("content_type", Wire.TEXT, (_P.PUBLISH, WILL)),
    0x08: ("response_topic", Wire.TEXT, (_P.PUBLISH, WILL)),
    0x09: ("correlation_data", Wire.BINARY, (_P.PUBLISH, WILL)),
    0x0B: ("subscription_identifier", Wire.VARINT, (_P.PUBLISH, _P.SUBSCRIBE)),
    0x11: ("session_expiry_s", Wire.U32, (_P.CONNECT, _P.CONNACK, _P.DISCONNECT)),
    0x12: ("assigned_client_identifier", Wire.TEXT, (_P.CONNACK,)),
    0x13: ("server_keep_alive_s", Wire.U16, (_P.CONNACK,)),
    0x15: ("authentication_method", Wire.TEXT, (_P.CONNECT, _P.CONNACK, _P.AUTH)),
    0x16: ("authentication_data", Wire.BINARY, (_P.CONNECT, _P.CONNACK, _P.AUTH)),
    0x17: ("request_problem_information", Wire.BYTE, (_P.CONNECT,)),
    0x18: ("will_delay_s", Wire.U32, (WILL,)),
    0x19: ("request_response_information", Wire.BYTE, (_P.CONNECT,)),
    0x1A: ("response_information", Wire.TEXT, (_P.CONNACK,)),
    0x1C: ("server_reference", Wire.TEXT, (_P.CONNACK, _P.DISCONNECT)),
    0x1F: ("reason_string", Wire.TEXT, _ANY_REPLY),
    0x21: ("receive_maximum", Wire.U16, (_P.CONNECT, _P.CONNACK)),
    0x22: ("topic_alias_maximum", Wire.U16, (_P.CONNECT, _P.CONNACK)),
    0x23: ("topic_alias", Wire.U16, (_P.PUBLISH,)),
    0x24: ("maximum_qos", Wire.BYTE, (_P.CONNACK,)),
    0x25: ("retain_available", Wire.BYTE, (_P.CONNACK,)),
    0x26: ("user_properties", Wire.PAIR, _ANYWHERE),
    0x27: ("maximum_packet_bytes", Wire.U32, (_P.CONNECT, _P.CONNACK)),
    0x28: ("wildcard_available", Wire.BYTE, (_P.CONNACK,)),
    0x29: ("subscription_identifiers_available", Wire.BYTE, (_P.CONNACK,)),
    0x2A: ("shared_available", Wire.BYTE, (_P.CONNACK,)),
}
_BY_NAME = {name: (identifier, wire) for identifier, (name, wire, _) in TABLE.items()}
_FLAGS = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
_NEVER_ZERO = {0x0B, 0x21, 0x27}


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Variable Byte Integer (1.5.5): (value, offset behind it). MqttError when it is cut or longer than four bytes."""
    value = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            raise malformed("expected a variable byte integer, found the end of the packet")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise malformed("expected a variable byte integer of at most four bytes, found a longer one")


def write_varint(value: int) -> bytes:
    """Variable Byte Integer in its shortest form (1.5.5)."""
    if not 0 <= value <= REMAINING_LENGTH_MAX:
        raise ValueError(f"expected 0 to {REMAINING_LENGTH_MAX}, found {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uint(data: bytes, at: int, end: int, size: int) -> tuple[int, int]:
    """Big-endian integer of `size` bytes (1.5.2, 1.5.3)."""
    if at + size > end:
        raise malformed(
            f"expected an integer of {size} bytes, found {max(end - at, 0)} bytes before the packet's end"
        )
    return int.from_bytes(data[at : at + size], "big"), at + size


def read_binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Binary Data: two bytes of length, then the bytes (1.5.6)."""
    size, at = read_uint(data, at, end, 2)
    if at + size > end:
        raise malformed(f"expected {size} bytes of a field, found {end - at} before the packet's end")
    return data[at : at + size], at + size


def decode_text(raw: bytes) -> str:
    """UTF-8 Encoded String without surrogates and U+0000 (1.5.4; 1.5.3 in 3.1.1: MQTT-1.5.3-1, -2)."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise malformed(
            f"expected well-formed UTF-8, found byte {raw[error.start]:#04x} at {error.start}"
        ) from None
    if "\0" in text:
        raise malformed("expected UTF-8 without U+0000, found one")
    return text


def read_text(data: bytes, at: int, end: int) -> tuple[str, int]:
    """UTF-8 Encoded String with its length (1.5.4)."""
    raw, at = read_binary(data, at, end)
    return decode_text(raw), at


def write_binary(value: bytes) -> bytes:
    """Binary Data with its length (1.5.6). ValueError beyond 65,535 bytes."""
    if len(value) > 0xFFFF:
        raise ValueError(f"expected at most 65535 bytes, found {len(value)}")
    return len(value).to_bytes(2, "big") + value


def write_text(value: str) -> bytes:
    """UTF-8 Encoded String with its length (1.5.4)."""
    return write_binary(value.encode())


def read_properties(data: bytes, at: int, end: int, place: int) -> tuple[Properties, int]:
    """The property section of a packet of type `place` (or of a WILL): (properties, offset behind it)."""
    length, at = read_varint(data, at, end)
    if length == 0:
        return NO_PROPERTIES, at
    stop = at + length
    if stop > end:
        raise malformed(f"expected {length} bytes of properties, found {end - at}")
    found: dict[str, object] = {}
    pairs: list[tuple[str, str]] = []
    while at < stop:
        identifier, at = read_varint(data, at, stop)
        entry = TABLE.get(identifier)
        if entry is None:
            raise malformed(f"expected a property of MQTT 5, found identifier {identifier:#04x}")
        name, wire, places = entry
        if place not in places:
            raise protocol_error(f"property {name} must not come in packet type {place}")
        value: object
        if wire is Wire.PAIR:
            key, at = read_text(data, at, stop)
            text, at = read_text(data, at, stop)
            pairs.append((key, text))
            continue
        if wire is Wire.TEXT:
            value, at = read_text(data, at, stop)
        elif wire is Wire.BINARY:
            value, at = read_binary(data, at, stop)
        else:
            number, at = (
                read_varint(data, at, stop) if wire is Wire.VARINT else read_uint(data, at, stop, wire)
            )
            if identifier in _FLAGS and number > 1:
                raise protocol_error(f"expected 0 or 1 for property {name}, found {number}")
            if identifier in _NEVER_ZERO and number == 0:
                raise protocol_error(f"expected property {name} above 0, found 0")
            value = number
        if name in found:
            raise protocol_error(f"property {name} came twice")
        found[name] = value
    if pairs:
        found["user_properties"] = tuple(pairs)
    return msgspec.convert(found, Properties, strict=True), at


def write_properties(properties: Properties) -> bytes:
    """The property section with its length, in the order of the struct's fields."""
    out = bytearray()
    for name in Properties.__struct_fields__:
        value = getattr(properties, name)
        if value is None:
            continue
        identifier, wire = _BY_NAME[name]
        if wire is Wire.PAIR:
            for key, text in value:
                out += bytes((identifier,)) + write_text(key) + write_text(text)
            continue
        out.append(identifier)
        if wire is Wire.TEXT:
            out += write_text(value)
        elif wire is Wire.BINARY:
            out += write_binary(value)
        elif wire is Wire.VARINT:
            out += write_varint(value)
        else:
            out += int(value).to_bytes(wire, "big")
    return write_varint(len(out)) + bytes(out)
