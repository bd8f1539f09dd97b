"""Nothing is acknowledged, published or told before the fdatasync that covers it has returned; what fails is forgotten."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from ringmain.log import open_log
from ringmain.log.frames import GROUP_MAGIC, SEGMENT_HEADER_BYTES, lsn_of
from ringmain.log.interface import Appended, LogError, LogFailedError, LogFullError, StreamKind
from ringmain.log.journal import Journal
from ringmain.log.segments import StoredGroup, walk
from ringmain.testing import FaultyFiles
from tests.log.batches import NOTE, reading_batch, values, wait_until
from tests.promises import Fault, Part, promise


class _Gate:
    """Holds whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()


def _open(directory: Path, files: FaultyFiles, **options: Any) -> Journal:
    options.setdefault("segment_bytes", 1 << 20)
    return open_log(directory, fs=files, **options)


def _collector(answers: list[tuple[int, Appended | None, LogError | None]], number: int) -> Any:
    def done(appended: Appended | None, error: LogError | None) -> None:
        answers.append((number, appended, error))

    return done


def test_no_answer_and_no_frame_leaves_before_the_covering_sync_returned(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    end = log.end()
    told = threading.Event()
    log.on_durable(told.set)
    gate = _Gate()
    files.before("sync", gate, ".seg")
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    log.append_nowait(
        [reading_batch(1)], _collector(answers, 0), claim=claim, sequence=0, positions={"a": b"x"}
    )
    assert gate.reached.wait(20)
    told.clear()  # what the rounds before had to tell is told: one thread does both
    for number in range(1, 50):
        log.append_nowait([reading_batch(1)], _collector(answers, number), claim=claim, sequence=number)
    # the duplicate of an append that is under way is not known to be durable either
    log.append_nowait([reading_batch(1)], _collector(answers, 50), claim=claim, sequence=0)
    assert answers == []
    assert log.end() == end
    assert list(log.read("readings")) == []
    assert log.positions() == {}
    assert not told.is_set()
    mark = (tmp_path / "durable").read_bytes()
    files.before("sync", None)
    before = len(files.trail)
    gate.open()
    wait_until(lambda: len(answers) == 51)
    assert [number for number, _, _ in answers] == list(range(51))
    assert answers[50][1] is not None
    assert answers[50][1].duplicate
    assert (tmp_path / "durable").read_bytes() != mark
    syncs = [line for line in files.trail[before:] if line.startswith("sync ") and line.endswith(".seg")]
    assert len(syncs) <= 3, "what came meanwhile shares one sync"
    assert log.positions() == {"a": b"x"}
    log.close()


def test_the_first_group_of_a_segment_waits_for_the_directory_as_well(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files, segment_bytes=4096)
    claim = log.claim("a")
    gate = _Gate()
    files.before("sync_directory", gate)
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    log.append_nowait([reading_batch(500)], _collector(answers, 0), claim=claim, sequence=0)
    assert gate.reached.wait(20)
    assert answers == []
    assert list(log.read("readings")) == []
    files.before("sync_directory", None)
    gate.open()
    wait_until(lambda: len(answers) == 1)
    assert answers[0][2] is None
    log.close()


def test_the_name_of_a_new_segment_is_durable_before_its_first_group_is_acknowledged(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    created = files.trail.index("create 0000000001.seg")
    calls = [line.split()[0] for line in files.trail[created:][:6]]
    # its groups, then the header that makes it part of the log, then its name
    assert calls == ["create", "write", "sync", "write", "sync", "sync_directory"]
    log.close()


def test_a_group_says_no_more_is_durable_than_was_when_it_was_written(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    gate = _Gate()
    files.before("sync", gate, ".seg")
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    log.append_nowait([reading_batch(1)], _collector(answers, 0), claim=claim, sequence=0)
    assert gate.reached.wait(20)
    for number in range(1, 6):
        log.append_nowait([reading_batch(1)], _collector(answers, number), claim=claim, sequence=number)
    files.before("sync", None)
    gate.open()
    wait_until(lambda: len(answers) == 6)
    stamps = {}
    with (tmp_path / "0000000001.seg").open("rb") as segment:
        size = (tmp_path / "0000000001.seg").stat().st_size
        for group in walk(files, segment.fileno(), SEGMENT_HEADER_BYTES, size):
            assert isinstance(group, StoredGroup)
            stamps[group.header.lsn] = group.header.durable_lsn
    positions = [answer.position for _, answer, _ in answers if answer is not None]
    first, *others = [lsn_of(position.offset) for position in positions if position is not None]
    assert stamps[first] < first
    # they waited together: one round takes them, or two when a task of the log's own stands between them
    told = [stamps[lsn] for lsn in others]
    alone = told.count(first)
    assert alone >= 1, "what was durable when their round began"
    assert told == [first] * alone + [others[alone - 1]] * (len(others) - alone)
    log.close()


@promise(
    Fault.POWER_CUT,
    Part.SNAPSHOTS,
    "A checkpoint has its name only once it is durable; the one before it stays beside it.",
)
def test_a_checkpoint_is_synced_before_it_gets_its_name(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    log.create_stream("notes", StreamKind.ROW, NOTE)  # returns when a checkpoint is written as well
    trail = [line for line in files.trail if ".ckp" in line or line.startswith("sync_directory")]
    name = next(line for line in trail if line.startswith("rename ")).removeprefix("rename ")
    first = trail.index(f"create {name}.tmp")
    calls = [line.split()[0] for line in trail[first:][:5]]
    assert calls == ["create", "write", "sync", "rename", "sync_directory"]
    log.close()


@promise(
    (Fault.WRITE_ERROR, Fault.SYNC_ERROR),
    Part.JOURNAL,
    "The segment ends at its last durable group; the append goes to a new segment and is acknowledged there.",
)
@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_call_moves_the_groups_to_a_new_segment(tmp_path: Path, call: str) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    log.append([reading_batch(10)], claim=claim, sequence=0)
    files.fail(call, nth=0, suffix=".seg")
    appended = log.append([reading_batch(10, value=100)], claim=claim, sequence=1)
    assert not appended.duplicate
    assert len(list(tmp_path.glob("*.seg"))) == 2
    log.append([reading_batch(10, value=200)], claim=claim, sequence=2)
    expected = [float(base + n) for base in (0, 100, 200) for n in range(10)]
    assert values(log.read("readings")) == expected
    log.close()
    log = open_log(tmp_path)
    assert values(log.read("readings")) == expected
    assert log.ledger().num_rows == 0
    log.close()


@promise(
    Fault.SYNC_ERROR,
    Part.JOURNAL,
    "A failed sync is never tried again on the same file: the kernel may have dropped the pages.",
)
def test_a_failed_sync_is_never_tried_again_on_the_same_file(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    log.append([reading_batch(1)], claim=claim, sequence=0)
    files.trail.clear()
    files.fail("sync", nth=0, suffix=".seg")
    log.append([reading_batch(1)], claim=claim, sequence=1)
    log.append([reading_batch(1)], claim=claim, sequence=2)
    synced = [line for line in files.trail if line.startswith("sync ") and line.endswith(".seg")]
    assert synced[0] == "sync 0000000001.seg"
    assert set(synced[1:]) == {"sync 0000000002.seg"}
    log.close()


@promise(
    (Fault.WRITE_ERROR, Fault.SYNC_ERROR),
    Part.JOURNAL,
    "Where a new segment cannot be made either, the append is refused, nothing of it is stored, and the same may be sent again.",
)
@promise(
    Fault.DISK_FULL, Part.POSITIONS, "They stay where they are until their append is stored, and move then."
)
@pytest.mark.parametrize(
    ("calls", "error", "expected"),
    [
        (["write"], errno.ENOSPC, LogFullError),
        (["write"], errno.EIO, LogFailedError),
        (["sync"], errno.EIO, LogFailedError),
        (["sync"], errno.ENOSPC, LogFullError),
        (["sync_directory", "write"], errno.EIO, LogFailedError),
        (["create", "write"], errno.EMFILE, LogFailedError),
    ],
)
def test_what_fails_twice_is_forgotten_exactly_and_may_be_sent_again(
    tmp_path: Path, calls: list[str], error: int, expected: type[LogError]
) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    log.append([reading_batch(10)], claim=claim, sequence=0, positions={"a": b"0"})
    before = log.streams()
    for call in calls:
        files.fail(call, error)
    for _ in range(3):
        with pytest.raises(expected):
            log.append([reading_batch(10, value=100)], claim=claim, sequence=1, positions={"a": b"1"})
    with pytest.raises(expected):
        log.claim("b")
    assert log.streams() == before
    assert log.positions() == {"a": b"0"}
    assert values(log.read("readings")) == [float(n) for n in range(10)]
    files.heal()
    appended = log.append([reading_batch(10, value=100)], claim=claim, sequence=1, positions={"a": b"1"})
    assert not appended.duplicate
    assert log.append([reading_batch(10, value=100)], claim=claim, sequence=1).duplicate
    frames = list(log.read("readings"))
    assert [frame.cumulative_rows for frame in frames] == [10, 20]
    assert log.claim("b").fence == 1
    log.close()
    log = open_log(tmp_path)
    assert [frame.cumulative_rows for frame in log.read("readings")] == [10, 20]
    assert log.positions() == {"a": b"1"}
    log.close()


def test_a_duplicate_of_an_append_that_fails_fails_with_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    gate = _Gate()
    files.before("sync", gate, ".seg")
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    log.append_nowait([reading_batch(1)], _collector(answers, 0), claim=claim, sequence=0)
    assert gate.reached.wait(20)
    for number in (1, 2):
        log.append_nowait([reading_batch(1)], _collector(answers, number), claim=claim, sequence=1)
    # the round under way fails, and so does the one that the original and its duplicate share
    files.fail("sync", suffix=".seg")
    gate.open()
    wait_until(lambda: len(answers) == 3)
    assert all(isinstance(error, LogFailedError) for _, _, error in answers)
    files.heal()
    assert not log.append([reading_batch(1)], claim=claim, sequence=0).duplicate
    assert not log.append([reading_batch(1)], claim=claim, sequence=1).duplicate
    assert len(list(log.read("readings"))) == 2
    log.close()


def test_a_duplicate_in_the_round_of_its_original_fails_with_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    under_way, claim = log.claim("under way"), log.claim("a")
    gate = _Gate()
    files.before("sync", gate, ".seg")
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    log.append_nowait([reading_batch(1)], _collector(answers, 0), claim=under_way, sequence=0)
    assert gate.reached.wait(20)
    for number in (1, 2):
        log.append_nowait([reading_batch(1)], _collector(answers, number), claim=claim, sequence=0)
    files.fail("sync", suffix=".seg")
    gate.open()
    wait_until(lambda: len(answers) == 3)
    assert [isinstance(error, LogFailedError) for _, _, error in answers] == [True, True, True]
    assert list(log.read("readings")) == []
    files.heal()
    log.close()


def test_what_could_not_be_stored_is_new_when_it_is_sent_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    answers: list[tuple[int, Appended | None, LogError | None]] = []
    files.fail("write", errno.ENOSPC)
    log.append_nowait([reading_batch(10)], _collector(answers, 0), claim=claim, sequence=0)
    wait_until(lambda: len(answers) == 1)
    files.heal()
    log.append_nowait([reading_batch(10)], _collector(answers, 1), claim=claim, sequence=0)
    wait_until(lambda: len(answers) == 2)
    (_, _, first), (_, again, second) = answers
    assert isinstance(first, LogFullError)
    assert second is None
    assert again is not None
    assert not again.duplicate
    assert [frame.cumulative_rows for frame in log.read("readings")] == [10]
    log.close()


def test_nothing_is_removed_before_two_checkpoints_hold_what_it_said(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files, segment_bytes=4096)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    files.fail("rename", suffix=".ckp")
    claim = log.claim("a", epoch=0)
    for number in range(20):
        log.append([reading_batch(40)], claim=claim, sequence=number, positions={"a": b"%d" % number})
    segments = len(list(tmp_path.glob("*.seg")))
    assert log.retain(size_bytes=0) == 0
    assert len(list(tmp_path.glob("*.seg"))) == segments
    assert len(list(log.read("readings"))) == 20
    files.heal()
    assert log.retain(size_bytes=0) == segments - 1
    log.close()
    newest = max(tmp_path.glob("state-*.ckp"))
    newest.unlink()
    log = open_log(tmp_path)
    assert log.positions() == {"a": b"19"}
    assert log.claim("a", epoch=0).last_sequence == 19
    log.close()


def test_short_writes_are_completed(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    files.short_writes = True
    claim = log.claim("a")
    for number in range(5):
        log.append([reading_batch(100, value=number)], claim=claim, sequence=number)
    log.close()
    log = open_log(tmp_path)
    assert len(values(log.read("readings"))) == 500
    log.close()


def test_a_full_disk_is_lived_through(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files, segment_bytes=8192)
    claim = log.claim("a")
    files.space_bytes = 40_000
    stored, refused = [], 0
    for number in range(60):
        try:
            log.append([reading_batch(50, value=number * 1000)], claim=claim, sequence=number)
            stored.append(number)
        except LogFullError:
            refused += 1
    assert stored
    assert refused
    assert len(values(log.read("readings"))) == 50 * len(stored)
    files.heal()
    log.append([reading_batch(50, value=99_000)], claim=claim, sequence=99)
    log.close()
    log = open_log(tmp_path)
    got = values(log.read("readings"))
    assert got == [float(number * 1000 + n) for number in [*stored, 99] for n in range(50)]
    log.close()


@promise(Fault.DISK_FULL, Part.JOURNAL, "It opens, and is readable, without a byte of space.")
def test_a_log_opens_on_a_full_disk_and_writes_when_space_returns(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    claim = log.claim("a", epoch=0)
    log.append([reading_batch(5)], claim=claim, sequence=0)
    log.close()
    files = FaultyFiles()
    files.space_bytes = 0
    log = _open(tmp_path, files)
    assert len(values(log.read("readings"))) == 5
    with pytest.raises(LogFullError):
        log.claim("a", epoch=0)
    files.heal()
    claim = log.claim("a", epoch=0)
    assert claim.last_sequence == 0
    log.append([reading_batch(5)], claim=claim, sequence=1)
    log.close()
    log = open_log(tmp_path)
    assert len(values(log.read("readings"))) == 10
    log.close()


def test_every_nth_failing_call_leaves_all_that_was_acknowledged(tmp_path: Path) -> None:
    for call in ("write", "sync", "create", "rename", "sync_directory", "remove", "open"):
        for nth in range(6):
            directory = tmp_path / f"{call}{nth}"
            files = FaultyFiles()
            log = _open(directory, files, segment_bytes=4096)
            claim = log.claim("a", epoch=0)
            files.fail(call, nth=nth)
            acknowledged = []
            for number in range(12):
                try:
                    log.append([reading_batch(40, value=number * 100)], claim=claim, sequence=number)
                    acknowledged.append(number)
                except LogError:
                    log.append([reading_batch(40, value=number * 100)], claim=claim, sequence=number)
                    acknowledged.append(number)
            log.close()
            log = open_log(directory)
            got = values(log.read("readings"))
            assert got == [float(number * 100 + n) for number in acknowledged for n in range(40)], (call, nth)
            log.close()


@promise(Fault.SYNC_ERROR, Part.JOURNAL, "What a failed call left in a file never comes back.")
def test_what_a_failed_write_left_behind_never_comes_back(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a", epoch=0)
    log.append([reading_batch(1, value=1)], claim=claim, sequence=0)
    # the bytes reach the file, the sync fails, and the new segment cannot be made either
    files.fail("sync", nth=0, suffix=".seg")
    files.fail("create", nth=0, suffix=".seg")
    with pytest.raises(LogFailedError):
        log.append([reading_batch(1, value=2)], claim=claim, sequence=1)
    files.heal()
    assert (tmp_path / "0000000001.seg").read_bytes().count(GROUP_MAGIC.to_bytes(4, "little")) > 2
    log.append([reading_batch(1, value=3)], claim=claim, sequence=1)
    log.close()
    log = open_log(tmp_path)
    assert values(log.read("readings")) == [1.0, 3.0]
    log.close()


def test_the_queue_of_waiting_appends_is_bounded(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files, queue_bytes=1 << 20)
    claim = log.claim("a")
    gate = _Gate()
    files.before("sync", gate)
    taken: list[int] = []
    answered: list[int] = []

    def produce() -> None:
        for number in range(40):
            log.append_nowait(
                [reading_batch(5_000)], lambda *_: answered.append(1), claim=claim, sequence=number
            )
            taken.append(number)

    producer = threading.Thread(target=produce)
    producer.start()
    assert gate.reached.wait(20)
    wait_until(lambda: len(taken) >= 9)
    producer.join(0.2)
    assert producer.is_alive()
    assert len(taken) < 20
    files.before("sync", None)
    gate.open()
    producer.join(20)
    wait_until(lambda: len(answered) == 40)
    log.close()


def test_an_idle_log_calls_nothing(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = _open(tmp_path, files)
    claim = log.claim("a")
    log.create_stream("notes", StreamKind.ROW, NOTE)  # returns when the background work is done as well
    log.append([reading_batch(1)], claim=claim, sequence=0)
    before = sum(files.calls.values())
    assert not threading.Event().wait(0.3)
    assert sum(files.calls.values()) == before
    log.close()


def test_the_names_of_new_directories_are_durable_before_anything_is_acknowledged(tmp_path: Path) -> None:
    files = FaultyFiles()
    _open(tmp_path / "x" / "y", files).close()
    syncs = [line for line in files.trail if line.startswith("sync_directory")]
    assert syncs[:2] == ["sync_directory x", f"sync_directory {tmp_path.name}"]
    files.trail.clear()
    _open(tmp_path / "x" / "y", files).close()
    assert not {"sync_directory x", f"sync_directory {tmp_path.name}"} & set(files.trail)
