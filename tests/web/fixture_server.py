"""A stand-in for the node that the page's tests drive: the API of `ringmain.serve`, seeded data, a clock of its own.

The page cannot tell it from a node. Everything it says is a pure function of the series and the time, so every
run draws the same picture; what a node would live through (a cut line, silence, staleness, a malformed message)
happens when the test says so. The content security policy is the real one.

By hand, while working on the page: `python -m tests.web.fixture_server --port 8080`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.web.fixture_data import LOADS, MEMBERS, MINUTE_MS, PROFILES, SUPPLY, catalogue, noise

STATIC = Path(__file__).parents[2] / "src" / "ringmain" / "serve" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
BASE_MS = 1_795_439_108_000
"""2026-11-23T13:05:08Z: where the fixture's clock starts, unless told otherwise."""

HISTORY_MS = 3 * 3_600_000
CLOSE_AFTER_MS = 12_000
HEARTBEAT_S = 2.0


def account_rows(stream: str, handed_over: int, evicted: int, missing: int) -> dict[str, Any]:
    """A source's rows in one stream, of which retention has removed some."""
    evicted = min(evicted, handed_over)
    found = handed_over - evicted - missing
    others = dict.fromkeys(("quarantined", "cut", "lost", "conflict"), 0)
    return {
        "stream": stream,
        "handed_over": handed_over,
        "found": found,
        "evicted": evicted,
        **others,
        "difference": missing,
    }


@dataclass
class Fixture:
    """The state that a test changes. Every method may be called from the test's thread."""

    series: int = 4200
    timezone: str = "Europe/Berlin"
    prefix: str = ""
    media: tuple[str, ...] = ("electricity", "heat")
    address: str = ""
    base_ms: int = BASE_MS
    token: str | None = None
    empty: bool = False
    stale: bool = False
    source_down: bool = False
    log_state: str = "ok"
    refusing: bool = False
    silent: bool = False
    fail_windows: bool = False
    filling: bool = False
    uncounted: bool = False
    missing_rows: int = 0
    part_names: tuple[str, ...] = ("intake", "flows", "server")
    part_down: str | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)
    acks: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    hellos: int = 0
    revised: int = 0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.catalogue = catalogue(self.series)
        self.haystack = [
            " ".join(str(entry[name]) for name in ("key", "place", "quantity", "medium")).lower()
            for entry in self.catalogue
        ]
        self.by_key = {entry["key"]: entry for entry in self.catalogue}
        self.sockets: set[WebSocket] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stale_since_ms = 0

    def now_ms(self) -> int:
        return self.base_ms + int((time.monotonic() - self.started) * 1000)

    # What a test can make happen.

    def cut(self) -> None:
        """Close every connection and refuse new ones until `mend`."""
        self.refusing = True
        assert self.loop is not None

        async def close() -> None:
            for connection in list(self.sockets):
                with suppress(RuntimeError):
                    await connection.close(1012)

        asyncio.run_coroutine_threadsafe(close(), self.loop).result(5)

    def mend(self) -> None:
        self.refusing = False

    def shift(self, seconds: float) -> None:
        """Let the node's clock jump ahead, as if that much time had passed."""
        self.base_ms += int(seconds * 1000)

    def go_stale(self) -> None:
        """No reading comes any more; the node itself goes on."""
        self.stale_since_ms = self.now_ms() - 185_000
        self.stale = True

    def malformed(self, payload: str = '{"t": 1795439100, "v": 12') -> None:
        """A device sends what is not JSON."""
        self.letters.insert(
            0,
            {
                "time_ms": self.now_ms(),
                "source": "field",
                "topic": "meters/hh-00042/power",
                "reason": "payload is not JSON: expected an object, found the end of the input at byte 25",
                "payload": payload,
                "payload_bytes": len(payload.encode()),
            },
        )
        del self.letters[20:]

    # What the node answers.

    def newest_window_ms(self) -> int:
        now = self.stale_since_ms if self.stale else self.now_ms()
        return (now - CLOSE_AFTER_MS) // MINUTE_MS * MINUTE_MS - MINUTE_MS

    def data_ms(self) -> int:
        return self.stale_since_ms if self.stale else self.now_ms()

    def power(self) -> list[dict[str, Any]]:
        if self.empty:
            return []
        at = self.data_ms()
        rows = []
        for medium in self.media:
            members = MEMBERS[medium]
            load = LOADS[medium].at(medium, at)
            supply = SUPPLY[medium].at(medium + "-", at)
            missing = 3 if medium == "electricity" else 0
            rows.append(
                {
                    "medium": medium,
                    "load_w": load,
                    "generation_w": supply,
                    "residual_w": load + supply,
                    "series": members,
                    "fresh": 0 if self.stale else members - missing,
                    "quality": 0,
                    "oldest_age_s": 4.1 + (self.now_ms() - at) / 1000,
                }
            )
        return rows

    def stale_list(self) -> list[dict[str, Any]]:
        if self.empty:
            return []
        at = self.data_ms()
        keys = ["hh-00007/power", "hh-00019/power", "hh-00311/power", "hh-00311/energy"]
        return [
            {
                "key": key,
                "medium": "electricity",
                "time_ms": at - 65_000 - 9_000 * n,
                "age_s": 65.0 + 9 * n + (self.now_ms() - at) / 1000,
            }
            for n, key in reversed(list(enumerate(keys)))
        ]

    def overview(self) -> dict[str, Any]:
        now = self.now_ms()
        elapsed = (self.data_ms() - self.base_ms) / 1000 + 7200
        total = 0 if self.empty else self.series
        received = 0 if self.empty else int(elapsed * 3012)
        letters = [] if self.empty else self.letters
        count = 0 if self.empty else 17
        return {
            "node": self.node(),
            "now_ms": now,
            "power": self.power(),
            "fresh": {
                "fresh": 0 if self.stale or self.empty else total - 4,
                "total": total,
                "oldest_age_s": None if self.empty else 92.0 + (now - self.data_ms()) / 1000,
            },
            "stale": self.stale_list(),
            "counts": {
                "received": received,
                "stored": received - count - len(letters),
                "dead_letters": count + len(letters),
                "late": count * 9,
                "revisions": count * 3 + self.revised,
                "ahead": count // 3,
                "duplicates": count * 41,
                "invalid": 0,
                "events": count // 4,
            },
            "sources": [
                {
                    "name": "field",
                    "type": "mqtt-listener",
                    "address": "127.0.0.1:1884",
                    "state": "running",
                    "since_ms": self.base_ms - 7_200_000,
                    "last_error": None,
                    "received": received,
                    "readings": received,
                    "dead_letters": count + len(letters),
                    "rate_per_s": 0.0
                    if self.empty or self.stale
                    else 3012.0 + 40 * noise("rate", now // 1000),
                    "connections": 0 if self.empty else 50,
                    "last_reading_ms": None if self.empty else self.data_ms() - 200,
                },
                {
                    "name": "city",
                    "type": "mqtt",
                    "address": "mqtt://127.0.0.1:1883",
                    "state": "restarting" if self.source_down else "running",
                    "since_ms": now - 14_000 if self.source_down else self.base_ms - 7_200_000,
                    "last_error": "connection refused by 127.0.0.1:1883; next attempt in 4 s"
                    if self.source_down
                    else None,
                    "received": 0 if self.empty else 120_418,
                    "readings": 0 if self.empty else 120_418,
                    "dead_letters": 0,
                    "rate_per_s": 0.0 if self.empty or self.stale or self.source_down else 96.4,
                    "connections": 1,
                    "last_reading_ms": None if self.empty else self.data_ms() - 900,
                },
            ],
            "flows": [
                {
                    "name": "minute",
                    "to": "readings.1m",
                    "state": "running",
                    "lag_s": 0.4,
                    "rows": 0 if self.empty else int(elapsed / 60) * 4200,
                    "late": count * 9,
                    "revisions": count * 3 + self.revised,
                    "ahead": count // 3,
                }
            ],
            "log": {
                "bytes": 0 if self.empty else 1_873_412_000,
                "segments": 28,
                "state": self.log_state,
                "durable_age_s": 0.1,
            },
            "dead_letters": letters,
            "parts": [self.part(name) for name in self.part_names],
            "accounts": self.accounts(now, received, count + len(letters)),
        }

    def part(self, name: str) -> dict[str, Any]:
        down = name == self.part_down
        return {
            "name": name,
            "pid": None if down else 4100 + self.part_names.index(name),
            "state": "backoff" if down else "running",
            "since_ms": self.base_ms - (6_000 if down else 7_200_000),
            "restarts": 3 if down else 0,
            "last_error": "killed by signal 9" if down else None,
        }

    def accounts(self, now: int, received: int, rejected: int) -> dict[str, Any] | None:
        if self.uncounted:
            return None
        return {
            "at_ms": now - 1200,
            "closes": not self.missing_rows,
            "sources": [
                {
                    "source": "field",
                    "counted": True,
                    "since_ms": self.base_ms - 7_200_000,
                    "received": received,
                    "accepted": received - rejected - 12,
                    "rejected": rejected,
                    "ignored": 12,
                    "dropped": 0,
                    "difference_messages": 0,
                    "rows": [
                        account_rows("readings", received - rejected - 12, 4_000_000, self.missing_rows),
                        account_rows("events", 4, 0, 0),
                        account_rows("deadletters", rejected, 0, 0),
                    ],
                    "unknown": [
                        {
                            "from_ms": self.base_ms - 5_400_000,
                            "to_ms": self.base_ms - 5_396_000,
                            "reason": "the process ended without closing; QoS 0 messages are not acknowledged",
                        }
                    ],
                },
                {
                    "source": "importer",
                    "counted": False,
                    "since_ms": self.base_ms - 7_200_000,
                    "received": 0,
                    "accepted": 0,
                    "rejected": 0,
                    "ignored": 0,
                    "dropped": 0,
                    "difference_messages": 0,
                    "rows": [account_rows("readings", 960, 0, 0)],
                    "unknown": [],
                },
            ],
        }

    def node(self) -> dict[str, Any]:
        return {
            "name": "leipzig-west",
            "timezone": self.timezone,
            "version": "0.1.0",
            "started_ms": self.base_ms - 7_200_000,
        }

    def last(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        if self.empty:
            return None
        at = self.data_ms() - 400 - int(noise(entry["key"], 0) * 8000)
        return {"time_ms": at, "value": self.value(entry, at), "quality": 0, "arrived_ms": at + 35}

    def value(self, entry: dict[str, Any], at: float) -> float:
        return PROFILES[entry["unit"]].at(entry["key"], at)

    def starts(self, start: float, end: float) -> list[int]:
        """Starts of the closed windows within a time."""
        if self.empty:
            return []
        first = max(int(start), self.base_ms - HISTORY_MS) // MINUTE_MS * MINUTE_MS
        last = min(int(end), self.newest_window_ms())
        return list(range(first, last + 1, MINUTE_MS))

    def window(self, entry: dict[str, Any], start: int) -> list[Any]:
        inside = [
            self.value(entry, start + step * 10_000)
            + PROFILES[entry["unit"]].jitter * 0.4 * (noise(entry["key"] + "r", start + step) - 0.5)
            for step in range(6)
        ]
        revision = 1 if (start // MINUTE_MS) % 17 == 4 else 0
        return [start, 6, sum(inside) / 6, min(inside), max(inside), revision]

    def medium_window(self, medium: str, start: int) -> list[Any]:
        middle = start + MINUTE_MS / 2
        load, supply = LOADS[medium].at(medium, middle), SUPPLY[medium].at(medium + "-", middle)
        if self.filling and start == self.newest_window_ms():
            return [start, load * 0.3, supply * 0.3, (load + supply) * 0.3, MEMBERS[medium] * 3 // 10]
        return [start, load, supply, load + supply, MEMBERS[medium]]


def parse_time(text: str | None, default: float) -> float:
    return default if text is None else float(text)


def application(fixture: Fixture) -> Starlette:
    """The API and the page over one fixture."""

    async def overview(request: Request) -> Response:
        return JSONResponse(fixture.overview())

    async def series(request: Request) -> Response:
        words = request.query_params.get("match", "").lower().split()
        limit = int(request.query_params.get("limit", "50"))
        found = (
            []
            if fixture.empty
            else [n for n, text in enumerate(fixture.haystack) if all(word in text for word in words)]
        )
        entries = [
            {**fixture.catalogue[n], "last": fixture.last(fixture.catalogue[n])} for n in found[:limit]
        ]
        return JSONResponse(
            {"total": len(found), "of": 0 if fixture.empty else len(fixture.catalogue), "series": entries}
        )

    async def readings(request: Request) -> Response:
        entry = fixture.by_key.get(request.query_params["series"])
        if entry is None:
            return JSONResponse(
                {"error": "unknown series", "detail": request.query_params["series"], "reference": "r-17"},
                404,
            )
        now = fixture.now_ms()
        start = parse_time(request.query_params.get("from"), now - 900_000)
        end = min(parse_time(request.query_params.get("to"), now), fixture.data_ms())
        most = int(request.query_params.get("max_points", "600"))
        step = 10_000
        while (end - start) / step > most:
            step *= 2
        times = [] if fixture.empty else list(range(int(start) // step * step + 3000, int(end), step))
        values = [fixture.value(entry, at) for at in times]
        jitter = PROFILES[entry["unit"]].jitter * 0.15 if step > 10_000 else 0.0
        return JSONResponse(
            {
                "series": entry["key"],
                "unit": entry["unit"],
                "resolution": "raw" if step == 10_000 else f"{step // 1000}s buckets",
                "points": {
                    "time_ms": times,
                    "mean": values,
                    "min": [value - jitter for value in values],
                    "max": [value + jitter for value in values],
                    "count": [step // 10_000] * len(times),
                    "quality": [1 if at // 90_000 % 7 == 2 else 0 for at in times],
                },
                "truncated": False,
            }
        )

    async def windows(request: Request) -> Response:
        if fixture.fail_windows:
            return JSONResponse(
                {"error": "query failed", "detail": "the log is being repaired", "reference": "r-42"}, 503
            )
        query = request.query_params
        now = fixture.now_ms()
        starts = fixture.starts(
            parse_time(query.get("from"), now - 900_000), parse_time(query.get("to"), now)
        )
        if "medium" in query:
            rows = [fixture.medium_window(query["medium"], start) for start in starts]
            names = ["start_ms", "load", "generation", "net", "series"]
            head: dict[str, Any] = {"medium": query["medium"], "unit": "W"}
        else:
            entry = fixture.by_key.get(query["series"])
            if entry is None:
                return JSONResponse(
                    {"error": "unknown series", "detail": query["series"], "reference": "r-17"}, 404
                )
            missing = range(9, 12)
            rows = [
                fixture.window(entry, start) for start in starts if start // MINUTE_MS % 23 not in missing
            ]
            names = ["start_ms", "count", "mean", "min", "max", "revision"]
            head = {"series": entry["key"], "unit": entry["unit"]}
        columns = {name: [row[n] for row in rows] for n, name in enumerate(names)}
        return JSONResponse({"stream": query.get("stream"), **head, "window_ms": MINUTE_MS, "rows": columns})

    async def live(connection: WebSocket) -> None:
        await connection.accept()
        fixture.sockets.add(connection)
        try:
            hello = await connection.receive_json()
            if fixture.token is not None and hello.get("token") != fixture.token:
                await connection.send_json({"type": "error", "error": "token", "detail": "a token is needed"})
                await connection.close(1008, "token")
                return
            fixture.hellos += 1
            await serve_live(connection)
        except* (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            fixture.sockets.discard(connection)

    async def serve_live(connection: WebSocket) -> None:
        await connection.send_json({"type": "welcome", "heartbeat_s": HEARTBEAT_S, "node": fixture.node()})
        acknowledged = asyncio.Event()
        acknowledged.set()
        state: dict[str, Any] = {"series": [], "sent": fixture.newest_window_ms()}

        async def listen() -> None:
            while True:
                message = await connection.receive_json()
                match message["op"]:
                    case "watch":
                        state["series"] = message["series"]
                        fixture.watched = message["series"]
                    case "ack":
                        fixture.acks.append(message["seq"])
                        acknowledged.set()
                    case "hidden":
                        fixture.hidden.append(message["hidden"])

        async def push() -> None:
            seq = 0
            overview_at = 0.0
            while True:
                await acknowledged.wait()
                if fixture.silent:
                    await asyncio.sleep(0.05)
                    continue
                seq += 1
                batch: dict[str, Any] = {"type": "batch", "seq": seq, "now_ms": fixture.now_ms()}
                if time.monotonic() - overview_at >= 1:
                    overview_at = time.monotonic()
                    batch["overview"] = fixture.overview()
                watched = [fixture.by_key[key] for key in state["series"] if key in fixture.by_key]
                batch["values"] = [
                    [entry["key"], last["time_ms"], last["value"], last["quality"], last["arrived_ms"]]
                    for entry in watched
                    if (last := fixture.last(entry))
                ]
                newest = fixture.newest_window_ms()
                if newest > state["sent"] and not fixture.empty:
                    state["sent"] = newest
                    batch["media"] = [
                        [medium, *fixture.medium_window(medium, newest)] for medium in fixture.media
                    ]
                    batch["windows"] = [
                        [entry["key"], newest, newest + MINUTE_MS, *fixture.window(entry, newest)[1:]]
                        for entry in watched
                    ]
                acknowledged.clear()
                await connection.send_text(json.dumps(batch))
                await asyncio.sleep(0.25)

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            group.create_task(push())

    pages = StaticFiles(directory=STATIC, html=True, check_dir=False)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        """Cut lines, tokens and the headers of every answer, as the node has them."""
        if scope["type"] in ("http", "websocket") and fixture.prefix:
            if not scope["path"].startswith(fixture.prefix + "/"):
                await Response(status_code=404)(scope, receive, send)
                return
            scope["path"] = scope["raw_path"] = scope["path"][len(fixture.prefix) :]
        if scope["type"] == "websocket" and fixture.refusing:
            await receive()
            await send({"type": "websocket.close", "code": 1013})
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", CSP.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-cache"),
                ]
            await send(message)

        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            given = dict(scope["headers"]).get(b"authorization", b"").decode()
            if fixture.refusing:
                await JSONResponse({"error": "unavailable"}, 503)(scope, receive, with_headers)
                return
            if fixture.token is not None and given != f"Bearer {fixture.token}":
                await JSONResponse({"error": "token", "detail": "a token is needed"}, 401)(
                    scope, receive, with_headers
                )
                return
        await routes(scope, receive, with_headers)

    routes = Starlette(
        routes=[
            Route("/api/v1/overview", overview),
            Route("/api/v1/series", series),
            Route("/api/v1/readings", readings),
            Route("/api/v1/windows", windows),
            WebSocketRoute("/api/v1/ws", live),
            Mount("/", pages),
        ]
    )
    return guarded  # type: ignore[return-value]


@contextmanager
def serving(fixture: Fixture, port: int = 0) -> Iterator[str]:
    """Serve a fixture on the loopback address until the block ends; yields the page's address."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(application(fixture), log_level="warning", ws="websockets-sansio", lifespan="off")
    server = uvicorn.Server(config)

    def run() -> None:
        async def main() -> None:
            fixture.loop = asyncio.get_running_loop()
            await server.serve(sockets=[listener])

        asyncio.run(main())

    thread = threading.Thread(target=run, name="fixture", daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{fixture.prefix}/"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(60)


def main() -> None:
    """Serve by hand, with commands typed line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--token")
    arguments = parser.parse_args()
    fixture = Fixture(series=arguments.series, token=arguments.token)
    with serving(fixture, arguments.port) as address:
        print(f"{address} serves the page; type cut, mend, go_stale, malformed", flush=True)
        while command := input():
            getattr(fixture, command.strip())()


if __name__ == "__main__":
    main()
