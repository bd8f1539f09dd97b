"""A log on a real mount whose disk fails: EIO and ENOSPC come through the kernel, nothing of the seam is replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.interface import LogError, LogFailedError, LogFullError
from tests.log.batches import reading_batch
from tests.log.fuse_disk import CannotMountError, FuseDisk, mounted
from tests.promises import Fault, Part, promise


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FuseDisk]:
    try:
        with mounted(tmp_path) as found:
            yield found
    except CannotMountError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@promise(
    (Fault.WRITE_ERROR, Fault.SYNC_ERROR),
    Part.JOURNAL,
    "On a real mount: the append fails, nothing of it can be read; once the disk is mended the log goes on by itself.",
)
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(("error", "expected"), [(errno.EIO, LogFailedError), (errno.ENOSPC, LogFullError)])
def test_a_disk_that_fails_for_good_stops_acknowledgements_and_one_that_is_mended_goes_on(
    disk: FuseDisk, call: str, error: int, expected: type[LogError]
) -> None:
    with open_log(disk.directory / "log", segment_bytes=1 << 20) as log:
        claim = log.claim("a", epoch=0)
        for number in range(5):
            log.append([reading_batch(10)], claim=claim, sequence=number)
        disk.fail(call, error, suffix=".seg")
        for _ in range(3):
            with pytest.raises(expected):
                log.append([reading_batch(10)], claim=claim, sequence=5)
        assert [frame.sequence for frame in log.read("readings")] == list(range(5))
        disk.heal()
        assert not log.append([reading_batch(10)], claim=claim, sequence=5).duplicate
    with open_reader(disk.directory / "log") as reader:
        assert [frame.sequence for frame in reader.read("readings")] == list(range(6))


@pytest.mark.parametrize("prepare_after_bytes", [None, 0])
@pytest.mark.parametrize("call", ["write", "fsync", "fsyncdir", "create", "rename", "unlink"])
def test_one_failing_call_loses_nothing_that_was_acknowledged(
    disk: FuseDisk, call: str, prepare_after_bytes: int | None
) -> None:
    log = open_log(disk.directory / "log", segment_bytes=4096, prepare_after_bytes=prepare_after_bytes)
    claim = log.claim("a", epoch=0)
    acknowledged = []
    for number in range(40):
        if number % 4 == 0:
            disk.fail(call, nth=number // 4 % 3)
        try:
            log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
        except LogFailedError:
            continue
        acknowledged.append(number)
    disk.heal()
    log.close()
    assert len(acknowledged) >= 20
    with open_log(disk.directory / "log") as log:
        assert [frame.sequence for frame in log.read("readings")] == acknowledged
        assert log.ledger().num_rows == 0
        assert log.claim("a", epoch=0).last_sequence == acknowledged[-1]
