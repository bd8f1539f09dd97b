"""However the groups of a segment are checked, the same is found: one by one, a block at a time, compiled or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log import open_log
from ringmain.log.check.chained import check_groups
from ringmain.log.check.scan import Form, SegmentScan, can_compile, scan
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES, read_segment_header
from ringmain.log.interface import Batch, StreamKind
from ringmain.log.segments import StoredGroup, walk
from ringmain.testing import SimulatedDisk
from tests.log.batches import NOTE, notes, readings

SEGMENT = Path("log") / "0000000001.seg"
FORMS = [form for form in Form if form != Form.COMPILED or can_compile()]


def _segment(appends: int, rows: int) -> bytes:
    """A segment with every codec: ids, even and odd in number, rows without ids, and control records."""
    disk = SimulatedDisk()
    with open_log(Path("log"), fs=disk) as log:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        claim = log.claim("a")
        for number in range(appends):
            batches = [Batch("readings", readings(rows + number % 3, number))]
            if number % 4 == 1:
                batches.append(Batch("notes", notes(*("note" * (number % 7) for _ in range(number % 5 + 1)))))
            moved = {"a/file": b"%d" % number if number % 5 else None} if number % 3 == 0 else None
            log.append(batches, claim=claim, sequence=number, positions=moved)
    return disk.contents()[SEGMENT]


SMALL = _segment(120, 1)
LARGE = _segment(12, 3000)


def _found(raw: bytes, form: Form) -> SegmentScan:
    disk = SimulatedDisk()
    handle = disk.create(SEGMENT)
    disk.pwritev(handle, [raw], 0)
    header = read_segment_header(raw)
    lsn = 0 if header is None else header.first_lsn - 1
    told: list[int] = []
    found = scan(disk, handle, len(raw), after_lsn=lsn, incarnation=0, form=form, done=told.append)
    assert sum(told) == len(raw) - SEGMENT_HEADER_BYTES
    return found


def _same(raw: bytes) -> SegmentScan:
    expected = _found(raw, Form.WALK)
    for form in FORMS[1:]:
        found = _found(raw, form)
        for name in ("groups", "at", "frames", "first", "body_at", "series_max", "folded"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), (form, name)
        assert np.array_equal(found.bodies.data, expected.bodies.data)
        assert np.array_equal(found.bodies.starts, expected.bodies.starts)
        assert (found.samples, found.damage) == (expected.samples, expected.damage)
    return expected


@pytest.mark.parametrize("raw", [SMALL, LARGE], ids=["small", "large"])
def test_a_sound_segment_is_the_same_in_each_form(raw: bytes) -> None:
    found = _same(raw)
    assert not found.damage
    assert len(found.groups) > 10
    assert {1, 2, 3} == set(found.frames["codec"].tolist())


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.data())
def test_damage_of_any_kind_is_found_alike(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([SMALL, LARGE])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(SEGMENT_HEADER_BYTES, len(raw) - 1))
        match data.draw(st.integers(0, 4)):
            case 0:
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case 1:  # a sector that became zeros
                raw[at : at + 512] = bytes(len(raw[at : at + 512]))
            case 2:  # what lies elsewhere, as a disk that wrote to a wrong place
                other = data.draw(st.integers(0, len(raw) - 1)) // 8 * 8
                piece = raw[other : other + 256]
                raw[at // 8 * 8 : at // 8 * 8 + len(piece)] = piece
                del raw[max(len(SMALL), len(LARGE)) :]
            case 3:  # the same change at two places, which a sum would not see
                change = data.draw(st.integers(1, 255))
                raw[at] ^= change
                raw[max(at - 8, 0)] ^= change
            case _:
                raw[at : at + 4] = b"\xff\xff\xff\xff"[: len(raw) - at]
    _same(bytes(raw[: len(raw) // 8 * 8]))


def test_each_field_of_a_group_is_checked_alike() -> None:
    """Every byte of one group of a block, among them each length, count and CRC."""
    groups = _walked(SMALL)[:24]
    before, group = next((n, one) for n, one in enumerate(groups) if n > 5 and len(one.frames) == 3)
    words = np.frombuffer(SMALL[SEGMENT_HEADER_BYTES : groups[-1].end], np.uint64).copy()
    assert len(check_groups(words, len(words), 0, 0).groups) == len(groups)
    raw = words.view(np.uint8)
    for at in range(group.at - SEGMENT_HEADER_BYTES, group.end - SEGMENT_HEADER_BYTES):
        for change in (1 << at % 8, 0xFF):
            raw[at] ^= change
            kept = raw.copy()
            assert len(check_groups(words, len(words), 0, 0).groups) == before, (at, change)
            assert np.array_equal(raw, kept), "the block is as it was"
            raw[at] ^= change


def _walked(raw: bytes) -> list[StoredGroup]:
    disk = SimulatedDisk()
    handle = disk.create(SEGMENT)
    disk.pwritev(handle, [raw], 0)
    found = [
        one for one in walk(disk, handle, SEGMENT_HEADER_BYTES, len(raw)) if isinstance(one, StoredGroup)
    ]
    assert found[0].at == SEGMENT_HEADER_BYTES
    assert GROUP_HEADER_BYTES < found[-1].end <= len(raw)
    return found


def test_a_magic_number_within_a_body_is_no_group(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        claim = log.claim("a")
        for number in range(200):
            log.append([Batch("notes", notes("RGRPRGRP" * 8))], claim=claim, sequence=number)
    fs = LocalFileSystem()
    path = tmp_path / SEGMENT.name
    handle = fs.open_existing(path)
    end = path.stat().st_size
    scans = [scan(fs, handle, end, after_lsn=0, incarnation=0, form=form, done=len_of) for form in FORMS]
    fs.close(handle)
    assert {len(found.groups) for found in scans} == {len(scans[0].groups)}
    assert len(scans[0].groups) > 200


def len_of(size: int) -> None:
    assert size >= 0
