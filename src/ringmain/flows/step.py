"""What a step of a flow is, and what it is told: small contracts that every file in `steps/` fulfils.

A flow is a chain of steps over a stream. Each step is a fold: it sees blocks of rows in log order and the moves of log
time, and nothing else: no wall clock, no randomness, no results of threads. Its outputs therefore are the same for
every run over the same log. Rows between two moves of log time (an *instant*) are simultaneous: how they are cut into
blocks must not change what a step gives, so a step whose rows depend on one another collects an instant's rows in
`take` and works on them, in order of series and time, in `advance`.

    Settings        what a configuration says: a msgspec struct tagged with the step's type, checked without data
    plan            what comes out, told from what comes in: shape, further streams, what the step needs to know
    Step            the fold itself, with its state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from ringmain.flows.at_work import Notes
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.later import Part
from ringmain.flows.picture import Picture
from ringmain.log.interface import LogReader, Position, StreamKind
from ringmain.model.schemas import READING

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""Errors and warnings of a check, each as (key, message)."""

StepState = dict[str, Part]
"""Everything that a step remembers, by name: flat arrays, and bytes for what is no array; some of it put together later."""


class PartFailedError(Exception):
    """A step cannot work on a part of what it holds, such as a window that closes: leaving out frames would not help.

    `part` names it, the same after every restart. Once the flow has given up (`Surroundings.given_up` holds the part)
    the step passes over it and goes on.
    """

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class StepBrokenError(Exception):
    """A step cannot go on, whatever is left out: somebody has to mend it."""


class PlanError(ValueError):
    """A step does not fit what comes before it. `key`: the setting to look at."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Shape:
    """What rows look like between two steps, and at the end of a flow.

    `unit`: the unit of column `value` where a step made all rows have one; None: that of each row's series.
    `late_safe`: whether the rows at some position follow from the input's rows alone (so that they can be had again from
    the log); a step with a memory makes it False.
    """

    kind: StreamKind
    schema: pa.Schema
    unit: str | None = None
    late_safe: bool = True

    @property
    def readings(self) -> bool:
        """Whether rows have series, time, value and quality as readings do."""
        names = self.schema.names
        return all(
            column.name in names and self.schema.field(column.name).type == column.type for column in READING
        )

    def need_readings(self, step: str) -> None:
        """Raise PlanError unless rows are readings."""
        if not self.readings:
            found = ", ".join(self.schema.names)
            raise PlanError(
                "type", f"`{step}` works on readings (series, time, value, quality), found rows of {found}"
            )

    def changed(self, **changes: Any) -> Shape:
        """A copy with some fields changed."""
        return replace(self, **changes)


READINGS = Shape(StreamKind.READING, READING)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step will do, told before it runs.

    `streams`: further streams that it writes, complete name -> shape. `attributes`: columns of the catalogue that it
    asks `Context.attributes` for. `reads`: further streams of the log that it must be shown, through `take_other`.
    `chained`: whether steps may follow; one that looks up its own rows in the flow's output must be the last.
    """

    shape: Shape
    streams: Mapping[str, Shape] = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    chained: bool = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of a flow while it is planned. `schemas`: streams of the log and of other flows, as far as known."""

    flow: str
    to: str
    directory: Path
    """Paths in settings are relative to it."""
    zone: ZoneInfo
    """Of the node: local days and months."""
    schemas: Mapping[str, Shape] = field(default_factory=dict)
    max_ahead_ns: int = 300_000_000_000
    """A reading whose time is further ahead of its arrival takes no part."""
    input: str = "readings"
    given_up: frozenset[str] = frozenset()
    """Parts of what steps hold on which they failed too often, see `PartFailedError`."""
    notes: Notes | None = None
    """Where steps of a flow that runs note what they are at."""


@dataclass(slots=True)
class Context:
    """What a step is given when it is made."""

    surroundings: Surroundings
    attributes: Attributes
    """The catalogue as far as the flow has read it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Counters of the step by name (`late`, `duplicates` ...): it adds to them; they only grow."""
    history: LogReader | None = None
    """The log's past, for what follows from the position of the last folded frame alone."""
    first: bool = False
    """Whether no step is before it: what it is given is the flow's input, all of it."""
    position: Position | None = None
    """The frame that is being folded, or was folded last; set by the chain."""
    lead_ns: int = 0
    """How far an origin arrival was ahead of its arrival in this log at most (another node's clock); set by the chain."""
    emitted_until: Position | None = None
    """Rows of the flow's output behind this position do not count while a frame is folded of which some outputs are in
    the log already (None: all do); set by the chain."""
    emit: bool = True
    """False while the flow folds what it had folded before: outputs are in the log already and are not looked at."""

    def count(self, name: str, rows: int) -> None:
        """Add to a counter."""
        if rows:
            self.counts[name] = self.counts.get(name, 0) + rows


class Step(Protocol):
    """The fold. Called by one thread. Blocks that come in and go out are in order of the log."""

    def take(self, block: Block) -> Sequence[Block]:
        """Rows of the present instant; what can be told of them at once (order within the instant set aside)."""
        ...

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The instant has ended, log time (ns UTC) is now `now_ns`: what follows from it.

        Blocks that this gives have `arrival_ns=now_ns` unless they came with one.
        """
        ...

    def state(self) -> StepState:
        """Everything that it remembers; the arrays may be views and are valid until the next call."""
        ...

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave, possibly in an earlier process. Called before anything else, at most once."""
        ...


class ReadsOthers(Protocol):
    """The trait of a step whose plan names `reads`."""

    def take_other(self, stream: str, block: Block) -> Sequence[Block]:
        """Rows of such a stream, in log order among those of `take`."""
        ...


class LearnsCatalogue(Protocol):
    """The trait of a step that looks at entries of the catalogue itself."""

    def learn(self, entries: pa.RecordBatch) -> None:
        """Entries of the catalogue stream, in log order among the blocks."""
        ...


class Compacts(Protocol):
    """The trait of a step whose state can be told in less: `state` is then quick, and this is done beside."""

    @staticmethod
    def compact(state: StepState) -> StepState:
        """What `restore` takes as well as the state itself; on any thread, out of a copy."""
        ...


@runtime_checkable
class TellsWrites(Protocol):
    """The trait of a step with large arrays: while they are copied, it tells which places it is about to write to.

    The flow then goes on while they are copied (`picture.py`), instead of standing still.
    """

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """Names of what `state` gave that lie by the same places (series, say), by the name of the kind of places.

        The first of each has one element a place, the others as many or a multiple.
        """
        ...

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """From now on call `before(places)` of a table's picture, if it has one here, before each write to that table."""
        ...


class Stateless:
    """Base of a step that looks at each row by itself: only `take` is left to write."""

    def advance(self, now_ns: int) -> Sequence[Block]:
        """Nothing follows from the end of an instant."""
        return ()

    def state(self) -> StepState:
        """Nothing is remembered."""
        return {}

    def restore(self, state: StepState) -> None:
        """Nothing was remembered."""


class StepSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """Base of `[[flows.NAME.steps]]`: `type` names the step. Descriptions of fields are the reference page."""

    version: ClassVar[int] = 1
    """Part of a flow's definition: grows when the step computes something else from the same settings."""

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        return [], []

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What of the settings decides the results, as JSON values; files by a hash of their content."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        told.pop("type", None)
        return told

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """What comes out of rows of this shape. Raises PlanError."""
        raise NotImplementedError

    def make(self, shape: Shape, context: Context) -> Step:
        """The step, for rows of this shape."""
        raise NotImplementedError
