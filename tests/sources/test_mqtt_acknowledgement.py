"""No acknowledgement leaves before what it acknowledges is durable; shown through the log's file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from ringmain.runtime.status import SourceState
from ringmain.sources.mapping import Mapped, Mapper, MapSettings
from ringmain.sources.mqtt_codes import PacketType, Reason, Version
from ringmain.sources.mqtt_packets import Connack, Connect, Disconnect, Ping, Publish, Reply, Will
from tests.sources.mqtt_rig import METERS, Listening, reading, until

ACK, REC, REL, COMP = PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP


@pytest.fixture(params=["auto", "off"])
def listening(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Listening]:
    """A listener with and without the compiled path."""
    with Listening(tmp_path / "data", fast=request.param) as listening:
        yield listening


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_acknowledged_before_the_sync_that_covers_it_returned(
    listening: Listening, qos: int
) -> None:
    # The page cache survives kill -9: only the file system itself can tell whether an acknowledgement came too early.
    peer = listening.client()
    peer.publish(1, 1, 1)
    peer.expect(Reply(ACK, 1))
    listening.disk.hold()
    peer.send(*(reading(n, qos, n) for n in range(2, 50)))
    assert listening.disk.waiting.wait(60)
    assert peer.silent()
    syncs = listening.disk.syncs
    listening.disk.release()
    kind = ACK if qos == 1 else REC
    peer.expect(*(Reply(kind, n) for n in range(2, 50)))
    assert listening.disk.syncs > syncs


def test_a_release_at_qos_2_is_answered_after_its_sync(listening: Listening) -> None:
    peer = listening.client(clean=False)
    peer.publish(1, 2, 9)
    peer.expect(Reply(REC, 9))
    listening.disk.hold()
    peer.send(Reply(REL, 9))
    assert listening.disk.waiting.wait(60)
    assert peer.silent()
    listening.disk.release()
    peer.expect(Reply(COMP, 9))
    assert listening.positions().keys() == {"session/device"}


def test_a_persistent_session_is_answered_after_its_sync(listening: Listening) -> None:
    peer = listening.peer()
    listening.disk.hold()
    peer.send(Connect(Version.V311, "device", clean=False), Ping(PacketType.PINGREQ))
    assert listening.disk.waiting.wait(60)
    assert peer.silent()
    listening.disk.release()
    peer.expect(Connack(False, 0), Ping(PacketType.PINGRESP))


def test_a_message_that_maps_to_nothing_is_acknowledged_with_a_durable_letter(listening: Listening) -> None:
    peer = listening.client()
    listening.disk.hold()
    peer.send(Publish("meters/m1/p", b"not JSON", 1, 1), Publish("elsewhere", b"1", 2, 2), reading(3, 1, 3))
    assert listening.disk.waiting.wait(60)
    assert peer.silent()
    listening.disk.release()
    peer.expect(Reply(ACK, 1), Reply(REC, 2), Reply(ACK, 3))
    assert [(letter["topic"], letter["payload"]) for letter in listening.letters()] == [
        ("meters/m1/p", b"not JSON"),
        ("elsewhere", b"1"),
    ]
    assert listening.values() == [3]


def test_a_stopping_listener_stores_and_acknowledges_what_it_took_and_says_why_it_leaves(
    tmp_path: Path,
) -> None:
    listening = Listening(tmp_path / "data")
    with listening:
        old, new = listening.client("old"), listening.client("new", version=Version.V5, will=Will("a", b""))
        listening.disk.hold()
        old.publish(1)
        new.publish(2)
        assert listening.disk.waiting.wait(60)
    assert old.rest() == [Reply(ACK, 1)]
    assert new.rest() == [Reply(ACK, 1), Disconnect(Reason.SERVER_SHUTTING_DOWN)]


class Defective(Mapper):
    """The real mapping, with a defect that one value brings out."""

    def map(self, topics: Sequence[str], payloads: Sequence[bytes], arrival_ns: int) -> Mapped:
        if any(b"13" in payload for payload in payloads):
            raise RuntimeError("a defect")
        return super().map(topics, payloads, arrival_ns)


def test_a_defect_of_the_mapping_acknowledges_nothing_and_the_listener_starts_again(tmp_path: Path) -> None:
    listening = Listening(tmp_path / "data", fast="off")
    listening.source._mapper = Defective("field", [msgspec.convert(METERS, MapSettings)], listening.registry)
    with listening:
        peer = listening.client()
        peer.publish(1, 1, 1)
        peer.expect(Reply(ACK, 1))
        peer.send(reading(2, 1, 2), reading(13, 1, 3), reading(4, 1, 4))
        assert peer.rest() == []
        until(lambda: listening.supervisor.statuses()[0].restarts == 1, "the next start")
        until(lambda: listening.supervisor.statuses()[0].state is SourceState.RUNNING, "its success")
        listening.port = int(listening.supervisor.statuses()[0].address.rpartition(":")[2])
        again = listening.client()
        again.send(reading(2, 1, 2, dup=True), reading(4, 1, 4, dup=True))
        again.expect(Reply(ACK, 2), Reply(ACK, 4))
        assert listening.values() == [1, 2, 4]
