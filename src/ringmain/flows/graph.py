"""All flows of a node together: planned in the order in which they depend on one another.

A flow is planned with the columns of the streams that other flows write, so these are planned first. What is wrong with
a flow is told once, and not again for the flows behind it. Touches nothing: `ringmain lint` does this as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from ringmain.flows.flow import FlowPlan, FlowSettings, plan_flow
from ringmain.flows.step import PlanError, Shape, Surroundings
from ringmain.log.interface import StreamKind


@dataclass(frozen=True, slots=True)
class FlowProblem:
    """Why a flow cannot be planned: a message about a key of `[flows.NAME]`, such as `steps.2.where`."""

    flow: str
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class PlannedFlows:
    """Every flow that could be planned, whoever writes a stream before whoever reads it, and what is wrong with others."""

    plans: tuple[FlowPlan, ...]
    problems: tuple[FlowProblem, ...] = ()
    writers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The flows that write each stream: one, or several where it holds events."""

    def plan(self, name: str) -> FlowPlan | None:
        """The plan of a flow; None if it has none."""
        return next((plan for plan in self.plans if plan.name == name), None)


def reads_of(plan: FlowPlan) -> tuple[str, ...]:
    """The streams that a flow reads, its input first."""
    return (plan.settings.from_, *(name for name in plan.reads if name != plan.settings.from_))


def plan_flows(
    flows: Mapping[str, FlowSettings],
    directory: Path,
    zone: ZoneInfo,
    schemas: Mapping[str, Shape] | None = None,
) -> PlannedFlows:
    """Plan flows together. `directory`: paths in settings are relative to it; `schemas`: streams that are known anyway."""
    known = dict(schemas or {})
    plans: dict[str, FlowPlan] = {}
    failed: dict[str, PlanError] = {}
    for _ in range(len(flows) + 1):
        before = dict(known)
        plans, failed = {}, {}
        for name, settings in flows.items():
            around = Surroundings(
                name, settings.to, directory, zone, known, settings.max_ahead_ns, settings.from_
            )
            try:
                plans[name] = plan_flow(name, settings, around)
            except PlanError as error:
                failed[name] = error
            else:
                known |= {
                    stream: shape
                    for stream, shape in plans[name].streams.items()
                    if stream not in (schemas or {})
                }
        if known == before:
            break
    writers = _writers(flows, plans)
    problems = _shared(plans)
    rings = _rings(plans, writers)
    problems += [
        FlowProblem(
            ring[0],
            "from",
            f"flows feed one another in a circle, {' -> '.join([*ring, ring[0]])}: "
            "one of them has to read another stream, or write one",
        )
        for ring in rings
    ]
    behind = _behind(flows, plans, writers, {name for ring in rings for name in ring} | set(failed))
    problems += [
        FlowProblem(name, error.key, str(error)) for name, error in failed.items() if name not in behind
    ]
    circling = {name for ring in rings for name in ring}
    ordered = _ordered({name: plan for name, plan in plans.items() if name not in circling}, writers)
    return PlannedFlows(tuple(ordered), tuple(problems), writers)


def _writers(flows: Mapping[str, FlowSettings], plans: Mapping[str, FlowPlan]) -> dict[str, tuple[str, ...]]:
    writers: dict[str, tuple[str, ...]] = {}
    for name, settings in flows.items():
        streams = plans[name].streams if name in plans else (settings.to,)
        for stream in streams:
            writers[stream] = (*writers.get(stream, ()), name)
    return writers


def _shared(plans: Mapping[str, FlowPlan]) -> list[FlowProblem]:
    """Streams that two flows write; of events they may. (The same `to` is told by whoever reads the configuration.)"""
    problems: list[FlowProblem] = []
    first: dict[str, str] = {}
    for name, plan in plans.items():
        for stream, shape in plan.streams.items():
            other = first.setdefault(stream, name)
            if other == name or plan.settings.to == plans[other].settings.to:
                continue
            if shape.kind is plans[other].streams[stream].kind is StreamKind.EVENT:
                continue
            problems.append(
                FlowProblem(
                    name,
                    "to",
                    f"the stream {stream!r} is already written by [flows.{other}]; give another name",
                )
            )
    return problems


def _sources(plan: FlowPlan, writers: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The flows whose streams a flow reads."""
    return [name for stream in reads_of(plan) for name in writers.get(stream, ())]


def _rings(plans: Mapping[str, FlowPlan], writers: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Circles of flows, each once, beginning with the flow that is configured first."""
    rings: list[list[str]] = []
    told: set[str] = set()
    for name in plans:
        ring = _path(name, plans, writers) if name not in told else None
        if ring is not None:
            told |= set(ring)
            rings.append(ring)
    return rings


def _path(
    start: str, plans: Mapping[str, FlowPlan], writers: Mapping[str, tuple[str, ...]]
) -> list[str] | None:
    """The shortest way from a flow along the streams it feeds back to itself."""
    readers: dict[str, list[str]] = {}
    for name, plan in plans.items():
        for writer in _sources(plan, writers):
            readers.setdefault(writer, []).append(name)
    ways: dict[str, list[str]] = {start: [start]}
    waiting = [start]
    for name in waiting:
        for reader in readers.get(name, ()):
            if reader == start:
                return ways[name]
            if reader not in ways:
                ways[reader] = [*ways[name], reader]
                waiting.append(reader)
    return None


def _behind(
    flows: Mapping[str, FlowSettings],
    plans: Mapping[str, FlowPlan],
    writers: Mapping[str, tuple[str, ...]],
    wrong: set[str],
) -> set[str]:
    """Flows that read, directly or not, what a flow writes that is wrong itself."""
    behind: set[str] = set()
    while True:
        more = {
            name
            for name, settings in flows.items()
            if name not in behind
            for stream in (reads_of(plans[name]) if name in plans else (settings.from_,))
            for writer in writers.get(stream, ())
            if writer != name and writer in wrong | behind
        }
        if not more:
            return behind
        behind |= more


def _ordered(plans: Mapping[str, FlowPlan], writers: Mapping[str, tuple[str, ...]]) -> list[FlowPlan]:
    """Whoever writes before whoever reads; else as configured."""
    ordered: dict[str, FlowPlan] = {}
    while len(ordered) < len(plans):
        for name, plan in plans.items():
            waits = any(
                source in plans and source not in ordered and source != name
                for source in _sources(plan, writers)
            )
            if name not in ordered and not waits:
                ordered[name] = plan
                break
        else:  # a circle: told as a problem
            ordered |= {name: plan for name, plan in plans.items() if name not in ordered}
    return list(ordered.values())
