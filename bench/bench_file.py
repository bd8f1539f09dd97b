"""A CSV file of 1,000 series flat out into the log, against Arrow's parser alone on the same file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv

from bench.harness import CpuClock, Row, scratch
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.model.schemas import TIMESTAMP
from ringmain.runtime.counters import Counters
from ringmain.runtime.supervisor import Supervisor
from ringmain.sources.file import SOURCE_TYPE
from ringmain.sources.file_settings import FileSettings
from ringmain.sources.types import Surroundings

SERIES = 1_000
HEADER = b"meter,time,value\n"


def rows(quick: bool) -> Iterator[Row]:
    """Until the last reading is durable."""
    readings = 2_000_000 if quick else 20_000_000
    with scratch() as directory:
        path = Path(directory) / "in.csv"
        _write(path, readings)
        bare = _arrow_alone(path, readings)
        seconds, cpu_seconds = _replay(Path(directory), readings)
    yield Row(
        name="file",
        unit="readings",
        rate=readings / seconds,
        rate_per_core=readings / cpu_seconds,
        cores=round(cpu_seconds / seconds, 2),
        seconds=round(seconds, 2),
        goal=">= 2 M readings/s",
        yardstick=bare,
        yardstick_name="pyarrow.csv.read_csv, one thread",
        durability="fdatasync before the position moves, an append of 80,000 readings",
        note=f"CSV with key, time and value, {SERIES} series, read, looked up, stored",
    )


def _write(path: Path, readings: int) -> None:
    with path.open("wb") as out:
        out.write(HEADER)
        for step in range(readings // SERIES):
            day, minute = divmod(step, 1440)
            at = b"2026-%02d-%02dT%02d:%02d:00Z" % (
                1 + day // 28 % 12,
                1 + day % 28,
                minute // 60,
                minute % 60,
            )
            out.write(b"".join(b"ss-01/f-%d/p,%b,%d.25\n" % (n, at, (n * step) % 997) for n in range(SERIES)))


def _arrow_alone(path: Path, readings: int) -> float:
    """The same columns parsed, and nothing done with them."""
    began_s = time.perf_counter()
    reader = pcsv.open_csv(
        path,
        pcsv.ReadOptions(use_threads=False, block_size=4 << 20),
        convert_options=pcsv.ConvertOptions(
            column_types={
                "meter": pa.dictionary(pa.int32(), pa.string()),
                "time": TIMESTAMP,
                "value": pa.float64(),
            }
        ),
    )
    count = sum(batch.num_rows for batch in reader)
    assert count == readings
    return readings / (time.perf_counter() - began_s)


def _replay(directory: Path, readings: int) -> tuple[float, float]:
    settings = FileSettings(path="in.csv", series="{meter}", time="time")
    with open_log(directory / "log") as log:
        registry = SeriesRegistry(log)
        source = SOURCE_TYPE.build("file", settings, Surroundings("bench", directory, "UTC", registry, {}))
        supervisor = Supervisor(log, registry, Counters())
        supervisor.add("file", "file", source)
        clock = CpuClock()
        supervisor.start()
        while supervisor.statuses()[0].readings < readings:
            time.sleep(0.005)
        seconds, cpu_seconds = clock.wall_seconds(), clock.cpu_seconds()
        supervisor.stop()
    return seconds, cpu_seconds
