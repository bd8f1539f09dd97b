"""Gaps become visible, and where that is wanted something stands in for the readings that did not come."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import numpy as np

from ringmain.flows.attributes import ATTRIBUTES
from ringmain.flows.block import Block, Bools, Floats, Ids, Ints, Qualities
from ringmain.flows.gaps import BY_SERIES, Gaps, Missing
from ringmain.flows.ordering import Ordering
from ringmain.flows.ordering_rows import readings_in_order
from ringmain.flows.ordering_settings import duration_errors, durations_told
from ringmain.flows.picture import Picture
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    Step,
    StepSettings,
    StepState,
    Surroundings,
)
from ringmain.flows.substitutes import Profile, ProfileError, Week
from ringmain.model.duration import parse_duration
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING

SLOTS_MAX = 10_000
"""Slots of one gap that are told at most: `max_fill` divided by the shortest interval."""
_INTERVAL_MIN_NS = 1_000_000_000
_WEEK_NS = 7 * 86_400_000_000_000
_ESTIMATED = np.uint16(Quality.ESTIMATED)
_MARKED = np.uint16(Quality.ESTIMATED | Quality.INVALID | Quality.OLD_DATA)
_Columns = tuple[Ids, Ints, Floats, Qualities]


class FillMethod(StrEnum):
    """What stands in for a missing reading."""

    MARK = "mark"
    PREVIOUS = "previous"
    LINEAR = "linear"
    LAST_WEEK = "last-week"
    PROFILE = "profile"


class FillSettings(StepSettings, frozen=True, tag="fill"):
    """Passes every reading on, and adds a row for each slot of time in which a series should have reported and did not.

    A slot is one `interval`, aligned to the UTC epoch; the row stands at its beginning. A missing slot is told as soon as a
    newer reading comes, or when log time is `grace` past its end, so that a meter which is silent has its gaps as well.

    | `method` | what stands in |
    |---|---|
    | `mark` | nothing: the row has no value (NaN), quality invalid, estimated and OLD_DATA |
    | `previous` | the value before the gap |
    | `linear` | the straight line across the gap; before its end is known, a mark |
    | `last-week` | what was measured at the same local time seven days before; a mark where nothing was |
    | `profile` | the value of a table by day and local time of day |

    Values that stand in have the quality origin estimated. When the real reading comes late it is passed on and replaces what
    stood in, as a row of the same series and time; if it stands elsewhere in its slot, the row at the slot's beginning is
    taken back (by a mark). That works for the gap that is open and for the last one before the newest reading of a series;
    in older gaps only a reading at the slot's very beginning replaces what stood in. A reading that is invalid or no finite
    number does not settle its slot: what stood in is written again after it, as far as it can be told once more (not a line,
    nor a value before a gap that has ended).

    Counted are slots: `received` (by a reading in order), `formed`, `marked`, `taken_back`, and `left_open` beyond `max_fill`.
    Columns other than series, time, value and quality are left behind.
    """

    interval: Annotated[str, msgspec.Meta(description="how often a series is expected to report, e.g. 15m")]
    by: Annotated[
        str | None,
        msgspec.Meta(
            description="attribute of the catalogue by which series have other intervals, e.g. medium"
        ),
    ] = None
    intervals: Annotated[
        dict[str, str],
        msgspec.Meta(
            description="interval by value of that attribute; 0s: none is expected, e.g. { gas = '1h' }"
        ),
    ] = msgspec.field(default_factory=dict)
    method: Annotated[
        FillMethod, msgspec.Meta(description="what stands in: mark, previous, linear, last-week or profile")
    ] = FillMethod.MARK
    profile: Annotated[
        str | None,
        msgspec.Meta(
            description="with method profile: CSV file with columns day (monday ... sunday, workday, weekend, all), time "
            "(HH:MM, local) and value"
        ),
    ] = None
    grace: Annotated[
        str,
        msgspec.Meta(
            description="how long after the end of its slot a reading may come before it is missing"
        ),
    ] = "1m"
    max_fill: Annotated[
        str | None,
        msgspec.Meta(
            description="a gap is told for so long after the reading before it; default 7d, or 10,000 intervals if shorter"
        ),
    ] = None

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors = duration_errors(self, ("interval", "grace", "max_fill"))
        lengths = [] if errors else [self.interval_ns]
        for name, text in self.intervals.items():
            try:
                length = parse_duration(text)
            except ValueError as error:
                errors.append(("intervals", f"{name}: {error}"))
                continue
            if length:
                lengths.append(length)
        if lengths and min(lengths) < _INTERVAL_MIN_NS:
            errors.append(("interval", "expected intervals of 1s or more"))
        elif not errors and not max(lengths) <= self.max_fill_ns <= SLOTS_MAX * min(lengths):
            errors.append(
                (
                    "max_fill",
                    f"expected one to {SLOTS_MAX} intervals, found {self.max_fill or '7d'} with {self.interval}",
                )
            )
        if self.by is not None and self.by not in ATTRIBUTES:
            errors.append(("by", f"expected one of {', '.join(ATTRIBUTES)}, found {self.by!r}"))
        if bool(self.intervals) != (self.by is not None):
            errors.append(("intervals", "expected `by` and `intervals` together"))
        if (self.profile is not None) != (self.method is FillMethod.PROFILE):
            errors.append(("profile", "expected a file with method profile, and only there"))
        return errors, []

    @property
    def interval_ns(self) -> int:
        """See `interval`."""
        return parse_duration(self.interval)

    @property
    def max_fill_ns(self) -> int:
        """See `max_fill`."""
        if self.max_fill is None:
            return min(_WEEK_NS, SLOTS_MAX * self.interval_min_ns)
        return parse_duration(self.max_fill)

    @property
    def interval_min_ns(self) -> int:
        """The shortest interval of any series."""
        others = [length for text in self.intervals.values() if (length := parse_duration(text))]
        return min([self.interval_ns, *others])

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results: `60s` and `1m` are the same; of the profile its content; and the time zone."""
        told = durations_told(super().definition(around), ("interval", "grace"))
        told["intervals"] = {name: parse_duration(text) for name, text in self.intervals.items()}
        told["max_fill"] = self.max_fill_ns
        if self.profile is not None:
            told["profile"] = hashlib.sha256((around.directory / self.profile).read_bytes()).hexdigest()
        if self.method in (FillMethod.LAST_WEEK, FillMethod.PROFILE):
            told["zone"] = around.zone.key
        return told

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Readings, and rows for those that are missing."""
        shape.need_readings("fill")
        if self.profile is not None:
            try:
                Profile.read(around.directory / self.profile, around.zone)
            except ProfileError as error:
                raise PlanError("profile", str(error)) from None
        attributes = frozenset() if self.by is None else frozenset({self.by})
        return Plan(shape.changed(schema=READING, late_safe=False), attributes=attributes)

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return Fill(self, context)


class Fill:
    """The step."""

    def __init__(self, settings: FillSettings, context: Context) -> None:
        around = context.surroundings
        self._settings = settings
        self._context = context
        self._method = settings.method
        self._ordering = Ordering(context, late=None)
        self._gaps = Gaps(parse_duration(settings.grace), settings.max_fill_ns)
        self._week: Week | None = None
        self._profile: Profile | None = None
        if settings.method is FillMethod.LAST_WEEK:
            slots = settings.max_fill_ns // settings.interval_min_ns
            self._week = Week(settings.interval_min_ns, slots, around.zone)
        if settings.profile is not None:
            self._profile = Profile.read(around.directory / settings.profile, around.zone)
        self._version = -1
        self._lengths: Ints = np.empty(0, np.int64)

    def take(self, block: Block) -> Sequence[Block]:
        """Collect."""
        self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The readings of the instant that has ended, and what is missing now."""
        ordered = self._ordering.release(now_ns)
        parts: list[_Columns] = []
        touched: Ids = np.empty(0, np.uint32)
        if ordered is not None:
            self._learn_intervals(ordered.size)
            series, time, value, quality = ordered.series, ordered.time, ordered.value, ordered.quality
            parts.append((series, time, value, quality))
            valid = ((quality & INVALID_BIT) == 0) & np.isfinite(value)
            expected = self._gaps.interval[series] > 0
            standing = None if valid.all() else self._standing(series, time, valid, expected)
            valid &= expected
            if not valid.all():
                series, time, value = series[valid], time[valid], value[valid]
            if len(series):
                touched = series
                parts += self._received(series, time, value)
            if standing is not None and len(standing):
                parts.append(self._told(standing, time[:0], value[:0], marks_too=False))
        missing = self._gaps.overdue(now_ns, touched)
        if len(missing):
            parts.append(self._told(missing, touched[:0].astype(np.int64), np.empty(0)))
        parts = [part for part in parts if len(part[0])]
        if not parts:
            return ()
        if len(parts) == 1:
            return (readings_in_order(*parts[0], now_ns),)
        series, time, value, quality = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return (readings_in_order(series, time, value, quality, now_ns),)

    def _standing(self, series: Ids, time: Ints, valid: Bools, expected: Bools) -> Missing:
        """Slots of which something was told that stands in, and at whose beginning now an invalid reading came."""
        interval = np.where(expected, self._gaps.interval[series], 1)
        slot = time // interval
        starts = np.flatnonzero(
            np.concatenate(([True], (series[1:] != series[:-1]) | (slot[1:] != slot[:-1])))
        )
        settled = np.logical_or.reduceat(valid, starts)
        alone = starts[~settled & expected[starts] & (slot[starts] * interval[starts] == time[starts])]
        return self._gaps.standing(series[alone], slot[alone])

    def _received(self, series: Ids, time: Ints, value: Floats) -> list[_Columns]:
        """What follows from valid readings: rows for the gaps before them, and what is taken back."""
        gaps, count = self._gaps, self._context.count
        interval = gaps.interval[series]
        slot = time // interval
        if self._week is not None:
            count("not_remembered", self._week.learn(series, slot, value))
        missing, aside, received = gaps.received(series, time, value)
        count("received", received)
        count("taken_back", len(aside))
        count("left_open", gaps.left_open)
        gaps.left_open = 0
        back = (
            series[aside],
            slot[aside] * interval[aside],
            np.full(len(aside), math.nan),
            np.full(len(aside), _MARKED),
        )
        return [self._told(missing, time, value), back]

    def _told(self, missing: Missing, time: Ints, value: Floats, *, marks_too: bool = True) -> _Columns:
        """Rows for missing slots; `time`, `value`: of the readings after them."""
        interval = self._gaps.interval[missing.series]
        start = missing.slot * interval
        formed = np.full(len(missing), math.nan)
        if self._method is FillMethod.PREVIOUS:
            formed = missing.value_before
        elif self._method is FillMethod.LINEAR:
            inside = missing.after >= 0
            after = missing.after[inside]
            before, first = missing.value_before[inside], missing.time_before[inside]
            share = (start[inside] - first) / (time[after] - first)
            formed[inside] = before + (value[after] - before) * share
        elif self._week is not None:
            formed = self._week.ago(missing.series, missing.slot, interval)
        elif self._profile is not None:
            formed = self._profile.at(start)
        marks = ~np.isfinite(formed)
        formed = np.where(marks, math.nan, formed)
        wanted = ~missing.told
        if not marks_too:
            wanted &= ~marks
        if self._method is FillMethod.LINEAR:
            wanted |= ~marks
        quality: Qualities = np.where(marks, _MARKED, _ESTIMATED)
        self._context.count("formed", int((wanted & ~marks).sum()))
        self._context.count("marked", int((wanted & marks).sum()))
        return missing.series[wanted], start[wanted], formed[wanted], quality[wanted]

    def _learn_intervals(self, size: int) -> None:
        """The interval of every series below `size`, as the catalogue names it now."""
        attributes = self._context.attributes
        if size <= len(self._lengths) and attributes.version == self._version:
            return
        self._version = attributes.version
        size = max(size, len(self._lengths), len(self._gaps.interval))
        if size > len(self._lengths):
            size = max(size, 2 * len(self._lengths), 1024)
        lengths = np.full(size, self._settings.interval_ns, np.int64)
        if self._settings.by is not None:
            codes = attributes.codes(self._settings.by)[:size]
            special = self._settings.intervals
            by_code = np.array(
                [
                    parse_duration(special[text]) if text in special else self._settings.interval_ns
                    for text in attributes.texts(self._settings.by)
                ]
                + [self._settings.interval_ns],
                np.int64,
            )
            lengths[: len(codes)] = by_code[codes]
        self._lengths = lengths
        self._gaps.set_intervals(lengths)

    def state(self) -> StepState:
        """Everything remembered."""
        state = {**self._ordering.state(), **self._gaps.state()}
        return state if self._week is None else {**state, **self._week.state()}

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """What lies by series, and by place of the week's memory."""
        week: dict[str, Sequence[str]] = {} if self._week is None else {"week": ("week_slot", "week_value")}
        return {**self._ordering.tables(), "gaps": BY_SERIES, **week}

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say of series and places when they are about to be written to."""
        self._ordering.tell(pictures)
        self._gaps.picture = pictures.get("gaps")
        if self._week is not None:
            self._week.picture = pictures.get("week")

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._ordering.restore(state)
        self._gaps.restore(state)
        if self._week is not None:
            self._week.restore(state)
