"""Segments that were written with zeros beforehand: used, given back, and never mistaken for damage or the reverse."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader, prepare
from ringmain.log.check.verify import verify
from ringmain.log.frames import SEGMENT_PREPARED, Mark, lsn_of, read_segment_header
from ringmain.log.interface import Log
from ringmain.log.journal import Journal
from ringmain.log.prepare import PREPARED_NAME, AppendRate
from ringmain.log.segments import segment_path
from ringmain.testing import SimulatedDisk
from tests.log.batches import reading_batch
from tests.log.deterministic import settle, tasks_of, without_chance
from tests.promises import Fault, Part, promise

HERE = Path("log")
SEGMENT_BYTES = 64 << 10
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _without_chance() -> Iterator[None]:
    with without_chance(1):
        yield


def _append(log: Log, count: int, first: int = 0) -> None:
    claim = log.claim("a", epoch=0)
    for number in range(first, first + count):
        log.append([reading_batch(20, value=number)], claim=claim, sequence=number)


def _prepared(disk: SimulatedDisk, appends: int = 6) -> Journal:
    """A log whose active segment was prepared and has so many appends."""
    log = open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=0)
    settle(log)
    tasks_of(log).pump()
    assert len(disk.contents()[HERE / PREPARED_NAME]) == SEGMENT_BYTES
    _append(log, appends)
    assert HERE / PREPARED_NAME not in disk.contents()
    return log


def _active(disk: SimulatedDisk) -> tuple[Path, bytes]:
    path = max(path for path in disk.contents() if path.suffix == ".seg")
    return path, disk.contents()[path]


def _kinds(log: Log) -> list[str]:
    return log.ledger().column("kind").to_pylist()


def test_a_prepared_segment_takes_over_with_its_whole_length_and_says_so_in_its_header() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    _, raw = _active(disk)
    header = read_segment_header(raw)
    assert len(raw) == SEGMENT_BYTES
    assert header is not None
    assert header.flags == SEGMENT_PREPARED
    log.close()
    assert [path.name for path in disk.contents() if path.suffix == ".tmp"] == []


def test_a_commit_to_a_prepared_segment_changes_neither_its_length_nor_a_name() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    before = disk.calls.copy()
    _append(log, 1, first=6)
    settle(log)
    assert len(_active(disk)[1]) == SEGMENT_BYTES
    assert {name: disk.calls[name] - before[name] for name in ("create", "rename", "sync_directory")} == {
        "create": 0,
        "rename": 0,
        "sync_directory": 0,
    }
    log.close()


@pytest.mark.parametrize("ending", ["close", "kill", "cut"])
def test_zeros_behind_the_last_group_are_no_damage_and_no_cut_tail(ending: str) -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    after = disk
    if ending == "close":
        log.close()
    else:
        after = disk.kill() if ending == "kill" else disk.cut_power()
        log.close()
    with open_reader(HERE, fs=after) as reader:
        # the mark is not synced: without it the newest group is proven only when the log is opened for writing
        assert [frame.sequence for frame in reader.read("readings")] in (list(range(5)), list(range(6)))
    report = verify(HERE, fs=after)
    assert [one for one in report.problems if one.where != "catalogue"] == []
    assert not any("torn" in note or "damage" in note for note in report.notes)
    with open_log(HERE, fs=after, segment_bytes=SEGMENT_BYTES) as again:
        assert _kinds(again) == []
        assert [frame.sequence for frame in again.read("readings")] == list(range(6))
        _append(again, 2, first=6)
        assert [frame.sequence for frame in again.read("readings")] == list(range(8))
    with open_reader(HERE, fs=after) as reader:
        assert [frame.sequence for frame in reader.read("readings")] == list(range(8))


def _ends(disk: SimulatedDisk) -> tuple[Path, bytes, Mark]:
    path, raw = _active(disk)
    mark = Mark.unpack(disk.contents()[HERE / "durable"])
    assert mark is not None
    return path, raw, mark


def test_zeros_where_something_was_known_durable_are_damage() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    path, raw, mark = _ends(disk)
    last = log.end()
    files = disk.contents()
    disk.off = True
    log.close()
    assert last is not None
    half = mark.end - 200  # the middle of the last group: the rest of it, which the mark names, became zeros
    lost = SimulatedDisk({**files, path: raw[:half] + bytes(len(raw) - half)})
    with open_log(HERE, fs=lost, segment_bytes=SEGMENT_BYTES) as again:
        assert "quarantined" in _kinds(again)
        assert [frame.sequence for frame in again.read("readings")] == list(range(5))
        _append(again, 1, first=6)
        assert lsn_of(again.end().offset) > lsn_of(last.offset)  # type: ignore[union-attr]


def test_a_whole_group_that_the_mark_names_and_that_became_zeros_is_damage_too() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    settle(log)
    before = _ends(disk)[2].end
    _append(log, 1, first=6)
    path, raw, mark = _ends(disk)
    files = disk.contents()
    disk.off = True
    log.close()
    lost = SimulatedDisk({**files, path: raw[:before] + bytes(len(raw) - before)})
    with open_log(HERE, fs=lost, segment_bytes=SEGMENT_BYTES) as again:
        assert _kinds(again) == ["quarantined"]
        assert f"bytes {before} to {mark.end}" in again.ledger().column("reason")[0].as_py()
        assert [frame.sequence for frame in again.read("readings")] == list(range(6))


@promise(
    Fault.POWER_CUT,
    Part.JOURNAL,
    "A segment that was written with zeros beforehand holds what was acknowledged from its first append on.",
)
def test_what_was_acknowledged_in_a_prepared_segment_survives_power_cuts_from_its_first_append_on() -> None:
    for appends in (1, 2, 6):
        disk = SimulatedDisk(seed=appends)
        log = _prepared(disk, appends)
        found = [disk.after_power_cut(random.Random(seed)) for seed in range(20)]
        disk.off = True
        log.close()
        for after in found:
            with open_log(HERE, fs=after, segment_bytes=SEGMENT_BYTES) as again:
                assert [frame.sequence for frame in again.read("readings")] == list(range(appends))
                assert set(_kinds(again)) <= {"cut"}


def test_a_torn_tail_in_a_prepared_segment_is_cut_with_its_bytes_and_not_the_zeros_behind_it() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk)
    path, raw, mark = _ends(disk)
    files = disk.contents()
    disk.off = True
    log.close()
    torn = raw[: mark.end] + raw[64:400] + bytes(len(raw) - mark.end - 336)
    left = SimulatedDisk({**files, path: torn})
    with open_log(HERE, fs=left, segment_bytes=SEGMENT_BYTES) as again:
        assert _kinds(again) == ["cut"]
        assert 0 < again.ledger().column("bytes")[0].as_py() <= 336
        assert [frame.sequence for frame in again.read("readings")] == list(range(6))


def test_zeros_behind_the_last_group_of_a_segment_that_was_not_prepared_are_a_torn_tail() -> None:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=None)
    _append(log, 4)
    path, raw = _active(disk)
    files = disk.contents()
    disk.off = True
    log.close()
    left = SimulatedDisk({**files, path: raw + bytes(512)})
    with open_log(HERE, fs=left, segment_bytes=SEGMENT_BYTES) as again:
        assert _kinds(again) == ["cut"]


@pytest.mark.parametrize("number", range(1, 4))
def test_a_damaged_header_behind_a_prepared_segment_makes_its_zeros_no_damage(number: int) -> None:
    disk = SimulatedDisk()
    log = _prepared(disk, appends=80 * number)
    tasks_of(log).pump()
    _append(log, 200, first=80 * number)
    tasks_of(log).pump()
    files = {path: data for path, data in disk.contents().items() if path.suffix == ".seg"}
    disk.off = True
    log.close()
    last = max(files)
    damaged = bytes([files[last][0] ^ 1]) + files[last][1:]
    with open_log(HERE, fs=SimulatedDisk({**files, last: damaged}), segment_bytes=SEGMENT_BYTES) as again:
        sequences = [frame.sequence for frame in again.read("readings")]
        assert sequences == list(range(80 * number + 200))
        assert set(_kinds(again)) <= {"cut"}


def test_a_small_log_prepares_nothing() -> None:
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk) as log:
        _append(log, 20)
        settle(log)
        assert tasks_of(log).waiting == 0
        assert HERE / PREPARED_NAME not in disk.contents()


def test_a_log_that_was_written_to_before_prepares_a_segment_as_soon_as_it_is_opened() -> None:
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=16 << 10) as log:
        _append(log, 60)
        settle(log)
        before = _active(disk)[1]
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=len(before)) as log:
        settle(log)
        tasks_of(log).pump()
        _append(log, 1, first=60)
        assert len(_active(disk)[1]) == SEGMENT_BYTES
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=1 << 20) as log:
        settle(log)
        tasks_of(log).pump()
        assert HERE / PREPARED_NAME not in disk.contents()


def test_a_log_that_is_written_as_fast_as_it_goes_prepares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MEASURED_BYTES", 4 << 10)
    monkeypatch.setattr(prepare, "_FAST_BYTES_PER_S", 1)
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=16 << 10) as log:
        _append(log, 60)
        settle(log)
        assert len(_active(disk)[1]) > 16 << 10
        assert tasks_of(log).waiting == 0
        assert HERE / PREPARED_NAME not in disk.contents()
        monkeypatch.setattr(prepare, "_FAST_BYTES_PER_S", 1 << 60)
        _append(log, 1, first=60)
        settle(log)
        assert tasks_of(log).waiting == 1


def test_appends_are_fast_while_they_come_as_fast_and_not_once_they_pause() -> None:
    now_s = 100.0
    rate = AppendRate(lambda: now_s)
    for _ in range(15):
        assert not rate.is_fast, "less than 8 MiB tell nothing"
        rate.add(MIB // 2)
        now_s += 0.01
    rate.add(MIB // 2)
    assert rate.is_fast
    now_s += 0.24
    assert rate.is_fast
    now_s += 0.02
    assert not rate.is_fast, "8 MiB more would be there if it went on"
    for _ in range(16):
        rate.add(MIB // 2)
        now_s += 0.02
    assert not rate.is_fast, "25 MiB a second"
    rate.add(200 * MIB)
    assert rate.is_fast


def test_where_space_is_short_nothing_is_prepared_and_appends_go_on() -> None:
    disk = SimulatedDisk(capacity_bytes=3 * SEGMENT_BYTES)
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=0) as log:
        settle(log)
        tasks_of(log).pump()
        _append(log, 10)
        assert HERE / PREPARED_NAME not in disk.contents()
        assert [frame.sequence for frame in log.read("readings")] == list(range(10))


@pytest.mark.parametrize("call", ["create", "write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_preparation_that_fails_leaves_nothing_and_hurts_nobody(call: str, error: int) -> None:
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=0) as log:
        settle(log)
        disk.fail(call, error, suffix=".tmp")
        tasks_of(log).pump(1)
        assert HERE / PREPARED_NAME not in disk.contents()
        _append(log, 10)
        assert tasks_of(log).waiting == 0, "it is not tried again at each commit"
        assert [frame.sequence for frame in log.read("readings")] == list(range(10))


@pytest.mark.parametrize("call", ["write", "sync", "rename", "sync_directory"])
def test_a_prepared_segment_that_cannot_be_taken_fails_the_append_and_the_next_one_is_stored(
    call: str,
) -> None:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=0)
    claim = log.claim("a", epoch=0)
    settle(log)
    tasks_of(log).pump()
    suffix = {"write": ".tmp", "sync": ".tmp", "rename": ".seg", "sync_directory": ""}[call]
    disk.fail(call, nth=0, suffix=suffix)
    with pytest.raises(Exception, match="nothing of the append is stored"):
        log.append([reading_batch(5)], claim=claim, sequence=0)
    assert HERE / PREPARED_NAME not in disk.contents()
    assert not log.append([reading_batch(5)], claim=claim, sequence=0).duplicate
    log.close()
    with open_log(HERE, fs=disk) as again:
        assert [frame.sequence for frame in again.read("readings")] == [0]
        assert _kinds(again) == []


def test_what_a_crash_left_of_a_preparation_is_removed_at_the_next_opening() -> None:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=0)
    settle(log)
    tasks_of(log).pump()
    after = disk.kill()
    log.close()
    assert HERE / PREPARED_NAME in after.contents()
    with open_log(HERE, fs=after, segment_bytes=SEGMENT_BYTES, prepare_after_bytes=None):
        assert HERE / PREPARED_NAME not in after.contents()


def test_a_log_that_was_closed_holds_no_space_for_zeros_on_a_real_disk(tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=1 << 20, prepare_after_bytes=0) as log:
        settle(log)
        tasks_of(log).pump()
        _append(log, 3)
    path = max(tmp_path.glob("*.seg"))
    about = path.stat()
    assert about.st_size == 1 << 20
    kept = about.st_blocks * 512
    if kept == about.st_size:
        pytest.skip("this file system has no holes")
    assert kept <= 16 << 10
    with open_reader(tmp_path) as reader:
        assert [frame.sequence for frame in reader.read("readings")] == [0, 1, 2]
    assert [one for one in verify(tmp_path).problems if one.where != "catalogue"] == []


def test_the_zeros_of_a_log_that_was_killed_are_given_back_at_the_next_opening(tmp_path: Path) -> None:
    log = open_log(tmp_path / "killed", segment_bytes=1 << 20, prepare_after_bytes=0)
    settle(log)
    tasks_of(log).pump()
    _append(log, 3)
    (tmp_path / "left").mkdir()
    for path in (tmp_path / "killed").iterdir():
        if path.suffix == ".seg":
            (tmp_path / "left" / path.name).write_bytes(path.read_bytes())
    log.close()
    last = max((tmp_path / "left").glob("*.seg"))
    before = last.stat().st_blocks * 512
    with open_log(tmp_path / "left", prepare_after_bytes=None) as again:
        assert [frame.sequence for frame in again.read("readings")] == [0, 1, 2]
    assert last.stat().st_size == 1 << 20
    if before >= 1 << 20 and os.uname().sysname == "Linux":
        assert last.stat().st_blocks * 512 <= max(before // 2, 16 << 10)


def test_retention_counts_what_segments_hold_and_not_their_zeros() -> None:
    disk = SimulatedDisk()
    log = _prepared(disk, appends=3)
    settle(log)
    assert len(disk.contents()[segment_path(HERE, 2)]) == SEGMENT_BYTES
    assert log.retain(size_bytes=SEGMENT_BYTES // 2) == 0
    log.close()
