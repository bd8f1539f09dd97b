"""Where a sink is in the log, as it is stored under its claim `sink/NAME`.

Beside the position there are the rows of each stream up to it: when retention was faster than the sink, the rows that
it missed are counted from them, and what it has had already is not handed over again.
"""

from __future__ import annotations

import msgspec

from ringmain.log.interface import Position


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """As stored: JSON under the name of the claim."""

    position: str = ""
    rows: dict[str, int] = {}
    part_of: str = ""
    part_rows: int = 0


class Mark(msgspec.Struct, frozen=True):
    """Everything up to the frame at `position` is answered for, and `part_rows` rows of the frame at `part_of` behind it.

    `position` None: before everything that the log holds. `rows`: rows ever appended to each stream up to there.
    `missed`: rows that were gone before they were read, since this process began; not stored.
    """

    position: Position | None
    rows: dict[str, int]
    part_of: Position | None = None
    part_rows: int = 0
    missed: int = 0

    def encode(self) -> bytes:
        """As stored."""
        return msgspec.json.encode(
            _Stored(_text(self.position), self.rows, _text(self.part_of), self.part_rows)
        )

    @classmethod
    def decode(cls, text: bytes) -> Mark:
        """What `encode` gave. Raises ValueError."""
        try:
            stored = msgspec.json.decode(text, type=_Stored)
        except msgspec.MsgspecError as error:
            raise ValueError(f"expected the position of a sink, found {text[:80]!r}: {error}") from None
        return cls(_position(stored.position), stored.rows, _position(stored.part_of), stored.part_rows)


def _text(position: Position | None) -> str:
    return "" if position is None else str(position)


def _position(text: str) -> Position | None:
    return Position.parse(text) if text else None
