"""An existing broker as a source, against a real mosquitto: stored first, acknowledged then, nothing lost."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from paho.mqtt import publish as paho_publish
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import CallbackAPIVersion

from ringmain.log import open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Log
from ringmain.log.ledger.accountant import Accountant
from ringmain.model.quality import Quality
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceState, SourceStatus, StorageState
from ringmain.runtime.supervisor import Backoff, Supervisor
from ringmain.sources.mapping import Mapper
from ringmain.sources.mqtt import MqttSource
from ringmain.sources.mqtt_client_settings import MqttSettings
from tests.conftest import Mosquitto, wait_until
from tests.runtime.disk import TestDisk
from tests.sources.consumer import MAP

pytestmark = pytest.mark.mosquitto
Start = Callable[..., Mosquitto]
T0 = 1_795_000_000_000


class Field:
    """A log, and sources that read from brokers into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = TestDisk()
        self.counters = Counters()
        self.log: Log = open_log(directory / "data", fs=self.disk)
        self.registry = SeriesRegistry(self.log)
        self.supervisor = Supervisor(self.log, self.registry, self.counters)

    def start(self, broker: Mosquitto, *, wait: bool = True, **changed: Any) -> None:
        given = {"url": broker.url, "topics": ["meters/#"], "map": [msgspec.to_builtins(MAP)], **changed}
        settings = msgspec.convert(given, MqttSettings)
        assert settings.check()[0] == []
        source = MqttSource("city", "test", settings, Mapper("city", [MAP], self.registry), self.directory)
        self.supervisor = Supervisor(self.log, self.registry, self.counters)
        self.supervisor.add("city", "mqtt", source, backoff=Backoff(0.01, 0.1))
        self.supervisor.start()
        if wait:
            assert self.supervisor.wait_started(60) == [], self.status

    @property
    def status(self) -> SourceStatus:
        return self.supervisor.statuses()[0]

    def wait_readings(self, count: int) -> None:
        wait_until(lambda: self.status.readings >= count, what=f"{count} readings ({self.status})")

    def rows(self) -> list[tuple[int, float, int]]:
        """(time in ms, value, quality) as stored."""
        found = []
        for frame in self.log.read("readings"):
            times = frame.rows.column("time").cast(pa.int64()).to_pylist()
            values, qualities = (
                frame.rows.column("value").to_pylist(),
                frame.rows.column("quality").to_pylist(),
            )
            found += [(t // 1_000_000, v, q) for t, v, q in zip(times, values, qualities, strict=True)]
        return found

    def values(self) -> list[float]:
        return [value for _, value, _ in self.rows()]

    def letters(self) -> list[tuple[str, bytes]]:
        return [
            pair
            for frame in self.log.read("deadletters")
            for pair in zip(
                frame.rows.column("topic").to_pylist(), frame.rows.column("payload").to_pylist(), strict=True
            )
        ]


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    field = Field(tmp_path)
    yield field
    field.disk.mend()
    field.disk.release()
    field.supervisor.stop(60)
    accountant = Accountant(field.log)  # type: ignore[arg-type]
    accountant.advance()
    field.log.close()
    assert accountant.closes, accountant.accounts()


def publish(broker: Mosquitto, numbers: Sequence[int], *, qos: int = 1, **options: Any) -> None:
    """Publish readings whose value is their number, and return when the broker has them."""
    messages = [
        ("meters/m1/p", json.dumps({"t": T0 + n, "v": n}), qos, options.get("retain", False)) for n in numbers
    ]
    paho_publish.multiple(messages, hostname="127.0.0.1", port=broker.port)


def publish_raw(broker: Mosquitto, topic: str, payload: bytes, *, retain: bool = False) -> None:
    paho_publish.single(topic, payload, 1, retain, hostname="127.0.0.1", port=broker.port)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_readings_arrive_and_are_acknowledged_in_order(field: Field, mosquitto: Start, protocol: str) -> None:
    broker = mosquitto()
    field.start(broker, protocol=protocol)
    publish(broker, range(300))
    field.wait_readings(300)
    wait_until(lambda: field.counters.value("ringmain_mqtt_client_acknowledged_total", "city") == 300)
    assert field.rows() == [(T0 + n, float(n), 0) for n in range(300)]
    wait_until(lambda: broker.log.count("Received PUBACK from ringmain-test-city") == 300)
    assert (field.status.state, field.status.address) == (SourceState.RUNNING, broker.url)
    assert field.status.received == 300


def test_what_mosquitto_pub_sends_arrives(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker)
    for version, qos in (("mqttv311", "0"), ("mqttv311", "1"), ("mqttv5", "2")):
        message = [
            "-t",
            "meters/m1/p",
            "-m",
            json.dumps({"t": T0 + int(qos), "v": int(qos)}),
            "-q",
            qos,
            "-V",
            version,
        ]
        subprocess.run(["mosquitto_pub", "-p", str(broker.port), *message], check=True)
    field.wait_readings(3)
    assert field.values() == [0, 1, 2]
    assert field.counters.value("ringmain_mqtt_client_messages_total", "city", "0") == 1
    assert field.counters.value("ringmain_mqtt_client_messages_total", "city", "1") == 2


def test_nothing_is_acknowledged_before_it_is_durable(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker, receive_maximum=3)
    field.disk.hold()
    publish(broker, range(10))
    wait_until(lambda: field.status.received == 3)
    assert field.disk.waiting.wait(60)
    wait_until(lambda: broker.log.count("Sending PUBLISH to ringmain-test-city") == 3)
    assert "Received PUBACK from ringmain-test-city" not in broker.log
    field.disk.release()
    wait_until(lambda: broker.log.count("Received PUBACK from ringmain-test-city") == 10)
    assert field.values() == list(range(10))


def test_a_message_that_fits_nowhere_becomes_a_letter_and_blocks_nothing(
    field: Field, mosquitto: Start
) -> None:
    broker = mosquitto()
    field.start(broker, receive_maximum=1)
    publish_raw(broker, "meters/m1/p", b"{oops")
    publish_raw(broker, "meters/other", b"1")
    publish(broker, [1])
    field.wait_readings(1)
    assert field.letters() == [("meters/m1/p", b"{oops"), ("meters/other", b"1")]
    wait_until(lambda: broker.log.count("Received PUBACK from ringmain-test-city") == 3)


def test_a_restart_of_the_broker_loses_nothing(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker)
    publish(broker, range(50))
    field.wait_readings(50)
    field.disk.hold()
    publish(broker, range(50, 100))
    assert field.disk.waiting.wait(60)
    broker.stop()
    wait_until(lambda: field.status.last_error is not None or field.status.state is not SourceState.RUNNING)
    broker.start()
    field.disk.release()
    publish(broker, range(100, 150))
    wait_until(lambda: set(field.values()) == set(range(150)))
    assert "the connection was lost" in (field.status.last_error or "")
    # a broker may send what it kept before it answers the subscription
    wait_until(lambda: field.status.state is SourceState.RUNNING)
    assert field.counters.value("ringmain_mqtt_client_connections_total", "city", "kept") >= 1


def test_what_comes_while_we_are_away_is_kept_by_the_broker(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker)
    assert field.supervisor.stop() == []
    assert field.status.state is SourceState.STOPPED
    publish(broker, range(2500))
    field.start(broker)
    field.wait_readings(2500)
    assert field.values() == list(range(2500))


def test_a_stop_acknowledges_what_was_stored(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker)
    field.disk.hold()
    publish(broker, range(20))
    wait_until(lambda: field.status.received == 20)
    stopping = threading.Thread(target=field.supervisor.stop)
    stopping.start()
    field.disk.release()
    stopping.join(60)
    assert field.values() == list(range(20))
    wait_until(lambda: broker.log.count("Received PUBACK from ringmain-test-city") == 20)
    wait_until(lambda: "Received DISCONNECT from ringmain-test-city" in broker.log)


def test_a_full_disk_pushes_back_and_loses_nothing(field: Field, mosquitto: Start) -> None:
    broker = mosquitto("max_inflight_messages 0")
    field.start(broker, receive_maximum=50)
    field.disk.fill()
    publish(broker, range(200))
    wait_until(lambda: field.status.storage is StorageState.FULL)
    assert field.status.readings == 0
    assert field.status.received <= 50
    field.disk.mend()
    field.wait_readings(200)
    assert field.values() == list(range(200))


def test_killed_again_and_again_nothing_published_is_missing(tmp_path: Path, mosquitto: Start) -> None:
    broker = mosquitto()
    dice = random.Random(7)
    acknowledged: list[int] = []
    stop = threading.Event()
    consumer = Path(__file__).with_name("consumer.py")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    command = [sys.executable, str(consumer), str(tmp_path / "data"), broker.url]

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        return process

    def subscriptions() -> int:
        return broker.log.count("Sending SUBACK to ringmain-test-city")

    process = begin()
    wait_until(lambda: subscriptions() == 1)
    publisher = PahoClient(CallbackAPIVersion.VERSION2)
    publisher.on_publish = lambda client, userdata, mid, code, properties: acknowledged.append(mid)
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()
    sent: list[int] = []

    def load() -> None:
        number = 0
        while not stop.is_set():
            info = publisher.publish("meters/m1/p", json.dumps({"t": T0 + number, "v": number}), qos=1)
            sent.append(number)
            number += 1
            if number % 100 == 0:
                info.wait_for_publish(60)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for _ in range(5):
            before, sessions = len(acknowledged), subscriptions()
            kill_after = before + dice.randint(100, 600)
            wait_until(lambda limit=kill_after: len(acknowledged) >= limit)  # type: ignore[misc]
            process.kill()
            process.wait()
            process = begin()
            wait_until(lambda n=sessions: subscriptions() > n)  # type: ignore[misc]
    finally:
        stop.set()
        loader.join()
    wait_until(lambda: len(acknowledged) == len(sent))
    publisher.disconnect()
    publisher.loop_stop()

    publish_raw(broker, "meters/end/p", json.dumps({"t": T0, "v": -1}).encode())
    found: set[int] = set()

    def stored() -> bool:
        reader = open_reader(tmp_path / "data")
        for frame in reader.read("readings"):
            found.update(int(value) for value in frame.rows.column("value").to_pylist())
        reader.close()
        return -1 in found

    wait_until(stored, 60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert stored()
    assert sorted(set(sent) - found) == []
    assert len(sent) > 500


@pytest.fixture
def authority() -> Any:
    return pytest.importorskip("trustme").CA()


def tls_lines(authority: Any, directory: Path, *more: str) -> list[str]:
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(directory / "broker.key"))
    certificate.cert_chain_pems[0].write_to_path(str(directory / "broker.pem"))
    return [
        f"cafile {directory}/ca.pem",
        f"certfile {directory}/broker.pem",
        f"keyfile {directory}/broker.key",
        *more,
    ]


def test_over_tls_with_a_certificate_of_our_own(
    field: Field, mosquitto: Start, tmp_path: Path, authority: Any
) -> None:
    lines = tls_lines(authority, tmp_path, "require_certificate true")
    broker = mosquitto(listener_lines=lines)
    own = authority.issue_cert("ringmain")
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    field.start(
        broker,
        url=broker.url.replace("mqtt:", "mqtts:"),
        tls={"ca": "ca.pem", "certificate": "own.pem", "key": "own.key"},
    )
    messages = [("meters/m1/p", json.dumps({"t": T0 + n, "v": n}), 1, False) for n in range(500)]
    paho_publish.multiple(
        messages,
        hostname="127.0.0.1",
        port=broker.port,
        tls={
            "ca_certs": f"{tmp_path}/ca.pem",
            "certfile": f"{tmp_path}/own.pem",
            "keyfile": f"{tmp_path}/own.key",
        },
    )
    field.wait_readings(500)
    assert field.values() == list(range(500))


def test_a_broker_that_is_not_trusted_is_not_talked_to(
    field: Field, mosquitto: Start, tmp_path: Path, authority: Any
) -> None:
    broker = mosquitto(listener_lines=tls_lines(authority, tmp_path))
    field.start(broker, wait=False, url=broker.url.replace("mqtt:", "mqtts:"))
    wait_until(lambda: field.status.last_error is not None)
    assert "the broker's certificate is not trusted" in (field.status.last_error or "")
    assert "give its authority as `tls.ca`" in (field.status.last_error or "")


def test_a_missing_certificate_file_is_named(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker, wait=False, url=broker.url.replace("mqtt:", "mqtts:"), tls={"ca": "absent.pem"})
    wait_until(lambda: field.status.last_error is not None)
    assert "absent.pem" in (field.status.last_error or "")
    assert "check `tls.ca`" in (field.status.last_error or "")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_is_a_clear_state_without_the_password(
    field: Field, mosquitto: Start, tmp_path: Path, protocol: str
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "me", "right"], check=True)
    broker = mosquitto("allow_anonymous false", f"password_file {passwords}")
    url = f"mqtt://me:wrong@127.0.0.1:{broker.port}"
    field.start(broker, wait=False, url=url, protocol=protocol)
    wait_until(lambda: field.status.restarts > 1)
    error = field.status.last_error or ""
    assert f"{broker.url}: the broker refused the connection" in error
    assert "check user and password in `url`" in error
    assert "wrong" not in error
    field.supervisor.stop()
    (tmp_path / "secret").write_text("right\n")
    field.start(broker, url=f"mqtt://me@127.0.0.1:{broker.port}", password_file="secret", protocol=protocol)
    assert field.status.address == broker.url


def test_a_broker_that_comes_late_is_found(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    broker.stop()
    field.start(broker, wait=False)
    wait_until(lambda: field.status.state is SourceState.BACKOFF)
    assert "expected a broker, found" in (field.status.last_error or "")
    broker.start()
    assert field.supervisor.wait_started(60) == []


def test_a_server_that_is_no_broker_is_named(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        field.start(broker, wait=False, url=url, connect_timeout="100ms")
        wait_until(lambda: field.status.last_error is not None)
        told = (
            field.status.last_error
        )  # looked at while the server listens: without it the next try is refused
    assert "expected CONNACK within 0.1 s, found none" in (told or "")


def test_a_server_that_never_answers_holds_up_no_stop(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtts://127.0.0.1:{silent.getsockname()[1]}"
        field.start(broker, wait=False, url=url, connect_timeout="600s", keep_alive="600s")
        silent.accept()
        assert field.supervisor.stop(60) == []
        assert field.status.state is SourceState.STOPPED


def test_a_refused_subscription_is_a_clear_state(field: Field, mosquitto: Start, tmp_path: Path) -> None:
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"), None)
    if plugin is None:
        pytest.skip("mosquitto's dynamic security plugin is not installed")
    rules = tmp_path / "rules.json"
    subprocess.run(
        ["mosquitto_ctrl", "dynsec", "init", str(rules), "me", "secret"], check=True, capture_output=True
    )
    known = json.loads(rules.read_text())
    for role in known["roles"]:
        role["acls"] = [acl for acl in role["acls"] if not acl["acltype"].startswith("subscribe")]
    rules.write_text(json.dumps(known))
    broker = mosquitto("allow_anonymous false", f"plugin {plugin}", f"plugin_opt_config_file {rules}")
    field.start(broker, wait=False, url=f"mqtt://me:secret@127.0.0.1:{broker.port}")
    wait_until(lambda: field.status.last_error is not None)
    assert "the broker refused the subscription to 'meters/#'" in (field.status.last_error or "")


def test_another_client_of_the_same_name_is_pointed_out(field: Field, mosquitto: Start) -> None:
    from paho.mqtt.client import MQTTv5

    broker = mosquitto()
    field.start(broker)
    other = PahoClient(CallbackAPIVersion.VERSION2, "ringmain-test-city", protocol=MQTTv5)
    other.connect("127.0.0.1", broker.port)
    wait_until(lambda: field.status.last_error is not None)
    assert "another client with the same `client_id`" in (field.status.last_error or "")


def test_retained_messages_are_flagged_as_old(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    publish_raw(broker, "meters/m1/p", json.dumps({"t": T0, "v": 7}).encode(), retain=True)
    publish_raw(broker, "meters/m2/p", json.dumps({"v": 8}).encode(), retain=True)
    field.start(broker)
    field.wait_readings(2)
    publish(broker, [9])
    field.wait_readings(3)
    quality = {value: bits for _, value, bits in field.rows()}
    assert quality[7] == Quality.HISTORICAL
    assert quality[8] == Quality.HISTORICAL | Quality.QUESTIONABLE | Quality.ARRIVAL_TIME
    assert quality[9] == Quality.GOOD
    assert field.counters.value("ringmain_mqtt_client_retained_total", "city") == 2
    field.supervisor.stop()
    field.start(broker)
    publish(broker, [10])
    wait_until(lambda: 10 in field.values())
    assert len(field.rows()) == 4


def test_topics_that_left_the_configuration_come_no_more(field: Field, mosquitto: Start) -> None:
    broker = mosquitto()
    field.start(broker, topics=["meters/#", "old/#"])
    field.supervisor.stop()
    field.start(broker, topics=["meters/#"])
    publish_raw(broker, "old/x", b"1")
    publish(broker, [1])
    field.wait_readings(1)
    assert field.letters() == []
    assert field.status.received == 1
