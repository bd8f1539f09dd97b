"""Live push: the page's WebSocket, and server-sent events for programs.

Nothing is queued for a client. Each remembers the mark up to which it has seen the newest values, and gets what
changed since, coalesced to the newest of each series: the WebSocket only after it acknowledged the batch before and
at most ten times a second (once in a hidden tab), the event stream as fast as its connection takes it, at most four
times. A slow client therefore costs no memory and delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from ringmain.runtime.counters import Counters, Kind, declare
from ringmain.serve.access import Refused
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.alarmshapes import AlarmList
from ringmain.serve.history import floats
from ringmain.serve.latest import Latest
from ringmain.serve.overview import OverviewMaker
from ringmain.serve.shapes import (
    Ack,
    Batch,
    ClientMessage,
    Heartbeat,
    Hello,
    Hidden,
    LiveError,
    Watch,
    Welcome,
)

BATCH_S = 0.1
HIDDEN_S = 1.0
OVERVIEW_S = 1.0
OVERVIEW_IDLE_S = 5.0
ALARMS_S = 1.0
ALARMS_IDLE_S = 30.0
HEARTBEAT_S = 2.0
HELLO_S = 5.0
ACK_S = 30.0
WATCHED_MAX = 50
EVENT_S = 0.25
EVENT_READINGS_MAX = 5_000
EVENT_HEARTBEAT_S = 5.0
EVENT_SERIES_MAX = 200_000
CLIENT_MESSAGE_BYTES_MAX = 64 * 1024

_CLIENTS = declare(
    "ringmain_serve_live_clients",
    Kind.GAUGE,
    "Browsers and programs that follow live values.",
    unit="connections",
)
_BATCHES = declare(
    "ringmain_serve_live_batches_total", Kind.COUNTER, "Batches of live values sent.", unit="batches"
)

_decode = msgspec.json.Decoder(ClientMessage).decode
_encode = msgspec.json.Encoder().encode


class _Ended(Exception):  # noqa: N818
    """The server closes the connection, for a reason that the client is told."""

    def __init__(self, error: str, detail: str, code: int = 1008) -> None:
        super().__init__(detail)
        self.message = LiveError(error, detail)
        self.code = code


@dataclass(slots=True)
class _Client:
    """What is known of one WebSocket client. Marks: what it has been sent."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    acked: asyncio.Event = field(default_factory=asyncio.Event)
    watched: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    fresh: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    """Newly watched series, whose newest values are sent whether they changed or not."""
    stream: str | None = None
    mark: int = 0
    hidden: bool = False
    seq: int = 0
    overview_at: float = -1e9
    overview_mark: int = -1
    alarms_at: float = -1e9
    alarms_revision: int = -1


class LiveHub:
    """All live clients of a server; lives on the server's event loop."""

    def __init__(
        self,
        latest: Latest,
        maker: OverviewMaker,
        counters: Counters,
        max_clients: int,
        alarms: AlarmBoard | None = None,
    ) -> None:
        self.token_matches: Callable[[str | None], bool] = lambda token: True
        self._latest = latest
        self._maker = maker
        self._alarms = alarms
        self._max_clients = max_clients
        self._wakers: set[asyncio.Event] = set()
        self._count = counters.cell(_CLIENTS)
        self._batches = counters.cell(_BATCHES)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._unlisten: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to be woken by new values; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._unlisten = [self._latest.listen(self._on_change)]
        if self._alarms is not None:
            self._unlisten.append(self._alarms.listen(self._on_change))

    def stop(self) -> None:
        """Let every client go; called on the event loop."""
        self._stopping = True
        for unlisten in self._unlisten:
            unlisten()
        for waker in self._wakers:
            waker.set()

    def _on_change(self) -> None:
        if self._wakers and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def check_room(self) -> None:
        """Raise Refused when there are as many clients as there may be."""
        if len(self._wakers) >= self._max_clients:
            raise Refused(503, "busy", f"{self._max_clients} clients follow live values already: try later")

    @contextlib.contextmanager
    def _admitted(self, waker: asyncio.Event) -> Any:
        self.check_room()
        self._wakers.add(waker)
        self._count.set(len(self._wakers))
        try:
            yield
        finally:
            self._wakers.discard(waker)
            self._count.set(len(self._wakers))

    async def websocket(self, socket: WebSocket) -> None:
        """Serve one page (protocol: docs/http-api.md)."""
        client = _Client()
        await socket.accept()
        tasks: set[asyncio.Task[None]] = set()
        try:
            with self._admitted(client.woken):
                await self._hello(socket)
                tasks = {
                    asyncio.create_task(self._hear(socket, client)),
                    asyncio.create_task(self._tell(socket, client)),
                }
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        except _Ended as ended:
            await self._close(socket, ended)
        except Refused as refused:
            await self._close(socket, _Ended(refused.error, refused.detail, 1013))
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has gone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, socket: WebSocket, ended: _Ended) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            await socket.send_text(_encode(ended.message).decode())
            await socket.close(ended.code, ended.message.error)

    async def _receive(self, socket: WebSocket) -> Any:
        message = await socket.receive()
        if message["type"] != "websocket.receive":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("text")
        if data is None:
            data = message.get("bytes") or b""
        if len(data) > CLIENT_MESSAGE_BYTES_MAX:
            raise _Ended("too large", f"expected a message of at most {CLIENT_MESSAGE_BYTES_MAX} bytes", 1009)
        try:
            return _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Ended("message", f"expected one of hello, watch, ack, hidden: {error}") from None

    async def _hello(self, socket: WebSocket) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                message = await self._receive(socket)
        except TimeoutError:
            raise _Ended("hello", f"expected hello within {HELLO_S:g} s, found nothing") from None
        if not isinstance(message, Hello):
            raise _Ended("hello", 'expected {"op":"hello"} as the first message')
        if not self.token_matches(message.token):
            raise _Ended("token", "expected the node's token in hello")
        await socket.send_text(_encode(Welcome(HEARTBEAT_S, self._maker.node())).decode())

    async def _hear(self, socket: WebSocket, client: _Client) -> None:
        while True:
            message = await self._receive(socket)
            match message:
                case Ack(seq):
                    if seq == client.seq:
                        client.acked.set()
                case Watch(series, stream):
                    if len(series) > WATCHED_MAX:
                        raise _Ended("watch", f"expected at most {WATCHED_MAX} series, found {len(series)}")
                    ids = [self._latest.catalogue.id_of(key) for key in dict.fromkeys(series)]
                    watched = np.array([i for i in ids if i is not None], np.uint32)
                    client.fresh = np.setdiff1d(watched, client.watched)
                    client.watched, client.stream = watched, stream
                    client.woken.set()
                case Hidden(hidden):
                    client.hidden = hidden
                    client.woken.set()
                case Hello():
                    raise _Ended("hello", "expected hello once, found it again")

    async def _tell(self, socket: WebSocket, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        sent_at = -1e9
        while not self._stopping:
            began = loop.time()
            client.woken.clear()
            batch = self._batch(client, began)
            if batch is not None:
                client.acked.clear()
                await socket.send_text(_encode(batch).decode())
                self._batches.add()
                sent_at = loop.time()
                try:
                    # not wait_for: it may swallow a cancellation that comes with what it waits for
                    async with asyncio.timeout(ACK_S):
                        await client.acked.wait()
                except TimeoutError:
                    raise _Ended(
                        "ack", f"expected an acknowledgement within {ACK_S:g} s, found none", 1013
                    ) from None
            elif began - sent_at >= HEARTBEAT_S:
                await socket.send_text(_encode(Heartbeat(_now_ms())).decode())
                sent_at = loop.time()
            await asyncio.sleep((HIDDEN_S if client.hidden else BATCH_S) - (loop.time() - began))
            rest_s = min(sent_at + HEARTBEAT_S, client.overview_at + OVERVIEW_IDLE_S) - loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(rest_s, 0.001)):
                    await client.woken.wait()
        raise _Ended("stopping", "the node stops", 1001)

    def _batch(self, client: _Client, now: float) -> Batch | None:
        """What the client has not seen yet; None: nothing."""
        latest = self._latest
        mark = latest.mark
        ids = latest.changed(client.watched, client.mark)
        if len(client.fresh):
            ids = np.union1d(ids, latest.seen(client.fresh))
            client.fresh = client.fresh[:0]
        values = self._values(ids)
        stream = client.stream or self._window_stream()
        windows = self._windows(stream, client) if stream else []
        media = self._media(stream, client.mark) if stream else []
        overview = None
        since = now - client.overview_at
        if since >= OVERVIEW_IDLE_S or (since >= OVERVIEW_S and mark != client.overview_mark):
            overview = msgspec.Raw(self._maker.encoded())
            client.overview_at, client.overview_mark = now, mark
        client.mark = mark
        alarms = self._changed_alarms(client, now)
        if not (values or windows or media or overview or alarms):
            return None
        client.seq += 1
        return Batch(client.seq, _now_ms(), values, windows, media, overview, alarms)

    def _changed_alarms(self, client: _Client, now: float) -> AlarmList | None:
        """The alarms as they stand, where they changed, at most once a second; also now and then while nothing does."""
        board, since = self._alarms, now - client.alarms_at
        if board is None or since < ALARMS_S:
            return None
        if board.revision == client.alarms_revision and since < ALARMS_IDLE_S:
            return None
        found = board.alarms()
        client.alarms_at, client.alarms_revision = now, found.revision
        return found

    def _values(self, ids: NDArray[np.uint32]) -> list[list[Any]]:
        if not len(ids):
            return []
        latest = self._latest
        with latest.lock:
            times, values = latest.times[ids] // 1_000_000, floats(latest.values[ids])
            qualities, arrivals = latest.qualities[ids], latest.arrivals[ids] // 1_000_000
        key_of = latest.catalogue.key_of
        keys = [key_of(series) for series in ids.tolist()]
        rows = zip(keys, times.tolist(), values, qualities.tolist(), arrivals.tolist(), strict=True)
        return [list(row) for row in rows]

    def _window_stream(self) -> str | None:
        with self._latest.lock:
            return self._latest.windows.first_stream()

    def _windows(self, stream: str, client: _Client) -> list[list[Any]]:
        if not len(client.watched) or not client.mark:
            return []
        with self._latest.lock:
            found = self._latest.windows.since(stream, client.watched, client.mark)
        key_of = self._latest.catalogue.key_of
        rows: list[list[Any]] = []
        for window, at in found:
            columns = zip(
                [key_of(series) for series in window.series[at].tolist()],
                (window.start_ns[at] // 1_000_000).tolist(),
                (window.end_ns[at] // 1_000_000).tolist(),
                [None if count is None else int(count) for count in floats(window.count[at])],
                floats(window.mean[at]),
                floats(window.min[at]),
                floats(window.max[at]),
                window.revision[at].tolist(),
                strict=True,
            )
            rows.extend(list(row) for row in columns)
        return rows

    def _media(self, stream: str, mark: int) -> list[list[Any]]:
        with self._latest.lock:
            changed = self._latest.windows.means_since(stream, mark)
        rows: list[list[Any]] = []
        for start_ns, means in changed:
            for medium, ids in self._maker.power_series.by_medium().items():
                known = ids[ids < len(means)]
                mean = self._maker.power_series.in_watts(known, means[known])
                mean = mean[np.isfinite(mean)]
                if len(mean):
                    load, generation = float(mean[mean > 0].sum()), float(mean[mean < 0].sum())
                    rows.append(
                        [medium, start_ns // 1_000_000, load, generation, load + generation, len(mean)]
                    )
        return rows

    async def events(self, match: str) -> AsyncIterator[bytes]:
        """Server-sent events with the newest readings of the series that match, as they change."""
        latest = self._latest
        waker = asyncio.Event()
        with self._admitted(waker):
            mark, matched_size = latest.mark, -1
            ids = np.empty(0, np.uint32)
            seen = latest.counts.copy()
            yield b": ringmain live readings\n\n"
            while not self._stopping:
                waker.clear()
                if len(latest.catalogue) != matched_size:
                    matched_size = len(latest.catalogue)
                    ids = await asyncio.to_thread(self._matching, match, matched_size)
                before, mark = mark, latest.mark
                changed = latest.changed(ids, before)
                if len(changed):
                    counts = latest.counts
                    seen = np.append(seen, np.zeros(len(counts) - len(seen), np.int64))
                    dropped = max(int((counts[changed] - seen[changed]).sum()) - len(changed), 0)
                    seen[changed] = counts[changed]
                    for start in range(0, len(changed), EVENT_READINGS_MAX):
                        readings = self._values(changed[start : start + EVENT_READINGS_MAX])
                        yield (
                            b"event: readings\ndata: "
                            + _encode({"readings": readings, "dropped": dropped})
                            + b"\n\n"
                        )
                        dropped = 0
                    await asyncio.sleep(EVENT_S)
                try:
                    async with asyncio.timeout(EVENT_HEARTBEAT_S):
                        await waker.wait()
                except TimeoutError:
                    yield b": heartbeat\n\n"

    def _matching(self, match: str, size: int) -> NDArray[np.uint32]:
        if match.strip():
            return np.array(self._latest.catalogue.match(match, EVENT_SERIES_MAX), np.uint32)
        return np.arange(min(size, EVENT_SERIES_MAX), dtype=np.uint32)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
