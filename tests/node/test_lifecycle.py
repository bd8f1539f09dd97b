"""How a node begins and goes on when its surroundings are not as they should be."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError

import paho.mqtt.publish
import pyarrow as pa
import pytest

from ringmain.log import open_log
from ringmain.log.interface import Batch
from ringmain.model.schemas import TICK
from tests.conftest import Mosquitto, free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import assert_all_stored, assert_no_traceback, configuration, http_json, query
from tests.promises import Fault, Part, promise


def run(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """`ringmain run` that is expected to end by itself."""
    (directory / "ringmain.toml").write_text(RunningNode.laid_out(text))
    return subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", "run", "ringmain.toml"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(http: int, path: str = "/healthz") -> bool:
    """Whether the server at the port answers with success."""
    try:
        http_json(http, path)
    except (HTTPError, URLError):
        return False
    return True


@pytest.mark.parametrize("taken", ["field", "serve"])
def test_a_port_in_use_is_named_and_taken_as_soon_as_it_is_free(tmp_path: Path, taken: str) -> None:
    ports = {"field": free_port(), "serve": free_port()}
    text = configuration(port=ports["field"], http=ports["serve"])
    publisher = Publisher(ports["field"], "p0")
    occupied = socket.create_server(("127.0.0.1", ports[taken]))
    with RunningNode(tmp_path, text, wait=False) as node:
        wait_until(lambda: str(ports[taken]) in node.stderr(), what="a message that names the address")
        if taken == "field":
            wait_until(lambda: answers(ports["serve"]), what="the server")
            assert not answers(ports["serve"], "/readyz")
        else:  # the page's port holds up no device
            publisher.start()
            wait_until(lambda: len(publisher.acknowledged) > 100, what="acknowledgements")
        occupied.close()
        node.wait_ready()
        assert answers(ports["serve"], "/readyz")
        if taken == "field":
            publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 200, what="acknowledgements")
        publisher.finish()
        assert node.stop() == 0
    assert_no_traceback(node)
    assert_all_stored(tmp_path / "data", publisher.acknowledged)


def test_a_node_that_waits_for_its_port_stops_at_once_when_told(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", http)):
        node = RunningNode(tmp_path, configuration(port=port, http=http), wait=False)
        wait_until(lambda: str(port) in node.stderr() and str(http) in node.stderr(), what="both messages")
        assert node.stop() == 0
    assert_no_traceback(node)


@promise(
    Fault.TWO_NODES,
    Part.JOURNAL,
    "A second node ends at once, in one line that names the first, which goes on.",
)
def test_a_second_node_on_the_same_directory_is_refused_in_one_line_that_names_the_first(
    tmp_path: Path,
) -> None:
    with RunningNode(tmp_path / "one", configuration(port=free_port(), http=free_port())) as node:
        (tmp_path / "two").mkdir()
        data = tmp_path / "one" / "data"
        second = run(tmp_path / "two", configuration(port=free_port(), http=free_port(), data=data))
        assert second.returncode == 1
        assert second.stdout == ""
        (line,) = second.stderr.splitlines()
        assert f"process {node.process.pid}" in line
        assert str(data) in line
        assert answers(node.port("serve"), "/readyz")
        assert node.stop() == 0


def test_a_configuration_error_is_told_with_file_and_line_and_status_1(tmp_path: Path) -> None:
    text = configuration(port=free_port(), http=free_port()).replace('grace  = "10s"', 'grace  = "soon"')
    line = 1 + RunningNode.laid_out(text).splitlines().index('grace  = "soon"')
    ended = run(tmp_path, text)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"ringmain.toml:{line}:" in ended.stderr
    assert "soon" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("obstacle", ["a file", "no permission"])
def test_a_data_directory_that_cannot_be_had_is_told_in_one_line(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "a file":
        (tmp_path / "blocked").write_text("")
        data = tmp_path / "blocked" / "data"
    else:
        data = Path("/proc/nothing-can-be-made-here")
    ended = run(tmp_path, configuration(port=free_port(), http=free_port(), data=data))
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert str(data) in line


@pytest.mark.mosquitto
def test_a_broker_that_is_down_at_the_start_is_connected_later(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    broker.stop()
    http = free_port()
    text = configuration(port=free_port(), http=http) + (
        f'\n[sources.city]\ntype = "mqtt"\nurl = "{broker.url}"\ntopics = ["meters/#"]\nmap = "field"\n'
    )
    with RunningNode(tmp_path / "node", text) as node:
        assert answers(http, "/readyz")
        sources = {source["name"]: source for source in http_json(http, "/api/v1/overview")["sources"]}
        assert sources["city"]["state"] != "running"
        broker.start()
        wait_until(lambda: "SUBSCRIBE from" in broker.log, 60, "the subscription")
        paho.mqtt.publish.single(
            "meters/m1/power", json.dumps({"t": 1_767_225_600, "v": 5}), 1, port=broker.port
        )
        data = tmp_path / "node" / "data"
        wait_until(
            lambda: len(query(data, "select value from readings")) == 1, interval_s=0.2, what="the reading"
        )
        assert node.stop() == 0
    assert_no_traceback(node)


class EarlierClock:
    """The clocks of this machine, set back."""

    def __init__(self, wall_ns: int) -> None:
        self._wall_ns = wall_ns

    def wall_ns(self) -> int:
        self._wall_ns += 1_000_000
        return self._wall_ns

    def elapsed_ns(self) -> int:
        return self._wall_ns


@promise(
    Fault.BOOT_1970, Part.JOURNAL, "Arrival goes on from the newest that is stored, and the step is told."
)
def test_arrival_time_goes_on_when_a_machine_boots_in_1970(tmp_path: Path) -> None:
    port = free_port()
    text = configuration(port=port, http=free_port())
    publishers = [Publisher(port, f"p{number}") for number in range(2)]
    for number, publisher in enumerate(publishers):
        with RunningNode(tmp_path, text) as node:
            publisher.start()
            wait_until(lambda one=publisher: len(one.acknowledged) > 100, what="acknowledgements")
            publisher.finish()
            assert node.stop() == 0
        assert_no_traceback(node)
        if number == 0:
            with open_log(tmp_path / "data", clock=EarlierClock(1_000_000_000)) as log:
                claim = log.claim("boot")
                for sequence in range(5):
                    rows = pa.record_batch([pa.array([sequence], TICK.field("time").type)], schema=TICK)
                    log.append([Batch("ticks", rows)], claim=claim, sequence=sequence)
    with open_log(tmp_path / "data") as log:
        arrivals = [frame.arrival_ns for frame in log.read(["readings", "ticks"])]
        assert arrivals == sorted(arrivals)
        states = {frame.clock_state & 0x7FFF for frame in log.read(["readings", "ticks"])}
    assert len(states) > 1, "the step of the clock was not told"
    assert_all_stored(tmp_path / "data", [m for p in publishers for m in p.acknowledged])
