"""Numbers of the MQTT wire format, and the one exception for a peer that breaks it.

Names follow OASIS MQTT 3.1.1 (2014-10-29) and OASIS MQTT 5.0 (2019-03-07); section numbers in this and the
other `mqtt_*` modules refer to them. Nothing here reads or writes a socket.
"""

from __future__ import annotations

from enum import IntEnum

REMAINING_LENGTH_MAX = 268_435_455
"""Largest Remaining Length that the four-byte form can say (2.2.3 in 3.1.1, 2.1.4 in 5)."""


class Version(IntEnum):
    """Protocol Version byte of CONNECT (3.1.2.2)."""

    V311 = 4
    V5 = 5


class PacketType(IntEnum):
    """Upper four bits of a packet's first byte (2.2.1 in 3.1.1, 2.1.2 in 5)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ConnectCode(IntEnum):
    """Return code of a 3.1.1 CONNACK (3.2.2.3)."""

    ACCEPTED = 0
    UNACCEPTABLE_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


class Reason(IntEnum):
    """Reason codes of MQTT 5 (2.4), those that a server which only takes in messages needs."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99


CONNECT_CODES: dict[Reason, ConnectCode] = {
    Reason.UNSUPPORTED_VERSION: ConnectCode.UNACCEPTABLE_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: ConnectCode.IDENTIFIER_REJECTED,
    Reason.SERVER_UNAVAILABLE: ConnectCode.SERVER_UNAVAILABLE,
    Reason.SERVER_BUSY: ConnectCode.SERVER_UNAVAILABLE,
    Reason.QUOTA_EXCEEDED: ConnectCode.SERVER_UNAVAILABLE,
    Reason.BAD_USER_NAME_OR_PASSWORD: ConnectCode.BAD_CREDENTIALS,
    Reason.NOT_AUTHORIZED: ConnectCode.NOT_AUTHORIZED,
}
"""What a 3.1.1 client is told in place of an MQTT 5 reason. A reason without an entry closes without CONNACK."""


class MqttError(Exception):
    """The peer sent what the standard forbids, or more than this listener takes; its connection has to end.

    `reason` is what an MQTT 5 client is told in DISCONNECT; the text says what was expected and what came.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def malformed(text: str) -> MqttError:
    """A packet that cannot be read according to the standard (1.2, Malformed Packet)."""
    return MqttError(Reason.MALFORMED_PACKET, text)


def protocol_error(text: str) -> MqttError:
    """A packet that can be read but must not come, or not now (1.2, Protocol Error)."""
    return MqttError(Reason.PROTOCOL_ERROR, text)
