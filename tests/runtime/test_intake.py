"""What a source hands over is stored once, in order, and acknowledged only when it is durable."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import FencedError, Log, LogClosedError
from ringmain.model.catalogue import SeriesAttributes
from ringmain.runtime.account import reason_class
from ringmain.runtime.contract import Columns, Happening, Letter, Submission
from ringmain.runtime.counters import Counters
from ringmain.runtime.intake import SourceIntake
from ringmain.runtime.status import StorageState
from tests.runtime.disk import TestDisk


class Room:
    """A log on a test disk, and what an intake needs."""

    def __init__(self, directory: Path) -> None:
        self.disk = TestDisk()
        self.directory = directory
        self.log: Log = open_log(directory, fs=self.disk)
        self.registry = SeriesRegistry(self.log)
        self.counters = Counters()
        self.done: list[str] = []

    def intake(self, **bounds: int) -> SourceIntake:
        return SourceIntake("field", self.log, self.registry, self.counters, **bounds)

    def submission(self, name: str, values: int = 1, *, series: str = "a", **parts: object) -> Submission:
        number = self.registry.register("field", series, SeriesAttributes())
        columns = Columns(
            np.full(values, number, np.uint32),
            np.arange(values, dtype=np.int64),
            np.arange(values, dtype=np.float64),
            np.zeros(values, np.uint16),
        )
        return Submission(
            durable=lambda: self.done.append(name),
            columns=columns if values else None,
            received=1,
            **parts,  # type: ignore[arg-type]
        )

    def rows(self, stream: str = "readings") -> int:
        return sum(frame.row_count for frame in self.log.read(stream))

    def frames(self, stream: str = "readings") -> list[int]:
        return [frame.row_count for frame in self.log.read(stream)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "data")
    yield room
    room.disk.mend()
    room.disk.release()
    room.log.close()


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (conditions of other threads)
            await asyncio.sleep(0.002)


def test_a_submission_is_stored_and_then_called_durable(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("one", 3))
        assert room.done == []
        await intake.drained()
        assert room.done == ["one"]
        assert room.frames() == [3]

    asyncio.run(scenario())


def test_nothing_is_called_durable_before_the_sync_that_covers_it_has_returned(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        room.disk.hold()
        intake.submit(room.submission("one"))
        await until(room.disk.waiting.is_set)
        for _ in range(50):
            await asyncio.sleep(0)
        assert room.done == []
        room.disk.release()
        await until(lambda: room.done == ["one"])

    asyncio.run(scenario())


def test_what_comes_while_a_sync_is_under_way_goes_into_one_append(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        room.disk.hold()
        intake.submit(room.submission("0"))
        await until(room.disk.waiting.is_set)
        for number in range(1, 101):
            intake.submit(room.submission(str(number), 2))
        room.disk.release()
        await intake.drained()
        assert room.done == [str(number) for number in range(101)]
        assert room.frames() == [1, 200]

    asyncio.run(scenario())


def test_readings_letters_events_and_positions_of_a_submission_are_stored_together(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        letter = Letter("t", b"{", "malformed JSON: at byte 1", 5)
        happening = Happening("1", "will", "meter", 5)
        intake.submit(
            room.submission("one", letters=(letter,), happenings=(happening,), positions={"received": b"\1"})
        )
        await intake.drained()
        offsets = {
            frame.stream: frame.position.offset
            for frame in room.log.read(["readings", "deadletters", "events"])
        }
        assert set(offsets) == {"readings", "deadletters", "events"}
        assert room.log.positions("source/field/") == {"source/field/received": b"\1"}
        tally = intake.tally
        assert (tally.received, tally.readings, tally.letters, tally.events) == (1, 1, 1, 1)
        assert room.counters.value("ringmain_source_letters_total", "field", "malformed JSON") == 1

    asyncio.run(scenario())


def test_a_new_run_finds_the_positions_of_the_last_one(room: Room) -> None:
    async def first() -> None:
        intake = room.intake()
        assert intake.positions() == {}
        intake.submit(room.submission("one", positions={"a/b": b"1", "c": b"2"}))
        intake.submit(room.submission("two", 0, positions={"c": None}))
        await intake.drained()

    async def second() -> None:
        assert room.intake().positions() == {"a/b": b"1"}

    asyncio.run(first())
    asyncio.run(second())


def test_a_submission_of_nothing_is_called_durable_in_its_turn(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("nothing", 0))
        intake.submit(room.submission("one"))
        intake.submit(room.submission("nothing again", 0))
        await intake.drained()
        assert room.done == ["nothing", "one", "nothing again"]

    asyncio.run(scenario())


def test_a_submission_larger_than_a_group_is_stored_whole_and_acknowledged_once(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("large", 400_000))
        await intake.drained()
        assert room.done == ["large"]
        assert room.rows() == 400_000

    asyncio.run(scenario())


def test_the_bounded_queue_tells_the_source_to_stop_and_to_go_on(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake(queue_rows_max=10)
        changes: list[bool] = []
        intake.on_ready(changes.append)
        room.disk.hold()
        for number in range(9):
            intake.submit(room.submission(str(number)))
        assert intake.ready
        intake.submit(room.submission("9"))
        assert not intake.ready
        assert changes == [False]
        waiter = asyncio.ensure_future(intake.wait_ready())
        await until(room.disk.waiting.is_set)
        assert not waiter.done()
        room.disk.release()
        await waiter
        await intake.drained()
        assert changes == [False, True]
        assert intake.queue_rows == 0

    asyncio.run(scenario())


def test_the_queue_is_bounded_in_bytes_too(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake(queue_bytes_max=10_000)
        room.disk.hold()
        letters = tuple(Letter("t", bytes(4096), "r", 1) for _ in range(3))
        intake.submit(room.submission("one", letters=letters))
        assert not intake.ready
        room.disk.release()
        await intake.wait_ready()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("trouble", "state"), [(errno.ENOSPC, StorageState.FULL), (errno.EIO, StorageState.FAILING)]
)
def test_a_full_or_failing_disk_stores_everything_once_when_it_is_well_again(
    room: Room, trouble: int, state: StorageState
) -> None:
    async def scenario() -> None:
        intake = room.intake(queue_rows_max=5)
        intake.submit(room.submission("before"))
        await intake.drained()
        room.disk.trouble = trouble
        for number in range(5):
            intake.submit(room.submission(str(number)))
        await until(lambda: room.disk.refused > 0 and intake.storage is state)
        assert room.done == ["before"]
        assert not intake.ready
        assert room.counters.value("ringmain_source_append_retries_total", "field", state.value) >= 1
        room.disk.mend()
        await intake.drained()
        assert room.done == ["before", "0", "1", "2", "3", "4"]
        assert room.rows() == 6
        assert intake.storage is StorageState.OK
        assert intake.ready

    asyncio.run(scenario())


def test_a_second_owner_ends_the_first_without_any_acknowledgement(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        room.log.claim("source/field")
        intake.submit(room.submission("one"))
        assert isinstance(await intake.ended, FencedError)
        await intake.drained()
        assert room.done == []
        assert not intake.ready
        intake.submit(room.submission("two"))
        await intake.drained()
        assert room.done == []

    asyncio.run(scenario())


def test_a_log_that_closes_ends_the_intake(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        room.log.close()
        intake.submit(room.submission("one"))
        assert isinstance(await intake.ended, LogClosedError)
        assert room.done == []

    asyncio.run(scenario())


def test_a_new_series_is_durable_with_the_first_reading_that_uses_it(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("one", series="plant/p"))
        await intake.drained()
        assert room.registry.unsaved()[0] == []
        entries = [frame.position.offset for frame in room.log.read("catalogue")]
        readings = [frame.position.offset for frame in room.log.read("readings")]
        assert len(entries) == len(readings) == 1
        assert entries[0] < readings[0]

    asyncio.run(scenario())
    room.log.close()
    room.log = open_log(room.directory)
    assert room.log.catalogue().id_of("plant/p") == 0  # type: ignore[attr-defined]


def test_many_new_series_go_ahead_of_the_readings_that_use_them(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        ids = [
            room.registry.register("field", f"district-{number:06d}/{'x' * 100}", SeriesAttributes(unit="W"))
            for number in range(20_000)
        ]
        columns = Columns(
            np.array(ids, np.uint32),
            np.zeros(20_000, np.int64),
            np.zeros(20_000),
            np.zeros(20_000, np.uint16),
        )
        intake.submit(Submission(durable=lambda: room.done.append("one"), columns=columns))
        await intake.drained()
        assert room.done == ["one"]
        assert room.rows("catalogue") == room.rows("readings") == 20_000
        assert room.registry.unsaved()[0] == []

    asyncio.run(scenario())


def test_a_callback_that_raises_is_counted_and_hurts_no_other(room: Room) -> None:
    def broken() -> None:
        raise RuntimeError("gone")

    async def scenario() -> None:
        intake = room.intake()
        intake.submit(Submission(durable=broken))
        intake.submit(room.submission("one"))
        await intake.drained()
        assert room.done == ["one"]
        assert room.counters.value("ringmain_source_callback_errors_total", "field") == 1

    asyncio.run(scenario())


def test_a_source_counts_only_what_is_declared(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        with pytest.raises(LookupError, match="no metric 'nonsense' is declared"):
            intake.count("nonsense")
        with pytest.raises(LookupError, match="expected labels"):
            intake.count("ringmain_source_events_total", colour="red")
        intake.count("ringmain_source_letters_total", 2, reason="x")
        assert room.counters.value("ringmain_source_letters_total", "field", "x") == 2

    asyncio.run(scenario())


def test_letters_are_counted_by_what_was_expected() -> None:
    assert reason_class("element 5: v: expected a number, found the text x") == "expected a number"
    assert (
        reason_class("7 more faults in this message; the next: v") == "more faults in this message; the next"
    )
    assert reason_class("expected JSON, found: an empty payload") == "expected JSON"
    assert (
        reason_class("series 'x': expected unit 'W', which never changes, found 'V'") == "expected unit 'W'"
    )
    assert reason_class("malformed JSON: at byte 7") == "malformed JSON"
    assert reason_class("x" * 500) == "x" * 60
