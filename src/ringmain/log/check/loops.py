"""Compiled loops over the headers of a segment: the sums of `check/sums.py`, its order, its index.

Needs Numba (extra `fast`); imported only for `Form.COMPILED`. Each loop finds what the NumPy form finds that stands
beside its caller, or that it cannot tell: then that form is taken, and it also says what is wrong. Headers and entries
are read as words of 8 bytes, as `scan.GROUPS`, `scan.FRAMES` and `index.ENTRY` lay them out.
"""

# To Numba, an int here is an int64; the stubs of NumPy tell the two apart, and Numba's decorator has no types.
# mypy: disable-error-code="untyped-decorator,no-any-return,assignment,return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.log.check.compiled import compiled
from ringmain.log.check.sums import ProducerSums, StreamSums
from ringmain.log.frames import FLAG_OPENING, FRAME_HEADER_BYTES, GROUP_HEADER_BYTES
from ringmain.log.index import ENTRY

_ARRAY = NDArray[Any]
_Words = NDArray[np.uint64]
_Numbers = NDArray[np.int64]
_GROUP_WORDS, _FRAME_WORDS, _ENTRY_WORDS = (
    GROUP_HEADER_BYTES // 8,
    FRAME_HEADER_BYTES // 8,
    ENTRY.itemsize // 8,
)
_FEW, _TIMES_MORE, _PROBES = 64, 32, 64
_OPENING = np.uint64(FLAG_OPENING << 48)
_MIXED = np.uint64(0x9E3779B97F4A7C15)
_LOW_32, _LOW_16 = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
_16, _32 = np.uint64(16), np.uint64(32)


# -- sums ------------------------------------------------------------------------------------------------------


def sum_streams(frames: _ARRAY) -> StreamSums | None:
    """As `sums.stream_sums`; None if too many streams have ids that are made to collide."""
    room = _FEW
    while True:
        streams, sums = np.empty(room, np.uint64), np.empty((5, room), np.int64)
        count = _sum_streams(_words(frames, _FRAME_WORDS), _table(room), streams, sums)
        if count >= 0:
            break
        if room > len(frames):
            return None
        room *= _TIMES_MORE
    order = np.argsort(streams[:count])
    counted, rows, first, last, whole = sums[:, order]
    return StreamSums(streams[order].astype(np.uint32), counted, rows, first, last, whole != 0)


@compiled
def _sum_streams(frames: _Words, table: NDArray[np.int32], streams: _Words, sums: NDArray[np.int64]) -> int:
    """Fill `streams` and the rows of `sums` (frames, rows, first, last, whole); how many streams, -1: no room."""
    count = 0
    slot = 0
    for number in range(len(frames)):
        stream = frames[number, 1] & _LOW_32
        rows = np.int64(frames[number, 2] >> _32)
        if not count or streams[slot] != stream:
            place = np.int64((stream * _MIXED) >> _32) & (len(table) - 1)
            probes = 0
            while table[place] >= 0 and streams[table[place]] != stream:
                place = (place + 1) & (len(table) - 1)
                probes += 1
                if probes > _PROBES:
                    return -1
            slot = np.int64(table[place])
            if slot < 0:
                if count == len(streams):
                    return -1
                slot = count
                count += 1
                table[place] = slot
                streams[slot] = stream
                sums[0, slot] = 0
                sums[1, slot] = 0
                sums[2, slot] = number
                sums[3, slot] = number
                sums[4, slot] = 1
        if sums[0, slot] and np.int64(frames[number, 10]) - rows != np.int64(frames[sums[3, slot], 10]):
            sums[4, slot] = 0
        sums[0, slot] += 1
        sums[1, slot] += rows
        sums[3, slot] = number
    return count


def sum_producers(groups: _ARRAY, first: _Numbers, frames: _ARRAY, internal: int) -> ProducerSums | None:
    """As `sums.producer_sums`; None if too many producers have ids that are made to collide."""
    room = _FEW
    while True:
        names, sums = np.empty((2, room), np.uint64), np.empty((3, room), np.int64)
        count = _sum_producers(
            _words(groups, _GROUP_WORDS),
            first,
            _words(frames, _FRAME_WORDS),
            np.uint64(internal),
            _table(room),
            names,
            sums,
        )
        if count >= 0:
            break
        if room > len(groups):
            return None
        room *= _TIMES_MORE
    producers, epochs = names[:, :count]
    order = np.lexsort((epochs, producers))
    begins, ends, rising = sums[:, order]
    return ProducerSums(producers[order], epochs[order], begins, ends, rising != 0)


@compiled
def _sum_producers(
    groups: _Words,
    first: _Numbers,
    frames: _Words,
    internal: np.uint64,
    table: NDArray[np.int32],
    names: _Words,
    sums: NDArray[np.int64],
) -> int:
    """Fill `names` (producer, epoch) and the rows of `sums` (first, last, rising); how many of them, -1: no room."""
    count = 0
    for group in range(len(groups)):
        if not groups[group, 7] & _LOW_16:
            continue
        frame = first[group + 1] - 1
        producer, epoch = frames[frame, 4], frames[frame, 5]
        if producer == internal:
            continue
        place = np.int64(((producer ^ (epoch * _MIXED)) * _MIXED) >> _32) & (len(table) - 1)
        probes = 0
        while table[place] >= 0 and (names[0, table[place]] != producer or names[1, table[place]] != epoch):
            place = (place + 1) & (len(table) - 1)
            probes += 1
            if probes > _PROBES:
                return -1
        slot = np.int64(table[place])
        if slot < 0:
            if count == names.shape[1]:
                return -1
            slot = count
            count += 1
            table[place] = slot
            names[0, slot] = producer
            names[1, slot] = epoch
            sums[0, slot] = group
            sums[2, slot] = 1
        elif frames[frame, 6] <= frames[first[sums[1, slot] + 1] - 1, 6]:
            sums[2, slot] = 0
        sums[1, slot] = group
    return count


def _table(room: int) -> NDArray[np.int32]:
    return np.full(2 * room, -1, np.int32)


def _words(headers: _ARRAY, words: int) -> _Words:
    return headers.view(np.uint64).reshape(-1, words)


# -- order -----------------------------------------------------------------------------------------------------


def in_order(groups: _ARRAY, at: _Numbers, arrival_ns: int, durable_lsn: int) -> bool:
    """Whether arrival times, durable lsns and lsns of groups are in order, behind those given."""
    return bool(_in_order(_words(groups, _GROUP_WORDS), at, arrival_ns, durable_lsn))


@compiled
def _in_order(groups: _Words, at: _Numbers, arrival_ns: int, durable_lsn: int) -> bool:
    for group in range(len(groups)):
        lsn, durable, arrival = (
            np.int64(groups[group, 3]),
            np.int64(groups[group, 4]),
            np.int64(groups[group, 5]),
        )
        if arrival < arrival_ns or durable < durable_lsn or durable >= lsn:
            return False
        if (
            group
            and lsn != np.int64(groups[group - 1, 3]) + 1
            and not groups[group, 0] & _OPENING
            and at[group] == at[group - 1] + np.int64(groups[group - 1, 1] & _LOW_32)
        ):
            return False
        arrival_ns, durable_lsn = arrival, durable
    return True


def refer_beyond(frames: _ARRAY, series_max: _Numbers, but: int) -> bool:
    """Whether frames of any stream `but` one refer to a series that the catalogue did not have before them."""
    return bool(_refer_beyond(_words(frames, _FRAME_WORDS), series_max, np.uint64(but)))


@compiled
def _refer_beyond(frames: _Words, series_max: _Numbers, but: np.uint64) -> bool:
    for number in range(len(frames)):
        if series_max[number] >= np.int64(frames[number, 3]) and frames[number, 1] & _LOW_32 != but:
            return True
    return False


# -- index -----------------------------------------------------------------------------------------------------


def are_indexed(groups: _ARRAY, at: _Numbers, frames: _ARRAY, body_at: _Numbers, entries: _ARRAY) -> bool:
    """Whether so many entries are those of the first frames, and no more of the last of these frames' group."""
    return bool(
        _are_indexed(
            _words(groups, _GROUP_WORDS),
            at,
            _words(frames, _FRAME_WORDS),
            body_at,
            _words(entries, _ENTRY_WORDS),
        )
    )


@compiled
def _are_indexed(groups: _Words, at: _Numbers, frames: _Words, body_at: _Numbers, entries: _Words) -> bool:
    frame = 0
    for group in range(len(groups)):
        if frame == len(entries):
            return True
        count = np.int64(groups[group, 7] & _LOW_16)
        if frame + count > len(entries):
            return False
        place = (np.uint64(at[group]) & _LOW_32) | groups[group, 1] << _32
        of_group = groups[group, 7] & _LOW_32
        for number in range(count):
            header, entry = frames[frame], entries[frame]
            if (
                entry[0] != groups[group, 3] << _16 | np.uint64(number)
                or entry[1] != groups[group, 5]
                or entry[2] != header[7]
                or entry[3] != header[8]
                or entry[4] != place
                or entry[5] != (np.uint64(body_at[frame]) & _LOW_32) | header[0] << _32
                or entry[6] != (header[1] & _LOW_32) | (header[2] >> _32) << _32
                or entry[7] != of_group
            ):
                return False
            frame += 1
    return frame == len(entries)
