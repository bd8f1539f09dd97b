"""Hot reload: only what changed ends and begins anew; meanwhile nothing is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import ringmain
from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import configuration, query

ADDED = """
[flows.large]
from = "readings"
to   = "large"
[[flows.large.steps]]
type  = "filter"
where = "value >= 100"
"""


def metric(node: RunningNode, name: str) -> float:
    with urllib.request.urlopen(f"{node.addresses['serve']}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    lines = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name))
    return float(next(lines, 0))  # a part that was not heard of yet has none


def states(node: RunningNode) -> dict[str, str]:
    with urllib.request.urlopen(f"{node.addresses['serve']}/api/v1/overview", timeout=60) as answer:
        told = json.loads(answer.read())
    return {flow["name"]: flow["state"] for flow in told["flows"]}


def take_over(node: RunningNode, text: str) -> None:
    node.file.write_text(node.laid_out(text))
    done = subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", "reload", str(node.file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_flow_is_added_another_changed_and_one_ended_while_readings_come_in(tmp_path: Path) -> None:
    port = free_port()
    before = configuration(port=port, http=free_port()) + ADDED.replace("large", "kept").replace("100", "0")
    with RunningNode(tmp_path, before) as node:
        publisher = Publisher(port, "p", series=20, rate=2000.0)
        publisher.start()
        data = tmp_path / "data"
        wait_until(lambda: len(publisher.acknowledged) > 500, 60, "readings come in")
        wait_until(lambda: metric(node, 'ringmain_flow_rows_total{flow="kept"}') > 200, 60, "the flow folds")
        parts = node.parts()
        take_over(node, before + ADDED)
        wait_until(lambda: states(node).get("large") == "running", 60, "the new flow runs")
        folded = metric(node, 'ringmain_flow_rows_total{flow="kept"}')
        assert folded > 200, "it was not begun anew"
        changed = before.replace('window = "1m"', 'window = "10s"').replace('"readings.1m"', '"readings.10s"')
        take_over(node, changed + ADDED.replace("large", "huge").replace("100", "200"))
        wait_until(lambda: set(states(node)) == {"minute", "kept", "huge"}, 60, "flows are as configured")
        wait_until(lambda: set(states(node).values()) == {"running"}, 60, "they run")
        assert metric(node, 'ringmain_flow_rows_total{flow="kept"}') >= folded
        publisher.finish()
        acknowledged = {(topic, at, value) for topic, at, value in publisher.acknowledged}
        count = len(acknowledged)
        assert node.parts() == parts
        wait_until(
            lambda: query(data, 'select count(*) n from "kept"')[0]["n"] >= count, 60, "all of it is folded"
        )
        both = 'select (select count(*) from "huge") n, (select count(*) from readings where value >= 200) w'
        wait_until(
            lambda: (row := query(data, both)[0])["n"] == row["w"],
            60,
            "the new flow has read from the beginning",
        )
        assert node.stop() == 0
        stderr = node.stderr()
    assert "flow large is new" in stderr
    assert "flow large ended" in stderr
    assert "flow minute changed" in stderr
    assert "source field changed" not in stderr
    with ringmain.open(data, read_only=True) as log:
        stored = log.sql("select series, time, value from readings").to_pylist()
        assert len(stored) == count
        kept = log.sql('select series, time, value from "kept"').to_pylist()
        assert sorted(map(str, kept)) == sorted(map(str, stored))
        large = log.sql('select count(*) n, count(distinct (series, time)) d from "huge"').to_pylist()[0]
        wanted = log.sql("select count(*) n from readings where value >= 200").to_pylist()[0]
        assert large == {"n": wanted["n"], "d": wanted["n"]}


def test_a_source_that_changed_begins_anew_and_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    text = configuration(port=port, http=free_port())
    with RunningNode(tmp_path, text) as node:
        first = Publisher(port, "p", series=5, rate=1000.0)
        first.start()
        wait_until(lambda: len(first.acknowledged) > 200, 60, "readings come in")
        more = text + text[text.index("[sources.field]") : text.index("[flows.minute]")].replace(
            "field", "second"
        ).replace(str(port), str(other))
        take_over(
            node,
            more.replace("    [[sources", "[[sources").replace('topic  = "meters/', 'topic  = "meters/', 1),
        )
        second = Publisher(other, "q", series=5, rate=1000.0)
        second.start()
        wait_until(lambda: len(second.acknowledged) > 200, 60, "the new source takes readings")
        take_over(node, more.replace("[sources.field]", "[sources.field]\nmax_connections = 50", 1))
        wait_until(lambda: "source field changed" in node.stderr(), 60, "the source begins anew")
        begun = len(first.acknowledged)
        wait_until(lambda: len(first.acknowledged) > begun + 200, 60, "it takes readings again")
        for publisher in (first, second):
            publisher.finish()
        assert node.stop() == 0
        acknowledged = {*first.acknowledged, *second.acknowledged}
    rows = query(tmp_path / "data", "select count(distinct (series, time, value)) n from readings")
    assert rows[0]["n"] == len({(topic, at) for topic, at, _ in acknowledged})


def test_a_configuration_with_an_error_changes_nothing(tmp_path: Path) -> None:
    text = configuration(port=free_port(), http=free_port())
    with RunningNode(tmp_path, text) as node:
        wait_until(lambda: states(node) == {"minute": "running"}, 60, "the flow runs")
        node.file.write_text(text.replace('window = "1m"', 'window = "1 minute"'))
        done = subprocess.run(
            [sys.executable, "-m", "ringmain.cli.main", "reload", str(node.file)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "ringmain.toml:" in done.stderr
        node.process.send_signal(1)
        wait_until(lambda: "nothing is taken over" in node.stderr(), 60, "it says so")
        assert states(node) == {"minute": "running"}
        assert node.stop() == 0
