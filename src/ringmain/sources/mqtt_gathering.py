"""One submission out of everything that all connections received in one turn of the event loop.

Connections add messages and the replies that they owe; the flush maps all messages in one call, submits once,
and the replies leave when that submission is durable: per connection one write. So neither a message nor a
connection costs an append. Promises: no reply added here leaves before the flush that holds its message is
durable; readings keep the order of arrival, whichever path read them; a batch stays within a few MiB.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from ringmain.runtime.contract import Columns, Happening, Intake, Letter, Submission
from ringmain.sources import mqtt_metrics as metrics
from ringmain.sources.mqtt_packets import Will
from ringmain.sources.mqtt_sessions import Session

if TYPE_CHECKING:
    from ringmain.sources.mapping import Mapped
    from ringmain.sources.mqtt_connection import Connection

MESSAGES_MAX = 8_192
"""Messages after which a batch is submitted although the loop's turn has not ended."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""The same, in bytes received."""


class TopicMapper(Protocol):
    """What a listener needs of `mapping.Mapper`."""

    def map(self, topics: Sequence[str], payloads: Sequence[bytes], arrival_ns: int) -> Mapped:
        """Readings of these messages, in order, and letters for what does not fit."""
        ...


class RowSource(Protocol):
    """Readings that the compiled path has put into columns itself, since they were last taken."""

    def take_rows(self, arrival_ns: int) -> Columns | None:
        """Those readings, with their quality; None if there are none."""
        ...

    def learn(self, topics: list[str]) -> None:
        """These topics were just mapped by the general path."""
        ...


class WillEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Data of the event `mqtt.will`, as JSON. The payload as text where it is UTF-8, else in base64."""

    client: str
    topic: str
    payload: str | None = None
    payload_base64: str | None = None


class Gathering:
    """The batch that is being filled. `topics`, `payloads` and the counts are filled by the connections' hot loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mapper: TopicMapper,
        intake: Intake,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.received = 0
        self.received_bytes = 0
        self.by_qos = [0, 0, 0]
        self.rejected = 0
        self.touched: list[Connection] = []
        self.rows: RowSource | None = None
        self._loop = loop
        self._clock_ns = clock_ns
        self._mapper = mapper
        self._intake = intake
        self._scheduled = False
        self._arrival_ns = 0
        self._parts: list[Columns] = []
        self._letters: list[Letter] = []
        self._happenings: list[Happening] = []
        self._positions: dict[str, bytes | None] = {}
        self._dirty: dict[Session, None] = {}
        self._session_puts = False
        self._unsettled = 0
        self._ignored = 0
        self.failed: asyncio.Future[None] = loop.create_future()
        """Gets the exception of a batch that could not be handed over; nothing is acknowledged from then on."""

    @property
    def unsettled(self) -> bool:
        """Whether something about sessions is not durable yet."""
        return self._session_puts or self._unsettled > 0

    def begin(self) -> None:
        """To be called before anything is added: fixes the batch's time of arrival and schedules its flush."""
        if not self._scheduled:
            self._scheduled = True
            self._arrival_ns = self._clock_ns()
            self._loop.call_soon(self.flush)

    @property
    def arrival_ns(self) -> int:
        """Time of arrival of everything in the batch, ns UTC."""
        return self._arrival_ns

    def put(self, name: str, value: bytes | None) -> None:
        """Have a position become durable with this batch."""
        self.begin()
        self._positions[name] = value
        self._session_puts = True

    def changed(self, session: Session) -> None:
        """The session's received identifiers changed: they become durable with this batch."""
        self._dirty[session] = None

    def letter(self, topic: str, payload: bytes, reason: str, payload_bytes: int) -> None:
        """A message that never reaches the mapping, with what is known of it."""
        self.begin()
        self._letters.append(Letter(topic, payload, reason, self._arrival_ns, payload_bytes))

    def will(self, client_id: str, identity: str, will: Will) -> None:
        """A client's will: always an event; readings too, if its topic and payload map to some."""
        self.begin()
        try:
            data = WillEvent(client_id, will.topic, payload=will.payload.decode())
        except UnicodeDecodeError:
            data = WillEvent(client_id, will.topic, payload_base64=base64.b64encode(will.payload).decode())
        self._happenings.append(
            Happening(
                id=f"{self._intake.source}/{identity}",
                type="mqtt.will",
                subject=client_id,
                time_ns=self._arrival_ns,
                data=msgspec.json.encode(data),
                datacontenttype="application/json",
            )
        )
        self._intake.count(metrics.WILLS.name)
        self.close_messages()
        self.close_rows()
        # What does not map is no dead letter: the event holds all of it.
        mapped = self._mapper.map([will.topic], [will.payload], self._arrival_ns)
        if mapped.columns is not None:
            self._parts.append(mapped.columns)

    def close_messages(self) -> None:
        """Map what the general path has gathered, so that what follows comes behind it."""
        if not self.topics:
            return
        topics, self.topics = self.topics, []
        payloads, self.payloads = self.payloads, []
        try:
            mapped = self._mapper.map(topics, payloads, self._arrival_ns)
        except Exception as error:  # a defect of the mapping: never acknowledge what it may have lost
            self._fail(error)
            raise
        if mapped.columns is not None:
            self._parts.append(mapped.columns)
        self._letters.extend(mapped.letters)
        self.rejected += mapped.rejected
        self._ignored += mapped.ignored
        if self.rows is not None:
            self.rows.learn(topics)

    def close_rows(self) -> None:
        """Take over what the compiled path has gathered, so that what follows comes behind it."""
        if self.rows is not None:
            columns = self.rows.take_rows(self._arrival_ns)
            if columns is not None:
                self._parts.append(columns)

    def flush_if_full(self) -> None:
        """Submit now if the batch has reached its bounds."""
        if self.received >= MESSAGES_MAX or self.received_bytes >= PAYLOAD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Submit the batch; its replies are written once it is durable."""
        if not self._scheduled or self.failed.done():
            return
        self._scheduled = False
        try:
            submission = self._close()
        except Exception as error:
            self._fail(error)
            return
        if submission is not None:
            self._intake.submit(submission)

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def _close(self) -> Submission | None:
        self.close_rows()
        self.close_messages()
        if not (self.received or self.touched or self._positions or self._letters or self._happenings):
            return None
        for session in self._dirty:
            if session.stored is not None:
                self._positions[session.received_name] = session.received_position()
        replies = [(connection, *connection.take_replies()) for connection in self.touched]
        session_puts, self._session_puts = self._session_puts, False
        self._unsettled += session_puts

        def durable() -> None:
            self._unsettled -= session_puts
            for connection, data, released in replies:
                connection.write_replies(data, released)

        submission = Submission(
            durable=durable,
            columns=_joined(self._parts),
            letters=tuple(self._letters),
            happenings=tuple(self._happenings),
            positions=self._positions,
            received=self.received,
            rejected=self.rejected,
            ignored=self._ignored,
            unacknowledged=self.by_qos[0],
        )
        for qos, n in enumerate(self.by_qos):
            if n:
                self._intake.count(metrics.MESSAGES.name, n, qos=str(qos))
        self.received = self.received_bytes = self.rejected = self._ignored = 0
        self.by_qos = [0, 0, 0]
        self.touched = []
        self._parts, self._letters, self._happenings, self._positions, self._dirty = [], [], [], {}, {}
        return submission


def _joined(parts: list[Columns]) -> Columns | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return Columns(
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.quality for part in parts]),
    )
