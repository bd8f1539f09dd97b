"""Groups, totals and joins over a real log: killed at any append they give what undisturbed ones give."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ringmain.flows.flow import FlowSettings
from ringmain.flows.runner import FlowRunner, FlowState, SnapshotPolicy
from ringmain.flows.steps.group import GroupSettings
from ringmain.flows.steps.join import JoinSettings
from ringmain.flows.steps.latest_sum import LatestSumSettings
from ringmain.log import open_log
from ringmain.log.interface import LogReader
from ringmain.log.journal import Journal
from ringmain.runtime.counters import Counters
from tests.flows.real_log import Feed, copy_inputs, feed_story, run_to_end, until
from tests.flows.steps.driving import plain
from tests.flows.test_runner import crash_at

FLOWS = {
    "devices": FlowSettings("devices.10s", (GroupSettings(by=("device",), window="10s", grace="2s"),)),
    "live": FlowSettings("devices.live", (LatestSumSettings(by=("device",), stale="20s"),)),
    "beside": FlowSettings(
        "beside",
        (
            JoinSettings(
                with_="readings", series="key/0", columns={"first": "value"}, wait="5s", tolerance="20s"
            ),
        ),
    ),
}


def runner(log: Journal, directory: Path, name: str, *, often: bool = False) -> FlowRunner:
    policy = SnapshotPolicy(refold_s=-1.0) if often else SnapshotPolicy()
    return FlowRunner(name, FLOWS[name], log, Counters(), directory / "snapshots", policy=policy)


def written(log: LogReader, name: str) -> list[list[dict[str, Any]]]:
    """The frames of a flow's output, in log order."""
    return [plain(frame.rows) for frame in log.read(FLOWS[name].to)]


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_that_dies_at_any_append_emits_what_an_undisturbed_one_emits(
    tmp_path: Path, name: str
) -> None:
    chance = random.Random(5)
    directory = tmp_path / "log"
    crashes = 0
    for life in range(4):
        with open_log(directory) as log:
            crash_at(log, 1 + life % 2, durable=chance.random() < 0.5)
            flow = runner(log, directory, name, often=life % 2 == 0)
            flow.start()
            feed_story(Feed(log), life, 25)
            until(
                lambda flow=flow: flow.status().state is FlowState.BACKOFF or flow.caught_up(), "crash or end"
            )
            crashes += flow.status().state is FlowState.BACKOFF
            flow.stop()
        if life % 3 == 2:
            shutil.rmtree(directory / "snapshots", ignore_errors=True)
    assert crashes > 1
    with open_log(directory) as log, copy_inputs(log, tmp_path / "zero") as other:
        for each, place in ((log, directory), (other, tmp_path / "zero")):
            flow = runner(each, place, name)
            flow.start()
            run_to_end(each, flow)
        found = written(log, name)
        rows = [row for frame in found for row in frame]
        assert len(rows) > 20
        if name == "devices":
            assert sum(row["revision"] > 0 for row in rows) > 5
        assert repr(found) == repr(written(other, name))
