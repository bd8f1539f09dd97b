"""What was emitted for a group's window before: the newest of it in memory, the rest in the flow's output."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ringmain.flows.block import numbers
from ringmain.flows.grouping import SeriesGroups
from ringmain.flows.history import Emitted
from ringmain.flows.recent import KeyIndex, Keys, RecentWindows
from ringmain.flows.totals import Floats, Ints
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import LogReader, Position, PositionGoneError


class EmittedGroups:
    """Rows of groups by (group, window); in `Keys`, `series` is the group. `names`: of the columns that are compared."""

    def __init__(
        self, log: LogReader, windowing: Windowing, groups: SeriesGroups, names: tuple[str, ...]
    ) -> None:
        self._log = log
        self._windowing = windowing
        self._grid = windowing.grid
        self._groups = groups
        self._names = names
        self._windows = RecentWindows()
        self.until: Position | None = None
        """Output rows behind this position do not count (None: all do)."""

    def restart(self, closed: Ints) -> None:
        """Know nothing in memory of what was emitted for windows below `closed` (by group)."""
        self._windows.restart(closed)

    def add(self, keys: Keys, revision: Ints, values: Floats) -> None:
        """Take note of emitted rows."""
        self._windows.add(keys.series, keys.window, revision, values)

    def find(self, keys: Keys, lead_ns: int) -> Emitted:
        """What was emitted for each key."""
        count = len(keys.series)
        revision = np.full(count, -1, np.int64)
        values = np.full((count, len(self._names)), np.nan)
        gone = np.zeros(count, np.bool_)
        rest = np.flatnonzero(~self._windows.covers(keys))
        if len(rest):
            since = self._grid.start_of(int(keys.window[rest].min())) - self._windowing.max_ahead_ns - lead_ns
            try:
                found = self._read(keys.take(rest), since)
            except PositionGoneError:
                gone[rest] = True
            else:
                revision[rest], values[rest] = found
        index = KeyIndex(keys)
        for group, window, newer, row_values in self._windows.chunks():
            _overlay(index, Keys(group, window), newer, row_values, revision, values)
        return Emitted(revision, values, gone & (revision < 0))

    def _read(self, keys: Keys, since_ns: int) -> tuple[Ints, Floats]:
        """What the output holds of rows for these keys. They were written at `since_ns` or later."""
        revision = np.full(len(keys.series), -1, np.int64)
        values = np.full((len(keys.series), len(self._names)), np.nan)
        index = KeyIndex(keys)
        low, high = (self._grid.start_of(int(window)) for window in (keys.window.min(), keys.window.max()))
        after = self._log.find(self._windowing.to, since_ns)
        for frame in self._log.read(
            self._windowing.to, after=after, until=self.until, time_min_ns=low, time_max_ns=high
        ):
            rows = frame.rows
            columns = [rows.column(term.name).cast(pa.string()) for term in self._groups.terms]
            group = self._groups.find(columns) if columns else np.zeros(rows.num_rows, np.int64)
            some = group >= 0
            matrix = np.empty((rows.num_rows, len(self._names)))
            for place, name in enumerate(self._names):
                matrix[:, place] = rows.column(name).to_numpy(zero_copy_only=False)
            told = Keys(group[some], self._grid.of(numbers(rows, "start", np.int64)[some]))
            newer = numbers(rows, "revision", np.uint32).astype(np.int64)[some]
            _overlay(index, told, newer, matrix[some], revision, values)
        return revision, values


def _overlay(
    index: KeyIndex, told: Keys, newer: Ints, row_values: Floats, revision: Ints, values: Floats
) -> None:
    """Take over rows of wanted keys whose revision is higher; of one key and revision there is one row."""
    rows = index.rows_of_series(told.series.astype(np.uint32))
    if not len(rows):
        return
    key = index.match(told.series[rows], told.window[rows])
    rows, key = rows[key >= 0], key[key >= 0]
    order = np.argsort(newer[rows], kind="stable")
    rows, key = rows[order], key[order]
    higher = newer[rows] > revision[key]
    revision[key[higher]] = newer[rows[higher]]
    values[key[higher]] = row_values[rows[higher]]
