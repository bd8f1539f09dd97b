"""`window`: values of windows in event time, per series.

The fold itself is `flows.window`; this module is what a configuration says of it, and its place in a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ringmain.flows.aggregates import Aggregate, Late
from ringmain.flows.block import Block
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
from ringmain.log.interface import StreamKind
from ringmain.model.duration import format_duration, parse_duration

if TYPE_CHECKING:
    import pyarrow as pa

    from ringmain.flows.settings import WindowSettings

OPEN_WINDOWS_MAX = 4096
"""Windows of one series that may be open at once by configuration: (grace + window) / window."""

_WINDOW_MIN_NS = 1_000_000
_WINDOW_MAX_NS = 366 * 86_400_000_000_000


class WindowStepSettings(StepSettings, frozen=True, kw_only=True, tag="window"):
    """Values of windows in event time, per series.

    A window is emitted when its device's newest time is `grace` past its end, or when the device was silent for `idle`.
    A row is a window: series, start, end, the values, and `revision`, which grows each time the window is emitted again.
    """

    window: Annotated[
        str, msgspec.Meta(description="length of a window, aligned to the UTC epoch, e.g. 1m, 15m, 1h")
    ] = "1m"
    values: Annotated[
        tuple[Aggregate, ...],
        msgspec.Meta(description="what to compute: count, sum, mean, min, max, first, last (by event time)"),
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

    @property
    def window_ns(self) -> int:
        """Length of a window."""
        return parse_duration(self.window)

    @property
    def grace_ns(self) -> int:
        """See `grace`."""
        return parse_duration(self.grace)

    @property
    def idle_ns(self) -> int:
        """See `idle`."""
        return parse_duration(self.idle)

    @property
    def columns(self) -> tuple[Aggregate, ...]:
        """The values in the order in which they stand in the stream."""
        return tuple(value for value in Aggregate if value in self.values)

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors: list[tuple[str, str]] = []
        durations: dict[str, int] = {}
        for key in ("window", "grace", "idle", "max_ahead"):
            text = getattr(self, key)
            try:
                durations[key] = 0 if text is None else parse_duration(text)
            except ValueError as error:
                errors.append((key, str(error)))
        if not self.values:
            errors.append(("values", "expected at least one of count, sum, mean, min, max, first, last"))
        if len(set(self.values)) != len(self.values):
            found = ", ".join(value.value for value in self.values)
            errors.append(("values", f"expected each value once, found {found}"))
        window = durations.get("window", _WINDOW_MIN_NS)
        if not _WINDOW_MIN_NS <= window <= _WINDOW_MAX_NS:
            errors.append(("window", f"expected 1ms to 366d, found {self.window}"))
        elif "window" in durations and durations.get("grace", 0) > window * (OPEN_WINDOWS_MAX - 2):
            errors.append(
                (
                    "grace",
                    f"expected at most {OPEN_WINDOWS_MAX - 2} windows of {self.window}, found {self.grace}: "
                    "a series would keep more windows open than are kept",
                )
            )
        if durations.get("idle", 1) <= 0:
            errors.append(("idle", f"expected more than 0s, found {self.idle}"))
        return errors, []

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results; `60s` and `1m` are the same."""
        form = self.short_form(around)
        return {
            "window_ns": form.window_ns,
            "grace_ns": form.grace_ns,
            "idle_ns": form.idle_ns,
            "max_ahead_ns": form.max_ahead_ns,
            "late": self.late.value,
            "values": [column.value for column in self.columns],
        }

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows of windows, and late readings beside them."""
        from ringmain.flows.totals import LATE, window_schema

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
            chained=self.late is not Late.REVISE,
        )

    def make(self, shape: Shape, context: Context) -> WindowStep:
        """The step."""
        return WindowStep(self.short_form(context.surroundings), context, late_safe=shape.late_safe)

    def short_form(self, around: Surroundings) -> WindowSettings:
        """The same as the settings of a flow of this one step, with everything that the surroundings tell."""
        from ringmain.flows.settings import WindowSettings

        own = {name: getattr(self, name) for name in WindowStepSettings.__struct_fields__}
        if self.max_ahead is None:
            own["max_ahead"] = format_duration(around.max_ahead_ns)
        return WindowSettings(to=around.to, from_=around.input, **own)


class WindowStep:
    """The fold in a chain: blocks in, blocks of windows and of late readings out."""

    def __init__(self, settings: WindowSettings, context: Context, *, late_safe: bool = True) -> None:
        from ringmain.flows.history import HeldHistory, History, LogHistory
        from ringmain.flows.window import WindowFold

        self._context = context
        self._late_stream = settings.late_stream
        self._log_history: LogHistory | None = None
        self._held: HeldHistory | None = None
        self._history: History
        if late_safe and context.history is not None:
            self._history = self._log_history = LogHistory(context.history, settings)
        else:
            self._history = self._held = HeldHistory(settings)
        self.fold = WindowFold(settings, self._history)
        self._scans = 0
        self._silent = False

    def learn(self, entries: pa.RecordBatch) -> None:
        """Devices of series, out of the catalogue."""
        self.fold.devices.learn(entries)

    def take(self, block: Block) -> Sequence[Block]:
        """Readings; what is given at once are late ones put aside."""
        context = self._context
        self._note(context)
        outputs = self.fold.take(block.rows, block.arrival_ns, emit=context.emit)
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
        from ringmain.flows.state import stored

        return {**stored(self.fold.state), **self._history.state()}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        from ringmain.flows.state import restore

        restore(self.fold.state, state)
        self.fold.devices.restart()
        self._history.restore(state, self.fold.state)
