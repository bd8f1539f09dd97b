"""A copy of large arrays as they were at one moment, made little by little while their owner goes on writing to them.

The owner says which places it is about to write to, and these are copied before (`before`); all others are copied a
piece at a time, in between (`go_on`). When it is whole, the copy is that of the moment at which it was begun, whatever
was written since. All of it is done by the thread that writes. Arrays that the owner replaces by larger ones meanwhile
are copied as they were left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = slice | NDArray[np.integer[Any]]
PIECE_BYTES = 512 << 10
"""Copied between two looks at the clock; a fraction of a millisecond."""


class Picture:
    """Copies of arrays that lie by the same places and are of equal length. Memory: theirs, and a byte a place."""

    def __init__(
        self,
        arrays: Sequence[NDArray[Any]],
        rooms: Sequence[NDArray[Any]],
        *,
        piece_bytes: int = PIECE_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`rooms`: what to copy to, of equal shapes and types, and not looked at until the picture is `whole`.

        `clock`: seconds, for how long it takes.
        """
        self._clock = clock
        self._pairs = list(zip(arrays, rooms, strict=True))
        self._size = len(arrays[0]) if arrays else 0
        self._kept = np.zeros(self._size, np.bool_)
        self._at = 0
        """Places below are copied."""
        bytes_each = max(1, sum(array.nbytes for array in arrays) // max(1, self._size))
        self._piece = max(1, piece_bytes // bytes_each)
        self.longest_s = 0.0
        """The longest that a call took; see `go_on` for how it is bounded."""

    @property
    def whole(self) -> bool:
        """Whether everything is copied: nobody needs to say any more what is written."""
        return self._at >= self._size

    def before(self, places: Places) -> None:
        """Copy what lies at these places, unless it is copied already: they are about to be written to."""
        if self._at >= self._size:
            return
        began_s = self._clock()
        span = _span(places)
        if span is None:
            self._keep(np.asarray(places))
        else:
            start, stop = max(span[0], self._at), min(span[1], self._size)
            if start < stop:
                self._copy(start, stop)
                self._kept[start:stop] = True
        self.longest_s = max(self.longest_s, self._clock() - began_s)

    def go_on(self, until_s: float) -> None:
        """Copy until a time of its clock, a piece at least."""
        began_s = now_s = self._clock()
        while self._at < self._size:
            stop = min(self._at + self._piece, self._size)
            self._copy(self._at, stop)
            self._at = stop
            now_s = self._clock()
            if now_s >= until_s:
                break
        self.longest_s = max(self.longest_s, now_s - began_s)

    def _keep(self, places: NDArray[np.integer[Any]]) -> None:
        """Copy places one by one."""
        inside = places[(places >= self._at) & (places < self._size)]
        rows = inside[~self._kept[inside]]
        if len(rows):
            for array, room in self._pairs:
                room[rows] = array[rows]
            self._kept[rows] = True

    def _copy(self, start: int, stop: int) -> None:
        """Copy a stretch, but for what is copied already."""
        kept = self._kept[start:stop]
        held = np.flatnonzero(kept)
        if 2 * len(held) > stop - start:
            rest = np.flatnonzero(~kept)
            for array, room in self._pairs:
                room[start:stop][rest] = array[start:stop][rest]
            return
        for array, room in self._pairs:
            target = room[start:stop]
            before = target[held] if len(held) else None
            np.copyto(target, array[start:stop])
            if before is not None:
                target[held] = before


def _span(places: Places) -> tuple[int, int] | None:
    """First and behind the last, where places are a stretch without holes in rising order."""
    if isinstance(places, slice):
        return places.start, places.stop
    if not len(places):
        return 0, 0
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 != len(places) or not (places[1:] > places[:-1]).all():
        return None
    return first, last + 1
