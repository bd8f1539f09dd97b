"""Consumption, or power and flow, from the readings of registers that only count up."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block, arrow
from ringmain.flows.compiled import FAST, worth
from ringmain.flows.exchanges import Exchanges
from ringmain.flows.ordering import Ordering, TellsOrdered
from ringmain.flows.ordering_rows import Ordered, kept, readings_in_order
from ringmain.flows.ordering_settings import LATE_SHAPE, OrderedSettings, duration_errors
from ringmain.flows.registers import Break, Counted, Limits, Registers, count, count_round, count_whole
from ringmain.flows.step import Context, Findings, Plan, PlanError, Shape, Step, StepState, Surroundings
from ringmain.flows.totals import LATE
from ringmain.model.duration import parse_duration
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING
from ringmain.model.units import canonical_unit

_FOREVER = 2**63 - 1
SPLIT_MAX = 1000
"""Parts of one gap; a longer one is not split but questionable."""
_REASONS = {
    Break.EXCHANGE: "another device: the register begins anew",
    Break.JUMP: "implausible rise, confirmed by the next reading: the register begins anew",
    Break.RESET: "drop without a plausible roll-over, confirmed by the next reading: the register begins anew",
    Break.OUTLIER: "fits neither the reading before nor the one after",
    Break.GAP: "longer than `max_gap` since the reading before: the register begins anew",
}


class CounterOutput(StrEnum):
    """What the step gives for each reading."""

    CONSUMPTION = "consumption"
    RATE = "rate"


class Per(StrEnum):
    """The time that a rate is for."""

    SECOND = "s"
    HOUR = "h"


class ResetRule(StrEnum):
    """What a register did that reads less than before without having rolled over."""

    ZERO = "zero"
    SKIP = "skip"


class GapRule(StrEnum):
    """What becomes of consumption over an interval that is longer than `max_gap`."""

    QUESTIONABLE = "questionable"
    SPLIT = "split"
    SKIP = "skip"


class CounterSettings(OrderedSettings, frozen=True, tag="counter"):
    """What a register has counted between a reading and the one before it, at the time of the later one.

    A register that rolls over is followed (`digits` or `modulus`). A reading that is lower without a roll-over, or higher by
    more than is plausible, is not believed before the next one continues it: then the register begins anew with it; else it
    was an outlier. When the catalogue names another device for the series, the register begins anew at once. Nothing is
    invented across such a break; the reading goes to the stream `TO.breaks` with the reason. Readings that are invalid or
    no finite number are passed over (counted as `invalid`); the next interval spans them.

    Quality is that of both readings together, with origin calculated, or estimated where one of them was estimated or
    substituted. After a reset to zero the interval is questionable and inaccurate: what was counted before the reset is not
    known. Columns other than series, time, value and quality are left behind.
    """

    output: Annotated[
        CounterOutput,
        msgspec.Meta(description="consumption (of each interval) or rate (consumption by time)"),
    ] = CounterOutput.CONSUMPTION
    per: Annotated[
        Per,
        msgspec.Meta(
            description="the time that a rate (and `max_rate`) is for: s or h, e.g. h makes kW of kWh"
        ),
    ] = Per.HOUR
    digits: Annotated[
        int | None,
        msgspec.Meta(description="digits before the decimal point: it rolls over at 10 to that power"),
    ] = None
    modulus: Annotated[
        float | None, msgspec.Meta(description="the value at which it rolls over, instead of `digits`")
    ] = None
    max_rate: Annotated[
        float | None,
        msgspec.Meta(description="the highest plausible consumption by `per`, in the register's unit"),
    ] = None
    max_step: Annotated[
        float | None, msgspec.Meta(description="the highest plausible consumption between two readings")
    ] = None
    reset: Annotated[
        ResetRule,
        msgspec.Meta(description="after a reset: zero (it counted from zero) or skip (nothing is known)"),
    ] = ResetRule.SKIP
    max_gap: Annotated[str | None, msgspec.Meta(description="a longer interval is a gap")] = None
    gap: Annotated[
        GapRule,
        msgspec.Meta(
            description="consumption over a gap: questionable, split (into equal parts of at most `max_gap`, estimated) or "
            "skip (the register begins anew)"
        ),
    ] = GapRule.QUESTIONABLE

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors, warnings = super().check()
        if self.digits is not None and self.modulus is not None:
            errors.append(("modulus", "expected `digits` or `modulus`, found both"))
        if self.digits is not None and not 1 <= self.digits <= 15:
            errors.append(("digits", f"expected 1 to 15, found {self.digits}"))
        for key in ("modulus", "max_rate", "max_step"):
            number = getattr(self, key)
            if number is not None and not 0 < number < math.inf:
                errors.append((key, f"expected more than 0, found {number}"))
        wrong = duration_errors(self, ("max_gap",))
        if not wrong and self.max_gap is not None and parse_duration(self.max_gap) <= 0:
            wrong.append(("max_gap", f"expected more than 0s, found {self.max_gap}"))
        if self.max_gap is None and self.gap is not GapRule.QUESTIONABLE:
            wrong.append(("max_gap", f"expected a duration with `gap = {str(self.gap)!r}`, found none"))
        return errors + wrong, warnings

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Readings: consumption in the register's unit, or a rate in a unit that is told."""
        shape.need_readings("counter")
        unit = shape.unit
        if self.output is CounterOutput.RATE:
            if unit is None:
                raise PlanError(
                    "output",
                    "a rate has another unit than its series, and here each series has one of its own: "
                    "put a `convert` step with the unit of the registers, such as kWh, before `counter`",
                )
            unit = rate_unit(unit, self.per)
        after = shape.changed(schema=READING, unit=unit, late_safe=False)
        streams = {**self.late_streams(around), breaks_stream(around): LATE_SHAPE}
        return Plan(after, streams, frozenset({"device"}))

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        return Counter(self, context)

    @property
    def per_ns(self) -> int:
        """Length of the time that a rate is for."""
        return 3_600_000_000_000 if self.per is Per.HOUR else 1_000_000_000

    @property
    def limits(self) -> Limits:
        """What is plausible."""
        modulus = 10.0**self.digits if self.digits is not None else self.modulus or 0.0
        return Limits(
            math.inf if self.max_rate is None else self.max_rate / self.per_ns,
            math.inf if self.max_step is None else self.max_step,
            modulus,
            self.reset is ResetRule.ZERO,
            self.gap_ns if self.gap is GapRule.SKIP else _FOREVER,
        )

    @property
    def gap_ns(self) -> int:
        """See `max_gap`."""
        return _FOREVER if self.max_gap is None else parse_duration(self.max_gap)


def breaks_stream(around: Surroundings) -> str:
    """Where readings go at which a register began anew, and outliers."""
    return f"{around.to}.breaks"


def rate_unit(unit: str, per: Per) -> str:
    """The unit of a rate of something counted in `unit`. Raises PlanError where it has no name."""
    if per is Per.HOUR and re.fullmatch("[kMGT]?(W|VA|var|A)h", unit):
        return unit.removesuffix("h")
    if per is Per.SECOND and re.fullmatch("[kMGT]?J", unit):
        return unit.removesuffix("J") + "W"
    try:
        return canonical_unit(f"{unit}/{per}")
    except ValueError as error:
        raise PlanError("per", f"expected a unit with a rate by {per}, found {unit!r} ({error})") from None


class Counter(TellsOrdered):
    """The step."""

    _BY_SERIES = Registers.__slots__

    def __init__(self, settings: CounterSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._limits = settings.limits
        self._rate = settings.output is CounterOutput.RATE
        self._gap_ns = settings.gap_ns
        self._breaks = breaks_stream(context.surroundings)
        self._registers = Registers.new()
        self._scratch = Counted.room(0)
        self._exchanges = Exchanges(context.attributes)

    def take(self, block: Block) -> Sequence[Block]:
        """Collect."""
        self._ordering.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """What was counted up to the readings of the instant that has ended."""
        ordered = self._ordering.release(now_ns)
        out = self._ordering.late_blocks()
        exchanged = self._exchanges.found()
        if len(exchanged):
            self._registers.reserve(int(exchanged[-1]) + 1)
            self._ordering.before(exchanged)
            self._registers.exchanged[exchanged] = True
        if ordered is None:
            return out
        self._registers.reserve(ordered.size)
        counted = self._counted(ordered)
        note = self._context.count
        note("invalid", counted.invalid)
        note("rollovers", counted.rollovers)
        if len(counted.why):
            for why in Break:
                note(str(why.name).lower(), int((counted.why == why).sum()))
            out.append(self._broken(counted, now_ns))
        if len(counted.series):
            out.append(self._intervals(counted, now_ns))
        return out

    def _counted(self, ordered: Ordered) -> Counted:
        limits, registers = self._limits, self._registers
        if FAST and ordered.unique and worth(len(ordered)):
            counted = count_whole(ordered, limits, registers)
            if counted is not None:
                return counted
        if not ordered.unique and (FAST or ordered.narrow):
            if 2 * len(ordered) > len(self._scratch.series):
                self._scratch = Counted.room(len(ordered))
            columns = ordered.series, ordered.time, ordered.value, ordered.quality
            return count(*columns, limits, registers, self._scratch)
        parts: list[Counted] = []
        for turn in ordered.rounds():
            rows = turn.rows
            parts += count_round(
                turn.series, ordered.time[rows], ordered.value[rows], ordered.quality[rows], limits, registers
            )
        return Counted.joined(parts)

    def _intervals(self, counted: Counted, now_ns: int) -> Block:
        series, time, quality = counted.series, counted.time, counted.quality
        value = counted.amount
        if not self._rate and self._gap_ns == _FOREVER:
            return readings_in_order(series, time, value, quality, now_ns)
        length = time - counted.start
        if self._rate:
            value = value * (self._settings.per_ns / length)
        gaps = length > self._gap_ns
        if not gaps.any():
            return readings_in_order(series, time, value, quality, now_ns)
        self._context.count("gaps", int(gaps.sum()))
        rule = self._settings.gap
        parts = np.where(gaps, -(-length // self._gap_ns), 1)
        whole = parts > SPLIT_MAX if rule is GapRule.SPLIT else gaps
        quality = quality | np.where(whole, np.uint16(Quality.QUESTIONABLE), np.uint16(0))
        if rule is GapRule.SPLIT:
            parts = np.where(whole, 1, parts)
            split = parts > 1
            estimated = (quality & np.uint16(0xFFFF & ~int(Quality.CALCULATED))) | np.uint16(
                Quality.ESTIMATED
            )
            quality = np.where(split, estimated, quality)
            if not self._rate:
                value = value / parts
            number = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts) + 1
            series, value, quality = (
                np.repeat(series, parts),
                np.repeat(value, parts),
                np.repeat(quality, parts),
            )
            length, start = np.repeat(length, parts), np.repeat(counted.start, parts)
            parts = np.repeat(parts, parts)
            time = start + length // parts * number + length % parts * number // parts
        return readings_in_order(series, time, value, quality, now_ns)

    def _broken(self, counted: Counted, now_ns: int) -> Block:
        """Breaks as rows of their stream, in order of time and series."""
        order = np.lexsort((counted.break_series, counted.break_time))
        reasons = pa.array([_REASONS[reason] for reason in Break])
        columns = [
            pa.array(counted.break_series[order]),
            arrow(counted.break_time[order], LATE.field("time").type),
            pa.array(counted.break_value[order]),
            pa.array(counted.break_quality[order]),
            arrow(np.full(len(order), now_ns), LATE.field("arrived").type),
            reasons.take(pa.array(counted.why[order])),
        ]
        return Block(pa.RecordBatch.from_arrays(columns, schema=LATE), now_ns, self._breaks)

    def state(self) -> StepState:
        """Everything remembered."""
        names = Registers.__slots__
        registers = {name: getattr(self._registers, name) for name in names}
        return {**self._ordering.state(), **registers, **self._exchanges.state()}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._ordering.restore(state)
        for name in Registers.__slots__:
            setattr(self._registers, name, kept(state, name, getattr(self._registers, name).dtype))
        self._exchanges.restore(state)
