"""The log's socket: lost connections, writers that die, zombies, subscribers and readers that do not read."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ringmain.log import connect_log, open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import (
    Appended,
    FencedError,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    PositionGoneError,
    StreamKind,
)
from ringmain.log.journal import Journal
from ringmain.log.socket.channel import connect_socket
from ringmain.log.socket.remote import RemoteLog
from ringmain.log.socket.wire import SOCKET_NAME
from ringmain.model.catalogue import SeriesAttributes
from ringmain.testing import FaultyFiles
from tests.log.batches import NOTE, reading_batch, values, wait_until

WRITER = """
import sys
from ringmain.log import open_log
log = open_log(sys.argv[1], segment_bytes=1 << 20)
log.listen()
print("listening", flush=True)
sys.stdin.read()
log.close()
"""

ZOMBIE = """
import sys
from ringmain.log import connect_log
from ringmain.log.interface import FencedError
from tests.log.batches import reading_batch
log = connect_log(sys.argv[1])
claim = log.claim("flow")
for number in range(1_000_000):
    try:
        log.append([reading_batch(1, value=number)], claim=claim, sequence=number, positions={"flow": b"%d" % number})
    except FencedError as error:
        print(error, flush=True)
        break
    if number == 20:
        print("running", flush=True)
"""

READER = """
import sys
from ringmain.log import connect_log, open_reader
log = connect_log(sys.argv[1], read=sys.argv[2]) if sys.argv[2] != "polling" else open_reader(sys.argv[1])
frames = log.read("readings")
print(next(frames).sequence, flush=True)
sys.stdin.readline()
try:
    seen = [frame.sequence for frame in frames]
    print("end", len(seen), flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Journal]:
    log = open_log(tmp_path / "log", segment_bytes=1 << 20)
    log.listen()
    yield log
    log.close()


@pytest.fixture
def remote(writer: Journal, tmp_path: Path) -> Iterator[RemoteLog]:
    with connect_log(tmp_path / "log", timeout_s=20) as log:
        yield log


@contextlib.contextmanager
def _process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str], text: str = "\n") -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


# -- where it is ---------------------------------------------------------------------------------------------


def test_a_directory_with_a_long_path_can_be_served(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["a-long-name-of-a-directory"] * 6)
    assert len(str(directory)) > 150
    with open_log(directory) as writer:
        writer.listen()
        with connect_log(directory) as log:
            log.append([reading_batch(1)], claim=log.claim("a"), sequence=1)


def test_the_socket_is_for_this_user_and_goes_with_the_log(writer: Journal, tmp_path: Path) -> None:
    path = tmp_path / "log" / SOCKET_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert writer.listen() is writer.listen()
    writer.close()
    assert not path.exists()


def test_the_socket_that_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    with _process(WRITER, str(tmp_path)) as process:
        assert _line(process) == "listening"
        process.kill()
        process.wait()
    assert (tmp_path / SOCKET_NAME).exists()
    with pytest.raises(LogFailedError, match="nobody listens"):
        connect_log(tmp_path, timeout_s=0.1)
    with open_log(tmp_path) as writer:
        writer.listen()
        with connect_log(tmp_path) as log:
            assert log.end() == writer.end()


# -- appends -------------------------------------------------------------------------------------------------


def test_what_was_appended_over_the_socket_is_what_the_journal_would_have_stored(
    writer: Journal, remote: RemoteLog
) -> None:
    remote.create_stream("notes", StreamKind.ROW, NOTE)
    ours, theirs = writer.claim("here", epoch=3), remote.claim("there", epoch=3)
    writer.append([reading_batch(7, start=5, value=2)], claim=ours, sequence=1)
    remote.append([reading_batch(7, start=5, value=2)], claim=theirs, sequence=1)
    here, there = writer.read("readings")
    assert here.rows.equals(there.rows)
    assert (here.time_min_ns, here.time_max_ns) == (there.time_min_ns, there.time_max_ns)
    assert (here.cumulative_rows, there.cumulative_rows) == (7, 14)
    # one duplicate detection for both ways in
    assert writer.append([reading_batch(7, start=5, value=2)], claim=theirs, sequence=1).duplicate


def test_appends_of_a_claim_behind_one_that_failed_fail_as_well(tmp_path: Path) -> None:
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as writer:
        writer.listen()
        with connect_log(tmp_path) as log:
            claim = log.claim("a")
            answers: list[tuple[int, LogError | None]] = []
            told = threading.Event()
            log.append([reading_batch(1)], claim=claim, sequence=0)

            def done(number: int) -> Any:
                def answered(_: Appended | None, error: LogError | None) -> None:
                    answers.append((number, error))
                    if number == 40:
                        told.set()

                return answered

            files.space_bytes = 0
            for number in range(1, 41):
                log.append_nowait(
                    [reading_batch(1, value=number)], done(number), claim=claim, sequence=number
                )
            assert told.wait(20)
            assert [number for number, _ in answers] == list(range(1, 41))
            assert all(isinstance(error, LogFullError | LogFailedError) for _, error in answers)
            files.space_bytes = None
            for number in range(1, 41):
                assert not log.append(
                    [reading_batch(1, value=number)], claim=claim, sequence=number
                ).duplicate
            assert values(log.read("readings")) == list(range(41))


def test_an_append_sent_before_the_failure_of_its_predecessor_was_known_is_refused(tmp_path: Path) -> None:
    """Stored without it, it would make the predecessor's repeat a duplicate of something that is nowhere."""
    files = FaultyFiles()
    with open_log(tmp_path, fs=files) as writer:
        writer.listen()
        with connect_log(tmp_path) as log:
            claim = log.claim("a")
            entered, held = threading.Event(), threading.Event()
            failed: list[LogError | None] = []

            def wait(*_: object) -> None:
                entered.set()
                held.wait(20)

            log.append_nowait([reading_batch(1)], wait, claim=claim, sequence=0)
            assert entered.wait(20)
            # the connection's thread stands in the callback above: it learns of no failure until `held`
            files.space_bytes = 0
            log.append_nowait(
                [reading_batch(1, value=1)], lambda _, e: failed.append(e), claim=claim, sequence=1
            )
            wait_until(lambda: writer.listen().counts().failures == 1)
            files.space_bytes = None
            log.append_nowait(
                [reading_batch(1, value=2)], lambda _, e: failed.append(e), claim=claim, sequence=2
            )
            wait_until(lambda: writer.listen().counts().failures == 2)
            held.set()
            wait_until(lambda: len(failed) == 2)
            assert isinstance(failed[0], LogFullError)
            assert isinstance(failed[1], LogFailedError)
            assert "sequence 1" in str(failed[1])
            for number in (1, 2):
                assert not log.append(
                    [reading_batch(1, value=number)], claim=claim, sequence=number
                ).duplicate
            assert values(log.read("readings")) == [0, 1, 2]


def test_a_call_that_would_wait_for_its_own_thread_is_refused_in_words(remote: RemoteLog) -> None:
    refused: list[str] = []
    told = threading.Event()

    def done(_: Appended | None, __: LogError | None) -> None:
        for call in (
            lambda: remote.claim("b"),
            lambda: remote.append([], claim=claim, sequence=9),
            remote.close,
        ):
            with pytest.raises(LogError) as caught:
                call()
            refused.append(str(caught.value))
        told.set()

    claim = remote.claim("a")
    remote.append_nowait([reading_batch(1)], done, claim=claim, sequence=1)
    assert told.wait(20)
    assert all("another thread" in text for text in refused)


def test_what_is_handed_over_before_a_close_is_answered(writer: Journal, tmp_path: Path) -> None:
    log = connect_log(tmp_path / "log")
    claim = log.claim("a")
    errors: list[LogError | None] = []
    for number in range(50):
        log.append_nowait(
            [reading_batch(1)], lambda _, error: errors.append(error), claim=claim, sequence=number
        )
    log.close()
    assert errors == [None] * 50
    with pytest.raises(LogClosedError):
        log.append([reading_batch(1)], claim=claim, sequence=50)


def test_ids_of_series_come_from_the_process_that_writes(tmp_path: Path) -> None:
    with open_log(tmp_path) as writer:
        registry = SeriesRegistry(writer, max_series=3)
        writer.listen(registrar=registry)
        with connect_log(tmp_path) as log:
            assert log.register("s", ["a/p", "b/p", "a/p"], [SeriesAttributes(unit="W"), None, None]) == [
                0,
                1,
                0,
            ]
            assert log.register("s", ["c/p", "d/p"]) == [2, -1]
            assert log.catalogue().id_of("c/p") == 2
            assert log.catalogue().attributes_of(0).unit == "W"
            assert log.series_count() == 3
            with pytest.raises(ValueError, match="key"):
                log.register("s", ["a\nb"])
            with connect_log(tmp_path, read="socket") as other:
                assert list(other.catalogue()) == ["a/p", "b/p", "c/p"]
                assert other.series_count() == 3
                registry.register("other", "e/p", SeriesAttributes())
                registry.save()
                assert list(other.catalogue())[-1] == "e/p"


# -- connections that end ------------------------------------------------------------------------------------


def test_a_lost_connection_fails_what_waited_and_is_made_again(tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.listen()
    log = connect_log(tmp_path, timeout_s=3)
    claim = log.claim("a", epoch=0)
    log.append([reading_batch(1)], claim=claim, sequence=0)
    frames = log.read("readings", follow=True, timeout_s=60)
    assert values([next(frames)]) == [0]
    with connect_log(tmp_path, read="socket") as other:
        others = other.read("readings", follow=True, timeout_s=60)
        assert values([next(others)]) == [0]
        writer.close()
        answers: list[LogError | None] = []
        log.append_nowait([reading_batch(1)], lambda _, error: answers.append(error), claim=claim, sequence=1)
        wait_until(lambda: answers)
        assert isinstance(answers[0], LogFailedError)
        assert "send again" in str(answers[0])
        writer = open_log(tmp_path)
        writer.listen()
        # claims outlive the writer
        assert not log.append([reading_batch(1, value=1)], claim=claim, sequence=1).duplicate
        assert log.append([reading_batch(1, value=1)], claim=claim, sequence=1).duplicate
        assert values([next(frames)]) == [1]
        assert values([next(others)]) == [1]
        newer = log.claim("a", epoch=0)
        with pytest.raises(FencedError):
            log.append([reading_batch(1)], claim=claim, sequence=2)
        assert newer.last_sequence == 1
    log.close()
    writer.close()


def test_what_is_handed_over_without_a_connection_waits_for_one(tmp_path: Path) -> None:
    writer = open_log(tmp_path)
    writer.listen()
    with connect_log(tmp_path) as log:
        claim = log.claim("a", epoch=0)
        writer.close()
        wait_until(lambda: not log.connected)
        answers: list[tuple[int, LogError | None]] = []
        for number in range(20):
            log.append_nowait(
                [reading_batch(1, value=number)],
                lambda _, error, number=number: answers.append((number, error)),
                claim=claim,
                sequence=number,
            )
        writer = open_log(tmp_path)
        writer.listen()
        wait_until(lambda: len(answers) == 20)
        assert answers == [(number, None) for number in range(20)]
        assert values(log.read("readings")) == list(range(20))
    writer.close()


def test_repeats_made_in_the_callbacks_of_a_lost_connection_are_stored_in_order(tmp_path: Path) -> None:
    """Those handed over before a failure was told must not overtake its repeat: it would count as a duplicate."""
    with _process(WRITER, str(tmp_path)) as process:
        assert _line(process) == "listening"
        # longer than a busy machine takes to start the next writer: else the repeats fail too, and count as finished
        log = connect_log(tmp_path, timeout_s=100)
        claim = log.claim("a", epoch=0)
        process.send_signal(signal.SIGSTOP)
        told: list[tuple[int, bool]] = []
        sent_again: list[int] = []
        finished = threading.Semaphore(0)

        def send(number: int) -> None:
            def done(_: Appended | None, error: LogError | None) -> None:
                told.append((number, error is None))
                if error is not None:
                    send(number)
                    sent_again.append(number)
                finished.release()

            log.append_nowait([reading_batch(1, value=number)], done, claim=claim, sequence=number)

        for number in range(30):
            send(number)
        process.kill()
        process.wait()
        wait_until(lambda: len(sent_again) == 30)
        for number in range(30, 40):
            send(number)
    with _process(WRITER, str(tmp_path)) as process:
        assert _line(process) == "listening"
        for _ in range(70):
            assert finished.acquire(timeout=100)
        log.close()
    assert [number for number, stored in told if stored] == list(range(40))
    with open_reader(tmp_path) as reader:
        assert values(reader.read("readings")) == list(range(40))


def test_a_writer_that_is_stopped_is_told_as_such_and_goes_on(tmp_path: Path) -> None:
    with _process(WRITER, str(tmp_path)) as process:
        assert _line(process) == "listening"
        with connect_log(tmp_path, connect_s=60, timeout_s=0.3) as log:
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(LogFailedError, match="no answer within"):
                log.claim("a")
            assert log.streams(), "the files can be read all the same"
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: _claims(log))


def _claims(log: RemoteLog) -> bool:
    try:
        return log.claim("b").fence >= 1
    except LogFailedError:
        return False


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed_and_repeats_are_recognised(
    tmp_path: Path,
) -> None:
    acknowledged: set[int] = set()
    failed: list[int] = []
    answered = threading.Semaphore(0)

    def done(number: int) -> Any:
        def answer(_: Appended | None, error: LogError | None) -> None:
            if error is None:
                acknowledged.add(number)
            else:
                failed.append(number)
            answered.release()

        return answer

    log: RemoteLog | None = None
    for kill in range(2):
        with _process(WRITER, str(tmp_path)) as process:
            assert _line(process) == "listening"
            log = log or connect_log(tmp_path, connect_s=60, timeout_s=3)
            claim = log.claim("source", epoch=0)
            # what failed at the kill before is sent again, in order, with the same sequences
            first = max(acknowledged, default=-1) + 1
            failed.clear()
            log.append([reading_batch(1, value=first)], claim=claim, sequence=first)
            acknowledged.add(first)
            for number in range(first + 1, first + 400):
                if number == first + 100 + 50 * kill:
                    process.kill()
                log.append_nowait(
                    [reading_batch(1, value=number)], done(number), claim=claim, sequence=number
                )
            for _ in range(first + 1, first + 400):
                assert answered.acquire(timeout=60)
            assert failed == sorted(failed)
            assert failed, "the writer was to be killed under load"
            process.wait()
    assert log is not None
    log.close()
    with open_reader(tmp_path) as reader:
        stored = values(reader.read("readings"))
    assert stored == [float(number) for number in range(len(stored))], "in order, none twice, none missing"
    assert len(stored) > max(acknowledged)


def test_a_zombie_that_wakes_up_behind_its_replacement_doubles_nothing(
    writer: Journal, tmp_path: Path
) -> None:
    with _process(ZOMBIE, str(tmp_path / "log")) as process:
        assert _line(process) == "running"
        process.send_signal(signal.SIGSTOP)
        with connect_log(tmp_path / "log") as log:
            claim = log.claim("flow")
            start = int(claim.positions["flow"]) + 1
            for number in range(start, start + 10):
                log.append(
                    [reading_batch(1, value=number)],
                    claim=claim,
                    sequence=number,
                    positions={"flow": b"%d" % number},
                )
        process.send_signal(signal.SIGCONT)
        assert "no longer the owner" in _line(process)
    assert values(writer.read("readings")) == list(range(start + 10))


def _reading_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("log-socket-read")]


def test_the_end_of_a_connection_releases_what_it_held(writer: Journal, tmp_path: Path) -> None:
    server = writer.listen()
    log = connect_log(tmp_path / "log", read="socket")
    claim = log.claim("a")
    log.append([reading_batch(1)], claim=claim, sequence=0)
    reads = [log.read("readings", follow=True) for _ in range(8)]
    for frames in reads:
        next(frames)
    assert len(_reading_threads()) == 8
    log.close()
    wait_until(lambda: server.counts().connections == 0)
    wait_until(lambda: not _reading_threads())


# -- readers -------------------------------------------------------------------------------------------------


def test_a_reader_is_woken_by_the_commit_and_not_by_the_clock(writer: Journal, tmp_path: Path) -> None:
    log = connect_log(tmp_path / "log")
    claim = writer.claim("a")
    writer.append([reading_batch(1)], claim=claim, sequence=0)
    frames = log.read("readings", follow=True, timeout_s=60)
    next(frames)
    reader = log._reader
    assert reader is not None
    wait_until(lambda: reader._told is not None)  # type: ignore[union-attr]
    looked: list[int] = []
    real = reader._fs.open_existing  # type: ignore[union-attr]

    def opened(path: Path, **options: Any) -> int:
        if path.name == "durable":
            looked.append(1)
        return real(path, **options)

    reader._fs.open_existing = opened  # type: ignore[union-attr,method-assign]
    for number in range(1, 50):
        writer.append([reading_batch(1, value=number)], claim=claim, sequence=number)
        assert values([next(frames)]) == [number]
    assert not looked, "the file of the mark is not needed while the writer tells"
    log.close()


def test_a_subscriber_that_never_reads_delays_nobody_and_costs_one_place(
    writer: Journal, tmp_path: Path
) -> None:
    from ringmain.log.socket.wire import GREETING, VERSION, Hello, Type, pack

    server = writer.listen()
    silent = connect_socket(tmp_path / "log", 5)
    silent.sendall(
        b"".join(map(bytes, pack(Type.HELLO, 0, Hello(GREETING, VERSION, VERSION, "silent", subscribe=True))))
    )
    wait_until(lambda: server.counts().connections == 1)
    (session,) = server._sessions.values()
    session.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    claim = writer.claim("a")
    for number in range(300):
        writer.append([], claim=claim, sequence=number)
    with connect_log(tmp_path / "log") as log:
        log.append([reading_batch(1)], claim=log.claim("b"), sequence=1)
    assert not session.channel.flush(), "its end of the socket is full"
    assert session.channel.queued_bytes < 256
    silent.close()
    wait_until(lambda: server.counts().connections == 0)


def test_a_reader_through_the_socket_that_does_not_read_stops_only_itself(
    writer: Journal, tmp_path: Path
) -> None:
    claim = writer.claim("a")
    for number in range(60):
        writer.append([reading_batch(10_000, value=number)], claim=claim, sequence=number)
    with connect_log(tmp_path / "log", read="socket") as log:
        slow = log.read("readings")
        next(slow)
        server = writer.listen()
        # far less than the 13 MB that there are to be read
        wait_until(lambda: server.counts().queued_bytes == 0)
        assert len(list(log.read("readings"))) == 60
        log.append([reading_batch(1)], claim=log.claim("b"), sequence=1)
        assert writer.retain(size_bytes=0) > 5
        with pytest.raises(PositionGoneError, match="retention"):
            list(slow)
        assert [one for one in os.listdir("/proc/self/fd") if _is_deleted_segment(one, tmp_path)] == []


def _is_deleted_segment(number: str, place: Path) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
    return target.startswith(str(place)) and target.endswith(".seg (deleted)")


@pytest.mark.parametrize("way", ["files", "socket", "polling"])
def test_a_stopped_reader_holds_no_space_and_learns_that_its_segments_went(
    writer: Journal, tmp_path: Path, way: str
) -> None:
    claim = writer.claim("a")
    for number in range(100):
        writer.append([reading_batch(10_000, value=number)], claim=claim, sequence=number)
    with _process(READER, str(tmp_path / "log"), way) as process:
        assert _line(process) == "0"
        process.send_signal(signal.SIGSTOP)
        before = time.monotonic()
        assert writer.retain(size_bytes=0) > 10
        writer.append([reading_batch(1)], claim=claim, sequence=100)
        assert time.monotonic() - before < 20
        held = 0
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            path = f"/proc/{process.pid}/fd/{name}"
            with contextlib.suppress(OSError):
                if "(deleted)" in os.readlink(path) and ".seg" in os.readlink(path):
                    held += os.stat(path).st_blocks * 512
        assert held == 0
        process.send_signal(signal.SIGCONT)
        _tell(process)
        assert "PositionGoneError" in _line(process)
    assert "evicted" in writer.ledger().column("kind").to_pylist()


def test_a_stream_that_came_later_is_known_when_it_is_needed(writer: Journal, tmp_path: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int64())])
    for read in ("files", "socket"):
        with connect_log(tmp_path / "log", read=read) as log:  # type: ignore[arg-type]
            writer.create_stream(f"later-{read}", StreamKind.ROW, schema)
            from ringmain.log.interface import Batch

            rows = pa.RecordBatch.from_arrays([pa.array([1, 2], pa.int64())], schema=schema)
            log.append([Batch(f"later-{read}", rows)], claim=log.claim("a"), sequence=1)
            (frame,) = log.read(f"later-{read}")
            assert frame.rows.equals(rows)
