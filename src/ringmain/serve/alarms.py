"""Alarms as they stand: folded from the Events of alerts, for the page and the API.

Every stream of Events that flows write is followed from the log's beginning, and of its Events those of alerts are
kept: the newest of each alarm that is open, and of those that closed last, with who acknowledged it. Which came last
tells everything about an alarm, and repeats change nothing. Memory is bounded: with more than `OPEN_MAX` open alarms the
lowest and oldest are counted only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import pyarrow as pa

from ringmain.log.interface import (
    Frame,
    LogClosedError,
    LogError,
    LogReader,
    Position,
    PositionGoneError,
    StreamKind,
)
from ringmain.model.alarm import (
    ACKNOWLEDGED,
    PRIORITY_LOWEST,
    Acknowledgement,
    Alarm,
    AlarmType,
    acknowledgement_of,
    alarm_of,
)
from ringmain.serve.alarmshapes import AcknowledgedInfo, AlarmInfo, AlarmList, AlarmMemberInfo, Annunciation
from ringmain.serve.instants import instant_ns
from ringmain.serve.keyed import ns_of

OPEN_MAX = 10_000
CLOSED_MAX = 500
ACKNOWLEDGED_MAX = 4 * (OPEN_MAX + CLOSED_MAX)
PUSHED_OPEN_MAX = 100
PUSHED_CLOSED_MAX = 20
STEP_S = 0.25
AGAIN_S = 5.0
RECENT_MS = 600_000
KEPT_S = 1.0
KEPT_MAX = 8
EVENTS = "events"
"""What sources report: no alert writes there, and it may be long."""
RECENT_MAX = 10_000
_PREFIX = "ringmain.alarm."

_log = logging.getLogger(__name__)


class AlarmBoard:
    """Follows a log's alarms. `start` and `stop` once; the rest from any thread.

    `flows` gives the names of the flows that run, none while that is not known.
    """

    def __init__(
        self,
        log: LogReader,
        on_durable: Callable[[Callable[[], None]], Callable[[], None]],
        flows: Callable[[], Iterable[str]],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.revision = 0
        """Grows with each change."""
        self._log = log
        self._on_durable = on_durable
        self._flows = flows
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._open: dict[str, AlarmInfo] = {}
        self._closed: deque[AlarmInfo] = deque(maxlen=CLOSED_MAX)
        self._done: dict[str, None] = {}
        """Ids of closed alarms, oldest first, bounded: a repeat does not open one again."""
        self._acknowledged: dict[str, AcknowledgedInfo] = {}
        """By alarm, the oldest first, bounded."""
        self._kept: dict[tuple[int, int], tuple[float, AlarmList]] = {}
        """What was asked for last, and when it was made: a flood is sorted once for all who look."""
        self._forgotten = [0] * PRIORITY_LOWEST
        self._opened: deque[tuple[int, str]] = deque(maxlen=RECENT_MAX)
        """When an alarm opened, and its id: the newest ones."""
        self._positions: dict[str, Position | None] = {}
        self._listeners: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="serve-alarms", daemon=True)

    def start(self) -> None:
        """Begin to follow the log."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until what was durable at the start has been read."""
        return self._caught_up.wait(timeout_s)

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, on the following thread, whenever something changed; returns the unsubscriber."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def alarms(self, *, open_max: int = PUSHED_OPEN_MAX, closed_max: int = PUSHED_CLOSED_MAX) -> AlarmList:
        """Open alarms, unacknowledged ones first, by priority, newest first, then those that closed last.

        As they were a moment ago at the earliest.
        """
        asked, now_s = (open_max, closed_max), time.monotonic()
        kept = self._kept.get(asked)
        if kept is not None and kept[1].revision == self.revision and now_s - kept[0] < KEPT_S:
            return kept[1]
        made = self._made(open_max, closed_max)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[asked] = (now_s, made)
        return made

    def find(self, alerts: Iterable[str]) -> list[AlarmInfo]:
        """The alarms of these ids that it knows, each once, a group followed by the open ones that are linked to it."""
        with self._lock:
            closed = {alarm.alert: alarm for alarm in self._closed}
            found: dict[str, AlarmInfo] = {}
            for alert in alerts:
                alarm = self._open.get(alert) or closed.get(alert)
                if alarm is None:
                    continue
                found[alert] = alarm
                if alarm.count:
                    found |= {one.alert: one for one in self._open.values() if one.group == alert}
            return list(found.values())

    def _made(self, open_max: int, closed_max: int) -> AlarmList:
        running = set(self._flows())
        with self._lock:
            found = sorted(
                (
                    alarm
                    if not running or alarm.flow in running
                    else msgspec.structs.replace(alarm, watched=False)
                    for alarm in self._open.values()
                ),
                key=_order,
            )
            closed = [self._closed[-1 - place] for place in range(min(closed_max, len(self._closed)))]
            revision, forgotten = self.revision, list(self._forgotten)
            told = [alarm for alarm in found if alarm.watched and alarm.group not in self._open]
            since_ms = self._clock_ns() // 1_000_000 - RECENT_MS
            recent = [alert for opened_ms, alert in self._opened if opened_ms >= since_ms]
            grouped = {alarm.alert for alarm in (*self._open.values(), *self._closed) if alarm.group}
        counts, unacknowledged = forgotten.copy(), forgotten.copy()
        for alarm in told:
            counts[alarm.priority - 1] += 1
            unacknowledged[alarm.priority - 1] += alarm.acknowledged is None
        listed = found[:open_max]
        rate = sum(alert not in grouped for alert in recent)
        more = len(found) + sum(forgotten) - len(listed)
        return AlarmList(revision, counts, more, rate, listed + closed, unacknowledged)

    # The thread

    def _follow(self) -> None:
        unsubscribe = self._on_durable(self._wake.set)
        try:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    changed = self._read()
                except LogClosedError:
                    return
                except (LogError, OSError) as error:
                    _log.warning("alarms cannot be read at the moment: %s", error)
                    self._stop.wait(AGAIN_S)
                    continue
                self._caught_up.set()
                if changed:
                    for listener in list(self._listeners):
                        listener()
                if self._stop.wait(STEP_S):
                    return
                self._wake.wait()
        finally:
            unsubscribe()
            self._caught_up.set()

    def _read(self) -> bool:
        """What came since the last look; whether an alarm changed."""
        before = self.revision
        for state in self._log.streams():
            name = state.stream.name
            if state.stream.kind is not StreamKind.EVENT or name == EVENTS:
                continue
            if state.last == self._positions.get(name):
                continue
            try:
                for frame in self._log.read(name, after=self._positions.get(name)):
                    self._take(frame)
                    self._positions[name] = frame.position
                    if self._stop.is_set():
                        return False
            except PositionGoneError:  # retention was faster: what is left is read from its beginning
                self._positions[name] = None
        return self.revision != before

    def _take(self, frame: Frame) -> None:
        rows = frame.rows
        chosen = rows.filter(pa.compute.starts_with(rows.column("type"), _PREFIX))
        if not chosen.num_rows:
            return
        times = ns_of(chosen.column("time")).tolist()
        columns = zip(
            chosen.column("type").to_pylist(),
            chosen.column("subject").to_pylist(),
            times,
            chosen.column("data").to_pylist(),
            strict=True,
        )
        with self._lock:
            for kind, subject, time_ns, data in columns:
                if kind == ACKNOWLEDGED:
                    self._acknowledge(acknowledgement_of(data), time_ns)
                    continue
                alarm = alarm_of(data)
                if alarm is not None and 1 <= alarm.priority <= PRIORITY_LOWEST:
                    self._change(kind, _info(alarm, kind, subject or "", time_ns, frame.stream))

    def _change(self, kind: str, info: AlarmInfo) -> None:
        if info.alert in self._done:
            return
        self.revision += 1
        if info.alert in self._acknowledged:
            info = _acknowledged(info, self._acknowledged[info.alert])
        if kind == AlarmType.OPENED:
            self._opened.append((info.opened_ms, info.alert))
        if kind == AlarmType.CLOSED:
            known = self._open.pop(info.alert, None)
            if known is None and self._forgotten[info.priority - 1]:
                self._forgotten[info.priority - 1] -= 1
            self._closed.append(info)
            self._done[info.alert] = None
            if len(self._done) > 4 * CLOSED_MAX:
                del self._done[next(iter(self._done))]
            return
        self._open[info.alert] = info
        if len(self._open) > OPEN_MAX:
            last = max(self._open.values(), key=lambda alarm: (alarm.priority, -alarm.opened_ms))
            del self._open[last.alert]
            self._forgotten[last.priority - 1] += 1

    def _acknowledge(self, found: Acknowledgement | None, time_ns: int) -> None:
        """Somebody acknowledged an alarm; the first one counts."""
        if found is None or found.alert in self._acknowledged:
            return
        self.revision += 1
        told = AcknowledgedInfo(found.by, time_ns // 1_000_000, found.note)
        self._acknowledged[found.alert] = told
        if len(self._acknowledged) > ACKNOWLEDGED_MAX:
            del self._acknowledged[next(iter(self._acknowledged))]
        if found.alert in self._open:
            self._open[found.alert] = _acknowledged(self._open[found.alert], told)
            return
        for place, alarm in enumerate(self._closed):
            if alarm.alert == found.alert:
                self._closed[place] = _acknowledged(alarm, told)
                return


def _order(alarm: AlarmInfo) -> tuple[bool, bool, int, int, str]:
    """What needs somebody first: what nobody has acknowledged, by priority, the newest first; what nobody watches last."""
    return (
        not alarm.watched,
        alarm.acknowledged is not None,
        alarm.priority,
        -alarm.opened_ms,
        alarm.alert,
    )


def _acknowledged(info: AlarmInfo, told: AcknowledgedInfo) -> AlarmInfo:
    annunciation = Annunciation.of(active=info.closed_ms is None, acknowledged=True)
    return msgspec.structs.replace(info, acknowledged=told, annunciation=annunciation)


def _info(alarm: Alarm, kind: str, subject: str, time_ns: int, stream: str) -> AlarmInfo:
    closed_ms = time_ns // 1_000_000 if kind == AlarmType.CLOSED else None
    return AlarmInfo(
        alert=alarm.alert,
        state="open" if closed_ms is None else "closed",
        priority=alarm.priority,
        subject=subject,
        text=alarm.text,
        condition=alarm.condition,
        flow=alarm.flow,
        since_ms=_ms(alarm.since, time_ns),
        opened_ms=_ms(alarm.opened, time_ns),
        updated_ms=time_ns // 1_000_000,
        closed_ms=closed_ms,
        value=alarm.value,
        limit=alarm.limit,
        worst=alarm.worst,
        unit=alarm.unit,
        place=alarm.place,
        device=alarm.device,
        group=alarm.group,
        note=alarm.note,
        members=[AlarmMemberInfo(member.subject, member.alert) for member in alarm.members],
        count=alarm.count,
        standing=alarm.standing,
        suppressed=alarm.suppressed,
        annunciation=Annunciation.of(active=closed_ms is None, acknowledged=False),
        stream=stream,
    )


def _ms(text: str, other_ns: int) -> int:
    try:
        return instant_ns(text) // 1_000_000
    except ValueError:
        return other_ns // 1_000_000
