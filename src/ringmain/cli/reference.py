"""The reference pages that are generated from the code: configuration, steps, metrics, schema (`make docs`)."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ringmain.cli.schema import schema_text
from ringmain.config import CatalogueSettings, NodeSettings
from ringmain.flows.alerts.table import AlertTable
from ringmain.flows.flow import ChainSettings
from ringmain.flows.settings import WindowSettings
from ringmain.flows.steps import step_types
from ringmain.log.settings import LogSettings
from ringmain.runtime.reference import metrics_page
from ringmain.serve.settings import ServeSettings
from ringmain.sinks.types import sink_types
from ringmain.sources.mapping import MapSettings
from ringmain.sources.types import source_types


def configuration_reference() -> str:
    """docs/configuration.md: every table and key, its type, default and meaning."""
    parts = [
        "# Configuration reference",
        "",
        "Generated from the code by `make docs`. One TOML file describes one node; `ringmain lint FILE` checks it.",
        "Durations are texts such as `500ms`, `10s`, `1m`, `7d`; sizes are texts such as `64MiB`, `20GiB`.",
    ]
    parts += _table("[node]", NodeSettings)
    parts += _table("[log]", LogSettings)
    parts += _table("[catalogue]", CatalogueSettings)
    for name, kind in source_types().items():
        parts += _table(f'[sources.NAME] with type = "{name}"', kind.settings)
    parts += _table("[[sources.NAME.map]]", MapSettings)
    parts += _table("[flows.NAME] with steps", ChainSettings)
    parts += _table("[flows.NAME] in its short form, one window", WindowSettings)
    parts += _table("[alerts.NAME]", AlertTable)
    for name, sink in sink_types().items():
        parts += _table(f'[sinks.NAME] with type = "{name}"', sink.settings)
    parts += _table("[serve]", ServeSettings)
    return "\n".join(parts) + "\n"


def steps_reference() -> str:
    """docs/steps.md: every step of flows, what it does, its keys, and where its example is."""
    types = step_types()
    parts = [
        "# Steps of flows",
        "",
        "Generated from the code by `make docs`. A flow is a chain of steps over one stream ([flows](flows.md)):",
        "",
        "```toml",
        "[flows.NAME]",
        'from = "readings"',
        'to = "a.stream.of.its.own"',
        "",
        "[[flows.NAME.steps]]",
        'type = "filter"',
        "where = \"unit = 'W'\"",
        "```",
        "",
        "Each step has an example with its input and what comes out of it, which `ringmain test` runs "
        "([testing flows](testing-flows.md)).",
        "",
        "| step | what it does |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {_paragraphs(kind)[0]} |" for name, kind in types.items()),
    ]
    for name, kind in types.items():
        parts += ["", f"## `{name}`", ""]
        for paragraph in _paragraphs(kind):
            parts += [paragraph, ""]
        parts += [f"Example: [examples/flows/{name}](examples/flows/{name}/flow.toml)"]
        parts += _keys(name, kind, 2)
    return "\n".join(parts) + "\n"


def _paragraphs(struct: type[msgspec.Struct]) -> list[str]:
    """A docstring's paragraphs, each on one line; lists and code stay as they are."""
    text = inspect.cleandoc(struct.__doc__ or "")
    return [
        part if part.startswith(("- ", "    ", "|")) else " ".join(part.split())
        for part in text.split("\n\n")
    ]


def _table(title: str, struct: type[msgspec.Struct], level: int = 2) -> list[str]:
    lines = ["", f"{'#' * level} `{title}`"]
    summary = (struct.__doc__ or "").strip().splitlines()
    if summary and not summary[0].startswith(struct.__name__ + "("):
        meaning = summary[0].split("`: ", 1)[-1]
        lines += ["", meaning[:1].upper() + meaning[1:]]
    return lines + _keys(title, struct, level)


def _keys(title: str, struct: type[msgspec.Struct], level: int) -> list[str]:
    lines = ["", "| key | type | default | meaning |", "|---|---|---|---|"]
    nested: list[tuple[str, type[msgspec.Struct]]] = []
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        meaning = _description(hint)
        default = (
            "required"
            if field.required
            else f"`{_shown(field.default)}`"
            if field.default is not msgspec.NODEFAULT
            else "empty"
        )
        lines.append(f"| `{field.encode_name}` | {_type(hint)} | {default} | {meaning} |")
        nested += [
            (f"{title} {field.encode_name}", inner)
            for inner in _structs(hint)
            if inner not in (MapSettings, struct)
        ]
    for name, inner in nested:
        lines += _table(name, inner, level + 1)
    return lines


def _description(hint: Any) -> str:
    found = ""
    if typing.get_origin(hint) is Annotated:
        for meta in hint.__metadata__:
            found = getattr(meta, "description", None) or found
    for inner in typing.get_args(hint):
        found = found or (_description(inner) if not isinstance(inner, msgspec.Meta) else "")
    return found.replace("|", "\\|")


def _type(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _type(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(inner) for inner in typing.get_args(hint) if inner is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(hint))
    if origin in (list, tuple):
        inner = [argument for argument in typing.get_args(hint) if argument is not Ellipsis]
        return f"list of {_type(inner[0])}" if inner else "list"
    if origin is dict:
        value = typing.get_args(hint)[1]
        return "table" if value is Any else f"table of {_type(value)}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(f"`{member.value}`" for member in hint)
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(hint, "table")


def _structs(hint: Any) -> list[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [struct for inner in typing.get_args(hint) for struct in _structs(inner)]


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ", ".join(_shown(item) for item in default) or "empty"
    return str(getattr(default, "value", default)) if default != "" else '""'


def pages() -> dict[str, str]:
    """Every generated page by its file name under docs/."""
    return {
        "configuration.md": configuration_reference(),
        "metrics.md": metrics_page(),
        "steps.md": steps_reference(),
        "ringmain.schema.json": schema_text(),
    }


def main() -> None:
    """Write the pages into the directory given as the only argument."""
    directory = Path(sys.argv[1])
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")
        print(f"wrote {directory / name}")


if __name__ == "__main__":
    main()
