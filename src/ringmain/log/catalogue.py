"""The one allocator of series ids: thread-safe, dense, bounded for each source, durable before use.

A new series gets its id at once and its entry waits here until an append carries it: `unsaved` gives the
waiting entries for stream `catalogue`, to go in the same append as the first readings that use them, and
`saved` drops them once that append is durable. When it failed they simply travel again, so an id is never
given to another key. An entry may travel in several appends; applying it twice changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from ringmain.log.interface import Appended, Batch, Claim, LogError
from ringmain.model.catalogue import (
    EXTERNAL_BYTES_MAX,
    TEXT_BYTES_MAX,
    Catalogue,
    SeriesAttributes,
    check_key,
)
from ringmain.model.schemas import SERIES

MAX_SERIES = 200_000
"""Series that one source may bring unless told otherwise."""
_BATCH_BYTES = 400 * 1024
_UNSAVED_BYTES = 1 << 20
_BACKLOG_BYTES = 4 << 20
_TEXTS = ("unit", "quantity", "medium", "device", "place", "owner")
_CLAIM = "ringmain.catalogue"


class CatalogueLog(Protocol):
    """What the registry needs of a log."""

    def catalogue(self) -> Catalogue:
        """The durable catalogue, kept up to date."""
        ...

    def series_count(self) -> int:
        """Every id below may be in use."""
        ...

    def claim(self, name: str, epoch: int | None = None) -> Claim:
        """See `interface.Log`."""
        ...

    def append(
        self,
        batches: Sequence[Batch],
        *,
        claim: Claim,
        sequence: int,
        positions: Mapping[str, bytes | None] | None = None,
    ) -> Appended:
        """See `interface.Log`."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    id: int
    key: str
    source: str
    attributes: SeriesAttributes
    external: str | None
    number: int

    def size(self) -> int:
        texts = sum(len(getattr(self.attributes, name) or "") for name in _TEXTS)
        return 64 + len(self.key) * 2 + texts + len(self.external or "")


class SeriesRegistry:
    """Gives ids to series keys. One for each open log."""

    def __init__(self, log: CatalogueLog, max_series: int = MAX_SERIES) -> None:
        self.catalogue = log.catalogue()
        self._log = log
        self._max_series = max_series
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._claim: Claim | None = None
        self._sequence = 0
        self._next_id = log.series_count()
        self._number = 0
        self._new: dict[str, int] = {}
        self._unsaved: OrderedDict[int, _Entry] = OrderedDict()
        self._newest: dict[int, int] = {}
        self._unsaved_bytes = 0
        self._brought: dict[str, int] = {}  # series of a source, the catalogue's and those waiting

    def register(self, source: str, key: str, attributes: SeriesAttributes) -> int:
        """The id of a series, a new one for a new key; -1 when the source has brought `max_series` already.

        Attributes of a known series stay as they are (see `describe`). Raises ValueError for a key or
        attributes that cannot be stored.
        """
        known = self.catalogue.id_of(key)
        if known is not None:
            return known
        known = self._new.get(key)
        if known is not None:
            return known
        external = _checked(key, attributes)
        with self._lock:
            known = self._new.get(key)
            if known is None:
                known = self.catalogue.id_of(key)
            if known is not None:
                return known
            brought = self._brought.get(source)
            if brought is None:
                brought = self.catalogue.count_of_source(source)
            if brought >= self._max_series:
                return -1
            self._brought[source] = brought + 1
            known = self._next_id
            self._next_id += 1
            self._new[key] = known
            self._queue(known, key, source, attributes, external)
        self._shorten()
        return known

    def describe(self, source: str, key: str, attributes: SeriesAttributes) -> int:
        """As `register`, and what `attributes` says about a known series replaces what was known.

        Raises ValueError when it says another unit or quantity than the one that is set: those never change.
        """
        series = self.register(source, key, attributes)
        if series < 0:
            return series
        with self._lock:
            waiting = self._unsaved.get(self._newest.get(series, -1))
            if waiting is not None:
                old, owner = waiting.attributes, waiting.source
            else:
                old, owner = self.catalogue.attributes_of(series), self.catalogue.source_of(series) or ""
            for name in ("unit", "quantity"):
                before, now = getattr(old, name), getattr(attributes, name)
                if before and now and before != now:
                    raise ValueError(
                        f"series {key!r}: expected {name} {before!r}, which never changes, found {now!r}"
                    )
            said = {name: value for name in _TEXTS if (value := getattr(attributes, name))}
            merged = replace(old, **said, external={**old.external, **attributes.external})
            if merged != old:
                self._queue(series, key, owner, merged, _checked(key, merged))
        self._shorten()
        return series

    def _shorten(self) -> None:
        """Keep a flood of new series from piling up in memory; when the log is full they wait nevertheless."""
        if self._unsaved_bytes > _BACKLOG_BYTES and not self._flushing.locked():
            with contextlib.suppress(LogError):
                self._flush()

    def _queue(
        self, series: int, key: str, source: str, attributes: SeriesAttributes, external: str | None
    ) -> None:
        self._number += 1
        entry = _Entry(series, key, source, attributes, external, self._number)
        self._unsaved[entry.number] = entry
        self._newest[series] = entry.number
        self._unsaved_bytes += entry.size()

    def unsaved(self) -> tuple[list[pa.RecordBatch], int]:
        """(batches of schema `SERIES` with every entry that is not durable yet, token for `saved`).

        When more waits than fits beside readings in one append, the oldest are appended here first; raises
        LogError when that fails. Both lists are short: mostly empty.
        """
        if not self._unsaved:
            return [], self._number
        while self._unsaved_bytes > _UNSAVED_BYTES:
            self._flush()
        with self._lock:
            return _batches(list(self._unsaved.values())), self._number

    def saved(self, token: int) -> None:
        """The append that carried what `unsaved` gave with this token is durable."""
        with self._lock:
            while self._unsaved:
                number, entry = next(iter(self._unsaved.items()))
                if number > token:
                    return
                del self._unsaved[number]
                if self._newest.get(entry.id) == number:
                    del self._newest[entry.id]
                self._unsaved_bytes -= entry.size()
                if self._new.get(entry.key) == entry.id and self.catalogue.id_of(entry.key) == entry.id:
                    del self._new[entry.key]

    def _flush(self) -> None:
        """Append the oldest waiting entries by themselves. Holds no lock that an answer of the log may need."""
        with self._flushing:
            with self._lock:
                chosen: list[_Entry] = []
                size = 0
                for entry in self._unsaved.values():
                    chosen.append(entry)
                    size += entry.size()
                    if size > _UNSAVED_BYTES:
                        break
            if not chosen:
                return
            if self._claim is None:
                self._claim = self._log.claim(_CLAIM)
            self._sequence += 1
            batches = [Batch("catalogue", batch) for batch in _batches(chosen)]
            self._log.append(batches, claim=self._claim, sequence=self._sequence)
            self.saved(chosen[-1].number)

    def save(self) -> None:
        """Append everything that waits; returns when it is durable. Raises LogError."""
        while self._unsaved:
            self._flush()


def _checked(key: str, attributes: SeriesAttributes) -> str | None:
    """The external names as JSON. Raises ValueError for what an entry cannot hold."""
    check_key(key)
    for name in _TEXTS:
        text = getattr(attributes, name)
        if text and len(text.encode()) > TEXT_BYTES_MAX:
            raise ValueError(
                f"series {key!r}: expected a {name} of at most {TEXT_BYTES_MAX} bytes, found {text[:60]!r}..."
            )
    if not attributes.external:
        return None
    external = json.dumps(
        dict(sorted(attributes.external.items())), ensure_ascii=False, separators=(",", ":")
    )
    if len(external.encode()) > EXTERNAL_BYTES_MAX:
        raise ValueError(f"series {key!r}: expected external names of at most {EXTERNAL_BYTES_MAX} bytes")
    return external


def _batches(entries: list[_Entry]) -> list[pa.RecordBatch]:
    batches = []
    start, size = 0, 0
    for number, entry in enumerate(entries):
        size += entry.size()
        if size > _BATCH_BYTES or number == len(entries) - 1:
            batches.append(_batch(entries[start : number + 1]))
            start, size = number + 1, 0
    return batches


def _batch(entries: list[_Entry]) -> pa.RecordBatch:
    columns = [
        pa.array([entry.id for entry in entries], pa.uint32()),
        pa.array([entry.key for entry in entries], pa.string()),
    ]
    columns += [
        pa.array([getattr(entry.attributes, name) or None for entry in entries], pa.string())
        for name in _TEXTS
    ]
    columns.append(pa.array([entry.source or None for entry in entries], pa.string()))
    columns.append(pa.array([entry.external for entry in entries], pa.string()))
    return pa.RecordBatch.from_arrays(columns, schema=SERIES)
