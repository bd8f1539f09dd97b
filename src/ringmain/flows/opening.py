"""How a flow begins: its plan by what the log holds, its streams, and whether it goes on from where it was.

Results of one definition never silently continue those of another: a flow whose definition changed stands still, says
what is other and what can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from ringmain.flows.control import Action, Command
from ringmain.flows.flow import (
    FlowPlan,
    FlowSettings,
    definition_text,
    differences,
    plan_flow,
    stored,
)
from ringmain.flows.folding import FlowStoppedError
from ringmain.flows.step import PlanError, Shape, Surroundings
from ringmain.log.interface import (
    FencedError,
    Log,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    StreamKind,
    UnknownStreamError,
)


def plan_by_log(name: str, settings: FlowSettings, log: Log, directory: Path, zone: ZoneInfo) -> FlowPlan:
    """The plan. Raises UnknownStreamError while nobody has made a stream that it reads, FlowStoppedError."""
    schemas = {state.stream.name: Shape(state.stream.kind, state.stream.schema) for state in log.streams()}
    around = Surroundings(name, settings.to, directory, zone, schemas, settings.max_ahead_ns, settings.from_)
    _need(settings.from_, schemas)
    try:
        plan = plan_flow(name, settings, around)
    except PlanError as error:
        raise FlowStoppedError(f"{error.key}: {error}") from error
    for stream in plan.reads:
        _need(stream, schemas)
    return plan


def _need(stream: str, known: Mapping[str, Shape]) -> None:
    if stream not in known:
        raise UnknownStreamError(f"it waits for the stream {stream!r}, which is not in the log yet")


def create_streams(plan: FlowPlan, log: Log) -> None:
    """Make what the flow writes. Raises FlowStoppedError where a stream holds rows of another form."""
    for name, shape in plan.streams.items():
        try:
            log.create_stream(name, *stored(shape))
        except (LogFullError, LogFailedError, LogClosedError, FencedError):
            raise
        except LogError as error:
            raise FlowStoppedError(
                f"{error}; name a new stream in `to`, or set the old values again"
            ) from error


def begins_anew(plan: FlowPlan, before: Mapping[str, bytes], command: Command | None, log: Log) -> bool:
    """Whether the flow has no past that it goes on from. Raises FlowStoppedError when it must not go on.

    `before`: the flow's named positions, without its own name before them.
    """
    told = before.get("definition")
    new = msgspec.json.decode(definition_text(plan))
    to = plan.settings.to
    if told is not None:
        old = msgspec.json.decode(told)
        if told == definition_text(plan) or old == new:
            return False
        if old.get("to") == to:
            if command is not None and command.action in (Action.CONTINUE, Action.REPLAY):
                return False
            changes = "; ".join(str(change) for change in differences(old, new))
            raise FlowStoppedError(
                f"its definition changed, and its output stream {to!r} holds results of the one before "
                f"({changes}). Choose: `ringmain flow continue {plan.name}` goes on from here and leaves what was "
                f"written; `ringmain replay {plan.name} --from TIME` computes from then on anew and writes what "
                "differs as revisions; or name a new stream in `to`, or set the old values again"
            )
    held = {state.stream.name: state for state in log.streams()}.get(to)
    if held is not None and held.rows and held.stream.kind is not StreamKind.EVENT:
        raise FlowStoppedError(
            f"its output stream {to!r} holds {held.rows} rows already that are not of "
            "this flow and definition: name a new stream in `to`"
        )
    return True
