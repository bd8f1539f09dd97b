"""What can be known of a frame from its series column alone, kept for the next frame with the same column.

A fleet that reports in rounds sends frame after frame with the same series in the same order. How to bring the
rows into order of series, whether each series occurs once, which devices they belong to and how rows group by
device is worked out once for such a run of frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.totals import Ids, Ints

Places = slice | Ints
"""Places in a state array: a slice where they are contiguous, which NumPy adds to without gathering."""

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class Sweep:
    """The series of a frame, in order: where they lie in the arrays by series, and their devices in those by device."""

    __slots__ = (
        "_groups",
        "_raw",
        "_starts",
        "devices",
        "distinct",
        "ids",
        "order",
        "places",
        "series",
        "unique",
    )

    def __init__(self, series: Ids, device_of: NDArray[np.int32]) -> None:
        """Every series must have its device already."""
        self._raw = series.copy()
        self.order: Ints | None = None
        """Brings rows into order of series, rows of a series staying in their order; None: they are."""
        if not (series[1:] >= series[:-1]).all():
            self.order = stable_order(series)
            series = series[self.order]
        self.ids: Ids = self._raw if self.order is None else series
        """The series in order, as stored; shared by every frame of this sweep, so not to be written to."""
        self.series: Ints = series.astype(np.int64)
        self.distinct = len(series) - int((series[1:] == series[:-1]).sum())
        self.unique = self.distinct == len(series)
        self.places = _places(self.series) if self.unique else self.series
        devices = device_of[self.places].astype(np.int64)
        self._groups: Ints | None = None
        self._starts: Ints | None = None
        if not (devices[1:] >= devices[:-1]).all():
            self._groups = stable_order(devices)
            devices = devices[self._groups]
        begins = devices[1:] != devices[:-1]
        if not begins.all():
            self._starts = np.flatnonzero(np.concatenate(([True], begins)))
            devices = devices[self._starts]
        self.devices = _places(devices)

    def matches(self, series: Ids) -> bool:
        """Whether a frame has this very column."""
        return len(series) == len(self._raw) and bool((series == self._raw).all())

    def newest_by_device(self, time: Ints) -> Ints:
        """The newest time of each of `devices`. `time` is in order of series."""
        if self._groups is not None:
            time = time[self._groups]
        if self._starts is None:
            return time
        newest: Ints = np.maximum.reduceat(time, self._starts)
        return newest

    def device_numbers(self, selected: NDArray[np.bool_]) -> Ints:
        """The numbers of those of `devices` that are selected."""
        if isinstance(self.devices, slice):
            numbers: Ints = np.flatnonzero(selected) + self.devices.start
        else:
            numbers = self.devices[selected]
        return numbers


def stable_order(numbers: NDArray[np.integer]) -> Ints:
    """The order that sorts numbers from 0 to 2**32 - 1, equal ones staying in their order.

    Sorts number and place packed into one integer: NumPy sorts integers several times as fast as it argsorts.
    """
    packed = numbers.astype(np.uint64) << _SHIFT
    packed |= np.arange(len(numbers), dtype=np.uint64)
    packed.sort()
    packed &= _LOW
    return packed.view(np.int64)


def _places(rising: Ints) -> Places:
    first, last = int(rising[0]), int(rising[-1])
    return slice(first, last + 1) if last - first + 1 == len(rising) else rising
