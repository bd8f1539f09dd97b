"""Retention where it is needed most: on a full disk, beside damage, beside readers, for years."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.checkpoints import STATE, Checkpoints
from ringmain.log.control import ControlState
from ringmain.log.interface import Log, LogError, LogFailedError, LogFullError, PositionGoneError
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX, LedgerEntry, ledger_batch
from ringmain.model.catalogue import SeriesAttributes
from ringmain.testing import FaultyFiles, SimulatedDisk
from tests.log.batches import reading_batch, wait_until
from tests.promises import Fault, Part, promise

HERE = Path("log")


@promise(Fault.DISK_FULL, Part.SNAPSHOTS, "Retention needs no new checkpoint to free the disk.")
def test_a_full_disk_is_emptied_by_retention_without_a_byte_to_write(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files, segment_bytes=8192) as log:
        registry = SeriesRegistry(log)
        registry.register("s", "meter/1", SeriesAttributes(unit="W"))
        registry.save()
        claim = log.claim("a")
        for number in range(40):
            log.append([reading_batch(50, value=number)], claim=claim, sequence=number)
        assert log.retain(size_bytes=200_000) == 0
        log.retain(size_bytes=40_000)
        for number in range(40, 60):
            log.append([reading_batch(50, value=number)], claim=claim, sequence=number)
        log.create_stream(
            "other", 3, pa.schema([("x", pa.int64())])
        )  # what runs beside is done when it returns
        files.space_bytes = 0
        with pytest.raises(LogFullError):
            log.append([reading_batch(50)], claim=claim, sequence=60)
        before = len(list(tmp_path.glob("*.seg")))
        assert log.retain(size_bytes=20_000) > 0
        assert len(list(tmp_path.glob("*.seg"))) < before
        files.heal()
        log.append([reading_batch(50, value=60)], claim=claim, sequence=60)
        assert [frame.sequence for frame in log.read("readings")][-1] == 60
    with open_log(tmp_path) as log:
        assert log.catalogue().id_of("meter/1") == 0
        assert [frame.sequence for frame in log.read("readings")][-1] == 60


def test_the_catalogue_is_not_written_again_for_segments_without_series(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files, segment_bytes=8192) as log:
        registry = SeriesRegistry(log)
        registry.register("s", "meter/1", SeriesAttributes(unit="W"))
        registry.save()
        claim = log.claim("a")
        for number in range(60):
            log.append([reading_batch(50, value=number)], claim=claim, sequence=number)
            log.retain(size_bytes=30_000)
    written = {line for line in files.trail if line.startswith("rename catalogue-")}
    assert len(written) <= 3


def test_a_damaged_checkpoint_does_not_count_as_one_of_the_two_kept(tmp_path: Path) -> None:
    files = FaultyFiles()
    checkpoints = Checkpoints(files, tmp_path)
    checkpoints.write(STATE, 5, 1, b"first")
    checkpoints.write(STATE, 6, 1, b"second")
    newest = max(tmp_path.glob("state-*.ckp"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"X")
    again = Checkpoints(files, tmp_path)
    assert [one.lsn for one in again.load(STATE)] == [5]
    again.write(STATE, 7, 1, b"third")
    assert again.safe_lsn(STATE) == 5
    assert [one.lsn for one in Checkpoints(files, tmp_path).load(STATE)] == [7, 5]


def test_what_goes_is_in_the_ledger_before_the_first_file_goes(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, fs=files, segment_bytes=4096)
    claim = log.claim("a")
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    told: list[int] = []

    def look() -> None:
        with open_reader(tmp_path) as reader:
            told.append(sum(reader.ledger().column("rows").to_pylist()))

    files.before("remove", look, ".seg")
    files.before("rename", look, ".tmp")
    assert log.retain(size_bytes=0) == len(told) > 1
    gone = 20 * 40 - sum(frame.row_count for frame in log.read("readings"))
    assert told == [gone] * len(told)
    log.close()


def test_a_removal_that_no_checkpoint_could_prove_is_not_told_as_a_loss() -> None:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=4096)
    claim = log.claim("a")
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    log.create_stream("other", 3, pa.schema([("x", pa.int64())]))  # what runs beside is done when it returns
    disk.fail("rename", suffix=".ckp")
    assert log.retain(size_bytes=20_000) > 1
    disk.off = True
    log.close()
    for _ in range(40):
        with open_log(HERE, fs=disk.after_power_cut()) as after:
            assert set(after.ledger().column("kind").to_pylist()) == {"evicted"}
            _closes(after)


def test_segments_whose_removal_was_interrupted_are_counted_once() -> None:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=4096)
    claim = log.claim("a", epoch=0)
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    log.create_stream("other", 3, pa.schema([("x", pa.int64())]))
    disk.fail("rename", suffix=".ckp")
    disk.fail("remove", suffix=".seg")
    log.retain(size_bytes=20_000)
    disk.off = True
    log.close()
    files = disk.contents()
    del files[HERE / "durable"]
    with open_log(HERE, fs=SimulatedDisk(files)) as log:
        for number in range(20, 30):
            log.append([reading_batch(40)], claim=log.claim("a", epoch=0), sequence=number)
        assert log.retain(size_bytes=0) > 3
        _closes(log)


def _closes(log: Log) -> None:
    """Every row ever appended is readable or in the ledger."""
    readable = sum(frame.row_count for frame in log.read("readings"))
    told = sum(
        row["rows"]
        for row in log.ledger().select(["stream", "rows"]).to_pylist()
        if row["stream"] == "readings"
    )
    appended = next(state.rows for state in log.streams() if state.stream.name == "readings")
    assert appended == readable + told


def test_a_disk_that_cannot_be_read_removes_nothing_and_says_so_as_the_log_does(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files, segment_bytes=4096) as log:
        claim = log.claim("a")
        for number in range(20):
            log.append([reading_batch(40)], claim=claim, sequence=number)
        files.fail("open", suffix=".seg")
        with pytest.raises(LogFailedError, match="none is removed"):
            log.retain(size_bytes=0)
        files.heal()
        assert log.retain(size_bytes=0) > 3
        _closes(log)


def test_closing_waits_for_a_removal_under_way(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, fs=files, segment_bytes=4096)
    claim = log.claim("a")
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    reached, go = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go.wait(20)

    files.before("remove", hold, ".seg")
    retaining = threading.Thread(target=lambda: log.retain(size_bytes=0))
    retaining.start()
    assert reached.wait(20)
    closing = threading.Thread(target=log.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive(), "another writer may open the directory once this returns"
    go.set()
    closing.join(20)
    retaining.join(20)
    assert not closing.is_alive()
    with pytest.raises(LogError):
        log.retain(size_bytes=0)
    with open_log(tmp_path) as log:
        assert set(log.ledger().column("kind").to_pylist()) == {"evicted"}


def test_a_slow_reader_of_another_process_is_told_of_frames_removed_across_a_reopening(
    tmp_path: Path,
) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    claim = log.claim("a", epoch=0)
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number)
    reader = open_reader(tmp_path)
    frames = reader.read("readings", follow=True, timeout_s=20)
    assert next(frames).sequence == 0
    log.retain(size_bytes=0)
    log.close()
    files = FaultyFiles()
    files.fail("create", nth=0, suffix=".seg")  # a gap in the numbers of segments: readers start over
    with open_log(tmp_path, fs=files, segment_bytes=4096) as log:
        claim = log.claim("a", epoch=0)
        log.append([reading_batch(40)], claim=claim, sequence=20)
        reader.streams()
        with pytest.raises(PositionGoneError):
            list(zip(range(30), frames, strict=False))
    reader.close()


def test_a_long_lived_reader_forgets_removed_segments_and_finds_among_the_kept(tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=4096) as log, open_reader(tmp_path) as reader:
        claim = log.claim("a")
        for number in range(20):
            log.append([reading_batch(40)], claim=claim, sequence=number)
            reader.streams()
        first = next(log.read("readings"))
        log.retain(size_bytes=0)
        wait_until(lambda: reader.find("readings", first.arrival_ns) is None)
        assert log.find("readings", first.arrival_ns) is None
        assert len(reader._store.segments) == len(list(tmp_path.glob("*.seg")))


def _evicted(number: int, stream: str) -> LedgerEntry:
    return LedgerEntry(
        "evicted", stream, None, f"{number}", f"{number + 1}", 10, 2, "removed by retention", 7
    )


def test_the_ledger_of_removals_does_not_grow_without_end() -> None:
    state = ControlState()
    cut = LedgerEntry("cut", None, None, "x", "y", 1, None, "torn", 5)
    state.apply_ledger(ledger_batch([cut]), 0)
    total = 3 * LEDGER_ENTRIES_MAX
    for number in range(total // 2):
        state.apply_ledger(ledger_batch([_evicted(number, "a"), _evicted(number, "b")]), number + 1)
    assert len(state.ledger) <= LEDGER_ENTRIES_MAX
    assert cut in state.ledger
    for stream in ("a", "b"):
        entries = [entry for entry in state.ledger if entry.stream == stream]
        assert sum(entry.bytes for entry in entries) == total // 2 * 10
        assert sum(entry.rows or 0 for entry in entries) == total
        assert entries[0].start == "0"
        assert entries[-1].end == f"{total // 2}"
        assert all(one.end == other.start for one, other in itertools.pairwise(entries))


class _Clock:
    def __init__(self, wall_ns: int) -> None:
        self.wall = wall_ns
        self.elapsed = 0

    def pass_time(self, ns: int) -> None:
        self.wall += ns
        self.elapsed += ns

    def wall_ns(self) -> int:
        return self.wall

    def elapsed_ns(self) -> int:
        return self.elapsed


@promise(
    Fault.CLOCK_STEP,
    Part.JOURNAL,
    "A clock that jumps makes nothing old: retention by age removes nothing for it.",
)
def test_a_clock_that_jumps_makes_nothing_old(tmp_path: Path) -> None:
    hour, year = 3600 * 10**9, 365 * 86400 * 10**9
    clock = _Clock(100)
    with open_log(tmp_path, clock=clock, segment_bytes=4096) as log:
        claim = log.claim("a")
        for number in range(10):
            clock.pass_time(10**9)
            log.append([reading_batch(40)], claim=claim, sequence=number)
        walls = (56 * year, 68 * year, 56 * year + hour)
        for number, wall in enumerate(walls, 10):  # learns the date, is led astray, comes back
            clock.wall = wall
            assert log.retain(age_ns=hour) == 0
            log.append([reading_batch(40)], claim=claim, sequence=number)
            assert log.retain(age_ns=hour) == 0
        clock.pass_time(2 * hour)
        assert log.retain(age_ns=hour) > 0
