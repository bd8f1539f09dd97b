from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import ringmain
from ringmain.client import LOAD_ROWS, Client
from ringmain.log.interface import (
    ConflictError,
    LogClosedError,
    LogError,
    LogLockedError,
    TooLargeError,
    UnknownStreamError,
)
from ringmain.model.quality import Quality
from ringmain.model.schemas import READING_KEYED

T = 1_700_000_000_123_456_789
NS = pa.timestamp("ns", tz="UTC")


def readings(*rows: tuple[str, int, float]) -> pa.Table:
    return pa.table(
        {
            "series": [row[0] for row in rows],
            "time": pa.array([row[1] for row in rows], NS),
            "value": [row[2] for row in rows],
        }
    )


def read(log: Client, **options: object) -> list[tuple[str, int, float, int]]:
    found = []
    for batch in log.read("readings", **options):  # type: ignore[arg-type]
        assert batch.schema.equals(READING_KEYED)
        columns = [batch.column(name) for name in ("series", "time", "value", "quality")]
        columns[1] = columns[1].view(pa.int64())
        found += list(zip(*(column.to_pylist() for column in columns), strict=True))
    return found


def test_what_is_appended_is_read_back_with_keys_and_quality(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        appended = log.append({"readings": readings(("a", T, 1.0), ("b", T + 1, -2.5))})
        assert not appended.duplicate
        assert read(log) == [("a", T, 1.0, 0), ("b", T + 1, -2.5, 0)]
        batch = next(iter(log.read("readings")))
        assert batch.column("arrived").view(pa.int64()).to_pylist() == [appended.arrival_ns] * 2


def test_the_same_sequence_again_after_a_restart_makes_no_second_copy(tmp_path: Path) -> None:
    table = readings(("a", T, 1.0))
    with ringmain.open(tmp_path / "data") as log:
        assert not log.append({"readings": table}, producer="importer", sequence=7).duplicate
        assert log.append({"readings": table}, producer="importer", sequence=7).duplicate
    with ringmain.open(tmp_path / "data") as log:
        assert log.append({"readings": table}, producer="importer", sequence=7).duplicate
        assert log.append({"readings": table}, producer="importer", sequence=3).duplicate
        assert not log.append({"readings": table}, producer="importer", sequence=8).duplicate
        assert not log.append({"readings": table}, producer="another", sequence=7).duplicate
        assert len(read(log)) == 3


def test_a_sequence_left_out_is_the_next_one(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))}, producer="importer", sequence=7)
        log.append({"readings": readings(("a", T, 2.0))}, producer="importer")
        assert log.append({"readings": readings(("a", T, 2.0))}, producer="importer", sequence=8).duplicate
    with ringmain.open(tmp_path / "data") as log:
        assert not log.append({"readings": readings(("a", T, 3.0))}, producer="importer").duplicate
        assert [row[2] for row in read(log)] == [1.0, 2.0, 3.0]


def test_the_same_sequence_with_other_data_is_a_conflict(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))}, producer="importer", sequence=7)
        with pytest.raises(ConflictError, match="sequence 7"):
            log.append({"readings": readings(("a", T, 2.0))}, producer="importer", sequence=7)
        assert [row[2] for row in read(log)] == [1.0]


def test_a_repeat_is_recognised_even_when_its_times_are_no_longer_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = time.time_ns() + 600_000_000_000
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", ahead, 1.0))}, sequence=1)
        assert read(log)[0][3] == Quality.CLOCK_FAILED
        monkeypatch.setattr(time, "time_ns", lambda: ahead)
        assert log.append({"readings": readings(("a", ahead, 1.0))}, sequence=1).duplicate


def test_times_far_ahead_are_flagged_and_others_are_not(tmp_path: Path) -> None:
    now = time.time_ns()
    with ringmain.open(tmp_path / "data") as log:
        table = readings(("a", now + 3_600_000_000_000, 1.0), ("a", now + 60_000_000_000, 1.0), ("a", 0, 1.0))
        log.append({"readings": table.append_column("quality", pa.array([1, 0, 0], pa.uint16()))})
        assert [row[3] for row in read(log)] == [Quality.CLOCK_FAILED | Quality.QUESTIONABLE, 0, 0]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_700_000_000], pa.timestamp("s")),
        pa.array([1_700_000_000_000], pa.timestamp("ms", tz="Europe/Berlin")),
        pa.array([1_700_000_000_000_000], pa.timestamp("us", tz="UTC")),
        pa.array([1_700_000_000_000_000_000], pa.int64()),
        pa.array([1_700_000_000_000_000_000], pa.timestamp("ns", tz="America/New_York")),
    ],
    ids=lambda array: str(array.type),
)
def test_times_of_any_unit_and_zone_mean_the_same_instant(tmp_path: Path, times: pa.Array) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": pa.table({"series": ["a"], "time": times, "value": [1.0]})})
        assert read(log) == [("a", 1_700_000_000_000_000_000, 1.0, 0)]


@pytest.mark.parametrize(
    "series",
    [
        pa.array(["a", "b", "a"]),
        pa.array(["a", "b", "a"], pa.large_string()),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([2, 1, 2], pa.int8()), pa.array(["unused", "b", "a"])),
        pa.chunked_array([["a"], ["b", "a"]]),
    ],
    ids=lambda array: f"{type(array).__name__} {array.type}",
)
def test_keys_come_as_strings_or_dictionaries(tmp_path: Path, series: pa.Array) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append(
            {"readings": pa.table({"series": series, "time": pa.array([1, 2, 3]), "value": [1.0, 2.0, 3.0]})}
        )
        assert [row[0] for row in read(log)] == ["a", "b", "a"]
        assert log.sql("SELECT key, source FROM series ORDER BY id").to_pylist() == [
            {"key": key, "source": "client"} for key in dict.fromkeys(["a", "b"])
        ]


def test_series_may_be_ids_of_this_log(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0), ("b", T, 2.0))})
        ids = pa.array([1, 0], pa.uint32())
        log.append({"readings": pa.table({"series": ids, "time": [T + 1, T + 1], "value": [3, 4]})})
        assert read(log)[2:] == [("b", T + 1, 3.0, 0), ("a", T + 1, 4.0, 0)]


def test_record_batches_and_arrow_streams_are_taken(tmp_path: Path) -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return readings(("a", T, 3.0)).__arrow_c_stream__(requested_schema)

    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0)).to_batches()[0]})
        log.append({"readings": Stream()})
        assert [row[2] for row in read(log)] == [1.0, 3.0]


def column(name: str, values: object) -> pa.Table:
    table = readings(("a", T, 1.0), ("a", T, 2.0), ("a", T, 3.0))
    if name in table.schema.names:
        return table.set_column(table.schema.get_field_index(name), name, values)
    return table.append_column(name, values)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            column("value", pa.array([1.0, float("nan"), 2.0])),
            r"'value', row 1: expected a finite number, found nan",
        ),
        (column("value", pa.array([1.0, 2.0, float("-inf")])), r"'value', row 2: .*found -inf"),
        (
            column("value", pa.array([1.0, None, None])),
            r"'value', row 1 \(and 1 more\): expected a value, found null",
        ),
        (column("value", pa.array(["1", "2", "3"])), r"'value': expected numbers, found string"),
        (column("time", pa.array([1, None, 2])), r"'time', row 1: expected a value, found null"),
        (column("time", pa.array(["x", "y", "z"])), r"'time': expected timestamps or int64 nanoseconds"),
        (
            column("time", pa.array([10**11] * 3, pa.timestamp("s"))),
            r"'time': expected times between 1677 and 2262",
        ),
        (column("series", pa.array(["a", None, "b"])), r"'series', row 1: expected a value, found null"),
        (
            column("series", pa.array([0, 1, 2], pa.uint32())),
            r"'series', row 0: expected an id below 0, found 0",
        ),
        (column("series", pa.array([1.5, 1.0, 2.0])), r"'series': expected keys \(strings\) or ids"),
        (column("series", pa.array(["a", "", "b"])), r"expected a series key, found an empty one"),
        (column("quality", pa.array([0, 70000, 0])), r"'quality': expected uint16"),
        (
            column("unit", pa.array(["W", "W", "W"])),
            r"unknown column 'unit'; it has series, time, value, quality",
        ),
        (pa.table({"series": ["a"], "time": [1]}), r"'value': expected, not found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_does_not_fit_is_refused_whole_and_says_where(
    tmp_path: Path, table: pa.Table, expected: str
) -> None:
    with ringmain.open(tmp_path / "data") as log:
        with pytest.raises((ValueError, TypeError), match=expected):
            log.append({"readings": table}, sequence=1)
        assert read(log) == []
        assert not log.append({"readings": readings(("a", T, 1.0))}, sequence=1).duplicate


def test_what_is_not_arrow_and_what_is_no_stream_is_refused(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        with pytest.raises(TypeError, match="expected an Arrow table or record batch, found list"):
            log.append({"readings": [1, 2]})
        with pytest.raises(UnknownStreamError, match="found 'nope'"):
            log.append({"nope": readings(("a", T, 1.0))})
        with pytest.raises(UnknownStreamError, match="found 'ticks'"):
            log.append({"ticks": pa.table({"time": pa.array([1], NS)})})
        with pytest.raises(UnknownStreamError, match="found 'nope'"):
            log.read("nope")


def test_several_streams_go_in_one_append(tmp_path: Path) -> None:
    event = pa.table(
        {
            "id": ["e1"],
            "source": ["importer"],
            "type": ["switch"],
            "subject": ["f1"],
            "time": pa.array([T], NS),
        }
    )
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0)), "events": event})
        [batch] = list(log.read("events"))
        assert batch.column("id").to_pylist() == ["e1"]
        assert batch.column("data").to_pylist() == [None]


def many(rows: int, first: int = 0) -> pa.Table:
    numbers = np.arange(first, first + rows)
    series = pa.DictionaryArray.from_arrays(
        pa.array((numbers % 100).astype(np.int32)), pa.array([f"s{n}" for n in range(100)])
    )
    return pa.table({"series": series, "time": pa.array(numbers).cast(NS), "value": numbers.astype(float)})


def test_more_than_a_group_holds_is_an_error_that_names_the_limit_and_load_splits(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        with pytest.raises(TooLargeError, match="4 MiB"):
            log.append({"readings": many(300_000)})
        assert not log.append({"readings": many(150_000)}).duplicate  # several frames, one group
        loaded = log.load({"readings": many(300_000)}, producer="bulk", sequence=1)
        assert (loaded.rows, loaded.appends, loaded.already_there) == (300_000, -(-300_000 // LOAD_ROWS), 0)
        again = log.load({"readings": many(300_000)}, producer="bulk", sequence=1)
        assert (again.rows, again.already_there) == (0, loaded.appends)
        [count] = log.sql("SELECT count(*) AS n FROM readings").to_pylist()
        assert count == {"n": 450_000}


def test_an_interrupted_load_goes_on_where_it_was_however_its_data_was_cut(tmp_path: Path) -> None:
    whole = many(3 * LOAD_ROWS + 10)

    def broken_off() -> object:
        yield whole.slice(0, LOAD_ROWS + 5)
        yield whole.slice(LOAD_ROWS + 5, LOAD_ROWS)
        raise ConnectionError("the file server has gone")

    with ringmain.open(tmp_path / "data") as log, pytest.raises(ConnectionError):
        log.load({"readings": broken_off()}, producer="bulk", sequence=4)
    with ringmain.open(tmp_path / "data") as log:
        loaded = log.load({"readings": whole}, producer="bulk", sequence=4)
        assert (loaded.already_there, loaded.rows) == (2, LOAD_ROWS + 10)
        values = np.concatenate([batch.column("value").to_numpy() for batch in log.read("readings")])
        assert np.array_equal(values, np.arange(len(whole), dtype=float))


def test_since_and_until_bound_the_readings_own_time_row_by_row(tmp_path: Path) -> None:
    start = 1_774_742_400_000_000_000  # 2026-03-29T00:00:00Z
    hour = 3_600_000_000_000
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(*(("a", start + n * hour, float(n)) for n in range(5)))})
        log.append({"readings": readings(*(("b", start + n * hour, float(n)) for n in range(3, 8)))})
        expected = [("a", 2.0), ("a", 3.0), ("b", 3.0)]
        berlin = dt.timezone(dt.timedelta(hours=2))
        for since, until in (
            ("2026-03-29T02:00:00Z", "2026-03-29T04:00:00Z"),
            ("2026-03-29T04:00:00+02:00", "2026-03-29 04:00"),
            (dt.datetime(2026, 3, 29, 4, tzinfo=berlin), dt.datetime(2026, 3, 29, 4)),
            (start + 2 * hour, start + 4 * hour),
        ):
            found = read(log, since=since, until=until)
            assert [(row[0], row[2]) for row in found] == expected
        assert read(log, since=start + 8 * hour) == []
        with pytest.raises(ValueError, match="expected a time such as"):
            log.read("readings", since="yesterday")


def test_a_reader_that_follows_sees_what_comes_and_ends_when_nothing_does(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 0.0))})
        seen: list[float] = []
        begun = threading.Event()

        def follow() -> None:
            for batch in log.read("readings", follow=True, timeout_s=60):
                seen.extend(batch.column("value").to_pylist())
                begun.set()
                if len(seen) == 4:
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        assert begun.wait(60)
        for n in range(1, 4):
            log.append({"readings": readings(("a", T + n, float(n)))})
        follower.join(60)
        assert seen == [0.0, 1.0, 2.0, 3.0]
        assert (
            list(log.read("readings", follow=True, after=log.streams()[-1].last, timeout_s=0.05)) is not None
        )


def test_a_log_that_is_open_elsewhere_says_what_to_do_instead(tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))})
        with pytest.raises(LogLockedError, match="read_only=True"):
            ringmain.open(tmp_path / "data")
        with ringmain.open(tmp_path / "data", read_only=True) as beside:
            assert read(beside) == [("a", T, 1.0, 0)]
            log.append({"readings": readings(("b", T, 2.0))})
            assert len(read(beside)) == 2
            assert beside.sql("SELECT series, value FROM readings ORDER BY value").num_rows == 2
            with pytest.raises(LogError, match="read-only"):
                beside.append({"readings": readings(("a", T, 1.0))})


def test_opening_nothing_to_read_is_an_error_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="found nothing at"):
        ringmain.open(tmp_path / "data", read_only=True)
    assert not (tmp_path / "data").exists()


def test_a_closed_client_refuses(tmp_path: Path) -> None:
    log = ringmain.open(tmp_path / "data")
    log.close()
    log.close()
    with pytest.raises(LogClosedError):
        log.append({"readings": readings(("a", T, 1.0))})


def test_importing_ringmain_imports_nothing_heavy() -> None:
    code = "import sys, ringmain; print([m for m in ('numpy', 'pyarrow', 'duckdb', 'msgspec') if m in sys.modules])"
    path = str(Path(ringmain.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
