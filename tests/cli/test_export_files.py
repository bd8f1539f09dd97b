"""`ringmain log export`: a file is there whole or not at all, in bounded memory, and says what is missing in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.exporting import (
    SECOND,
    START,
    append,
    catalogue,
    export,
    history,
    readings,
    rows_of,
)

from ringmain.log import open_log
from ringmain.log.interface import Batch
from ringmain.model.schemas import SERIES, TICK, TIMESTAMP


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of readings of every kind. Nothing writes to it."""
    return history(tmp_path_factory.mktemp("log") / "data")


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
        timeout=280,
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
    (tmp_path / "node.toml").write_text(f'[node]\nname = "n"\ndata = "{data}"\n')
    export(tmp_path / "node.toml", "readings", "-o", tmp_path / "r.csv")
    assert (tmp_path / "r.csv").exists()


def test_damage_in_a_parquet_file_is_found_by_its_page_checksums(data: Path, tmp_path: Path) -> None:
    export(data, "readings", "-o", tmp_path / "r.parquet")
    raw = bytearray((tmp_path / "r.parquet").read_bytes())
    raw[400] ^= 1
    with pytest.raises(OSError, match=r"CRC|corrupt|[Cc]hecksum"):
        pq.read_table(pa.BufferReader(bytes(raw)), page_checksum_verification=True)
