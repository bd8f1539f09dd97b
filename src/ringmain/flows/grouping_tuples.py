"""Tuples of codes and their numbers, in order of appearance: groups of several terms, series with a text, keys of joins.

Looked up by arrays: pairs of codes are packed into one integer and found by binary search; a tuple of three is a pair of a
pair and a code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Bools, Ints

Codes = NDArray[np.int32]


class _Pairs:
    """Numbers of pairs (at least -1 each)."""

    def __init__(self) -> None:
        self._keys: Ints = np.empty(0, np.int64)
        self._numbers: Ints = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @staticmethod
    def _packed(left: Ints, right: Codes) -> Ints:
        packed: Ints = (left + 1) << 32
        packed |= right.astype(np.int64) + 1
        return packed

    def _search(self, keys: Ints) -> tuple[Ints, Bools]:
        if not len(self._keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return places, self._keys[places] == keys

    def find(self, left: Ints, right: Codes) -> Ints:
        """The number of each pair, -1 for one that has none."""
        usable = (left >= -1) & (right >= -1)
        places, known = self._search(self._packed(left, right))
        if not len(self._keys):
            return np.full(len(left), -1, np.int64)
        return np.where(known & usable, self._numbers[places], -1)

    def number(self, left: Ints, right: Codes, most: int) -> tuple[Ints, Ints]:
        """The number of each pair, and of each new one the first place; beyond `most` pairs: -1."""
        keys = self._packed(left, right)
        places, known = self._search(keys)
        if known.all():
            return self._numbers[places], np.empty(0, np.int64)
        unknown = np.flatnonzero(~known)
        new, first = np.unique(keys[unknown], return_index=True)
        appearance = np.argsort(first)[: max(most - len(self._keys), 0)]
        numbers = np.full(len(new), -1, np.int64)
        numbers[appearance] = len(self._keys) + np.arange(len(appearance))
        kept = numbers >= 0
        into = np.searchsorted(self._keys, new[kept])
        self._keys = np.insert(self._keys, into, new[kept])
        self._numbers = np.insert(self._numbers, into, numbers[kept])
        places, known = self._search(keys)
        found = np.where(known, self._numbers[places], -1) if len(self._keys) else np.full(len(keys), -1)
        return found, unknown[first[appearance]]


class Tuples:
    """Tuples of `width` codes (at least -1 each), `most` at most: one beyond has no number (-1)."""

    def __init__(self, width: int, rows: Codes | None = None, most: int = 1 << 31) -> None:
        self._width = width
        self._most = most
        self._tables = [_Pairs() for _ in range(max(width - 1, 1))]
        self.rows: Codes = np.empty((0, width), np.int32)
        """By number: the codes."""
        self.count = 0
        if rows is not None:
            self.numbers([np.ascontiguousarray(rows[:, place]) for place in range(width)])

    def numbers(self, codes: Sequence[Codes]) -> Ints:
        """The number of each tuple; new ones are numbered in order of their first place."""
        if not len(codes) or not len(codes[0]):
            return np.empty(0, np.int64)
        found = codes[0].astype(np.int64)
        rights = codes[1:] or [np.zeros(len(found), np.int32)]
        new: Ints = np.empty(0, np.int64)
        for place, (table, right) in enumerate(zip(self._tables, rights, strict=True)):
            last = place == len(self._tables) - 1
            found, new = table.number(found, right, self._most if last else 1 << 31)
        if len(new):
            self._append(np.stack([column[new] for column in codes], axis=1))
        return found

    def find(self, codes: Sequence[Codes]) -> Ints:
        """The number of each tuple, -1 for one that has none; codes may be below -1, which no tuple has."""
        found = codes[0].astype(np.int64)
        rights = codes[1:] or [np.zeros(len(found), np.int32)]
        for table, right in zip(self._tables, rights, strict=True):
            found = table.find(np.where(found < -1, -2, found), right)
            if table is not self._tables[-1]:
                found[found < 0] = -2
        return found

    def _append(self, rows: Codes) -> None:
        size = self.count + len(rows)
        if size > len(self.rows):
            larger = np.full((max(64, size, 2 * len(self.rows)), self._width), -1, np.int32)
            larger[: self.count] = self.rows[: self.count]
            self.rows = larger
        self.rows[self.count : size] = rows
        self.count = size
