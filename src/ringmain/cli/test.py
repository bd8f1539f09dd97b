"""`ringmain test`: recorded input through flows, and what comes out beside what is expected.

Finds cases, reads their configuration, and shows differences; how a case is run is `flows/cases/`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from ringmain.cli.main import Refusal
from ringmain.flows.cases.compare import Difference
from ringmain.flows.cases.judge import Configured, Result, judge
from ringmain.flows.cases.layout import Case, CaseError, find_cases, open_case
from ringmain.flows.flow import FlowSettings
from ringmain.model.series_csv import SeriesFileError, read_series

SHOWN_MAX = 20
"""Differences of a case that are shown; the rest is counted."""
_HEADER = ("", "stream", "row", "column", "expected", "found")
_CELL_MAX = 60


@click.command(
    epilog="\b\nExamples:\n  ringmain test flows/\n  ringmain test flows/area-load --update\n\n"
    "What a case is: docs/testing-flows.md."
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--update", is_flag=True, help="Write what comes out now as what is expected; look at the change."
)
@click.option(
    "--all", "shown_max", flag_value=sys.maxsize, type=int, default=SHOWN_MAX, help="Show every difference."
)
def test(paths: Sequence[Path], update: bool, shown_max: int) -> None:
    """Run recorded input through flows, and compare with what is expected.

    PATHS are cases (directories with flow.toml, input.csv, expected.csv), or directories with cases below them. Each
    case is run as it was recorded, with its rows cut into other frames, and with flows restarted in between; all three
    have to give the same. Exit status 0: every case passed. 1: one did not.
    """
    began_s = time.monotonic()
    failed = 0
    cases = _cases(paths)
    for directory in cases:
        try:
            case = open_case(directory)
            result = judge(case, configured(case), update=update)
        except CaseError as error:
            failed += 1
            click.echo(f"failed   {directory}\n{_indented(str(error))}")
            continue
        failed += not result.passed
        _show(result, shown_max)
    count = len(cases)
    click.echo(
        f"\n{count} case{'s' if count != 1 else ''}, {count - failed} passed, {failed} failed "
        f"in {time.monotonic() - began_s:.1f} s"
    )
    if failed:
        sys.exit(1)


def _cases(paths: Sequence[Path]) -> list[Path]:
    try:
        return list(dict.fromkeys(found for path in paths for found in find_cases(path)))
    except CaseError as error:
        raise Refusal(str(error)) from None


def configured(case: Case) -> Configured:
    """What a case takes of its node's configuration. Raises CaseError."""
    from ringmain.config import ConfigError, load

    try:
        config, _ = load(case.config)
        series = (
            read_series(config.path.parent / config.catalogue.file)
            if config.catalogue.file is not None
            else []
        )
    except (ConfigError, SeriesFileError, OSError) as error:
        raise CaseError(str(error)) from None
    flows = {name: flow for name, flow in config.flows.items() if isinstance(flow, FlowSettings)}
    return Configured(flows, config.path.parent, ZoneInfo(config.node.timezone), series)


def _show(result: Result, shown_max: int) -> None:
    name = result.case.name
    if result.problem is not None:
        click.echo(f"failed   {name}\n{_indented(result.problem)}")
    elif result.differences:
        click.echo(f"failed   {name}: {len(result.differences)} differences")
        for line in table(result.differences[:shown_max]):
            click.echo(f"    {line}".rstrip())
        if len(result.differences) > shown_max:
            click.echo(f"    and {len(result.differences) - shown_max} more (--all)")
    elif result.changed:
        files = ", ".join(path.name for path in result.changed)
        click.echo(f"updated  {name}: {files}")
    else:
        click.echo(f"passed   {name}: {result.rows_in} rows in, {result.rows_out} out")


def table(differences: Sequence[Difference]) -> list[str]:
    """Differences as lines of aligned columns, with a header."""
    rows = [
        tuple(
            _cell(text) for text in (one.kind.value, one.stream, one.key, one.column, one.expected, one.found)
        )
        for one in differences
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_HEADER, *rows)
    ]


def _cell(text: str) -> str:
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= _CELL_MAX else shown[: _CELL_MAX - 1] + "…"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
