"""Where windows begin and end: numbers of windows, in order of time and without gaps.

A window's number is all that the fold keeps of it. `Grid` turns times into numbers and numbers into times; windows of
one length aligned to the UTC epoch are here, those of the local calendar in `calendar.py`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Grid(Protocol):
    """Windows side by side: window n ends where window n + 1 begins. Times are ns UTC."""

    @property
    def width_min_ns(self) -> int:
        """No window is shorter."""
        ...

    def of(self, time: Ints) -> Ints:
        """The number of the window that each time lies in."""
        ...

    def at(self, time: int) -> int:
        """The number of the window that a time lies in."""
        ...

    def start(self, number: Ints) -> Ints:
        """Where windows begin."""
        ...

    def start_of(self, number: int) -> int:
        """Where a window begins."""
        ...


class UtcGrid:
    """Windows of one length, `offset_ns` behind the UTC epoch and its multiples."""

    def __init__(self, width_ns: int, offset_ns: int = 0) -> None:
        self.width_min_ns = width_ns
        self._width = width_ns
        self._offset = offset_ns

    def of(self, time: Ints) -> Ints:
        if self._offset:
            time = time - self._offset
        return time // self._width

    def at(self, time: int) -> int:
        return (time - self._offset) // self._width

    def start(self, number: Ints) -> Ints:
        starts: Ints = number * self._width
        if self._offset:
            starts += self._offset
        return starts

    def start_of(self, number: int) -> int:
        return number * self._width + self._offset
