"""`window`: values of windows in event time, per series.

The fold itself is `flows.window`; this module is what a configuration says of it, and its place in a chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.aggregates import WEIGHTED, Aggregate, Condition, Late
from ringmain.flows.block import Block
from ringmain.flows.calendar import CalendarGrid, Unit
from ringmain.flows.grid import Grid, UtcGrid
from ringmain.flows.held import HeldHistory
from ringmain.flows.history import History, LogHistory
from ringmain.flows.picture import Picture
from ringmain.flows.state import compact, restore, stored, tables
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    StepSettings,
    StepState,
    Surroundings,
)
from ringmain.flows.totals import LATE, window_schema
from ringmain.flows.window import WindowFold
from ringmain.flows.window_checks import WORDS, lengths, meaningless, needs, width_ns
from ringmain.flows.windowing import Windowing
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration

_DURATIONS = ("grace", "idle", "max_ahead", "hold", "interval", "offset", "every")
SOURCES_MAX = 64
"""Sources whose late readings are counted by name; those of later ones together."""


class Between(StrEnum):
    """What lies between two readings."""

    HELD = "held"
    LINEAR = "linear"


class WindowStepSettings(StepSettings, frozen=True, kw_only=True, tag="window"):
    """Values of windows in event time, per series.

    A window is emitted when its device's newest time is `grace` past its end, or when the device was silent for `idle`.
    A row is a window: series, start, end, the values, and `revision`, which grows each time the window is emitted again.
    """

    window: Annotated[
        str,
        msgspec.Meta(
            description="length of a window: a duration aligned to the UTC epoch (1m, 15m, 1h), or hour, day, week, "
            "month, quarter, year of the local calendar"
        ),
    ] = "1m"
    values: Annotated[
        tuple[Aggregate, ...],
        msgspec.Meta(
            description="what to compute: count, sum, mean, min, max, first, last (by event time), std, range, delta, twa "
            "(mean over time), integral (value times hours), duration (seconds in `state`), completeness, good (percent)"
        ),
    ] = (Aggregate.COUNT, Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX)
    late: Annotated[
        Late,
        msgspec.Meta(
            description="a reading whose window is closed: revise (compute the window again), "
            "side (to the stream TO.late) or drop (counted)"
        ),
    ] = Late.REVISE
    grace: Annotated[
        str,
        msgspec.Meta(description="how far a device's newest time must be past a window's end to close it"),
    ] = "10s"
    idle: Annotated[
        str, msgspec.Meta(description="a device that was silent for so long has its windows closed")
    ] = "30s"
    max_ahead: Annotated[
        str | None,
        msgspec.Meta(
            description="a time further ahead of its arrival stays outside every window; the flow's own by default"
        ),
    ] = None
    calendar: Annotated[
        bool,
        msgspec.Meta(description="align a `window` of 15m to 1d to local midnight instead of the UTC epoch"),
    ] = False
    zone: Annotated[
        str | None,
        msgspec.Meta(description="time zone of the calendar, e.g. Europe/Berlin; the node's by default"),
    ] = None
    offset: Annotated[
        str, msgspec.Meta(description="windows begin so much later: 6h makes gas days of calendar days")
    ] = "0s"
    every: Annotated[
        str | None,
        msgspec.Meta(
            description="begin a window so often, for windows that overlap: window 1h, every 5m; one after the other by "
            "default"
        ),
    ] = None
    hold: Annotated[
        str | None,
        msgspec.Meta(
            description="how long a value stands for what follows at most, in twa, integral and duration; the length "
            "of the window by default"
        ),
    ] = None
    between: Annotated[
        Between,
        msgspec.Meta(
            description="what twa and integral see between two readings: held (the earlier value) or linear (a line)"
        ),
    ] = Between.HELD
    state: Annotated[
        str | None,
        msgspec.Meta(description="condition that `duration` measures, e.g. value > 10 or value != 0"),
    ] = None
    interval: Annotated[
        str | None,
        msgspec.Meta(description="one reading is expected in every such time, for `completeness`"),
    ] = None

    @property
    def columns(self) -> tuple[Aggregate, ...]:
        """The values in the order in which they stand in the stream."""
        return tuple(value for value in Aggregate if value in self.values)

    def unit(self) -> Unit | int:
        """What `window` says: a word of the calendar, or ns. Raises ValueError."""
        if self.window in tuple(Unit):
            return Unit(self.window)
        try:
            return parse_duration(self.window)
        except ValueError as error:
            raise ValueError(f"{error}, or one of {WORDS}") from error

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors: list[tuple[str, str]] = []
        durations: dict[str, int] = {}
        for key in _DURATIONS:
            text = getattr(self, key)
            try:
                durations[key] = 0 if text is None else parse_duration(text)
            except ValueError as error:
                errors.append((key, str(error)))
        if not self.values:
            errors.append(("values", f"expected at least one of {', '.join(Aggregate)}"))
        if len(set(self.values)) != len(self.values):
            found = ", ".join(value.value for value in self.values)
            errors.append(("values", f"expected each value once, found {found}"))
        if durations.get("idle", 1) <= 0:
            errors.append(("idle", f"expected more than 0s, found {self.idle}"))
        errors += needs(self, durations) + lengths(self, durations)
        return errors, meaningless(self)

    def windowing(self, around: Surroundings) -> Windowing:
        """What the fold is told. Raises ValueError for what `check` finds."""
        unit, offset_ns = self.unit(), parse_duration(self.offset)
        grid: Grid
        panes = hop = 1
        if isinstance(unit, Unit) or self.calendar:
            zone = around.zone if self.zone is None else ZoneInfo(self.zone)
            grid = CalendarGrid(unit if isinstance(unit, Unit) else unit // 1_000_000_000, zone, offset_ns)
        else:
            every_ns = unit if self.every is None else parse_duration(self.every)
            pane_ns = math.gcd(unit, every_ns)
            grid = UtcGrid(pane_ns, offset_ns)
            panes, hop = unit // pane_ns, every_ns // pane_ns
        weighted = bool(WEIGHTED & set(self.values))
        hold_ns = width_ns(unit) if self.hold is None else parse_duration(self.hold)
        return Windowing(
            around.input,
            around.to,
            grid,
            self.columns,
            self.late,
            parse_duration(self.grace),
            parse_duration(self.idle),
            around.max_ahead_ns if self.max_ahead is None else parse_duration(self.max_ahead),
            hold_ns if weighted else 0,
            self.between is Between.LINEAR,
            None if self.state is None else Condition.parse(self.state),
            0 if self.interval is None else parse_duration(self.interval),
            panes,
            hop,
        )

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results; `60s` and `1m` are the same."""
        unit, windowing = self.unit(), self.windowing(around)
        told: dict[str, Any] = {
            "window_ns": unit if not isinstance(unit, Unit) else unit.value,
            "grace_ns": windowing.grace_ns,
            "idle_ns": windowing.idle_ns,
            "max_ahead_ns": windowing.max_ahead_ns,
            "late": self.late.value,
            "values": [column.value for column in self.columns],
        }
        if isinstance(unit, Unit) or self.calendar:
            told["zone"] = around.zone.key if self.zone is None else self.zone
        if parse_duration(self.offset):
            told["offset_ns"] = parse_duration(self.offset)
        if self.every is not None:
            told["every_ns"] = parse_duration(self.every)
        if windowing.weighted:
            told |= {"hold_ns": windowing.hold_ns, "between": self.between.value}
        if Aggregate.DURATION in self.values:
            told["state"] = str(windowing.condition)
        if Aggregate.COMPLETENESS in self.values:
            told["interval_ns"] = windowing.interval_ns
        return told

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows of windows, and late readings beside them."""
        shape.need_readings("window")
        if self.late is Late.REVISE and not shape.late_safe:
            raise PlanError(
                "late",
                'a window with late = "revise" is computed again from the log, which a step with a memory before it '
                'makes impossible: set late = "side" or "drop", or let a flow of its own form the windows',
            )
        return Plan(
            Shape(StreamKind.ROW, window_schema(self.columns), shape.unit, late_safe=False),
            streams={f"{around.to}.late": Shape(StreamKind.ROW, LATE)},
            attributes=frozenset({"source"}),
            chained=self.late is not Late.REVISE,
        )

    def make(self, shape: Shape, context: Context) -> WindowStep:
        """The step."""
        return WindowStep(self.windowing(context.surroundings), context, late_safe=shape.late_safe)


class WindowStep:
    """The fold in a chain: blocks in, blocks of windows and of late readings out."""

    def __init__(self, windowing: Windowing, context: Context, *, late_safe: bool = True) -> None:
        self._context = context
        self._late_stream = windowing.late_stream
        self._log_history: LogHistory | None = None
        self._held: HeldHistory | None = None
        self._history: History
        if late_safe and context.history is not None:
            self._history = self._log_history = LogHistory(context.history, windowing)
        else:
            self._history = self._held = HeldHistory(windowing)
        self.fold = WindowFold(windowing, self._history)
        self.fold.told_late = self._count_late
        self._scans = 0
        self._silent = False

    def learn(self, entries: pa.RecordBatch) -> None:
        """Devices of series, out of the catalogue."""
        self.fold.devices.learn(entries)

    def _count_late(self, series: NDArray[np.int64]) -> None:
        """Count late readings by the source that the catalogue names: `late from SOURCE`."""
        attributes = self._context.attributes
        if "source" not in attributes.names:
            return
        codes = attributes.codes("source")
        known = series[series < len(codes)]
        counts = np.bincount(codes[known] + 1, minlength=1)
        counts[0] += len(series) - len(known)
        texts = attributes.texts("source")
        for code in np.flatnonzero(counts).tolist():
            name = "unknown" if code == 0 else "others" if code > SOURCES_MAX else texts[code - 1]
            self._context.count(f"late from {name}", int(counts[code]))

    def take(self, block: Block) -> Sequence[Block]:
        """Readings; what is given at once are late ones put aside."""
        context = self._context
        self._note(context)
        outputs = self.fold.take(block, emit=context.emit)
        return [Block(rows, block.arrival_ns, self._late_stream) for rows in outputs.late]

    def advance(self, now_ns: int) -> Sequence[Block]:
        """Windows that are closed or computed again, in order of (start, series)."""
        context = self._context
        self._note(context)
        outputs = self.fold.advance(now_ns, context.position, emit=context.emit)
        if self._held is not None:
            self._held.trim(self.fold.state)
        self._count(context)
        blocks = [Block(rows, now_ns) for rows in outputs.windows]
        return blocks + [Block(rows, now_ns, self._late_stream) for rows in outputs.late]

    def _note(self, context: Context) -> None:
        self.fold.state.lead_ns = context.lead_ns
        history = self._log_history
        if history is not None:
            history.emitted_until = context.emitted_until
            if self._silent and context.emit:  # what was emitted meanwhile is in the log alone
                history.restart_emitted(self.fold.state)
        self._silent = not context.emit

    def _count(self, context: Context) -> None:
        self.fold.counts.move_to(context.count)
        if self._log_history is not None:
            context.count("scans", self._log_history.scans - self._scans)
            self._scans = self._log_history.scans

    def state(self) -> StepState:
        """Everything that it remembers."""
        return {**stored(self.fold.state), **self._history.state()}

    @staticmethod
    def compact(state: StepState) -> StepState:
        """The same without what no window is open in; works on a copy, at any time."""
        return compact(state)

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """What lies by series, that which closing windows writes to apart, and by device."""
        return tables(state)

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say of series and devices when they are about to be written to."""
        self.fold.tell(pictures)

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        restore(self.fold.state, state)
        self.fold.devices.restart()
        self._history.restore(state, self.fold.state)
