"""Segment files: their names, their chain of headers, and walking through their groups past any damage.

A segment is a 64-byte header and then groups. Segments are numbered; each names its predecessor and states
where that one's valid bytes end, so that whatever a failed write left behind there can never come back. The
walk gives every group that checks out and every range that does not, and finds its way back to the next group
by its magic and CRC. It never raises for damage.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringmain.log.codec import body_is_sound
from ringmain.log.files import FileSystem, read_around
from ringmain.log.frames import (
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    GroupHeader,
    SegmentHeader,
    headers_bytes,
    read_frame_headers,
    read_group_header,
    read_segment_header,
)
from ringmain.log.interface import GROUP_BYTES_MAX

_NAME = re.compile(r"([0-9]{10})\.seg")
_WINDOW_BYTES = 1 << 20
WINDOW_BYTES_MIN = 16 << 10
"""What is read first, also behind damage, and then twice as much each time: where every second group is damaged, not a
whole window is read again for each of them."""
_MAGIC_BYTES = GROUP_MAGIC.to_bytes(4, "little")
_ZEROS = bytes(_WINDOW_BYTES)
"""What most of a prepared segment holds: to compare with it takes a tenth of the time of looking at each byte."""


def segment_path(directory: Path, number: int) -> Path:
    """Where segment `number` lies."""
    return directory / f"{number:010}.seg"


def sidecar_path(directory: Path, number: int) -> Path:
    """Where the index of segment `number` lies."""
    return directory / f"{number:010}.idx"


def segment_numbers(fs: FileSystem, directory: Path) -> list[int]:
    """The numbers of the segment files in a directory, ascending."""
    return sorted(int(match[1]) for name in fs.list_directory(directory) if (match := _NAME.fullmatch(name)))


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group that checks out. `raw` is the whole of it."""

    at: int
    header: GroupHeader
    frames: list[FrameHeader]
    raw: memoryview

    @property
    def end(self) -> int:
        """The byte behind the group."""
        return self.at + self.header.length

    def body(self, number: int) -> memoryview:
        """The body of the group's frame `number`."""
        at = headers_bytes(self.header) + sum(frame.length for frame in self.frames[:number])
        return self.raw[at : at + self.frames[number].length]


@dataclass(frozen=True, slots=True)
class Damage:
    """A range of a segment that does not check out. `header` and `frames`: where at least those did."""

    at: int
    end: int
    reason: str
    header: GroupHeader | None = None
    frames: tuple[FrameHeader, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A segment of the chain. `header` None: damaged. `end` None: it is the last, or its end is not known."""

    number: int
    header: SegmentHeader | None
    size: int
    end: int | None


def chain(fs: FileSystem, directory: Path, marked: int = 0) -> tuple[list[Link], list[int]]:
    """The segments that make up the log, oldest first, and the numbers of files that do not belong to it.

    The segment that the mark names was begun in full, whatever its header looks like now. Raises
    NewerFormatError; OSError when no header at all can be read: the disk is gone, not damaged.
    """
    numbers = segment_numbers(fs, directory)
    headers: dict[int, tuple[SegmentHeader | None, int]] = {}
    unfinished: set[int] = set()
    failure: OSError | None = None
    readable = False
    for number in numbers:
        try:
            handle = fs.open_existing(segment_path(directory, number))
        except FileNotFoundError:
            continue
        try:
            try:
                raw = fs.pread(handle, SEGMENT_HEADER_BYTES, 0)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                failure = error
                headers[number] = (None, fs.size(handle))
                continue
            readable = True
            header = read_segment_header(raw)
            if header is not None and header.number != number:
                header = None
            if number != marked and (len(raw) < SEGMENT_HEADER_BYTES or not any(raw)):
                unfinished.add(number)
            headers[number] = (header, fs.size(handle))
        finally:
            fs.close(handle)
    if failure is not None and not readable:
        raise failure
    numbers = [number for number in numbers if number in headers]
    links: list[Link] = []
    strangers: list[int] = []
    successor: SegmentHeader | None = None
    for number in reversed(numbers):
        header, size = headers[number]
        if number in unfinished and not links:
            # its header is written last: nothing in it was ever acknowledged
            strangers.append(number)
            continue
        if successor is not None and successor.previous_number < number:
            strangers.append(number)
            continue
        end = None
        if successor is not None and successor.previous_number == number:
            end = successor.previous_end  # what a shorter file lacks is damage, and found as such
        links.append(Link(number, header, size, end))
        successor = header
    links.reverse()
    return links, strangers


def walk(
    fs: FileSystem,
    handle: int,
    start: int,
    end: int,
    *,
    after_lsn: int = 0,
    incarnation: int | None = None,
    bodies: bool = True,
    beside_writer: bool = False,
) -> Iterator[StoredGroup | Damage]:
    """Groups and damaged ranges of a segment between two bytes, in order.

    `bodies`: check their CRCs as well. `beside_writer`: end before a group that was written while this read: each one that
    is waited for keeps a window in memory, and a writer never ends. Groups of another incarnation, or not above the lsn
    before them, count as damage. Raises NewerFormatError, OSError.
    """
    window = memoryview(b"")
    window_at = start
    at = start
    again_at = empty_at = -1
    reach = WINDOW_BYTES_MIN
    lsn = after_lsn
    while at < end:
        offset = at - window_at
        header = read_group_header(window, offset)
        if header is None and _is_empty(window, offset):
            empty_at = at
        if header is None or offset + header.length > len(window):
            # look again with all that this group needs in memory
            window = memoryview(read_around(fs, handle, min(reach, end - at), at))
            window_at, offset = at, 0
            header = read_group_header(window)
            if header is not None and header.length > len(window) and reach < end - at:
                if again_at == at:
                    fs.drop_cache(handle, at, header.length)
                window = memoryview(read_around(fs, handle, min(header.length, end - at), at))
                header = read_group_header(window)
            reach = min(2 * reach, GROUP_BYTES_MAX)
            if header is None and _is_empty(window, 0):
                empty_at = at
            if beside_writer and header is not None and empty_at == at:
                return
        problem = "no group header"
        frames: list[FrameHeader] | None = None
        if header is not None:
            problem = "group header CRC"
            if offset + header.length <= len(window):
                frames = read_frame_headers(window, header, offset)
            else:
                problem = "group is cut short"
            if frames is not None and (
                header.lsn <= lsn or (incarnation is not None and header.incarnation != incarnation)
            ):
                frames, problem = None, "group does not belong here"
        group = None
        if header is not None and frames is not None:
            group = StoredGroup(at, header, frames, window[offset : offset + header.length])
            if not bodies or bodies_are_sound(group):
                at, lsn = group.end, header.lsn
                yield group
                continue
        if again_at != at:
            # what was read wrong once may be read right the second time: only what stays wrong is damage
            again_at, window, reach = at, memoryview(b""), WINDOW_BYTES_MIN
            fs.drop_cache(handle, at, min(reach if header is None else max(reach, header.length), end - at))
            continue
        if group is not None:
            at, lsn = group.end, group.header.lsn
            yield Damage(group.at, group.end, "body CRC", group.header, tuple(group.frames))
            continue
        found = _next_group(fs, handle, at + 8, end, lsn, incarnation)
        yield Damage(at, found, problem)
        at = found


def _is_empty(window: memoryview, at: int) -> bool:
    """Whether a group could begin there, and none was written yet."""
    return bytes(window[at : at + GROUP_HEADER_BYTES]) == bytes(GROUP_HEADER_BYTES)


def bodies_are_sound(group: StoredGroup) -> bool:
    """Whether the CRCs of all bodies of a group are right."""
    at = headers_bytes(group.header)
    for frame in group.frames:
        if not body_is_sound(frame, group.raw[at : at + frame.length]):
            return False
        at += frame.length
    return True


def _next_group(fs: FileSystem, handle: int, start: int, end: int, lsn: int, incarnation: int | None) -> int:
    """The byte at which the next group with sound headers starts; `end` if there is none."""
    at = start
    reach = WINDOW_BYTES_MIN
    while at < end:
        # headers that lie behind the window are read by themselves: a search does not read everything five times
        window = read_around(fs, handle, min(reach + GROUP_HEADER_BYTES, end - at), at)
        if not window:
            return end
        searchable = min(len(window), reach)
        reach = min(2 * reach, _WINDOW_BYTES)
        place = -1 if window.startswith(_ZEROS) else window.find(_MAGIC_BYTES)
        while 0 <= place < searchable:
            if place % 8 == 0 and len(window) - place >= GROUP_HEADER_BYTES:
                header = read_group_header(window, place)
                if (
                    header is not None
                    and header.lsn > lsn
                    and (incarnation is None or header.incarnation == incarnation)
                    and read_frame_headers(
                        read_around(fs, handle, min(headers_bytes(header), end - at - place), at + place),
                        header,
                    )
                    is not None
                ):
                    return at + place
            place = window.find(_MAGIC_BYTES, place + 1)
        if at == start:  # what is cached behind what was looked at twice may have been read wrong as well
            fs.drop_cache(handle, at + searchable, min(GROUP_BYTES_MAX, end - at - searchable))
        at += searchable
        at = (at + 7) // 8 * 8 if at < end else end
    return end


def content_end(fs: FileSystem, handle: int, start: int, end: int) -> int:
    """The byte behind the last one between the two that is not zero, rounded up to 8; `start` if there is none."""
    at = end
    while at > start:
        begin = max(at - _WINDOW_BYTES, start)
        window = read_around(fs, handle, at - begin, begin)
        kept = 0 if window == _ZEROS else len(window.rstrip(b"\0"))
        if kept:  # unless it was read wrong
            fs.drop_cache(handle, begin, at - begin)
            kept = min(kept, len(read_around(fs, handle, at - begin, begin).rstrip(b"\0")))
        if kept:
            return min((begin + kept + 7) // 8 * 8, end)
        at = begin
    return start
