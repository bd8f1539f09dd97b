"""What every engine of the log has to do. An engine's test module subclasses `LogContract` and says how to open it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from ringmain.log.interface import (
    FRAME_BYTES_MAX,
    GROUP_BYTES_MAX,
    Appended,
    Batch,
    ConflictError,
    FencedError,
    Frame,
    Log,
    LogClosedError,
    LogError,
    Position,
    PositionGoneError,
    StreamKind,
    TooLargeError,
    UnknownStreamError,
)
from tests.log.batches import NOTE, notes, reading_batch, readings, values
from tests.promises import Fault, Part, promise


class LogContract:
    """Promises of `interface.Log`, one test each."""

    def open(self, directory: Any) -> Log:
        """Open (or reopen) the log in a directory."""
        raise NotImplementedError

    @pytest.fixture
    def log(self, tmp_path: Any) -> Iterator[Log]:
        log = self.open(tmp_path / "log")
        yield log
        log.close()

    # -- append and read -------------------------------------------------------------------------------------

    def test_an_appended_batch_is_read_back_as_it_was(self, log: Log) -> None:
        rows = readings(100, start=1_000, value=0.5)
        appended = log.append([Batch("readings", rows)], claim=log.claim("a"), sequence=1)
        (frame,) = log.read("readings")
        assert frame.rows.equals(rows)
        assert frame.position == appended.position == log.end()
        assert (frame.time_min_ns, frame.time_max_ns, frame.row_count) == (1_000, 1_099, 100)
        assert frame.arrival_ns == appended.arrival_ns == frame.origin_arrival_ns

    def test_frames_come_in_the_order_of_their_appends(self, log: Log) -> None:
        claim = log.claim("a")
        for number in range(20):
            log.append([reading_batch(1, value=number)], claim=claim, sequence=number)
        assert values(log.read("readings")) == list(range(20))

    def test_one_append_reaches_several_streams_with_its_positions(self, log: Log) -> None:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        claim = log.claim("flow")
        batches = [
            reading_batch(2),
            Batch("notes", notes("x", None)),
            Batch("readings", readings(1, value=7)),
        ]
        log.append(batches, claim=claim, sequence=1, positions={"flow": b"here", "flow/slot": b"1"})
        frames = list(log.read(["readings", "notes"]))
        assert [frame.stream for frame in frames] == ["readings", "notes", "readings"]
        assert frames[1].rows.column("text").to_pylist() == ["x", None]
        assert log.positions("flow") == {"flow": b"here", "flow/slot": b"1"}

    def test_a_position_is_removed_by_none(self, log: Log) -> None:
        claim = log.claim("a")
        log.append([], claim=claim, sequence=1, positions={"a/1": b"x", "a/2": b"y"})
        log.append([], claim=claim, sequence=2, positions={"a/1": None})
        assert log.positions() == {"a/2": b"y"}

    def test_reading_goes_on_behind_a_position_and_ends_at_another(self, log: Log) -> None:
        claim = log.claim("a")
        at = [log.append([reading_batch(1, value=n)], claim=claim, sequence=n).position for n in range(6)]
        assert values(log.read("readings", after=at[1])) == [2, 3, 4, 5]
        assert values(log.read("readings", after=at[1], until=at[3])) == [2, 3]
        assert values(log.read("readings", until=at[0])) == [0]
        assert values(log.read("readings", after=at[5])) == []

    def test_reading_can_stop_in_the_middle_of_an_append(self, log: Log) -> None:
        log.append([reading_batch(1, value=n) for n in range(4)], claim=log.claim("a"), sequence=1)
        frames = list(log.read("readings"))
        assert values(log.read("readings", after=frames[1].position)) == [2, 3]

    def test_frames_outside_a_time_range_are_skipped(self, log: Log) -> None:
        claim = log.claim("a")
        for n in range(10):
            log.append([reading_batch(10, start=n * 100, value=n * 10)], claim=claim, sequence=n)
        found = list(log.read("readings", time_min_ns=309, time_max_ns=500))
        assert [frame.time_min_ns for frame in found] == [300, 400, 500]

    def test_no_row_of_a_series_is_missed_when_frames_without_it_are_skipped(self, log: Log) -> None:
        log.create_stream("notes", StreamKind.ROW, NOTE)
        rng, claim = random.Random(5), log.claim("a")
        for n in range(60):
            batches = [
                reading_batch(rng.randrange(7), start=n, value=n * 10) for _ in range(rng.randrange(1, 4))
            ]
            log.append([*batches, Batch("notes", notes("x" * rng.randrange(9)))], claim=claim, sequence=n)
        every = list(log.read("readings"))
        for series in range(8):
            wanted = [frame for frame in every if series in frame.rows.column("series").to_pylist()]
            found = list(log.read("readings", series=series))
            assert [frame for frame in found if series in frame.rows.column("series").to_pylist()] == wanted
        assert len(list(log.read(["readings", "notes"], series=1))) == len(every) + 60

    def test_a_position_is_found_by_arrival_time(self, log: Log) -> None:
        claim = log.claim("a")
        appended = [log.append([reading_batch(1, value=n)], claim=claim, sequence=n) for n in range(5)]
        assert log.find("readings", appended[0].arrival_ns) is None
        position = log.find("readings", appended[3].arrival_ns)
        assert values(log.read("readings", after=position)) == [3, 4]
        assert log.find("readings", appended[4].arrival_ns + 10**12) == appended[4].position

    def test_a_following_reader_gets_what_is_appended_later(self, log: Log) -> None:
        claim = log.claim("a")
        log.append([reading_batch(1, value=0)], claim=claim, sequence=0)
        got: list[float] = []
        more = threading.Event()

        def follow() -> None:
            for frame in log.read("readings", follow=True, timeout_s=30):
                got.extend(values([frame]))
                more.set()
                if len(got) == 5:
                    return

        reader = threading.Thread(target=follow)
        reader.start()
        assert more.wait(20)
        for n in range(1, 5):
            log.append([reading_batch(1, value=n)], claim=claim, sequence=n)
        reader.join(20)
        assert got == [0, 1, 2, 3, 4]

    def test_following_ends_when_nothing_comes_in_time(self, log: Log) -> None:
        log.append([reading_batch(1)], claim=log.claim("a"), sequence=0)
        assert values(log.read("readings", follow=True, timeout_s=0.05)) == [0]

    def test_following_ends_when_the_log_closes(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        log.append([reading_batch(1)], claim=log.claim("a"), sequence=0)
        got = threading.Event()
        frames: list[Frame] = []

        def follow() -> None:
            for frame in log.read("readings", follow=True):
                frames.append(frame)
                got.set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert got.wait(20)
        log.close()
        reader.join(20)
        assert not reader.is_alive()
        assert len(frames) == 1

    def test_the_time_of_first_arrival_is_kept_when_given(self, log: Log) -> None:
        log.append([Batch("readings", readings(1), origin_arrival_ns=123)], claim=log.claim("a"), sequence=0)
        (frame,) = log.read("readings")
        assert frame.origin_arrival_ns == 123
        assert frame.arrival_ns > 123

    def test_cumulative_rows_and_counts_add_up(self, log: Log) -> None:
        claim = log.claim("a")
        for n in range(3):
            log.append([reading_batch(10)], claim=claim, sequence=n)
        assert [frame.cumulative_rows for frame in log.read("readings")] == [10, 20, 30]
        state = next(state for state in log.streams() if state.stream.name == "readings")
        assert (state.rows, state.frames, state.last) == (30, 3, log.end())

    # -- streams ---------------------------------------------------------------------------------------------

    def test_the_built_in_streams_are_there(self, log: Log) -> None:
        names = {state.stream.name for state in log.streams()}
        assert names >= {"readings", "deadletters", "events", "catalogue", "ticks", "ledger", "conflicts"}

    def test_creating_a_stream_again_gives_the_same_one(self, log: Log) -> None:
        first = log.create_stream("notes", StreamKind.ROW, NOTE)
        assert log.create_stream("notes", StreamKind.ROW, NOTE) == first
        with pytest.raises(LogError, match="notes"):
            log.create_stream("notes", StreamKind.EVENT, NOTE)
        with pytest.raises(LogError, match="notes"):
            log.create_stream("notes", StreamKind.ROW, pa.schema([pa.field("x", pa.int64())]))

    def test_unknown_streams_are_refused_by_name(self, log: Log) -> None:
        with pytest.raises(UnknownStreamError, match="nowhere"):
            log.append([Batch("nowhere", notes("x"))], claim=log.claim("a"), sequence=1)
        with pytest.raises(UnknownStreamError, match="nowhere"):
            log.read("nowhere")

    def test_rows_of_another_schema_are_refused_with_both_named(self, log: Log) -> None:
        with pytest.raises(LogError, match=r"expected columns series.*found time"):
            log.append([Batch("readings", notes("x"))], claim=log.claim("a"), sequence=1)

    # -- identity --------------------------------------------------------------------------------------------

    def test_the_same_append_again_is_a_duplicate_and_makes_no_copy(self, log: Log) -> None:
        claim = log.claim("a")
        first = log.append([reading_batch(3)], claim=claim, sequence=5)
        again = log.append([reading_batch(3)], claim=claim, sequence=5)
        assert again.duplicate
        assert not first.duplicate
        assert again.position == first.position
        assert len(list(log.read("readings"))) == 1

    def test_an_older_sequence_is_a_duplicate(self, log: Log) -> None:
        claim = log.claim("a")
        log.append([reading_batch(3)], claim=claim, sequence=5)
        assert log.append([reading_batch(3, value=1)], claim=claim, sequence=4).duplicate
        assert len(list(log.read("readings"))) == 1

    @promise(
        Fault.CLONED_BOX,
        Part.READERS,
        "Readers of the stream never see it; readers of stream `conflicts` do.",
    )
    @promise(
        Fault.CLONED_BOX,
        Part.JOURNAL,
        "The same identity with another body is refused as a conflict and kept in stream `conflicts`, whole.",
    )
    def test_the_same_identity_with_another_body_is_a_conflict_and_kept(self, log: Log) -> None:
        claim = log.claim("box")
        log.append([reading_batch(3)], claim=claim, sequence=5)
        with pytest.raises(ConflictError, match="box"):
            log.append([reading_batch(3, value=9)], claim=claim, sequence=5)
        assert values(log.read("readings")) == [0, 1, 2]
        (conflict,) = log.read("conflicts")
        row = conflict.rows.drop_columns(["time"]).to_pylist()[0]
        assert (row["claim"], row["sequence"], row["stream"], row["rows"]) == ("box", 5, "readings", 3)
        assert log.append([reading_batch(3)], claim=claim, sequence=6).position is not None

    def test_epoch_zero_is_recognised_across_a_reopening(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        log.append([reading_batch(3)], claim=log.claim("importer", epoch=0), sequence=7)
        log.close()
        log = self.open(tmp_path / "log")
        claim = log.claim("importer", epoch=0)
        assert claim.last_sequence == 7
        assert log.append([reading_batch(3)], claim=claim, sequence=7).duplicate
        assert not log.append([reading_batch(3)], claim=claim, sequence=8).duplicate
        assert len(list(log.read("readings"))) == 2
        log.close()

    def test_epoch_zero_is_remembered_while_another_epoch_writes(self, log: Log) -> None:
        log.append([reading_batch(1)], claim=log.claim("a", epoch=0), sequence=7)
        log.append([reading_batch(1)], claim=log.claim("a"), sequence=1)
        back = log.claim("a", epoch=0)
        assert back.last_sequence == 7
        assert log.append([reading_batch(1)], claim=back, sequence=7).duplicate

    def test_a_new_epoch_starts_afresh(self, log: Log) -> None:
        first = log.claim("a")
        log.append([reading_batch(1)], claim=first, sequence=9)
        second = log.claim("a")
        assert second.epoch != first.epoch
        assert second.last_sequence is None
        assert not log.append([reading_batch(1)], claim=second, sequence=0).duplicate

    # -- claims ----------------------------------------------------------------------------------------------

    @promise(
        Fault.CLONED_BOX,
        Part.POSITIONS,
        "Of two owners of one name the newer fences the older: it can move nothing any more.",
    )
    def test_a_later_claim_fences_the_earlier_one(self, log: Log) -> None:
        zombie = log.claim("flow")
        log.append([reading_batch(1)], claim=zombie, sequence=1, positions={"flow": b"1"})
        owner = log.claim("flow")
        assert owner.fence > zombie.fence
        assert owner.positions == {"flow": b"1"}
        with pytest.raises(FencedError, match="flow"):
            log.append([reading_batch(1, value=1)], claim=zombie, sequence=2, positions={"flow": b"2"})
        log.append([reading_batch(1, value=5)], claim=owner, sequence=1, positions={"flow": b"3"})
        assert values(log.read("readings")) == [0, 5]
        assert log.positions("flow") == {"flow": b"3"}

    def test_a_claim_with_the_same_epoch_fences_as_well(self, log: Log) -> None:
        zombie = log.claim("flow", epoch=3)
        owner = log.claim("flow", epoch=3)
        with pytest.raises(FencedError):
            log.append([], claim=zombie, sequence=1)
        log.append([], claim=owner, sequence=1)

    def test_foreign_positions_are_refused(self, log: Log) -> None:
        claim = log.claim("a")
        log.claim("a/b")
        for name in ("b", "ab", "a/b", "a/b/c"):
            with pytest.raises(FencedError, match="position"):
                log.append([reading_batch(1)], claim=claim, sequence=1, positions={name: b"x"})
        assert log.positions() == {}
        assert list(log.read("readings")) == []

    # -- limits ----------------------------------------------------------------------------------------------

    def test_a_frame_beyond_its_limit_is_refused_with_the_limit(self, log: Log) -> None:
        rows = readings(FRAME_BYTES_MAX // 22 + 1)
        with pytest.raises(TooLargeError, match=str(FRAME_BYTES_MAX)):
            log.append([Batch("readings", rows)], claim=log.claim("a"), sequence=1)

    def test_a_group_beyond_its_limit_is_refused_with_the_limit(self, log: Log) -> None:
        batch = reading_batch(40_000)
        claim = log.claim("a")
        with pytest.raises(TooLargeError, match=str(GROUP_BYTES_MAX)):
            log.append([batch] * 5, claim=claim, sequence=1)
        log.append([batch] * 4, claim=claim, sequence=1)
        assert len(list(log.read("readings"))) == 4

    # -- positions of other logs -----------------------------------------------------------------------------

    def test_a_position_of_another_log_is_refused(self, log: Log, tmp_path: Any) -> None:
        other = self.open(tmp_path / "other")
        position = other.append([reading_batch(1)], claim=other.claim("a"), sequence=1).position
        other.close()
        with pytest.raises(PositionGoneError, match="incarnation"):
            log.read("readings", after=position)

    def test_the_text_of_a_position_gives_it_back(self, log: Log) -> None:
        position = log.append([reading_batch(1)], claim=log.claim("a"), sequence=1).position
        assert Position.parse(str(position)) == position

    # -- asynchronous ----------------------------------------------------------------------------------------

    def test_answers_come_once_each_in_the_order_of_the_calls(self, log: Log) -> None:
        claim = log.claim("a")
        answers: list[tuple[int, Appended | None, LogError | None]] = []
        finished = threading.Event()

        def answer(number: int) -> Any:
            def done(appended: Appended | None, error: LogError | None) -> None:
                answers.append((number, appended, error))
                if number == 199:
                    finished.set()

            return done

        for n in range(200):
            log.append_nowait([reading_batch(1, value=n)], answer(n), claim=claim, sequence=n)
        assert finished.wait(20)
        assert [number for number, _, _ in answers] == list(range(200))
        assert all(appended is not None and error is None for _, appended, error in answers)
        assert values(log.read("readings")) == list(range(200))

    def test_whoever_asked_is_told_when_more_is_durable(self, log: Log) -> None:
        told = threading.Event()
        stop = log.on_durable(told.set)
        claim = log.claim("a")
        log.append([reading_batch(1)], claim=claim, sequence=1)
        assert told.wait(20)
        stop()
        told.clear()
        log.append([reading_batch(1)], claim=claim, sequence=2)
        log.append([reading_batch(1)], claim=claim, sequence=3)
        assert not told.is_set()

    def test_threads_appending_at_once_lose_nothing(self, log: Log) -> None:
        def work(number: int) -> None:
            claim = log.claim(f"t{number}")
            for n in range(50):
                log.append([reading_batch(1, value=number * 1000 + n)], claim=claim, sequence=n)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        got = values(log.read("readings"))
        assert sorted(got) == sorted(number * 1000 + n for number in range(6) for n in range(50))
        for number in range(6):
            own = [value for value in got if value // 1000 == number]
            assert own == sorted(own)

    # -- reopening -------------------------------------------------------------------------------------------

    def test_everything_is_there_after_a_reopening(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        log.create_stream("notes", StreamKind.ROW, NOTE)
        claim = log.claim("a")
        log.append(
            [reading_batch(3), Batch("notes", notes("x"))], claim=claim, sequence=1, positions={"a": b"1"}
        )
        states = log.streams()
        log.close()
        log = self.open(tmp_path / "log")
        assert log.streams() == states
        assert [frame.stream for frame in log.read(["readings", "notes"])] == ["readings", "notes"]
        assert log.positions() == {"a": b"1"}
        again = log.append([reading_batch(1)], claim=log.claim("a"), sequence=1).position
        assert again is not None
        assert again not in {state.last for state in states}
        log.close()

    def test_a_claim_from_before_a_reopening_is_fenced_by_a_new_one_only(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        old = log.claim("a")
        log.close()
        log = self.open(tmp_path / "log")
        new = log.claim("a")
        assert new.fence > old.fence
        with pytest.raises(FencedError):
            log.append([], claim=old, sequence=1)
        log.close()

    def test_a_closed_log_says_so(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        claim = log.claim("a")
        log.close()
        log.close()
        with pytest.raises(LogClosedError):
            log.append([reading_batch(1)], claim=claim, sequence=1)
        with pytest.raises(LogClosedError):
            log.read("readings")
        errors: list[LogError | None] = []
        log.append_nowait([reading_batch(1)], lambda _, error: errors.append(error), claim=claim, sequence=1)
        assert isinstance(errors[0], LogClosedError)

    # -- retention -------------------------------------------------------------------------------------------

    def test_retention_by_size_removes_the_oldest_and_tells_readers(self, tmp_path: Any) -> None:
        log = self.open(tmp_path / "log")
        claim = log.claim("a")
        first = log.append([reading_batch(1)], claim=claim, sequence=0).position
        for n in range(1, 40):
            log.append([reading_batch(10_000, value=n)], claim=claim, sequence=n)
        assert log.retain(size_bytes=3_000_000) > 0
        frames = list(log.read("readings"))
        assert 0 < len(frames) < 40
        assert frames[-1].position == log.end() or len(frames) > 0
        with pytest.raises(PositionGoneError, match="retention"):
            log.read("readings", after=first)
        state = next(state for state in log.streams() if state.stream.name == "readings")
        assert state.frames == 40
        log.close()
        log = self.open(tmp_path / "log")
        assert [frame.position for frame in log.read("readings")] == [frame.position for frame in frames]
        assert log.claim("a", epoch=claim.epoch).last_sequence == 39
        log.close()
