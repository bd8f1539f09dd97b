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
from ringmain.flows.grouping import Codes, SeriesGroups, Term
from ringmain.flows.grouping_tuples import Tuples
from ringmain.flows.ordering_rows import kept
from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import Context, StepState

ALWAYS = 2**63 - 1
CELLS_MAX = 1 << 20
"""Series with a text of a column, at most; rows of more of them take no part (counted as `unusable`)."""
_NONE = 2**32 - 1


class Cells:
    """Numbers cells. Without column terms a cell is its series."""

    def __init__(self, groups: SeriesGroups) -> None:
        self._groups = groups
        self._places = groups.by_column
        self._tuples = Tuples(1 + len(self._places), most=CELLS_MAX)
        self._last: tuple[list[Codes], Ids] | None = None

    @property
    def alike(self) -> bool:
        """Whether cells are series."""
        return not self._places

    def of(self, block: Block) -> Ids:
        """The cell of each row; that of an impossible series where there are too many."""
        series = block.series
        if self.alike or not len(series):
            return series
        codes = [series.view(np.int32)]
        for place in self._places:
            term = self._groups.terms[place]
            codes.append(self._groups.codes[place].of_column(block.rows.column(term.source)))
        last = self._last
        if last is not None and _same(last[0], codes):
            return last[1]
        usable = series < SERIES_MAX
        cells = np.full(len(series), _NONE, np.uint32)
        numbers_ = self._tuples.numbers([code[usable] for code in codes])
        cells[usable] = np.where(numbers_ < 0, _NONE, numbers_)
        self._last = [code.copy() for code in codes], cells
        return cells

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
        self._tuples = Tuples(width, kept(state, "cells", np.int32).reshape(-1, width), CELLS_MAX)


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
        self._past_since: Ints = np.empty(0, np.int64)
        """The window from which on each of them did."""
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
        looked_at = self.group[known] < 0
        if self._attributes.version != self._version:
            changed = self._attributes.changed_since(self._version)
            looked_at |= np.isin(self.cells.series(known), changed)
        known = known[looked_at]
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
        self._past_since = np.concatenate((self._past_since, self._since[cells[fresh]]))
        self._past = Spans(
            np.concatenate((past.cell, cells[fresh])),
            np.concatenate((past.group, self.group[cells[fresh]])),
            np.concatenate((past.to, since[fresh])),
        )
        self._since[cells] = np.maximum(since, self._since[cells])
        self.group[cells] = groups

    def group_of(self, cells: Ints, windows: Ints) -> Ints:
        """The group of each cell in a window."""
        found: Ints = self.group[cells]
        before = np.flatnonzero(windows < self._since[cells])
        if len(before):
            order = np.lexsort((self._past.to, self._past.cell))
            ends = np.unique(self._past.to)
            step = len(ends) + 1
            codes = self._past.cell[order] * step + np.searchsorted(ends, self._past.to[order])
            wanted = cells[before] * step + np.searchsorted(ends, windows[before], "right")
            found[before] = self._past.group[order[np.searchsorted(codes, wanted)]]
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
        count = np.bincount(of[settled], minlength=self.groups.count)[groups].astype(np.int64)
        if not settled.all():
            count += _begun(of[~settled], since[~settled], groups, windows)
            count += _begun(self._past.group, self._past_since, groups, windows)
            count -= _begun(self._past.group, self._past.to, groups, windows)
        return count

    def members(self, groups: Ints, windows: Ints) -> list[Ints]:
        """The cells of each group in a window, in order of series."""
        found: list[Ints] = []
        known: dict[int, Ints] = {}
        for group, window in zip(groups.tolist(), windows.tolist(), strict=True):
            cells = known.get(group)
            if cells is None:
                ever = np.union1d(
                    np.flatnonzero(self.group == group), self._past.cell[self._past.group == group]
                )
                cells = known[group] = ever[np.argsort(self.cells.series(ever), kind="stable")]
            if self.moved:
                cells = cells[self.group_of(cells, np.full(len(cells), window)) == group]
            found.append(cells)
        return found

    def live(self, closed: Ints) -> int:
        """How many former memberships reach into windows that their group has not closed."""
        return int((self._past.to > closed[self._past.group]).sum()) if self.moved else 0

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            **self.cells.state(),
            **self.groups.state(),
            "member_group": self.group,
            "member_since": self._since,
            "past_cell": self._past.cell,
            "past_group": self._past.group,
            "past_to": self._past.to,
            "past_since": self._past_since,
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self.groups.restore(state)
        self.cells.restore(state)
        self.group = kept(state, "member_group", np.int64)
        self._since = kept(state, "member_since", np.int64)
        self._past_since = kept(state, "past_since", np.int64)
        self._past = Spans(*(kept(state, f"past_{name}", np.int64) for name in ("cell", "group", "to")))


def _same(left: list[Codes], right: list[Codes]) -> bool:
    return len(left[0]) == len(right[0]) and all(
        bool((one == other).all()) for one, other in zip(left, right, strict=True)
    )


def _begun(group: Ints, since: Ints, groups: Ints, windows: Ints) -> Ints:
    """For each of `groups` how many rows of it have begun at a window or before."""
    starts = np.unique(since)
    step = len(starts) + 1
    codes = np.sort(group * step + np.searchsorted(starts, since) + 1)
    reached = groups * step + np.searchsorted(starts, windows, "right")
    return np.searchsorted(codes, reached, "right") - np.searchsorted(codes, groups * step, "right")


def as_cells(block: Block, cells: Cells) -> Block:
    """The block with cells for series: what a fold by series takes as its series."""
    return block if cells.alike else block.with_column("series", cells.of(block))


def series_column(block: Block, cells: Cells) -> Block:
    """The block with series for cells again."""
    if cells.alike:
        return block
    found = cells.series(numbers(block.rows, "series", np.uint32)).astype(np.uint32)
    return block.with_column("series", found)
