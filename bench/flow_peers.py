"""The same window per series with other tools, on the same readings: what stands beside the rows of flows.

Bytewax computes event-time windows as a stream does, record by record, in memory. Polars and DuckDB group a whole table
that lies in memory already, on one thread: no log, no lateness, no state to be taken up again; they are a yardstick of
the arithmetic. Benthos (built from the Go proxy) knows windows of the system clock only: its input lies in order and is
cut into batches of one minute, which it groups; lines of JSON in, lines of JSON out. eKuiper could not be had there.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.harness import ROOT
from ringmain.model.schemas import TIMESTAMP

SERIES = 10_000
_START_NS = 1_767_225_600_000_000_000


def table(batches: int) -> pa.Table:
    """Every series once a second of event time, as rows of series, time and value."""
    random = np.random.default_rng(7)
    values = np.full(SERIES, 230.0)
    ids = np.arange(SERIES, dtype=np.uint32)
    parts = []
    for second in range(batches):
        values = np.round(values + random.normal(0, 0.5, SERIES), 3)
        times = np.full(SERIES, _START_NS + second * 1_000_000_000)
        parts.append(
            pa.record_batch(
                [pa.array(ids), pa.array(times).view(TIMESTAMP), pa.array(values)],
                names=["series", "time", "value"],
            )
        )
    return pa.Table.from_batches(parts)


def bytewax(seconds: int) -> float:
    """Readings a second through count, mean, min and max of one-minute windows a series."""
    import bytewax.operators as op
    import bytewax.operators.windowing as windowing
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    start = datetime.fromtimestamp(_START_NS / 1e9, UTC)
    stamps = [start + timedelta(seconds=second) for second in range(seconds)]
    keys = [f"bench/{number}/p" for number in range(SERIES // 10)]
    rows = [(key, (stamp, 230.0)) for stamp in stamps for key in keys]
    out: list[Any] = []
    flow = Dataflow("bench")
    stream = op.input("in", flow, TestingSource(rows, batch_size=1_000))

    def fold(state: list[float], row: tuple[datetime, float]) -> list[float]:
        value = row[1]
        state[0] += 1
        state[1] += value
        state[2] = min(state[2], value)
        state[3] = max(state[3], value)
        return state

    def merge(one: list[float], other: list[float]) -> list[float]:
        return [one[0] + other[0], one[1] + other[1], min(one[2], other[2]), max(one[3], other[3])]

    clock = windowing.EventClock(lambda row: row[0], wait_for_system_duration=timedelta(seconds=10))
    windower = windowing.TumblingWindower(length=timedelta(minutes=1), align_to=start)
    windows = windowing.fold_window(
        "fold", stream, clock, windower, lambda: [0.0, 0.0, np.inf, -np.inf], fold, merge
    )
    op.output("out", windows.down, TestingSink(out))
    began = time.perf_counter()
    run_main(flow)
    spent = time.perf_counter() - began
    expected = len(keys) * -(-seconds // 60)
    if len(out) != expected:
        raise RuntimeError(f"Bytewax gave {len(out)} windows, expected {expected}")
    return len(rows) / spent


def polars(rows: pa.Table) -> float:
    """Readings a second of one group-by over a table in memory, on one thread."""
    import polars as pl

    if pl.thread_pool_size() != 1:
        raise RuntimeError("POLARS_MAX_THREADS=1 must be set before polars is imported")
    frame = pl.from_arrow(rows)
    began = time.perf_counter()
    found = (
        frame.group_by("series", pl.col("time").dt.truncate("1m"))
        .agg(
            pl.col("value").count().alias("count"),
            pl.col("value").mean().alias("mean"),
            pl.col("value").min().alias("min"),
            pl.col("value").max().alias("max"),
        )
        .height
    )
    spent = time.perf_counter() - began
    _check("Polars", found, rows)
    return float(rows.num_rows / spent)


def duckdb(rows: pa.Table) -> float:
    """Readings a second of one GROUP BY over a table in memory, on one thread."""
    import duckdb as db

    connection = db.connect(config={"threads": 1})
    connection.register("rows_in", rows.set_column(1, "time", rows.column("time").cast(pa.int64())))
    connection.execute("create table held as select * from rows_in")
    began = time.perf_counter()
    found = connection.execute(
        "select series, time // 60000000000 as start, count(value) as count, avg(value) as mean, "
        "min(value) as min, max(value) as max from held group by all"
    ).to_arrow_table()
    spent = time.perf_counter() - began
    _check("DuckDB", found.num_rows, rows)
    return float(rows.num_rows / spent)


_BENTHOS = """package main

import (
	"context"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func main() { service.RunCLI(context.Background()) }
"""
_BENTHOS_FLOW = """
input:
  broker:
    inputs:
      - file: {{ paths: [ "{source}" ], scanner: {{ lines: {{}} }} }}
    batching: {{ count: {batch} }}
buffer: {{ none: {{}} }}
pipeline:
  threads: 1
  processors:
    - group_by_value: {{ value: '${{! json("s") }}' }}
    - mapping: |
        root = if batch_index() == 0 {{
          {{
            "series": this.s,
            "count": json("v").from_all().length(),
            "mean": json("v").from_all().sum() / json("v").from_all().length(),
            "min": json("v").from_all().min(),
            "max": json("v").from_all().max()
          }}
        }} else {{ deleted() }}
output:
  file: {{ path: "{target}", codec: lines }}
logger: {{ level: ERROR }}
"""


def benthos(minutes: int) -> float:
    """Readings a second through count, mean, min and max of 100 series, a minute a batch. Raises ImportError without Go."""
    program = _benthos()
    series = 100
    with tempfile.TemporaryDirectory() as directory:
        source, target, flow = (Path(directory) / name for name in ("in.json", "out.json", "flow.yaml"))
        start_ms = _START_NS // 1_000_000
        with source.open("w") as lines:
            for second in range(60 * minutes):
                lines.writelines(
                    f'{{"s":"bench/{number}/p","t":{start_ms + 1000 * second},"v":{230 + number % 7}.5}}\n'
                    for number in range(series)
                )
        flow.write_text(_BENTHOS_FLOW.format(source=source, target=target, batch=60 * series))
        began = time.perf_counter()
        subprocess.run([program, "-c", flow], check=True, capture_output=True, timeout=120)
        spent = time.perf_counter() - began
        found = len(target.read_text().splitlines())
    if found != series * minutes:
        raise RuntimeError(f"Benthos gave {found} windows, expected {series * minutes}")
    return 60 * minutes * series / spent


def _benthos() -> Path:
    """The program, built once."""
    place = ROOT / ".yardstick" / "benthos"
    program = place / "benthos"
    if not program.is_file():
        place.mkdir(parents=True, exist_ok=True)
        (place / "main.go").write_text(_BENTHOS)
        (place / "go.mod").write_text(
            "module peer\n\ngo 1.23\n\nrequire github.com/redpanda-data/benthos/v4 v4.53.1\n"
        )
        try:
            for command in (["go", "mod", "tidy"], ["go", "build", "-o", "benthos", "."]):
                subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            raise ImportError(f"Benthos cannot be built: {error}") from error
    return program


def _check(peer: str, found: int, rows: pa.Table) -> None:
    expected = SERIES * -(-(rows.num_rows // SERIES) // 60)
    if found != expected:
        raise RuntimeError(f"{peer} gave {found} windows, expected {expected}")


def rates(quick: bool) -> dict[str, float]:
    """What each peer reaches; those that are not installed are left out."""
    found: dict[str, float] = {}
    rows = table(120 if quick else 600)
    runs: dict[str, Callable[[], float]] = {
        "Bytewax (stream, in memory)": lambda: bytewax(60 if quick else 300),
        "Benthos (ordered batches)": lambda: benthos(5 if quick else 30),
        "Polars (batch, 1 thread)": lambda: polars(rows),
        "DuckDB (batch, 1 thread)": lambda: duckdb(rows),
    }
    for name, run in runs.items():
        try:
            found[name] = run()
        except ImportError:
            continue
    return found
