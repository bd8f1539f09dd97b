"""What all connections of one listener share while it runs: limits, the batch, sessions, buffers, counters."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ringmain.runtime.contract import Intake
from ringmain.sources import mqtt_metrics as metrics
from ringmain.sources.mqtt_auth import Passwords
from ringmain.sources.mqtt_codes import MqttError, Reason
from ringmain.sources.mqtt_deadlines import Deadlines
from ringmain.sources.mqtt_gathering import Gathering, TopicMapper
from ringmain.sources.mqtt_metrics import Cause
from ringmain.sources.mqtt_packets import Will, check_topic_name
from ringmain.sources.mqtt_properties import decode_text
from ringmain.sources.mqtt_sessions import PendingWill, Session, Sessions
from ringmain.sources.mqtt_settings import MqttListenerSettings

if TYPE_CHECKING:
    from ringmain.sources.mqtt_connection import Connection
    from ringmain.sources.mqtt_fast import FastReader

RECEIVE_BYTES = 256 * 1024
"""Size of the one buffer that every connection reads into."""

TOPICS_MAX = 65_536
"""Checked topic names remembered for the general path; the memory is emptied when full."""

TOPIC_REMEMBERED_BYTES_MAX = 256
LINES_A_SECOND = 10
"""Lines about clients' errors that go to the node's log at its usual level."""

LOGINS_PENDING_MAX = 1_000
"""Key derivations waiting or running, beyond which a client is told to come again later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings in the units that connections count in."""

    max_connections: int
    max_packet_bytes: int
    receive_maximum: int
    topic_alias_maximum: int
    keep_alive_min_s: int
    keep_alive_max_s: int
    session_expiry_max_s: int
    connect_timeout_s: float

    @classmethod
    def of(cls, settings: MqttListenerSettings) -> Limits:
        """From checked settings."""
        return cls(
            max_connections=settings.max_connections,
            max_packet_bytes=settings.max_packet_bytes,
            receive_maximum=settings.receive_maximum,
            topic_alias_maximum=settings.topic_alias_maximum,
            keep_alive_min_s=int(settings.seconds("keep_alive_min")),
            keep_alive_max_s=int(settings.seconds("keep_alive_max")),
            session_expiry_max_s=int(settings.seconds("session_expiry_max")),
            connect_timeout_s=settings.seconds("connect_timeout"),
        )


class Shared:
    """One run of a listener. Used on its event loop only."""

    def __init__(
        self,
        settings: MqttListenerSettings,
        mapper: TopicMapper,
        intake: Intake,
        passwords: Passwords | None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.logger = logging.getLogger(f"ringmain.sources.{intake.source}")
        self.limits = Limits.of(settings)
        self.intake = intake
        self.passwords = passwords
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="mqtt-login")
        self.logins_pending = 0
        self.gathering = Gathering(self.loop, mapper, intake, clock_ns)
        self.deadlines = Deadlines(self.loop)
        self.sessions = Sessions(settings.max_sessions, self.gathering.put, self._evicted, self.publish_will)
        self.connections: set[Connection] = set()
        self.waiting: set[Connection] = set()
        self.handshakes = 0
        self.partial_bytes = 0
        self.closing = False
        self.fast: FastReader | None = None
        self.buffer = bytearray(RECEIVE_BYTES)
        self.view = memoryview(self.buffer)
        self.array = np.frombuffer(self.buffer, np.uint8)
        self.topics: dict[bytes, str] = {}
        self._sessions_counted = 0
        self._told_second = self._told = 0
        intake.on_ready(self._ready_changed)

    def topic(self, raw: bytes) -> str:
        """The topic name in `raw`, remembered once it was found valid. Raises MqttError."""
        text = check_topic_name(decode_text(raw))
        if len(raw) <= TOPIC_REMEMBERED_BYTES_MAX:
            if len(self.topics) >= TOPICS_MAX:
                self.topics.clear()
            self.topics[raw] = text
        return text

    def tell(self, text: str) -> None:
        """A line about one client for the node's log; beyond `LINES_A_SECOND` only for debugging."""
        second = int(self.loop.time())
        if second != self._told_second:
            self._told_second, self._told = second, 0
        self._told += 1
        self.logger.log(logging.INFO if self._told <= LINES_A_SECOND else logging.DEBUG, "%s", text)

    def ended(self, cause: Cause) -> None:
        """Count the end of a connection."""
        self.intake.count(metrics.ENDED.name, 1, reason=cause.value)

    def _ready_changed(self, ready: bool) -> None:
        if ready:
            waiting, self.waiting = self.waiting, set()
            for connection in waiting:
                connection.intake_ready()

    # --- sessions of absent clients

    def leave(self, session: Session, will: Will | None, will_delay_s: int) -> None:
        """The session's connection is gone; its will is published, now or after its delay (3.1.3.2.2)."""
        now_s = self.loop.time()
        pending = None
        if will is not None:
            pending = PendingWill(will, f"{session.client_id}/{secrets.token_hex(8)}")
            delay_s = min(will_delay_s, session.expiry_s)
            if delay_s <= 0:
                self.gathering.will(session.client_id, pending.identity, will)
                pending = None
            else:
                self.deadlines.ask(self._will_due(session, pending, now_s + delay_s), now_s + delay_s)
        session.will = pending
        self.sessions.leave(session, now_s)
        if session.lasting:
            self.await_expiry(session)
        self.count_sessions()

    def await_expiry(self, session: Session) -> None:
        """End the session of an absent client when its time is over."""
        away_since_s = session.away_since_s

        def due(now_s: float) -> float | None:
            if session.device is not None or session.away_since_s != away_since_s:
                return None
            if now_s >= away_since_s + session.expiry_s:
                self.sessions.end(session)
                self.count_sessions()
                return None
            return away_since_s + session.expiry_s

        self.deadlines.ask(due, away_since_s + session.expiry_s)

    def _will_due(
        self, session: Session, pending: PendingWill, at_s: float
    ) -> Callable[[float], float | None]:
        def due(now_s: float) -> float | None:
            if session.will is not pending:
                return None
            if now_s < at_s:
                return at_s
            self.publish_will(session)
            return None

        return due

    def publish_will(self, session: Session) -> None:
        """Publish the session's pending will, if it has one."""
        pending, session.will = session.will, None
        if pending is not None:
            self.gathering.will(session.client_id, pending.identity, pending.will)

    def count_sessions(self) -> None:
        """Bring the gauge of sessions up to date."""
        change = len(self.sessions) - self._sessions_counted
        if change:
            self._sessions_counted += change
            self.intake.count(metrics.SESSIONS.name, change)

    def _evicted(self) -> None:
        self.intake.count(metrics.SESSIONS_EVICTED.name)

    # --- key derivation off the loop

    def verify(self, user: str, password: bytes, verified: Callable[[bool], None]) -> bool:
        """Check the password on another thread, then call back on the loop; False when too many wait."""
        passwords = self.passwords
        if passwords is None or self.logins_pending >= LOGINS_PENDING_MAX:
            return False
        self.logins_pending += 1
        answer = self.loop.run_in_executor(self.executor, passwords.verify, user, password)

        def done(future: asyncio.Future[bool]) -> None:
            self.logins_pending -= 1
            if not future.cancelled() and not self.closing:
                error = future.exception()
                if error is not None:
                    self.logger.error("password check failed: %r", error)
                verified(error is None and future.result())

        answer.add_done_callback(done)
        return True

    def internal_error(self, error: Exception) -> MqttError:
        """A defect of ours that one connection met: logged, and that connection ends."""
        self.logger.error("defect while reading a packet: %r", error, exc_info=error)
        return MqttError(Reason.UNSPECIFIED, "internal error")
