"""`ringmain demo` as a user runs it: node, simulators and verdict, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ringmain.sim.profiles import ProfileDataMissingError, load_profiles

CHILDREN = {"single": 3, "split": 6}
"""Processes of a demo by layout: two simulators, and the node with its parts."""
SMALL = ["--no-open", "--households", "50", "--rate", "600"]


@pytest.fixture(scope="module")
def profiles_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("profiles") / "profiles.npz"
    try:
        load_profiles(file)
    except ProfileDataMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    return file


class Demo:
    """The command in a process of its own, and what it has said so far."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ringmain.cli.main", "demo", "--data", str(data), *SMALL, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )

    def read_until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        while not (match := re.search(pattern, self.said)):
            line = self.process.stdout.readline()
            assert line, f"the command ended before it said {pattern!r}:\n{self.said}"
            self.said += line
        return match

    def finish(self, timeout_s: float) -> int:
        rest, _ = self.process.communicate(timeout=timeout_s)
        self.said += rest
        return self.process.returncode

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def start(profiles_file: Path, tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts a small demo with further arguments; it is killed at the latest when the test ends."""
    started: list[Demo] = []

    def start_demo(*arguments: str) -> Demo:
        data = tmp_path / "demo"
        data.mkdir(exist_ok=True)
        (data / "profiles.npz").write_bytes(profiles_file.read_bytes())
        started.append(Demo(data, *arguments))
        return started[-1]

    yield start_demo
    for demo in started:
        demo.process.kill()
        demo.process.communicate()


def gone(processes: list[psutil.Process], timeout_s: float = 60) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return not alive


def test_after_twenty_seconds_with_every_fault_node_and_devices_agree(start: Callable[..., Demo]) -> None:
    demo = start("--seconds", "20", "--layout", "split")
    demo.read_until("boot-1970 ends")
    children = demo.children()
    assert len(children) == CHILDREN["split"]
    assert demo.finish(200) == 0, demo.said
    assert "the node and the devices agree" in demo.said
    lines = json.loads((demo.data / "comparison.json").read_bytes())
    assert len(lines) >= 8
    assert all(line["tally"] == line["node"] for line in lines), lines
    tally = json.loads((demo.data / "tally.json").read_bytes())
    assert all(counts["messages"] for counts in tally["counts"]), tally
    schedule = json.loads((demo.data / "schedule.json").read_bytes())
    assert {f["kind"] for f in schedule["schedule"]["faults"]} >= {"duplicates", "offline", "malformed"}
    assert gone(children)


def test_a_reading_that_no_simulated_device_sent_makes_them_disagree(start: Callable[..., Demo]) -> None:
    demo = start("--seconds", "8")
    demo.read_until("page: ")
    configuration = (demo.data / "ringmain-demo.toml").read_text()
    port = re.search(r'listen = "127\.0\.0\.1:(\d+)"', configuration)
    assert port is not None
    message = '{"t": "2026-01-01T00:00:00Z", "v": 1}'
    command = ["mosquitto_pub", "-p", port[1], "-q", "1", "-t", "meters/stranger/power", "-m", message]
    subprocess.run(command, check=True, timeout=60)
    assert demo.finish(200) == 1, demo.said
    assert "DISAGREE" in demo.said
    assert "readings stored" in demo.said
    assert "DIFFERS by +1" in demo.said


def test_ctrl_c_ends_everything_in_order(start: Callable[..., Demo]) -> None:
    demo = start("--layout", "single")
    demo.read_until("Ctrl-C ends it")
    children = demo.children()
    assert len(children) == CHILDREN["single"]
    demo.process.send_signal(signal.SIGINT)
    assert demo.finish(60) == 0, demo.said
    assert re.search(r"[\d,]+ readings in [\d,]+ messages acknowledged", demo.said)
    assert gone(children)


def test_nothing_outlives_a_command_that_was_killed(start: Callable[..., Demo]) -> None:
    demo = start("--layout", "split")
    demo.read_until("Ctrl-C ends it")
    children = demo.children()
    assert len(children) == CHILDREN["split"]
    demo.process.kill()
    assert gone(children)


def test_a_node_that_dies_is_told_with_its_last_words(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.read_until("Ctrl-C ends it")
    (node,) = [child for child in demo.children() if "run" in child.cmdline()]
    children = demo.children()
    node.kill()
    assert demo.finish(60) == 1
    assert "the node ended with status -9" in demo.said
    assert "Traceback" not in demo.said
    assert gone(children)


def test_a_log_that_no_demo_wrote_is_not_removed(tmp_path: Path) -> None:
    precious = tmp_path / "log" / "precious"
    precious.parent.mkdir()
    precious.write_text("years of readings")
    command = [sys.executable, "-m", "ringmain.cli.main", "demo", "--data", str(tmp_path), "--seconds", "5"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1
    assert "was not written by a demo" in answer.stderr
    assert precious.read_text() == "years of readings"
