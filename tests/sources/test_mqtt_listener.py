"""What an MQTT listener promises its devices: acknowledgements, QoS 2, sessions, wills, errors by the standard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmain.model.quality import Quality
from ringmain.sources.mqtt_codes import PacketType, Reason, Version
from ringmain.sources.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    Reply,
    Subscribe,
    SubscribeReply,
    Unsubscribe,
    Will,
)
from ringmain.sources.mqtt_properties import Properties
from tests.sources.mqtt_rig import Listening, Peer, reading, until

ACK, REC, REL, COMP = PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP
VERSIONS = pytest.mark.parametrize("version", list(Version))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with Listening(tmp_path / "data") as listening:
        yield listening


@VERSIONS
def test_a_reading_at_qos_1_is_stored_and_acknowledged(listening: Listening, version: Version) -> None:
    peer = listening.client(version=version)
    peer.publish(1.5, packet_id=7)
    peer.expect(Reply(ACK, 7))
    (stored,) = listening.readings()
    assert stored == ("m1/p", 1_700_000_000_001_000_000, 1.5, 0)


@VERSIONS
def test_messages_at_qos_0_are_stored_and_counted(listening: Listening, version: Version) -> None:
    peer = listening.client(version=version)
    peer.send(*(reading(n, 0) for n in range(100)), Ping(PacketType.PINGREQ))
    peer.expect(Ping(PacketType.PINGRESP))
    until(lambda: listening.values() == list(range(100)), "100 readings")
    assert listening.count("messages_total", "0") == 100


@VERSIONS
def test_a_repeat_at_qos_2_counts_once(listening: Listening, version: Version) -> None:
    peer = listening.client(version=version)
    peer.publish(1, 2, 5)
    peer.publish(1, 2, 5, dup=True)
    peer.expect(Reply(REC, 5), Reply(REC, 5))
    peer.send(Reply(REL, 5))
    peer.expect(Reply(COMP, 5))
    peer.publish(2, 2, 5)
    peer.expect(Reply(REC, 5))
    assert listening.values() == [1, 2]


@VERSIONS
def test_a_repeat_at_qos_2_after_a_reconnect_counts_once(listening: Listening, version: Version) -> None:
    lasting = Properties(session_expiry_s=3600) if version is Version.V5 else Properties()
    peer = listening.client("meter/1", version=version, clean=False, properties=lasting)
    peer.send(reading(1, 2, 5), reading(2, 2, 6))
    peer.expect(Reply(REC, 5), Reply(REC, 6))
    peer.close()
    again = listening.peer(version=version)
    assert again.connect("meter/1", clean=False, properties=lasting).session_present
    again.publish(1, 2, 5, dup=True)
    again.expect(Reply(REC, 5))
    again.send(Reply(REL, 5), Reply(REL, 6))
    again.expect(Reply(COMP, 5), Reply(COMP, 6))
    assert listening.values() == [1, 2]


@VERSIONS
def test_a_repeat_at_qos_2_after_a_restart_counts_once(tmp_path: Path, version: Version) -> None:
    lasting = Properties(session_expiry_s=3600) if version is Version.V5 else Properties()
    client_id = "ä" * 100  # too long for the name of a position
    with Listening(tmp_path / "data") as before:
        peer = before.client(client_id, version=version, clean=False, properties=lasting)
        peer.send(reading(1, 2, 5), reading(2, 2, 6))
        peer.expect(Reply(REC, 5), Reply(REC, 6))
        peer.send(Reply(REL, 6))
        peer.expect(Reply(COMP, 6))
    with Listening(tmp_path / "data") as after:
        again = after.peer(version=version)
        assert again.connect(client_id, clean=False, properties=lasting).session_present
        again.publish(1, 2, 5, dup=True)
        again.publish(3, 2, 6)
        again.expect(Reply(REC, 5), Reply(REC, 6))
        assert after.values() == [1, 2, 3]


def test_a_clean_start_forgets_the_session_for_good(tmp_path: Path) -> None:
    with Listening(tmp_path / "data") as before:
        peer = before.client(clean=False)
        peer.publish(1, 2, 5)
        peer.expect(Reply(REC, 5))
        assert not before.peer().connect("device", clean=True).session_present
        until(lambda: not before.positions(), "the positions' removal")
    with Listening(tmp_path / "data") as after:
        assert not after.peer().connect("device", clean=False).session_present


def test_a_release_of_an_unknown_identifier_says_so_in_5(listening: Listening) -> None:
    peer = listening.client(version=Version.V5)
    peer.send(Reply(REL, 99))
    peer.expect(Reply(COMP, 99, Reason.PACKET_IDENTIFIER_NOT_FOUND))


def test_a_session_ends_when_its_expiry_is_over(listening: Listening) -> None:
    properties = Properties(session_expiry_s=1)
    peer = listening.client(version=Version.V5, properties=properties)
    assert listening.count("sessions") == 1
    peer.close()
    until(lambda: listening.count("sessions") == 0, "the session's end")
    until(lambda: not listening.positions(), "the positions' removal")


def test_sessions_of_absent_clients_are_bounded(tmp_path: Path) -> None:
    with Listening(tmp_path / "data", max_sessions=3) as listening:
        for n in range(6):
            listening.client(f"device-{n}", clean=False).close()
            until(lambda n=n: listening.count("ended_total", "lost") == n + 1, "the end")  # type: ignore[misc]
        assert listening.count("sessions_evicted_total") == 3
        until(
            lambda: set(listening.positions()) == {f"session/device-{n}" for n in (3, 4, 5)}, "three sessions"
        )


@VERSIONS
def test_a_second_connection_takes_over(listening: Listening, version: Version) -> None:
    first = listening.client(version=version)
    second = listening.client(version=version)
    assert first.rest() == ([Disconnect(Reason.SESSION_TAKEN_OVER)] if version is Version.V5 else [])
    second.publish(1)
    second.expect(Reply(ACK, 1))


def test_keep_alive_ends_a_silent_connection_and_publishes_its_will(listening: Listening) -> None:
    will = Will("status/gone", b"offline")
    peer = listening.client("m7", keep_alive_s=1, will=will)
    assert peer.rest() == []
    until(lambda: len(listening.events()) == 1, "the will")
    assert listening.count("ended_total", "keep_alive_timeout") == 1
    (event,) = listening.events()
    assert (event["type"], event["subject"]) == ("mqtt.will", "m7")
    assert event["data"] == {"client": "m7", "topic": "status/gone", "payload": "offline"}
    assert listening.letters() == []


def test_a_server_keep_alive_is_given_to_a_client_of_5_that_wants_none(listening: Listening) -> None:
    answer = listening.peer(version=Version.V5).connect("m7", keep_alive_s=0)
    assert answer.properties.server_keep_alive_s == 1200


def test_a_will_whose_topic_is_mapped_becomes_a_reading_too(listening: Listening) -> None:
    peer = listening.client("m7", will=Will("meters/m7/online", b'{"t": 1700000000, "v": 0}'))
    peer.close()
    until(lambda: listening.values() == [0], "the reading")
    assert [event["data"]["topic"] for event in listening.events()] == ["meters/m7/online"]


def test_a_will_is_not_published_after_disconnect(listening: Listening) -> None:
    peer = listening.client("m7", will=Will("status/gone", b"\xff"))
    peer.send(Disconnect())
    assert peer.rest() == []
    assert listening.count("ended_total", "normal") == 1
    with_will = listening.client("m7", version=Version.V5, will=Will("status/gone", b"\xff"))
    with_will.send(Disconnect(Reason.DISCONNECT_WITH_WILL))
    assert with_will.rest() == []
    until(lambda: len(listening.events()) == 1, "the second client's will")
    assert listening.events()[0]["data"]["payload_base64"] == "/w=="


def test_a_delayed_will_is_dropped_when_the_client_returns_in_time(listening: Listening) -> None:
    will = Will("status/gone", b"offline", properties=Properties(will_delay_s=3600))
    lasting = Properties(session_expiry_s=3600)
    first = listening.client("m7", version=Version.V5, clean=False, will=will, properties=lasting)
    first.close()
    until(lambda: listening.count("ended_total", "lost") == 1, "the end")
    second = listening.client("m7", version=Version.V5, clean=False, will=will, properties=lasting)
    second.close()
    until(lambda: listening.count("ended_total", "lost") == 2, "the second end")
    # a clean start ends the session, and with it the delay: exactly one will comes of the two
    listening.client("m7", version=Version.V5, clean=True)
    until(lambda: len(listening.events()) == 1, "the second will")
    assert listening.count("wills_total") == 1


def test_a_delayed_will_is_published_when_its_time_has_come(listening: Listening) -> None:
    will = Will("status/gone", b"offline", properties=Properties(will_delay_s=1))
    peer = listening.client("m7", version=Version.V5, will=will, properties=Properties(session_expiry_s=3600))
    peer.close()
    until(lambda: len(listening.events()) == 1, "the will")


@VERSIONS
def test_subscriptions_are_refused_in_words_of_the_protocol(listening: Listening, version: Version) -> None:
    peer = listening.client(version=version)
    code = Reason.NOT_AUTHORIZED if version is Version.V5 else 0x80
    peer.send(Subscribe(3, (("a/#", 1), ("b", 0))), Unsubscribe(4, ("a/#",)), reading(1))
    gone = (Reason.NO_SUBSCRIPTION_EXISTED,) if version is Version.V5 else ()
    peer.expect(
        SubscribeReply(PacketType.SUBACK, 3, (code, code)), SubscribeReply(PacketType.UNSUBACK, 4, gone)
    )
    peer.expect(Reply(ACK, 1))
    assert listening.count("subscriptions_refused_total") == 2


def test_topic_aliases_stand_for_their_topics(listening: Listening) -> None:
    peer = listening.client(version=Version.V5)
    alias = Properties(topic_alias=2)
    peer.send(
        reading(1, 1, 1, topic="meters/a/p", properties=alias),
        reading(2, 1, 2, topic="", properties=alias),
        reading(3, 1, 3, topic="meters/b/p", properties=alias),
        reading(4, 1, 4, topic="", properties=alias),
    )
    peer.expect(*(Reply(ACK, n) for n in (1, 2, 3, 4)))
    assert [r.series for r in listening.readings()] == ["a/p", "a/p", "b/p", "b/p"]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (reading(1, topic="", properties=Properties(topic_alias=1)), Reason.PROTOCOL_ERROR),
        (reading(1, properties=Properties(topic_alias=65)), Reason.TOPIC_ALIAS_INVALID),
        (reading(1, properties=Properties(topic_alias=0)), Reason.TOPIC_ALIAS_INVALID),
        (reading(1, topic="meters/+/p"), Reason.TOPIC_NAME_INVALID),
        (reading(1, topic=""), Reason.PROTOCOL_ERROR),
        (reading(1, properties=Properties(subscription_identifier=1)), Reason.PROTOCOL_ERROR),
        (reading(1, properties=Properties(response_topic="a/#")), Reason.PROTOCOL_ERROR),
        (Connect(Version.V5, "device"), Reason.PROTOCOL_ERROR),
        (Reply(ACK, 1), Reason.PROTOCOL_ERROR),
        (Connack(False, 0), Reason.PROTOCOL_ERROR),
        (Ping(PacketType.PINGRESP), Reason.PROTOCOL_ERROR),
        (Disconnect(0, Properties(session_expiry_s=5)), Reason.PROTOCOL_ERROR),
        (Publish("a", b"x" * 2_000_000, 1, 1), Reason.PACKET_TOO_LARGE),
    ],
)
def test_errors_end_a_connection_of_5_with_their_reason(
    listening: Listening, packet: Publish, reason: Reason
) -> None:
    peer = listening.client(version=Version.V5)
    other = listening.client("other")
    peer.publish(1, 1, 1)
    peer.expect(Reply(ACK, 1))
    peer.send(packet)
    assert peer.rest() == [Disconnect(reason)]
    other.publish(2)
    other.expect(Reply(ACK, 1))


def test_receive_maximum_is_told_and_kept(tmp_path: Path) -> None:
    with Listening(tmp_path / "data", receive_maximum=10) as listening:
        peer = listening.peer(version=Version.V5)
        assert peer.connect().properties.receive_maximum == 10
        for batch in range(5):
            peer.send(*(reading(n, 1, n) for n in range(1, 11)))
            peer.expect(*(Reply(ACK, n) for n in range(1, 11)))
            assert len(listening.values()) == 10 * (batch + 1)
        listening.disk.hold()
        peer.send(*(reading(n, 2 if n % 2 else 1, n) for n in range(1, 12)))
        assert peer.rest() == [Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)]


def test_what_a_client_of_5_is_offered_is_told_in_connack(listening: Listening) -> None:
    offered = (
        listening.peer(version=Version.V5)
        .connect("", properties=Properties(session_expiry_s=0xFFFFFFFF))
        .properties
    )
    assert offered.session_expiry_s == 7 * 86_400
    assert offered.receive_maximum == 10_000
    assert offered.maximum_packet_bytes == 1_048_576
    assert offered.topic_alias_maximum == 64
    assert (
        offered.wildcard_available
        == offered.shared_available
        == offered.subscription_identifiers_available
        == 0
    )
    assert offered.assigned_client_identifier is not None
    assert offered.assigned_client_identifier.startswith("ringmain-")


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ("100c00044d5154540302003c0000", "20020001"),  # an unknown level: unacceptable protocol version
        ("100f00064d51497364700302003c000161", "20020001"),  # MQTT 3.1
        ("100c00044d5154540400003c0000", "20020002"),  # no client identifier without Clean Session
        ("100c00044854545004020000" + "0000", ""),  # no MQTT at all
        ("c000", ""),  # PINGREQ before CONNECT
        ("30050001615b5d", ""),  # PUBLISH before CONNECT
        ("474554202f20485454502f312e310d0a0d0a", ""),  # a browser
        ("10ffffff7f", ""),  # 256 MB announced
        ("10ffffffff7f", ""),  # a length of five bytes
    ],
)
def test_strangers_are_turned_away_as_the_standard_says(listening: Listening, wire: str, answer: str) -> None:
    with listening.peer() as peer:
        peer.socket.sendall(bytes.fromhex(wire))
        peer.rest()
        assert peer.received.hex() == "" or answer
    with listening.peer() as peer:
        peer.socket.sendall(bytes.fromhex(wire))
        got = b""
        while chunk := peer.socket.recv(100):
            got += chunk
        assert got.hex() == answer


def test_a_time_too_far_ahead_is_stored_and_flagged(listening: Listening) -> None:
    peer = listening.client()
    peer.send(
        Publish("meters/m1/p", b'{"t": 4102444800, "v": 1}', 1, 1), Publish("meters/m1/p", b'{"v": 2}', 1, 2)
    )
    peer.expect(Reply(ACK, 1), Reply(ACK, 2))
    flags = [reading.quality for reading in listening.readings()]
    assert flags == [Quality.CLOCK_FAILED, Quality.ARRIVAL_TIME]


def test_a_retained_message_is_a_message(listening: Listening) -> None:
    peer = listening.client()
    peer.send(Publish("meters/m1/p", b'{"t": 1, "v": 1}', 1, 1, retain=True))
    peer.expect(Reply(ACK, 1))
    assert listening.values() == [1]


def test_a_client_identifier_belongs_to_one_user_at_a_time(tmp_path: Path) -> None:
    from ringmain.sources.mqtt_auth import hash_password

    passwords = tmp_path / "passwords"
    passwords.write_text("".join(f"{user}:{hash_password(user, iterations=10)}\n" for user in ("ann", "bob")))
    with Listening(tmp_path / "data", passwords=str(passwords)) as listening:
        ann = listening.client("meter", user="ann", password="ann")
        assert listening.peer().connect("meter", user="bob", password="bob").code == 5
        ann.publish(1)
        ann.expect(Reply(ACK, 1))


def test_connections_beyond_the_limit_are_closed_and_counted(tmp_path: Path) -> None:
    with Listening(tmp_path / "data", max_connections=2) as listening:
        peers: list[Peer] = [listening.client("a"), listening.client("b")]
        assert listening.peer().rest() == []
        assert listening.count("ended_total", "connection_limit") == 1
        peers[0].close()
        until(lambda: listening.count("connections") == 1, "room for another")
        listening.client("c").publish(1)
        until(lambda: listening.values() == [1], "its reading")
