"""Reading the published log: frames of some streams in log order, by `pread`, live or not.

A reader selects entries of the index, reads runs of neighbouring groups in one go, and checks the CRC of the
group's headers and of each body before it decodes; what does not check out is skipped and told to the store.
Rows are views of what was read. Waiting for more is on the store's condition: no polling in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np

from ringmain.log.codec import IDS_HEADER_BYTES, body_is_sound
from ringmain.log.control import StreamEntry
from ringmain.log.files import read_around, read_window
from ringmain.log.frames import FrameHeader, GroupHeader, lsn_of, read_frame_headers, read_group_header
from ringmain.log.index import Entries, rows_between, select
from ringmain.log.interface import Frame, Position, PositionGoneError
from ringmain.log.segments import Damage
from ringmain.log.store import Segment, Store

_RUN_BYTES = 1 << 20
_GAP_BYTES = 16 << 10
_SPARSE_BYTES = 64 << 10
_FIRST_ENTRIES = 32
_MOST_ENTRIES = 1 << 13
"""Entries of the index that are looked at together."""

Wait = Callable[[int, "float | None"], bool]
T = TypeVar("T")


class RawFrame(NamedTuple):
    """A stored frame as its bytes, checked and not decoded, for whoever passes it on."""

    incarnation: int
    offset: int
    arrival_ns: int
    clock_state: int
    header: FrameHeader
    body: memoryview


class _Place(NamedTuple):
    """Where a selected frame lies, out of its index entry."""

    offset: int
    group_at: int
    group_bytes: int
    body_at: int
    body_bytes: int
    stream: int


_place = cast(Callable[[tuple[Any, ...]], _Place], partial(tuple.__new__, _Place))


def read(
    store: Store,
    wait: Wait,
    streams: str | Sequence[str],
    after: Position | None,
    until: Position | None,
    *,
    follow: bool,
    timeout_s: float | None,
    time_min_ns: int | None,
    time_max_ns: int | None,
    series: int | None,
) -> Iterator[Frame]:
    """See `LogReader.read`. `wait(offset, deadline)` returns when something behind offset is durable."""
    return _read(
        _decoded,
        store,
        wait,
        streams,
        after,
        until,
        follow=follow,
        timeout_s=timeout_s,
        time_min_ns=time_min_ns,
        time_max_ns=time_max_ns,
        series=series,
    )


def read_raw(
    store: Store,
    wait: Wait,
    streams: str | Sequence[str],
    after: Position | None,
    until: Position | None,
    *,
    follow: bool,
    timeout_s: float | None,
    time_min_ns: int | None,
    time_max_ns: int | None,
    series: int | None,
) -> Iterator[RawFrame]:
    """As `read`, without decoding."""
    return _read(
        _raw,
        store,
        wait,
        streams,
        after,
        until,
        follow=follow,
        timeout_s=timeout_s,
        time_min_ns=time_min_ns,
        time_max_ns=time_max_ns,
        series=series,
    )


def _read(
    make: Callable[[StreamEntry, _Place, GroupHeader, FrameHeader, memoryview], T | None],
    store: Store,
    wait: Wait,
    streams: str | Sequence[str],
    after: Position | None,
    until: Position | None,
    *,
    follow: bool,
    timeout_s: float | None,
    time_min_ns: int | None,
    time_max_ns: int | None,
    series: int | None,
) -> Iterator[T]:
    names = [streams] if isinstance(streams, str) else list(streams)
    with store.lock:
        entries = [store.state.entry(name) for name in names]
        cursor = store.state.removed_offset
        if after is not None:
            cursor = max(cursor, store.state.check_position(after, entries))
        if until is not None:
            store.state.check_position(until, [])
    cursor_reader = _Cursor(make, store, entries, cursor, time_min_ns, time_max_ns, series)
    stop = None if until is None else until.offset
    return _frames(cursor_reader, store, wait, stop, follow, timeout_s)


def _frames(
    cursor: _Cursor[T], store: Store, wait: Wait, stop: int | None, follow: bool, timeout_s: float | None
) -> Iterator[T]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    end = store.end()
    limit = -1 if end is None else end.offset
    while True:
        upto = limit if stop is None else min(limit, stop)
        for frame in cursor.advance(upto):
            yield frame
            if timeout_s is not None:
                deadline = time.monotonic() + timeout_s
        if not follow or (stop is not None and limit >= stop):
            return
        if not wait(limit, deadline):
            return
        end = store.end()
        limit = limit if end is None else end.offset


class _Cursor(Generic[T]):
    """How far a reader has come. `make` gives what it yields; None where the body does not check out."""

    def __init__(
        self,
        make: Callable[[StreamEntry, _Place, GroupHeader, FrameHeader, memoryview], T | None],
        store: Store,
        entries: list[StreamEntry],
        offset: int,
        time_min_ns: int | None,
        time_max_ns: int | None,
        series: int | None,
    ) -> None:
        self._make = make
        self._store = store
        self._by_id = {entry.stream.id: entry for entry in entries}
        self._ids = np.array(sorted(self._by_id), np.uint32)
        self._offset = offset
        self._time_min_ns = time_min_ns
        self._time_max_ns = time_max_ns
        keyed = all(entry.layout.series is not None for entry in entries)
        self._series = series if keyed else None

    def advance(self, upto: int) -> Iterator[T]:
        """Selected frames behind the cursor and not behind `upto`."""
        store = self._store
        while self._offset < upto:
            with store.lock:
                segments = store.segments
                known = store.state.by_id
                removed = max(
                    (known[one].counts.removed_offset for one in self._by_id if one in known), default=-1
                )
                all_removed = store.state.removed_offset
            if removed > self._offset:
                raise PositionGoneError(
                    f"the reader is at lsn {lsn_of(max(self._offset, 0))} and retention has removed frames up to lsn "
                    f"{lsn_of(removed)}: it was slower than the log is kept; read from the start of what is kept"
                )
            self._offset = max(self._offset, all_removed)
            segment = next((one for one in segments if one.last_offset > self._offset), None)
            if segment is None:
                self._offset = upto
                return
            yield from self._segment(segment, upto)

    def _segment(self, segment: Segment, upto: int) -> Iterator[T]:
        last = segment.last_offset
        entries = self._store.entries(segment)
        start, stop = rows_between(entries, self._offset, upto)
        if start < stop:
            handle = self._store.acquire(segment)
            try:
                yield from self._stretches(segment, handle, entries[start:stop])
            finally:
                self._store.release(segment)
        self._offset = max(self._offset, min(last, upto))

    def _stretches(self, segment: Segment, handle: int, entries: Entries) -> Iterator[T]:
        """The frames of these entries, more of them at a time the further the reader goes: it may want few only."""
        start, count = 0, _FIRST_ENTRIES if self._series is None else _MOST_ENTRIES
        while start < len(entries):
            stretch = entries[start : start + count]
            picked = stretch[select(stretch, self._ids, self._time_min_ns, self._time_max_ns)]
            if len(picked):
                columns = ("offset", "group_at", "group_bytes", "body_at", "body_bytes", "stream")
                places = map(_place, zip(*(picked[name].tolist() for name in columns), strict=True))
                yield from self._runs(segment, handle, list(places), picked)
            self._offset = max(self._offset, int(stretch["offset"][-1]))
            start += count
            count = min(2 * count, _MOST_ENTRIES)

    def _runs(self, segment: Segment, handle: int, places: list[_Place], picked: Entries) -> Iterator[T]:
        """The frames at these places, which are those of `picked`, neighbouring groups read in one go."""
        first = 0
        while first < len(places):
            place = places[first]
            start, end = place.group_at, place.group_at + place.group_bytes
            if place.group_bytes > _SPARSE_BYTES and place.body_bytes * 4 < place.group_bytes:
                # a small frame in a large group: its headers and its body only
                yield from self._sparse(segment, handle, place)
                first += 1
                continue
            behind = first + 1
            while behind < len(places):
                following = places[behind]
                following_end = following.group_at + following.group_bytes
                if following.group_at - end > _GAP_BYTES or following_end - start > _RUN_BYTES:
                    break
                end = max(end, following_end)
                behind += 1
            data = read_window(self._store.fs, handle, end - start, start)
            run = places[first:behind]
            if self._series is not None:
                run = _of_series(data, start, run, picked[first:behind], self._series)
            yield from self._of_run(segment, data, start, run)
            first = behind

    def _of_run(self, segment: Segment, data: memoryview, start: int, places: list[_Place]) -> Iterator[T]:
        group_at, group, frames = -1, None, None
        # whoever keeps frames of a rare stream must not keep all that was read together with them
        rare = 4 * sum(place.body_bytes for place in places) < len(data)
        for place in places:
            if place.group_at != group_at:
                group_at = place.group_at
                group = read_group_header(data, group_at - start)
                frames = None if group is None else read_frame_headers(data, group, group_at - start)
            at = place.body_at - start
            body = data[at : at + place.body_bytes]
            if rare:
                body = memoryview(bytes(body))
            frame = self._frame(segment, place, group, frames, body)
            if frame is not None:
                yield frame

    def _sparse(self, segment: Segment, handle: int, place: _Place) -> Iterator[T]:
        fs = self._store.fs
        head = read_around(fs, handle, min(place.body_at - place.group_at, 1 << 20), place.group_at)
        group = read_group_header(head)
        size = 0 if group is None else 64 + 96 * group.frame_count
        if size > len(head):
            head = read_around(fs, handle, size, place.group_at)
        frames = None if group is None else read_frame_headers(head, group)
        body = read_window(fs, handle, place.body_bytes, place.body_at)
        frame = self._frame(segment, place, group, frames, body)
        if frame is not None:
            yield frame

    def _frame(
        self,
        segment: Segment,
        place: _Place,
        group: GroupHeader | None,
        frames: list[FrameHeader] | None,
        body: memoryview,
    ) -> T | None:
        """The frame at a place; None, and the damage told, when it does not check out when read once more either."""
        made = self._made(place, group, frames, body)
        if made is not None:
            return made
        with self._store.opened(segment) as handle:
            self._store.fs.drop_cache(handle, place.group_at, place.group_bytes)
            data = memoryview(read_around(self._store.fs, handle, place.group_bytes, place.group_at))
        group = read_group_header(data)
        frames = None if group is None else read_frame_headers(data, group)
        body_at = place.body_at - place.group_at
        made = self._made(place, group, frames, data[body_at : body_at + place.body_bytes])
        if made is not None:
            return made
        reason = "group header CRC" if self._header(place, group, frames) is None else "body CRC"
        self._store.report(
            segment,
            Damage(
                place.group_at,
                place.group_at + place.group_bytes,
                reason,
                None if frames is None else group,
                tuple(frames or ()),
            ),
            lsn_of(place.offset),
        )
        return None

    def _made(
        self, place: _Place, group: GroupHeader | None, frames: list[FrameHeader] | None, body: memoryview
    ) -> T | None:
        header = self._header(place, group, frames)
        if header is None or header.stream != place.stream or header.length != place.body_bytes:
            return None
        assert group is not None
        made = self._make(self._by_id[header.stream], place, group, header, body)
        if made is not None:
            self._offset = place.offset
        return made

    @staticmethod
    def _header(
        place: _Place, group: GroupHeader | None, frames: list[FrameHeader] | None
    ) -> FrameHeader | None:
        """The header of the frame at a place; None where another group lies there, or none."""
        number = place.offset & 0xFFFF
        if group is None or frames is None or group.lsn != place.offset >> 16 or number >= len(frames):
            return None
        return frames[number]


def _of_series(
    data: memoryview, start: int, run: list[_Place], entries: Entries, series: int
) -> list[_Place]:
    """Those places of a run, read from byte `start` on, whose ids have the series; and always the last one.

    Looks at the ids where they are, without their CRCs: a damaged frame is not given in either case.
    """
    ids_from = entries["body_at"].astype(np.int64) - start + IDS_HEADER_BYTES
    if (ids_from % 4).any():
        return run
    words = np.frombuffer(data, "<u4", len(data) // 4)
    hits = np.flatnonzero(words == series) * 4
    owner = np.searchsorted(ids_from, hits, side="right") - 1
    inside = (owner >= 0) & (hits < (ids_from + 4 * entries["rows"].astype(np.int64))[owner])
    wanted = np.zeros(len(run), np.bool_)
    wanted[owner[inside]] = True
    wanted[-1] = True
    return [run[index] for index in np.flatnonzero(wanted).tolist()]


def _raw(
    entry: StreamEntry, place: _Place, group: GroupHeader, header: FrameHeader, body: memoryview
) -> RawFrame | None:
    del entry
    if not body_is_sound(header, body):
        return None
    return RawFrame(group.incarnation, place.offset, group.arrival_ns, group.clock_state, header, body)


def _decoded(
    entry: StreamEntry, place: _Place, group: GroupHeader, header: FrameHeader, body: memoryview
) -> Frame | None:
    position = Position(group.incarnation, 0, place.offset)
    return entry.frame(header, body, position, group.arrival_ns, group.clock_state)


def find(store: Store, stream: str, arrival_ns: int) -> Position | None:
    """See `LogReader.find`: the newest frame of the stream that arrived before `arrival_ns`."""
    with store.lock:
        identity = store.state.entry(stream).stream.id
        removed = store.state.removed_offset
        segments = [one for one in store.segments if one.last_offset > removed]
    for segment in reversed(segments):
        try:
            entries = store.entries(segment)
        except PositionGoneError:
            return None
        if not len(entries) or int(entries[0]["arrival_ns"]) >= arrival_ns:
            continue
        behind = int(np.searchsorted(entries["arrival_ns"], arrival_ns, side="left"))
        hits = np.flatnonzero(entries["stream"][:behind] == identity)
        if len(hits):
            offset = int(entries[hits[-1]]["offset"])
            with store.lock:
                return Position(store.state.incarnation_at(lsn_of(offset)), 0, offset)
    return None
