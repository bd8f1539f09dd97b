"""A listener among clients that break the rules: it and its other clients go on, and memory stays bounded."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.model.schemas import MAX_LETTER_PAYLOAD
from ringmain.sources.mqtt_codes import PacketType, Reason, Version
from ringmain.sources.mqtt_packets import Connect, Disconnect, Ping, Publish, Reply, encode
from tests.sources.mqtt_rig import Listening, Peer, reading, until

ACK, REC, REL, COMP = PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with Listening(tmp_path / "data") as listening:
        yield listening


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with Listening(tmp_path_factory.mktemp("hostile") / "data") as listening:
        yield listening


def proven_alive(listening: Listening, peer: Peer) -> None:
    """The other client's reading is stored and acknowledged."""
    before = len(alive(listening))
    peer.publish(before, 1, 77, topic="meters/alive/p")
    peer.expect(Reply(ACK, 77))
    assert alive(listening) == [float(n) for n in range(before + 1)]


def alive(listening: Listening) -> list[float]:
    """Values that `proven_alive` has stored."""
    return [reading.value for reading in listening.readings() if reading.series == "alive/p"]


def others(listening: Listening) -> list[float]:
    """All other values."""
    return [reading.value for reading in listening.readings() if reading.series != "alive/p"]


PUBLISHED = [bytes((first,)) for first in range(256)]


@settings(max_examples=120, derandomize=True, deadline=None)
@given(
    version=st.sampled_from([None, *Version]),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    encode(reading(1, 1, 5), Version.V311),
                    encode(reading(2, 2, 6), Version.V5),
                    b"\xc0\0",
                    b"\xe0\0",
                ]
            ),
            st.builds(
                lambda first, body: first + bytes((len(body),)) + body,
                st.sampled_from(PUBLISHED),
                st.binary(max_size=60),
            ),
        ),
        max_size=5,
    ),
)
def test_any_bytes_at_the_socket_hurt_nobody_else(
    shared: Listening, version: Version | None, parts: list[bytes]
) -> None:
    other = shared.client("other")
    with Peer(shared.port) as peer, contextlib.suppress(ConnectionError):
        if version is not None:
            peer.socket.sendall(encode(Connect(version, "hostile"), version))
        for part in parts:
            peer.socket.sendall(part)
    proven_alive(shared, other)
    other.close()
    assert shared.count("ended_total", "internal_error") == 0
    assert shared.supervisor.statuses()[0].restarts == 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("version", list(Version))
def test_an_announced_length_of_256_mb_is_refused_at_its_header(
    listening: Listening, version: Version, known: bool
) -> None:
    other = listening.client("other")
    peer = listening.client("hostile", version=version) if known else listening.peer(version=version)
    peer.socket.sendall(bytes.fromhex("32ffffff7f" if known else "10ffffff7f"))
    told = [Disconnect(Reason.PACKET_TOO_LARGE)] if known and version is Version.V5 else []
    assert peer.rest() == told
    assert listening.count("oversized_total") == 1
    assert listening.count("ended_total", "packet_too_large") == 1
    proven_alive(listening, other)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_5_mb_from_a_client_of_3_1_1_become_a_dead_letter_and_are_acknowledged(
    listening: Listening, qos: int
) -> None:
    # A client that cannot be told the limit would send the same message for ever.
    other = listening.client("other")
    peer = listening.client("big")
    payload = bytes(range(256)) * 20_000
    peer.send(Publish("meters/m1/p", payload, qos, 9 if qos else 0), reading(1, 1, 10))
    if qos:
        peer.expect(Reply(ACK if qos == 1 else REC, 9))
    peer.expect(Reply(ACK, 10))
    (letter,) = listening.letters()
    assert letter["payload"] == payload[:MAX_LETTER_PAYLOAD]
    assert letter["payload_bytes"] == len(payload)
    assert letter["topic"] == "meters/m1/p"
    assert "1048576" in letter["reason"]
    assert listening.values() == [1]
    proven_alive(listening, other)


def test_5_mb_from_a_client_of_5_end_its_connection_and_leave_a_letter(listening: Listening) -> None:
    peer = listening.client("big", version=Version.V5)
    with contextlib.suppress(ConnectionError):
        peer.send(Publish("meters/m1/p", b"x" * 5_000_000, 1, 9))
    until(lambda: listening.count("ended_total", "packet_too_large") == 1, "the refusal")
    until(lambda: len(listening.letters()) == 1, "the letter")
    assert listening.letters()[0]["payload_bytes"] == 5_000_000
    proven_alive(listening, listening.client("other"))


def test_silent_connections_are_closed_in_time_and_cost_little(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    n = min(500, (limit - 200) // 2)
    with Listening(tmp_path / "data", connect_timeout="4s") as listening:
        other = listening.client("other")
        process = psutil.Process()
        gc.collect()
        before = process.memory_info().rss
        silent = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(n)]
        for index, one in enumerate(silent):
            if index % 3 == 0:
                one.sendall(bytes.fromhex("10e07f00044d515454"))  # a CONNECT of 16 KB that never goes on
        until(lambda: listening.count("connections") >= n, "all connections")
        assert process.memory_info().rss - before < n * 16 * 1024
        proven_alive(listening, other)
        until(lambda: listening.count("ended_total", "connect_timeout") == n, "the time-outs")
        until(lambda: listening.count("connections") == 1, "their end")
        proven_alive(listening, other)
        for one in silent:
            one.close()


def test_one_byte_at_a_time_is_slow_for_its_sender_only(listening: Listening) -> None:
    other = listening.client("other")
    peer = listening.peer(version=Version.V5)
    wire = encode(Connect(Version.V5, "slow"), Version.V5) + encode(reading(1, 1, 3), Version.V5)
    for byte in wire:
        peer.socket.sendall(bytes((byte,)))
    assert peer.read().session_present is False  # type: ignore[union-attr]
    peer.expect(Reply(ACK, 3))
    proven_alive(listening, other)


def test_a_large_packet_in_small_pieces_costs_no_more_than_in_one(listening: Listening) -> None:
    # Looking at the whole of what is there at every piece would take minutes.
    peer = listening.client("slow")
    payload = b'{"t":1,"v":1' + b" " * 1_000_000 + b"}"
    wire = encode(Publish("meters/m1/p", payload, 1, 3), Version.V311)
    for at in range(0, len(wire), 100):
        peer.socket.sendall(wire[at : at + 100])
    peer.expect(Reply(ACK, 3))
    assert listening.values() == [1]


@pytest.mark.parametrize(
    "topic",
    [
        b"meters/\xff/p",
        b"meters/\xed\xa0\x80/p",
        b"meters/\0/p",
        b"meters/\xc0\x80/p",
        b"meters/\xf8\x88\x80\x80\x80/p",
    ],
)
@pytest.mark.parametrize("version", list(Version))
def test_wrong_utf_8_in_a_topic_ends_the_connection(
    listening: Listening, version: Version, topic: bytes
) -> None:
    other = listening.client("other")
    peer = listening.client("hostile", version=version)
    section = b"\0" if version is Version.V5 else b""
    body = len(topic).to_bytes(2, "big") + topic + b"\0\1" + section + b'{"t":1,"v":1}'
    peer.socket.sendall(b"\x32" + bytes((len(body),)) + body)
    assert peer.rest() == ([Disconnect(Reason.MALFORMED_PACKET)] if version is Version.V5 else [])
    proven_alive(listening, other)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"t":1,"v":NaN}',
        b'{"t":1,"v":1e400}',
        b'{"t":-1,"v":1}',
        b'{"t":99999999999999999999,"v":1}',
        b'{"t":1,"v":1,"v":2}',
        b'{"t":1,"v":\xff}',
        b"\xff" * 100,
        b"[" * 100_000,
        b"",
    ],
)
def test_payloads_that_are_no_reading_become_letters_and_are_acknowledged(
    listening: Listening, payload: bytes
) -> None:
    peer = listening.client()
    peer.send(Publish("meters/m1/p", payload, 1, 1), reading(5, 1, 2))
    peer.expect(Reply(ACK, 1), Reply(ACK, 2))
    assert listening.values() == [5]
    assert [letter["payload_bytes"] for letter in listening.letters()] == [len(payload)]


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_more_topics_than_series_are_allowed_become_letters_in_bounded_memory(
    tmp_path: Path, fast: str
) -> None:
    with Listening(tmp_path / "data", max_series=1000, fast=fast) as listening:
        other = listening.client("other")
        peer = listening.client("hostile")
        for n in range(0, 20_000, 100):
            peer.send(*(Publish(f"meters/m{m}/p", b'{"t":1,"v":1}', 0) for m in range(n, n + 100)))
        peer.send(Ping(PacketType.PINGREQ))
        peer.expect(Ping(PacketType.PINGRESP))
        status = listening.supervisor.statuses
        until(lambda: status()[0].letters + status()[0].readings == 20_000, "an account of every message")
        assert status()[0].letters >= 19_000
        assert len(listening.log.catalogue()) <= 1000
        other.publish(1, 1, 1, topic="meters/m0/p")
        other.expect(Reply(ACK, 1))


def test_a_client_that_never_reads_its_replies_is_no_longer_read(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringmain.sources import mqtt_connection

    monkeypatch.setattr(mqtt_connection, "READ_REPLIES_WITHIN_S", 0.5)
    monkeypatch.setattr(mqtt_connection, "REPLY_BYTES_HIGH", 4096)
    other = listening.client("other")
    peer = listening.peer()
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect("hostile")
    wire = encode(reading(1, 1, 3), Version.V311) * 1000
    ended = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.socket.sendall(wire)
        ended.set()

    peer.socket.settimeout(60)
    threading.Thread(target=flood, daemon=True).start()
    until(lambda: listening.count("ended_total", "slow_reader") == 1, "the end of the patience")
    assert ended.wait(60)
    proven_alive(listening, other)


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_while_the_disk_hangs_reading_stops_and_memory_stays_bounded(tmp_path: Path, fast: str) -> None:
    with Listening(tmp_path / "data", fast=fast) as listening:
        peer = listening.client("flood")
        peer.publish(0)
        peer.expect(Reply(ACK, 1))
        listening.disk.hold()
        wire = b"".join(encode(reading(n, 1, n % 1000 + 1), Version.V311) for n in range(1000))
        sent = 0
        peer.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while sent < 20_000:
                peer.socket.sendall(wire)
                sent += 1
        assert sent < 10_000
        assert listening.supervisor.statuses()[0].queue_rows < 400_000
        assert peer.silent()
        # and everybody goes on when the disk does
        peer.socket.settimeout(20)
        listening.disk.release()
        left = sent * 4000
        while left > 0:
            left -= len(peer.socket.recv(1 << 16))
        assert left >= -4000
        proven_alive(listening, listening.client("other"))


def test_a_flood_of_wrong_passwords_is_counted_and_delays_nobody_who_is_in(tmp_path: Path) -> None:
    from ringmain.sources.mqtt_auth import hash_password

    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{hash_password('secret', iterations=2_000)}\n")
    with Listening(tmp_path / "data", passwords=str(passwords)) as listening:
        other = listening.client("other", user="ann", password="secret")
        peers = [listening.peer() for _ in range(100)]
        for peer in peers:
            peer.send(Connect(Version.V311, "x", user_name="ann", password=b"guess"), reading(1))
        proven_alive(listening, other)
        assert [peer.read().code for peer in peers] == [4] * 100  # type: ignore[union-attr]
        assert listening.count("logins_failed_total") == 100
        assert others(listening) == []


def test_incomplete_packets_are_bounded_over_all_connections(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringmain.sources import mqtt_connection

    monkeypatch.setattr(mqtt_connection, "PARTIAL_BYTES_MAX", 1_000_000)
    other = listening.client("other")
    begun = encode(Publish("meters/m1/p", b" " * 400_000, 1, 1), Version.V311)[:-1]
    peers = [listening.client(f"hostile-{n}") for n in range(8)]
    for peer in peers:
        with contextlib.suppress(ConnectionError):
            peer.socket.sendall(begun)
    until(lambda: listening.count("ended_total", "quota_exceeded") >= 5, "the refusals")
    proven_alive(listening, other)
    assert listening.count("connections") >= 2  # some had room
    for peer in peers:
        peer.close()
    until(lambda: listening.count("connections") == 1, "their end")
    peer = listening.client("again")
    peer.socket.sendall(begun + b"1")
    peer.expect(Reply(ACK, 1))


def test_messages_at_qos_2_that_are_never_released_are_bounded(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringmain.sources import mqtt_sessions

    monkeypatch.setattr(mqtt_sessions, "RECEIVED_MAX", 50)
    monkeypatch.setattr(mqtt_sessions, "RECEIVED_TOTAL_MAX", 120)
    other = listening.client("other")
    for n in range(3):
        peer = listening.client(f"hostile-{n}", version=Version.V5)
        peer.send(*(reading(m, 2, m) for m in range(1, 60)))
        *_, last = peer.rest()
        assert last == Disconnect(Reason.QUOTA_EXCEEDED)
    first, second, third = (listening.client(f"slow-{n}") for n in range(3))
    for peer, many in ((first, 50), (second, 50), (third, 20)):
        peer.send(*(reading(m, 2, m) for m in range(1, many + 1)))
        peer.expect(*(Reply(REC, m) for m in range(1, many + 1)))
    third.publish(1, 2, 99)
    assert third.rest() == []
    first.send(Reply(REL, 1))
    first.expect(Reply(COMP, 1))
    proven_alive(listening, other)


def test_bytes_behind_the_end_of_a_session_are_not_looked_at(listening: Listening) -> None:
    peer = listening.client("done")
    peer.socket.sendall(encode(Disconnect(), Version.V311) + encode(reading(9, 1, 9), Version.V311))
    assert peer.rest() == []
    assert listening.values() == []
    proven_alive(listening, listening.client("other"))
