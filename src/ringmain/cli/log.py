"""`ringmain log`: streams, frames and integrity of a log, read-only, while a node runs on it or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
import pyarrow as pa

from ringmain.cli.located import located, one_place
from ringmain.cli.log_account import account
from ringmain.cli.log_backup import backup, restore
from ringmain.cli.log_export import export
from ringmain.cli.main import Refusal
from ringmain.cli.output import format_option, print_rows
from ringmain.log import JournalReader, open_reader
from ringmain.log.interface import Frame, LogError, Position
from ringmain.model.schemas import TIMESTAMP

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Directory of the log, or its node's configuration file.",
)


def reader_of(data: Path) -> JournalReader:
    """A reader of the log in `data`, a directory or its node's configuration file. Raises Refusal where there is none."""
    if data.is_file():
        data = located(data).data
    if not data.is_dir():
        raise Refusal(f"no log in {data}: expected a directory that a node writes; give it with --data DIR")
    try:
        return open_reader(data)
    except LogError as error:
        raise Refusal(named(data, error)) from None


def named(data: Path, error: Exception) -> str:
    """The error's message with the directory it is about, once."""
    return str(error) if str(error).startswith(str(data)) else f"{data}: {error}"


@click.group(
    epilog="\b\nExamples:\n  ringmain log streams\n  ringmain log read deadletters --limit 5\n  ringmain log verify data"
)
def log() -> None:
    """Look into a log: its streams, their frames, their integrity."""


for _command in (export, backup, restore, account):
    log.add_command(_command)


@log.command(epilog="\b\nExample:\n  ringmain log streams --data data --format json")
@data_option
@format_option
def streams(data: Path, output: str) -> None:
    """Every stream: rows, frames, newest position and arrival."""
    schema = pa.schema(
        [
            ("stream", pa.string()),
            ("kind", pa.string()),
            ("rows", pa.int64()),
            ("frames", pa.int64()),
            ("last", pa.string()),
            ("last_arrival", TIMESTAMP),
            ("columns", pa.string()),
        ]
    )
    reader = reader_of(data)
    try:
        rows = [
            {
                "stream": state.stream.name,
                "kind": state.stream.kind.name.lower(),
                "rows": state.rows,
                "frames": state.frames,
                "last": str(state.last) if state.last else None,
                "last_arrival": state.last_arrival_ns or None,
                "columns": " ".join(state.stream.schema.names),
            }
            for state in reader.streams()
        ]
    finally:
        reader.close()
    print_rows(schema, [pa.RecordBatch.from_pylist(rows, schema)], output)


@log.command(
    epilog="\b\nExamples:\n  ringmain log read readings --limit 10\n"
    "  ringmain log read readings --headers --since 2026-11-01T00:00:00Z"
)
@click.argument("stream")
@data_option
@click.option("--since", help="Only what arrived at or after this time (RFC 3339).")
@click.option("--after", help="Only what follows this position, as `log streams` and --headers show it.")
@click.option("--limit", type=click.IntRange(1), help="At most this many rows (frames with --headers).")
@click.option("--follow", is_flag=True, help="Go on as more arrives.")
@click.option("--headers", is_flag=True, help="Print the frames' headers instead of their rows.")
@format_option
def read(
    stream: str,
    data: Path,
    since: str | None,
    after: str | None,
    limit: int | None,
    follow: bool,
    headers: bool,
    output: str,
) -> None:
    """The rows of STREAM in log order, with the time at which each arrived."""
    reader = reader_of(data)
    try:
        known = {state.stream.name: state.stream for state in reader.streams()}
        if stream not in known:
            raise Refusal(f"no stream {stream!r} in {data}; expected one of {', '.join(known)}")
        start = _start(reader, stream, since, after)
        frames = reader.read(stream, after=start, follow=follow)
        if headers:
            print_rows(HEADERS, _limited(_headers(frames), limit), output)
        else:
            keyed = "series" in known[stream].schema.names
            schema = _printed_schema(known[stream].schema, keyed)
            print_rows(schema, _limited(_rows(reader, frames, schema, keyed), limit), output)
    except LogError as error:
        raise Refusal(named(data, error)) from None
    finally:
        reader.close()


HEADERS = pa.schema(
    [
        ("position", pa.string()),
        ("arrived", TIMESTAMP),
        ("origin_arrived", TIMESTAMP),
        ("producer", pa.uint64()),
        ("epoch", pa.uint64()),
        ("sequence", pa.uint64()),
        ("rows", pa.int64()),
        ("time_min", TIMESTAMP),
        ("time_max", TIMESTAMP),
        ("cumulative_rows", pa.uint64()),
    ]
)


def _start(reader: JournalReader, stream: str, since: str | None, after: str | None) -> Position | None:
    if since is not None and after is not None:
        raise click.UsageError("give --since or --after, not both")
    if after is not None:
        try:
            return Position.parse(after)
        except ValueError as error:
            raise Refusal(f"--after: {error}") from None
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise Refusal(f"--since: expected a time such as 2026-11-01T00:00:00Z, found {since!r}") from None
    if moment.tzinfo is None:
        raise Refusal(f"--since: expected a time with its offset, such as {since}Z, found {since!r}")
    return reader.find(stream, int(moment.timestamp() * 1e6) * 1000)


def _headers(frames: Iterator[Frame]) -> Iterator[pa.RecordBatch]:
    for frame in frames:
        yield pa.RecordBatch.from_pydict(
            {
                "position": [str(frame.position)],
                "arrived": [frame.arrival_ns],
                "origin_arrived": [frame.origin_arrival_ns],
                "producer": [frame.producer],
                "epoch": [frame.epoch],
                "sequence": [frame.sequence],
                "rows": [frame.row_count],
                "time_min": [frame.time_min_ns],
                "time_max": [frame.time_max_ns],
                "cumulative_rows": [frame.cumulative_rows],
            },
            schema=HEADERS,
        )


def _printed_schema(schema: pa.Schema, keyed: bool) -> pa.Schema:
    fields = [pa.field("series", pa.string()) if keyed and f.name == "series" else f for f in schema]
    return pa.schema([*fields, pa.field("arrived", TIMESTAMP)])


def _rows(
    reader: JournalReader, frames: Iterator[Frame], schema: pa.Schema, keyed: bool
) -> Iterator[pa.RecordBatch]:
    for frame in frames:
        columns = dict(zip(frame.rows.schema.names, frame.rows.columns, strict=True))
        if keyed:
            ids = columns["series"].to_numpy(zero_copy_only=False)
            columns["series"] = reader.catalogue().key_array(ids).dictionary_decode()
        columns["arrived"] = pa.array([frame.origin_arrival_ns] * frame.row_count, TIMESTAMP)
        yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _limited(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if left == 0:
            return


@log.command(
    epilog="\b\nExamples:\n  ringmain log verify data && echo sound\n  ringmain log verify /var/lib/ringmain --json"
)
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="The same as DIRECTORY.  [default: data]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def verify(directory: Path | None, data: Path | None, as_json: bool) -> None:
    """Check every checksum, the index, positions and catalogue of the log in DIRECTORY.

    Writes nothing; a node may run on it meanwhile. Exit status 0: sound. 1: damage was found (each piece is named).
    2: it cannot be read.
    """
    from ringmain.cli.log_verify import verify_and_print

    raise SystemExit(verify_and_print(one_place(directory, data), as_json=as_json))
