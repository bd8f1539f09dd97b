"""A stream to a real broker: every row, QoS 1, in order of each topic, through lost connections and restarts."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from ringmain.log.interface import Batch, StreamKind
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import EVENT, READING, TIMESTAMP
from ringmain.runtime.sink_runner import SinkRunner
from ringmain.runtime.sink_status import SinkState
from ringmain.sinks.publish import SINK_TYPE, PublishSettings
from ringmain.sinks.publish_message import escaped, parse_template
from ringmain.sinks.types import Surroundings
from tests.conftest import Mosquitto, wait_until
from tests.runtime.sink_rig import SECOND, Room, wait_lag
from tests.sinks.mqtt_rig import Line, Subscriber

pytestmark = pytest.mark.mosquitto
Start = Callable[..., Mosquitto]


class Field:
    """A log, and a publish sink beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.room = Room(directory / "data")
        self.closing: list[Callable[[], None]] = []

    def run(self, url: str, **settings: Any) -> SinkRunner:
        given = {"from": "readings", "url": url, "topic": "out/{key}", **settings}
        typed = msgspec.convert(given, PublishSettings)
        assert typed.check()[0] == []
        sink = SINK_TYPE.build("out", typed, Surroundings("test", self.directory, "UTC"))
        return self.room.run(sink, streams=typed.streams, batch_rows_max=SINK_TYPE.batch_rows_max(typed))

    def subscribe(self, broker: Mosquitto, topics: str = "#") -> Subscriber:
        subscriber = Subscriber(broker, topics)
        self.closing.append(subscriber.close)
        return subscriber

    def line(self, broker: Mosquitto) -> Line:
        line = Line(broker.port)
        self.closing.append(line.close)
        return line

    def put_series(self, series: list[int], values: list[float]) -> None:
        rows = pa.RecordBatch.from_arrays(
            [
                pa.array(series, pa.uint32()),
                pa.array(range(len(values)), pa.int64()).view(TIMESTAMP),
                pa.array(values, pa.float64()),
                pa.array([0] * len(values), pa.uint16()),
            ],
            schema=READING,
        )
        self.room.append(Batch("readings", rows))


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    field = Field(tmp_path)
    yield field
    field.room.close()
    for close in field.closing:
        close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_each_row_is_a_message_in_order(field: Field, mosquitto: Start, protocol: str) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    for n in range(5):
        field.room.put(*range(100 * n, 100 * n + 100))
    runner = field.run(broker.url, protocol=protocol)
    subscriber.wait(500)
    wait_lag(runner)
    assert {topic for topic, _, _ in subscriber.messages} == {"out/ss-01/feeder-0/p"}
    assert [json.loads(payload)["value"] for _, payload, _ in subscriber.messages] == list(range(500))
    assert json.loads(subscriber.messages[1][1]) == {
        "key": "ss-01/feeder-0/p",
        "time": "1970-01-01T00:00:01.000000000Z",
        "value": 1.0,
        "quality": 0,
        "unit": "W",
    }
    assert runner.status().address == broker.url
    assert "q1" in broker.log


def test_a_connection_cut_again_and_again_loses_nothing_and_keeps_the_order(
    field: Field, mosquitto: Start
) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    line = field.line(broker)
    line.after_bytes = 40_000
    chance = [0, 1, 2, 3, 1, 0, 3, 2]
    count = 4000
    ids = [field.room.series[chance[n % 8]] for n in range(count)]
    for start in range(0, count, 400):
        field.put_series(ids[start : start + 400], [float(n) for n in range(start, start + 400)])
    runner = field.run(line.url, topic="{key}", in_flight=50)
    wait_lag(runner)
    values = [json.loads(payload)["value"] for _, payload, _ in subscriber.messages]
    wait_until(lambda: len({json.loads(m[1])["value"] for m in subscriber.messages}) == count)
    values = [json.loads(payload)["value"] for _, payload, _ in subscriber.messages]
    assert line.connections > 5
    repeated = len(values) - count
    assert 0 <= repeated <= 50 * line.connections
    last: dict[str, float] = {}
    for (topic, _, _), value in zip(subscriber.messages, values, strict=True):
        assert value - last.get(topic, -math.inf) > -60 * 8, "no older than what was in flight"
        last[topic] = value
    first_seen = list(dict.fromkeys(values))
    for series in range(4):
        own = [value for value in first_seen if ids[int(value)] == field.room.series[series]]
        assert own == sorted(own)
    assert runner.status().rejected == 0


def test_what_is_repeated_follows_in_order_from_the_first_that_was_not_acknowledged(
    field: Field, mosquitto: Start
) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    line = field.line(broker)
    line.after_bytes = 30_000
    field.room.put(*range(900))
    wait_lag(field.run(line.url, in_flight=20))
    wait_until(lambda: json.loads(subscriber.messages[-1][1])["value"] == 899)
    values = [json.loads(payload)["value"] for _, payload, _ in subscriber.messages]
    for before, value in pairwise(values):
        assert value == before + 1 or before - 20 <= value <= before, "goes on, or back by what was in flight"


def test_a_broker_that_is_away_is_waited_for(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    broker.stop()
    field.room.put(1)
    runner = field.run(broker.url, retain=True)  # for a subscriber that comes later
    wait_until(lambda: runner.state is SinkState.BACKOFF)
    assert "expected a broker" in (runner.status().last_error or "")
    broker.start()
    subscriber = field.subscribe(broker)
    subscriber.wait(1)
    wait_lag(runner)


def test_a_broker_killed_meanwhile_is_waited_for_and_gets_the_rest(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    field.room.put(1)
    runner = field.run(broker.url)
    subscriber.wait(1)
    wait_lag(runner)
    broker.stop(signal.SIGKILL)
    field.room.put(2)
    wait_until(lambda: runner.state in (SinkState.WAITING, SinkState.BACKOFF))
    broker.start()
    later = field.subscribe(broker)
    field.room.put(3)
    wait_until(lambda: [json.loads(m[1])["value"] for m in later.messages][-1:] == [3])
    wait_lag(runner)


def test_after_a_restart_of_the_node_it_goes_on_with_the_next_row(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    field.room.put(1)
    wait_lag(field.run(broker.url))
    field.room.reopen()
    field.room.put(2)
    wait_lag(field.run(broker.url))
    subscriber.wait(2)
    assert [json.loads(payload)["value"] for _, payload, _ in subscriber.messages] == [1, 2]


def test_topics_out_of_attributes_and_levels(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    attributes = SeriesAttributes("kW/h", "power", "gas", "d#1", "Leipzig/West+Ost/ss 7", "Stadtwerke %")
    number = field.room.registry.register("rig", "a/b/c", attributes)
    bare = field.room.registry.register("rig", "$x", SeriesAttributes())
    field.room.registry.save()
    field.put_series([number, bare], [1, 2])
    wait_lag(
        field.run(
            broker.url,
            topic="{node}/{stream}/{key.1}/{key.-1}/{key.4}/{place}/{place.2}/{device}/{unit}/{medium}/{owner}",
            missing="none",
        )
    )
    subscriber.wait(2)
    assert [topic for topic, _, _ in subscriber.messages] == [
        "test/readings/a/c/none/Leipzig/West%2BOst/ss 7/West%2BOst/d%231/kW%2Fh/gas/Stadtwerke %25",
        "test/readings/$x/$x/none/none/none/none/none/none/none",
    ]


def test_a_topic_that_would_be_the_brokers_own_is_escaped(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    number = field.room.registry.register("rig", "$SYS/x", SeriesAttributes())
    field.room.registry.save()
    field.put_series([number], [1])
    wait_lag(field.run(broker.url, topic="{key}"))
    subscriber.wait(1)
    assert subscriber.messages[0][0] == "%24SYS/x"


def test_payloads_with_chosen_members_numbers_for_times_and_an_identity(
    field: Field, mosquitto: Start
) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    field.room.put(1.5, float("nan"), first_time=7)
    members = {"t": "time", "v": "value", "u": "unit", "id": "row", "where": "place", "from": "node"}
    wait_lag(field.run(broker.url, members=members, time_format="ms"))
    subscriber.wait(2)
    position = next(iter(field.room.log.read("readings"))).position
    assert [json.loads(payload) for _, payload, _ in subscriber.messages] == [
        {"t": 7000, "v": 1.5, "u": "W", "id": f"readings/{position}/0", "where": None, "from": "test"},
        {"t": 8000, "v": None, "u": "W", "id": f"readings/{position}/1", "where": None, "from": "test"},
    ]


def test_the_value_alone_retained_for_later_subscribers(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.room.put(1.25, -3.0)
    wait_lag(field.run(broker.url, payload="value", retain=True))
    subscriber = field.subscribe(broker)
    subscriber.wait(1)
    assert subscriber.messages == [("out/ss-01/feeder-0/p", b"-3.0", True)]


def test_window_rows_and_events_are_published_as_well(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    windows = pa.schema(
        [
            pa.field("series", pa.uint32(), nullable=False),
            pa.field("start", TIMESTAMP, nullable=False),
            pa.field("mean", pa.float64()),
            pa.field("revision", pa.uint32()),
        ]
    )
    field.room.log.create_stream("15m", StreamKind.ROW, windows)
    row = {"series": field.room.series[1], "start": 900 * SECOND, "mean": 2.5, "revision": 1}
    field.room.append(Batch("15m", pa.RecordBatch.from_pylist([row], schema=windows)))
    event = {
        "id": "e1",
        "source": "s",
        "type": "alarm/open",
        "subject": None,
        "time": 0,
        "datacontenttype": "application/json",
        "data": b'{"a": [1]}',
    }
    field.room.append(Batch("events", pa.RecordBatch.from_pylist([event], schema=EVENT)))
    runner = field.run(broker.url, **{"from": ["15m", "events"]}, topic="{stream}/{key}/{type}")
    subscriber.wait(2)
    wait_lag(runner)
    assert [(topic, json.loads(payload)) for topic, payload, _ in subscriber.messages] == [
        (
            "15m/ss-01/feeder-1/p/_",
            {
                "key": "ss-01/feeder-1/p",
                "start": "1970-01-01T00:15:00.000000000Z",
                "mean": 2.5,
                "revision": 1,
                "unit": "W",
            },
        ),
        (
            "events/_/alarm%2Fopen",
            {
                "id": "e1",
                "source": "s",
                "type": "alarm/open",
                "subject": None,
                "time": "1970-01-01T00:00:00.000000000Z",
                "data": {"a": [1]},
            },
        ),
    ]


def test_a_topic_that_is_too_long_is_a_dead_letter_and_the_rest_goes_on(
    field: Field, mosquitto: Start
) -> None:
    broker = mosquitto()
    subscriber = field.subscribe(broker)
    long = {
        "id": "x" * 70_000,
        "source": "s",
        "type": "t",
        "subject": None,
        "time": 0,
        "datacontenttype": None,
        "data": None,
    }
    short = {**long, "id": "y"}
    field.room.append(Batch("events", pa.RecordBatch.from_pylist([long, short], schema=EVENT)))
    runner = field.run(broker.url, **{"from": "events"}, topic="{id}")
    subscriber.wait(1)
    wait_lag(runner)
    assert subscriber.messages[0][0] == "y"
    wait_until(lambda: len(field.room.letters()) == 1)
    assert field.room.letters()[0][2] == "expected a topic of at most 65535 bytes, found 70000"


def test_a_broker_that_does_not_allow_the_topic_is_told_and_nothing_is_lost(
    field: Field, mosquitto: Start, tmp_path: Path
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o600)
    broker = mosquitto(f"acl_file {acl}")
    field.room.put(1)
    runner = field.run(broker.url)
    wait_until(lambda: runner.state is SinkState.WAITING)
    assert "the broker refuses a message (0x87)" in (runner.status().last_error or "")
    assert runner.status().rejected == 0
    assert runner.lag()[1] == 1


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ({"topic": "a/+/b"}, "topic", "expected a topic without '+'"),
        ({"topic": ""}, "topic", "found an empty text"),
        ({"topic": "{key.0}"}, "topic", "expected a placeholder"),
        ({"topic": "{device.1}"}, "topic", "expected levels of key or place alone"),
        ({"topic": "{key"}, "topic", "expected a topic without '{'"),
        ({"url": "http://x"}, "url", "expected mqtt://"),
        ({"payload": "value", "members": {"a": "value"}}, "members", 'expected payload = "json"'),
        ({"keep_alive": "0s"}, "keep_alive", "expected 1s to"),
    ],
)
def test_settings_that_cannot_be_used_are_told(given: dict[str, Any], key: str, message: str) -> None:
    full = {"from": "readings", "url": "mqtt://h", "topic": "{key}", **given}
    errors, _ = msgspec.convert(full, PublishSettings).check()
    assert errors[0][0] == key
    assert message in errors[0][1]


def test_names_that_differ_stay_different_in_topics() -> None:
    names = ["a/b", "a%2Fb", "a+b", "a%2Bb", "a#b", "a\x00b", "a%00b", "ä", "a b"]
    assert len({escaped(name) for name in names}) == len(names)
    assert len({escaped(name, levels=True) for name in names}) == len(names)
    assert escaped("a\x85") == "a%C2%85"
    assert parse_template("x/{key.-2}")[1].level == -2  # type: ignore[union-attr]
