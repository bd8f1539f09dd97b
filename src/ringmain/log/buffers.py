"""Memory that segments are read into: taken again as soon as nobody looks at what was read into it.

Memory that a process sees for the first time costs more than twice the reading itself: the kernel finds and clears
each page of it. Rows of frames are views of what was read, so whoever keeps a frame keeps its memory; when the last
such view is gone, the memory goes back to a few free blocks here and is read into again. Promises: a block is never
given out while anything refers to it, and what is free is bounded (`FREE_BYTES`). From any thread.

Left to others: reading. Files are never mapped: a disk that fails would end the process.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections import deque
from typing import cast

import numpy as np
from numpy.typing import NDArray

SMALLEST_BYTES = 96 << 10
"""For less than this the C library's own free lists do."""
LARGEST_BYTES = 4 << 20
"""As long as a group can be."""
FREE_BYTES = 24 << 20
"""Free blocks of all sizes take no more than this."""
_BLOCKS_FREE = {128 << 10: 16, 256 << 10: 16, 512 << 10: 8, 1 << 20: 8, 2 << 20: 1, 4 << 20: 1}
"""How many blocks of each size may be free."""
_REFERENCES_WHEN_FREE = 2  # the variable that it is in, and the argument of the call that counts them
_Block = NDArray[np.uint8]
_Views = ctypes.Array[ctypes.c_ubyte]
_VIEWS: dict[int, type[_Views]] = {size: ctypes.c_ubyte * size for size in _BLOCKS_FREE}


class _Lent(weakref.ref[_Views]):
    """Tells when the last view of a block is gone."""

    __slots__ = ("block",)
    block: _Block


class ReadBuffers:
    """Blocks of a few sizes."""

    def __init__(self) -> None:
        # each forgets its oldest block when it is full
        self._free = {size: deque[_Block](maxlen=count) for size, count in _BLOCKS_FREE.items()}
        self._lent: dict[int, _Lent] = {}

    def take(self, size: int) -> memoryview | None:
        """Room for that many bytes, with anything in it; None for a size that is not kept here.

        It is the caller's for as long as it, or any view of it, is referred to.
        """
        if not SMALLEST_BYTES <= size <= LARGEST_BYTES:
            return None
        block_bytes = next(one for one in _BLOCKS_FREE if one >= size)
        block = self._block(block_bytes)
        views = _VIEWS[block_bytes].from_buffer(cast(bytearray, block))
        lent = _Lent(views, self._gone)
        lent.block = block
        self._lent[id(lent)] = lent
        return memoryview(views).cast("B")[:size]

    def free_bytes(self) -> int:
        """Bytes in free blocks."""
        return sum(size * len(free) for size, free in self._free.items())

    def _gone(self, lent: weakref.ref[_Views]) -> None:
        told = self._lent.pop(id(lent))
        block = told.block
        del told.block
        self._free[len(block)].append(block)

    def _block(self, size: int) -> _Block:
        free = self._free[size]
        while True:
            try:
                block = free.pop()
            except IndexError:
                break
            # What is collected as a part of a cycle is told to be gone while finalizers may still look at it.
            if sys.getrefcount(block) == _REFERENCES_WHEN_FREE:
                return block
            del block
        return np.empty(size, np.uint8)


BUFFERS = ReadBuffers()
"""Those of this process."""
