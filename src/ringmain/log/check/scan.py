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
from ringmain.log.segments import WINDOW_BYTES_MIN, Damage, StoredGroup, walk

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
_SMALL_IDS = 4096
_IS_FOLDED = np.isin(np.arange(_SMALL_IDS + 1), _FOLDED)
_SMALL_BODY_WORDS = 64
_ROOM = 1.1
"""Of arrays that grow, against what comes if it goes on as it began."""
_GROWTH_MAX = 32
_ARRAY = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Bodies one after the other. `starts`: the byte of `data` at which each begins, and where the last one ends."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def __getitem__(self, number: int) -> bytes:
        """One of them."""
        return self.data[self.starts[number] : self.starts[number + 1]].tobytes()


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """The sound groups of a segment, in order. `first` has one entry more than there are groups.

    `at`: the byte of each group; `first`: the number of its first frame; `body_at`: the byte of each frame's body;
    `series_max`: the largest series id of each frame, -1 without ids; `folded`: the numbers of the frames that the
    log's state is made of, `bodies`: theirs, one after the other; `samples`: the body of the first frame of every other
    stream, by number.
    """

    groups: _ARRAY
    at: NDArray[np.int64]
    frames: _ARRAY
    first: NDArray[np.int64]
    body_at: NDArray[np.int64]
    series_max: NDArray[np.int64]
    folded: NDArray[np.int64]
    bodies: Bodies
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


def _nobody(_size: int) -> None:
    """Told how far it is."""


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
    done: Callable[[int], None] = _nobody,
) -> SegmentScan:
    """Read the groups of a segment up to byte `end`. `incarnation` 0: any; `done(bytes)` is called for each block.

    Raises NewerFormatError, OSError.
    """
    collected = _Collected(end)
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
    reach = BLOCK_BYTES
    while at < end:
        # little is read behind damage, and then twice as much each time, as `walk` does
        size = read_around_into(fs, handle, block[: min(reach, end - at)], at)
        if reach == BLOCK_BYTES:
            _read_ahead(fs, handle, at + size)
        reach = min(2 * reach, BLOCK_BYTES)
        sound = check(words, size // 8, lsn, incarnation)
        if len(sound.groups):
            lsn = int(sound.groups[-1, 3])
            collected.block(at, words, sound)
            done(8 * sound.behind)
            at += 8 * sound.behind
            if size - 8 * sound.behind < GROUP_BYTES_MAX:
                continue  # the next group may only not be whole yet
        found = next(walk(fs, handle, at, end, after_lsn=lsn, incarnation=incarnation or None))
        collected.walked(found)
        if isinstance(found, StoredGroup):
            lsn = found.header.lsn
        else:
            reach = WINDOW_BYTES_MIN
        done(found.end - at)
        at = found.end


def _read_ahead(fs: FileSystem, handle: int, offset: int) -> None:
    if isinstance(fs, LocalFileSystem):
        os.posix_fadvise(handle, offset, BLOCK_BYTES, os.POSIX_FADV_WILLNEED)


class _Grown:
    """An array that grows at its end."""

    def __init__(self, dtype: Any) -> None:
        self._data: _ARRAY = np.empty(0, dtype)
        self.count = 0

    def add(self, values: _ARRAY, share: float) -> None:
        """Append a copy. `share`: how much of all that will come has come with it, for the room that is made."""
        count = self.count + len(values)
        if count > len(self._data):
            room = min(int(count / share * _ROOM), _GROWTH_MAX * count)
            grown = np.empty(max(room, count), self._data.dtype)
            grown[: self.count].view(np.uint64)[:] = self.all().view(np.uint64)
            self._data = grown
        # as words: structures would be copied one by one
        self._data[self.count : count].view(np.uint64)[:] = values.view(np.uint64)
        self.count = count

    def all(self) -> _ARRAY:
        """What is in it."""
        return self._data[: self.count]


class _Collected:
    """What has been read so far of a segment of so many bytes."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._groups, self._at = _Grown(GROUPS), _Grown(np.int64)
        self._frames, self._body_at, self._largest = _Grown(FRAMES), _Grown(np.int64), _Grown(np.int64)
        self._frame_count = 0
        self._folded: list[NDArray[np.int64]] = []
        self._bodies: list[NDArray[np.uint8]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._samples: dict[int, bytes] = {}
        self._sampled: set[int] = set()
        # one entry more for all streams with large ids, of which nothing is known
        self._is_known = np.zeros(_SMALL_IDS + 1, np.bool_)
        self._is_known[list(_FOLDED)] = True
        self._damage: list[Damage] = []
        self._begin_walk()

    def block(self, at: int, words: NDArray[np.uint64], sound: Sound) -> None:
        """Take over what is sound of a block that begins at byte `at`."""
        self._take_walked()
        headers = sound.frames.view(FRAMES).reshape(-1)
        streams, bodies = np.minimum(headers["stream"], _SMALL_IDS), sound.bodies
        behind = bodies + (headers["length"] >> 3)
        folded = np.flatnonzero(_IS_FOLDED[streams])
        self._fold(folded, words, bodies[folded], behind[folded])
        for number in np.flatnonzero(~self._is_known[streams]).tolist():
            stream = int(headers["stream"][number])
            if stream not in self._sampled:
                self._sample(number, stream, words[int(bodies[number]) : int(behind[number])].tobytes())
                self._is_known[min(stream, _SMALL_IDS)] = stream < _SMALL_IDS
        self._add(
            sound.groups.view(GROUPS).reshape(-1),
            sound.places * 8 + at,
            headers,
            bodies * 8 + at,
            sound.series_max,
        )
        self._frame_count += len(headers)

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
            self._walked_bodies.append(found.at + body_at)
            body_at += frame.length
            largest = -1
            if frame.codec == Codec.IDS_AND_ARROW and frame.rows:
                largest = int(np.frombuffer(body, "<u4", frame.rows, IDS_HEADER_BYTES).max())
            if frame.stream in _FOLDED:
                self._folded.append(np.array([self._frame_count], np.int64))
                self._sizes.append(np.array([len(body)], np.int64))
                self._bodies.append(np.frombuffer(bytes(body), np.uint8))
            elif frame.stream not in self._sampled:
                self._sample(0, frame.stream, bytes(body))
            self._walked_largest.append(largest)
            self._frame_count += 1

    def _take_walked(self) -> None:
        """Make arrays of what `walked` was given since the last time."""
        if not self._walked_at:
            return
        self._add(
            np.frombuffer(self._walked_groups, GROUPS),
            np.array(self._walked_at, np.int64),
            np.frombuffer(self._walked_frames, FRAMES),
            np.array(self._walked_bodies, np.int64),
            np.array(self._walked_largest, np.int64),
        )
        self._begin_walk()

    def _begin_walk(self) -> None:
        self._walked_groups, self._walked_frames = bytearray(), bytearray()
        self._walked_at: list[int] = []
        self._walked_bodies: list[int] = []
        self._walked_largest: list[int] = []

    def _add(self, groups: _ARRAY, at: _ARRAY, frames: _ARRAY, body_at: _ARRAY, largest: _ARRAY) -> None:
        share = min((int(at[-1]) + int(groups["length"][-1])) / self._end, 1.0)
        self._groups.add(groups, share)
        self._at.add(at, share)
        self._frames.add(frames, share)
        self._body_at.add(body_at, share)
        self._largest.add(largest, share)

    def _fold(
        self, numbers: NDArray[np.int64], words: NDArray[np.uint64], starts: _ARRAY, ends: _ARRAY
    ) -> None:
        """Keep bodies of a block's frames."""
        if not len(numbers):
            return
        sizes = ends - starts
        self._folded.append(numbers + self._frame_count)
        self._sizes.append(8 * sizes)
        if int(sizes.sum()) < _SMALL_BODY_WORDS * len(sizes):
            begins = np.cumsum(sizes) - sizes
            taken = words[np.repeat(starts - begins, sizes) + np.arange(int(sizes.sum()))]
            self._bodies.append(taken.view(np.uint8))
        else:
            self._bodies += [
                words[start:end].copy().view(np.uint8)
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]

    def _sample(self, number: int, stream: int, body: bytes) -> None:
        self._sampled.add(stream)
        self._samples[self._frame_count + number] = body

    def scan(self) -> SegmentScan:
        """All of it."""
        self._take_walked()
        groups = self._groups.all()
        return SegmentScan(
            groups,
            self._at.all(),
            self._frames.all(),
            np.concatenate([[0], np.cumsum(groups["frame_count"], dtype=np.int64)]),
            self._body_at.all(),
            self._largest.all(),
            _joined(self._folded),
            Bodies(
                np.concatenate(self._bodies) if self._bodies else np.empty(0, np.uint8),
                np.concatenate([[0], np.cumsum(_joined(self._sizes))]),
            ),
            self._samples,
            self._damage,
        )


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
