"""What can be known of a frame from its series column alone, kept for the next frame with the same column.

A fleet that reports in rounds sends frame after frame with the same series in the same order. How to bring the
rows into order of series, whether each series occurs once, which devices they belong to and how rows group by
device is worked out once for such a run of frames.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.compiled import compiled, worth
from ringmain.flows.growing import NEVER
from ringmain.flows.totals import Ids, Ints

Places = slice | Ints
"""Places in a state array: a slice where they are contiguous, which NumPy adds to without gathering."""

KNOWN_ROWS_MAX = 1 << 18
"""Rows of the columns that are known at a time."""
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class _OfColumn(Protocol):
    @property
    def raw(self) -> Ids: ...


_Of = TypeVar("_Of", bound=_OfColumn)


class Known(Generic[_Of]):
    """What was worked out of the newest series columns: a fleet comes in as many frames a round as it needs."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int, int], _Of] = {}
        self._last: _Of | None = None
        self._rows = 0

    def find(self, series: Ids) -> _Of | None:
        """What belongs to this very column, which has a row at least."""
        found = self._last
        if found is None or series is not found.raw:
            found = self._of.get(_key(series))
            if found is None or not (series is found.raw or bool((series == found.raw).all())):
                return None
            self._last = found
        return found

    def add(self, of: _Of) -> None:
        """Know it from now on, instead of those that are known for longest."""
        key = _key(of.raw)
        before = self._of.pop(key, None)
        self._rows += len(of.raw) - (0 if before is None else len(before.raw))
        self._of[key] = self._last = of
        while self._rows > KNOWN_ROWS_MAX and len(self._of) > 1:
            self._rows -= len(self._of.pop(next(iter(self._of))).raw)

    def clear(self) -> None:
        """Know nothing."""
        self._of.clear()
        self._last = None
        self._rows = 0


def _key(series: Ids) -> tuple[int, int, int]:
    return len(series), int(series[0]), int(series[-1])


class Sweep:
    """The series of a frame, in order: where they lie in the arrays by series, and their devices in those by device."""

    __slots__ = (
        "_groups",
        "_number",
        "_starts",
        "devices",
        "distinct",
        "ids",
        "order",
        "places",
        "raw",
        "series",
        "unique",
    )

    def __init__(self, series: Ids, device_of: NDArray[np.int32]) -> None:
        """Every series must have its device already."""
        self.raw: Ids = own(series)
        """The column as it came."""
        self.order: Ints | None = None
        """Brings rows into order of series, rows of a series staying in their order; None: they are."""
        if not (series[1:] >= series[:-1]).all():
            self.order = stable_order(series)
            series = series[self.order]
        self.ids: Ids = self.raw if self.order is None else series
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
        self._number: NDArray[np.int32] | None = None
        """By row: the place of its device among `devices`."""
        begins = devices[1:] != devices[:-1]
        if not begins.all():
            self._starts = np.flatnonzero(np.concatenate(([True], begins)))
            devices = devices[self._starts]
        self.devices = _places(devices)

    def newest_by_device(self, time: Ints, time_min: int, time_max: int) -> Ints | int:
        """The newest time of each of `devices`, or that of all. `time`, in order of series, lies within the bounds."""
        if time_min == time_max:
            return time_min
        if self._starts is not None and worth(len(time)):
            if self._number is None:
                self._number = self._numbered(len(time))
            time.flags.writeable = False  # the loop is compiled for one kind of array only
            newest: Ints = np.full(len(self._starts), NEVER, np.int64)
            raise_to(newest, self._number, time)
            return newest
        if self._groups is not None:
            time = time[self._groups]
        return time if self._starts is None else _highest(time, self._starts)

    def _numbered(self, rows: int) -> NDArray[np.int32]:
        begins = np.zeros(rows, np.int32)
        begins[self._starts] = 1
        numbers = np.cumsum(begins, dtype=np.int32) - np.int32(1)
        if self._groups is None:
            return numbers
        found = np.empty(rows, np.int32)
        found[self._groups] = numbers
        return found

    def device_numbers(self, selected: NDArray[np.bool_]) -> Ints:
        """The numbers of those of `devices` that are selected."""
        if isinstance(self.devices, slice):
            numbers: Ints = np.flatnonzero(selected) + self.devices.start
        else:
            numbers = self.devices[selected]
        return numbers


def _highest(time: Ints, starts: Ints) -> Ints:
    newest: Ints = np.maximum.reduceat(time, starts)
    return newest


@compiled
def raise_to(newest: Ints, place: NDArray[np.int32], time: Ints) -> None:
    """Raise what lies at the place of each time to it."""
    for row in range(len(time)):
        at = place[row]
        if time[row] > newest[at]:
            newest[at] = time[row]


def own(series: Ids) -> Ids:
    """A column that nobody writes to, not as a view of a frame, which would be kept as well."""
    return series if series.flags.owndata else series.copy()


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
