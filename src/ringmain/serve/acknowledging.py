"""Acknowledging alarms: one Event each, durable, on the stream of the alarm, behind what it answers to.

Promises
    - What is answered as acknowledged is in the log. It survives restarts, travels with the stream, and `alarms.py` and
      every reader of the stream see it at the same place among the alarm's own Events.
    - An alarm is acknowledged once: its Event's id follows from the alarm, and of several the first counts, whoever
      else acknowledges at the same moment.

Left to others: who may do this (`access.py` for HTTP; whoever may write to the log for the command line). `by` is what
they say of themselves: there are no identities yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
import pyarrow as pa

from ringmain.log.interface import Batch, FencedError, Log
from ringmain.model.alarm import ACKNOWLEDGED, Acknowledgement
from ringmain.model.rfc3339 import rfc3339
from ringmain.model.schemas import EVENT, TIMESTAMP
from ringmain.serve.alarms import AlarmBoard
from ringmain.serve.alarmshapes import AcknowledgeAnswer, AlarmInfo

CLAIM = "acknowledgement"
SOURCE = "acknowledgement"
AT_ONCE_MAX = 200
BY_CHARACTERS_MAX = 100
NOTE_CHARACTERS_MAX = 500
_TRIES = 20
_one_at_a_time = threading.Lock()
"""In this process: whoever claims the name meanwhile would fence the one before."""


def checked(name: str, text: str, characters_max: int) -> str:
    """What a person wrote, without spaces around it. Raises ValueError."""
    found = text.strip()
    if not found or len(found) > characters_max or not found.isprintable():
        raise ValueError(f"{name}: expected 1 to {characters_max} printable characters, found {text[:120]!r}")
    return found


def acknowledge(
    log: Log,
    board: AlarmBoard,
    alerts: Sequence[str],
    by: str,
    note: str | None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> AcknowledgeAnswer:
    """Acknowledge alarms by id, a group with those linked to it; answers when that is durable. Raises ValueError, LogError."""
    if not 1 <= len(alerts) <= AT_ONCE_MAX:
        raise ValueError(f"alerts: expected 1 to {AT_ONCE_MAX} ids, found {len(alerts)}")
    by = checked("by", by, BY_CHARACTERS_MAX)
    note = None if note is None or not note.strip() else checked("note", note, NOTE_CHARACTERS_MAX)
    known = board.find(alerts)
    named = {alarm.alert for alarm in known}
    new = [alarm for alarm in known if alarm.acknowledged is None]
    if new:
        _append(log, new, by, note, clock_ns())
    return AcknowledgeAnswer(
        [alarm.alert for alarm in new],
        [alarm.alert for alarm in known if alarm.acknowledged is not None],
        [alert for alert in dict.fromkeys(alerts) if alert not in named],
    )


def _append(log: Log, alarms: Iterable[AlarmInfo], by: str, note: str | None, now_ns: int) -> None:
    by_stream: dict[str, list[AlarmInfo]] = {}
    for alarm in alarms:
        by_stream.setdefault(alarm.stream, []).append(alarm)
    batches = [Batch(stream, _rows(found, by, note, now_ns)) for stream, found in by_stream.items()]
    with _one_at_a_time:
        for left in reversed(range(_TRIES)):
            try:
                log.append(batches, claim=log.claim(CLAIM), sequence=1)
            except FencedError:  # another program acknowledges at this moment
                if not left:
                    raise
            else:
                return


def _rows(alarms: Sequence[AlarmInfo], by: str, note: str | None, now_ns: int) -> pa.RecordBatch:
    count, at = len(alarms), rfc3339(now_ns)
    data = [
        Acknowledgement(alarm.alert, alarm.flow, by, at, alarm.priority, alarm.text, note) for alarm in alarms
    ]
    columns = [
        pa.array([f"{alarm.alert}-acknowledged" for alarm in alarms], pa.string()),
        pa.array([SOURCE] * count, pa.string()),
        pa.array([ACKNOWLEDGED] * count, pa.string()),
        pa.array([alarm.subject for alarm in alarms], pa.string()),
        pa.array([now_ns] * count, pa.int64()).view(TIMESTAMP),
        pa.array(["application/json"] * count, pa.string()),
        pa.array([msgspec.json.encode(one) for one in data], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)
