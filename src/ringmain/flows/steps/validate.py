"""Readings that cannot be right are marked as such, and stay what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np

from ringmain.flows.block import Block, Floats, Ints, Qualities
from ringmain.flows.compiled import FAST
from ringmain.flows.ordering import Ordering, TellsOrdered
from ringmain.flows.ordering_rows import Ordered, kept
from ringmain.flows.ordering_settings import OrderedSettings, duration_errors
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.step import Context, Findings, Plan, Shape, Stateless, Step, StepState, Surroundings
from ringmain.flows.validation import MAD_TO_DEVIATION, Before, Rule, Rules, check_round, check_rows
from ringmain.model.duration import parse_duration
from ringmain.model.quality import VALIDITY_MASK, Quality

SPIKE_VALUES_MIN, SPIKE_VALUES_MAX = 3, 64
_BITS = {
    Rule.RANGE: Quality.OUT_OF_RANGE,
    Rule.RATE: Quality.INCONSISTENT,
    Rule.STUCK: Quality.OLD_DATA,
    Rule.SPIKE: Quality.INCONSISTENT,
}


class Verdict(StrEnum):
    """What a reading becomes that breaks a rule."""

    QUESTIONABLE = "questionable"
    INVALID = "invalid"


class RatePer(StrEnum):
    """The time that `max_rate` is for."""

    SECOND = "s"
    MINUTE = "min"
    HOUR = "h"


_PER_NS = {RatePer.SECOND: 1e9, RatePer.MINUTE: 60e9, RatePer.HOUR: 3600e9}


class ValidateSettings(OrderedSettings, frozen=True, tag="validate", rename={"as_": "as"}):
    """Marks readings that break a rule: their quality becomes questionable or invalid, and a bit tells the kind of rule.

    | rule | breaks it | quality bit | counted as |
    |---|---|---|---|
    | `min`, `max` | a value outside | OUT_OF_RANGE | `range` |
    | `max_rate` | a change since the reading before that is faster | INCONSISTENT | `rate` |
    | `stuck` | a value that has been the same for longer | OLD_DATA | `stuck` |
    | `spike` | a value far from the median of the last ones, beside their spread | INCONSISTENT | `spike` |

    No value is ever altered, and no reading left out. A reading that is invalid already or NaN is passed on as it is, and no
    other one is compared with it. A reading that breaks a rule is one that the next is compared with all the same: otherwise
    nothing would be believed any more after a true jump. With `min` and `max` alone each reading is looked at by itself, and
    late ones are no matter.
    """

    min: Annotated[float | None, msgspec.Meta(description="the lowest value that can be right")] = None
    max: Annotated[float | None, msgspec.Meta(description="the highest value that can be right")] = None
    max_rate: Annotated[
        float | None,
        msgspec.Meta(description="the fastest change that can be right, in the unit of the values by `per`"),
    ] = None
    per: Annotated[RatePer, msgspec.Meta(description="the time that `max_rate` is for: s, min or h")] = (
        RatePer.SECOND
    )
    stuck: Annotated[
        str | None,
        msgspec.Meta(description="a value that stays the same for longer is not believed, e.g. 6h"),
    ] = None
    stuck_except: Annotated[
        float | None, msgspec.Meta(description="a value that may stay the same, e.g. 0 for feed-in at night")
    ] = None
    spike: Annotated[
        float | None,
        msgspec.Meta(
            description="how many times the median absolute deviation (times 1.4826) a value may be from the median, e.g. 6"
        ),
    ] = None
    spike_values: Annotated[
        int, msgspec.Meta(description="how many values before it a spike is compared with, 3 to 64")
    ] = 11
    spike_floor: Annotated[
        float,
        msgspec.Meta(description="a value that is no further than this from the median is never a spike"),
    ] = 0.0
    as_: Annotated[
        Verdict,
        msgspec.Meta(description="what a reading becomes that breaks a rule: questionable or invalid"),
    ] = Verdict.QUESTIONABLE

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = super().check()
        if all(rule is None for rule in (self.min, self.max, self.max_rate, self.stuck, self.spike)):
            errors.append(("min", "expected a rule: min, max, max_rate, stuck or spike"))
        for key in ("min", "max"):
            number = getattr(self, key)
            if number is not None and math.isnan(number):
                errors.append((key, "expected a number, found nan"))
        if self.min is not None and self.max is not None and self.min > self.max:
            errors.append(("max", f"expected at least `min` ({self.min}), found {self.max}"))
        for key in ("max_rate", "spike"):
            number = getattr(self, key)
            if number is not None and not 0 < number < math.inf:
                errors.append((key, f"expected more than 0, found {number}"))
        if not SPIKE_VALUES_MIN <= self.spike_values <= SPIKE_VALUES_MAX:
            errors.append(
                (
                    "spike_values",
                    f"expected {SPIKE_VALUES_MIN} to {SPIKE_VALUES_MAX}, found {self.spike_values}",
                )
            )
        if not 0 <= self.spike_floor < math.inf:
            errors.append(("spike_floor", f"expected 0 or more, found {self.spike_floor}"))
        return errors + duration_errors(self, ("stuck",)), warnings

    @property
    def remembers(self) -> bool:
        """Whether a reading is compared with those before it."""
        return self.max_rate is not None or self.stuck is not None or self.spike is not None

    @property
    def rules(self) -> Rules:
        """What is allowed."""
        return Rules(
            lowest=-math.inf if self.min is None else self.min,
            highest=math.inf if self.max is None else self.max,
            rate=math.inf if self.max_rate is None else self.max_rate / _PER_NS[self.per],
            stuck_ns=2**63 - 1 if self.stuck is None else parse_duration(self.stuck),
            except_value=math.nan if self.stuck_except is None else self.stuck_except,
            values=0 if self.spike is None else self.spike_values,
            factor=math.inf if self.spike is None else self.spike * MAD_TO_DEVIATION,
            floor=self.spike_floor,
        )

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """The same rows, some with another quality."""
        shape.need_readings("validate")
        if not self.remembers:
            return Plan(shape)
        return Plan(shape.changed(late_safe=False), self.late_streams(around))

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return Validate(self, context) if self.remembers else ValidateRange(self, context)


class _Marks:
    """Makes qualities of broken rules, and counts."""

    def __init__(self, settings: ValidateSettings, context: Context) -> None:
        self._context = context
        verdict = Quality.INVALID if settings.as_ is Verdict.INVALID else Quality.QUESTIONABLE
        bits = np.zeros(16, np.uint16)
        for rules in range(1, 16):
            for rule, bit in _BITS.items():
                if rules & rule:
                    bits[rules] |= int(bit)
            bits[rules] |= int(verdict)
        self._bits = bits
        self._clear = np.uint16(0xFFFF & ~VALIDITY_MASK)

    def marked(self, quality: Qualities, broken: Ints) -> Qualities | None:
        """The qualities with what the broken rules add; None: nothing."""
        rows = np.flatnonzero(broken > 0)
        if not len(rows):
            return None
        rules = broken[rows]
        for rule in Rule:
            self._context.count(str(rule.name).lower(), int(((rules & rule) != 0).sum()))
        new = quality.copy()
        bits = self._bits[rules]
        before = quality[rows]
        invalid = (bits & INVALID_BIT) != 0
        new[rows] = np.where(invalid, before & self._clear, before) | bits
        return new


class ValidateRange(Stateless):
    """The step with `min` and `max` only."""

    def __init__(self, settings: ValidateSettings, context: Context) -> None:
        self._rules = settings.rules
        self._marks = _Marks(settings, context)

    def take(self, block: Block) -> Sequence[Block]:
        """Mark what is outside."""
        value: Floats = block.value
        outside = (value < self._rules.lowest) | (value > self._rules.highest)
        if not outside.any():
            return (block,)
        outside &= (block.quality & INVALID_BIT) == 0
        quality = self._marks.marked(block.quality, outside.astype(np.int64))
        return (block if quality is None else block.with_column("quality", quality),)


class Validate(TellsOrdered):
    """The step."""

    _BY_SERIES = ("last_time", "last_value", "since", "count", "ring")

    def __init__(self, settings: ValidateSettings, context: Context) -> None:
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._rules = settings.rules
        self._marks = _Marks(settings, context)
        self._before = Before(self._rules.values)

    def take(self, block: Block) -> Sequence[Block]:
        """Collect."""
        self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The readings of the instant that has ended, marked."""
        ordered = self._ordering.release(now_ns)
        out = self._ordering.late_blocks()
        if ordered is None:
            return out
        self._before.reserve(ordered.size)
        quality = self._marks.marked(ordered.quality, self._broken(ordered))
        out.append(ordered.block(None, now_ns, quality))
        return out

    def _broken(self, ordered: Ordered) -> Ints:
        rules, before = self._rules, self._before
        if FAST or ordered.narrow:
            return check_rows(
                ordered.series,
                ordered.time,
                ordered.value,
                ordered.quality,
                rules.lowest,
                rules.highest,
                rules.rate,
                rules.stuck_ns,
                rules.except_value,
                rules.values,
                rules.factor,
                rules.floor,
                before.last_time,
                before.last_value,
                before.since,
                before.count,
                before.ring,
            )
        broken = np.zeros(len(ordered), np.int64)
        for turn in ordered.rounds():
            rows = turn.rows
            broken[rows] = check_round(
                turn.series, ordered.time[rows], ordered.value[rows], ordered.quality[rows], rules, before
            )
        return broken

    def state(self) -> StepState:
        """Everything remembered."""
        before = self._before
        return {
            **self._ordering.state(),
            "last_time": before.last_time,
            "last_value": before.last_value,
            "since": before.since,
            "count": before.count,
            "ring": before.ring,
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._ordering.restore(state)
        before = self._before
        before.last_time = kept(state, "last_time", np.int64)
        before.last_value = kept(state, "last_value", np.float64)
        before.since = kept(state, "since", np.int64)
        before.count = kept(state, "count", np.int64)
        before.ring = kept(state, "ring", np.float64)
