"""What a source received and handed over is in each of its appends, exactly once, whatever the disk does meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringmain.log.ledger.accountant import Accountant
from ringmain.log.ledger.result import SourceAccount
from ringmain.runtime.account import OTHER_REASON, REASONS_MAX, SourceCounts
from ringmain.runtime.contract import Letter, Messages, Submission
from tests.runtime.test_intake import Room, until


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "data")
    yield room
    room.disk.mend()
    room.disk.release()
    room.log.close()


def account(room: Room, source: str = "field") -> SourceAccount:
    accountant = Accountant(room.log)  # type: ignore[arg-type]
    accountant.advance()
    return next(one for one in accountant.accounts() if one.source == source)


def rows(room: Room) -> list[dict[str, Any]]:
    return [row for frame in room.log.read("accounts") for row in frame.rows.to_pylist()]


def letters(count: int, reason: str = "expected a number, found text") -> tuple[Letter, ...]:
    return tuple(Letter("t", b"x", f"{reason}", 1) for _ in range(count))


def test_every_append_says_how_much_the_source_has_handed_over(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("one", 3))
        await intake.drained()
        intake.submit(room.submission("two", 2, letters=letters(2), rejected=0))
        await intake.drained()
        intake.submit(room.submission("three", 0, letters=letters(1), rejected=1, unacknowledged=1))
        await intake.drained()

    asyncio.run(scenario())
    found = [(r["messages"], r["accepted"], r["rejected"], r["readings"], r["letters"]) for r in rows(room)]
    assert found == [(1, 1, 0, 3, 0), (2, 2, 0, 5, 2), (3, 2, 1, 5, 3)]
    assert [row["reasons"] for row in rows(room)] == [
        [],
        [("expected a number", 2)],
        [("expected a number", 3)],
    ]
    assert len({row["epoch"] for row in rows(room)}) == 1
    assert account(room).closes
    assert account(room).unacknowledged == 1


def test_messages_that_are_ignored_are_written_down_before_they_are_acknowledged(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(Submission(durable=lambda: room.done.append("x"), received=4, ignored=3, dropped=1))
        await intake.drained()
        intake.submit(Submission(durable=lambda: room.done.append("nothing")))
        await intake.drained()

    asyncio.run(scenario())
    assert room.done == ["x", "nothing"]
    (row,) = rows(room)
    assert (row["messages"], row["accepted"], row["ignored"], row["dropped"]) == (4, 0, 3, 1)
    told = account(room)
    assert (told.received, told.ignored, told.dropped, told.closes) == (4, 3, 1, True)
    (dropped,) = room.log.ledger().select(["kind", "source", "rows"]).to_pylist()
    assert dropped == {"kind": "dropped", "source": "field", "rows": 1}


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EIO])
def test_an_append_that_is_tried_again_is_counted_once(room: Room, trouble: int) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("before", 2))
        await intake.drained()
        room.disk.trouble = trouble
        intake.submit(room.submission("during", 5, letters=letters(1)))
        await until(lambda: room.disk.refused > 2)
        room.disk.mend()
        await intake.drained()
        intake.submit(room.submission("after", 1))
        await intake.drained()

    asyncio.run(scenario())
    assert [(row["messages"], row["readings"], row["letters"]) for row in rows(room)] == [
        (1, 2, 0),
        (2, 7, 1),
        (3, 8, 1),
    ]
    assert account(room).closes


def test_a_sync_that_fails_leaves_an_account_that_closes(room: Room) -> None:
    sync = room.disk.fdatasync
    failures = [True]

    def fail_once(handle: int) -> None:
        if failures and room.done:
            failures.clear()
            raise OSError(errno.EIO, "the disk failed")
        sync(handle)

    room.disk.fdatasync = fail_once  # type: ignore[method-assign]

    async def scenario() -> None:
        intake = room.intake()
        for number in range(10):
            intake.submit(room.submission(f"{number}", 2))
            await intake.drained()

    asyncio.run(scenario())
    assert not failures
    assert account(room).readings.found == 20
    assert account(room).closes


def test_a_submission_that_needs_several_appends_counts_its_messages_once(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("large", 200_000))
        await intake.drained()

    asyncio.run(scenario())
    counted = [(row["messages"], row["readings"]) for row in rows(room)]
    assert len(counted) > 1
    assert [messages for messages, _ in counted] == [0] * (len(counted) - 1) + [1]
    assert counted[-1] == (1, 200_000)
    assert account(room).closes


def test_each_start_of_a_source_counts_from_zero_and_the_account_adds_them_up(room: Room) -> None:
    async def run(values: int) -> None:
        intake = room.intake()
        intake.submit(room.submission("x", values))
        await intake.drained()

    for values in (2, 3):
        asyncio.run(run(values))
    assert [row["readings"] for row in rows(room)] == [2, 3]
    assert account(room).readings.handed_over == 5
    assert account(room).closes


def test_messages_of_which_a_source_does_not_say_what_became_are_a_difference(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(Submission(durable=lambda: None, received=5, accepted=2, rejected=1))
        await intake.drained()

    asyncio.run(scenario())
    assert account(room).difference_messages == 2
    assert not account(room).closes


def test_what_was_never_durable_is_in_no_account(room: Room) -> None:
    async def scenario() -> None:
        intake = room.intake()
        intake.submit(room.submission("kept", 1))
        await intake.drained()
        room.disk.hold()
        intake.submit(room.submission("lost", 7))
        await until(room.disk.waiting.is_set)

    asyncio.run(scenario())
    assert account(room).readings.handed_over == 1
    assert account(room).closes


def test_reasons_are_told_apart_up_to_a_bound_with_exact_sums() -> None:
    counts = SourceCounts("field", 1)
    total: dict[str, int] = {}
    for number in range(REASONS_MAX * 3):
        row = counts.next_row(Messages(), readings=0, events=0, letters={f"r{number % 100}": 2, "r0": 1})
        counts.stored(row)
        total.update(row.reasons)
    assert sum(total.values()) == counts.row.letters
    assert OTHER_REASON in total
    assert len(total) <= REASONS_MAX + 1
