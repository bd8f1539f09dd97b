"""One typed model of the configuration file, composed of the settings that each part declares beside itself.

`load` reads a TOML file and answers with the model, or with every problem found: file and line, key, what was
expected, what was found, and the remedy. It never opens a port or a log: `ringmain lint` is this and no more.
"""

from __future__ import annotations

import copy
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ringmain.config_checks import SinkEntry, SourceEntry, missing_files, shared_addresses, unused_maps
from ringmain.config_flows import flow_findings
from ringmain.config_layout import DEFAULT_LAYOUT, DEFAULT_SILENCE, Layout, silence_of
from ringmain.config_lines import LineFinder, key_parts
from ringmain.config_messages import dotted, explained, follows, nearest, not_toml, remove
from ringmain.flows.alerts.table import AlertTable
from ringmain.flows.flow import ChainSettings, FlowSettings, flow_settings
from ringmain.flows.settings import WindowSettings
from ringmain.flows.short_form import flow_of
from ringmain.flows.steps import step_type, step_types
from ringmain.log.settings import LogSettings
from ringmain.serve.settings import ServeSettings
from ringmain.sinks.types import SinkType, sink_type, sink_types
from ringmain.sources.mapping import MapSettings
from ringmain.sources.types import SourceType, source_type, source_types

_Type = TypeVar("_Type", SourceType, SinkType)

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[node]`: who this node is and where it keeps its data."""

    name: Annotated[
        str, msgspec.Meta(description="the node's name, unique in the utility", pattern=f"^{NAME_PATTERN}$")
    ]
    data: Annotated[
        str, msgspec.Meta(description="directory of the log, relative to the configuration file")
    ] = "data"
    timezone: Annotated[str, msgspec.Meta(description="IANA zone in which people read times")] = "UTC"
    layout: Annotated[
        Layout,
        msgspec.Meta(
            description="processes: `split` has one that acknowledges, one for flows and one for the server, so that "
            "no query and no flow delays an acknowledgement; `single` is one process, for small machines"
        ),
    ] = DEFAULT_LAYOUT
    silence: Annotated[
        str,
        msgspec.Meta(
            description="with layout `split`: a process of which nothing is heard for so long (one of its threads keeps all "
            "others from running, say) is killed and started again; at least 5s"
        ),
    ] = DEFAULT_SILENCE


class CatalogueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[catalogue]`: what is known about series before their first reading."""

    file: Annotated[
        str | None,
        msgspec.Meta(
            description="CSV with key, unit, quantity, medium, device, place, owner; other columns are external names"
        ),
    ] = None
    max_series: Annotated[
        int,
        msgspec.Meta(
            description="series that one source may create; beyond that its messages become dead letters",
            ge=1,
        ),
    ] = 200_000


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A whole configuration file. Paths in it are resolved against the file's directory."""

    path: Path
    node: NodeSettings
    log: LogSettings = field(default_factory=LogSettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    sources: Mapping[str, SourceEntry] = field(default_factory=dict)
    flows: Mapping[str, FlowSettings] = field(default_factory=dict)
    serve: ServeSettings | None = None
    sinks: Mapping[str, SinkEntry] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Directory of the log."""
        return self.path.parent / self.node.data

    def maps(self) -> dict[str, list[MapSettings]]:
        """The mappings of every source that has its own, by the source's name."""
        return {
            name: list(entry.settings.map)
            for name, entry in self.sources.items()
            if not isinstance(getattr(entry.settings, "map", ""), str)
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or, with `warning`, doubtful) in a configuration file."""

    file: str
    line: int
    """1 is the first; 0 where it is about the file as a whole."""
    key: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        """`FILE:LINE: KEY: what was expected and found, and the remedy`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        kind = "warning: " if self.warning else ""
        return f"{place}: {kind}{self.key}: {self.message}" if self.key else f"{place}: {kind}{self.message}"


class ConfigError(Exception):
    """The file cannot be used; `problems` says why, one line each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load(path: Path) -> tuple[NodeConfig, list[Problem]]:
    """The configuration in `path` and its warnings. Raises ConfigError with every error found."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            [
                Problem(
                    str(path),
                    0,
                    "",
                    "no such file; `ringmain run FILE` takes a configuration file, see docs/getting-started.md",
                )
            ]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), 0, "", f"cannot be read as UTF-8 text: {error}")]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, "", f"cannot be read: {error.strerror or error}")]) from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        number = int(line[1]) if line else text.count("\n") + 1
        raise ConfigError([Problem(str(path), number, "", not_toml(str(error)))]) from None
    return _Reading(path, text).config(tables)


class _Reading:
    """One pass over one file: converts each table by its own struct and collects what is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = LineFinder(text)
        self.problems: list[Problem] = []
        self.alerts: set[str] = set()
        """Flows that stand in the file as [alerts.NAME]."""

    def config(self, tables: dict[str, Any]) -> tuple[NodeConfig, list[Problem]]:
        known = ("node", "log", "catalogue", "sources", "flows", "alerts", "sinks", "serve")
        for name in tables:
            if name not in known:
                self.problem(
                    (name,), f"unknown table{nearest(name, known)}; expected one of {', '.join(known)}"
                )
        if "node" not in tables:
            self.problem((), 'expected a table [node] with a name, found none: add [node] and name = "..."')
        node = self.convert(("node",), tables.get("node", {}), NodeSettings) if "node" in tables else None
        log = self.convert(("log",), tables.get("log", {}), LogSettings)
        catalogue = self.convert(("catalogue",), tables.get("catalogue", {}), CatalogueSettings)
        sources = self.sources(tables.get("sources", {}))
        flows = {
            name: flow
            for name, table in self.named("flows", tables.get("flows", {}))
            if (flow := self.flow(("flows", name), table)) is not None
        }
        for name, table in self.named("alerts", tables.get("alerts", {})):
            if (flow := self.alert(name, table, flows)) is not None:
                flows[name] = flow
        sinks = self.sinks(tables.get("sinks", {}))
        serve = self.convert(("serve",), tables["serve"], ServeSettings) if "serve" in tables else None
        self.check_values(node, log, catalogue, sources, flows, serve)
        self.check_flows(node, catalogue, sources, flows, sinks)
        errors = [problem for problem in self.problems if not problem.warning]
        if errors or node is None or log is None or catalogue is None:
            raise ConfigError(sorted(errors, key=lambda problem: problem.line))
        config = NodeConfig(self.path, node, log, catalogue, sources, flows, serve, sinks)
        return config, [problem for problem in self.problems if problem.warning]

    def sources(self, tables: Any) -> dict[str, SourceEntry]:
        return {
            name: SourceEntry(name, type_name, found, settings)
            for name, type_name, found, settings in self.typed(
                "source", tables, source_type, lambda: list(source_types())
            )
        }

    def sinks(self, tables: Any) -> dict[str, SinkEntry]:
        entries = {
            name: SinkEntry(name, type_name, found, settings)
            for name, type_name, found, settings in self.typed(
                "sink", tables, sink_type, lambda: list(sink_types())
            )
        }
        for name, entry in entries.items():
            self.report(("sinks", name), *entry.settings.check_streams())
            self.report(("sinks", name), *entry.type.check(entry.settings))
        return entries

    def typed(
        self, noun: str, tables: Any, find: Callable[[str], _Type | None], names: Callable[[], list[str]]
    ) -> Iterator[tuple[str, str, _Type, Any]]:
        """(name, type name, type, settings) of each table whose `type` names what there is."""
        for name, table in self.named(f"{noun}s", tables):
            key: tuple[str, str] = (f"{noun}s", name)
            type_name = table.get("type")
            if not isinstance(type_name, str):
                self.problem(key, f"expected a type, found none; one of {', '.join(names())}")
                continue
            found = find(type_name)
            if found is None:
                known = names()
                self.problem(
                    (*key, "type"),
                    f"unknown {noun} type {type_name!r}{nearest(type_name, known)}; expected one of {', '.join(known)}",
                )
                continue
            settings = self.convert(key, {k: v for k, v in table.items() if k != "type"}, found.settings)
            if settings is not None:
                yield name, type_name, found, settings

    def flow(self, key: tuple[str, str], table: dict[str, Any]) -> FlowSettings | None:
        """A flow with its steps, or in the short form of one window step."""
        if "steps" not in table:
            short: WindowSettings | None = self.convert(key, table, WindowSettings)
            if short is None:
                return None
            self.report(key, *short.check())
            return (
                None
                if any(problem.key.startswith(dotted(key)) for problem in self.errors())
                else flow_of(short)
            )
        chain: ChainSettings | None = self.convert(key, table, ChainSettings)
        if chain is None:
            return None
        steps = []
        for number, step in enumerate(chain.steps):
            place = (*key, "steps", number)
            kind = step.get("type")
            found = step_type(kind) if isinstance(kind, str) else None
            if found is None:
                types = list(step_types())
                near = nearest(kind, types) if isinstance(kind, str) else ""
                self.problem(
                    (*place, "type"), f"unknown step type {kind!r}{near}; expected one of {', '.join(types)}"
                )
                continue
            settings = self.convert(place, step, found)
            if settings is not None:
                steps.append(settings)
        try:
            flow = flow_settings(chain, steps)
        except ValueError as error:
            self.problem((*key, "max_ahead"), str(error))
            return None
        self.report(key, *flow.check())
        return flow

    def alert(
        self, name: str, table: dict[str, Any], flows: Mapping[str, FlowSettings]
    ) -> FlowSettings | None:
        """The flow that `[alerts.NAME]` stands for."""
        key = ("alerts", name)
        if name in flows:
            self.problem(
                key, f"expected a name of its own, found that of [flows.{name}]: an alert is a flow too"
            )
            return None
        found: AlertTable | None = self.convert(key, table, AlertTable)
        try:
            flow = None if found is None else found.flow()
        except ValueError as error:
            self.problem((*key, "max_ahead"), str(error))
            return None
        self.alerts.add(name)
        if flow is not None:
            self.report(("flows", name), *flow.check())
        return flow

    def errors(self) -> list[Problem]:
        """What was found that is wrong, so far."""
        return [problem for problem in self.problems if not problem.warning]

    def named(self, table_name: str, tables: Any) -> list[tuple[str, dict[str, Any]]]:
        if not isinstance(tables, dict):
            self.problem((table_name,), f"expected tables [{table_name}.NAME], found {type(tables).__name__}")
            return []
        named: list[tuple[str, dict[str, Any]]] = []
        for name, table in tables.items():
            if not isinstance(table, dict):
                self.problem(
                    (table_name, name),
                    f"expected a table [{table_name}.{name}], found {type(table).__name__}",
                )
            elif not re.fullmatch(NAME_PATTERN, name):
                self.problem(
                    (table_name, name),
                    f"expected a name of letters, digits, '_', '.', '-' (up to 64), found {name!r}",
                )
            else:
                named.append((name, table))
        return named

    def check_values(
        self,
        node: NodeSettings | None,
        log: LogSettings | None,
        catalogue: CatalogueSettings | None,
        sources: dict[str, SourceEntry],
        flows: dict[str, FlowSettings],
        serve: ServeSettings | None,
    ) -> None:
        """What no type can say: values that parts check themselves, and references between tables."""
        if node is not None:
            try:
                zoneinfo.ZoneInfo(node.timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                near = nearest(node.timezone, zoneinfo.available_timezones())
                self.problem(
                    ("node", "timezone"),
                    f"expected an IANA time zone such as Europe/Berlin, found {node.timezone!r}{near}",
                )
            if silence_of(node.silence) is None:
                self.problem(
                    ("node", "silence"),
                    f"expected a duration of at least 5s, such as 60s, found {node.silence!r}",
                )
        if log is not None:
            self.report(("log",), log.check(), [])
        if (
            catalogue is not None
            and catalogue.file is not None
            and not (self.path.parent / catalogue.file).is_file()
        ):
            self.problem(("catalogue", "file"), f"no such file: {self.path.parent / catalogue.file}")
        own = {
            name for name, entry in sources.items() if not isinstance(getattr(entry.settings, "map", ""), str)
        }
        for name, entry in sources.items():
            self.report(("sources", name), *entry.type.check(entry.settings))
            reference = getattr(entry.settings, "map", None)
            if isinstance(reference, str) and reference not in own:
                self.problem(
                    ("sources", name, "map"),
                    f"no source {reference!r} with a mapping of its own to reuse{nearest(reference, own)}; "
                    f"name one, or give [[sources.{name}.map]]",
                )
        for found in chain(
            unused_maps(sources), missing_files(self.path.parent, sources), shared_addresses(sources, serve)
        ):
            self.problem(found.key, found.message, warning=found.warning)
        targets: dict[str, str] = {}
        for name, flow in flows.items():
            if flow.to in targets and not (flow.gives_events and flows[targets[flow.to]].gives_events):
                self.problem(
                    ("flows", name, "to"),
                    f"the stream {flow.to!r} is already written by [flows.{targets[flow.to]}]; give another name",
                )
            targets.setdefault(flow.to, name)
        if serve is not None:
            self.report(("serve",), *serve.check())

    def check_flows(
        self,
        node: NodeSettings | None,
        catalogue: CatalogueSettings | None,
        sources: dict[str, SourceEntry],
        flows: dict[str, FlowSettings],
        sinks: dict[str, SinkEntry],
    ) -> None:
        """Flows as a whole, where each by itself is right: what is wrong with one would be told again for others."""
        if any(problem.key.startswith(("flows", "alerts", "node.timezone")) for problem in self.errors()):
            return
        directory = self.path.parent
        series = None if catalogue is None or catalogue.file is None else directory / catalogue.file
        zone = zoneinfo.ZoneInfo("UTC" if node is None else node.timezone)
        for found in flow_findings(flows, sources, sinks, directory, zone, series):
            self.problem(found.key, found.message, warning=found.warning)

    def report(
        self, key: tuple[str | int, ...], errors: list[tuple[str, str]], warnings: list[tuple[str, str]]
    ) -> None:
        for found, is_warning in ((errors, False), (warnings, True)):
            for name, message in found:
                parts = (int(part) if part.isdecimal() else part for part in key_parts(name))  # map.1.series
                self.problem((*key, *parts), message, warning=is_warning)

    def convert(self, key: tuple[str | int, ...], table: Any, struct: type[Any]) -> Any:
        """The table as `struct`, without the keys that are wrong and noted; None where nothing useful is left."""
        left = copy.deepcopy(table)
        removed: set[tuple[str | int, ...]] = set()
        while True:
            try:
                return msgspec.convert(left, struct)
            except msgspec.ValidationError as error:
                where, text, missing = explained(str(error), left, struct, key)
                if missing is None or not follows(missing, where, removed):
                    self.problem((*key, *where), text)
                gone = remove(left, where)
                if not gone:
                    return None
                removed.add(gone)

    def problem(self, key: tuple[str | int, ...], message: str, warning: bool = False) -> None:
        if key[0:1] == ("flows",) and key[1:2] and key[1] in self.alerts:
            key = ("alerts", key[1], *(key[4:] if key[2:4] == ("steps", 0) else key[2:]))
        line = self.lines.find(key)
        self.problems.append(Problem(str(self.path), line, dotted(key), message, warning))
