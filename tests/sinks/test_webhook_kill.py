"""Alarms of a real node reach a real server in order, each at least once, though the node is killed again and again."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

import ringmain
from tests.conftest import free_port, wait_until
from tests.node.running import RunningNode
from tests.sinks.receiver import Answer, Receiver, Request

CONFIGURATION = """\
[node]
name = "kill"
data = "data"

[sources.field]
type = "mqtt-listener"
listen = "127.0.0.1:{mqtt}"

[[sources.field.map]]
topic = "t/{{what}}"
series = "{{what}}"
time = "t"
value = "v"

[alerts.hot]
above = 90
flap = 0
group = "none"

[sinks.hook]
type = "webhook"
from = "alarms"
url = "{url}"
timeout = "10s"
begin = "oldest"
"""
KILLS = 2


def heat(port: int, values: list[float], first: int) -> None:
    """Publish at QoS 1, and wait until all is durable."""
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="field")
    device.connect("127.0.0.1", port)
    device.loop_start()
    for number, value in enumerate(values, first):
        payload = json.dumps({"t": time.time_ns() // 1_000_000, "v": value})
        device.publish(f"t/oil-{number % 3}", payload, qos=1).wait_for_publish(60)
    device.disconnect()
    device.loop_stop()


def test_alarms_arrive_in_order_and_none_is_missing_however_often_the_node_is_killed(tmp_path: Path) -> None:
    def answer(request: Request, number: int) -> Answer:
        return Answer(503, {"Retry-After": "0"}) if number % 5 == 2 else Answer()

    with Receiver(answer) as receiver:
        text = CONFIGURATION.format(mqtt=free_port(), url=receiver.url)
        values = [99.0, 98.0, 97.0, 10.0, 11.0, 12.0] * 2
        for round_number in range(KILLS + 1):
            node = RunningNode(tmp_path, text)
            seen = len(receiver.taken)
            heat(node.port("field"), values, round_number * len(values))
            wait_until(lambda: len(receiver.taken) > seen, what="an alarm")  # noqa: B023
            if round_number < KILLS:
                node.kill()
        expected = 2 * len(values) // 2 * (KILLS + 1)
        wait_until(lambda: len(dict.fromkeys(receiver.taken)) >= expected, what="all alarms")
        assert node.stop() == 0
        with ringmain.open(tmp_path / "data") as log:
            stored = [event_id for rows in log.read("alarms") for event_id in rows.column("id").to_pylist()]
        came = receiver.ids
    assert len(stored) == len(set(stored)) == expected
    assert list(dict.fromkeys(came)) == stored
    places = [stored.index(one) for one in came]
    steps_back = [before - place for before, place in itertools.pairwise(places) if place < before]
    assert len(steps_back) <= KILLS
    assert set(receiver.taken) == {f"flow/hot/{one}" for one in stored}
