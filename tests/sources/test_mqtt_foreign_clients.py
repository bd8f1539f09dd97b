"""Clients that others wrote: mosquitto_pub, paho and gmqtt, in 3.1.1 and 5, at every QoS, with TLS and passwords."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import gmqtt
import paho.mqtt.client as paho
import pytest
import trustme

from ringmain.sources.mqtt_auth import hash_password
from ringmain.sources.mqtt_codes import Version
from ringmain.sources.mqtt_packets import Connect, Will
from tests.sources.mqtt_rig import Listening, until

MOSQUITTO_PUB = shutil.which("mosquitto_pub")
VERSIONS = pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with Listening(tmp_path / "data") as listening:
        yield listening


def publish(port: int, *arguments: str, lines: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """mosquitto_pub with these arguments, one message for each line if there are lines."""
    if MOSQUITTO_PUB is None:
        reason = "mosquitto_pub is not installed: apt-get install mosquitto-clients"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [MOSQUITTO_PUB, "-p", str(port), *arguments, *(["-l"] if lines is not None else [])]
    text = None if lines is None else "".join(line + "\n" for line in lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.mosquitto
@VERSIONS
@QOS
def test_mosquitto_pub_gets_its_messages_stored(listening: Listening, version: str, qos: int) -> None:
    lines = [json.dumps({"t": 1_700_000_000 + n, "v": n}) for n in range(200)]
    done = publish(listening.port, "-V", version, "-q", str(qos), "-t", "meters/m1/p", lines=lines)
    assert done.returncode == 0, done.stderr
    until(lambda: listening.values() == list(range(200)), "200 readings")
    assert listening.count("messages_total", str(qos)) == 200
    # Readings are stored before the listener has seen that their connection is over.
    until(lambda: listening.count("ended_total", "normal") == 1, "the count of ended connections")


@pytest.mark.mosquitto
@VERSIONS
def test_mosquitto_pub_with_a_persistent_session_and_a_will(listening: Listening, version: str) -> None:
    lasting = ["-c", "-i", "m1", *(["-x", "3600"] if version == "mqttv5" else [])]
    will = ["--will-topic", "status/m1", "--will-payload", "gone", "--will-qos", "1"]
    for n in range(3):
        message = json.dumps({"t": n, "v": n})
        done = publish(
            listening.port, "-V", version, "-q", "2", "-t", "meters/m1/p", "-m", message, *lasting, *will
        )
        assert done.returncode == 0, done.stderr
    assert listening.values() == [0, 1, 2]
    assert listening.events() == []
    assert set(listening.positions()) == {"session/m1"}


@pytest.mark.mosquitto
def test_mosquitto_sub_is_told_that_nothing_is_delivered(listening: Listening) -> None:
    subscriber = shutil.which("mosquitto_sub")
    if subscriber is None:
        pytest.skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
    command = [subscriber, "-p", str(listening.port), "-V", "mqttv5", "-t", "#", "-W", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (
        "denied" in (done.stderr + done.stdout).lower()
        or "not authorized" in (done.stderr + done.stdout).lower()
    )


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
@QOS
def test_paho_gets_its_messages_stored_and_acknowledged(
    listening: Listening, protocol: int, qos: int
) -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "paho", protocol=protocol)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", listening.port)
    client.loop_start()
    assert connected.wait(60)
    sent = [client.publish("meters/m1/p", json.dumps({"t": n, "v": n}), qos) for n in range(100)]
    for message in sent:
        message.wait_for_publish(60)
    until(lambda: len(listening.values()) == 100, "100 readings")
    client.disconnect()
    client.loop_stop()
    assert sorted(listening.values()) == list(range(100))


@pytest.mark.parametrize("protocol", [4, 5])
@QOS
def test_gmqtt_gets_its_messages_stored(listening: Listening, protocol: int, qos: int) -> None:
    async def send() -> None:
        client = gmqtt.Client("gmqtt")
        await client.connect("127.0.0.1", listening.port, version=protocol)
        for n in range(100):
            client.publish("meters/m1/p", json.dumps({"t": n, "v": n}), qos=qos)
        async with asyncio.timeout(20):
            while len(listening.values()) < 100:  # noqa: ASYNC110  (a condition of another thread)
                await asyncio.sleep(0.01)
        await client.disconnect()

    asyncio.run(send())
    assert sorted(listening.values()) == list(range(100))


class Credentials:
    """A certificate authority, the listener's certificate, and a password file."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.authority.cert_pem.write_to_path(str(self.ca))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))
        self.passwords = directory / "passwords"
        self.passwords.write_text(f"# meters\nm1:{hash_password('secret', iterations=1000)}\n")
        self.directory = directory

    @property
    def tls(self) -> dict[str, str]:
        """Settings, relative to the directory."""
        return {"certificate": "cert.pem", "key": "key.pem"}


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


@pytest.mark.mosquitto
@VERSIONS
def test_mosquitto_pub_over_tls_with_a_password(credentials: Credentials, version: str) -> None:
    directory = credentials.directory
    with Listening(
        directory / "data", base=directory, tls=credentials.tls, passwords="passwords"
    ) as listening:
        common = [
            "-h",
            "localhost",
            "-V",
            version,
            "-q",
            "2",
            "-t",
            "meters/m1/p",
            "-m",
            '{"t":1,"v":1}',
            "-u",
            "m1",
        ]
        secure = ["--cafile", str(credentials.ca)]
        assert publish(listening.port, *common, *secure, "-P", "secret").returncode == 0
        assert publish(listening.port, *common, *secure, "-P", "wrong").returncode != 0
        assert publish(listening.port, *common, "-P", "secret").returncode != 0  # without TLS
        assert listening.values() == [1]
        assert listening.count("logins_failed_total") == 1
        until(lambda: listening.count("ended_total", "tls_handshake") == 1, "the count of failed handshakes")
        assert listening.supervisor.statuses()[0].address.startswith("mqtts://")


def test_a_client_certificate_is_required_where_an_authority_is_named(credentials: Credentials) -> None:
    directory = credentials.directory
    tls = {**credentials.tls, "client_ca": "ca.pem"}
    with Listening(directory / "data", base=directory, tls=tls) as listening:
        known = ssl.create_default_context(cafile=str(credentials.ca))
        credentials.authority.issue_cert("meter-1", common_name="meter-1").configure_cert(known)
        peer = listening.client("m1", context=known, clean=False)
        peer.publish(1)
        peer.reply()
        assert listening.values() == [1]
        other = ssl.create_default_context(cafile=str(credentials.ca))
        credentials.authority.issue_cert("meter-2", common_name="meter-2").configure_cert(other)
        assert listening.peer(context=other).connect("m1", clean=False).code == 5  # another's identifier
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            listening.peer(context=ssl.create_default_context(cafile=str(credentials.ca))).connect("m2")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_not_spoken(credentials: Credentials) -> None:
    with Listening(
        credentials.directory / "data", base=credentials.directory, tls=credentials.tls
    ) as listening:
        context = ssl.create_default_context(cafile=str(credentials.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            listening.peer(context=context)


def test_many_messages_over_tls_arrive_whole(credentials: Credentials) -> None:
    with Listening(
        credentials.directory / "data", base=credentials.directory, tls=credentials.tls
    ) as listening:
        context = ssl.create_default_context(cafile=str(credentials.ca))
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "paho")
        client.tls_set_context(context)
        client.max_inflight_messages_set(500)
        client.connect("localhost", listening.port)
        client.loop_start()
        sent = [client.publish("meters/m1/p", json.dumps({"t": n, "v": n}), 1) for n in range(3000)]
        for message in sent:
            message.wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        assert sorted(listening.values()) == list(range(3000))


def test_a_will_over_tls_is_published_when_its_client_vanishes(
    credentials: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    directory = credentials.directory
    with Listening(directory / "data", base=directory, tls=credentials.tls) as listening:
        context = ssl.create_default_context(cafile=str(credentials.ca))
        for reset in (False, True):
            will = Will("status/gone", b"reset" if reset else b"closed")
            peer = listening.client(f"m{reset:d}", context=context, will=will)
            if reset:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            until(lambda: listening.count("connections") == 0, "the end of the connection")
        until(lambda: len(listening.events()) == 2, "the wills")
        assert [event["data"]["payload"] for event in listening.events()] == ["closed", "reset"]
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_silent_connections_to_a_tls_listener_are_bounded_and_time_out(credentials: Credentials) -> None:
    directory = credentials.directory
    settings = {"connect_timeout": "2s", "max_connections": 20}
    with Listening(directory / "data", base=directory, tls=credentials.tls, **settings) as listening:
        silent = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(30)]
        until(lambda: listening.count("ended_total", "connection_limit") == 10, "the refusals")
        until(lambda: listening.count("ended_total", "tls_handshake") == 20, "the time-outs")
        context = ssl.create_default_context(cafile=str(credentials.ca))
        listening.client("m1", context=context).publish(1)
        until(lambda: listening.values() == [1], "a reading behind them")
        for one in silent:
            one.close()


def test_a_changed_password_file_is_read_again(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringmain.sources import mqtt_listener

    monkeypatch.setattr(mqtt_listener, "PASSWORDS_LOOK_S", 0.05)
    directory = credentials.directory
    with Listening(directory / "data", base=directory, passwords="passwords") as listening:
        assert listening.peer().connect("a", user="m2", password="other").code == 4
        with credentials.passwords.open("a") as file:
            file.write(f"m2:{hash_password('other', iterations=1000)}\n")
        until(lambda: listening.peer().connect("a", user="m2", password="other").code == 0, "the new user")
        assert listening.peer(version=Version.V5).connect("b", user="m1", password="secret").code == 0
        peer = listening.peer()
        peer.send(Connect(Version.V311, "c"))
        assert peer.read().code == 4  # type: ignore[union-attr]
