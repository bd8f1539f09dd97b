"""QoS 2 over kill -9 of the node: every message that a device was promised is stored, and stored once."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from ringmain.log import open_reader
from ringmain.sources.mqtt_codes import PacketType, Version
from ringmain.sources.mqtt_packets import Packet, Publish, Reply
from ringmain.sources.mqtt_properties import Properties
from tests.node.running import RunningNode
from tests.sources.mqtt_rig import Peer, reading

CONFIGURATION = """
[node]
name = "kill"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:0"

[[sources.field.map]]
topic  = "meters/{meter}/{quantity}"
series = "{meter}/{quantity}"
time   = "t"
value  = "v"
"""
WINDOW = 20
KILLS = 4


class Device(threading.Thread):
    """Publishes 1, 2, 3 ... at QoS 2 in a lasting session, and after each loss of connection sends again what the
    standard says (4.4): PUBLISH that has no PUBREC, PUBREL that has no PUBCOMP."""

    def __init__(self, version: Version) -> None:
        super().__init__(daemon=True)
        self.version = version
        self.port = 0
        self.stopping = threading.Event()
        self.unacknowledged: dict[int, Publish] = {}
        self.unreleased: set[int] = set()
        self.completed: list[float] = []
        self.values: dict[int, float] = {}
        self.last = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not (self.stopping.is_set() and not self.values):
                try:
                    self._connection()
                except (OSError, AssertionError):
                    time.sleep(0.02)
        except BaseException as error:
            self.failure = error

    def _connection(self) -> None:
        lasting = Properties(session_expiry_s=3600) if self.version is Version.V5 else Properties()
        with Peer(self.port, version=self.version) as peer:
            present = peer.connect("device", clean=False, properties=lasting).session_present
            if self.last and not present:
                self.failure = RuntimeError("the node has forgotten the session")
            again: list[Packet] = [self._again(packet) for packet in self.unacknowledged.values()]
            peer.send(*again, *(Reply(PacketType.PUBREL, packet_id) for packet_id in sorted(self.unreleased)))
            while not (self.stopping.is_set() and not self.values):
                new = []
                while len(self.values) < WINDOW and not self.stopping.is_set():
                    self.last += 1
                    packet_id = next(n for n in range(1, 100) if n not in self.values)
                    self.values[packet_id] = float(self.last)
                    self.unacknowledged[packet_id] = reading(self.last, 2, packet_id)
                    new.append(self.unacknowledged[packet_id])
                peer.send(*new)
                self._take(peer, peer.reply())

    def _take(self, peer: Peer, reply: Reply) -> None:
        if reply.type is PacketType.PUBREC:
            self.unacknowledged.pop(reply.packet_id, None)
            self.unreleased.add(reply.packet_id)
            peer.send(Reply(PacketType.PUBREL, reply.packet_id))
        elif reply.packet_id in self.unreleased:
            self.unreleased.discard(reply.packet_id)
            self.completed.append(self.values.pop(reply.packet_id))

    @staticmethod
    def _again(packet: Publish) -> Publish:
        return Publish(packet.topic, packet.payload, 2, packet.packet_id, dup=True)


def test_every_message_at_qos_2_is_stored_once_over_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    device = Device(Version.V311)
    node = RunningNode(tmp_path / "node", CONFIGURATION)
    device.port = node.port("field")
    device.start()
    for _ in range(KILLS):
        target = len(device.completed) + chance.randrange(20, 200)
        deadline = time.monotonic() + 100
        while len(device.completed) < target:
            assert device.failure is None, device.failure
            assert time.monotonic() < deadline, node.stderr()
            time.sleep(0.001)
        node.kill()
        node = RunningNode(tmp_path / "node", CONFIGURATION)
        device.port = node.port("field")
    device.stopping.set()
    device.join(60)
    assert not device.is_alive()
    assert device.failure is None, device.failure
    assert node.stop() == 0
    reader = open_reader(tmp_path / "node" / "data")
    stored = [value for frame in reader.read("readings") for value in frame.rows.column("value").to_pylist()]
    reader.close()
    assert sorted(stored) == [float(n) for n in range(1, device.last + 1)]
    assert sorted(device.completed) == sorted(stored)
