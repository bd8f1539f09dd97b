"""`verify` names every kind of corruption with its place, and finds nothing where there is nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from ringmain.cli.log_verify import verify_and_print
from ringmain.cli.main import main
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.log import Journal, open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.check.scan import Form, can_compile
from ringmain.log.check.verify import Remedy, VerifyReport, verify
from ringmain.log.checkpoints import (
    CATALOGUE,
    STATE,
    Checkpoints,
    encode_catalogue,
    encode_state,
    restore_state,
)
from ringmain.log.codec import IDS_HEADER_BYTES, Codec
from ringmain.log.control import ControlState
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import (
    FRAME,
    GROUP,
    GROUP_HEADER_BYTES,
    SEGMENT,
    SEGMENT_HEADER_BYTES,
    header_body_crc,
)
from ringmain.log.index import Sidecar
from ringmain.log.interface import Batch, Claim, LogError, Position, StreamKind
from ringmain.log.recovery import read_mark
from ringmain.log.segments import StoredGroup, walk
from ringmain.model.catalogue import Catalogue, SeriesAttributes
from tests.log.batches import NOTE, notes, readings

SERIES = 8
FIRST, SECOND, THIRD = "0000000001.seg", "0000000002.seg", "0000000003.seg"
needs_loop = pytest.mark.skipif(not can_compile(), reason="no compiled loop on this machine")
FORMS = [Form.WALK, Form.CHAINED, pytest.param(Form.COMPILED, marks=needs_loop)]
each_way = pytest.mark.parametrize("form", FORMS)


def _fill(directory: Path) -> None:
    """A log of two openings and several segments with series, positions, a stream of its own and a snapshot."""
    for opening in range(2):
        with open_log(directory, segment_bytes=12_000) as log:
            registry = SeriesRegistry(log)
            for number in range(SERIES):
                registry.register("field", f"m/{number}", SeriesAttributes(unit="W", device="m"))
            registry.save()
            log.create_stream("notes", StreamKind.ROW, NOTE)
            claims = [log.claim("one", epoch=opening + 1), log.claim("two", epoch=0)]
            for number in range(24):
                claim = claims[number % 2]
                rows = readings(SERIES - number % 2, start=number)
                log.append(
                    [Batch("readings", rows), Batch("notes", notes("a", None))],
                    claim=claim,
                    sequence=100 * opening + number,
                    positions={claim.name: b"%d" % number, f"{claim.name}/x": None if number % 3 else b"x"},
                )
    saved = Saved(Position(1, 0, 1), 0, 0, 0, (), (), [{"sum": np.arange(8.0), "names": b"[]"}])
    Snapshots(LocalFileSystem(), directory / "snapshots", "minute").save("definition", saved)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("verify") / "log"
    _fill(directory)
    return directory


@pytest.fixture
def log_directory(made: Path, tmp_path: Path) -> Path:
    """A copy of that log, to damage."""
    copy = tmp_path / "log"
    shutil.copytree(made, copy)
    return copy


def _flip(path: Path, at: int, bits: int = 4) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= bits
    path.write_bytes(raw)


def _groups(path: Path) -> list[StoredGroup]:
    handle = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        found = list(walk(LocalFileSystem(), handle, SEGMENT_HEADER_BYTES, size))
    finally:
        os.close(handle)
    return [one for one in found if isinstance(one, StoredGroup)]


def _data_group(path: Path) -> StoredGroup:
    """A group in the middle of the segment with rows of readings and notes."""
    chosen = [group for group in _groups(path) if len(group.frames) == 3]
    return chosen[len(chosen) // 2]


def _lines(report: VerifyReport) -> list[str]:
    return [str(problem) for problem in report.problems]


# -- a sound log -------------------------------------------------------------------------------------------------


@each_way
def test_a_sound_log_has_no_problem_and_its_rows_are_counted(made: Path, form: Form) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(made, lambda done, whole: seen.append((done, whole)), form=form)
    assert _lines(report) == []
    assert report.notes == []
    assert report.rows["readings"] == 2 * (12 * SERIES + 12 * (SERIES - 1))
    assert report.rows["notes"] == 96
    assert report.segments == len(list(made.glob("*.seg"))) > 3
    assert seen[-1] == (report.bytes, report.bytes)


def test_nothing_is_written(made: Path) -> None:
    def contents() -> dict[str, tuple[int, int]]:
        found = {}
        for path in made.rglob("*"):
            status = path.stat()
            found[str(path)] = status.st_size, status.st_mtime_ns
        return found

    before = contents()
    verify(made)
    assert contents() == before


def test_an_empty_or_missing_directory_is_no_log(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LogError, match="expected the directory of a log, found no segment"):
            verify(directory)


def test_an_open_log_is_sound(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append([Batch("notes", notes("x"))], claim=_claimed(log), sequence=1)
        report = verify(tmp_path)
    assert _lines(report) == []
    assert report.rows == {"notes": 1}


def _claimed(log: Journal) -> Claim:
    log.create_stream("notes", StreamKind.ROW, NOTE)
    return log.claim("a")


# -- damaged bytes -----------------------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("part", ["group header", "frame header", "ids", "body"])
def test_damage_of_a_group_is_named_with_bytes_lsn_streams_and_rows(
    log_directory: Path, part: str, form: Form
) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    bodies = group.at + GROUP_HEADER_BYTES + 96 * len(group.frames)
    at = {
        "group header": group.at + 33,
        "frame header": group.at + GROUP_HEADER_BYTES + 50,
        "ids": bodies + 10,
        "body": bodies + group.frames[0].length - 20,
    }[part]
    _flip(path, at)
    report = verify(log_directory, form=form)
    (problem,) = report.problems
    assert problem.where == "segment 2"
    assert (problem.start, problem.end) == (group.at, group.end)
    assert (problem.first_lsn, problem.last_lsn) == (group.header.lsn, group.header.lsn)
    assert problem.rows == {"readings": group.frames[0].rows, "notes": 2}
    assert problem.reason == ("body CRC" if part in ("ids", "body") else "group header CRC")
    assert problem.remedy == Remedy.RESTORE
    assert not problem.known
    assert any("not compared" in note for note in report.notes)


@each_way
def test_a_length_that_is_damaged_hides_no_other_group(log_directory: Path, form: Form) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    _flip(path, group.at + 8, 0xFF)
    (problem,) = verify(log_directory, form=form).problems
    assert (problem.start, problem.end) == (group.at, group.end)
    assert problem.rows == {"readings": group.frames[0].rows, "notes": 2}


def test_rows_of_illegible_damage_without_an_index_are_known_from_the_counts(log_directory: Path) -> None:
    group = _data_group(log_directory / SECOND)
    _flip(log_directory / SECOND, group.at + 20)
    (log_directory / "0000000002.idx").unlink()
    report = verify(log_directory)
    assert {"readings": group.frames[0].rows} in [problem.rows for problem in report.problems]
    assert {"notes": 2} in [problem.rows for problem in report.problems]
    assert any("segment 2 has no index" in note for note in report.notes)


def test_damage_that_is_in_the_ledger_is_told_as_known(log_directory: Path) -> None:
    group = _data_group(log_directory / THIRD)
    _flip(log_directory / THIRD, group.at + 200)
    for path in log_directory.glob("*.ckp"):
        path.unlink()  # so that opening reads every segment
    open_log(log_directory).close()
    problems = verify(log_directory).problems
    assert [(problem.place, problem.known) for problem in problems] == [
        (f"segment 3, bytes {group.at} to {group.end}", True)
    ]
    assert str(problems[0]).endswith("(in the ledger)")


@each_way
def test_a_flipped_bit_anywhere_in_a_segment_is_found(log_directory: Path, form: Form) -> None:
    path = log_directory / SECOND
    raw = path.read_bytes()
    size = _groups(path)[-1].end
    for at in range(0, size, 211):
        _flip(path, at, 1 << at % 8)
        assert not verify(log_directory, form=form).sound, at
        path.write_bytes(raw)


def _newest(directory: Path, pattern: str) -> Path:
    return max(directory.glob(pattern))


@pytest.mark.parametrize(
    ("pattern", "at", "where"),
    [
        (FIRST, 40, "segment 1"),
        (THIRD, 3, "segment 3"),
        ("0000000001.idx", 40, "index 0000000001.idx"),
        ("0000000001.idx", 100, "index 0000000001.idx"),
        ("state-*.ckp", 20, "checkpoint state-"),
        ("state-*.ckp", 300, "checkpoint state-"),
        ("catalogue-*.ckp", 200, "checkpoint catalogue-"),
        ("snapshots/*.snapshot", 9, "snapshot flow-minute-"),
        ("snapshots/*.snapshot", 100, "snapshot flow-minute-"),
        ("snapshots/*.snapshot", 2, "snapshot flow-minute-"),
    ],
)
def test_a_flipped_bit_in_any_other_structure_is_found_and_named(
    log_directory: Path, pattern: str, at: int, where: str
) -> None:
    _flip(_newest(log_directory, pattern), at)
    report = verify(log_directory)
    assert [problem.where.startswith(where) for problem in report.problems] == [True], _lines(report)
    assert report.problems[0].remedy.value


def test_files_that_are_cut_short_are_found(log_directory: Path) -> None:
    for name, where in (
        ("0000000001.idx", "index"),
        (_newest(log_directory, "state-*.ckp").name, "checkpoint"),
        ("snapshots/" + _newest(log_directory, "snapshots/*").name, "snapshot"),
    ):
        path = log_directory / name
        raw = path.read_bytes()
        path.write_bytes(raw[:-1])
        assert [problem.where.split()[0] for problem in verify(log_directory).problems] == [where]
        path.write_bytes(raw)
    path = log_directory / SECOND
    end = _groups(path)[-1].end
    path.write_bytes(path.read_bytes()[: end - 100])
    problems = verify(log_directory).problems
    assert any(f"the file ends at byte {end - 100}" in problem.reason for problem in problems)
    assert any(problem.reason == "group is cut short" for problem in problems)


def test_a_segment_that_is_gone_is_found(log_directory: Path) -> None:
    (log_directory / SECOND).unlink()
    problems = verify(log_directory).problems
    assert any(problem.where == "segment 2" and "file is missing" in problem.reason for problem in problems)


# -- sums that are right, contents that are not ------------------------------------------------------------------


def _reseal(raw: bytearray, at: int, size: int) -> None:
    struct.pack_into("<I", raw, at + 12, 0)
    struct.pack_into("<I", raw, at + 12, crc32c(bytes(raw[at : at + size])))


def _rewrite_group(path: Path, group: StoredGroup, **changed: int) -> None:
    """Change fields of a group's header, its CRC made right."""
    raw = bytearray(path.read_bytes())
    GROUP.pack_into(raw, group.at, *group.header._replace(**changed))
    _reseal(raw, group.at, GROUP_HEADER_BYTES + 96 * len(group.frames))
    path.write_bytes(raw)


def _rewrite_frame(path: Path, group: StoredGroup, number: int, **changed: int) -> None:
    raw = bytearray(path.read_bytes())
    FRAME.pack_into(
        raw, group.at + GROUP_HEADER_BYTES + 96 * number, *group.frames[number]._replace(**changed)
    )
    _reseal(raw, group.at, GROUP_HEADER_BYTES + 96 * len(group.frames))
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arrival_ns": 5}, "arrival time: expected at least"),
        ({"durable_lsn": 10_000}, "durable lsn: expected"),
    ],
)
def test_groups_out_of_order_are_found(log_directory: Path, changed: dict[str, int], reason: str) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    _rewrite_group(path, group, **changed)
    report = verify(log_directory)
    assert any(
        problem.reason.startswith(reason) and problem.first_lsn == group.header.lsn
        for problem in report.problems
    ), _lines(report)


def test_an_lsn_that_is_left_out_is_found(log_directory: Path) -> None:
    path = log_directory / SECOND
    group = _groups(path)[-1]
    _rewrite_group(path, group, lsn=group.header.lsn + 1)
    assert any("behind the group before" in line for line in _lines(verify(log_directory)))


def test_a_frame_count_that_jumps_is_found_with_the_rows_that_miss(log_directory: Path) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    _rewrite_frame(path, group, 0, cumulative_rows=group.frames[0].cumulative_rows + 7)
    report = verify(log_directory)
    assert any(problem.rows == {"readings": 7} for problem in report.problems)
    assert any("falls by 7" in problem.reason for problem in report.problems)


def test_a_series_beyond_the_catalogue_is_found(log_directory: Path) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    _rewrite_frame(path, group, 0, catalogue_position=3)
    report = verify(log_directory)
    assert [problem.where for problem in report.problems] == ["catalogue"]
    assert "series up to" in report.problems[0].reason


def test_a_stream_that_nobody_defined_is_found(log_directory: Path) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    _rewrite_frame(path, group, 1, stream=99)
    assert any("stream 99 is not defined" in line for line in _lines(verify(log_directory)))


def test_an_identity_that_comes_twice_is_found(log_directory: Path) -> None:
    path = log_directory / SECOND
    group = _data_group(path)
    raw = bytearray(path.read_bytes())
    body_at = group.at + GROUP_HEADER_BYTES + 96 * len(group.frames)
    for number, frame in enumerate(group.frames):
        changed = frame._replace(sequence=0)
        body = bytes(raw[body_at : body_at + frame.length])
        checked = body
        if frame.codec == Codec.IDS_AND_ARROW:
            checked = body[IDS_HEADER_BYTES + (4 * frame.rows + 7) // 8 * 8 :]
        changed = changed._replace(body_crc=header_body_crc(changed, checked))
        FRAME.pack_into(raw, group.at + GROUP_HEADER_BYTES + 96 * number, *changed)
        body_at += frame.length
    _reseal(raw, group.at, GROUP_HEADER_BYTES + 96 * len(group.frames))
    path.write_bytes(raw)
    assert any("expected a sequence above that of lsn" in line for line in _lines(verify(log_directory)))


@pytest.mark.parametrize("field", ["previous_end", "previous_offset", "first_lsn"])
def test_a_segment_header_that_does_not_fit_the_chain_is_found(log_directory: Path, field: str) -> None:
    path = log_directory / THIRD
    raw = bytearray(path.read_bytes())
    names = ("magic", "version", "flags", "crc", "incarnation", "first_lsn", "number")
    fields = dict(
        zip(
            (*names, "previous_number", "previous_end", "previous_offset", "created"),
            SEGMENT.unpack_from(raw),
            strict=True,
        )
    )
    if field == "previous_end":
        fields[field] = _groups(log_directory / SECOND)[-2].end
    else:
        fields[field] -= 1 << 16 if field == "previous_offset" else 1
    SEGMENT.pack_into(raw, 0, *fields.values())
    _reseal(raw, 0, SEGMENT_HEADER_BYTES)
    path.write_bytes(raw)
    assert not verify(log_directory).sound


def test_an_index_that_differs_from_the_frames_is_found(log_directory: Path) -> None:
    path = log_directory / "0000000002.idx"
    fs = LocalFileSystem()
    sidecar = Sidecar.read(fs, path, 2)
    assert sidecar is not None
    changed = sidecar.entries.copy()
    changed["rows"][3] += 1
    replace(sidecar, entries=changed).write(fs, path)
    assert _lines(verify(log_directory)) == ["index 0000000002.idx: its entries differ from the frames"]
    replace(sidecar, entries=sidecar.entries[:-1]).write(fs, path)
    assert "frames, found" in _lines(verify(log_directory))[0]


def _change_position(state: ControlState) -> None:
    state.positions["one"] = b"77"


def _forget_position(state: ControlState) -> None:
    del state.positions["two"]


def _change_producer(state: ControlState) -> None:
    state.producers["one"].sequence += 1


def _change_count(state: ControlState) -> None:
    state.streams["readings"].counts.rows += 1


def _change_lineage(state: ControlState) -> None:
    state.lineage[0].id += 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_change_position, "position 'one': expected b'22', found b'77'"),
        (_forget_position, "position 'two' is missing"),
        (_change_producer, "producer 'one': expected"),
        (_change_count, "stream 'readings': expected"),
        (_change_lineage, "comes from no frame"),
    ],
)
def test_a_checkpoint_that_differs_from_the_frames_is_found(
    log_directory: Path, change: Callable[[ControlState], None], named: str
) -> None:
    checkpoints = Checkpoints(LocalFileSystem(), log_directory)
    (checkpoint, *_) = checkpoints.load(STATE)
    restored = restore_state(checkpoint)
    assert restored is not None
    state, end_offset, end_incarnation = restored
    change(state)
    body = encode_state(state, end_offset, end_incarnation)
    checkpoints.write(STATE, checkpoint.lsn, checkpoint.incarnation, body)
    report = verify(log_directory)
    assert any(
        problem.where.startswith("checkpoint state-") and named in problem.reason
        for problem in report.problems
    ), _lines(report)


def test_a_catalogue_checkpoint_with_other_keys_is_found(log_directory: Path) -> None:
    checkpoints = Checkpoints(LocalFileSystem(), log_directory)
    (checkpoint, *_) = checkpoints.load(CATALOGUE)
    other = Catalogue()
    for number in range(SERIES):
        other.add(f"other/{number}", "field", SeriesAttributes())
    body = encode_catalogue(other)
    checkpoints.write(CATALOGUE, checkpoint.lsn, checkpoint.incarnation, body)
    report = verify(log_directory)
    assert not report.sound
    assert any("catalogue" in problem.where for problem in report.problems)


def test_a_mark_that_names_another_place_is_found(log_directory: Path) -> None:
    mark = read_mark(LocalFileSystem(), log_directory)
    assert mark is not None
    (log_directory / "durable").write_bytes(replace(mark, end=mark.end + 8).pack())
    (problem,) = verify(log_directory).problems
    assert problem.where == "mark durable"


def test_a_mark_that_is_damaged_or_missing_is_a_note(log_directory: Path) -> None:
    """It is not synced: a power cut may leave it so, and nothing is lost with it."""
    _flip(log_directory / "durable", 30)
    report = verify(log_directory)
    assert report.sound
    assert any("mark of durability (durable) is damaged" in note for note in report.notes)
    (log_directory / "durable").unlink()
    report = verify(log_directory)
    assert report.sound
    assert any("mark of durability (durable) is missing" in note for note in report.notes)


def test_a_torn_tail_that_nobody_was_promised_is_a_note(log_directory: Path) -> None:
    path = _newest(log_directory, "*.seg")
    with path.open("ab") as file:
        file.write(b"RGRP" + os.urandom(200))
    report = verify(log_directory)
    assert report.sound, _lines(report)
    assert any("torn tail" in note for note in report.notes)


# -- beside a writer ---------------------------------------------------------------------------------------------


def test_a_log_that_grows_and_loses_old_segments_is_sound_at_every_look(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=64 << 10)
    registry = SeriesRegistry(log)
    for number in range(50):
        registry.register("field", f"m/{number}", SeriesAttributes())
    registry.save()
    claim = log.claim("a")
    enough = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            sequence = 0
            while not enough.is_set():
                for _ in range(40):
                    sequence += 1
                    batch = Batch("readings", readings(50, start=sequence))
                    log.append([batch], claim=claim, sequence=sequence, positions={"a": b"%d" % sequence})
                log.retain(size_bytes=600 << 10)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    removed = False
    try:
        looks = 0
        while looks < 12 or not removed:
            report = verify(tmp_path)
            assert _lines(report) == []
            looks += 1
            removed = removed or not (tmp_path / FIRST).exists()
    finally:
        enough.set()
        writer.join()
        log.close()
    assert failed == []
    report = verify(tmp_path)
    assert _lines(report) == []
    assert not any("not compared" in note for note in report.notes)


# -- the command -------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong_and_what_to_do_and_its_status_tells(
    log_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def status_of(data: Path, *arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["ringmain", "log", "verify", str(data), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert status_of(log_directory) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.endswith("sound\n")
    _flip(log_directory / SECOND, _data_group(log_directory / SECOND).at + 300)
    assert status_of(log_directory) == 1
    errors = capfd.readouterr().err
    assert "problem: segment 2, bytes " in errors
    assert "remedy: " in errors
    assert status_of(log_directory, "--json") == 1
    as_json = json.loads(capfd.readouterr().out)
    assert as_json["sound"] is False
    assert as_json["problems"][0]["rows"]["notes"] == 2
    assert status_of(tmp_path / "absent") == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_the_directory_may_be_given_by_place_by_option_or_not_at_all(
    log_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(log_directory.parent)
    (log_directory.parent / "data").symlink_to(log_directory)
    here = str(log_directory)
    for arguments, status in (
        ([here], 0),
        (["--data", here], 0),
        ([here, "--data", here], 0),
        ([], 0),
        ([here, "--data", "elsewhere"], 1),
        (["elsewhere"], 2),
    ):
        monkeypatch.setattr("sys.argv", ["ringmain", "log", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status, arguments
    assert "expected one directory" in capfd.readouterr().err


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    log_directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ringmain.cli.log_verify.LINE_INTERVAL_S", 0.0)
    assert verify_and_print(log_directory, as_json=False) == 0
    assert "100 % of" in capfd.readouterr().err
    terminal, behind = os.openpty()
    with os.fdopen(behind, "w") as standard_error:
        monkeypatch.setattr("sys.stderr", standard_error)
        assert verify_and_print(log_directory, as_json=False) == 0
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and everything is read
        while part := os.read(terminal, 65_536):
            shown += part
    assert b"100%" in shown
    os.close(terminal)
