"""One connection to a real broker: what is paused is not read, what is not on it is not acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import publish as paho_publish

from ringmain.sources.mqtt_client_connection import BURST_MESSAGES_MAX, Burst, Connection
from ringmain.sources.mqtt_client_settings import MqttSettings, parse_url
from tests.conftest import Mosquitto

pytestmark = pytest.mark.mosquitto
Start = Callable[..., Mosquitto]


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (conditions of another process)
            await asyncio.sleep(0.002)


def connection(broker: Mosquitto, take: Callable[[Burst], None], **changed: Any) -> Connection:
    given = {"url": broker.url, "topics": ["t"], "map": "field", **changed}
    settings = msgspec.convert(given, MqttSettings)
    return Connection(parse_url(settings.url), settings, "one", Path(), take)


async def publish(broker: Mosquitto, count: int, qos: int = 1) -> None:
    messages = [("t", str(number), qos, False) for number in range(count)]
    await asyncio.to_thread(paho_publish.multiple, messages, hostname="127.0.0.1", port=broker.port)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_paused_is_read_when_it_goes_on(mosquitto: Start, protocol: str) -> None:
    broker = mosquitto("max_inflight_messages 0")

    async def scenario() -> None:
        bursts: list[Burst] = []
        conn = connection(broker, bursts.append, protocol=protocol)
        conn.pause(True)
        conn.pause(False)
        assert await conn.open() is False
        assert await conn.subscribe(["t"], 1) == []
        conn.pause(True)
        await publish(broker, 3000)
        await until(lambda: broker.log.count("Sending PUBLISH to one") >= 100)
        assert bursts == []
        conn.pause(False)
        await until(lambda: sum(len(burst.topics) for burst in bursts) >= 2000)
        assert all(len(burst.topics) <= BURST_MESSAGES_MAX for burst in bursts)
        for burst in bursts:
            conn.acknowledge(burst.mids)
        await until(lambda: sum(len(burst.topics) for burst in bursts) == 3000)
        payloads = [payload for burst in bursts for payload in burst.payloads]
        assert payloads == [str(number).encode() for number in range(3000)]
        await conn.close()

    asyncio.run(scenario())


def test_a_pause_longer_than_the_keep_alive_ends_with_the_reason(mosquitto: Start) -> None:
    broker = mosquitto()

    async def scenario() -> None:
        conn = connection(broker, lambda burst: None, keep_alive="1s")
        await conn.open()
        conn.pause(True)
        async with asyncio.timeout(20):
            error = await conn.lost
        assert "because the log took nothing" in str(error)
        await conn.close()

    asyncio.run(scenario())


def test_messages_of_a_lost_connection_are_not_acknowledged_and_come_again(mosquitto: Start) -> None:
    broker = mosquitto()

    async def scenario() -> None:
        first: list[Burst] = []
        old = connection(broker, first.append)
        await old.open()
        await old.subscribe(["t"], 1)
        await publish(broker, 3)
        await until(lambda: sum(len(burst.topics) for burst in first) == 3)
        await old.close()
        again: list[Burst] = []
        new = connection(broker, again.append)
        assert await new.open() is True
        for burst in first:
            old.acknowledge(burst.mids)
        await until(lambda: sum(len(burst.topics) for burst in again) == 3)
        assert "Received PUBACK" not in broker.log
        await new.close()

    asyncio.run(scenario())


def test_a_message_of_qos_0_has_nothing_to_acknowledge(mosquitto: Start) -> None:
    broker = mosquitto()

    async def scenario() -> None:
        bursts: list[Burst] = []
        conn = connection(broker, bursts.append)
        await conn.open()
        await conn.subscribe(["t"], 1)
        await publish(broker, 1, qos=0)
        await until(lambda: len(bursts) == 1)
        assert bursts[0].mids == [0]
        await conn.close()

    asyncio.run(scenario())


def test_large_messages_end_a_burst_early(mosquitto: Start) -> None:
    broker = mosquitto("max_inflight_messages 0")

    async def scenario() -> None:
        bursts: list[Burst] = []
        conn = connection(broker, bursts.append)
        await conn.open()
        await conn.subscribe(["t"], 1)
        large = [("t", bytes(5_000_000), 1, False)] * 4
        await asyncio.to_thread(paho_publish.multiple, large, hostname="127.0.0.1", port=broker.port)
        await until(lambda: sum(len(burst.topics) for burst in bursts) == 4)
        assert max(len(burst.topics) for burst in bursts) <= 2
        await conn.close()

    asyncio.run(scenario())
