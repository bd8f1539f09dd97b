"""A real log with a few streams, and a real server over it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import ringmain
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Appended, Batch, StreamKind
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import DEAD_LETTER, READING, TIMESTAMP
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceState, SourceStatus, StorageState
from ringmain.serve.server import Server
from ringmain.serve.settings import ServeSettings
from ringmain.serve.sql import SqlEngine, SqlLimits
from ringmain.serve.status import FlowView, LogView, NodeStatus

MINUTE_NS = 60_000_000_000
SECOND_NS = 1_000_000_000

WINDOW = pa.schema(
    [
        pa.field("series", pa.uint32()),
        pa.field("start", TIMESTAMP),
        pa.field("end", TIMESTAMP),
        pa.field("count", pa.int64()),
        pa.field("mean", pa.float64()),
        pa.field("min", pa.float64()),
        pa.field("max", pa.float64()),
        pa.field("revision", pa.uint32()),
    ]
)

Reading = tuple[str, int, float]


class Rig:
    """A log in a directory, written to as a node's source and flow would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = open_log(directory)
        self.log.create_stream("readings.1m", StreamKind.ROW, WINDOW)
        self.registry = SeriesRegistry(self.log)
        self._claim = self.log.claim("field")
        self._sequence = 0

    def id_of(self, key: str, attributes: SeriesAttributes | None = None) -> int:
        """The id of a series, registered when it is new."""
        return self.registry.register("field", key, attributes or SeriesAttributes(unit="W"))

    def append(self, batches: Sequence[Batch]) -> Appended:
        """Append with the catalogue entries that are new."""
        self._sequence += 1
        entries, token = self.registry.unsaved()
        all_batches = [*(Batch("catalogue", entry) for entry in entries), *batches]
        appended = self.log.append(all_batches, claim=self._claim, sequence=self._sequence)
        self.registry.saved(token)
        return appended

    def put(self, readings: Sequence[Reading], quality: int = 0) -> Appended:
        """Append readings (key, ns, value) as one frame."""
        columns = [
            pa.array([self.id_of(key) for key, _, _ in readings], pa.uint32()),
            pa.array([at for _, at, _ in readings], pa.int64()).view(TIMESTAMP),
            pa.array([value for _, _, value in readings], pa.float64()),
            pa.array([quality] * len(readings), pa.uint16()),
        ]
        return self.append([Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))])

    def put_window(self, key: str, start_ns: int, mean: float, revision: int = 0) -> Appended:
        """Append one window of a minute."""
        columns = [
            pa.array([self.id_of(key)], pa.uint32()),
            pa.array([start_ns]).view(TIMESTAMP),
            pa.array([start_ns + MINUTE_NS]).view(TIMESTAMP),
            pa.array([60], pa.int64()),
            pa.array([mean]),
            pa.array([mean - 1]),
            pa.array([mean + 1]),
            pa.array([revision], pa.uint32()),
        ]
        return self.append([Batch("readings.1m", pa.RecordBatch.from_arrays(columns, schema=WINDOW))])

    def put_letter(self, payload: bytes, reason: str = "value: expected a number") -> Appended:
        """Append one dead letter."""
        row = {"source": "field", "topic": "meters/a/p", "payload": payload, "payload_bytes": len(payload)}
        batch = pa.RecordBatch.from_pylist([{**row, "time": 0, "reason": reason}], schema=DEAD_LETTER)
        return self.append([Batch("deadletters", batch)])

    def engine(self, limits: SqlLimits | None = None) -> SqlEngine:
        """SQL over the log in this process."""
        return SqlEngine(self.log, self.log.catalogue(), limits)

    def close(self) -> None:
        self.log.close()


class ServerRig:
    """A server over a rig's log, and an HTTP client for it."""

    def __init__(self, rig: Rig, settings: ServeSettings | None = None, pages: Path | None = None) -> None:
        self.rig = rig
        self.counters = Counters()
        self.status = NodeStatus(
            name="leipzig-west",
            timezone="Europe/Berlin",
            version=ringmain.__version__,
            started_ns=time.time_ns(),
            ready=True,
            sources=(
                SourceStatus(
                    name="field",
                    type="mqtt-listener",
                    address="127.0.0.1:1884",
                    state=SourceState.RUNNING,
                    since_ns=time.time_ns(),
                    last_error=None,
                    restarts=0,
                    storage=StorageState.OK,
                    queue_rows=0,
                    received=12,
                    readings=10,
                    letters=2,
                    events=1,
                    last_reading_ns=time.time_ns(),
                ),
            ),
            flows=(FlowView("minute", "readings.1m", "running", 0.5, 7, 1, 2, 3, 4),),
            log=LogView(1000, 1, StorageState.OK, time.time_ns()),
        )
        settings = settings or ServeSettings(listen="127.0.0.1:0")
        if settings.sql_timeout == ServeSettings(listen="127.0.0.1:0").sql_timeout:
            # statements stand back for everything else: on a busy machine the first one may take longer than that
            settings = msgspec.structs.replace(settings, sql_timeout="60s")
        self.server = Server(
            settings,
            rig.log,
            self.counters,
            lambda: self.status,
            directory=rig.directory,
            pages=pages or rig.directory / "no-page",
        )
        self.server.start()
        assert self.server.latest.wait_caught_up(60)

    def set_log_state(self, state: StorageState) -> None:
        """What the node says of its log from now on."""
        self.status = replace(self.status, log=replace(self.status.log, state=state))

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON (or text) of a GET."""
        status, body, _ = self.request(path, None, headers)
        return status, body

    def sql(self, query: str, **more: Any) -> tuple[int, Any]:
        """Status and JSON of a statement."""
        status, body, _ = self.request("/api/v1/sql", json.dumps({"query": query, **more}).encode(), {})
        return status, body

    def request(
        self, path: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (JSON decoded where it is JSON) and headers."""
        request = urllib.request.Request(self.server.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, body, found = response.status, response.read(), dict(response.headers.items())
        except urllib.error.HTTPError as error:
            status, body, found = error.code, error.read(), dict(error.headers.items())
        if found.get("content-type", "").startswith("application/json"):
            return status, json.loads(body), found
        return status, body, found

    def reachable(self) -> bool:
        """Whether it answers at the moment."""
        try:
            return self.get("/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        self.server.stop()
