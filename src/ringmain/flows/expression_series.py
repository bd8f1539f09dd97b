"""A part of an expression that depends on the catalogue only: computed once a series, gathered by series id.

`medium = 'electricity'` costs a row one look-up in an array. When entries of the catalogue come, the part is computed
again for the series that they name.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Bools, Ints
from ringmain.flows.expression_values import DTYPES, Column, Kind, Node, texts


class SeriesPart:
    """The values of a part by series id. Series that the catalogue does not know have every attribute NULL."""

    def __init__(self, node: Node, attributes: Attributes) -> None:
        self._node = node
        self._attributes = attributes
        self._version = -1
        self._text = node.kind is Kind.TEXT
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}
        self._dictionary = pa.array([], pa.string())
        unknown = self._computed(None)
        self._unknown_data, self._unknown_null = unknown[0][0], unknown[1][0]
        self._data: NDArray[Any] = np.full(1, self._unknown_data)
        self._null: Bools = np.full(1, self._unknown_null)
        self._some_null = bool(self._unknown_null)

    def gather(self, series: Ints) -> Column:
        """The values of these series, one element each. (NumPy gathers several times as fast by int64 as by uint32.)"""
        if self._version != self._attributes.version:
            self._refresh()
        data = self._data.take(series, mode="clip")
        null = self._null.take(series, mode="clip") if self._some_null else None
        if null is not None and not null.any():
            null = None
        if not self._text:
            return Column(data, null)
        codes = pa.array(data, mask=null)
        return texts(self._dictionary.take(codes))

    def _refresh(self) -> None:
        """Compute what changed. The last element stays that of an unknown series, which `clip` takes for all others."""
        changed = self._attributes.changed_since(self._version)
        self._version = self._attributes.version
        if not len(changed):
            return
        size = int(changed[-1]) + 2
        if size > len(self._data):
            larger = max(size, 2 * len(self._data))
            data, null = np.full(larger, self._unknown_data), np.full(larger, self._unknown_null)
            data[: len(self._data)], null[: len(self._null)] = self._data, self._null
            self._data, self._null = data, null
        data, null = self._computed(changed)
        self._data[changed], self._null[changed] = data, null
        self._some_null = bool(self._null.any())

    def _computed(self, ids: Ints | None) -> tuple[NDArray[Any], Bools]:
        """Values and NULLs of series; None: of one that is unknown."""
        size = 1 if ids is None else len(ids)
        with np.errstate(all="ignore"):
            found = self._node.evaluate(SeriesRows(self._attributes, ids))
        null: Bools = np.zeros(size, np.bool_) if found.null is None else np.broadcast_to(found.null, size)
        if not self._text:
            return np.broadcast_to(found.data, size).astype(DTYPES[self._node.kind]), null
        return np.broadcast_to(self._coded(found.data), size), null

    def _coded(self, array: pa.Array) -> NDArray[np.int32]:
        """Texts as places in the dictionary, which only grows."""
        encoded = array.dictionary_encode()
        known = len(self._texts)
        for text in encoded.dictionary.to_pylist():
            if text not in self._codes:
                self._codes[text] = len(self._texts)
                self._texts.append(text)
        if len(self._texts) > known:
            added = pa.array(self._texts[known:], pa.string())
            self._dictionary = pa.concat_arrays([self._dictionary, added])
        places = np.array([self._codes[text] for text in encoded.dictionary.to_pylist()] or [0], np.int32)
        codes: NDArray[np.int32] = places[encoded.indices.fill_null(0).to_numpy()]
        return codes


class SeriesRows:
    """Series of the catalogue as `expression_values.Rows`; `ids=None`: one series of which nothing is known."""

    def __init__(self, attributes: Attributes, ids: Ints | None) -> None:
        self._attributes = attributes
        self._ids = ids

    def attribute(self, name: str) -> Column:
        """A column of the catalogue; `external.NAME`: an external name of that kind."""
        if self._ids is None:
            return texts(pa.nulls(1, pa.string()))
        column, _, inner = name.partition(".")
        found = self._attributes.texts_of(column, self._ids)
        return texts(_external(found, inner) if inner else found)

    def column(self, name: str) -> Column:
        """A series has no column of rows."""
        raise AssertionError(f"a part of the series does not depend on {name}")

    def part(self, number: int) -> Column:
        """A part has no parts."""
        raise AssertionError(f"a part has no part {number}")

    def arrived(self) -> Column:
        """A series does not arrive."""
        raise AssertionError("a part of the series does not depend on arrival")


def _external(objects: pa.Array, name: str) -> pa.Array:
    """One member of JSON objects of text; null where there is none."""
    encoded = objects.dictionary_encode()
    found = pa.array([_member(text, name) for text in encoded.dictionary.to_pylist()], pa.string())
    return found.take(encoded.indices)


def _member(text: str, name: str) -> str | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
