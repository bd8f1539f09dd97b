"""Checks the groups of a block with one pass of CRC-32C over all of it, however many frames there are.

A log of small frames has three CRCs in 1.5 KB, and to call for each costs more than the bytes do. The CRC register
is linear: a word that is read while it holds a leaves it as the word XOR a XOR b does while it holds b (RFC 3720,
appendix B.4; the register and its shifts are polynomials over GF(2)). So where one checked piece ends with a CRC that
is written down, the first word of the next piece is changed such that the register goes on as if it began anew, and
the register at the end of the block is right exactly as if each piece had been checked. A wrong piece leaves it wrong
for certain; several wrong pieces of one block could cancel out with a probability of 2**-32, as for any CRC of 32 bits.

Promises: takes a group only if `segments.walk` would give it as sound, and stops before any other; it never explains,
that is left to `walk`. The block is as it was when it returns. Everything in a log is a multiple of 8 bytes at a
multiple of 8, so all here are words of 8 bytes. Most of it runs without the lock of the interpreter.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ringmain.log.codec import Codec
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, GROUP_MAGIC, VERSION
from ringmain.log.interface import GROUP_BYTES_MAX

_GROUP_WORDS = GROUP_HEADER_BYTES // 8
_FRAME_WORDS = FRAME_HEADER_BYTES // 8
_IDENTITY_BYTES = 48
_LARGE_FRAME_WORDS = 2048
_MANY_GROUPS, _SMALL_GROUP_WORDS = 64, 512
_IDS_CODEC = np.uint64(int(Codec.IDS_AND_ARROW))
_MAGIC_AND_VERSION = np.uint64(GROUP_MAGIC | VERSION << 32)
_LOW_48, _LOW_32 = np.uint64(0xFFFFFFFFFFFF), np.uint64(0xFFFFFFFF)
_LOW_16, _LOW_8, _7, _1 = np.uint64(0xFFFF), np.uint64(0xFF), np.uint64(7), np.uint64(1)
_3, _32, _48 = np.uint64(3), np.uint64(32), np.uint64(48)

_Words = NDArray[np.uint64]
_Places = NDArray[np.int64]


class Sound(NamedTuple):
    """Sound groups of a block. `behind`: the word behind the last of them.

    `groups` (n, 8) and `frames` (n, 12): their headers as words; `places`: the word at which each group begins;
    `bodies`: the word at which the body of each frame does; `series_max`: its largest series id, -1 without ids.
    """

    groups: _Words
    places: _Places
    frames: _Words
    bodies: _Places
    series_max: _Places
    behind: int


class _Pieces(NamedTuple):
    """Groups whose headers make sense, with the word of each body, of what follows its ids, and behind it."""

    places: _Places
    groups: _Words
    ends: _Places
    frames: _Words
    first: _Places
    bodies: _Places
    rests: _Places
    has_ids: NDArray[np.bool_]

    def cut(self, count: int) -> _Pieces:
        """Those of the first groups only."""
        frames = int(self.first[count]) if count < len(self.places) else len(self.frames)
        return _Pieces(
            self.places[:count],
            self.groups[:count],
            self.ends[:count],
            self.frames[:frames],
            self.first[:count],
            self.bodies[:frames],
            self.rests[:frames],
            self.has_ids[:frames],
        )


def check_groups(words: _Words, stop: int, lsn: int, incarnation: int) -> Sound:
    """The sound groups that begin with the block's first word and follow one another before word `stop`.

    Ends before the first group that is not sound, not whole, of another incarnation (0: any), or not above the lsn of
    the one before it (of the first: `lsn`).
    """
    pieces = _pieces(words, _begun(words, stop), lsn, incarnation)
    if len(pieces.places):
        pieces = pieces.cut(_sound_count(words, pieces))
    behind = int(pieces.ends[-1]) if len(pieces.places) else 0
    return Sound(
        pieces.groups, pieces.places, pieces.frames, pieces.bodies, _series_max(words, pieces), behind
    )


def _begun(words: _Words, stop: int) -> NDArray[np.int64]:
    """Where groups begin, by their lengths, and where the last one ends."""
    halves = memoryview(words.data).cast("B").cast("I")
    place, found = 0, [0]
    while place + _GROUP_WORDS <= stop:
        length = halves[2 * place + 2]
        end = place + (length >> 3)
        if (
            halves[2 * place] != GROUP_MAGIC
            or length & 7
            or end > stop
            or not GROUP_HEADER_BYTES <= length <= GROUP_BYTES_MAX
        ):
            break
        found.append(end)
        place = end
        if len(found) == _MANY_GROUPS and place < _SMALL_GROUP_WORDS * _MANY_GROUPS:
            return np.append(np.array(found[:-1], np.int64), _begun_small(words, stop, place))
    return np.array(found, np.int64)


def _begun_small(words: _Words, stop: int, place: int) -> NDArray[np.int64]:
    """As `_begun` from a word on, by the magic number of groups: for many small ones."""
    halves = words.view(np.uint32)
    found = np.flatnonzero(halves[2 * place : 2 * (stop - _GROUP_WORDS + 1) : 2] == GROUP_MAGIC) + place
    lengths = halves[2 * found + 2]
    ends = found + (lengths >> np.uint32(3))
    right = (lengths & np.uint32(7) == 0) & (lengths >= GROUP_HEADER_BYTES) & (lengths <= GROUP_BYTES_MAX)
    right &= ends <= stop
    # what looks like the beginning of a group within one breaks the chain as well: the next block begins there
    right &= np.append(place, ends[:-1]) == found
    count = _leading(right)
    return np.append(place, ends[:count])


def _pieces(words: _Words, bounds: _Places, lsn: int, incarnation: int) -> _Pieces:
    """Those groups from the first on whose headers make sense, CRCs aside."""
    places, ends = bounds[:-1], bounds[1:]
    groups = words[places[:, None] + np.arange(_GROUP_WORDS)]
    counts = (groups[:, 7] & _LOW_16).astype(np.int64)
    lsns = groups[:, 3]
    bodies_at = places + _GROUP_WORDS + _FRAME_WORDS * counts
    right = (groups[:, 0] & _LOW_48 == _MAGIC_AND_VERSION) & (bodies_at <= ends)
    right[1:] &= lsns[1:] > lsns[:-1]
    right[:1] &= lsns[:1] > np.uint64(lsn)
    if incarnation:
        right &= groups[:, 2] == np.uint64(incarnation)
    count = _leading(right)
    places, ends, groups = places[:count], ends[:count], groups[:count]
    counts, bodies_at = counts[:count], bodies_at[:count]
    first = np.cumsum(counts) - counts
    heads = np.repeat(places + _GROUP_WORDS - _FRAME_WORDS * first, counts)
    heads += _FRAME_WORDS * np.arange(len(heads))
    frames = words[heads[:, None] + np.arange(_FRAME_WORDS)]
    sizes = frames[:, 0] & _LOW_32
    lengths = (sizes >> _3).astype(np.int64)
    before = np.cumsum(lengths) - lengths
    held = np.append(before, lengths.sum())
    right = held[np.append(first, len(lengths))[1:]] - held[first] == ends - bodies_at
    bodies = np.repeat(bodies_at - held[first], counts) + before
    # a length that is no multiple of 8, or that leads elsewhere, is not looked at any further
    usable = (sizes & _7 == 0) & np.repeat(right, counts) & (lengths > 0)
    rests = bodies.copy()
    has_ids = ((frames[:, 1] >> _48) & _LOW_8 == _IDS_CODEC) & usable
    rows = frames[has_ids, 2] >> _32
    ids_at = bodies[has_ids]
    rests[has_ids] = ids_at + 1 + ((rows + _1) >> _1).astype(np.int64)
    usable &= rests < bodies + lengths
    usable[has_ids] &= (words[ids_at] & _LOW_32 == rows) & (rows > 0)
    if not usable.all():
        right[np.searchsorted(first, np.argmin(usable), side="right") - 1] = False
    pieces = _Pieces(places, groups, ends, frames, first, bodies, rests, has_ids)
    return pieces.cut(_leading(right))


def _leading(right: NDArray[np.bool_]) -> int:
    """How many are right before the first that is not."""
    return len(right) if right.all() else int(np.argmin(right))


def _sound_count(words: _Words, pieces: _Pieces) -> int:
    """How many of the groups, from the first on, have the CRCs that are written in them."""
    groups, frames = pieces.groups, pieces.frames
    header_crcs, body_crcs = groups[:, 1] >> _32, frames[:, 0] >> _32
    behind = np.append(pieces.first[1:], len(frames))
    with_frames = behind > pieces.first
    lasts = header_crcs.copy()
    lasts[with_frames] = body_crcs[behind[with_frames] - 1]
    before_groups = np.concatenate([np.zeros(1, np.uint64), lasts[:-1]])
    before = np.concatenate([np.zeros(1, np.uint64), body_crcs[:-1]])[: len(frames)]
    before[pieces.first[with_frames]] = header_crcs[with_frames]
    has_ids = pieces.has_ids
    ids_at = pieces.bodies[has_ids]
    at_rests = _identity_crcs(frames) ^ before
    at_rests[has_ids] ^= before[has_ids] ^ (words[ids_at] >> _32)
    changed = np.concatenate([pieces.places, pieces.places + 1, ids_at, ids_at + 1, pieces.rests])
    kept = words[changed]
    try:
        words[pieces.places] ^= before_groups
        words[pieces.places + 1] &= _LOW_32
        words[ids_at] = before[has_ids] ^ _LOW_32
        words[ids_at + 1] ^= _LOW_32
        words[pieces.rests] ^= at_rests
        data = memoryview(words.data).cast("B")
        if crc32c(data[: 8 * int(pieces.ends[-1])]) == lasts[-1]:
            return len(groups)
        for number, (start, end) in enumerate(zip(pieces.places.tolist(), pieces.ends.tolist(), strict=True)):
            if crc32c(data[8 * start : 8 * end], int(before_groups[number])) != lasts[number]:
                return number
        raise AssertionError("the parts of a block were right, and the whole was not")
    finally:
        words[changed] = kept


def _identity_crcs(frames: _Words) -> _Words:
    """The CRC-32C of each frame's identity, as `frames.body_crc` begins with."""
    if not len(frames):
        return np.empty(0, np.uint64)
    identities = frames[:, (4, 5, 6, 6, 7, 8)]
    kinds = (frames[:, 1] >> _48) & _LOW_16  # the codec and above it the kind
    identities[:, 3] = kinds | frames[:, 2] >> _32 << _32
    varying = np.bitwise_or.reduce(identities ^ identities[0], axis=0)
    crcs = np.full(len(frames), crc32c(identities[0].tobytes()), np.uint64)
    tables = _tables()
    for word in np.flatnonzero(varying).tolist():
        column = np.ascontiguousarray(identities[:, word] ^ identities[0, word])
        for byte in np.flatnonzero(varying[word : word + 1].view(np.uint8)).tolist():
            crcs ^= tables[8 * word + byte][column.view(np.uint8)[byte::8]]
    return crcs


@cache
def _tables() -> NDArray[np.uint64]:
    """What a byte at each place of an identity changes in its CRC."""
    none = crc32c(bytes(_IDENTITY_BYTES))
    tables = np.zeros((_IDENTITY_BYTES, 256), np.uint64)
    for place in range(_IDENTITY_BYTES):
        for bit in range(8):
            identity = bytearray(_IDENTITY_BYTES)
            identity[place] = 1 << bit
            tables[place, 1 << bit : 2 << bit] = tables[place, : 1 << bit] ^ np.uint64(
                crc32c(identity) ^ none
            )
    return tables


def _series_max(words: _Words, pieces: _Pieces) -> _Places:
    largest = np.full(len(pieces.frames), -1, np.int64)
    starts, ends = 2 * pieces.bodies[pieces.has_ids] + 2, 2 * pieces.rests[pieces.has_ids]
    if not len(starts):
        return largest
    halves = words.view(np.uint32)[: 2 * int(pieces.ends[-1])]
    # the half behind an odd number of ids is zero, and can never be the largest
    found: Any
    if int(pieces.ends[-1]) > _LARGE_FRAME_WORDS * len(starts):
        found = [halves[start:end].max() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    else:
        found = np.maximum.reduceat(halves, np.column_stack([starts, ends]).ravel())[::2]
    largest[pieces.has_ids] = found
    return largest
