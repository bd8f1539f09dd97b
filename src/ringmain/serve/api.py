"""The handlers of `/api/v1`: newest values, series search, charts, SQL, and what a monitoring system asks for.

Whatever may take longer than a moment runs in a few threads of its own, is given up when the client leaves, and is
refused when too much is waiting: the event loop, and with it live push, is never blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ringmain.log.interface import Log, LogError
from ringmain.runtime.counters import Counters, Kind, declare
from ringmain.runtime.part_status import PartState
from ringmain.runtime.status import StorageState
from ringmain.serve import history
from ringmain.serve.access import Refused
from ringmain.serve.acknowledging import acknowledge
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.alarmshapes import AcknowledgeAnswer, AcknowledgeRequest, AlarmList
from ringmain.serve.answers import ARROW, UNCACHED, as_json, done_or_left, sql_arrow, sql_json
from ringmain.serve.history import floats
from ringmain.serve.latest import Latest
from ringmain.serve.live import LiveHub
from ringmain.serve.operations import Operation, openapi
from ringmain.serve.overview import OverviewMaker
from ringmain.serve.queries import (
    AlarmsQuery,
    AlarmState,
    LatestQuery,
    LiveQuery,
    MatchQuery,
    ReadingsQuery,
    WindowsQuery,
    stretch_ns,
)
from ringmain.serve.shapes import (
    ColumnInfo,
    FlowDetail,
    FlowList,
    Health,
    LastReading,
    LatestList,
    LatestValue,
    MediumWindowsAnswer,
    Overview,
    ReadingsAnswer,
    SeriesInfo,
    SeriesList,
    SqlAnswer,
    SqlRequest,
    StepInfo,
    StreamInfo,
    StreamList,
    WindowsAnswer,
)
from ringmain.serve.sql import SqlCancelledError, SqlError, SqlTimeoutError
from ringmain.serve.sqlprocess import SqlBusyError, SqlDiedError, SqlProcesses
from ringmain.serve.windows import window_streams

THREADS = 4
WAITING_MAX = 32
SQL_ROWS_MAX = 100_000
MATCHES_MAX = 1_000_000
METRICS = "text/plain; version=0.0.4"

_T = TypeVar("_T")
_SQL_SECONDS = declare(
    "ringmain_serve_sql_seconds", Kind.HISTOGRAM, "Time that SQL statements over HTTP took.", unit="seconds"
)


class Api:
    """The operations over one log. Lives on the server's event loop."""

    def __init__(
        self,
        log: Log,
        latest: Latest,
        maker: OverviewMaker,
        hub: LiveHub,
        counters: Counters,
        sql: SqlProcesses,
        version: str,
        clock_ns: Callable[[], int],
        alarms: AlarmBoard | None = None,
    ) -> None:
        self._log = log
        self._alarms = alarms
        self._latest = latest
        self._catalogue = latest.catalogue
        self._maker = maker
        self._hub = hub
        self._counters = counters
        self._sql = sql
        self._sql_seconds = counters.histogram(_SQL_SECONDS)
        self._clock_ns = clock_ns
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="serve-query")
        self._waiting = 0
        v1 = "/api/v1"
        windows = (WindowsAnswer, MediumWindowsAnswer)
        self.operations = [
            Operation("GET", v1 + "/overview", self.overview, "The node at a glance", Overview),
            Operation(
                "GET",
                v1 + "/series",
                self.series,
                "Series that match, with their newest reading",
                SeriesList,
                MatchQuery,
            ),
            Operation(
                "GET",
                v1 + "/latest",
                self.latest,
                "Newest readings of series that match",
                LatestList,
                LatestQuery,
            ),
            Operation(
                "GET", v1 + "/readings", self.readings, "Readings of a series", ReadingsAnswer, ReadingsQuery
            ),
            Operation(
                "GET",
                v1 + "/windows",
                self.windows,
                "Windows of a series or of a medium",
                windows,
                WindowsQuery,
            ),
            Operation("GET", v1 + "/flows", self.flows, "Every flow with its steps", FlowList),
            Operation("GET", v1 + "/alarms", self.alarms, "Alarms as they stand", AlarmList, AlarmsQuery),
            Operation(
                "POST",
                v1 + "/alarms/acknowledge",
                self.acknowledge,
                "Acknowledge alarms",
                AcknowledgeAnswer,
                body=AcknowledgeRequest,
            ),
            Operation("GET", v1 + "/streams", self.streams, "Every stream of the log", StreamList),
            Operation(
                "GET", v1 + "/live", self.live, "Newest readings as they come", "text/event-stream", LiveQuery
            ),
            Operation(
                "POST",
                v1 + "/sql",
                self.sql,
                "Rows of a statement",
                SqlAnswer,
                body=SqlRequest,
                answers_more=(ARROW,),
            ),
            Operation("GET", "/metrics", self.metrics, "What the node counts, for Prometheus", METRICS),
            Operation(
                "GET", "/healthz", self.healthz, "Whether the process answers", Health, protected=False
            ),
            Operation(
                "GET", "/readyz", self.readyz, "Whether the node stores and serves", Health, protected=False
            ),
            Operation(
                "GET", "/openapi.json", self.openapi, "This description", "application/json", protected=False
            ),
        ]
        self._openapi = (version, b"")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, request: Request, work: Callable[[Event], _T]) -> _T:
        """The result of `work`, which is told by its event when nobody waits for it any more."""
        if self._waiting >= WAITING_MAX:
            raise Refused(503, "busy", f"{WAITING_MAX} requests are being worked on already: try later")
        gone = Event()
        self._waiting += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work, gone)
            # nobody looks at the result once the client has left
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await done_or_left(request, future)
                return await future
            finally:
                gone.set()
        finally:
            self._waiting -= 1

    async def overview(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /overview."""
        return Response(self._maker.encoded(), media_type="application/json", headers=UNCACHED)

    async def flows(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /flows."""
        found = [
            FlowDetail(
                flow.name,
                flow.to,
                flow.state,
                flow.lag_s,
                None if flow.newest_ns is None else flow.newest_ns // 1_000_000,
                flow.rows,
                flow.late,
                flow.revisions,
                flow.ahead,
                flow.duplicates,
                flow.failed,
                flow.last_error,
                [
                    StepInfo(step.step, step.rows_in, step.rows_out, step.rows_aside, step.state_bytes)
                    for step in flow.steps
                ],
            )
            for flow in self._maker.status().flows
        ]
        return as_json(FlowList(self._clock_ns() // 1_000_000, found))

    async def alarms(self, request: Request, query: AlarmsQuery, _body: None) -> Response:
        """GET /alarms."""
        board = self._alarms
        if board is None:
            return as_json(AlarmList(0, [0, 0, 0], 0, 0, [], [0, 0, 0]))
        open_max = 0 if query.state is AlarmState.CLOSED else query.limit
        closed_max = 0 if query.state is AlarmState.OPEN else query.limit

        def work(_gone: Event) -> AlarmList:
            return board.alarms(open_max=open_max, closed_max=closed_max)

        return as_json(await self._in_thread(request, work))

    async def acknowledge(self, request: Request, _query: None, body: AcknowledgeRequest) -> Response:
        """POST /alarms/acknowledge."""
        board = self._alarms
        if board is None:
            return as_json(AcknowledgeAnswer([], [], body.alerts))

        def work(_gone: Event) -> AcknowledgeAnswer:
            try:
                return acknowledge(self._log, board, body.alerts, body.by, body.note, self._clock_ns)
            except ValueError as error:
                raise Refused(400, "body", str(error)) from None
            except LogError as error:
                raise Refused(503, "log", f"nothing is acknowledged: {error}") from None

        return as_json(await self._in_thread(request, work))

    async def series(self, request: Request, query: MatchQuery, _body: None) -> Response:
        """GET /series."""

        def work(_gone: Event) -> SeriesList:
            count = len(self._catalogue)
            if query.match.strip():
                found = self._catalogue.match(query.match, MATCHES_MAX)
                total, ids = len(found), found[: query.limit]
            else:
                total, ids = count, list(range(min(query.limit, count)))
            return SeriesList(total, count, [self._series_info(series) for series in ids])

        return as_json(await self._in_thread(request, work))

    def _series_info(self, series: int) -> SeriesInfo:
        about = self._catalogue.attributes_of(series)
        latest = self._latest
        last = None
        with latest.lock:
            if series < len(latest.times) and latest.marks[series]:
                last = LastReading(
                    int(latest.times[series]) // 1_000_000,
                    floats(latest.values[series : series + 1])[0],
                    int(latest.qualities[series]),
                    int(latest.arrivals[series]) // 1_000_000,
                )
        return SeriesInfo(
            self._catalogue.key_of(series),
            series,
            about.unit,
            about.quantity,
            about.medium,
            about.device,
            about.place,
            about.owner,
            dict(about.external),
            last,
        )

    async def latest(self, request: Request, query: LatestQuery, _body: None) -> Response:
        """GET /latest."""

        def work(_gone: Event) -> LatestList:
            if query.match.strip():
                wanted = np.array(self._catalogue.match(query.match, MATCHES_MAX), np.uint32)
            else:
                wanted = np.arange(len(self._catalogue), dtype=np.uint32)
            ids = self._latest.seen(wanted)[: query.limit]
            latest = self._latest
            with latest.lock:
                columns = (
                    latest.times[ids].tolist(),
                    floats(latest.values[ids]),
                    latest.qualities[ids].tolist(),
                    (latest.arrivals[ids] // 1_000_000).tolist(),
                )
            values = []
            for series, time_ns, value, quality, arrived in zip(ids.tolist(), *columns, strict=True):
                unit = self._catalogue.attributes_of(series).unit
                key = self._catalogue.key_of(series)
                values.append(
                    LatestValue(key, time_ns // 1_000_000, str(time_ns), value, quality, arrived, unit)
                )
            return LatestList(values)

        return as_json(await self._in_thread(request, work))

    def _series_id(self, key: str) -> int:
        series = self._catalogue.id_of(key)
        if series is None:
            raise Refused(
                404, "series", f"there is no series {key[:200]!r}: search with /api/v1/series?match="
            )
        return series

    async def readings(self, request: Request, query: ReadingsQuery, _body: None) -> Response:
        """GET /readings."""
        series = self._series_id(query.series)
        low, high = stretch_ns(query.from_, query.to, self._clock_ns())

        def work(gone: Event) -> ReadingsAnswer:
            resolution, points, truncated = history.readings(
                self._log, series, low, high, query.max_points, gone
            )
            unit = self._catalogue.attributes_of(series).unit
            return ReadingsAnswer(query.series, unit, resolution, points, truncated)

        return as_json(await self._in_thread(request, work))

    async def windows(self, request: Request, query: WindowsQuery, _body: None) -> Response:
        """GET /windows."""
        if (query.series is None) == (query.medium is None):
            raise Refused(400, "parameter", "expected either `series` or `medium`")
        known = window_streams(self._log.streams())
        if query.stream not in known:
            raise Refused(
                404,
                "stream",
                f"expected a stream of windows ({', '.join(known) or 'none yet'}), found {query.stream[:100]!r}",
            )
        low, high = stretch_ns(query.from_, query.to, self._clock_ns())

        def of_series(gone: Event, key: str, series: int) -> WindowsAnswer:
            reading = history.Reading(self._log, query.stream, low, high, gone)
            width, rows = history.windows_of_series(reading, series)
            unit = self._catalogue.attributes_of(series).unit
            return WindowsAnswer(query.stream, key, unit, width, rows, reading.truncated)

        def of_medium(gone: Event, medium: str) -> MediumWindowsAnswer:
            reading = history.Reading(self._log, query.stream, low, high, gone)
            power = self._maker.power_series
            ids = power.by_medium().get(medium, np.empty(0, np.uint32))
            width, rows = history.windows_of_medium(reading, ids, power.in_watts)
            return MediumWindowsAnswer(query.stream, medium, "W", width, rows, reading.truncated)

        if query.series is not None:
            key, series = query.series, self._series_id(query.series)
            return as_json(await self._in_thread(request, lambda gone: of_series(gone, key, series)))
        medium = query.medium or ""
        return as_json(await self._in_thread(request, lambda gone: of_medium(gone, medium)))

    async def streams(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /streams."""
        infos = [
            StreamInfo(
                name=state.stream.name,
                kind=state.stream.kind.name.lower(),
                rows=state.rows,
                frames=state.frames,
                last_position=None if state.last is None else str(state.last),
                last_arrival_ms=state.last_arrival_ns // 1_000_000 or None,
                columns=[ColumnInfo(f.name, str(f.type)) for f in state.stream.schema],
            )
            for state in self._log.streams()
        ]
        return as_json(StreamList(infos))

    async def live(self, _request: Request, query: LiveQuery, _body: None) -> Response:
        """GET /live."""
        self._hub.check_room()
        return StreamingResponse(
            self._hub.events(query.match),
            media_type="text/event-stream",
            headers=UNCACHED,
        )

    async def sql(self, request: Request, _query: None, body: SqlRequest) -> Response:
        """POST /sql."""
        if not 0 <= body.limit <= SQL_ROWS_MAX:
            raise Refused(400, "limit", f"expected a limit of 0 to {SQL_ROWS_MAX} rows, found {body.limit}")
        work = asyncio.ensure_future(self._sql.run(body.query, body.parameters, body.limit))
        try:
            await done_or_left(request, work)
            result = await work
        except SqlTimeoutError as error:
            raise Refused(408, "timeout", str(error)) from None
        except SqlBusyError as error:
            raise Refused(503, "busy", str(error)) from None
        except SqlCancelledError as error:
            raise Refused(503, "cancelled", str(error)) from None
        except SqlDiedError as error:
            raise Refused(503, "died", str(error)) from None
        except SqlError as error:
            raise Refused(400, "sql", str(error)) from None
        finally:
            work.cancel()
        self._sql_seconds.observe(result.seconds)
        answer = sql_arrow if ARROW in request.headers.get("accept", "") else sql_json
        return await asyncio.get_running_loop().run_in_executor(self._pool, answer, result)

    async def metrics(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /metrics."""
        return Response(
            self._counters.render(),
            media_type=METRICS,
            headers=UNCACHED,
        )

    async def healthz(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /healthz."""
        return as_json(Health("ok"))

    async def readyz(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /readyz."""
        status = self._maker.status()
        if status.log.state is not StorageState.OK:
            return as_json(
                Health("not ready", f"the log is {status.log.state.value}: nothing is acknowledged"), 503
            )
        if not status.ready:
            missing = [part for part in status.parts if part.state is not PartState.RUNNING]
            told = ", ".join(f"{part.name}: {part.last_error or part.state.value}" for part in missing)
            return as_json(Health("not ready", told or "the node is starting"), 503)
        return as_json(Health("ok"))

    async def openapi(self, _request: Request, _query: None, _body: None) -> Response:
        """GET /openapi.json."""
        version, encoded = self._openapi
        if not encoded:
            encoded = msgspec.json.encode(openapi(self.operations, version))
            self._openapi = (version, encoded)
        return Response(encoded, media_type="application/json", headers={"cache-control": "no-cache"})
