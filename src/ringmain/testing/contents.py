"""One file of a simulated disk: what processes see of it, and what the medium may hold of that.

A write changes what processes see. The medium follows when the file is synced; until then it may hold, of each
512-byte sector by itself, the bytes of any time since the last sync. A sync that fails leaves the file as Linux does:
the written pages count as clean, so that a later sync succeeds without writing them.
"""

from __future__ import annotations

import random
from enum import Enum, auto

SECTOR_BYTES = 512
"""What a disk writes as a whole or not at all."""
PAGE_BYTES = 4096
"""What the page cache writes back at once."""
_VERSIONS_MAX = 4


class Remains(Enum):
    """What a power cut leaves of a file's unsynced sectors."""

    NOTHING = auto()
    EVERYTHING = auto()
    SOME_SECTORS = auto()
    SOME_PAGES = auto()
    THE_FIRST = auto()
    THE_LAST = auto()


_REMAINS = tuple(Remains)


class FileContents:
    """The bytes of a file, seen and on the medium."""

    __slots__ = ("_lost", "_older", "_synced_bytes", "data")

    def __init__(self, data: bytes | bytearray = b"", *, synced: bool = False) -> None:
        self.data = bytearray(data)
        self._synced_bytes = len(data) if synced else 0
        self._older: dict[int, list[bytes]] = {}  # sector: what the medium may hold instead, oldest first
        self._lost: dict[int, bytes] = {}  # sector: what the medium holds, since its write-back failed
        if data and not synced:
            self._touch(0, len(data), before=b"")

    def _touch(self, start: int, end: int, before: bytes | None = None) -> None:
        older, lost = self._older, self._lost
        for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            at = sector * SECTOR_BYTES
            versions = older.setdefault(sector, [])
            if sector in lost:
                versions.append(lost.pop(sector))
            else:
                versions.append(bytes(self.data[at : at + SECTOR_BYTES]) if before is None else before)
            if len(versions) > _VERSIONS_MAX:
                del versions[1]

    def write(self, data: bytes, offset: int) -> None:
        """Change what processes see; a hole in front is zeros."""
        start = min(offset, len(self.data))
        self._touch(start, offset + len(data))
        if len(self.data) < offset:
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def cut(self) -> None:
        """Cut the file to nothing, as processes see it."""
        self._touch(0, len(self.data))
        self.data.clear()

    def synced(self) -> None:
        """Everything that was written since the last sync is on the medium now."""
        self._older.clear()
        self._synced_bytes = len(self.data)

    def sync_failed(self, rng: random.Random) -> None:
        """Some of it is, the rest never will be, unless it is written again."""
        for sector, versions in self._older.items():
            if rng.random() < 0.7:
                self._lost[sector] = versions[0]
        self._older.clear()

    def evict(self) -> None:
        """Drop the page cache: clean pages are read from the medium again."""
        for sector, held in self._lost.items():
            at = sector * SECTOR_BYTES
            stop = min(at + SECTOR_BYTES, len(self.data))
            if at < stop:
                self.data[at:stop] = held[: stop - at].ljust(stop - at, b"\0")
        self._lost.clear()

    @property
    def unsynced_bytes(self) -> int:
        """Bytes of the sectors that the medium may hold otherwise."""
        return SECTOR_BYTES * len(self._older.keys() | self._lost.keys())

    def copy(self) -> FileContents:
        """The same, on its own."""
        other = FileContents()
        other.data = bytearray(self.data)
        other._synced_bytes = self._synced_bytes
        other._older = {sector: list(versions) for sector, versions in self._older.items()}
        other._lost = dict(self._lost)
        return other

    def after_power_cut(self, rng: random.Random) -> bytes:
        """What the medium holds; drawn anew at each call."""
        held = bytearray(self.data)
        old_bytes, new_bytes = self._synced_bytes, len(self.data)
        how = rng.choice(_REMAINS)
        size = {Remains.NOTHING: old_bytes, Remains.EVERYTHING: new_bytes}.get(how)
        if size is None:
            low, high = sorted((old_bytes, new_bytes))
            size = rng.choice([old_bytes, new_bytes, rng.randint(low, high)])
        kept = self._kept(how, rng)
        held.extend(bytes(max(size, old_bytes, len(held)) - len(held)))
        for sector, versions in self._older.items():
            if sector not in kept:
                version = versions[0] if how is Remains.NOTHING else rng.choice(versions)
                _replace(held, sector, version)
        for sector, version in self._lost.items():
            _replace(held, sector, version)
        return bytes(held[:size].ljust(size, b"\0"))

    def _kept(self, how: Remains, rng: random.Random) -> set[int]:
        """The sectors whose newest bytes reached the medium."""
        sectors = sorted(self._older)
        if how is Remains.NOTHING or not sectors:
            return set()
        if how is Remains.EVERYTHING:
            return set(sectors)
        if how is Remains.SOME_SECTORS:
            return {sector for sector in sectors if rng.random() < 0.6}
        if how is Remains.SOME_PAGES:
            per_page = PAGE_BYTES // SECTOR_BYTES
            pages = {
                page for page in sorted({sector // per_page for sector in sectors}) if rng.random() < 0.6
            }
            return {sector for sector in sectors if sector // per_page in pages}
        place = rng.randrange(len(sectors) + 1)
        return set(sectors[:place] if how is Remains.THE_FIRST else sectors[place:])


def _replace(held: bytearray, sector: int, version: bytes) -> None:
    at = sector * SECTOR_BYTES
    stop = min(at + SECTOR_BYTES, len(held))
    if at < stop:
        held[at:stop] = version[: stop - at].ljust(stop - at, b"\0")
