"""A reader written from `docs/log-format.md` alone, with `struct`: it reads what the log wrote."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
from crc32c import crc32c

from ringmain.log import open_log
from ringmain.log.interface import Batch, StreamKind
from ringmain.model.schemas import READING
from tests.log.batches import NOTE, notes, reading_batch, readings


def _crc(raw: bytes, at: int) -> int:
    return int(crc32c(raw[:at] + bytes(4) + raw[at + 4 :]))


def _valid_ends(directory: Path) -> list[tuple[Path, int]]:
    """The chain of segments, oldest first, each with the end of its valid bytes."""
    segments = sorted(directory.glob("*.seg"))
    path: Path | None = segments[-1]
    end = segments[-1].stat().st_size
    chain = []
    while path is not None:
        raw = path.read_bytes()[:64]
        assert raw[:8] == b"RINGSEG\0"
        assert struct.unpack_from("<H", raw, 8) == (1,)
        assert struct.unpack_from("<I", raw, 12)[0] == _crc(raw, 12)
        number, previous, previous_end = struct.unpack_from("<IIQ", raw, 32)
        assert path.name == f"{number:010}.seg"
        chain.append((path, end))
        path, end = (directory / f"{previous:010}.seg" if previous else None), previous_end
    return chain[::-1]


def _frames(directory: Path) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(offset, arrival, frame header, body) of each frame."""
    for path, end in _valid_ends(directory):
        raw, at = path.read_bytes()[:end], 64
        while at < len(raw):
            assert raw[at : at + 4] == b"RGRP"
            length, crc = struct.unpack_from("<II", raw, at + 8)
            lsn, _, arrival = struct.unpack_from("<QQq", raw, at + 24)
            (count,) = struct.unpack_from("<H", raw, at + 56)
            headers = raw[at : at + 64 + 96 * count]
            assert _crc(headers, 12) == crc
            body_at = at + len(headers)
            for number in range(count):
                header = headers[64 + 96 * number :][:96]
                (size,) = struct.unpack_from("<I", header)
                yield lsn << 16 | number, arrival, header, raw[body_at : body_at + size]
                body_at += size
            assert body_at == at + length
            at += length


def _checked_body(header: bytes, body: bytes) -> tuple[list[int], bytes]:
    """(series ids, rest of the body) after both CRCs."""
    (crc,) = struct.unpack_from("<I", header, 4)
    codec, kind = header[14], header[15]
    (rows,) = struct.unpack_from("<I", header, 20)
    ids: list[int] = []
    if codec == 2:
        count, ids_crc = struct.unpack_from("<II", body)
        assert count == rows
        end = 8 + (4 * count + 7) // 8 * 8
        assert crc32c(body[8:end]) == ids_crc
        ids = list(struct.unpack_from(f"<{count}I", body, 8))
        body = body[end:]
    identity = header[32:56] + struct.pack("<BBxxI", codec, kind, rows) + header[56:72]
    assert crc32c(identity + body) == crc
    return ids, body


def test_a_reader_written_from_the_document_reads_the_log(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=8192)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("importer", epoch=5)
    for number in range(20):
        batches = [reading_batch(33, start=number, value=number), Batch("notes", notes("x", None))]
        log.append(batches, claim=claim, sequence=number, positions={"importer": b"%d" % number})
    expected = list(log.read(["readings", "notes"]))
    log.close()

    schemas = {16: READING}
    names = {16: "readings"}
    found = []
    positions: dict[str, bytes] = {}
    rest = pa.schema([READING.field(name) for name in ("time", "value", "quality")])
    for offset, arrival, header, body in _frames(tmp_path):
        stream, schema = struct.unpack_from("<I", header, 8)[0], struct.unpack_from("<I", header, 16)[0]
        producer, epoch, sequence, low, high, origin, total = struct.unpack_from("<QQQqqqQ", header, 32)
        ids, body = _checked_body(header, body)
        if stream == 1:
            (size,) = struct.unpack_from("<I", body)
            record = msgspec.msgpack.decode(body[4 : 4 + size])
            if record["type"] == "stream":
                schemas[record["schema_id"]] = pa.ipc.read_schema(pa.py_buffer(record["schema"]))
                names[record["id"]] = record["name"]
            elif record["type"] == "positions":
                positions.update(record["values"])
            continue
        if ids:
            batch = pa.ipc.read_record_batch(pa.py_buffer(body), rest)
            rows = pa.RecordBatch.from_arrays([pa.array(ids, pa.uint32()), *batch.columns], schema=READING)
        else:
            rows = pa.ipc.read_record_batch(pa.py_buffer(body), schemas[schema])
        name_hash = hashlib.blake2b(b"importer", digest_size=8).digest()
        assert producer == int.from_bytes(name_hash, "little")
        found.append((names[stream], offset, arrival, origin, epoch, sequence, low, high, total, rows))
    assert found == [
        (
            frame.stream,
            frame.position.offset,
            frame.arrival_ns,
            frame.origin_arrival_ns,
            frame.epoch,
            frame.sequence,
            frame.time_min_ns,
            frame.time_max_ns,
            frame.cumulative_rows,
            frame.rows,
        )
        for frame in expected
    ]
    assert positions == {"importer": b"19"}
    assert expected[0].rows == readings(33, start=0, value=0)
