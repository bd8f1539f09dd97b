"""Readers of other processes, readers that segments vanish from, and the promise never to write."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Batch, LogError, PositionGoneError, StreamKind, UnknownStreamError
from ringmain.log.recovery import read_mark
from ringmain.testing import FaultyFiles
from tests.log.batches import NOTE, notes, reading_batch, values, wait_until

FOLLOWER = """
import sys
from ringmain.log import open_reader
log = open_reader(sys.argv[1])
wanted = int(sys.argv[2])
seen = 0
print("open", flush=True)
for frame in log.read("readings", follow=True, timeout_s=60):
    for value in frame.rows.column("value").to_pylist():
        assert value == seen, (value, seen)
        seen += 1
    if seen >= wanted:
        break
print(seen, len(log.positions()), log.streams()[-2].rows, flush=True)
"""


def _contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_a_reader_in_another_process_follows_the_writer(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=8192)
    claim = log.claim("a")
    log.append([reading_batch(1)], claim=claim, sequence=0)
    command = [sys.executable, "-c", FOLLOWER, str(tmp_path), "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "open\n"
        for number in range(1, 300):
            log.append([reading_batch(1, value=number)], claim=claim, sequence=number, positions={"a": b"x"})
        line = process.stdout.readline()
        assert line, process.stderr.read()
        assert line.split()[:2] == ["300", "1"]
    log.close()


def test_reading_only_never_writes(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    claim = log.claim("a")
    for number in range(20):
        log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
    log.create_stream("notes", StreamKind.ROW, NOTE)  # returns when the background work is done as well
    before = _contents(tmp_path)
    for _ in range(2):
        with open_reader(tmp_path) as reader:
            assert len(list(reader.read("readings"))) == 20
            assert reader.find("readings", 2**62) is not None
            assert len(reader.catalogue()) == 0
        assert _contents(tmp_path) == before
        log.close()
        before = _contents(tmp_path)
    for path in (*tmp_path.glob("*.idx"), *tmp_path.glob("*.ckp"), tmp_path / "durable"):
        path.unlink()
    before = _contents(tmp_path)
    with open_reader(tmp_path) as reader:
        assert len(list(reader.read("readings"))) == 20
    assert _contents(tmp_path) == before


def test_a_reader_sees_streams_positions_and_segments_that_come_later(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    reader = open_reader(tmp_path)
    with pytest.raises(UnknownStreamError):
        reader.read("notes")
    log.create_stream("notes", StreamKind.ROW, NOTE)
    assert list(reader.read("notes")) == []
    claim = log.claim("a")
    for number in range(30):
        log.append(
            [reading_batch(40, value=number * 100)],
            claim=claim,
            sequence=number,
            positions={"a": b"%d" % number},
        )
        assert reader.positions() == {"a": b"%d" % number}
    assert values(reader.read("readings")) == values(log.read("readings"))
    assert reader.end() == log.end()
    assert reader.streams() == log.streams()
    reader.close()
    log.close()


def test_a_reader_goes_on_across_a_reopening_of_the_writer(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([reading_batch(1, value=1)], claim=log.claim("a"), sequence=0)
    reader = open_reader(tmp_path)
    frames = reader.read("readings", follow=True, timeout_s=60)
    assert values([next(frames)]) == [1]
    log.close()
    log = open_log(tmp_path)
    log.append([reading_batch(1, value=2)], claim=log.claim("a"), sequence=0)
    assert values([next(frames)]) == [2]
    log.retain(size_bytes=0)
    log.append([reading_batch(1, value=3)], claim=log.claim("a"), sequence=0)
    assert values([next(frames)]) == [3]
    reader.close()
    log.close()


def test_a_reader_keeps_a_segment_that_goes_while_it_reads(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=64 << 10)
    claim = log.claim("a")
    for number in range(40):
        log.append([reading_batch(300, value=number)], claim=claim, sequence=number)
    frames = log.read("readings")
    first = next(frames)
    assert log.retain(size_bytes=0) > 1
    rest = []
    with pytest.raises(PositionGoneError, match="retention"):
        rest.extend(frames)
    assert rest, "what lies in the segment that is open can still be read"
    assert [frame.sequence for frame in (first, *rest)] == list(range(len(rest) + 1))
    assert [frame.sequence for frame in log.read("readings")][-1] == 39
    ledger = log.ledger()
    assert ledger.column("kind").to_pylist() == ["evicted"]
    evicted = ledger.column("rows").to_pylist()[0]
    assert evicted + 300 * len(list(log.read("readings"))) == 300 * 40
    log.close()
    reader = open_reader(tmp_path)
    with pytest.raises(PositionGoneError, match="retention"):
        reader.read("readings", after=first.position)
    reader.close()


def test_retention_by_age_keeps_what_is_younger(tmp_path: Path) -> None:
    clock = _Clock()
    log = open_log(tmp_path, segment_bytes=4096, clock=clock)
    claim = log.claim("a")
    for number in range(20):
        clock.now += 60 * 10**9
        log.append([reading_batch(40, value=number * 100)], claim=claim, sequence=number)
    assert log.retain(age_ns=3600 * 10**9) == 0
    assert log.retain(age_ns=600 * 10**9) > 0
    arrivals = [frame.arrival_ns for frame in log.read("readings")]
    assert clock.now - 1200 * 10**9 < arrivals[0] < clock.now - 540 * 10**9
    assert len(arrivals) >= 10
    log.close()


def test_positions_and_catalogue_survive_the_segments_that_brought_them(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("a", epoch=0)
    log.append([reading_batch(1)], claim=claim, sequence=0, positions={"a": b"kept"})
    for number in range(1, 30):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    assert log.retain(size_bytes=0) > 3
    log.close()
    log = open_log(tmp_path)
    assert log.positions() == {"a": b"kept"}
    assert log.create_stream("notes", StreamKind.ROW, NOTE).id >= 64
    assert log.claim("a", epoch=0).last_sequence == 29
    states = {state.stream.name: state for state in log.streams()}
    assert states["readings"].rows == 1 + 29 * 40
    log.close()


def test_a_directory_without_a_log_is_refused_for_reading(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="nothing-here"):
        open_reader(tmp_path / "nothing-here")


def test_closing_wakes_a_reader_of_another_process(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    reader = open_reader(tmp_path)
    ended = threading.Event()
    begun = threading.Event()

    def follow() -> None:
        begun.set()
        list(reader.read("readings", follow=True))
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    assert begun.wait(20)
    reader.close()
    wait_until(ended.is_set)
    log.close()


class _Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * 10**9

    def wall_ns(self) -> int:
        return self.now

    def elapsed_ns(self) -> int:
        return self.now


def test_frames_without_the_wanted_series_are_skipped(tmp_path: Path) -> None:
    with_it, total = [3, 77], 200
    log = open_log(tmp_path / "log")
    claim = log.claim("a")
    for n in range(total):
        log.append([reading_batch(9 if n in with_it else 8, start=n * 100)], claim=claim, sequence=n)
    found = [frame.time_min_ns // 100 for frame in log.read("readings", series=8)]
    assert found == [*with_it, total - 1]
    log.close()


def test_a_segment_that_is_cut_while_the_directory_is_read_is_not_taken_for_damage(tmp_path: Path) -> None:
    """Retention beside a reader that opens: what goes is gone, and neither skipped nor told as lost."""
    with open_log(tmp_path, segment_bytes=4096) as log:
        claim = log.claim("a")
        for number in range(60):
            log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
        for path in tmp_path.glob("*.idx"):
            path.unlink()
        files = FaultyFiles()
        looked: list[Path] = []

        def cut(name: str, path: Path | None) -> None:
            if name == "read" and path is not None and path.suffix == ".seg":
                looked.append(path)
                if len(looked) == 30:
                    assert log.retain(size_bytes=20_000) > 3

        files.before_call = cut
        with open_reader(tmp_path, fs=files) as reader:
            kept = [frame.sequence for frame in reader.read("readings")]
            assert len(looked) > 30
            assert kept == [frame.sequence for frame in log.read("readings")]
            assert reader.ledger().column("kind").to_pylist() == ["evicted"]


def test_frames_of_a_rare_stream_that_are_kept_do_not_keep_what_was_read_with_them(tmp_path: Path) -> None:
    appends = 400
    with open_log(tmp_path, segment_bytes=2 << 20) as log:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        claim = log.claim("a")
        for sequence in range(appends):
            batches = [reading_batch(700), Batch("notes", notes(str(sequence)))]
            log.append_nowait(batches, lambda *_: None, claim=claim, sequence=sequence)
        log.append([reading_batch(1)], claim=claim, sequence=appends)
        stored_bytes = sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
        assert stored_bytes > 6 << 20
        tracemalloc.start()
        try:
            kept = list(log.read("notes"))
            kept_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert [frame.rows.column("text").to_pylist() for frame in kept] == [[str(n)] for n in range(appends)]
    assert kept_bytes < stored_bytes / 2


def test_what_was_acknowledged_is_read_at_once_even_where_the_telling_lags(tmp_path: Path) -> None:
    """Connected readers are told how far the log is durable; another's acknowledgement may overtake the telling."""
    log = open_log(tmp_path)
    claim = log.claim("a")
    log.append([reading_batch(1, value=0)], claim=claim, sequence=0)
    with open_reader(tmp_path) as reader:
        reader.tell(read_mark(LocalFileSystem(), tmp_path))
        assert values(reader.read("readings")) == [0]
        log.append([reading_batch(1, value=1)], claim=claim, sequence=1, positions={"a": b"x"})
        assert values(reader.read("readings")) == [0, 1]
        assert reader.end() == log.end()
        assert reader.positions() == {"a": b"x"}
        reader.tell(None)
        assert values(reader.read("readings")) == [0, 1]
    log.close()


def test_a_directory_of_other_things_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "demo" / "log").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not a log")
    with pytest.raises(LogError, match=r"expected the directory of a log, found none; a log appears when"):
        open_reader(tmp_path)
    open_log(tmp_path / "demo" / "log").close()
    open_reader(tmp_path / "demo" / "log").close()
