"""One node among clients that break every rule, beside one that keeps them all and must not notice.

Every test leaves what it was acknowledged in the arena; the last one counts: nothing acknowledged is missing, no
more memory or threads than before, ready, and status 0 at the end.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ringmain
from tests.conftest import free_port, wait_until
from tests.node.hostile_client import (
    CONNACK,
    accepted,
    acknowledge_all,
    broken_streams,
    connect_with_will,
    is_ended,
    opened,
    publish,
    read_exactly,
)
from tests.node.publisher import Publisher, connect_packet
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_account_closes,
    assert_no_traceback,
    configuration,
    http_json,
    metric,
    pss_bytes,
    query,
)

MIB = 1 << 20
SERIES_MAX = 1000
TOPICS = 200_000
SILENT = 10_000
GROWTH_BYTES_MAX = 300 * MIB
TIME_MS = 1_767_225_600_000

pytestmark = pytest.mark.timeout(300)


@dataclass
class Arena:
    """The node, its well-behaved client, and how it was before anybody misbehaved."""

    node: RunningNode
    healthy: Publisher
    port: int
    http: int
    pss_bytes: int
    threads: float

    @property
    def data(self) -> Path:
        return self.node.directory / "data"

    def accounted(self, prefix: str) -> tuple[int, int]:
        """Readings of series, and dead letters of topics, below `meters/PREFIX`."""
        row = query(
            self.data,
            f"select (select count(*) from readings where series like '{prefix}%') as readings, "
            f"(select count(*) from deadletters where topic like 'meters/{prefix}%') as letters",
        )[0]
        return row["readings"], row["letters"]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    directory = tmp_path_factory.mktemp("arena")
    port, http = free_port(), free_port()
    text = configuration(port=port, http=http, catalogue=f"max_series = {SERIES_MAX}").replace(
        f'listen = "127.0.0.1:{port}"', f'listen = "127.0.0.1:{port}"\nconnect_timeout = "5s"'
    )
    healthy = Publisher(port, "healthy", series=20, rate=300)
    with RunningNode(directory, text) as node:
        healthy.start()
        wait_until(lambda: len(healthy.acknowledged) > 1000, what="the healthy client's acknowledgements")
        http_json(http, "/api/v1/overview")
        yield Arena(node, healthy, port, http, pss_bytes(node), metric(http, "ringmain_process_threads"))
        assert_account_closes(directory / "data")


@pytest.fixture(autouse=True)
def unharmed(arena: Arena) -> Iterator[None]:
    """The healthy client is answered after each test, on the connection that it had before."""
    yield
    if arena.healthy.is_alive():
        before = len(arena.healthy.acknowledged)
        wait_until(lambda: len(arena.healthy.acknowledged) > before + 200, 60, "the healthy client's answers")
    assert arena.healthy.connections == 1
    assert_no_traceback(arena.node)


def test_broken_packets_end_their_own_connection_only(arena: Arena) -> None:
    for stream in broken_streams(20261123, 300):
        with opened(arena.port) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(stream)


def test_an_announced_length_of_256_mb_ends_the_connection_at_its_header(arena: Arena) -> None:
    with opened(arena.port) as stranger:
        stranger.sendall(b"\x10\xff\xff\xff\x7f")
        assert is_ended(stranger)
    with accepted(arena.port, "large") as known:
        known.sendall(b"\x32\xff\xff\xff\x7f")
        assert is_ended(known)


def test_ten_thousand_silent_connections_are_let_go_and_cost_the_others_nothing(arena: Arena) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(SILENT, soft - 200)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(opened(arena.port)) for _ in range(count)]
        before = len(arena.healthy.acknowledged)
        wait_until(lambda: len(arena.healthy.acknowledged) > before + 300, 60, "the healthy client's answers")
        assert all(is_ended(connection) for connection in silent)
    wait_until(
        lambda: metric(arena.http, "ringmain_mqtt_connections") == 1, interval_s=0.1, what="one connection"
    )


def test_slow_writers_are_served_byte_by_byte(arena: Arena) -> None:
    count = 50
    packets = [
        connect_packet(f"slow-{number}")
        + publish(f"meters/slow{number}/p".encode(), b'{"t": 1767225600, "v": 1}', 1)
        for number in range(count)
    ]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(opened(arena.port)) for _ in range(count)]
        for place in range(max(len(packet) for packet in packets)):
            for connection, packet in zip(connections, packets, strict=True):
                connection.sendall(packet[place : place + 1])
        for connection in connections:
            assert read_exactly(connection, 8) == CONNACK + b"\x40\x02\x00\x01"
    assert arena.accounted("slow") == (count, 0)


def test_values_that_are_no_readings_are_dead_letters_each_with_a_reason(arena: Arena) -> None:
    good = [
        b'{"t": 0, "v": 1}',
        b'{"t": "1970-01-01T00:00:00Z", "v": 1}',
        b'{"t": "2262-04-11T23:47:16Z", "v": 1}',
        b'{"t": 1767225600, "v": -0.0}',
        b'{"t": 1767225600, "v": 5e-324}',
        b'{"v": 1}',
    ]
    bad = [
        b"\xff\xfe\x00",
        b'{"t": 1767225600, "v": "\xff"}',
        b'{"t": 1767225600, "v": NaN}',
        b'{"t": 1767225600, "v": 1e400}',
        b'{"t": 1767225600, "v": -1e400}',
        b'{"t": 1767225600, "v": Infinity}',
        b'{"t": 1767225600, "v": "seven"}',
        b'{"t": 1767225600, "v": true}',
        b'{"t": 1767225600, "v": null}',
        b'{"t": 1767225600}',
        b'{"t": "2262-04-12T00:00:00Z", "v": 1}',
        b'{"t": "2300-01-01T00:00:00Z", "v": 1}',
        b'{"t": "soon", "v": 1}',
        b'{"t": 1e300, "v": 1}',
        b'{"t": -1e30, "v": 1}',
        b'{"t": NaN, "v": 1}',
        b"",
        b"\x00" * 1000,
        b"[" * 100_000,
        b'{"v":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"t": 1767225600, "v": ' + b"9" * 10_000 + b"}",
        b'{"t": ' + b"9" * 10_000 + b', "v": 1}',
    ]
    either = [b'{"t": 1767225600, "v": 1, "v": 2}', b'{"t": 1, "t": 1767225600, "v": 1}']
    messages = [
        (f"meters/{kind}{number}/p".encode(), payload)
        for kind, payloads in (("good", good), ("bad", bad), ("either", either))
        for number, payload in enumerate(payloads)
    ]
    acknowledge_all(arena.port, "values", messages)
    assert arena.accounted("good") == (len(good), 0)
    assert arena.accounted("bad") == (0, len(bad))
    assert sum(arena.accounted("either")) == len(either)
    rows = query(arena.data, "select topic, reason from deadletters where topic like 'meters/bad%'")
    assert all("expected" in row["reason"] for row in rows), rows
    assert all(len(row["reason"]) < 1000 for row in rows)


def test_topics_that_are_no_utf_8_are_refused(arena: Arena) -> None:
    for topic in (
        b"meters/\xff\xfe/p",
        b"meters/\xed\xa0\x80/p",
        b"meters/a\x00b/p",
        b"meters/+/p",
        b"meters/#",
        b"",
    ):
        with accepted(arena.port, "topics") as connection:
            connection.sendall(publish(topic, b'{"v": 1}', 5))
            assert read_exactly(connection, 4) == b"", topic


def test_strange_topics_that_are_allowed_are_readings_or_letters(arena: Arena) -> None:
    topics = [
        b"meters/odd-\xf0\x9f\x94\xa5/p",
        b"meters/odd'; drop table readings; --/p",
        b"meters/odd-../../etc/passwd",
        b"meters/odd-" + b"x" * 60_000 + b"/p",
        b"meters/odd-/",
        b"meters/odd-\xef\xbb\xbf/p",
        b"meters/odd-\xe2\x80\xae/p",
        b"meters/odd-" + b"/" * 500,
        b"meters/odd-<script>alert(1)</script>/p",
    ]
    acknowledge_all(arena.port, "odd", [(topic, b'{"t": 1767225600, "v": 1}') for topic in topics])
    assert sum(arena.accounted("odd")) == len(topics)
    assert http_json(arena.http, "/api/v1/series?match=odd&limit=100")["series"]
    http_json(arena.http, "/api/v1/overview")


def test_payloads_of_5_mb_are_dead_letters_with_their_beginning_and_size(arena: Arena) -> None:
    payload = b'{"t": 1767225600, "v": 1, "x": "' + b"x" * 5_000_000 + b'"}'
    acknowledge_all(arena.port, "big", [(f"meters/big{number}/p".encode(), payload) for number in range(10)])
    assert arena.accounted("big") == (0, 10)
    rows = query(
        arena.data,
        "select payload_bytes as n, octet_length(payload) as kept from deadletters "
        "where topic like 'meters/big%'",
    )
    assert {(row["n"], row["kept"]) for row in rows} == {(len(payload), 4096)}


def test_half_closed_connections_are_stored_or_not_acknowledged(arena: Arena) -> None:
    count, told = 100, 0
    for number in range(count):
        with opened(arena.port) as connection:
            packet = publish(f"meters/half{number}/p".encode(), b'{"t": 1767225600, "v": 1}', 1)
            connection.sendall(connect_packet(f"half-{number}") + packet)
            connection.shutdown(socket.SHUT_WR)
            told += read_exactly(connection, 8)[4:] == b"\x40\x02\x00\x01"
    readings, letters = arena.accounted("half")
    assert told <= readings <= count
    assert letters == 0


def test_a_storm_of_clients_with_one_identifier_loses_nothing_that_was_acknowledged(arena: Arena) -> None:
    told: list[bytes] = []
    topics = [f"meters/storm{number}/p".encode() for number in range(400)]

    def storm(mine: list[bytes]) -> None:
        for topic in mine:
            with contextlib.suppress(ConnectionError, TimeoutError), opened(arena.port) as connection:
                connection.sendall(connect_packet("same") + publish(topic, b'{"t": 1767225600, "v": 1}', 1))
                if read_exactly(connection, 8)[4:] == b"\x40\x02\x00\x01":
                    told.append(topic)

    threads = [threading.Thread(target=storm, args=(topics[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told
    rows = query(arena.data, "select series from readings where series like 'storm%'")
    stored = [f"meters/{row['series']}".encode() for row in rows]
    assert len(stored) == len(set(stored))
    assert set(told) <= set(stored)


def test_wills_of_clients_that_vanish_are_events(arena: Arena) -> None:
    count = 100
    for number in range(count):
        with opened(arena.port) as connection:
            connection.sendall(connect_with_will(f"will-{number}", f"gone/{number}", b"\xff" * 100))
            assert read_exactly(connection, 4) == CONNACK

    def events() -> int:
        with ringmain.open(arena.data, read_only=True) as log:
            return sum(batch.num_rows for batch in log.read("events"))

    wait_until(lambda: events() == count, what="one event for each will", interval_s=0.2)


def test_hundreds_of_thousands_of_topics_are_dead_letters_beyond_the_limit_of_series(arena: Arena) -> None:
    messages = [(b"meters/t%d/p" % number, b'{"t": 1767225600, "v": 1}') for number in range(TOPICS)]
    acknowledge_all(arena.port, "topics", messages)
    readings, letters = arena.accounted("t")
    assert readings + letters == TOPICS
    assert 0 < readings <= SERIES_MAX
    (row,) = query(arena.data, "select reason from deadletters where topic = 'meters/t199999/p'")
    assert "max_series" in row["reason"]
    assert metric(arena.http, "ringmain_series") == SERIES_MAX


def test_at_the_end_everything_is_accounted_for_and_the_node_is_as_it_was(arena: Arena) -> None:
    arena.healthy.finish()
    assert arena.accounted("healthy") == (len(arena.healthy.acknowledged), 0)
    received = metric(arena.http, "ringmain_source_messages_received_total")
    stored = query(
        arena.data, "select (select count(*) from readings) + (select count(*) from deadletters) as n"
    )[0]["n"]
    assert stored == received
    assert http_json(arena.http, "/readyz")
    wait_until(lambda: metric(arena.http, "ringmain_mqtt_connections") == 0, what="no connection left")
    assert metric(arena.http, "ringmain_process_threads") <= arena.threads + 8
    growth = pss_bytes(arena.node) - arena.pss_bytes
    assert growth < GROWTH_BYTES_MAX, f"{growth / MIB:.0f} MiB more than before"
    began = time.monotonic()
    assert arena.node.stop() == 0, f"after {time.monotonic() - began:.1f} s"
    assert_no_traceback(arena.node)
