"""`ringmain log export`: the rows of a stream in a file of a common format, whole or not at all.

The file has its name only once it is complete and on the disk; what an interrupted export leaves behind has another
name. Beside a running node everything is exported that was durable when the command began.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from ringmain.cli.located import located, shown_bytes
from ringmain.cli.log_backup import progress_bar
from ringmain.cli.main import Refusal
from ringmain.log.interface import LogError

if TYPE_CHECKING:
    from ringmain.cli.export_formats import ExportFormat, Output
    from ringmain.cli.export_rows import ExportedRows, Selection

FORMATS = ("parquet", "arrow", "csv", "ndjson")


@click.command(
    epilog="\b\nExamples:\n  ringmain log export data readings -o november.parquet --from 2026-11-01 --to 2026-12-01\n"
    "  ringmain log export node.toml readings --series 'ss-07/*' --format csv -o ss-07.csv\n"
    "  ringmain log export data readings.1m --format arrow -o minutes.arrow\n"
    "  ringmain log export data deadletters --format ndjson -o - | jq .reason"
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("stream")
@click.option(
    "--from", "time_from", help="Only rows whose own time is at or after this (RFC 3339; no offset: UTC)."
)
@click.option("--to", "time_to", help="Only rows whose own time is before this.")
@click.option("--arrival-from", help="Only what arrived in the log at or after this time.")
@click.option("--arrival-to", help="Only what arrived in the log before this time.")
@click.option(
    "--series", "patterns", multiple=True, help="Only series whose key matches, e.g. 'ss-07/*'; may repeat."
)
@click.option("--format", "chosen", type=click.Choice(FORMATS), help="Default: by the name of FILE.")
@click.option("--output", "-o", "file", required=True, metavar="FILE", help="Where to; - is standard output.")
@click.option(
    "--with-origin", is_flag=True, help="Columns `arrived` and `position`: when, and where in the log."
)
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
def export(
    source: Path,
    stream: str,
    time_from: str | None,
    time_to: str | None,
    arrival_from: str | None,
    arrival_to: str | None,
    patterns: tuple[str, ...],
    chosen: str | None,
    file: str,
    with_origin: bool,
    force: bool,
) -> None:
    """Write the rows of STREAM to a file: series by key and unit, in the order of the log.

    SOURCE is the directory of a log, or the configuration file of its node. A node may be running there: what was
    durable when the command began is exported. FILE appears when it is complete, or not at all.
    """
    from pyarrow import ArrowException

    from ringmain.cli.export_rows import ExportedRows, NothingToExportError, Selection
    from ringmain.log import open_reader

    selection = Selection(
        _instant("--from", time_from),
        _instant("--to", time_to),
        _instant("--arrival-from", arrival_from),
        _instant("--arrival-to", arrival_to),
        patterns,
    )
    wanted = _format(chosen, file)
    target = _target(file, force)
    data = located(source).data
    try:
        with open_reader(data) as reader:
            states = {state.stream.name: state for state in reader.streams()}
            if stream not in states:
                raise Refusal(f"no stream {stream!r} in {data}; expected one of {', '.join(states)}")
            rows = ExportedRows(reader, states[stream], selection, origin=with_origin)
            with progress_bar(f"exporting {stream}") as progress:
                size, not_numbers = (
                    _to_stdout(rows, wanted, progress)
                    if target is None
                    else _to_file(rows, wanted, target, progress, force=force)
                )
    except (LogError, NothingToExportError) as error:
        raise Refusal(str(error) if str(error).startswith(str(data)) else f"{data}: {error}") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refusal(
            f"{file}: cannot be written ({error.strerror or error}): there is no such file now, or the old one"
        ) from None
    except ArrowException as error:
        raise Refusal(
            f"{wanted.value} has no place for a column of {stream} ({error}): choose another --format"
        ) from None
    _tell(rows, selection, file, size, not_numbers)


def _instant(option: str, text: str | None) -> int | None:
    from ringmain.serve.instants import instant_ns

    if text is None:
        return None
    try:
        return instant_ns(text)
    except ValueError as error:
        raise Refusal(f"{option}: {error}") from None


def _format(chosen: str | None, file: str) -> ExportFormat:
    from ringmain.cli.export_formats import ExportFormat

    suffixes = {f".{one.value}": one for one in ExportFormat} | {".jsonl": ExportFormat.NDJSON}
    if chosen is not None:
        found = ExportFormat(chosen)
    elif Path(file).suffix.lower() in suffixes:
        found = suffixes[Path(file).suffix.lower()]
    else:
        raise click.UsageError(
            f"expected --format, one of {', '.join(FORMATS)}: the name of {file!r} does not say"
        )
    if file == "-" and found.binary and sys.stdout.isatty():
        raise Refusal(f"{found.value} is nothing for a terminal: give a file with -o, or another --format")
    return found


def _target(file: str, force: bool) -> Path | None:
    if file == "-":
        return None
    path = Path(file)
    if not path.parent.is_dir():
        raise Refusal(f"{path}: expected a file in a directory that exists, found no {path.parent}")
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Refusal(f"{path}: expected the name of a file, found something else there")
        if not force:
            raise Refusal(f"{path} exists: give another name, or --force to replace it")
    return path


def _to_stdout(
    rows: ExportedRows, wanted: ExportFormat, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    out = _Counted(sys.stdout.buffer)
    output = _written(rows, wanted, cast("BinaryIO", out), progress, seekable=False)
    sys.stdout.buffer.flush()
    return out.written, output.not_numbers


def _to_file(
    rows: ExportedRows, wanted: ExportFormat, path: Path, progress: Callable[[int, int], None], *, force: bool
) -> tuple[int, int]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as out:
            output = _written(rows, wanted, out, progress, seekable=True)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        if path.exists() and not force:
            raise Refusal(f"{path} has come to exist meanwhile: give another name, or --force to replace it")
        temporary.replace(path)
        with _directory(path.parent) as handle:
            os.fsync(handle)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return size, output.not_numbers


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _written(
    rows: ExportedRows,
    wanted: ExportFormat,
    out: BinaryIO,
    progress: Callable[[int, int], None],
    *,
    seekable: bool,
) -> Output:
    from ringmain.cli.export_formats import CHUNK_BYTES, output_of

    constant = frozenset({"series", "unit"})
    output = output_of(wanted, rows.schema, out, seekable=seekable, constant=constant)
    for batch in rows.batches(wanted.chunk_rows, CHUNK_BYTES, progress):
        output.write(batch)
    output.close()
    return output


class _Counted:
    """A pipe, with the bytes that went into it."""

    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.written = 0

    def write(self, data: bytes | memoryview) -> int:
        size = self._out.write(data)
        self.written += size
        return size

    def flush(self) -> None:
        self._out.flush()

    def tell(self) -> int:
        return self.written

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Standard output is not closed here."""


def _tell(rows: ExportedRows, selection: Selection, file: str, size: int, not_numbers: int) -> None:
    """What was written, and what is missing in it: to standard error, where the rows go to standard output."""
    name = rows.state.stream.name
    place = "standard output" if file == "-" else file
    lines = [f"{rows.rows} rows of {name} up to position {rows.end}: {shown_bytes(size)} in {place}"]
    if not_numbers:
        lines.append(f"note: {not_numbers} values that JSON has no number for (NaN, infinite) are null")
    if not selection.skips_frames:
        if rows.before:
            lines.append(
                f"note: the first {rows.before} rows of {name} are not in the log any more (removed by retention, or damaged)"
            )
        if rows.missing:
            lines.append(
                f'note: {rows.missing} rows of {name} in between are missing: see `ringmain sql "select * from ledger"`'
            )
    for line in lines:
        click.echo(line, err=file == "-")
