"""The bytes around every batch: segment, group and frame headers, and the mark of what is durable.

All integers are little endian, every structure is a multiple of 8 bytes, every byte is covered by a CRC-32C
(RFC 3720, appendix B.4). A group lies on disk as its 64-byte header, the 96-byte headers of its frames one
after the other, and then the bodies in the same order. `docs/log-format.md` has each offset.

Reading here never raises for damaged bytes: what does not check out is None. The one exception is a format
version newer than this one, in a header whose CRC is right: `NewerFormatError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

from crc32c import crc32c

from ringmain.log.interface import GROUP_BYTES_MAX, LogError

VERSION = 1
"""Version of the format that this code writes, and the newest that it reads."""

GROUP_MAGIC = 0x50524752
"""`RGRP` as it stands in the file."""
SEGMENT_MAGIC = 0x474553474E4952
"""`RINGSEG` and a zero byte as it stands in the file."""
MARK_MAGIC = 0x4B52414D
"""`MARK` as it stands in the file."""

GROUP_HEADER_BYTES = 64
FRAME_HEADER_BYTES = 96
SEGMENT_HEADER_BYTES = 64
MARK_BYTES = 64
FRAMES_MAX = (GROUP_BYTES_MAX - GROUP_HEADER_BYTES) // FRAME_HEADER_BYTES

SEGMENT_PREPARED = 1
"""Flag of a segment whose file was written with zeros beforehand: zeros behind its last group are no damage."""
FLAG_OPENING = 1
"""First group that an opening of the log wrote."""
FLAG_CLOSING = 2
"""Last group of a clean close; holds nothing, and proves what lies before it."""

_GROUP_BEGIN = struct.Struct("<IHHI4x")
"""A group header up to its CRC, and that as zero."""
GROUP = struct.Struct("<IHHIIQQQqqHHI")
FRAME = struct.Struct("<IIIHBBIIQQQQqqqQQ")
SEGMENT = struct.Struct("<QHHIQQIIQQq")
MARK = struct.Struct("<IHHIIQQQq16x")
_IDENTITY = struct.Struct("<QQQBBxxIqq")

_CRC_AT = 12
TIME_UNKNOWN_MIN = -(2**63)
TIME_UNKNOWN_MAX = 2**63 - 1


class NewerFormatError(LogError):
    """The log was written by a newer version of the format."""


class GroupHeader(NamedTuple):
    """The 64 bytes in front of a group. Times are ns UTC; `length` counts the whole group."""

    magic: int
    version: int
    flags: int
    length: int
    crc: int
    incarnation: int
    lsn: int
    durable_lsn: int
    arrival_ns: int
    wall_ns: int
    frame_count: int
    clock_state: int
    digest: int


class FrameHeader(NamedTuple):
    """The 96 bytes that describe one frame. `length` counts the body with its padding."""

    length: int
    body_crc: int
    stream: int
    partition: int
    codec: int
    kind: int
    schema: int
    rows: int
    catalogue_position: int
    producer: int
    epoch: int
    sequence: int
    time_min_ns: int
    time_max_ns: int
    origin_arrival_ns: int
    cumulative_rows: int
    reserved: int


# as `_make`, without a call of Python for each header that is read
_group_header = cast(Callable[[tuple[Any, ...]], GroupHeader], partial(tuple.__new__, GroupHeader))
_frame_header = cast(Callable[[tuple[Any, ...]], FrameHeader], partial(tuple.__new__, FrameHeader))


class SegmentHeader(NamedTuple):
    """The first 64 bytes of a segment. It states where its predecessor's valid bytes end (0: no predecessor)."""

    magic: int
    version: int
    flags: int
    crc: int
    incarnation: int
    first_lsn: int
    number: int
    previous_number: int
    previous_end: int
    previous_offset: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log is durable: the last group's lsn, and the segment and byte behind it."""

    incarnation: int
    lsn: int
    segment: int
    end: int
    arrival_ns: int

    def pack(self) -> bytes:
        """The 64 bytes of the mark file."""
        raw = bytearray(
            MARK.pack(
                MARK_MAGIC, VERSION, 0, self.segment, 0, self.incarnation, self.lsn, self.end, self.arrival_ns
            )
        )
        struct.pack_into("<I", raw, _CRC_AT, crc32c(raw))
        return bytes(raw)

    @classmethod
    def unpack(cls, raw: bytes) -> Mark | None:
        """The mark in these bytes; None if they do not check out. Raises NewerFormatError."""
        if len(raw) < MARK_BYTES:
            return None
        raw = raw[:MARK_BYTES]
        magic, version, _, segment, crc, incarnation, lsn, end, arrival = MARK.unpack(raw)
        if magic != MARK_MAGIC or crc != _crc_without(raw, _CRC_AT):
            return None
        if version > VERSION:
            raise NewerFormatError(newer_format(version))
        return cls(incarnation, lsn, segment, end, arrival)


_ZERO_CRC = b"\0\0\0\0"


def _crc_without(raw: bytes | memoryview, crc_at: int) -> int:
    """CRC-32C with the four bytes at `crc_at` taken as zero."""
    crc: int = crc32c(raw[:crc_at])
    crc = crc32c(_ZERO_CRC, crc)
    return int(crc32c(raw[crc_at + 4 :], crc))


def seal_group(headers: bytearray) -> None:
    """Fill in the header CRC of a group's headers (group header and all frame headers), whose CRC field is zero."""
    struct.pack_into("<I", headers, _CRC_AT, crc32c(headers))


def read_group_header(raw: bytes | memoryview, at: int = 0) -> GroupHeader | None:
    """The group header at `at`, its CRC not yet checked; None if it cannot be one."""
    if at < 0 or len(raw) - at < GROUP_HEADER_BYTES:
        return None
    header = _group_header(GROUP.unpack_from(raw, at))
    headers = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * header.frame_count
    if header.magic != GROUP_MAGIC or header.length % 8 or not headers <= header.length <= GROUP_BYTES_MAX:
        return None
    return header


def headers_bytes(header: GroupHeader) -> int:
    """Bytes of the group header and its frame headers."""
    return GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * header.frame_count


def read_frame_headers(raw: bytes | memoryview, header: GroupHeader, at: int = 0) -> list[FrameHeader] | None:
    """The frame headers behind a group header at `at`, CRC checked; None if anything does not check out.

    Raises NewerFormatError when the CRC is right and the version is not known.
    """
    count = header.frame_count
    size = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * count
    crc = crc32c(_GROUP_BEGIN.pack(header.magic, header.version, header.flags, header.length))
    if len(raw) - at < size or crc32c(raw[at + _CRC_AT + 4 : at + size], crc) != header.crc:
        return None
    if header.version > VERSION:
        raise NewerFormatError(newer_format(header.version))
    if count == 1:
        frame = _frame_header(FRAME.unpack_from(raw, at + GROUP_HEADER_BYTES))
        return [frame] if size + frame.length == header.length else None
    frames = list(map(_frame_header, FRAME.iter_unpack(raw[at + GROUP_HEADER_BYTES : at + size])))
    if size + sum(frame.length for frame in frames) != header.length:
        return None
    return frames


def newer_format(version: int) -> str:
    """The one line that refuses a newer format."""
    return (
        f"the log has format version {version}, this Ringmain reads up to version {VERSION}: "
        "open it with the Ringmain that wrote it, or a newer one"
    )


def body_crc(
    body: bytes | memoryview,
    *,
    producer: int,
    epoch: int,
    sequence: int,
    codec: int,
    kind: int,
    rows: int,
    time_min_ns: int,
    time_max_ns: int,
) -> int:
    """CRC-32C over the identity and the body without its ids section, as the producer made them."""
    identity = _IDENTITY.pack(producer, epoch, sequence, codec, kind, rows, time_min_ns, time_max_ns)
    return int(crc32c(body, crc32c(identity)))


def header_body_crc(frame: FrameHeader, body: bytes | memoryview) -> int:
    """What `body_crc` gives for a stored frame; equal to `frame.body_crc` when nothing is damaged."""
    identity = _IDENTITY.pack(
        frame.producer,
        frame.epoch,
        frame.sequence,
        frame.codec,
        frame.kind,
        frame.rows,
        frame.time_min_ns,
        frame.time_max_ns,
    )
    return int(crc32c(body, crc32c(identity)))


def pack_segment_header(
    *,
    incarnation: int,
    first_lsn: int,
    number: int,
    previous_number: int,
    previous_end: int,
    previous_offset: int,
    created_ns: int,
    flags: int = 0,
) -> bytes:
    """The first 64 bytes of a segment."""
    raw = bytearray(
        SEGMENT.pack(
            SEGMENT_MAGIC,
            VERSION,
            flags,
            0,
            incarnation,
            first_lsn,
            number,
            previous_number,
            previous_end,
            previous_offset,
            created_ns,
        )
    )
    struct.pack_into("<I", raw, _CRC_AT, crc32c(raw))
    return bytes(raw)


def read_segment_header(raw: bytes) -> SegmentHeader | None:
    """The segment header at the start of `raw`; None if it does not check out. Raises NewerFormatError."""
    if len(raw) < SEGMENT_HEADER_BYTES:
        return None
    raw = raw[:SEGMENT_HEADER_BYTES]
    header = SegmentHeader._make(SEGMENT.unpack(raw))
    if header.magic != SEGMENT_MAGIC or header.crc != _crc_without(raw, _CRC_AT):
        return None
    if header.version > VERSION:
        raise NewerFormatError(newer_format(header.version))
    return header


def offset_of(lsn: int, frame: int) -> int:
    """The u64 of a position: the group's lsn and the frame's place in its group."""
    return lsn << 16 | frame


def lsn_of(offset: int) -> int:
    """The group's lsn in a position's u64."""
    return offset >> 16
