"""One connection to an MQTT broker: paho's client, driven by the source's event loop.

paho-mqtt keeps the protocol; this module does its input and output without a thread of its own, hands over
what arrived in bursts, and turns what goes wrong into a `SourceError` with a remedy. A connection lives once:
when it is lost, the source ends and the runtime starts it again.

Promises: nothing is acknowledged but by `acknowledge`, never on another connection than the one on which the
message came; a burst is bounded; while paused nothing is read from the socket, so the broker is pushed back.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringmain.runtime.contract import SourceError
from ringmain.runtime.mqtt_broker import password, remedy, tls_context
from ringmain.sources.mqtt_client_settings import Broker, MqttSettings

if TYPE_CHECKING:
    from paho.mqtt.client import Client

BURST_MESSAGES_MAX = 2_000
BURST_BYTES_MAX = 8 * 1024 * 1024
"""A burst ends with the message that reaches one of these."""

_PROBE_S = 1.0


@dataclass(slots=True)
class Burst:
    """Messages as they came, in order: parallel lists. `mids` has 0 for a message of QoS 0."""

    topics: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    mids: list[int] = field(default_factory=list)
    retained: list[bool] = field(default_factory=list)
    size_bytes: int = 0


class Connection:
    """A connection to `broker`, used on one event loop; `on_burst` is called on it.

    Paths in `settings` are relative to `directory`. Raises SourceError for what cannot be used.
    """

    def __init__(
        self,
        broker: Broker,
        settings: MqttSettings,
        client_id: str,
        directory: Path,
        on_burst: Callable[[Burst], None],
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._directory = directory
        self._on_burst = on_burst
        self._loop = asyncio.get_running_loop()
        self._burst = Burst()
        self._paused = False
        self._reading = False
        self._writing = False
        self._socket: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._connected: asyncio.Future[bool] = self._loop.create_future()
        self._replies: dict[int, asyncio.Future[list[Any]]] = {}
        self._paused_since_s = 0.0
        self.lost: asyncio.Future[SourceError] = self._loop.create_future()
        """Resolved with the reason once the connection is gone."""
        self._client = self._make_client(client_id)

    async def open(self) -> bool:
        """Connect; True when the broker still had the session. Raises SourceError."""
        properties: Any = None
        client = self._client
        if self._settings.protocol == "5":
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = int(self._settings.seconds("session_expiry"))
            properties.ReceiveMaximum = self._settings.receive_maximum
            properties.MaximumPacketSize = self._settings.max_packet_bytes

        def connect() -> None:
            client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=int(self._settings.seconds("keep_alive")),
                clean_start=False if properties is not None else 3,
                properties=properties,
            )

        timeout_s = self._settings.seconds("connect_timeout")
        try:
            async with asyncio.timeout(timeout_s):
                await _in_thread(connect, self._close_socket)
        except TimeoutError:
            raise SourceError(
                f"{self._broker.address}: expected a connection within {timeout_s:g} s, found none",
                "check `url`, that this port speaks TLS if it says mqtts://, and firewalls on the way",
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise SourceError(
                f"{self._broker.address}: the broker's certificate is not trusted ({error.verify_message})",
                "give its authority as `tls.ca`, and the host name that the certificate is for in `url`",
            ) from None
        except ssl.SSLError as error:
            raise SourceError(
                f"{self._broker.address}: no TLS connection ({error.reason or error})",
                "check that this port speaks TLS, and whether the broker wants a client certificate",
            ) from None
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{self._broker.address}: expected a broker, found {error}", "check that it runs, and `url`"
            ) from None
        self._socket = client.socket()
        if self._socket is None:
            raise SourceError(
                f"{self._broker.address}: the broker closed the connection at once", "check its log"
            )
        self._read_on()
        self._timer = self._loop.call_later(_PROBE_S, self._probe)
        await self._either(self._connected, timeout_s, "CONNACK")
        return self._connected.result()

    async def subscribe(self, topics: Sequence[str], qos: int) -> list[tuple[str, int]]:
        """Subscribe; the (topic, QoS) that the broker granted lower than asked. Raises SourceError if it refused."""
        from paho.mqtt.subscribeoptions import SubscribeOptions

        asked: list[Any]
        if self._settings.protocol == "5":
            options = SubscribeOptions(qos=qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            asked = [(topic, options) for topic in topics]
        else:
            asked = [(topic, qos) for topic in topics]
        codes = await self._request(lambda: self._client.subscribe(asked), "SUBACK")
        granted = [int(code.value) for code in codes]
        refused = [(topic, code) for topic, code in zip(topics, codes, strict=True) if code.value >= 0x80]
        if refused:
            topic, code = refused[0]
            raise SourceError(
                f"{self._broker.address}: the broker refused the subscription to {topic!r} ({code})",
                "allow this user to read it in the broker, or take it out of `topics`",
            )
        return [(topic, found) for topic, found in zip(topics, granted, strict=True) if found < qos]

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """End subscriptions that the session still has."""
        await self._request(lambda: self._client.unsubscribe(list(topics)), "UNSUBACK")

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACK, in this order, of messages that came on this connection; nothing once it is lost."""
        if self.lost.done():
            return
        acknowledge = self._client.ack
        for mid in mids:
            acknowledge(mid, 1)
        self._write_on()

    def pause(self, paused: bool) -> None:
        """Stop or go on reading."""
        if paused and not self._paused:
            self._paused_since_s = time.monotonic()
        self._paused = paused
        if paused:
            self._read_off()
        elif self._socket is not None and not self.lost.done():
            self._read_on()
            self._loop.call_soon(self._readable)

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write what is still to be written, say DISCONNECT, and close. Never raises."""
        self._read_off()
        deadline_s = time.monotonic() + timeout_s
        if not self.lost.done() and self._client.is_connected():
            self._client.disconnect()
            while self._client.want_write() and not self.lost.done() and time.monotonic() < deadline_s:
                self._write_on()
                await asyncio.sleep(0.005)
        self._lose(SourceError("closed"))
        self._close_socket()

    # --- paho's callbacks, all on the loop

    def _make_client(self, client_id: str) -> Client:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise SourceError(
                'a source of type "mqtt" needs the package paho-mqtt, version 2',
                'pip install "ringmain[mqtt]"',
            ) from None
        five = self._settings.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else False,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._settings.seconds("connect_timeout")
        if self._broker.user is not None:
            client.username_pw_set(
                self._broker.user, password(self._broker, self._settings.password_file, self._directory)
            )
        if self._broker.tls:
            client.tls_set_context(tls_context(self._settings.tls, self._directory))
        client.disable_logger()
        client.on_connect = self._on_connect
        client.on_socket_close = self._on_socket_close
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_reply
        client.on_unsubscribe = self._on_reply
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._lose(
                SourceError(
                    f"{self._broker.address}: the broker refused the connection ({code})", remedy(code.value)
                )
            )
        elif not self._connected.done():
            self._connected.set_result(bool(flags.session_present))

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        problem = f"{self._broker.address}: the connection was lost ({code})"
        if self._paused and getattr(code, "value", 0) != 142:
            paused_s = time.monotonic() - self._paused_since_s
            problem += f", after nothing had been read for {paused_s:.0f} s because the log took nothing"
        self._lose(SourceError(problem, remedy(getattr(code, "value", 0))))

    def _on_socket_close(self, client: Client, userdata: Any, sock: Any) -> None:
        self._read_off()
        self._write_off()

    def _on_reply(self, client: Client, userdata: Any, mid: int, codes: list[Any], properties: Any) -> None:
        reply = self._replies.pop(mid, None)
        if reply is not None and not reply.done():
            reply.set_result(codes)

    def _on_message(self, client: Client, userdata: Any, message: Any) -> None:
        burst = self._burst
        try:
            topic: str = message.topic
        except UnicodeDecodeError as error:
            topic = bytes(error.object).decode("utf-8", "replace")
        payload: bytes = message.payload
        burst.topics.append(topic)
        burst.payloads.append(payload)
        burst.mids.append(message.mid if message.qos else 0)
        burst.retained.append(message.retain)
        burst.size_bytes += len(payload)

    # --- input and output

    def _readable(self) -> None:
        """Read until there is nothing more or the burst is full, then hand the burst over."""
        client, burst, sock = self._client, self._burst, self._socket
        pending = sock.pending if isinstance(sock, ssl.SSLSocket) else None
        while not self._paused and not self.lost.done():
            before = len(burst.topics)
            if client.loop_read() != 0:
                self._lose(
                    SourceError(f"{self._broker.address}: the connection was lost", "check the broker")
                )
                break
            came = len(burst.topics) > before
            if len(burst.topics) >= BURST_MESSAGES_MAX or burst.size_bytes >= BURST_BYTES_MAX:
                if pending is not None:
                    self._loop.call_soon(self._readable)
                break
            if not came and (pending is None or not pending()):
                break
        if burst.topics:
            self._burst = Burst()
            self._on_burst(burst)
        self._write_on()

    def _writable(self) -> None:
        self._client.loop_write()
        if not self._client.want_write():
            self._write_off()

    def _probe(self) -> None:
        """Once a second: keep-alive."""
        if self.lost.done():
            return
        self._client.loop_misc()
        self._write_on()
        self._timer = self._loop.call_later(_PROBE_S, self._probe)

    def _read_on(self) -> None:
        if not self._reading and not self._paused and self._socket is not None:
            self._loop.add_reader(self._socket, self._readable)
            self._reading = True

    def _read_off(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def _write_on(self) -> None:
        if (
            not self._writing
            and not self.lost.done()
            and self._client.want_write()
            and self._client.socket() is not None
        ):
            self._loop.add_writer(self._socket, self._writable)
            self._writing = True

    def _write_off(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False

    def _close_socket(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    # --- waiting

    async def _request(self, send: Callable[[], tuple[Any, int | None]], answer: str) -> list[Any]:
        code, mid = send()
        if mid is None:
            raise SourceError(f"{self._broker.address}: nothing could be sent ({code})", "check the broker")
        reply: asyncio.Future[list[Any]] = self._loop.create_future()
        self._replies[mid] = reply
        self._write_on()
        await self._either(reply, self._settings.seconds("connect_timeout"), answer)
        return reply.result()

    async def _either(self, answer: asyncio.Future[Any], timeout_s: float, name: str) -> None:
        """Wait for an answer; raise the reason of the loss if that comes first."""
        ends: list[asyncio.Future[Any]] = [answer, self.lost]
        await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return
        if self.lost.done():
            raise self.lost.result()
        raise SourceError(
            f"{self._broker.address}: expected {name} within {timeout_s:g} s, found none",
            "check that an MQTT broker answers there",
        )

    def _lose(self, error: SourceError) -> None:
        if self.lost.done():
            return
        self._read_off()
        self._write_off()
        if self._timer is not None:
            self._timer.cancel()
        self.lost.set_result(error)


async def _in_thread(work: Callable[[], None], undo: Callable[[], None]) -> None:
    """Run blocking work in a thread of its own; raises what it raised.

    Nobody waits for the thread when this is cancelled: it undoes its work when it is through.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if result.done():
            undo()
        elif error is None:
            result.set_result(None)
        else:
            result.set_exception(error)

    def main() -> None:
        try:
            work()
            error = None
        except Exception as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:  # the loop has closed meanwhile
            undo()

    threading.Thread(target=main, name="mqtt-connect", daemon=True).start()
    await result
