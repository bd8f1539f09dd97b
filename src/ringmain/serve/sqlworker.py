"""The process in which one SQL statement at a time runs for the server: `python -m ringmain.serve.sqlworker`.

A statement may ask for more memory or time than DuckDB's own limits catch (`SELECT repeat('x', 4000000000)`). Here it
can exhaust nothing but this process, whose address space is limited, and which the server kills when it does not
come back in time. It also keeps DuckDB out of the process that acknowledges, and stands back behind it for processor,
disk and memory. Reading the log needs no help from the
node: it is opened read-only.

Each message on standard input and output is a length (8 bytes, little endian) and so many bytes: a `Request` or a
`Reply` in MessagePack, and behind a reply the rows as an Arrow IPC stream, with a length of their own.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from typing import Any, BinaryIO

import msgspec

from ringmain.runtime.priority import yield_disk, yield_memory, yield_processor

NICE = 15
OUT_OF_MEMORY_SCORE = 600
LENGTH = struct.Struct("<Q")
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

_BESIDE_SQL_BYTES = 1536 * 1024 * 1024
"""Address space beside what DuckDB may use: libraries, thread stacks, the result twice."""


class Request(msgspec.Struct, frozen=True):
    """A statement and its limits. `parameters` are JSON values."""

    statement: str
    parameters: list[Any] | dict[str, Any] | None
    limit: int
    timeout_s: float


class Reply(msgspec.Struct, frozen=True):
    """What became of it: `failure` names the kind of error, `message` says what; else the rows follow.

    `spent`: memory ran out, or nobody knows what happened; the process should get no other statement.
    """

    failure: str | None = None
    message: str = ""
    types: tuple[str, ...] = ()
    truncated: bool = False
    seconds: float = 0.0
    spent: bool = False


def main(directory: str, memory_mib: int, threads: int) -> None:
    """Answer requests until standard input ends."""
    limit = (memory_mib << 20) + _BESIDE_SQL_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    yield_processor(NICE)
    yield_disk()
    yield_memory(OUT_OF_MEMORY_SCORE)
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the messages
    answer = _answerer(directory, memory_mib, threads)
    while (request := _read(incoming)) is not None:
        reply, rows = answer(request)
        encoded = msgspec.msgpack.encode(reply)
        outgoing.write(LENGTH.pack(len(encoded)) + encoded + LENGTH.pack(len(rows)))
        outgoing.write(rows)
        outgoing.flush()


def _read(incoming: BinaryIO) -> Request | None:
    head = incoming.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    return msgspec.msgpack.decode(incoming.read(length), type=Request)


def _answerer(directory: str, memory_mib: int, threads: int) -> Any:
    import pyarrow as pa

    from ringmain.log import open_reader
    from ringmain.log.interface import LogError
    from ringmain.serve.sql import SqlEngine, SqlError, SqlLimits, SqlMemoryError

    engine: SqlEngine | None = None

    def answer(request: Request) -> tuple[Reply, Any]:
        nonlocal engine
        try:
            if engine is None:
                reader = open_reader(directory)
                engine = SqlEngine(reader, reader.catalogue(), SqlLimits(memory_mib, threads))
            result = engine.query(
                request.statement, request.parameters, limit=request.limit, timeout_s=request.timeout_s
            )
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, result.table.schema) as writer:
                writer.write_table(result.table)
        except (SqlMemoryError, MemoryError):
            return Reply("SqlError", str(SqlMemoryError(memory_mib)), spent=True), b""
        except (SqlError, LogError) as error:
            return Reply(type(error).__name__, str(error)), b""
        except Exception as error:
            no_room_for_a_stack = isinstance(error, RuntimeError) and "start new thread" in str(error)
            told = SqlMemoryError(memory_mib) if no_room_for_a_stack else f"{type(error).__name__}: {error}"
            return Reply("SqlError", str(told), spent=True), b""
        return Reply(None, "", result.types, result.truncated, result.seconds), sink.getvalue()

    return answer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
