"""A client written from `docs/wire-protocol.md` and `docs/log-format.md` alone: it appends, is told, and reads."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from crc32c import crc32c

from ringmain.log import open_log
from ringmain.log.interface import StreamKind
from tests.log.batches import NOTE, notes, readings

HEADER = struct.Struct("<IIBBHIQ")
FRAME = struct.Struct("<IIIHBBIIQQQQqqqQQ")
HELLO, APPEND, CLAIM, STREAMS, READ, CREDIT, END = 1, 2, 3, 7, 12, 14, 16
WELCOME, ANSWER, APPENDED, DURABLE, FRAMES, READ_END, ERROR = 64, 65, 66, 67, 68, 69, 127


class Client:
    """Speaks the protocol of the page."""

    def __init__(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(f"/proc/self/fd/{handle}/log.sock")
        os.close(handle)
        self.number = 0
        self.durable: dict[str, int] = {}
        hello = {"greeting": "ringmain-log", "version_min": 1, "version_max": 1, "subscribe": True}
        kind, self.welcome, _ = self.ask(HELLO, hello)
        assert kind == WELCOME

    def send(self, kind: int, number: int, fields: dict[str, Any], data: bytes = b"") -> None:
        body = msgspec.msgpack.encode(fields)
        rest = body + bytes(-len(body) % 8) + data
        whole = HEADER.pack(len(rest), 0, kind, 0, 0, len(body), number) + rest
        self.sock.sendall(whole[:4] + struct.pack("<I", crc32c(whole)) + whole[8:])

    def receive(self) -> tuple[int, int, dict[str, Any], bytes]:
        header = self.exactly(24)
        length, crc, kind, flags, zero, size, number = HEADER.unpack(header)
        rest = self.exactly(length)
        assert crc == crc32c(header[:4] + bytes(4) + header[8:] + rest)
        assert (flags, zero) == (0, 0)
        return kind, number, msgspec.msgpack.decode(rest[:size]), rest[size + -size % 8 :]

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.sock.recv(size - len(found))
            assert more, "the log closed the connection"
            found += more
        return found

    def ask(self, kind: int, fields: dict[str, Any], data: bytes = b"") -> tuple[int, dict[str, Any], bytes]:
        self.number += 1
        self.send(kind, self.number, fields, data)
        while True:
            found, number, answer, rest = self.receive()
            if found == DURABLE:
                self.durable = answer
            else:
                assert number == self.number
                return found, answer, rest

    def stream(self, name: str) -> dict[str, Any]:
        _, answer, _ = self.ask(STREAMS, {"prefix": name})
        return next(stream for stream in answer["streams"] if stream["name"] == name)

    def append(
        self, claim: dict[str, Any], sequence: int, *frames: tuple[str, pa.RecordBatch], **more: Any
    ) -> tuple[int, dict[str, Any]]:
        headers, bodies = b"", b""
        for name, rows in frames:
            header, body = self.frame(claim, sequence, self.stream(name), rows)
            headers += header
            bodies += body
        fields = {**claim, "sequence": sequence, "frames": len(frames), **more}
        kind, answer, _ = self.ask(APPEND, fields, headers + bodies)
        return kind, answer

    def frame(
        self, claim: dict[str, Any], sequence: int, stream: dict[str, Any], rows: pa.RecordBatch
    ) -> tuple[bytes, bytes]:
        ids, codec = b"", 1
        if "series" in rows.schema.names:
            codec = 2
            ids = struct.pack(f"<{rows.num_rows}I", *rows.column("series").to_pylist())
            ids += bytes(-len(ids) % 8)
            ids = struct.pack("<II", rows.num_rows, crc32c(ids)) + ids
            rows = rows.drop_columns(["series"])
        message = rows.serialize().to_pybytes()
        times = rows.column("time").cast(pa.int64()).to_pylist()
        low, high = min(times), max(times)
        producer = int.from_bytes(hashlib.blake2b(claim["claim"].encode(), digest_size=8).digest(), "little")
        identity = struct.pack(
            "<QQQBBxxIqq", producer, claim["epoch"], sequence, codec, stream["kind"], rows.num_rows, low, high
        )
        body = ids + message
        header = FRAME.pack(
            len(body), crc32c(message, crc32c(identity)), stream["id"], 0, codec, stream["kind"], stream["schema_id"],
            rows.num_rows, 0, producer, claim["epoch"], sequence, low, high, -(2**63), 0, 0,
        )  # fmt: skip
        return header, body

    def read(
        self, *streams: str, credit: int = 1 << 20, **more: Any
    ) -> Iterator[tuple[str, pa.RecordBatch, tuple[int, int, int]]]:
        known = {}
        for name in streams:
            told = self.stream(name)
            known[told["id"]] = (name, pa.ipc.read_schema(pa.py_buffer(told["schema"])))
        kind, answer, _ = self.ask(READ, {"streams": list(streams), "credit_bytes": credit, **more})
        assert kind == ANSWER, answer
        read = self.number
        while True:
            kind, number, answer, data = self.receive()
            if kind == DURABLE:
                continue
            assert number == read
            if kind == READ_END:
                return
            assert kind == FRAMES, answer
            self.send(CREDIT, read, {"bytes": len(data)})
            while data:
                incarnation, offset, _, _, _, size = struct.unpack_from("<QQqHHI", data)
                header = FRAME.unpack_from(data, 32)
                body, data = data[128 : 128 + size], data[128 + size :]
                name, schema = known[header[2]]
                yield name, _decoded(schema, header[4], header[7], body), (incarnation, 0, offset)


def _decoded(schema: pa.Schema, codec: int, count: int, body: bytes) -> pa.RecordBatch:
    if codec == 1:
        return pa.ipc.read_record_batch(pa.py_buffer(body), schema)
    end = 8 + (4 * count + 7) // 8 * 8
    place = schema.get_field_index("series")
    rest = pa.ipc.read_record_batch(pa.py_buffer(body[end:]), schema.remove(place))
    columns = rest.columns
    columns.insert(place, pa.array(struct.unpack_from(f"<{count}I", body, 8), pa.uint32()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with open_log(tmp_path / "log") as log:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        log.listen()
        client = Client(tmp_path / "log")
        yield client
        assert [frame.sequence for frame in log.read("readings")] == [1, 1, 2]
        assert log.positions() == {"from-the-page/x": b"there"}
        client.sock.close()


def test_a_client_written_from_the_page_appends_is_told_and_reads(client: Client) -> None:
    assert client.welcome["format_version"] == 1
    kind, given, _ = client.ask(CLAIM, {"name": "from-the-page"})
    assert kind == ANSWER
    claim = {"claim": "from-the-page", "fence": given["fence"], "epoch": given["epoch"]}
    frames = [("readings", readings(5)), ("notes", notes("a", None)), ("readings", readings(4, start=9))]
    kind, first = client.append(claim, 1, *frames, positions={"from-the-page/x": b"there"})
    assert (kind, first["duplicate"]) == (APPENDED, False)
    assert client.durable["incarnation"] == client.welcome["incarnation"]
    assert client.durable["lsn"] >= first["offset"] >> 16
    assert client.append(claim, 1, *frames, positions={"from-the-page/x": b"there"})[1]["duplicate"]
    kind, refused = client.append(claim, 1, ("readings", readings(7)))
    assert (kind, refused["kind"]) == (ERROR, "conflict")
    kind, second = client.append(claim, 2, ("readings", readings(100_000 // 4)))
    assert kind == APPENDED
    found = list(client.read("readings", "notes", credit=1))
    assert [name for name, _, _ in found] == ["readings", "notes", "readings", "readings"]
    assert found[0][1].equals(readings(5))
    assert found[1][1].equals(notes("a", None))
    assert found[3][1].equals(readings(25_000))
    _, end, _ = client.ask(END, {})
    assert tuple(end["position"]) >= found[3][2]
    assert found[3][2][2] == second["offset"]
    assert [name for name, _, _ in client.read("readings", after=found[2][2])] == ["readings"]
