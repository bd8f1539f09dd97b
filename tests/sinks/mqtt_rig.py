"""A subscriber that remembers, and a line to a broker that a test can cut."""

from __future__ import annotations

import contextlib
import socket
import threading

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import Mosquitto, wait_until


class Subscriber:
    """Subscribed to everything of a broker at QoS 1; `messages` are (topic, payload, retained) as they came."""

    def __init__(self, broker: Mosquitto, topics: str = "#") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=True)
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._client.subscribe(topics, 1)
        assert self._subscribed.wait(60)

    def wait(self, count: int) -> None:
        wait_until(
            lambda: len(self.messages) >= count, what=f"{count} messages, there are {len(self.messages)}"
        )

    def close(self) -> None:
        self._client.disconnect()  # its thread ends by itself


class Line:
    """Forwards connections to a broker; `cut` breaks those that there are. `after_bytes`: breaks each by itself."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.after_bytes: int | None = None
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                theirs = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open += [ours, theirs]
                    self.connections += 1
                threading.Thread(target=self._forward, args=(ours, theirs, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(theirs, ours, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
                passed += len(data)
                if counted and self.after_bytes is not None and passed >= self.after_bytes:
                    break
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
