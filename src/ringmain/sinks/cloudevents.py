"""Events as CloudEvents 1.0 in JSON (the format's structured mode): what the webhook sends.

A row of an Event stream has the attributes already; `data` that is JSON goes in as it is, other data as base64. The
extension `ringmainnode` names the node, so that events of several nodes are told apart.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pyarrow as pa

from ringmain.model.rfc3339 import rfc3339

ONE = "application/cloudevents+json"
SEVERAL = "application/cloudevents-batch+json"


class CloudEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. The attributes are those of CloudEvents 1.0, section 3."""

    id: str
    source: str
    type: str
    specversion: str
    time: str
    ringmainnode: str
    subject: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw | str | None = None
    data_base64: str | None = None


def events_of(rows: pa.RecordBatch, node: str) -> list[CloudEvent]:
    """The events of rows with the schema `model.schemas.EVENT`."""
    times = rows.column("time").cast(pa.int64()).to_pylist()
    return [
        _event(row, time_ns, node)
        for row, time_ns in zip(rows.drop_columns(["time"]).to_pylist(), times, strict=True)
    ]


def _event(row: dict[str, Any], time_ns: int, node: str) -> CloudEvent:
    data: msgspec.Raw | None = None
    other: str | None = None
    if row["data"] is not None:
        data = _json(row["data"], row["datacontenttype"])
        other = None if data is not None else base64.b64encode(row["data"]).decode()
    return CloudEvent(
        id=row["id"],
        source=row["source"],
        type=row["type"],
        specversion="1.0",
        time=rfc3339(time_ns),
        ringmainnode=node,
        subject=row["subject"],
        datacontenttype=row["datacontenttype"],
        data=data,
        data_base64=other,
    )


def _json(data: bytes, content_type: str | None) -> msgspec.Raw | None:
    """The data as they are where they are JSON."""
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return None
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.Raw(data)
