"""The failures that the log was designed against, each with a test of its own.

What a line of this list has elsewhere, in another light, its test names in its docstring.
"""

from __future__ import annotations

import errno
import json
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from crc32c import crc32c

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.check.verify import verify
from ringmain.log.clock import BEHIND
from ringmain.log.frames import GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES, read_group_header
from ringmain.log.interface import (
    Batch,
    Claim,
    ConflictError,
    FencedError,
    Frame,
    LogFailedError,
    Position,
    PositionGoneError,
    StreamKind,
)
from ringmain.log.journal import Journal
from ringmain.model.schemas import EVENT
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.log import crash_points
from tests.log.batches import NOTE, notes, reading_batch
from tests.log.crash_checks import check
from tests.log.deterministic import without_chance

HERE = Path("log")
SECOND_NS = 10**9
YEAR_NS = 365 * 86_400 * SECOND_NS


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


def _append(log: Journal, claim: Claim, *numbers: int) -> None:
    for number in numbers:
        log.append(
            [reading_batch(10, value=number)], claim=claim, sequence=number, positions={"a": b"%d" % number}
        )


def _sequences(log: Journal) -> list[int]:
    return [frame.sequence for frame in log.read("readings")]


# -- kill -9 at every write boundary -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100, 103))
def test_a_kill_in_front_of_every_call_of_the_disk_loses_nothing_acknowledged(seed: int) -> None:
    """The page cache survives, synced or not: what the next process reads there it makes durable before it shows it."""
    with without_chance(seed):
        history = crash_points.History(seed)
        history.stage()
        for point in history.points:
            check(point, history.known, point.disk.kill())
    assert len(history.points) > 30


SUICIDE = """
import json, os, signal, sys
from pathlib import Path
from ringmain.log import open_log
from ringmain.testing import CHANGING_CALLS, FaultyFiles
from tests.log.batches import reading_batch

directory, told = Path(sys.argv[1]), Path(sys.argv[2])
telling = told.with_suffix(".new")

def live(calls):
    files = FaultyFiles()
    left = calls
    def count(name, path):
        nonlocal left
        if name in CHANGING_CALLS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    files.before_call = count
    log = open_log(directory, fs=files, segment_bytes=3_000)
    stored = [frame.sequence for frame in log.read("readings")]
    acknowledged = int(told.read_text()) if told.exists() else -1
    assert stored == list(range(len(stored))), stored
    assert len(stored) > acknowledged, (len(stored), acknowledged)
    claim = log.claim("a", epoch=0)
    number = -1 if claim.last_sequence is None else claim.last_sequence
    while True:
        number += 1
        log.append([reading_batch(10, value=number)], claim=claim, sequence=number)
        telling.write_text(str(number))
        telling.replace(told)  # the log's own threads may end the process at any moment

killed = 0
for calls in range(int(sys.argv[3])):
    child = os.fork()
    if not child:
        try:
            live(calls)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
print(json.dumps([killed, int(told.read_text())]))
"""


def test_a_process_that_is_killed_in_front_of_its_nth_call_of_the_disk_for_every_n_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    lives = 45
    command = [sys.executable, "-c", SUICIDE, str(tmp_path / "log"), str(tmp_path / "told"), str(lives)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    killed, acknowledged = json.loads(ran.stdout)
    assert killed == lives, ran.stderr
    with open_log(tmp_path / "log") as log:
        stored = _sequences(log)
        assert stored == list(range(len(stored)))
        assert len(stored) > acknowledged > 20


# -- failing fdatasync ---------------------------------------------------------------------------------------


def test_an_append_whose_sync_failed_is_durable_when_it_is_acknowledged_nevertheless() -> None:
    """As on Linux the pages count as clean after a failed sync: only what was written elsewhere is safe."""
    for seed in range(30):
        disk = SimulatedDisk(seed=seed)
        log = open_log(HERE, fs=disk)
        claim = log.claim("a", epoch=0)
        _append(log, claim, 0, 1)
        disk.fail("sync", nth=0, suffix=".seg")
        _append(log, claim, 2)
        disk.fail("sync", nth=seed % 3, suffix=".seg")
        _append(log, claim, 3, 4, 5)
        disk.off = True
        log.close()
        with open_log(HERE, fs=disk.cut_power()) as after:
            assert _sequences(after) == [0, 1, 2, 3, 4, 5]
            assert after.positions() == {"a": b"5"}
            assert set(after.ledger().column("kind").to_pylist()) <= {LedgerKind.CUT}


def test_an_append_that_failed_for_good_is_there_wholly_or_not_at_all_after_a_power_cut() -> None:
    found = set()
    for seed in range(30):
        disk = SimulatedDisk(seed=seed)
        log = open_log(HERE, fs=disk)
        claim = log.claim("a", epoch=0)
        _append(log, claim, 0)
        disk.fail("sync", suffix=".seg")
        with pytest.raises(LogFailedError):
            _append(log, claim, 1)
        disk.off = True
        log.close()
        with open_log(HERE, fs=disk.cut_power()) as after:
            stored = _sequences(after)
            found.add(tuple(stored))
            assert stored in ([0], [0, 1])
            assert after.positions() == {"a": b"%d" % stored[-1]}
            again = after.append([reading_batch(10, value=1)], claim=after.claim("a", epoch=0), sequence=1)
            assert again.duplicate == (stored == [0, 1])
    assert (0,) in found


# -- a zombie flow beside its replacement --------------------------------------------------------------------


def test_a_flow_that_hung_doubles_nothing_when_it_goes_on_beside_its_replacement() -> None:
    """Each step appends its output and its position; the one that was away finds itself fenced."""
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk) as log:
        log.create_stream("sums", StreamKind.ROW, NOTE)
        source = log.claim("source")
        for number in range(10):
            log.append([reading_batch(1, value=number)], claim=source, sequence=number)

        def step(claim: Claim, sequence: int, until: int) -> None:
            at = int(log.positions("flow").get("flow", b"-1"))
            rows = [frame for frame in log.read("readings") if at < frame.sequence <= until]
            output = [Batch("sums", notes(*[f"sum {frame.sequence}" for frame in rows]))]
            log.append(output, claim=claim, sequence=sequence, positions={"flow": b"%d" % until})

        hung = log.claim("flow")
        step(hung, 0, 3)
        replacement = log.claim("flow")
        step(replacement, 0, 6)
        with pytest.raises(FencedError, match=r"no longer the owner.*stop this copy"):
            step(hung, 1, 8)
        step(replacement, 1, 9)
        with pytest.raises(FencedError):
            step(hung, 2, 9)
        texts = [text for frame in log.read("sums") for text in frame.rows.column("text").to_pylist()]
        assert texts == [f"sum {number}" for number in range(10)]
        assert log.positions("flow") == {"flow": b"9"}
    with open_log(HERE, fs=disk) as log, pytest.raises(FencedError):
        log.append([Batch("sums", notes("late"))], claim=hung, sequence=9)


# -- a cloned edge box ---------------------------------------------------------------------------------------


def test_a_cloned_box_is_found_out_and_what_it_sent_is_kept() -> None:
    with open_log(HERE, fs=SimulatedDisk()) as log:
        box = log.claim("box-7", epoch=0)
        for number in range(5):
            log.append([reading_batch(3, value=number)], claim=box, sequence=number)
        clone = log.claim("box-7", epoch=0)
        assert clone.last_sequence == 4
        with pytest.raises(FencedError):
            log.append([reading_batch(3, value=5)], claim=box, sequence=5)
        before = _sequences(log)
        same = log.append([reading_batch(3, value=4)], claim=clone, sequence=4)
        assert same.duplicate, "what both have is there once"
        nothing = Batch("events", pa.RecordBatch.from_pylist([], schema=EVENT))
        with pytest.raises(ConflictError, match="two boxes with one identity"):
            log.append([reading_batch(3, value=99), nothing], claim=clone, sequence=4)
        assert _sequences(log) == before
        kept = [
            row for frame in log.read("conflicts") for row in frame.rows.drop_columns(["time"]).to_pylist()
        ]
        assert [(row["claim"], row["sequence"], row["stream"]) for row in kept] == [
            ("box-7", 4, "readings"),
            ("box-7", 4, "events"),
        ]
        assert len(kept[0]["body"]) > 3 * 8


# -- a standby that was rewound ------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [None, 3, 4, 5])
def test_consumers_of_a_standby_that_was_rewound_are_told_and_never_given_new_data_under_old_positions(
    copied: int | None,
) -> None:
    """`copied`: a checkpoint is made behind this append; it may hold what the standby does not have."""
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk)
    claim = log.claim("a", epoch=0)
    for number in range(6):
        _append(log, claim, number)
        if number == copied:
            log._maintenance.checkpoint()
            log._maintenance.checkpoint()
    positions = [frame.position for frame in log.read("readings")]
    disk.off = True
    log.close()
    # the standby has the mark, and not the last two groups that it vouches for
    files = disk.contents()
    segment = HERE / "0000000001.seg"
    raw = files[segment]
    at, groups = SEGMENT_HEADER_BYTES, []
    while (header := read_group_header(raw, at)) is not None:
        groups.append(at)
        at += header.length
    files[segment] = raw[: groups[-2]]
    standby = SimulatedDisk(files)
    with open_log(HERE, fs=standby) as log:
        assert _sequences(log) == [0, 1, 2, 3]
        assert LedgerKind.LOST in log.ledger().column("kind").to_pylist()
        assert log.positions("a") == {"a": b"3"}
        taken_over = log.claim("a", epoch=0)
        assert taken_over.last_sequence == 3
        _append(log, taken_over, 4)
        # the power goes before anything but the journal tells of it: the next opening knows it from there
        standby = standby.cut_power()
    problems = [one.where for one in verify(HERE, fs=standby).problems]
    assert not [where for where in problems if "checkpoint" in where or "state" in where], problems
    with open_log(HERE, fs=standby) as log:
        taken_over = log.claim("a", epoch=0)
        assert taken_over.last_sequence == 4
        _append(log, taken_over, *range(5, 12))
        new = [frame.position for frame in log.read("readings")][4:]
        assert not set(new) & set(positions)
        for beyond in positions[4:]:
            with pytest.raises(PositionGoneError, match="incarnation"):
                log.read("readings", after=beyond)
        assert [frame.sequence for frame in log.read("readings", after=positions[3])] == list(range(4, 12))
    with open_reader(HERE, fs=standby) as reader, pytest.raises(PositionGoneError, match="incarnation"):
        reader.read("readings", after=positions[5])


def test_a_rewound_log_without_its_beginning_takes_again_what_it_lost_and_nothing_twice() -> None:
    """Retention took the beginning, and every checkpoint is ahead: what producers appended is told from the frames."""
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=3_000)
    claim = log.claim("a", epoch=0)
    _append(log, claim, *range(40))
    assert log.retain(size_bytes=9_000) > 0
    _append(log, claim, *range(40, 44))
    log._maintenance.checkpoint()
    log._maintenance.checkpoint()
    disk.off = True
    log.close()
    files = disk.contents()
    segments = sorted(path for path in files if path.suffix == ".seg")
    assert len(segments) > 2
    del files[segments[-1]]
    standby = SimulatedDisk(files)
    with open_log(HERE, fs=standby, segment_bytes=3_000) as log:
        kept = _sequences(log)
        assert LedgerKind.LOST in log.ledger().column("kind").to_pylist()
        again = log.claim("a", epoch=0)
        assert again.last_sequence == kept[-1] < 43
        assert log.append([reading_batch(10, value=kept[-1])], claim=again, sequence=kept[-1]).duplicate
        _append(log, again, *range(kept[-1] + 1, 46))
        assert _sequences(log) == list(range(kept[0], 46))
        standby = standby.cut_power()
    with open_log(HERE, fs=standby, segment_bytes=3_000) as log:
        assert log.claim("a", epoch=0).last_sequence == 45
        assert _sequences(log) == list(range(kept[0], 46))


# -- disk full while archiving -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tmp", ".ckp"])
def test_a_disk_that_is_full_for_checkpoints_and_indexes_leaves_the_journal_going(suffix: str) -> None:
    """There is no archive yet; these are the files that the log writes beside the journal."""
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=3_000)
    claim = log.claim("a", epoch=0)
    _append(log, claim, 0)
    disk.fail("write" if suffix == ".tmp" else "rename", errno.ENOSPC, suffix=suffix)
    _append(log, claim, *range(1, 30))
    assert log.retain(size_bytes=0) == 0, "nothing goes that no checkpoint holds"
    disk.off = True
    log.close()
    after = disk.cut_power()
    with open_log(HERE, fs=after, segment_bytes=3_000) as log:
        assert _sequences(log) == list(range(30))
        assert log.positions() == {"a": b"29"}
        _append(log, log.claim("a", epoch=0), 30)
        assert log.retain(size_bytes=0) > 5
    assert not [path for path in after.contents() if path.suffix == ".tmp"]
    with open_log(HERE, fs=after) as log:
        assert log.positions() == {"a": b"30"}


# -- boot in 1970, GPS jump to 2038 --------------------------------------------------------------------------


def _arrivals(log: Journal) -> list[tuple[int, bool]]:
    return [(frame.arrival_ns, bool(frame.clock_state & BEHIND)) for frame in log.read("readings")]


def test_a_box_that_boots_in_1970_goes_on_behind_what_it_has_and_throws_nothing_away() -> None:
    disk, clock = SimulatedDisk(), SimulatedClock(56 * YEAR_NS)
    with open_log(HERE, fs=disk, clock=clock, segment_bytes=2_000) as log:
        _append(log, log.claim("a", epoch=0), *range(5))
    clock.boot(30 * SECOND_NS)
    with open_log(HERE, fs=disk, clock=clock, segment_bytes=2_000) as log:
        claim = log.claim("a", epoch=0)
        clock.pass_time(SECOND_NS)
        _append(log, claim, 5)
        clock.pass_time(7 * SECOND_NS)
        _append(log, claim, 6)
        assert log.retain(age_ns=3600 * SECOND_NS) == 0
        clock.step(56 * YEAR_NS + 86_400 * SECOND_NS)  # it learns the date
        _append(log, claim, 7)
        arrivals = _arrivals(log)
    assert [at for at, _ in arrivals] == sorted(at for at, _ in arrivals)
    assert all(at >= 56 * YEAR_NS for at, _ in arrivals)
    assert arrivals[6][0] - arrivals[5][0] == 7 * SECOND_NS, "time goes on at its pace meanwhile"
    assert [behind for _, behind in arrivals] == [False] * 5 + [True, True, False]
    assert arrivals[7][0] == 56 * YEAR_NS + 86_400 * SECOND_NS
    states = {frame.sequence: frame.clock_state & ~BEHIND for frame in _frames(disk)}
    assert states[4] < states[5] == states[6] < states[7], "each step of the clock is told"


def test_a_receiver_that_jumps_to_2038_and_back_makes_nothing_old_and_time_never_runs_backwards() -> None:
    disk, clock = SimulatedDisk(), SimulatedClock(56 * YEAR_NS)
    with open_log(HERE, fs=disk, clock=clock, segment_bytes=2_000) as log:
        claim = log.claim("a", epoch=0)
        _append(log, claim, *range(5))
        clock.step(68 * YEAR_NS)
        _append(log, claim, 5)
        assert log.retain(age_ns=3600 * SECOND_NS) == 0
        clock.step(56 * YEAR_NS + SECOND_NS)
        _append(log, claim, 6)
        clock.pass_time(SECOND_NS)
        _append(log, claim, 7)
        assert log.retain(age_ns=3600 * SECOND_NS) == 0
        arrivals = _arrivals(log)
    assert [at for at, _ in arrivals] == sorted(at for at, _ in arrivals)
    assert arrivals[7][0] - arrivals[6][0] == SECOND_NS
    assert arrivals[7][1], "marked as long as the wall clock is behind"
    # and across a restart: the log goes on behind its newest frame, not at the wall clock
    with open_log(HERE, fs=disk, clock=clock) as log:
        _append(log, log.claim("a", epoch=0), 8)
        assert _arrivals(log)[8][0] >= arrivals[7][0]


def _frames(disk: SimulatedDisk) -> list[Frame]:
    with open_log(HERE, fs=disk.copy()) as log:
        return list(log.read("readings"))


# -- damaged length field ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 8, 64, 1 << 16, 4 << 20, 0xFFFFFFF8, 0xFFFFFFFF])
@pytest.mark.parametrize("field", ["group", "frame"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_length_costs_its_group_and_nothing_behind_it(
    length: int, field: str, sealed: bool
) -> None:
    """With the CRC as it was, and with a CRC that fits the wrong length (a bug, not a disk)."""
    for crc_fits in (False, True):
        disk = SimulatedDisk()
        log = open_log(HERE, fs=disk)
        _append(log, log.claim("a", epoch=0), *range(12))
        if sealed:
            log.close()
        files = disk.contents()
        disk.off = True
        log.close()
        raw = bytearray(files[HERE / "0000000001.seg"])
        at = SEGMENT_HEADER_BYTES
        for _ in range(6):
            header = read_group_header(raw, at)
            assert header is not None
            start, at = at, at + header.length
        struct.pack_into("<I", raw, start + (8 if field == "group" else GROUP_HEADER_BYTES), length)
        if crc_fits:
            headers = raw[start : start + GROUP_HEADER_BYTES + 96 * header.frame_count]
            headers[12:16] = bytes(4)
            struct.pack_into("<I", raw, start + 12, crc32c(bytes(headers)))
        files[HERE / "0000000001.seg"] = bytes(raw)
        if sealed:
            files = {path: data for path, data in files.items() if path.suffix == ".seg"}
        with open_log(HERE, fs=SimulatedDisk(files)) as log:
            stored = _sequences(log)
            assert len(stored) == 11
            assert stored == sorted(stored)
            assert stored[-1] == 11
            assert log.ledger().column("kind").to_pylist() == [LedgerKind.QUARANTINED]
            assert log.positions() == {"a": b"11"}


# -- reader alive while its segment goes ---------------------------------------------------------------------


def test_a_reader_whose_segment_goes_under_it_is_told_and_holds_no_space(tmp_path: Path) -> None:
    """In this process and in another one's place; the ledger says what went."""
    with open_log(tmp_path, segment_bytes=4096) as log, open_reader(tmp_path) as reader:
        claim = log.claim("a", epoch=0)
        _append(log, claim, *range(60))
        inside, outside = log.read("readings"), reader.read("readings")
        assert next(inside).sequence == next(outside).sequence == 0
        gone = log.retain(size_bytes=0)
        assert gone > 3
        for frames in (inside, outside):
            with pytest.raises(PositionGoneError, match="retention"):
                list(frames)
        kept = _sequences(log)
        assert kept[0] > 10
        with pytest.raises(PositionGoneError, match="retention"):
            log.read("readings", after=Position.parse(log.ledger().column("from").to_pylist()[0]))
        rows = sum(row["rows"] for row in log.ledger().select(["rows"]).to_pylist())
        assert rows == 10 * kept[0]
        log.append([reading_batch(1)], claim=claim, sequence=60)
        held = {path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()}
        assert not [path for path in held if path.suffix == ".seg" and not path.exists()]


def test_the_list_covers_every_boundary() -> None:
    """The calls that the kills above are put in front of are all that change a disk."""
    disk = SimulatedDisk()
    with open_log(HERE, fs=disk, segment_bytes=2_000) as log:
        _append(log, log.claim("a", epoch=0), *range(20))
        log.retain(size_bytes=0)
    assert {name for name in disk.calls if name in CHANGING_CALLS} == CHANGING_CALLS
