"""The series catalogue in memory: series keys, their dense ids, and what is known about each series.

The catalogue is a stream of its log (schema `SERIES`); this is what its entries add up to. Ids are dense
(0, 1, 2 ...), local to one log and never reused; the unit and the quantity of an id, once set, never change.

Promises: a million series with typical attributes in under 250 MB; a key is looked up in about a microsecond,
columns of keys and ids by arrays; one thread writes while any number of threads read. `apply` accepts
whatever a damaged log may hold, keeps ids dense, and tells what it could not use. Durability, limits on the
number of series and the allocation of ids across threads are left to the log's series registry.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.model.catalogue_search import search
from ringmain.model.device_numbers import DeviceNumbers
from ringmain.model.schemas import SERIES
from ringmain.model.series_attributes import (
    EXTERNAL_BYTES_MAX,
    KEY_BYTES_MAX,
    TEXT_BYTES_MAX,
    SeriesAttributes,
    check_key,
)
from ringmain.model.text_table import MISSING, TextTable

__all__ = [
    "BATCH_BYTES_MAX",
    "EXTERNAL_BYTES_MAX",
    "KEY_BYTES_MAX",
    "MISSING",
    "TEXT_BYTES_MAX",
    "Applied",
    "Catalogue",
    "SeriesAttributes",
    "check_key",
]

BATCH_BYTES_MAX = 512 * 1024
"""Default size of one batch of `to_batches`: well below what a frame of the log holds."""

_GAP_MAX = 1_000_000
_TEXTS = ("unit", "quantity", "medium", "device", "place", "owner")
_COLUMNS = (*_TEXTS, "source", "external")
_COLUMN = {name: index for index, name in enumerate(_COLUMNS)}
_SEARCHED = tuple(_COLUMN[name] for name in ("place", "device", "quantity", "medium", "owner"))
_FIXED = (_COLUMN["unit"], _COLUMN["quantity"])
_DEVICE = _COLUMN["device"]
_SOURCE = _COLUMN["source"]
_EXTERNAL = _COLUMN["external"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did: ids added, ids whose attributes changed, a line for each entry not used."""

    added: int = 0
    changed: int = 0
    problems: tuple[str, ...] = ()


class Catalogue:
    """Series keys, ids and attributes. `len()` is the number of ids ever given."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._keys = TextTable()
        self._words = TextTable()
        self._external = TextTable()
        self._codes: NDArray[np.uint32] = np.empty((16, len(_COLUMNS)), np.uint32)
        self._device_numbers = DeviceNumbers()
        self._count = 0
        self._count_of_source: dict[str, int] = {}
        self._version = 0

    def __len__(self) -> int:
        return self._count

    @property
    def version(self) -> int:
        """Grows with each change, so that a cache can tell whether it is stale."""
        return self._version

    def id_of(self, key: str) -> int | None:
        """The id of a key, or None. Keys are compared exactly."""
        found = self._keys.find(key)
        return found if 0 <= found < self._count else None

    def ids_of(self, keys: Sequence[str] | pa.StringArray) -> NDArray[np.uint32]:
        """The ids of keys (no nulls), `MISSING` (0xFFFFFFFF) where a key is unknown."""
        count = self._count
        ids = self._keys.find_many(keys)
        ids[ids >= count] = MISSING
        return ids

    def key_of(self, series: int) -> str:
        """The key of an id. Raises IndexError for an id that was never given."""
        return self._keys.text(series)

    def keys(self) -> pa.StringArray:
        """All keys in id order, without copying: the dictionary of dictionary columns."""
        return self._keys.texts()

    def key_array(self, ids: NDArray[np.uint32]) -> pa.DictionaryArray:
        """The keys of ids as a dictionary column (int32 -> string); null for an id that was never given."""
        keys = self._keys.texts()
        unknown = ids >= len(keys)
        indices = pa.array(ids.astype(np.int32), mask=unknown if unknown.any() else None)
        return pa.DictionaryArray.from_arrays(indices, keys)

    def attributes_of(self, series: int) -> SeriesAttributes:
        """The attributes of an id. Raises IndexError for an id that was never given."""
        codes = self._row(series)
        unit, quantity, medium, device, place, owner = (
            None if code == MISSING else self._words.text(code) for code in codes[: len(_TEXTS)]
        )
        external = self._external_of(codes[_EXTERNAL])
        return SeriesAttributes(unit, quantity, medium, device, place, owner, external)

    def source_of(self, series: int) -> str | None:
        """The name of the source that the series was first seen at."""
        code = self._row(series)[_SOURCE]
        return None if code == MISSING else self._words.text(code)

    def count_of_source(self, source: str) -> int:
        """How many series the source has brought."""
        return self._count_of_source.get(source, 0)

    def counts(self) -> dict[str, int]:
        """How many series each source has brought ("" for those without a source)."""
        with self._lock:
            return dict(self._count_of_source)

    def devices(self) -> int:
        """How many device numbers have been given: all numbers are below."""
        return self._device_numbers.given

    def device_number(self, ids: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Dense numbers of the devices of ids; a series without device is a device of its own.

        The numbers hold in this process only: store the device's name instead. -1 for unknown ids.
        """
        return self._device_numbers.of(ids, self._count)

    def add(self, key: str, source: str, attributes: SeriesAttributes) -> int:
        """The id of `key`, the next free one when it is new; an existing entry stays as it is (see `update`).

        Raises ValueError for a key or attributes that cannot be stored.
        """
        with self._lock:
            known = self.id_of(key)
            if known is not None:
                return known
            check_key(key)
            codes = [*self._encode(attributes), MISSING, MISSING]
            codes[_SOURCE] = self._words.insert(source) if source else MISSING
            codes[_EXTERNAL] = self._encode_external(attributes.external)
            return self._add(key, codes)

    def update(self, series: int, attributes: SeriesAttributes) -> bool:
        """Replace the attributes of an id; True when something changed.

        An absent unit or quantity leaves the one that is set. Raises ValueError for another unit or quantity
        than the one that is set, IndexError for an unknown id.
        """
        with self._lock:
            old = self._row(series)
            new = [*self._encode(attributes), old[_SOURCE], self._encode_external(attributes.external)]
            problem = self._keep_fixed(series, old, new)
            if problem is not None:
                raise ValueError(problem)
            return self._replace(series, old, new)

    def apply(self, batch: pa.RecordBatch) -> Applied:
        """Take over entries as the log holds them (schema `SERIES`); applying them again changes nothing.

        Ids stay dense: an id that was skipped (its entry was lost to damage) gets the key `lost/ID`. Never
        raises for what the entries say; `problems` names what was not used.
        """
        with self._lock:
            ids = batch.column("id").to_numpy()
            keys = batch.column("key").cast(pa.string())
            codes = np.empty((len(ids), len(_COLUMNS)), np.uint32)
            for name, column in _COLUMN.items():
                table = self._external if column == _EXTERNAL else self._words
                codes[:, column] = table.insert_many(batch.column(name).cast(pa.string()))
            first = self._count
            fresh = np.array_equal(ids, np.arange(first, first + len(ids)))
            if fresh and len(pc.unique(keys)) == len(keys) and (self._keys.find_many(keys) == MISSING).all():
                self._add_many(keys, codes)
                return Applied(added=len(ids))
            pending = np.flatnonzero(~self._same(ids, keys, codes))
            added = changed = 0
            problems: list[str] = []
            for index in pending:
                did = self._apply_one(int(ids[index]), keys[index].as_py(), codes[index].tolist(), problems)
                added += did == "added"
                changed += did == "changed"
            return Applied(added, changed, tuple(problems))

    def to_batches(self, first_id: int = 0, max_bytes: int = BATCH_BYTES_MAX) -> list[pa.RecordBatch]:
        """The entries from `first_id` on as batches of schema `SERIES`, each of about `max_bytes` at most."""
        with self._lock:
            ids = np.arange(first_id, self._count, dtype=np.uint32)
            return self.entries(ids, max_bytes)

    def entries(self, ids: NDArray[np.uint32], max_bytes: int = BATCH_BYTES_MAX) -> list[pa.RecordBatch]:
        """The entries of these ids as batches of schema `SERIES`, each of about `max_bytes` at most."""
        if not ids.size:
            return []
        with self._lock:
            codes = self._codes[ids]
            columns = [pa.array(ids, pa.uint32()), self._keys.texts().take(pa.array(ids))]
            sizes = self._keys.lengths(ids) + 4 * (len(_COLUMNS) + 2) + 2
            for field_ in SERIES.names[2:]:
                column = _COLUMN[field_]
                table = self._external if column == _EXTERNAL else self._words
                picked = codes[:, column]
                columns.append(table.texts().take(pa.array(picked, mask=picked == MISSING)))
                sizes += table.lengths(picked)
        whole = pa.RecordBatch.from_arrays(columns, schema=SERIES)
        ends = np.cumsum(sizes)
        batches, start = [], 0
        while start < len(ids):
            before = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, before + max_bytes, "right")), start + 1)
            batches.append(whole.slice(start, stop - start))
            start = stop
        return batches

    def match(self, pattern: str, limit: int = 1000) -> list[int]:
        """Ids, in order, of the series that match: each word of `pattern` must occur, in upper or lower case,
        in key, place, device, quantity, medium or owner; a word with `*` is compared with the whole key.

        An empty pattern matches every series. At most `limit` ids.
        """
        keys = self._keys.texts()[: self._count]
        return search(keys, self._words.texts(), self._codes, _SEARCHED, pattern, limit)

    def __iter__(self) -> Iterator[str]:
        """The keys in id order."""
        return (self._keys.text(series) for series in range(self._count))

    def _row(self, series: int) -> list[int]:
        if not 0 <= series < self._count:
            raise IndexError(f"expected a series id below {self._count}, found {series}")
        row: list[int] = self._codes[series].tolist()
        return row

    def _external_of(self, code: int) -> Mapping[str, str]:
        if code == MISSING:
            return {}
        try:
            return msgspec.json.decode(self._external.text(code), type=dict[str, str])
        except msgspec.MsgspecError:
            return {"": self._external.text(code)}

    def _encode(self, attributes: SeriesAttributes) -> list[int]:
        codes = []
        for name in _TEXTS:
            text: str | None = getattr(attributes, name)
            if text and len(text.encode()) > TEXT_BYTES_MAX:
                raise ValueError(
                    f"expected a {name} of at most {TEXT_BYTES_MAX} bytes, found {text[:60]!r}..."
                )
            codes.append(self._words.insert(text) if text else MISSING)
        return codes

    def _encode_external(self, external: Mapping[str, str]) -> int:
        if not external:
            return MISSING
        text = msgspec.json.encode(dict(sorted(external.items()))).decode()
        if len(text.encode()) > EXTERNAL_BYTES_MAX:
            raise ValueError(
                f"expected external names of at most {EXTERNAL_BYTES_MAX} bytes, found {len(text)}"
            )
        return self._external.insert(text)

    def _reserve(self, more: int) -> None:
        capacity = len(self._codes)
        if self._count + more > capacity:
            capacity = max(self._count + more, 2 * capacity)
            codes = np.empty((capacity, len(_COLUMNS)), np.uint32)
            codes[: self._count] = self._codes[: self._count]
            self._codes = codes
        self._device_numbers.reserve(capacity, len(self._words))

    def _add(self, key: str, codes: list[int]) -> int:
        self._reserve(1)
        series = self._count
        self._codes[series] = codes
        self._device_numbers.put(series, codes[_DEVICE])
        self._keys.insert(key)
        self._count_source(codes[_SOURCE], 1)
        self._count = series + 1
        self._version += 1
        return series

    def _add_many(self, keys: pa.StringArray, codes: NDArray[np.uint32]) -> None:
        """Append entries with distinct new keys."""
        if not len(keys):
            return
        first, count = self._count, len(keys)
        self._reserve(count)
        self._codes[first : first + count] = codes
        self._device_numbers.put_many(first, codes[:, _DEVICE])
        self._keys.insert_many(keys)
        for code, times in zip(*np.unique(codes[:, _SOURCE], return_counts=True), strict=True):
            self._count_source(int(code), int(times))
        self._count = first + count
        self._version += 1

    def _count_source(self, code: int, times: int) -> None:
        source = "" if code == MISSING else self._words.text(code)
        self._count_of_source[source] = self._count_of_source.get(source, 0) + times

    def _same(
        self, ids: NDArray[np.uint32], keys: pa.StringArray, codes: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """Which entries say what is known already."""
        known = ids < self._count
        same = known.copy()
        held = ids[known]
        kept = pc.equal(self._keys.texts().take(pa.array(held)), keys.filter(pa.array(known)))
        same[known] = kept.to_numpy(zero_copy_only=False) & (self._codes[held] == codes[known]).all(axis=1)
        return same

    def _apply_one(self, series: int, key: str, codes: list[int], problems: list[str]) -> str | None:
        if series < self._count:
            if self.key_of(series) != key:
                problems.append(
                    f"series {series}: expected key {self.key_of(series)!r}, found {key!r}; not used"
                )
                return None
            old = self._row(series)
            problem = self._keep_fixed(series, old, codes)
            if problem is not None:
                problems.append(problem + "; the first one is kept")
            return "changed" if self._replace(series, old, codes) else None
        if series - self._count > _GAP_MAX:
            problems.append(f"series {series}: expected an id near {self._count}; not used")
            return None
        if series > self._count:
            problems.append(f"series {self._count} to {series - 1}: their entries are lost")
        while self._count < series:
            self._add_lost()
        if self._keys.find(key) >= 0:
            problems.append(
                f"series {series}: key {key!r} is that of series {self._keys.find(key)}; not used"
            )
            self._add_lost()
        else:
            self._add(key, codes)
        return "added"

    def _add_lost(self) -> None:
        key = f"lost/{self._count}"
        while self._keys.find(key) >= 0:
            key += "~"
        self._add(key, [MISSING] * len(_COLUMNS))

    def _keep_fixed(self, series: int, old: list[int], new: list[int]) -> str | None:
        """Carry the unit and quantity that are set over into `new`; the problem if it had others."""
        problem = None
        for column in _FIXED:
            if old[column] in (MISSING, new[column]):
                continue
            if new[column] != MISSING:
                expected, found = self._words.text(old[column]), self._words.text(new[column])
                problem = (
                    f"series {self.key_of(series)!r}: expected {_COLUMNS[column]} {expected!r}, "
                    f"which never changes, found {found!r}"
                )
            new[column] = old[column]
        return problem

    def _replace(self, series: int, old: list[int], new: list[int]) -> bool:
        if old == new:
            return False
        self._reserve(0)
        self._codes[series] = new
        if old[_DEVICE] != new[_DEVICE]:
            self._device_numbers.put(series, new[_DEVICE])
        if old[_SOURCE] != new[_SOURCE]:
            self._count_source(old[_SOURCE], -1)
            self._count_source(new[_SOURCE], 1)
        self._version += 1
        return True
