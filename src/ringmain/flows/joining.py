"""Keys by which rows of two streams are joined, as small numbers that mean the same on both sides.

A missing text is no key (-1) and matches nothing, not even another missing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, Ints, numbers
from ringmain.flows.grouping import Codes, Term, TermCodes, Texts, coded, coded_state
from ringmain.flows.grouping_tuples import Tuples
from ringmain.flows.later import Part
from ringmain.flows.readings import SERIES_MAX


class JoinKeys:
    """Keys of the rows of a flow (`of`) and of the rows that they are joined with (`of_other`).

    `terms`: of this side; their names are the columns, or attributes of the series, of the other side. None at all: one
    key. `others=None`: the other side comes as texts. `by_series`: the series is the key.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        others: Sequence[Term] | None,
        attributes: Attributes,
        *,
        by_series: bool = False,
    ) -> None:
        self._terms = tuple(terms)
        self._others = self._terms if others is None else tuple(others)
        self._attributes = attributes
        self._by_series = by_series
        self._of_rows = any(term.column for term in terms)
        self._version = -1
        self._key_of_series: Ints = np.empty(0, np.int64)
        self._share([Texts() for _ in terms], Tuples(len(self._terms)))

    def _share(self, texts: list[Texts], tuples: Tuples) -> None:
        self._texts = texts
        self._mine = [TermCodes(term, known) for term, known in zip(self._terms, texts, strict=True)]
        self._theirs = [TermCodes(term, known) for term, known in zip(self._others, texts, strict=True)]
        self._tuples = tuples

    def of(self, block: Block) -> Ints:
        """The key of each row."""
        if self._by_series:
            return block.series.astype(np.int64)
        if not self._terms:
            return np.zeros(len(block), np.int64)
        if self._of_rows:
            return self._combined(self._codes(self._mine, block.rows), len(block))
        series = block.series
        self._learn()
        known = self._key_of_series
        if not len(known):
            return np.full(len(series), -1, np.int64)
        if int(series.max()) < len(known):
            return known[series]
        return np.where(series < len(known), known[np.minimum(series, len(known) - 1)], -1)

    def of_other(self, rows: pa.RecordBatch) -> Ints:
        """The key of each row of the other side."""
        if self._by_series:
            series = numbers(rows, "series", np.uint32).astype(np.int64)
            series[series >= SERIES_MAX] = -1
            return series
        if not self._terms:
            return np.zeros(rows.num_rows, np.int64)
        return self._combined(self._codes(self._theirs, rows), rows.num_rows)

    def of_texts(self, texts: Sequence[Sequence[str | None]], rows: int) -> Ints:
        """The keys of rows that are given by the texts of each term."""
        if not self._terms:
            return np.zeros(rows, np.int64)
        codes = [
            np.array([known.number(text) for text in column], np.int32)
            for known, column in zip(self._texts, texts, strict=True)
        ]
        return self._combined(codes, rows)

    def _codes(self, codes: list[TermCodes], rows: pa.RecordBatch) -> list[Codes]:
        return [
            code.of_column(rows.column(code.term.source))
            if code.term.column
            else code.of_series(numbers(rows, "series", np.uint32).astype(np.int64), self._attributes)
            for code in codes
        ]

    def _combined(self, codes: list[Codes], rows: int) -> Ints:
        if len(codes) == 1:
            return codes[0].astype(np.int64)
        keys = np.full(rows, -1, np.int64)
        have = np.logical_and.reduce([code >= 0 for code in codes])
        if have.any():
            keys[have] = self._tuples.numbers([code[have] for code in codes])
        return keys

    def _learn(self) -> None:
        """Look at what the catalogue says anew of series."""
        attributes = self._attributes
        if attributes.version == self._version:
            return
        changed = attributes.changed_since(self._version)
        self._version = attributes.version
        if not len(changed):
            return
        size = int(changed[-1]) + 1
        if size > len(self._key_of_series):
            larger = np.full(max(size, 2 * len(self._key_of_series)), -1, np.int64)
            larger[: len(self._key_of_series)] = self._key_of_series
            self._key_of_series = larger
        codes = [code.of_series(changed, attributes) for code in self._mine]
        self._key_of_series[changed] = self._combined(codes, len(changed))

    def state(self) -> dict[str, Part]:
        """The texts and their numbers, with names that begin with `keys.`."""
        return coded_state("keys", self._texts, self._tuples)

    def restore(self, state: Mapping[str, Part]) -> None:
        """Take over what `state` gave, among other things."""
        self._share(*coded("keys", state, len(self._terms)))
