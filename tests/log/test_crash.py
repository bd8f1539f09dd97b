"""Crashes at any call, of a disk that loses, keeps or tears what was not synced, several in a row."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.interface import Appended, Batch, LogError, StreamKind
from ringmain.log.journal import Journal
from tests.log.batches import NOTE, notes, reading_batch
from tests.log.crashing_files import CrashingFiles
from tests.promises import Fault, Part, promise

DIRECTORY = Path("log")


def _work(log: Journal, rng: random.Random, acknowledged: set[int], stream: bool) -> None:
    """Append with gaps in the pace until the machine goes off, resending what was not acknowledged."""
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("p", epoch=0)
    at = -1 if claim.last_sequence is None else claim.last_sequence

    def done_of(number: int):  # type: ignore[no-untyped-def]
        def done(appended: Appended | None, error: LogError | None) -> None:
            if error is None:
                acknowledged.add(number)

        return done

    for _ in range(rng.randrange(5, 60)):
        at += 1
        batches = [reading_batch(1 + at % 40, value=at * 100), Batch("notes", notes(f"n{at}"))]
        positions: dict[str, bytes | None] = {"p/at": b"%d" % at}
        if rng.random() < 0.5:
            log.append_nowait(batches, done_of(at), claim=claim, sequence=at, positions=positions)
        else:
            log.append(batches, claim=claim, sequence=at, positions=positions)
            acknowledged.add(at)
        if rng.random() < 0.03:
            log.retain(size_bytes=20_000)
    if stream:
        log.close()


@promise(
    Fault.POWER_CUT,
    Part.JOURNAL,
    "Everything acknowledged is there, once, in order, with its position; the rest wholly or not at all; "
    "a torn tail is cut with a ledger entry.",
)
@pytest.mark.parametrize("seed", range(60))
def test_what_was_acknowledged_survives_crashes_and_the_rest_is_whole_or_absent(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    rng = random.Random(seed)
    files: dict[Path, bytes] = {}
    acknowledged: set[int] = set()
    seen: dict[int, int] = {}
    for _ in range(5):
        disk = CrashingFiles(files, crash_after=rng.randrange(0, 250))
        try:
            log = open_log(DIRECTORY, fs=disk, segment_bytes=rng.choice([2_000, 8_000, 100_000]))
        except OSError:
            log = None
        if log is not None:
            try:
                _work(log, rng, acknowledged, rng.random() < 0.2)
            except LogError:
                assert disk.crashed
            disk.crashed = True
            log.close()
        files = disk.image(rng)
        _check(files, acknowledged, seen)


def _check(files: dict[Path, bytes], acknowledged: set[int], seen: dict[int, int]) -> None:
    """Whoever opens the directory finds every acknowledged append once, in order, whole, with its position."""
    if files:
        with open_reader(DIRECTORY, fs=CrashingFiles(files)) as reader:
            shown = [frame.sequence for frame in reader.read("readings")]
            assert shown == list(range(shown[0], shown[-1] + 1)) if shown else True
    with open_log(DIRECTORY, fs=CrashingFiles(files)) as log:
        readings = list(log.read("readings"))
        texts = (
            [frame.rows.column("text").to_pylist() for frame in log.read("notes")] if _has_notes(log) else []
        )
        ledger = log.ledger()
        assert set(ledger.column("kind").to_pylist()) <= {"cut", "evicted"}, str(ledger.column("reason"))
        sequences = [frame.sequence for frame in readings]
        newest = max(acknowledged, default=-1)
        if not sequences:
            assert newest < 0
            return
        assert sequences == list(range(sequences[0], sequences[-1] + 1))
        assert sequences[-1] >= newest
        assert sequences[0] == 0 or "evicted" in ledger.column("kind").to_pylist()
        assert texts == [[f"n{number}"] for number in sequences]
        assert log.positions() == {"p/at": b"%d" % sequences[-1]}
        for frame in readings:
            number = frame.sequence
            assert frame.rows.column("value").to_pylist() == [
                number * 100.0 + n for n in range(1 + number % 40)
            ]
            if number in acknowledged:
                assert seen.setdefault(number, frame.position.offset) == frame.position.offset
        assert log.claim("p", epoch=0).last_sequence == sequences[-1]


def _has_notes(log: Journal) -> bool:
    return any(state.stream.name == "notes" for state in log.streams())


@promise(
    Fault.POWER_CUT, Part.JOURNAL, "A second cut while the unproven tail is written again loses none of it."
)
def test_a_crash_while_the_unproven_tail_is_written_again_loses_none_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL")
    whole = CrashingFiles()
    log = open_log(DIRECTORY, fs=whole)
    claim = log.claim("p", epoch=0)
    for number in range(4):
        log.append([reading_batch(100, value=number)], claim=claim, sequence=number)
    whole.crashed = True
    log.close()
    # the mark is lost: that the last append was acknowledged can be known from nothing but its own bytes
    files = {path: bytes(data) for path, data in whole.files.items() if path.suffix == ".seg"}
    rng = random.Random(5)
    for crash_after in range(14):
        for _ in range(12):
            disk = CrashingFiles(files, crash_after=crash_after)
            log = open_log(DIRECTORY, fs=disk)
            disk.crashed = True
            log.close()
            with open_log(DIRECTORY, fs=CrashingFiles(disk.image(rng))) as again:
                assert [frame.sequence for frame in again.read("readings")] == [0, 1, 2, 3], crash_after
