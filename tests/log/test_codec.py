"""Bodies and headers: whatever goes in comes out, whatever is damaged is noticed, nothing crashes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log.builtin import LEDGER
from ringmain.log.codec import Codec, Layout, body_is_sound, decode_record, encode_record
from ringmain.log.control import Moved
from ringmain.log.frames import (
    FRAME,
    FRAME_HEADER_BYTES,
    GROUP,
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    VERSION,
    FrameHeader,
    GroupHeader,
    Mark,
    body_crc,
    pack_segment_header,
    read_frame_headers,
    read_group_header,
    read_segment_header,
    seal_group,
)
from ringmain.log.interface import LogError
from ringmain.log.ledger.entries import LedgerEntry, ledger_batch
from ringmain.model.schemas import DEAD_LETTER, EVENT, READING, TIMESTAMP
from tests.log.batches import readings

_SEEDED = settings(max_examples=60, deadline=None, derandomize=True)
_INT64 = st.integers(-(2**63), 2**63 - 1)

READINGS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), _INT64, st.floats(), st.integers(0, 2**16 - 1)), max_size=40
)


def _readings(rows: list[tuple[int, int, float, int]]) -> pa.RecordBatch:
    series, times, values, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.RecordBatch.from_arrays(
        [
            pa.array(series, pa.uint32()),
            pa.array(times, pa.int64()).cast(TIMESTAMP),
            pa.array(np.array(values, np.float64)),
            pa.array(quality, pa.uint16()),
        ],
        schema=READING,
    )


def _header(layout: Layout, rows: pa.RecordBatch, *, sequence: int = 3) -> tuple[FrameHeader, bytes]:
    body = layout.encode(rows)
    crc = body_crc(
        body.checked,
        producer=1,
        epoch=2,
        sequence=sequence,
        codec=body.codec,
        kind=1,
        rows=body.rows,
        time_min_ns=body.time_min_ns,
        time_max_ns=body.time_max_ns,
    )
    raw = b"".join(body.buffers)
    header = FrameHeader(
        len(raw),
        crc,
        16,
        0,
        body.codec,
        1,
        16,
        body.rows,
        0,
        1,
        2,
        sequence,
        body.time_min_ns,
        body.time_max_ns,
        0,
        0,
        0,
    )
    return header, raw


@_SEEDED
@given(READINGS)
def test_readings_come_back_bit_for_bit(rows: list[tuple[int, int, float, int]]) -> None:
    layout = Layout(READING)
    batch = _readings(rows)
    header, raw = _header(layout, batch)
    assert header.codec == Codec.IDS_AND_ARROW
    assert len(raw) % 8 == 0
    decoded = layout.decode(header, raw)
    assert decoded is not None
    assert decoded.column("value").view(pa.int64()).equals(batch.column("value").view(pa.int64()))
    for name in ("series", "time", "quality"):
        assert decoded.column(name).equals(batch.column(name))
    if rows:
        assert header.time_min_ns == min(row[1] for row in rows)
        assert header.time_max_ns == max(row[1] for row in rows)


@_SEEDED
@given(
    st.lists(
        st.tuples(st.text(), st.binary(), st.integers(0, 2**62), _INT64, st.text(max_size=5)),
        min_size=1,
        max_size=10,
    )
)
def test_rows_with_text_and_bytes_come_back(rows: list[tuple[str, bytes, int, int, str]]) -> None:
    rows = [
        row for row in rows if all(c < "\ud800" or c > "\udfff" for text in (row[0], row[4]) for c in text)
    ]
    columns = [
        pa.array([row[0] for row in rows], pa.string()),
        pa.array([row[0] for row in rows], pa.string()),
        pa.array([row[1] for row in rows], pa.binary()),
        pa.array([row[2] for row in rows], pa.int64()),
        pa.array([row[3] for row in rows], pa.int64()).cast(TIMESTAMP),
        pa.array([row[4] for row in rows], pa.string()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=DEAD_LETTER)
    layout = Layout(DEAD_LETTER)
    header, raw = _header(layout, batch)
    assert layout.decode(header, raw) == batch


def test_slices_and_nulls_come_back() -> None:
    layout = Layout(READING)
    batch = readings(101, start=5).slice(7, 33)
    header, raw = _header(layout, batch)
    assert layout.decode(header, raw) == batch
    assert (header.time_min_ns, header.time_max_ns) == (12, 44)
    event = pa.RecordBatch.from_pylist(
        [
            {
                "id": "1",
                "source": "s",
                "type": "t",
                "subject": None,
                "time": 5,
                "datacontenttype": None,
                "data": None,
            }
        ],
        schema=EVENT,
    )
    header, raw = _header(Layout(EVENT), event)
    assert Layout(EVENT).decode(header, raw) == event


def test_decoding_copies_nothing() -> None:
    layout = Layout(READING)
    header, raw = _header(layout, readings(1000))
    decoded = layout.decode(header, raw)
    assert decoded is not None
    start = pa.py_buffer(raw).address
    for column in decoded.columns:
        assert start <= column.buffers()[1].address < start + len(raw)


def test_encoding_does_not_keep_the_senders_memory() -> None:
    layout = Layout(READING)
    ids = np.arange(10, dtype=np.uint32)
    batch = pa.RecordBatch.from_arrays([pa.array(ids), *readings(10).columns[1:]], schema=READING)
    body = layout.encode(batch)
    before = b"".join(body.buffers)
    ids[:] = 99
    assert b"".join(body.buffers) == before


def test_each_flipped_bit_of_a_body_is_noticed() -> None:
    layout = Layout(READING)
    header, raw = _header(layout, readings(5))
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << at % 8
        assert layout.decode(header, bytes(damaged)) is None
        assert not body_is_sound(header, memoryview(bytes(damaged)))
    assert body_is_sound(header, memoryview(raw))
    assert layout.decode(header._replace(sequence=4), raw) is None


@_SEEDED
@given(st.binary(max_size=300))
def test_random_bytes_never_crash_a_decoder(data: bytes) -> None:
    layout = Layout(READING)
    header, raw = _header(layout, readings(3))
    assert layout.decode(header._replace(length=len(data)), data) is None or data == raw
    assert decode_record(header._replace(codec=Codec.MESSAGEPACK), data) is None


@_SEEDED
@given(st.binary(min_size=0, max_size=400))
def test_random_bytes_never_crash_a_header_parser(data: bytes) -> None:
    assert read_segment_header(data) is None
    assert Mark.unpack(data) is None
    header = read_group_header(data)
    assert header is None or read_frame_headers(data, header) is None
    forged = GROUP_MAGIC.to_bytes(4, "little") + data
    header = read_group_header(forged)
    assert header is None or read_frame_headers(forged, header) is None


@_SEEDED
@given(
    st.tuples(*[st.integers(0, 2**64 - 1)] * 3),
    st.tuples(_INT64, _INT64),
    st.integers(0, 2**16 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
)
def test_headers_come_back(
    lsns: tuple[int, ...], times: tuple[int, int], state: int, streams: list[int]
) -> None:
    frames = [FrameHeader(8, 1, stream, 2, 3, 4, 5, 6, 7, 8, 9, 10, *times, 11, 12, 0) for stream in streams]
    size = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * len(frames)
    raw = bytearray(size + 8 * len(frames))
    header = GroupHeader(GROUP_MAGIC, VERSION, 0, len(raw), 0, *lsns, *times, len(frames), state, 77)
    headers = bytearray(GROUP.pack(*header) + b"".join(FRAME.pack(*frame) for frame in frames))
    seal_group(headers)
    raw[:size] = headers
    found = read_group_header(raw)
    assert found is not None
    assert found._replace(crc=0) == header
    assert read_frame_headers(raw, found) == frames
    for at in range(size):
        damaged = bytearray(raw)
        damaged[at] ^= 0x10
        broken = read_group_header(damaged)
        assert broken is None or read_frame_headers(damaged, broken) is None


def test_segment_headers_and_marks_come_back() -> None:
    raw = pack_segment_header(
        incarnation=1,
        first_lsn=2,
        number=3,
        previous_number=2,
        previous_end=64,
        previous_offset=5,
        created_ns=6,
    )
    header = read_segment_header(raw)
    assert header is not None
    assert (header.incarnation, header.first_lsn, header.number, header.previous_end) == (1, 2, 3, 64)
    mark = Mark(1, 2, 3, 4, 5)
    assert Mark.unpack(mark.pack()) == mark
    for at in range(64):
        for blob, parse in ((raw, read_segment_header), (mark.pack(), Mark.unpack)):
            damaged = bytearray(blob)
            damaged[at] ^= 2
            assert parse(bytes(damaged)) is None


def test_records_come_back() -> None:
    body = encode_record(Moved({"a/b": b"x", "gone": None}))
    raw = b"".join(body.buffers)
    assert len(raw) % 8 == 0
    crc = body_crc(
        raw, producer=0, epoch=0, sequence=0, codec=3, kind=4, rows=1, time_min_ns=0, time_max_ns=0
    )
    header = FrameHeader(len(raw), crc, 1, 0, 3, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert decode_record(header, raw) is not None


def test_schemas_that_frames_cannot_carry_are_refused() -> None:
    keyed = pa.schema([pa.field("key", pa.list_(pa.dictionary(pa.int32(), pa.string())))])
    with pytest.raises(LogError, match="key"):
        Layout(keyed)


def test_nulls_in_required_columns_are_refused() -> None:
    rows = readings(2)
    times = pa.array([1, None], pa.int64()).cast(TIMESTAMP)
    broken = pa.RecordBatch.from_arrays([rows.column(0), times, *rows.columns[2:]], schema=READING)
    with pytest.raises(LogError, match="time"):
        Layout(READING).encode(broken)


def test_the_ledger_schema_takes_entries() -> None:
    entry = LedgerEntry("cut", None, None, "a", "b", 5, None, "why", 9)
    assert ledger_batch([entry]).schema.equals(LEDGER)
