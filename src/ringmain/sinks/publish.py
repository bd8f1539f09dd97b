"""A stream to an MQTT broker (type `publish`): a message of QoS 1 for each row, in the order of the log.

Of each topic the messages come in order: they are sent in the order of the log, at most `in_flight` of them before the
oldest is acknowledged, and after a lost connection from the first on that was not acknowledged. MQTT delivers QoS 1 at least
once (MQTT 5, clause 4.3.2): then, and after a crash of this node, a receiver may get up to `in_flight` messages a second
time, again in order. The member `row` of the payload names a row for good, for receivers that count.

Left to others: topics and payloads (`publish_message.py`), the connection (`publish_connection.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ringmain.model.duration import parse_duration
from ringmain.runtime.counters import Kind, declare
from ringmain.runtime.mqtt_broker import MqttTlsSettings, check_trust, parse_url
from ringmain.runtime.sink import (
    ACCEPTED,
    Answer,
    BatchId,
    Rejected,
    RejectedRows,
    Retry,
    SinkBatch,
    SinkContext,
    SinkError,
)
from ringmain.sinks.publish_connection import PublishConnection
from ringmain.sinks.publish_message import Message, MessageMaker, TimeForm, parse_template
from ringmain.sinks.types import Begin, Findings, SinkSettings, SinkType, Surroundings

BATCH_ROWS_MAX = 1_000
ACKNOWLEDGED_WITHIN_S = 30.0
"""A broker that acknowledges nothing for so long is taken for lost."""
NEVER = {
    0x90: "the broker does not allow this topic",
    0x95: "the message is larger than the broker takes",
    0x99: "the broker does not take this payload",
}
"""Reason codes (MQTT 5, clause 3.4.2.1) with which sending again is of no use."""

_MESSAGES = declare(
    "ringmain_publish_messages_total",
    Kind.COUNTER,
    "Messages that a broker has acknowledged to a publish sink.",
    labels=("sink",),
    unit="messages",
)
_REPEATED = declare(
    "ringmain_publish_repeated_total",
    Kind.COUNTER,
    "Messages that a publish sink sent again because the connection was lost before they were acknowledged.",
    labels=("sink",),
    unit="messages",
)


class PublishSettings(SinkSettings, frozen=True, kw_only=True):
    """`[sinks.NAME]`: streams to an MQTT broker, a message a row."""

    url: Annotated[
        str,
        msgspec.Meta(
            description="mqtt://HOST:PORT or mqtts://HOST:PORT, with USER:PASSWORD@ before the host if needed"
        ),
    ]
    topic: Annotated[
        str,
        msgspec.Meta(
            description="topic with placeholders: {key} and its levels {key.1} ... {key.-1}, {place} and its levels, {device}, "
            "{unit}, {quantity}, {medium}, {owner} of the series; {node}, {stream}; and columns of the stream"
        ),
    ]
    payload: Annotated[
        Literal["json", "value"],
        msgspec.Meta(description="`json`: an object a row; `value`: the column `value` alone, as text"),
    ] = "json"
    members: Annotated[
        dict[str, str],
        msgspec.Meta(
            description="JSON member = field, for other members than the columns of the stream: fields are columns, `key`, "
            "`place`, `device`, `unit`, `quantity`, `medium`, `owner`, `node`, `stream`, `arrived`, and `row` (names the row)"
        ),
    ] = msgspec.field(default_factory=dict)
    time_format: Annotated[
        TimeForm, msgspec.Meta(description="times in payloads: RFC 3339 text, or numbers since 1970 UTC")
    ] = TimeForm.ISO
    missing: Annotated[
        str,
        msgspec.Meta(description="stands in a topic for what a series or row does not have", min_length=1),
    ] = "_"
    retain: Annotated[
        bool,
        msgspec.Meta(description="the broker keeps the last message of each topic for later subscribers"),
    ] = False
    in_flight: Annotated[
        int,
        msgspec.Meta(description="messages sent before the oldest is acknowledged", ge=1, le=10_000),
    ] = 100
    protocol: Annotated[Literal["5", "3.1.1"], msgspec.Meta(description="MQTT version")] = "5"
    client_id: Annotated[
        str | None,
        msgspec.Meta(description="names this client to the broker; without it `ringmain-NODE-out-SINK`"),
    ] = None
    password_file: Annotated[
        str | None, msgspec.Meta(description="file whose first line is the password, instead of one in `url`")
    ] = None
    tls: Annotated[MqttTlsSettings | None, msgspec.Meta(description="certificates for `mqtts://`")] = None
    keep_alive: Annotated[
        str, msgspec.Meta(description="time without traffic after which the connection is probed")
    ] = "30s"
    connect_timeout: Annotated[str, msgspec.Meta(description="time for connecting, TLS and CONNACK")] = "10s"

    def check(self) -> Findings:
        """Errors and warnings without connecting."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        if find_spec("paho") is None:
            errors.append(
                ("type", 'a sink of type "publish" needs the package paho-mqtt: pip install "ringmain[mqtt]"')
            )
        try:
            broker = parse_url(self.url)
        except ValueError as error:
            errors.append(("url", str(error)))
        else:
            check_trust(broker, self.password_file, self.tls, errors, warnings)
        try:
            parts = parse_template(self.topic)
        except ValueError as error:
            errors.append(("topic", str(error)))
        else:
            if all(isinstance(part, str) for part in parts):
                warnings.append(("topic", "without a placeholder all rows go to one topic"))
        if self.payload == "value" and self.members:
            errors.append(("members", 'expected payload = "json" to go with members, found "value"'))
        for key, low, high in (("keep_alive", 1, 65_535), ("connect_timeout", 0.1, 600)):
            try:
                seconds = parse_duration(getattr(self, key)) / 1e9
            except ValueError as error:
                errors.append((key, str(error)))
            else:
                if not low <= seconds <= high:
                    errors.append((key, f"expected {low:g}s to {high:g}s, found {getattr(self, key)!r}"))
        return errors, warnings


class PublishSink:
    """Publishes rows; see the module."""

    def __init__(self, name: str, node: str, settings: PublishSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._broker = parse_url(settings.url)
        self._client_id = settings.client_id or f"ringmain-{node}-out-{name}"
        self._maker = MessageMaker(
            settings.topic,
            node=node,
            missing=settings.missing,
            members=settings.members,
            time_form=settings.time_format,
            bare=settings.payload == "value",
        )
        self._context: SinkContext | None = None
        self._connection: PublishConnection | None = None
        self._begun: dict[BatchId, _Progress] = {}

    def open(self, context: SinkContext) -> str:
        """Connect. Raises SinkError."""
        self._context = context
        self._begun = {}
        self._connected()
        return self._broker.address

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        """Publish rows until all are acknowledged, or the connection is lost."""
        try:
            connection = self._connected()
        except SinkError as error:
            return [Retry(str(error))]
        return _Round(self, connection, batches).run()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> PublishConnection:
        if self._connection is not None and self._connection.lost is None:
            return self._connection
        self.close()
        settings, context = self._settings, self._context
        assert context is not None
        self._connection = PublishConnection(
            self._broker,
            client_id=self._client_id,
            protocol=settings.protocol,
            directory=self._directory,
            password_file=settings.password_file,
            tls=settings.tls,
            keep_alive_s=max(1, parse_duration(settings.keep_alive) // 10**9),
            connect_timeout_s=parse_duration(settings.connect_timeout) / 1e9,
            stopping=context.stopping,
        )
        return self._connection


class _Progress:
    """How far a batch is: `done` rows from its first on are acknowledged or rejected; `sent` were sent once at least."""

    __slots__ = ("batch", "done", "rejected", "sent")

    def __init__(self, batch: SinkBatch) -> None:
        self.batch = batch
        self.done = 0
        self.sent = 0
        self.rejected: list[RejectedRows] = []

    @property
    def answer(self) -> Answer:
        """Once all rows are done."""
        return Rejected(tuple(self.rejected)) if self.rejected else ACCEPTED


class _Round:
    """One call of `deliver`."""

    def __init__(
        self, sink: PublishSink, connection: PublishConnection, batches: Sequence[SinkBatch]
    ) -> None:
        assert sink._context is not None
        self._sink = sink
        self._context = sink._context
        self._connection = connection
        self._window = sink._settings.in_flight
        self._retain = sink._settings.retain
        self._progress = [sink._begun.get(batch.id) or _Progress(batch) for batch in batches]
        self._open: deque[tuple[_Progress, int]] = deque()
        """Rows in flight, in the order in which they were sent; a rejected one among them settles by itself."""

    def run(self) -> list[Answer]:
        """The answers."""
        reason: str | None = None
        try:
            for progress in self._progress:
                self._send(progress)
            while self._open:
                self._settle(wait=True)
        except (ConnectionError, _RefusedError) as error:
            reason = str(error)
            with contextlib.suppress(ConnectionError, _RefusedError):
                self._settle(wait=False)  # what came before the end
        left = [one for one in self._progress if one.done < one.batch.rows.num_rows]
        answers: list[Answer] = [one.answer for one in self._progress[: len(self._progress) - len(left)]]
        if left:
            answers.append(Retry(f"{self._sink._broker.address}: {reason}"))
        self._sink._begun = {one.batch.id: one for one in left}
        return answers

    def _send(self, progress: _Progress) -> None:
        batch = progress.batch
        start = progress.done
        messages = self._sink._maker.messages(batch, self._context.catalogue, start)
        repeated = max(0, progress.sent - start)
        if repeated:
            self._context.count("ringmain_publish_repeated_total", repeated)
        for place, message in enumerate(messages, start):
            while self._connection.in_flight >= self._window:
                self._settle(wait=True)
            self._publish(progress, place, message)
        self._settle(wait=False)

    def _publish(self, progress: _Progress, place: int, message: Message) -> None:
        if self._connection.lost is not None:
            raise ConnectionError(self._connection.lost)
        if message.topic is None:
            while self._open:  # so that what is done stays without a gap
                self._settle(wait=True)
            progress.rejected.append(RejectedRows(place, 1, message.reason))
            progress.done = place + 1
            return
        self._connection.publish(message.topic, message.payload, retain=self._retain)
        progress.sent = max(progress.sent, place + 1)
        self._open.append((progress, place))

    def _settle(self, *, wait: bool) -> None:
        """Take acknowledgements. Raises ConnectionError, _RefusedError."""
        connection = self._connection
        if wait:
            deadline_s = time.monotonic() + ACKNOWLEDGED_WITHIN_S
            while not connection.wait(0.5):
                if self._context.stopping.is_set():
                    raise ConnectionError("the node is ending")
                if time.monotonic() > deadline_s:
                    connection.close()
                    raise ConnectionError(f"no acknowledgement within {ACKNOWLEDGED_WITHIN_S:.0f} s")
        codes = connection.settled()
        for code in codes:
            progress, place = self._open.popleft()
            if code in NEVER:
                progress.rejected.append(
                    RejectedRows(
                        place, 1, f"expected a message that the broker takes: {NEVER[code]} (0x{code:02X})"
                    )
                )
            elif code >= 0x80:
                connection.close()
                raise _RefusedError(
                    f"the broker refuses a message (0x{code:02X}): check what it allows this user, and its quotas"
                )
            progress.done = place + 1
        if codes:
            self._context.count("ringmain_publish_messages_total", len(codes))
        if wait and not codes and connection.lost is not None:
            raise ConnectionError(connection.lost)


class _RefusedError(Exception):
    """The broker does not take a message now."""


def _build(name: str, settings: PublishSettings, around: Surroundings) -> PublishSink:
    return PublishSink(name, around.node, settings, around.directory)


def _check(settings: PublishSettings) -> Findings:
    return settings.check()


SINK_TYPE = SinkType(
    settings=PublishSettings,
    build=_build,
    check=_check,
    begin=Begin.NEWEST,
    batch_rows_max=lambda settings: BATCH_ROWS_MAX,
)
