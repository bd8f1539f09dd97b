"""A flow as its configuration says it, and as it is planned: which streams it reads and writes, in which shape.

Planning needs no data and touches nothing, so `ringmain lint` is this too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from ringmain.flows.attributes import ATTRIBUTES
from ringmain.flows.step import READINGS, Plan, PlanError, Shape, StepSettings, Surroundings
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.model.schemas import EVENT, READING

STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
RESERVED = ("ticks", "catalogue", "ledger", "accounts", "conflicts", "readings", "deadletters")


class ChainSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}
):
    """`[flows.NAME]` with `[[flows.NAME.steps]]`: a chain of steps over one stream, written to another."""

    to: Annotated[str, msgspec.Meta(description="stream that the last step's rows are written to")]
    steps: Annotated[
        tuple[dict[str, Any], ...],
        msgspec.Meta(description="the steps in order; `type` names each, see docs/steps.md"),
    ]
    from_: Annotated[str, msgspec.Meta(description="stream to read")] = "readings"
    value: Annotated[
        str | None,
        msgspec.Meta(
            description="column that is the value, where the stream holds rows of windows (time is then their start)"
        ),
    ] = None
    max_ahead: Annotated[
        str, msgspec.Meta(description="a time further ahead of its arrival takes no part")
    ] = "5m"
    tries: Annotated[
        int,
        msgspec.Meta(
            description="how often a batch is tried on which a step fails, before it becomes a dead letter",
            ge=1,
            le=100,
        ),
    ] = 3


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """A flow: one stream in, a chain of steps, one stream out. `value`: see `ChainSettings.value`."""

    to: str
    steps: tuple[StepSettings, ...]
    from_: str = "readings"
    value: str | None = None
    max_ahead_ns: int = 300_000_000_000
    tries: int = 3

    @property
    def gives_events(self) -> bool:
        """Whether its output is Events of its own, so that other flows may write to the same stream."""
        return bool(self.steps) and tag_of(self.steps[-1]) == "alert"

    def check(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Errors and warnings, each as (key, message); those of a step have `steps.N.` before their key."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        for key, name in (("from", self.from_), ("to", self.to)):
            if not STREAM.fullmatch(name):
                errors.append(
                    (key, f"expected a stream name of letters, digits, `.`, `_` and `-`, found {name!r}")
                )
        if self.to in (self.from_, *RESERVED, f"{self.from_}.late"):
            errors.append(
                ("to", f"expected a stream of the flow's own, such as readings.1m, found {self.to!r}")
            )
        if not self.steps:
            errors.append(("steps", "expected at least one step, found none"))
        for number, step in enumerate(self.steps):
            found = step.check()
            errors += [(f"steps.{number}.{key}", text) for key, text in found[0]]
            warnings += [(f"steps.{number}.{key}", text) for key, text in found[1]]
        return errors, warnings


def flow_settings(table: ChainSettings, steps: Sequence[StepSettings]) -> FlowSettings:
    """The flow that a table says, with its steps. Raises ValueError for a duration that is none."""
    return FlowSettings(
        table.to, tuple(steps), table.from_, table.value, parse_duration(table.max_ahead), table.tries
    )


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step with what comes into it and what comes out."""

    settings: StepSettings
    before: Shape
    plan: Plan


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """A planned flow. `streams`: every stream that it writes, with its shape; the flow's own output first."""

    name: str
    settings: FlowSettings
    around: Surroundings
    steps: tuple[StepPlan, ...]
    streams: Mapping[str, Shape]
    attributes: frozenset[str]
    reads: tuple[str, ...]
    """Streams that are read besides the input."""

    @property
    def output(self) -> Shape:
        """The shape of stream `to`."""
        return self.streams[self.settings.to]


@dataclass(frozen=True, slots=True)
class Change:
    """What is other in a definition: the key, what it was and what it is (None: not there)."""

    key: str
    was: Any = field(default=None)
    now: Any = field(default=None)

    def __str__(self) -> str:
        return f"{self.key}: was {_shown(self.was)}, now {_shown(self.now)}"


def plan_flow(name: str, settings: FlowSettings, around: Surroundings) -> FlowPlan:
    """Plan a flow. Raises PlanError, its key with `steps.N.` before it."""
    shape = input_shape(settings, around)
    steps: list[StepPlan] = []
    streams: dict[str, Shape] = {}
    attributes: set[str] = set()
    reads: list[str] = []
    for number, step in enumerate(settings.steps):
        try:
            if number and not steps[-1].plan.chained:
                raise PlanError(
                    "type",
                    f'no step can follow `{tag_of(settings.steps[number - 1])}` with late = "revise": it looks up '
                    f"in {settings.to!r} what it gave before; let a flow of its own read {settings.to!r}",
                )
            plan = step.plan(shape, around)
        except PlanError as error:
            raise PlanError(f"steps.{number}.{error.key}", str(error)) from error
        steps.append(StepPlan(step, shape, plan))
        for stream, its_shape in plan.streams.items():
            if stream in streams and stored(streams[stream]) != stored(its_shape):
                raise PlanError(f"steps.{number}.type", f"two steps write {stream!r} with different columns")
            streams[stream] = its_shape
        attributes |= plan.attributes
        reads += [read for read in plan.reads if read not in reads]
        shape = plan.shape
    if settings.to in streams and stored(streams[settings.to]) != stored(shape):
        raise PlanError("to", f"a step writes {settings.to!r} too, with other columns")
    streams = {settings.to: shape, **{key: value for key, value in streams.items() if key != settings.to}}
    for stream in streams:
        if stream in (settings.from_, *reads, *RESERVED):
            raise PlanError("to", f"the flow would write {stream!r}, which it reads or which is built in")
    unknown = sorted(
        name for name in attributes if name.split("[")[0].split(".")[0] not in (*ATTRIBUTES, "external")
    )
    if unknown:
        raise PlanError(
            "steps", f"no attribute {unknown[0]!r} in the catalogue; it has {', '.join(ATTRIBUTES)}"
        )
    return FlowPlan(name, settings, around, tuple(steps), streams, frozenset(attributes), tuple(reads))


def input_shape(settings: FlowSettings, around: Surroundings) -> Shape:
    """What the first step gets. Raises PlanError."""
    if settings.from_ == "readings" and settings.value is None:
        return READINGS
    known = around.schemas.get(settings.from_)
    if settings.value is not None:
        if known is not None:
            if not {"series", "start"} <= set(known.schema.names):
                raise PlanError(
                    "value", f"{settings.from_!r} has no series and start: `value` cannot make readings of it"
                )
            if settings.value not in known.schema.names:
                raise PlanError(
                    "value",
                    f"no column {settings.value!r} in {settings.from_!r}; it has {', '.join(known.schema.names)}",
                )
        return READINGS.changed(unit=None if known is None else known.unit)
    if known is None:
        return READINGS
    return known


def stored(shape: Shape) -> tuple[StreamKind, pa.Schema]:
    """Kind and schema of a stream that holds rows of this shape."""
    if shape.kind is StreamKind.EVENT:
        return StreamKind.EVENT, EVENT
    schema = shape.schema
    if shape.unit is not None and "unit" not in schema.names:
        schema = schema.append(pa.field("unit", pa.string(), nullable=False))
    if shape.kind is StreamKind.READING and schema.equals(READING):
        return StreamKind.READING, READING
    return StreamKind.ROW, schema


def tag_of(step: StepSettings) -> str:
    """The type of a step as the configuration names it."""
    return str(step.__struct_config__.tag)


def definition_of(plan: FlowPlan) -> dict[str, Any]:
    """What a flow computes, as it is kept beside its position: JSON values only."""
    settings = plan.settings
    return {
        "version": 2,
        "from": settings.from_,
        "value": settings.value,
        "to": settings.to,
        "max_ahead_ns": settings.max_ahead_ns,
        "steps": [
            {
                "type": tag_of(step.settings),
                "version": step.settings.version,
                **step.settings.definition(plan.around),
            }
            for step in plan.steps
        ],
    }


def definition_text(plan: FlowPlan) -> bytes:
    """The definition as JSON with keys in order."""
    return msgspec.json.encode(definition_of(plan), order="deterministic")


def definition_hash(plan: FlowPlan) -> str:
    """SHA-256 of the definition."""
    return hash_of(definition_text(plan))


def hash_of(text: bytes) -> str:
    """The hash of a definition, of its text."""
    return hashlib.sha256(text).hexdigest()


def differences(old: Any, new: Any, key: str = "") -> list[Change]:
    """What is other between two definitions, key by key."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            change
            for name in names
            for change in differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and key == "steps":
        return [
            change
            for number, (one, other) in enumerate(zip(old, new, strict=True))
            for change in differences(one, other, f"{key}.{number}")
        ]
    return [] if old == new else [Change(key, old, new)]


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return " > ".join(str(step.get("type")) for step in value)
    return str(value)
