"""`sync` delays the sync, and with it the acknowledgement: it never lets anything be known before it is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringmain.log import open_log
from ringmain.log.interface import Appended, Log, LogError, StreamKind
from ringmain.log.journal import Journal
from ringmain.log.settings import LogSettings, parse_sync
from ringmain.testing import FaultyFiles
from tests.log.batches import NOTE, reading_batch, values, wait_until
from tests.log.contract import LogContract

POLICIES = ["always", "5ms", "1s"]
HOURS_NS = 10 * 3600 * 10**9
"""Longer than any test: what waits for the end of such a delay never ends."""


class TestJournalThatGathers(LogContract):
    def open(self, directory: Any) -> Log:
        log: Log = open_log(directory, segment_bytes=2 << 20, sync_delay_ns=parse_sync("2ms"))
        return log


class _CountedSyncs(FaultyFiles):
    """Syncs cost nothing here, so that how many there are depends on the policy alone."""

    def fdatasync(self, handle: int) -> None:
        self.enter("sync", self._paths.get(handle))

    @property
    def syncs(self) -> int:
        return sum(1 for line in list(self.trail) if line.startswith("sync ") and line.endswith(".seg"))


class _Answers:
    """Collects answers in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.errors: list[LogError] = []

    def of(self, number: int) -> Callable[[Appended | None, LogError | None], None]:
        def done(_: Appended | None, error: LogError | None) -> None:
            self.numbers.append(number)
            if error is not None:
                self.errors.append(error)

        return done


@pytest.mark.parametrize("policy", POLICIES)
def test_no_answer_no_frame_and_no_notice_precedes_the_sync_whatever_the_policy(
    tmp_path: Path, policy: str
) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, fs=files, sync_delay_ns=parse_sync(policy))
    claim = log.claim("a")
    end, told, answers = log.end(), threading.Event(), _Answers()
    reached, go = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go.wait(60)

    log.on_durable(told.set)
    told.clear()
    files.before("sync", hold, ".seg")
    for number in range(20):
        log.append_nowait(
            [reading_batch(1)], answers.of(number), claim=claim, sequence=number, positions={"a": b"x"}
        )
    mark = (tmp_path / "durable").read_bytes()
    assert reached.wait(20), "the sync is delayed, not forgotten"
    assert answers.numbers == []
    assert log.end() == end
    assert list(log.read("readings")) == []
    assert log.positions() == {}
    assert not told.is_set()
    assert (tmp_path / "durable").read_bytes() == mark
    files.before("sync", None)
    go.set()
    wait_until(lambda: len(answers.numbers) == 20)
    assert answers.numbers == list(range(20))
    assert answers.errors == []
    assert told.is_set()
    assert len(list(log.read("readings"))) == 20
    log.close()


def _syncs_of_a_hundred_appends(directory: Path, policy: str) -> int:
    files, answers = _CountedSyncs(), _Answers()
    with open_log(directory, fs=files, sync_delay_ns=parse_sync(policy)) as log:
        claim = log.claim("a")
        before = files.syncs
        for number in range(100):
            log.append_nowait([reading_batch(1)], answers.of(number), claim=claim, sequence=number)
            if policy == "always":
                wait_until(lambda number=number: number in answers.numbers)
        wait_until(lambda: len(answers.numbers) == 100)
        assert len(values(log.read("readings"))) == 100
        return files.syncs - before


def test_a_delay_covers_the_same_appends_with_fewer_syncs(tmp_path: Path) -> None:
    syncs = {policy: _syncs_of_a_hundred_appends(tmp_path / policy, policy) for policy in ("always", "5ms")}
    assert syncs["always"] == 100, "nothing is waited for while nothing is under way"
    assert 1 <= syncs["5ms"] < 50


def test_appends_that_come_within_the_delay_share_one_sync(tmp_path: Path) -> None:
    files = _CountedSyncs()
    with open_log(tmp_path) as log:
        log.claim("a")  # the first claim of a name is followed by a checkpoint, which cuts a delay short
    with open_log(tmp_path, fs=files, sync_delay_ns=HOURS_NS) as log:
        claim, answers = log.claim("a"), _Answers()
        before = files.syncs
        for number in range(100):
            log.append_nowait([reading_batch(1)], answers.of(number), claim=claim, sequence=number)
        log.claim("b")
        assert answers.numbers == list(range(100))
        assert files.syncs == before + 1


def _claims(log: Journal) -> None:
    assert log.claim("other").fence == 1


def _creates_a_stream(log: Journal) -> None:
    assert log.create_stream("notes", StreamKind.ROW, NOTE).name == "notes"


def _removes_segments(log: Journal) -> None:
    assert log.retain(size_bytes=0) > 0


def _closes(log: Journal) -> None:
    log.close()


def _fills_the_queue(log: Journal) -> None:
    claim, answers = log.claim("full"), _Answers()
    for number in range(40):
        log.append_nowait([reading_batch(5_000)], answers.of(number), claim=claim, sequence=number)
    assert answers.numbers


@pytest.mark.parametrize(
    "hurried", [_claims, _creates_a_stream, _removes_segments, _closes, _fills_the_queue]
)
def test_the_delay_is_cut_short_by_whoever_waits_for_the_log_itself(
    tmp_path: Path, hurried: Callable[[Journal], None]
) -> None:
    filled = open_log(tmp_path, segment_bytes=4096)
    claim = filled.claim("old")
    for number in range(10):
        filled.append([reading_batch(40)], claim=claim, sequence=number)
    for name in ("a", "full"):
        filled.claim(name)  # the first claim of a name is followed by a checkpoint, which cuts a delay short
    filled.close()
    log = open_log(tmp_path, segment_bytes=4096, queue_bytes=1 << 20, sync_delay_ns=HOURS_NS)
    claim, answers = log.claim("a"), _Answers()
    log.append_nowait([reading_batch(1, value=7)], answers.of(0), claim=claim, sequence=0)
    hurried(log)
    wait_until(lambda: answers.numbers == [0])
    assert answers.errors == []
    log.close()
    with open_log(tmp_path) as log:
        assert 7.0 in values(log.read("readings"))


def test_a_full_round_is_synced_at_once(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.claim("a")
    with open_log(tmp_path, sync_delay_ns=HOURS_NS) as log:
        claim, answers = log.claim("a"), _Answers()
        for number in range(2_100):
            log.append_nowait([], answers.of(number), claim=claim, sequence=number)
        wait_until(lambda: len(answers.numbers) >= 2_000)
        assert answers.errors == []


def test_large_appends_one_after_the_other_do_not_wait_for_the_delay(tmp_path: Path) -> None:
    """A flow that catches up appends half a megabyte and waits for it: at one a second it never would."""
    with open_log(tmp_path, sync_delay_ns=HOURS_NS) as log:
        claim = log.claim("a", epoch=0)
        for number in range(5):
            log.append([reading_batch(20_000)], claim=claim, sequence=number)


def test_a_gathered_round_that_fails_is_told_and_may_be_sent_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, fs=files, sync_delay_ns=parse_sync("5ms"))
    claim, answers = log.claim("a"), _Answers()
    files.fail("sync", suffix=".seg")
    for number in range(10):
        log.append_nowait([reading_batch(1, value=number)], answers.of(number), claim=claim, sequence=number)
    wait_until(lambda: len(answers.errors) == 10)
    assert list(log.read("readings")) == []
    files.heal()
    for number in range(10):
        assert not log.append([reading_batch(1, value=number)], claim=claim, sequence=number).duplicate
    assert values(log.read("readings")) == [float(number) for number in range(10)]
    log.close()


@pytest.mark.parametrize(
    ("text", "delay_ns"), [("always", 0), ("5ms", 5_000_000), ("1s", 10**9), ("0.5s", 5 * 10**8)]
)
def test_a_policy_is_always_or_a_duration_of_at_most_a_second(text: str, delay_ns: int) -> None:
    assert parse_sync(text) == delay_ns
    assert LogSettings(sync=text).check() == []


@pytest.mark.parametrize("text", ["never", "", "0ms", "2s", "1.1s", "1h", "-5ms", "5", "Always"])
def test_any_other_policy_is_refused_with_what_was_expected(text: str) -> None:
    ((key, message),) = LogSettings(sync=text).check()
    assert key == "sync"
    assert message.startswith('expected "always" or a duration of at most 1s')
    assert repr(text) in message
