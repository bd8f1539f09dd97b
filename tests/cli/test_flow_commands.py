"""`ringmain flow graph`, `ringmain test` and `ringmain tap FLOW` as somebody at a terminal meets them."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from tests.flows.cases.writing import write
from tests.flows.recording import batch, catalogue
from tests.ports import free_port

from ringmain.cli.main import cli
from ringmain.log import open_log
from ringmain.log.interface import Batch

SECOND = 1_000_000_000
START = 1_772_366_400 * SECOND  # 2026-03-01T12:00:00Z
NODE = """
[node]
name = "graph"
[sources.field]
type = "mqtt-listener"
listen = "127.0.0.1:1884"
[[sources.field.map]]
topic = "{a}"
series = "{a}"
value = "$"
[flows.load]
to = "load"
[[flows.load.steps]]
type = "filter"
where = "unit = 'W' and key != '<a&b>'"
[[flows.load.steps]]
type = "convert"
unit = "kW"
[flows.minute]
from = "load"
to = "load.1m"
[[flows.minute.steps]]
type = "window"
late = "drop"
[alerts.high]
from = "load"
above = 400
[sinks.files]
type = "export"
from = ["load", "load.1m"]
directory = "out"
"""


def ringmain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def graph(tmp_path: Path, *options: str, text: str = NODE) -> str:
    file = tmp_path / "ringmain.toml"
    file.write_text(text)
    shown = ringmain("flow", "graph", str(file), *options)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_the_graph_as_text_begins_with_sources_and_names_what_was_shown_before(tmp_path: Path) -> None:
    assert (
        graph(tmp_path)
        == """\
source field: mqtt-listener
└─ readings
   └─ flow load: filter unit = 'W' and key != '<a&b>' > convert kW
      ├─ load
      │  ├─ flow minute: window 1m
      │  │  ├─ load.1m
      │  │  │  └─ sink files: export
      │  │  └─ load.1m.late
      │  ├─ flow high: alert above 400
      │  │  └─ alarms
      │  └─ sink files (see above)
      └─ load.unconverted
"""
    )


def test_the_graph_as_drawing_has_every_box_and_line_inside_and_is_the_same_again(tmp_path: Path) -> None:
    drawn = graph(tmp_path, "--svg")
    assert drawn == graph(tmp_path, "--svg")
    tree = ElementTree.fromstring(drawn)
    names = {f.text for f in tree.iter("{http://www.w3.org/2000/svg}text") if f.get("class") == "name"}
    boxes = ["field", "readings", "load", "minute", "load.1m", "load.1m.late", "high", "alarms", "files"]
    assert names == {*boxes, "load.unconverted"}
    width, height = float(tree.get("width", 0)), float(tree.get("height", 0))
    for box in tree.findall(".//{http://www.w3.org/2000/svg}g/{http://www.w3.org/2000/svg}rect"):
        assert float(box.get("x", -1)) + float(box.get("width", 0)) <= width
        assert float(box.get("y", -1)) + float(box.get("height", 0)) <= height
    lines = [path for path in tree.iter("{http://www.w3.org/2000/svg}path") if path.get("marker-end")]
    assert len(lines) == 11


def test_a_node_without_flows_has_a_graph_too(tmp_path: Path) -> None:
    assert graph(tmp_path, text='[node]\nname = "x"\n') == "no flows, no sources, no sinks\n"
    assert "<svg" in graph(tmp_path, "--svg", text='[node]\nname = "x"\n')


def test_differences_are_a_table_and_the_exit_status_is_1(tmp_path: Path) -> None:
    expected = "series,time,value\nm1,2026-03-01T12:00:00Z,1.5\nm2,2026-03-01T12:00:00Z,99\nm1,2026-03-01T12:00:02Z,nan\n"
    write(tmp_path / "right", expected=expected.replace("99", "2.5"))
    write(tmp_path / "wrong", expected=expected)
    write(tmp_path / "broken", input="series\nm1\n")
    shown = ringmain("test", str(tmp_path))
    assert shown.exit_code == 1
    lines = shown.stdout.splitlines()
    assert lines[0] == f"failed   {tmp_path / 'broken'}"
    assert "expected columns series, time, value" in lines[1]
    assert lines[2] == f"passed   {tmp_path / 'right'}: 3 rows in, 3 out"
    assert lines[3] == f"failed   {tmp_path / 'wrong'}: 1 difference"
    assert lines[4].split() == ["stream", "row", "column", "expected", "found"]
    assert lines[5].split() == ["different", "kilowatts", "m2", "2026-03-01T12:00:00Z", "value", "99", "2.5"]
    assert lines[-1].startswith("3 cases, 1 passed, 2 failed in ")


def test_update_writes_and_the_next_run_passes(tmp_path: Path) -> None:
    case = write(tmp_path / "one")
    assert "updated" in ringmain("test", str(case), "--update").stdout
    assert ringmain("test", str(case / "flow.toml")).exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["test"], ["test", "--record", "x"], ["test", "--record", "x", "-o", "y", "z"]]
)
def test_wrong_usage_of_test_is_told(arguments: list[str]) -> None:
    assert ringmain(*arguments).exit_code == 2


def recorded_node(tmp_path: Path) -> Path:
    """A node's configuration beside a log in which readings of three seconds lie."""
    (tmp_path / "ringmain.toml").write_text(
        '[node]\nname = "n"\n[flows.total]\nto = "total"\n[[flows.total.steps]]\ntype = "latest-sum"\nby = ["place"]\n'
    )
    with open_log(tmp_path / "data") as log:
        claim = log.claim("feed")
        entries = catalogue({0: "m1", 1: "m2"})
        names = entries.schema.names
        entries = entries.set_column(names.index("place"), "place", pa.array(["west", 'ea"st']))
        log.append([Batch("catalogue", entries)], claim=claim, sequence=0)
        for second in range(4):
            now = START + second * SECOND
            rows = batch([(0, now, 1.5 + second, 0), (1, now, float("nan"), 2)])
            log.append([Batch("readings", rows, now)], claim=claim, sequence=second + 1)
    return tmp_path / "ringmain.toml"


def test_a_case_is_recorded_out_of_a_log_and_passes_and_tests_the_nodes_own_file(tmp_path: Path) -> None:
    config, case = recorded_node(tmp_path), tmp_path / "cases" / "first"
    shown = ringmain(
        "test", "--record", "total", "--data", str(config), "-o", str(case),
        "--from", "2026-03-01T12:00:01Z", "--to", "2100-01-01",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"recorded {case}: 6 rows in,")
    assert (case / "input.csv").read_text().splitlines()[:3] == [
        "arrived,series,time,value,quality",
        "2026-03-01T12:00:01Z,key/0,2026-03-01T12:00:01Z,2.5,0",
        "2026-03-01T12:00:01Z,key/1,2026-03-01T12:00:01Z,nan,2",
    ]
    assert 'key/1,,,,m2,"ea""st",' in (case / "series.csv").read_text()
    assert "west,,2026-03-01T12:00:03Z,4.5" in (case / "expected.csv").read_text()
    assert ringmain("test", str(case)).exit_code == 0
    config.write_text(config.read_text().replace('"place"', '"device"'))
    assert ringmain("test", str(case)).exit_code == 1
    again = ringmain("test", "--record", "total", "--data", str(config), "-o", str(case))
    assert "expected a directory that is empty" in again.output


def test_recording_what_is_not_there_is_told(tmp_path: Path) -> None:
    config = str(recorded_node(tmp_path))
    unknown = ringmain("test", "--record", "totl", "--data", config, "-o", str(tmp_path / "c"))
    assert "no flow 'totl'; it has total" in unknown.output
    nothing = ringmain(
        "test", "--record", "total", "--data", config, "-o", str(tmp_path / "d"), "--to", "2020-01-01"
    )
    assert nothing.exit_code == 1
    assert "nothing arrived for flow 'total'" in nothing.output


class _Flows(BaseHTTPRequestHandler):
    """Answers as a node's server does, with counts that grow by 10 a second."""

    looks = 0

    def do_GET(self) -> None:
        assert self.path == "/api/v1/flows"
        looks = type(self).looks
        type(self).looks += 1
        flow: dict[str, Any] = {
            "name": "load", "to": "load", "state": "running", "lag_s": 0.5, "newest_ms": 1_772_366_400_000,
            "rows": 10 * looks, "late": 0, "revisions": 0, "ahead": 0, "duplicates": 0, "failed": 0,
            "last_error": None,
            "steps": [
                {"step": "1 filter", "rows_in": 10 * looks, "rows_out": 5 * looks, "rows_aside": 0, "state_bytes": 0},
                {"step": "2 convert", "rows_in": 5 * looks, "rows_out": 4 * looks, "rows_aside": looks, "state_bytes": 7},
            ],
        }  # fmt: skip
        body = json.dumps({"now_ms": 1000 * looks, "flows": [flow]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_tap_of_a_flow_shows_rows_in_and_out_of_each_step_with_rates(tmp_path: Path) -> None:
    port = free_port()
    server = HTTPServer(("127.0.0.1", port), _Flows)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        file = tmp_path / "ringmain.toml"
        file.write_text(NODE + f'[serve]\nlisten = "127.0.0.1:{port}"\n')
        shown = ringmain("tap", "load", "--data", str(file), "--limit", "1", "--format", "json")
        assert shown.exit_code == 0, shown.output
        first, second = json.loads(shown.stdout)
        assert (first["step"], first["rows_in"], first["in_per_s"], first["out_per_s"]) == (
            "1 filter",
            10,
            10.0,
            5.0,
        )
        assert (second["aside"], second["state_bytes"], second["lag_s"]) == (1, 7, 0.5)
        assert first["newest"] == "2026-03-01T12:00:00Z"
        gone = ringmain("tap", "minute", "--data", str(file), "--limit", "1")
        assert "the running node has no flow 'minute'; it has load" in gone.output
    finally:
        server.shutdown()
        server.server_close()
    assert "expected a running node" in ringmain("tap", "load", "--data", str(file), "--limit", "1").output


def test_tap_takes_a_configuration_file_for_readings_too(tmp_path: Path) -> None:
    config = recorded_node(tmp_path)
    shown = ringmain("tap", "key/*", "--data", str(config), "--timeout", "0")
    assert shown.exit_code == 0, shown.output
    assert "series" in shown.stdout
