"""Peers of the log's socket that mean no good: whatever they send, the log goes on, and they are told why not."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from ringmain.log import connect_log, open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.codec import Codec
from ringmain.log.frames import FRAME_HEADER_BYTES, body_crc
from ringmain.log.interface import (
    Batch,
    ConflictError,
    FencedError,
    LogError,
    LogFailedError,
    StreamKind,
    TooLargeError,
    UnknownStreamError,
)
from ringmain.log.journal import Journal
from ringmain.log.request import encode_append
from ringmain.log.settings import AccessSettings, LogSettings
from ringmain.log.socket import calls as socket_calls
from ringmain.log.socket import server as socket_server
from ringmain.log.socket import session as socket_session
from ringmain.log.socket.access import Access, Grant, UserPolicy
from ringmain.log.socket.channel import Peer, connect_socket
from ringmain.log.socket.transport import append_message, is_plain
from ringmain.log.socket.wire import (
    GREETING,
    HEADER_BYTES,
    VERSION,
    AppendHead,
    ClaimName,
    Failure,
    Hello,
    Message,
    Nothing,
    PrefixAfter,
    ProtocolError,
    ReadFrom,
    RefusedError,
    Type,
    message_bytes,
    meta_of,
    pack,
    unpack,
)
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING
from tests.log.batches import NOTE, notes, reading_batch, readings, values, wait_until


class Raw:
    """A peer that sends whatever a test wants."""

    def __init__(self, directory: Path, *, greeted: bool = True) -> None:
        self.sock = connect_socket(directory, 10)
        if greeted:
            self.send(Type.HELLO, Hello(GREETING, VERSION, VERSION, "raw"))
            assert self.receive().type == Type.WELCOME

    def send(self, kind: int, meta: msgspec.Struct, data: bytes = b"", request: int = 1) -> None:
        self.sock.sendall(b"".join(map(bytes, pack(kind, request, meta, [data], len(data)))))  # type: ignore[arg-type]

    def receive(self) -> Message:
        header = self._exactly(HEADER_BYTES)
        return unpack(memoryview(header + self._exactly(message_bytes(header, 1 << 23) - HEADER_BYTES)))

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.sock.recv(size - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    def refusal(self) -> Failure:
        """The error that it is told, before its connection ends."""
        message = self.receive()
        assert message.type == Type.ERROR
        return meta_of(message, Failure)

    def is_closed(self) -> bool:
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "log") as log:
        log.listen()
        yield log


def _works(log: Journal, tmp_path: Path) -> None:
    """The log, and its socket, go on."""
    number = log.end().offset if log.end() is not None else 0  # type: ignore[union-attr]
    with connect_log(tmp_path / "log") as remote:
        claim = remote.claim("works")
        remote.append([reading_batch(1)], claim=claim, sequence=number)
        assert log.positions() is not None


# -- what is no message --------------------------------------------------------------------------------------


def test_random_bytes_are_answered_in_words_and_closed(log: Journal, tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(60):
        peer = Raw(tmp_path / "log", greeted=False)
        peer.sock.sendall(rng.randbytes(rng.randrange(1, 4096)))
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.is_closed()
        peer.close()
    wait_until(lambda: log.listen().counts().connections == 0)
    assert log.listen().counts().violations > 40
    _works(log, tmp_path)


def test_random_bytes_behind_a_greeting_are_answered_in_words_and_closed(
    log: Journal, tmp_path: Path
) -> None:
    rng = random.Random(2)
    for _ in range(40):
        peer = Raw(tmp_path / "log")
        peer.sock.sendall(struct.pack("<I", rng.randrange(512) * 8) + rng.randbytes(4096))
        assert peer.refusal().kind == "protocol"
        assert peer.is_closed()
        peer.close()
    _works(log, tmp_path)


def test_every_flipped_bit_of_a_message_is_found(log: Journal, tmp_path: Path) -> None:
    rng = random.Random(3)
    whole = b"".join(map(bytes, pack(Type.CLAIM, 7, ClaimName("flipped", 1))))
    for _ in range(60):
        at = rng.randrange(4, len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        peer = Raw(tmp_path / "log")
        peer.sock.sendall(damaged)
        assert "CRC-32C" in peer.refusal().message
        peer.close()
    assert "flipped" not in log._store.state.producers


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0xFFFFFFF8, 6 << 20, 12])
def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(
    log: Journal, tmp_path: Path, length: int
) -> None:
    peer = Raw(tmp_path / "log")
    peer.sock.sendall(struct.pack("<IIBBHIQ", length, 0, Type.APPEND, 0, 0, 0, 1))
    refusal = peer.refusal()
    assert refusal.kind == "protocol"
    assert str(length) in refusal.message
    assert peer.is_closed()
    _works(log, tmp_path)


def test_before_the_greeting_a_message_may_only_be_small(log: Journal, tmp_path: Path) -> None:
    peer = Raw(tmp_path / "log", greeted=False)
    peer.sock.sendall(struct.pack("<IIBBHIQ", 8192, 0, Type.HELLO, 0, 0, 0, 1))
    assert "4096" in peer.refusal().message


@pytest.mark.parametrize(
    ("kind", "meta", "expected"),
    [
        (Type.CLAIM, ClaimName("a"), "greeting"),
        (Type.HELLO, Nothing(), "Hello"),
        (Type.HELLO, Hello("http", 1, 1), "ringmain-log"),
        (Type.HELLO, Hello(GREETING, VERSION + 1, VERSION + 3), "versions 2 to 4"),
    ],
)
def test_a_wrong_greeting_is_refused_in_one_line(
    log: Journal, tmp_path: Path, kind: Type, meta: msgspec.Struct, expected: str
) -> None:
    peer = Raw(tmp_path / "log", greeted=False)
    peer.send(kind, meta)
    refusal = peer.refusal()
    assert expected in refusal.message
    assert "\n" not in refusal.message
    assert peer.is_closed()


@pytest.mark.parametrize("kind", [0, 1, 40, Type.WELCOME, Type.DURABLE, Type.ERROR, 255])
def test_messages_that_no_client_sends_end_the_connection(log: Journal, tmp_path: Path, kind: int) -> None:
    peer = Raw(tmp_path / "log")
    peer.send(kind, Nothing())
    assert f"type {kind}" in peer.refusal().message
    assert peer.is_closed()


def test_maps_that_are_none_end_the_connection(log: Journal, tmp_path: Path) -> None:
    for kind in (
        Type.APPEND,
        Type.CLAIM,
        Type.CREATE,
        Type.REGISTER,
        Type.READ,
        Type.STREAMS,
        Type.FIND,
        Type.RETAIN,
    ):
        for body in (b"\xc1" * 8, b"\x91" * 4096, b"\x81\x01\x01", b"\xdf\xff\xff\xff\xff\x00\x00\x00"):
            peer = Raw(tmp_path / "log")
            padded = body + b"\0" * (-len(body) % 8)
            header = bytearray(struct.pack("<IIBBHIQ", len(padded), 0, kind, 0, 0, len(body), 1) + padded)
            from crc32c import crc32c

            struct.pack_into("<I", header, 4, crc32c(header))
            peer.sock.sendall(header)
            assert peer.refusal().kind in ("protocol", "log"), kind
            peer.close()
    _works(log, tmp_path)


# -- connections ---------------------------------------------------------------------------------------------


def test_a_peer_that_says_nothing_or_half_a_message_is_closed_after_a_while(
    log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeted, idle = Raw(tmp_path / "log"), Raw(tmp_path / "log")
    monkeypatch.setattr(socket_server, "_HELLO_S", 0.05)
    monkeypatch.setattr(socket_server, "_MESSAGE_S", 0.05)
    greeted.sock.sendall(b"".join(map(bytes, pack(Type.CLAIM, 1, ClaimName("a"))))[:-3])
    silent = Raw(tmp_path / "log", greeted=False)
    for peer in (greeted, silent):
        assert "whole message" in peer.refusal().message
        assert peer.is_closed()
    monkeypatch.undo()
    _works(log, tmp_path)
    idle.send(Type.CLAIM, ClaimName("idle"))
    assert idle.receive().type == Type.ANSWER, "whoever has said who it is may be silent for ever"


def test_a_thousand_connections_are_taken_or_refused_in_words(log: Journal, tmp_path: Path) -> None:
    server = log.listen()
    kept = [Raw(tmp_path / "log") for _ in range(socket_server.CONNECTIONS_MAX)]
    beyond = Raw(tmp_path / "log", greeted=False)
    assert str(socket_server.CONNECTIONS_MAX) in beyond.refusal().message
    with pytest.raises(LogError, match="connections at a time"):
        connect_log(tmp_path / "log", timeout_s=0.2)
    claim = log.claim("a")
    log.append([reading_batch(1)], claim=claim, sequence=1)
    for peer in kept:
        peer.close()
    wait_until(lambda: server.counts().connections == 0)
    for _ in range(1000):
        connect_socket(tmp_path / "log", 10).close()
    wait_until(lambda: server.counts().connections == 0)
    _works(log, tmp_path)


# -- appends that are none -----------------------------------------------------------------------------------


def _append(log: Journal, *batches: Batch, claim: Any, sequence: int) -> tuple[AppendHead, bytearray]:
    request = encode_append(log._store.state, batches, claim, sequence, None)
    head, data, _ = append_message(request, 0)
    return head, bytearray(b"".join(bytes(memoryview(one)) for one in data))


def test_frames_that_the_journal_would_not_make_are_refused_and_nothing_of_them_is_stored(
    log: Journal, tmp_path: Path
) -> None:
    claim = log.claim("a")
    head, data = _append(log, reading_batch(50), claim=claim, sequence=1)
    changes = {
        "length": (0, "<I", 8),
        "body CRC": (4, "<I", 1),
        "stream": (8, "<I", 18),
        "unknown stream": (8, "<I", 9999),
        "control stream": (8, "<I", 1),
        "partition": (12, "<H", 1),
        "codec": (14, "<B", Codec.ARROW),
        "kind": (15, "<B", StreamKind.EVENT),
        "schema": (16, "<I", 3),
        "rows": (20, "<I", 49),
        "rows beyond": (20, "<I", 2**32 - 1),
        "catalogue position": (24, "<Q", 2**60),
        "producer": (32, "<Q", 5),
        "epoch": (40, "<Q", 5),
        "sequence": (48, "<Q", 5),
        "time min": (56, "<q", 5),
        "cumulative rows": (80, "<Q", 5),
        "reserved": (88, "<Q", 5),
        "a byte of the ids": (FRAME_HEADER_BYTES + 12, "<B", 77),
        "a byte of the message": (FRAME_HEADER_BYTES + 400, "<B", 77),
    }
    for what, (at, code, value) in changes.items():
        wrong = bytearray(data)
        struct.pack_into(code, wrong, at, value)
        peer = Raw(tmp_path / "log")
        peer.send(Type.APPEND, head, bytes(wrong))
        assert peer.refusal().kind in ("protocol", "unknown-stream"), what
        peer.close()
    for wrong in (data[:-8], data + bytes(8), data[:40], bytearray()):
        peer = Raw(tmp_path / "log")
        peer.send(Type.APPEND, head, bytes(wrong))
        assert peer.refusal().kind == "protocol"
        peer.close()
    for field, value in (
        ("frames", 2),
        ("frames", -1),
        ("frames", 10**6),
        ("sequence", -1),
        ("sequence", 2**63),
        ("epoch", -5),
    ):
        peer = Raw(tmp_path / "log")
        peer.send(Type.APPEND, msgspec.structs.replace(head, **{field: value}), bytes(data))
        assert peer.refusal().kind == "protocol", field
        peer.close()
    assert list(log.read("readings")) == []
    # and unchanged it is taken
    peer = Raw(tmp_path / "log")
    peer.send(Type.APPEND, head, bytes(data))
    assert peer.receive().type == Type.APPENDED
    assert values(log.read("readings")) == list(range(50))


def test_what_the_log_refuses_travels_by_kind_and_the_connection_stays(log: Journal, tmp_path: Path) -> None:
    claim = log.claim("a")
    with connect_log(tmp_path / "log") as remote:
        remote.append([reading_batch(1)], claim=claim, sequence=5)
        with pytest.raises(ConflictError):
            remote.append([reading_batch(2)], claim=claim, sequence=5)
        with pytest.raises(UnknownStreamError, match="nowhere"):
            remote.append([Batch("nowhere", notes("x"))], claim=claim, sequence=6)
        with pytest.raises(TooLargeError):
            remote.append([reading_batch(60_000)], claim=claim, sequence=6)
        with pytest.raises(FencedError, match="position"):
            remote.append([], claim=claim, sequence=6, positions={"b": b"x"})
        with pytest.raises(LogError, match="printable"):
            remote.claim("a\n")
        assert not remote.append([reading_batch(1)], claim=claim, sequence=6).duplicate
    assert log.listen().counts().accepted == 1


def test_an_append_of_more_than_a_group_is_refused_where_it_arrives(log: Journal, tmp_path: Path) -> None:
    claim = log.claim("a")
    head, data = _append(log, *[reading_batch(30_000)] * 4, claim=claim, sequence=1)
    more = AppendHead(head.claim, head.fence, head.epoch, head.sequence, 5)
    headers, bodies = data[: 4 * FRAME_HEADER_BYTES], data[4 * FRAME_HEADER_BYTES :]
    size = len(bodies) // 4
    peer = Raw(tmp_path / "log")
    peer.send(
        Type.APPEND,
        more,
        bytes(headers + headers[:FRAME_HEADER_BYTES] + bodies + bodies[:size]) + bytes(10**6 // 8 * 8),
    )
    assert peer.refusal().kind == "too-large"
    peer.send(Type.APPEND, head, bytes(data))
    assert peer.receive().type == Type.APPENDED


# -- who may do what -----------------------------------------------------------------------------------------


class _Only:
    """Grants one thing to everybody."""

    others = True

    def __init__(self, grant: Grant | None) -> None:
        self._grant = grant

    def grant(self, peer: Peer) -> Grant | None:
        assert peer.pid == os.getpid()
        return self._grant


def test_whoever_is_not_known_is_refused_by_name_of_the_setting(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        log.listen(policy=_Only(None))
        with pytest.raises(RefusedError, match=r"\[log.access.NAME\]"):
            connect_log(tmp_path / "log", read="socket")
        assert log.listen().counts().refused == 1


def test_a_reader_sees_the_streams_that_its_policy_names_and_nothing_else(tmp_path: Path) -> None:
    grant = Grant("grafana", streams=("readings", "*.1m"))
    with open_log(tmp_path / "log") as log:
        for name in ("load.1m", "secret"):
            log.create_stream(name, StreamKind.ROW, NOTE)
        claim = log.claim("a")
        batches = [Batch("load.1m", notes("shown")), Batch("secret", notes("hidden")), reading_batch(2)]
        log.append(batches, claim=claim, sequence=1, positions={"a/x": b"1"})
        log.listen(policy=_Only(grant))
        with pytest.raises(RefusedError, match="read='socket'"):
            connect_log(tmp_path / "log")
        with connect_log(tmp_path / "log", read="socket") as remote:
            assert [state.stream.name for state in remote.streams()] == ["load.1m", "readings"]
            assert [frame.stream for frame in remote.read(["load.1m", "readings"])] == ["load.1m", "readings"]
            assert remote.positions() == {}
            refused = [
                lambda: remote.read("secret"),
                lambda: remote.read(["readings", "secret"]),
                lambda: remote.find("secret", 0),
                lambda: remote.ledger(),
                lambda: remote.catalogue(),
                lambda: remote.claim("a"),
                lambda: remote.create_stream("x", StreamKind.ROW, NOTE),
                lambda: remote.retain(size_bytes=0),
                lambda: remote.append([reading_batch(1)], claim=claim, sequence=2),
            ]
            for call in refused:
                with pytest.raises(
                    RefusedError, match=r"\[log.access.grafana\] grants streams readings, \*\.1m"
                ):
                    call()
        assert len(list(log.read("readings"))) == 1


def test_whoever_may_append_may_so_under_its_own_claims_to_its_own_streams(tmp_path: Path) -> None:
    grant = Grant("importer", append=True, claims="access/importer", streams=("readings", "catalogue"))
    with open_log(tmp_path / "log") as log:
        registry = SeriesRegistry(log)
        log.listen(policy=_Only(grant), registrar=registry)
        owner = log.claim("other")
        with connect_log(tmp_path / "log", read="socket") as remote:
            for name in ("other", "access", "access/importers", "access/importer2/x"):
                with pytest.raises(RefusedError, match="access/importer"):
                    remote.claim(name)
            with pytest.raises(RefusedError):
                remote.append([reading_batch(1)], claim=owner, sequence=1)
            claim = remote.claim("access/importer/a")
            with pytest.raises(LogError, match="below 0, found 0: register"):
                remote.append([reading_batch(1)], claim=claim, sequence=1)
            assert remote.register("meters", ["m/1", "m/2"], [None, SeriesAttributes(unit="W")]) == [0, 1]
            remote.append([reading_batch(2)], claim=claim, sequence=1, positions={"access/importer/a": b"1"})
            assert remote.positions() == {"access/importer/a": b"1"}
            with pytest.raises(RefusedError, match="events"):
                remote.append([Batch("events", _empty(log, "events"))], claim=claim, sequence=2)
            with pytest.raises(RefusedError, match="catalogue"):
                remote.append([Batch("catalogue", _empty(log, "catalogue"))], claim=claim, sequence=2)
            assert remote.catalogue().source_of(1) == "access/importer"


def test_whoever_may_append_cannot_use_up_what_the_log_has_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_calls, "PRODUCERS_OF_OTHERS_MAX", 3)
    monkeypatch.setattr(socket_session, "POSITIONS_OF_OTHERS_MAX", 3)
    grant = Grant("importer", append=True, claims="access/importer", streams=("readings",))
    with open_log(tmp_path / "log") as log:
        registry = SeriesRegistry(log, max_series=2)
        log.listen(policy=_Only(grant), registrar=registry)
        with connect_log(tmp_path / "log", read="socket") as remote:
            claims = [remote.claim(f"access/importer/{number}") for number in range(3)]
            with pytest.raises(RefusedError, match="at most 3 names"):
                remote.claim("access/importer/3")
            assert remote.claim("access/importer/0").fence == 2
            name = claims[1].name
            remote.append([], claim=claims[1], sequence=1, positions={f"{name}/{n}": b"x" for n in range(3)})
            remote.append([], claim=claims[1], sequence=2, positions={f"{name}/{n}": b"y" for n in range(3)})
            with pytest.raises(RefusedError, match="at most 3 positions"):
                remote.append([], claim=claims[1], sequence=3, positions={f"{name}/3": b"x"})
            with pytest.raises(RefusedError, match="4096 bytes"):
                remote.append([], claim=claims[1], sequence=3, positions={f"{name}/1": bytes(5000)})
            assert remote.register("one", ["m/1"]) == [0]
            assert remote.register("two", ["m/2", "m/3"]) == [1, -1], (
                "one limit for whatever it calls its sources"
            )


def _empty(log: Journal, stream: str) -> pa.RecordBatch:
    schema = next(state.stream.schema for state in log.streams() if state.stream.name == stream)
    return pa.RecordBatch.from_pylist([], schema=schema)


def _crafted(
    rows: pa.RecordBatch, message: bytes, claim: Any, log: Journal, **changed: int
) -> tuple[AppendHead, bytes]:
    """An append of one frame of readings with another Arrow message and right checksums."""
    request = encode_append(log._store.state, [Batch("readings", rows)], claim, 1, None)
    (frame,) = request.frames
    head, ids, _ = frame.body.buffers
    body = bytes(head) + bytes(ids) + message
    times = {"time_min_ns": frame.body.time_min_ns, "time_max_ns": frame.body.time_max_ns, **changed}
    crc = body_crc(
        message,
        producer=_producer(claim.name),
        epoch=claim.epoch,
        sequence=1,
        codec=Codec.IDS_AND_ARROW,
        kind=StreamKind.READING,
        rows=rows.num_rows,
        **times,
    )
    meta, data, _ = append_message(request, 0)
    header = bytearray(data[0])
    struct.pack_into("<II", header, 0, len(body), crc)
    struct.pack_into("<qq", header, 56, times["time_min_ns"], times["time_max_ns"])
    return meta, bytes(header) + body


def _producer(name: str) -> int:
    from ringmain.log.control import producer_id

    return producer_id(name)


def test_bodies_with_right_checksums_and_wrong_contents_are_refused_of_strangers(tmp_path: Path) -> None:
    grant = Grant("importer", append=True, claims="access/importer", streams=("readings",))
    with open_log(tmp_path / "log") as log:
        registry = SeriesRegistry(log)
        for number in range(100):
            registry.register("s", f"s/{number}", SeriesAttributes())
        registry.save()
        log.listen(policy=_Only(grant), registrar=registry)
        claim = log.claim("access/importer")
        rows = readings(100)
        plain = bytes(rows.remove_column(0).serialize())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(
            sink, rows.schema.remove(0), options=pa.ipc.IpcWriteOptions(compression="zstd")
        ) as stream:
            stream.write_batch(rows.remove_column(0))
        messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
        messages.read_next_message()
        packed = bytes(messages.read_next_message().serialize())
        packed += bytes(-len(packed) % 8)
        assert not is_plain(memoryview(packed))
        assert is_plain(memoryview(plain))
        holes = pa.RecordBatch.from_arrays(
            [rows.column(1), pa.array([None, *range(1, 100)], pa.float64()), rows.column(3)],
            schema=_nullable(),
        )
        tries = [
            _crafted(rows, packed, claim, log),
            _crafted(rows, bytes(holes.serialize()), claim, log),
            _crafted(rows, plain, claim, log, time_min_ns=1),
            _crafted(rows, plain[:64] + bytes(len(plain) - 64), claim, log),
            _crafted(rows, bytes(4096), claim, log),
        ]
        rng = random.Random(4)
        for _ in range(150):
            wrong = bytearray(plain)
            for _ in range(rng.randrange(1, 4)):
                wrong[rng.randrange(400)] = rng.randrange(256)
            tries.append(_crafted(rows, bytes(wrong), claim, log))
        for head, data in tries[:5]:
            peer = Raw(tmp_path / "log")
            peer.send(Type.APPEND, head, data)
            assert peer.refusal().kind in ("protocol", "log")
            peer.close()
        for head, data in tries[5:]:
            peer = Raw(tmp_path / "log")
            peer.send(Type.APPEND, head, data)
            assert peer.receive().type in (Type.ERROR, Type.APPENDED)
            peer.close()
        for frame in log.read("readings"):
            frame.rows.validate(full=True)
        head, data = _crafted(rows, plain, claim, log)
        peer = Raw(tmp_path / "log")
        peer.send(Type.APPEND, head, data)
        assert peer.receive().type in (Type.APPENDED, Type.ERROR)


def _nullable() -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in READING.remove(0)])


def test_reads_and_their_credit_are_bounded(log: Journal, tmp_path: Path) -> None:
    log.append([reading_batch(10)], claim=log.claim("a"), sequence=1)
    for wanted in (
        ReadFrom([], 1 << 20),
        ReadFrom(["readings"] * 5000, 1 << 20),
        ReadFrom(["readings"], 1 << 40),
        ReadFrom(["readings"], -1),
        ReadFrom(["readings"], 1, after=(1, 0, -1)),
        ReadFrom(["readings"], 1, until=(-1, 0, 0)),
        ReadFrom(["readings"], 1, time_min_ns=2**63),
    ):
        peer = Raw(tmp_path / "log")
        peer.send(Type.READ, wanted)
        assert peer.refusal().kind == "protocol"
        assert peer.is_closed()
    peer = Raw(tmp_path / "log")
    for number in range(1, 40):
        peer.send(Type.READ, ReadFrom(["readings"], 1 << 20, follow=True), request=number)
    refusals = 0
    for _ in range(16 * 2 + 23):
        message = peer.receive()
        if message.type == Type.ERROR:
            assert "reads of a connection" in meta_of(message, Failure).message
            refusals += 1
        if refusals == 39 - 16:
            break
    assert refusals == 39 - 16
    peer.close()
    _works(log, tmp_path)


def test_a_peer_that_asks_and_never_listens_is_not_listened_to_either(log: Journal, tmp_path: Path) -> None:
    for number in range(200):
        log.append([], claim=log.claim(f"a{number}"), sequence=1, positions={f"a{number}": bytes(1000)})
    server = log.listen()
    peer = Raw(tmp_path / "log")
    peer.sock.settimeout(0.2)
    question = b"".join(map(bytes, pack(Type.POSITIONS, 1, PrefixAfter())))
    with pytest.raises(TimeoutError):
        peer.sock.sendall(question * 250_000)
    assert server.counts().queued_bytes < 5 << 20
    _works(log, tmp_path)
    peer.close()


OTHER = """
import socket, struct, sys, os
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
    print(sock.recv(4096)[24:].decode("utf-8", "replace").replace(chr(10), " "), flush=True)
except PermissionError:
    print("permission", flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out_by_the_socket_and_by_the_policy() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        directory = Path(place) / "log"

        def said() -> str:
            command = [sys.executable, "-S", "-c", OTHER, str(directory / "log.sock")]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        with open_log(directory) as log:
            log.listen()
            assert "permission" in said()
        with open_log(directory) as log:
            log.listen(policy=UserPolicy([Access("other", "daemon", ("readings",))]))
            assert stat.S_IMODE((directory / "log.sock").stat().st_mode) == 0o666
            assert "user 65534 may not use this log" in said()


def test_the_settings_name_users_of_this_machine(tmp_path: Path) -> None:
    settings = LogSettings(
        access={"grafana": AccessSettings("nobody", ["readings"]), "a b": AccessSettings("nobody")}
    )
    assert [key for key, _ in settings.check()] == ["access.a b", "access.grafana.user", "access.a b.user"]
    policy = LogSettings(access={"grafana": AccessSettings("nobody", ["*.1m"], append=True)}).policy()
    grant = policy.grant(Peer(1, 65534, 65534))
    assert grant is not None
    assert (grant.may_read("load.1m"), grant.may_read("load"), grant.may_claim("access/grafana/x")) == (
        True,
        False,
        True,
    )
    assert policy.grant(Peer(1, 12345, 1)) is None
    with pytest.raises(LogError, match=r"\[log.access.x\].*no-such-user"):
        LogSettings(access={"x": AccessSettings("no-such-user")}).policy()


# -- the other way round -------------------------------------------------------------------------------------


def test_a_client_takes_no_rubbish_from_whoever_listens(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "log.sock"))
    listening.listen(8)
    answers = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
        bytes(64),
        struct.pack("<IIBBHIQ", 0xFFFFFFF8, 0, 64, 0, 0, 0, 0),
        b"".join(map(bytes, pack(Type.DURABLE, 0, Nothing()))),
        b"".join(map(bytes, pack(Type.ERROR, 0, Failure("protocol", "versions 7 to 9")))),
    ]
    import threading

    def serve() -> None:
        for answer in answers:
            sock, _ = listening.accept()
            sock.recv(4096)
            sock.sendall(answer)
            sock.close()
        listening.close()

    thread = threading.Thread(target=serve)
    thread.start()
    while thread.is_alive():
        with pytest.raises((ProtocolError, LogFailedError)):
            connect_log(tmp_path, timeout_s=0.05, read="socket")
    thread.join()
