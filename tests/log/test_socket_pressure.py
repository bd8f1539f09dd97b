"""What peers of the log's socket may have wait, and what they may write: bounded, and nothing that harms the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from ringmain.log import connect_log, open_log
from ringmain.log.builtin import LEDGER
from ringmain.log.codec import Layout
from ringmain.log.control import producer_id
from ringmain.log.interface import Batch, Claim, LogError
from ringmain.log.journal import Journal
from ringmain.log.ledger.entries import entries_of
from ringmain.log.request import EncodedFrame, Request, checksum, encode_append
from ringmain.log.socket import reading as socket_read
from ringmain.log.socket import server as socket_server
from ringmain.log.socket import session as socket_session
from ringmain.log.socket.transport import append_message
from ringmain.log.socket.wire import Nothing, ReadFrom, Series, Type, pack
from tests.log.batches import reading_batch, wait_until
from tests.log.test_socket_hostile import Raw


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "log") as log:
        log.listen()
        yield log


def _append(log: Journal, claim: Claim, sequence: int, rows: int) -> bytes:
    request = encode_append(log._store.state, [reading_batch(rows)], claim, sequence, None)
    head, data, size = append_message(request, 0)
    return b"".join(bytes(memoryview(one)) for one in pack(Type.APPEND, sequence, head, data, size))


# -- what waits ----------------------------------------------------------------------------------------------


class _SlowRegistrar:
    """Gives ids when it is let."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked = 0

    def register(self, source: str, key: str, attributes: Any) -> int:
        self.asked += 1
        self.go_on.wait(30)
        return 0

    def save(self) -> None:
        pass


def _registering(size: int) -> bytes:
    """A call of about so many bytes."""
    wanted = pack(Type.REGISTER, 1, Series("s", ["k" * size]))
    return b"".join(bytes(one) for one in wanted)


def test_calls_that_wait_are_bounded_in_bytes_and_go_with_their_connection(tmp_path: Path) -> None:
    slow = _SlowRegistrar()
    with open_log(tmp_path / "log") as log:
        server = log.listen(registrar=slow)
        call = _registering(200_000)
        leaving = Raw(tmp_path / "log")
        leaving.sock.sendall(4 * call)
        (left,) = server._sessions.values()
        wait_until(lambda: slow.asked == 1 and len(left._calls) == 3)
        leaving.close()
        wait_until(lambda: not server._sessions)
        assert not left._calls, "nobody waits for them any more"
        peer = Raw(tmp_path / "log")
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.sock.sendall(60 * call)
        (session,) = server._sessions.values()
        waiting = list(session._calls)
        assert sum(len(one.meta) for one in waiting) <= socket_session.CALLS_BYTES_MAX + 2 * len(call)
        slow.go_on.set()
        with connect_log(tmp_path / "log") as remote:
            remote.claim("after")
        peer.close()


def test_a_message_may_take_longer_while_the_log_itself_does_not_receive(
    log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "_MESSAGE_S", 0.2)
    monkeypatch.setattr(socket_session, "INFLIGHT_APPENDS_MAX", 1)
    claim = log.claim("a")
    gate = threading.Event()
    log._commit.call(lambda: gate.wait(30) and None)
    peer = Raw(tmp_path / "log")
    three = [_append(log, claim, sequence, 10) for sequence in (1, 2, 3)]
    peer.sock.sendall(three[0] + three[1] + three[2][:-8])
    server = log.listen()
    (session,) = server._sessions.values()
    wait_until(lambda: session.paused and bool(session.deadline))
    until = session.deadline + 1.2  # the socket's thread has looked at its deadlines since
    with connect_log(tmp_path / "log") as other:
        wait_until(lambda: time.monotonic() > until)
        assert server.counts().violations == 0, "not the peer is late, the log is"
        gate.set()
        peer.sock.sendall(three[2][-8:])
        assert [peer.receive().type for _ in three] == [Type.APPENDED] * 3
        assert other.connected


def test_a_stream_of_messages_without_a_gap_is_no_message_that_takes_too_long(
    log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "_MESSAGE_S", 3.0)
    server = log.listen()
    peer = Raw(tmp_path / "log")
    call = b"".join(bytes(one) for one in pack(Type.END, 1, Nothing()))
    half = len(call) // 2
    peer.sock.sendall(call[:half])
    (session,) = server._sessions.values()
    wait_until(lambda: bool(session.deadline))
    first = session.deadline
    wait_until(lambda: time.monotonic() > first - 2.0)
    peer.sock.sendall(call[half:] + call[:half])
    assert peer.receive().type == Type.ANSWER
    wait_until(lambda: session.deadline > first)
    peer.sock.sendall(call[half:])
    assert peer.receive().type == Type.ANSWER
    assert server.counts().violations == 0


def test_connections_that_were_held_back_together_all_go_on(
    log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = log.listen()
    claims = [log.claim(name) for name in ("a", "b")]
    one, two = (Raw(tmp_path / "log") for _ in claims)
    large = _append(log, claims[0], 1, 2000)
    monkeypatch.setattr(socket_server, "RECEIVED_BYTES_MAX", len(large) - 1000)
    gate = threading.Event()
    log._commit.call(lambda: gate.wait(30) and None)
    one.sock.sendall(large)
    sessions = list(server._sessions.values())
    wait_until(lambda: not sessions[0].watched)
    two.sock.sendall(_append(log, claims[1], 1, 10))
    wait_until(lambda: not sessions[1].watched)
    # below the limit for a moment, and another connection is looked at meanwhile
    size = server.received_bytes
    server.received(-(size // 3))
    Raw(tmp_path / "log", greeted=False).close()
    wait_until(lambda: server.counts().accepted == 3 and server.counts().connections >= 2)
    server.received(size // 3)
    gate.set()
    for peer, claim in ((one, claims[0]), (two, claims[1])):
        assert peer.receive().type == Type.APPENDED
        peer.sock.sendall(_append(log, claim, 2, 10))
        assert peer.receive().type == Type.APPENDED


def test_a_read_that_gets_no_thread_is_refused_and_takes_no_place(
    log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: socket_read.SocketRead) -> None:
        raise RuntimeError("can't start new thread")

    server = log.listen()
    free = server.reads._value
    peer = Raw(tmp_path / "log")
    with monkeypatch.context() as patch:
        patch.setattr(socket_read.SocketRead, "start", refused)
        for number in range(1, 20):
            peer.send(Type.READ, ReadFrom(["readings"], 1 << 20), request=number)
            assert "cannot be begun" in peer.refusal().message
    assert server.reads._value == free
    peer.send(Type.READ, ReadFrom(["readings"], 1 << 20), request=20)
    assert peer.receive().type == Type.ANSWER


# -- what is written -----------------------------------------------------------------------------------------


def _nulls(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(1, field.type) for field in schema], schema=schema)


def _forged(log: Journal, stream: str, rows: pa.RecordBatch, claim: Claim) -> tuple[msgspec.Struct, bytes]:
    """An append as a client makes it that looks at nothing."""
    entry = log._store.state.entry(stream)
    careless = Layout(pa.schema([field.with_nullable(True) for field in entry.stream.schema]))
    body = careless.encode(rows)
    crc = checksum(body, producer_id(claim.name), claim.epoch, 1, entry.stream.kind)
    frame = EncodedFrame(entry.stream.id, stream, entry.stream.kind, entry.schema_id, body, crc, None)
    head, data, _ = append_message(Request(claim, 1, [frame], 1, body.length, None), 0)
    return head, b"".join(bytes(memoryview(one)) for one in data)


@pytest.mark.parametrize("stream", ["ledger", "conflicts", "catalogue", "accounts", "ticks"])
def test_rows_that_the_log_itself_would_stumble_over_are_refused_of_everybody(
    log: Journal, tmp_path: Path, stream: str
) -> None:
    schema = log._store.state.entry(stream).stream.schema
    head, data = _forged(log, stream, _nulls(schema), log.claim("a"))
    peer = Raw(tmp_path / "log")
    peer.send(Type.APPEND, head, data)
    refusal = peer.refusal()
    assert "written by the log alone" in refusal.message or "no nulls" in refusal.message, refusal
    assert log.ledger().num_rows == 0
    log.close()
    with open_log(tmp_path / "log") as again:
        assert again.ledger().num_rows == 0


@pytest.mark.parametrize("stream", ["ledger", "conflicts"])
def test_nobody_but_the_log_says_what_became_of_records(log: Journal, tmp_path: Path, stream: str) -> None:
    schema = log._store.state.entry(stream).stream.schema
    batch = Batch(stream, pa.RecordBatch.from_pylist([], schema=schema))
    with pytest.raises(LogError, match="written by the log alone"):
        log.append([batch], claim=log.claim("a"), sequence=1)
    with connect_log(tmp_path / "log") as remote, pytest.raises(LogError, match="written by the log alone"):
        remote.append([batch], claim=remote.claim("a"), sequence=1)


def test_rows_of_the_ledger_that_say_nothing_are_passed_over() -> None:
    assert entries_of(_nulls(LEDGER)) == []
