"""The readings of an instant in order of series and time, for steps whose rows depend on one another.

Rows between two moves of log time are simultaneous: a step that compares a reading with the one before it must not see
how they were cut into frames. `Ordering` collects them (`take`) and gives them when log time has moved (`release`):

    order       by series, then time; readings of a series and time that came already stay what they were
    ahead       a time more than `max_ahead` ahead of the arrival takes no part and moves nothing; counted
    unusable    so does a time before 1900, or the id of no series; counted
    repeats     of the same series and time the newest in the log counts; one that is equal (value and quality) is
                counted as `duplicates`, another one as `replaced`
    late        a reading that is not newer than what was released for its series: to the stream `TO.late`, or
                dropped; counted. A repeat of the newest reading released counts as duplicate instead
    grace       a reading is held until its series has one that is newer by `grace`, or has been silent for `idle` of
                log time; without it everything is released at the end of its instant

What steps make of the readings is left to them; so is what an invalid value means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.block import Block, Floats, Ids, Ints, Qualities, numbers
from ringmain.flows.compiled import compiled, worth
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering_held import HeldRows
from ringmain.flows.ordering_rows import (
    Ordered,
    joined,
    kept,
    late_rows,
    restored,
    same_value,
    series_places,
    stored,
)
from ringmain.flows.ordering_settings import Lateness, late_stream
from ringmain.flows.picture import Picture
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.step import Context, StepState
from ringmain.flows.sweep import Known, own, stable_order

LATE_REASON = "not newer than a reading of the series that was worked on before"


class _Run:
    """What the series column alone says, kept for the next block with the same column."""

    __slots__ = ("order", "places", "raw", "series", "size", "unique")

    def __init__(self, series: Ids) -> None:
        self.raw: Ids = own(series)
        self.order: Ints | None = None
        if (series[1:] < series[:-1]).any():
            self.order = stable_order(series)
            series = series[self.order]
        self.series: Ids = self.raw if self.order is None else series
        self.size = int(self.series[-1]) + 1
        self.unique = not bool((series[1:] == series[:-1]).any())
        self.places = series_places(self.series) if self.unique else slice(0, 0)


_TOLD = ("ordering", "series")


class Ordering:
    """See the module. One for a step; `release` once in every `advance`, then `late_blocks`."""

    def __init__(
        self,
        context: Context,
        *,
        late: Lateness | None = Lateness.SIDE,
        grace_ns: int = 0,
        idle_ns: int = 30_000_000_000,
    ) -> None:
        """`late=None`: a late reading is released like any other, in its place among those of the instant."""
        self._context = context
        self._late = late
        self._stream = late_stream(context.surroundings)
        self._max_ahead_ns = context.surroundings.max_ahead_ns
        self._now = NEVER
        self._pending: list[Block] = []
        self._late_rows: list[Block] = []
        self._runs: Known[_Run] = Known()
        self._time: Ints = np.empty(0, np.int64)
        """By series: time of the newest reading released; beside it value and quality."""
        self._value: Floats = np.empty(0)
        self._quality: Qualities = np.empty(0, np.uint16)
        self._held = HeldRows(grace_ns, idle_ns) if grace_ns else None
        self._pictures: tuple[Picture, ...] = ()

    @property
    def newest(self) -> Ints:
        """By series: time of the newest reading released, NEVER (-2**63) for none. Series may lie beyond its end."""
        return self._time

    def take(self, block: Block) -> None:
        """Rows of the present instant."""
        if len(block):
            self._pending.append(block)

    def release(self, now_ns: int) -> Ordered | None:
        """What can be worked on now that the instant has ended and log time is `now_ns`; None: nothing."""
        before, self._now = self._now, now_ns
        blocks, self._pending = self._pending, []
        if not blocks and (self._held is None or now_ns < self._held.idle_at):
            return None
        if len(blocks) == 1 and self._held is None:
            whole = self._whole(blocks[0], before)
            if whole is not None:
                return whole
        ordered = self._sorted(blocks, before, now_ns)
        if ordered is not None:
            last = np.flatnonzero(np.concatenate((ordered.series[1:] != ordered.series[:-1], [True])))
            series = ordered.series[last]
            self.before(series)
            if self._late is None:
                last = last[ordered.time[last] >= self._time[series]]
                series = ordered.series[last]
            self._time[series] = ordered.time[last]
            self._value[series] = ordered.value[last]
            self._quality[series] = ordered.quality[last]
        return ordered

    def late_blocks(self) -> list[Block]:
        """Late readings of the last `release`, for their stream, in the order in which they came."""
        late, self._late_rows = self._late_rows, []
        return late

    # One block, each series once and newer than before: a fleet that reports in rounds

    def _whole(self, block: Block, before_ns: int) -> Ordered | None:
        series, time, value, quality = block.columns
        run = self._runs.find(series)
        if run is None:
            if int(series.max()) >= SERIES_MAX:
                return None
            run = _Run(series)
            self._runs.add(run)
            self._reserve(run.size)
        if not run.unique:
            return None
        limit = _arrival(block, before_ns) + self._max_ahead_ns
        order, places = run.order, run.places
        if order is not None:
            time, value, quality = time[order], value[order], quality[order]
        self.before(places)
        newest = self._time, self._value, self._quality
        if not isinstance(places, slice) and worth(len(time)):
            for column in (
                run.series,
                time,
                value,
                quality,
            ):  # the loop is compiled for one kind of array only
                column.flags.writeable = False
            if not take_newer(run.series, time, value, quality, limit, *newest):
                return None
        else:
            if int(time.max()) > limit or int(time.min()) < EARLIEST_NS:
                return None
            if not (time > self._time[places]).all():
                return None
            self._time[places] = time
            self._value[places] = value
            self._quality[places] = quality
        return Ordered(run.series, time, value, quality, run.size, True, places, block.rows, order)

    # Anything else

    def _sorted(self, blocks: list[Block], before_ns: int, now_ns: int) -> Ordered | None:
        accepted = self._accepted(blocks, before_ns)
        parts = [] if accepted is None else [accepted.rows]
        if self._held is not None:
            parts, crowded = self._held.let_go(now_ns)
            if crowded:
                self._context.count("crowded", sum(part.num_rows for part in parts))
        if not parts:
            return None
        rows = joined(parts)
        index = self._distinct(rows)
        series = numbers(rows, "series", np.uint32)[index]
        unique = not bool((series[1:] == series[:-1]).any())
        return Ordered(
            series,
            numbers(rows, "time", np.int64)[index],
            numbers(rows, "value", np.float64)[index],
            numbers(rows, "quality", np.uint16)[index],
            int(series[-1]) + 1,
            unique,
            series_places(series) if unique else slice(0, 0),
            rows,
            index,
        )

    def _accepted(self, blocks: list[Block], before_ns: int) -> Block | None:
        """The rows of the instant that take part, in log order."""
        if not blocks:
            return None
        count = self._context.count
        whole = Block(joined([block.rows for block in blocks]), 0)
        lengths = [len(block) for block in blocks]
        arrival = np.repeat(np.array([_arrival(block, before_ns) for block in blocks], np.int64), lengths)
        series, time, value, quality = whole.series, whole.time, whole.value, whole.quality
        unusable = (time < EARLIEST_NS) | (series >= SERIES_MAX)
        ahead = (time > arrival + self._max_ahead_ns) & ~unusable
        count("unusable", int(unusable.sum()))
        count("ahead", int(ahead.sum()))
        keep = ~(unusable | ahead)
        if not keep.any():
            return None
        self._reserve(int(series[keep].max()) + 1)
        places = np.where(keep, series, 0)
        newest = self._time[places]
        old = keep & (time <= newest)
        if old.any():
            repeats = old & (time == newest) & same_value(value, self._value[places])
            repeats &= quality == self._quality[places]
            count("duplicates", int(repeats.sum()))
            late = old & ~repeats
            count("late", int(late.sum()))
            if self._late is None:
                old = repeats
            elif self._late is Lateness.SIDE and late.any():
                self._late_rows.append(late_rows(whole.take(late), arrival[late], LATE_REASON, self._stream))
            keep &= ~old
        if not keep.all():
            whole, series, time, arrival = whole.take(keep), series[keep], time[keep], arrival[keep]
        if not len(whole):
            return None
        if self._held is not None:
            self._held.add(whole, np.maximum(arrival, before_ns))
        return whole

    def _distinct(self, rows: pa.RecordBatch) -> Ints:
        """The rows in order of series and time, of each series and time the newest."""
        series, time = numbers(rows, "series", np.uint32), numbers(rows, "time", np.int64)
        order: Ints = stable_order(series)
        series, time = series[order], time[order]
        same = series[1:] == series[:-1]
        if (same & (time[1:] <= time[:-1])).any():
            again = np.lexsort((time, series))
            order, time = order[again], time[again]
            repeated = same & (time[1:] == time[:-1])
            if repeated.any():
                value = numbers(rows, "value", np.float64)[order]
                quality = numbers(rows, "quality", np.uint16)[order]
                equal = repeated & same_value(value[1:], value[:-1]) & (quality[1:] == quality[:-1])
                duplicates = int(equal.sum())
                self._context.count("duplicates", duplicates)
                self._context.count("replaced", int(repeated.sum()) - duplicates)
                kept_rows = np.concatenate((~repeated, [True]))
                order = order[kept_rows]
        return order

    def _reserve(self, size: int) -> None:
        if size <= len(self._time):
            return
        size = max(size, min(2 * len(self._time), len(self._time) + 262_144), 1024)
        self._time = grown(self._time, size, NEVER)
        self._value = grown(self._value, size, np.nan)
        self._quality = grown(self._quality, size, 0)
        if self._held is not None:
            self._held.reserve(size)

    # State

    def before(self, places: slice | NDArray[np.integer]) -> None:
        """The step is about to write to these series; `release` says so of those that it gives."""
        for picture in self._pictures:
            picture.before(places)

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say from now on of series when they are about to be written to, here and by the step."""
        self._pictures = tuple(pictures[table] for table in _TOLD if table in pictures)
        if self._held is not None:
            self._held.picture = pictures.get("held")

    def tables(self) -> dict[str, Sequence[str]]:
        """What of its state lies by series; those of the step go by the name `series`."""
        tables: dict[str, Sequence[str]] = {
            "ordering": ("ordering_time", "ordering_value", "ordering_quality")
        }
        return tables if self._held is None else {**tables, "held": ("held_newest", "held_seen")}

    def state(self) -> StepState:
        """Everything remembered, with names that start with `ordering_`."""
        arrivals = [(block.arrival_ns, len(block)) for block in self._pending]
        state: StepState = {
            "ordering_moments": np.array([self._now], np.int64),
            "ordering_time": self._time,
            "ordering_value": self._value,
            "ordering_quality": self._quality,
            "ordering_pending": stored([block.rows for block in self._pending]),
            "ordering_arrivals": np.array(arrivals, np.int64).ravel(),
        }
        if self._held is not None:
            state.update(self._held.state())
        return state

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave; other names may be among it."""
        self._now = int(kept(state, "ordering_moments", np.int64)[0])
        self._time = kept(state, "ordering_time", np.int64)
        self._value = kept(state, "ordering_value", np.float64)
        self._quality = kept(state, "ordering_quality", np.uint16)
        rows = restored(state["ordering_pending"])
        start = 0
        for arrival, length in kept(state, "ordering_arrivals", np.int64).reshape(-1, 2).tolist():
            assert rows is not None
            self._pending.append(Block(rows.slice(start, length), arrival))
            start += length
        if self._held is not None:
            self._held.restore(state)


@compiled
def take_newer(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    limit_ns: int,
    newest_time: Ints,
    newest_value: Floats,
    newest_quality: Qualities,
) -> bool:
    """Take over readings, one a series; False, and nothing is done, if one is not newer or its time impossible."""
    for row in range(len(series)):
        at = time[row]
        if at <= newest_time[series[row]] or at > limit_ns or at < EARLIEST_NS:
            return False
    for row in range(len(series)):
        place = series[row]
        newest_time[place] = time[row]
        newest_value[place] = value[row]
        newest_quality[place] = quality[row]
    return True


def _arrival(block: Block, instant_ns: int) -> int:
    """The arrival of rows of an instant; those that a step before formed at its end belong to the instant as well."""
    return block.arrival_ns if instant_ns == NEVER else min(block.arrival_ns, instant_ns)


class TellsOrdered:
    """`TellsWrites` for a step whose arrays by series (`_BY_SERIES`) are written to where `Ordering.before` says so."""

    _BY_SERIES: ClassVar[tuple[str, ...]] = ()
    _ordering: Ordering

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """What lies by series."""
        return {**self._ordering.tables(), "series": self._BY_SERIES}

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say of series when they are about to be written to."""
        self._ordering.tell(pictures)
