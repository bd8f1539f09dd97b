"""A real node with files in and streams out, killed as a whole and in parts."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Mosquitto, wait_until
from tests.node.running import RunningNode
from tests.ports import free_port
from tests.sinks.mqtt_rig import Subscriber

NODE = """
[node]
name = "edge"
layout = "split"

[sources.recorded]
type = "file"
path = "inbox"
match = "*.csv"
settle = "0s"
poll = "50ms"
series = "m/{{meter}}"
time = "time"
time_format = "s"
unit = "kW"

[sinks.lake]
type = "export"
from = "readings"
directory = "lake"
interval = "1s"
keep_free = "0B"

[sinks.city]
type = "publish"
from = "readings"
begin = "oldest"
url = "{broker}"
topic = "out/{{key}}"

[serve]
listen = "127.0.0.1:{port}"
"""


def overview(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/overview", timeout=60) as answer:
        return dict(json.loads(answer.read()))


def exported(directory: Path) -> list[float]:
    return [
        value
        for path in sorted(directory.glob("lake/readings/*/*.parquet"))
        for value in pq.read_table(path, partitioning=None).column("value").to_pylist()
    ]


@pytest.mark.mosquitto
def test_files_come_in_and_rows_go_out_once_through_kills_of_the_node_and_of_its_sinks(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    subscriber = Subscriber(broker)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    port = free_port()
    text = NODE.format(broker=broker.url, port=port)

    def drop(number: int) -> None:
        rows = "".join(f"a,{1000 * number + n},{1000 * number + n}\n" for n in range(1000))
        part = inbox / f".{number}.csv"
        part.write_text("meter,time,value\n" + rows)
        part.rename(inbox / f"{number}.csv")

    node = RunningNode(tmp_path, text)
    try:
        drop(1)
        wait_until(lambda: len(exported(tmp_path)) == 1000)
        drop(2)
        os.kill(node.parts()["sinks"], signal.SIGKILL)
        drop(3)
        wait_until(lambda: len(exported(tmp_path)) == 3000, 60)
        drop(4)
        node.kill()
        node = RunningNode(tmp_path, text)
        wait_until(lambda: len(exported(tmp_path)) == 4000, 60)
        values = [float(n) for n in range(1000, 5000)]
        assert exported(tmp_path) == values
        wait_until(lambda: {json.loads(m[1])["value"] for m in subscriber.messages} == set(values), 60)
        first_seen = list(dict.fromkeys(json.loads(m[1])["value"] for m in subscriber.messages))
        assert first_seen == values
        assert {topic for topic, _, _ in subscriber.messages} == {"out/m/a"}
        files = tmp_path.glob("lake/readings/*/*.parquet")
        columns = [pq.read_table(path, columns=["series", "unit"], partitioning=None) for path in files]
        assert {(row["series"], row["unit"]) for table in columns for row in table.to_pylist()} == {
            ("m/a", "kW")
        }
        wait_until(
            lambda: (
                sorted(path.name for path in (inbox / "done").iterdir()) == [f"{n}.csv" for n in range(1, 5)]
            )
        )

        def settled() -> bool:
            return all(
                sink["state"] == "running" and sink["lag_rows"] == 0 for sink in overview(port)["sinks"]
            )

        wait_until(settled, 60)
        sinks = {sink["name"]: sink for sink in overview(port)["sinks"]}
        assert sinks["city"]["address"] == broker.url
        assert sinks["lake"]["address"] == str(tmp_path / "lake")
        assert sinks["lake"]["type"] == "export"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            metrics = answer.read().decode()
        assert 'ringmain_sink_running{sink="city"} 1' in metrics
        assert node.stop() == 0
    finally:
        node.kill()
        subscriber.close()
    assert "Traceback" not in node.stderr()


def test_sinks_that_cannot_be_are_told_with_the_line_and_the_nearest_right_name(tmp_path: Path) -> None:
    from ringmain.config import ConfigError, load

    file = tmp_path / "node.toml"
    file.write_text(
        '[node]\nname = "a"\n[sinks.a]\ntype = "exprot"\nfrom = "readings"\n[sinks.b]\ntype = "export"\n'
        'from = ["x", "x"]\ndirectory = "d"\nintervall = "1h"\n[sinks.c]\nfrom = "readings"\n'
    )
    with pytest.raises(ConfigError) as found:
        load(file)
    lines = [str(problem) for problem in found.value.problems]
    assert any(":4: sinks.a.type: unknown sink type 'exprot'" in line and "export" in line for line in lines)
    assert any(":8: sinks.b.from: expected each stream once, found 'x' twice" in line for line in lines)
    assert any("sinks.b.intervall" in line and "interval" in line for line in lines)
    assert any("sinks.c: expected a type" in line for line in lines)
