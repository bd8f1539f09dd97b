"""SQL for the server, in processes of its own (`sqlworker.py`): started when asked for, ended when idle.

A statement that does not come back in time, or whose client leaves, ends with its process; so does a process that ran
out of memory, since what a large statement leaves behind in it (address space that DuckDB's allocator keeps) may be too
much for the next one, however small. A process that was kept and dies may have died of anything, so its statement is
asked of a fresh one; what dies with that is told as what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import ringmain
from ringmain.serve.sql import SqlError, SqlLimits, SqlMemoryError, SqlResult, SqlTimeoutError
from ringmain.serve.sqlworker import LENGTH, MESSAGE_BYTES_MAX, Reply, Request

PROCESSES = 2
IDLE_S = 60.0
START_S = 10.0
GRACE_S = 1.0
QUEUE_S = 5.0

_KINDS = {"SqlTimeoutError": SqlTimeoutError}
_DIED = (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError)


class SqlBusyError(SqlError):
    """All processes are at work, and have been for a while."""


class SqlDiedError(SqlError):
    """The process that a statement ran in died, and not for want of the memory that SQL may use."""


class SqlProcesses:
    """Runs statements over the log in `directory`. Lives on one event loop."""

    def __init__(self, directory: Path, limits: SqlLimits, timeout_s: float) -> None:
        self._directory = directory
        self._limits = limits
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(PROCESSES)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    async def run(
        self, statement: str, parameters: list[Any] | dict[str, Any] | None, limit: int
    ) -> SqlResult:
        """The rows of one statement, at most `limit`. Raises SqlError. Cancelling it ends the statement."""
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._free.acquire()
        except TimeoutError:
            raise SqlBusyError(f"{PROCESSES} statements are running already: try later") from None
        try:
            return await self._run(Request(statement, parameters, limit, self._timeout_s))
        finally:
            self._free.release()

    async def _run(self, request: Request) -> SqlResult:
        process, fresh = await self._process()
        try:
            return await self._run_in(
                process, request, self._timeout_s + GRACE_S + (START_S if fresh else 0.0)
            )
        except _DIED:
            if fresh or self._closed:
                raise await self._died(process) from None
        self._end(process)
        process = await self._started()
        try:
            return await self._run_in(process, request, self._timeout_s + GRACE_S + START_S)
        except _DIED:
            raise await self._died(process) from None

    async def _run_in(
        self, process: asyncio.subprocess.Process, request: Request, timeout_s: float
    ) -> SqlResult:
        try:
            async with asyncio.timeout(timeout_s):
                reply, rows = await self._ask(process, request)
        except TimeoutError:
            self._end(process)
            raise SqlTimeoutError(
                f"the statement took longer than {self._timeout_s:g} s: ask for less, or for a shorter time"
            ) from None
        except _DIED:
            raise  # whoever asked looks what it died of, and ends it
        except BaseException:
            self._end(process)
            raise
        if reply.spent:
            self._end(process)
        else:
            self._idle.append(process)
            self._schedule_reaping()
        if reply.failure is not None:
            raise _KINDS.get(reply.failure, SqlError)(reply.message)
        with pa.ipc.open_stream(rows) as reader:
            return SqlResult(reader.read_all(), reply.types, reply.truncated, reply.seconds)

    async def _died(self, process: asyncio.subprocess.Process) -> SqlError:
        """What a process that closed its pipe died of; one that lives on all the same is ended."""
        try:
            async with asyncio.timeout(GRACE_S):
                status = await process.wait()
        except TimeoutError:
            return SqlDiedError("the process that the statement ran in answered something else: try again")
        finally:
            self._end(process)
        if status == -signal.SIGABRT:  # what an allocation that fails in native code ends in
            return SqlMemoryError(self._limits.memory_mib)
        if status >= 0:
            how = f"ended with status {status}; the node's log says why"
        else:
            how = f"died of {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += ", as one does when the machine is short of memory"
        return SqlDiedError(
            f"the process that the statement ran in {how}: try again, or ask for less at a time"
        )

    async def _ask(self, process: asyncio.subprocess.Process, request: Request) -> tuple[Reply, bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        encoded = msgspec.msgpack.encode(request)
        if len(encoded) > MESSAGE_BYTES_MAX:
            raise SqlError(f"expected a statement and parameters of at most {MESSAGE_BYTES_MAX} bytes")
        process.stdin.write(LENGTH.pack(len(encoded)) + encoded)
        await process.stdin.drain()
        parts = []
        for _ in range(2):
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            parts.append(await process.stdout.readexactly(length))
        return msgspec.msgpack.decode(parts[0], type=Reply), parts[1]

    async def _process(self) -> tuple[asyncio.subprocess.Process, bool]:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process, False
            self._all.discard(process)
        return await self._started(), True

    async def _started(self) -> asyncio.subprocess.Process:
        package = str(Path(ringmain.__file__).parent.parent)
        path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
        limits = self._limits
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "ringmain.serve.sqlworker",
            str(self._directory),
            str(limits.memory_mib),
            str(limits.threads),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"},
            process_group=0,  # Ctrl-C at a terminal is for the node; its priority counts within the node's session
        )
        self._all.add(process)
        return process

    def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    def _schedule_reaping(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)

    def _reap(self) -> None:
        for process in list(self._idle):
            self._end(process)

    async def close(self) -> None:
        """End every process. Idempotent."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        ending = list(self._all)
        for process in ending:
            self._end(process)
        for process in ending:
            await process.wait()
