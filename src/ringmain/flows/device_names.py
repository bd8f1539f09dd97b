"""Numbers of devices by name, with their text for snapshots made as names come.

A fleet has a million names. Were their text made when a picture of the state is taken, the flow would stand still for it;
it is made a piece at a time instead, when so many names have come together, and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

_PIECE_NAMES = 8192
"""Names of a piece: their text is made in less than a millisecond."""
_PREFIX = "names."


class DeviceNames:
    """Names, each with its number. They are only ever added."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._pieces: list[bytes] = []
        self._newest: dict[str, int] = {}
        """Names of which no piece is made yet."""

    def get_all(self, names: Iterable[str]) -> list[int | None]:
        """The number of each name, None for those that have none."""
        return list(map(self._numbers.get, names))

    def add(self, names: Sequence[str], first: int) -> None:
        """Give different names that have none the numbers from `first` on."""
        self._numbers.update(zip(names, range(first, first + len(names)), strict=True))
        start = 0
        while start < len(names):
            part = names[start : start + _PIECE_NAMES - len(self._newest)]
            self._newest.update((name, self._numbers[name]) for name in part)
            start += len(part)
            if len(self._newest) >= _PIECE_NAMES:
                self._pieces.append(msgspec.json.encode(self._newest))
                self._newest = {}

    def numbers(self) -> set[int]:
        """The numbers that are given."""
        return set(self._numbers.values())

    def stored(self) -> dict[str, bytes]:
        """All names, as JSON objects by the name of the piece."""
        pieces = [*self._pieces, msgspec.json.encode(self._newest)]
        return {f"{_PREFIX}{place}": piece for place, piece in enumerate(pieces)}

    @classmethod
    def restored(cls, found: Mapping[str, Any]) -> DeviceNames:
        """What `stored` gave, among other things. Raises KeyError where it is not there."""
        names = cls()
        pieces = sum(name.startswith(_PREFIX) for name in found)
        for place in range(max(1, pieces)):
            text = cast(bytes, found[f"{_PREFIX}{place}"])
            piece = msgspec.json.decode(text, type=dict[str, int])
            names._numbers |= piece
            if len(piece) >= _PIECE_NAMES:
                names._pieces.append(text)
            else:
                names._newest = piece
        return names
