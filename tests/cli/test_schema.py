"""The JSON Schema for editors: every configuration of the documentation fits it, and wrong ones do not."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ringmain.cli.schema import configuration_schema, schema_text
from ringmain.config import load
from ringmain.flows.steps import step_types
from ringmain.sinks.types import sink_types
from ringmain.sources.types import source_types

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = configuration_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
EXAMPLES = sorted((DOCS / "examples").rglob("*.toml"))
FILES = [path for path in EXAMPLES if path.name != "case.toml"]


def whole_files(text: str) -> list[str]:
    """The TOML blocks of a page that are a whole configuration."""
    blocks = re.findall(r"^ *```toml[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks if "[node]" in block]


PAGES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(whole_files(page.read_text()))
]


def problems(table: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(table)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(schema_text()) == json.loads(json.dumps(SCHEMA))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_example_fits(path: Path) -> None:
    assert problems(tomllib.loads(path.read_text())) == []


@pytest.mark.parametrize("block", PAGES)
def test_every_configuration_of_a_page_fits(block: str) -> None:
    assert problems(tomllib.loads(block)) == []


WRONG = {
    "unknown table": '[nodes]\nname = "x"',
    "unknown key": '[node]\nname = "x"\ndate = "y"',
    "no name": "[node]",
    "wrong type": "[node]\nname = 5",
    "wrong choice": '[node]\nname = "x"\nlayout = "triple"',
    "unknown source": '[node]\nname = "x"\n[sources.a]\ntype = "mqqt"',
    "key of another source": '[node]\nname = "x"\n[sources.a]\ntype = "mqtt"\nurl = "mqtt://h"\ntopics = ["a"]\nlisten = "h:1"',
    "unknown step": '[node]\nname = "x"\n[flows.a]\nto = "b"\n[[flows.a.steps]]\ntype = "filtr"\nwhere = "x"',
    "key of another step": '[node]\nname = "x"\n[flows.a]\nto = "b"\n[[flows.a.steps]]\ntype = "filter"\nquery = "x"',
    "no steps": '[node]\nname = "x"\n[flows.a]\nto = "b"\nsteps = []',
    "window and steps": '[node]\nname = "x"\n[flows.a]\nto = "b"\nwindow = "1m"\nsteps = [{ type = "filter", where = "x" }]',
    "step without what it needs": '[node]\nname = "x"\n[flows.a]\nto = "b"\n[[flows.a.steps]]\ntype = "filter"',
    "name of a flow": '[node]\nname = "x"\n[flows."a b"]\nto = "b"',
    "alert": '[node]\nname = "x"\n[alerts.a]\nabove = "high"',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_does_not_fit(text: str) -> None:
    assert problems(tomllib.loads(text))


@pytest.mark.parametrize(
    ("table", "kinds"),
    [("sources", source_types()), ("sinks", sink_types())],
    ids=["sources", "sinks"],
)
def test_every_type_can_be_completed(table: str, kinds: dict[str, Any]) -> None:
    choices = SCHEMA["properties"][table]["additionalProperties"]["oneOf"]
    told = [SCHEMA["$defs"][one["$ref"].rpartition("/")[2]] for one in choices]
    assert [one["properties"]["type"]["const"] for one in told] == list(kinds)


def test_every_step_can_be_completed_and_every_key_is_described() -> None:
    steps = SCHEMA["$defs"]["ChainSettings"]["properties"]["steps"]["items"]["oneOf"]
    told = {
        definition["properties"]["type"]["const"]: definition
        for one in steps
        for definition in [SCHEMA["$defs"][one["$ref"].rpartition("/")[2]]]
    }
    assert list(told) == list(step_types())
    without = [
        f"{name}.{key}"
        for name, definition in told.items()
        for key, value in definition["properties"].items()
        if not described(value)
    ]
    assert without == []


def described(value: dict[str, Any]) -> bool:
    inner = [*value.get("anyOf", ()), *value.get("allOf", ())]
    return "description" in value or "$ref" in value or any(map(described, inner))


def test_a_file_that_names_its_schema_is_read_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "ringmain.toml"
    file.write_text('#:schema ./ringmain.schema.json\n[node]\nname = "x"\n')
    assert load(file)[0].node.name == "x"
