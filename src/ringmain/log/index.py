"""Where every frame lies: 64 bytes a frame, in memory for the active segment, in a sidecar for sealed ones.

The index answers the three questions of reading (which frames of these streams, which of them overlap a time
range, where does an arrival time start) with NumPy over fixed-size entries, without touching the segment. It
is rebuildable: a sidecar that is missing or does not check out is made again from the segment's headers. It is
never trusted for content: a reader checks the CRCs of whatever the entry points at.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ringmain.log.files import FileSystem, publish_file, read_file
from ringmain.log.frames import VERSION, FrameHeader, GroupHeader, NewerFormatError, newer_format, offset_of

ENTRY = np.dtype(
    [
        ("offset", "<u8"),
        ("arrival_ns", "<i8"),
        ("time_min_ns", "<i8"),
        ("time_max_ns", "<i8"),
        ("group_at", "<u4"),
        ("group_bytes", "<u4"),
        ("body_at", "<u4"),
        ("body_bytes", "<u4"),
        ("stream", "<u4"),
        ("rows", "<u4"),
        ("frame_count", "<u2"),
        ("clock_state", "<u2"),
        ("reserved", "<u4"),
    ]
)
"""One frame of a segment; `group_at` and `body_at` are bytes from the start of the segment."""

_ENTRY = struct.Struct("<QqqqIIIIIIHHI")
_HEADER = struct.Struct("<QHHIIIQQIIQ8x")
_MAGIC = 0x584449474E4952
_INITIAL = 256
_FEW_STREAMS = 8

Entries = NDArray[Any]


class FrameIndex:
    """Entries in log order. One thread appends; others read what `entries()` gave them."""

    __slots__ = ("_data", "_view", "count")

    def __init__(self, entries: Entries | None = None) -> None:
        held = b"" if entries is None else entries.tobytes()
        self.count = len(held) // ENTRY.itemsize
        self._data = bytearray(held or _INITIAL * ENTRY.itemsize)
        self._view: Entries = np.frombuffer(self._data, ENTRY)

    def add(self, at: int, group: GroupHeader, frames: list[FrameHeader]) -> None:
        """Add the frames of a group that starts at byte `at` of the segment."""
        body_at = at + 64 + 96 * len(frames)
        if (self.count + len(frames)) * ENTRY.itemsize > len(self._data):
            self._grow(self.count + len(frames))
        place = self.count * ENTRY.itemsize
        count = len(frames)
        for number, frame in enumerate(frames):
            _ENTRY.pack_into(
                self._data,
                place,
                offset_of(group.lsn, number),
                group.arrival_ns,
                frame.time_min_ns,
                frame.time_max_ns,
                at,
                group.length,
                body_at,
                frame.length,
                frame.stream,
                frame.rows,
                count,
                group.clock_state,
                0,
            )
            body_at += frame.length
            place += ENTRY.itemsize
        self.count += count

    def _grow(self, needed: int) -> None:
        data = bytearray(max(2 * len(self._data), needed * ENTRY.itemsize))
        used = self.count * ENTRY.itemsize
        data[:used] = memoryview(self._data)[:used]
        self._data = data
        self._view = np.frombuffer(data, ENTRY)

    def entries(self) -> Entries:
        """The entries so far. The view stays right when more are added."""
        return self._view[: self.count]

    @property
    def memory_bytes(self) -> int:
        """Bytes that the index takes in memory."""
        return len(self._data)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A segment's index, the end of the bytes that it covers, and the lsn of the last group there."""

    number: int
    end: int
    last_lsn: int
    entries: Entries

    def write(self, fs: FileSystem, path: Path, *, synced: bool = True) -> None:
        """Publish the sidecar. Not `synced`: it may be lost, which only costs a rebuild. Raises OSError."""
        publish_file(fs, path, self.pack(), synced=synced)

    def pack(self) -> list[bytes]:
        """The bytes of the sidecar's file: its header and its entries."""
        data = self.entries.tobytes()
        head = _HEADER.pack(
            _MAGIC,
            VERSION,
            0,
            0,
            self.number,
            ENTRY.itemsize,
            self.end,
            len(self.entries),
            crc32c(data),
            0,
            self.last_lsn,
        )
        return [head[:12] + struct.pack("<I", crc32c(head)) + head[16:], data]

    @classmethod
    def read(cls, fs: FileSystem, path: Path, number: int) -> Sidecar | None:
        """The sidecar at `path`; None if it is missing or does not check out. Raises NewerFormatError."""
        try:
            raw = read_file(fs, path)
        except (OSError, ValueError):
            return None
        if len(raw) < _HEADER.size:
            return None
        magic, version, _, crc, found, entry_bytes, end, count, data_crc, _, last_lsn = _HEADER.unpack_from(
            raw
        )
        head = raw[:12] + b"\0\0\0\0" + raw[16 : _HEADER.size]
        if magic != _MAGIC or crc != crc32c(head):
            return None
        if version > VERSION:
            raise NewerFormatError(newer_format(version))
        if found != number or entry_bytes != ENTRY.itemsize or len(raw) != _HEADER.size + count * entry_bytes:
            return None
        if crc32c(memoryview(raw)[_HEADER.size :]) != data_crc:
            return None
        return cls(number, end, last_lsn, np.frombuffer(raw, ENTRY, count, _HEADER.size))


def rows_between(entries: Entries, after: int, until: int | None) -> tuple[int, int]:
    """The range of entries with `after` < offset <= `until`."""
    offsets = entries["offset"]  # a column of wide rows: NumPy's search would copy it
    start = bisect_right(offsets, after) if after >= 0 else 0
    stop = len(entries) if until is None else bisect_right(offsets, until) if until >= 0 else 0
    return start, stop


def select(
    entries: Entries, streams: NDArray[np.uint32], time_min_ns: int | None, time_max_ns: int | None
) -> NDArray[np.intp]:
    """Which of the entries belong to the streams and overlap the (inclusive) time range."""
    of = entries["stream"]
    if len(streams) <= _FEW_STREAMS:
        wanted = np.zeros(len(entries), np.bool_)
        for stream in streams:
            wanted |= of == stream
    else:
        wanted = np.isin(of, streams)
    if time_min_ns is not None:
        wanted &= entries["time_max_ns"] >= time_min_ns
    if time_max_ns is not None:
        wanted &= entries["time_min_ns"] <= time_max_ns
    return np.flatnonzero(wanted)
