"""One connection to an MQTT broker for publishing: messages out, acknowledgements in, in order.

paho-mqtt keeps the protocol on a thread of its own. A connection lives once: what it had not acknowledged when it was
lost is published again on the next one, from the first such message on, so that the order of each topic stays. The session
is clean: nothing is left to the library to send again.
"""

from __future__ import annotations

import ssl
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringmain.runtime.mqtt_broker import Broker, MqttTlsSettings, password, remedy, tls_context
from ringmain.runtime.sink import SinkError

if TYPE_CHECKING:
    from paho.mqtt.client import Client


class PublishConnection:
    """Connected when made. Raises SinkError. Calls on one thread, but for paho's own."""

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        protocol: str,
        directory: Path,
        password_file: str | None,
        tls: MqttTlsSettings | None,
        keep_alive_s: int,
        connect_timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._broker = broker
        self._changed = threading.Condition()
        self._connected: int | None = None
        self._lost: str | None = None
        self._acknowledged: dict[int, int] = {}
        self._sent: deque[int] = deque()
        self._stopping = stopping
        self._client = self._make(client_id, protocol)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, password(broker, password_file, directory))
        if broker.tls:
            self._client.tls_set_context(tls_context(tls, directory))
        self._client.connect_timeout = connect_timeout_s
        self._connect(keep_alive_s, connect_timeout_s)

    def _make(self, client_id: str, protocol: str) -> Client:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise SinkError(
                'a sink of type "publish" needs the package paho-mqtt, version 2',
                'pip install "ringmain[mqtt]"',
            ) from None
        five = protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else True,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(65_535)
        client.max_queued_messages_set(0)
        client.disable_logger()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _connect(self, keep_alive_s: int, timeout_s: float) -> None:
        address = self._broker.address
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=keep_alive_s)
        except ssl.SSLCertVerificationError as error:
            raise SinkError(
                f"{address}: the broker's certificate is not trusted ({error.verify_message})",
                "give its authority as `tls.ca`, and the host name that the certificate is for in `url`",
            ) from None
        except ssl.SSLError as error:
            raise SinkError(
                f"{address}: no TLS connection ({error.reason or error})",
                "check that this port speaks TLS, and whether the broker wants a client certificate",
            ) from None
        except (OSError, ValueError) as error:
            raise SinkError(
                f"{address}: expected a broker, found {error}", "check that it runs, and `url`"
            ) from None
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._connected is not None or self._lost is not None or self._stopping.is_set(),
                timeout_s,
            )
            code, lost = self._connected, self._lost
        if code != 0 or lost is not None:
            self.close()
            if code:
                raise SinkError(f"{address}: the broker refused the connection (0x{code:02X})", remedy(code))
            raise SinkError(
                f"{address}: expected CONNACK within {timeout_s:g} s, found {lost or 'none'}",
                "check that an MQTT broker answers there",
            )

    @property
    def lost(self) -> str | None:
        """Why the connection is of no more use; None while it is."""
        return self._lost

    @property
    def in_flight(self) -> int:
        """Messages published and not settled."""
        return len(self._sent)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Send a message of QoS 1. Raises ConnectionError when the connection is lost."""
        info = self._client.publish(topic, payload, 1, retain)
        if info.rc != 0:
            self._lose(f"nothing can be sent ({info.rc})")
            raise ConnectionError(self._lost)
        self._sent.append(info.mid)

    def settled(self) -> list[int]:
        """Reason codes of the messages that were acknowledged, oldest first, without a gap; each is told once."""
        codes: list[int] = []
        with self._changed:
            while self._sent and self._sent[0] in self._acknowledged:
                codes.append(self._acknowledged.pop(self._sent.popleft()))
        return codes

    def wait(self, timeout_s: float) -> bool:
        """Wait until the oldest message is acknowledged, or the connection is lost; False when neither came."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._lost is not None or not self._sent or self._sent[0] in self._acknowledged,
                timeout_s,
            )

    def close(self) -> None:
        """Say goodbye, and let go of the connection. Idempotent."""
        self._lose("it was closed")
        self._client.disconnect()
        self._client.loop_stop()

    # --- paho's callbacks, on its thread

    def _on_connect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        with self._changed:
            self._connected = int(code.value) if code.is_failure else 0
            self._changed.notify_all()

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        self._lose(f"the connection was lost ({code})")

    def _on_publish(self, client: Client, userdata: Any, mid: int, code: Any, properties: Any) -> None:
        with self._changed:
            self._acknowledged[mid] = int(getattr(code, "value", 0))
            self._changed.notify_all()

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = self._lost or reason
            self._changed.notify_all()
