"""`verify` raises no false alarm: whatever a power cut leaves is sound, before and after the log is opened again."""

from __future__ import annotations

import contextlib
import errno
import random

import pytest

from ringmain.log import open_log
from ringmain.log.check.verify import Problem, verify
from ringmain.testing import SimulatedClock, SimulatedDisk
from tests.log.batches import reading_batch
from tests.log.crash_points import DIRECTORY, STAGES, History
from tests.log.deterministic import settle, without_chance
from tests.soak import run_campaign

POINTS = 3
"""Moments of each stage that are looked at."""
SOAK_LOOKS = 7_500


def _problems(disk: SimulatedDisk) -> list[Problem]:
    """What is wrong with a disk, but for series without entries: these histories have no catalogue."""
    if not any(path.suffix in (".seg", ".ckp") for path in disk.contents()):
        return []
    return [problem for problem in verify(DIRECTORY, fs=disk).problems if problem.where != "catalogue"]


def _look(seed: int) -> int:
    history = History(seed)
    rng = random.Random(seed)
    looks = 0
    for _ in range(STAGES):
        history.stage()
        if not history.points:
            break
        assert _problems(history.disk.kill()) == [], f"seed {seed}"
        for point in rng.sample(history.points, min(POINTS, len(history.points))):
            disk = point.disk.after_power_cut()
            assert _problems(disk.copy()) == [], f"seed {seed}, point {point.number}, after a power cut"
            with contextlib.suppress(OSError):
                log = open_log(DIRECTORY, fs=disk, clock=SimulatedClock())
                try:
                    assert _problems(disk) == [], f"seed {seed}, point {point.number}, opened again"
                finally:
                    log.close()
                assert _problems(disk) == [], f"seed {seed}, point {point.number}, closed"
            looks += 1
        point = rng.choice(history.points)
        history.go_on(point.disk.after_power_cut(), point.told)
    return looks


def test_what_a_power_cut_leaves_is_sound() -> None:
    with without_chance(1):
        assert sum(_look(seed) for seed in range(100, 104)) > 20


def test_a_removal_that_was_interrupted_and_is_told_by_the_newest_group_alone_is_sound() -> None:
    """Checkpoints could not be written, and the mark, which proves the group that tells of it, was lost."""
    with without_chance(1):
        disk = SimulatedDisk()
        log = open_log(DIRECTORY, fs=disk, segment_bytes=2_000)
        claim = log.claim("a", epoch=0)
        for number in range(12):
            log.append([reading_batch(20, value=number)], claim=claim, sequence=number)
        settle(log)
        for _ in range(2):  # what is to be removed is covered
            log._maintenance.checkpoint(final=True)
        before = disk.contents()
        disk.fail("rename", errno.EIO, suffix=".ckp")
        assert log.retain(size_bytes=4_000) > 2
        after = disk.contents()
        disk.off = True
        log.close()
    gone = sorted(path for path in before if path.suffix == ".seg" and path not in after)
    kept = {path: before[path] for path in (gone[0], gone[-1])}
    left = SimulatedDisk({**{path: data for path, data in after.items() if path.name != "durable"}, **kept})
    assert _problems(left.copy()) == []
    with open_log(DIRECTORY, fs=left) as again:
        assert set(again.ledger().column("kind").to_pylist()) == {"evicted"}
    assert _problems(left) == []


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_power_cuts_leave_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nverify after power cuts, seed {1_000 + item} ", end="", flush=True)
        with without_chance(1):
            return _look(1_000 + item)

    told = run_campaign("verify-after-crashes", SOAK_LOOKS, run, "disks")
    with capsys.disabled():
        print(f"\n{told}")
