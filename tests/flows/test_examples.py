"""Every example of a flow in the documentation gives what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.cli.test import configured
from ringmain.flows.cases.judge import judge
from ringmain.flows.cases.layout import find_cases, open_case

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "flows"


@pytest.mark.parametrize("directory", find_cases(EXAMPLES), ids=lambda path: path.name)
def test_the_example_gives_what_it_says(directory: Path) -> None:
    case = open_case(directory)
    result = judge(case, configured(case))
    assert result.passed, result.problem or result.differences
    assert result.rows_in, "an example has input"
