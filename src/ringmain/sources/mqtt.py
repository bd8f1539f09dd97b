"""An existing MQTT broker as a source (type `mqtt`): nothing is acknowledged to it before it is stored.

The session is persistent (fixed client id, no clean start): the broker keeps what it may not yet forget,
through our restarts and its own. Each QoS 1 message is acknowledged (PUBACK) after the append that holds it
is durable, in the order of arrival (MQTT 5, clause 4.6). After a crash the broker sends the rest again; the
same reading twice counts once. Messages of QoS 0 cannot be acknowledged; they are counted as such.

A message that is retained was not sent just now: its readings are flagged HISTORICAL, and QUESTIONABLE as
well where the payload has no time of its own.

Left to others: queueing and retry (runtime), topics and payloads to readings (`mapping.py`), the protocol
(paho-mqtt). QoS 2 is not offered: paho sends PUBREC, after which the broker forgets the message, before its
user sees it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from ringmain.model.quality import Quality
from ringmain.runtime.contract import Columns, Intake, Submission
from ringmain.runtime.counters import Kind, declare
from ringmain.sources.mapping import Mapper
from ringmain.sources.mqtt_client_connection import Burst, Connection
from ringmain.sources.mqtt_client_settings import Findings, MqttSettings, parse_url
from ringmain.sources.types import SourceType, Surroundings

declare(
    "ringmain_mqtt_client_messages_total",
    Kind.COUNTER,
    "Messages from a broker by QoS of their delivery; those of QoS 0 cannot be acknowledged.",
    labels=("source", "qos"),
    unit="messages",
)
declare(
    "ringmain_mqtt_client_retained_total",
    Kind.COUNTER,
    "Messages that a broker had retained and sent because of a new subscription.",
    labels=("source",),
    unit="messages",
)
declare(
    "ringmain_mqtt_client_acknowledged_total",
    Kind.COUNTER,
    "Messages acknowledged to a broker, after they were durable.",
    labels=("source",),
    unit="messages",
)
declare(
    "ringmain_mqtt_client_connections_total",
    Kind.COUNTER,
    "Connections made to a broker, by whether it still had the session.",
    labels=("source", "session"),
    unit="connections",
)

_TOPICS = "topics"


class MqttSource:
    """A broker's topics as readings. `mapper` turns topics and payloads into columns and dead letters."""

    def __init__(self, name: str, node: str, settings: MqttSettings, mapper: Mapper, directory: Path) -> None:
        self._name = name
        self._settings = settings
        self._mapper = mapper
        self._broker = parse_url(settings.url)
        self._directory = directory
        self._client_id = settings.client_id or f"ringmain-{node}-{name}"
        self._logger = logging.getLogger(f"ringmain.sources.{name}")

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        """Serve until cancelled. Raises SourceError when the broker cannot be reached, refuses, or is lost."""
        connection: Connection | None = None

        def take(burst: Burst) -> None:
            assert connection is not None
            self._take(intake, connection, burst)

        connection = Connection(self._broker, self._settings, self._client_id, self._directory, take)
        intake.on_ready(lambda ready: connection.pause(not ready))
        connection.pause(not intake.ready)
        try:
            session = await connection.open()
            intake.count("ringmain_mqtt_client_connections_total", session="kept" if session else "new")
            await self._subscribe(intake, connection)
            started(self._broker.address)
            raise await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            connection.pause(True)
            await intake.drained()
            raise
        finally:
            await connection.close()

    async def _subscribe(self, intake: Intake, connection: Connection) -> None:
        """Subscribe to what the configuration names, and to nothing that an earlier one named."""
        wanted = self._settings.topics
        before: list[str] = msgspec.json.decode(intake.positions().get(_TOPICS, b"[]"), type=list[str])
        for topic, qos in await connection.subscribe(wanted, self._settings.qos):
            self._logger.warning(
                "source %s: asked for QoS %d on %r, the broker grants %d",
                self._name,
                self._settings.qos,
                topic,
                qos,
            )
        gone = [topic for topic in before if topic not in wanted]
        if gone:
            await connection.unsubscribe(gone)
        if before != wanted:
            positions = {_TOPICS: msgspec.json.encode(wanted)}
            intake.submit(Submission(durable=lambda: None, positions=positions))

    def _take(self, intake: Intake, connection: Connection, burst: Burst) -> None:
        arrival_ns = time.time_ns()
        unacknowledgeable = burst.mids.count(0)
        total = len(burst.mids)
        if unacknowledgeable:
            intake.count("ringmain_mqtt_client_messages_total", unacknowledgeable, qos="0")
        if total > unacknowledgeable:
            intake.count("ringmain_mqtt_client_messages_total", total - unacknowledgeable, qos="1")
        for start, stop, retained in _runs(burst.retained):
            mapped = self._mapper.map(burst.topics[start:stop], burst.payloads[start:stop], arrival_ns)
            columns = mapped.columns
            if retained:
                intake.count("ringmain_mqtt_client_retained_total", stop - start)
                columns = _flagged(columns) if columns is not None else None
            mids = [mid for mid in burst.mids[start:stop] if mid]
            intake.submit(
                Submission(
                    durable=partial(_acknowledge, intake, connection, mids),
                    columns=columns,
                    letters=mapped.letters,
                    received=stop - start,
                    rejected=mapped.rejected,
                    ignored=mapped.ignored,
                    unacknowledged=stop - start - len(mids),
                )
            )


def _acknowledge(intake: Intake, connection: Connection, mids: list[int]) -> None:
    if mids and not connection.lost.done():
        connection.acknowledge(mids)
        intake.count("ringmain_mqtt_client_acknowledged_total", len(mids))


def _flagged(columns: Columns) -> Columns:
    timeless = (columns.quality & np.uint16(Quality.ARRIVAL_TIME)) != 0
    quality = columns.quality | np.uint16(Quality.HISTORICAL)
    quality[timeless] |= np.uint16(Quality.QUESTIONABLE)
    return Columns(columns.series, columns.time, columns.value, quality)


def _runs(flags: list[bool]) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, flag) of each run of equal flags."""
    if True not in flags:
        yield 0, len(flags), False
        return
    start = 0
    for index in range(1, len(flags) + 1):
        if index == len(flags) or flags[index] != flags[start]:
            yield start, index, flags[start]
            start = index


def _build(name: str, settings: MqttSettings, surroundings: Surroundings) -> MqttSource:
    maps = settings.map if not isinstance(settings.map, str) else surroundings.maps[settings.map]
    max_ahead_ns = int(settings.seconds("max_ahead") * 1e9)
    mapper = Mapper(
        name, maps, surroundings.registry, max_ahead_ns=max_ahead_ns, timezone=surroundings.timezone
    )
    return MqttSource(name, surroundings.node, settings, mapper, surroundings.directory)


def _check(settings: MqttSettings) -> Findings:
    return settings.check()


SOURCE_TYPE = SourceType(settings=MqttSettings, build=_build, check=_check)
