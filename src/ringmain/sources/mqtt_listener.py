"""The source `mqtt-listener`: devices connect straight to this node, no broker in between.

Promises: PUBACK and PUBREC (and PUBCOMP) leave after what they acknowledge is durable; a QoS 2 message counts
once however often it comes, over reconnects and crashes; one client's errors, silence or flood cost the others
nothing but their share. MQTT 3.1.1 and 5 as `docs/mqtt-listener.md` says. It takes in and never delivers: no
subscriptions, no retained messages. Left to others: mapping (`mapping.py`), queueing and the log (`runtime`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import os
import resource
import socket
import ssl
import sys
import threading
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ringmain.runtime.contract import Intake, Source, SourceError
from ringmain.sources import mqtt_metrics as metrics
from ringmain.sources.mapping import Mapper
from ringmain.sources.mqtt_auth import Passwords
from ringmain.sources.mqtt_connection import Connection, Pause
from ringmain.sources.mqtt_metrics import Cause
from ringmain.sources.mqtt_settings import Findings, MqttListenerSettings, parse_listen, tls_context
from ringmain.sources.mqtt_shared import Shared
from ringmain.sources.types import SourceType, Surroundings

PASSWORDS_LOOK_S = 5.0
"""How often the password file is looked at for changes."""

TCP_KEEP_ALIVE_S = 120
"""Silence after which TCP asks whether the peer is still there: for 3.1.1 clients without a keep-alive."""

BACKLOG = 1024
"""Connections that may wait in the kernel."""

ACCEPTED_AT_ONCE = 16
"""Connections taken in one turn of the loop: a few times as many can be open beyond `max_connections` for a moment."""

FILES_BESIDE_CONNECTIONS = 1024
"""File descriptors kept for the journal, the server and the like; half of them all where there are fewer than twice
that many. Without any the journal could not begin a segment, and nobody would be acknowledged."""

KERNEL_RECEIVE_BYTES = 256 * 1024
KERNEL_SEND_BYTES = 64 * 1024
"""Buffers of one socket in the kernel, which would otherwise grow to several MB each behind a paused connection."""


class MqttListener:
    """One listener. `run` serves until cancelled, and may be called again."""

    def __init__(self, settings: MqttListenerSettings, mapper: Mapper, base: Path = Path()) -> None:
        """`base`: the directory that file names in the settings are relative to."""
        self._settings = settings
        self._mapper = mapper
        self._base = base

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        """Serve until cancelled. SourceError for settings or files that cannot be used; OSError for the address."""
        passwords, context = self._credentials()
        shared = Shared(self._settings, self._mapper, intake, passwords)
        server: asyncio.Server | None = None
        chores = [asyncio.create_task(shared.deadlines.run()), asyncio.create_task(_look_at(shared))]
        try:
            self._restore(shared)
            server = await self._listen(shared, context)
            bound = server.sockets[0].getsockname()
            name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            started(f"{'mqtts' if context else 'mqtt'}://{name}:{bound[1]}")
            self._prepare_fast(shared)
            done, _ = await asyncio.wait(
                {shared.gathering.failed, *chores}, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                await one
        finally:
            if server is not None:
                server.close()
            await self._stop(shared, chores)

    def _restore(self, shared: Shared) -> None:
        """Sessions as they were durable."""
        for problem in shared.sessions.restore(shared.intake.positions(), shared.loop.time()):
            shared.logger.error("a stored session cannot be used and is left out: %s", problem)
        for session in shared.sessions.away():
            shared.await_expiry(session)
        shared.count_sessions()

    async def _listen(self, shared: Shared, context: ssl.SSLContext | None) -> asyncio.Server:
        _allow_files(shared)
        host, port = parse_listen(self._settings.listen)
        server = await shared.loop.create_server(
            lambda: _protocol(shared, context), host, port, backlog=ACCEPTED_AT_ONCE, start_serving=False
        )
        for listening in server.sockets:
            # inherited by the accepted sockets
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sys.platform == "linux":
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEP_ALIVE_S)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_RECEIVE_BYTES)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SEND_BYTES)
        await server.start_serving()
        for listening in server.sockets:
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(BACKLOG)
        return server

    async def _stop(self, shared: Shared, chores: list[asyncio.Task[None]]) -> None:
        """Take nothing more, let everything taken become durable and be acknowledged, and close."""
        shared.closing = True
        for connection in list(shared.connections):
            connection.pause(Pause.STOP)
        for chore in chores:
            chore.cancel()
        shared.gathering.flush()
        with contextlib.suppress(asyncio.CancelledError):
            await shared.intake.drained()
        for connection in list(shared.connections):
            connection.device.shut_down()
        shared.executor.shutdown(wait=False, cancel_futures=True)
        shared.gathering.flush()
        shared.intake.count(metrics.SESSIONS.name, -len(shared.sessions))
        if shared.fast is not None:
            shared.intake.count(metrics.FAST_READY.name, -1)

    def _credentials(self) -> tuple[Passwords | None, ssl.SSLContext | None]:
        settings = self._settings
        try:
            context = tls_context(settings.tls, self._base) if settings.tls is not None else None
            passwords = Passwords(self._base / settings.passwords) if settings.passwords is not None else None
        except (OSError, ValueError) as error:
            raise SourceError(str(error), "mend the file or its name in the configuration") from error
        return passwords, context

    def _prepare_fast(self, shared: Shared) -> None:
        """Load the compiled path beside the general one, which serves meanwhile: the first load takes seconds."""
        if self._settings.fast == "off":
            return
        if importlib.util.find_spec("numba") is None:
            shared.logger.info("Numba is not installed: simple messages take the general path (extra `fast`)")
            return
        threading.Thread(target=self._load_fast, args=(shared,), name="load-fast", daemon=True).start()

    def _load_fast(self, shared: Shared) -> None:
        """In a thread of its own: import, compile or load from the cache, and hand over to the loop."""
        try:
            from ringmain.sources.mqtt_fast import FastReader

            reader = FastReader(self._mapper)
        except Exception:
            shared.logger.exception("the compiled path cannot be used: all messages take the general path")
            return

        def use() -> None:
            if shared.closing:
                return
            shared.fast = shared.gathering.rows = reader
            shared.intake.count(metrics.FAST_READY.name)
            shared.logger.info("simple messages take the compiled path")

        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            shared.loop.call_soon_threadsafe(use)


def _allow_files(shared: Shared) -> None:
    """Let the process have a file descriptor for each connection; fewer connections where the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shared.limits.max_connections + FILES_BESIDE_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    if allowed < wanted:
        connections = allowed - min(FILES_BESIDE_CONNECTIONS, allowed // 2)
        shared.logger.warning(
            "the system allows %d open files, so %d devices can connect and not max_connections = %d: "
            "raise the limit (LimitNOFILE= of a systemd unit, ulimit -n), or lower max_connections",
            allowed,
            connections,
            shared.limits.max_connections,
        )
        shared.limits = replace(shared.limits, max_connections=connections)


def _protocol(shared: Shared, context: ssl.SSLContext | None) -> asyncio.BaseProtocol:
    if context is None:
        return Connection(shared)
    if len(shared.connections) + shared.handshakes >= shared.limits.max_connections:
        shared.ended(Cause.CONNECTION_LIMIT)
        return _Refused()
    return _Tls(shared, Connection(shared, secure=True), context, shared.limits.connect_timeout_s)


class _Refused(asyncio.Protocol):
    """A connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class _Tls(sslproto.SSLProtocol):
    """asyncio's TLS with a small buffer: its own of 256 KiB a connection would make ten thousand cost 2.5 GB."""

    max_size = 32 * 1024

    def __init__(
        self, shared: Shared, connection: Connection, context: ssl.SSLContext, timeout_s: float
    ) -> None:
        super().__init__(
            shared.loop,
            connection,
            context,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=math.ceil(timeout_s),
            ssl_shutdown_timeout=math.ceil(timeout_s),
        )
        self._connection = connection

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is gone, perhaps before its handshake was done."""
        self._connection.handshake_ended(failed=True)
        super().connection_lost(exc)


async def _look_at(shared: Shared) -> None:
    """Read the password file again when it changes."""
    while True:
        await asyncio.sleep(PASSWORDS_LOOK_S)
        try:
            if shared.passwords is not None and shared.passwords.refresh():
                shared.logger.info("password file read again")
        except (OSError, ValueError) as error:
            shared.logger.error("password file not read again, the old users stay: %s", error)


def _build(name: str, settings: MqttListenerSettings, surroundings: Surroundings) -> Source:
    maps = surroundings.maps[settings.map] if isinstance(settings.map, str) else settings.map
    max_ahead_ns = int(settings.seconds("max_ahead") * 1e9)
    mapper = Mapper(
        name, maps, surroundings.registry, max_ahead_ns=max_ahead_ns, timezone=surroundings.timezone
    )
    return MqttListener(settings, mapper, surroundings.directory)


def _check(settings: MqttListenerSettings) -> Findings:
    return settings.check()


SOURCE_TYPE = SourceType(MqttListenerSettings, _build, _check, listens=True)
