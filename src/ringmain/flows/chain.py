"""A planned flow's steps, folded over stored frames in log order.

`Chain.step` is called once per stored frame: of the input, of streams that steps look at besides it, of the catalogue
and of ticks. When a frame's origin arrival (or a tick) is later than log time, the instant before has ended: each step
gets what the steps before it gave and is told the new log time. Then the frame's rows go through the chain. What comes
out is addressed to streams of the log. Nothing else is looked at, so the outputs of a frame are the same in every run.

Left to others: where frames come from and where outputs go (`runner.py`), what is done when a step fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.flow import FlowPlan, stored, tag_of
from ringmain.flows.frame_columns import frame_block
from ringmain.flows.growing import NEVER
from ringmain.flows.holding_back import HoldingBack
from ringmain.flows.later import size_of
from ringmain.flows.step import Context, Stateless, Step, StepState
from ringmain.flows.takeovers import Announces
from ringmain.log.interface import Frame, LogReader, Position, StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING, TIMESTAMP

_CATALOGUE, _TICKS = "catalogue", "ticks"
_SILENT = np.errstate(all="ignore")
"""What steps compute may overflow or be no number: that is a value like any other. Entered once a frame."""


class StepFailureError(Exception):
    """A step raised an exception. `step`: number and type, e.g. `2 python`; `frames`: whose rows it worked on.

    `held`: those of the frames that are at hand.
    """

    def __init__(
        self, step: str, frames: tuple[Position, ...], cause: BaseException, held: tuple[Frame, ...] = ()
    ) -> None:
        super().__init__(f"step {step}: {type(cause).__name__}: {cause}")
        self.step = step
        self.frames = frames
        self.cause = cause
        self.held = held


@dataclass(slots=True)
class StepRows:
    """What went through a step since the chain was made."""

    step: str
    rows_in: int = 0
    rows_out: int = 0
    rows_aside: int = 0
    """Sent to streams past the later steps."""


class Chain:
    """The steps of a plan with their state. Used by one thread.

    `log`: the past, for steps that look back. `attributes`: those of a chain that this one stands beside (it learns the
    catalogue for both); None: its own.
    """

    def __init__(
        self, plan: FlowPlan, log: LogReader | None = None, *, attributes: Attributes | None = None
    ) -> None:
        self.plan = plan
        self.streams = [_CATALOGUE, plan.settings.from_, *plan.reads, _TICKS]
        """The streams whose frames it must be given, in log order."""
        self.position: Position | None = None
        """The last frame that was folded."""
        self.now = NEVER
        """Log time: the highest origin arrival and tick so far, ns UTC."""
        self.lead_ns = 0
        self.newest = NEVER
        """The newest event time of the input, ns UTC."""
        self.rows = [
            StepRows(f"{number} {tag_of(step.settings)}") for number, step in enumerate(plan.steps, 1)
        ]
        self.instant: list[Position] = []
        """The input frames since log time last moved."""
        self._held: list[Frame] = []
        self._own_attributes = attributes is None
        self.attributes = Attributes(plan.attributes) if attributes is None else attributes
        self.contexts = [
            Context(plan.around, self.attributes, history=self._history(log, number), first=number == 0)
            for number in range(len(plan.steps))
        ]
        self.steps: list[Step] = list(self._made())
        self._learning = [step for step in self.steps if hasattr(step, "learn")]
        self._announcing = [number for number, step in enumerate(self.steps) if hasattr(step, "take_over")]
        self._others = [
            (number, step.plan.reads) for number, step in enumerate(plan.steps) if step.plan.reads
        ]
        self._input = InputAdapter(plan)
        self._shapes = {name: stored(shape) for name, shape in plan.streams.items()}

    def _made(self) -> Iterator[Step]:
        """The steps. Of row-wise ones that write one stream the later ones hold their rows for it back."""
        row_wise = True
        written: set[str] = set()
        for step, context in zip(self.plan.steps, self.contexts, strict=True):
            made = step.settings.make(step.before, context)
            row_wise = row_wise and isinstance(made, Stateless)
            streams = (
                step.plan.streams.keys() & self.plan.streams.keys()
            )  # a part of a chain gives nobody any
            again = written & streams if row_wise else None
            written |= streams
            yield HoldingBack(made, again) if again else made

    def _history(self, log: LogReader | None, number: int) -> LogReader | None:
        """The log as the step sees it: its input's frames have passed the steps before."""
        before = self.plan.steps[:number]
        if log is None or not all(step.plan.shape.late_safe for step in before):
            return None
        if not before and self.plan.settings.value is None:
            return log
        head = replace(self.plan, steps=before, streams={}, reads=())
        return cast(LogReader, PassedLog(log, Chain(head, attributes=self.attributes)))

    # Folding

    @_SILENT
    def step(self, frame: Frame, *, emit: bool = True, left_out: bool = False) -> list[Block]:
        """Fold one frame; what follows from it, addressed to streams. Raises StepFailureError.

        `emit=False`: its outputs are in the log already and are not made up. `left_out`: a step cannot work on its rows;
        that it arrived ends the instant before all the same, as it did when it was folded first.
        """
        self.lead_ns = max(self.lead_ns, frame.origin_arrival_ns - frame.arrival_ns)
        out: list[Block] = []
        for context in self.contexts:
            context.lead_ns = self.lead_ns
            context.emit = emit
        if frame.stream == _CATALOGUE:
            self.learn(frame.rows)
        elif frame.stream == _TICKS:
            if frame.row_count:
                self._advance(frame.time_max_ns, out)
        else:
            self._advance(frame.origin_arrival_ns, out)
            if not left_out:
                self._take(frame, out)
        self.position = frame.position
        for context in self.contexts:
            context.position = frame.position
        return [self._addressed(block) for block in out] if emit else []

    def learn(self, entries: pa.RecordBatch) -> None:
        """Entries of the catalogue stream."""
        if self._own_attributes:
            self.attributes.learn(entries)
        for step in self._learning:
            step.learn(entries)

    def emitted_until(self, position: Position | None) -> None:
        """See `Context.emitted_until`."""
        for context in self.contexts:
            context.emitted_until = position

    @_SILENT
    def take_over(self, era: int) -> list[Block]:
        """The definition is the plan's from here on, since change number `era`; what follows. Raises StepFailureError."""
        out: list[Block] = []
        for number in self._announcing:
            given = self._called(number, (), "take_over", era)
            self._pass(number + 1, self._onwards(number, given, out), out, ())
        return [self._addressed(block) for block in out]

    @property
    def era(self) -> int | None:
        """The newest change of the definition that its steps know of, 0: none; None: no step is told of any."""
        return max((getattr(self.steps[number], "era", 0) for number in self._announcing), default=None)

    def standing(self) -> dict[str, int]:
        """What stands by what its steps told, by id, with how many events of it there are."""
        found: dict[str, int] = {}
        for number in self._announcing:
            found |= cast(Announces, self.steps[number]).standing()
        return found

    def _take(self, frame: Frame, out: list[Block]) -> None:
        name = frame.stream
        if name == self.plan.settings.from_:
            self.instant.append(frame.position)
            self._held.append(frame)
            block = self._input.block(frame)
            if len(block):
                self.newest = max(
                    self.newest, min(frame.time_max_ns, self.now + self.plan.settings.max_ahead_ns)
                )
                self._pass(0, [block], out, (frame.position,))
        for number, reads in self._others:
            if name in reads:
                other = Block(frame.rows, frame.origin_arrival_ns)
                given = self._called(number, (frame.position,), "take_other", name, other)
                self._pass(number + 1, self._onwards(number, given, out), out, (frame.position,))

    def _advance(self, now: int, out: list[Block]) -> None:
        """Move log time to `now` if that is later: the instant before has ended."""
        if now <= self.now:
            return
        frames = tuple(self.instant)
        carried: list[Block] = []
        for number in range(len(self.steps)):
            carried = [block.at(self.now) for block in carried]  # they arrived in the instant that ended
            given = self._taken(number, carried, out, frames)
            carried = given + self._onwards(number, self._called(number, frames, "advance", now), out)
        out += carried
        self.now = now
        self.instant.clear()
        self._held.clear()

    def _pass(self, number: int, blocks: list[Block], out: list[Block], frames: tuple[Position, ...]) -> None:
        """Blocks through the steps from `number` on."""
        for following in range(number, len(self.steps)):
            if not blocks:
                return
            blocks = self._taken(following, blocks, out, frames)
        out += blocks

    def _taken(
        self, number: int, blocks: list[Block], out: list[Block], frames: tuple[Position, ...]
    ) -> list[Block]:
        onwards: list[Block] = []
        rows = self.rows[number]
        for block in blocks:
            rows.rows_in += len(block)
            onwards += self._onwards(number, self._called(number, frames, "take", block), out)
        return onwards

    def _onwards(self, number: int, given: Sequence[Block], out: list[Block]) -> list[Block]:
        """What goes on to the next step; blocks for a stream of their own leave the chain."""
        onwards: list[Block] = []
        rows = self.rows[number]
        for block in given:
            if not len(block):
                continue
            if block.stream is None:
                rows.rows_out += len(block)
                onwards.append(block)
            else:
                rows.rows_aside += len(block)
                out.append(block)
        return onwards

    def _called(
        self, number: int, frames: tuple[Position, ...], method: str, *arguments: object
    ) -> Sequence[Block]:
        try:
            given: Sequence[Block] = getattr(self.steps[number], method)(*arguments)
        except Exception as error:
            held = tuple(frame for frame in self._held if frame.position in frames)
            raise StepFailureError(self.rows[number].step, frames, error, held) from error
        return given

    def _addressed(self, block: Block) -> Block:
        """The block with its stream's name, in the schema of that stream."""
        name = block.stream or self.plan.settings.to
        kind, schema = self._shapes[name]
        rows = block.rows
        if rows.schema.equals(schema):
            return block if block.stream else Block(rows, block.arrival_ns, name)
        columns = list(rows.columns)
        if kind is StreamKind.ROW and "unit" in schema.names and "unit" not in rows.schema.names:
            columns.append(pa.repeat(pa.scalar(self.plan.streams[name].unit), rows.num_rows))
        return Block(pa.RecordBatch.from_arrays(columns, schema=schema), block.arrival_ns, name)

    # State

    def state(self) -> list[StepState]:
        """What every step remembers, in order; views, valid until the next call."""
        return [step.state() for step in self.steps]

    def restore(self, states: Sequence[StepState], now: int, lead_ns: int, position: Position) -> None:
        """Take over a state that was saved."""
        for step, state in zip(self.steps, states, strict=True):
            step.restore(state)
        self.now, self.lead_ns, self.position = now, lead_ns, position
        for context in self.contexts:
            context.position, context.lead_ns = position, lead_ns

    def state_bytes(self) -> list[int]:
        """The size of each step's state."""
        return [sum(map(size_of, state.values())) for state in self.state()]


class InputAdapter:
    """Frames of a flow's input as blocks: rows of windows may be taken as readings of their series."""

    def __init__(self, plan: FlowPlan) -> None:
        self._value = plan.settings.value

    def block(self, frame: Frame) -> Block:
        """The frame's rows in the shape that the first step expects."""
        if self._value is None:
            return frame_block(frame.rows, frame.origin_arrival_ns)
        return Block(readings_of(frame.rows, self._value), frame.origin_arrival_ns)


def readings_of(rows: pa.RecordBatch, value: str) -> pa.RecordBatch:
    """Rows of windows as readings: their start is the time; no value is a reading that takes the value back."""
    column = rows.column(rows.schema.get_field_index(value))
    missing = column.is_null().to_numpy(zero_copy_only=False)
    numeric = column.cast(pa.float64()).fill_null(np.nan)
    quality = np.where(missing, np.uint16(Quality.INVALID), np.uint16(Quality.CALCULATED)).astype(np.uint16)
    time = rows.column(rows.schema.get_field_index("start")).cast(TIMESTAMP)
    series = rows.column(rows.schema.get_field_index("series"))
    return pa.RecordBatch.from_arrays([series, time, numeric, pa.array(quality)], schema=READING)


class PassedLog:
    """A log whose frames of a flow's input have passed the first steps of a chain. Everything else is as it is."""

    def __init__(self, log: LogReader, chain: Chain) -> None:
        self._log = log
        self._chain = chain
        self._input = chain.plan.settings.from_

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, streams: str | Sequence[str], *args: object, **kwargs: object) -> Iterator[Frame]:
        """As the log's; frames of the input hold what the steps before gave of their rows, possibly none."""
        for frame in self._log.read(streams, *args, **kwargs):  # type: ignore[arg-type]
            yield frame if frame.stream != self._input else self._passed(frame)

    @_SILENT
    def _passed(self, frame: Frame) -> Frame:
        out: list[Block] = []
        chain = self._chain
        chain._pass(0, [chain._input.block(frame)], out, (frame.position,))
        kept = [block.rows for block in out if block.stream is None]
        if not kept:
            rows = (
                frame.rows.slice(0, 0)
                if chain.plan.settings.value is None
                else readings_of(frame.rows.slice(0, 0), chain.plan.settings.value)
            )
        elif len(kept) == 1:
            rows = kept[0]
        else:
            rows = pa.Table.from_batches(kept).combine_chunks().to_batches()[0]
        return msgspec.structs.replace(
            frame, rows=rows
        )  # the counts stay those of the log, which tell whether rows were removed
