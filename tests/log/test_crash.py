"""Power cuts at any call, of a disk that loses, keeps, tears or reorders what was not synced, several in a row."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from ringmain.log import open_log
from ringmain.log.interface import Batch, LogError, StreamKind
from ringmain.testing import CHANGING_CALLS, SimulatedDisk
from tests.log import crash_points
from tests.log.batches import NOTE, notes, reading_batch
from tests.log.deterministic import without_chance
from tests.promises import Fault, Part, promise
from tests.soak import run_campaign

DIRECTORY = Path("log")
SEEDS = range(12)
POINTS_A_STAGE = 8
SOAK_POINTS = 10_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


@promise(
    Fault.POWER_CUT,
    Part.JOURNAL,
    "Everything acknowledged is there, once, in order, with its position; the rest wholly or not at all; "
    "a torn tail is cut with a ledger entry.",
)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_survives_power_cuts_and_the_rest_is_whole_or_absent(seed: int) -> None:
    points = crash_points.run(seed, POINTS_A_STAGE)
    assert points >= 300 // len(SEEDS), f"seed {seed} gave {points} points to cut the power at"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_ten_thousand_power_cuts_at_every_call_of_histories_drawn_from_a_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\ncrash points, seed {1_000 + item} ", end="", flush=True)
        return crash_points.run(1_000 + item)

    told = run_campaign("crash-points", SOAK_POINTS, run, "points")
    with capsys.disabled():
        print(f"\n{told}")


def test_a_seed_gives_the_same_history_each_time() -> None:
    def trail(seed: int) -> list[str]:
        with without_chance(seed):
            history = crash_points.History(seed)
            history.stage()
            return [point.call for point in history.points]

    assert trail(5) == trail(5)
    assert trail(5) != trail(6)


@pytest.mark.parametrize("seed", range(12))
def test_threads_as_they_come_lose_nothing_either(seed: int) -> None:
    """As above with the log's own threads, and hence other interleavings each time: fewer promises are looked at."""
    rng = random.Random(seed)
    disk = SimulatedDisk(seed=seed)
    acknowledged: set[int] = set()
    for _ in range(4):
        _go_off_after(disk, rng.randrange(250))
        try:
            log = open_log(
                DIRECTORY,
                fs=disk,
                segment_bytes=rng.choice([2_000, 8_000, 100_000]),
                prepare_after_bytes=rng.choice([None, 0]),
            )
        except OSError:
            disk = disk.cut_power()
            continue
        try:
            log.create_stream("notes", StreamKind.ROW, NOTE)
            claim = log.claim("p", epoch=0)
            at = -1 if claim.last_sequence is None else claim.last_sequence
            for number in range(at + 1, at + rng.randrange(5, 60)):
                batches = [reading_batch(1 + number % 40, value=number), Batch("notes", notes(f"n{number}"))]
                log.append(batches, claim=claim, sequence=number, positions={"p": b"%d" % number})
                acknowledged.add(number)
                if rng.random() < 0.03:
                    log.retain(size_bytes=20_000)
        except LogError:
            assert disk.off
        disk.off = True
        log.close()
        disk = disk.cut_power()
    with open_log(DIRECTORY, fs=disk) as log:
        sequences = [frame.sequence for frame in log.read("readings")]
        assert sequences == list(range(sequences[0], sequences[-1] + 1)) if sequences else not acknowledged
        assert max(acknowledged, default=-1) <= (sequences[-1] if sequences else -1)
        kinds = set(log.ledger().column("kind").to_pylist())
        assert kinds <= {"cut", "evicted"}
        assert not sequences or sequences[0] == 0 or "evicted" in kinds
        assert log.positions() == ({"p": b"%d" % sequences[-1]} if sequences else {})


def _go_off_after(disk: SimulatedDisk, calls: int) -> None:
    left = calls

    def count(name: str, path: Path | None) -> None:
        nonlocal left
        del path
        if name in CHANGING_CALLS:
            left -= 1
            disk.off = disk.off or left < 0

    disk.before_call = count


@promise(
    Fault.POWER_CUT, Part.JOURNAL, "A second cut while the unproven tail is written again loses none of it."
)
def test_a_crash_while_the_unproven_tail_is_written_again_loses_none_of_it() -> None:
    whole = SimulatedDisk()
    log = open_log(DIRECTORY, fs=whole)
    claim = log.claim("p", epoch=0)
    for number in range(4):
        log.append([reading_batch(100, value=number)], claim=claim, sequence=number)
    whole.off = True
    log.close()
    # the mark is lost: that the last append was acknowledged can be known from nothing but its own bytes
    files = {path: data for path, data in whole.contents().items() if path.suffix == ".seg"}
    for crash_after in range(14):
        for seed in range(12):
            disk = SimulatedDisk(files, seed=seed)
            _go_off_after(disk, crash_after)
            with contextlib.suppress(OSError):
                log = open_log(DIRECTORY, fs=disk)
                disk.off = True
                log.close()
            with open_log(DIRECTORY, fs=disk.cut_power()) as again:
                assert [frame.sequence for frame in again.read("readings")] == [0, 1, 2, 3], crash_after
