"""A web server that answers as a test says, and keeps what it was sent."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import msgspec


@dataclass
class Request:
    """What came: headers by lower-case name."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


@dataclass
class Answer:
    """What the server does: a status with headers and text; `hang` waits until the server ends before it answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: bytes = b""
    hang: bool = False
    drop: bool = False


Say = Callable[[Request, int], Answer]


class Receiver:
    """Use as a context manager. `answer(request, n)` is asked for the n-th request, from 0."""

    def __init__(
        self, answer: Say | None = None, *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.answer = answer or (lambda request, n: Answer())
        self.requests: list[Request] = []
        self.taken: list[str] = []
        """Ids of the requests that were answered 2xx."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}/hooks/alarms?from=ringmain"

    @property
    def ids(self) -> list[str]:
        """Ids of the events as they came."""
        return [request.event["id"] for request in self.requests]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.path, headers, body)
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        answer = self.answer(request, number)
        if answer.hang:
            self._ended.wait(60)
        if answer.drop:
            handler.close_connection = True
            handler.connection.close()
            return
        if 200 <= answer.status < 300:
            with self._lock:
                self.taken.append(headers.get("webhook-id", ""))
        with contextlib.suppress(ConnectionError):  # whoever asked may be killed, or not wait any more
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(answer.text)))
            handler.end_headers()
            handler.wfile.write(answer.text)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
