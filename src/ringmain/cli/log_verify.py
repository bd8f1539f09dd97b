"""`ringmain log verify`: progress while it reads, then what was found, each problem with its remedy."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from ringmain.log.check.verify import Problem, VerifyReport, verify
from ringmain.log.interface import LogError

SOUND, DAMAGED, UNREADABLE = 0, 1, 2
"""Exit statuses."""
LINE_INTERVAL_S = 5.0
"""Between two lines of progress where standard error is no terminal."""
_STEPS = 1000
_PROBLEMS_SHOWN = 1_000


class _Problem(msgspec.Struct):
    """A problem as JSON has it."""

    where: str
    start: int | None
    end: int | None
    first_lsn: int | None
    last_lsn: int | None
    rows: dict[str, int | None]
    reason: str
    known: bool
    remedy: str


class _Report(msgspec.Struct):
    """The report as JSON has it."""

    sound: bool
    segments: int
    bytes: int
    groups: int
    frames: int
    seconds: float
    rows: dict[str, int]
    problems: list[_Problem]
    notes: list[str]


def verify_and_print(data: Path, *, as_json: bool) -> int:
    """Verify the log in `data` and print what was found; the exit status."""
    started = time.monotonic()
    try:
        with _progress(data) as progress:
            report = verify(data, progress)
    except (LogError, OSError) as error:
        found = str(error)
        click.echo(f"ringmain: {found if str(data) in found else f'{data}: {found}'}", err=True)
        return UNREADABLE
    seconds = time.monotonic() - started
    if as_json:
        click.echo(msgspec.json.encode(_as_json(report, seconds)).decode())
    else:
        _print(report, seconds)
    return SOUND if report.sound else DAMAGED


@contextmanager
def _progress(data: Path) -> Iterator[Callable[[int, int], None]]:
    """Where progress goes: a bar on a terminal, otherwise a line every few seconds."""
    if not sys.stderr.isatty():
        told = time.monotonic()

        def line(done_bytes: int, all_bytes: int) -> None:
            nonlocal told
            if time.monotonic() - told >= LINE_INTERVAL_S:
                told = time.monotonic()
                percent = done_bytes * 100 // max(all_bytes, 1)
                click.echo(f"verifying {data}: {percent} % of {all_bytes / 1e9:.1f} GB", err=True)

        yield line
        return
    with click.progressbar(length=_STEPS, label=f"verifying {data}", file=sys.stderr) as bar:
        shown = 0

        def step(done_bytes: int, all_bytes: int) -> None:
            nonlocal shown
            moved = done_bytes * _STEPS // max(all_bytes, 1) - shown
            if moved > 0:
                bar.update(moved)
                shown += moved

        yield step
        bar.update(_STEPS - shown)


def _print(report: VerifyReport, seconds: float) -> None:
    rate = f", {report.bytes / seconds / 1e9:.2f} GB/s" if seconds > 1 else ""
    click.echo(
        f"{report.segments} {'segment' if report.segments == 1 else 'segments'}, {report.bytes} bytes, "
        f"{report.groups} groups, {report.frames} frames in {seconds:.1f} s{rate}"
    )
    click.echo("rows: " + ", ".join(f"{name} {count}" for name, count in sorted(report.rows.items())))
    for note in report.notes:
        click.echo(f"note: {note}")
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        click.echo(f"problem: {problem}\n  remedy: {problem.remedy.value}", err=True)
    if len(report.problems) > _PROBLEMS_SHOWN:
        click.echo(f"and {len(report.problems) - _PROBLEMS_SHOWN} more problems", err=True)
    click.echo("sound" if report.sound else f"problems: {len(report.problems)}")


def _as_json(report: VerifyReport, seconds: float) -> _Report:
    def problem(one: Problem) -> _Problem:
        return _Problem(
            one.where,
            one.start,
            one.end,
            one.first_lsn,
            one.last_lsn,
            one.rows,
            one.reason,
            one.known,
            one.remedy.value,
        )

    return _Report(
        report.sound,
        report.segments,
        report.bytes,
        report.groups,
        report.frames,
        round(seconds, 3),
        report.rows,
        [problem(one) for one in report.problems],
        report.notes,
    )
