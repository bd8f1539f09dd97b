"""What can be known of a frame from its series column alone, kept for the next frame with the same column.

A fleet that reports in rounds sends frame after frame with the same series in the same order. Whether each series
occurs once, which devices they belong to and how rows group by device is worked out once for such a run of frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.totals import Ids, Ints

Places = slice | Ints
"""Places in a state array: a slice where they are contiguous, which NumPy adds to without gathering."""


class Sweep:
    """The series of a frame: where they lie in the arrays by series, and their devices in those by device."""

    __slots__ = ("_groups", "_starts", "devices", "places", "series", "unique")

    def __init__(self, series: Ids, device_of: NDArray[np.int32]) -> None:
        """Every series must have its device already."""
        self.series = series.copy()
        rising = len(series) < 2 or bool((series[1:] > series[:-1]).all())
        self.unique = rising or _all_differ(series)
        self.places = _places(series, rising)
        devices = device_of[self.places].astype(np.int64)
        self._groups: Ints | None = None
        self._starts: Ints | None = None
        rising = len(devices) < 2 or bool((devices[1:] > devices[:-1]).all())
        if rising:
            self.devices = _places(devices, True)
            return
        if not bool((devices[1:] >= devices[:-1]).all()):
            self._groups = np.argsort(devices, kind="stable")
            devices = devices[self._groups]
        self._starts = np.flatnonzero(np.concatenate(([True], devices[1:] != devices[:-1])))
        devices = devices[self._starts]
        self.devices = _places(devices, True)

    def matches(self, series: Ids) -> bool:
        """Whether a frame has this very column."""
        return len(series) == len(self.series) and bool((series == self.series).all())

    def newest_by_device(self, time: Ints) -> Ints:
        """The newest time of each of `devices`."""
        if self._starts is None:
            return time
        if self._groups is not None:
            time = time[self._groups]
        newest: Ints = np.maximum.reduceat(time, self._starts)
        return newest

    def device_numbers(self, selected: NDArray[np.bool_]) -> Ints:
        """The numbers of those of `devices` that are selected."""
        if isinstance(self.devices, slice):
            numbers: Ints = np.flatnonzero(selected) + self.devices.start
        else:
            numbers = self.devices[selected]
        return numbers


def _places(numbers: NDArray[np.integer], rising: bool) -> Places:
    first, last = int(numbers[0]), int(numbers[-1])
    if rising and last - first + 1 == len(numbers):
        return slice(first, last + 1)
    return numbers.astype(np.int64)


def _all_differ(series: Ids) -> bool:
    ordered = np.sort(series)
    return bool((ordered[1:] != ordered[:-1]).all())
