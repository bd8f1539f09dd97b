"""The fold of the step `group` in a chain: readings in, rows of groups' windows out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.aggregates import Late
from ringmain.flows.block import Block, Floats, Ints, arrow
from ringmain.flows.emission import GONE_REASON
from ringmain.flows.grouping import Term
from ringmain.flows.grouping_emitted import EmittedGroups
from ringmain.flows.grouping_fold import GroupFold, Passed
from ringmain.flows.grouping_held import Contributions
from ringmain.flows.grouping_members import Cells, Members, as_cells, series_column
from ringmain.flows.grouping_totals import GroupValue, combined, group_schema
from ringmain.flows.held import HeldHistory
from ringmain.flows.history import History, LogHistory
from ringmain.flows.picture import Picture
from ringmain.flows.recent import Keys
from ringmain.flows.state import compact, restore, stored, tables
from ringmain.flows.step import Context, StepState
from ringmain.flows.totals import LATE
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Frame, LogReader
from ringmain.model.schemas import TIMESTAMP

BEHIND_REASON = "its group's window was emitted before its device, which was not waited for, had passed it"


class GroupStep:
    """See `steps.group`."""

    def __init__(
        self,
        windowing: Windowing,
        terms: tuple[Term, ...],
        values: tuple[GroupValue, ...],
        context: Context,
        *,
        late_safe: bool,
    ) -> None:
        self._context = context
        self._windowing = windowing
        self._grid = windowing.grid
        self._values = values
        self._schema = group_schema(terms, values)
        self._members = Members(terms, context)
        self._log_history: LogHistory | None = None
        self._held: HeldHistory | None = None
        self._emitted: EmittedGroups | None = None
        self._history: History
        if late_safe and context.history is not None:
            log = (
                context.history
                if self._members.cells.alike
                else _cell_log(context.history, self._members.cells, windowing)
            )
            self._history = self._log_history = LogHistory(log, windowing)
            names = (*(value.value for value in values), "reporting")
            self._emitted = EmittedGroups(log, windowing, self._members.groups, names)
        else:
            self._history = self._held = HeldHistory(windowing)
        self._fold = GroupFold(windowing, self._history, self._members)
        self._silent = False
        self._scans = 0

    def learn(self, entries: pa.RecordBatch) -> None:
        """Devices of series, out of the catalogue."""
        self._fold.devices.learn(entries)

    def take(self, block: Block) -> Sequence[Block]:
        """Readings; what is given at once are late ones put aside."""
        self._note()
        cells = self._members.cells
        outputs = self._fold.take(as_cells(block, cells), emit=self._context.emit)
        late = [Block(rows, block.arrival_ns, self._windowing.late_stream) for rows in outputs.late]
        return [series_column(aside, cells) for aside in late]

    def advance(self, now_ns: int) -> Sequence[Block]:
        """Groups' windows that are complete or computed again, in order of (start, group)."""
        self._note()
        passed = self._fold.pass_instant(now_ns, self._context.position)
        blocks = [] if passed is None else self._follow(passed, now_ns)
        if self._held is not None:
            self._held.trim(self._fold.state)
        self._fold.counts.move_to(self._context.count)
        if self._log_history is not None:
            self._context.count("scans", self._log_history.scans - self._scans)
            self._scans = self._log_history.scans
        return blocks

    def _note(self) -> None:
        context = self._context
        self._fold.state.lead_ns = context.lead_ns
        if self._emitted is not None:
            self._emitted.until = context.emitted_until
            if self._silent and context.emit:  # what was emitted meanwhile is in the log alone
                self._emitted.restart(self._fold.groups.closed)
        self._silent = not context.emit

    # What follows

    def _follow(self, passed: Passed, now_ns: int) -> list[Block]:
        blocks: list[Block] = []
        if not passed:
            return blocks
        late = self._windowing.late
        emit = self._context.emit
        keys, matrix, series = self._added(passed.ready)
        revision = np.zeros(len(keys.series), np.int64)
        aside = [self._told(passed.gone, GONE_REASON, now_ns)] if len(passed.gone.series) else []
        self._fold.counts.gone += len(passed.gone.series)
        if len(passed.behind.series) and late is Late.REVISE and emit and self._emitted is not None:
            again, told = self._again(passed.behind)
            aside += told
            if len(again[0].series):
                keys = Keys(
                    np.concatenate((keys.series, again[0].series)),
                    np.concatenate((keys.window, again[0].window)),
                )
                matrix, series = np.concatenate((matrix, again[1])), np.concatenate((series, again[2]))
                revision = np.concatenate((revision, again[3]))
        elif late is not Late.REVISE:
            self._fold.counts.late += int(passed.behind_rows.sum())
            if late is Late.SIDE and len(passed.behind.series):
                aside.append(self._told(passed.behind, BEHIND_REASON, now_ns))
        if emit and len(keys.series):
            order = np.lexsort((keys.series, keys.window))
            keys, matrix, series, revision = keys.take(order), matrix[order], series[order], revision[order]
            blocks.append(Block(self._rows(keys, matrix, series, revision), now_ns))
            first = int((revision == 0).sum())
            self._fold.counts.windows += first
            self._fold.counts.revisions += len(revision) - first
            if self._emitted is not None:
                self._emitted.add(keys, revision, np.column_stack((matrix, series)))
        return blocks + [Block(rows, now_ns, self._windowing.late_stream) for rows in aside]

    def _added(self, found: Contributions) -> tuple[Keys, Floats, Ints]:
        """Groups' windows out of what their series add up to."""
        if not len(found):
            none = np.empty(0, np.int64)
            return Keys(none, none), np.empty((0, len(self._values))), none
        order = np.lexsort((self._members.cells.series(found.cell), found.group, found.window))
        group, window = found.group[order], found.window[order]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (group[1:] != group[:-1]) | (window[1:] != window[:-1])
        starts = np.flatnonzero(begins)
        place = np.cumsum(begins) - 1
        matrix, series = combined(place, found.totals.take(order), len(starts), self._values)
        return Keys(group[starts], window[starts]), matrix, series

    def _again(self, behind: Keys) -> tuple[tuple[Keys, Floats, Ints, Ints], list[pa.RecordBatch]]:
        """Groups' windows that must be computed again: those of which a value changed, with their next revision."""
        assert self._emitted is not None
        group = self._members.group_of(behind.series, behind.window)
        pairs = np.unique(np.stack((behind.window, group), axis=1), axis=0)
        keys = Keys(np.ascontiguousarray(pairs[:, 1]), np.ascontiguousarray(pairs[:, 0]))
        before = self._emitted.find(keys, self._fold.state.lead_ns)
        cells = self._members.members(keys.series, keys.window)
        place = np.repeat(np.arange(len(cells)), [len(of) for of in cells])
        of_cells = np.concatenate([np.empty(0, np.int64), *cells])
        wanted = Keys(of_cells, keys.window[place])
        self._fold.counts.recomputed += len(place)
        totals, lost = self._history.totals(wanted, self._context.position, self._fold.state.lead_ns)
        gone = before.gone | (np.bincount(place[lost], minlength=len(cells)) > 0)
        self._fold.counts.gone += int(gone.sum())
        some = totals.count > 0
        matrix, series = combined(place[some], totals.take(some), len(cells), self._values)
        values = np.column_stack((matrix, series))
        same = ((values == before.values) | (np.isnan(values) & np.isnan(before.values))).all(axis=1)
        changed = ~gone & np.where(before.revision >= 0, ~same, series > 0)
        told = []
        if gone.any():
            first = np.searchsorted(place, np.flatnonzero(gone))
            told.append(self._told(wanted.take(first), GONE_REASON, self._fold.state.now))
        return (keys.take(changed), matrix[changed], series[changed], before.revision[changed] + 1), told

    def _rows(self, keys: Keys, matrix: Floats, series: Ints, revision: Ints) -> pa.RecordBatch:
        groups, windows = keys.series, keys.window
        expected = np.maximum(self._members.expected(groups, windows), series)
        columns = []
        none = series == 0
        for place, value in enumerate(self._values):
            column = np.ascontiguousarray(matrix[:, place])
            columns.append(
                pa.array(column.astype(np.int64))
                if value is GroupValue.COUNT
                else pa.array(column, mask=none if none.any() else None)
            )
        return pa.RecordBatch.from_arrays(
            [
                *self._members.groups.columns(groups),
                arrow(self._grid.start(windows), TIMESTAMP),
                arrow(self._grid.start(windows + 1), TIMESTAMP),
                *columns,
                pa.array(series),
                pa.array(expected),
                pa.array(100.0 * series / np.maximum(expected, 1)),
                pa.array(revision.astype(np.uint32)),
            ],
            schema=self._schema,
        )

    def _told(self, keys: Keys, reason: str, now_ns: int) -> pa.RecordBatch:
        """Windows of series as rows of the late stream, in order: their start is the time."""
        series = self._members.cells.series(keys.series)
        keys = Keys(series, keys.window).take(np.lexsort((series, keys.window)))
        count = len(series)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(keys.series.astype(np.uint32)),
                arrow(self._grid.start(keys.window), TIMESTAMP),
                pa.nulls(count, pa.float64()),
                pa.nulls(count, pa.uint16()),
                arrow(np.full(count, now_ns, np.int64), TIMESTAMP),
                pa.array([reason]).take(pa.array(np.zeros(count, np.int64))),
            ],
            schema=LATE,
        )

    # State

    def state(self) -> StepState:
        """Everything that it remembers."""
        return {
            **stored(self._fold.state),
            **self._history.state(),
            **self._members.state(),
            **self._fold.groups.stored(),
        }

    @staticmethod
    def compact(state: StepState) -> StepState:
        """The same without what no window is open in; works on a copy, at any time."""
        return compact(state)

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """What lies by cell, that which closing windows writes to apart, and by device."""
        return tables(state)

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say of cells and devices when they are about to be written to."""
        self._fold.tell(pictures)

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        restore(self._fold.state, state)
        self._members.restore(state)
        self._fold.devices.restart()
        self._fold.groups.restore(state)
        self._history.restore(state, self._fold.state)
        if self._emitted is not None:
            self._emitted.restart(self._fold.groups.closed)


class _CellLog:
    """A log whose input has cells for series. Everything else is as it is."""

    def __init__(self, log: LogReader, cells: Cells, windowing: Windowing) -> None:
        self._log = log
        self._cells = cells
        self._source = windowing.source

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, streams: str | Sequence[str], *args: object, **kwargs: object) -> Iterator[Frame]:
        """As the log's."""
        for frame in self._log.read(streams, *args, **kwargs):  # type: ignore[arg-type]
            if frame.stream == self._source:
                block = as_cells(Block(frame.rows, frame.origin_arrival_ns), self._cells)
                frame = msgspec.structs.replace(frame, rows=block.rows)
            yield frame


def _cell_log(log: LogReader, cells: Cells, windowing: Windowing) -> LogReader:
    return cast(LogReader, _CellLog(log, cells, windowing))
