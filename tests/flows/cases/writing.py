"""Writing cases for tests, and running them as `ringmain test` does."""

from __future__ import annotations

from pathlib import Path

from ringmain.cli.test import configured
from ringmain.flows.cases.judge import Result, judge
from ringmain.flows.cases.layout import open_case

FLOW = """
[node]
name = "case"

[flows.kilowatts]
to = "kilowatts"
[[flows.kilowatts.steps]]
type = "derive"
value = "value / 1000"
"""
INPUT = """arrived,series,time,value
2026-03-01T12:00:01Z,m1,2026-03-01T12:00:00Z,1500
2026-03-01T12:00:01Z,m2,2026-03-01T12:00:00Z,2500
2026-03-01T12:00:03Z,m1,2026-03-01T12:00:02Z,nan
"""


def write(directory: Path, **files: str) -> Path:
    """A case with these files; `__` in a name stands for a dot, `.toml`, `.py` or `.csv` follows by what they are."""
    directory.mkdir(parents=True, exist_ok=True)
    ends = {"flow": "toml", "case": "toml", "steps": "py"}
    given = {"flow": FLOW, "input": INPUT, "case": 'tail = "10s"\n', **files}
    for name, text in given.items():
        (directory / f"{name.replace('__', '.')}.{ends.get(name, 'csv')}").write_text(text)
    return directory


def run(directory: Path, *, update: bool = False) -> Result:
    """What `ringmain test` makes of a case."""
    case = open_case(directory)
    return judge(case, configured(case), update=update)
