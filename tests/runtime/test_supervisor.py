"""Sources run beside each other, come back after trouble, and end with everything stored."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Log
from ringmain.model.catalogue import SeriesAttributes
from ringmain.runtime.contract import Columns, Intake, SourceError, Submission
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceState, SourceStatus
from ringmain.runtime.supervisor import Backoff, Supervisor, describe
from tests.conftest import wait_until
from tests.runtime.disk import TestDisk

QUICK = Backoff(first_s=0.01, last_s=0.02)


class Room:
    def __init__(self, directory: Path) -> None:
        self.disk = TestDisk()
        self.log: Log = open_log(directory, fs=self.disk)
        self.registry = SeriesRegistry(self.log)
        self.counters = Counters()
        self.supervisor = Supervisor(self.log, self.registry, self.counters)
        self.series = self.registry.register("quiet", "a", SeriesAttributes())

    def status(self, name: str) -> SourceStatus:
        return next(status for status in self.supervisor.statuses() if status.name == name)

    def reading(self, durable: Callable[[], None]) -> Submission:
        columns = Columns(
            np.array([self.series], np.uint32),
            np.array([1], np.int64),
            np.array([1.0]),
            np.array([0], np.uint16),
        )
        return Submission(durable=durable, columns=columns, received=1)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "data")
    yield room
    room.disk.mend()
    room.disk.release()
    room.supervisor.stop(60)
    room.log.close()


class Quiet:
    """Serves until cancelled, submitting what the test asks for, and acknowledges like a real source."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.acknowledged: list[int] = []
        self.closed_with: list[int] | None = None
        self.submit: Callable[[int], None] = lambda number: None

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()

        def submit(number: int) -> None:
            reading = self.room.reading(lambda: self.acknowledged.append(number))
            loop.call_soon_threadsafe(intake.submit, reading)

        self.submit = submit
        started("127.0.0.1:1")
        try:
            await asyncio.Event().wait()
        finally:
            await intake.drained()
            self.closed_with = list(self.acknowledged)


class Raising:
    """Raises so many times, then serves."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.left = times
        self.runs = 0

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        self.runs += 1
        if self.left:
            self.left -= 1
            raise self.error
        started("here")
        await asyncio.Event().wait()


def test_a_source_that_raises_is_started_again_and_hurts_no_other(room: Room) -> None:
    quiet, raising = Quiet(room), Raising(SourceError("no broker", "start it"), times=3)
    room.supervisor.add("quiet", "test", quiet)
    room.supervisor.add("raising", "test", raising, backoff=QUICK)
    room.supervisor.start()
    assert room.supervisor.wait_started(60) == []
    status = room.status("raising")
    assert (status.state, status.restarts, status.address) == (SourceState.RUNNING, 3, "here")
    assert status.last_error == "no broker: start it"
    assert raising.runs == 4
    assert room.status("quiet").restarts == 0
    assert room.counters.value("ringmain_source_restarts_total", "raising") == 3
    assert room.counters.value("ringmain_source_running", "quiet") == 1


def test_a_source_that_cannot_start_shows_why_and_what_to_do(room: Room) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:

        class Listener:
            async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
                await asyncio.start_server(lambda r, w: None, "127.0.0.1", taken.getsockname()[1])

        room.supervisor.add("field", "test", Listener(), backoff=Backoff(first_s=60))
        room.supervisor.start()
        wait_until(lambda: room.status("field").state is SourceState.BACKOFF)
        (late,) = room.supervisor.wait_started(0)
        assert late.last_error is not None
        assert "address already in use" in late.last_error
        assert "stop the program that listens there" in late.last_error
        assert room.supervisor.stop() == []
        assert room.status("field").state is SourceState.STOPPED


def test_a_source_that_ends_by_itself_is_started_again(room: Room) -> None:
    class Ending:
        async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
            return

    room.supervisor.add("ending", "test", Ending(), backoff=QUICK)
    room.supervisor.start()
    wait_until(lambda: room.status("ending").restarts >= 2)
    assert room.status("ending").last_error == "RuntimeError: the source ended by itself"


def test_stop_waits_until_everything_is_stored_and_acknowledged(room: Room) -> None:
    quiet = Quiet(room)
    room.supervisor.add("quiet", "test", quiet)
    room.supervisor.start()
    assert room.supervisor.wait_started(60) == []
    room.disk.hold()
    for number in range(10):
        quiet.submit(number)
    assert room.disk.waiting.wait(60)
    left: list[list[str]] = []
    stopping = threading.Thread(target=lambda: left.append(room.supervisor.stop(60)))
    stopping.start()
    assert quiet.acknowledged == []
    room.disk.release()
    stopping.join(60)
    assert left == [[]]
    assert quiet.closed_with == list(range(10))
    assert room.status("quiet").state is SourceState.STOPPED
    assert room.status("quiet").readings == 10


def test_stop_gives_up_in_time_when_nothing_can_be_stored_and_acknowledges_nothing(room: Room) -> None:
    quiet = Quiet(room)
    room.supervisor.add("quiet", "test", quiet)
    room.supervisor.start()
    assert room.supervisor.wait_started(60) == []
    room.disk.fill()
    quiet.submit(1)
    wait_until(lambda: room.status("quiet").queue_rows == 1)
    assert room.supervisor.stop(0.2) == ["quiet"]
    assert quiet.acknowledged == []


def test_a_source_that_another_instance_took_over_fails_for_good(room: Room) -> None:
    quiet = Quiet(room)
    room.supervisor.add("quiet", "test", quiet, backoff=QUICK)
    room.supervisor.start()
    assert room.supervisor.wait_started(60) == []
    room.log.claim("source/quiet")
    quiet.submit(1)
    wait_until(lambda: room.status("quiet").state is SourceState.FAILED)
    assert "another instance has taken over this source" in (room.status("quiet").last_error or "")
    assert room.status("quiet").restarts == 0
    assert quiet.acknowledged == []


def test_a_run_begins_only_after_what_the_last_one_submitted_is_durable(room: Room) -> None:
    seen: list[dict[str, bytes]] = []

    class Leaving:
        async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
            seen.append(dict(intake.positions()))
            if len(seen) == 1:
                intake.submit(Submission(durable=lambda: None, positions={"at": b"7"}))
                raise SourceError("lost")
            started("here")
            await asyncio.Event().wait()

    room.supervisor.add("leaving", "test", Leaving(), backoff=QUICK)
    room.supervisor.start()
    assert room.supervisor.wait_started(60) == []
    assert seen == [{}, {"at": b"7"}]


def test_a_full_disk_at_the_start_is_waited_out(room: Room) -> None:
    quiet = Quiet(room)
    room.disk.fill()
    room.supervisor.add("quiet", "test", quiet, backoff=QUICK)
    room.supervisor.start()
    wait_until(lambda: room.status("quiet").state is SourceState.BACKOFF)
    room.disk.mend()
    assert room.supervisor.wait_started(60) == []


def test_the_wait_doubles_up_to_its_limit_and_starts_over_after_a_minute_of_health() -> None:
    backoff = Backoff()
    assert [backoff.failed(0, 0.5) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.failed(59.9, 0.5) == 30
    assert backoff.failed(60, 0.5) == 0.5
    assert backoff.failed(0, 0) == 0.75
    assert backoff.failed(0, 0.999999) == pytest.approx(2.5)


def test_an_error_is_one_line_with_its_remedy() -> None:
    assert describe(SourceError("a broken thing", "mend it")) == "a broken thing: mend it"
    assert describe(ValueError("found 7")) == "ValueError: found 7"
    assert describe(ValueError()) == "ValueError: ValueError"
    assert "use a port above 1023" in describe(OSError(errno.EACCES, "denied"))
    assert "give an address that this machine has" in describe(OSError(errno.EADDRNOTAVAIL, "no"))


def test_two_sources_of_one_name_are_refused(room: Room) -> None:
    room.supervisor.add("quiet", "test", Quiet(room))
    with pytest.raises(ValueError, match="found 'quiet' twice"):
        room.supervisor.add("quiet", "test", Quiet(room))
