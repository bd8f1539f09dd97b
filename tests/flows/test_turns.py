"""Flows of a process have turns one after the other, and one that takes long slows nobody but itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import ringmain.flows.turns as turns_module
from ringmain.flows.turns import Turns
from tests.log.batches import wait_until


class _Flow:
    """Has so many turns in a thread of its own. `turn`: what is done in each, with its number."""

    def __init__(self, turns: Turns, count: int, turn: Callable[[int], None] = lambda number: None) -> None:
        self.had: list[threading.Thread] = []
        self.error: BaseException | None = None
        self._turns = turns
        self._count = count
        self._turn = turn
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._turns.have(self._have)
        except BaseException as error:
            self.error = error

    def _have(self) -> bool:
        self.had.append(threading.current_thread())
        self._turn(len(self.had))
        return len(self.had) < self._count

    def end(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


def waited(begin: threading.Event) -> None:
    assert begin.wait(30)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn takes long."""
    monkeypatch.setattr(turns_module, "WAIT_S", 60.0)


def test_a_flow_that_is_alone_has_its_turns_in_its_own_thread() -> None:
    flow = _Flow(Turns(), 5)
    flow.end()
    assert flow.had == [flow.thread] * 5


@pytest.mark.usefixtures("patient")
def test_turns_of_several_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    turns = Turns()
    had: list[int] = []
    begin = threading.Event()

    def first(number: int) -> None:
        begin.wait(30)

    flows = [_Flow(turns, 2, first)]
    wait_until(lambda: bool(flows[0].had))
    for number in range(5):
        flows.append(_Flow(turns, 3, lambda _, number=number: had.append(number)))  # type: ignore[misc]
        wait_until(lambda number=number: len(turns._waiting) == number + 1)
    begin.set()
    for flow in flows:
        flow.end()
    assert had == [*range(5)] * 3
    assert [len(flow.had) for flow in flows] == [2, 3, 3, 3, 3, 3]


@pytest.mark.usefixtures("patient")
def test_never_more_than_so_many_turns_are_had_at_once() -> None:
    turns = Turns(2)
    together = threading.Barrier(2)
    lock = threading.Lock()
    most = now = 0

    def turn(number: int) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        if number == 1:
            together.wait(30)  # both places are had
        with lock:
            now -= 1

    flows = [_Flow(turns, 50, turn) for _ in range(6)]
    for flow in flows:
        flow.end()
    assert most == 2


def test_nobody_waits_long_for_a_turn_that_somebody_keeps() -> None:
    turns = Turns()
    let_go = threading.Event()

    def keep(number: int) -> None:
        let_go.wait(60)

    keeping = [_Flow(turns, 2, keep) for _ in range(3)]
    others = [_Flow(turns, 20) for _ in range(3)]
    for flow in others:
        flow.end()
    assert [len(flow.had) for flow in keeping] == [1, 1, 1]
    let_go.set()
    for flow in keeping:
        flow.end()
    assert [len(flow.had) for flow in keeping] == [2, 2, 2]


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_turn_raises_is_its_flows_and_the_others_go_on(alone: bool) -> None:
    turns = Turns()
    begin = threading.Event()

    def fail(number: int) -> None:
        if number == 2:
            raise ValueError("of this flow")

    first = None if alone else _Flow(turns, 1, lambda _: waited(begin))
    if first is not None:
        wait_until(lambda: bool(first.had))
    failing = _Flow(turns, 5, fail)
    other = _Flow(turns, 5)
    begin.set()
    for flow in (first, failing, other):
        if flow is not None:
            flow.end()
    assert repr(failing.error) == "ValueError('of this flow')"
    assert (len(failing.had), len(other.had), other.error) == (2, 5, None)


def test_threads_that_have_nothing_to_do_end_and_others_come_when_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "IDLE_S", 0.01)
    turns = Turns()
    for _ in range(3):
        begin = threading.Event()
        first = _Flow(turns, 1, lambda _, begin=begin: waited(begin))  # type: ignore[misc]
        wait_until(lambda first=first: bool(first.had))  # type: ignore[misc]
        second = _Flow(turns, 3)
        wait_until(lambda: len(turns._waiting) == 1)
        begin.set()
        first.end()
        second.end()
        [worker] = set(second.had)
        wait_until(lambda worker=worker: not worker.is_alive())  # type: ignore[misc]
        assert turns._parked == []
