"""The page about the test kit: its example runs, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ringmain.testing import FaultyFiles, SimulatedDisk
from ringmain.testing.faults import CALLS

PAGE = (Path(__file__).parents[2] / "docs" / "testing-kit.md").read_text()


def test_the_example_of_the_page_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/testing-kit.md", "exec"), names)
    assert names["found"] == {2, 4}


def test_every_call_and_every_name_on_the_page_exists() -> None:
    listed = PAGE.split("`FaultyFiles` are ")[1].split(".\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(CALLS)
    table = PAGE.split("## Faults of single calls")[1].split("## How")[0]
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for name in re.findall(r"`(\w+)", row):
            assert hasattr(SimulatedDisk(), name), name
            assert hasattr(FaultyFiles(), name), name
