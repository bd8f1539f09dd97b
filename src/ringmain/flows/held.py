"""The readings of open windows, where there is no log to read them from again: behind steps with a memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ringmain.flows.history import Emitted
from ringmain.flows.keys import Keys
from ringmain.flows.later import Later, Part, array_later
from ringmain.flows.readings import Grades
from ringmain.flows.recent import Rows, alike
from ringmain.flows.state import WindowState
from ringmain.flows.summing import time_range, window_totals
from ringmain.flows.totals import Bools, Floats, Ids, Ints, Totals
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import Position


class HeldHistory:
    """`History` without a log: the readings of windows that are not closed are held in memory, all of them.

    For a window behind steps with a memory, whose outputs are nowhere else. Late readings are never looked up here:
    such a window does not revise.
    """

    def __init__(self, windowing: Windowing) -> None:
        self._windowing = windowing
        self._grid = windowing.grid
        self._columns = len(windowing.columns)
        self._chunks: list[Rows] = []
        self._rows = 0
        self._rows_kept = 0

    def add(
        self,
        series: Ids,
        time: Ints,
        value: Floats,
        grade: Grades | None,
        time_min: int,
        time_max: int,
        rising: bool,
    ) -> None:
        times = alike(time_min, len(series)) if time_min == time_max else time.copy()
        self._chunks.append(Rows(series, times, value, grade, time_min, time_max, rising))
        self._rows += len(series)

    add_late = add

    def trim(self, state: WindowState) -> None:
        """Forget readings of closed windows, now and then."""
        if self._rows <= 2 * self._rows_kept + 65536 and len(self._chunks) <= 4096:
            return
        hold_ns = self._windowing.hold_ns
        lowest = {  # frames of one fleet share their array of series
            place: int(state.closed[series].min())
            for place, series in {id(chunk.series): chunk.series for chunk in self._chunks}.items()
        }
        self._chunks = [  # most often whole chunks are done with, and then nothing need be put together anew
            chunk
            for chunk in self._chunks
            if self._grid.at(chunk.time_max + hold_ns) >= lowest[id(chunk.series)]
        ]
        self._rows = self._rows_kept = sum(map(len, self._chunks))
        if len(self._chunks) <= 2048:
            return
        merged = self._merged()
        keep = self._grid.of(merged.time + self._windowing.hold_ns) >= state.closed[merged.series]
        self._replace(merged.series[keep], merged.time[keep], merged.value[keep], _grade(merged)[keep])
        self._rows_kept = self._rows

    def totals(self, keys: Keys, until: Position | None, lead_ns: int) -> tuple[Totals, Bools]:
        found = Totals.empty(len(keys.series), self._windowing.accumulators)
        if len(keys.series):
            low, high = time_range(self._windowing, keys)
            chunks = (chunk for chunk in self._chunks if chunk.time_max >= low and chunk.time_min <= high)
            found = window_totals(keys, chunks, self._windowing)
        return found, np.zeros(len(keys.series), np.bool_)

    def add_emitted(self, series: Ints, window: Ints, revision: Ints, values: Floats) -> None:
        """Nothing: no row is emitted twice."""

    def emitted(self, keys: Keys, lead_ns: int) -> Emitted:
        count = len(keys.series)
        return Emitted(
            np.full(count, -1, np.int64), np.full((count, self._columns), np.nan), np.zeros(count, np.bool_)
        )

    def state(self) -> dict[str, Part]:
        chunks = list(self._chunks)
        return {
            "held.series": array_later([chunk.series for chunk in chunks], np.uint32),
            "held.time": array_later([chunk.time for chunk in chunks], np.int64),
            "held.value": array_later([chunk.value for chunk in chunks], np.float64),
            "held.grade": Later(
                lambda: np.concatenate([np.empty(0, np.uint8), *map(_grade, chunks)]), self._rows
            ),
        }

    def restore(self, stored: Mapping[str, Part], state: WindowState) -> None:
        series, time, value, grade = (
            np.asarray(stored[f"held.{name}"]) for name in ("series", "time", "value", "grade")
        )
        self._replace(series.astype(np.uint32), time, value, grade.astype(np.uint8))

    def _merged(self) -> Rows:
        if len(self._chunks) == 1:
            return self._chunks[0]
        none = np.empty(0, np.int64)
        series = np.concatenate([none.astype(np.uint32), *(chunk.series for chunk in self._chunks)])
        time = np.concatenate([none, *(chunk.time for chunk in self._chunks)])
        value = np.concatenate([np.empty(0), *(chunk.value for chunk in self._chunks)])
        grade = np.concatenate([np.empty(0, np.uint8), *map(_grade, self._chunks)])
        self._replace(series, time, value, grade)
        return Rows(series, time, value, grade, 0, 0)

    def _replace(self, series: Ids, time: Ints, value: Floats, grade: Grades) -> None:
        self._rows = len(series)
        self._chunks = (
            [Rows(series, time, value, grade, int(time.min()), int(time.max()))] if len(series) else []
        )


def _grade(rows: Rows) -> Grades:
    return np.zeros(len(rows), np.uint8) if rows.grade is None else rows.grade
