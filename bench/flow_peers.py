"""The same window per series with other tools, on the same readings: what stands beside the rows of flows.

Bytewax computes event-time windows as a stream does, record by record, in memory. Polars and DuckDB group a whole table
that lies in memory already, on one thread: no log, no lateness, no state to be taken up again; they are a yardstick of
the arithmetic. eKuiper runs where its program is at hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

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
        "Polars (batch, 1 thread)": lambda: polars(rows),
        "DuckDB (batch, 1 thread)": lambda: duckdb(rows),
    }
    for name, run in runs.items():
        try:
            found[name] = run()
        except ImportError:
            continue
    return found
