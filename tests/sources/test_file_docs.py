"""The examples of docs/file-source.md give the readings that stand below them."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.sources.file_rig import SECOND, Field

PAGE = Path(__file__).resolve().parents[2] / "docs" / "file-source.md"
BLOCKS = re.findall(r"^```(toml|csv|readings)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
EXAMPLES = list(zip(BLOCKS[::3], BLOCKS[1::3], BLOCKS[2::3], strict=True))


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_an_example_gives_its_readings(tmp_path: Path, example: int) -> None:
    (toml, text), (csv, given), (readings, expected) = EXAMPLES[example]
    assert (toml, csv, readings) == ("toml", "csv", "readings")
    (settings,) = tomllib.loads(text)["sources"].values()
    assert settings.pop("type") == "file"
    name, encoding = settings.pop("path"), settings.pop("encoding", "utf-8")
    field = Field(tmp_path)
    try:
        field.replay(given, name=name, encoding=encoding, **settings)
        found = []
        for key, ns, value, quality in field.rows():
            at = datetime.fromtimestamp(ns / SECOND, UTC)
            found.append(
                f"{key} {at:%Y-%m-%dT%H:%M:%SZ} {value}" + (f" quality {quality}" if quality else "")
            )
        assert found == expected.splitlines()
        assert field.letters() == []
    finally:
        field.close()


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 3
