"""Alarms in a log, for tests of the sinks that carry them out."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from ringmain.log.interface import Batch, StreamKind
from ringmain.model.alarm import Alarm, AlarmType
from ringmain.model.schemas import EVENT, TIMESTAMP
from tests.runtime.sink_rig import SECOND, Room

START = 1_750_000_000 * SECOND


def alarm(number: int, **change: object) -> Alarm:
    """An alarm like others."""
    found = Alarm(
        alert=f"a{number}",
        flow="hot",
        priority=2,
        text="too hot",
        condition="above 90",
        since="2025-06-15T15:06:40Z",
        opened="2025-06-15T15:06:40Z",
        value=91.5,
        limit=90.0,
        worst=92.0,
        unit="°C",
        place="leipzig/ss-07",
        device="t4",
    )
    return msgspec.structs.replace(found, **change)


def row(
    number: int, kind: AlarmType = AlarmType.OPENED, *, subject: str | None = None, **change: object
) -> dict[str, object]:
    """The event of an alarm."""
    return {
        "id": f"a{number}-0",
        "source": "flow/hot",
        "type": kind.value,
        "subject": subject or f"ss-07/t{number}/oil",
        "time": START + number * SECOND,
        "datacontenttype": "application/json",
        "data": msgspec.json.encode(alarm(number, **change)),
    }


def put(room: Room, *rows: dict[str, object]) -> None:
    """One frame of events on the stream `alarms`."""
    room.log.create_stream("alarms", StreamKind.EVENT, EVENT)
    room.append(Batch("alarms", rows_of(*rows)))


def rows_of(*rows: dict[str, object]) -> pa.RecordBatch:
    """Events as they are stored."""
    columns = [
        pa.array([one[field.name] for one in rows], pa.int64()).view(TIMESTAMP)
        if field.name == "time"
        else pa.array([one[field.name] for one in rows], field.type)
        for field in EVENT
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)
