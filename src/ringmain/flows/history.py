"""What a window step may look up: the readings of a window, and what was emitted for it before.

Both answers depend on nothing but the log up to a position: all readings of the input up to the last folded
frame, all output rows of the frames before. The newest of each are kept in memory (`recent.py`), because most
readings that come out of order are seconds late; whether an answer came from memory or from the log makes no
difference to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ringmain.flows.block import Block, numbers
from ringmain.flows.keys import KeyIndex, Keys
from ringmain.flows.later import Part
from ringmain.flows.readings import Grades, accepted
from ringmain.flows.recent import (
    RECENT_ROWS,
    RECENT_WINDOWS,
    RecentReadings,
    RecentWindows,
    Rows,
)
from ringmain.flows.state import WindowState
from ringmain.flows.summing import TooManyReadingsError, time_range, window_totals
from ringmain.flows.totals import Bools, Floats, Ids, Ints, Totals, window_schema
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import LogReader, Position, PositionGoneError

_GAP_WINDOWS = 64
_SCANS_MAX = 16
READINGS_MAX = 8_000_000
"""Readings out of the log that are put together at once: more windows are computed in several scans."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """What was emitted for each key before: the newest revision (-1: nothing) and its values."""

    revision: Ints
    values: Floats
    gone: Bools
    """Where rows that were emitted may have been removed from the log."""


class History(Protocol):
    """What the step is given to look back with."""

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
        """Take note of accepted readings, those of a series in log order. `grade=None`: all are good.

        Their times lie within the bounds. `rising`: each series occurs once, in order. `series` and `value` are kept,
        so nobody may write to them any more.
        """
        ...

    def add_late(
        self,
        series: Ids,
        time: Ints,
        value: Floats,
        grade: Grades | None,
        time_min: int,
        time_max: int,
        rising: bool,
    ) -> None:
        """The same for readings whose windows were closed: all others of those windows came before."""
        ...

    def totals(self, keys: Keys, until: Position | None, lead_ns: int) -> tuple[Totals, Bools]:
        """What each window adds up to, over the input up to `until`, and where that cannot be told any more.

        `lead_ns`: how far origin arrivals were ahead of their arrival in this log at most.
        """
        ...

    def add_emitted(self, series: Ints, window: Ints, revision: Ints, values: Floats) -> None:
        """Take note of emitted rows."""
        ...

    def emitted(self, keys: Keys, lead_ns: int) -> Emitted:
        """What was emitted for each key before."""
        ...

    def state(self) -> dict[str, Part]:
        """What it must not forget, for a snapshot."""
        ...

    def restore(self, stored: Mapping[str, Part], state: WindowState) -> None:
        """Take over what `state` gave, beside the state of the step."""
        ...


class LogHistory:
    """`History` over a log: memory first, then the log."""

    def __init__(
        self,
        log: LogReader,
        windowing: Windowing,
        *,
        recent_rows: int = RECENT_ROWS,
        recent_windows: int = RECENT_WINDOWS,
        readings_max: int = READINGS_MAX,
    ) -> None:
        self._log = log
        self._windowing = windowing
        self._grid = windowing.grid
        self._readings = RecentReadings(recent_rows)
        self._late = RecentReadings(recent_rows // 8)
        self._windows = RecentWindows(recent_windows)
        self._readings_max = readings_max
        self.emitted_until: Position | None = None
        """Output rows behind this position do not count (None: all do)."""
        self.scans = 0
        """How often the log was read again."""

    def restart(self, state: WindowState) -> None:
        """Know nothing of what the state already contains."""
        self._readings.restart(state.newest)
        self._late.restart(state.newest)
        self._windows.restart(state.closed)

    def state(self) -> dict[str, Part]:
        return {}

    def restore(self, stored: Mapping[str, Part], state: WindowState) -> None:
        self.restart(state)

    def restart_emitted(self, state: WindowState) -> None:
        """Know nothing of what was emitted for windows closed in the state."""
        self._windows.restart(state.closed)

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
        self._readings.add(series, time, value, grade, time_min, time_max, rising)

    def add_late(
        self,
        series: Ids,
        time: Ints,
        value: Floats,
        grade: Grades | None,
        time_min: int,
        time_max: int,
        rising: bool,
    ) -> None:
        self._late.add(series, time, value, grade, time_min, time_max, rising)

    def add_emitted(self, series: Ints, window: Ints, revision: Ints, values: Floats) -> None:
        self._windows.add(series, window, revision, values)

    def totals(self, keys: Keys, until: Position | None, lead_ns: int) -> tuple[Totals, Bools]:
        count = len(keys.series)
        totals = Totals.empty(count, self._windowing.accumulators)
        gone = np.zeros(count, np.bool_)
        if not count:
            return totals, gone
        needed = self._grid.start(keys.window) - self._windowing.hold_ns
        covered = self._readings.covers(keys.series, needed) & self._late.covers(keys.series, needed)
        place = np.flatnonzero(covered)
        if len(place):
            part = keys.take(place)
            low, high = time_range(self._windowing, part)
            totals.put(place, window_totals(part, self._recent(low, high), self._windowing))
        rest = np.flatnonzero(~covered)
        groups = self._near(rest, keys)
        while groups:
            near = groups.pop()
            part = keys.take(near)
            low, high = time_range(self._windowing, part)
            since = low - self._windowing.max_ahead_ns - lead_ns
            limit = self._readings_max if len(near) > 1 else None
            try:
                rows = self._scan(low, high, since, until)
                totals.put(near, window_totals(part, rows, self._windowing, limit))
            except TooManyReadingsError:
                groups += [near[: len(near) // 2], near[len(near) // 2 :]]
            except PositionGoneError:
                gone[near] = True
            else:
                gone[near] = self._removed(self._windowing.source, since)
        return totals, gone

    def _recent(self, low: int, high: int) -> Iterator[Rows]:
        """What is in memory; late readings last, as they came after all others of their windows."""
        yield from self._readings.overlapping(low, high)
        yield from self._late.overlapping(low, high)

    def _near(self, places: Ints, keys: Keys) -> list[Ints]:
        """Split keys into groups of windows that lie close together, so that a scan skips what is between."""
        if not len(places):
            return []
        places = places[np.argsort(keys.window[places], kind="stable")]
        gaps = np.diff(keys.window[places])
        wide = np.flatnonzero(gaps > _GAP_WINDOWS)
        if len(wide) > _SCANS_MAX - 1:
            wide = np.sort(wide[np.argsort(gaps[wide], kind="stable")[-(_SCANS_MAX - 1) :]])
        return list(np.split(places, wide + 1))

    def _removed(self, stream: str, since_ns: int) -> bool:
        """Whether frames of a stream that arrived at `since_ns` or later may have been removed from the log."""
        first = next(iter(self._log.read(stream)), None)
        if first is None:
            return any(state.stream.name == stream and state.rows for state in self._log.streams())
        if first.cumulative_rows <= first.row_count:
            return False
        return first.arrival_ns >= since_ns

    def _scan(self, low: int, high: int, since: int, until: Position | None) -> Iterator[Rows]:
        """Accepted readings with times in [low, high] from the log. They arrived at `since` or later."""
        if until is None:
            return
        self.scans += 1
        after = self._log.find(self._windowing.source, since)
        for frame in self._log.read(
            self._windowing.source, after=after, until=until, time_min_ns=low, time_max_ns=high
        ):
            taking = accepted(
                Block(frame.rows, frame.origin_arrival_ns).columns,
                frame.origin_arrival_ns,
                self._windowing.max_ahead_ns,
                graded=self._windowing.graded,
            )
            if len(taking):
                rising = bool((taking.series[1:] > taking.series[:-1]).all())
                bounds = taking.time_min, taking.time_max
                yield Rows(taking.series, taking.time, taking.value, taking.grade, *bounds, rising)

    def emitted(self, keys: Keys, lead_ns: int) -> Emitted:
        count = len(keys.series)
        columns = self._windowing.columns
        revision = np.full(count, -1, np.int64)
        values = np.full((count, len(columns)), np.nan)
        gone = np.zeros(count, np.bool_)
        if not count:
            return Emitted(revision, values, gone)
        for near in self._near(np.flatnonzero(~self._windows.covers(keys)), keys):
            since = self._grid.start_of(int(keys.window[near].min())) - self._windowing.max_ahead_ns - lead_ns
            try:
                self._read_emitted(keys.take(near), near, since, revision, values)
            except PositionGoneError:
                gone[near] = True
            else:
                gone[near] = (revision[near] < 0) & self._removed(self._windowing.to, since)
        index = KeyIndex(keys)
        for series, window, newer, row_values in self._windows.chunks():
            self._overlay(index, series, window, newer, row_values, revision, values)
        return Emitted(revision, values, gone & (revision < 0))

    def _read_emitted(self, keys: Keys, place: Ints, since: int, revision: Ints, values: Floats) -> None:
        """What the log holds of rows for these keys. They were written at `since` or later."""
        self.scans += 1
        low = self._grid.start_of(int(keys.window.min()))
        high = self._grid.start_of(int(keys.window.max()))
        after = self._log.find(self._windowing.to, since)
        index = KeyIndex(keys)
        names = window_schema(self._windowing.columns).names[3:-1]
        found_revision, found_values = revision[place], values[place]
        for frame in self._log.read(
            self._windowing.to, after=after, until=self.emitted_until, time_min_ns=low, time_max_ns=high
        ):
            series = numbers(frame.rows, "series", np.uint32).astype(np.int64)
            window = self._grid.of(numbers(frame.rows, "start", np.int64))
            newer = numbers(frame.rows, "revision", np.uint32).astype(np.int64)
            matrix = np.empty((len(series), len(names)))
            for place_of, name in enumerate(names):
                matrix[:, place_of] = frame.rows.column(name).to_numpy(zero_copy_only=False)
            self._overlay(index, series, window, newer, matrix, found_revision, found_values)
        revision[place], values[place] = found_revision, found_values

    @staticmethod
    def _overlay(
        index: KeyIndex,
        series: Ints,
        window: Ints,
        newer: Ints,
        row_values: Floats,
        revision: Ints,
        values: Floats,
    ) -> None:
        """Take over rows of wanted keys whose revision is higher. A chunk holds a window once."""
        if not len(series):
            return
        low, high = int(window.min()), int(window.max())
        rising = bool((series[1:] > series[:-1]).all())
        for rows, key in index.rows(series.astype(np.uint32), window, low, high, rising=rising):
            higher = newer[rows] > revision[key]
            revision[key[higher]] = newer[rows[higher]]
            values[key[higher]] = row_values[rows[higher]]
