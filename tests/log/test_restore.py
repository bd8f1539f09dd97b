"""Restore: a sound backup or nothing, and never taken for the log that went on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.flows.aggregates import BASIC
from ringmain.flows.settings import Late, WindowSettings
from ringmain.log import open_log, open_reader
from ringmain.log.backup.backup import backup
from ringmain.log.backup.manifest import MANIFEST_NAME, BackupError
from ringmain.log.backup.restore import check, restore
from ringmain.log.backup.restored import RESTORED_NAME, read_restored
from ringmain.log.check.verify import verify
from ringmain.log.interface import (
    Batch,
    ConflictError,
    Frame,
    LogError,
    Position,
    PositionGoneError,
)
from ringmain.log.journal import Journal
from ringmain.log.ledger.accountant import Accountant
from ringmain.log.ledger.entries import instant_text
from ringmain.testing import FaultyFiles, SimulatedDisk
from tests.flows.real_log import Feed, emitted, feed_story, run_to_end, runner, undisturbed
from tests.log.backed_up import (
    SEGMENT_BYTES,
    Source,
    catalogue,
    cut_after,
    lineage,
    restored_entries,
)
from tests.log.batches import reading_batch, readings, values
from tests.promises import Fault, Part, promise

FLOW = WindowSettings(to="readings.10s", window="10s", grace="5s", idle="30s", values=BASIC, late=Late.REVISE)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "data", segment_bytes=SEGMENT_BYTES) as opened:
        yield opened


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
    assert (entry["from"], entry["to"]) == (
        instant_text(restored.backup_ns),
        instant_text(restored.restored_ns),
    )
    assert f"behind position {report.manifest.end} is not here" in str(entry["reason"])
    assert verify(tmp_path / "again").problems == []


@promise(
    Fault.CLONED_BOX,
    Part.JOURNAL,
    "A backup restored twice is two boxes to whoever receives from them: two incarnations, and a conflict where one sends "
    "what the other sent.",
)
def test_the_account_of_every_source_closes_and_shows_what_nobody_can_count(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(10)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    Source(log).append(10)
    restored = restore(tmp_path / "backup", tmp_path / "again").restored
    assert restored is not None
    with open_log(tmp_path / "again") as again:
        Source(again).append(3)
        Source(again, "another").append(3)
        accountant = Accountant(again)
        accountant.advance()
        assert accountant.closes
        accounts = accountant.accounts()
    assert [one.source for one in accounts] == ["another", "importer"]
    for one in accounts:
        [unknown] = one.unknown
        assert unknown.reason.startswith(restored.origin)
        assert (unknown.from_ns, unknown.to_ns) == (restored.backup_ns, restored.restored_ns)


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
