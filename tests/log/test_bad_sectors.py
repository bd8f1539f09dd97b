"""Blocks that the disk cannot read any more: what lies there is damaged, everything else is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.testing import FaultyFiles, SimulatedDisk
from tests.log.batches import reading_batch
from tests.promises import Fault, Part, promise

BLOCK = 4096


def _filled(directory: Path, count: int = 60) -> None:
    with open_log(directory, segment_bytes=32_768) as log:
        claim = log.claim("a", epoch=0)
        for number in range(count):
            log.append([reading_batch(40, value=number)], claim=claim, sequence=number)


@promise(
    Fault.BIT_FLIP,
    (Part.JOURNAL, Part.READERS),
    "A block that cannot be read costs the groups in it and nothing else.",
)
@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("segment", [1, 2, 3])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_bad_block_costs_the_groups_in_it_and_nothing_else(
    tmp_path: Path, block: int, segment: int, checkpoints: bool
) -> None:
    _filled(tmp_path)
    if not checkpoints:
        for path in (*tmp_path.glob("*.ckp"), *tmp_path.glob("*.idx")):
            path.unlink()
    files = FaultyFiles()
    files.bad_blocks.add((f"{segment:010}.seg", block))
    with open_reader(tmp_path, fs=files) as reader:
        shown = [frame.sequence for frame in reader.read("readings")]
    with open_log(tmp_path, fs=files) as log:
        sequences = [frame.sequence for frame in log.read("readings")]
        assert sequences == sorted(set(sequences))
        assert shown == sequences
        missing = set(range(60)) - set(sequences)
        assert 1 <= len(missing) <= BLOCK // 800 + 2
        assert log.append([reading_batch(1)], claim=log.claim("a", epoch=0), sequence=60).duplicate is False
        assert "quarantined" in log.ledger().column("kind").to_pylist()
    with open_log(tmp_path) as log:
        last = [frame.sequence for frame in log.read("readings")][-1]
        assert last == 60


def test_a_disk_that_reads_nothing_is_not_taken_for_damage(tmp_path: Path) -> None:
    _filled(tmp_path)
    files = FaultyFiles()
    files.unreadable = True
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OSError, match="injected"):
        open_log(tmp_path, fs=files)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with open_log(tmp_path) as log:
        assert [frame.sequence for frame in log.read("readings")] == list(range(60))


def test_a_newest_segment_whose_first_block_became_zeros_is_not_thrown_away(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    claim = log.claim("a", epoch=0)
    for number in range(20):
        log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
    copy = tmp_path.with_name("copy")
    copy.mkdir()
    for path in tmp_path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    log.close()
    segment = copy / "0000000001.seg"
    segment.write_bytes(bytes(BLOCK) + segment.read_bytes()[BLOCK:])
    with open_log(copy) as log:
        sequences = [frame.sequence for frame in log.read("readings")]
        assert sequences[-1] == 19
        assert len(sequences) >= 20 - BLOCK // 800 - 2
        assert "quarantined" in log.ledger().column("kind").to_pylist()


class _Misreading(SimulatedDisk):
    """A disk, or the way to it, that gets one bit wrong in every third read of a segment."""

    reads = 0

    def misread(self, data: bytes) -> bytes:
        if len(data) < 64:
            return data
        self.reads += 1
        if self.reads % 3:
            return data
        wrong = bytearray(data)
        wrong[self.rng.randrange(len(wrong))] ^= 1 << self.rng.randrange(8)
        return bytes(wrong)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_read_wrong_once_and_right_the_second_time_is_no_damage(seed: int) -> None:
    here = Path("log")
    disk = SimulatedDisk()
    with open_log(here, fs=disk, segment_bytes=6_000) as log:
        claim = log.claim("a", epoch=0)
        for number in range(40):
            log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
    segments = {path: data for path, data in disk.contents().items() if path.suffix == ".seg"}
    misreading = _Misreading(segments, seed=seed)
    with open_log(here, fs=misreading) as log:
        for _ in range(3):
            assert [frame.sequence for frame in log.read("readings")] == list(range(40))
        assert log.ledger().num_rows == 0
        assert log.claim("a", epoch=0).last_sequence == 39
    assert misreading.reads > 20
