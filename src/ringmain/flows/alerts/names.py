"""What an alert is called: the catalogue's attributes of its series, or the group columns of rows that have no series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Ids
from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.step import StepState

KEYS_MAX = 1 << 20
ALL = "all"
"""The key of the one group of rows without group columns."""


class Names(Protocol):
    """Texts about what an alert is about, by its number in arrays by series."""

    def text(self, name: str, number: int) -> str | None:
        """An attribute; `key` is its own name."""
        ...


class CatalogueNames:
    """Of series."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def text(self, name: str, number: int) -> str | None:
        """See `Names`."""
        codes = self._attributes.codes(name)
        code = int(codes[number]) if number < len(codes) else -1
        return self._attributes.texts(name)[code] if code >= 0 else None


class _Named(msgspec.Struct, frozen=True):
    key: str
    columns: dict[str, str]


class GroupNames:
    """Of rows with group columns: each group gets a number when it is first seen, its key is its columns' texts by `/`.

    Rows without such columns are one group, `all`. The place of a group is its column of that name, else its first.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = [name for name in columns if name != "unit"]
        self._all = list(columns)
        self._named: list[_Named] = []
        self._numbers: dict[str, int] = {}

    def text(self, name: str, number: int) -> str | None:
        """See `Names`."""
        named = self._named[number]
        if name == "key":
            return named.key
        if name == "place" and name not in self._all and self._columns:
            name = self._columns[0]
        return named.columns.get(name)

    def numbers(self, rows: pa.RecordBatch) -> Ids:
        """The group of each row; SERIES_MAX for those beyond as many as are kept."""
        keys = self._keys(rows).dictionary_encode()
        indices: Ids = keys.indices.to_numpy().astype(np.uint32)
        found = np.empty(len(keys.dictionary), np.uint32)
        for code, key in enumerate(keys.dictionary.to_pylist()):
            number = self._numbers.get(key)
            if number is None:
                number = self._learn(key, rows.slice(int(np.argmax(indices == code)), 1))
            found[code] = number
        groups: Ids = found[indices]
        return groups

    def _keys(self, rows: pa.RecordBatch) -> pa.Array:
        texts = [rows.column(name).cast(pa.string()) for name in self._columns]
        if not texts:
            return pa.array([ALL]).take(pa.array(np.zeros(rows.num_rows, np.int64)))
        return pa.compute.binary_join_element_wise(*texts, "/", null_handling="replace", null_replacement="-")

    def _learn(self, key: str, row: pa.RecordBatch) -> int:
        if len(self._named) >= KEYS_MAX:
            return SERIES_MAX
        columns = {name: row.column(name)[0].as_py() for name in self._all}
        known = {name: str(text) for name, text in columns.items() if text is not None}
        self._named.append(_Named(key, known))
        self._numbers[key] = len(self._named) - 1
        return len(self._named) - 1

    def state(self) -> StepState:
        """Everything remembered."""
        return {"names": msgspec.msgpack.encode(self._named)}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        names = state["names"]
        assert isinstance(names, bytes)
        self._named = msgspec.msgpack.decode(names, type=list[_Named])
        self._numbers = {named.key: number for number, named in enumerate(self._named)}
