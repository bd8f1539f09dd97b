"""`ringmain sql` and `ringmain tap`: the data of a log, read-only, while a node runs on it or not."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from ringmain.cli.log import data_option, named, reader_of
from ringmain.cli.main import Refusal
from ringmain.cli.output import format_option, print_rows
from ringmain.cli.tap_flow import flow_named, tap_flow
from ringmain.log import JournalReader
from ringmain.log.interface import LogError
from ringmain.model.schemas import TIMESTAMP

TAP_SCHEMA = pa.schema(
    [
        pa.field("series", pa.string()),
        pa.field("time", TIMESTAMP),
        pa.field("value", pa.float64()),
        pa.field("quality", pa.uint16()),
        pa.field("arrived", TIMESTAMP),
    ]
)


@click.command(
    epilog="\b\nExamples:\n"
    '  ringmain sql "select series, count(*) n from readings group by all order by n desc limit 10"\n'
    "  ringmain sql 'select * from \"readings.1m\" order by start desc limit 5' --data data --format json\n"
    '  ringmain sql "select reason, count(*) from deadletters group by all"\n'
    "\b\nTables: readings, readings_current, deadletters, events, series, streams, ledger,\n"
    'and for each window stream "NAME" (newest revisions) and "NAME.all" (every one).'
)
@click.argument("query")
@data_option
@click.option("--limit", type=click.IntRange(1), help="At most this many rows; says so when there were more.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.1), help="Seconds that the statement may take."
)
@format_option
def sql(query: str, data: Path, limit: int | None, timeout_s: float | None, output: str) -> None:
    """Ask the log a question in SQL (DuckDB's dialect), read-only.

    Works while a node runs on the log and while none does; nothing is ever written.
    """
    try:
        from ringmain.serve.sql import SqlEngine, SqlError
        from ringmain.serve.statement import StatementError
    except ImportError as error:
        raise Refusal(f"SQL needs the extra `serve`: pip install 'ringmain[serve]' ({error})") from None
    reader = reader_of(data)
    try:
        engine = SqlEngine(reader, reader.catalogue())
        try:
            result = engine.query(query, limit=limit, timeout_s=timeout_s)
        finally:
            engine.close()
    except (SqlError, StatementError, LogError) as error:
        raise Refusal(str(error)) from None
    except ImportError as error:
        raise Refusal(f"SQL needs the extra `serve`: pip install 'ringmain[serve]' ({error})") from None
    finally:
        reader.close()
    print_rows(result.table.schema, result.table.to_batches(), output)
    if result.truncated:
        click.echo(f"ringmain: cut after {result.table.num_rows} rows; there are more (--limit)", err=True)


@click.command(
    epilog="\b\nExamples:\n  ringmain tap\n  ringmain tap 'ss-07/*' --data data --format json\n"
    "  ringmain tap --limit 100 --format csv\n  ringmain tap area-load --data ringmain.toml"
)
@click.argument("match", default="*")
@data_option
@click.option("--limit", type=click.IntRange(1), help="End after this many readings; of a flow, looks.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0), help="End after this many seconds without a reading."
)
@format_option
def tap(match: str, data: Path, limit: int | None, timeout_s: float | None, output: str) -> None:
    """Watch readings as they become durable, from now on; MATCH is a pattern of series keys such as 'ss-07/*'.

    What is there already, `ringmain sql` and `ringmain log read readings` show.

    With the configuration file of a running node in --data, MATCH may be the name of a flow: then rows in and out of
    each of its steps are shown once a second, with rates, lag, newest event time, and the size of what it remembers.
    """
    config = flow_named(data, match)
    if config is not None:
        tap_flow(config, match, limit, output)
        return
    reader = reader_of(data)
    if sys.stderr.isatty():
        click.echo(f"readings from now on, of {data}; Ctrl-C ends", err=True)
    try:
        print_rows(TAP_SCHEMA, _readings(reader, match, limit, timeout_s), output)
    except LogError as error:
        raise Refusal(named(data, error)) from None
    finally:
        reader.close()


def _readings(
    reader: JournalReader, match: str, limit: int | None, timeout_s: float | None
) -> Iterator[pa.RecordBatch]:
    catalogue = reader.catalogue()
    chosen = np.zeros(0, np.bool_)
    left = limit
    for frame in reader.read("readings", after=reader.end(), follow=True, timeout_s=timeout_s):
        ids = frame.rows.column("series").to_numpy(zero_copy_only=False)
        if len(chosen) < len(catalogue):
            new = [
                fnmatch.fnmatchcase(catalogue.key_of(i), match) for i in range(len(chosen), len(catalogue))
            ]
            chosen = np.concatenate([chosen, np.array(new, np.bool_)])
        mask = chosen[ids]
        if not mask.any():
            continue
        rows = frame.rows.filter(pa.array(mask))
        batch = pa.RecordBatch.from_arrays(
            [
                catalogue.key_array(ids[mask]).dictionary_decode(),
                *(rows.column(name) for name in ("time", "value", "quality")),
                pa.array([frame.origin_arrival_ns] * rows.num_rows, TIMESTAMP),
            ],
            schema=TAP_SCHEMA,
        )
        batch = batch if left is None else batch.slice(0, left)
        yield batch
        if left is not None:
            left -= batch.num_rows
            if left == 0:
                return
