"""Steps that fail in a running node: the batch becomes a dead letter, other flows go on, and people act from outside.

Functions that raise, give rubbish, never return or end their process, and queries that fail or take for ever.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port, wait_until
from tests.node.publisher import connect_packet, publish_packet
from tests.node.running import RunningNode
from tests.node.stored import assert_account_closes, http_json, query

NODE = """\
[node]
name   = "steps"
data   = "data"
layout = "split"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}"
series = "{{meter}}"
time   = "t"
value  = "v"

[serve]
listen = "127.0.0.1:{http}"

[flows.good]
to = "good"
[[flows.good.steps]]
type  = "filter"
where = "true"
"""
PYTHON = """
[flows.{name}]
to    = "{name}"
tries = {tries}
[[flows.{name}.steps]]
type     = "python"
function = "{name}.py:step"
"""
SQL = """
[flows.{name}]
to    = "{name}"
tries = 2
[[flows.{name}.steps]]
type       = "sql"
window     = "1s"
grace      = "0s"
idle       = "60s"
time_limit = "1s"
query      = "{query}"
"""
HEAD = """\
import os, time
from pathlib import Path
import pyarrow as pa

def step(rows, state):
    values = rows["value"].to_pylist()
"""
RAISES = (
    HEAD
    + """
    if 13.0 in values:
        raise ArithmeticError("thirteen")
    return rows
"""
)
RUBBISH = (
    HEAD
    + """
    if 16.0 in values:
        return rows.rename_columns(["a", "b", "c", "d"])
    if 17.0 in values:
        return [1, 2, 3]
    if 18.0 in values:
        return rows.set_column(2, "value", pa.array([float("nan")] * rows.num_rows))
    if 19.0 in values:
        return rows.set_column(2, "value", pa.array(["a lot"] * rows.num_rows))
    if 20.0 in values:
        return bytearray(1 << 55)
    if 21.0 in values:
        return rows.set_column(0, "series", pa.array([4000000] * rows.num_rows, pa.uint32()))
    if 22.0 in values:
        state["kept"] = {1, 2}
    if 23.0 in values:
        return rows.set_column(2, "value", pa.array([None] * rows.num_rows, pa.float64()))
    return pa.concat_batches([rows, rows]) if 24.0 in values else rows
"""
)
NEVER = (
    HEAD
    + """
    while 15.0 in values:
        pass
    return rows
"""
)
KILLS = (
    HEAD
    + """
    if 14.0 in values:
        os._exit(3)
    return rows
"""
)
HOLDS = (
    HEAD
    + """
    if any(value >= 40.0 for value in values):
        ctypes.PyDLL(None).sleep(3600)  # no other thread of the process runs meanwhile
    return rows
"""
).replace("import os", "import ctypes, os")
CASTS = "select series, cast(case when value = 13 then 'much' else '1' end as integer) as n from rows"
ENDLESS = "select count(*) as n from rows a, rows b, rows c, rows d, rows e where a.value + b.value > c.value * d.value"


class Meter:
    """A device that sends one reading after the other, each when the one before was acknowledged."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.sendall(connect_packet("meter"))
        assert self._socket.recv(4)[:2] == b"\x20\x02"
        self._sent = 0
        self._start_ms = int(time.time()) * 1000

    def send(self, *values: float, every_ms: int = 1000) -> None:
        for value in values:
            self._sent += 1
            self._start_ms += every_ms
            payload = f'{{"t": {self._start_ms}, "v": {value}}}'.encode()
            self._socket.sendall(publish_packet("meters/m", payload, self._sent))
            assert len(self._socket.recv(4)) == 4

    def close(self) -> None:
        self._socket.close()


def node_of(directory: Path, text: str, **functions: str) -> RunningNode:
    directory.mkdir()
    for name, source in functions.items():
        (directory / f"{name}.py").write_text(source)
    return RunningNode(directory, text)


def told(node: RunningNode, *arguments: str, status: int = 0) -> str:
    """What a command of the command line says about the running node."""
    done = subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=node.directory,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def awaited(condition: Callable[[], bool], what: str) -> None:
    """Wait; a look at the log costs as much as many readings."""
    wait_until(condition, 90, what, interval_s=0.2)


def flows(http: int) -> dict[str, dict[str, Any]]:
    return {flow["name"]: flow for flow in http_json(http, "/api/v1/overview")["flows"]}


def values(node: RunningNode, stream: str) -> list[float]:
    """The values in a stream; none before its flow has made it."""
    known = query(
        node.directory / "data", f"select 1 from information_schema.tables where table_name = '{stream}'"
    )
    if not known:
        return []
    return [row["value"] for row in query(node.directory / "data", f'select value from "{stream}"')]


def letters(node: RunningNode, flow: str) -> list[dict[str, Any]]:
    statement = f"select topic, reason from deadletters where source = 'flow/{flow}'"
    return query(node.directory / "data", statement)


@pytest.mark.timeout(240)
def test_batches_on_which_functions_and_queries_fail_are_dead_letters_and_people_act_from_outside(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    text = NODE.format(port=port, http=http)
    text += PYTHON.format(name="raises", tries=2) + PYTHON.format(name="rubbish", tries=1)
    text += PYTHON.format(name="patient", tries=100) + SQL.format(name="casts", query=CASTS)
    text += SQL.format(name="endless", query=ENDLESS)
    with node_of(tmp_path / "n", text, raises=RAISES, rubbish=RUBBISH, patient=RAISES) as node:
        meter = Meter(port)
        meter.send(1, 13, 2, *range(16, 25), 3)
        sent = [1.0, 13.0, 2.0, *map(float, range(16, 25)), 3.0]
        awaited(lambda: values(node, "good") == sent, "a flow beside them has all of it")
        meter.send(*[4.0] * 300, every_ms=1)
        sent += [4.0] * 300
        meter.send(5.0, every_ms=5000)
        sent.append(5.0)
        awaited(lambda: 5.0 in values(node, "rubbish"), "the flow goes on behind rubbish")
        rubbish = letters(node, "rubbish")
        assert [letter["topic"] for letter in rubbish] == ["step 1 python"] * len(rubbish)
        for reason, of in (
            ("expected columns series, time, value, quality, found them without", 1),
            ("expected a pyarrow RecordBatch, Table or None, found list", 1),
            ("column 'value': expected double, found string", 1),
            ("MemoryError", 1),
            ("expected ids of series that came in", 1),
            ("state['kept']: expected plain data", 1),
            ("column 'value' must not hold nulls", 1),
        ):
            assert sum(reason in letter["reason"] for letter in rubbish) == of, (reason, rubbish)
        kept = values(node, "rubbish")
        assert [value for value in kept if value < 13] == [1.0, 2.0, 3.0, *[4.0] * 300, 5.0]
        assert sum(value != value for value in kept) == 1, "no value is a value that a function may give"
        assert kept.count(24.0) == 2

        awaited(lambda: 5.0 in values(node, "raises"), "the flow goes on behind the batch")
        (letter,) = letters(node, "raises")
        assert letter["topic"] == "step 1 python"
        assert "Traceback" in letter["reason"]
        assert "raises.py" in letter["reason"]
        assert "ArithmeticError: thirteen" in letter["reason"]
        position = query(
            node.directory / "data", "select reason from deadletters where source = 'flow/raises'"
        )
        assert "failed at position" in position[0]["reason"]
        assert values(node, "raises") == [value for value in sent if value != 13.0]

        awaited(lambda: flows(http)["patient"]["state"] == "backoff", "it waits to try again")
        assert "of 100)" in flows(http)["patient"]["last_error"]
        assert values(node, "patient") == [1.0]
        told(node, "flow", "skip", "patient", "--data", "data")
        awaited(lambda: 5.0 in values(node, "patient"), "it goes on when told to skip the batch")
        assert len(letters(node, "patient")) == 1

        data = node.directory / "data"
        awaited(lambda: len(query(data, 'select rows from "endless.failed"')) == 1, "the query is given up")
        assert query(data, 'select rows from "endless.failed"')[0]["rows"] == 301
        assert ["ran longer than 1s" in letter["reason"] for letter in letters(node, "endless")] == [True]
        (failed,) = query(data, 'select reason from "casts.failed"')
        assert "Could not convert string 'much' to INT32" in failed["reason"]
        assert not letters(node, "casts")

        (node.directory / "raises.py").write_text(RAISES.replace("13.0 in values", "False"))
        told(node, "reload", str(node.file))
        awaited(lambda: flows(http)["raises"]["state"] == "failed", "another function is another definition")
        assert "ringmain flow continue raises" in flows(http)["raises"]["last_error"]
        assert flows(http)["good"]["state"] == "running"
        told(node, "flow", "continue", "raises", "--data", "data")
        awaited(lambda: flows(http)["raises"]["state"] == "running", "it goes on")
        told(node, "replay", "raises", "--data", "data")
        awaited(lambda: 13.0 in values(node, "raises"), "what was left out is there after a replay")
        told(node, "flow", "retry", "raises", "--data", "data")
        assert "it adds up" in told(node, "log", "account", "data")
        assert values(node, "good") == sent
        meter.close()
        assert node.stop() == 0
        assert_account_closes(data)


@pytest.mark.timeout(240)
def test_a_function_that_never_returns_or_ends_its_process_costs_its_own_flow_one_batch(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    text = NODE.format(port=port, http=http)
    text += PYTHON.format(name="never", tries=2) + PYTHON.format(name="kills", tries=2)
    with node_of(tmp_path / "n", text, never=NEVER, kills=KILLS) as node:
        meter = Meter(port)
        meter.send(1, 15, 2)
        awaited(lambda: values(node, "good") == [1.0, 15.0, 2.0], "a flow beside it goes on")
        awaited(lambda: flows(http)["never"]["last_error"] is not None, "it is told")
        error = flows(http)["never"]["last_error"]
        assert "a step has been in one call for" in error
        assert "never.py:9 in step" in error or "never.py:8 in step" in error
        assert "ringmain flow skip never" in error
        assert "never.py" in told(node, "status", str(node.file))
        flowing = node.parts()["flows"]
        told(node, "flow", "skip", "never", "--data", "data")
        meter.send(14, 3)
        awaited(lambda: 3.0 in values(node, "kills"), "the flow goes on behind the batch that kills")
        assert node.parts()["flows"] != flowing
        assert values(node, "kills") == [1.0, 15.0, 2.0, 3.0]
        (letter,) = letters(node, "kills")
        assert "the process ended 2 times in the call behind position" in letter["reason"]
        awaited(lambda: 3.0 in values(node, "never"), "the flow goes on behind the batch that took for ever")
        assert values(node, "never") == [1.0, 2.0, 14.0, 3.0]
        (letter,) = letters(node, "never")
        assert "did not return, and was told to be skipped" in letter["reason"]
        assert values(node, "good") == [1.0, 15.0, 2.0, 14.0, 3.0]

        os.kill(node.parts()["flows"], signal.SIGKILL)
        meter.send(4)
        awaited(lambda: 4.0 in values(node, "never") and 4.0 in values(node, "kills"), "they go on")
        assert len(letters(node, "kills")) == len(letters(node, "never")) == 1
        meter.close()
        assert node.stop() == 0
        assert_account_closes(node.directory / "data")


@pytest.mark.timeout(240)
def test_a_function_that_lets_no_other_thread_run_is_found_named_and_held_while_other_flows_go_on(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    text = NODE.format(port=port, http=http).replace("[node]", '[node]\nsilence = "5s"')
    text += PYTHON.format(name="holds", tries=1)
    with node_of(tmp_path / "n", text, holds=HOLDS) as node:
        meter = Meter(port)
        meter.send(1, 40)
        flowing = node.parts()["flows"]
        awaited(lambda: len(letters(node, "holds")) == 1, "the batch that stops all is given up")
        assert node.parts()["flows"] != flowing
        (letter,) = letters(node, "holds")
        assert "the process ended 1 times in the call behind position" in letter["reason"]
        status = told(node, "status", str(node.file), "--format", "json")
        assert "nothing was heard of it for" in status
        assert "flow holds was in a call of step behind position" in status

        meter.send(41, 2)
        awaited(lambda: flows(http).get("holds", {}).get("state") == "failed", "it is held")
        error = flows(http)["holds"]["last_error"]
        assert "had to be ended, 2 times in a row in calls of this step" in error
        assert "ringmain flow retry holds" in error
        assert values(node, "holds") == [1.0]
        meter.send(3)
        awaited(lambda: values(node, "good") == [1.0, 40.0, 41.0, 2.0, 3.0], "others go on")

        (node.directory / "holds.py").write_text(HOLDS.replace("40.0", "1e9"))
        told(node, "reload", str(node.file))
        told(node, "flow", "continue", "holds", "--data", "data")
        awaited(lambda: values(node, "holds") == [1.0, 41.0, 2.0, 3.0], "mended, it goes on")
        meter.close()
        assert node.stop() == 0
        assert_account_closes(node.directory / "data")
