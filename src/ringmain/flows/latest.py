"""The newest reading of each series: what a live total is made of.

An instant's readings are looked at together. Of a series the one with the newest time counts, of equal times the one
that is newest in the log; one that is older than what is known never replaces it (counted as `older`). A repeat of what
is known changes nothing but that the series was heard of. A newest reading without valid value leaves the series
without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Block, Bools, Floats, Ids, Ints
from ringmain.flows.readings import EARLIEST_NS, INVALID_BIT, SERIES_MAX
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import Context
from ringmain.flows.sweep import Places, stable_order

_Number = TypeVar("_Number", bound=np.generic)


class WhenStale(StrEnum):
    """What becomes of the value of a series that has fallen silent."""

    REMOVE = "remove"
    KEEP = "keep"


@dataclass(slots=True)
class Latest:
    """By series: the newest reading. Arrays of equal length, `size` long at least."""

    time: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Event time; NEVER where nothing came yet."""
    value: Floats = field(default_factory=lambda: np.empty(0))
    seen: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Log time of the instant in which the series was heard of last: of a reading not older than what was known."""
    good: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """Whether it has a valid value."""
    doubtful: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """Whether its quality is not good."""

    def reserve(self, size: int) -> None:
        """Make room for series ids below `size`."""
        if size <= len(self.time):
            return
        size = max(size, min(2 * len(self.time), len(self.time) + 262_144), 1024)
        self.time = grown(self.time, size, NEVER)
        self.value = grown(self.value, size, 0)
        self.seen = grown(self.seen, size, NEVER)
        self.good = grown(self.good, size, False)
        self.doubtful = grown(self.doubtful, size, False)


@dataclass(frozen=True, slots=True)
class Heard:
    """Series that a reading came of that is not older than what was known, rising, each once.

    `rows`: the place of that reading in the block. `new`: whether nothing was known of the series before.
    """

    series: Places
    ids: Ints
    rows: Ints | None
    new: Bools | None

    def chosen(self, array: NDArray[_Number]) -> NDArray[_Number]:
        """The elements of an array by row that belong to the series."""
        return array if self.rows is None else array[self.rows]


class Listening:
    """Takes an instant's readings over into `Latest`."""

    def __init__(self, latest: Latest, context: Context) -> None:
        self._latest = latest
        self._context = context
        self._max_ahead_ns = context.surroundings.max_ahead_ns
        self._raw: Ids | None = None
        self._places: Places = slice(0, 0)
        self._ids: Ints = np.empty(0, np.int64)

    def hear(self, block: Block, arrival: Ints | int, now_ns: int) -> Heard | None:
        """Take over the readings of an instant, in log order; `arrival`: that of the rows, `now_ns`: log time."""
        series, time = block.series, block.time
        if not len(series):
            return None
        value, quality = block.value, block.quality
        latest = self._latest
        rows: Ints | None = None
        if self._raw is None or len(series) != len(self._raw) or not (series == self._raw).all():
            if not (series[1:] > series[:-1]).all() or int(series[-1]) >= SERIES_MAX:
                return self._any(block, arrival, now_ns)
            self._raw = series.copy()
            self._ids = series.astype(np.int64)
            first, last = int(series[0]), int(series[-1])
            self._places = slice(first, last + 1) if last - first + 1 == len(series) else self._ids
            latest.reserve(last + 1)
        places = self._places
        limit = int(np.min(arrival)) + self._max_ahead_ns
        if int(time.max()) > limit or int(time.min()) < EARLIEST_NS:
            return self._any(block, arrival, now_ns)
        known = latest.time[places]
        if not (time > known).all():
            return self._any(block, arrival, now_ns)
        new = known == NEVER
        found_new = new if new.any() else None
        latest.time[places] = time
        value = value + 0.0
        if quality.any() or np.isnan(value).any():
            good = ((quality & INVALID_BIT) == 0) & ~np.isnan(value)
            latest.good[places] = good
            latest.doubtful[places] = (quality & 3) != 0
            latest.value[places] = np.where(good, value, 0.0)
        else:
            latest.good[places] = True
            latest.doubtful[places] = False
            latest.value[places] = value
        latest.seen[places] = now_ns
        return Heard(places, self._ids, rows, found_new)

    def _any(self, block: Block, arrival: Ints | int, now_ns: int) -> Heard | None:
        """The same for readings of any kind."""
        latest, count = self._latest, self._context.count
        series, time, value, quality = block.series, block.time, block.value, block.quality
        unusable = (time < EARLIEST_NS) | (series >= SERIES_MAX)
        ahead = (time > arrival + self._max_ahead_ns) & ~unusable
        count("unusable", int(unusable.sum()))
        count("ahead", int(ahead.sum()))
        rows: Ints = np.flatnonzero(~(unusable | ahead))
        if not len(rows):
            return None
        latest.reserve(int(series[rows].max()) + 1)
        order = stable_order(series[rows])
        rows = rows[order]
        ids, times = series[rows], time[rows]
        same = ids[1:] == ids[:-1]
        if (same & (times[1:] < times[:-1])).any():
            again = np.lexsort((times, ids))
            rows = rows[again]
            ids, times = ids[again], times[again]
        count("older", int((times < latest.time[ids]).sum()))
        last = np.concatenate((~same, [True]))
        rows, of_ids, of_times = rows[last], ids[last].astype(np.int64), times[last]
        known = latest.time[of_ids]
        keep = of_times >= known
        if not keep.any():
            return None
        rows, of_ids, of_times, known = rows[keep], of_ids[keep], of_times[keep], known[keep]
        values, qualities = value[rows] + 0.0, quality[rows]
        good = ((qualities & INVALID_BIT) == 0) & ~np.isnan(values)
        latest.time[of_ids] = of_times
        latest.value[of_ids] = np.where(good, values, 0.0)
        latest.good[of_ids] = good
        latest.doubtful[of_ids] = (qualities & 3) != 0
        latest.seen[of_ids] = now_ns
        new = known == NEVER
        return Heard(of_ids, of_ids, rows, new if new.any() else None)
