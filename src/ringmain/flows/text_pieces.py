"""Texts of a state, made into bytes a piece at a time as they come.

A fleet has a million names. Were their text made when a picture of the state is taken, the flow would stand still for
it, and with it every thread of its process; so it is made when so many have come together, and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

PIECE_TEXTS = 8192
"""Texts of a piece: made into bytes in less than a millisecond."""


class TextPieces:
    """The bytes of a list of texts to which texts are only ever added."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def keep_up(self, texts: Sequence[str]) -> None:
        """Make pieces of what has come; call it when texts were added."""
        begin = len(self._pieces) * PIECE_TEXTS
        while begin + PIECE_TEXTS <= len(texts):
            self._pieces.append(msgspec.json.encode(list(texts[begin : begin + PIECE_TEXTS])))
            begin += PIECE_TEXTS

    def state(self, name: str, texts: Sequence[str]) -> dict[str, bytes]:
        """All texts, as JSON arrays, each under this name and a number."""
        self.keep_up(texts)
        rest = msgspec.json.encode(list(texts[len(self._pieces) * PIECE_TEXTS :]))
        return {f"{name}.{place}": piece for place, piece in enumerate([*self._pieces, rest])}

    def restore(self, name: str, state: Mapping[str, Any]) -> list[str]:
        """The texts out of what `state` gave, among other things. Raises KeyError where they are not there."""
        texts: list[str] = []
        self._pieces = []
        place = 0
        while place == 0 or f"{name}.{place}" in state:
            piece = state[f"{name}.{place}"]
            found = msgspec.json.decode(piece, type=list[str])
            texts += found
            if len(found) == PIECE_TEXTS:
                self._pieces.append(piece)
            place += 1
        return texts
