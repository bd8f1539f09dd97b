"""What a connected device says and is told: its state as the MQTT standards give it.

Promises: nothing is taken before CONNECT was accepted; an error of this peer ends its connection alone, with
the reason that its protocol version can say, and is counted; a session belongs to one user and one connection.
Section numbers are those of MQTT 5; 3.1.1 has the same unless said otherwise.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import TYPE_CHECKING

from ringmain.sources import mqtt_metrics as metrics
from ringmain.sources.mqtt_codes import CONNECT_CODES, MqttError, PacketType, Reason, Version, protocol_error
from ringmain.sources.mqtt_metrics import CAUSES, Cause
from ringmain.sources.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Reply,
    Subscribe,
    SubscribeReply,
    Unsubscribe,
    decode,
    decode_connect,
    encode,
)
from ringmain.sources.mqtt_properties import Properties
from ringmain.sources.mqtt_publish import CONNECT, TopicAliases
from ringmain.sources.mqtt_sessions import Session

if TYPE_CHECKING:
    from ringmain.sources.mqtt_connection import Connection
    from ringmain.sources.mqtt_shared import Shared

CONNECT_BYTES_MAX = 16 * 1024
"""Largest CONNECT taken; before it nobody is known, so it bounds what a stranger can make us keep."""

CLIENT_ID_BYTES_MAX = 256
UNLIMITED = 1 << 62


class Phase(Enum):
    """Where a connection is in its life."""

    NEW = 1
    LOGIN = 2
    OPEN = 3
    ENDED = 4


class Device:
    """The peer of one connection. `open`: CONNECT was accepted, and no end has come."""

    def __init__(self, shared: Shared, connection: Connection) -> None:
        self.open = False
        self.v5 = False
        self.packet_bytes_max = CONNECT_BYTES_MAX
        self.releasing = 0
        self.session: Session | None = None
        self.shared = shared
        self._connection = connection
        self._phase = Phase.NEW
        self._connect: Connect | None = None
        self._aliases: TopicAliases | None = None
        self._in_flight = 0
        self._limit_s = 0.0

    def begin(self) -> None:
        """The connection stands: CONNECT has to come within the time given."""
        self._limit_s = self.shared.loop.time() + self.shared.limits.connect_timeout_s
        self.shared.deadlines.ask(self._connect_due, self._limit_s)

    # --- messages (`mqtt_publish.take` and the compiled path)

    def aliases(self) -> TopicAliases:
        """This connection's topic aliases, made at first use."""
        if self._aliases is None:
            self._aliases = TopicAliases(self.shared.limits.topic_alias_maximum)
        return self._aliases

    def count_in_flight(self, n: int = 1) -> None:
        """`n` more QoS 1 or 2 messages without their last acknowledgement (4.9). Raises beyond Receive Maximum."""
        self._in_flight += n
        limit = self.shared.limits.receive_maximum
        if self._in_flight > limit:
            text = f"expected at most {limit} messages in flight, found {self._in_flight}"
            raise MqttError(Reason.RECEIVE_MAXIMUM_EXCEEDED, text)

    def in_flight_left(self) -> int:
        """How many more QoS 1 or 2 messages may come now. 3.1.1 has no such limit."""
        return self.shared.limits.receive_maximum - self._in_flight if self.v5 else UNLIMITED

    def receive_exactly_once(self, packet_id: bytes) -> bool:
        """Note a QoS 2 message (4.3.3, method A); False when this identifier is a repeat."""
        assert self.session is not None
        if not self.shared.sessions.receive(self.session, int.from_bytes(packet_id, "big")):
            return False
        if self.v5:
            self.count_in_flight()
        self.shared.gathering.changed(self.session)
        return True

    def take_releasing(self) -> int:
        """How many messages the replies of the batch that is being closed acknowledge finally."""
        releasing, self.releasing = self.releasing, 0
        return releasing

    def release(self, n: int) -> None:
        """So many final acknowledgements were sent."""
        self._in_flight = max(0, self._in_flight - n)

    # --- control packets

    def control(self, first: int, body: bytes) -> None:
        """Any packet but PUBLISH, and the first one whatever it is. Raises MqttError."""
        if self._phase is Phase.NEW:
            if first != CONNECT:
                raise protocol_error(f"expected CONNECT first (MQTT-3.1.0-1), found first byte {first:#04x}")
            self._connected(decode_connect(body))
            return
        packet = decode(first, body, self._version)
        if isinstance(packet, Reply) and packet.type is PacketType.PUBREL:
            self._released(packet.packet_id)
        elif first >> 4 == PacketType.PINGREQ:
            self._connection.send(b"\xd0\0")
        elif isinstance(packet, Disconnect):
            self._disconnected(packet)
        elif isinstance(packet, Subscribe):
            # Failure in 3.1.1 (3.9.3), Not authorized in 5: this listener takes in and never delivers.
            code = Reason.NOT_AUTHORIZED if self.v5 else Reason.UNSPECIFIED
            self.shared.intake.count(metrics.SUBSCRIPTIONS_REFUSED.name, len(packet.filters))
            self._send(SubscribeReply(PacketType.SUBACK, packet.packet_id, (code,) * len(packet.filters)))
        elif isinstance(packet, Unsubscribe):
            codes = (Reason.NO_SUBSCRIPTION_EXISTED,) * len(packet.filters) if self.v5 else ()
            self._send(SubscribeReply(PacketType.UNSUBACK, packet.packet_id, codes))
        else:
            raise protocol_error(f"expected a packet that a publisher sends, found packet type {first >> 4}")

    @property
    def _version(self) -> Version:
        return Version.V5 if self.v5 else Version.V311

    def _send(self, packet: Packet) -> None:
        self._connection.send(encode(packet, self._version))

    def _released(self, packet_id: int) -> None:
        """PUBREL (3.6). PUBCOMP leaves after the release is durable: else a crash in between would take the next
        message under this identifier for a repeat of the last one, and lose it."""
        session = self.session
        assert session is not None
        reason = Reason.SUCCESS
        if self.shared.sessions.release(session, packet_id):
            self.shared.gathering.changed(session)
            self.releasing += 1
        elif self.v5:
            reason = Reason.PACKET_IDENTIFIER_NOT_FOUND
        self._connection.reply(encode(Reply(PacketType.PUBCOMP, packet_id, reason), self._version))

    def _disconnected(self, packet: Disconnect) -> None:
        """DISCONNECT from the client (3.14)."""
        expiry_s = packet.properties.session_expiry_s
        assert self.session is not None
        assert self._connect is not None
        if expiry_s is not None:
            if expiry_s and not (self._connect.properties.session_expiry_s or 0):
                raise protocol_error(
                    "expected no session expiry after CONNECT with none (3.14.2.2.2), found one"
                )
            limit_s = self.shared.limits.session_expiry_max_s
            self.shared.sessions.set_expiry(self.session, min(expiry_s, limit_s))
        self.end(Cause.WITH_WILL if packet.reason else Cause.NORMAL)

    # --- CONNECT

    def _connected(self, packet: Connect) -> None:
        """CONNECT (3.1): who is it?"""
        self.v5 = packet.version is Version.V5
        self._connect = packet
        passwords = self.shared.passwords
        if packet.properties.authentication_method is not None:
            raise MqttError(
                Reason.BAD_AUTHENTICATION_METHOD, "expected no extended authentication, found one"
            )
        size = len(packet.client_id.encode())
        if size > CLIENT_ID_BYTES_MAX or (not size and not self.v5 and not packet.clean):
            text = f"expected a client identifier of 1 to {CLIENT_ID_BYTES_MAX} bytes, found {size} bytes"
            raise MqttError(Reason.CLIENT_IDENTIFIER_NOT_VALID, text)
        if passwords is None:
            self._accept(packet, self._certificate_name())
            return
        user, password = packet.user_name, packet.password
        if user is None or password is None:
            raise self._login_refused()
        if passwords.known(user, password):
            self._accept(packet, user)
            return
        if not self.shared.verify(user, password, self._verified):
            raise MqttError(Reason.SERVER_BUSY, "too many logins wait to be checked")
        self._phase = Phase.LOGIN
        self._connection.login_began()

    def _certificate_name(self) -> str | None:
        """Common name of the client's certificate, where the listener asked for one."""
        certificate = self._connection.about("peercert")
        if not isinstance(certificate, dict):
            return None
        parts = (pair for part in certificate.get("subject", ()) for pair in part)
        return next((value for key, value in parts if key == "commonName"), None)

    def _verified(self, right: bool) -> None:
        """The key derivation has ended."""
        if self._phase is not Phase.LOGIN or self._connect is None:
            return
        try:
            if not right:
                raise self._login_refused()
            self._accept(self._connect, self._connect.user_name)
        except MqttError as error:
            self.fail(error)
            return
        self._connection.login_ended()

    def _login_refused(self) -> MqttError:
        self.shared.intake.count(metrics.LOGINS_FAILED.name)
        return MqttError(
            Reason.BAD_USER_NAME_OR_PASSWORD, "expected a user name and its password, found others"
        )

    def _accept(self, packet: Connect, user: str | None) -> None:
        """Open the session (3.1.2.4, 3.1.2.11.2) and answer with CONNACK, once what changed is durable."""
        shared, limits = self.shared, self.shared.limits
        client_id = packet.client_id or f"ringmain-{secrets.token_hex(8)}"
        before = shared.sessions.find(client_id)
        if before is not None:
            if before.user != user:
                text = "expected the user to whom this client identifier's session belongs, found another"
                raise MqttError(Reason.NOT_AUTHORIZED, text)
            if before.device is not None:
                before.device.taken_over()
        if self.v5:
            asked_s = packet.properties.session_expiry_s or 0
        else:
            asked_s = 0 if packet.clean else limits.session_expiry_max_s
        expiry_s = min(asked_s, limits.session_expiry_max_s)
        session, present = shared.sessions.open(client_id, user, clean=packet.clean, expiry_s=expiry_s)
        session.device, session.will, self.session = self, None, session
        shared.count_sessions()
        keep_alive_s = packet.keep_alive_s
        if self.v5:
            most_s = limits.keep_alive_max_s
            keep_alive_s = max(limits.keep_alive_min_s, min(keep_alive_s or most_s, most_s))
        self._phase, self.open = Phase.OPEN, True
        self.packet_bytes_max = limits.max_packet_bytes
        shared.intake.count(metrics.ACCEPTED.name)
        properties = Properties(
            session_expiry_s=expiry_s if expiry_s != asked_s else None,
            receive_maximum=limits.receive_maximum,
            maximum_packet_bytes=limits.max_packet_bytes,
            assigned_client_identifier=None if packet.client_id else client_id,
            topic_alias_maximum=limits.topic_alias_maximum or None,
            wildcard_available=0,
            subscription_identifiers_available=0,
            shared_available=0,
            server_keep_alive_s=keep_alive_s if keep_alive_s != packet.keep_alive_s else None,
        )
        connack = encode(Connack(present, Reason.SUCCESS, properties), packet.version)
        if self.v5 and len(connack) > (packet.properties.maximum_packet_bytes or len(connack)):
            self._connection.gated = True
            raise MqttError(
                Reason.PACKET_TOO_LARGE, "the client's Maximum Packet Size has no room for CONNACK"
            )
        self._connection.gated = shared.gathering.unsettled
        self._connection.send(connack)
        if keep_alive_s:
            self._limit_s = 1.5 * keep_alive_s
            shared.deadlines.ask(self._alive_due, shared.loop.time() + self._limit_s)

    # --- ends

    def _connect_due(self, now_s: float) -> float | None:
        if self._phase is Phase.LOGIN:  # it waits for us
            return now_s + self.shared.limits.connect_timeout_s
        if self._phase is not Phase.NEW:
            return None
        if now_s < self._limit_s:
            return self._limit_s
        self._connection.abort(Cause.CONNECT_TIMEOUT)
        return None

    def _alive_due(self, now_s: float) -> float | None:
        """One and a half times Keep Alive without a packet ends the connection (3.1.2.10)."""
        if self._phase is not Phase.OPEN:
            return None
        seen_s = now_s if self._connection.paused else self._connection.seen_s
        if now_s < seen_s + self._limit_s:
            return seen_s + self._limit_s
        self.fail(
            MqttError(Reason.KEEP_ALIVE_TIMEOUT, "expected a packet within 1.5 times Keep Alive, found none")
        )
        return None

    def taken_over(self) -> None:
        """Another connection came with this client identifier (MQTT-3.1.4-3)."""
        self._tell(Reason.SESSION_TAKEN_OVER)
        self.end(Cause.TAKEN_OVER)

    def shut_down(self) -> None:
        """The listener stops: no will is published for that."""
        self._tell(Reason.SERVER_SHUTTING_DOWN)
        self.end(Cause.SHUTDOWN)

    def fail(self, error: MqttError) -> None:
        """The peer broke the protocol or a limit: say why, as far as its version can, and close."""
        if self._phase in (Phase.NEW, Phase.LOGIN):
            if self._connect is not None and self.v5:
                self._send(Connack(False, error.reason))
            elif error.reason in CONNECT_CODES:
                self._send(Connack(False, CONNECT_CODES[error.reason]))
        else:
            self._tell(error.reason)
        client = repr(self._connect.client_id) if self._connect is not None else "unknown"
        peer = self._connection.about("peername")
        self.shared.tell(f"connection of client {client} from {peer} ended: {error.text}")
        self.end(CAUSES.get(error.reason, Cause.PROTOCOL))

    def _tell(self, reason: Reason) -> None:
        """DISCONNECT with a reason, where the version knows one (3.14)."""
        if self.v5 and self._phase is Phase.OPEN and not self._connection.gated:
            self._send(Disconnect(reason))

    def end(self, cause: Cause) -> None:
        """The end of this connection, whoever ended it; once."""
        if self._phase is Phase.ENDED:
            return
        self._phase, self.open = Phase.ENDED, False
        self.shared.ended(cause)
        self._connection.close()
        session, self.session = self.session, None
        if session is None or session.device is not self:
            return
        assert self._connect is not None
        will = None if cause in (Cause.NORMAL, Cause.SHUTDOWN) else self._connect.will
        self.shared.leave(session, will, (will.properties.will_delay_s or 0) if will is not None else 0)
