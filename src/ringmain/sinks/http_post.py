"""POST over HTTP or HTTPS to one address, with an end to everything: time, length of the answer, waiting.

The certificate is verified, redirects are not followed, proxies of the environment are not used. A connection is kept
for the next request; one that the receiver closed meanwhile is replaced at once.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import SplitResult

ANSWER_BYTES_MAX = 4096
TEXT_CHARACTERS_MAX = 200


class PostError(Exception):
    """No answer. `kind`: `timeout`, `connection` or `answer` (one that is no HTTP)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, the beginning of its text, and how long the receiver wants to be left alone."""

    status: int
    text: str
    retry_after_s: float | None


class Poster:
    """Sends to one address. Used by one thread. Raises OSError when the certificates cannot be read."""

    def __init__(self, address: SplitResult, ca_file: Path | None, timeout_s: float) -> None:
        self.place = f"{address.scheme}://{address.netloc}"
        """The address without its path."""
        self._host = address.hostname or ""
        self._port = address.port or (443 if address.scheme == "https" else 80)
        self._target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None
        if address.scheme == "https":
            self._tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._overdue = False

    def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send and wait for the answer, for the timeout at most. Raises PostError."""
        self._overdue = False
        end = threading.Timer(self._timeout_s, self._cut)
        end.daemon = True
        end.start()
        try:
            kept = self._connection is not None
            try:
                return self._attempt(body, headers)
            except (http.client.RemoteDisconnected, ConnectionError):
                if (
                    not kept or self._overdue
                ):  # closed while nobody used it: not the receiver's answer to this
                    raise
            return self._attempt(body, headers)
        except Exception as error:
            self.close()
            raise self._told(error) from error
        finally:
            end.cancel()

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            connection.close()

    def _attempt(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        connection = self._connection or self._connect()
        try:
            connection.request("POST", self._target, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read(ANSWER_BYTES_MAX)
        except BaseException:
            self.close()
            raise
        if not answer.isclosed() or answer.will_close:  # more text than is wanted, or the receiver closes
            self.close()
        return Reply(answer.status, _text(text), _wait_s(answer.getheader("Retry-After")))

    def _connect(self) -> http.client.HTTPConnection:
        plain = socket.create_connection((self._host, self._port), self._timeout_s)
        self._socket = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                secure = self._tls.wrap_socket(
                    plain, server_hostname=self._host, do_handshake_on_connect=False
                )
                self._socket = plain = secure
                if self._overdue:
                    raise TimeoutError
                secure.do_handshake()
        except BaseException:
            plain.close()
            raise
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        connection.default_port = 443 if self._tls is not None else 80  # left out of the header Host
        connection.sock = plain
        self._connection = connection
        return connection

    def _cut(self) -> None:
        """Time is up: whatever waits for the connection ends."""
        self._overdue = True
        current = self._socket
        if current is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(current, socket.SHUT_RDWR)

    def _told(self, error: Exception) -> PostError:
        if self._overdue or isinstance(error, TimeoutError):
            return PostError("timeout", f"no answer within {self._timeout_s:g} s")
        if isinstance(error, ssl.SSLCertVerificationError):
            return PostError("connection", f"its certificate is not accepted: {error.verify_message}")
        if isinstance(error, OSError):
            return PostError("connection", f"no connection: {error.strerror or error}")
        if isinstance(error, http.client.HTTPException):
            return PostError("answer", f"no HTTP answer: {type(error).__name__} {error}".rstrip())
        raise error


def _text(body: bytes) -> str:
    text = body.decode("utf-8", "replace")[: 2 * TEXT_CHARACTERS_MAX]
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:TEXT_CHARACTERS_MAX]


def _wait_s(text: str | None) -> float | None:
    """What `Retry-After` says (RFC 9110, 10.2.3): seconds, or a date."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
