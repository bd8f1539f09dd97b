"""Every example of a flow in the documentation gives what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.cli.test import configured
from ringmain.flows.cases.judge import judge
from ringmain.flows.cases.layout import find_cases, open_case
from ringmain.flows.flow import tag_of
from ringmain.flows.steps import step_types

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "flows"


@pytest.mark.parametrize("directory", find_cases(EXAMPLES), ids=lambda path: path.name)
def test_the_example_gives_what_it_says(directory: Path) -> None:
    case = open_case(directory)
    result = judge(case, configured(case))
    assert result.passed, result.problem or result.differences
    assert result.rows_in, "an example has input"


def test_every_step_has_an_example() -> None:
    missing = [name for name in step_types() if not (EXAMPLES / name / "flow.toml").is_file()]
    assert missing == []


def test_every_example_uses_the_step_that_it_is_named_after() -> None:
    for directory in find_cases(EXAMPLES):
        flows = configured(open_case(directory)).flows.values()
        used = {tag_of(step) for flow in flows for step in flow.steps}
        assert directory.name not in step_types() or directory.name in used, directory
