"""A node of several processes, each killed by itself at random moments under load: nothing acknowledged is missing,
windows are right, and what died is back. `tests/parts` has what the supervising process does with processes that only
play parts."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import psutil
import pytest

from ringmain.log import open_reader
from ringmain.parts.messages import Begin, encode
from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_all_stored,
    assert_no_traceback,
    assert_windows_equal_an_undisturbed_fold,
    configuration,
    http_json,
    metric,
    wait_for_windows,
)
from tests.soak import run_campaign

KILLS = 20
SOAK_KILLS = 200
SUPERVISOR = "supervisor"
VICTIMS = ("intake", "flows", "server", SUPERVISOR)


@pytest.fixture(autouse=True)
def split() -> None:
    """Every node here is one of several processes."""
    RunningNode.layout = "split"


def parts(http: int) -> dict[str, Any]:
    """The parts as the page shows them; none while the server does not answer."""
    try:
        return {part["name"]: part for part in http_json(http, "/api/v1/overview")["parts"]}
    except (HTTPError, URLError, OSError):
        return {}


def ready(http: int) -> bool:
    try:
        http_json(http, "/readyz")
    except (HTTPError, URLError, OSError):
        return False
    return True


def shown_as_gone(http: int) -> bool:
    """Whether the page says at one moment that the intake is gone, and its source with it."""
    told = http_json(http, "/api/v1/overview")
    (source,) = told["sources"]
    (intake,) = (part for part in told["parts"] if part["name"] == "intake")
    return (
        intake["state"] != "running"
        and source["state"] == "backoff"
        and "intake" in (source["last_error"] or "")
    )


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@pytest.mark.timeout(300)
def test_twenty_kills_of_single_parts_lose_nothing_acknowledged_and_windows_equal_a_fold_from_zero(
    tmp_path: Path,
) -> None:
    campaign(tmp_path, kills=KILLS, seed=20261123)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_two_hundred_kills_of_single_parts_lose_nothing_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nkills of parts, seed {item} ", end="", flush=True)
        campaign(tmp_path / str(item), kills=KILLS, seed=item)
        shutil.rmtree(tmp_path / str(item))
        return KILLS

    told = run_campaign("part-kills", SOAK_KILLS, run, "kills")
    with capsys.disabled():
        print(f"\n{told}")


def campaign(tmp_path: Path, *, kills: int, seed: int) -> None:
    """Kill one process after the other, in an order and at moments drawn from the seed."""
    chance = random.Random(seed)
    victims = [victim for _ in range(kills // len(VICTIMS)) for victim in VICTIMS]
    chance.shuffle(victims)
    port, http = free_port(), free_port()
    directory = tmp_path / "node"
    text = configuration(port=port, http=http)
    node = RunningNode(directory, text)
    publishers = [Publisher(port, f"p{number}", rate=1500) for number in range(2)]
    for publisher in publishers:
        publisher.start()
    try:
        for victim in victims:
            threading.Event().wait(chance.uniform(0.05, 0.5))
            alive = node.parts()
            if victim == SUPERVISOR:
                node.process.kill()
                node.process.wait(60)
                wait_until(
                    lambda alive=alive: not any(map(lives, alive.values())), 60, "the end of all parts"
                )
                node = RunningNode(directory, text)
            elif victim in alive:  # else it died as the victim before, and is not back yet
                os.kill(alive[victim], signal.SIGKILL)
        wait_until(lambda: ready(http), 60, "all parts", interval_s=0.1)
        for publisher in publishers:
            publisher.finish(60)
        wait_for_windows(directory / "data")
        assert node.stop() == 0
    finally:
        node.kill()
    assert_no_traceback(node)
    acknowledged = [message for publisher in publishers for message in publisher.acknowledged]
    assert len(acknowledged) > 100 * kills, "too little load to say anything"
    assert_all_stored(directory / "data", acknowledged)
    assert_windows_equal_an_undisturbed_fold(directory / "data", tmp_path / "empty")


@pytest.mark.timeout(300)
def test_what_dies_is_shown_and_started_again_while_the_others_go_on(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    publisher = Publisher(port, "p0", rate=1000)
    with RunningNode(tmp_path, configuration(port=port, http=http)) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 200, what="acknowledgements")
        before = node.parts()
        assert set(before) == {"intake", "flows", "server"}
        assert {name: part["pid"] for name, part in parts(http).items()} == before
        assert {part["state"] for part in parts(http).values()} == {"running"}
        # the flows: devices and page notice nothing
        os.kill(before["flows"], signal.SIGKILL)
        wait_until(lambda: parts(http)["flows"]["restarts"] == 1, what="the flows started again")
        wait_until(lambda: parts(http)["flows"]["state"] == "running", what="the flows")
        assert "SIGKILL" in parts(http)["flows"]["last_error"]
        # the server: devices notice nothing
        acknowledged = len(publisher.acknowledged)
        os.kill(before["server"], signal.SIGKILL)
        wait_until(lambda: parts(http).get("server", {}).get("restarts") == 1, 60, "the server started again")
        assert len(publisher.acknowledged) > acknowledged
        assert publisher.connections == 1, "a device lost its connection"
        # the intake: the page goes on and says so, devices come back
        os.kill(before["intake"], signal.SIGKILL)
        wait_until(lambda: shown_as_gone(http) and not ready(http), what="the intake shown as gone")
        assert http_json(http, "/api/v1/latest?match=p0")["latest"]
        wait_until(lambda: ready(http), 60, "ready again")
        acknowledged = len(publisher.acknowledged)
        wait_until(lambda: len(publisher.acknowledged) > acknowledged + 200, what="acknowledgements")
        assert metric(http, "ringmain_part_restarts_total") == 3
        publisher.finish()
        wait_for_windows(tmp_path / "data")
        assert node.stop() == 0
        assert not any(map(lives, [*before.values()]))
    assert_no_traceback(node)
    assert_all_stored(tmp_path / "data", publisher.acknowledged)
    assert_windows_equal_an_undisturbed_fold(tmp_path / "data", tmp_path / "empty")


@pytest.mark.timeout(300)
def test_flows_that_stand_still_while_others_take_their_place_double_nothing_when_they_go_on(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    publisher = Publisher(port, "p0", rate=1500)
    with RunningNode(tmp_path, configuration(port=port, http=http)) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 1000, what="acknowledgements")
        zombie = node.parts()["flows"]
        with standing_still(zombie), second_flows(node):
            wait_until(lambda: parts(http)["flows"]["state"] == "silent", what="the state `silent`")
            acknowledged = len(publisher.acknowledged)
            wait_until(lambda: len(publisher.acknowledged) > acknowledged + 1000, what="acknowledgements")
            folded = windowed(tmp_path / "data")
            wait_until(lambda: windowed(tmp_path / "data") > folded, what="windows of the replacement")
            os.kill(zombie, signal.SIGCONT)
            wait_until(
                lambda: http_json(http, "/api/v1/overview")["flows"][0]["state"] == "failed",
                60,
                "the first flows fenced",
            )
            wait_until(lambda: "another copy of this flow has taken over" in node.stderr(), what="the reason")
            publisher.finish()
            wait_for_windows(tmp_path / "data")
        assert node.stop() == 0
    assert_no_traceback(node)
    assert_all_stored(tmp_path / "data", publisher.acknowledged)
    assert_windows_equal_an_undisturbed_fold(tmp_path / "data", tmp_path / "empty")


def windowed(data: Path) -> int:
    """Rows of windows that are durable."""
    with open_reader(data) as log:
        return sum(state.rows for state in log.streams() if state.stream.name == "readings.1m")


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """The process is stopped (SIGSTOP), and goes on at the end at the latest."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def second_flows(node: RunningNode) -> Iterator[None]:
    """Another process with the flows of a running node; it ends as a part does whose supervisor is gone."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "ringmain.parts.process", "flows", str(node.file), "False"]
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stderr=node.errors,
        )
    try:
        ours.sendall(encode(Begin(first=True)))
        yield
        ours.close()
        assert process.wait(60) == 0
    finally:
        ours.close()
        process.kill()
        process.wait()


@pytest.mark.timeout(300)
def test_signals_to_parts_and_a_supervisor_that_stands_still_stop_nothing_that_is_acknowledged(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    publisher = Publisher(port, "p0", rate=1000)
    with RunningNode(tmp_path, configuration(port=port, http=http)) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 200, what="acknowledgements")
        before = node.parts()
        for pid in before.values():  # as Ctrl-C and a service manager send them to every process
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        with standing_still(node.process.pid):
            acknowledged = len(publisher.acknowledged)
            wait_until(lambda: len(publisher.acknowledged) > acknowledged + 1000, what="acknowledgements")
            wait_until(lambda: parts(http)["intake"]["state"] == "silent", 60, "the silence shown")
        wait_until(lambda: ready(http), 60, "ready again")
        assert node.parts() == before
        assert publisher.connections == 1
        publisher.finish()
        began = time.monotonic()
        assert node.stop() == 0, f"after {time.monotonic() - began:.1f} s"
    assert_no_traceback(node)
    assert_all_stored(tmp_path / "data", publisher.acknowledged)
