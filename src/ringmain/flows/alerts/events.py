"""Events of alarms as rows of a stream, and back: one form for whoever tells something of an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.block import arrow
from ringmain.model.alarm import Alarm, AlarmType
from ringmain.model.schemas import EVENT, TIMESTAMP

_JSON = "application/json"


@dataclass(slots=True)
class AlarmEvent:
    """One event: the `number`-th of its alert, from 0; `time_ns`: when it happened, ns UTC."""

    alert: str
    number: int
    type: AlarmType
    subject: str
    time_ns: int
    alarm: Alarm

    @property
    def id(self) -> str:
        """Of the event, among those of its source."""
        return f"{self.alert}-{self.number}"


def source_of(flow: str) -> str:
    """The source of a flow's events."""
    return f"flow/{flow}"


def number_of(event_id: str) -> int:
    """Which event of its alert an id names, from 0; -1 for an id of another form."""
    number = event_id.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else -1


def event_rows(flow: str, events: Sequence[AlarmEvent]) -> pa.RecordBatch:
    """Events of a flow as rows."""
    columns = [
        pa.array([event.id for event in events], pa.string()),
        pa.array([source_of(flow)] * len(events), pa.string()),
        pa.array([event.type.value for event in events], pa.string()),
        pa.array([event.subject for event in events], pa.string()),
        arrow(np.array([event.time_ns for event in events], np.int64), TIMESTAMP),
        pa.array([_JSON] * len(events), pa.string()),
        pa.array([msgspec.json.encode(event.alarm) for event in events], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)
