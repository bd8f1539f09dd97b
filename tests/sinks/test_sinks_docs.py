"""The configurations of docs/sinks.md can be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringmain.config import load
from ringmain.sinks.types import sink_types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sinks.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_a_configuration_of_the_page_has_no_errors(tmp_path: Path, block: int) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nname = "a"\n{BLOCKS[block]}')
    config, warnings = load(file)
    assert len(config.sinks) == 1
    assert warnings == []


def test_the_page_shows_export_and_publish() -> None:
    shown = {name for block in BLOCKS for name in re.findall(r'^type = "(.*)"$', block, re.MULTILINE)}
    assert {"export", "publish"} <= shown <= set(sink_types())


def test_the_example_of_files_in_and_streams_out_has_no_errors() -> None:
    config, warnings = load(PAGE.parent / "examples" / "files.toml")
    assert (len(config.sources), len(config.flows), len(config.sinks)) == (1, 1, 2)
    assert warnings == []
