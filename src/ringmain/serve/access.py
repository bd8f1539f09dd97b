"""Who may talk to the server: Host and Origin, token, request size; and the headers of every answer.

Host is checked because a hostile website can let its own name point to this machine (DNS rebinding) and then read
what a browser beside us may read; Origin because a website can send requests, and open WebSockets, to any address.
Programs send no Origin and are let in on Host and token alone. An address is no name, so it cannot be rebound: a
node that listens beyond this machine answers to any address.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ringmain.serve.settings import ServeSettings, is_loopback, parse_listen
from ringmain.serve.shapes import Failure

BODY_BYTES_MAX = 1024 * 1024

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818  (an answer, not a failure of ours)
    """A request that is answered with an error: HTTP status, short name, what was expected and found."""

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail


def failure(error: str, detail: str) -> Failure:
    """An error for the client, with a reference that is logged here too."""
    reference = secrets.token_hex(4)
    _log.info("refused %s: %s: %s", reference, error, detail)
    return Failure(error, detail, reference)


class Guard:
    """ASGI middleware: refuses what must not come in, limits bodies, adds the headers."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._token = settings.token
        host, _ = parse_listen(settings.listen)
        self._hosts = {"localhost", "127.0.0.1", "[::1]", *(name.lower() for name in settings.hosts)}
        self._hosts.add(f"[{host.lower()}]" if ":" in host else host.lower())
        self._any_address = not is_loopback(host)
        if self._any_address:
            self._hosts.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with the refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        try:
            self._check(scope)
        except Refused as refused:
            await _refuse(scope, send, refused)
            return
        if scope["type"] == "http":
            receive = _bounded(receive)
        await self._app(scope, receive, send)

    def token_matches(self, token: str | None) -> bool:
        """Whether `token` is the configured one, in constant time; True where none is configured."""
        return self._token is None or hmac.compare_digest((token or "").encode(), self._token.encode())

    def _check(self, scope: Scope) -> None:
        names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(names) != 1:
            raise Refused(400, "host", f"expected one Host header, found {len(names)}")
        host, _ = self._host(names[0])
        if not self._known(host):
            raise Refused(
                421,
                "host",
                f"this node does not answer to the name {host[:100]!r}; add it to `hosts` under [serve]",
            )
        for name, value in scope["headers"]:
            if name == b"origin":
                self._check_origin(value.decode("latin-1"), names[0])
            elif name == b"content-length" and (not value.isdigit() or int(value) > BODY_BYTES_MAX):
                raise Refused(413, "too large", f"expected a body of at most {BODY_BYTES_MAX} bytes")
        path = scope["path"]
        needs_token = path.startswith("/api/") or path == "/metrics"
        if needs_token and scope["type"] == "http" and not self.token_matches(bearer_of(scope)):
            raise Refused(
                401, "token", "expected the header `Authorization: Bearer TOKEN` with the node's token"
            )

    def _known(self, host: str) -> bool:
        if host in self._hosts:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True

    def _check_origin(self, origin: str, host: str) -> None:
        parts = urlsplit(origin)
        if parts.scheme in ("http", "https") and parts.netloc:
            if parts.netloc.lower() == host.lower():
                return
            name, _ = self._host(parts.netloc)
            if name in self._hosts and not is_loopback(name.strip("[]")):
                return
        raise Refused(403, "origin", f"requests from pages of {origin[:100]!r} are not accepted")

    @staticmethod
    def _host(value: str) -> tuple[str, str]:
        """Host and port of a Host header or of an Origin's authority."""
        if value.startswith("["):
            host, _, rest = value.partition("]")
            return host.lower() + "]", rest.removeprefix(":")
        host, _, port = value.partition(":")
        return host.lower().removesuffix("."), port


def bearer_of(scope: Scope) -> str | None:
    """The token that a request brings."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return str(value[7:].decode("latin-1")).strip()
    return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sending


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > BODY_BYTES_MAX:
                raise Refused(413, "too large", f"expected a body of at most {BODY_BYTES_MAX} bytes")
        return message

    return receiving


async def _refuse(scope: Scope, send: Send, refused: Refused) -> None:
    if scope["type"] == "websocket":
        # closing before accepting is answered with HTTP 403
        await send({"type": "websocket.close", "code": 1008, "reason": refused.error})
        return
    body = msgspec.json.encode(failure(refused.error, refused.detail))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
