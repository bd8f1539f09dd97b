"""The changes of a flow's definition on its way, as they are kept beside its position and passed by its fold.

Why they are kept, and what follows from them: `succession.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from ringmain.flows.block import Block
from ringmain.log.interface import Position
from ringmain.model.alarm import AlarmNote

KEPT_MAX = 100
"""More are not remembered: a replay then forms other ids for what stands before the oldest of these."""


class Announces(Protocol):
    """The trait of a step that tells when something begins and when it ends: what stands must be told by somebody.

    When the flow's definition changes on its way, the new one has never told what stands: `take_over` does.
    """

    @property
    def era(self) -> int:
        """The number of the newest change that `take_over` was told of; 0: none. A part of the state."""
        ...

    def take_over(self, era: int) -> Sequence[Block]:
        """From here on the flow has this definition, since its change number `era`: what ends with that, and what stands."""
        ...

    def standing(self) -> Mapping[str, int]:
        """What stands and was told, by id, with how many events of it there are."""
        ...


class Takeover(msgspec.Struct, frozen=True):
    """One change. `behind`: the input frame that was folded last before it; empty: it is before the first.

    `stream`: whose open alarms end with it, `note`: the reason that is told.
    """

    number: int
    behind: str
    note: AlarmNote
    stream: str

    @property
    def position(self) -> Position | None:
        """`behind` as a position."""
        return Position.parse(self.behind) if self.behind else None


class Takeovers(msgspec.Struct, frozen=True):
    """All of a flow's, in order of number. `told`: the number of the newest whose events are all in the log."""

    known: tuple[Takeover, ...] = ()
    told: int = 0

    @classmethod
    def parse(cls, text: bytes | None) -> Takeovers:
        """What `text` gave; none of None. Raises ValueError."""
        return cls() if text is None else msgspec.json.decode(text, type=cls)

    def text(self) -> bytes | None:
        """The form in which they are kept; None where there are none."""
        return msgspec.json.encode(self) if self.known else None

    @property
    def untold(self) -> tuple[Takeover, ...]:
        """Those whose events are not all in the log."""
        return tuple(one for one in self.known if one.number > self.told)

    def only_told(self) -> tuple[Takeover, ...]:
        """Those whose events are in the log."""
        return tuple(one for one in self.known if one.number <= self.told)

    def followed_by(
        self, behind: Position | None, note: AlarmNote, stream: str, *, alone: bool = False
    ) -> Takeovers:
        """One more. `alone`: the flow begins from nothing, what was before is no part of its fold."""
        number = max(self.told, *(one.number for one in self.known), 0) + 1
        new = Takeover(number, "" if behind is None else str(behind), note, stream)
        kept = self.untold if alone else self.known
        return Takeovers((*kept, new)[-KEPT_MAX:], self.told)

    def all_told(self) -> Takeovers:
        """The events of all of them are in the log."""
        return Takeovers(self.known, max(self.told, *(one.number for one in self.known), 0))
