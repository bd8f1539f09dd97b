"""`chained.check_groups` as a compiled loop, which takes the groups of a block one after the other.

Needs Numba (extra `fast`), a second to be loaded, and a processor with the CRC-32C instruction of SSE 4.2; imported
only by `check/scan.py`. Promises: takes a group only if `segments.walk` would give it as sound, and stops before any
other; it never explains, that is left to `walk`. Everything in a log is a multiple of 8 bytes at a multiple of 8, so
the loop works on words of 8 bytes. It does not hold the lock of the interpreter: several segments are checked at once.
"""

# To Numba, an int here is an int64; the stubs of NumPy tell the two apart, and Numba's decorator has no types.
# mypy: disable-error-code="untyped-decorator,no-any-return,assignment,return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ringmain.log.check.chained import Sound
from ringmain.log.check.compiled import compiled
from ringmain.log.codec import Codec
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, GROUP_MAGIC, VERSION
from ringmain.log.interface import GROUP_BYTES_MAX

_GROUP_WORDS = GROUP_HEADER_BYTES // 8
_FRAME_WORDS = FRAME_HEADER_BYTES // 8
_BYTES_MAX = GROUP_BYTES_MAX
_MAGIC_AND_VERSION = np.uint64(GROUP_MAGIC | VERSION << 32)
_MAGIC_AND_VERSION_BITS = np.uint64(0xFFFFFFFFFFFF)
_IDS_CODEC = np.uint64(int(Codec.IDS_AND_ARROW))
_LOW_32, _LOW_16, _LOW_8, _ONE = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF), np.uint64(0xFF), np.uint64(1)
_8, _32, _48, _56 = np.uint64(8), np.uint64(32), np.uint64(48), np.uint64(56)


@intrinsic
def _crc(typing: Any, crc: Any, word: Any) -> Any:
    """(CRC so far, eight bytes) -> the CRC behind them, without the inversions at both ends."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word64 = ir.IntType(64)
        function = builder.module.declare_intrinsic(
            "llvm.x86.sse42.crc32.64.64", (), ir.FunctionType(word64, [word64, word64])
        )
        return builder.call(function, arguments)

    return types.uint64(types.uint64, types.uint64), generate


@compiled
def _check_groups(
    words: NDArray[np.uint64],
    at: int,
    stop: int,
    lsn: int,
    incarnation: np.uint64,
    groups: NDArray[np.uint64],
    places: NDArray[np.int64],
    frames: NDArray[np.uint64],
    bodies: NDArray[np.int64],
    series_max: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Take sound groups from word `at` of a block on; returns (groups, frames, the word behind them).

    They are copied to the rows of `groups` (n, 8) and `frames` (n, 12), the word at which each begins to `places`, at
    which each body does to `bodies`, and the largest series id of each frame to `series_max` (-1: none). Stops at the
    first group that is not sound, not whole before `stop`, of another incarnation (0: any), not above the lsn before
    it, or that finds no room.
    """
    group_count = 0
    frame_count = 0
    last = np.uint64(lsn)
    while at + _GROUP_WORDS <= stop and group_count < len(groups):
        if words[at] & _MAGIC_AND_VERSION_BITS != _MAGIC_AND_VERSION:
            break
        length = np.int64(words[at + 1] & _LOW_32)
        count = np.int64(words[at + 7] & _LOW_16)
        body = at + _GROUP_WORDS + _FRAME_WORDS * count
        end = at + length // 8
        if length % 8 or length > _BYTES_MAX or body > end or end > stop or frame_count + count > len(frames):
            break
        if words[at + 3] <= last or (incarnation and words[at + 2] != incarnation):
            break
        crc = _crc(_crc(_LOW_32, words[at]), words[at + 1] & _LOW_32)
        for place in range(at + 2, body):
            crc = _crc(crc, words[place])
        if crc ^ _LOW_32 != words[at + 1] >> _32:
            break
        sound = True
        for number in range(count):
            head = at + _GROUP_WORDS + _FRAME_WORDS * number
            size = np.int64(words[head] & _LOW_32)
            behind = body + size // 8
            if size % 8 or behind > end:
                sound = False
                break
            codec = (words[head + 1] >> _48) & _LOW_8
            kind = words[head + 1] >> _56
            rows = words[head + 2] >> _32
            largest = np.int64(-1)
            rest = body
            if codec == _IDS_CODEC:
                if size < 8 or words[body] & _LOW_32 != rows:
                    sound = False
                    break
                rest = body + 1 + np.int64((rows + _ONE) >> _ONE)
                if rest > behind:
                    sound = False
                    break
                crc = _LOW_32
                for place in range(body + 1, rest):
                    crc = _crc(crc, words[place])
                if crc ^ _LOW_32 != words[body] >> _32:
                    sound = False
                    break
                # the half behind an odd number of ids is zero, and can never be the largest
                high = np.uint64(0)
                for place in range(body + 1, rest):
                    high = max(high, max(words[place] & _LOW_32, words[place] >> _32))
                if rows:
                    largest = np.int64(high)
            crc = _crc(_crc(_crc(_LOW_32, words[head + 4]), words[head + 5]), words[head + 6])
            crc = _crc(crc, codec | kind << _8 | rows << _32)
            crc = _crc(_crc(crc, words[head + 7]), words[head + 8])
            for place in range(rest, behind):
                crc = _crc(crc, words[place])
            if crc ^ _LOW_32 != words[head] >> _32:
                sound = False
                break
            for column in range(_FRAME_WORDS):
                frames[frame_count + number, column] = words[head + column]
            bodies[frame_count + number] = body
            series_max[frame_count + number] = largest
            body = behind
        if not sound or body != end:
            break
        for column in range(_GROUP_WORDS):
            groups[group_count, column] = words[at + column]
        places[group_count] = at
        last = words[at + 3]
        group_count += 1
        frame_count += count
        at = end
    return group_count, frame_count, at


class CompiledCheck:
    """`chained.check_groups` for blocks of up to so many words, with arrays of its own; for one thread.

    What it gives is right until it is called again.
    """

    def __init__(self, block_words: int) -> None:
        frame_count = block_words // _FRAME_WORDS + 1
        self._groups = np.empty((block_words // _GROUP_WORDS + 1, _GROUP_WORDS), np.uint64)
        self._places = np.empty(len(self._groups), np.int64)
        self._frames = np.empty((frame_count, _FRAME_WORDS), np.uint64)
        self._bodies = np.empty(frame_count, np.int64)
        self._series_max = np.empty(frame_count, np.int64)

    def __call__(self, words: NDArray[np.uint64], stop: int, lsn: int, incarnation: int) -> Sound:
        """See `chained.check_groups`."""
        count, frame_count, behind = _check_groups(
            words,
            0,
            stop,
            lsn,
            np.uint64(incarnation),
            self._groups,
            self._places,
            self._frames,
            self._bodies,
            self._series_max,
        )
        return Sound(
            self._groups[:count],
            self._places[:count],
            self._frames[:frame_count],
            self._bodies[:frame_count],
            self._series_max[:frame_count],
            behind,
        )
