"""`ringmain flow` and `ringmain replay` reach a flow of a node that runs, and of one that will."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from ringmain.cli.flow import continue_, replay, retry, skip
from ringmain.flows.control import Action, given
from ringmain.log import open_log


def _log_with_flow(data: Path) -> None:
    with open_log(data) as log:
        claim = log.claim("flow/load")
        log.append([], claim=claim, sequence=1, positions={"flow/load/definition": b"{}"})


def test_a_command_is_in_the_log_for_the_flow(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _log_with_flow(data)
    for command, action in ((retry, Action.RETRY), (skip, Action.SKIP), (continue_, Action.CONTINUE)):
        result = CliRunner().invoke(command, ["load", "--data", str(data)])
        assert result.exit_code == 0, result.output
        with open_log(data) as log:
            found = given(log, "load")
        assert found is not None
        assert found.action is action


def test_a_command_goes_to_the_process_that_has_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _log_with_flow(data)
    with open_log(data) as log:
        log.listen()
        result = CliRunner().invoke(replay, ["load", "--from", "2026-10-25T00:00Z", "--data", str(data)])
        assert result.exit_code == 0, result.output
        found = given(log, "load")
    assert found is not None
    assert (found.action, found.from_ns) == (Action.REPLAY, 1_792_886_400_000_000_000)


def test_a_flow_that_never_ran_and_a_time_that_is_none_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _log_with_flow(data)
    result = CliRunner().invoke(skip, ["laod", "--data", str(data)])
    assert result.exit_code == 1
    assert "no flow 'laod' has run on this log; it knows load" in result.output
    result = CliRunner().invoke(replay, ["load", "--from", "yesterday", "--data", str(data)])
    assert result.exit_code == 1
    assert "expected a time such as" in result.output
