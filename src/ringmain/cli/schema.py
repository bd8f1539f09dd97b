"""`ringmain schema`: the JSON Schema of the configuration file, for completion and checks in editors.

Made of the same structs that read the file, so it knows every table, key, default and description: sources, sinks and
steps each by its `type`. What no type can say (references between tables, expressions) `ringmain lint` checks.
"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from ringmain.config import NAME_PATTERN, CatalogueSettings, NodeSettings
from ringmain.flows.alerts.table import AlertTable
from ringmain.flows.flow import ChainSettings
from ringmain.flows.settings import WindowSettings
from ringmain.flows.steps import step_types
from ringmain.log.settings import LogSettings
from ringmain.serve.settings import ServeSettings
from ringmain.sinks.types import sink_types
from ringmain.sources.types import source_types

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
Json = dict[str, Any]


@click.command(
    epilog="\b\nExamples:\n  ringmain schema > ringmain.schema.json\n\n"
    "With `#:schema ./ringmain.schema.json` as the first line of a configuration file, VS Code (extension Even Better "
    "TOML) and every editor with Taplo complete and explain its keys."
)
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """The schema as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(configuration_schema()), indent=2).decode() + "\n"


def configuration_schema() -> Json:
    """The schema of a whole configuration file (JSON Schema 2020-12)."""
    tables = {
        "node": NodeSettings,
        "log": LogSettings,
        "catalogue": CatalogueSettings,
        "serve": ServeSettings,
    }
    sources = {name: kind.settings for name, kind in source_types().items()}
    sinks = {name: kind.settings for name, kind in sink_types().items()}
    steps = step_types()
    structs = [
        *tables.values(),
        WindowSettings,
        ChainSettings,
        AlertTable,
        *sources.values(),
        *sinks.values(),
        *steps.values(),
    ]
    references, definitions = msgspec.json.schema_components(structs, ref_template=_REF)
    ref_of = dict(zip(structs, references, strict=True))
    chain = _resolved(ref_of[ChainSettings], definitions)
    chain["properties"]["steps"] = {
        **{key: text for key, text in chain["properties"]["steps"].items() if key == "description"},
        "type": "array",
        "minItems": 1,
        "items": _one_of({name: ref_of[kind] for name, kind in steps.items()}, definitions),
    }
    short = _resolved(ref_of[WindowSettings], definitions)
    short["not"] = {"required": ["steps"]}
    for table in (short, _resolved(ref_of[AlertTable], definitions)):  # what these are, their place says
        table["properties"].pop("type", None)
        table["required"] = [key for key in table.get("required", ()) if key != "type"]
    for definition in definitions.values():
        for key, value in definition.get("properties", {}).items():
            definition["properties"][key] = _without_null(value)
    return {
        "$schema": _DIALECT,
        "title": "Ringmain node configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["node"],
        "properties": {
            **{name: ref_of[struct] for name, struct in tables.items()},
            "sources": _named(
                "where data comes from, each by a name",
                _one_of({name: ref_of[kind] for name, kind in sources.items()}, definitions),
            ),
            "flows": _named(
                "what is computed, each by a name: a chain of steps, or one window in its short form",
                {"oneOf": [ref_of[ChainSettings], ref_of[WindowSettings]]},
            ),
            "alerts": _named("conditions and the alarms that follow, each by a name", ref_of[AlertTable]),
            "sinks": _named(
                "where data goes, each by a name",
                _one_of({name: ref_of[kind] for name, kind in sinks.items()}, definitions),
            ),
        },
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def _resolved(reference: Json, definitions: dict[str, Json]) -> Json:
    return definitions[reference["$ref"].rpartition("/")[2]]


def _without_null(value: Json) -> Json:
    """TOML has no null: a key that may be left out is left out."""
    choices = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == len(value.get("anyOf", ())):
        return value
    rest = {
        key: told for key, told in value.items() if key != "anyOf" and not (key == "default" and told is None)
    }
    return {**rest, **choices[0]} if len(choices) == 1 else {**rest, "anyOf": choices}


def _named(description: str, table: Json) -> Json:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
        "additionalProperties": table,
    }


def _one_of(kinds: dict[str, Json], definitions: dict[str, Json]) -> Json:
    """A table whose `type` says which struct the rest is; the struct's own definition gets the key `type`."""
    for name, reference in kinds.items():
        definition = _resolved(reference, definitions)
        properties = definition["properties"]
        properties.pop("type", None)
        definition["properties"] = {
            "type": {"const": name, "description": _first_line(definition)},
            **properties,
        }
        definition["required"] = ["type", *(key for key in definition.get("required", ()) if key != "type")]
    return {"oneOf": list(kinds.values())}


def _first_line(definition: Json) -> str:
    return str(definition.get("description", "")).partition("\n")[0]
