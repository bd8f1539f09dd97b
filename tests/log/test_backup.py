"""Backup: everything that was durable at one moment, whole or not there at all, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.backup.backup import backup
from ringmain.log.backup.manifest import MANIFEST_NAME, BackupError, read_manifest
from ringmain.log.backup.restore import check, restore
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import (
    LogError,
    Position,
)
from ringmain.log.journal import Journal
from ringmain.testing import FaultyFiles, SimulatedDisk
from tests.log.backed_up import (
    SEGMENT_BYTES,
    Source,
    cut_after,
    everything,
)
from tests.promises import Fault, Part, promise


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "data", segment_bytes=SEGMENT_BYTES) as opened:
        yield opened


@promise(
    Fault.RESTORED_BACKUP,
    Part.CATALOGUE,
    "The series are those of one moment, with their ids, and every stored reading has its own.",
)
def test_a_backup_beside_a_writer_is_the_log_as_it_was_durable_at_one_moment(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(60)
    before = log.end()
    assert before is not None
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            source.append()

    writing = threading.Thread(target=go_on)
    writing.start()
    try:
        report = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    finally:
        stop.set()
        writing.join()
    end = Position.parse(report.manifest.end)
    assert end.offset >= before.offset
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert restored.verified is not None
    assert restored.verified.problems == []
    with open_reader(tmp_path / "again") as reader:
        assert reader.end() == end
        assert everything(reader) == everything(log, end)
        found = {state.stream.name: state.rows for state in reader.streams()}
        assert found == report.manifest.rows
        assert found["readings"] == 50 * (len(list(log.read("readings", until=end))))


def test_a_second_backup_copies_only_what_is_not_there_and_stays_the_only_one(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(60)
    first = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    sealed = sorted((tmp_path / "backup" / "segments").glob("*.seg"))[:-1]
    assert len(sealed) >= 3
    inodes = [path.stat().st_ino for path in sealed]
    source.append(40)
    second = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    assert [path.stat().st_ino for path in sealed] == inodes
    assert second.kept_segments == len(sealed)
    assert 0 < second.copied_bytes < second.kept_bytes + first.copied_bytes
    stored = {f"{one.parent.name}/{one.name}" for one in (tmp_path / "backup").glob("*/*")}
    assert stored == {file.stored for file in second.manifest.all_files()}, "nothing of the first one is left"
    third = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    assert third.copied_segments == 0
    restore(tmp_path / "backup", tmp_path / "again")
    with open_reader(tmp_path / "again") as reader:
        assert everything(reader) == everything(log)


def test_retention_that_takes_a_segment_meanwhile_moves_the_moment_and_is_told(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(60)
    files = FaultyFiles()
    removed: list[int] = []

    def retain() -> None:
        if any((tmp_path / "backup/segments").glob("*.seg")):
            files.before("open", None)
            removed.append(log.retain(size_bytes=SEGMENT_BYTES))

    files.before("open", retain, ".seg")
    report = backup(tmp_path / "data", tmp_path / "backup", paced=False, fs=files)
    assert removed[0] > 1
    assert any("retention removed segments" in note for note in report.manifest.notes)
    restore(tmp_path / "backup", tmp_path / "again")
    with open_reader(tmp_path / "again") as reader:
        assert everything(reader) == everything(log)
        assert reader.ledger().num_rows == log.ledger().num_rows


def test_a_full_target_is_told_keeps_the_earlier_backup_and_is_gone_on_with(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(20)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    whole = read_manifest(LocalFileSystem(), tmp_path / "backup")
    source.append(60)
    files = FaultyFiles()
    files.space_bytes = 2 * SEGMENT_BYTES
    with pytest.raises(BackupError, match=r"no space for the backup .* earlier backup there is still whole"):
        backup(tmp_path / "data", tmp_path / "backup", paced=False, target_fs=files)
    assert check(tmp_path / "backup").manifest == whole
    report = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    assert report.kept_segments >= 3, "what the full disk had taken is not copied again"
    assert check(tmp_path / "backup").manifest.generation == whole.generation + 1


def test_a_target_that_does_not_give_back_what_was_written_is_refused(tmp_path: Path, log: Journal) -> None:
    Source(log).append(20)
    files = FaultyFiles(seed=1)
    files.flip_some_reads(1.0)
    with pytest.raises(BackupError, match=r"what was read back is not what was written"):
        backup(tmp_path / "data", tmp_path / "backup", paced=False, target_fs=files)
    assert not (tmp_path / "backup" / MANIFEST_NAME).exists()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_target_that_fails_at_any_call_leaves_the_earlier_backup_whole(
    tmp_path: Path, log: Journal, error: int
) -> None:
    source = Source(log)
    source.append(10)
    place = Path("/backup")
    first = SimulatedDisk(seed=4)
    backup(tmp_path / "data", place, paced=False, target_fs=first)
    source.append(10)
    told: list[str] = []
    for call in ("create", "write", "sync", "rename", "sync_directory"):
        for nth in range(0, 12, 3):
            disk = first.copy()
            disk.fail(call, error, nth=nth)
            try:
                backup(tmp_path / "data", place, paced=False, target_fs=disk)
            except BackupError as refused:
                told.append(str(refused))
            disk.heal()
            check(place, fs=disk)
    assert len(told) > 10
    assert all("an earlier backup there is still whole" in one for one in told)


def test_damage_in_the_log_is_copied_as_it_is_and_told(tmp_path: Path, log: Journal) -> None:
    Source(log).append(40)
    segment = sorted((tmp_path / "data").glob("*.seg"))[0]
    with segment.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * 8)
    files = FaultyFiles()
    files.bad_blocks.add((sorted((tmp_path / "data").glob("*.seg"))[1].name, 3))
    report = backup(tmp_path / "data", tmp_path / "backup", paced=False, fs=files)
    assert [problem.partition(",")[0] for problem in report.problems] == ["segment 1", "segment 2"]
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert restored.verified is not None
    assert restored.verified.problems
    with open_reader(tmp_path / "again") as reader:
        assert len(list(reader.read("readings"))) == 40 - 1 - 3, "one group, and the three of a bad block"


def test_a_target_never_gives_up_the_backup_of_a_log_that_is_another_or_an_older_one(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(20)
    backup(tmp_path / "data", tmp_path / "older", paced=False)
    source.append(5)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    restore(tmp_path / "older", tmp_path / "diverged")
    with open_log(tmp_path / "diverged") as diverged:
        Source(diverged).append(30)
    with open_log(tmp_path / "other") as other:
        Source(other).append(100)
    for wrong in ("diverged", "other"):
        with pytest.raises(BackupError, match="does not continue: it is another one, or an older copy"):
            backup(tmp_path / wrong, tmp_path / "backup", paced=False)
    check(tmp_path / "backup")
    # what was restored from a backup goes on with it
    restore(tmp_path / "backup", tmp_path / "again")
    with open_log(tmp_path / "again") as again:
        Source(again).append(5)
        report = backup(tmp_path / "again", tmp_path / "backup", paced=False)
        assert report.manifest.generation == 2


def test_places_that_are_no_log_or_no_place_for_a_backup_are_refused(tmp_path: Path, log: Journal) -> None:
    Source(log).append(1)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "holiday.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    refusals = {
        ("data", "data/backup"): "outside of the log's own",
        ("data", "occupied"): "expected an empty directory or an earlier backup, found 'holiday.jpg'",
        ("empty", "backup"): "expected the directory of a log",
    }
    for (source, target), message in refusals.items():
        with pytest.raises(BackupError, match=message):
            backup(tmp_path / source, tmp_path / target)
    with pytest.raises(BackupError, match=r"no manifest\.json"):
        restore(tmp_path / "empty", tmp_path / "again")


def test_another_backup_into_the_same_place_at_the_same_time_is_refused(tmp_path: Path, log: Journal) -> None:
    Source(log).append(5)
    files = FaultyFiles()
    refused: list[str] = []

    def again() -> None:
        files.before("sync", None)
        with pytest.raises(BackupError) as error:
            backup(tmp_path / "data", tmp_path / "backup", paced=False)
        refused.append(str(error.value))

    files.before("sync", again)
    backup(tmp_path / "data", tmp_path / "backup", paced=False, target_fs=files)
    assert "another backup into this directory is under way" in refused[0]


def test_the_power_may_go_at_any_moment_of_a_backup(tmp_path: Path, log: Journal) -> None:
    source = Source(log)
    source.append(15)
    target = Path("/backup")
    first = SimulatedDisk(seed=1)
    backup(tmp_path / "data", target, paced=False, target_fs=first)
    source.append(15)
    counting = first.copy()
    backup(tmp_path / "data", target, paced=False, target_fs=counting)
    calls = sum(counting.calls.values())
    generations = set()
    for at in range(0, calls, 5):
        disk, told = first.copy(), 1
        cut_after(disk, at)
        with contextlib.suppress(BackupError, OSError):
            backup(tmp_path / "data", target, paced=False, target_fs=disk)
            told = 2
        found = disk.after_power_cut()
        generation = check(target, fs=found).manifest.generation
        assert generation >= told, "what was told to be complete is there after a power cut"
        generations.add(generation)
        backup(tmp_path / "data", target, paced=False, target_fs=found)
        assert check(target, fs=found).manifest.generation == generation + 1
    assert generations == {1, 2}, "cuts before and behind the manifest"


KILLED = """
import os, signal, sys
from pathlib import Path
from ringmain.log.backup.backup import backup
from ringmain.log.backup.restore import restore
from ringmain.testing import FaultyFiles

class Killed(FaultyFiles):
    def pwritev(self, handle, buffers, offset):
        if self.calls["write"] == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pwritev(handle, buffers, offset)

source, target = Path(sys.argv[2]), Path(sys.argv[3])
if sys.argv[1] == "backup":
    backup(source, target, paced=False, target_fs=Killed())
else:
    restore(source, target, fs=Killed())
"""


def killed(*arguments: object) -> int:
    running = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=280,
        check=False,
    )
    return running.returncode


def test_kill_9_in_the_middle_of_a_backup_and_of_a_restore(tmp_path: Path, log: Journal) -> None:
    source = Source(log)
    source.append(60)
    data, place, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    assert killed("backup", data, place, 4) == -signal.SIGKILL
    assert not (place / MANIFEST_NAME).exists()
    with pytest.raises(BackupError, match="a backup that was interrupted has none"):
        restore(place, again)
    first = backup(data, place, paced=False)
    assert first.kept_segments, "segments that were complete are not copied again"
    source.append(40)
    assert killed("backup", data, place, 4) == -signal.SIGKILL
    assert check(place).manifest == first.manifest, "the earlier backup is whole"
    assert killed("restore", place, again, 5) == -signal.SIGKILL
    with pytest.raises(LogError, match="was not finished"):
        open_log(again)
    restore(place, again)
    with open_log(again) as reopened:
        assert everything(reopened) == everything(log, Position.parse(first.manifest.end))


def test_a_backup_at_any_moment_of_a_history_holds_what_was_acknowledged_and_a_prefix_of_what_came(
    tmp_path: Path,
) -> None:
    place = Path("/data")
    chance = random.Random(20261123)
    disk = SimulatedDisk(seed=9)
    moments = sorted(chance.sample(range(100, 700), 25))
    taken: list[tuple[int, SimulatedDisk]] = []
    acknowledged = 0

    def look(name: str, path: Path | None) -> None:
        nonlocal moments
        del name, path
        if moments and sum(disk.calls.values()) >= moments[0]:
            moments = moments[1:]
            taken.append((acknowledged, disk.copy()))

    disk.before_call = look
    with open_log(place, fs=disk, segment_bytes=8_000) as log:
        source = Source(log)
        while moments:
            source.append()
            acknowledged += 1
            if chance.random() < 0.1:
                log.retain(size_bytes=30_000)
        whole = {str(frame.position): frame.rows for frame in log.read("readings")}
        last = log.end()
    assert last is not None
    for number, (least, found) in enumerate(taken):
        target = Path(f"/backup-{number}")
        backup(place, target, paced=False, fs=found, target_fs=found)
        restored = Path(f"/again-{number}")
        report = restore(target, restored, fs=found, backup_fs=found)
        assert report.verified is not None
        assert report.verified.problems == []
        with open_log(restored, fs=found) as again:
            claim = again.claim("importer", 0)
            assert claim.last_sequence is not None
            assert least - 1 <= claim.last_sequence
            frames = list(again.read("readings"))
            assert frames[-1].sequence == claim.last_sequence, "the position and the data are of one moment"
            for frame in frames:
                kept = whole.get(str(frame.position))
                assert kept is None or kept.equals(frame.rows)
