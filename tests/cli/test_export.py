"""`ringmain log export`: what foreign tools read is what the log holds, and a file is there whole or not at all."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import click.testing
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ringmain
from ringmain.cli.export_formats import iso_times
from ringmain.cli.export_rows import quality_words
from ringmain.cli.log import log as log_commands
from ringmain.flows.settings import Aggregate
from ringmain.flows.totals import window_schema
from ringmain.log import open_log, open_reader
from ringmain.log.interface import Batch, StreamKind
from ringmain.log.journal import Journal
from ringmain.model.quality import Quality
from ringmain.model.schemas import DEAD_LETTER, READING, SERIES, TICK, TIMESTAMP

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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A log of 30 appends of 8 readings, with everything that numbers, names and qualities can be."""
    directory = tmp_path / "data"
    with open_log(directory, segment_bytes=8_000) as log:
        append(log, 0, catalogue())
        for step in range(30):
            ids = [n % 4 for n in range(8)]
            times = [START + step * SECOND + n * 1_234_567 for n in range(8)]
            values = [NASTY[(step + n) % len(NASTY)] if n % 2 else step + n / 7 for n in range(8)]
            append(log, step + 1, readings(ids, times, values, [0, 0, 1, 2, 0x0408, 0x8000, 3, 12]))
    return directory


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


def test_parquet_as_duckdb_and_pyarrow_read_it_is_what_sql_over_the_log_says(
    data: Path, tmp_path: Path
) -> None:
    told = export(data, "readings", "-o", tmp_path / "r.parquet")
    assert "240 rows of readings up to position" in told.stdout
    table = pq.read_table(tmp_path / "r.parquet", page_checksum_verification=True)
    assert table.schema.names == ["series", "time", "value", "quality", "quality_text", "unit"]
    assert table.schema.field("time").type == TIMESTAMP
    assert as_rows(table) == stored(data)
    assert table.column("unit").to_pylist()[:4] == UNITS
    assert table.column("quality_text").to_pylist()[:8] == [
        *("good", "good", "questionable", "invalid", "good estimated overflow", "good communication_lost"),
        *("invalid", "good calculated"),
    ]
    foreign = duckdb.sql(f"select * from '{tmp_path / 'r.parquet'}'").to_arrow_table()
    assert as_rows(foreign) == stored(data)


def test_damage_in_a_parquet_file_is_found_by_its_page_checksums(data: Path, tmp_path: Path) -> None:
    export(data, "readings", "-o", tmp_path / "r.parquet")
    raw = bytearray((tmp_path / "r.parquet").read_bytes())
    raw[400] ^= 1
    with pytest.raises(OSError, match=r"CRC|corrupt|[Cc]hecksum"):
        pq.read_table(pa.BufferReader(bytes(raw)), page_checksum_verification=True)


def test_arrow_files_and_streams_hold_what_sql_over_the_log_says(data: Path, tmp_path: Path) -> None:
    export(data, "readings", "-o", tmp_path / "r.arrow")
    with pa.ipc.open_file(tmp_path / "r.arrow") as file:
        assert as_rows(file.read_all()) == stored(data)
    piped = export(data, "readings", "-o", "-", "--format", "arrow")
    assert as_rows(pa.ipc.open_stream(piped.stdout_bytes).read_all()) == stored(data)


def test_csv_read_by_pythons_module_gives_back_every_double_and_nanosecond(
    data: Path, tmp_path: Path
) -> None:
    export(data, "readings", "-o", tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [
        (row["series"], ns_of(row["time"]), bits(float(row["value"])), int(row["quality"])) for row in rows
    ]
    assert found == stored(data)
    assert [row["unit"] for row in rows[:4]] == ["W", "var", "W", ""]


def test_ndjson_gives_back_every_double_that_json_has_and_counts_the_others(
    data: Path, tmp_path: Path
) -> None:
    told = export(data, "readings", "-o", tmp_path / "r.ndjson")
    rows = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text("utf-8").splitlines()]
    found = [(row["series"], ns_of(row["time"]), bits(row["value"]), row["quality"]) for row in rows]
    not_finite = {bits(float(text)) for text in ("nan", "inf", "-inf")}
    expected = [
        (key, at, None if value in not_finite else value, quality) for key, at, value, quality in stored(data)
    ]
    assert found == expected
    nulls = sum(row["value"] is None for row in rows)
    assert nulls
    assert f"note: {nulls} values that JSON has no number for (NaN, infinite) are null" in told.stdout


@pytest.mark.parametrize("wanted", FORMATS)
def test_every_format_goes_through_a_pipe_and_tells_its_counts_beside_it(data: Path, wanted: str) -> None:
    piped = export(data, "readings", "-o", "-", "--format", wanted)
    assert "240 rows of readings" in piped.stderr
    raw = piped.stdout_bytes
    rows = {
        "parquet": lambda: pq.read_table(pa.BufferReader(raw)).num_rows,
        "arrow": lambda: pa.ipc.open_stream(raw).read_all().num_rows,
        "csv": lambda: len(list(csv.reader(io.StringIO(raw.decode(), newline="")))) - 1,
        "ndjson": lambda: len([json.loads(line) for line in raw.decode().splitlines()]),
    }[wanted]()
    assert rows == 240


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--from", "2026-11-18T11:06:50Z"], f"epoch_ns(time) >= {START + 10 * SECOND}"),
        (
            ["--from", "2026-11-18T11:06:50Z", "--to", "2026-11-18T11:06:55.001234567Z"],
            f"epoch_ns(time) >= {START + 10 * SECOND} and epoch_ns(time) < {START + 15 * SECOND + 1_234_567}",
        ),
        (["--series", "ss-01/*"], "series like 'ss-01/%'"),
        (["--series", "ss-02/p"], "series = 'ss-02/p'"),
        (["--series", "*/q", "--series", "odd*"], "series like '%/q' or series like 'odd%'"),
    ],
)
def test_only_what_was_asked_for_is_exported(
    data: Path, tmp_path: Path, arguments: list[str], where: str
) -> None:
    export(data, "readings", "-o", tmp_path / "r.parquet", *arguments)
    found = as_rows(pq.read_table(tmp_path / "r.parquet"))
    assert found == stored(data, where)
    assert 0 < len(found) < 240


def test_arrival_chooses_by_when_the_log_had_it(data: Path, tmp_path: Path) -> None:
    with open_reader(data) as reader:
        frames = list(reader.read("readings"))
    low, high = frames[7].arrival_ns, frames[21].arrival_ns
    export(
        *(data, "readings", "-o", tmp_path / "r.parquet", "--with-origin"),
        *("--arrival-from", iso(low), "--arrival-to", iso(high)),
    )
    table = pq.read_table(tmp_path / "r.parquet")
    wanted = [frame for frame in frames if low <= frame.arrival_ns < high]
    assert len(wanted) >= 10
    assert table.column("position").to_pylist() == [
        str(frame.position) for frame in wanted for _ in range(frame.row_count)
    ]
    assert table.column("arrived").cast(pa.int64()).to_pylist() == [
        frame.origin_arrival_ns for frame in wanted for _ in range(frame.row_count)
    ]


def iso(time_ns: int) -> str:
    text: str = iso_times(pa.array([time_ns], TIMESTAMP))[0].as_py()
    return text


def test_row_groups_are_bounded_and_keep_the_order_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, count, frames = tmp_path / "data", 4_000, 28
    monkeypatch.setattr("ringmain.cli.export_formats.ROW_GROUP_ROWS", 25 * count)
    with open_log(data) as log:
        rows = [{"id": n, "key": f"s{n}", "unit": "W"} for n in range(count)]
        append(log, 0, Batch("catalogue", pa.RecordBatch.from_pylist(rows, SERIES)))
        ids = np.arange(count)
        for number in range(frames):
            times, values = (START + number * SECOND + ids).tolist(), (ids * 0.5 + number).tolist()
            append(log, 10 + number, readings(ids.tolist(), times, values, [0] * count))
    export(data, "readings", "-o", tmp_path / "r.parquet")
    file = pq.ParquetFile(tmp_path / "r.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [count * 25, count * 3]
    table = file.read(["series", "time", "value"])
    expected = np.concatenate([ids * 0.5 + number for number in range(frames)])
    assert np.array_equal(table.column("value").to_numpy(), expected)
    assert table.column("series").to_pylist()[: count + 1 : count // 2] == ["s0", "s2000", "s0"]


def test_small_frames_between_large_ones_do_not_keep_those_in_memory(tmp_path: Path) -> None:
    data, appends = tmp_path / "data", 1_500
    ids = list(range(700))
    beside = readings(ids, [START] * 700, [1.0] * 700, [0] * 700)
    with open_log(data, segment_bytes=2 << 20) as log:
        claim = log.claim("test", 0)
        for sequence in range(appends):
            tick = pa.RecordBatch.from_arrays([pa.array([START + sequence], TIMESTAMP)], schema=TICK)
            batches = [beside, Batch("ticks", tick)]
            log.append_nowait(batches, lambda *_: None, claim=claim, sequence=sequence)
        log.append([beside], claim=claim, sequence=appends)
    stored_bytes = sum(path.stat().st_size for path in data.glob("*.seg"))
    tracemalloc.start()
    try:
        export(data, "ticks", "-o", tmp_path / "t.parquet")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    times = pq.read_table(tmp_path / "t.parquet").column("time").cast(pa.int64()).to_pylist()
    assert times == [START + sequence for sequence in range(appends)]
    assert stored_bytes > 20 << 20
    assert peak_bytes < stored_bytes / 2


def test_windows_are_exported_with_the_unit_of_their_series_and_chosen_by_their_start(tmp_path: Path) -> None:
    data, schema = tmp_path / "data", window_schema((Aggregate.COUNT, Aggregate.MEAN))
    width = 60 * SECOND
    rows = {
        "series": pa.array([0, 3, 0], pa.uint32()),
        "start": pa.array([START, START, START + width], TIMESTAMP),
        "end": pa.array([START + width, START + width, START + 2 * width], TIMESTAMP),
        "count": [1, 2, 3],
        "mean": [0.5, 1.5, 2.5],
        "revision": [0, 0, 1],
    }
    with open_log(data) as log:
        append(log, 0, catalogue())
        log.create_stream("readings.1m", StreamKind.ROW, schema)
        batch = pa.RecordBatch.from_pydict({name: rows[name] for name in schema.names}, schema)
        append(log, 1, Batch("readings.1m", batch))
    export(data, "readings.1m", "-o", tmp_path / "w.parquet", "--from", iso(START + width))
    assert pq.read_table(tmp_path / "w.parquet").select(
        ["series", "count", "mean", "revision", "unit"]
    ).to_pylist() == [{"series": KEYS[0], "count": 3, "mean": 2.5, "revision": 1, "unit": "W"}]
    export(data, "readings.1m", "-o", tmp_path / "all.csv", "--series", "odd*")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["series"], row["unit"], ns_of(row["end"])) == (KEYS[3], "", START + width)


def test_dead_letters_keep_every_byte_in_every_format(tmp_path: Path) -> None:
    payloads = [b'{"a": "b"}', b"", b"\xff\x00\xfe", 'Zähler, "x"\r\n'.encode()]
    data = tmp_path / "data"
    columns = {
        "source": ["field"] * 4,
        "topic": ["a/b", 'q"uote', "line\nbreak", ""],
        "payload": payloads,
        "payload_bytes": [len(payload) for payload in payloads],
        "time": pa.array([START, START + 1, -1, 0], TIMESTAMP),
        "reason": ["x"] * 4,
    }
    with open_log(data) as log:
        append(log, 0, Batch("deadletters", pa.RecordBatch.from_pydict(columns, DEAD_LETTER)))
    for wanted in FORMATS:
        export(data, "deadletters", "-o", tmp_path / f"d.{wanted}")
    assert pq.read_table(tmp_path / "d.parquet").column("payload").to_pylist() == payloads
    with pa.ipc.open_file(tmp_path / "d.arrow") as file:
        assert file.read_all().column("payload").to_pylist() == payloads
    with (tmp_path / "d.csv").open(newline="", encoding="utf-8") as text:
        lines = list(csv.DictReader(text))
    objects = [json.loads(line) for line in (tmp_path / "d.ndjson").read_text("utf-8").splitlines()]
    for rows in (lines, objects):
        found = [
            base64.b64decode(row["payload_base64"]) if row["payload_base64"] else row["payload"].encode()
            for row in rows
        ]
        assert found == payloads
        assert [row["topic"] for row in rows] == columns["topic"]
        assert [ns_of(row["time"]) for row in rows] == [START, START + 1, -1, 0]


def test_streams_of_any_columns_are_exported(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("flag", pa.bool_()),
            ("small", pa.int8()),
            ("large", pa.uint64()),
            ("half", pa.float32()),
            ("text", pa.string()),
            ("at", pa.timestamp("us")),
            ("day", pa.date32()),
            ("several", pa.list_(pa.float64())),
            ("amount", pa.decimal128(12, 2)),
        ]
    )
    row = {
        "flag": True,
        "small": -5,
        "large": 2**64 - 1,
        "half": 0.5,
        "text": "",
        "at": np.datetime64("2026-03-29T01:30:00.000001", "us").item(),
        "day": np.datetime64("2026-03-29").item(),
        "several": [1.5, None],
        "amount": pa.scalar("12.50").cast(pa.decimal128(12, 2)).as_py(),
    }
    data = tmp_path / "data"
    rows = pa.RecordBatch.from_pylist([row, dict.fromkeys(row)], schema)
    with open_log(data) as log:
        log.create_stream("odd", StreamKind.ROW, schema)
        append(log, 0, Batch("odd", rows))
    for wanted in FORMATS:
        export(data, "odd", "-o", tmp_path / f"o.{wanted}")
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == rows.to_pylist()
    with pa.ipc.open_file(tmp_path / "o.arrow") as file:
        assert file.read_all().to_pylist() == rows.to_pylist()
    [full, empty] = [json.loads(line) for line in (tmp_path / "o.ndjson").read_text().splitlines()]
    assert full == {
        **row,
        "at": "2026-03-29T01:30:00.000001000Z",
        "day": "2026-03-29",
        "amount": "12.50",
    }
    assert empty == dict.fromkeys(row)
    text = (tmp_path / "o.csv").read_text().splitlines()[1]
    assert text.startswith('true,-5,18446744073709551615,0.5,"","2026-03-29T01:30:00.000001000Z",')
    assert (tmp_path / "o.csv").read_text().splitlines()[2] == "," * 8
    export(data, "odd", "-o", tmp_path / "none.parquet", "--from", "2026-01-01", status=1)


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("stream", ["events", "catalogue", "ledger"])
def test_streams_without_rows_and_the_logs_own_are_sound_files(
    data: Path, tmp_path: Path, stream: str, wanted: str
) -> None:
    told = export(data, stream, "-o", tmp_path / f"f.{wanted}")
    rows = 4 if stream == "catalogue" else 0
    assert told.stdout.startswith(f"{rows} rows of {stream}")
    raw = (tmp_path / f"f.{wanted}").read_bytes()
    if wanted == "parquet":
        assert pq.read_table(pa.BufferReader(raw)).num_rows == rows
    elif wanted == "arrow":
        assert pa.ipc.open_file(raw).read_all().num_rows == rows
    else:
        assert len(raw.splitlines()) >= rows + (wanted == "csv")


def test_an_export_beside_a_writer_ends_where_the_log_ended_when_it_began(tmp_path: Path) -> None:
    stop = threading.Event()
    with open_log(tmp_path / "data") as log:
        append(log, 0, catalogue())
        claim = log.claim("writer", 0)

        def go_on() -> None:
            for sequence in range(100_000):
                if stop.is_set():
                    return
                log.append(
                    [readings([0], [START + sequence], [float(sequence)], [0])],
                    claim=claim,
                    sequence=sequence,
                )

        writing = threading.Thread(target=go_on)
        writing.start()
        try:
            before = rows_of(log)
            export(tmp_path / "data", "readings", "-o", tmp_path / "r.parquet")
            after = rows_of(log)
        finally:
            stop.set()
            writing.join()
    values = pq.read_table(tmp_path / "r.parquet").column("value").to_pylist()
    assert values == [float(number) for number in range(len(values))]
    assert before <= len(values) <= after


def rows_of(log: Journal) -> int:
    return next(state.rows for state in log.streams() if state.stream.name == "readings")


def test_rows_that_are_damaged_or_were_removed_are_counted_and_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_log(data, segment_bytes=4_000) as log:
        append(log, 0, catalogue())
        for step in range(40):
            append(log, step + 1, readings([0, 1], [START + step] * 2, [1.0, 2.0], [0, 0]))
        removed = log.retain(size_bytes=16_000)
        assert removed
    segment = sorted(data.glob("*.seg"))[2]
    with segment.open("r+b") as file:
        file.seek(1_000)
        file.write(b"\xff" * 8)
    told = export(data, "readings", "-o", tmp_path / "r.parquet").stdout
    rows = pq.read_table(tmp_path / "r.parquet").num_rows
    before = int(told.partition("the first ")[2].partition(" ")[0])
    assert f"{rows} rows of readings" in told
    assert "note: 2 rows of readings in between are missing" in told
    assert before
    assert before + 2 + rows == 80


def test_a_file_that_exists_is_replaced_only_with_force_and_only_when_complete(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.parquet"
    file.write_text("precious")
    refused = export(data, "readings", "-o", file, status=1)
    assert f"{file} exists: give another name, or --force to replace it" in refused.stderr
    assert file.read_text() == "precious"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        failed = export(data, "readings", "-o", file, "--force", status=1)
        assert "r.parquet: cannot be written (No space left on device)" in failed.stderr
    assert file.read_text() == "precious"
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["r.parquet"], (
        "nothing is left lying about"
    )
    export(data, "readings", "-o", file, "--force")
    assert pq.read_table(file).num_rows == 240


def test_an_export_that_is_killed_leaves_no_file_of_that_name(data: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "import ringmain.cli.export_formats as formats\n"
        "from ringmain.cli.main import cli\n"
        "def killed(self):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "formats._Parquet.close = killed\n"
        "cli(sys.argv[1:])\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    running = subprocess.run(
        [sys.executable, "-c", script, "log", "export", str(data), "readings", "-o", str(out / "r.parquet")],
        timeout=100,
        check=False,
    )
    assert running.returncode == -signal.SIGKILL
    assert [one.suffix for one in out.iterdir()] == [".part"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "-o", "x.csv"], "no stream 'nothing'"),
        (["readings", "-o", "x.csv", "--series", "none/*"], "none of 4 series has such a key"),
        (["deadletters", "-o", "x.csv", "--series", "a"], "belong to no series"),
        (["readings", "-o", "x.csv", "--from", "yesterday"], "--from: expected a time such as"),
        (["readings", "-o", "nowhere/x.csv"], "expected a file in a directory that exists"),
        (["readings", "-o", "data"], "expected --format"),
        (["readings", "-o", "data", "--format", "csv"], "expected the name of a file, found something else"),
        (
            ["readings", "-o", "/dev/null", "--format", "csv"],
            "expected the name of a file, found something else",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words(
    data: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(data.parent)
    refused = export("data", *arguments, status=2 if "expected --format" in message else 1)
    assert message in refused.stderr
    assert not (data.parent / "x.csv").exists()


def test_the_log_of_a_configuration_file_is_exported(data: Path, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[node]\nname = "n"\ndata = "data"\n')
    export(tmp_path / "node.toml", "readings", "-o", tmp_path / "r.csv")
    assert (tmp_path / "r.csv").exists()


def test_quality_words_tell_every_value_of_the_field_apart_but_the_reserved_validity() -> None:
    words = {bits: quality_words(bits) for bits in range(0, 1 << 16, 7)}
    assert words[0] == "good"
    assert (
        quality_words(Quality.INVALID | Quality.SUBSTITUTED | Quality.OLD_DATA)
        == "invalid substituted old_data"
    )
    told = [text for bits, text in words.items() if bits & 3 != 3]
    assert len(set(told)) == len(told)
    assert quality_words(3) == quality_words(2) == "invalid"
