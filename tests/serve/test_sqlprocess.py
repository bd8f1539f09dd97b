"""The processes that statements run in: kept while they are of use, ended when a statement has used one up."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from ringmain.log import open_log
from ringmain.serve.sql import SqlError, SqlLimits, SqlMemoryError
from ringmain.serve.sqlprocess import SqlDiedError, SqlProcesses

GREEDY = (
    "select list(range) from range(2000000000)",
    "select repeat('x', 2000000000)",
)
LONG = "select count(*) from range(100000000) a, range(100000) b where a.range < b.range"


def workers() -> set[int]:
    """Processes for SQL that this one started."""
    found = set()
    for child in psutil.Process().children():
        try:
            if "ringmain.serve.sqlworker" in child.cmdline():
                found.add(child.pid)
        except psutil.Error:
            continue
    return found


def test_a_process_in_which_memory_ran_out_gets_no_other_statement(tmp_path: Path) -> None:
    open_log(tmp_path).close()

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=64, threads=1), 100.0)
        try:
            for statement in GREEDY:
                await processes.run("select 1", None, 10)
                before = workers()
                with pytest.raises(SqlError, match="nothing_of_that_name"):
                    await processes.run("select nothing_of_that_name", None, 10)
                await processes.run("select 1", None, 10)
                assert workers() == before, "a statement that is wrong costs no process"
                with pytest.raises(SqlError, match="needs more than the 64 MiB that SQL may use"):
                    await processes.run(statement, None, 10)
                assert (await processes.run("select 1", None, 10)).table.num_rows == 1
                assert not workers() & before, statement
        finally:
            await processes.close()

    asyncio.run(ask())


def test_a_process_that_died_while_it_was_kept_costs_no_statement(tmp_path: Path) -> None:
    open_log(tmp_path).close()

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=64, threads=1), 100.0)
        try:
            await processes.run("select 1", None, 10)
            (kept,) = workers()
            os.kill(kept, signal.SIGKILL)
            assert (await processes.run("select 42 as x", None, 10)).table.to_pylist() == [{"x": 42}]
            assert kept not in workers()
        finally:
            await processes.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("died_of", "kind", "said"),
    [
        (signal.SIGSEGV, SqlDiedError, "died of SIGSEGV: try again"),
        (signal.SIGKILL, SqlDiedError, "died of SIGKILL, as one does when the machine is short of memory"),
        (signal.SIGABRT, SqlMemoryError, "needs more than the 640 MiB"),
    ],
)
def test_what_a_process_died_of_is_said_and_the_next_statement_is_answered(
    tmp_path: Path, died_of: signal.Signals, kind: type[SqlError], said: str
) -> None:
    open_log(tmp_path).close()

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=640, threads=1), 100.0)
        try:
            await processes.run("select 1", None, 10)
            long = asyncio.ensure_future(processes.run(LONG, None, 10))
            killed: set[int] = set()
            while len(killed) < 2:  # the one that was kept, and the fresh one that is asked next
                for pid in workers() - killed:
                    os.kill(pid, died_of)
                    killed.add(pid)
                await asyncio.sleep(0)
                assert not long.done() or len(killed) == 2
            with pytest.raises(kind, match=said):
                await long
            assert (await processes.run("select 1", None, 10)).table.num_rows == 1
        finally:
            await processes.close()

    asyncio.run(ask())


def test_a_process_that_cannot_start_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringmain.serve.sqlprocess.sys.executable", "/bin/false")

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=64, threads=1), 100.0)
        with pytest.raises(SqlDiedError, match="ended with status 1; the node's log says why"):
            await processes.run("select 1", None, 10)
        await processes.close()

    asyncio.run(ask())


def test_a_kept_process_that_answers_something_else_is_ended_and_costs_no_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_log(tmp_path).close()
    strange = tmp_path / "strange"
    strange.write_text("#!/bin/sh\nhead -c 64 /dev/zero; exec sleep 100\n")
    strange.chmod(0o755)

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=64, threads=1), 100.0)
        try:
            with monkeypatch.context() as patched:
                patched.setattr("ringmain.serve.sqlprocess.sys.executable", str(strange))
                with pytest.raises(SqlDiedError, match="answered something else: try again"):
                    await processes.run("select 1", None, 10)
                assert not processes._all
                kept = await processes._started()
            processes._idle.append(kept)
            assert (await processes.run("select 42 as x", None, 10)).table.to_pylist() == [{"x": 42}]
            async with asyncio.timeout(10):
                assert await kept.wait() == -signal.SIGKILL
        finally:
            await processes.close()

    asyncio.run(ask())


def test_closing_ends_a_statement_that_runs_and_starts_nothing(tmp_path: Path) -> None:
    open_log(tmp_path).close()

    async def ask() -> None:
        processes = SqlProcesses(tmp_path, SqlLimits(memory_mib=640, threads=1), 100.0)
        await processes.run("select 1", None, 10)
        long = asyncio.ensure_future(processes.run(LONG, None, 10))
        await asyncio.sleep(0)
        assert not processes._idle, "the statement has its process"
        await processes.close()
        with pytest.raises(SqlError):
            await long
        assert not workers()
        assert not processes._all

    asyncio.run(ask())
