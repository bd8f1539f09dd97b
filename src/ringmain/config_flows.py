"""What holds between the flows of a configuration file, and between them and what feeds and reads them.

Every flow is planned as the node would plan it, so that names, units and the order of steps are checked; nothing is
opened but files that steps refer to. `config` turns the findings into lines of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ringmain.config_checks import Found, SinkEntry, SourceEntry
from ringmain.flows.flow import FlowSettings, tag_of
from ringmain.flows.graph import PlannedFlows, plan_flows, reads_of
from ringmain.model.series_csv import SeriesFileError, read_series
from ringmain.model.units import conversion

BUILT_IN = ("readings", "events", "deadletters", "ledger", "accounts", "catalogue", "ticks")
"""Streams that every log has."""
_ROW_WISE = ("filter", "validate", "route", "convert", "derive")
"""Steps behind which a filter that stood before says nothing new, as far as they leave its columns alone."""


def flow_findings(
    flows: Mapping[str, FlowSettings],
    sources: Mapping[str, SourceEntry],
    sinks: Mapping[str, SinkEntry],
    directory: Path,
    zone: ZoneInfo,
    series_file: Path | None = None,
) -> Iterator[Found]:
    """What is wrong with flows as a whole, and doubtful. `series_file`: the catalogue's, if there is one."""
    planned = plan_flows(flows, directory, zone)
    for problem in planned.problems:
        yield Found(("flows", problem.flow, *key_of(problem.key)), problem.message)
    written = written_streams(planned, sources)
    for name, flow in flows.items():
        yield from _unwritten(("flows", name, "from"), flow.from_, written, "this flow")
    for plan in planned.plans:
        for stream in reads_of(plan)[1:]:
            yield from _unwritten(_reading_step(plan.name, plan.steps, stream), stream, written, "this flow")
    for name, entry in sinks.items():
        for stream in entry.settings.streams:
            yield from _unwritten(("sinks", name, "from"), stream, written, "this sink")
    for name, flow in flows.items():
        yield from _repeated(name, flow)
    yield from _alike(flows)
    if series_file is not None:
        yield from _units(flows, series_file)


def key_of(dotted: str) -> tuple[str | int, ...]:
    """`steps.2.where` as a key."""
    return tuple(int(part) if part.isdecimal() else part for part in dotted.split(".") if part)


def written_streams(planned: PlannedFlows, sources: Mapping[str, SourceEntry]) -> set[str]:
    """Every stream that somebody writes."""
    written = {*BUILT_IN, *planned.writers}
    for entry in sources.values():
        for key in ("to", "stream"):
            stream = getattr(entry.settings, key, None)
            if isinstance(stream, str) and stream:
                written.add(stream)
    return written


def _reading_step(flow: str, steps: Any, stream: str) -> tuple[str | int, ...]:
    for number, step in enumerate(steps):
        if stream in step.plan.reads:
            return ("flows", flow, "steps", number)
    return ("flows", flow)


def _unwritten(key: tuple[str | int, ...], stream: str, written: set[str], reader: str) -> Iterator[Found]:
    if stream in written:
        return
    near = difflib.get_close_matches(stream, sorted(written), 1, 0.75)
    if near:
        yield Found(key, f"nobody writes a stream {stream!r} (did you mean {near[0]!r}?)")
    else:
        yield Found(
            key,
            f"nobody writes a stream {stream!r}: no flow of this file does, so {reader} waits until it is there; "
            f"written are {', '.join(sorted(written - set(BUILT_IN[3:])))}",
            warning=True,
        )


def _repeated(name: str, flow: FlowSettings) -> Iterator[Found]:
    """Filters that let everything pass, because the same one stood before them."""
    seen: dict[str, int] = {}
    for number, step in enumerate(flow.steps):
        kind = tag_of(step)
        if kind not in _ROW_WISE or kind == "derive":
            seen.clear()
        elif kind == "filter":
            where = " ".join(str(getattr(step, "where", number)).split())
            if where in seen:
                yield Found(
                    ("flows", name, "steps", number, "where"),
                    f"this filter lets every row pass: step {seen[where] + 1} has the same condition",
                    warning=True,
                )
            seen.setdefault(where, number)
        elif kind == "convert":
            seen = {
                where: place for where, place in seen.items() if "value" not in where and "unit" not in where
            }


def _alike(flows: Mapping[str, FlowSettings]) -> Iterator[Found]:
    """Flows that compute the same from the same."""
    first: dict[Any, str] = {}
    for name, flow in flows.items():
        what = (flow.from_, flow.value, flow.max_ahead_ns, repr(flow.steps))
        other = first.setdefault(what, name)
        if other != name:
            yield Found(
                ("flows", name),
                f"this flow computes the same as [flows.{other}]: read {flows[other].to!r} instead",
                warning=True,
            )


def _units(flows: Mapping[str, FlowSettings], series_file: Path) -> Iterator[Found]:
    """Conversions that none of the catalogue's series can be brought through."""
    try:
        found = {attributes.unit for _, attributes in read_series(series_file)}
    except (SeriesFileError, OSError):
        return
    units = sorted(unit for unit in found if unit is not None)
    for name, flow in flows.items():
        for number, step in enumerate(flow.steps):
            kind = tag_of(step)
            target = getattr(step, "unit", None)
            converts = kind == "convert" and isinstance(target, str) and units and flow.from_ == "readings"
            if converts and not any(_convertible(unit, str(target)) for unit in units):
                yield Found(
                    ("flows", name, "steps", number, "unit"),
                    f"no series of {series_file.name} can be converted to {target}: their units are {', '.join(units)}",
                    warning=True,
                )
            if kind not in ("filter", "validate", "deadband", "swinging-door"):
                break


def _convertible(unit: str, target: str) -> bool:
    try:
        conversion(unit, target)
    except ValueError:
        return False
    except RuntimeError:  # nothing to look it up with
        return True
    return True
