"""Which rows of a stream were replaced by a later row of the same series and time.

The newest row in log order counts; an equal value sent twice therefore counts once, and a revision replaces what
it revises. Memory grows with the rows that came out of order or again, not with the rows read: a row that is newer
than everything before it of its series cannot replace anything.

Two passes over the same rows in the same order: `see` all of them, then ask `replaced` for each stretch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUSPECTS_MAX = 20_000_000

_NEVER = np.iinfo(np.int64).min


class TooManyRevisionsError(Exception):
    """More rows came again or out of order than memory is set aside for."""


class Superseded:
    """The rows replaced, among rows numbered from 0 in log order."""

    def __init__(self, series: int) -> None:
        self._newest: NDArray[np.int64] = np.full(max(series, 1), _NEVER, np.int64)
        self.rows = 0
        """Rows seen in the first pass."""
        self._kept: list[tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]] = []
        self._suspects = 0
        self._flags: NDArray[np.bool_] | None = None
        self._times: NDArray[np.int64] = np.empty(0, np.int64)
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._last: NDArray[np.int64] = np.empty(0, np.int64)

    def see(self, ids: NDArray[np.uint32], times: NDArray[np.int64]) -> None:
        """First pass: the next rows (series ids, ns). Raises TooManyRevisionsError."""
        count = len(ids)
        if not count:
            return
        top = int(ids.max())
        if top >= len(self._newest):
            grown = np.full(max(top + 1, 2 * len(self._newest)), _NEVER, np.int64)
            grown[: len(self._newest)] = self._newest
            self._newest = grown
        if count == 1 or bool((ids[1:] > ids[:-1]).all()):
            suspect = times <= self._newest[ids]
            self._newest[ids] = np.maximum(self._newest[ids], times)
            self._keep(ids, times, np.flatnonzero(suspect))
        else:
            order = np.argsort(ids, kind="stable")
            sorted_ids, sorted_times = ids[order], times[order]
            suspect = sorted_times <= self._newest[sorted_ids]
            same = sorted_ids[1:] == sorted_ids[:-1]
            back = same & (sorted_times[1:] <= sorted_times[:-1])
            if back.any():
                mixed = np.zeros(len(self._newest), bool)
                mixed[sorted_ids[1:][back]] = True
                suspect |= mixed[sorted_ids]
            starts = np.flatnonzero(np.concatenate(([True], ~same)))
            heads = sorted_ids[starts]
            self._newest[heads] = np.maximum(self._newest[heads], np.maximum.reduceat(sorted_times, starts))
            self._keep(ids, times, order[suspect])
        self.rows += count

    def _keep(self, ids: NDArray[np.uint32], times: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        if not len(where):
            return
        self._suspects += len(where)
        if self._suspects > SUSPECTS_MAX:
            raise TooManyRevisionsError(
                f"more than {SUSPECTS_MAX} rows came again or out of order: ask for a shorter stretch of time"
            )
        self._kept.append((ids[where], times[where], where + self.rows))

    def finish(self) -> None:
        """End of the first pass."""
        if self._kept:
            ids, times, rows = (np.concatenate(column) for column in zip(*self._kept, strict=True))
            self._kept.clear()
            self._times = np.unique(times)
            keys = ids.astype(np.int64) * len(self._times) + np.searchsorted(self._times, times)
            order = np.lexsort((rows, keys))
            keys, rows = keys[order], rows[order]
            last = np.concatenate((keys[1:] != keys[:-1], [True]))
            self._keys, self._last = keys[last], rows[last]
            self._flags = np.zeros(len(self._newest), bool)
            self._flags[ids] = True
        self._newest = np.empty(0, np.int64)

    def replaced(
        self, ids: NDArray[np.uint32], times: NDArray[np.int64], first_row: int
    ) -> NDArray[np.bool_] | None:
        """Second pass: which of the rows numbered from `first_row` on were replaced; None: not one."""
        if self._flags is None or not len(ids):
            return None
        at = np.flatnonzero(self._flags[ids])
        if not len(at):
            return None
        rank = np.searchsorted(self._times, times[at])
        rank[rank == len(self._times)] = 0
        exact = self._times[rank] == times[at]
        at, rank = at[exact], rank[exact]
        keys = ids[at].astype(np.int64) * len(self._times) + rank
        place = np.searchsorted(self._keys, keys)
        place[place == len(self._keys)] = 0
        gone = (self._keys[place] == keys) & (self._last[place] > at + first_row)
        if not gone.any():
            return None
        mask = np.zeros(len(ids), bool)
        mask[at[gone]] = True
        return mask
