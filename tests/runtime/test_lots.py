"""Whatever a source submits is cut into appends that the log takes, and nothing of it is lost on the way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log.interface import FRAME_BYTES_MAX, GROUP_BYTES_MAX
from ringmain.model.schemas import DEAD_LETTER, EVENT, MAX_LETTER_PAYLOAD, READING
from ringmain.runtime.contract import Columns, Happening, Letter, Submission
from ringmain.runtime.lots import EVENT_BYTES_MAX, Lot, lots_of, piece_of


def columns(count: int, first: int = 0) -> Columns:
    numbers = np.arange(first, first + count)
    return Columns(
        numbers.astype(np.uint32),
        numbers.astype(np.int64),
        numbers.astype(np.float64),
        np.zeros(count, np.uint16),
    )


def submission(
    readings: int = 0,
    letters: tuple[Letter, ...] = (),
    happenings: tuple[Happening, ...] = (),
    positions: dict[str, bytes | None] | None = None,
    first: int = 0,
) -> Submission:
    return Submission(
        durable=lambda: None,
        columns=columns(readings, first) if readings else None,
        letters=letters,
        happenings=happenings,
        positions=positions or {},
    )


def times(lots: list[Lot]) -> list[int]:
    batches = [batch for lot in lots for batch in lot.batches("s") if batch.stream == "readings"]
    return [value for batch in batches for value in batch.rows.column("series").to_pylist()]


def test_small_submissions_become_one_batch_of_one_lot() -> None:
    lots = lots_of(piece_of(submission(3, first=3 * number)) for number in range(100))
    assert len(lots) == 1
    (batch,) = lots[0].batches("s")
    assert batch.rows.schema == READING
    assert batch.rows.column("series").to_pylist() == list(range(300))


def test_a_submission_larger_than_a_group_is_cut_and_ends_with_its_positions_and_its_callback() -> None:
    one = submission(500_000, (Letter("t", b"x", "r", 1),), positions={"p": b"1"})
    lots = lots_of([piece_of(one)])
    assert len(lots) > 1
    assert times(lots) == list(range(500_000))
    assert [lot.positions() for lot in lots] == [{}] * (len(lots) - 1) + [{"p": b"1"}]
    durable = [piece.durable for lot in lots for piece in lot.pieces]
    assert durable == [None] * (len(durable) - 1) + [one.durable]


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 120_000),
            st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9000), st.integers(1, 3000)), max_size=5),
            st.lists(st.integers(0, 900_000), max_size=2),
        ),
        max_size=8,
    )
)
def test_every_lot_and_batch_respects_the_limits_of_the_log(
    parts: list[tuple[int, list[tuple[str, int, int]], list[int]]],
) -> None:
    submissions = [
        submission(
            readings,
            tuple(Letter(topic * repeat, bytes(size), "r: ü" * repeat, 1) for topic, size, repeat in letters),
            tuple(Happening(f"{index}-{n}", "will", None, 1, bytes(size)) for n, size in enumerate(events)),
        )
        for index, (readings, letters, events) in enumerate(parts)
    ]
    lots = lots_of(piece_of(one) for one in submissions)
    for lot in lots:
        sizes = [batch.rows.nbytes for batch in lot.batches("s")]
        assert sum(sizes) < GROUP_BYTES_MAX - 512 * 1024
        assert all(batch.rows.nbytes < FRAME_BYTES_MAX for batch in lot.batches("s"))
    assert sum(lot.readings for lot in lots) == sum(readings for readings, _, _ in parts)
    kept = sum(1 for lot in lots for _ in lot.letters()) + sum(1 for lot in lots for _ in lot.happenings())
    assert kept == sum(len(letters) + len(events) for _, letters, events in parts)


def test_a_letter_keeps_the_first_bytes_of_its_payload_and_its_full_size() -> None:
    (lot,) = lots_of([piece_of(submission(letters=(Letter("a/b", bytes(5_000_000), "too large", 7_000),)))])
    (batch,) = lot.batches("field")
    assert batch.rows.schema == DEAD_LETTER
    row = batch.rows.to_pylist()[0]
    assert (row["source"], row["topic"], row["reason"]) == ("field", "a/b", "too large")
    assert (len(row["payload"]), row["payload_bytes"]) == (MAX_LETTER_PAYLOAD, 5_000_000)


def test_a_topic_that_utf8_cannot_hold_is_kept_legible() -> None:
    (lot,) = lots_of([piece_of(submission(letters=(Letter("a/\ud800", b"", "not UTF-8", 7),)))])
    assert lot.batches("s")[0].rows.column("topic").to_pylist() == ["a/?"]


def test_an_event_is_stored_with_its_attributes() -> None:
    happening = Happening("1", "will", "meter-7", 5_000, b"gone", "text/plain")
    (lot,) = lots_of([piece_of(submission(happenings=(happening,)))])
    (batch,) = lot.batches("field")
    assert batch.stream == "events"
    assert batch.rows.schema == EVENT
    row = batch.rows.to_pylist()[0]
    assert (row["id"], row["source"], row["type"], row["subject"], row["data"]) == (
        "1",
        "field",
        "will",
        "meter-7",
        b"gone",
    )


def test_an_event_too_large_for_a_frame_becomes_a_dead_letter_with_its_size() -> None:
    happening = Happening("1", "will", "meter-7", 5_000, bytes(EVENT_BYTES_MAX + 1))
    (lot,) = lots_of([piece_of(submission(happenings=(happening,)))])
    (batch,) = lot.batches("field")
    assert batch.stream == "deadletters"
    row = batch.rows.to_pylist()[0]
    assert row["topic"] == "meter-7"
    assert row["payload_bytes"] == EVENT_BYTES_MAX + 1
    assert row["reason"].startswith("event too large: expected at most")


def test_the_last_value_of_a_position_counts() -> None:
    pieces = [
        piece_of(submission(positions={"a": b"1", "b": b"1"})),
        piece_of(submission(positions={"a": None})),
    ]
    (lot,) = lots_of(pieces)
    assert lot.positions() == {"a": None, "b": b"1"}


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_lot_can_be_halved_until_single_rows_are_left(readings: int, letters: int, events: int) -> None:
    one = submission(
        readings,
        tuple(Letter(f"t{n}", b"", "r", n) for n in range(letters)),
        tuple(Happening(f"{n}", "e", None, n) for n in range(events)),
        {"p": b"1"},
    )
    (lot,) = lots_of([piece_of(one)])
    left, single = [lot], []
    while left:
        first = left.pop(0)
        halves = first.halves()
        if halves is None:
            single.append(first)
        else:
            left[:0] = halves
    assert times(single) == list(range(readings))
    assert [letter.topic for part in single for letter in part.letters()] == [f"t{n}" for n in range(letters)]
    assert [event.id for part in single for event in part.happenings()] == [f"{n}" for n in range(events)]
    assert [part.positions() for part in single if part.positions()] == [{"p": b"1"}]
    assert sum(piece.durable is not None for part in single for piece in part.pieces) == 1
    assert single[-1].pieces[-1].durable is one.durable
