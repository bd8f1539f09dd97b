"""Windows to look up, and finding the rows that belong to them among many that do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.totals import Bools, Ids, Ints

_NO_ROWS = np.empty(0, np.int64)
_FEW_WINDOWS = 4
_SPARSE = 8
"""Where so many times more rows than keys come, keys are sought among the rows, else rows among the keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Windows to look up, each once, in any order."""

    series: Ints
    window: Ints

    def take(self, index: Ints | Bools) -> Keys:
        """The keys at these places."""
        return Keys(self.series[index], self.window[index])


class KeyIndex:
    """Finds which of a set of windows a row belongs to."""

    def __init__(self, keys: Keys) -> None:
        self._order = np.lexsort((keys.series, keys.window))
        self._series = keys.series[self._order]
        window = keys.window[self._order]
        begins = np.flatnonzero(np.concatenate(([True], window[1:] != window[:-1]))[: len(window)])
        self._windows: Ints = window[begins]
        self._bounds: Ints = np.concatenate((begins, [len(window)]))
        self._size = int(self._series.max(initial=-1)) + 1
        self._table: Ints = np.full(self._size + 1, -1, np.int64)
        """By series, while one window is looked at: the place of its key. The last one is for all others."""

    def rows(
        self, series: Ids, window: Ints, low: int, high: int, *, rising: bool
    ) -> Iterator[tuple[Ints, Ints]]:
        """Places of rows that belong to a key, and the places of these keys. Rows of one key come in their order.

        `low`, `high`: the lowest and highest window of any row. `rising`: each series occurs once, in order.
        """
        first, last = np.searchsorted(self._windows, (low, high + 1))
        if last - first > _FEW_WINDOWS:
            yield self._rows_of_many(series, window)
            return
        for place in range(int(first), int(last)):
            begin, end = self._bounds[place : place + 2].tolist()
            if low == high:
                rows, keys = self._rows_of_one(series, begin, end, rising)
            else:
                mine = np.flatnonzero(window == self._windows[place])
                rows, keys = self._rows_of_one(series[mine], begin, end, rising)
                rows = mine[rows]
            if len(rows):
                yield rows, keys

    def rows_of_series(self, series: NDArray[np.integer]) -> Ints:
        """Places of the rows whose series occurs in the set at all."""
        table = self._table
        table[self._series] = 1
        found = np.flatnonzero(table[np.minimum(series, self._size)] > 0)
        table[self._series] = -1
        return found

    def match(self, series: NDArray[np.integer], window: Ints) -> Ints:
        """For each row the place of its key in the set, -1 for none."""
        found = np.full(len(series), -1, np.int64)
        rows, keys = self._rows_of_many(series, window)
        found[rows] = keys
        return found

    def _rows_of_one(self, series: Ids, begin: int, end: int, rising: bool) -> tuple[Ints, Ints]:
        """Among rows of one window: those of the keys from `begin` to `end`."""
        wanted = self._series[begin:end]
        if rising and len(series) > _SPARSE * len(wanted):
            place = np.minimum(np.searchsorted(series, wanted.astype(series.dtype)), len(series) - 1)
            hit = np.flatnonzero(series[place] == wanted)
            return place[hit], self._order[begin:end][hit]
        table = self._table
        table[wanted] = np.arange(begin, end)
        found = table[np.minimum(series, self._size)]
        table[wanted] = -1
        rows = np.flatnonzero(found >= 0)
        return rows, self._order[found[rows]]

    def _rows_of_many(self, series: NDArray[np.integer], window: Ints) -> tuple[Ints, Ints]:
        """Among rows of many windows: those of any key."""
        if not len(self._windows):
            return _NO_ROWS, _NO_ROWS
        table = self._table
        table[self._series] = 1
        rows = np.flatnonzero(table[np.minimum(series, self._size)] > 0)
        table[self._series] = -1
        window = window[rows]
        place = np.minimum(np.searchsorted(self._windows, window), len(self._windows) - 1)
        known = np.flatnonzero(self._windows[place] == window)
        rows, place = rows[known], place[known]
        if not len(rows):
            return _NO_ROWS, _NO_ROWS
        width = self._size + 1
        ranks = np.repeat(np.arange(len(self._windows)), np.diff(self._bounds)) * width + self._series
        rank = place * width + series[rows].astype(np.int64)
        found = np.minimum(np.searchsorted(ranks, rank), len(ranks) - 1)
        hit = ranks[found] == rank
        return rows[hit], self._order[found[hit]]
