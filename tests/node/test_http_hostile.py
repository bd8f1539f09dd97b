"""A node's server among clients that want what they must not have, or only want it down: page and API go on for others.

What each refusal looks like is tested beside the server; here the whole node is, with devices that publish meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_all_stored,
    assert_no_traceback,
    configuration,
    http_json,
    metric,
    pss_bytes,
)

MIB = 1 << 20
LIVE_CLIENTS = 200
SILENT = 1200
GROWTH_BYTES_MAX = 200 * MIB

pytestmark = pytest.mark.timeout(300)


@dataclass
class Served:
    """A node under load, and how it was before anybody misbehaved."""

    node: RunningNode
    publisher: Publisher
    http: int
    pss_bytes: int

    @property
    def data(self) -> Path:
        return self.node.directory / "data"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in (headers or {}):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def sql(self, statement: str) -> tuple[int, Any]:
        """Status and answer of a statement."""
        body = json.dumps({"query": statement}).encode()
        status, answer = self.ask("/api/v1/sql", "POST", body, {"Content-Type": "application/json"})
        return status, json.loads(answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    (directory / "secret.txt").write_text("a secret")
    port, http = free_port(), free_port()
    publisher = Publisher(port, "p0", series=20, rate=300)
    with RunningNode(directory, configuration(port=port, http=http)) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 500, what="acknowledgements")
        one = Served(node, publisher, http, 0)
        wait_until(lambda: one.sql("select 1")[0] == 200, what="the answer to a statement")
        one.pss_bytes = pss_bytes(node)
        yield one


@pytest.fixture(autouse=True)
def unharmed(served: Served) -> Iterator[None]:
    """Devices, page and API go on after each test."""
    yield
    if served.publisher.is_alive():
        before = len(served.publisher.acknowledged)
        wait_until(lambda: len(served.publisher.acknowledged) > before + 100, what="acknowledgements")
        assert http_json(served.http, "/api/v1/latest?match=p0")["latest"]
        assert served.ask("/")[0] in (200, 503)  # 503: the page was not built
    assert_no_traceback(served.node)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 421),
        ({"Host": "127.0.0.1.attacker.example"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"X-Forwarded-Host": "attacker.example"}, 200),
    ],
)
def test_requests_of_other_sites_are_refused_and_change_nothing(
    served: Served, headers: dict[str, str], status: int
) -> None:
    for path in ("/api/v1/overview", "/api/v1/latest?match=", "/metrics"):
        assert served.ask(path, headers=headers)[0] == status


def test_no_statement_reaches_files_or_settings(served: Served) -> None:
    secret = served.node.directory / "secret.txt"
    written = served.node.directory / "written"
    statements = [
        f"select * from read_text('{secret}')",
        f"select * from read_csv('{secret}')",
        f"select * from '{secret}'",
        f"select * from read_blob('{secret}')",
        f"select * from glob('{secret.parent}/*')",
        f"select content from read_text(['{secret}'])",
        f"copy (select 1) to '{written}'",
        f"attach '{written}' as x",
        f"select 1; copy (select 1) to '{written}'",
        f"with x as (select 1) select * from read_parquet('{secret}')",
        "select * from 'https://attacker.example/x.csv'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "pragma database_list",
        "create table x as select 1",
        "delete from readings",
        "drop table readings",
        "select getenv('HOME')",
        "call pragma_version()",
        "export database 'x'",
        "checkpoint",
        "explain analyze select 1; drop table readings",
        "",
        ";",
        "select" + "(" * 20_000,
        "/*",
        "select '\x00'",
    ]
    for statement in statements:
        status, answer = served.sql(statement)
        if status == 200:
            assert "a secret" not in json.dumps(answer), statement
            assert statement.startswith(("select '", "select getenv", "pragma")), statement
            assert "/" not in json.dumps(answer["rows"]), statement
        else:
            assert status in (400, 408), (statement[:80], status, answer)
            assert answer["detail"], statement
    assert not written.exists()
    wait_until(lambda: served.sql("select 1")[0] == 200, what="the answer to a statement")


def test_statements_that_would_take_everything_end_in_their_own_process(served: Served) -> None:
    greedy = [
        "select sum(a.range * b.range) from range(100000000) a, range(100000000) b",
        "select list(range) from range(2000000000)",
        "select repeat('x', 2000000000)",
    ]
    for statement in greedy:
        status, answer = served.sql(statement)
        assert status in (400, 408, 413, 503, 504), (statement, status)
        assert answer["detail"]


def test_huge_bodies_are_refused_before_they_are_held(served: Served) -> None:
    headers = {"Content-Type": "application/json"}
    assert served.ask("/api/v1/sql", "POST", b"x", {**headers, "Content-Length": "10000000000"})[0] == 413
    connection = socket.create_connection(("127.0.0.1", served.http), timeout=60)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(
            b"POST /api/v1/sql HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(100):
            connection.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.recv(4096).partition(b"\r\n")[0]


def test_paths_that_lead_out_of_the_page_lead_nowhere(served: Served) -> None:
    page = served.ask("/")[1]
    up = ["../" * 8, "..%2f" * 8, "%2e%2e/" * 8, "..\\" * 8, "....//" * 8, "assets/" + "../" * 9]
    for prefix in up:
        status, body = served.ask(f"/{prefix}etc/passwd")
        assert b"root:" not in body
        assert status in (400, 404, 503) or body == page, prefix  # the page knows its own paths
    for path in ("//etc/passwd", "/%00", "/" + "a" * 60_000, "/api/v1/../../etc/passwd", "/api/%2e%2e/x"):
        status, body = served.ask(path)
        assert b"root:" not in body
        assert status in (400, 404, 414, 431, 503) or body == page, (path[:50], status)


def test_parameters_that_make_no_sense_are_refused_with_a_reason(served: Served) -> None:
    queries = [
        "/api/v1/readings",
        "/api/v1/readings?series=p0-1/power&from=yesterday",
        "/api/v1/readings?series=p0-1/power&max_points=-1",
        "/api/v1/readings?series=p0-1/power&max_points=1e99",
        "/api/v1/readings?series=a&series=b",
        "/api/v1/series?limit=99999999999999999999",
        "/api/v1/series?limit=NaN",
        "/api/v1/series?nonsense=1",
        "/api/v1/latest?match=" + quote("x" * 30_000),
        "/api/v1/nothing",
    ]
    for query in queries:
        status, body = served.ask(query)
        assert status in (400, 404, 414, 422), (query[:80], status)
        answer = json.loads(body)
        assert answer["detail"], query
    for match in ("(((((", "[" * 500, "*" * 500, "\x00", "%", "\\", "a" * 500 + "*" * 100 + "b"):
        status, _ = served.ask(f"/api/v1/series?match={quote(match)}")
        assert status in (200, 400), match
    for garbage in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", bytes(range(256)) * 300):
        connection = socket.create_connection(("127.0.0.1", served.http), timeout=60)
        with connection, contextlib.suppress(OSError):  # it may be closed before all of it is sent
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


def deaf(port: int, request: bytes, *frames: bytes) -> socket.socket:
    """A client that asks and never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request)
    for frame in frames:
        connection.sendall(frame)
    return connection


def masked(text: bytes) -> bytes:
    """A text frame of a client with a mask of zeros (RFC 6455, 5.2)."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def test_live_clients_that_read_nothing_cost_the_one_that_reads_nothing(served: Served) -> None:
    host = b"Host: 127.0.0.1\r\n"
    key = base64.b64encode(b"0123456789abcdef")
    events = b"GET /api/v1/live?match= HTTP/1.1\r\n" + host + b"\r\n"
    upgrade = (
        b"GET /api/v1/ws HTTP/1.1\r\n" + host + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    frames = (masked(b'{"op":"hello"}'), masked(b'{"op":"watch","series":["p0-1/power"]}'))
    with contextlib.ExitStack() as stack:
        reading = http.client.HTTPConnection("127.0.0.1", served.http, timeout=60)
        stack.enter_context(contextlib.closing(reading))
        reading.request("GET", "/api/v1/live?match=p0")
        live = reading.getresponse()
        assert live.status == 200
        for number in range(LIVE_CLIENTS - 1):
            request = (events,) if number % 2 else (upgrade, *frames)
            stack.enter_context(contextlib.closing(deaf(served.http, *request)))
        wait_until(
            lambda: metric(served.http, "ringmain_serve_live_clients") == LIVE_CLIENTS,
            what="every client let in",
            interval_s=0.1,
        )
        assert served.ask("/api/v1/live?match=")[0] == 503
        seen = 0
        while seen < 20:
            seen += live.readline().startswith(b"event: readings")
        assert http_json(served.http, "/api/v1/overview")
        # Statements stand back for everything else (nice): on a busy machine one may not come back in its 5 s.
        wait_until(
            lambda: served.sql("select count(*) from readings")[0] == 200, 60, "the answer to a statement"
        )
    wait_until(
        lambda: metric(served.http, "ringmain_serve_live_clients") == 0,
        60,
        "every client gone",
        interval_s=0.1,
    )


def test_connections_that_ask_for_nothing_keep_nobody_out_for_long(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(SILENT):
            request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " if number % 2 else b""
            stack.enter_context(contextlib.closing(deaf(served.http, request)))

        def answered() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return served.ask("/healthz")[0] == 200
            return False

        wait_until(answered, 60, "an answer beside silent connections", interval_s=0.2)


def test_at_the_end_the_node_is_as_it_was(served: Served) -> None:
    served.publisher.finish()
    growth = pss_bytes(served.node) - served.pss_bytes
    assert growth < GROWTH_BYTES_MAX, f"{growth / MIB:.0f} MiB more than before"
    assert http_json(served.http, "/readyz")
    assert served.node.stop() == 0
    assert_no_traceback(served.node)
    assert_all_stored(served.data, served.publisher.acknowledged)
