"""Backup and restore: what was durable at one moment, whole or refused, and never taken for the log that went on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.flows.settings import Aggregate, Late, WindowSettings
from ringmain.log import open_log, open_reader
from ringmain.log.backup import backup
from ringmain.log.backup_manifest import MANIFEST_NAME, BackupError, read_manifest
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import lsn_of
from ringmain.log.interface import (
    Batch,
    ConflictError,
    Frame,
    LogError,
    LogReader,
    Position,
    PositionGoneError,
)
from ringmain.log.journal import Journal
from ringmain.log.restore import check, restore
from ringmain.log.restored import RESTORED_NAME, iso, read_restored
from ringmain.log.verify import verify
from ringmain.model.schemas import SERIES
from ringmain.testing import FaultyFiles, SimulatedDisk
from tests.flows.real_log import Feed, emitted, feed_story, run_to_end, runner, undisturbed
from tests.log.batches import reading_batch, readings, values
from tests.promises import Fault, Part, promise

SEGMENT_BYTES = 30_000
FLOW = WindowSettings(
    to="readings.10s", window="10s", grace="5s", idle="30s", values=tuple(Aggregate), late=Late.REVISE
)


def catalogue(count: int) -> Batch:
    rows = [{"id": number, "key": f"s{number}"} for number in range(count)]
    return Batch("catalogue", pa.RecordBatch.from_pylist(rows, SERIES))


class Source:
    """A library producer with epoch 0: it numbers its appends, and numbers go on where it left off."""

    def __init__(self, log: Journal, name: str = "importer") -> None:
        self.log = log
        self.claim = log.claim(name, 0)
        self.sequence = -1 if self.claim.last_sequence is None else self.claim.last_sequence

    def append(self, count: int = 1) -> Position:
        """Append so many batches; the position of the last."""
        appended = None
        for _ in range(count):
            self.sequence += 1
            batches = [reading_batch(50, value=1000.0 * self.sequence)]
            if self.sequence == 0:
                batches.insert(0, catalogue(50))
            appended = self.log.append(batches, claim=self.claim, sequence=self.sequence)
        assert appended is not None
        assert appended.position is not None
        return appended.position


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "data", segment_bytes=SEGMENT_BYTES) as opened:
        yield opened


def contents(frames: Iterator[Frame]) -> list[tuple[object, ...]]:
    return [
        (
            one.stream,
            str(one.position),
            one.arrival_ns,
            one.producer,
            one.sequence,
            one.rows.serialize().to_pybytes(),
        )
        for one in frames
        if one.stream != "ledger"
    ]


def everything(reader: LogReader, until: Position | None = None) -> list[tuple[object, ...]]:
    names = ["catalogue", "readings", "events", "deadletters"]
    return contents(reader.read(names, until=until))


def lineage(log: Journal) -> list[tuple[int, str]]:
    return [(one.id, one.origin) for one in log._store.state.lineage]


def restored_entries(log: LogReader) -> list[dict[str, object]]:
    rows = log.ledger().drop_columns(["time"]).to_pylist()
    return [row for row in rows if "restored from the backup of" in row["reason"]]


# -- the backup ----------------------------------------------------------------------------------------------


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
        if (tmp_path / "backup/segments").is_dir() and any((tmp_path / "backup/segments").glob("*1-*.seg")):
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


# -- the restored log ----------------------------------------------------------------------------------------


@promise(
    Fault.RESTORED_BACKUP,
    Part.READERS,
    "A position within the backup goes on; one beyond it is refused with the reason: nobody takes new data under old positions.",
)
def test_positions_within_the_backup_go_on_and_those_beyond_it_are_refused_with_the_reason(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    within = source.append(30)
    source.append(10)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    beyond = source.append(10)
    restore(tmp_path / "backup", tmp_path / "again")
    with open_reader(tmp_path / "again") as reader:  # before any writer has opened it
        assert len(list(reader.read("readings", after=within))) == 10
        with pytest.raises(PositionGoneError, match="restored from the backup of 20"):
            reader.read("readings", after=beyond, follow=True)
        with open_log(tmp_path / "again") as again:
            new = Source(again).append(12)
            assert new.incarnation != beyond.incarnation
            for one in (again, reader):
                assert len(list(one.read("readings", after=within))) == 22
                with pytest.raises(PositionGoneError, match="restored from the backup of 20"):
                    one.read("readings", after=beyond)
            # a position of the old log that has the same number as one of the new
            twin = Position(beyond.incarnation, 0, new.offset)
            with pytest.raises(PositionGoneError):
                again.read("readings", after=twin)
    with pytest.raises(PositionGoneError, match="is not one of this log"):
        log.read("readings", after=new)


@promise(
    Fault.RESTORED_BACKUP,
    Part.POSITIONS,
    "They are those of the backup; a producer that sends again is recognised up to it and stored anew beyond it.",
)
def test_a_producer_with_epoch_0_that_sends_again_is_stored_once_up_to_the_backup_and_anew_beyond(
    tmp_path: Path, log: Journal
) -> None:
    source = Source(log)
    source.append(30)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    source.append(10)
    restore(tmp_path / "backup", tmp_path / "again")
    with open_log(tmp_path / "again") as again:
        claim = again.claim("importer", 0)
        assert claim.last_sequence == 29
        answers = [
            again.append([reading_batch(50, value=1000.0 * number)], claim=claim, sequence=number).duplicate
            for number in range(25, 40)
        ]
        assert answers == [True] * 5 + [False] * 10
        assert values(again.read("readings")) == values(log.read("readings"))


@promise(
    Fault.RESTORED_BACKUP,
    Part.JOURNAL,
    "It goes on as a new incarnation; the ledger says from when to when data may be missing.",
)
def test_the_lineage_and_the_ledger_say_what_the_restore_means_once(tmp_path: Path, log: Journal) -> None:
    Source(log).append(10)
    [(old, _)] = lineage(log)
    report = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    restored = restore(tmp_path / "backup", tmp_path / "again").restored
    assert restored is not None
    for _ in range(3):
        with open_log(tmp_path / "again") as again:
            assert lineage(again) == [(old, ""), (restored.incarnation, restored.origin)]
            [entry] = restored_entries(again)
        assert not (tmp_path / "again" / RESTORED_NAME).exists()
    assert (entry["kind"], entry["rows"], entry["bytes"]) == ("unknown", None, 0)
    assert (entry["from"], entry["to"]) == (iso(restored.backup_ns), iso(restored.restored_ns))
    assert f"behind position {report.manifest.end} is not here" in str(entry["reason"])
    assert verify(tmp_path / "again").problems == []


def test_a_box_restored_twice_is_two_boxes_to_whoever_receives_from_them(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(20)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    incarnations = []
    positions = []
    with open_log(tmp_path / "upstream") as upstream:
        for number, name in enumerate(("one", "two")):
            restore(tmp_path / "backup", tmp_path / name)
            with open_log(tmp_path / name) as box:
                sent = Source(box)
                positions.append(sent.append())
                incarnations.append(positions[-1].incarnation)
                link = upstream.claim("box", 0)
                assert link.last_sequence == (None if number == 0 else sent.sequence)
                body = [reading_batch(5, value=float(number))]
                if number == 0:
                    upstream.append(body, claim=link, sequence=sent.sequence)
                    continue
                # the same identity, another body: kept aside with an alarm, not taken for a repeat
                with pytest.raises(ConflictError):
                    upstream.append(body, claim=link, sequence=sent.sequence)
        assert [row["claim"] for frame in upstream.read("conflicts") for row in without_time(frame)] == [
            "box"
        ]
    assert len({*incarnations, lineage(log)[0][0]}) == 3
    assert positions[0].offset == positions[1].offset
    with open_reader(tmp_path / "one") as one, pytest.raises(PositionGoneError, match="not one of this log"):
        one.read("readings", after=positions[1])


def without_time(frame: Frame) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = frame.rows.drop_columns(["time"]).to_pylist()
    return rows


@promise(
    Fault.RESTORED_BACKUP,
    Part.SNAPSHOTS,
    "Flows go on from the snapshots of the backup and emit what a fold from zero emits.",
)
def test_a_flow_goes_on_after_a_restore_as_if_nothing_had_been(tmp_path: Path) -> None:
    data, again = tmp_path / "data", tmp_path / "again"
    with open_log(data, segment_bytes=SEGMENT_BYTES) as log:
        feed = Feed(log, 0)
        feed_story(feed, 5, 60)
        flow = runner(log, data, FLOW, often=True)
        flow.start()
        run_to_end(log, flow)
        assert list((data / "snapshots").iterdir())
        report = backup(data, tmp_path / "backup", paced=False)
        feed_story(feed, 7, 20)  # lost with the old machine
    assert any(file.path.startswith("snapshots/") for file in report.manifest.files)
    restore(tmp_path / "backup", again)
    with open_log(again) as log:
        feed_story(Feed(log, 0), 8, 60)
        flow = runner(log, again, FLOW)
        flow.start()
        run_to_end(log, flow)
        assert flow.committed is not None
        assert flow.committed.incarnation == lineage(log)[-1][0]
        assert repr(emitted(log, FLOW)) == repr(undisturbed(log, tmp_path / "from-zero", FLOW))


# -- what is damaged or unfinished ---------------------------------------------------------------------------


def test_every_damaged_file_of_a_backup_is_named_and_nothing_is_opened(tmp_path: Path, log: Journal) -> None:
    Source(log).append(20)
    report = backup(tmp_path / "data", tmp_path / "backup", paced=False)
    place = tmp_path / "backup"
    for number, stored in enumerate([MANIFEST_NAME, *(file.stored for file in report.manifest.files)]):
        sound = (place / stored).read_bytes()
        damaged = bytearray(sound)
        damaged[len(damaged) // 2] ^= 1
        for content in (bytes(damaged), sound[:-3], None):
            if content is None:
                (place / stored).unlink()
            else:
                (place / stored).write_bytes(content)
            again = tmp_path / f"again-{number}"
            with pytest.raises(BackupError, match=Path(stored).name):
                check(place)
            with pytest.raises(BackupError, match=Path(stored).name):
                restore(place, again)
            if stored != MANIFEST_NAME:
                with pytest.raises(LogError, match="was not finished"):
                    open_log(again)
            (place / stored).write_bytes(sound)
    check(place)


def test_a_manifest_cannot_make_a_restore_write_elsewhere(tmp_path: Path, log: Journal) -> None:
    import hashlib

    Source(log).append(5)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    path = tmp_path / "backup" / MANIFEST_NAME
    manifest = json.loads(path.read_bytes())["manifest"]
    for name in ("../escaped", "/escaped", "snapshots/../../escaped", ".hidden", "a/b"):
        manifest["files"][0]["path"] = name
        body = json.dumps(manifest)
        digest = hashlib.sha256(body.encode()).hexdigest()
        path.write_text(f'{{"sha256": "{digest}", "manifest": {body}}}')
        with pytest.raises(BackupError, match="expected names of a log's files"):
            restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "escaped").exists()


def test_a_directory_that_holds_anything_is_not_restored_into(tmp_path: Path, log: Journal) -> None:
    Source(log).append(5)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    with pytest.raises(BackupError, match="expected an empty directory or none, found"):
        restore(tmp_path / "backup", tmp_path / "data")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "notes.txt").write_text("mine")
    with pytest.raises(BackupError, match=r"found 'notes\.txt'"):
        restore(tmp_path / "backup", tmp_path / "again")
    assert (tmp_path / "again" / "notes.txt").read_text() == "mine"
    (tmp_path / "again" / "notes.txt").unlink()
    (tmp_path / "again" / "lost+found").mkdir()
    restore(tmp_path / "backup", tmp_path / "again")


def test_a_disk_that_is_full_ends_a_restore_in_words_and_it_can_be_run_again(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(40)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    files = FaultyFiles()
    files.space_bytes = SEGMENT_BYTES
    with pytest.raises(BackupError, match="a part of a log and is not opened"):
        restore(tmp_path / "backup", tmp_path / "again", fs=files)
    for opening in (open_log, open_reader):
        with pytest.raises(LogError, match="a restore into this directory was not finished"):
            opening(tmp_path / "again")
    restore(tmp_path / "backup", tmp_path / "again")
    with open_log(tmp_path / "again") as again:
        assert values(again.read("readings")) == values(log.read("readings"))


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


def cut_after(disk: SimulatedDisk, calls: int) -> None:
    """Let the machine go off at the call with that number."""
    left = calls

    def count(name: str, path: Path | None) -> None:
        nonlocal left
        del name, path
        if left == 0:
            disk.off = True
        left -= 1

    disk.before_call = count


def test_the_power_may_go_at_any_moment_of_a_restore(tmp_path: Path, log: Journal) -> None:
    Source(log).append(15)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    place = Path("/again")
    counting = SimulatedDisk(seed=2)
    restore(tmp_path / "backup", place, fs=counting)
    calls = sum(counting.calls.values())
    finished = 0
    for at in range(0, calls, 4):
        disk = SimulatedDisk(seed=at)
        cut_after(disk, at)
        with pytest.raises((LogError, OSError)):
            restore(tmp_path / "backup", place, fs=disk)
        found = disk.after_power_cut()
        if place / RESTORED_NAME not in found.contents():
            assert not [path for path in found.contents() if path.suffix == ".seg"], (
                "a part of a log, unmarked"
            )
            continue
        restored = read_restored(found, place)
        if restored is None or not restored.finished:
            with pytest.raises(LogError, match="was not finished"):
                open_log(place, fs=found)
            restore(tmp_path / "backup", place, fs=found)
        finished += 1
        with open_log(place, fs=found) as again:
            assert values(again.read("readings")) == values(log.read("readings"))
            assert len(lineage(again)) == 2
    assert finished


def test_the_power_may_go_at_any_moment_of_the_first_opening_and_the_incarnation_is_the_same(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(10)
    [(old, _)] = lineage(log)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    beyond = Source(log).append(3)
    place = Path("/again")
    whole = SimulatedDisk(seed=3)
    restored = restore(tmp_path / "backup", place, fs=whole).restored
    assert restored is not None
    counting = whole.copy()
    open_log(place, fs=counting).close()
    for at in range(sum(counting.calls.values()) - sum(whole.calls.values())):
        for cut in (0, 1):
            disk = whole.copy()
            cut_after(disk, at)
            try:
                open_log(place, fs=disk).close()
            except (LogError, OSError):
                disk.off = True
            found = disk.kill() if cut == 0 else disk.after_power_cut()
            with open_log(place, fs=found) as again:
                assert lineage(again) == [(old, ""), (restored.incarnation, restored.origin)]
                assert len(restored_entries(again)) == 1
                assert again._store.state.lineage[0].last_lsn < lsn_of(beyond.offset)
                new = Source(again).append(5)
                assert new.incarnation == restored.incarnation
                with pytest.raises(PositionGoneError):
                    again.read("readings", after=beyond)
            assert verify(place, fs=found).problems == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ringmain.log.backup import backup
from ringmain.log.restore import restore
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
        timeout=100,
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


@promise(
    Fault.RESTORED_BACKUP,
    Part.JOURNAL,
    "A directory that was copied by hand and put back cannot be told from the log itself: use `ringmain log restore`.",
)
def test_a_copy_of_the_whole_directory_put_back_cannot_be_told_from_the_log_itself(tmp_path: Path) -> None:
    """Documented in docs/backup.md: only `restore` begins a new incarnation."""
    with open_log(tmp_path / "data") as log:
        Source(log).append(5)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    with open_log(tmp_path / "data") as log, open_log(tmp_path / "copy") as copy:
        assert Source(log).append() == Source(copy).append()


def test_a_note_of_a_restore_that_is_damaged_is_refused_rather_than_forgotten(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(5)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    restore(tmp_path / "backup", tmp_path / "again")
    note = tmp_path / "again" / RESTORED_NAME
    for content in (b"", b"rubbish", note.read_bytes().replace(b"true", b"frue")):
        note.write_bytes(content)
        with pytest.raises(LogError, match="restore the backup again, into an empty directory"):
            open_log(tmp_path / "again")


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


def test_rows_of_readings_are_equal_bit_for_bit_after_a_restore(tmp_path: Path, log: Journal) -> None:
    claim = log.claim("a", 0)
    odd = readings(4, value=0.1).set_column(
        2, "value", pa.array([float("nan"), float("-inf"), -0.0, 5e-324], pa.float64())
    )
    log.append([catalogue(4), Batch("readings", odd)], claim=claim, sequence=0)
    backup(tmp_path / "data", tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    with open_reader(tmp_path / "again") as reader:
        [frame] = reader.read("readings")
        [original] = log.read("readings")
        assert frame.rows.serialize() == original.rows.serialize()
