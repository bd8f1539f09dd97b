"""HTTP connections as uvicorn's, with bounds that uvicorn leaves open.

A connection has to send its first request within `REQUEST_S`, and no more than `HEAD_BYTES_MAX` (and one read) of request
line and headers; beyond `CONNECTIONS_MAX` connections a new one is closed at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MAX = 1000
REQUEST_S = 15.0
HEAD_BYTES_MAX = 64 * 1024


class Connection(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is not followed by the type checker
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection, or close it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._silence = self.loop.call_later(REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, or end a connection whose head has no end."""
        if self._in_head:
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.abort()
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head ends here."""
        self._heard()
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head may begin."""
        self._in_head = True
        super().on_message_complete()

    def _heard(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
