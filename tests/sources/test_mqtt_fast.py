"""The compiled path makes exactly what the general path makes: readings, letters, replies, for any stream of packets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.runtime.contract import Letter, Submission
from ringmain.sources.mapping import Mapper
from ringmain.sources.mqtt_codes import PacketType, Version
from ringmain.sources.mqtt_connection import Connection
from ringmain.sources.mqtt_packets import Connect, Packet, Ping, Publish, Reply, Subscribe, encode
from ringmain.sources.mqtt_properties import Properties, write_varint
from ringmain.sources.mqtt_settings import MqttListenerSettings
from ringmain.sources.mqtt_shared import Shared
from tests.sources.mqtt_rig import Listening, reading

numba = pytest.importorskip("numba", reason="the compiled path needs Numba (extra `fast`)")
from ringmain.sources import mqtt_fast_kernel as kernel  # noqa: E402
from ringmain.sources.mqtt_fast import FastReader, TopicTable  # noqa: E402

ARRIVAL_NS = 1_795_000_000_000_000_000
MAPS = [
    {"topic": "meters/{meter}/{quantity}", "series": "{meter}/{quantity}", "time": "t", "value": "v"},
    {"topic": "s/{meter}", "series": "s/{meter}", "time": "t", "value": "v", "time_unit": "s"},
    {"topic": "ns/{meter}", "series": "ns/{meter}", "time": "ts", "value": "tv", "time_unit": "ns"},
    {"topic": "odd/{meter}", "series": "odd/{meter}", "time": 't"', "value": "é"},
    {"topic": "q/{meter}", "series": "q/{meter}", "time": "t", "value": "v", "quality": "q"},
    {"topic": "tele/{plug}", "series": "{plug}/{name}", "time": "t", "values": {"p": "a.p", "v": "v"}},
    {"topic": "bare/{meter}", "series": "bare/{meter}", "value": ""},
]
TOPICS = [
    "meters/a/p",
    "meters/b/p",
    "meters/ü/p",
    "s/x",
    "ns/x",
    "odd/x",
    "q/x",
    "tele/x",
    "bare/x",
    "none",
    "meters/a/p/q",
]


class Recorder:
    """An intake that keeps what it is handed and answers in the next turn of the loop."""

    source = "field"
    ready = True

    def __init__(self) -> None:
        self.submissions: list[Submission] = []

    def submit(self, submission: Submission) -> None:
        self.submissions.append(submission)
        asyncio.get_running_loop().call_soon(submission.durable)

    async def wait_ready(self) -> None:
        return

    def on_ready(self, callback: Callable[[bool], None]) -> None:
        return

    async def drained(self) -> None:
        return

    def positions(self) -> Mapping[str, bytes]:
        return {}

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        return


class Outcome(NamedTuple):
    """What came of a stream of packets."""

    series: list[int]
    times: list[int]
    values: list[str]
    quality: list[int]
    letters: list[Letter]
    received: int
    replies: bytes


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesRegistry]:
    log = open_log(tmp_path_factory.mktemp("registry"))
    yield SeriesRegistry(log)
    log.close()


def outcome(registry: SeriesRegistry, chunks: list[bytes], topics_max: int | None) -> Outcome:
    """Feed the chunks to one connection; `topics_max`: size of the compiled path's table, None: without that path."""
    return asyncio.run(_outcome(registry, chunks, topics_max))


async def _outcome(registry: SeriesRegistry, chunks: list[bytes], topics_max: int | None) -> Outcome:
    table = {"listen": "127.0.0.1:0", "map": MAPS, "receive_maximum": 20, "max_packet_bytes": 2048}
    listener_settings = msgspec.convert(table, MqttListenerSettings)
    assert not isinstance(listener_settings.map, str)
    mapper = Mapper("field", listener_settings.map, registry, max_ahead_ns=300 * 10**9)
    intake = Recorder()
    shared = Shared(listener_settings, mapper, intake, None, lambda: ARRIVAL_NS)
    if topics_max is not None:
        shared.fast = shared.gathering.rows = FastReader(mapper, topics_max=topics_max, rows_max=64)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    await shared.loop.connect_accepted_socket(lambda: Connection(shared), ours)
    replies = bytearray()
    for chunk in chunks:
        with contextlib.suppress(ConnectionError):
            await shared.loop.sock_sendall(theirs, chunk)
        for _ in range(4):
            await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            replies += theirs.recv(1 << 20)
    theirs.close()
    for _ in range(6):
        await asyncio.sleep(0)
    assert not shared.connections
    shared.executor.shutdown()
    if shared.gathering.failed.done():
        raise AssertionError("the batch failed") from shared.gathering.failed.exception()
    parts = [s.columns for s in intake.submissions if s.columns is not None]
    columns = [
        np.concatenate([getattr(p, name) for p in parts] or [[]])
        for name in ("series", "time", "value", "quality")
    ]
    letters = [letter for s in intake.submissions for letter in s.letters]
    received = sum(s.received for s in intake.submissions)
    values = [value.hex() for value in columns[2].tolist()]
    return Outcome(
        columns[0].tolist(),
        columns[1].tolist(),
        values,
        columns[3].tolist(),
        letters,
        received,
        bytes(replies),
    )


# --- payloads and packets as devices might send them, and as nobody should

spaces = st.sampled_from(["", "", "", " ", "  ", "\t", "\r\n", "\u00a0"])
integers = st.integers(-5, 4 * 10**18) | st.sampled_from(
    [0, 1, 9_223_372_036, 9_223_372_037, 9_223_372_036_854, 2**63 - 1, 2**63]
)
stamps = st.one_of(
    st.integers(1_790_000_000_000, 1_800_000_000_000).map(str),
    st.sampled_from([(ARRIVAL_NS + 300 * 10**9) // 10**6 + n for n in (-1, 0, 1)]).map(str),
    integers.map(str),
    st.sampled_from(
        ["01", "1e3", "1.5", "-0", "null", '"2026-01-01T00:00:00Z"', "1" * 19, "true", "", "+1", "0x1"]
    ),
)
digits = st.text("0123456789", min_size=1, max_size=20)
decimals = st.builds(
    "{}{}.{}{}".format,
    st.sampled_from(["", "-"]),
    digits,
    digits,
    st.sampled_from(["", "e5", "E-7", "e+22", "e-23"]),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**64), 2**64).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    decimals,
    st.sampled_from(
        [
            "-0",
            "-0.0",
            "0",
            "1e400",
            "-1e400",
            "1e-400",
            "00",
            ".5",
            "5.",
            "1e",
            "NaN",
            "Infinity",
            '"1"',
            "null",
            "[1]",
        ]
    ),
    st.sampled_from(
        [
            "9007199254740993",
            "9007199254740992",
            "1e22",
            "1e23",
            "0.1e-22",
            "123456789012345678",
            "1.7976931348623157e308",
        ]
    ),
)
members = st.one_of(
    st.builds('"t"{}:{}{}'.format, spaces, spaces, stamps),
    st.builds('"v"{}:{}{}'.format, spaces, spaces, numbers),
    st.builds('"ts"{}:{}{}'.format, spaces, spaces, stamps),
    st.builds('"tv"{}:{}{}'.format, spaces, spaces, numbers),
    st.sampled_from(
        [
            '"q": 1',
            '"q": "good"',
            '"a": {"p": 5}',
            '"\\u0074": 3',
            '"t\\"": 3',
            '"é": 4',
            '"x": "}"',
            '"": 0',
            '"v"',
            "v: 1",
        ]
    ),
)
usual = st.builds(
    "{{{}{}{},{}{}{}}}{}".format,
    spaces,
    st.one_of(st.builds('"t":{}{}'.format, spaces, stamps), st.builds('"ts":{}{}'.format, spaces, stamps)),
    spaces,
    spaces,
    st.one_of(st.builds('"v":{}{}'.format, spaces, numbers), st.builds('"tv":{}{}'.format, spaces, numbers)),
    spaces,
    spaces,
)
plain = st.builds(
    '{{"t":{},"v":{}}}'.format,
    st.integers(1_790_000_000_000, 1_800_000_000_000),
    st.decimals(-500, 500, places=2),
)
strange = st.lists(members, max_size=4).map(lambda parts: "{" + ",".join(parts) + "}")
payloads = st.one_of(
    plain.map(str.encode),
    plain.map(str.encode),
    usual.map(str.encode),
    usual.map(str.encode),
    strange.map(str.encode),
    st.binary(max_size=20),
    st.builds(lambda text, cut: text.encode()[:cut], usual, st.integers(0, 30)),
    st.integers(0, 600).map(lambda n: b'{"t":1790000000000,"v":' + b" " * n + b"1}"),
)


@st.composite
def packets(draw: st.DrawFn, version: Version) -> bytes:
    """The bytes of one packet, mostly a PUBLISH as devices send it."""
    kind = draw(st.integers(0, 40))
    packet_id = draw(st.integers(1, 30))
    topic = draw(st.sampled_from(TOPICS))
    if kind == 0:
        others: list[Packet] = [
            Ping(PacketType.PINGREQ),
            Reply(PacketType.PUBREL, packet_id),
            Subscribe(packet_id, (("a", 0),)),
        ]
        return encode(draw(st.sampled_from(others)), version)
    if kind == 1:
        raw = draw(st.binary(min_size=0, max_size=12))
        return (
            bytes((draw(st.sampled_from([0x32, 0x30, 0x3C, 0x36, 0x38, 0x33, 0xE0, 0x10, 0x00])),))
            + write_varint(len(raw))
            + raw
        )
    if kind == 2:
        return encode(Publish(topic, b"x" * draw(st.integers(2000, 2100)), 1, packet_id), version)
    if kind == 3:
        broken = bytearray(encode(Publish(topic, draw(payloads), 1, packet_id), version))
        broken[draw(st.integers(0, len(broken) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(broken)
    qos = draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2]))
    properties = Properties()
    if version is Version.V5 and kind < 8:
        properties = Properties(topic_alias=draw(st.integers(1, 3)), user_properties=(("a", "b"),))
    dup = qos > 0 and draw(st.booleans())
    return encode(
        Publish(topic, draw(payloads), qos, packet_id, dup, draw(st.booleans()), properties), version
    )


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A connection's bytes, cut anywhere."""
    version = draw(st.sampled_from(list(Version)))
    lasting = Properties(session_expiry_s=60) if version is Version.V5 else Properties()
    connect = encode(Connect(version, "device", clean=draw(st.booleans()), properties=lasting), version)
    known = b"".join(encode(Publish(topic, b'{"t":1,"v":1}', 0), version) for topic in TOPICS)
    rest = b"".join(draw(st.lists(packets(version), min_size=1, max_size=25)))
    cuts = sorted(draw(st.lists(st.integers(0, len(rest)), max_size=6)))
    return [
        connect,
        known,
        *(rest[a:b] for a, b in zip([0, *cuts], [*cuts, len(rest)], strict=True) if a < b),
    ]


@settings(max_examples=400, derandomize=True, deadline=None)
@given(chunks=streams(), topics_max=st.sampled_from([3, 64]))
def test_both_paths_make_the_same_of_any_stream(
    registry: SeriesRegistry, chunks: list[bytes], topics_max: int
) -> None:
    assert outcome(registry, chunks, topics_max) == outcome(registry, chunks, None)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(chunks=streams())
def test_one_byte_at_a_time_makes_the_same(registry: SeriesRegistry, chunks: list[bytes]) -> None:
    whole = b"".join(chunks)[:1500]
    single = [whole[n : n + 1] for n in range(len(whole))]
    fast = outcome(registry, single, 64)
    assert fast == outcome(registry, single, None)


def test_the_usual_messages_do_take_the_compiled_path(tmp_path: Path) -> None:
    with Listening(tmp_path / "data", fast="auto") as listening:
        peer = listening.client()
        peer.publish(0)
        peer.expect(Reply(PacketType.PUBACK, 1))
        assert listening.count("fast_messages_total") == 0
        peer.send(*(reading(n + 0.25, 1, n) for n in range(1, 500)))
        peer.expect(*(Reply(PacketType.PUBACK, n) for n in range(1, 500)))
        assert listening.count("fast_messages_total") == 499
        assert listening.values() == [0, *(n + 0.25 for n in range(1, 500))]


def test_topics_beyond_the_table_are_forgotten_and_learnt_anew(
    tmp_path: Path, registry: SeriesRegistry
) -> None:
    mapper = Mapper("field", [msgspec.convert(MAPS[0], type=_map_type())], registry)
    table = TopicTable(mapper, topics_max=16)
    for n in range(1000):
        topic = f"meters/{n}/p"
        mapper.map([topic], [b'{"t":1,"v":1}'], ARRIVAL_NS)
        table.learn([topic])
        assert 1 <= len(table) <= 16
        raw = np.frombuffer(topic.encode(), np.uint8)
        index, _ = kernel.find_topic(raw, 0, len(raw), table.seed, table.slots, table.topics, table.arena)
        plan = mapper.simple_plan(topic)
        assert plan is not None
        assert table.topics[index, 2] == plan.series_id


def test_topics_with_equal_hashes_are_told_apart() -> None:
    # a table whose every slot leads to another topic: only the full comparison may answer
    arena = np.frombuffer(b"meters/a/p", np.uint8)
    topics = np.array([[0, 10, 7, 0]], np.int64)
    slots = np.zeros(4, np.int32)
    for wanted, found in ((b"meters/a/p", 0), (b"meters/b/p", -1), (b"meters/a/", -1)):
        data = np.frombuffer(wanted, np.uint8)
        assert kernel.find_topic(data, 0, len(wanted), np.uint64(1), slots, topics, arena)[0] == found


@settings(max_examples=500, derandomize=True, deadline=None)
@given(
    text=numbers
    | st.floats(1e-22, 1e22).map(lambda x: f"{x:.15g}")
    | st.decimals(-(10**6), 10**6, places=6).map(str)
)
def test_a_decimal_becomes_the_nearest_double_or_is_left_alone(text: str) -> None:
    data = np.frombuffer(text.encode() + b" ", np.uint8)
    behind, value = kernel._number(data, 0, len(data))
    if behind == len(text):
        assert value.hex() == float(text).hex()


def _map_type() -> type[msgspec.Struct]:
    from ringmain.sources.mapping import MapSettings

    return MapSettings
