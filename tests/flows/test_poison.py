"""A batch on which a step fails becomes a dead letter after the stated number of tries, and the flow goes on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

import ringmain.flows.failing as failing_module
import ringmain.flows.runner as runner_module
from ringmain.flows.aggregates import Aggregate, Late
from ringmain.flows.block import Block
from ringmain.flows.control import Action, Command, give
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState, SnapshotPolicy
from ringmain.flows.runner import FlowRunner
from ringmain.flows.step import Context, Plan, Shape, Stateless, StepSettings, StepState, Surroundings
from ringmain.flows.steps.python import PythonSettings
from ringmain.flows.steps.sql import GIVEN_UP, SqlSettings
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.log import open_log
from ringmain.log.journal import Journal
from ringmain.runtime.counters import Counters

from .real_log import SECOND, START, Feed, run_to_end, until
from .steps.driving import plain

POISON = 666.0


class Picky(StepSettings, frozen=True, tag="picky"):
    """Passes everything on; raises ZeroDivisionError on one value, at once or when the instant ends."""

    at_once: bool = True
    mended: bool = False
    hopeless: bool = False

    def definition(self, around: Surroundings) -> dict[str, object]:
        return {"at_once": self.at_once}

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        return Plan(shape)

    def make(self, shape: Shape, context: Context) -> PickyStep:
        return PickyStep(self)


class PickyStep(Stateless):
    def __init__(self, settings: Picky) -> None:
        self._settings = settings
        self._held: list[Block] = []

    def _look(self, block: Block) -> None:
        if not self._settings.mended and (block.value == POISON).any():
            raise ZeroDivisionError("no value like this one")

    def take(self, block: Block) -> Sequence[Block]:
        if self._settings.at_once:
            self._look(block)
            return [block]
        self._held.append(block)
        return []

    def advance(self, now_ns: int) -> Sequence[Block]:
        if self._settings.hopeless:
            raise ZeroDivisionError("always")
        held, self._held = self._held, []
        for block in held:
            self._look(block)
        return held

    def state(self) -> StepState:
        return {
            f"{n}{name}": getattr(b, name) for n, b in enumerate(self._held) for name in ("value", "time")
        }

    def restore(self, state: StepState) -> None:
        assert not state, "a snapshot between take and advance holds rows; this step is restored without any"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(runner_module, "_WAIT_S", 0.05)


def flow_of(log: Journal, directory: Path, step: Picky, tries: int = 3) -> FlowRunner:
    settings = FlowSettings("out", (step,), tries=tries)
    return FlowRunner(
        "picky", settings, log, Counters(), directory / "snapshots", policy=SnapshotPolicy(refold_s=-1.0)
    )


def story(feed: Feed) -> None:
    for number in range(5):
        now = START + number * SECOND + 123  # to the nanosecond
        feed.readings([(1, now, float(number), 0)], now)
        if number == 2:
            feed.readings([(2, now, POISON, 0)], now)
        feed.tick(now + SECOND // 2)


def values(log: Journal) -> list[float]:
    return [value for frame in log.read("out") for value in frame.rows.column("value").to_pylist()]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_batch_becomes_a_dead_letter_with_step_position_and_traceback_and_the_flow_goes_on(
    tmp_path: Path, at_once: bool
) -> None:
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky(at_once=at_once))
        flow.start()
        run_to_end(log, flow)
        found = values(log)
        assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
        letters = [row for frame in log.read("deadletters") for row in plain(frame.rows)]
        assert len(letters) == 1
        poisoned = [
            frame for frame in log.read("readings") if 666.0 in frame.rows.column("value").to_pylist()
        ]
        letter = letters[-1]
        assert letter["source"] == "flow/picky"
        assert letter["topic"] == "step 1 picky"
        assert str(poisoned[0].position) in letter["reason"]
        assert "in _look" in letter["reason"]
        assert b"666.0" in letters[-1]["payload"]
        assert b".000000123Z" in letters[-1]["payload"]
        assert "ZeroDivisionError: no value like this one" in letter["reason"]
        assert flow.status().failed == len(letters)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_skipped_batch_stays_skipped_however_often_the_flow_is_taken_up_again(
    tmp_path: Path, at_once: bool
) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        story(feed)
        flow = flow_of(log, tmp_path, Picky(at_once=at_once))
        flow.start()
        run_to_end(log, flow)
        found = values(log)
        for path in (tmp_path / "snapshots").iterdir():
            path.unlink()
        feed.readings([(1, START + 9 * SECOND, 9.0, 0)], START + 9 * SECOND)
        feed.tick(START + 10 * SECOND)
        again = flow_of(log, tmp_path, Picky(at_once=at_once))
        again.start()
        run_to_end(log, again)
        assert values(log) == [*found, 9.0]
        assert again.status().failed == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_what_came_before_a_batch_that_is_left_out_is_given_once(tmp_path: Path, at_once: bool) -> None:
    """Readings that follow one another without a tick: that the batch arrived had ended the instant before it."""
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        for number, value in enumerate((1.0, POISON, 2.0, 3.0, POISON, POISON, 4.0)):
            feed.readings([(1, START + number * SECOND, value, 0)], START + number * SECOND)
        feed.tick(START + 9 * SECOND)
        flow = flow_of(log, tmp_path, Picky(at_once=at_once), tries=1)
        flow.start()
        run_to_end(log, flow)
        assert values(log) == [1.0, 2.0, 3.0, 4.0]
        assert flow.status().failed == 3


def _instant(feed: Feed, second: int, *values: float) -> None:
    """Batches of one arrival."""
    for number, value in enumerate(values):
        _one(feed, number, second, value)


def test_of_the_batches_of_an_instant_those_at_fault_are_left_out_and_no_others(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        _instant(feed, 0, 1.0)
        _instant(feed, 1, 2.0, POISON, 3.0, 4.0, 5.0, 6.0, 7.0, POISON, 8.0)
        _instant(feed, 2, POISON)
        _instant(feed, 3, POISON, POISON)
        _instant(feed, 4, 9.0)
        feed.tick(START + 6 * SECOND)
        flow = flow_of(log, tmp_path, Picky(at_once=False), tries=2)
        flow.start()
        run_to_end(log, flow)
        assert values(log) == list(map(float, range(1, 10)))
        letters = [row for frame in log.read("deadletters") for row in plain(frame.rows)]
        assert len(letters) == flow.status().failed == 5
        assert all(b"666.0" in letter["payload"] for letter in letters)
        for path in (tmp_path / "snapshots").iterdir():
            path.unlink()
        feed.readings([(1, START + 9 * SECOND, 10.0, 0)], START + 9 * SECOND)
        feed.tick(START + 10 * SECOND)
        again = flow_of(log, tmp_path, Picky(at_once=False))
        again.start()
        run_to_end(log, again)
        assert values(log) == list(map(float, range(1, 11)))
        assert again.status().failed == 0


def test_a_replay_leaves_out_the_same_batches_of_an_instant_until_the_step_is_mended(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        _instant(feed, 1, 1.0, POISON, 2.0, POISON, 3.0)
        feed.tick(START + 6 * SECOND)
        flow = flow_of(log, tmp_path, Picky(at_once=False), tries=1)
        flow.start()
        run_to_end(log, flow)
        for step, expected in ((Picky(at_once=False), 0), (Picky(at_once=False, mended=True), 2)):
            command = Command(Action.REPLAY)
            give(log, "picky", command)
            again = flow_of(log, tmp_path, step, tries=1)
            again.start()
            until(
                lambda: log.positions("flow/picky").get("flow/picky/handled") == command.id.encode(),  # noqa: B023
                "the replay is done",
            )
            run_to_end(log, again)
            found = values(log)
            assert found.count(POISON) == expected
            assert [value for value in found if value != POISON] == [1.0, 2.0, 3.0]
        assert sum(frame.row_count for frame in log.read("deadletters")) == 2


def test_a_batch_on_which_a_step_failed_as_often_as_it_may_is_left_out_though_it_works_now(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        _instant(feed, 1, 1.0, 2.0)
        feed.tick(START + 6 * SECOND)
        flow = flow_of(log, tmp_path, Fickle(at_once=False), tries=2)
        Fickle.calls.clear()
        flow.start()
        run_to_end(log, flow)
        assert values(log) == []
        assert flow.status().failed == 2


class Fickle(Picky, frozen=True, tag="fickle"):
    """Fails on the first two calls with rows."""

    calls: ClassVar[list[int]] = []

    def make(self, shape: Shape, context: Context) -> PickyStep:
        return FickleStep(self)


class FickleStep(PickyStep):
    def advance(self, now_ns: int) -> Sequence[Block]:
        held, self._held = self._held, []
        if held:
            Fickle.calls.append(1)
            if len(Fickle.calls) <= 2:
                raise ZeroDivisionError("not now")
        return held


class Together(Picky, frozen=True, tag="together"):
    """Fails where an instant has two values that do not go together, as long as it has both."""

    def make(self, shape: Shape, context: Context) -> PickyStep:
        return TogetherStep(self)


class TogetherStep(PickyStep):
    def advance(self, now_ns: int) -> Sequence[Block]:
        held, self._held = self._held, []
        if {1.0, 2.0} <= {value for block in held for value in block.value.tolist()}:
            raise ZeroDivisionError("these two")
        return held


def test_a_step_that_fails_on_too_many_batches_makes_the_flow_stand_still_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing_module, "SKIPPED_MAX", 3)
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        for second in range(5):
            _instant(feed, second, float(second), POISON)
        feed.tick(START + 9 * SECOND)
        flow = flow_of(log, tmp_path, Picky(), tries=1)
        flow.start()
        until(lambda: flow.status().state is FlowState.FAILED, "it stands still")
        assert "as on 3 batches before, which were left out" in (flow.status().last_error or "")
        assert values(log) == [0.0, 1.0, 2.0, 3.0]
        flow.settings = FlowSettings("out", (Picky(mended=True),), tries=1)
        give(log, "picky", Command(Action.REPLAY))
        until(lambda: flow.status().state is FlowState.RUNNING, "it goes on")
        run_to_end(log, flow)
        assert sorted(values(log)) == [0.0, 1.0, 2.0, 3.0, 4.0] + [POISON] * 5


def test_batches_that_fail_together_only_lose_the_later_one(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        _instant(feed, 0, 5.0, 1.0, 3.0, 4.0, 2.0, 6.0)
        feed.tick(START + 6 * SECOND)
        flow = flow_of(log, tmp_path, Together(at_once=False), tries=1)
        flow.start()
        run_to_end(log, flow)
        assert values(log) == [5.0, 1.0, 3.0, 4.0, 6.0]


class Ending(Picky, frozen=True, tag="ending"):
    """Fails whenever time goes on behind the first instant."""

    def make(self, shape: Shape, context: Context) -> PickyStep:
        return EndingStep(self)


class EndingStep(PickyStep):
    def advance(self, now_ns: int) -> Sequence[Block]:
        if now_ns > START + SECOND:
            raise ZeroDivisionError("time is up")
        held, self._held = self._held, []
        return held


def test_where_leaving_out_batches_does_not_help_none_is_and_the_flow_stands_still(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        _instant(feed, 0, 1.0)
        _instant(feed, 1, 2.0, 3.0)
        feed.tick(START + 6 * SECOND)
        flow = flow_of(log, tmp_path, Ending(at_once=False), tries=1)
        flow.start()
        until(lambda: flow.status().state is FlowState.FAILED, "it stands still")
        assert "whichever batches of its instant are left out" in (flow.status().last_error or "")
        assert flow.stop()
        assert values(log) == [1.0]
        assert not list(log.read("deadletters"))


def test_a_flow_waits_with_backoff_between_tries_and_a_person_may_skip_at_once(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky(hopeless=True, at_once=False), tries=2)
        flow.start()
        until(lambda: flow.status().state is FlowState.FAILED, "it stands still: nothing can be left out")
        assert "ringmain flow retry picky" in (flow.status().last_error or "")
        assert flow.stop()
        mended = flow_of(log, tmp_path, Picky(mended=True, at_once=False))
        mended.start()
        run_to_end(log, mended)
        assert values(log) == [0.0, 1.0, 2.0, POISON, 3.0, 4.0]


def test_a_batch_that_is_going_to_be_tried_again_is_skipped_at_once_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 3600.0)
    monkeypatch.setattr(runner_module, "_BACKOFF_MAX_S", 3600.0)
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky(), tries=100)
        flow.start()
        until(lambda: flow.status().state is FlowState.BACKOFF, "it waits to try again")
        give(log, "picky", Command(Action.SKIP))
        until(lambda: flow.status().failed == 1, "it made a dead letter")
        run_to_end(log, flow)
        assert values(log) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_what_failed_once_and_then_did_not_is_no_longer_there_to_be_skipped(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky(), tries=100)
        flow.start()
        until(lambda: flow.status().state is FlowState.BACKOFF, "it waits to try again")
        flow.settings = FlowSettings("out", (Picky(mended=True),))
        until(lambda: POISON in values(log), "it got over it")
        give(log, "picky", Command(Action.SKIP))
        until(lambda: "flow/picky/handled" in log.positions("flow/picky"), "the command is done with")
        run_to_end(log, flow)
        assert flow.status().failed == 0


def test_a_flow_that_stands_still_begins_again_when_told_and_does_so_once(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky(hopeless=True), tries=2)
        flow.start()
        until(lambda: flow.status().state is FlowState.FAILED, "it stands still")
        flow.settings = FlowSettings("out", (Picky(mended=True),))
        give(log, "picky", Command(Action.RETRY))
        until(lambda: flow.status().state is FlowState.RUNNING, "it goes on")
        run_to_end(log, flow)
        assert values(log) == [0.0, 1.0, 2.0, POISON, 3.0, 4.0]
        assert log.positions("flow/picky")["flow/picky/handled"]


def test_a_replay_after_a_step_was_mended_brings_in_what_was_left_out(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        story(Feed(log))
        flow = flow_of(log, tmp_path, Picky())
        flow.start()
        run_to_end(log, flow)
        assert POISON not in values(log)
        letters = sum(frame.row_count for frame in log.read("deadletters"))
        for step, expected in ((Picky(), 0), (Picky(mended=True), 1)):
            command = Command(Action.REPLAY)
            give(log, "picky", command)
            again = flow_of(log, tmp_path, step)
            again.start()
            until(
                lambda: log.positions("flow/picky").get("flow/picky/handled") == command.id.encode(),  # noqa: B023
                "the replay is done",
            )
            run_to_end(log, again)
            assert values(log).count(POISON) == expected
        assert sum(frame.row_count for frame in log.read("deadletters")) == letters


def test_a_window_computed_again_from_the_log_does_not_hold_what_was_left_out(tmp_path: Path) -> None:
    steps = (
        Picky(),
        WindowStepSettings(window="10s", values=(Aggregate.COUNT, Aggregate.SUM), late=Late.REVISE),
    )
    settings = FlowSettings("out", steps)
    policy = SnapshotPolicy(refold_s=-1.0)

    def flow() -> FlowRunner:
        return FlowRunner("picky", settings, log, Counters(), tmp_path / "snapshots", policy=policy)

    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        feed.readings([(1, START + SECOND, 1.0, 0)], START + SECOND)
        feed.readings(
            [(1, START + 2 * SECOND, 20.0, 0), (2, START + 2 * SECOND, POISON, 0)], START + 2 * SECOND
        )
        for second in range(3, 200, 10):
            feed.readings([(1, START + second * SECOND, 300.0, 0)], START + second * SECOND)
        first = flow()
        first.start()
        run_to_end(log, first)
        assert first.status().failed == 1
        first.stop()
        # a flow that begins with a snapshot has no readings in memory: what is late is computed from the log
        feed.readings([(1, START + 4 * SECOND, 4000.0, 0)], START + 200 * SECOND)
        feed.tick(START + 220 * SECOND)
        second_run = flow()
        second_run.start()
        run_to_end(log, second_run)
        second_run.stop()
        rows = [row for frame in log.read("out") for row in plain(frame.rows)]
        of_first = [(row["revision"], row["count"], row["sum"]) for row in rows if row["start"] == START]
        assert of_first == [(0, 2, 301.0), (1, 3, 4301.0)]
        assert second_run.status().failed == 0


ENDLESS = "select count(*) as n from rows a, rows b, rows c, rows d, rows e where a.value + b.value > c.value + d.value"


def test_a_query_that_takes_too_long_is_given_up_for_its_window_alone_and_stays_so(tmp_path: Path) -> None:
    query = SqlSettings(query=ENDLESS, window="10s", grace="0s", time_limit="1s")
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        for number in range(5):
            now = START + number * 10 * SECOND
            rows = 700 if number == 2 else 1
            feed.readings([(1, now + row * 1_000_000, 1.0, 0) for row in range(rows)], now + SECOND)
        feed.tick(START + 42 * SECOND)
        settings = FlowSettings("out", (query,), tries=1)

        def flow() -> FlowRunner:
            return FlowRunner("slow", settings, log, Counters(), tmp_path / "snapshots")

        first = flow()
        first.start()
        run_to_end(log, first)
        given = [row for frame in log.read("out") for row in plain(frame.rows)]
        assert [(row["start"] - START) // SECOND for row in given] == [0, 10, 30]
        failed = [row for frame in log.read("out.failed") for row in plain(frame.rows)]
        assert [(row["start"], row["rows"], row["reason"]) for row in failed] == [
            (START + 20 * SECOND, 700, GIVEN_UP)
        ]
        (letter,) = [row for frame in log.read("deadletters") for row in plain(frame.rows)]
        assert letter["topic"] == "step 1 sql"
        assert (
            "ran longer than 1s over the 700 rows of the window from 2023-11-14 22:13:40" in letter["reason"]
        )
        assert "time_limit" in letter["reason"]
        assert first.status().failed == 1

        for path in (tmp_path / "snapshots").iterdir():
            path.unlink()
        feed.readings([(1, START + 50 * SECOND, 1.0, 0)], START + 51 * SECOND)
        feed.tick(START + 52 * SECOND)
        again = flow()
        again.start()
        run_to_end(log, again)
        again.stop()
        assert again.status().failed == 0
        assert sum(frame.row_count for frame in log.read("out")) == 4
        assert sum(frame.row_count for frame in log.read("out.failed")) == 1

        command = Command(Action.REPLAY)
        give(log, "slow", command)
        replayed = flow()
        replayed.start()
        run_to_end(log, replayed)
        assert log.positions("flow/slow")["flow/slow/handled"] == command.id.encode()
        assert sum(frame.row_count for frame in log.read("out.failed")) == 1
        assert sum(frame.row_count for frame in log.read("deadletters")) == 1


@pytest.mark.parametrize("seed", range(3))
def test_outputs_and_dead_letters_are_the_same_however_often_the_flow_is_ended_and_its_snapshots_lost(
    tmp_path: Path, seed: int
) -> None:
    ended_anywhere(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_outputs_and_dead_letters_are_the_same_in_many_histories(tmp_path: Path) -> None:
    for seed in range(100, 400):
        ended_anywhere(tmp_path / str(seed), seed)


def ended_anywhere(directory: Path, seed: int) -> None:
    """Instants of some batches, of which some are poison, and a flow that is ended at any of them."""
    directory.mkdir(exist_ok=True)
    (directory / "own.py").write_text(
        "def step(rows, state):\n"
        "    state['rows'] = state.get('rows', 0) + rows.num_rows\n"
        f"    if {POISON} in rows['value'].to_pylist():\n"
        "        raise ArithmeticError('poison')\n"
        "    return rows\n"
    )
    chance = random.Random(seed)
    settings = FlowSettings("out", (PythonSettings(function="own.py:step"),), tries=1)

    def flow_over(log: Journal) -> FlowRunner:
        policy = SnapshotPolicy(refold_s=chance.choice([-1.0, 1000.0]))
        return FlowRunner(
            "own", settings, log, Counters(), directory / "snapshots", directory=directory, policy=policy
        )

    expected: list[float] = []
    poisonous = 0
    with open_log(directory / "data") as log:
        feed = Feed(log)
        flow = flow_over(log)
        flow.start()
        for second in range(12):
            batches = [
                POISON if chance.random() < 0.25 else float(10 * second + number)
                for number in range(chance.randint(1, 6))
            ]
            poisonous += batches.count(POISON)
            expected += [value for value in batches if value != POISON]
            for number, value in enumerate(batches):
                _one(feed, number, second, value)
                if chance.random() < 0.2:
                    assert flow.stop()
                    if chance.random() < 0.4:
                        for path in (directory / "snapshots").glob("*.snapshot"):
                            path.unlink()
                    flow = flow_over(log)
                    flow.start()
        feed.tick(START + 99 * SECOND)
        run_to_end(log, flow)
        assert values(log) == expected
        assert sum(frame.row_count for frame in log.read("deadletters")) == poisonous


def _one(feed: Feed, series: int, second: int, value: float) -> None:
    feed.readings([(series, START + second * SECOND, value, 0)], START + second * SECOND)
