"""After every fault of a whole node `ringmain log account` adds up, with what nobody can know beside it."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ringmain.cli.log import log as log_command
from ringmain.log import open_log
from ringmain.log.builtin import LedgerKind
from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher, connect_packet
from tests.node.running import RunningNode
from tests.node.stored import query

CONFIGURATION = """\
[node]
name = "account"

[log]
segment = "256KiB"
{log}

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
time   = "t"
value  = "v"
"""


def account(data: Path, *arguments: str) -> dict[str, Any]:
    """What the command tells; its exit status is the truth of `closes`."""
    result = CliRunner().invoke(log_command, ["account", str(data), "--json", *arguments])
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if told["closes"] else 1), result.output
    return told


def field_of(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in told["sources"] if one["source"] == "field")
    return found


def publish_at_qos_0(port: int, messages: int, payload: bytes) -> socket.socket:
    """A client that is acknowledged nothing; the connection stays open."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(connect_packet(f"q0-{random.random()}"))
    assert connection.recv(4)
    topic = b"meters/q0/p"
    body = struct.pack(">H", len(topic)) + topic + payload
    assert len(body) < 128
    connection.sendall((bytes([0x30, len(body)]) + body) * messages)
    return connection


def stored_at_qos_0(data: Path) -> int:
    count: int = query(data, "select count(*) as n from readings where series = 'q0/p'")[0]["n"]
    return count


@pytest.mark.timeout(300)
def test_after_kills_under_load_everything_received_is_there_or_accounted_for(tmp_path: Path) -> None:
    directory, port = tmp_path / "node", free_port()
    data = directory / "data"
    configuration = CONFIGURATION.format(port=port, log="")
    chance = random.Random(4)
    node = RunningNode(directory, configuration)
    publishers = [Publisher(port, f"p{n}", rate=1500.0) for n in range(2)]
    for publisher in publishers:
        publisher.start()
    try:
        for _ in range(3):
            before = stored_at_qos_0(data)
            connection = publish_at_qos_0(port, 20, b'{"t":1,"v":2}')
            wait_until(lambda: stored_at_qos_0(data) == before + 20, what="the messages at QoS 0")  # noqa: B023
            threading.Event().wait(chance.uniform(0.0, 0.5))
            told = account(data)  # beside the running node
            assert told["closes"], told
            node.kill()
            connection.close()
            assert account(data)["closes"]
            node = RunningNode(directory, configuration)
        for publisher in publishers:
            publisher.finish()
        publish_at_qos_0(port, 300, b"no reading").close()
        wait_until(lambda: field_of(account(data))["rejected"] >= 300, what="the dead letters")
        assert node.stop() == 0
    finally:
        node.kill()
    told = account(data)
    field = field_of(told)
    assert told["closes"], told
    acknowledged = sum(len(publisher.acknowledged) for publisher in publishers)
    assert field["received"] >= acknowledged + 300
    stored = query(data, "select count(*) as n from readings")[0]["n"]
    assert field["readings"]["found"] == stored >= acknowledged
    assert field["letters"]["found"] == field["rejected"] == 300
    assert len(field["unknown"]) == 3, "one for each kill, none for the clean end"
    assert all(one["from_ns"] < one["to_ns"] for one in field["unknown"])
    with open_log(data) as log:
        rejected = [
            row
            for row in log.ledger().drop_columns(["time"]).to_pylist()
            if row["kind"] == LedgerKind.REJECTED
        ]
        assert sum(row["rows"] for row in rejected) == 300
        assert {row["source"] for row in rejected} == {"field"}
        assert list(log.read("ledger")), "the unknown ranges"
    assert account(data, "--source", "field", "--from", "2020-01-01", "--by", "hour")["closes"]


@pytest.mark.timeout(300)
def test_a_source_that_is_always_acknowledged_has_no_unknown_times(tmp_path: Path) -> None:
    directory, port = tmp_path / "node", free_port()
    configuration = CONFIGURATION.format(port=port, log="")
    node = RunningNode(directory, configuration)
    publisher = Publisher(port, "p0", rate=1000.0)
    publisher.start()
    try:
        wait_until(lambda: len(publisher.acknowledged) > 200, what="acknowledgements")
        node.kill()
        node = RunningNode(directory, configuration)
        publisher.finish()
        assert node.stop() == 0
    finally:
        node.kill()
    field = field_of(account(directory / "data"))
    assert field["unknown"] == []
    assert field["readings"]["found"] == field["readings"]["handed_over"] >= len(publisher.acknowledged)


@pytest.mark.timeout(300)
def test_damage_and_a_missing_group_in_a_nodes_log(tmp_path: Path) -> None:
    from tests.log.accounting import damage_group, groups_of, remove_group

    directory, port = tmp_path / "node", free_port()
    data = directory / "data"
    configuration = CONFIGURATION.format(port=port, log="")
    publisher = Publisher(port, "p0", rate=1000.0)
    with RunningNode(directory, configuration) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 500, what="acknowledgements")
        publisher.finish()
        assert node.stop() == 0
    from ringmain.log.control import producer_id

    segment = data / "0000000001.seg"
    mine = [
        place
        for place, (_, _, owner) in enumerate(groups_of(segment.read_bytes()))
        if owner == producer_id("source/field")
    ]
    damage_group(data, 1, mine[len(mine) // 2])
    with RunningNode(directory, configuration) as node:
        list(query(data, "select count(*) from readings"))
        assert node.stop() == 0
    with open_log(data) as log:
        list(log.read("readings"))
    told = account(data)
    assert told["closes"], told
    assert field_of(told)["readings"]["quarantined"] > 0
    _, rows = remove_group(data, 1, mine[len(mine) // 3])
    told = account(data)
    assert (told["closes"], told["difference_rows"]) == (False, rows[16])
    (missing,) = field_of(told)["missing"]
    assert missing["rows"] == rows[16]
