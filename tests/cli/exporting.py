"""A log to export, the command, and its rows as SQL over the same log tells them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pyarrow as pa

import ringmain
from ringmain.cli.export_formats import iso_times
from ringmain.cli.log import log as log_commands
from ringmain.log import open_log
from ringmain.log.interface import Batch
from ringmain.log.journal import Journal
from ringmain.model.schemas import READING, SERIES, TIMESTAMP

START = 1_795_000_000_000_000_000
SECOND = 1_000_000_000
FORMATS = ["parquet", "arrow", "csv", "ndjson"]
KEYS = ["ss-01/p", "ss-01/q", "ss-02/p", 'odd "key", with\nbreaks/ü€']
UNITS = ["W", "var", "W", None]
NASTY = [
    0.1,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    5e-324,
    1.7976931348623157e308,
    2.0**60,
    1e15 + 0.5,
    3.0,
]


def export(*arguments: object, status: int = 0) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(log_commands, ["export", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def append(log: Journal, sequence: int, *batches: Batch) -> None:
    claim = log.claim("test", 0)
    log.append(list(batches), claim=claim, sequence=sequence)


def readings(ids: list[int], times: list[int], values: list[float], quality: list[int]) -> Batch:
    columns = [
        pa.array(ids, pa.uint32()),
        pa.array(times, pa.int64()).cast(TIMESTAMP),
        pa.array(values, pa.float64()),
        pa.array(quality, pa.uint16()),
    ]
    return Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))


def catalogue() -> Batch:
    rows = [
        {"id": n, "key": key, "unit": unit} for n, (key, unit) in enumerate(zip(KEYS, UNITS, strict=True))
    ]
    return Batch("catalogue", pa.RecordBatch.from_pylist(rows, SERIES))


def stored(directory: Path, where: str = "true") -> list[tuple[Any, ...]]:
    """What SQL over the same log says, in the order of the log."""
    with ringmain.open(directory, read_only=True) as log:
        return as_rows(
            log.sql(f"select series, time, value, quality from readings where {where} order by arrived, time")
        )


def as_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows as (key, ns, the double's bits, quality): comparable exactly."""
    columns = [
        table.column("series").cast(pa.string()).to_pylist(),
        table.column("time").cast(pa.int64()).to_pylist(),
        [bits(value) for value in table.column("value").to_pylist()],
        table.column("quality").to_pylist(),
    ]
    return list(zip(*columns, strict=True))


def bits(value: float | None) -> int | str | None:
    if value is None:
        return None
    return "nan" if math.isnan(value) else int(np.float64(value).view(np.int64))


def ns_of(text: str) -> int:
    """Nanoseconds of `2026-11-23T11:22:33.123456789Z`."""
    assert text[-1] == "Z"
    assert len(text) == 30
    return int(np.datetime64(text[:-1], "ns").astype(np.int64))


def iso(time_ns: int) -> str:
    text: str = iso_times(pa.array([time_ns], TIMESTAMP))[0].as_py()
    return text


def rows_of(log: Journal) -> int:
    return next(state.rows for state in log.streams() if state.stream.name == "readings")


def history(directory: Path) -> Path:
    """A log of 30 appends of 8 readings, with everything that numbers, names and qualities can be."""
    with open_log(directory, segment_bytes=8_000) as log:
        append(log, 0, catalogue())
        for step in range(30):
            ids = [n % 4 for n in range(8)]
            times = [START + step * SECOND + n * 1_234_567 for n in range(8)]
            values = [NASTY[(step + n) % len(NASTY)] if n % 2 else step + n / 7 for n in range(8)]
            append(log, step + 1, readings(ids, times, values, [0, 0, 1, 2, 0x0408, 0x8000, 3, 12]))
    return directory
