"""Which conditions are true for which series: a bit for each leaf, as readings and log time set them.

Everything is NumPy over rows of which no two belong to one series (a round of `flows.ordering`). The bits of a series
change with its readings (`readings`), when it is heard of again (`heard`), or when it has been silent for too long
(`silent`); what follows from a change is `life.py`.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.alerts.conditions import Leaf, LeafKind, Node, Tree
from ringmain.flows.block import Bools, Floats, Ints, Qualities
from ringmain.flows.later import Part
from ringmain.flows.picture import Picture
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import StepState
from ringmain.flows.sweep import Places
from ringmain.model.quality import VALIDITY_MASK

Bits = NDArray[np.uint16]
_Number = TypeVar("_Number", bound=np.generic)


class Watch:
    """The leaves of a tree over series. `size` series have a place."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rates = any(leaf.kind is LeafKind.RATE for leaf in tree.leaves)
        self._qualities = any(leaf.kind is LeafKind.QUALITY for leaf in tree.leaves)
        self._silences = [
            (np.uint16(1 << number), leaf.duration_ns)
            for number, leaf in enumerate(tree.leaves)
            if leaf.kind is LeafKind.SILENCE
        ]
        self._silence_bits = np.uint16(sum(int(bit) for bit, _ in self._silences))
        self.truth: Bits = np.empty(0, np.uint16)
        """By series: bit n is leaf n."""
        self._time: Ints = np.empty(0, np.int64)
        self._value: Floats = np.empty(0)
        self._bad: NDArray[np.uint64] = np.empty(0, np.uint64)
        """By series: its newest readings, the newest in bit 0; 1 is not good."""
        self._seen: Ints = np.empty(0, np.int64)
        """By series: the clock when something arrived last."""
        self._silent = 0
        """How many series have a bit of silence."""
        self._next = NEVER
        """Before this clock no series becomes silent; a hint, not a part of the state."""
        self.picture: Picture | None = None
        """Told of a series before it is written to."""

    @property
    def size(self) -> int:
        """Series below have a place."""
        return len(self.truth)

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        if size <= len(self.truth):
            return
        size = max(size, min(2 * len(self.truth), len(self.truth) + 262_144), 1024)
        self.truth = grown(self.truth, size, 0)
        if self._rates:
            self._time = grown(self._time, size, NEVER)
            self._value = grown(self._value, size, np.nan)
        if self._qualities:
            self._bad = grown(self._bad, size, 0)
        if self._silences:
            self._seen = grown(self._seen, size, NEVER)

    def holds(self, bits: Bits) -> Bools:
        """Whether the whole tree is true."""
        return _holds(self._tree.root, bits)

    # Readings

    def readings(
        self, at: Places, time: Ints, value: Floats, quality: Qualities
    ) -> tuple[Bits, Floats | None]:
        """Bits after these readings, one a series, and of each the quantity that an alarm tells (NaN: none)."""
        self._before(at)
        before = self.truth[at]
        after = before & self._silence_bits if self._silences else np.zeros(len(value), np.uint16)
        if quality.any():
            value = np.where((quality & 2) != 0, np.nan, value)
        measured: Floats | None = None
        rate = self._rate(at, time, value) if self._rates else value
        bad = self._not_good(at, value, quality) if self._qualities else None
        for number, leaf in enumerate(self._tree.leaves):
            if leaf.kind is LeafKind.SILENCE:
                continue
            bit = np.uint16(1 << number)
            if leaf.kind is LeafKind.QUALITY:
                assert bad is not None
                found = np.bitwise_count(bad & np.uint64((1 << leaf.of) - 1))
                after |= _bit(found >= leaf.bad, found <= leaf.clear_bad, before, bit)
                told = found.astype(np.float64)
            else:
                told = value if leaf.kind is LeafKind.THRESHOLD else rate * float(leaf.duration_ns)
                after |= _limits(leaf, told, before, bit)
            if number == self._tree.measured:
                measured = told
        if (after != before).any():
            self.truth[at] = after
        return after, measured

    def _rate(self, at: Places, time: Ints, value: Floats) -> Floats:
        """Change per ns since the reading before; NaN without one."""
        known = ~np.isnan(value)
        passed = (time - self._time[at]).astype(np.float64)
        first = self._time[at] == NEVER
        rate: Floats = np.where(first, np.nan, (value - self._value[at]) / passed)
        if known.all():
            self._time[at], self._value[at] = time, value
        else:
            self._time[at] = np.where(known, time, self._time[at])
            self._value[at] = np.where(known, value, self._value[at])
        return rate

    def _not_good(self, at: Places, value: Floats, quality: Qualities) -> NDArray[np.uint64]:
        bad = ((quality & VALIDITY_MASK) != 0) | np.isnan(value)
        history: NDArray[np.uint64] = (self._bad[at] << np.uint64(1)) | bad
        self._bad[at] = history
        return history

    # Silence

    def arrived(self, series: NDArray[np.integer], clock: int) -> None:
        """Something of these series arrived."""
        if self._silences:
            self._before(series)
            self._seen[series] = clock
            self._next = min(self._next, clock + min(duration_ns for _, duration_ns in self._silences))

    def known(self, series: NDArray[np.integer], clock: int) -> None:
        """These series are to send: the silence of those of which nothing has arrived yet begins."""
        new = series[self._seen[series] == NEVER]
        if len(new):
            self.arrived(new, clock)

    def heard(self, clock: int) -> Ints:
        """Silent series of which something arrived at this clock: their bits of silence are taken back."""
        if not self._silent:
            return np.empty(0, np.int64)
        found: Ints = np.flatnonzero((self.truth & self._silence_bits) != 0)
        found = found[self._seen[found] == clock]
        self._before(found)
        self.truth[found] &= ~self._silence_bits
        self._silent -= len(found)
        return found

    def silent(self, clock: int) -> Ints:
        """Series that have become silent by this clock: their bits of silence are set."""
        if not self._silences or clock < self._next:
            return np.empty(0, np.int64)
        known = self._seen != NEVER
        changed = np.zeros(len(known), bool)
        bound = np.iinfo(np.int64).max
        had = (self.truth & self._silence_bits) != 0
        for bit, duration_ns in self._silences:
            waiting = known & ((self.truth & bit) == 0)
            due = waiting & (self._seen <= clock - duration_ns)
            self._before(np.flatnonzero(due))
            self.truth[due] |= bit
            changed |= due
            left = waiting & ~due
            if left.any():
                bound = min(bound, int(self._seen[left].min()) + duration_ns)
        self._next = int(bound)
        self._silent += int((changed & ~had).sum())
        return np.flatnonzero(changed)

    # State

    def _before(self, places: slice | NDArray[np.integer]) -> None:
        if self.picture is not None:
            self.picture.before(places)

    def state(self) -> StepState:
        """Everything remembered, by series."""
        state: StepState = {"watch_truth": self.truth}
        if self._rates:
            state |= {"watch_time": self._time, "watch_value": self._value}
        if self._qualities:
            state["watch_bad"] = self._bad
        if self._silences:
            state["watch_seen"] = self._seen
        return state

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self.truth = copied(state["watch_truth"], np.uint16)
        if self._rates:
            self._time = copied(state["watch_time"], np.int64)
            self._value = copied(state["watch_value"], np.float64)
        if self._qualities:
            self._bad = copied(state["watch_bad"], np.uint64)
        if self._silences:
            self._seen = copied(state["watch_seen"], np.int64)
        self._silent = int(((self.truth & self._silence_bits) != 0).sum())
        self._next = NEVER


def copied(part: Part, dtype: type[_Number]) -> NDArray[_Number]:
    """An array of a state, to go on with."""
    assert isinstance(part, np.ndarray)
    return np.array(part, dtype)


def _bit(on: Bools, off: Bools, before: Bits, bit: np.uint16) -> Bits:
    """The bit set where `on`, not set where `off`, and as it was elsewhere."""
    if (on | off).all():
        return on * bit
    return np.where(on, bit, np.where(off, np.uint16(0), before & bit))


def _limits(leaf: Leaf, value: Floats, before: Bits, bit: np.uint16) -> Bits:
    on = value > leaf.above if leaf.above != np.inf else None
    if leaf.below != -np.inf:
        under = value < leaf.below
        on = under if on is None else on | under
    assert on is not None
    off = value <= leaf.clear_below if leaf.clear_below != np.inf else None
    if leaf.clear_above != -np.inf:
        over = value >= leaf.clear_above
        off = over if off is None else off & over
    assert off is not None
    return _bit(on, off, before, bit)


def _holds(node: Node, bits: Bits) -> Bools:
    held: Bools
    if node.leaf >= 0:
        held = (bits & np.uint16(1 << node.leaf)) != 0
        return held
    if all(part.leaf >= 0 for part in node.parts):
        mask = np.uint16(sum(1 << part.leaf for part in node.parts))
        held = (bits & mask) == mask if node.every else (bits & mask) != 0
        return held
    held = _holds(node.parts[0], bits)
    for part in node.parts[1:]:
        held = held & _holds(part, bits) if node.every else held | _holds(part, bits)
    return held
