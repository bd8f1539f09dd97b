"""The processes that statements run in: kept while they are of use, ended when a statement has used one up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from ringmain.log import open_log
from ringmain.serve.sql import SqlError, SqlLimits
from ringmain.serve.sqlprocess import SqlProcesses

GREEDY = (
    "select list(range) from range(2000000000)",
    "select repeat('x', 2000000000)",
)


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
