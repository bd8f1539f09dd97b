"""`ringmain log account`: does everything that sources received add up, counted by scanning the log itself?

Two equations for each source: messages received = accepted + rejected + ignored + dropped, and rows handed over = found
+ what the ledger accounts for. Exit status 0 when both hold for all of them, 1 with the exact difference when not,
2 where that cannot be found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from ringmain.cli.located import located, one_place
from ringmain.cli.log_backup import progress_bar
from ringmain.cli.main import Refusal
from ringmain.log import open_reader
from ringmain.log.interface import LogError
from ringmain.log.ledger.entries import DAY_NS, HOUR_NS, MINUTE_NS, instant_text

if TYPE_CHECKING:
    from ringmain.log.ledger.accountant import Accountant
    from ringmain.log.ledger.result import IntervalAccount, MissingEnd, SourceAccount, StreamAccount

INTERVALS = {"minute": MINUTE_NS, "hour": HOUR_NS, "day": DAY_NS}
_MESSAGES = ("received", "accepted", "rejected", "ignored", "dropped", "difference")
_ROWS = (
    "stream",
    "handed over",
    "found",
    "evicted",
    "quarantined",
    "cut",
    "lost",
    "conflict",
    "difference",
)


class _Uncountable(Refusal):
    """As `Refusal`, with the exit status that tells it from an account that does not add up."""

    exit_code = 2


class _Report(msgspec.Struct):
    """What `--json` prints."""

    data: str
    closes: bool
    difference_rows: int
    difference_messages: int
    sources: list[SourceAccount]
    streams: list[StreamAccount]
    intervals: dict[str, list[IntervalAccount]]
    damaged: list[str]
    missing_end: MissingEnd | None


@click.command(
    epilog="\b\nExamples:\n  ringmain log account data\n"
    "  ringmain log account node.toml --source field --from 2026-11-23T00:00:00Z --by hour\n"
    "  ringmain log account data --json && echo nothing is missing"
)
@click.argument("log", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="The same as LOG.  [default: data]")
@click.option("--source", help="Only this source.")
@click.option(
    "--from", "time_from", help="Only what arrived at or after this time (RFC 3339; no offset: UTC)."
)
@click.option("--to", "time_to", help="Only what arrived before this time.")
@click.option("--by", type=click.Choice(list(INTERVALS)), help="Each such interval (UTC) by itself as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def account(
    log: Path | None,
    data: Path | None,
    source: str | None,
    time_from: str | None,
    time_to: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Add up what became of everything that sources received; LOG is a directory or a configuration file.

    Counts by scanning and checking the frames themselves, beside a running node too. Exit status 0: it adds up. 1: it
    does not, and by how much. 2: it cannot be found out.
    """
    try:
        report = _examine(one_place(log, data), source, time_from, time_to, by)
    except Refusal as refusal:
        raise _Uncountable(refusal.message) from None
    click.echo(
        msgspec.json.format(_encoded(report), indent=2) if as_json else "\n".join(_told(report, source))
    )
    if not report.closes:
        raise SystemExit(1)


def _examine(
    log: Path, source: str | None, time_from: str | None, time_to: str | None, by: str | None
) -> _Report:
    from ringmain.log.ledger.accountant import Accountant

    data = located(log).data
    from_ns, to_ns = _instant("--from", time_from), _instant("--to", time_to)
    try:
        with open_reader(data) as reader:
            accountant = Accountant(
                reader,
                from_ns=from_ns,
                to_ns=to_ns,
                interval_ns=None if by is None else INTERVALS[by],
                files=True,
            )
            with progress_bar(f"counting {data}") as progress:
                accountant.advance(progress)
            return _report(accountant, data, source)
    except LogError as error:
        raise Refusal(str(error) if str(error).startswith(str(data)) else f"{data}: {error}") from None
    except OSError as error:
        raise Refusal(f"{data}: cannot be read: {error}") from None


def _report(accountant: Accountant, data: Path, source: str | None) -> _Report:
    accounts = accountant.accounts()
    if source is not None:
        known = [one.source for one in accounts]
        if source not in known:
            raise Refusal(f"no source {source!r} in {data}; expected one of {', '.join(known) or 'none'}")
        accounts = [one for one in accounts if one.source == source]
    streams = [] if source is not None else accountant.streams()
    rows = sum(one.difference_rows for one in accounts)
    # what lacks in a stream lacks its source as well, if that counts
    rows = max(rows, sum(abs(one.difference) for one in streams))
    messages = sum(abs(one.difference_messages) for one in accounts)
    intervals = {one.source: accountant.intervals(one.source) for one in accounts}
    return _Report(
        str(data),
        not rows and not messages and accountant.missing_end is None,
        rows,
        messages,
        accounts,
        streams,
        {name: found for name, found in intervals.items() if found},
        accountant.damaged,
        accountant.missing_end,
    )


def _instant(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{option}: expected a time such as 2026-11-23T06:00:00Z, found {text!r}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 10**9 + moment.microsecond * 1000


def _encoded(report: _Report) -> bytes:
    return msgspec.json.encode(report)


def _told(report: _Report, source: str | None) -> Iterable[str]:
    """The report in plain words and tables."""
    counted = [one for one in report.sources if one.counted]
    if counted:
        yield "messages (received = accepted + rejected + ignored + dropped)"
        lines = [("", one) for one in counted]
        lines += [(_start(i), i.account) for one in counted for i in report.intervals.get(one.source, ())]
        yield from _table(
            [
                ("source", *(("from",) if report.intervals else ()), *_MESSAGES),
                *((one.source, *((at,) if report.intervals else ()), *_messages(one)) for at, one in lines),
            ],
            2 if report.intervals else 1,
        )
        yield ""
    if report.sources:
        yield "rows (handed over = found + evicted + quarantined + cut + lost + conflict)"
        lines = [("", one) for one in report.sources]
        lines += [
            (_start(i), i.account) for one in report.sources for i in report.intervals.get(one.source, ())
        ]
        yield from _table(
            [
                ("source", *(("from",) if report.intervals else ()), *_ROWS),
                *(
                    (one.source, *((at,) if report.intervals else ()), *row)
                    for at, one in lines
                    for row in _rows(one)
                ),
            ],
            3 if report.intervals else 2,
        )
        yield ""
    for one in report.sources:
        if not one.counted:
            yield f"{one.source}: says nothing of what it hands over; its rows are only counted"
        for unknown in one.unknown:
            yield (
                f"{one.source}: unknown from {instant_text(unknown.from_ns)} to {instant_text(unknown.to_ns)}: "
                f"{unknown.reason}"
            )
        for missing in one.missing:
            what = (
                f"{missing.rows:,} rows of {missing.stream} are missing"
                if missing.rows > 0
                else (f"{-missing.rows:,} rows of {missing.stream} are there that were never handed over")
            )
            yield f"{one.source}: {what}, between {missing.after or 'the start'} and {missing.before}"
    for stream in report.streams:
        if stream.difference:
            yield (
                f"stream {stream.stream}: {stream.written:,} rows were written, {stream.found:,} are found, "
                f"{stream.difference:,} are neither there nor in the ledger"
            )
    if report.missing_end is not None:
        yield from _told_end(report.missing_end)
    for place in report.damaged:
        yield f"note: damaged, and not in the ledger yet: {place}; a node enters it when it reads there"
    if not report.sources:
        yield "no source has appended anything" + ("" if source is None else " in this time")
    if report.closes:
        yield "it adds up: everything received is stored or accounted for"
    else:
        yield (
            f"IT DOES NOT ADD UP: difference {report.difference_rows:,} rows, "
            f"{report.difference_messages:,} messages"
            + (f", and at least {report.missing_end.groups:,} groups" if report.missing_end else "")
        )


def _told_end(end: MissingEnd) -> Iterable[str]:
    count = "1 group" if end.groups == 1 else f"{end.groups:,} groups"
    yield (
        f"end of the log: at least {count}, lsn {end.first_lsn} to {end.last_lsn}, are missing or cannot be read; the "
        "mark or a checkpoint says that they were durable"
    )
    if end.counted_lsn < end.last_lsn:
        first = max(end.counted_lsn + 1, end.first_lsn)
        yield f"end of the log: no checkpoint tells the rows of lsn {first} to {end.last_lsn}: they are in no number here"


def _start(interval: IntervalAccount) -> str:
    return instant_text(interval.start_ns)[:19] + "Z"


def _messages(one: SourceAccount) -> list[int]:
    counts = [one.received, one.accepted, one.rejected, one.ignored, one.dropped]
    return [*counts, one.difference_messages]


def _rows(one: SourceAccount) -> Iterable[tuple[str, ...]]:
    """A line for each of the source's streams in which there is anything."""
    for row in one.rows:
        told = (row.evicted, row.quarantined, row.cut, row.lost, row.conflict)
        if row.handed_over or row.found or any(told) or row is one.readings:
            counts = [f"{count:,}" for count in (row.found, *told)]
            handed, difference = (
                (f"{row.handed_over:,}", f"{row.difference:,}") if one.counted else ("-", "-")
            )
            yield row.stream, handed, *counts, difference


def _table(lines: Sequence[Sequence[str | int]], texts: int) -> Iterable[str]:
    """Aligned columns: the first `texts` to the left, numbers to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    for line in cells:
        yield (
            "  "
            + "  ".join(
                cell.ljust(width) if place < texts else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )
