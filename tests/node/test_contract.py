"""The contract end to end: a real node, foreign MQTT clients, the command line, HTTP and Python."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringmain
from tests.conftest import free_port, wait_until
from tests.node.running import RunningNode
from tests.node.stored import query

CONFIGURATION = """\
[node]
name = "leipzig-west"
data = "data"
timezone = "Europe/Berlin"

[catalogue]
file = "series.csv"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"

[[sources.field.map]]
topic  = "tele/{{plug}}/SENSOR"
device = "{{plug}}"
series = "{{plug}}/{{name}}"
time   = "Time"
values = {{ p = "ENERGY.Power", e = "ENERGY.Total" }}
units  = {{ p = "W", e = "kWh" }}

[flows.minute]
from   = "readings"
window = "1m"
values = ["count", "mean", "min", "max"]
late   = "revise"
grace  = "10s"
idle   = "1s"
to     = "readings.1m"

[serve]
listen      = "127.0.0.1:{http}"
sql_timeout = "60s"
"""

CATALOGUE = """\
key,unit,quantity,medium,device,place,owner,melo
m1/power,W,power,electricity,m1,leipzig-west/ss-02,household-1,DE00056266802AO6G56M11SN51G21M24S
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    (tmp_path / "series.csv").write_text(CATALOGUE)
    with RunningNode(tmp_path, CONFIGURATION.format(port=free_port(), http=free_port())) as running:
        yield running


def publish(node: RunningNode, topic: str, payload: str, *, qos: int = 1, version: str = "mqttv311") -> None:
    subprocess.run(
        [
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            str(node.port("field")),
            "-V",
            version,
            "-q",
            str(qos),
            "-t",
            topic,
            "-m",
            payload,
        ],
        check=True,
        timeout=60,
        capture_output=True,
    )


def ringmain_json(*arguments: str, cwd: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", *arguments, "--format", "json"],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def http_json(node: RunningNode, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.port('serve')}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def http_text(node: RunningNode, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.port('serve')}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def readings(node: RunningNode) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ringmain_json(
        "sql", "select * from readings order by series, time", "--data", "data", cwd=node.directory
    )
    return rows


def stored(node: RunningNode) -> int:
    """Readings in the log, asked for from here: the command line takes long to ask again and again."""
    count: int = query(node.directory / "data", "select count(*) as n from readings")[0]["n"]
    return count


@pytest.mark.mosquitto
def test_a_reading_of_mosquitto_pub_is_there_for_sql_while_the_node_runs_and_after(node: RunningNode) -> None:
    ways = [(qos, version) for qos in (0, 1, 2) for version in ("mqttv311", "mqttv5")]
    for qos, version in ways:
        publish(
            node,
            f"meters/m1/{version}-{qos}",
            f'{{"t": "2026-11-02T12:00:00.5+01:00", "v": 231.{qos}}}',
            qos=qos,
            version=version,
        )
    wait_until(lambda: stored(node) == len(ways), what="the readings")
    expected = [
        {
            "series": f"m1/{version}-{qos}",
            "time": "2026-11-02T11:00:00.5Z",
            "value": 231 + qos / 10,
            "quality": 0,
        }
        for version in ("mqttv311", "mqttv5")
        for qos in (0, 1, 2)
    ]
    rows = readings(node)
    arrived = [row["arrived"] for row in rows]
    assert [{name: row[name] for name in row if name != "arrived"} for row in rows] == expected
    assert all(stamp.startswith("20") for stamp in arrived)
    assert node.stop() == 0
    assert readings(node) == rows


@pytest.mark.mosquitto
def test_windows_dead_letters_and_current_values_are_tables(node: RunningNode) -> None:
    for second, value in ((0, 10.0), (20, 30.0), (20, 30.0), (40, 20.0)):
        publish(node, "meters/m1/power", json.dumps({"t": f"2026-11-02T12:00:{second:02}Z", "v": value}))
    publish(
        node,
        "tele/plug-7/SENSOR",
        json.dumps({"Time": "2026-11-02T12:00:01Z", "ENERGY": {"Power": 5, "Total": 1.25}}),
    )
    publish(node, "meters/m1/power", '{"t": "2026-11-02T12:00:00Z"')
    publish(node, "nobody/maps/this", "1")

    def sql(statement: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = ringmain_json("sql", statement, "--data", "data", cwd=node.directory)
        return rows

    data = node.directory / "data"
    wait_until(lambda: len(query(data, 'select * from "readings.1m"')) == 3, 60, "three windows")
    minute = sql("""select * from "readings.1m" where series = 'm1/power'""")
    assert minute == [
        {
            "series": "m1/power",
            "start": "2026-11-02T12:00:00Z",
            "end": "2026-11-02T12:01:00Z",
            "count": 3,
            "mean": 20.0,
            "min": 10.0,
            "max": 30.0,
            "revision": minute[0]["revision"],
        }
    ]
    assert len(sql("select * from readings where series = 'm1/power'")) == 4
    assert len(sql("select * from readings_current where series = 'm1/power'")) == 3
    assert {row["series"]: row["value"] for row in sql("select * from readings_current")}["plug-7/e"] == 1.25
    letters = sql("select topic, payload, reason, source from deadletters order by topic")
    assert [(row["topic"], row["source"]) for row in letters] == [
        ("meters/m1/power", "field"),
        ("nobody/maps/this", "field"),
    ]
    assert letters[0]["payload"] == '{"t": "2026-11-02T12:00:00Z"'
    assert "expected a topic that a map of this source names" in letters[1]["reason"]
    publish(node, "meters/m1/power", '{"t": "2026-11-02T12:00:30Z", "v": 100}')
    one = """select * from "readings.1m" where series = 'm1/power'"""
    wait_until(lambda: query(data, one)[0]["count"] == 4, 60, "the revision")
    revised = sql("""select * from "readings.1m.all" where series = 'm1/power' order by revision""")
    assert [row["revision"] for row in revised] == list(range(len(revised)))
    assert (revised[-1]["mean"], revised[-1]["max"]) == (40.0, 100.0)


@pytest.mark.mosquitto
def test_http_answers_what_the_contract_names(node: RunningNode) -> None:
    now = time.time()
    for step in range(5):
        publish(node, "meters/m1/power", json.dumps({"t": int((now - 5 + step) * 1000), "v": step}))
    wait_until(
        lambda: len(http_json(node, "/api/v1/latest?match=m1")["latest"]) == 1, what="the latest value"
    )
    wait_until(
        lambda: http_json(node, "/api/v1/latest?match=m1")["latest"][0]["value"] == 4, what="the newest value"
    )
    series = http_json(node, "/api/v1/series?match=m1&limit=10")["series"][0]
    assert (series["key"], series["unit"], series["medium"], series["owner"]) == (
        "m1/power",
        "W",
        "electricity",
        "household-1",
    )
    assert "readings" in {stream["name"] for stream in http_json(node, "/api/v1/streams")["streams"]}
    points = http_json(node, "/api/v1/readings?series=m1/power&max_points=100")
    assert points["points"]["mean"] == [0, 1, 2, 3, 4]
    assert http_json(node, "/api/v1/sql", {"query": "select count(*) as n from readings"})["rows"] == [[5]]
    assert http_json(node, "/openapi.json")["openapi"].startswith("3.")
    counted = 'ringmain_source_readings_total{source="field"} 5\n'
    wait_until(lambda: counted in http_text(node, "/metrics"), what="the count among the metrics")
    for path in ("/healthz", "/readyz", "/"):
        with urllib.request.urlopen(f"http://127.0.0.1:{node.port('serve')}{path}", timeout=60) as answer:
            assert answer.status == 200


def test_a_python_program_appends_reads_and_asks_beside_the_node_and_once_it_is_gone(
    node: RunningNode,
) -> None:
    import pyarrow as pa

    data = node.directory / "data"
    table = pa.table(
        {"series": ["a", "b"], "time": pa.array([1, 2], pa.timestamp("s", "UTC")), "value": [1.0, 2.0]}
    )
    for stopped in (False, True):
        if stopped:
            assert node.stop() == 0
        for _ in range(2):
            with ringmain.open(data) as log:
                log.append({"readings": table}, producer="importer", sequence=7)
        with ringmain.open(data, read_only=True) as log:
            assert log.sql("select series, value from readings order by 1").to_pylist() == [
                {"series": "a", "value": 1.0},
                {"series": "b", "value": 2.0},
            ]
            assert sum(batch.num_rows for batch in log.read("readings")) == 2


def test_the_command_line_lints_taps_reads_verifies_and_examines(node: RunningNode) -> None:
    def ringmain_text(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ringmain.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=node.directory,
            timeout=120,
            check=False,
        )

    lint = ringmain_text("lint", "ringmain.toml")
    assert (lint.returncode, "no errors" in lint.stdout) == (0, True)
    tap = subprocess.Popen(
        [sys.executable, "-m", "ringmain.cli.main", "tap", "m9/*", "--limit", "1", "--format", "json"],
        stdout=subprocess.PIPE,
        cwd=node.directory,
        text=True,
    )
    second = 0

    def tapped() -> bool:
        nonlocal second
        second += 1
        publish(node, "meters/m9/power", json.dumps({"t": 1_767_225_600 + second, "v": 1}))
        publish(node, "meters/m8/power", json.dumps({"t": 1_767_225_600 + second, "v": 1}))
        return tap.poll() is not None

    wait_until(tapped, 60, "a tapped reading")
    assert tap.stdout is not None
    rows = json.loads(tap.stdout.read())
    tap.stdout.close()
    assert [row["series"] for row in rows] == ["m9/power"]
    streams = {row["stream"]: row for row in ringmain_json("log", "streams", cwd=node.directory)}
    assert streams["readings"]["rows"] == 2 * second
    read = ringmain_json("log", "read", "readings", "--limit", "3", cwd=node.directory)
    assert len(read) == 3
    headers = ringmain_json("log", "read", "readings", "--headers", cwd=node.directory)
    assert headers[-1]["cumulative_rows"] == 2 * second
    unknown = ringmain_text("log", "read", "nothing")
    assert (unknown.returncode, "no stream 'nothing'" in unknown.stderr) == (1, True)
    verified = ringmain_text("log", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    examined = ringmain_json("doctor", cwd=node.directory)
    assert {"python", "fdatasync", "clock", "free space"} <= {row["check"] for row in examined}
    wrong = ringmain_text("sql", "select * from nowhere", "--data", "data")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    nothing = ringmain_text("sql", "select 1", "--data", "absent")
    assert (nothing.returncode, "no log in absent" in nothing.stderr) == (1, True)
