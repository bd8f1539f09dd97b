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
from ringmain.sources.mapping import Mapper, MapSettings
from ringmain.sources.mqtt_codes import PacketType, Version
from ringmain.sources.mqtt_connection import Connection
from ringmain.sources.mqtt_packets import (
    Publish,
    Reply,
    decode_publish,
    encode,
)
from ringmain.sources.mqtt_properties import Properties, read_varint, write_varint
from ringmain.sources.mqtt_settings import MqttListenerSettings
from ringmain.sources.mqtt_shared import Shared
from tests.sources.mqtt_rig import Listening, reading
from tests.sources.mqtt_streams import ARRIVAL_NS, MAPS, TOPICS, numbers, objects, streams

numba = pytest.importorskip("numba", reason="the compiled path needs Numba (extra `fast`)")
from ringmain.sources import mqtt_fast_kernel as kernel  # noqa: E402
from ringmain.sources.mqtt_fast import FastReader, TopicTable  # noqa: E402


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


@settings(max_examples=2500, derandomize=True, deadline=None)
@given(
    first=st.sampled_from([0x32] * 4 + list(range(0x30, 0x40))),
    topic=st.sampled_from(["meters/a/p", "s/x", "ns/x", "q/x", "odd/x"]),
    packet_id=st.sampled_from([1, 0x1234, 0xFF00, 0]),
    section=st.sampled_from([b"", b"\0", b"\0", b"\2\x01\x01", b"\1", b"\x80"]),
    cut=st.sampled_from([0, 0, 0, 0, 1, -1, 7]),
    data=st.data(),
)
def test_what_the_compiled_path_takes_is_what_codec_and_mapping_make_of_it(
    registry: SeriesRegistry,
    first: int,
    topic: str,
    packet_id: int,
    section: bytes,
    cut: int,
    data: st.DataObject,
) -> None:
    mapper, table = _learnt(registry)
    keys = {"ns/x": ("ts", "tv"), "odd/x": ('t\\"', "é")}.get(topic, ("t", "v"))
    payload = data.draw(objects(*keys))
    raw = topic.encode()
    body = (
        len(raw).to_bytes(2, "big")
        + raw
        + (packet_id.to_bytes(2, "big") if first & 6 else b"")
        + section
        + payload
    )
    packet = bytes((first,)) + write_varint(max(0, len(body) + cut)) + body
    taken, series, times, values, replied, acks = _take(table, packet, v5=bool(section))
    if not taken:
        return
    whole = encode_length(packet)
    assert taken == whole
    publish = decode_publish(
        first, packet[packet.index(raw) - 2 : whole], Version.V5 if section else Version.V311
    )
    assert publish.properties == Properties()
    assert publish.qos < 2
    assert acks == (b"\x40\x02" + packet_id.to_bytes(2, "big") if publish.qos else b"")
    assert replied == publish.qos
    mapped = mapper.map([publish.topic], [publish.payload], ARRIVAL_NS)
    assert mapped.columns is not None
    assert mapped.letters == ()
    assert (series, times) == (mapped.columns.series[0], mapped.columns.time[0])
    assert values.hex() == float(mapped.columns.value[0]).hex()
    assert _take(table, packet, v5=bool(section), replies_max=0)[0] == (0 if publish.qos else whole)
    assert _take(table, packet, v5=bool(section), packet_bytes_max=whole - 1)[0] == 0
    assert (
        _take(table, packet[:-1] if whole == len(packet) else packet[: whole - 1], v5=bool(section))[0] == 0
    )


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize(
    "payload",
    [
        '{"t":1795000000000,"v":230.1}',
        '{"t": 1795000000000, "v": 230.1}',
        ' { "v" : -2.301e2 , "t" : 1795000000000 } ',
        '{"t":1795000000,"v":0}',
        '{"t":9223372036854775807,"v":1}'[:-1].replace("9223372036854775807", "999999999999999999") + "}",
        '{"t":1795000000000,"v":9007199254740992}',
        '{"t":1795000000000,"v":1E22}',
    ],
)
def test_simple_payloads_are_taken(registry: SeriesRegistry, payload: str, v5: bool) -> None:
    _, table = _learnt(registry)
    version = Version.V5 if v5 else Version.V311
    packet = encode(Publish("meters/a/p", payload.encode(), 1, 0x1234), version)
    assert _take(table, packet, v5=v5)[0] == len(packet)


@pytest.mark.parametrize(
    "payload",
    [
        '{"t":1795000000000,"t":1795000000000}',
        '{"v":1,"v":1}',
        '{"t":1795000000000,"v":1,"v":1}',
        '{"t":1795000000000,"v":1,"q":0}',
        '{"t":1795000000000}',
        '{"t":01,"v":1}',
        '{"t":1,"v":01}',
        '{"t":1,"v":00.5}',
        '{"t":1,"v":-0}',
        '{"t":-0,"v":1}',
        '{"t":1.0,"v":1}',
        '{"t":1e3,"v":1}',
        '{"t":"1","v":1}',
        '{"t":1,"v":1.}',
        '{"t":1,"v":.5}',
        '{"t":1,"v":+1}',
        '{"t":1,"v":1e}',
        '{"t":1,"v":9007199254740993}',
        '{"t":1,"v":1e23}',
        '{"t":1,"v":1e-23}',
        '{"t":1,"v":0.00000000000000000000001}',
        '{"t":1000000000000000000000,"v":1}',
        '{"t":1,"v":1} x',
        '{"t":1,"v":1',
        '{"t":1 "v":1}',
        '{"t" 1,"v":1}',
        '{"tt":1,"v":1}',
        '{"t":1,"v":1,}',
        '[{"t":1,"v":1}]',
        '{"t":1,\u00a0"v":1}',
        "",
    ],
)
def test_payloads_that_are_not_simple_are_left_to_the_general_path(
    registry: SeriesRegistry, payload: str
) -> None:
    _, table = _learnt(registry)
    packet = encode(Publish("meters/a/p", payload.encode(), 1, 1), Version.V311)
    assert _take(table, packet, v5=False)[0] == 0


@pytest.mark.parametrize("topic", ["meters/a/p", "s/x", "ns/x"])
@pytest.mark.parametrize(
    "around", [9_223_372_036 * 1000**n + part for n, part in enumerate((0, 854, 854_775))]
)
@pytest.mark.parametrize("by", [-1, 0, 1])
def test_times_at_the_bounds_of_their_units_are_read_as_the_mapping_reads_them(
    registry: SeriesRegistry, topic: str, around: int, by: int
) -> None:
    mapper, table = _learnt(registry)
    keys = ("ts", "tv") if topic == "ns/x" else ("t", "v")
    payload = f'{{"{keys[0]}":{around + by},"{keys[1]}":1}}'.encode()
    taken, series, time, *_ = _take(table, encode(Publish(topic, payload, 1, 1), Version.V311), v5=False)
    mapped = mapper.map([topic], [payload], ARRIVAL_NS)
    if mapped.columns is None:
        assert not taken
    else:
        assert taken
        assert (series, time) == (mapped.columns.series[0], mapped.columns.time[0])


def encode_length(packet: bytes) -> int:
    """Size of the whole packet as its header says."""
    length, at = read_varint(packet, 1, len(packet))
    return at + length


_LEARNT: list[tuple[Mapper, TopicTable]] = []


def _learnt(registry: SeriesRegistry) -> tuple[Mapper, TopicTable]:
    """A mapper that has mapped every topic once, and a table that has learnt them."""
    if not _LEARNT:
        maps = [msgspec.convert(table, MapSettings) for table in MAPS]
        mapper = Mapper("field", maps, registry, max_ahead_ns=300 * 10**9)
        table = TopicTable(mapper, topics_max=64)
        known = {"ns/x": b'{"ts":1,"tv":1}', "odd/x": '{"t\\"":1,"é":1}'.encode()}
        for topic in TOPICS:
            mapper.map([topic], [known.get(topic, b'{"t":1,"v":1}')], ARRIVAL_NS)
        table.learn(TOPICS)
        _LEARNT.append((mapper, table))
    return _LEARNT[0]


def _take(
    table: TopicTable, packet: bytes, *, v5: bool, replies_max: int = 10, packet_bytes_max: int = 2048
) -> tuple[int, int, int, float, int, bytes]:
    """Bytes taken of one packet, its reading, and what is replied."""
    series, times, values = np.zeros(4, np.uint32), np.zeros(4, np.int64), np.zeros(4)
    acks = np.zeros(16, np.uint8)
    state = table.state.copy()
    state[kernel.SERIES], state[kernel.TIMES] = series.ctypes.data, times.ctypes.data
    state[kernel.VALUES], state[kernel.ACKS], state[kernel.ROWS_MAX] = values.ctypes.data, acks.ctypes.data, 4
    data = np.frombuffer(packet, np.uint8)
    limits = (packet_bytes_max, replies_max)
    taken, rows, replied = kernel.take_simple(data.ctypes.data, 0, len(packet), v5, *limits, state, 0)
    assert rows <= 1
    return taken, int(series[0]), int(times[0]), float(values[0]), replied, acks[: 4 * replied].tobytes()


@settings(max_examples=250, derandomize=True, deadline=None)
@given(chunks=streams(), topics_max=st.sampled_from([3, 64]))
def test_both_paths_make_the_same_of_any_stream(
    registry: SeriesRegistry, chunks: list[bytes], topics_max: int
) -> None:
    assert outcome(registry, chunks, topics_max) == outcome(registry, chunks, None)


@settings(max_examples=30, derandomize=True, deadline=None)
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
    mapper = Mapper("field", [msgspec.convert(MAPS[0], MapSettings)], registry)
    table = TopicTable(mapper, topics_max=16)
    for n in range(1000):
        topic = f"meters/{n}/p"
        mapper.map([topic], [b'{"t":1,"v":1}'], ARRIVAL_NS)
        table.learn([topic])
        assert 1 <= len(table) <= 16
        plan = mapper.simple_plan(topic)
        assert plan is not None
        assert table.series_of(topic) == plan.series_id


def test_topics_with_equal_hashes_are_told_apart() -> None:
    # a table whose every slot leads to the same topic: only the full comparison may answer
    arena = np.frombuffer(b"meters/a/p", np.uint8)
    topics = np.array([[0, 10, 7, 0]], np.int64)
    slots = np.zeros(4, np.int64)
    state = np.zeros(kernel.STATE_SIZE, np.int64)
    state[kernel.SLOTS], state[kernel.SLOT_MASK] = slots.ctypes.data, 3
    state[kernel.TOPICS], state[kernel.ARENA] = topics.ctypes.data, arena.ctypes.data
    for wanted, found in ((b"meters/a/p", 0), (b"meters/a/q", -1), (b"meters/b/p", -1), (b"meters/a/", -1)):
        data = np.frombuffer(wanted, np.uint8)
        assert kernel.find_topic(data.ctypes.data, len(wanted), state)[0] == found


@settings(max_examples=1500, derandomize=True, deadline=None)
@given(
    text=numbers
    | st.floats(1e-22, 1e22).map(lambda x: f"{x:.15g}")
    | st.decimals(-(10**6), 10**6, places=6).map(str)
)
def test_a_decimal_becomes_the_nearest_double_or_is_left_alone(text: str) -> None:
    data = np.frombuffer(text.encode() + b" ", np.uint8)
    behind, value = kernel._number(data.ctypes.data, 0, len(data))
    if behind == len(text):
        assert value.hex() == float(text).hex()
