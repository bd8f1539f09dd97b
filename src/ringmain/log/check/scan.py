"""Reads one segment from end to end, as fast as the disk gives it, and checks every CRC on the way.

What it gives is the headers of all sound groups as arrays, the bodies of those few frames that the log's own state
is folded from, and the ranges that do not check out. Groups are taken in blocks (`check/chained.py`, or for
logs of very many frames the loop of `check/kernel.py`), and wherever that stops `segments.walk` says what is wrong.
Memory is bounded by a block and by 200 bytes a frame of one segment.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from ringmain.log.buffers import BUFFERS, LARGEST_BYTES
from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID, LEDGER_ID
from ringmain.log.check.chained import Sound, check_groups
from ringmain.log.codec import IDS_HEADER_BYTES, Codec
from ringmain.log.files import FileSystem, LocalFileSystem, read_around_into
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES
from ringmain.log.index import ENTRY, Entries
from ringmain.log.interface import GROUP_BYTES_MAX
from ringmain.log.segments import Damage, StoredGroup, walk

GROUPS = np.dtype(
    [
        ("magic", "<u4"),
        ("version", "<u2"),
        ("flags", "<u2"),
        ("length", "<u4"),
        ("crc", "<u4"),
        ("incarnation", "<u8"),
        ("lsn", "<u8"),
        ("durable_lsn", "<u8"),
        ("arrival_ns", "<i8"),
        ("wall_ns", "<i8"),
        ("frame_count", "<u2"),
        ("clock_state", "<u2"),
        ("digest", "<u4"),
    ]
)
"""The group header, as `frames.GROUP`."""
FRAMES = np.dtype(
    [
        ("length", "<u4"),
        ("body_crc", "<u4"),
        ("stream", "<u4"),
        ("partition", "<u2"),
        ("codec", "u1"),
        ("kind", "u1"),
        ("schema", "<u4"),
        ("rows", "<u4"),
        ("catalogue_position", "<u8"),
        ("producer", "<u8"),
        ("epoch", "<u8"),
        ("sequence", "<u8"),
        ("time_min_ns", "<i8"),
        ("time_max_ns", "<i8"),
        ("origin_arrival_ns", "<i8"),
        ("cumulative_rows", "<u8"),
        ("reserved", "<u8"),
    ]
)
"""The frame header, as `frames.FRAME`."""

BLOCK_BYTES = LARGEST_BYTES
"""Read at a time; no less than the largest group."""
_FOLDED = (CONTROL_ID, CATALOGUE_ID, LEDGER_ID)
_ARRAY = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """The sound groups of a segment, in order. `first` has one entry more than there are groups.

    `at`: the byte of each group; `first`: the number of its first frame; `body_at`: the byte of each frame's body;
    `series_max`: the largest series id of each frame, -1 without ids; `folded`: the numbers of the frames that the
    log's state is made of, `bodies`: theirs; `samples`: the body of the first frame of every other stream, by number.
    """

    groups: _ARRAY
    at: NDArray[np.int64]
    frames: _ARRAY
    first: NDArray[np.int64]
    body_at: NDArray[np.int64]
    series_max: NDArray[np.int64]
    folded: NDArray[np.int64]
    bodies: list[bytes]
    samples: dict[int, bytes]
    damage: list[Damage]

    def entries(self) -> Entries:
        """The index that belongs to these groups."""
        counts = np.diff(self.first)
        entries = np.zeros(len(self.frames), ENTRY)
        number = np.arange(len(self.frames)) - np.repeat(self.first[:-1], counts)
        entries["offset"] = np.repeat(self.groups["lsn"] << np.uint64(16), counts) | number.astype(np.uint64)
        entries["group_at"] = np.repeat(self.at, counts)
        entries["body_at"] = self.body_at
        entries["body_bytes"] = self.frames["length"]
        for name, column in (
            ("arrival_ns", "arrival_ns"),
            ("group_bytes", "length"),
            ("frame_count", "frame_count"),
            ("clock_state", "clock_state"),
        ):
            entries[name] = np.repeat(self.groups[column], counts)
        for name in ("time_min_ns", "time_max_ns", "stream", "rows"):
            entries[name] = self.frames[name]
        return entries


class Form(Enum):
    """How the groups of a segment are checked. All find the same."""

    WALK = "one by one, as the log itself reads"
    CHAINED = "a block at a time"
    COMPILED = "a block at a time, by a compiled loop"


def can_compile() -> bool:
    """Whether this machine can run the compiled loop."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and bool(crc32c.hardware_based)
        and importlib.util.find_spec("numba") is not None
    )


def scan(
    fs: FileSystem,
    handle: int,
    end: int,
    *,
    after_lsn: int,
    incarnation: int,
    form: Form,
    done: Callable[[int], None],
) -> SegmentScan:
    """Read the groups of a segment up to byte `end`. `incarnation` 0: any; `done(bytes)` is called for each block.

    Raises NewerFormatError, OSError.
    """
    collected = _Collected()
    if form != Form.WALK:
        _scan_blocks(fs, handle, end, after_lsn, incarnation, form, collected, done)
    else:
        at = told = SEGMENT_HEADER_BYTES
        for found in walk(fs, handle, at, end, after_lsn=after_lsn, incarnation=incarnation or None):
            collected.walked(found)
            if found.end - told >= BLOCK_BYTES:
                done(found.end - told)
                told = found.end
        done(max(end - told, 0))
    return collected.scan()


def _scan_blocks(
    fs: FileSystem,
    handle: int,
    end: int,
    lsn: int,
    incarnation: int,
    form: Form,
    collected: _Collected,
    done: Callable[[int], None],
) -> None:
    block = BUFFERS.take(BLOCK_BYTES)
    assert block is not None
    words = np.frombuffer(block, np.uint64)
    check = check_groups
    if form == Form.COMPILED:
        from ringmain.log.check.kernel import CompiledCheck

        check = CompiledCheck(len(words))
    at = SEGMENT_HEADER_BYTES
    while at < end:
        size = read_around_into(fs, handle, block[: end - at], at)
        _read_ahead(fs, handle, at + size)
        sound = check(words, size // 8, lsn, incarnation)
        if len(sound.groups):
            lsn = int(sound.groups[-1, 3])
            collected.block(at, block, sound)
            done(8 * sound.behind)
            at += 8 * sound.behind
            if size - 8 * sound.behind < GROUP_BYTES_MAX:
                continue  # the next group may only not be whole yet
        found = next(walk(fs, handle, at, end, after_lsn=lsn, incarnation=incarnation or None))
        collected.walked(found)
        if isinstance(found, StoredGroup):
            lsn = found.header.lsn
        done(found.end - at)
        at = found.end


def _read_ahead(fs: FileSystem, handle: int, offset: int) -> None:
    if isinstance(fs, LocalFileSystem):
        os.posix_fadvise(handle, offset, BLOCK_BYTES, os.POSIX_FADV_WILLNEED)


class _Collected:
    """What has been read of a segment so far."""

    def __init__(self) -> None:
        self._groups: list[_ARRAY] = []
        self._at: list[NDArray[np.int64]] = []
        self._frames: list[_ARRAY] = []
        self._largest: list[NDArray[np.int64]] = []
        self._frame_count = 0
        self._folded: list[int] = []
        self._bodies: list[bytes] = []
        self._samples: dict[int, bytes] = {}
        self._sampled: set[int] = set()
        self._damage: list[Damage] = []
        self._begin_walk()

    def block(self, at: int, data: memoryview, sound: Sound) -> None:
        """Take over what is sound of a block that begins at byte `at`."""
        self._take_walked()
        heads = sound.groups.view(GROUPS).reshape(-1)
        copied = sound.frames.view(FRAMES).reshape(-1)
        group_at = sound.places * 8 + at
        streams = copied["stream"]
        body_at = _body_places(heads, group_at, copied) - at
        behind = body_at + copied["length"]
        folded = np.flatnonzero(np.isin(streams, _FOLDED))
        self._folded += (folded + self._frame_count).tolist()
        self._bodies += [
            bytes(data[start:end])
            for start, end in zip(body_at[folded].tolist(), behind[folded].tolist(), strict=True)
        ]
        for stream in set(np.unique(streams).tolist()) - self._sampled:
            number = int(np.argmax(streams == stream))
            self._sample(number, stream, data[int(body_at[number]) : int(behind[number])])
        self._groups.append(heads)
        self._at.append(group_at)
        self._frames.append(copied)
        self._largest.append(sound.series_max)
        self._frame_count += len(copied)

    def walked(self, found: StoredGroup | Damage) -> None:
        """Take over what `walk` found."""
        if isinstance(found, Damage):
            self._damage.append(found)
            return
        size = FRAME_HEADER_BYTES * len(found.frames)
        body_at = GROUP_HEADER_BYTES + size
        self._walked_at.append(found.at)
        self._walked_groups += found.raw[:GROUP_HEADER_BYTES]
        self._walked_frames += found.raw[GROUP_HEADER_BYTES:body_at]
        for frame in found.frames:
            body = found.raw[body_at : body_at + frame.length]
            body_at += frame.length
            largest = -1
            if frame.codec == Codec.IDS_AND_ARROW and frame.rows:
                largest = int(np.frombuffer(body, "<u4", frame.rows, IDS_HEADER_BYTES).max())
            if frame.stream in _FOLDED:
                self._folded.append(self._frame_count)
                self._bodies.append(bytes(body))
            elif frame.stream not in self._sampled:
                self._sample(0, frame.stream, body)
            self._walked_largest.append(largest)
            self._frame_count += 1

    def _take_walked(self) -> None:
        """Make arrays of what `walked` was given since the last time."""
        if not self._walked_at:
            return
        self._groups.append(np.frombuffer(bytes(self._walked_groups), GROUPS))
        self._frames.append(np.frombuffer(bytes(self._walked_frames), FRAMES))
        self._at.append(np.array(self._walked_at, np.int64))
        self._largest.append(np.array(self._walked_largest, np.int64))
        self._begin_walk()

    def _begin_walk(self) -> None:
        self._walked_groups, self._walked_frames = bytearray(), bytearray()
        self._walked_at: list[int] = []
        self._walked_largest: list[int] = []

    def _sample(self, number: int, stream: int, body: memoryview) -> None:
        if stream not in self._sampled and stream not in _FOLDED:
            self._sampled.add(stream)
            self._samples[self._frame_count + number] = bytes(body)

    def scan(self) -> SegmentScan:
        """All of it."""
        self._take_walked()
        groups = np.concatenate(self._groups) if self._groups else np.empty(0, GROUPS)
        frames = np.concatenate(self._frames) if self._frames else np.empty(0, FRAMES)
        at = np.concatenate(self._at) if self._at else np.empty(0, np.int64)
        return SegmentScan(
            groups,
            at,
            frames,
            np.concatenate([[0], np.cumsum(groups["frame_count"], dtype=np.int64)]),
            _body_places(groups, at, frames),
            np.concatenate(self._largest) if self._largest else np.empty(0, np.int64),
            np.array(self._folded, np.int64),
            self._bodies,
            self._samples,
            self._damage,
        )


def _body_places(groups: _ARRAY, at: NDArray[np.int64], frames: _ARRAY) -> NDArray[np.int64]:
    """The byte at which the body of each frame begins."""
    counts = groups["frame_count"].astype(np.int64)
    first = np.cumsum(counts) - counts
    before = np.cumsum(frames["length"], dtype=np.int64) - frames["length"]
    held = np.concatenate([before, [0]])[first]  # bytes of bodies before each group's first
    start = at + GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * counts
    places: NDArray[np.int64] = np.repeat(start - held, counts) + before
    return places
