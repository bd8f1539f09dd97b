"""The publisher against a real broker: window, order, lost connections, resends with DUP."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import paho.mqtt.client as paho
import pytest

from ringmain.sim.publisher import Publisher, remaining_length, topic_field

pytestmark = pytest.mark.mosquitto


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


class Witness:
    """A foreign subscriber to everything."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.subscribed = False
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="witness")
        self.client.on_message = lambda _c, _u, message: self.received.append(
            (message.topic, message.payload)
        )
        self.client.on_subscribe = self._on_subscribe
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#", qos=1)
        self.client.loop_start()

    def _on_subscribe(self, *_: Any) -> None:
        self.subscribed = True

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_every_message_arrives_once_in_order_and_is_acknowledged_once(mosquitto: Any) -> None:
    broker = mosquitto("max_inflight_messages 0")
    sent = [(f"meters/m{n % 3}/power", b"x" * n) for n in range(700)]

    async def scenario() -> tuple[list[int], list[tuple[str, bytes]]]:
        acknowledged: list[int] = []
        publisher = Publisher[int]("gw", "127.0.0.1", broker.port, acknowledged.append, window=20)
        with closing(Witness(broker.port)) as witness:
            await until(lambda: witness.subscribed, "subscription")
            publisher.start()
            for n, (topic, payload) in enumerate(sent):
                publisher.publish(topic_field(topic), payload, n)
            await publisher.drained()
            await until(lambda: len(witness.received) == len(sent), "all messages")
            await publisher.close()
            return acknowledged, witness.received

    acknowledged, received = asyncio.run(scenario())
    assert acknowledged == list(range(700))
    assert received == sent


def test_after_a_broker_died_the_unacknowledged_go_again_with_dup_and_nothing_is_missing(
    mosquitto: Any,
) -> None:
    broker = mosquitto()

    async def scenario() -> Publisher[int]:
        acknowledged: list[int] = []
        resent: list[int] = []
        publisher = Publisher[int](
            "gw",
            "127.0.0.1",
            broker.port,
            acknowledged.append,
            resent=resent.append,
            window=20,
            backoff_s=(0.02, 0.1),
        )
        publisher.start()
        await until(lambda: publisher.connected, "connection")
        broker._process.send_signal(signal.SIGSTOP)
        for n in range(100):
            publisher.publish(topic_field("meters/a/power"), b"%d" % n, n)
        publisher.flush()
        assert publisher.backlog == 100
        broker.stop(signal.SIGKILL)
        await until(lambda: not publisher.connected, "lost connection")
        broker.start()
        await publisher.drained()
        assert resent == list(range(20))
        assert acknowledged == list(range(100))
        await publisher.close()
        return publisher

    publisher = asyncio.run(scenario())
    assert (publisher.connections.resent, publisher.connections.losses, publisher.connections.connects) == (
        20,
        1,
        2,
    )
    received = [line for line in broker.log.splitlines() if "Received PUBLISH from gw" in line]
    assert sum("(d1, q1" in line for line in received) == 20
    assert sum("(d0, q1" in line for line in received) == 80


def test_a_device_that_went_away_sends_what_it_queued_when_it_comes_back_and_nothing_twice(
    mosquitto: Any,
) -> None:
    broker = mosquitto()

    async def scenario() -> None:
        acknowledged: list[int] = []
        publisher = Publisher[int](
            "ss-02", "127.0.0.1", broker.port, acknowledged.append, backoff_s=(0.02, 0.1)
        )
        publisher.start()
        for n in range(50):
            publisher.publish(topic_field("a"), b"", n)
        publisher.flush()
        await until(lambda: publisher.connected, "connection")
        await publisher.go_away()
        await until(lambda: not publisher.connected, "disconnection")
        for n in range(50, 300):
            publisher.publish(topic_field("a"), b"", n)
            publisher.flush()
        before = len(acknowledged)
        publisher.come_back()
        await publisher.drained()
        assert before == 50
        assert acknowledged == list(range(300))
        assert (publisher.connections.resent, publisher.connections.losses) == (0, 0)
        await publisher.close()

    asyncio.run(scenario())


def test_a_refusal_is_told_and_the_publisher_keeps_trying(mosquitto: Any) -> None:
    broker = mosquitto("allow_anonymous false")

    async def scenario() -> None:
        publisher = Publisher[int]("gw", "127.0.0.1", broker.port, lambda _: None, backoff_s=(0.01, 0.02))
        publisher.start()
        await until(lambda: "CONNACK 5: not authorised" in publisher.connections.last_error, "the refusal")
        publisher.connections.last_error = ""
        await until(lambda: "CONNACK 5" in publisher.connections.last_error, "another attempt")
        assert not publisher.connected
        await publisher.close()

    asyncio.run(scenario())


def test_a_server_that_speaks_something_else_is_left(mosquitto: Any) -> None:
    async def scenario() -> None:
        async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 200)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(speak_http, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        publisher = Publisher[int]("gw", "127.0.0.1", port, lambda _: None)
        publisher.start()
        await until(
            lambda: "expected CONNACK, PUBACK or PINGRESP" in publisher.connections.last_error, "error"
        )
        await publisher.close()
        server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
    ],
)
def test_lengths_are_encoded_as_the_standard_shows(length: int, encoded: bytes) -> None:
    assert remaining_length(length) == encoded


def test_nobody_listening_is_told(mosquitto: Any) -> None:
    async def scenario() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            publisher = Publisher[int]("gw", "127.0.0.1", bound.getsockname()[1], lambda _: None)
            publisher.start()
            await until(lambda: "Connect call failed" in publisher.connections.last_error, "error")
            await publisher.close()

    asyncio.run(scenario())
