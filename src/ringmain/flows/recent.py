"""The newest readings and emitted windows, kept in memory so that most look-backs need not read the log.

Both rings are bounded, and know for each series what they let go: `covers` says where an answer from memory is
complete. Whatever is not covered is read from the log, with the same result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ringmain.flows.keys import KeyIndex, Keys
from ringmain.flows.readings import Grades
from ringmain.flows.state import NEVER, grown
from ringmain.flows.totals import Bools, Floats, Ids, Ints

__all__ = ["RECENT_ROWS", "RECENT_WINDOWS", "KeyIndex", "Keys", "RecentReadings", "RecentWindows", "Rows"]

RECENT_ROWS = 1 << 21
RECENT_WINDOWS = 1 << 18
"""More than the rows that may wait for their append (`output.py`): those are nowhere else."""
LEAVING_MAX = 16
"""Arrays of series of which it is noted later what was let go."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Accepted readings, those of a series in log order. `grade=None`: all are good; their times lie within the bounds."""

    series: Ids
    time: Ints
    value: Floats
    grade: Grades | None
    time_min: int
    time_max: int
    rising: bool = False
    """Whether each series occurs once, in order."""

    def __len__(self) -> int:
        return len(self.series)


class RecentReadings:
    """The newest accepted readings, at most `rows` of them, and for each series what was let go."""

    def __init__(self, rows: int = RECENT_ROWS) -> None:
        self._rows_max = rows
        self._chunk_rows = min(rows // 16, 32768)
        self._chunks: deque[Rows] = deque()
        self._held = 0
        self._tail: list[Rows] = []
        self._tail_rows = 0
        self._gone: Ints = np.empty(0, np.int64)
        """By series: the newest time that was let go."""
        self._leaving: dict[int, tuple[Ids, Ints, int]] = {}
        """What was let go and is not in `_gone` yet, the newest of each array of series: array, times, the highest."""

    def restart(self, newest: Ints) -> None:
        """Hold nothing; the newest time of each series that came before is given."""
        self._leaving.clear()
        self._chunks.clear()
        self._tail.clear()
        self._held = self._tail_rows = 0
        self._gone = newest.copy()

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
        """Take note of readings, those of a series in log order. Copies `time`, which may be a view of a frame."""
        count = len(series)
        if not count:
            return
        times = alike(time_min, count) if time_min == time_max else time.copy()
        rows = Rows(series, times, value, grade, time_min, time_max, rising)
        if count >= 4096:
            self._merge_tail()
            self._push(rows)
            return
        self._tail.append(rows)
        self._tail_rows += count
        if self._tail_rows >= 16384 or len(self._tail) >= 256:
            self._merge_tail()

    def covers(self, series: Ints, since_ns: Ints) -> Bools:
        """Whether every reading of the series with a time from `since_ns` on is held."""
        self._merge_tail()
        self._take_leave()
        if not len(self._gone):
            return np.ones(len(series), np.bool_)
        known = series < len(self._gone)
        gone = np.where(known, self._gone[np.minimum(series, len(self._gone) - 1)], NEVER)
        return gone < since_ns

    def overlapping(self, time_min: int, time_max: int) -> Iterator[Rows]:
        """The readings held, in log order, without chunks whose times all lie outside."""
        self._merge_tail()
        for chunk in self._chunks:
            if chunk.time_max >= time_min and chunk.time_min <= time_max:
                yield chunk

    def _merge_tail(self) -> None:
        if not self._tail:
            return
        parts = self._tail
        self._tail, self._tail_rows = [], 0
        if self._chunks and len(self._chunks[-1]) < self._chunk_rows:
            last = self._chunks.pop()
            self._held -= len(last)
            parts.insert(0, last)
        if len(parts) == 1:
            self._push(parts[0])
            return
        grade = None
        if any(part.grade is not None for part in parts):
            grade = np.concatenate(
                [np.zeros(len(part), np.uint8) if part.grade is None else part.grade for part in parts]
            )
        self._push(
            Rows(
                np.concatenate([part.series for part in parts]),
                np.concatenate([part.time for part in parts]),
                np.concatenate([part.value for part in parts]),
                grade,
                min(part.time_min for part in parts),
                max(part.time_max for part in parts),
            )
        )

    def _push(self, rows: Rows) -> None:
        self._chunks.append(rows)
        self._held += len(rows)
        while self._held > self._rows_max:
            self._let_go(self._chunks.popleft())

    def _let_go(self, rows: Rows) -> None:
        """Note the times of rows that are held no longer: at once, or with others of the same array of series."""
        self._held -= len(rows)
        if not rows.rising:
            self._note_gone(rows.series, rows.time, rising=False)
            return
        waiting = self._leaving.pop(id(rows.series), None)
        if waiting is not None and waiting[2] > rows.time_min:
            self._note_gone(waiting[0], waiting[1], rising=True)
        if len(self._leaving) >= LEAVING_MAX:
            self._take_leave()
        self._leaving[id(rows.series)] = rows.series, rows.time, rows.time_max

    def _take_leave(self) -> None:
        for series, time, _ in self._leaving.values():
            self._note_gone(series, time, rising=True)
        self._leaving.clear()

    def _note_gone(self, series: Ids, time: Ints, *, rising: bool) -> None:
        highest = int(series[-1] if rising else series.max())
        if highest >= len(self._gone):
            self._gone = grown(self._gone, max(highest + 1, 2 * len(self._gone)), NEVER)
        if rising:
            self._gone[series] = np.maximum(self._gone[series], time)
        else:
            np.maximum.at(self._gone, series, time)


def alike(number: int, count: int) -> Ints:
    """So many times the same number, in the room of one; read-only."""
    found: Ints = np.ndarray((count,), np.int64, np.array(number, np.int64), 0, (0,))
    found.flags.writeable = False
    return found


class RecentWindows:
    """The newest emitted rows, and for each series below which window something was let go."""

    def __init__(self, rows: int = RECENT_WINDOWS) -> None:
        self._rows_max = rows
        self._chunks: deque[tuple[Ints, Ints, Ints, Floats]] = deque()
        self._held = 0
        self._gone: Ints = np.empty(0, np.int64)
        """By series: windows below this number may have been let go."""

    def restart(self, closed: Ints) -> None:
        """Hold nothing; windows below `closed` (by series) may have been emitted before."""
        self._chunks.clear()
        self._held = 0
        self._gone = closed.copy()

    def add(self, series: Ints, window: Ints, revision: Ints, values: Floats) -> None:
        """Take note of emitted rows."""
        if not len(series):
            return
        self._chunks.append((series, window, revision, values))
        self._held += len(series)
        while self._held > self._rows_max:
            old_series, old_window, *_ = self._chunks.popleft()
            self._held -= len(old_series)
            highest = int(old_series.max())
            if highest >= len(self._gone):
                self._gone = grown(self._gone, max(highest + 1, 2 * len(self._gone)), NEVER)
            np.maximum.at(self._gone, old_series, old_window + 1)

    def covers(self, keys: Keys) -> Bools:
        """Whether what was emitted for a key, if anything, is held."""
        if not len(self._gone):
            return np.ones(len(keys.series), np.bool_)
        known = keys.series < len(self._gone)
        gone = np.where(known, self._gone[np.minimum(keys.series, len(self._gone) - 1)], NEVER)
        return keys.window >= gone

    def chunks(self) -> Iterator[tuple[Ints, Ints, Ints, Floats]]:
        """The rows held, oldest first."""
        return iter(self._chunks)
