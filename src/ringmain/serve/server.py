"""The server: page, API and live push of one node, on an event loop and thread of its own.

`start` answers once the address accepts connections, or raises. The server reads the log like any other consumer;
nothing that is acknowledged depends on it. Left to others: TLS (a reverse proxy), and users (later).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

import ringmain
from ringmain.log.interface import Log
from ringmain.log.store import Store
from ringmain.model.catalogue import Catalogue
from ringmain.model.duration import parse_duration
from ringmain.runtime.counters import Counters, Kind, declare
from ringmain.serve.access import Guard, Refused, failure
from ringmain.serve.accounts import AccountKeeper
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.answers import as_json
from ringmain.serve.api import Api
from ringmain.serve.connections import Connection
from ringmain.serve.latest import Latest
from ringmain.serve.live import CLIENT_MESSAGE_BYTES_MAX, LiveHub
from ringmain.serve.operations import Operation
from ringmain.serve.overview import OverviewMaker
from ringmain.serve.pages import STATIC, Pages
from ringmain.serve.settings import ServeSettings, parse_listen
from ringmain.serve.shapes import Failure
from ringmain.serve.sql import SqlLimits
from ringmain.serve.sqlprocess import SqlProcesses
from ringmain.serve.status import StatusProvider

START_S = 15.0
STOP_S = 5
KEEP_ALIVE_S = 30

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_REQUESTS = declare(
    "ringmain_serve_requests_total",
    Kind.COUNTER,
    "HTTP requests answered, by status.",
    labels=("status",),
    unit="requests",
)
_log = logging.getLogger(__name__)


class CataloguedLog(Log, Protocol):
    """A log with its series catalogue."""

    def catalogue(self) -> Catalogue:
        """The catalogue as far as it is durable; the same object on each call."""
        ...

    @property
    def published(self) -> Store:
        """What of its files is readable."""
        ...


class Server:
    """Serves one log, whose files are in `directory`. `start` and `stop` are called from one thread."""

    def __init__(
        self,
        settings: ServeSettings,
        log: CataloguedLog,
        counters: Counters,
        status: StatusProvider,
        *,
        directory: Path,
        pages: Path = STATIC,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.address = ""
        """`http://HOST:PORT` as it listens."""
        self.latest = Latest(log, log.catalogue())
        self.accounts = AccountKeeper(log, counters, clock_ns)
        self.alarms = AlarmBoard(
            log, log.on_durable, lambda: [flow.name for flow in status().flows], clock_ns
        )
        self._settings = settings
        self._log = log
        self._directory = directory.absolute()
        self._counters = counters
        self._status = status
        self._pages = pages
        self._clock_ns = clock_ns
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failed: BaseException | None = None

    def start(self) -> str:
        """Listen and serve; returns the address. Raises OSError when the address cannot be had."""
        listening = _listen(self._settings.listen)
        host, port = listening.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.latest.start()
        self.accounts.start()
        self.alarms.start()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="serve", daemon=True)
        self._thread.start()
        if not self._started.wait(START_S) or self._failed is not None:
            self.stop()
            raise RuntimeError("the server did not start") from self._failed
        return self.address

    def stop(self) -> None:
        """Let clients go and stop. Idempotent."""
        if self._thread is not None:
            if self._loop is not None and self._stop is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None
        self.accounts.stop()
        self.alarms.stop()
        self.latest.stop()

    def _run(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:
            _log.exception("the server ended")
            self._failed = error
        finally:
            listening.close()
            self._started.set()

    async def _serve(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        settings = self._settings
        maker = OverviewMaker(
            self.latest, self._counters, self._status, self._clock_ns, self.accounts.accounts
        )
        limits = SqlLimits(settings.sql_memory_mib, settings.sql_threads)
        sql = SqlProcesses(self._directory, limits, parse_duration(settings.sql_timeout) / 1e9)
        hub = LiveHub(self.latest, maker, self._counters, settings.max_live_clients, self.alarms)
        api = Api(
            self._log,
            self.latest,
            maker,
            hub,
            self._counters,
            sql,
            ringmain.__version__,
            self._clock_ns,
            self.alarms,
        )
        app = application(api, hub, Pages(self._pages), self._counters, settings)
        hub.start()
        config = uvicorn.Config(
            app,
            lifespan="off",
            loop="asyncio",
            http=Connection,
            ws="websockets-sansio",
            ws_max_size=2 * CLIENT_MESSAGE_BYTES_MAX,
            ws_per_message_deflate=False,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        serving = _Uvicorn(config, self._started, self._stop, hub.stop)
        try:
            await serving.serve(sockets=[listening])
        finally:
            api.close()
            await sql.close()


class _Uvicorn(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed by the type checker
    """uvicorn that sleeps until it is told to stop, instead of looking ten times a second."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: threading.Event,
        stop: asyncio.Event,
        before_stop: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._ready = started
        self._stop = stop
        self._before_stop = before_stop

    async def main_loop(self) -> None:
        """Serve until `stop` is set. The Date header is renewed once a second while anybody is connected."""
        self._ready.set()
        await self.on_tick(0)
        while not self._stop.is_set() and not self.should_exit:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stop.wait()
            await self.on_tick(0)
        self._before_stop()


def application(api: Api, hub: LiveHub, pages: Pages, counters: Counters, settings: ServeSettings) -> Guard:
    """The ASGI application."""
    routes: list[Any] = [WebSocketRoute("/api/v1/ws", hub.websocket)]
    counting = _Counting(counters)
    routes.extend(
        Route(operation.path, counting.around(operation), methods=[operation.method])
        for operation in api.operations
    )
    methods = {operation.path: operation.method for operation in api.operations}

    async def nothing_here(request: Request) -> Response:
        path = request.url.path
        if path in methods:
            raise Refused(405, "method", f"expected {methods[path]}, found {request.method}")
        raise Refused(404, "not found", f"there is no {path[:200]!r}: /openapi.json lists what there is")

    routes.append(Route("/api/{rest:path}", counting.around(nothing_here), methods=_METHODS))
    routes.append(Route("/{rest:path}", counting.around(pages), methods=["GET"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    guard = Guard(app, settings)
    hub.token_matches = guard.token_matches
    return guard


class _Counting:
    """Counts answers by status, and turns refusals and failures into answers."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def around(self, handler: Operation | Callable[[Request], Any]) -> Callable[[Request], Any]:
        """The handler as Starlette takes it."""

        async def handle(request: Request) -> Response:
            try:
                response: Response = await handler(request)
            except Refused as refused:
                response = as_json(failure(refused.error, refused.detail), refused.status)
            except Exception:
                reference = secrets.token_hex(4)
                _log.exception("request %s to %s failed", reference, request.url.path)
                response = as_json(
                    Failure("failed", "the node could not answer; its log says why", reference), 500
                )
            self._counters.add(_REQUESTS, 1, str(response.status_code))
            return response

        return handle


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return as_json(
        failure("method" if error.status_code == 405 else "request", str(error.detail)), error.status_code
    )


def _listen(address: str) -> socket.socket:
    host, port = parse_listen(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(256)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        hint = (
            ": another program listens there; choose another port" if error.errno == errno.EADDRINUSE else ""
        )
        raise OSError(
            error.errno, f"[serve] cannot listen on {address}{hint} ({error.strerror or error})"
        ) from None
    return listening
