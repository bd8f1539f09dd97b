"""Opening: the lock, network file systems, clocks that jump, real full disks, and what `verify` reports."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringmain.log import open_log
from ringmain.log.check.verify import verify
from ringmain.log.clock import BEHIND
from ringmain.log.files import LocalFileSystem, is_network
from ringmain.log.frames import SEGMENT_HEADER_BYTES
from ringmain.log.interface import LogError, LogFullError, LogLockedError
from ringmain.log.segments import StoredGroup, walk
from tests.log.batches import reading_batch, values
from tests.promises import Fault, Part, promise

SECOND_NS = 10**9
YEAR_NS = 365 * 86_400 * SECOND_NS


@promise(Fault.TWO_NODES, Part.JOURNAL, "The second is refused, with the process that holds the lock.")
def test_a_second_writer_is_refused_with_the_holders_process(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with pytest.raises(LogLockedError, match=str(os.getpid())):
        open_log(tmp_path)
    command = [
        sys.executable,
        "-c",
        "import sys; from ringmain.log import open_log; open_log(sys.argv[1])",
        str(tmp_path),
    ]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert str(os.getpid()) in other.stderr
    log.close()
    open_log(tmp_path).close()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_network_file_systems_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    class Mounted(LocalFileSystem):
        def kind(self, path: Path) -> str:
            return kind

    with pytest.raises(LogError, match=kind):
        open_log(tmp_path, fs=Mounted())


def test_the_mount_table_names_the_file_system(tmp_path: Path) -> None:
    kind = LocalFileSystem().kind(tmp_path)
    assert kind
    assert not is_network(kind)
    assert LocalFileSystem().kind(Path("/proc/self")) == "proc"


class _Clock:
    """A wall clock that a test sets, and a boot clock that only goes forward."""

    def __init__(self, wall_ns: int) -> None:
        self.wall = wall_ns
        self.elapsed = 5 * SECOND_NS

    def pass_time(self, ns: int) -> None:
        self.wall += ns
        self.elapsed += ns

    def wall_ns(self) -> int:
        return self.wall

    def elapsed_ns(self) -> int:
        return self.elapsed


def _clock_states(directory: Path) -> list[tuple[int, int, int]]:
    found = []
    for path in sorted(directory.glob("*.seg")):
        handle = os.open(path, os.O_RDONLY)
        for group in walk(LocalFileSystem(), handle, SEGMENT_HEADER_BYTES, path.stat().st_size):
            assert isinstance(group, StoredGroup)
            found.append((group.header.arrival_ns, group.header.wall_ns, group.header.clock_state))
        os.close(handle)
    return found


@promise(
    Fault.CLOCK_STEP,
    Part.JOURNAL,
    "Arrival never runs backwards; each step of the wall clock is recorded, to 1970, to 2038 and back.",
)
def test_arrival_never_runs_backwards_and_steps_are_recorded(tmp_path: Path) -> None:
    clock = _Clock(10 * SECOND_NS)  # a box that boots in 1970
    log = open_log(tmp_path, clock=clock)
    claim = log.claim("a")
    arrivals = []
    sequence = 0

    def append() -> None:
        nonlocal sequence
        sequence += 1
        arrivals.append(log.append([reading_batch(1)], claim=claim, sequence=sequence).arrival_ns)

    clock.pass_time(SECOND_NS)
    append()
    clock.wall = 56 * YEAR_NS  # learns the date
    append()
    clock.wall = 68 * YEAR_NS  # a GPS receiver jumps to 2038
    append()
    clock.pass_time(SECOND_NS)
    clock.wall = 56 * YEAR_NS + 5 * SECOND_NS  # and back
    append()
    clock.pass_time(SECOND_NS)
    append()
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 11 * SECOND_NS
    assert arrivals[1] == 56 * YEAR_NS
    assert arrivals[3] == 68 * YEAR_NS + SECOND_NS
    assert arrivals[4] == arrivals[3] + SECOND_NS
    assert [frame.clock_state & ~BEHIND for frame in log.read("readings")] == [0, 1, 2, 3, 3]
    log.close()
    states = _clock_states(tmp_path)
    assert [arrival for arrival, _, _ in states] == sorted(arrival for arrival, _, _ in states)
    assert states[-1][1] == clock.wall
    assert {state & ~BEHIND for _, _, state in states} == {0, 1, 2, 3}
    assert states[-1][2] & BEHIND
    clock.pass_time(SECOND_NS)
    log = open_log(tmp_path, clock=clock)
    claim = log.claim("a")
    append()
    assert arrivals[-1] >= arrivals[-2]
    log.close()


def test_time_that_passes_is_no_step(tmp_path: Path) -> None:
    clock = _Clock(56 * YEAR_NS)
    log = open_log(tmp_path, clock=clock)
    claim = log.claim("a")
    for number in range(5):
        clock.pass_time(3_600 * SECOND_NS)
        clock.wall += 2 * SECOND_NS  # a clock slewed by NTP
        log.append([reading_batch(1)], claim=claim, sequence=number)
    log.close()
    assert {state for _, _, state in _clock_states(tmp_path)} == {0}


@promise(
    Fault.DISK_FULL,
    Part.JOURNAL,
    "Appends are refused with the reason and nothing of them is stored; retention makes room, and the log goes on by itself.",
)
def test_a_really_full_disk_is_lived_through(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        log = open_log(disk / "log", segment_bytes=2 << 20)
        claim = log.claim("a", epoch=0)
        stored = 0
        with contextlib.suppress(LogFullError):
            while stored < 1_000:
                log.append([reading_batch(5_000, value=stored)], claim=claim, sequence=stored)
                stored += 1
        assert 20 < stored < 1_000
        with pytest.raises(LogFullError, match="no space"):
            log.append([reading_batch(5_000, value=stored)], claim=claim, sequence=stored)
        assert len(list(log.read("readings"))) == stored
        assert log.retain(size_bytes=3 << 20) > 0
        log.append([reading_batch(5_000, value=stored)], claim=claim, sequence=stored)
        kept = [frame.sequence for frame in log.read("readings")]
        assert kept == list(range(kept[0], stored + 1))
        log.close()
        log = open_log(disk / "log")
        assert [frame.sequence for frame in log.read("readings")] == kept
        evicted = [
            row for row in log.ledger().select(["kind", "rows"]).to_pylist() if row["kind"] == "evicted"
        ]
        assert sum(row["rows"] for row in evicted) == kept[0] * 5_000
        log.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_verify_finds_a_sound_log_sound_and_says_where_it_is_not(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=8192)
    claim = log.claim("a")
    for number in range(30):
        log.append([reading_batch(40, value=number)], claim=claim, sequence=number)
    seen: list[tuple[int, int]] = []
    running = verify(tmp_path, lambda done, total: seen.append((done, total)))
    assert running.rows["readings"] == 1200
    assert seen[-1][0] == seen[-1][1]
    log.close()
    report = verify(tmp_path)
    assert not [problem for problem in report.problems if problem.where != "catalogue"]
    assert report.rows["readings"] == 1200
    assert report.segments == len(list(tmp_path.glob("*.seg")))
    path = tmp_path / "0000000003.seg"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    damaged = verify(tmp_path)
    assert not damaged.sound
    assert any(str(problem).startswith("segment 3, bytes ") for problem in damaged.problems)
    assert any(problem.rows == {"readings": 40} for problem in damaged.problems)
    sidecar = tmp_path / "0000000002.idx"
    sidecar.write_bytes(sidecar.read_bytes()[:-1])
    assert any(problem.where == "index 0000000002.idx" for problem in verify(tmp_path).problems)


def test_values_read_are_those_appended_across_many_openings(tmp_path: Path) -> None:
    expected: list[float] = []
    for opening in range(12):
        log = open_log(tmp_path, segment_bytes=4096)
        claim = log.claim("a")
        for number in range(5):
            expected += [opening * 1000.0 + number * 100 + n for n in range(20)]
            log.append([reading_batch(20, value=opening * 1000 + number * 100)], claim=claim, sequence=number)
        log.close()
    log = open_log(tmp_path)
    assert values(log.read("readings")) == expected
    log.close()
