"""Versions of rows by key and time, and which of them holds for a time: the newest that is not later.

Rows come in log order. Of one key and time the newest counts. Keys are small numbers from 0 on; -1 is no key and
matches nothing. Memory: rows that no reading within the horizon can need are forgotten, and of more than `rows_max` the
oldest (counted by the caller).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ringmain.flows.block import Ints
from ringmain.flows.state import NEVER

OPEN = 2**63 - 1
"""The end of a row that has none."""
ROWS_MAX = 1 << 20


class AsOf:
    """Rows of one schema. `find` gives places in `rows`, -1 for none; they hold until the next call of `add`."""

    def __init__(self, schema: pa.Schema, rows_max: int = ROWS_MAX) -> None:
        self.rows: pa.RecordBatch = _none(schema)
        """By key, then by time."""
        self.key: Ints = np.empty(0, np.int64)
        self.time: Ints = np.empty(0, np.int64)
        self.until: Ints = np.empty(0, np.int64)
        """Where a row ends to hold; OPEN for none."""
        self.newest: Ints = np.empty(0, np.int64)
        """By key: the newest time, NEVER for none."""
        self._rows_max = rows_max
        self._reset()

    def _reset(self) -> None:
        self._times = np.unique(self.time)
        rank = np.searchsorted(self._times, self.time) + 1
        self._step = len(self._times) + 1
        self._codes = self.key * self._step + rank
        self._ends = bool((self.until != OPEN).any())
        keys = int(self.key[-1]) + 1 if len(self.key) else 0
        newest = np.full(max(keys, len(self.newest)), NEVER, np.int64)
        newest[: len(self.newest)] = self.newest
        last = np.flatnonzero(np.concatenate((self.key[1:] != self.key[:-1], [True]))) if keys else self.key
        newest[self.key[last]] = np.maximum(newest[self.key[last]], self.time[last])
        self.newest = newest
        self._at: tuple[int, Ints] | None = None

    def __len__(self) -> int:
        return len(self.key)

    def add(
        self, rows: pa.RecordBatch, key: Ints, time: Ints, until: Ints | None = None, horizon: int = NEVER
    ) -> int:
        """Take over rows that came later than all before; how many were forgotten for want of room.

        No time before `horizon` will be looked for, as far as memory is concerned.
        """
        if not rows.num_rows:
            return 0
        ends = np.full(len(key), OPEN, np.int64) if until is None else until
        whole = pa.Table.from_batches([self.rows, rows]).combine_chunks().to_batches()[0]
        keys, times = np.concatenate((self.key, key)), np.concatenate((self.time, time))
        untils = np.concatenate((self.until, ends))
        order = np.lexsort((times, keys))
        keys, times = keys[order], times[order]
        same_key = keys[1:] == keys[:-1]
        keep = np.concatenate((~(same_key & (times[1:] == times[:-1])), [True]))
        if horizon != NEVER:
            keep[:-1] &= ~(same_key & (times[1:] <= horizon))
        forgotten = int(keep.sum()) - self._rows_max
        if forgotten > 0:
            kept = np.flatnonzero(keep)
            keep[kept[np.argsort(times[kept], kind="stable")[:forgotten]]] = False
        order = order[keep]
        self.rows = whole.take(pa.array(order))
        self.key, self.time, self.until = keys[keep], times[keep], untils[order]
        self._reset()
        return max(forgotten, 0)

    def find(self, key: Ints, time: Ints) -> Ints:
        """For each key and time the place of the row that holds, -1 for none."""
        if not len(self.key) or not len(time):
            return np.full(len(time), -1, np.int64)
        low, high = np.searchsorted(self._times, (int(time.min()), int(time.max())), "right").tolist()
        known = key < len(self.newest)
        if low == high:
            by_key = self._by_key(low)
            places: Ints = by_key[np.where(known, key, -1)]
        else:
            rank = np.searchsorted(self._times, time, "right")
            places = np.searchsorted(self._codes, key * self._step + rank, "right") - 1
            places[(key < 0) | (self.key[places] != key)] = -1
        if self._ends:
            until = self.until[places]
            places[(places >= 0) & (time >= until) & (until != OPEN)] = -1
        return places

    def _by_key(self, rank: int) -> Ints:
        """By key the row that holds behind so many of the times; the last element (key -1) is none."""
        if self._at is None or self._at[0] != rank:
            by_key = np.full(len(self.newest) + 1, -1, np.int64)
            then = np.flatnonzero(self._codes - self.key * self._step <= rank)
            by_key[self.key[then]] = then
            self._at = rank, by_key
        return self._at[1]

    def known(self, key: Ints) -> Ints:
        """The newest time of each key, NEVER for none."""
        within = (key >= 0) & (key < len(self.newest))
        found: Ints = np.full(len(key), NEVER, np.int64)
        found[within] = self.newest[key[within]]
        return found

    def columns(self, places: Ints) -> list[pa.Array]:
        """The columns of rows at these places, null where there is none."""
        missing = places < 0
        index = pa.array(places, mask=missing) if missing.any() else pa.array(places)
        return [column.take(index) for column in self.rows.columns]


def _none(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
