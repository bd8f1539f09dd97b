"""`ringmain test`: recorded input through flows, and what comes out beside what is expected.

Finds cases, reads their configuration, and shows differences; how a case is run is `flows/cases/`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec

from ringmain.cli.main import Refusal
from ringmain.flows.cases.compare import Difference
from ringmain.flows.cases.judge import Configured, Result, judge
from ringmain.flows.cases.judge import digests as judge_digests
from ringmain.flows.cases.layout import SERIES_FILE, Case, CaseError, find_cases, open_case
from ringmain.flows.chain import StepFailureError
from ringmain.flows.flow import FlowSettings
from ringmain.model.series_csv import SeriesFileError, read_series

SHOWN_MAX = 20
"""Differences of a case that are shown; the rest is counted."""
HOUR_NS = 3_600_000_000_000
_HEADER = ("", "stream", "row", "column", "expected", "found")
_CELL_MAX = 60


@click.command(
    epilog="\b\nExamples:\n  ringmain test flows/\n  ringmain test flows/area-load --update\n"
    "  ringmain test --record area-load --data ringmain.toml --from 2026-11-02T06:00Z --to 2026-11-02T07:00Z -o morning"
    "\n\nWhat a case is: docs/testing-flows.md."
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--update", is_flag=True, help="Write what comes out now as what is expected; look at the change."
)
@click.option(
    "--all", "shown_max", flag_value=sys.maxsize, type=int, default=SHOWN_MAX, help="Show every difference."
)
@click.option(
    "--record", "flow", metavar="FLOW", help="Make a case out of what arrived for a flow of a node."
)
@click.option(
    "--data",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("ringmain.toml"),
    show_default=True,
    help="With --record: the node's configuration file.",
)
@click.option(
    "--from", "since", metavar="TIME", help="With --record: first arrival; an hour before --to by default."
)
@click.option("--to", "until", metavar="TIME", help="With --record: end of arrivals; now by default.")
@click.option(
    "-o", "output", type=click.Path(path_type=Path), help="With --record: directory of the new case."
)
@click.option("--digests", is_flag=True, hidden=True)
def test(
    paths: Sequence[Path],
    update: bool,
    shown_max: int,
    flow: str | None,
    config: Path,
    since: str | None,
    until: str | None,
    digests: bool,
    output: Path | None,
) -> None:
    """Run recorded input through flows, and compare with what is expected.

    PATHS are cases (directories with flow.toml, input.csv, expected.csv), or directories with cases below them. Each
    case is run as it was recorded, with its rows cut into other frames, and with flows restarted in between; all three
    have to give the same. Exit status 0: every case passed. 1: one did not.

    With --record a case is made of what is in a node's log, running or not, with what the flow gives of it as the
    expectation. Read it: it is what comes out now, not what is right.
    """
    if flow is not None:
        if output is None or paths or update:
            raise click.UsageError("--record FLOW takes -o DIRECTORY for the new case, and no PATHS")
        _record(config, flow, since, until, output)
        return
    if digests:
        _print_digests(paths)
        return
    if not paths:
        raise click.UsageError("expected directories with cases, such as flows/, or --record FLOW")
    began_s = time.monotonic()
    failed = 0
    cases = _cases(paths)
    for directory in cases:
        try:
            case = open_case(directory)
            result = judge(case, configured(case), update=update)
            if result.passed and result.given:
                result = _in_another_process(result)
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


def _in_another_process(result: Result) -> Result:
    """The result, or that of steps which give something else in a process whose texts have other hashes."""
    # -P: nothing is imported from the directory in which the test happens to run
    command = [
        sys.executable,
        "-P",
        "-m",
        "ringmain.cli.main",
        "test",
        "--digests",
        str(result.case.directory),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        return replace(result, problem=f"in a process of its own: {ran.stderr.strip()}")
    found = msgspec.json.decode(ran.stdout, type=dict[str, str])
    other = next((name for name, digest in result.given.items() if found.get(name) != digest), None)
    if other is None:
        return result
    return replace(
        result,
        problem=f"{other} gives other results in another process: is there a set whose order matters? Use sorted()",
    )


def _print_digests(paths: Sequence[Path]) -> None:
    (directory,) = _cases(paths)
    try:
        case = open_case(directory)
        found = judge_digests(case, configured(case))
    except (CaseError, StepFailureError) as error:
        raise Refusal(str(error)) from None
    click.echo(msgspec.json.encode(found))


def _record(config: Path, flow: str, since: str | None, until: str | None, output: Path) -> None:
    from ringmain.cli.run import load_or_refuse
    from ringmain.cli.test_record import record
    from ringmain.serve.instants import instant_ns

    try:
        to_ns = time.time_ns() if until is None else instant_ns(until)
        from_ns = to_ns - HOUR_NS if since is None else instant_ns(since)
    except ValueError as error:
        raise Refusal(f"--from, --to: {error}") from None
    rows = record(load_or_refuse(config), flow, from_ns, to_ns, output)
    try:
        case = open_case(output)
        result = judge(case, configured(case), update=True)
    except CaseError as error:
        raise Refusal(str(error)) from None
    if result.problem is not None:
        raise Refusal(f"{output}: {result.problem}")
    files = ", ".join(path.name for path in result.changed)
    click.echo(f"recorded {output}: {rows} rows in, {result.rows_out} out ({files}); read what is expected")


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
        own = case.directory / SERIES_FILE
        series = read_series(own) if own.is_file() else []
        named = None if config.catalogue.file is None else config.path.parent / config.catalogue.file
        if named is not None and named.resolve() != own.resolve():
            series += read_series(named)  # what the case says itself goes before
    except (ConfigError, SeriesFileError, OSError) as error:
        raise CaseError(str(error)) from None
    flows = {name: flow for name, flow in config.flows.items() if isinstance(flow, FlowSettings)}
    return Configured(flows, config.path.parent, ZoneInfo(config.node.timezone), series)


def _show(result: Result, shown_max: int) -> None:
    name = result.case.name
    if result.problem is not None:
        click.echo(f"failed   {name}\n{_indented(result.problem)}")
    elif result.differences:
        count = len(result.differences)
        click.echo(f"failed   {name}: {count} difference{'s' if count != 1 else ''}")
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
