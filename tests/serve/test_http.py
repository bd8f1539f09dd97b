from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pytest

from ringmain.model.catalogue import SeriesAttributes
from ringmain.runtime.status import StorageState
from ringmain.serve import connections
from ringmain.serve.access import CONTENT_SECURITY_POLICY
from ringmain.serve.server import Server
from ringmain.serve.settings import ServeSettings
from tests.conftest import free_port, wait_until
from tests.serve.rig import MINUTE_NS, SECOND_NS, Rig, ServerRig

Serve = Callable[..., ServerRig]
TOKEN = "a-token-of-some-length"


def feeder(rig: Rig, key: str, medium: str = "electricity", **more: str) -> None:
    rig.id_of(key, SeriesAttributes(unit="W", quantity="power", medium=medium, **more))


def test_the_overview_sums_fresh_power_by_medium_and_sign(rig: Rig, serve: Serve) -> None:
    for key, medium in (
        ("house/p", "electricity"),
        ("pv/p", "electricity"),
        ("boiler/p", "heat"),
        ("old/p", "heat"),
    ):
        feeder(rig, key, medium)
    now = time.time_ns()
    rig.put([("house/p", now, 1200.0), ("pv/p", now, -300.0), ("boiler/p", now, 50.0)])
    rig.put([("old/p", now - 1800 * SECOND_NS, 9999.0)])
    rig.put([("boiler/p", now + 1, 70.0)], quality=2)
    rig.put_letter(b"\xff{not json")
    server = serve()
    status, found = server.get("/api/v1/overview")
    assert status == 200
    electricity, heat = found["power"]
    assert (electricity["medium"], electricity["load_w"], electricity["generation_w"]) == (
        "electricity",
        1200.0,
        -300.0,
    )
    assert (electricity["residual_w"], electricity["series"], electricity["fresh"]) == (900.0, 2, 2)
    # an invalid value is in no sum, and neither is one that is half an hour old
    assert (heat["load_w"], heat["series"], heat["fresh"]) == (0.0, 2, 0)
    assert heat["oldest_age_s"] >= 1800
    assert found["fresh"]["total"] == 4
    assert found["fresh"]["fresh"] == 3
    [stale] = found["stale"]
    assert (stale["key"], stale["medium"]) == ("old/p", "heat")
    assert stale["age_s"] >= 1800
    assert found["counts"] == {
        "received": 12,
        "stored": 10,
        "dead_letters": 2,
        "late": 1,
        "revisions": 2,
        "ahead": 3,
        "duplicates": 4,
        "invalid": 1,
        "events": 1,
    }
    assert found["sources"][0]["name"] == "field"
    assert found["flows"][0]["lag_s"] == 0.5
    assert found["node"]["timezone"] == "Europe/Berlin"
    [letter] = found["dead_letters"]
    assert (letter["payload"], letter["payload_bytes"]) == ("\ufffd{not json", 10)


def test_the_newest_value_is_the_newest_in_event_time_and_a_clock_ahead_hides_nothing(
    rig: Rig, serve: Serve
) -> None:
    now = time.time_ns()
    rig.put([("a", now - SECOND_NS, 2.0), ("a", now - 2 * SECOND_NS, 1.0)])
    rig.put([("a", now - 3 * SECOND_NS, 0.0)])
    rig.put([("b", now + 3600 * SECOND_NS, 5.0)], quality=0x80)
    rig.put([("b", time.time_ns(), 6.0)])
    _, found = serve().get("/api/v1/latest")
    values = {row["key"]: row["value"] for row in found["latest"]}
    assert values == {"a": 2.0, "b": 6.0}
    assert {row["key"]: row["time_ns"] for row in found["latest"]}["a"] == str(now - SECOND_NS)


def test_what_becomes_durable_after_the_start_shows(rig: Rig, serve: Serve) -> None:
    server = serve()
    for n in range(2000):
        feeder(rig, f"f{n}/p")
    rig.put([(f"f{n}/p", time.time_ns(), float(n)) for n in range(2000)])
    wait_until(lambda: len(server.get("/api/v1/latest?limit=5000")[1]["latest"]) == 2000)
    status, found = server.get("/api/v1/series?match=f19%20power&limit=3")
    assert status == 200
    assert (found["of"], len(found["series"])) == (2000, 3)
    assert found["total"] == sum("f19" in f"f{n}" for n in range(2000))
    assert found["series"][0]["last"]["value"] == 19.0
    assert found["series"][0]["medium"] == "electricity"


def test_readings_of_a_series_come_raw_or_in_buckets_that_say_their_length(rig: Rig, serve: Serve) -> None:
    start = 1_700_000_000 * SECOND_NS
    rig.put([("a", start + n * SECOND_NS, float(n)) for n in range(100)])
    rig.put([("a", start + 5 * SECOND_NS, 500.0), ("b", start, 1.0)])
    server = serve()
    stretch = f"&from={1_700_000_000_000}&to={1_700_000_100_000}"
    _, raw = server.get("/api/v1/readings?series=a" + stretch)
    assert (raw["resolution"], raw["unit"], raw["truncated"]) == ("raw", "W", False)
    assert raw["points"]["mean"][4:7] == [4.0, 500.0, 6.0]
    assert raw["points"]["mean"] == raw["points"]["min"]
    assert len(raw["points"]["time_ms"]) == 100
    _, found = server.get("/api/v1/readings?series=a&max_points=11" + stretch)
    points = found["points"]
    assert found["resolution"] == "10s buckets"
    assert sum(points["count"]) == 100
    assert max(points["max"]) == 500.0
    assert points["mean"][1] == pytest.approx(sum(range(10, 20)) / 10)
    assert points["time_ms"][1] - points["time_ms"][0] == 10_000
    _, none = server.get("/api/v1/readings?series=a")
    assert none["points"]["time_ms"] == []
    _, rfc = server.get("/api/v1/readings?series=a&from=2023-11-14T22:13:20Z&to=2023-11-14T23:13:22%2B01:00")
    assert rfc["points"]["mean"] == [0.0, 1.0]


def test_sums_of_a_medium_are_in_watts_whatever_the_units_of_its_series(rig: Rig, serve: Serve) -> None:
    start = (time.time_ns() - 5 * MINUTE_NS) // MINUTE_NS * MINUTE_NS
    for key, unit in (("a", "W"), ("b", "kW"), ("c", "MW"), ("d", None), ("e", "var"), ("f", "kW")):
        rig.id_of(key, SeriesAttributes(unit=unit, quantity="power", medium="electricity"))
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0, "f": -6.0}
    rig.put([(key, time.time_ns(), value) for key, value in values.items()])
    for key, value in values.items():
        rig.put_window(key, start, value)
    server = serve()
    _, overview = server.get("/api/v1/overview")
    (power,) = overview["power"]
    assert (power["load_w"], power["generation_w"], power["series"]) == (3_002_005.0, -6000.0, 5)
    _, found = server.get("/api/v1/windows?stream=readings.1m&medium=electricity")
    rows = found["rows"]
    assert (rows["load"], rows["generation"], rows["series"]) == ([3_002_005.0], [-6000.0], [5])
    _, latest = server.get("/api/v1/latest")
    assert {row["key"]: row["value"] for row in latest["latest"]} == values


def test_windows_of_a_series_and_of_a_medium_use_the_newest_revisions(rig: Rig, serve: Serve) -> None:
    start = (time.time_ns() - 5 * MINUTE_NS) // MINUTE_NS * MINUTE_NS
    feeder(rig, "house/p")
    feeder(rig, "pv/p")
    feeder(rig, "boiler/p", "heat")
    rig.put_window("house/p", start, 100.0)
    rig.put_window("house/p", start, 150.0, revision=1)
    rig.put_window("pv/p", start, -30.0)
    rig.put_window("house/p", start + MINUTE_NS, 10.0)
    rig.put_window("boiler/p", start, 7.0)
    server = serve()
    _, found = server.get("/api/v1/windows?stream=readings.1m&series=house/p")
    assert found["window_ms"] == 60_000
    assert (found["rows"]["mean"], found["rows"]["revision"]) == ([150.0, 10.0], [1, 0])
    assert found["rows"]["count"] == [60, 60]
    _, found = server.get("/api/v1/windows?stream=readings.1m&medium=electricity")
    rows = found["rows"]
    assert (rows["load"], rows["generation"], rows["net"], rows["series"]) == (
        [150.0, 10.0],
        [-30.0, 0.0],
        [120.0, 10.0],
        [2, 1],
    )
    _, found = server.get("/api/v1/windows?stream=readings.1m&medium=water")
    assert found["rows"]["start_ms"] == []


def test_streams_are_listed_with_columns_and_counts(rig: Rig, serve: Serve) -> None:
    rig.put([("a", 1, 1.0)])
    _, found = serve().get("/api/v1/streams")
    streams = {stream["name"]: stream for stream in found["streams"]}
    assert streams["readings"]["rows"] == 1
    assert streams["readings"]["kind"] == "reading"
    assert streams["readings.1m"]["columns"][1] == {"name": "start", "type": "timestamp[ns, tz=UTC]"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/nope", 404),
        ("/api/v2/series", 404),
        ("/api/v1/series?limit=x", 400),
        ("/api/v1/series?limit=1001", 400),
        ("/api/v1/series?limit=-1", 400),
        ("/api/v1/series?limit=1&limit=2", 400),
        ("/api/v1/series?unknown=1", 400),
        ("/api/v1/series?match=" + "x" * 300, 400),
        ("/api/v1/overview?x=1", 400),
        ("/api/v1/readings", 400),
        ("/api/v1/readings?series=nobody", 404),
        ("/api/v1/readings?series=a&max_points=0", 400),
        ("/api/v1/readings?series=a&from=yesterday", 400),
        ("/api/v1/readings?series=a&from=99999999999999999999", 400),
        ("/api/v1/readings?series=a&from=2024-01-01&to=2023-01-01", 400),
        ("/api/v1/windows?stream=readings.1m", 400),
        ("/api/v1/windows?stream=readings.1m&series=a&medium=heat", 400),
        ("/api/v1/windows?stream=readings&series=a", 404),
        ("/api/v1/sql", 405),
    ],
)
def test_what_is_wrong_with_a_request_is_told_in_json(rig: Rig, serve: Serve, path: str, status: int) -> None:
    rig.put([("a", 1, 1.0)])
    found, body = serve().get(path)
    assert found == status
    assert set(body) == {"error", "detail", "reference"}
    assert body["reference"]


def test_sql_answers_with_typed_columns_and_exact_times(rig: Rig, serve: Serve) -> None:
    rig.put([("a", 1_700_000_000_123_456_789, 1.5), ("a", 1_700_000_000_000_000_000, float(2**60))])
    server = serve()
    status, found = server.sql("SELECT series, time, value FROM readings WHERE series = ?", parameters=["a"])
    assert status == 200
    assert found["columns"] == [
        {"name": "series", "type": "VARCHAR"},
        {"name": "time", "type": "TIMESTAMPTZ_NS"},
        {"name": "value", "type": "DOUBLE"},
    ]
    assert found["rows"] == [
        ["a", "2023-11-14T22:13:20.123456789Z", 1.5],
        ["a", "2023-11-14T22:13:20Z", float(2**60)],
    ]
    assert (found["row_count"], found["truncated"]) == (2, False)
    status, found = server.sql("SELECT value FROM readings", limit=1)
    assert (found["row_count"], found["truncated"]) == (1, True)
    status, found = server.sql(
        "SELECT 'NaN'::DOUBLE, 170141183460469231731687303715884105727, NULL, [1, 2], {'a': DATE '2026-01-02'}, "
        "'\\xFF'::BLOB, 1.25, TIME '12:00'"
    )
    big = 170141183460469231731687303715884105727
    assert found["rows"] == [[None, big, None, [1, 2], {"a": "2026-01-02"}, "\\xff", 1.25, "12:00:00"]]


def test_sql_gives_arrow_to_who_asks_for_it(rig: Rig, serve: Serve) -> None:
    rig.put([("a", 5, 1.5)])
    body = json.dumps({"query": "SELECT * FROM readings"}).encode()
    kind = "application/vnd.apache.arrow.stream"
    status, data, headers = serve().request("/api/v1/sql", body, {"Accept": kind})
    assert (status, headers["content-type"], headers["ringmain-truncated"]) == (200, kind, "false")
    with pa.ipc.open_stream(data) as reader:
        assert reader.read_all().column("time").cast(pa.int64()).to_pylist() == [5]


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", 400, "sql"),
        ("ATTACH 'x'", 400, "sql"),
        ("SELECT repeat('x', 4000000000)", 400, "sql"),
        ("SELECT count(*) FROM range(100000000000000)", 408, "timeout"),
    ],
)
def test_a_statement_that_may_not_or_cannot_run_harms_nobody(
    rig: Rig, serve: Serve, query: str, status: int, error: str
) -> None:
    rig.put([("a", 5, 1.5)])
    timeout = "1s" if error == "timeout" else "60s"
    server = serve(ServeSettings(listen="127.0.0.1:0", sql_timeout=timeout))
    found, body = server.sql(query)
    assert (found, body["error"]) == (status, error)
    # Where a statement has one second only, a process that starts anew on a busy machine may need another try.
    wait_until(
        lambda: server.sql("SELECT count(*) FROM readings")[1].get("rows") == [[1]],
        60,
        "the next statement's answer",
    )


def test_a_statement_ends_when_its_client_leaves(rig: Rig, serve: Serve) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", sql_timeout="100s"))
    assert server.sql("SELECT 1")[0] == 200
    host, port = urlsplit(server.server.address).hostname, urlsplit(server.server.address).port
    bodies = json.dumps({"query": "SELECT count(*) FROM range(100000000000000)"}).encode()
    leaving = []
    for _ in range(2):
        connection = http.client.HTTPConnection(host or "", port, timeout=60)
        connection.request("POST", "/api/v1/sql", bodies)
        leaving.append(connection)
    for connection in leaving:
        connection.close()
    # both places are free again: a third statement is not refused as busy
    wait_until(lambda: server.sql("SELECT 1")[0] == 200, 60, "a free place for a statement")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/series?limit=x", "limit: expected a whole number, found 'x'"),
        ("/api/v1/series?unknown=1", "expected one of match, limit, found the parameter 'unknown'"),
        ("/api/v1/readings", "expected a parameter 'series', found none"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected_and_found(
    serve: Serve, path: str, said: str
) -> None:
    status, found = serve().get(path)
    assert (status, found["detail"]) == (400, said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"query": 1}',
        b'{"q": "x"}',
        b'{"query": "SELECT 1", "limit": 100001}',
        b"\xff",
    ],
)
def test_a_wrong_body_is_an_error(rig: Rig, serve: Serve, body: bytes) -> None:
    status, found, _ = serve().request("/api/v1/sql", body, {})
    assert status == 400
    assert found["detail"]


def test_a_body_beyond_the_limit_is_refused_also_when_its_length_is_not_announced(
    rig: Rig, serve: Serve
) -> None:
    place = urlsplit(serve().server.address)
    for head, body in (
        (b"Content-Length: 1048577", b""),
        (b"Content-Length: -1", b""),
        (b"Transfer-Encoding: chunked", b"100001\r\n" + b"x" * 0x100001),
    ):
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            with contextlib.suppress(ConnectionError):  # the answer may come before all of it is sent
                connection.sendall(
                    b"POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + body
                )
            assert connection.recv(4096).split(b" ")[1] in (b"413", b"400" if b"-1" in head else b"413")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("", 421),
        ("localhost", 200),
        ("LOCALHOST:9", 200),
        ("[::1]:80", 200),
        ("meters.stadtwerke.example", 200),
        ("meters.stadtwerke.example.:443", 200),
    ],
)
def test_only_known_names_are_answered(rig: Rig, serve: Serve, host: str, status: int) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", hosts=["meters.stadtwerke.example"]))
    for path in ("/api/v1/overview", "/", "/metrics"):
        assert server.get(path, Host=host)[0] == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:1", 403),
        ("https://meters.stadtwerke.example", 200),
        ("file://", 403),
        ("http://127.0.0.1.evil.example", 403),
    ],
)
def test_only_pages_of_this_node_may_ask(rig: Rig, serve: Serve, origin: str, status: int) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", hosts=["meters.stadtwerke.example"]))
    body = json.dumps({"query": "SELECT 1"}).encode()
    assert server.request("/api/v1/sql", body, {"Origin": origin})[0] == status
    assert server.request("/api/v1/sql", body, {"Origin": server.server.address})[0] == 200


def test_two_host_headers_are_refused(rig: Rig, serve: Serve) -> None:
    place = urlsplit(serve().server.address)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_a_token_is_asked_for_where_one_is_set(rig: Rig, serve: Serve) -> None:
    server = serve(ServeSettings(listen="127.0.0.1:0", token=TOKEN))
    for path in ("/api/v1/overview", "/metrics", "/api/v1/nope"):
        status, found, headers = server.request(path, None, {})
        assert (status, found["error"], headers["www-authenticate"]) == (401, "token", "Bearer")
        assert server.get(path, Authorization="Bearer wrong" + TOKEN)[0] == 401
        assert server.get(path, Authorization="Basic " + TOKEN)[0] == 401
    assert server.get("/api/v1/overview", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert server.get("/metrics", Authorization=f"bearer {TOKEN}")[0] == 200
    for path in ("/healthz", "/readyz", "/openapi.json", "/"):
        assert server.get(path)[0] == 200


def test_every_answer_carries_the_security_headers(rig: Rig, serve: Serve) -> None:
    server = serve()
    for path in ("/", "/api/v1/overview", "/api/v1/nope", "/metrics"):
        _, _, headers = server.request(path, None, {})
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    _, _, refused = server.request("/", None, {"Host": "evil.example"})
    assert refused["content-security-policy"] == CONTENT_SECURITY_POLICY


def test_the_page_is_served_precompressed_and_its_hashed_files_are_cached_for_ever(
    rig: Rig, serve: Serve, tmp_path: Path
) -> None:
    pages = tmp_path / "page"
    (pages / "assets").mkdir(parents=True)
    (pages / "index.html").write_text("<!doctype html>the page")
    (pages / "assets" / "main-abc123.js").write_text("plain")
    (pages / "assets" / "main-abc123.js.gz").write_bytes(b"packed")
    os.symlink("/etc/passwd", tmp_path / "secret")
    server = serve(pages=pages)
    status, body, headers = server.request("/", None, {})
    assert (status, body, headers["cache-control"]) == (200, b"<!doctype html>the page", "no-cache")
    assert headers["content-type"].startswith("text/html")
    assert server.request("/series", None, {})[1] == b"<!doctype html>the page"
    status, body, headers = server.request("/assets/main-abc123.js", None, {"Accept-Encoding": "br, gzip"})
    assert (body, headers["content-encoding"], headers["vary"]) == (b"packed", "gzip", "accept-encoding")
    assert "immutable" in headers["cache-control"]
    assert headers["content-type"].startswith("text/javascript")
    assert server.request("/assets/main-abc123.js", None, {})[1] == b"plain"
    assert server.request("/", None, {"If-None-Match": server.request("/", None, {})[2]["etag"]})[0] == 304
    for path in (
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/nope.js",
        "//etc/passwd.txt",
    ):
        assert server.get(path)[0] == 404
    (pages / "index.html").write_text("<!doctype html>a newer page")
    wait_until(lambda: server.request("/", None, {})[1] == b"<!doctype html>a newer page")


def test_a_page_that_was_not_built_says_so(rig: Rig, serve: Serve) -> None:
    status, body, _ = serve().request("/", None, {})
    assert status == 200
    assert b"make setup" in body


def test_health_and_readiness_tell_apart_alive_and_storing(rig: Rig, serve: Serve) -> None:
    server = serve()
    assert server.get("/readyz") == (200, {"status": "ok", "detail": ""})
    server.set_log_state(StorageState.FULL)
    status, found = server.get("/readyz")
    assert (status, found["detail"]) == (503, "the log is full: nothing is acknowledged")
    assert server.get("/healthz")[0] == 200


def test_metrics_are_in_the_prometheus_text_format(rig: Rig, serve: Serve) -> None:
    server = serve()
    server.get("/api/v1/nope")
    _, body, headers = server.request("/metrics", None, {})
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'ringmain_serve_requests_total{status="404"} 1' in body


def test_the_description_covers_every_operation_and_its_references_resolve(rig: Rig, serve: Serve) -> None:
    _, found = serve().get("/openapi.json")
    assert found["openapi"].startswith("3.1")
    assert set(found["paths"]) >= {
        "/api/v1/overview",
        "/api/v1/series",
        "/api/v1/latest",
        "/api/v1/readings",
        "/api/v1/windows",
        "/api/v1/streams",
        "/api/v1/live",
        "/api/v1/sql",
        "/metrics",
        "/healthz",
        "/readyz",
        "/openapi.json",
    }
    text = json.dumps(found)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"]
    names = [parameter["name"] for parameter in found["paths"]["/api/v1/readings"]["get"]["parameters"]]
    assert names == ["series", "from", "to", "max_points"]


def test_an_address_in_use_is_an_error_that_says_so(rig: Rig, serve: Serve) -> None:
    first = serve()
    listen = urlsplit(first.server.address).netloc
    second = Server(
        ServeSettings(listen=listen), rig.log, first.counters, lambda: first.status, directory=rig.directory
    )
    with pytest.raises(OSError, match="another program listens there"):
        second.start()


def test_a_server_stops_though_clients_hang_on_and_its_port_is_free_again(rig: Rig, serve: Serve) -> None:
    port = free_port()
    server = serve(ServeSettings(listen=f"127.0.0.1:{port}"))
    hanging = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(5)]
    hanging[0].sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert hanging[0].recv(100).startswith(b"HTTP/1.1 200")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    stopping.join(60)
    assert not stopping.is_alive()
    serve(ServeSettings(listen=f"127.0.0.1:{port}"))
    for connection in hanging:
        connection.close()


def test_a_key_is_found_whatever_characters_it_has(rig: Rig, serve: Serve) -> None:
    key = "Straße 7/ä&b=c?#%/p"
    rig.put([(key, time.time_ns(), 1.0)])
    status, found = serve().get("/api/v1/readings?series=" + quote(key, safe=""))
    assert (status, found["series"], found["points"]["mean"]) == (200, key, [1.0])


def test_a_connection_that_says_nothing_or_has_no_end_of_headers_is_closed(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    server = serve()
    place = urlsplit(server.server.address)
    silent = socket.create_connection((place.hostname, place.port), timeout=60)
    slow = socket.create_connection((place.hostname, place.port), timeout=60)
    slow.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert gone(silent)
    assert gone(slow)
    monkeypatch.setattr(connections, "REQUEST_S", 60)
    endless = socket.create_connection((place.hostname, place.port), timeout=60)
    endless.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    with pytest.raises(OSError):
        endless.sendall(b"x" * (64 << 20))
    assert server.get("/healthz")[0] == 200


def test_connections_beyond_the_limit_are_closed_and_others_go_on(
    rig: Rig, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    server = serve()
    place = urlsplit(server.server.address)
    held = [socket.create_connection((place.hostname, place.port), timeout=60) for _ in range(3)]
    for connection in held:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert gone(socket.create_connection((place.hostname, place.port), timeout=60))
    held.pop().close()
    wait_until(lambda: server.reachable())


def gone(connection: socket.socket) -> bool:
    """Whether the other end closes the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
