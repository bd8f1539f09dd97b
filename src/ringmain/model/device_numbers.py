"""Dense numbers for the devices that series belong to, so that what is kept for each device can be an array.

A device is known by the code of its name in the catalogue's table of words; a series without a device is a device of its
own. Numbers are given in order of first appearance and hold in this process only. One thread writes while any number of
threads read; names, codes and series ids are left to the catalogue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ringmain.model.text_table import MISSING


class DeviceNumbers:
    """The device number of each series. `reserve` before `put` and `put_many`."""

    def __init__(self) -> None:
        self.given = 0
        """How many numbers have been given: all are below."""
        self._of_series: NDArray[np.int32] = np.empty(16, np.int32)
        self._of_code: NDArray[np.int32] = np.full(16, -1, np.int32)

    def of(self, series: NDArray[np.uint32], count: int) -> NDArray[np.int32]:
        """The numbers of series, -1 for ids from `count` on: those that have none yet."""
        numbers = self._of_series
        if series.size == 0 or int(series.max()) < count:
            known: NDArray[np.int32] = numbers[series]
            return known
        return np.where(series < count, numbers[np.minimum(series, len(numbers) - 1)], np.int32(-1))

    def reserve(self, series: int, codes: int) -> None:
        """Make room for so many series, and for codes of names below `codes`."""
        if series > len(self._of_series):
            numbers = np.empty(series, np.int32)
            numbers[: len(self._of_series)] = self._of_series
            self._of_series = numbers
        if codes > len(self._of_code):
            grown = np.full(max(codes, 2 * len(self._of_code)), -1, np.int32)
            grown[: len(self._of_code)] = self._of_code
            self._of_code = grown

    def put(self, series: int, code: int) -> None:
        """The series belongs to the device whose name has this code, or to none (`MISSING`)."""
        number = -1 if code == MISSING else int(self._of_code[code])
        if number < 0:
            number = self.given
            self.given += 1
            if code != MISSING:
                self._of_code[code] = number
        self._of_series[series] = number

    def put_many(self, first: int, codes: NDArray[np.uint32]) -> None:
        """`put` for the series from `first` on."""
        count, bound = len(codes), len(self._of_code)
        # in order of first appearance, a series without device counting for itself
        marks = np.where(codes == MISSING, bound + np.arange(count), codes)
        distinct, appeared, where = np.unique(marks, return_index=True, return_inverse=True)
        named = distinct < bound
        numbers = np.full(len(distinct), -1, np.int32)
        numbers[named] = self._of_code[distinct[named]]
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(appeared[new], kind="stable")]
        numbers[new] = np.arange(self.given, self.given + new.size)
        self._of_code[distinct[named]] = numbers[named]
        self._of_series[first : first + count] = numbers[where]
        self.given += int(new.size)
