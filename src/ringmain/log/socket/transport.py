"""Frames between processes: an append as the client encoded it, checked as a stranger's, and frames for a reader.

The client makes frame headers and bodies as they will lie in the journal; the log fills in only its own fields
(catalogue position, arrival where none is given, cumulative rows). So nothing is encoded twice. Nothing is
believed either: every field, length and checksum is checked here before a request comes of it, because a body
that does not decode would be durable damage. From a peer that cannot write the log's files anyway, the values are
checked as well.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from crc32c import crc32c

from ringmain.log.builtin import CATALOGUE_ID, OF_THE_LOG_ALONE
from ringmain.log.codec import Body, Codec, ids_end
from ringmain.log.control import ControlState, StreamEntry, producer_id
from ringmain.log.frames import (
    FRAME,
    FRAME_HEADER_BYTES,
    FRAMES_MAX,
    GROUP_HEADER_BYTES,
    TIME_UNKNOWN_MIN,
    FrameHeader,
)
from ringmain.log.interface import (
    FRAME_BYTES_MAX,
    GROUP_BYTES_MAX,
    Claim,
    Frame,
    LogError,
    Position,
    StreamKind,
    TooLargeError,
    UnknownStreamError,
)
from ringmain.log.reader import RawFrame
from ringmain.log.request import EncodedFrame, Request, of_the_log_alone, too_large
from ringmain.log.socket.wire import AppendHead, ProtocolError

ARRIVAL = TIME_UNKNOWN_MIN
"""As the origin arrival of a frame on its way to the log: the log's arrival time is to be used."""
_SERIES_AHEAD_MAX = 1_000_000
_PLACE = struct.Struct("<QQqHHI")
_ENTRY_BYTES = _PLACE.size + FRAME_HEADER_BYTES


# -- appends -------------------------------------------------------------------------------------------------


def append_message(request: Request, failures_seen: int) -> tuple[AppendHead, list[Any], int]:
    """The map, the data and the bytes of the data of an append."""
    claim = request.claim
    producer = producer_id(claim.name)
    headers = bytearray(FRAME_HEADER_BYTES * len(request.frames))
    size = len(headers)
    data: list[Any] = [headers]
    for number, frame in enumerate(request.frames):
        body = frame.body
        FRAME.pack_into(
            headers,
            FRAME_HEADER_BYTES * number,
            body.length,
            frame.crc,
            frame.stream_id,
            0,
            body.codec,
            frame.kind,
            frame.schema_id,
            body.rows,
            0,
            producer,
            claim.epoch,
            request.sequence,
            body.time_min_ns,
            body.time_max_ns,
            ARRIVAL if frame.origin_arrival_ns is None else frame.origin_arrival_ns,
            0,
            0,
        )
        data.extend(body.buffers)
        size += body.length
    positions = None if request.positions is None else dict(request.positions)
    head = AppendHead(
        claim.name, claim.fence, claim.epoch, request.sequence, len(request.frames), failures_seen, positions
    )
    return head, data, size


def received_append(
    head: AppendHead, data: memoryview, entries: dict[int, StreamEntry], series_count: int, *, trusted: bool
) -> Request:
    """The append that a peer sent, `entries` being the streams by id, as a request without `done`.

    `trusted`: the peer could write the log's files as well, so the values in the columns are not looked at, but for
    those of control streams.
    Raises ProtocolError for what no client of ours sends, LogError otherwise.
    """
    _check_head(head, len(data))
    claim = Claim(head.claim, head.fence, head.epoch)
    producer = producer_id(head.claim)
    frames: list[EncodedFrame] = []
    at = FRAME_HEADER_BYTES * head.frames
    size = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES + len(data)
    if size > GROUP_BYTES_MAX:
        raise TooLargeError(too_large(size))
    digest = control_digest = last_series = 0
    for fields in FRAME.iter_unpack(data[:at]):
        header = FrameHeader._make(fields)
        body = data[at : at + header.length]
        at += header.length
        if at > len(data):
            raise ProtocolError(f"expected bodies of {at} bytes as the frame headers say, found {len(data)}")
        if (header.producer, header.epoch, header.sequence) != (producer, head.epoch, head.sequence):
            raise ProtocolError(
                f"claim {head.claim!r}: expected frames with the identity of their append, found another"
            )
        entry = entries.get(header.stream)
        if entry is None:
            raise UnknownStreamError(f"no stream with id {header.stream}: ask for the streams again")
        if header.stream in OF_THE_LOG_ALONE:
            raise LogError(of_the_log_alone(entry.stream.name))
        frame, rows = _checked(entry, header, body, series_count, trusted=trusted)
        mixed = b"%d %d %d" % (header.stream, header.body_crc, frame.body.ids_crc)
        if entry.stream.kind == StreamKind.CONTROL:
            control_digest = crc32c(mixed, control_digest)
        else:
            digest = crc32c(mixed, digest)
        if header.stream == CATALOGUE_ID and rows.num_rows:
            last_series = max(last_series, 1 + int(pc.max(rows.column("id")).as_py()))
        frames.append(frame)
    if at != len(data):
        raise ProtocolError(f"expected {at} bytes of frames as their headers say, found {len(data)}")
    if last_series > series_count + _SERIES_AHEAD_MAX:
        raise LogError(f"expected dense ids of series, the next is {series_count}; found {last_series - 1}")
    return Request(
        claim,
        head.sequence,
        frames,
        digest or control_digest,
        size,
        None,
        head.positions or None,
        series_count=last_series,
    )


def _check_head(head: AppendHead, data_bytes: int) -> None:
    if not 0 <= head.sequence < 2**63 or not 0 <= head.epoch < 2**64 or not 0 <= head.fence < 2**64:
        raise ProtocolError(
            f"claim {head.claim!r}: expected a sequence below 2**63, epoch and fence below 2**64, found "
            f"{head.sequence}, {head.epoch}, {head.fence}"
        )
    if not 0 <= head.frames < FRAMES_MAX or FRAME_HEADER_BYTES * head.frames > data_bytes:
        raise ProtocolError(f"expected the headers of {head.frames} frames, found {data_bytes} bytes of data")
    for name in head.positions or ():
        if not name.isprintable():
            raise LogError(f"expected a position name of printable text, found {name!r}")


def _checked(
    entry: StreamEntry, header: FrameHeader, body: memoryview, series_count: int, *, trusted: bool
) -> tuple[EncodedFrame, pa.RecordBatch]:
    """A frame that is as this log would have made it. Raises TooLargeError, LogError."""
    stream = entry.stream
    where = f"stream {stream.name!r}"
    if len(body) + FRAME_HEADER_BYTES > FRAME_BYTES_MAX:
        raise TooLargeError(
            f"a frame holds at most {FRAME_BYTES_MAX} bytes (900 KiB), this batch of {header.rows} rows needs "
            f"{len(body) + FRAME_HEADER_BYTES}: split it into smaller batches"
        )
    expected = (stream.kind, entry.schema_id, 0, 0, 0, 0)
    found = (
        header.kind,
        header.schema,
        header.partition,
        header.catalogue_position,
        header.cumulative_rows,
        header.reserved,
    )
    if found != expected or len(body) % 8:
        raise ProtocolError(
            f"{where}: expected kind, schema, partition, catalogue position, cumulative rows and reserved bits {expected} "
            f"and a body in steps of 8 bytes, found {found} and {len(body)}"
        )
    end = ids_end(header, body) if header.codec == Codec.IDS_AND_ARROW else 0
    plain = trusted or (end is not None and is_plain(body[end:]))
    rows = entry.layout.decode(header, body) if plain else None
    if rows is None or end is None:
        raise ProtocolError(
            f"{where}: expected rows of its schema with right checksums, found a body that is none"
        )
    ids_crc = int.from_bytes(body[4:8], "little") if end else 0
    if not trusted or stream.kind == StreamKind.CONTROL:
        # the log itself believes these, now and whenever it is opened
        _check_rows(where, entry, header, rows, series_count)
    encoded = Body(
        Codec(header.codec),
        header.rows,
        header.time_min_ns,
        header.time_max_ns,
        header.length,
        ids_crc,
        (body,),
        body[end:],
    )
    origin = None if header.origin_arrival_ns == ARRIVAL else header.origin_arrival_ns
    return EncodedFrame(
        stream.id, stream.name, stream.kind, entry.schema_id, encoded, header.body_crc, origin
    ), rows


def is_plain(message: memoryview) -> bool:
    """Whether an Arrow IPC message says that its record batch is not compressed: few bytes could decode to gigabytes.

    Message.fbs and the layout of a table in FlatBuffers: a table's field is at the offset that its vtable gives, 0 is
    absent; the header of a Message is its field 2, the compression of a RecordBatch its field 3.
    """
    try:
        if int.from_bytes(message[:4], "little") != 0xFFFFFFFF:
            return False
        data = message[8:]
        table = _field(data, _u32(data, 0), 2)
        return table > 0 and _field(data, table + _u32(data, table), 3) == 0
    except struct.error:
        return False


def _u32(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a table's field lies; 0 when it is absent. Raises struct.error outside of the data."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    if vtable < 0:
        raise struct.error("a vtable before the data")
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _check_rows(
    where: str, entry: StreamEntry, header: FrameHeader, rows: pa.RecordBatch, series_count: int
) -> None:
    """The columns hold what their types say, no nulls where none may be, known series, and the times of the header."""
    try:
        rows.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise ProtocolError(f"{where}: expected columns as their schema says: {error}") from None
    for index in entry.layout.required:
        if rows.column(index).null_count:
            raise LogError(f"{where}, column {rows.schema.field(index).name}: expected no nulls, found some")
    if entry.layout.series is not None and header.rows:
        largest = int(pc.max(rows.column(entry.layout.series)).as_py())
        if largest >= series_count:
            raise LogError(
                f"{where}: expected ids of series below {series_count}, found {largest}: register keys first"
            )
    if entry.layout.time_range(rows) != (header.time_min_ns, header.time_max_ns):
        raise ProtocolError(
            f"{where}: expected the first and last time of the rows in the frame header, found others"
        )


# -- frames for readers --------------------------------------------------------------------------------------


class ReceivedFrame(NamedTuple):
    """A frame as it came to a reader."""

    incarnation: int
    offset: int
    arrival_ns: int
    clock_state: int
    header: FrameHeader
    body: memoryview


def frame_buffers(frame: RawFrame) -> tuple[bytes, Any, int]:
    """(place and frame header, body, bytes of both) of a stored frame on its way to a reader."""
    header = frame.header
    head = _PLACE.pack(
        frame.incarnation, frame.offset, frame.arrival_ns, frame.clock_state, 0, header.length
    ) + FRAME.pack(*header)
    return head, frame.body, _ENTRY_BYTES + header.length


def received_frames(data: memoryview) -> list[ReceivedFrame]:
    """The frames in the data of a message. Raises ProtocolError."""
    frames: list[ReceivedFrame] = []
    at = 0
    while at < len(data):
        if len(data) - at < _ENTRY_BYTES:
            raise ProtocolError(f"expected a frame of at least {_ENTRY_BYTES} bytes, found {len(data) - at}")
        incarnation, offset, arrival_ns, clock_state, _, length = _PLACE.unpack_from(data, at)
        header = FrameHeader._make(FRAME.unpack_from(data, at + _PLACE.size))
        at += _ENTRY_BYTES
        body = data[at : at + length]
        if len(body) != length or header.length != length:
            raise ProtocolError(f"expected a body of {length} bytes, found {len(body)}")
        at += length
        frames.append(ReceivedFrame(incarnation, offset, arrival_ns, clock_state, header, body))
    return frames


def decoded_frame(state: ControlState, frame: ReceivedFrame) -> Frame | None:
    """The frame as a reader sees it; None when its body does not check out. Raises UnknownStreamError."""
    header = frame.header
    entry = state.by_id.get(header.stream)
    if entry is None:
        raise UnknownStreamError(f"no stream with id {header.stream}")
    position = Position(frame.incarnation, 0, frame.offset)
    return entry.frame(header, frame.body, position, frame.arrival_ns, frame.clock_state)
