"""What the devices were told to have been received: exact counts, by the kind of message.

A message counts when its PUBACK has come, not before. From the counts by kind follow the numbers that the
node has to show: `Tally` derives them, `compare.py` holds them against the node's.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec


class Kind(IntEnum):
    """Why a message was sent. All but MALFORMED carry well-formed readings."""

    REGULAR = 0
    DUPLICATE = 1
    """A message again: same series, time and value."""
    OUT_OF_ORDER = 2
    """Sent after its successor, within the flow's grace."""
    LATE = 3
    """Held back until its window had closed."""
    REVISION = 4
    """Same series and time as an earlier one, another value."""
    AHEAD = 5
    """Stamped an hour ahead."""
    BOOTED_IN_1970 = 6
    """Stamped as if the device had just booted without knowing the date."""
    BACKLOG = 7
    """Measured while its substation was offline, sent on its return."""
    MALFORMED = 8
    """Not a reading, or an array with an element that is none."""


class Counts(msgspec.Struct):
    """Of one kind. `milli` is the exact sum of the values in thousandths of their units."""

    messages: int = 0
    readings: int = 0
    letters: int = 0
    milli: int = 0


class Tally(msgspec.Struct):
    """The books of one or of all simulator processes. `counts[kind]` by value of `Kind`."""

    counts: list[Counts] = msgspec.field(default_factory=lambda: [Counts() for _ in Kind])
    series: int = 0
    """Series with at least one well-formed reading."""
    resent: int = 0
    """Messages sent again after a lost connection: the node may hold their readings twice."""
    resent_readings: int = 0
    resent_letters: int = 0
    losses: int = 0
    connects: int = 0
    unacknowledged: int = 0
    """Messages without PUBACK when time was up."""
    last_error: str = ""

    def acknowledged(self, tag: tuple[int, int, int, int]) -> None:
        """Enter a message: its kind, readings, dead letters to expect, sum of values in thousandths."""
        kind, readings, letters, milli = tag
        counts = self.counts[kind]
        counts.messages += 1
        counts.readings += readings
        counts.letters += letters
        counts.milli += milli

    def sent_again(self, tag: tuple[int, int, int, int]) -> None:
        """Enter a message that went out once more because its connection was lost before the PUBACK."""
        self.resent += 1
        self.resent_readings += tag[1]
        self.resent_letters += tag[2]

    @property
    def messages(self) -> int:
        """Messages acknowledged."""
        return sum(c.messages for c in self.counts)

    @property
    def readings(self) -> int:
        """Readings acknowledged, repeats included: the rows of `readings`."""
        return sum(c.readings for c in self.counts)

    @property
    def distinct(self) -> int:
        """Different (series, time): the rows of `readings_current`."""
        repeats = (Kind.DUPLICATE, Kind.REVISION)
        return self.readings - sum(self.counts[kind].readings for kind in repeats)

    @property
    def ahead(self) -> int:
        """Readings too far ahead: flagged, outside windows."""
        return self.counts[Kind.AHEAD].readings

    @property
    def in_windows(self) -> int:
        """Different (series, time) that a window has to count."""
        return self.distinct - self.ahead

    @property
    def letters(self) -> int:
        """Dead letters to expect."""
        return sum(c.letters for c in self.counts)

    @property
    def milli(self) -> int:
        """Sum of all acknowledged values, repeats included, in thousandths."""
        return sum(c.milli for c in self.counts)


def add(tallies: Iterable[Tally]) -> Tally:
    """One tally for all processes; they share no series."""
    total = Tally()
    for tally in tallies:
        for mine, theirs in zip(total.counts, tally.counts, strict=True):
            mine.messages += theirs.messages
            mine.readings += theirs.readings
            mine.letters += theirs.letters
            mine.milli += theirs.milli
        total.series += tally.series
        total.resent += tally.resent
        total.resent_readings += tally.resent_readings
        total.resent_letters += tally.resent_letters
        total.losses += tally.losses
        total.connects += tally.connects
        total.unacknowledged += tally.unacknowledged
        total.last_error = total.last_error or tally.last_error
    return total
