"""How answers leave the server: structs as JSON, SQL rows as JSON or Arrow; and noticing that nobody waits for one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from ringmain.serve.access import Refused
from ringmain.serve.arrowjson import rows_of
from ringmain.serve.shapes import ColumnInfo, SqlAnswer
from ringmain.serve.sql import SqlResult

ARROW = "application/vnd.apache.arrow.stream"
UNCACHED = {"cache-control": "no-store"}


def as_json(answer: Any, status: int = 200) -> Response:
    """A struct as a JSON answer that no cache keeps."""
    return Response(
        msgspec.json.encode(answer),
        status,
        media_type="application/json",
        headers=UNCACHED,
    )


async def done_or_left(request: Request, work: asyncio.Future[Any]) -> None:
    """Return when `work` is done. Raises Refused when the client leaves before."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(leave())
    both: set[asyncio.Future[Any]] = {work, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if not work.done():
        raise Refused(499, "gone", "the client has left")


def sql_arrow(result: SqlResult) -> Response:
    """Rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, result.table.schema) as writer:
        writer.write_table(result.table)
    headers = {**UNCACHED, "ringmain-truncated": str(result.truncated).lower()}
    return Response(bytes(sink.getvalue()), media_type=ARROW, headers=headers)


def sql_json(result: SqlResult) -> Response:
    """Rows as JSON."""
    columns = [
        ColumnInfo(name, kind) for name, kind in zip(result.table.schema.names, result.types, strict=True)
    ]
    rows = rows_of(result.table)
    return as_json(SqlAnswer(columns, rows, len(rows), result.truncated, round(result.seconds, 6)))
