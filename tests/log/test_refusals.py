"""What an append that is refused, or fails, does to those before and behind it: nothing is taken for stored."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from ringmain.log import open_log
from ringmain.log.interface import Appended, Batch, LogError, LogFailedError, LogFullError
from ringmain.testing import FaultyFiles
from tests.log.batches import reading_batch, readings, values, wait_until


def _collector(answers: dict[int, Appended | LogError], number: int) -> Any:
    def done(appended: Appended | None, error: LogError | None) -> None:
        answer = error or appended
        assert answer is not None
        answers[number] = answer

    return done


class _Gate:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()


def test_an_append_that_cannot_be_stored_spoils_none_of_its_round(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as log:
        good, bad = log.claim("good"), log.claim("bad")
        gate = _Gate()
        files.before("sync", gate, ".seg")
        answers: dict[int, Appended | LogError] = {}
        log.append_nowait([reading_batch(1, value=1)], _collector(answers, 0), claim=good, sequence=0)
        assert gate.reached.wait(20)
        log.append_nowait([reading_batch(1, value=2)], _collector(answers, 1), claim=good, sequence=1)
        beyond = Batch("readings", readings(1, value=3), origin_arrival_ns=2**63)
        log.append_nowait([beyond], _collector(answers, 2), claim=bad, sequence=0)
        log.append_nowait([reading_batch(1, value=4)], _collector(answers, 3), claim=good, sequence=2)
        files.before("sync", None)
        gate.open()
        wait_until(lambda: len(answers) == 4)
        assert isinstance(answers[2], LogError)
        for number in (0, 1, 3):
            assert isinstance(answers[number], Appended)
        assert values(log.read("readings")) == [1.0, 2.0, 4.0]
        assert log.append([reading_batch(1, value=5)], claim=bad, sequence=0).duplicate is False


@pytest.mark.parametrize("position", [{"a/\udcff": b"x"}, {"a": "text"}, {"a": 7}, {5: b"x"}])
def test_positions_that_cannot_be_stored_are_refused(tmp_path: Path, position: Any) -> None:
    with open_log(tmp_path) as log:
        claim = log.claim("a")
        with pytest.raises(LogError):
            log.append([reading_batch(1)], claim=claim, sequence=0, positions=position)
        assert not log.append([reading_batch(1)], claim=claim, sequence=0, positions={"a": b"x"}).duplicate
        assert log.positions() == {"a": b"x"}


def test_appends_behind_one_that_failed_fail_too_so_that_all_can_be_sent_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as log:
        claim, other = log.claim("a", epoch=0), log.claim("b")
        gate = _Gate()
        files.before("sync", gate, ".seg")
        answers: dict[int, Appended | LogError] = {}

        def fail_only_this(appended: Appended | None, error: LogError | None) -> None:
            files.heal()  # space returns before the appends that wait already are written
            _collector(answers, 0)(appended, error)

        log.append_nowait([reading_batch(1, value=0)], fail_only_this, claim=claim, sequence=0)
        assert gate.reached.wait(20)
        for number in range(1, 4):
            batch = reading_batch(1, value=number)
            log.append_nowait([batch], _collector(answers, number), claim=claim, sequence=number)
        log.append_nowait([reading_batch(1, value=9)], _collector(answers, 9), claim=other, sequence=0)
        files.fail("sync", errno.ENOSPC)
        files.before("sync", None)
        gate.open()
        wait_until(lambda: len(answers) == 5)
        assert isinstance(answers[0], LogFullError)
        assert all(isinstance(answers[number], LogFailedError) for number in range(1, 4))
        assert isinstance(answers[9], Appended), "other producers are not concerned"
        for number in range(4):
            assert not log.append([reading_batch(1, value=number)], claim=claim, sequence=number).duplicate
        assert values(log.read("readings")) == [9.0, 0.0, 1.0, 2.0, 3.0]


def test_an_append_behind_those_that_are_refused_is_refused_with_them(tmp_path: Path) -> None:
    """It knew of the failure, not of those that waited behind it: stored, it would make their repeats duplicates."""
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as log:
        claim = log.claim("a", epoch=0)
        gate = _Gate()
        files.before("sync", gate, ".seg")
        answers: dict[int, Appended | LogError] = {}

        def fail_and_go_on(appended: Appended | None, error: LogError | None) -> None:
            files.heal()
            log.append_nowait([reading_batch(1, value=4)], _collector(answers, 4), claim=claim, sequence=4)
            _collector(answers, 0)(appended, error)

        log.append_nowait([reading_batch(1, value=0)], fail_and_go_on, claim=claim, sequence=0)
        assert gate.reached.wait(20)
        for number in range(1, 4):
            batch = reading_batch(1, value=number)
            log.append_nowait([batch], _collector(answers, number), claim=claim, sequence=number)
        files.fail("sync", errno.ENOSPC)
        files.before("sync", None)
        gate.open()
        wait_until(lambda: len(answers) == 5)
        assert isinstance(answers[0], LogFullError)
        assert all(isinstance(answers[number], LogFailedError) for number in range(1, 5))
        for number in range(5):
            assert not log.append([reading_batch(1, value=number)], claim=claim, sequence=number).duplicate
        assert values(log.read("readings")) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_producer_that_gives_an_append_up_goes_on_with_the_next(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as log:
        claim = log.claim("a")
        files.fail("sync", errno.ENOSPC)
        for number in range(3):
            with pytest.raises(LogFullError):
                log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
        files.heal()
        assert not log.append([reading_batch(1, value=3)], claim=claim, sequence=3).duplicate
        assert values(log.read("readings")) == [3.0]


def test_waiting_on_the_thread_that_would_have_to_answer_is_refused(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        claim, second = log.claim("a"), log.claim("b")
        errors: list[LogError] = []
        stored = threading.Event()

        def done(*_: Any) -> None:
            for attempt in (
                lambda: log.append([reading_batch(1)], claim=second, sequence=0),
                lambda: log.claim("c"),
                lambda: log.retain(size_bytes=0),
                log.close,
            ):
                try:
                    attempt()
                except LogError as error:
                    errors.append(error)
            log.append_nowait([reading_batch(1)], lambda *_: stored.set(), claim=second, sequence=1)

        log.append_nowait([reading_batch(1)], done, claim=claim, sequence=0)
        assert stored.wait(20)
        assert len(errors) == 4
        assert len(list(log.read("readings"))) == 2
