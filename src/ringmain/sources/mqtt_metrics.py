"""What an MQTT listener counts, beside the counters that the runtime keeps for every source."""

from __future__ import annotations

from enum import StrEnum

from ringmain.runtime.counters import Kind, declare
from ringmain.sources.mqtt_codes import Reason


class Cause(StrEnum):
    """Why a connection ended or was not taken: the `reason` label. Those of MQTT 5 keep the standard's name."""

    NORMAL = "normal"
    WITH_WILL = "disconnect_with_will"
    LOST = "lost"
    CONNECTION_LIMIT = "connection_limit"
    CONNECT_TIMEOUT = "connect_timeout"
    SLOW_READER = "slow_reader"
    MALFORMED = "malformed_packet"
    PROTOCOL = "protocol_error"
    VERSION = "unsupported_version"
    CLIENT_ID = "client_identifier_not_valid"
    LOGIN = "bad_user_name_or_password"
    NOT_AUTHORIZED = "not_authorized"
    BUSY = "server_busy"
    SHUTDOWN = "server_shutting_down"
    AUTHENTICATION_METHOD = "bad_authentication_method"
    KEEP_ALIVE = "keep_alive_timeout"
    TAKEN_OVER = "session_taken_over"
    TOPIC = "topic_name_invalid"
    RECEIVE_MAXIMUM = "receive_maximum_exceeded"
    TOPIC_ALIAS = "topic_alias_invalid"
    TOO_LARGE = "packet_too_large"
    QUOTA = "quota_exceeded"
    TLS = "tls_handshake"
    INTERNAL = "internal_error"


CAUSES: dict[Reason, Cause] = {
    Reason.MALFORMED_PACKET: Cause.MALFORMED,
    Reason.PROTOCOL_ERROR: Cause.PROTOCOL,
    Reason.UNSUPPORTED_VERSION: Cause.VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: Cause.CLIENT_ID,
    Reason.BAD_USER_NAME_OR_PASSWORD: Cause.LOGIN,
    Reason.NOT_AUTHORIZED: Cause.NOT_AUTHORIZED,
    Reason.SERVER_BUSY: Cause.BUSY,
    Reason.SERVER_SHUTTING_DOWN: Cause.SHUTDOWN,
    Reason.BAD_AUTHENTICATION_METHOD: Cause.AUTHENTICATION_METHOD,
    Reason.KEEP_ALIVE_TIMEOUT: Cause.KEEP_ALIVE,
    Reason.SESSION_TAKEN_OVER: Cause.TAKEN_OVER,
    Reason.TOPIC_NAME_INVALID: Cause.TOPIC,
    Reason.RECEIVE_MAXIMUM_EXCEEDED: Cause.RECEIVE_MAXIMUM,
    Reason.TOPIC_ALIAS_INVALID: Cause.TOPIC_ALIAS,
    Reason.PACKET_TOO_LARGE: Cause.TOO_LARGE,
    Reason.QUOTA_EXCEEDED: Cause.QUOTA,
    Reason.UNSPECIFIED: Cause.INTERNAL,
}
"""The cause of each reason that this listener gives a client."""

CONNECTIONS = declare(
    "ringmain_mqtt_connections", Kind.GAUGE, "Network connections that a listener holds.", labels=("source",)
)
ACCEPTED = declare(
    "ringmain_mqtt_accepted_total", Kind.COUNTER, "Clients whose CONNECT was accepted.", labels=("source",)
)
ENDED = declare(
    "ringmain_mqtt_ended_total",
    Kind.COUNTER,
    "Connections that ended or were refused, by reason.",
    labels=("source", "reason"),
)
LOGINS_FAILED = declare(
    "ringmain_mqtt_logins_failed_total",
    Kind.COUNTER,
    "CONNECTs with a wrong user name or password, or none.",
    labels=("source",),
)
MESSAGES = declare(
    "ringmain_mqtt_messages_total",
    Kind.COUNTER,
    "PUBLISH packets taken, by quality of service; repeats of a QoS 2 message are not counted.",
    labels=("source", "qos"),
)
FAST_MESSAGES = declare(
    "ringmain_mqtt_fast_messages_total",
    Kind.COUNTER,
    "PUBLISH packets read by the compiled path, among those of ringmain_mqtt_messages_total.",
    labels=("source",),
)
FAST_READY = declare(
    "ringmain_mqtt_fast_ready",
    Kind.GAUGE,
    "1 once the compiled path is loaded and takes simple messages, else 0.",
    labels=("source",),
)
OVERSIZED = declare(
    "ringmain_mqtt_oversized_total",
    Kind.COUNTER,
    "Packets longer than max_packet_bytes.",
    labels=("source",),
)
SUBSCRIPTIONS_REFUSED = declare(
    "ringmain_mqtt_subscriptions_refused_total",
    Kind.COUNTER,
    "Topic filters that clients asked for: a listener delivers nothing.",
    labels=("source",),
)
WILLS = declare(
    "ringmain_mqtt_wills_total",
    Kind.COUNTER,
    "Wills published for clients that went away.",
    labels=("source",),
)
SESSIONS = declare(
    "ringmain_mqtt_sessions",
    Kind.GAUGE,
    "Sessions held, of connected clients and of those that are away.",
    labels=("source",),
)
SESSIONS_EVICTED = declare(
    "ringmain_mqtt_sessions_evicted_total",
    Kind.COUNTER,
    "Sessions ended early because max_sessions was reached.",
    labels=("source",),
)
