"""A flow is told to go on when retention has taken the beginning of its input from the log."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringmain.flows.runner as runner_module
from ringmain.flows.control import Action, Command, give, replayed, standing
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState
from ringmain.flows.runner import FlowRunner
from ringmain.flows.steps import settings_of
from ringmain.log import open_log
from ringmain.log.journal import Journal
from ringmain.runtime.counters import Counters

from .real_log import SECOND, START, Feed, run_to_end, until
from .steps.driving import plain
from .test_runner import crash_at

COUNTER = {"type": "counter", "max_gap": "1d"}
BAND = {"type": "deadband", "absolute": 0.5}
SERIES = 300
SECONDS = 95


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(runner_module, "_WAIT_S", 0.02)


def started(log: Journal, directory: Path, *steps: dict[str, Any]) -> FlowRunner:
    settings = FlowSettings("out", tuple(settings_of(dict(step)) for step in steps))
    flow = FlowRunner("flow", settings, log, Counters(), directory / "snapshots")
    flow.start()
    return flow


def report(log: Journal, second: int, series: int = SERIES) -> None:
    """Registers that count one a second; series 0 reported in the first second alone."""
    now = START + second * SECOND
    Feed(log).readings([(n, now, float(second), 0) for n in range(1 if second else 0, series)], now)


def rows(log: Journal) -> list[dict[str, Any]]:
    return [row for frame in log.read("out") for row in plain(frame.rows)]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a flow has worked on a story whose beginning is not in the log any more."""
    directory = tmp_path_factory.mktemp("worked")
    with open_log(directory / "data", segment_bytes=64 * 1024) as log:
        for begin in range(0, SECONDS, 19):
            for second in range(begin, begin + 19):
                report(log, second)
            run_to_end(log, started(log, directory, COUNTER, BAND))
        assert log.retain(size_bytes=384 * 1024) > 0
        first = next(iter(log.read("readings")))
        assert first.cumulative_rows > first.row_count
    return directory


@pytest.fixture
def log(tmp_path: Path, worked: Path) -> Iterator[Journal]:
    """Its log, and beside it the snapshots."""
    shutil.copytree(worked, tmp_path, dirs_exist_ok=True)
    with open_log(tmp_path / "data", segment_bytes=64 * 1024) as log:
        yield log


def told(log: Journal, action: Action, from_ns: int | None = None) -> Command:
    command = Command(action, from_ns=from_ns)
    give(log, "flow", command)
    return command


def reported(log: Journal, *seconds: int) -> None:
    for second in seconds:
        now = START + second * SECOND
        Feed(log).readings([(n, now, float(second), 0) for n in range(3)], now)
    Feed(log).tick(START + (seconds[-1] + 1) * SECOND)


def consumed(found: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
    return [(row["series"], (row["time"] - START) // SECOND, row["value"]) for row in found]


def test_steps_before_the_change_go_on_as_they_were_the_others_with_what_the_log_holds(
    tmp_path: Path, log: Journal
) -> None:
    before = rows(log)
    flow = started(log, tmp_path, COUNTER, BAND | {"absolute": 90.0})
    until(lambda: flow.state is FlowState.FAILED, "it stands still")
    told(log, Action.CONTINUE)
    until(lambda: flow.state is FlowState.RUNNING, f"it goes on: {flow.status()}")
    reported(log, 96, 99)
    run_to_end(log, flow)
    # series 0 reported in the first second alone, which is gone from the log: only a snapshot knows of it
    assert consumed(rows(log)[len(before) :]) == [(0, 96, 96.0), (0, 99, 3.0)]
    again = started(log, tmp_path, COUNTER, BAND | {"absolute": 90.0})
    reported(log, 300)
    run_to_end(log, again)
    assert consumed(rows(log)[len(before) + 2 :]) == [(0, 300, 201.0), (1, 300, 201.0), (2, 300, 201.0)]


@pytest.mark.parametrize("durable", [False, True])
def test_a_flow_that_dies_while_it_takes_over_its_new_definition_continues_with_the_next_start(
    tmp_path: Path, log: Journal, durable: bool
) -> None:
    before = rows(log)
    told(log, Action.CONTINUE)
    crash_at(log, 1, durable=durable)
    flow = started(log, tmp_path, COUNTER, BAND | {"absolute": 90.0})
    run_to_end(log, flow, stop=False)
    reported(log, 96, 99)
    run_to_end(log, flow)
    assert consumed(rows(log)[len(before) :]) == [(0, 96, 96.0), (0, 99, 3.0)]


def test_a_flow_whose_snapshots_are_lost_goes_on_with_what_the_log_holds_when_it_is_told_to(
    tmp_path: Path, log: Journal
) -> None:
    before = rows(log)
    shutil.rmtree(tmp_path / "snapshots")
    flow = started(log, tmp_path, COUNTER, BAND)
    until(lambda: flow.state is FlowState.FAILED, "it stands still")
    assert "removed from the log, and no snapshot holds what followed" in (flow.status().last_error or "")
    assert "`ringmain flow continue flow` goes on with what the log holds" in (flow.status().last_error or "")
    told(log, Action.CONTINUE)
    until(lambda: flow.state is FlowState.RUNNING, f"it goes on: {flow.status()}")
    reported(log, 96)
    run_to_end(log, flow)
    assert consumed(rows(log)[len(before) :]) == [(1, 96, 2.0), (2, 96, 2.0)]


def test_a_flow_whose_position_is_gone_from_the_log_does_not_continue_and_says_what_works_instead(
    tmp_path: Path, log: Journal
) -> None:
    for second in range(SECONDS, SECONDS + 60):
        report(log, second)
    assert log.retain(size_bytes=192 * 1024) > 0
    flow = started(log, tmp_path, COUNTER, BAND | {"absolute": 0.4})
    until(lambda: flow.state is FlowState.FAILED, "it stands still")
    told(log, Action.CONTINUE)
    until(lambda: "retention has taken the frame" in (flow.status().last_error or ""), "it is refused")
    assert "Name a new stream in `to`" in (flow.status().last_error or "")
    assert flow.stop()


def test_a_replay_that_would_take_back_what_followed_from_removed_rows_is_refused(
    tmp_path: Path, log: Journal
) -> None:
    before = rows(log)
    flow = started(log, tmp_path, COUNTER, BAND)
    until(flow.caught_up, "it runs")
    command = told(log, Action.REPLAY)
    until(lambda: standing(log, "flow", command) is not None, "it is answered")
    answer = standing(log, "flow", command)
    assert answer is not None
    assert answer.refused
    assert "rows of 'readings' have been removed from the log" in answer.reason
    assert "`ringmain replay flow --from TIME` works with a time behind" in answer.reason
    assert flow.state is FlowState.RUNNING
    late_enough = told(log, Action.REPLAY, START + 90 * SECOND)
    until(lambda: replayed(log, "flow", late_enough) is not None, "one that can be done is done")
    assert flow.stop()
    assert rows(log) == before


def test_a_refused_replay_of_a_changed_definition_leaves_the_choice_open(
    tmp_path: Path, log: Journal
) -> None:
    before = rows(log)
    flow = started(log, tmp_path, COUNTER, BAND | {"absolute": 0.4})
    until(lambda: flow.state is FlowState.FAILED, "it stands still")
    command = told(log, Action.REPLAY)
    until(lambda: standing(log, "flow", command) is not None, "it is answered")
    until(lambda: flow.state is FlowState.FAILED, "it stands still")
    assert "its definition changed" in (flow.status().last_error or "")
    assert flow.stop()
    run_to_end(log, started(log, tmp_path, COUNTER, BAND))
    assert rows(log) == before
