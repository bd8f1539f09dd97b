"""A process that forks with an open log: the log stays the parent's, and the child is told so instead of waiting."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from ringmain.log import connect_log, open_log
from ringmain.log.interface import LogError
from ringmain.log.journal import Journal
from ringmain.log.socket.remote import RemoteLog
from tests.log.batches import reading_batch, values


def _in_a_fork(act: Callable[[], str]) -> str:
    """What `act` gives in a child of this process; empty where it does not end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, act().encode())
        finally:
            os._exit(0)
    os.close(writing)
    ended, _, _ = select.select([reading], [], [], 20)
    told = os.read(reading, 4096).decode() if ended else ""
    os.close(reading)
    if not ended:
        os.kill(child, 9)
    os.waitpid(child, 0)
    return told


@pytest.mark.parametrize("engine", ["journal", "remote"])
def test_a_fork_is_told_that_the_log_is_its_parents_and_leaves_it_alone(tmp_path: Path, engine: str) -> None:
    with open_log(tmp_path / "log") as journal:
        journal.listen()
        log: Journal | RemoteLog = connect_log(tmp_path / "log") if engine == "remote" else journal
        claim = log.claim("a")
        log.append([reading_batch(1)], claim=claim, sequence=1)

        def child() -> str:
            told = []
            for call in (
                lambda: log.append([reading_batch(1)], claim=claim, sequence=2),
                lambda: log.claim("b"),
            ):
                try:
                    call()
                except LogError as error:
                    told.append("forked" if "forked" in str(error) else str(error))
            log.append_nowait(
                [reading_batch(1)], lambda _, error: told.append(str(error)[-4:]), claim=claim, sequence=2
            )
            log.close()
            return " ".join(told)

        assert _in_a_fork(child) == "forked forked here"
        log.append([reading_batch(1)], claim=claim, sequence=2)
        assert len(values(log.read("readings"))) == 2
        log.close()
    with open_log(tmp_path / "log") as again:
        assert len(values(again.read("readings"))) == 2
