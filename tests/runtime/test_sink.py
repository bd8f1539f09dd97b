"""A sink gets every row once it is durable, in order, and its position moves behind what it has answered for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.log import connect_log, open_reader
from ringmain.log.interface import Batch, StreamKind
from ringmain.log.ledger.accountant import Accountant
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import DEAD_LETTER, READING
from ringmain.runtime.sink import (
    ACCEPTED,
    HELD,
    Answer,
    Mark,
    Rejected,
    RejectedRows,
    Retry,
    SinkBatch,
    SinkError,
)
from ringmain.runtime.sink_runner import POISON_TRIES, SinkPlan, SinkRunner
from ringmain.runtime.sink_status import SinkState
from ringmain.testing.clock import SimulatedClock
from tests.conftest import wait_until
from tests.runtime.sink_rig import Recorder, Room, wait_lag


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "data")
    yield room
    room.close()


def test_rows_arrive_in_order_and_the_position_is_stored(room: Room) -> None:
    room.put(1, 2, 3)
    sink = Recorder()
    runner = room.run(sink)
    room.put(4)
    wait_until(lambda: sink.values == [1, 2, 3, 4])
    wait_lag(runner)
    wait_until(lambda: (text := room.position()) is not None and Mark.decode(text).rows == {"readings": 4})
    status = runner.status()
    assert (status.rows, status.batches, status.rejected, status.missed, status.lag_s) == (4, 2, 0, 0, 0.0)
    assert status.address == "memory"
    assert status.streams == ("readings",)


def test_a_restart_goes_on_behind_what_was_answered_for(room: Room) -> None:
    room.put(1, 2)
    first = Recorder()
    wait_lag(room.run(first))
    room.reopen()
    room.put(3)
    second = Recorder()
    wait_lag(room.run(second))
    assert (first.values, second.values) == ([1, 2], [3])


def test_what_was_not_stored_comes_again_under_the_same_identity(room: Room) -> None:
    for n in range(5):
        room.put(*range(10 * n, 10 * n + 10))
    first = Recorder()
    wait_lag(room.run(first, batch_rows_max=4))
    room.stop()
    again = Recorder()
    claim = room.log.claim("sink/out")
    room.log.append([], claim=claim, sequence=1, positions={"sink/out": None})
    wait_lag(room.run(again, batch_rows_max=4))
    assert again.values == first.values == [float(n) for n in range(50)]
    assert again.ids == first.ids
    assert first.ids[0].endswith("/0-3")
    assert first.ids[2].endswith("/8-9")


def test_a_sink_stopped_within_a_frame_goes_on_within_it(room: Room) -> None:
    room.put(*range(10))
    first = Recorder(lambda batch: ACCEPTED if batch.id.first_row < 6 else Retry("later"))
    runner = room.run(first, batch_rows_max=3)
    wait_until(lambda: runner.state is SinkState.WAITING)
    room.reopen()
    second = Recorder()
    wait_lag(room.run(second, batch_rows_max=3))
    assert (first.values, second.values) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])
    assert [identity.rpartition("/")[2] for identity in second.ids] == ["6-8", "9-9"]


def test_what_is_to_be_tried_again_holds_back_what_is_behind_it(room: Room) -> None:
    tries = iter(["not now"] * 3)
    sink = Recorder(lambda batch: Retry(text) if (text := next(tries, None)) is not None else ACCEPTED)
    room.put(1)
    room.put(2)
    runner = room.run(sink)
    wait_until(lambda: sink.values == [1, 2])
    assert [int(batch.rows.column("value")[0].as_py()) for batch in sink.handed] == [1, 1, 1, 1, 2]
    assert [batch.attempt for batch in sink.handed] == [0, 1, 2, 3, 3]
    wait_lag(runner)
    assert runner.status().retries == 3
    assert runner.status().last_error is None


def test_while_a_receiver_refuses_the_status_says_why_and_a_stop_does_not_wait(room: Room) -> None:
    room.put(1, 2)
    runner = room.run(Recorder(lambda batch: Retry("HTTP 503", after_s=3000.0)))
    wait_until(lambda: runner.state is SinkState.WAITING)
    status = runner.status()
    assert status.last_error == "HTTP 503"
    assert status.lag_rows == 2
    assert runner.stop(10)
    assert runner.state is SinkState.STOPPED


def test_rejected_rows_are_dead_letters_and_the_rest_is_accepted(room: Room) -> None:
    def answer(batch: SinkBatch) -> Answer:
        places = [n for n, value in enumerate(batch.rows.column("value").to_pylist()) if value < 0]
        return Rejected(tuple(RejectedRows(n, 1, "expected a value >= 0: found less") for n in places))

    room.put(1, -2, -3, 4, -5)
    runner = room.run(Recorder(answer))
    wait_until(lambda: len(room.letters()) == 2)
    position = next(frame.position for frame in room.log.read("readings"))
    assert room.letters() == [
        ("sink/out", f"readings/{position}/1-2", "expected a value >= 0: found less"),
        ("sink/out", f"readings/{position}/4-4", "expected a value >= 0: found less"),
    ]
    payloads = [
        row for frame in room.log.read("deadletters") for row in frame.rows.column("payload").to_pylist()
    ]
    assert payloads[1] == (
        b'{"series":"ss-01/feeder-0/p","time":"1970-01-01 00:00:04.000000000Z","value":-5.0,"quality":0}'
    )
    wait_lag(runner)
    status = runner.status()
    assert (status.rows, status.rejected) == (2, 3)
    accountant = Accountant(room.log)
    accountant.advance()
    assert accountant.closes
    account = next(one for one in accountant.accounts() if one.source == "sink/out")
    assert (account.received, account.rejected, account.letters.found) == (3, 3, 2)


def test_over_the_socket_of_the_log_it_is_the_same(room: Room) -> None:
    room.log.listen(registrar=room.registry)
    remote = connect_log(room.directory)
    try:
        room.put(1, -2, 3)
        sink = Recorder(
            lambda batch: (
                Rejected((RejectedRows(1, 1, "expected a value >= 0: found less"),))
                if batch.rows.num_rows > 1
                else ACCEPTED
            )
        )
        runner = SinkRunner(SinkPlan("out", "test", ("readings",)), sink, remote, room.counters)
        runner.start()
        wait_until(lambda: len(room.letters()) == 1)
        late = room.registry.register("rig", "late", SeriesAttributes("V"))
        room.registry.save()
        room.series[0] = late
        room.put(4)
        wait_until(lambda: sink.values == [4])
        assert sink.context is not None
        assert sink.context.catalogue.key_of(late) == "late"
        assert runner.stop(60)
        accountant = Accountant(room.log)
        accountant.advance()
        assert accountant.closes
        assert next(one for one in accountant.accounts() if one.source == "sink/out").rejected == 1
    finally:
        remote.close()


def test_a_flood_of_rejected_rows_is_a_bounded_number_of_letters(room: Room) -> None:
    room.put(*range(500))
    runner = room.run(
        Recorder(
            lambda batch: Rejected(tuple(RejectedRows(n, 1, f"expected less: {n}") for n in range(0, 500, 2)))
        )
    )
    wait_lag(runner)
    wait_until(lambda: len(room.letters()) == 64)
    assert "(187 of these rows, for this or another reason)" in room.letters()[-1][2]
    assert runner.status().rejected == 250


def test_dead_letters_that_are_rejected_beget_no_letters(room: Room) -> None:
    row = {"source": "a", "topic": "b", "payload": b"c", "payload_bytes": 1, "time": 0, "reason": "d"}
    room.append(Batch("deadletters", pa.RecordBatch.from_pylist([row], schema=DEAD_LETTER)))
    runner = room.run(
        Recorder(lambda batch: Rejected.whole(batch, "expected nothing")), streams=("deadletters",)
    )
    wait_lag(runner)
    assert runner.status().rejected == 1
    assert len(room.letters()) == 1


def test_a_sink_that_raises_is_opened_anew_and_gets_the_same_again(room: Room) -> None:
    tries = iter([OSError("connection reset"), SinkError("expected a broker", "start one")])
    sink = Recorder(lambda batch: next(tries, None) or ACCEPTED)
    room.put(1)
    wait_lag(room.run(sink))
    assert sink.values == [1]
    assert (sink.opened, sink.closed) == (3, 2)


def test_a_receiver_that_cannot_be_reached_is_named_and_tried_again(room: Room) -> None:
    sink = Recorder()
    sink.open_error = SinkError("expected a broker at x, found none", "start it")
    room.put(1)
    runner = room.run(sink)
    wait_until(lambda: sink.opened > 2)
    wait_until(lambda: runner.state is SinkState.BACKOFF)
    assert runner.status().last_error == "expected a broker at x, found none: start it"
    sink.open_error = None
    wait_lag(runner)
    assert sink.values == [1]
    assert runner.status().last_error is None


def test_a_batch_on_which_the_sink_fails_by_itself_is_a_dead_letter_after_some_tries(room: Room) -> None:
    def answer(batch: SinkBatch) -> Answer | Exception:
        return ZeroDivisionError("poison") if batch.rows.column("value")[0].as_py() == 2 else ACCEPTED

    sink = Recorder(answer)
    for n in range(1, 4):
        room.put(n)
    runner = room.run(sink)
    wait_until(lambda: 3 in sink.values)
    wait_lag(runner)
    assert sorted(set(sink.values)) == [1, 3]
    assert "failed on 5 times" in room.letters()[0][2]
    assert "ZeroDivisionError: poison" in room.letters()[0][2]
    handed = [batch.rows.column("value")[0].as_py() for batch in sink.handed]
    assert POISON_TRIES <= handed.count(2) <= POISON_TRIES + 1


def test_a_slow_sink_holds_up_neither_appends_nor_another_sink(room: Room) -> None:
    slow, fast = Recorder(), Recorder()
    slow.gate.clear()
    stuck = room.run(slow, name="slow")
    room.put(0)
    wait_until(lambda: stuck.lag()[1] == 1)
    going = room.run(fast, name="fast")
    for n in range(1, 200):
        room.put(n)
    wait_lag(going)
    assert len(fast.values) == 200
    assert slow.values == []
    slow.gate.set()
    wait_lag(stuck)
    assert slow.values == fast.values


def test_rows_that_retention_removed_first_are_counted_and_told(tmp_path: Path) -> None:
    room = Room(tmp_path / "data", segment_bytes=1 << 16)
    try:
        room.put(*range(100))
        sink = Recorder()
        wait_lag(room.run(sink))
        room.stop()
        for _ in range(40):
            room.put(*range(1000))
        assert room.log.retain(size_bytes=1 << 17)
        there = sum(frame.row_count for frame in room.log.read("readings"))
        assert 0 < there < 40_000
        later = Recorder()
        runner = room.run(later)
        wait_lag(runner)
        missed = 40_000 - there
        wait_until(lambda: runner.status().missed == missed)
        assert len(later.values) == there
        assert f"{missed} rows of stream 'readings'" in (runner.status().last_error or "")
        ledger = room.log.ledger().drop_columns(["time"]).to_pylist()
        entry = next(row for row in ledger if row["source"] == "sink/out" and row["kind"] == "dropped")
        assert entry["rows"] == missed
        accountant = Accountant(room.log)
        accountant.advance()
        assert accountant.closes
    finally:
        room.close()


def test_retention_of_what_a_sink_has_had_already_hands_nothing_over_again(tmp_path: Path) -> None:
    room = Room(tmp_path / "data", segment_bytes=1 << 16)
    try:
        for _ in range(40):
            room.put(*range(1000))
        sink = Recorder(lambda batch: ACCEPTED if batch.id.position != last else Retry("not yet"))
        last = [frame.position for frame in room.log.read("readings")][-1]
        runner = room.run(sink)
        wait_until(lambda: len(sink.values) == 39_000 and runner.state is SinkState.WAITING)
        wait_until(
            lambda: (text := room.position()) is not None and Mark.decode(text).rows == {"readings": 39_000}
        )
        room.stop()
        for _ in range(200):
            room.tick()
        room.log.retain(size_bytes=1 << 16)
        later = Recorder()
        runner = room.run(later)
        wait_lag(runner)
        there = sum(frame.row_count for frame in room.log.read("readings"))
        assert len(later.values) == min(1000, there)
        wait_until(lambda: runner.status().missed == 1000 - len(later.values))
    finally:
        room.close()


def test_a_full_log_holds_the_position_back_and_says_so(room: Room) -> None:
    sink = Recorder()
    runner = room.run(sink)
    room.put(1)
    wait_lag(runner)
    room.put(2)
    sink.gate.clear()
    room.put(3)
    room.disk.fill()
    sink.gate.set()
    wait_until(lambda: runner.state is SinkState.WAITING)
    assert "full" in (runner.status().last_error or "").lower() or "space" in (
        runner.status().last_error or ""
    )
    room.disk.mend()
    wait_lag(runner)
    assert sink.values == [1, 2, 3]


def test_a_second_copy_of_a_sink_fences_the_first(room: Room) -> None:
    room.put(1)
    first = Recorder()
    runner = room.run(first)
    wait_lag(runner)
    room.log.claim("sink/out")
    room.put(2)
    assert runner.wait_ended(20)
    assert runner.state is SinkState.FAILED
    assert "another instance has taken over" in (runner.status().last_error or "")


def test_a_sink_that_begins_with_the_newest_gets_what_comes_after_its_first_start_alone(room: Room) -> None:
    room.put(1)
    sink = Recorder()
    runner = room.run(sink, newest=True)
    wait_lag(runner)
    room.put(2)
    wait_until(lambda: sink.values == [2])
    room.reopen()
    room.put(3)
    later = Recorder()
    wait_lag(room.run(later, newest=True))
    assert later.values == [3]


def test_a_stream_that_comes_to_be_later_is_read_from_its_first_row(room: Room) -> None:
    sink = Recorder()
    room.put(1)
    runner = room.run(sink, streams=("readings", "later"))
    wait_until(lambda: sink.values == [1])
    wait_until(lambda: runner.status().last_error == "no stream 'later' yet: the sink waits for it")
    room.log.create_stream("later", StreamKind.READING, READING)
    room.put(2, stream="later")
    room.put(3)
    wait_until(lambda: sink.values == [1, 2, 3])
    wait_until(lambda: runner.status().last_error is None)


def test_in_silence_the_position_follows_the_ticks(tmp_path: Path) -> None:
    room = Room(tmp_path / "data", clock=SimulatedClock())
    try:
        room.put(1)
        runner = room.run(Recorder())
        wait_lag(runner)
        before = runner.status().position
        room.tick()
        wait_until(lambda: runner.status().position != before)
        assert runner.stop(10)
        assert Mark.decode(room.position() or b"").rows == {"readings": 1}
    finally:
        room.close()


class Holding(Recorder):
    """Holds what it gets and has it for good once log time has moved by ten seconds."""

    def __init__(self) -> None:
        super().__init__(lambda batch: HELD)
        self.held: list[SinkBatch] = []
        self.since_ns = 0
        self.final: list[float] = []

    def open(self, context: object) -> str:
        self.held = []
        return super().open(context)  # type: ignore[arg-type]

    def settle(self, now_ns: int) -> Mark | Retry | None:
        self.held += self.handed[len(self.handed) :]
        new = [batch for batch in self.handed if batch not in self.held]
        self.held += new
        if not self.held or now_ns - self.held[0].arrival_ns < 10 * 10**9:
            return None
        mark = self.held[-1].mark
        self.final += [value for batch in self.held for value in batch.rows.column("value").to_pylist()]
        self.held = []
        self.handed = []
        return mark


def test_a_holding_sink_answers_later_and_gets_again_what_it_held_when_it_ended(tmp_path: Path) -> None:
    clock = SimulatedClock()
    room = Room(tmp_path / "data", clock=clock)
    try:
        first = Holding()
        runner = room.run(first)
        room.put(1)
        clock.pass_time(11 * 10**9)
        room.tick()
        wait_until(lambda: first.final == [1])
        room.put(2)
        room.put(3)
        wait_until(lambda: len(first.handed) == 2)
        assert runner.lag()[1] == 2
        room.stop()
        assert Mark.decode(room.position() or b"").rows == {"readings": 1}
        second = Holding()
        room.run(second)
        wait_until(lambda: len(second.handed) == 2)
        clock.pass_time(11 * 10**9)
        room.tick()
        wait_until(lambda: second.final == [2, 3])
    finally:
        room.close()


KILLED = """
import sys
from pathlib import Path
from ringmain.log import open_log
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.counters import Counters
from ringmain.runtime.sink import ACCEPTED
from ringmain.runtime.sink_runner import SinkPlan, SinkRunner

class Lines:
    def open(self, context):
        return "lines"
    def deliver(self, batches, now_ns):
        for batch in batches:
            sys.stdout.write(f"{batch.id} {int(batch.rows.column('value')[0].as_py())}\\n")
            sys.stdout.flush()
        return [ACCEPTED] * len(batches)
    def close(self):
        pass

log = open_log(Path(sys.argv[1]))
runner = SinkRunner(SinkPlan("out", "test", ("readings",), False, 2), Lines(), log, Counters())
runner.start()
runner.wait_ended(60)
"""


def test_killed_at_any_point_every_row_comes_at_least_once_and_in_order(tmp_path: Path) -> None:
    room = Room(tmp_path / "data")
    for n in range(400):
        room.put(3 * n, 3 * n + 1, 3 * n + 2)
    room.close()
    seen: dict[int, str] = {}
    for after in (150, 300, 1000):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        last = -1
        for count, line in enumerate(process.stdout):
            identity, _, text = line.rpartition(" ")
            value = int(text)
            assert value > last, "in order"
            assert value <= max(seen, default=-1) + 2, "no gap"
            assert seen.setdefault(value, identity) == identity
            last = value
            if count == after or len(seen) == 800:
                process.kill()
        process.wait()
        process.stdout.close()
    assert sorted(seen) == sorted([3 * n for n in range(400)] + [3 * n + 2 for n in range(400)])
    with open_reader(tmp_path / "data") as reader:
        assert Mark.decode(reader.positions("sink/out")["sink/out"]).rows["readings"] <= 1200
