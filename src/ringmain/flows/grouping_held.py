"""What series add up to in windows of their groups, held until the groups have passed them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ringmain.flows.later import array_later
from ringmain.flows.ordering_rows import kept
from ringmain.flows.state import NEVER, WindowKeys
from ringmain.flows.step import StepState
from ringmain.flows.totals import Bools, Ints, Totals

_FLOATS = ("sum", "min", "max", "first", "last")


@dataclass(slots=True)
class Contributions:
    """What series add up to in windows of their groups; of a cell and window the newest counts."""

    cell: Ints
    window: Ints
    group: Ints
    totals: Totals

    def __len__(self) -> int:
        return len(self.cell)

    def since(self, first: Ints) -> Contributions:
        """Those for windows from the first one on that is given by group."""
        return self.take(self.window >= first[self.group]) if len(self) else self

    def before(self, first: Ints) -> Contributions:
        """Those for earlier windows."""
        return self.take(self.window < first[self.group]) if len(self) else self

    def take(self, index: Ints | Bools) -> Contributions:
        """Those at these places."""
        return Contributions(self.cell[index], self.window[index], self.group[index], self.totals.take(index))

    def part(self, start: int, stop: int) -> Contributions:
        """Those from one place up to before another."""
        chosen = slice(start, stop)
        totals = self.totals
        return Contributions(
            self.cell[chosen],
            self.window[chosen],
            self.group[chosen],
            Totals(
                totals.count[chosen],
                totals.sum[chosen],
                totals.min[chosen],
                totals.max[chosen],
                totals.first[chosen],
                totals.last[chosen],
            ),
        )

    @staticmethod
    def together(parts: list[Contributions]) -> Contributions:
        """All of them."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return NOTHING
        return Contributions(
            np.concatenate([part.cell for part in parts]),
            np.concatenate([part.window for part in parts]),
            np.concatenate([part.group for part in parts]),
            Totals.concatenate([part.totals for part in parts]),
        )

    def newest(self) -> Contributions:
        """Of each cell and window the newest."""
        order = np.lexsort((self.cell, self.window))
        cell, window = self.cell[order], self.window[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (cell[1:] != cell[:-1]) | (window[1:] != window[:-1])
        return self.take(np.sort(order[last])) if not last.all() else self


NOTHING = Contributions(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), Totals.empty(0))
"""No contributions."""


@dataclass(slots=True)
class GroupState:
    """By group: windows with a lower number are emitted. And what is held for windows that are not."""

    closed: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    top: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """By group: the last window that something was held for."""
    held: dict[int, list[Contributions]] = field(default_factory=dict)
    behind: WindowKeys = field(default_factory=WindowKeys)
    """Cells and windows that came for windows which were emitted."""
    front: int = NEVER
    """The median of the newest times of the devices heard of, when it was asked for last."""
    front_at: int = NEVER
    """When it was last looked at what groups have passed."""

    def stored(self) -> StepState:
        """As arrays."""
        all_held = [part for parts in self.held.values() for part in parts]
        behind_cell, behind_window = self.behind.later()
        return {
            "group.closed": self.closed,
            "group.top": self.top,
            "group.front": np.array([self.front, self.front_at], np.int64),
            "group.behind.cell": behind_cell,
            "group.behind.window": behind_window,
            **{
                f"group.held.{name}": array_later([getattr(part, name) for part in all_held], np.int64)
                for name in ("cell", "window", "group")
            },
            "group.held.count": array_later([part.totals.count for part in all_held], np.int64),
            **{
                f"group.held.{name}": array_later(
                    [getattr(part.totals, name) for part in all_held], np.float64
                )
                for name in _FLOATS
            },
        }

    def restore(self, state: StepState) -> None:
        """Take over what `stored` gave."""
        self.closed, self.top = (kept(state, f"group.{name}", np.int64) for name in ("closed", "top"))
        self.front, self.front_at = kept(state, "group.front", np.int64).tolist()
        cell, window, group = (
            kept(state, f"group.held.{name}", np.int64) for name in ("cell", "window", "group")
        )
        totals = Totals(
            kept(state, "group.held.count", np.int64),
            *(kept(state, f"group.held.{name}", np.float64) for name in _FLOATS),
        )
        self.behind.replace(
            kept(state, "group.behind.cell", np.int64), kept(state, "group.behind.window", np.int64)
        )
        self.held.clear()
        self.add(Contributions(cell, window, group, totals))

    def add(self, more: Contributions) -> None:
        """Hold them."""
        if not len(more):
            return
        np.maximum.at(self.top, more.group, more.window)
        first = int(more.window[0])
        if (more.window == first).all():
            self.held.setdefault(first, []).append(more)
            return
        order = np.argsort(more.window, kind="stable")
        more = more.take(order)
        starts = np.flatnonzero(np.concatenate(([True], more.window[1:] != more.window[:-1])))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(more)], strict=True):
            self.held.setdefault(int(more.window[start]), []).append(more.part(start, stop))
