"""`ringmain.open` beside the process that writes: the same calls, through the log's socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import ringmain
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import ConflictError, LogError, LogFailedError, TooLargeError, UnknownStreamError
from ringmain.log.journal import Journal
from ringmain.log.socket.access import Access, UserPolicy
from tests.test_client import T, read, readings

OTHER = """
import os, sys
import ringmain
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from tests.test_client import T, read, readings

def append(directory):
    with ringmain.open(directory) as log:
        first = log.append({"readings": readings(("x/p", T, 1.0))}, producer="theirs", sequence=4)
        again = log.append({"readings": readings(("x/p", T, 1.0))}, producer="theirs", sequence=4)
        return first.duplicate, again.duplicate, read(log), [state.stream.name for state in log.streams()][:2]

# everything is imported once as it is: another user may not see this one's Python
with open_log(sys.argv[2]) as warm:
    warm.listen(registrar=SeriesRegistry(warm))
    append(sys.argv[2])
    os.setuid(65534)
    print(append(sys.argv[1]))
    with ringmain.open(sys.argv[1], read_only=True) as log:
        print(read(log))
    os._exit(0 if not sys.stdout.flush() else 1)
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Journal]:
    log = open_log(tmp_path / "data")
    log.listen(registrar=SeriesRegistry(log, max_series=5))
    yield log
    log.close()


def test_a_program_appends_reads_and_asks_beside_a_node(node: Journal, tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log, ringmain.open(tmp_path / "data") as other:
        assert not log.append({"readings": readings(("a", T, 1.0), ("b", T, 2.0))}).duplicate
        other.append({"readings": readings(("b", T + 1, 3.0), ("c", T + 1, 4.0))}, producer="other")
        wanted = [("a", T, 1.0, 0), ("b", T, 2.0, 0), ("b", T + 1, 3.0, 0), ("c", T + 1, 4.0, 0)]
        assert read(log) == read(other) == wanted
        assert log.sql("SELECT sum(value) AS s FROM readings").to_pylist() == [{"s": 10.0}]
        assert node.catalogue().source_of(2) == "other"
        frames = log.read("readings", follow=True, timeout_s=20)
        next(frames)
        node.append([], claim=node.claim("x"), sequence=1)


BUSY = """
import sys
from ringmain.log import open_log
with open_log(sys.argv[1]) as log:
    log.listen()
    print("listening", flush=True)
    sys.stdin.read()
"""


def test_a_node_that_is_too_busy_to_greet_at_once_is_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(signal.SIGSTOP)
        goes_on = threading.Timer(1.5, process.send_signal, [signal.SIGCONT])
        goes_on.start()
        try:
            with ringmain.open(tmp_path) as log:
                assert log.streams()
        finally:
            goes_on.join()
            process.kill()


def test_sequences_conflicts_and_limits_are_as_in_a_log_of_ones_own(node: Journal, tmp_path: Path) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))}, producer="p", sequence=7)
        assert log.append({"readings": readings(("a", T, 1.0))}, producer="p", sequence=7).duplicate
        with pytest.raises(ConflictError, match="use the next one, 8"):
            log.append({"readings": readings(("a", T, 9.0))}, producer="p", sequence=7)
        with pytest.raises(UnknownStreamError, match="nowhere"):
            log.append({"nowhere": readings(("a", T, 9.0))})
        many = pa.table(
            {"series": pa.array([0] * 300_000, pa.uint32()), "time": [T] * 300_000, "value": [1.0] * 300_000}
        )
        with pytest.raises(TooLargeError):
            log.append({"readings": many})
        assert log.load({"readings": many}).rows == 300_000
        assert log.load({"readings": many}, sequence=0).rows == 0
        with pytest.raises(LogError, match=r"'s[3-6]' is one more"):
            log.append({"readings": readings(*((f"s{n}", T, 1.0) for n in range(7)))}, producer="p")
    with ringmain.open(tmp_path / "data") as log:
        assert log.append({"readings": readings(("a", T, 1.0))}, producer="p", sequence=7).duplicate


def test_a_node_that_is_started_again_is_used_again(tmp_path: Path) -> None:
    node = open_log(tmp_path / "data")
    node.listen(registrar=SeriesRegistry(node))
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))}, sequence=1)
        node.close()
        log._log._connection.timeout_s = 0.05
        with pytest.raises(LogFailedError, match="send again"):
            log.append({"readings": readings(("a", T, 2.0))}, sequence=2)
        log._log._connection.timeout_s = 20
        node = open_log(tmp_path / "data")
        node.listen(registrar=SeriesRegistry(node))
        log.append({"readings": readings(("a", T, 2.0))}, sequence=2)
        assert [row[2] for row in read(log)] == [1.0, 2.0]
    node.close()


def _lose_next_answer(log: Any, *, stored: bool) -> None:
    """The connection is lost with the next append, which is stored, or not."""
    remote = log._log
    append = remote.append

    def lost(*arguments: Any, **named: Any) -> None:
        remote.append = append
        if stored:
            append(*arguments, **named)
        raise LogFailedError("the connection was lost: it may be stored or not")

    remote.append = lost


@pytest.mark.parametrize("stored", [True, False])
def test_without_a_sequence_what_follows_a_lost_connection_is_no_conflict(
    node: Journal, tmp_path: Path, stored: bool
) -> None:
    with ringmain.open(tmp_path / "data") as log:
        log.append({"readings": readings(("a", T, 1.0))})
        _lose_next_answer(log, stored=stored)
        with pytest.raises(LogFailedError):
            log.append({"readings": readings(("a", T + 1, 2.0))})
        assert not log.append({"readings": readings(("a", T + 2, 3.0))}).duplicate
        log.append({"readings": readings(("a", T + 3, 4.0))})
        assert [row[2] for row in read(log)] == ([1.0, 2.0, 3.0, 4.0] if stored else [1.0, 3.0, 4.0])
        assert not list(node.read("conflicts"))


@pytest.mark.parametrize("stored", [True, False])
def test_without_a_sequence_the_same_after_a_lost_connection_is_stored_once(
    node: Journal, tmp_path: Path, stored: bool
) -> None:
    with ringmain.open(tmp_path / "data") as log:
        for number in (1.0, 2.0):
            _lose_next_answer(log, stored=stored)
            with pytest.raises(LogFailedError):
                log.append({"readings": readings(("a", T, number))})
            assert log.append({"readings": readings(("a", T, number))}).duplicate == stored
        assert [row[2] for row in read(log)] == [1.0, 2.0]
        assert not list(node.read("conflicts"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_works_through_the_socket_as_far_as_it_may() -> None:
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        with open_log(Path(place) / "data") as node:
            access = Access("theirs", "nobody", ("readings", "catalogue"), append=True)
            node.listen(policy=UserPolicy([access]), registrar=SeriesRegistry(node))
            os.chmod(Path(place) / "data", 0o755)
            done = subprocess.run(
                [sys.executable, "-B", "-c", OTHER, f"{place}/data", f"{place}/warm"],
                capture_output=True,
                text=True,
                cwd=root,
                env={**os.environ, "PYTHONPATH": f"{root}/src:{root}", "HOME": place},
                check=False,
            )
            assert done.stdout.splitlines() == [
                f"(False, True, [('x/p', {T}, 1.0, 0)], ['catalogue', 'readings'])",
                f"[('x/p', {T}, 1.0, 0)]",
            ], done.stderr
            assert node.catalogue().source_of(0) == "access/theirs"
            assert "access/theirs/client/theirs" in node._store.state.producers
