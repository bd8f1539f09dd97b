from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

import ringmain
from ringmain.log import open_reader
from ringmain.log.interface import Batch, StreamKind
from ringmain.model.schemas import TIMESTAMP
from ringmain.serve.sql import Query, SqlCancelledError, SqlEngine, SqlError, SqlLimits, SqlTimeoutError
from tests.serve.rig import MINUTE_NS, SECOND_NS, Rig

T = 1_700_000_000_123_456_789


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    """Rows with timestamps as integers in their own unit."""
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in table.columns]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def test_readings_are_as_stored_with_keys_and_nanoseconds(rig: Rig) -> None:
    appended = rig.put([("a", T, 1.0), ("b", T + 1, 2.0)])
    result = rig.engine().query("SELECT * FROM readings ORDER BY time")
    assert result.table.schema.names == ["series", "time", "value", "quality", "arrived"]
    assert rows(result.table) == [
        ("a", T, 1.0, 0, appended.arrival_ns),
        ("b", T + 1, 2.0, 0, appended.arrival_ns),
    ]
    assert result.table.schema.field("time").type == pa.timestamp("ns", tz="UTC")


def test_a_time_is_compared_exactly_to_the_nanosecond(rig: Rig) -> None:
    rig.put([("a", T - 1, 1.0), ("a", T, 2.0), ("a", T + 1, 3.0)])
    engine = rig.engine()
    query = "SELECT value FROM readings WHERE time = '2023-11-14 22:13:20.123456789'"
    assert rows(engine.query(query).table) == [(2.0,)]
    query = "SELECT value FROM readings WHERE time > '2023-11-14T22:13:20.123456789Z'"
    assert rows(engine.query(query).table) == [(3.0,)]
    assert rows(engine.query("SELECT max(time), min(time) FROM readings").table) == [(T + 1, T - 1)]


def test_what_duckdb_knows_for_microseconds_only_runs_on_microseconds_and_the_type_says_so(rig: Rig) -> None:
    rig.put([("a", T, 1.0), ("a", -1, 2.0)])
    engine = rig.engine()
    result = engine.query(
        "SELECT time, value FROM readings WHERE time > now() - INTERVAL 100 YEAR ORDER BY time"
    )
    assert result.types[0] == "TIMESTAMP WITH TIME ZONE"
    assert rows(result.table) == [(-1, 2.0), (T // 1000, 1.0)]
    bucketed = engine.query(
        "SELECT time_bucket(INTERVAL 15 MINUTE, time) AS b, count(*) FROM readings GROUP BY b ORDER BY b"
    )
    assert [row[1] for row in rows(bucketed.table)] == [1, 1]
    exact = engine.query("SELECT time FROM readings")
    assert exact.types == ("TIMESTAMPTZ_NS",)


def test_times_are_in_utc_wherever_the_process_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    rig.put([("a", 0, 1.0)])
    assert rows(rig.engine().query("SELECT CAST(time AS VARCHAR) FROM readings").table) == [
        ("1970-01-01 00:00:00+00",)
    ]


def test_readings_current_holds_the_newest_row_in_log_order_for_each_series_and_time(rig: Rig) -> None:
    rig.put([("a", T, 1.0), ("b", T, 5.0), ("a", T + SECOND_NS, 2.0)])
    rig.put([("a", T, 1.0)])  # sent twice
    rig.put([("a", T, 9.0), ("b", T - SECOND_NS, 4.0)])  # revised, and late
    rig.put([("b", T - SECOND_NS, 4.5), ("b", T - SECOND_NS, 4.6)])
    engine = rig.engine()
    found = engine.query("SELECT series, time, value FROM readings_current ORDER BY series, time")
    assert rows(found.table) == [
        ("a", T, 9.0),
        ("a", T + SECOND_NS, 2.0),
        ("b", T - SECOND_NS, 4.6),
        ("b", T, 5.0),
    ]
    assert rows(engine.query("SELECT count(*) FROM readings").table) == [(8,)]
    one = engine.query(
        "SELECT value FROM readings_current WHERE series = 'a' AND time < '2023-11-14 22:13:21'"
    )
    assert rows(one.table) == [(9.0,)]


def test_a_window_table_shows_the_newest_revision_and_its_all_table_every_one(rig: Rig) -> None:
    for mean, revision in ((1.0, 0), (3.0, 1), (2.0, 2)):
        rig.put_window("a", T - T % MINUTE_NS, mean, revision)
    rig.put_window("a", T - T % MINUTE_NS + MINUTE_NS, 7.0)
    engine = rig.engine()
    newest = engine.query('SELECT series, mean, revision FROM "readings.1m" ORDER BY start')
    assert rows(newest.table) == [("a", 2.0, 2), ("a", 7.0, 0)]
    every = engine.query('SELECT mean FROM "readings.1m.all" ORDER BY start, revision')
    assert rows(every.table) == [(1.0,), (3.0,), (2.0,), (7.0,)]
    assert newest.table.schema.names == ["series", "mean", "revision"]
    columns = engine.query('SELECT * FROM "readings.1m" LIMIT 0').table.schema.names
    assert columns == ["series", "start", "end", "count", "mean", "min", "max", "revision"]


def test_windows_of_groups_show_the_newest_revision_of_each_group(rig: Rig) -> None:
    names = ["place", "tariff", "start", "mean", "revision"]
    schema = pa.schema(
        [
            pa.field("place", pa.string()),
            pa.field("tariff", pa.string()),
            pa.field("start", TIMESTAMP, nullable=False),
            pa.field("mean", pa.float64()),
            pa.field("revision", pa.uint32(), nullable=False),
        ]
    )
    rig.log.create_stream("feeders.1m", StreamKind.ROW, schema)
    told: list[tuple[str | None, str | None, int, float, int]] = [
        ("ss-1", "day", T, 1.0, 0),
        ("ss-1", None, T, 2.0, 0),
        ("ss-2", "day", T, 3.0, 0),
        ("ss-1", "day", T, 1.5, 1),
        (None, "day", T, 4.0, 0),
        ("ss-1", "day", T + MINUTE_NS, 5.0, 0),
        ("ss-1", None, T, 2.5, 1),
    ]
    for row in told:
        columns = [pa.array([value], field.type) for value, field in zip(row, schema, strict=True)]
        rig.append([Batch("feeders.1m", pa.RecordBatch.from_arrays(columns, schema=schema))])
    engine = rig.engine()
    newest = engine.query('SELECT place, tariff, mean FROM "feeders.1m" ORDER BY mean')
    assert rows(newest.table) == [
        ("ss-1", "day", 1.5),
        ("ss-1", None, 2.5),
        ("ss-2", "day", 3.0),
        (None, "day", 4.0),
        ("ss-1", "day", 5.0),
    ]
    assert engine.query('SELECT * FROM "feeders.1m.all"').table.num_rows == len(told)
    assert engine.query('SELECT * FROM "feeders.1m" LIMIT 0').table.schema.names == names


def test_dead_letters_the_catalogue_and_the_streams_are_tables(rig: Rig) -> None:
    rig.put([("a", T, 1.0)])
    rig.put_letter(b"\xff{")
    engine = rig.engine()
    assert rows(engine.query("SELECT topic, payload, reason FROM deadletters").table) == [
        ("meters/a/p", b"\xff{", "value: expected a number")
    ]
    assert rows(engine.query("SELECT key, unit, source FROM series").table) == [("a", "W", "field")]
    assert rows(engine.query("SELECT kind, rows FROM streams WHERE name = 'readings'").table) == [
        ("reading", 1)
    ]
    for name in ("events", "ledger", "ticks", "conflicts"):
        assert engine.query(f"SELECT * FROM {name}").table.num_rows >= 0
    named = {row[0] for row in rows(engine.query("SHOW TABLES").table)}
    assert {"readings", "readings_current", "readings.1m", "readings.1m.all", "series", "ledger"} <= named


def test_a_table_may_be_named_twice_and_joined_with_the_catalogue(rig: Rig) -> None:
    rig.put([("a", T, 1.0), ("a", T + 1, 2.0), ("b", T, 3.0)])
    found = rig.engine().query(
        "SELECT x.series, s.unit, y.value - x.value FROM readings x JOIN readings y ON x.series = y.series AND y.time > x.time"
        " JOIN series s ON s.key = x.series"
    )
    assert rows(found.table) == [("a", "W", 1.0)]


def test_a_statement_sees_the_log_as_it_was_when_it_began(rig: Rig) -> None:
    rig.put([("a", T, 1.0)])
    snapshot = rig.engine().snapshot(threading.Event())
    rig.put([("a", T + 1, 2.0)])
    assert sum(frame.row_count for frame in snapshot.frames("readings")) == 1


def test_an_empty_log_has_empty_tables(rig: Rig) -> None:
    engine = rig.engine()
    for name in ("readings", "readings_current", '"readings.1m"', "deadletters", "series"):
        assert engine.query(f"SELECT * FROM {name}").table.num_rows == 0


def test_only_frames_that_can_hold_wanted_times_are_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in range(10):
        rig.put([("a", T + hour * 3600 * SECOND_NS, float(hour))])
    engine = rig.engine()
    read: list[int] = []
    real = rig.log.read

    def counting(*arguments: object, **options: object) -> object:
        for frame in real(*arguments, **options):  # type: ignore[arg-type]
            read.append(frame.row_count)
            yield frame

    monkeypatch.setattr(rig.log, "read", counting)
    for where in (
        "time >= '2023-11-15 06:00:00'",
        "time >= '2023-11-15 06:00:00' AND series = 'a'",
        "time BETWEEN '2023-11-15 06:00:00' AND '2023-11-16'",
        "time > TIMESTAMPTZ '2023-11-15 06:00:00+00' AND value > 0",
        "(time > '2023-11-15 06:00:00' AND (value = 3 OR value > 7.5))",
    ):
        read.clear()
        assert rows(engine.query(f"SELECT value FROM readings WHERE {where}").table) == [(8.0,), (9.0,)]
        assert len(read) <= 2, where
    read.clear()
    either = engine.query("SELECT value FROM readings WHERE time < '2023-11-14 23:00:00' OR value = 9")
    assert rows(either.table) == [(0.0,), (9.0,)]
    assert len(read) == 10


def test_a_series_key_with_quotes_and_words_of_sql_is_found(rig: Rig) -> None:
    hostile = "x\") and (time > 2030-01-01 00:00:00.000000Z) or '\\"
    rig.put([(hostile, T, 1.0), ("a", T, 2.0)])
    found = rig.engine().query("SELECT value FROM readings WHERE series = ?", [hostile])
    assert rows(found.table) == [(1.0,)]
    found = rig.engine().query("SELECT value FROM readings WHERE series = $key", {"key": "a"})
    assert rows(found.table) == [(2.0,)]
    assert rows(rig.engine().query("SELECT value FROM readings WHERE series = 'nobody'").table) == []


HOSTILE = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM system.main.read_csv('{file}')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('readings')",
    "SELECT * FROM (SELECT * FROM read_blob('{file}')) x",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "WITH x AS (COPY (SELECT 1) TO '{out}') SELECT * FROM x",
    "WITH x AS (INSERT INTO readings VALUES ('a') RETURNING *) SELECT * FROM x",
    "COPY (SELECT 1) TO '{out}'",
    "COPY readings FROM '{file}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "ATTACH '{out}'",
    "ATTACH ':memory:' AS x",
    "INSTALL httpfs",
    "LOAD json",
    "SET memory_limit = '100GB'",
    "SET lock_configuration = false",
    "SET VARIABLE x = 1",
    "RESET threads",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "CALL pragma_version()",
    "CHECKPOINT",
    "EXPORT DATABASE '{out}'",
    "CREATE TABLE x AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "DROP VIEW readings",
    "DELETE FROM readings",
    "UPDATE readings SET value = 0",
    "INSERT INTO readings VALUES ('a', now(), 1, 0, now())",
    "SELECT 1; SELECT 2",
    "SELECT 1; ATTACH '{out}'",
    "BEGIN",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
    "USE system",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT write_log('x')",
    "SELECT pg_sleep(60)",
    "SELECT getenv('HOME')",
    "SELECT * FROM arrow_scan(1, 1, 1)",
    "SELECT * FROM secret_of_python",
    "VACUUM",
    "",
    ";",
    "not sql",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT '" + "x" * 200_000 + "'",
    "SELECT \x00",
]


@pytest.mark.parametrize("statement", HOSTILE, ids=lambda text: text[:50])
def test_a_hostile_statement_is_an_error_and_leaves_nothing(rig: Rig, tmp_path: Path, statement: str) -> None:
    secret_of_python = pa.table({"x": [1]})
    file, out = tmp_path / "file.csv", tmp_path / "out"
    file.write_text("secret\n1\n")
    with pytest.raises(SqlError):
        rig.engine().query(statement.replace("{file}", str(file)).replace("{out}", str(out)))
    assert not out.exists()
    assert secret_of_python.num_rows == 1


def test_the_second_fence_holds_without_the_first(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("secret\n1\n")
    database = rig.engine().database()
    for statement in (
        f"SELECT * FROM read_csv('{file}')",
        f"SELECT * FROM '{file}'",
        f"COPY (SELECT 1) TO '{tmp_path / 'out'}'",
        f"ATTACH '{tmp_path / 'out'}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET threads = 64",
        "INSTALL httpfs",
    ):
        with pytest.raises(Exception, match=r"(?i)permission|locked|disabled|does not exist"):
            database.cursor().execute(statement)
    assert not (tmp_path / "out").exists()


def test_an_error_shows_where_and_a_dotted_name_gets_a_hint(rig: Rig) -> None:
    with pytest.raises(SqlError, match=r'double quotes: FROM "readings.1m"'):
        rig.engine().query("SELECT * FROM readings.1m")
    with pytest.raises(SqlError, match="nosuch"):
        rig.engine().query("SELECT nosuch FROM readings")


def test_a_statement_that_takes_too_long_is_stopped(rig: Rig) -> None:
    rig.put([("a", T, 1.0)])
    with pytest.raises(SqlTimeoutError, match=r"longer than 0\.2 s"):
        rig.engine().query(
            "SELECT sum(r.value * x.range) FROM readings r, range(1000000000000) x", timeout_s=0.2
        )
    engine = SqlEngine(rig.log, rig.log.catalogue(), SqlLimits(timeout_s=0.2))
    with pytest.raises(SqlTimeoutError):
        engine.query("WITH RECURSIVE t AS (SELECT 1 x UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t")


@pytest.mark.parametrize("timeout_s", [1e-6, 1e-3, 5e-3])
def test_a_statement_whose_time_is_over_before_it_begins_is_stopped_as_well(
    rig: Rig, timeout_s: float
) -> None:
    engine = rig.engine()
    for _ in range(3):
        with pytest.raises(SqlTimeoutError):
            engine.query(
                "WITH RECURSIVE t AS (SELECT 1 x UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t",
                timeout_s=timeout_s,
            )


def test_a_statement_can_be_cancelled_before_and_while_it_runs(rig: Rig) -> None:
    engine = rig.engine()
    before = Query(engine, "SELECT 1")
    before.cancel()
    with pytest.raises(SqlCancelledError):
        before.run()
    running = Query(engine, "SELECT count(*) FROM range(100000000000000)")
    timer = threading.Timer(0.2, running.cancel)
    timer.start()
    with pytest.raises(SqlCancelledError):
        running.run()
    assert rows(engine.query("SELECT 1").table) == [(1,)]


def test_memory_beyond_the_limit_is_an_error_that_names_it(rig: Rig) -> None:
    engine = rig.engine(SqlLimits(memory_mib=64))
    with pytest.raises(SqlError, match="64 MiB"):
        engine.query("SELECT array_agg(range) FROM range(100000000)")


def test_a_result_beyond_the_limit_is_cut_and_says_so(rig: Rig) -> None:
    rig.put([("a", T + n, float(n)) for n in range(100)])
    engine = rig.engine()
    cut = engine.query("SELECT value FROM readings", limit=30)
    assert cut.truncated
    assert rows(cut.table) == [(float(n),) for n in range(30)]
    whole = engine.query("SELECT value FROM readings", limit=100)
    assert not whole.truncated
    assert whole.table.num_rows == 100
    assert engine.query("SELECT value FROM readings", limit=0).truncated


def tree(directory: Path) -> dict[str, tuple[int, str]]:
    """Every file below a directory: its modification time and a digest of its bytes."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_reading_only_changes_nothing_in_the_directory(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    rig.put([("a", T + n, float(n)) for n in range(1000)])
    rig.close()
    before = tree(tmp_path)
    with ringmain.open(tmp_path / "data", read_only=True) as log:
        assert rows(log.sql("SELECT count(*) FROM readings_current")) == [(1000,)]
        with pytest.raises(SqlError):
            log.sql("SELECT array_agg(range) FROM range(1000000000)")
    assert tree(tmp_path) == before


WRITER = """
import sys, pyarrow as pa, ringmain
with ringmain.open(sys.argv[1]) as log:
    for n in range(int(sys.argv[2])):
        log.append({"readings": pa.table({"series": ["a", "b"], "time": [n, n], "value": [n, n]})})
    print("written", flush=True)
    sys.stdin.read()
"""


def test_sql_runs_beside_another_process_that_writes(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), "50"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(ringmain.__file__).parent.parent)},
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "written\n"
        with open_reader(directory) as reader:
            engine = SqlEngine(reader, reader.catalogue())
            found = engine.query(
                "SELECT series, count(*), max(value) FROM readings GROUP BY series ORDER BY 1"
            )
            assert rows(found.table) == [("a", 50, 49.0), ("b", 50, 49.0)]
        writer.stdin.close()
        assert writer.wait(60) == 0
