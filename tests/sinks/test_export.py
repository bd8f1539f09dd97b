"""A stream becomes Parquet files: every row in exactly one whole file, whatever is killed when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ringmain.log.interface import Batch
from ringmain.log.ledger.row import AccountRow
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import EVENT, READING, TIMESTAMP
from ringmain.runtime.sink import Mark
from ringmain.runtime.sink_runner import SinkRunner
from ringmain.runtime.sink_status import SinkState
from ringmain.sinks import export
from ringmain.sinks.export import SINK_TYPE, ExportSettings, ExportSink
from ringmain.sinks.types import Surroundings, sink_type
from ringmain.testing.clock import SimulatedClock
from tests.conftest import wait_until
from tests.runtime.sink_rig import SECOND, Room

START = 1_800_000_000  # 2027-01-15 08:00 UTC
HOUR = 3600 * SECOND


class Field:
    """A log whose time a test moves, and an export sink beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SimulatedClock(START * SECOND)
        self.room = Room(directory / "data", clock=self.clock, segment_bytes=1 << 20)
        self.root = directory / "out"

    def run(self, *, timezone: str = "Europe/Berlin", **settings: Any) -> SinkRunner:
        given = {"from": "readings", "directory": "out", "keep_free": "0B", **settings}
        typed = msgspec.convert(given, ExportSettings)
        assert typed.check() == ([], [])
        around = Surroundings("test", self.directory, timezone)
        sink = SINK_TYPE.build("out", typed, around)
        return self.room.run(sink, streams=typed.streams, batch_rows_max=1 << 30)

    def put_at(self, passed_s: float, *values: float) -> None:
        """Time goes by, then a frame comes."""
        self.clock.pass_time(int(passed_s * SECOND))
        self.room.put(*values)

    def tick_at(self, passed_s: float) -> None:
        self.clock.pass_time(int(passed_s * SECOND))
        self.room.tick()

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.parquet"))

    def values(self) -> list[float]:
        """Of whole files, in the order of their names, which is that of the log."""
        return [
            value
            for name in self.files()
            for value in pq.read_table(self.root / name, partitioning=None).column("value").to_pylist()
        ]

    def manifest(self) -> list[dict[str, Any]]:
        text = (self.root / "_ringmain/out/manifest.ndjson").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def wait_files(self, count: int) -> None:
        wait_until(lambda: len(self.files()) == count, what=f"{count} files, there are {self.files()}")


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    field = Field(tmp_path)
    yield field
    field.room.close()


def test_a_file_ends_with_its_interval_of_log_time_and_reads_by_itself(field: Field) -> None:
    runner = field.run()
    field.put_at(0, 1.5, float("nan"))
    field.put_at(60, -0.0)
    assert field.files() == []
    field.tick_at(3600)
    field.wait_files(1)
    name = field.files()[0]
    positions = [frame.position for frame in field.room.log.read("readings")]
    assert name == f"readings/date=2027-01-15/20270115T080000Z_{positions[0]}_{positions[1]}.parquet"
    table = pq.read_table(field.root / name, partitioning=None)
    assert table.schema.names == ["series", "time", "value", "quality", "unit", "arrived"]
    assert table.column("series").to_pylist() == ["ss-01/feeder-0/p"] * 3
    assert table.column("unit").to_pylist() == ["W"] * 3
    assert table.column("time").cast(pa.int64()).to_pylist() == [0, SECOND, 0]
    assert np.array_equal(table.column("value").to_numpy(), [1.5, np.nan, -0.0], equal_nan=True)
    assert np.signbit(table.column("value").to_numpy()[2])
    arrived = table.column("arrived").cast(pa.int64()).to_pylist()
    assert arrived == [START * SECOND] * 2 + [(START + 60) * SECOND]
    wait_until(lambda: runner.lag() == (0.0, 0))
    assert runner.status().rows == 3
    assert pq.ParquetFile(field.root / name).metadata.metadata[b"ringmain.stream"] == b"readings"


def test_duckdb_reads_all_files_of_a_stream_with_the_date_as_a_column(field: Field) -> None:
    field.run(interval="15m")
    for n in range(8):
        field.put_at(900, n, n + 0.5)
    field.tick_at(900)
    field.wait_files(8)
    found = duckdb.sql(
        f"SELECT date, count(*), sum(value), min(series) FROM '{field.root}/readings/*/*.parquet' GROUP BY date"
    ).fetchall()
    assert [(str(date), count, total, key) for date, count, total, key in found] == [
        ("2027-01-15", 16, 60.0, "ss-01/feeder-0/p")
    ]


def test_the_local_day_ends_a_file(field: Field) -> None:
    field.run(interval="1d")
    field.put_at(14.9 * 3600, 1)  # 22:54 UTC, 23:54 in Berlin
    field.put_at(300, 2)
    field.put_at(300, 3)  # 00:04 in Berlin, the same day in UTC
    field.tick_at(24 * 3600)
    field.wait_files(2)
    assert [name.split("/")[1] for name in field.files()] == ["date=2027-01-15", "date=2027-01-16"]
    assert field.values() == [1, 2, 3]


def test_a_large_file_ends_before_its_interval(field: Field) -> None:
    field.run(size="10KiB")
    for n in range(5):
        field.put_at(1, *range(1000 * n, 1000 * n + 1000))
    field.wait_files(4)
    field.tick_at(3600)
    field.wait_files(5)
    assert field.values() == list(range(5000))


def test_the_manifest_tells_what_each_file_holds(field: Field) -> None:
    field.run()
    field.put_at(0, 1, 2)
    field.put_at(3600, 3)
    field.tick_at(3600)
    field.wait_files(2)
    wait_until(lambda: len(field.manifest()) == 2)
    lines = field.manifest()
    assert [line["file"] for line in lines] == field.files()
    assert [(line["first_row"], line["end_row"], line["rows"]) for line in lines] == [(0, 2, 2), (2, 3, 1)]
    assert lines[0]["arrived_from"] == "2027-01-15T08:00:00.000000000Z"
    assert (lines[0]["time_min"], lines[0]["time_max"]) == (
        "1970-01-01T00:00:00.000000000Z",
        "1970-01-01T00:00:01.000000000Z",
    )
    assert [line["bytes"] for line in lines] == [(field.root / name).stat().st_size for name in field.files()]


def test_several_streams_each_have_their_files_and_streams_without_rows_none(field: Field) -> None:
    event = {
        "id": "1",
        "source": "s",
        "type": "t",
        "subject": None,
        "time": 5,
        "datacontenttype": None,
        "data": b"x",
    }
    field.run(**{"from": ["readings", "events", "deadletters"]})
    field.put_at(0, 1)
    field.room.append(Batch("events", pa.RecordBatch.from_pylist([event], schema=EVENT)))
    field.tick_at(3600)
    field.wait_files(2)
    assert [name.split("/")[0] for name in field.files()] == ["events", "readings"]
    table = pq.read_table(field.root / field.files()[0], partitioning=None)
    assert table.schema.names == [*EVENT.names, "arrived"]
    assert table.column("data").to_pylist() == [b"x"]


def test_the_streams_that_the_log_itself_has_can_be_exported(field: Field) -> None:
    streams = ["accounts", "catalogue", "ledger", "ticks"]
    field.room.append(Batch("accounts", AccountRow("rig", 1, messages=3, accepted=3, reasons=(("why", 1),))))
    runner = field.run(**{"from": streams})
    field.tick_at(3600)
    field.tick_at(3600)
    wait_until(lambda: {name.split("/")[0] for name in field.files()} >= {"accounts", "catalogue", "ticks"})
    for name in field.files():
        assert pq.read_table(field.root / name, partitioning=None).num_rows
    assert runner.status().last_error is None


def test_series_that_come_later_and_many_of_them_have_their_keys_and_units(field: Field) -> None:
    field.run()
    ids = [
        field.room.registry.register("rig", f"k/{n}", SeriesAttributes(unit="kWh" if n % 2 else None))
        for n in range(300)
    ]
    field.room.registry.save()
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array(ids[::-1], pa.uint32()),
            pa.array(range(300), pa.int64()).view(TIMESTAMP),
            pa.array(range(300), pa.float64()),
            pa.array([0] * 300, pa.uint16()),
        ],
        schema=READING,
    )
    field.room.append(Batch("readings", rows))
    field.tick_at(3600)
    field.wait_files(1)
    table = pq.read_table(field.root / field.files()[0], partitioning=None)
    assert table.column("series").to_pylist() == [f"k/{n}" for n in range(299, -1, -1)]
    assert table.column("unit").to_pylist() == ["kWh" if n % 2 else None for n in range(299, -1, -1)]


def test_a_restart_within_an_interval_gives_the_same_file(field: Field) -> None:
    field.run()
    field.put_at(0, 1)
    parts = field.root / "_ringmain/out"
    wait_until(lambda: bool(list(parts.glob("*.part"))))
    field.room.reopen()
    assert not [path for path in parts.iterdir() if path.suffix == ".part"]
    field.put_at(60, 2)
    field.run()
    field.tick_at(3600)
    field.wait_files(1)
    assert field.values() == [1, 2]


class Cut(Exception):
    """The power goes here."""


@pytest.mark.parametrize("streams", [["readings"], ["readings", "events"]])
def test_killed_between_any_two_steps_of_finishing_no_row_is_missing_or_twice(
    field: Field, monkeypatch: pytest.MonkeyPatch, streams: list[str]
) -> None:
    """`os.rename`, `os.fsync` and the position's append are where the order matters: the process ends before each."""
    event = {
        "id": "1",
        "source": "s",
        "type": "t",
        "subject": None,
        "time": 5,
        "datacontenttype": None,
        "data": b"x",
    }
    steps = 0
    for cut_at in range(1, 200):
        for n in range(2):
            field.put_at(10, 10 * cut_at + n)
            field.room.append(Batch("events", pa.RecordBatch.from_pylist([event], schema=EVENT)))
        with monkeypatch.context() as patched:
            if _cut_short(field, patched, cut_at, streams):
                steps = cut_at
                break
    field.run(**{"from": streams})
    field.tick_at(3600)
    expected = [10 * cut + n for cut in range(1, steps + 1) for n in range(2)]
    wait_until(lambda: _readings(field) == expected, what=f"{expected}, found {_readings(field)}")
    lines = field.manifest()
    assert sorted(line["file"] for line in lines) == field.files()
    assert 5 < steps < 60


def _cut_short(field: Field, patched: pytest.MonkeyPatch, cut_at: int, streams: list[str]) -> bool:
    """Run the sink until its step `cut_at`, and not beyond; whether it had fewer steps than that."""
    calls = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **rest: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= cut_at:
                raise Cut
            return real(*args, **rest)

        return call

    real_append = field.room.log.append

    def append(batches: Any, *, positions: Any = None, **rest: Any) -> Any:
        own = positions is not None  # others are the rows that the test appends
        return (counted(real_append) if own else real_append)(batches, positions=positions, **rest)

    patched.setattr(os, "rename", counted(os.rename))
    patched.setattr(os, "fsync", counted(os.fsync))
    patched.setattr(field.room.log, "append", append)
    patched.setattr(ExportSink, "close", lambda self: None)  # what a killed process leaves
    runner = field.run(**{"from": streams})
    wait_until(lambda: runner.status().lag_rows is not None)
    field.tick_at(3600)
    wait_until(lambda: runner.state is SinkState.BACKOFF or runner.lag()[1] == 0)
    field.room.stop()
    return calls < cut_at


def _readings(field: Field) -> list[float]:
    return [
        value
        for name in field.files()
        if name.startswith("readings")
        for value in pq.read_table(field.root / name, partitioning=None).column("value").to_pylist()
    ]


KILLED = """
import sys
from pathlib import Path
import msgspec
from ringmain.log import open_log
from ringmain.runtime.counters import Counters
from ringmain.runtime.sink_runner import SinkPlan, SinkRunner
from ringmain.sinks.export import SINK_TYPE, ExportSettings
from ringmain.sinks.types import Surroundings

directory = Path(sys.argv[1])
settings = msgspec.convert(
    {"from": "readings", "directory": "out", "size": "20KiB", "keep_free": "0B"}, ExportSettings
)
sink = SINK_TYPE.build("out", settings, Surroundings("test", directory, "UTC"))
log = open_log(directory / "data")
runner = SinkRunner(SinkPlan("out", "export", ("readings",), False, 1 << 30), sink, log, Counters())
runner.start()
print("ready", flush=True)
while not runner.wait_ended(0.005):
    print(len(list((directory / "out/readings").glob("*/*.parquet"))), flush=True)
"""


def test_killed_while_it_writes_the_files_hold_every_row_once(field: Field) -> None:
    for n in range(300):
        field.put_at(1, *range(100 * n, 100 * n + 100))
    field.room.stop()
    field.room.log.close()
    for files in (0, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(field.directory)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready" and files == 0:
                break
            if line.strip().isdigit() and int(line) >= files:
                break
        process.kill()
        process.wait()
        process.stdout.close()
    field.room.open()
    field.run(size="20KiB")
    field.tick_at(3600)
    wait_until(lambda: sum(line["rows"] for line in field.manifest()) == 30_000)
    assert field.values() == list(range(30_000))
    assert not list((field.root / "_ringmain/out").glob("*.part*"))


def test_a_full_disk_is_waited_for_and_told(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1000
    usage = export.shutil.disk_usage(field.directory)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage._replace(free=free))
    runner = field.run(keep_free="1MiB")
    field.put_at(0, 1)
    field.tick_at(3600)
    wait_until(lambda: runner.state is SinkState.WAITING)
    assert "make space" in (runner.status().last_error or "")
    field.put_at(60, 2)
    assert field.files() == []
    free = 1 << 40
    field.wait_files(1)
    field.tick_at(3600)
    field.wait_files(2)
    assert field.values() == [1, 2]
    assert runner.status().last_error is None


def test_a_disk_that_fails_while_a_file_is_written_costs_no_row(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = os.write, [True]

    def write(handle: int, data: Any) -> int:
        if failing and len(data) > 4:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    runner = field.run()
    field.put_at(0, 1, 2)
    field.tick_at(3600)
    wait_until(lambda: runner.state is SinkState.BACKOFF)
    assert "No space left" in (runner.status().last_error or "")
    failing.clear()
    field.wait_files(1)
    assert field.values() == [1, 2]


def test_files_older_than_they_are_to_be_kept_are_removed_by_the_day(field: Field) -> None:
    field.run(keep="2d")
    for n in range(5):
        field.put_at(24 * 3600 if n else 0, n)
    field.tick_at(3600)
    kept = [f"date=2027-01-{day}" for day in (17, 18, 19)]
    wait_until(lambda: [name.split("/")[1] for name in field.files()] == kept)
    wait_until(lambda: sum("removed" in line for line in field.manifest()) == 2)


def test_a_directory_with_the_files_of_another_log_is_refused(field: Field, tmp_path: Path) -> None:
    field.run()
    field.put_at(0, 1)
    field.tick_at(3600)
    field.wait_files(1)
    wait_until(lambda: Mark.decode(field.room.position() or b"{}").rows == {"readings": 1})
    field.room.stop()
    other = Field(tmp_path / "other")
    try:
        other.root = field.root
        runner = other.run(directory=str(field.root))
        wait_until(lambda: runner.state is SinkState.BACKOFF)
        assert "found what it does not know" in (runner.status().last_error or "")
        assert len(field.files()) == 1
        (field.root / "_ringmain/out/commit.json").unlink()
        wait_until(lambda: "of another log" in (runner.status().last_error or ""))
        assert len(field.files()) == 1
    finally:
        other.room.close()


def test_stream_names_cannot_leave_the_directory(field: Field) -> None:
    directory = export.ExportDirectory(field.root, "../out", field_zone())
    assert directory.place("../../etc", 0, "a", "b").startswith("%2E.%2F..%2Fetc/date=1970-01-01/")
    assert directory.place("_ringmain", 0, "a", "b").startswith("%5Fringmain/")
    assert ".." not in [part for part in directory.part(1).parts if part == ".."]


def field_zone() -> Any:
    return export.zoneinfo.ZoneInfo("UTC")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interval": "2d"}, "expected 1s to 1d, found '2d'"),
        ({"interval": "soon"}, "expected a duration"),
        ({"keep": "1h"}, "expected 1d or more"),
        ({"size": "large"}, "expected a size"),
    ],
)
def test_settings_that_cannot_be_used_are_told(given: dict[str, Any], message: str) -> None:
    settings = msgspec.convert({"from": "readings", "directory": "out", **given}, ExportSettings)
    errors, _ = settings.check()
    assert message in errors[0][1]


def test_the_type_is_found_by_its_name() -> None:
    assert sink_type("export") is SINK_TYPE
    assert sink_type("no-such") is None
    assert sink_type("../export") is None
