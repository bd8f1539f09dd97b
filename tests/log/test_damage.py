"""Damage is found, told and passed by; it never becomes a wrong value and never keeps a log from opening."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from crc32c import crc32c

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import CATALOGUE_ID
from ringmain.log.check.verify import verify
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import (
    FLAG_OPENING,
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    SEGMENT_HEADER_BYTES,
    NewerFormatError,
    lsn_of,
    read_frame_headers,
    read_group_header,
)
from ringmain.log.interface import Batch, Frame, Position, PositionGoneError, StreamKind
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX
from ringmain.log.recovery import read_mark
from ringmain.testing import SimulatedDisk
from tests.log.batches import NOTE, notes, reading_batch, values
from tests.promises import Fault, Part, promise

JOURNAL_BYTES = 8192
SEGMENT = "0000000001.seg"


def _fill(directory: Path, *, clean: bool = True, fs: SimulatedDisk | None = None) -> dict[Position, Frame]:
    """A journal of about 8 KiB with readings, notes, positions and duplicates; returns its frames.

    Not `clean`: it stays in memory as a kill would leave it.
    """
    log = open_log(directory, fs=fs)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("a", epoch=0)
    size = number = 0
    while size < JOURNAL_BYTES - 1400:
        appended = log.append(
            [reading_batch(4, start=number, value=number), Batch("notes", notes(f"note {number}"))],
            claim=claim,
            sequence=number,
            positions={"a": b"%d" % number},
        )
        assert appended.position is not None
        size = read_mark(fs or LocalFileSystem(), directory).end
        number += 1
    frames = {frame.position: frame for frame in log.read(["readings", "notes"])}
    if clean:
        log.close()
    return frames


def _killed(directory: Path) -> dict[Position, Frame]:
    """As `_fill`, on disk, as a kill leaves it: without the closing group, checkpoints and mark."""
    memory = SimulatedDisk()
    frames = _fill(directory, clean=False, fs=memory)
    directory.mkdir()
    (directory / SEGMENT).write_bytes(memory.contents()[directory / SEGMENT])
    return frames


def _groups(raw: bytes) -> list[tuple[int, int]]:
    found, at = [], SEGMENT_HEADER_BYTES
    while at < len(raw):
        header = read_group_header(raw, at)
        assert header is not None
        assert read_frame_headers(raw, header, at) is not None
        found.append((at, at + header.length))
        at += header.length
    return found


def _check(
    files: dict[Path, bytes], directory: Path, frames: dict[Position, Frame], hit: int, writing: bool
) -> None:
    """Open it: every frame equals the original, and only those of the groups that were hit are missing."""
    fs = SimulatedDisk(files)
    log = open_log(directory, fs=fs) if writing else open_reader(directory, fs=fs)
    with log:
        seen = {frame.position: frame for frame in log.read(["readings", "notes"])}
        for position, frame in seen.items():
            original = frames[position]
            assert frame.rows.equals(original.rows)
            assert frame.sequence == original.sequence
            assert frame.arrival_ns == original.arrival_ns
            assert frame.cumulative_rows == original.cumulative_rows
        assert len(frames) - len(seen) <= 2 * hit


@promise(Fault.BIT_FLIP, Part.READERS, "They pass by what is damaged, and never show a wrong value.")
@promise(
    Fault.BIT_FLIP,
    Part.JOURNAL,
    "Any byte: the group that it hits is missing, every other is as it was, and no value is ever wrong.",
)
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.timeout(600)
def test_one_damaged_byte_anywhere_is_never_a_wrong_value(
    clean: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    directory = Path("log")
    memory = SimulatedDisk()
    frames = _fill(directory, clean=clean, fs=memory)
    files = memory.contents()
    raw = files[directory / SEGMENT]
    assert JOURNAL_BYTES - 2000 < len(raw) <= JOURNAL_BYTES
    rng = np.random.default_rng(3)
    for at in range(0, len(raw), 1 if clean else 7):
        damaged = bytearray(raw)
        damaged[at] ^= int(rng.integers(1, 256))
        files[directory / SEGMENT] = bytes(damaged)
        _check(files, directory, frames, 1, writing=at % 4 == at // 4 % 4)


@promise(Fault.BIT_FLIP, Part.SNAPSHOTS, "Any byte of a checkpoint, an index or the mark: nothing is lost.")
def test_one_damaged_byte_in_another_file_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    directory = Path("log")
    memory = SimulatedDisk()
    frames = _fill(directory, fs=memory)
    open_log(directory, fs=memory).close()
    files = memory.contents()
    rng = np.random.default_rng(4)
    others = [path for path in files if path.suffix != ".seg"]
    assert {path.suffix for path in others} == {"", ".ckp", ".idx"}
    for path in others:
        raw = files[path]
        for at in range(0, len(raw), 1 if len(raw) < 200 else 31):
            damaged = bytearray(raw)
            damaged[at] ^= int(rng.integers(1, 256))
            _check({**files, path: bytes(damaged)}, directory, frames, 0, writing=at % 2 == 0)


def test_a_changed_byte_that_only_the_header_crc_covers_is_damage(tmp_path: Path) -> None:
    frames = _fill(tmp_path)
    path = tmp_path / SEGMENT
    raw = bytearray(path.read_bytes())
    start, _ = _groups(bytes(raw))[5]
    arrival = start + GROUP_HEADER_BYTES + 72  # the origin arrival of its first frame
    raw[arrival] ^= 1
    path.write_bytes(raw)
    for opening in (open_reader, open_log):
        with opening(tmp_path) as log:
            seen = list(log.read(["readings", "notes"]))
            assert len(frames) - len(seen) == 2
            for frame in seen:
                assert frame.origin_arrival_ns == frames[frame.position].origin_arrival_ns


@promise(
    Fault.BIT_FLIP, Part.JOURNAL, "The group is quarantined with a ledger entry: stream, range, rows, reason."
)
def test_damage_of_something_durable_is_quarantined_with_a_ledger_entry(tmp_path: Path) -> None:
    _fill(tmp_path)
    path = tmp_path / SEGMENT
    raw = bytearray(path.read_bytes())
    start, end = _groups(bytes(raw))[5]
    raw[end - 20] ^= 1
    path.write_bytes(raw)
    for _ in range(3):
        log = open_log(tmp_path)
        list(log.read(["readings", "notes"]))
        log.close()
    log = open_log(tmp_path)
    ledger = log.ledger()
    assert ledger.column("kind").to_pylist() == ["quarantined", "quarantined"]
    assert ledger.column("stream").to_pylist() == ["readings", "notes"]
    assert ledger.column("rows").to_pylist() == [4, 1]
    assert 0 < sum(ledger.column("bytes").to_pylist()) < end - start
    assert len(list(log.read("ledger"))) == 1
    log.close()


def test_a_torn_tail_is_cut_with_a_ledger_entry_and_its_positions_are_not_given_again(tmp_path: Path) -> None:
    work = tmp_path / "log"
    _killed(work)
    path = work / SEGMENT
    raw = path.read_bytes()
    start, end = _groups(raw)[-1]
    path.write_bytes(raw[: end - 8])
    log = open_log(work)
    ledger = log.ledger()
    assert ledger.column("kind").to_pylist() == ["cut"]
    assert ledger.column("bytes").to_pylist() == [end - 8 - start]
    assert ledger.column("rows").to_pylist() == [None]
    assert "may have been acknowledged" in ledger.column("reason").to_pylist()[0]
    cut = Position.parse(ledger.column("to").to_pylist()[0])
    second = (work / "0000000002.seg").read_bytes()
    headers = [read_group_header(second, at) for at, _ in _groups(second)]
    opening = next(header for header in headers if header is not None and header.flags & FLAG_OPENING)
    assert opening.lsn > lsn_of(cut.offset)
    position = log.append([reading_batch(1)], claim=log.claim("a", epoch=0), sequence=1_000).position
    assert position is not None
    assert position.offset > cut.offset
    log.close()


def test_an_unproven_tail_is_written_again_before_it_is_read(tmp_path: Path) -> None:
    work = tmp_path / "log"
    frames = _killed(work)
    first = (work / SEGMENT).read_bytes()
    newest = read_group_header(first, _groups(first)[-1][0])
    reader = open_reader(work)
    assert len(list(reader.read(["readings", "notes"]))) == len(frames) - 2
    reader.close()
    log = open_log(work)
    assert {frame.position for frame in log.read(["readings", "notes"])} == set(frames)
    second = (work / "0000000002.seg").read_bytes()
    again = read_group_header(second, SEGMENT_HEADER_BYTES)
    assert again == newest, "the page cache is not the disk: it is written and synced before it is read"
    assert log.claim("a", epoch=0).last_sequence == len(frames) // 2 - 1
    log.close()


@pytest.mark.parametrize("at", [3, 8, 70, 100])
def test_damage_of_the_last_proven_group_does_not_take_the_unproven_one_behind_it(
    tmp_path: Path, at: int
) -> None:
    work = tmp_path / "log"
    frames = _killed(work)
    path = work / SEGMENT
    raw = bytearray(path.read_bytes())
    start, _ = _groups(bytes(raw))[-2]
    raw[start + at] ^= 1
    path.write_bytes(raw)
    newest = max(frames, key=lambda position: position.offset)
    with open_log(work) as log:
        assert newest in {frame.position for frame in log.read(["readings", "notes"])}
        assert set(log.ledger().column("kind").to_pylist()) == {"quarantined"}


def test_a_lost_durable_end_begins_a_new_incarnation(tmp_path: Path) -> None:
    frames = _fill(tmp_path)
    path = tmp_path / SEGMENT
    raw = path.read_bytes()
    groups = _groups(raw)
    path.write_bytes(raw[: groups[-4][0]])
    newest = max(frames, key=lambda position: position.offset)
    oldest = min(frames, key=lambda position: position.offset)
    log = open_log(tmp_path)
    assert "lost" in log.ledger().column("kind").to_pylist()
    appended = log.append([reading_batch(1, value=77)], claim=log.claim("b"), sequence=0)
    assert appended.position is not None
    assert appended.position.incarnation != newest.incarnation
    with pytest.raises(PositionGoneError, match="incarnation"):
        log.read("readings", after=newest)
    assert values(log.read("readings", after=oldest))[-1] == 77
    log.close()
    log = open_log(tmp_path)
    assert values(log.read("readings", after=appended.position)) == []
    log.close()


def test_a_log_without_its_segments_opens_empty_as_a_new_incarnation(tmp_path: Path) -> None:
    frames = _fill(tmp_path)
    for path in tmp_path.glob("*.seg"):
        path.unlink()
    log = open_log(tmp_path)
    assert list(log.read("readings")) == []
    with pytest.raises(PositionGoneError):
        log.read("readings", after=max(frames, key=lambda position: position.offset))
    log.append([Batch("notes", notes("x"))], claim=log.claim("b"), sequence=0)
    assert log.ledger().column("kind").to_pylist() == ["lost"]
    log.close()


def test_a_missing_segment_in_the_middle_is_told(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    claim = log.claim("a")
    for number in range(20):
        log.append([reading_batch(40, value=number * 100)], claim=claim, sequence=number)
    log.close()
    (tmp_path / "0000000004.seg").unlink()
    for checkpoint in tmp_path.glob("*.ckp"):
        checkpoint.unlink()
    log = open_log(tmp_path)
    got = values(log.read("readings"))
    assert 0 < len(got) < 800
    assert set(got) < {float(number * 100 + n) for number in range(20) for n in range(40)}
    assert "lost" in log.ledger().column("kind").to_pylist()
    log.close()


@pytest.mark.parametrize("suffix", [".idx", ".ckp"])
def test_sidecars_and_checkpoints_are_rebuilt(tmp_path: Path, suffix: str) -> None:
    log = open_log(tmp_path, segment_bytes=4096)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("a", epoch=0)
    for number in range(20):
        log.append(
            [reading_batch(40, value=number)], claim=claim, sequence=number, positions={"a": b"%d" % number}
        )
    states = log.streams()
    log.close()
    assert list(tmp_path.glob("*" + suffix))
    for path in tmp_path.glob("*" + suffix):
        path.unlink()
    log = open_log(tmp_path)
    assert log.streams() == states
    assert len(list(log.read("readings"))) == 20
    assert log.positions() == {"a": b"19"}
    assert log.claim("a", epoch=0).last_sequence == 19
    log.close()


def test_a_group_inside_a_body_is_not_taken_for_one(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("a")
    log.append([reading_batch(1)], claim=claim, sequence=0)
    raw = (tmp_path / SEGMENT).read_bytes()
    start, end = _groups(raw)[-1]
    copied = log.create_stream("raw", StreamKind.ROW, _raw_schema())
    log.append([Batch(copied.name, _raw_rows(raw[start:end]))], claim=claim, sequence=1)
    log.append([reading_batch(1, value=5)], claim=claim, sequence=2)
    log.close()
    path = tmp_path / SEGMENT
    raw = path.read_bytes()
    assert raw.count(GROUP_MAGIC.to_bytes(4, "little")) == len(_groups(raw)) + 1
    damaged = bytearray(raw)
    holder = next(at for at, stop in _groups(raw) if GROUP_MAGIC.to_bytes(4, "little") in raw[at + 8 : stop])
    damaged[holder + 20] ^= 1
    path.write_bytes(damaged)
    log = open_log(tmp_path)
    assert values(log.read("readings")) == [0.0, 5.0]
    log.close()


def _raw_schema() -> pa.Schema:
    return pa.schema([pa.field("raw", pa.binary())])


def _raw_rows(data: bytes) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([data], pa.binary())], schema=_raw_schema())


def test_a_newer_format_is_refused_in_one_line(tmp_path: Path) -> None:
    _fill(tmp_path)
    path = tmp_path / SEGMENT
    raw = bytearray(path.read_bytes())
    struct.pack_into("<H", raw, 8, 2)
    struct.pack_into("<I", raw, 12, 0)
    struct.pack_into("<I", raw, 12, crc32c(bytes(raw[:SEGMENT_HEADER_BYTES])))
    path.write_bytes(raw)
    for opening in (open_log, open_reader):
        with pytest.raises(NewerFormatError, match=r"version 2.*up to version 1") as refused:
            opening(tmp_path)
        assert "\n" not in str(refused.value)
    assert GROUP_HEADER_BYTES == SEGMENT_HEADER_BYTES


def test_a_damaged_record_of_the_log_itself_in_an_older_segment_is_told_and_not_left_out_in_silence() -> None:
    disk, here = SimulatedDisk(), Path("log")
    with open_log(here, fs=disk, segment_bytes=4096) as log:
        claim = log.claim("a", epoch=0)
        for number in range(20):
            log.append(
                [reading_batch(4, value=number)],
                claim=claim,
                sequence=number,
                positions={"a": b"%020d" % number},
            )
    files = {path: data for path, data in disk.contents().items() if path.suffix == ".seg"}
    assert len(files) > 2
    oldest = min(files)
    at = files[oldest].index(b"%020d" % 3)
    files[oldest] = files[oldest][:at] + b"\xff" + files[oldest][at + 1 :]
    with open_log(here, fs=SimulatedDisk(files)) as log:
        assert "quarantined" in log.ledger().column("kind").to_pylist()
        assert [frame.sequence for frame in log.read("readings")] == [n for n in range(20) if n != 3]
        assert log.positions() == {"a": b"%020d" % 19}


class _CountingDisk(SimulatedDisk):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        data = super().pread(handle, size, offset)
        self.read_bytes += len(data)
        return data


@cache
def _every_second_group_damaged() -> tuple[bytes, int, int]:
    """A segment whose groups each hold one append, every second one with a wrong header: (its bytes, sound appends,
    damaged bytes)."""
    disk = SimulatedDisk()
    log = open_log(Path("log"), fs=disk, segment_bytes=1 << 30, prepare_after_bytes=None)
    claim = log.claim("a", epoch=0)
    for number in range(12_000):
        log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
    disk.off = True
    log.close()
    raw = bytearray(disk.contents()[Path("log/0000000001.seg")])
    at, groups, damaged, sound = SEGMENT_HEADER_BYTES, 0, 0, 0
    while (header := read_group_header(memoryview(raw), at)) is not None:
        if at < len(raw) // 2 < at + header.length:
            groups += 1  # and two neighbours once
        if groups % 2:
            raw[at + 8] ^= 0xFF
            damaged += header.length
        elif header.frame_count:
            sound += 1
        at, groups = at + header.length, groups + 1
    return bytes(raw), sound, damaged


def test_a_segment_with_much_damage_is_read_a_few_times_not_once_for_each_damaged_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw, sound, _ = _every_second_group_damaged()
    disk = _CountingDisk({Path("log/0000000001.seg"): raw})
    with open_log(Path("log"), fs=disk) as log:
        # before: two windows for each damaged group, thousands of times the file in all
        assert disk.read_bytes < 200 * len(raw), f"{disk.read_bytes / len(raw):.0f} times"
        assert len(list(log.read(["readings"]))) >= sound - 5
    told = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert 16 <= len(told) <= 20
    assert "more places" in told[16]
    disk.read_bytes = 0
    report = verify(Path("log"), fs=disk)
    assert disk.read_bytes < 200 * len(raw), f"{disk.read_bytes / len(raw):.0f} times"
    assert len(report.problems) > 5_000


def test_thousands_of_damaged_places_are_all_in_the_ledger_and_none_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL")
    raw, sound, damaged = _every_second_group_damaged()
    disk = SimulatedDisk({Path("log/0000000001.seg"): raw})
    with open_log(Path("log"), fs=disk) as log:
        first = log.ledger()
        claim = log.claim("a", epoch=1)
        log.append([reading_batch(1, value=-1)], claim=claim, sequence=0)
        assert sum(entry.bytes for entry in log._store.state.ledger) == damaged
        assert 500 < len(log._store.state.ledger) <= LEDGER_ENTRIES_MAX
    with open_log(Path("log"), fs=disk) as log:
        assert log.ledger() == first
        assert len(list(log.read(["readings"]))) >= sound - 5 + 1


def test_thousands_of_damaged_bodies_are_told_while_they_are_read_and_none_is_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    log = open_log(tmp_path, segment_bytes=1 << 20, prepare_after_bytes=None)
    claim = log.claim("a", epoch=0)
    for number in range(3_000):
        log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
    log.close()
    path = tmp_path / "0000000001.seg"
    raw, at, damaged = bytearray(path.read_bytes()), SEGMENT_HEADER_BYTES, 0
    while (header := read_group_header(memoryview(raw), at)) is not None:
        frames = read_frame_headers(memoryview(raw)[at : at + header.length], header) or []
        if any(frame.sequence and frame.stream > CATALOGUE_ID for frame in frames) and header.lsn % 2:
            raw[at + header.length - 9] ^= 0xFF
            damaged += 1
        at += header.length
    assert damaged > 1_000
    path.write_bytes(raw)
    for _ in range(2):
        with open_log(tmp_path) as log:
            seen = [len(list(log.read(["readings"]))) for _ in range(2)]
            assert seen == [3_000 - damaged, 3_000 - damaged]
        with open_reader(tmp_path) as reader:
            rows = reader.ledger().column("rows").to_pylist()
            assert sum(number or 0 for number in rows) == damaged
