from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ringmain.model.catalogue import SeriesAttributes
from ringmain.serve import live
from ringmain.serve.settings import ServeSettings
from tests.conftest import wait_until
from tests.serve.rig import MINUTE_NS, Rig, ServerRig

Serve = Callable[..., ServerRig]
TOKEN = "a-token-of-some-length"


class Page:
    """The page's end of the WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, timeout_s: float = 60) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout_s))
        return message

    def batch(self, timeout_s: float = 60, *, ack: bool = True) -> dict[str, Any]:
        """The next batch, acknowledged; heartbeats are skipped."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.hear(max(deadline - time.monotonic(), 0.01))
            if message["type"] == "batch":
                if ack:
                    self.say(op="ack", seq=message["seq"])
                return message
            assert message["type"] == "heartbeat", message

    def until(self, wanted: Callable[[dict[str, Any]], Any], timeout_s: float = 60) -> Any:
        """What `wanted` finds in the first batch in which it finds something."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = wanted(self.batch(max(deadline - time.monotonic(), 0.01)))
            if found:
                return found


def hear_heartbeats(opened: Page) -> None:
    """Hear nothing else. TimeoutError when nothing comes any more."""
    while True:
        assert opened.hear(0.3)["type"] == "heartbeat"


def closed(opened: Page) -> bool:
    """Whether the connection has ended, once what was on its way is read."""
    try:
        opened.hear(0.1)
    except ConnectionClosed:
        return True
    except TimeoutError:
        pass
    return False


@contextmanager
def page(server: ServerRig, *, hello: bool = True, **options: Any) -> Iterator[Page]:
    address = server.server.address.replace("http", "ws", 1) + "/api/v1/ws"
    with connect(address, proxy=None, open_timeout=60, **options) as socket:
        opened = Page(socket)
        if hello:
            opened.say(op="hello", token=None)
            welcome = opened.hear()
            assert (welcome["type"], welcome["heartbeat_s"]) == ("welcome", 2.0)
            assert welcome["node"]["name"] == "leipzig-west"
        yield opened


def power(medium: str) -> SeriesAttributes:
    return SeriesAttributes(unit="W", quantity="power", medium=medium)


def test_a_page_gets_the_overview_and_the_newest_values_of_what_it_watches(rig: Rig, serve: Serve) -> None:
    now_ms = time.time_ns() // 1_000_000
    rig.put([("a", now_ms * 1_000_000, 1.5), ("b", now_ms * 1_000_000, 2.5)])
    with page(serve()) as opened:
        assert opened.until(lambda batch: batch.get("overview"))["fresh"]["total"] == 2
        opened.say(op="watch", series=["a", "nobody"], stream="readings.1m")
        [[key, time_ms, value, quality, arrived_ms]] = opened.until(lambda batch: batch["values"])
        assert (key, time_ms, value, quality) == ("a", now_ms, 1.5, 0)
        assert arrived_ms >= now_ms
        rig.put([("a", now_ms * 1_000_000 + 1_000_000, 3.5), ("b", now_ms * 1_000_000, 0.0)])
        assert opened.until(lambda batch: batch["values"])[0][:3] == ["a", now_ms + 1, 3.5]


def test_new_windows_of_watched_series_and_sums_by_medium_are_pushed(rig: Rig, serve: Serve) -> None:
    start = time.time_ns() // MINUTE_NS * MINUTE_NS
    rig.id_of("house/p", power("electricity"))
    rig.id_of("pv/p", power("electricity"))
    rig.put([("house/p", start, 1.0)])
    rig.put_window("house/p", start, 100.0)
    with page(serve()) as opened:
        assert opened.until(lambda batch: batch["media"]) == [
            ["electricity", start // 1_000_000, 100.0, 0.0, 100.0, 1]
        ]
        opened.say(op="watch", series=["house/p"], stream="readings.1m")
        opened.until(lambda batch: batch["values"])  # from here on it is watched
        rig.put_window("pv/p", start, -30.0)
        rig.put_window("house/p", start, 120.0, revision=1)
        windows: list[Any] = []
        media: list[Any] = []

        def collect(batch: dict[str, Any]) -> bool:
            windows.extend(batch["windows"])
            media.extend(batch["media"])
            return bool(windows) and media[-1][5] == 2 and media[-1][2] == 120.0

        opened.until(collect)
        start_ms = start // 1_000_000
        assert windows == [["house/p", start_ms, start_ms + 60_000, 60, 120.0, 119.0, 121.0, 1]]
        assert media[-1] == ["electricity", start_ms, 120.0, -30.0, 90.0, 2]


def test_the_next_batch_waits_for_the_acknowledgement_and_holds_only_the_newest(
    rig: Rig, serve: Serve
) -> None:
    now = time.time_ns()
    rig.put([("a", now, 0.0)])
    server = serve()
    with page(server) as opened:
        opened.say(op="watch", series=["a"])
        while True:
            held = opened.batch(ack=False)
            if held["values"]:
                break
            opened.say(op="ack", seq=held["seq"])
        for n in range(1, 201):
            rig.put([("a", now + n, float(n))])
        wait_until(lambda: server.get("/api/v1/latest?match=a")[1]["latest"][0]["value"] == 200.0)
        with pytest.raises(TimeoutError):
            hear_heartbeats(opened)
        opened.say(op="ack", seq=held["seq"])
        found = opened.batch()
        assert found["seq"] == held["seq"] + 1
        assert [value[2] for value in found["values"]] == [200.0]


def test_batches_come_at_most_ten_times_a_second_and_once_in_a_hidden_tab(rig: Rig, serve: Serve) -> None:
    rig.put([("a", time.time_ns(), 0.0)])
    server = serve()
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.01):
            rig.put([("a", time.time_ns(), 1.0)])

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        with page(server) as opened:
            opened.say(op="watch", series=["a"])
            opened.until(lambda batch: batch["values"])

            def taken_s(batches: int) -> float:
                """From before the next batch can be sent until so many have come."""
                held = opened.batch(ack=False)
                began = time.monotonic()
                opened.say(op="ack", seq=held["seq"])
                for _ in range(batches):
                    opened.batch()
                return time.monotonic() - began

            assert taken_s(10) >= 0.85
            opened.say(op="hidden", hidden=True)
            opened.batch()
            opened.batch()
            assert taken_s(2) >= 0.9
    finally:
        stop.set()
        feeding.join()


def test_a_quiet_node_sends_heartbeats(rig: Rig, serve: Serve) -> None:
    with page(serve()) as opened:
        opened.batch()
        assert opened.hear()["type"] == "heartbeat"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("nonsense", "message"),
        ('{"op":"fly"}', "message"),
        ("[]", "message"),
        ('{"op":"watch","series":[1]}', "message"),
        ('{"op":"hello"}', "hello"),
        (json.dumps({"op": "watch", "series": [str(n) for n in range(51)]}), "watch"),
        (b"\xff\xfe", "message"),
    ],
)
def test_a_message_that_is_none_ends_the_connection_with_a_reason(
    rig: Rig, serve: Serve, message: str | bytes, error: str
) -> None:
    with page(serve()) as opened:
        opened.socket.send(message)
        found = {"type": "batch"}
        while found["type"] in ("batch", "heartbeat"):
            found = opened.hear()
        assert (found["type"], found["error"]) == ("error", error)
        with pytest.raises(ConnectionClosed):
            opened.hear()


def test_a_huge_message_ends_the_connection_and_the_server_goes_on(rig: Rig, serve: Serve) -> None:
    server = serve()
    with page(server) as opened:
        opened.socket.send("x" * 1_000_000)
        wait_until(lambda: closed(opened), what="the end of the connection")
    assert server.get("/healthz")[0] == 200


def test_hello_has_to_come_first_with_the_token_and_in_time(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", token=TOKEN))
    with page(server, hello=False) as opened:
        opened.say(op="hello", token=TOKEN)
        assert opened.hear()["type"] == "welcome"
    for first in ({"op": "hello", "token": "wrong"}, {"op": "hello"}, {"op": "ack", "seq": 1}):
        with page(server, hello=False) as opened:
            opened.say(**first)
            assert opened.hear()["type"] == "error"
            with pytest.raises(ConnectionClosed):
                opened.hear()
    monkeypatch.setattr(live, "HELLO_S", 0.2)
    with page(server, hello=False) as opened:
        assert opened.hear()["detail"].startswith("expected hello within")


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_page_of_another_origin_cannot_open_a_websocket(rig: Rig, serve: Serve, origin: str) -> None:
    server = serve()
    with pytest.raises(InvalidStatus), page(server, origin=origin):
        pass
    with page(server, origin=server.server.address) as opened:
        assert opened.batch()["seq"] == 1


def test_no_more_clients_than_configured_are_served(rig: Rig, serve: Serve) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", max_live_clients=1))
    with page(server) as first:
        first.batch()
        with page(server, hello=False) as second:
            assert second.hear()["error"] == "busy"
        assert server.get("/api/v1/live")[0] == 503
    wait_until(lambda: server.counters.value("ringmain_serve_live_clients") == 0)


def test_a_page_that_stops_acknowledging_is_let_go(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "ACK_S", 0.3)
    with page(serve()) as opened:
        opened.batch(ack=False)
        assert opened.hear()["error"] == "ack"


class Events:
    """A program's end of the event stream."""

    def __init__(self, server: ServerRig, path: str) -> None:
        place = urlsplit(server.server.address)
        self.connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.headers["content-type"].startswith("text/event-stream")
        assert self.response.readline().startswith(b":")

    def next(self) -> dict[str, Any]:
        while True:
            line = self.response.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def test_programs_get_changes_of_matching_series_as_events(rig: Rig, serve: Serve) -> None:
    now_ms = time.time_ns() // 1_000_000
    rig.put([("f1/p", now_ms * 1_000_000, 0.0)])
    events = Events(serve(), "/api/v1/live?match=f1")
    rig.put([("f1/p", now_ms * 1_000_000 + 1_000_000, 1.0), ("f2/p", now_ms * 1_000_000, 2.0)])
    [reading] = events.next()["readings"]
    assert reading[:4] == ["f1/p", now_ms + 1, 1.0, 0]
    # a series that appears later and matches is followed too
    rig.put([("f1/q", now_ms * 1_000_000, 3.0)])
    assert events.next()["readings"][0][0] == "f1/q"
    events.close()


def test_a_program_that_reads_slowly_gets_the_newest_and_is_told_what_it_missed(
    rig: Rig, serve: Serve
) -> None:
    keys = [f"f{n}/p" for n in range(300)]
    now = time.time_ns()
    rig.put([(key, now, 0.0) for key in keys])
    server = serve()
    place = urlsplit(server.server.address)
    slow = socket.create_connection((place.hostname, place.port), timeout=60)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    slow.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert slow.recv(64).startswith(b"HTTP/1.1 200")
    last = 40
    for n in range(1, last + 1):
        rig.put([(key, now + n, float(n)) for key in keys])
    wait_until(lambda: server.get("/api/v1/latest?limit=1")[1]["latest"][0]["value"] == float(last))
    assert server.server.latest.readings == len(keys) * (last + 1)
    values: dict[str, float] = {}
    sent = dropped = 0
    buffered = b""
    while len(values) < len(keys) or min(values.values()) < last:
        buffered += slow.recv(1 << 16)
        *lines, buffered = buffered.split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                event = json.loads(line[6:].strip())
                dropped += event["dropped"]
                sent += len(event["readings"])
                values.update((reading[0], reading[2]) for reading in event["readings"])
    slow.close()
    assert sent + dropped == len(keys) * last
    assert sent < len(keys) * last


def test_the_stream_of_events_beats_when_nothing_changes(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVENT_HEARTBEAT_S", 0.1)
    events = Events(serve(), "/api/v1/live")
    assert b": heartbeat\n" in [events.response.readline() for _ in range(4)]
    events.close()
