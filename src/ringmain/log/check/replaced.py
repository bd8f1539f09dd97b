"""Which records of positions say something that none behind them says again, found by a compiled loop.

In most logs nearly all control records are positions of the same few names, one after the other, and only the last of
each counts. Promises: a record is left out only if one behind it names exactly the same positions, written the same
way, so that each name is decided by a record that is kept, and a record that is left out could be read if that one
can. What is not laid out as this log lays it out is kept. Needs Numba (extra `fast`); imported only for
`Form.COMPILED`. MessagePack: "str", "bin", "map" and "nil" formats of its specification.
"""

# To Numba, an int here is an int64; the stubs of NumPy tell the two apart, and Numba's decorator has no types.
# mypy: disable-error-code="untyped-decorator,no-any-return,assignment,return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.log.builtin import CONTROL_ID
from ringmain.log.check.compiled import compiled

_Numbers = NDArray[np.int64]
_PROBES = 64
_CONTROL = np.uint32(CONTROL_ID)
_MIXED = np.uint64(0x9E3779B97F4A7C15)
_32 = np.uint64(32)


def not_replaced(
    streams: NDArray[Any], data: NDArray[np.uint8], starts: _Numbers, begin: bytes
) -> NDArray[np.bool_]:
    """Which bodies are to be looked at: all but records of positions behind which another names the same ones.

    `starts`: the byte of `data` at which each body begins, and where the last one ends; `begin`: what such a record
    begins with, up to its map. A record that is left out can be read if the one that replaces it can.
    """
    needed = np.ones(len(streams), np.bool_)
    room = 1 << max(2 * len(streams), 2).bit_length()
    _not_replaced(
        np.ascontiguousarray(streams),
        data,
        starts,
        np.frombuffer(begin, np.uint8),
        np.full(room, -1, np.int32),
        needed,
    )
    return needed


@compiled
def _not_replaced(
    streams: NDArray[np.uint32],
    data: NDArray[np.uint8],
    starts: _Numbers,
    begin: NDArray[np.uint8],
    table: NDArray[np.int32],
    needed: NDArray[np.bool_],
) -> None:
    newest = -1
    newest_place = np.int64(0)
    for number in range(len(streams)):
        if streams[number] != _CONTROL:
            continue
        # one source, or few: most records follow one of the same names
        if newest >= 0 and _same_names(data, starts[newest], starts[number], starts[number + 1], begin):
            needed[newest] = False
            table[newest_place] = newest = number
            continue
        names = _names(data, starts[number], starts[number + 1], begin)
        if not names:
            continue
        place = np.int64(names >> _32) & (len(table) - 1)
        for _probe in range(_PROBES):
            other = table[place]
            if other < 0 or _same_names(data, starts[other], starts[number], starts[number + 1], begin):
                if other >= 0:
                    needed[other] = False
                table[place] = newest = number
                newest_place = place
                break
            place = (place + 1) & (len(table) - 1)


@compiled
def _names(data: NDArray[np.uint8], at: int, end: int, begin: NDArray[np.uint8]) -> np.uint64:
    """A hash of the names in a record of positions, and of how each is written; 0 if it is none."""
    if end - at < 4 + len(begin) + 1:
        return np.uint64(0)
    behind = at + 4 + _size(data, at)
    at += 4
    if behind > end or behind - at < len(begin) + 1:
        return np.uint64(0)
    for place in range(len(begin)):
        if data[at + place] != begin[place]:
            return np.uint64(0)
    at += len(begin)
    head, count = _map(data, at, behind)
    if count < 0:
        return np.uint64(0)
    found = np.uint64(data[at]) | np.uint64(1) << _32
    at += head
    for _number in range(count):
        head, size = _name(data, at, behind)
        if size < 0 or at + head + size > behind:
            return np.uint64(0)
        for place in range(at, at + head + size):
            found = (found ^ np.uint64(data[place])) * _MIXED
        found ^= found >> _32
        at += head + size
        size = _value(data, at, behind)
        if size < 0 or at + size > behind:
            return np.uint64(0)
        at += size
    if at != behind:
        return np.uint64(0)
    return found * _MIXED | np.uint64(1)


@compiled
def _same_names(data: NDArray[np.uint8], one: int, other: int, end: int, begin: NDArray[np.uint8]) -> bool:
    """Whether `other`, which ends before a byte, is a record of positions with the names of `one`, written the same way.

    `one` is known to be such a record.
    """
    if end - other < 4 + len(begin) + 1:
        return False
    ends = one + 4 + _size(data, one), other + 4 + _size(data, other)
    if ends[1] > end:
        return False
    one += 4
    other += 4
    head, count = _map(data, one + len(begin), ends[0])
    if not _are_same(data, one, other, len(begin) + head, ends[1]):
        return False
    one += len(begin) + head
    other += len(begin) + head
    for _number in range(count):
        head, size = _name(data, one, ends[0])
        if not _are_same(data, one, other, head + size, ends[1]):
            return False
        one += head + size
        other += head + size
        size = _value(data, other, ends[1])
        if size < 0:
            return False
        one += _value(data, one, ends[0])
        other += size
    return other == ends[1]


@compiled
def _are_same(data: NDArray[np.uint8], one: int, other: int, size: int, end: int) -> bool:
    """Whether so many bytes are the same at two places, of which the other's end before a byte."""
    if other + size > end:
        return False
    different = np.uint8(0)
    for place in range(size):
        different |= data[one + place] ^ data[other + place]
    return different == 0


@compiled
def _size(data: NDArray[np.uint8], at: int) -> int:
    """The length of a record, little endian."""
    return (
        np.int64(data[at])
        | np.int64(data[at + 1]) << 8
        | np.int64(data[at + 2]) << 16
        | np.int64(data[at + 3]) << 24
    )


@compiled
def _big(data: NDArray[np.uint8], at: int, size: int) -> int:
    """An unsigned integer of so many bytes, big endian."""
    value = np.int64(0)
    for place in range(size):
        value = value << 8 | np.int64(data[at + place])
    return value


@compiled
def _map(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """(bytes of its head, entries) of a map of MessagePack; entries -1: it is none."""
    if at >= end:
        return 0, -1
    first = np.int64(data[at])
    if first & 0xF0 == 0x80:
        return 1, first & 0x0F
    size = 2 if first == 0xDE else 4 if first == 0xDF else 0
    if not size or at + 1 + size > end:
        return 0, -1
    return 1 + size, _big(data, at + 1, size)


@compiled
def _name(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """(bytes of its head, bytes) of a text of MessagePack; bytes -1: it is none."""
    if at >= end:
        return 0, -1
    first = np.int64(data[at])
    if first & 0xE0 == 0xA0:
        return 1, first & 0x1F
    size = 1 if first == 0xD9 else 2 if first == 0xDA else 4 if first == 0xDB else 0
    if not size or at + 1 + size > end:
        return 0, -1
    return 1 + size, _big(data, at + 1, size)


@compiled
def _value(data: NDArray[np.uint8], at: int, end: int) -> int:
    """The bytes that nil, or a binary of MessagePack, takes with its head; -1: it is neither."""
    if at >= end:
        return -1
    first = np.int64(data[at])
    if first == 0xC0:
        return 1
    size = 1 if first == 0xC4 else 2 if first == 0xC5 else 4 if first == 0xC6 else 0
    if not size or at + 1 + size > end:
        return -1
    return 1 + size + _big(data, at + 1, size)
