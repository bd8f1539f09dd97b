"""`ringmain log export`: what foreign tools read is what the log holds, in every format."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.exporting import (
    FORMATS,
    KEYS,
    SECOND,
    START,
    UNITS,
    append,
    as_rows,
    bits,
    catalogue,
    export,
    history,
    iso,
    ns_of,
    stored,
)

from ringmain.cli.export_rows import quality_words
from ringmain.flows.settings import Aggregate
from ringmain.flows.totals import window_schema
from ringmain.log import open_log, open_reader
from ringmain.log.interface import Batch, StreamKind
from ringmain.model.quality import Quality
from ringmain.model.schemas import DEAD_LETTER, TIMESTAMP


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of readings of every kind. Nothing writes to it."""
    return history(tmp_path_factory.mktemp("log") / "data")


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
