"""Only readings that changed: what stays within a band around the last one that was passed on is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from ringmain.flows.block import Block, Bools, Floats, Ids, Ints, Qualities
from ringmain.flows.compiled import FAST, compiled
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering import Ordering, TellsOrdered
from ringmain.flows.ordering_rows import Ordered, kept
from ringmain.flows.ordering_settings import OrderedSettings, duration_errors
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.step import Context, Findings, Plan, Shape, Step, StepState, Surroundings
from ringmain.flows.sweep import Places
from ringmain.model.duration import parse_duration

_LARGEST = np.finfo(np.float64).max
_FOREVER = 2**63 - 1


class DeadbandSettings(OrderedSettings, frozen=True, tag="deadband"):
    """Passes a reading on when it differs from the last one passed on by more than a band, and leaves it out else.

    Whoever takes each value to hold until the next one is therefore never wrong by more than the band. A reading is
    passed on in any case when it is its series' first, when its quality differs from that of the last one passed on, and
    when it is invalid. What is left out is counted as `suppressed`. With both `absolute` and `percent` the wider band
    counts: the absolute one for small values, percent for large ones.
    """

    absolute: Annotated[
        float | None, msgspec.Meta(description="width of the band to either side, in the unit of the values")
    ] = None
    percent: Annotated[
        float | None,
        msgspec.Meta(description="width of the band to either side, in percent of the last value passed on"),
    ] = None
    max_interval: Annotated[
        str | None,
        msgspec.Meta(description="pass a reading on at least when it is so much newer than the last one"),
    ] = None

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = super().check()
        if self.absolute is None and self.percent is None:
            errors.append(("absolute", "expected `absolute` or `percent`, found neither"))
        if self.absolute is not None and not 0 <= self.absolute < math.inf:
            errors.append(("absolute", f"expected a width of 0 or more, found {self.absolute}"))
        if self.percent is not None and not 0 < self.percent <= 100:
            errors.append(("percent", f"expected more than 0 and at most 100, found {self.percent}"))
        wrong = duration_errors(self, ("max_interval",))
        if not wrong and self.max_interval is not None and parse_duration(self.max_interval) <= 0:
            wrong.append(("max_interval", f"expected more than 0s, found {self.max_interval}"))
        return errors + wrong, warnings

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """The same rows, fewer of them."""
        shape.need_readings("deadband")
        return Plan(shape.changed(late_safe=False), self.late_streams(around))

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return Deadband(self, context)


class Deadband(TellsOrdered):
    """The step. By series: time, value and quality of the last reading passed on (NaN: none, or it was no number)."""

    _BY_SERIES = ("time", "value", "quality")

    def __init__(self, settings: DeadbandSettings, context: Context) -> None:
        self._context = context
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._absolute = settings.absolute or 0.0
        self._share = (settings.percent or 0.0) / 100.0
        self._interval_ns = (
            _FOREVER if settings.max_interval is None else parse_duration(settings.max_interval)
        )
        self._time: Ints = np.empty(0, np.int64)
        self._value: Floats = np.empty(0)
        self._quality: Qualities = np.empty(0, np.uint16)

    def take(self, block: Block) -> Sequence[Block]:
        """Collect."""
        self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """What changed in the instant that has ended."""
        ordered = self._ordering.release(now_ns)
        late = self._ordering.late_blocks()
        if ordered is None:
            return late
        if ordered.size > len(self._time):
            size = max(ordered.size, 2 * len(self._time))
            self._time = grown(self._time, size, NEVER)
            self._value = grown(self._value, size, np.nan)
            self._quality = grown(self._quality, size, 0)
        passed = self._passed(ordered)
        count = int(passed.sum())
        self._context.count("suppressed", len(ordered) - count)
        if not count:
            return late
        return [*late, ordered.block(None if count == len(ordered) else passed, now_ns)]

    def _passed(self, ordered: Ordered) -> Bools:
        """Which of the rows are passed on; takes note of them."""
        bounds = self._absolute, self._share, self._interval_ns
        state = self._time, self._value, self._quality
        if FAST or ordered.narrow:
            return choose_rows(ordered.series, ordered.time, ordered.value, ordered.quality, *bounds, *state)
        passed = np.ones(len(ordered), np.bool_)
        for turn in ordered.rounds():
            rows, places = turn.rows, turn.series
            passed[rows] = choose_round(
                places, ordered.time[rows], ordered.value[rows], ordered.quality[rows], *bounds, *state
            )
        return passed

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            **self._ordering.state(),
            "time": self._time,
            "value": self._value,
            "quality": self._quality,
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._ordering.restore(state)
        self._time = kept(state, "time", np.int64)
        self._value = kept(state, "value", np.float64)
        self._quality = kept(state, "quality", np.uint16)


@compiled
def choose_rows(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    absolute: float,
    share: float,
    interval_ns: int,
    last_time: Ints,
    last_value: Floats,
    last_quality: Qualities,
) -> Bools:
    """Which readings, in order of series and time, are passed on; they become the last ones of their series."""
    passed = np.zeros(len(series), np.bool_)
    for row in range(len(series)):
        place = series[row]
        before = last_value[place]
        band = min(max(absolute, share * abs(before)), _LARGEST)
        within = abs(value[row] - before) <= band
        same = quality[row] == last_quality[place] and quality[row] & INVALID_BIT == 0
        if not within or not same or time[row] - last_time[place] >= interval_ns:
            passed[row] = True
            last_time[place] = time[row]
            last_value[place] = value[row]
            last_quality[place] = quality[row]
    return passed


def choose_round(
    places: Places,
    time: Ints,
    value: Floats,
    quality: Qualities,
    absolute: float,
    share: float,
    interval_ns: int,
    last_time: Ints,
    last_value: Floats,
    last_quality: Qualities,
) -> Bools:
    """As `choose_rows`, for readings of which no two belong to one series."""
    before = last_value[places]
    band: float | Floats = absolute
    if share:
        band = np.minimum(np.maximum(absolute, share * np.abs(before)), _LARGEST)
    passed: Bools = ~(np.abs(value - before) <= band)
    passed |= quality != last_quality[places]
    passed |= (quality & INVALID_BIT) != 0
    if interval_ns != _FOREVER:
        passed |= time - last_time[places] >= interval_ns
    if isinstance(places, slice):
        np.copyto(last_time[places], time, where=passed)
        np.copyto(last_value[places], value, where=passed)
        np.copyto(last_quality[places], quality, where=passed)
    else:
        chosen = places[passed]
        last_time[chosen] = time[passed]
        last_value[chosen] = value[passed]
        last_quality[chosen] = quality[passed]
    return passed
