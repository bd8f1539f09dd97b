"""Few readings with straight lines between them for many, never further off than a stated deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from ringmain.flows.block import Block, Bools, Floats, Ids, Ints, Qualities
from ringmain.flows.compiled import FAST
from ringmain.flows.growing import NEVER
from ringmain.flows.ordering import Ordering, TellsOrdered
from ringmain.flows.ordering_rows import Ordered, kept, readings_in_order
from ringmain.flows.ordering_settings import OrderedSettings, duration_errors
from ringmain.flows.step import Context, Findings, Plan, Shape, Step, StepState, Surroundings
from ringmain.flows.swinging import (
    HELD_TIME,
    PASSED,
    SEEN,
    Corridors,
    Passed,
    joined_parts,
    swing_round,
    swing_rows,
)
from ringmain.model.duration import parse_duration
from ringmain.model.schemas import READING

_FOREVER = 2**63 - 1
_DEVIATION_MIN = 1e-290
LOOK_EVERY_NS = 1_000_000_000
"""Held readings are looked at once in so much log time, and passed on if they have been held for long enough."""


class SwingingDoorSettings(OrderedSettings, frozen=True, tag="swinging-door"):
    """Passes on only the readings between which straight lines come close enough to all others (swinging door trending).

    Whoever draws straight lines between readings passed on is at no reading's time further from its value than the
    deviation; rounding is accounted for. What is passed on are readings as they were measured. The newest reading of a
    series is held until a later one shows whether it is needed; it is passed on when its series has been silent for
    `idle`, or by `max_interval` after the last one, by event time and by log time. A reading of another quality than the
    one before, or that is invalid or no finite number, is passed on, after the one held. Counted are `readings` and how many
    of them were `passed`. Columns other than series, time, value and quality are left behind.

    Source: E. H. Bristol, "Swinging door trending: adaptive trend recording?", ISA 1990; here the line to the newest
    reading is compared with every reading under it.
    """

    deviation: Annotated[
        float | None,
        msgspec.Meta(
            description="how far a line may be from a reading that is left out, in the unit of the values"
        ),
    ] = None
    percent: Annotated[
        float | None,
        msgspec.Meta(
            description="the same in percent of the value that the line begins with; instead of `deviation`"
        ),
    ] = None
    max_interval: Annotated[
        str | None,
        msgspec.Meta(description="readings passed on are no further apart, as far as there are any"),
    ] = None
    idle: Annotated[
        str,
        msgspec.Meta(
            description="the newest reading, which is held until a later one shows whether it is needed, is passed on when its "
            "series was silent for so long; so are readings held by `grace`"
        ),
    ] = "30s"

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = super().check()
        if (self.deviation is None) == (self.percent is None):
            errors.append(("deviation", "expected either `deviation` or `percent`"))
        if self.deviation is not None and not _DEVIATION_MIN <= self.deviation < math.inf:
            errors.append(("deviation", f"expected more than 0, found {self.deviation}"))
        if self.percent is not None and not 0 < self.percent <= 100:
            errors.append(("percent", f"expected more than 0 and at most 100, found {self.percent}"))
        wrong = duration_errors(self, ("max_interval",))
        if not wrong and self.max_interval is not None and parse_duration(self.max_interval) <= 0:
            wrong.append(("max_interval", f"expected more than 0s, found {self.max_interval}"))
        return errors + wrong, warnings

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Readings, fewer of them."""
        shape.need_readings("swinging-door")
        return Plan(shape.changed(schema=READING, late_safe=False), self.late_streams(around))

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return SwingingDoor(self, context)


class SwingingDoor(TellsOrdered):
    """The step."""

    _BY_SERIES = (*(f"{kind}_{place}" for kind in ("times", "values") for place in range(4)), "quality")

    def __init__(self, settings: SwingingDoorSettings, context: Context) -> None:
        self._context = context
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._deviation = settings.deviation or 0.0
        self._share = (settings.percent or 0.0) / 100.0
        self._interval_ns = (
            _FOREVER if settings.max_interval is None else parse_duration(settings.max_interval)
        )
        self._idle_ns = settings.idle_ns
        self._corridors = Corridors()
        self._scratch = scratch(0)
        self._looked_at = NEVER
        self._overdue_at = NEVER
        """No held reading is overdue before this log time."""

    def take(self, block: Block) -> Sequence[Block]:
        """Collect."""
        self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """What is known to be needed now that the instant has ended."""
        parts: list[Passed] = []
        ordered = self._ordering.release(now_ns)
        if ordered is not None:
            self._corridors.reserve(ordered.size)
            parts.append(self._swung(ordered, now_ns))
        if self._looked_at == NEVER or now_ns - self._looked_at >= LOOK_EVERY_NS:
            self._looked_at = now_ns
            if now_ns >= self._overdue_at:
                parts.append(self._overdue(now_ns))
        out = self._ordering.late_blocks()
        series, time, value, quality = joined_parts(parts)
        if ordered is not None:
            self._context.count("readings", len(ordered))
        if len(series):
            self._context.count("passed", len(series))
            out.append(readings_in_order(series, time, value, quality, now_ns))
        return out

    def _swung(self, ordered: Ordered, now_ns: int) -> Passed:
        corridors = self._corridors
        settings = now_ns, self._deviation, self._share, self._interval_ns
        state = corridors.times, corridors.values, corridors.quality
        if FAST or ordered.narrow:
            room = 2 * len(ordered)
            if room > len(self._scratch[0]):
                self._scratch = scratch(room)
            columns = ordered.series, ordered.time, ordered.value, ordered.quality
            series, time, value, quality = self._scratch
            count = swing_rows(*columns, *settings, *state, series, time, value, quality)
            return series[:count].copy(), time[:count].copy(), value[:count].copy(), quality[:count].copy()
        parts = []
        for turn in ordered.rounds():
            rows = turn.rows
            parts.append(
                swing_round(
                    turn.series,
                    ordered.time[rows],
                    ordered.value[rows],
                    ordered.quality[rows],
                    *settings,
                    *state,
                )
            )
        return joined_parts(parts)

    def _overdue(self, now_ns: int) -> Passed:
        """Held readings that have waited for long enough: they are passed on."""
        corridors = self._corridors
        times, values = corridors.times, corridors.values
        held = times[HELD_TIME] != NEVER
        due = times[SEEN] <= now_ns - self._idle_ns
        if self._interval_ns != _FOREVER:
            due |= times[PASSED] <= now_ns - self._interval_ns
        due &= held
        series = np.flatnonzero(due)
        self._ordering.before(series)
        base_time, held_time, _, passed = times
        base_value, held_value, low, high = values
        given = series.astype(np.uint32), held_time[series], held_value[series], corridors.quality[series]
        held[series] = False
        self._overdue_at = self._next_overdue(held, now_ns)
        base_time[series], base_value[series] = given[1], given[2]
        held_time[series] = NEVER
        passed[series] = now_ns
        low[series], high[series] = -np.inf, np.inf
        return given

    def _next_overdue(self, held: Bools, now_ns: int) -> int:
        """No held reading is overdue before; `held`: which there are, those that are overdue now left out.

        One that comes later was seen later; but what was passed on last may lie far back for any series.
        """
        times = self._corridors.times
        seen = int(times[SEEN].min(where=held, initial=now_ns))
        at = seen + self._idle_ns
        if self._interval_ns != _FOREVER:
            known = times[PASSED] != NEVER
            at = min(at, int(times[PASSED].min(where=known, initial=now_ns)) + self._interval_ns)
        return at

    def state(self) -> StepState:
        """Everything remembered."""
        corridors = self._corridors
        return {
            **self._ordering.state(),
            "looked_at": np.array([self._looked_at], np.int64),
            **{f"times_{place}": array for place, array in enumerate(corridors.times)},
            **{f"values_{place}": array for place, array in enumerate(corridors.values)},
            "quality": corridors.quality,
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._ordering.restore(state)
        corridors = self._corridors
        self._looked_at = int(kept(state, "looked_at", np.int64)[0])
        corridors.times = tuple(kept(state, f"times_{place}", np.int64) for place in range(4))
        corridors.values = tuple(kept(state, f"values_{place}", np.float64) for place in range(4))
        corridors.quality = kept(state, "quality", np.uint16)


def scratch(rows: int) -> tuple[Ids, Ints, Floats, Qualities]:
    """Room for readings, kept from one instant to the next: to ask the system for it each time costs more than the work."""
    return np.empty(rows, np.uint32), np.empty(rows, np.int64), np.empty(rows), np.empty(rows, np.uint16)
