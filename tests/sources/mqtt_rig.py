"""A real listener on a real log for tests, and a client that speaks MQTT byte by byte over a real socket."""

from __future__ import annotations

import importlib.util
import json
import select
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.ledger.accountant import Accountant
from ringmain.runtime.counters import Counters
from ringmain.runtime.supervisor import Supervisor
from ringmain.sources.mapping import Mapper
from ringmain.sources.mqtt_codes import Version
from ringmain.sources.mqtt_listener import MqttListener
from ringmain.sources.mqtt_packets import Connack, Connect, Packet, Publish, Reply, Will, decode, encode
from ringmain.sources.mqtt_properties import NO_PROPERTIES, Properties
from ringmain.sources.mqtt_settings import MqttListenerSettings
from tests.runtime.disk import TestDisk

METERS = {"topic": "meters/{meter}/{quantity}", "series": "{meter}/{quantity}", "time": "t", "value": "v"}
TIMEOUT_S = 60.0


class Read(NamedTuple):
    """One stored reading."""

    series: str
    time_ns: int
    value: float
    quality: int


class Listening:
    """One node's worth of listener: log, runtime and source, on a free port. Use as a context manager.

    Another one on the same directory is the node after a restart.
    """

    def __init__(
        self, directory: Path, *, base: Path | None = None, max_series: int = 200_000, **settings: Any
    ) -> None:
        self.disk = TestDisk()
        self.log = open_log(directory, fs=self.disk)
        self.counters = Counters()
        self.registry = registry = SeriesRegistry(self.log, max_series=max_series)
        table = {"listen": "127.0.0.1:0", "map": [METERS], **settings}
        self.settings = msgspec.convert(table, MqttListenerSettings)
        maps = self.settings.map
        assert not isinstance(maps, str)
        self.mapper = Mapper(
            "field", maps, registry, max_ahead_ns=int(self.settings.seconds("max_ahead") * 1e9)
        )
        self.source = MqttListener(self.settings, self.mapper, base or directory)
        self.supervisor = Supervisor(self.log, registry, self.counters)
        self.supervisor.add("field", "mqtt-listener", self.source)

    def __enter__(self) -> Listening:
        self.supervisor.start()
        late = self.supervisor.wait_started(60)
        assert not late, late
        self.port = int(self.supervisor.statuses()[0].address.rpartition(":")[2])
        if self.settings.fast == "auto" and importlib.util.find_spec("numba") is not None:
            until(lambda: self.count("fast_ready") == 1, "the compiled path is ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disk.mend()
        self.disk.release()
        self.supervisor.stop()
        try:
            if kind is None:
                self._check_account()
        finally:
            self.log.close()

    def _check_account(self) -> None:
        """Whatever a test did: every message received and every row handed over is accounted for."""
        accountant = Accountant(self.log)
        accountant.advance()
        assert accountant.closes, accountant.accounts()

    def peer(self, **options: Any) -> Peer:
        """A client that is connected on the socket level only."""
        return Peer(self.port, **options)

    def client(self, client_id: str = "device", **options: Any) -> Peer:
        """A client whose CONNECT was accepted."""
        peer = Peer(
            self.port, version=options.pop("version", Version.V311), context=options.pop("context", None)
        )
        answer = peer.connect(client_id, **options)
        assert answer.code == 0, answer
        return peer

    def count(self, name: str, *labels: str) -> float:
        """A counter's value; `labels` without the source."""
        return self.counters.value(f"ringmain_mqtt_{name}", *(("field", *labels) if labels else ()))

    def readings(self) -> list[Read]:
        """Every durable reading, in log order."""
        found = []
        catalogue = self.log.catalogue()
        for frame in self.log.read("readings"):
            found += [
                Read(catalogue.key_of(row["series"]), *list(row.values())[1:]) for row in _rows(frame.rows)
            ]
        return found

    def values(self) -> list[float]:
        """The values of every durable reading, in log order."""
        return [reading.value for reading in self.readings()]

    def letters(self) -> list[dict[str, Any]]:
        """Every durable dead letter."""
        return [row for frame in self.log.read("deadletters") for row in _rows(frame.rows)]

    def events(self) -> list[dict[str, Any]]:
        """Every durable event, its data decoded."""
        rows = [row for frame in self.log.read("events") for row in _rows(frame.rows)]
        return [{**row, "data": json.loads(row["data"])} for row in rows]

    def positions(self) -> dict[str, bytes]:
        """The listener's durable positions."""
        prefix = "source/field/"
        return {name.removeprefix(prefix): value for name, value in self.log.positions(prefix).items()}


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as ns since 1970."""
    at = batch.schema.get_field_index("time")
    rows: list[dict[str, Any]] = batch.set_column(at, "time", batch.column(at).cast(pa.int64())).to_pylist()
    return rows


class Peer:
    """A client over a blocking socket."""

    def __init__(
        self, port: int, *, version: Version = Version.V311, context: ssl.SSLContext | None = None
    ) -> None:
        self.version = version
        self.received = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def connect(
        self,
        client_id: str = "device",
        *,
        clean: bool = True,
        keep_alive_s: int = 0,
        user: str | None = None,
        password: str | None = None,
        will: Will | None = None,
        properties: Properties = NO_PROPERTIES,
    ) -> Connack:
        """Send CONNECT and return CONNACK."""
        secret = password.encode() if password is not None else None
        self.send(Connect(self.version, client_id, clean, keep_alive_s, user, secret, will, properties))
        answer = self.read()
        assert isinstance(answer, Connack), answer
        return answer

    def send(self, *packets: Packet) -> None:
        """All packets in one write."""
        self.socket.sendall(b"".join(encode(packet, self.version) for packet in packets))

    def publish(
        self, value: float, qos: int = 1, packet_id: int = 1, *, topic: str = "meters/m1/p", dup: bool = False
    ) -> None:
        """Send one reading."""
        self.send(reading(value, qos, packet_id, topic=topic, dup=dup))

    def read(self) -> Packet:
        """The next packet. AssertionError when the connection ends first."""
        while (packet := self._whole()) is None:
            chunk = self.socket.recv(65_536)
            assert chunk, "the connection ended"
            self.received += chunk
        return packet

    def expect(self, *packets: Packet) -> None:
        """The next packets are these."""
        for packet in packets:
            assert self.read() == packet

    def reply(self) -> Reply:
        """The next packet, a PUBACK, PUBREC or PUBCOMP."""
        packet = self.read()
        assert isinstance(packet, Reply), packet
        return packet

    def rest(self) -> list[Packet]:
        """All packets until the other side closes."""
        packets = []
        while True:
            try:
                chunk = self.socket.recv(65_536)
            except ConnectionError:
                chunk = b""
            self.received += chunk
            while (packet := self._whole()) is not None:
                packets.append(packet)
            if not chunk:
                return packets

    def silent(self) -> bool:
        """Whether nothing at all has come, as far as this end of the connection can tell now."""
        if self.received:
            return False
        return not select.select([self.socket], [], [], 0.05)[0]

    def close(self) -> None:
        """Go away without DISCONNECT."""
        self.socket.close()

    def _whole(self) -> Packet | None:
        data = self.received
        length, at = 0, 1
        for shift in (0, 7, 14, 21):
            if at >= len(data):
                return None
            length |= (data[at] & 0x7F) << shift
            at += 1
            if data[at - 1] < 0x80:
                break
        if len(data) < at + length:
            return None
        first, body = data[0], bytes(data[at : at + length])
        del data[: at + length]
        return decode(first, body, self.version)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reading(
    value: float,
    qos: int = 1,
    packet_id: int = 1,
    *,
    topic: str = "meters/m1/p",
    dup: bool = False,
    properties: Properties = NO_PROPERTIES,
) -> Publish:
    """A PUBLISH with one reading; its time is one millisecond of 2023 for each unit of its value."""
    payload = json.dumps({"t": 1_700_000_000_000 + int(value), "v": value}).encode()
    return Publish(topic, payload, qos, packet_id if qos else 0, dup, properties=properties)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for the condition; AssertionError when it does not come true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {TIMEOUT_S:g} s"
        time.sleep(0.005)
