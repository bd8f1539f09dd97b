"""`ringmain replay FLOW --wait` ends with the reason where the flow stands still and nothing more is to be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ringmain.cli.flow as command_module
import ringmain.flows.runner as runner_module
from ringmain.cli.main import cli
from ringmain.flows.block import Block
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState
from ringmain.flows.runner import FlowRunner
from ringmain.flows.step import Context, Plan, Shape, Stateless, StepBrokenError, StepSettings, Surroundings
from ringmain.log import open_log
from ringmain.log.journal import Journal
from ringmain.runtime.counters import Counters
from tests.log.test_look import open_files

from .real_log import SECOND, START, Feed, until


class Obstinate(StepSettings, frozen=True, tag="obstinate"):
    """Passes rows on until it is told otherwise, which its definition does not tell."""

    error: str = ""
    broken: bool = False

    def definition(self, around: Surroundings) -> dict[str, object]:
        return {}

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        return Plan(shape)

    def make(self, shape: Shape, context: Context) -> ObstinateStep:
        return ObstinateStep(self)


class ObstinateStep(Stateless):
    def __init__(self, settings: Obstinate) -> None:
        if settings.error and not settings.broken:
            raise OSError(settings.error)
        self._settings = settings

    def take(self, block: Block) -> list[Block]:
        if self._settings.error:
            raise StepBrokenError(self._settings.error)
        return [block]


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(runner_module, "_WAIT_S", 0.02)
    monkeypatch.setattr(command_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(command_module, "_CONNECT_S", 0.1)
    monkeypatch.setattr(command_module, "_UNHEARD_S", 0.3)
    monkeypatch.setattr(command_module, "_STANDS_STILL_S", 0.2)


@pytest.fixture
def log(tmp_path: Path, hurry: None) -> Iterator[Journal]:
    """A log that is served, with readings that a flow has worked on."""
    with open_log(tmp_path / "data") as log:
        log.listen()
        for number in range(3):
            Feed(log).readings([(1, START + number * SECOND, 1.0, 0)], START + number * SECOND)
        flow = started(log, tmp_path, Obstinate())
        until(flow.caught_up, "it has worked")
        assert flow.stop()
        yield log


def started(log: Journal, directory: Path, step: StepSettings) -> FlowRunner:
    settings = FlowSettings("out", (step,), tries=1)
    flow = FlowRunner("flow", settings, log, Counters(), directory / "snapshots")
    flow.start()
    return flow


def waited(directory: Path) -> Result:
    arguments = ["replay", "flow", "--wait", "--data", str(directory / "data")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1, result.output
    return result


def test_a_flow_that_has_failed_ends_it_with_the_reason_and_what_to_do(tmp_path: Path, log: Journal) -> None:
    flow = started(log, tmp_path, Obstinate("the model file is gone", broken=True))
    output = waited(tmp_path).output
    assert "flow flow stands still (state failed): " in output
    assert "StepBrokenError: the model file is gone" in output
    assert "`ringmain flow retry flow`; its replay is done after that" in output
    assert flow.state is FlowState.FAILED
    assert flow.stop()
    mended = started(log, tmp_path, Obstinate())
    until(
        lambda: "flow/flow/replayed" in log.positions("flow/flow"),
        "what was asked for is done once it can be",
    )
    assert mended.stop()


def test_a_flow_that_fails_again_and_again_ends_it(tmp_path: Path, log: Journal) -> None:
    flow = started(log, tmp_path, Obstinate("the network is down"))
    output = waited(tmp_path).output
    assert "flow flow stands still (state backoff): OSError: the network is down; it tries again" in output
    assert flow.stop()
    held = open_files()
    assert [name for name in held if name.startswith(str(tmp_path / "snapshots" / "replay-"))] == []


def test_a_flow_that_is_gone_from_the_node_ends_it(tmp_path: Path, log: Journal) -> None:
    output = waited(tmp_path).output
    assert "no flow flow of the running node has taken it up" in output
    assert "the node's configuration has no such flow any more" in output


def test_a_node_that_does_not_run_ends_it(tmp_path: Path, log: Journal) -> None:
    log.close()
    assert "no node runs on" in waited(tmp_path).output
