"""Which series belong to which group, window by window.

What is followed is a *cell*: a series, or, where rows are grouped by a column of theirs, a series with one text of that
column. A cell's group is what the catalogue says of its series when the instant of its first reading ends. When the
catalogue says something else later, the cell belongs to its new group from its next window on, the one behind its
newest reading, and to its old group before: so a recorded stream gives the same groups in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Block, Bools, Ids, Ints, numbers
from ringmain.flows.grouping import Codes, SeriesGroups, Term, Tuples
from ringmain.flows.ordering_rows import kept
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import Context, StepState

ALWAYS = 2**63 - 1
CELLS_MAX = 1 << 24
"""Cells have ids as series have them, so there are as many at most."""


class Cells:
    """Numbers cells. Without column terms a cell is its series."""

    def __init__(self, groups: SeriesGroups) -> None:
        self._groups = groups
        self._places = groups.by_column
        self._tuples = Tuples(1 + len(self._places))

    @property
    def alike(self) -> bool:
        """Whether cells are series."""
        return not self._places

    def of(self, block: Block) -> tuple[Ids, Bools | None]:
        """The cell of each row; where rows have none (None: all have): those of an impossible series."""
        series = block.series
        if self.alike or not len(series):
            return series, None
        usable = series < CELLS_MAX
        codes = [series.astype(np.int64).astype(np.int32)]
        for place in self._places:
            term = self._groups.terms[place]
            codes.append(self._groups.codes[place].of_column(block.rows.column(term.source)))
        if usable.all():
            return self._tuples.numbers(codes).astype(np.uint32), None
        cells = np.full(len(series), 2**32 - 1, np.uint32)
        cells[usable] = self._tuples.numbers([code[usable] for code in codes])
        return cells, usable

    def series(self, cells: NDArray[np.integer]) -> Ints:
        """The series of cells."""
        if self.alike:
            return cells.astype(np.int64)
        found: Ints = self._tuples.rows[cells, 0].astype(np.int64)
        return found

    def columns(self, cells: Ints) -> dict[int, Codes]:
        """The codes of the column terms of cells."""
        return {place: self._tuples.rows[cells, 1 + number] for number, place in enumerate(self._places)}

    def state(self) -> StepState:
        """The cells that there are."""
        return {"cells": self._tuples.rows[: self._tuples.count].reshape(-1)}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        width = 1 + len(self._places)
        self._tuples = Tuples(width, kept(state, "cells", np.int32).reshape(-1, width))


@dataclass(frozen=True, slots=True)
class Spans:
    """Cells in groups for windows before `to`."""

    cell: Ints
    group: Ints
    to: Ints


class Members:
    """See the module. `group_of` may be asked for any cell that was told of."""

    def __init__(self, terms: tuple[Term, ...], context: Context) -> None:
        self.groups = SeriesGroups(terms, context.attributes)
        self.cells = Cells(self.groups)
        self._attributes = context.attributes
        self._version = -1
        self._told = -1
        self.group: Ints = np.empty(0, np.int64)
        """By cell: its group, -1 for a cell that was not told of."""
        self._since: Ints = np.empty(0, np.int64)
        """By cell: the window from which on it belongs to it."""
        self._past = Spans(*(np.empty(0, np.int64) for _ in range(3)))
        """Groups that cells belonged to before."""
        self.version = 0
        """Grows with every change."""

    @property
    def moved(self) -> bool:
        """Whether a cell ever changed its group."""
        return len(self._past.cell) > 0

    def follow(self, device: NDArray[np.int32], pinned: int, newest_window: Callable[[Ints], Ints]) -> None:
        """Look at the catalogue: every cell that has a device has a group.

        `device`: by cell. `pinned`: how many cells have one. `newest_window`: that of the newest reading of cells.
        """
        if self._attributes.version == self._version and pinned == self._told:
            return
        if len(device) > len(self.group):
            self.group = grown(self.group, len(device), -1)
            self._since = grown(self._since, len(device), NEVER)
        known = np.flatnonzero(device >= 0)
        if self._attributes.version == self._version:
            known = known[self.group[known] < 0]
        self._version, self._told = self._attributes.version, pinned
        if not len(known):
            return
        now = self.groups.of(self.cells.series(known), self.cells.columns(known))
        before = self.group[known]
        other = now != before
        if not other.any():
            return
        self.version += 1
        new = before < 0
        moved = other & ~new
        if moved.any():
            self._move(known[moved], now[moved], newest_window(known[moved]) + 1)
        self.group[known[new]] = now[new]

    def _move(self, cells: Ints, groups: Ints, since: Ints) -> None:
        fresh = since > self._since[cells]
        past = self._past
        self._past = Spans(
            np.concatenate((past.cell, cells[fresh])),
            np.concatenate((past.group, self.group[cells[fresh]])),
            np.concatenate((past.to, since[fresh])),
        )
        self._since[cells] = np.maximum(since, self._since[cells])
        self.group[cells] = groups

    def group_of(self, cells: Ints, windows: Ints) -> Ints:
        """The group of each cell in a window."""
        found = self.group[cells]
        before = windows < self._since[cells]
        if before.any():
            for place in np.flatnonzero(before).tolist():
                mine = np.flatnonzero(self._past.cell == cells[place])
                later = mine[self._past.to[mine] > windows[place]]
                found[place] = self._past.group[later[0]]
        return found

    def spans(self, closed: Ints, chosen: Bools | None = None) -> Spans:
        """Cells in the groups that they belong to in some window which the group has not closed; `closed` by group.

        `chosen`: by group; only those.
        """
        cells = np.flatnonzero(self.group >= 0)
        past = self._past
        live = past.to > closed[past.group]
        if chosen is not None:
            cells = cells[chosen[self.group[cells]]]
            live = chosen[past.group]
        return Spans(
            np.concatenate((cells, past.cell[live])),
            np.concatenate((self.group[cells], past.group[live])),
            np.concatenate((np.full(len(cells), ALWAYS), past.to[live])),
        )

    def expected(self, groups: Ints, windows: Ints) -> Ints:
        """How many cells are known of each group in a window."""
        cells = np.flatnonzero(self.group >= 0)
        since, of = self._since[cells], self.group[cells]
        settled = since == NEVER
        count = np.bincount(of[settled], minlength=self.groups.count)[groups]
        for place in np.flatnonzero(~settled).tolist():
            count += (groups == of[place]) & (windows >= since[place])
        past = self._past
        if len(past.cell):
            first = np.full(len(past.cell), NEVER)
            last: dict[int, int] = {}
            for place, (cell, until) in enumerate(zip(past.cell.tolist(), past.to.tolist(), strict=True)):
                first[place] = last.get(cell, NEVER)
                last[cell] = until
            for place in range(len(first)):
                within = (windows >= first[place]) & (windows < past.to[place])
                count += (groups == past.group[place]) & within
        return count

    def members(self, group: int, window: int) -> Ints:
        """The cells of a group in a window, in order of series."""
        cells = np.flatnonzero(self.group >= 0)
        inside = cells[(self.group[cells] == group) & (self._since[cells] <= window)]
        gone = np.unique(self._past.cell[(self._past.group == group) & (self._past.to > window)])
        if len(gone):
            still = self.group_of(gone, np.full(len(gone), window)) == group
            inside = np.union1d(inside, gone[still])
        found: Ints = inside[np.argsort(self.cells.series(inside), kind="stable")]
        return found

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            **self.cells.state(),
            "groups": self.groups.state(),
            "member_group": self.group,
            "member_since": self._since,
            "past_cell": self._past.cell,
            "past_group": self._past.group,
            "past_to": self._past.to,
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        groups = state["groups"]
        assert isinstance(groups, bytes)
        self.groups.restore(groups)
        self.cells.restore(state)
        self.group = kept(state, "member_group", np.int64)
        self._since = kept(state, "member_since", np.int64)
        self._past = Spans(*(kept(state, f"past_{name}", np.int64) for name in ("cell", "group", "to")))


def as_cells(block: Block, cells: Cells) -> Block:
    """The block with cells for series: what a fold by series takes as its series."""
    found, _ = cells.of(block)
    if cells.alike:
        return block
    return block.with_column("series", found)


def series_column(block: Block, cells: Cells) -> Block:
    """The block with series for cells again."""
    if cells.alike:
        return block
    found = cells.series(numbers(block.rows, "series", np.uint32)).astype(np.uint32)
    return block.with_column("series", found)
