"""QoS 2 through kills of the node, from a client that is not ours: every message is a reading exactly once."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import free_port, wait_until
from tests.node.running import RunningNode
from tests.node.stored import assert_no_traceback, configuration, query

KILLS = 6
RATE = 400.0
START_MS = 1_767_225_600_000


class Paho:
    """A paho client with a lasting session; counts what completed.

    It is told when to connect again: of two attempts of its own the second forgets that PUBREL was sent, and it
    then sends the PUBLISH once more, which MQTT forbids (4.3.3) and no receiver can tell from a new message.
    Nothing is published meanwhile: `loop_start` replaces the socket pair that wakes the loop, and a thread that
    is just writing to the old one gets ConnectionResetError from `publish`.
    """

    def __init__(self, port: int, client_id: str, version: int) -> None:
        self.client_id = client_id
        self.completed: set[int] = set()
        self._sent = 0
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        if version == paho.MQTTv5:
            self.client = paho.Client(
                CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False
            )
        else:
            self.client = paho.Client(
                CallbackAPIVersion.VERSION2,
                client_id,
                protocol=version,
                clean_session=False,
                reconnect_on_failure=False,
            )
        self.client.max_inflight_messages_set(100)
        self.client.on_publish = self._on_publish
        if version == paho.MQTTv5:
            properties = paho.Properties(paho.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            self.client.connect("127.0.0.1", port, 300, clean_start=False, properties=properties)
        else:
            self.client.connect("127.0.0.1", port, 300)
        self.client.loop_start()

    def connect_again(self) -> None:
        """After the node has come back."""
        with self._publishing:
            self.client.loop_stop()
            self.client.reconnect()
            self.client.loop_start()

    def _on_publish(self, _client: paho.Client, _data: object, mid: int, *_: object) -> None:
        with self._lock:
            self.completed.add(mid)

    def publish(self, number: int) -> None:
        payload = json.dumps({"t": START_MS + number, "v": number})
        with self._publishing:
            self.client.publish(f"meters/{self.client_id}/power", payload, 2)

    @property
    def done(self) -> int:
        with self._lock:
            return len(self.completed)


@pytest.mark.timeout(300)
def test_no_message_of_qos_2_is_stored_twice_or_lost_through_kills(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    port = free_port()
    text = configuration(port=port, http=free_port())
    node = RunningNode(tmp_path, text)
    clients = [Paho(port, "three", paho.MQTTv311), Paho(port, "five", paho.MQTTv5)]
    enough = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not enough.is_set():
            for client in clients:
                client.publish(sent)
            sent += 1
            enough.wait(1 / RATE)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        for _ in range(KILLS):
            before = sum(client.done for client in clients)
            wait_until(lambda: sum(c.done for c in clients) > before + 200, 60, "completed messages")  # noqa: B023
            threading.Event().wait(chance.uniform(0.0, 0.3))
            node.kill()
            node = RunningNode(tmp_path, text)
            for client in clients:
                client.connect_again()
        enough.set()
        sender.join()
        wait_until(lambda: all(client.done == sent for client in clients), 60, "every message completed")
        assert node.stop() == 0
    finally:
        enough.set()
        for client in clients:
            client.client.loop_stop()
        node.kill()
    assert_no_traceback(node)
    for client in clients:
        rows = query(
            tmp_path / "data",
            "select value, count(*) as n, min(epoch_ms(time)) as ms from readings "
            f"where series = '{client.client_id}/power' group by value order by value",
        )
        twice = [row for row in rows if row["n"] != 1]
        assert not twice, (
            f"{len(twice)} readings of {client.client_id!r} are there more than once: {twice[:5]}"
        )
        assert [row["value"] for row in rows] == [float(number) for number in range(sent)]
        assert all(row["ms"] == START_MS + row["value"] for row in rows)
    assert query(tmp_path / "data", "select count(*) as n from deadletters") == [{"n": 0}]
