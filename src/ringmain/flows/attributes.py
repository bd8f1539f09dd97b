"""The catalogue as a flow sees it: what entries up to its own position say of a series.

The catalogue is read in log order like everything else, so an expression over attributes gives the same result when
the log is folded again. Only the columns that some step asks for are kept, as codes by series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.later import Part
from ringmain.flows.text_pieces import TextPieces

ATTRIBUTES = ("key", "unit", "quantity", "medium", "device", "place", "owner", "source")
"""Columns of the catalogue that a step may ask for, besides `EXTERNAL`."""
EXTERNAL = "external"
"""The external names of a series: a JSON object of text."""
SERIES_MAX = 1 << 24
"""A log's series ids are dense and below; a higher one is damage, and what it says is left out."""


class Attributes:
    """Columns of the catalogue by series id. `version` grows with each change of any of them."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(name for name in (*ATTRIBUTES, EXTERNAL) if name in set(names))
        self.version = 0
        self._changed: NDArray[np.int32] = np.full(0, -1, np.int32)
        self._codes: dict[str, NDArray[np.int32]] = {name: np.full(0, -1, np.int32) for name in self.names}
        self._texts: dict[str, list[str]] = {name: [] for name in self.names}
        self._known: dict[str, dict[str, int]] = {name: {} for name in self.names}
        self._pieces = {name: TextPieces() for name in self.names}

    def learn(self, entries: pa.RecordBatch) -> None:
        """Take over entries of the catalogue stream."""
        ids = entries.column("id").to_numpy()
        usable = ids < SERIES_MAX
        if not self.names or not usable.any():
            return
        size = int(ids[usable].max()) + 1
        for name in self.names:
            texts = entries.column(name).dictionary_encode()
            numbers = np.array(
                [self._code(name, text) for text in texts.dictionary.to_pylist()] or [-1], np.int32
            )
            self._pieces[name].keep_up(self._texts[name])
            places = texts.indices.fill_null(0).to_numpy()
            valid = texts.indices.is_valid().to_numpy(zero_copy_only=False)
            codes = self._codes[name]
            if len(codes) < size:
                larger = np.full(max(size, 2 * len(codes)), -1, np.int32)
                larger[: len(codes)] = codes
                codes = self._codes[name] = larger
            codes[ids[usable]] = np.where(valid, numbers[places], -1)[usable]
        self.version += 1
        self._mark(ids[usable], size)

    def _mark(self, ids: NDArray[np.uint32] | slice, size: int) -> None:
        if len(self._changed) < size:
            larger = np.full(max(size, 2 * len(self._changed)), -1, np.int32)
            larger[: len(self._changed)] = self._changed
            self._changed = larger
        self._changed[ids] = self.version

    def changed_since(self, version: int) -> NDArray[np.int64]:
        """The series, in order, of which something was learnt after `version` (-1: ever)."""
        return np.flatnonzero(self._changed > version)

    def texts_of(self, name: str, ids: NDArray[np.int64]) -> pa.Array:
        """The attribute of these series as strings, null where there is none."""
        codes, texts = self._codes[name], self._texts[name]
        found = np.full(len(ids), -1, np.int32)
        known = ids < len(codes)
        found[known] = codes[ids[known]]
        used, places = np.unique(found, return_inverse=True)
        words = pa.array([None if code < 0 else texts[code] for code in used.tolist()], pa.string())
        return words.take(pa.array(places))

    def _code(self, name: str, text: str) -> int:
        known = self._known[name]
        code = known.get(text)
        if code is None:
            code = known[text] = len(known)
            self._texts[name].append(text)
        return code

    def codes(self, name: str) -> NDArray[np.int32]:
        """By series id: a code of the attribute, -1 where there is none. Series may lie beyond its end."""
        return self._codes[name]

    def texts(self, name: str) -> list[str]:
        """The text of each code."""
        return self._texts[name]

    def column(self, name: str, size: int) -> pa.Array:
        """The attribute of the series below `size` as strings, null where there is none (dictionary<int32, string>)."""
        codes = np.full(size, -1, np.int32)
        have = min(size, len(self._codes[name]))
        codes[:have] = self._codes[name][:have]
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=codes < 0), pa.array(self._texts[name], pa.string())
        )

    def state(self) -> dict[str, Part]:
        """Everything that was learnt, for a snapshot."""
        state: dict[str, Part] = dict(self._codes)
        for name, pieces in self._pieces.items():
            state |= pieces.state(f"texts.{name}", self._texts[name])
        return state

    def restore(self, state: Mapping[str, Part]) -> None:
        """Take over what `state` gave."""
        self._texts = {name: pieces.restore(f"texts.{name}", state) for name, pieces in self._pieces.items()}
        self._known = {
            name: {text: code for code, text in enumerate(self._texts[name])} for name in self._texts
        }
        self._codes = {name: np.array(np.asarray(state[name]), np.int32) for name in self._texts}
        self.version += 1
        size = max((len(codes) for codes in self._codes.values()), default=0)
        self._mark(slice(0, size), size)
