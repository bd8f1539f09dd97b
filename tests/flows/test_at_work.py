"""What is known of a call that ended its process. `tests/node/test_failing_steps.py` has real processes that die."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ringmain.flows import at_work
from ringmain.flows.at_work import (
    AtWork,
    HeldError,
    LeftBehind,
    Notes,
    ProcessDiedError,
    left_behind,
    longest,
    set_down,
)
from ringmain.log.interface import Position


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


class Process:
    """`next()`: from here on it is another process, and the one before left its notes as they were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._number = 0

    def next(self) -> None:
        self._number += 1
        self._monkeypatch.setattr(at_work, "_PROCESS", self._number)


def dies(notes: Notes, place: str) -> None:
    AtWork(notes, "step").begin(place)


def test_a_call_in_which_the_process_died_as_often_as_it_may_is_not_made_again(
    tmp_path: Path, process: Process
) -> None:
    notes = Notes(tmp_path / "flow", 2)
    for _ in range(2):
        process.next()
        step = AtWork(notes, "step")
        step.begin("1-0-1")  # one that goes well
        step.end()
        dies(notes, "1-0-2")
    for _ in range(2):
        process.next()
        step = AtWork(notes, "step")
        step.begin("1-0-1")
        step.end()
        with pytest.raises(ProcessDiedError, match="ended 2 times in the call behind position 1-0-2"):
            step.begin("1-0-2")
        with pytest.raises(ProcessDiedError):
            AtWork(notes, "step").begin("1-0-2")
        step.begin("1-0-3")
        step.end()
        AtWork(notes, "other").begin("1-0-2")


def test_deaths_at_different_places_and_calls_that_end_well_do_not_add_up(
    tmp_path: Path, process: Process
) -> None:
    notes = Notes(tmp_path / "flow", 2)
    for place in ("1-0-2", "1-0-3", "1-0-2", "1-0-3"):
        process.next()
        dies(notes, place)
    process.next()
    step = AtWork(notes, "step")
    step.begin("1-0-3")
    step.end()
    process.next()
    dies(notes, "1-0-3")
    process.next()
    AtWork(notes, "step").begin("1-0-3")


def test_an_end_in_order_is_no_death_but_what_was_called_then_can_be_skipped(
    tmp_path: Path, process: Process
) -> None:
    notes = Notes(tmp_path / "flow", 1)
    for _ in range(3):
        process.next()
        stuck = AtWork(notes, "step")
        stuck.begin("1-0-2")
        found = longest(notes.path)
        assert found is not None
        assert found[0] == "1-0-2"
        assert longest(tmp_path / "another") is None
        set_down(notes.path)
        stuck.since_s = None
    process.next()
    AtWork(Notes(notes.path, 0), "step")  # somebody said to skip it
    process.next()
    step = AtWork(notes, "step")
    with pytest.raises(ProcessDiedError, match="did not return, and was told to be skipped"):
        step.begin("1-0-2")
    step.begin("1-0-3")


def test_a_position_is_known_again_as_it_is_and_as_its_text(tmp_path: Path, process: Process) -> None:
    places = [Position(1, 0, 2), Position(2**64 - 1, 2**63, 2**64 - 1), Position(0, 0, 0)]
    for number, position in enumerate(places):
        notes = Notes(tmp_path / f"flow{number}", 2)
        for place in (str(position), position):  # a version before this one noted texts
            process.next()
            step = AtWork(notes, "step")
            step.begin(Position(1, 0, 1))
            step.end()
            step.begin(place)
        process.next()
        step = AtWork(notes, "step")
        for place in (str(position), position):
            with pytest.raises(ProcessDiedError, match=f"behind position {position}"):
                step.begin(place)
        step.begin(Position(1, 0, 1))
        assert longest(notes.path) is not None
        step.end()
        step.begin("1-0-3")
        step.end()
        step.begin(Position(1, 0, 4))
        found = longest(notes.path)
        assert found is not None
        assert found[0] == str(Position(1, 0, 4))
        set_down(notes.path)


def test_a_call_that_ends_at_a_position_of_deaths_is_forgotten_as_one(
    tmp_path: Path, process: Process
) -> None:
    notes = Notes(tmp_path / "flow", 2)
    place = Position(1, 0, 2)
    process.next()
    AtWork(notes, "step").begin(place)
    process.next()
    step = AtWork(notes, "step")
    step.begin(place)
    step.end()
    process.next()
    AtWork(notes, "step").begin(place)
    process.next()
    AtWork(notes, "step").begin(place)


def test_without_notes_nothing_is_known_and_nothing_written(tmp_path: Path) -> None:
    step = AtWork(None, "step")
    step.begin("1-0-1")
    step.set_down()
    step.end()
    assert not list(tmp_path.iterdir())


def test_a_note_that_is_damaged_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "flow.step.at-work").write_bytes(b"\xff" * 300)
    step = AtWork(Notes(tmp_path / "flow", 2), "step")
    step.begin("1-0-1")
    step.end()


def test_one_thread_may_ask_while_others_begin(tmp_path: Path) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not ended.is_set():
                longest(tmp_path / "flow")
        except BaseException as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(300):
        AtWork(Notes(tmp_path / "flow", 2), f"step{number % 3}").begin("1-0-1")
    ended.set()
    asking.join()
    assert not failures


def test_a_step_whose_calls_kill_one_process_after_the_other_is_held_until_somebody_says_so(
    tmp_path: Path, process: Process
) -> None:
    notes = Notes(tmp_path / "flow-load", 2)

    def at(offset: int) -> Position:
        return Position(1, 0, offset)

    def dies_at(offset: int) -> None:
        process.next()
        step = AtWork(notes, "step-0123abcd")
        for before in (1, 2):  # what was done before is done again
            step.begin(at(before))
            step.end()
        step.begin(at(offset))

    for offset in (3, 3, 4):
        dies_at(offset)
    process.next()
    assert left_behind(tmp_path) == [LeftBehind("load", "step", str(at(4)))]
    AtWork(notes, "step-0123abcd").begin(at(4))
    for _ in range(2):
        process.next()
        with pytest.raises(HeldError, match="4 times in a row in calls of this step"):
            AtWork(notes, "step-0123abcd").begin(at(1))
        assert left_behind(tmp_path) == []
    process.next()
    told = AtWork(Notes(notes.path, 2, anew=True), "step-0123abcd")
    told.begin(at(4))
    told.end()
    for offset in (5, 5, 6):
        dies_at(offset)
    process.next()
    step = AtWork(notes, "step-0123abcd")
    for offset in (6, 7):
        step.begin(at(offset))
        step.end()
    for offset in (8, 8, 9):  # a later call returned between: another row begins
        dies_at(offset)
    process.next()
    AtWork(notes, "step-0123abcd").begin(at(9))
