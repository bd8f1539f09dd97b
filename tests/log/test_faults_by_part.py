"""What a fault does to each part of a log that has everything in it: readings, positions, series, checkpoints, readers.

Beside the tests of each subject, these look at all parts at once, at every call of the disk: the cells of the matrix in
docs/durability.md that no other test shows.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.clock import Clock
from ringmain.log.frames import SEGMENT_HEADER_BYTES
from ringmain.log.interface import Batch, ConflictError, LogError, LogLockedError, LogReader
from ringmain.log.journal import Journal
from ringmain.log.recovery import read_mark
from ringmain.log.segments import StoredGroup, walk
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING, TIMESTAMP
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.promises import Fault, Part, promise

DIRECTORY = Path("log")
SEGMENT_BYTES = 6_000
SECOND_NS = 10**9
YEAR_NS = 365 * 86_400 * SECOND_NS


def _open(disk: SimulatedDisk, clock: Clock | None = None) -> Journal:
    return open_log(DIRECTORY, fs=disk, clock=clock, segment_bytes=SEGMENT_BYTES)


def _batch(number: int) -> Batch:
    """One reading of series `number`, whose value is the number."""
    columns = [
        pa.array([number], pa.uint32()),
        pa.array([number], pa.int64()).cast(TIMESTAMP),
        pa.array([float(number)]),
        pa.array([0], pa.uint16()),
    ]
    return Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))


class _Box:
    """A source whose nth append brings a new series, a reading of it and the position behind it."""

    def __init__(self, log: Journal) -> None:
        self.log = log
        self.registry = SeriesRegistry(log)
        self.claim = log.claim("box", epoch=0)
        self.number = -1 if self.claim.last_sequence is None else self.claim.last_sequence

    def append(self) -> None:
        """Append the next. Raises LogError; the same is appended by the next call then."""
        number = self.number + 1
        series = self.registry.register("box", f"meter/{number}", SeriesAttributes(unit="W"))
        assert series == number, "ids are dense, and one that was given to nothing durable is given again"
        entries, token = self.registry.unsaved()
        self.log.append(
            [*(Batch("catalogue", entry) for entry in entries), _batch(number)],
            claim=self.claim,
            sequence=number,
            positions={"box/at": b"%d" % number},
        )
        self.registry.saved(token)
        self.number = number


def _seen(log: LogReader) -> dict[int, tuple[int, float]]:
    """Sequence, position and value of every reading, which must be in order and without a gap."""
    frames = list(log.read("readings"))
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    return {
        frame.sequence: (frame.position.offset, frame.rows.column("value")[0].as_py()) for frame in frames
    }


def _check_parts(log: LogReader, at_least: int) -> int:
    """Every part says the same; the newest number, which is not below what was acknowledged."""
    seen = _seen(log)
    newest = max(seen, default=-1)
    assert newest >= at_least
    assert [value for _, value in seen.values()] == [float(number) for number in seen]
    assert log.positions() == ({"box/at": b"%d" % newest} if seen else {})
    catalogue = log.catalogue()
    assert [catalogue.id_of(f"meter/{number}") for number in seen] == list(seen)
    assert len(catalogue) == len(seen)
    return newest


def _goes_on(disk: SimulatedDisk, at_least: int, clock: Clock | None = None) -> None:
    """Whoever comes next finds every part whole, and the box goes on where it was."""
    if disk.contents():
        with open_reader(DIRECTORY, fs=disk) as reader:
            _seen(reader)
    with _open(disk, clock) as log:
        newest = _check_parts(log, at_least)
        box = _Box(log)
        assert box.number == newest
        for _ in range(3):
            box.append()
        assert _check_parts(log, newest + 3) == newest + 3


def _interrupted(
    end: Callable[[SimulatedDisk], SimulatedDisk], call: int, seed: int
) -> tuple[SimulatedDisk, int, dict[int, tuple[int, float]]]:
    """Let a box run until the nth changing call, then `end` it; the disk afterwards, what was acknowledged and seen.

    Readers of the same and of another process look in front of every changing call.
    """
    disk = SimulatedDisk(seed=seed)
    after: list[SimulatedDisk] = []
    seen: dict[int, tuple[int, float]] = {}
    calls = itertools.count(1)
    readers: list[LogReader] = []

    def before(name: str, _: Path | None) -> None:
        # what readers call themselves, and what goes on beside the commits, is not counted
        if disk.off or name not in CHANGING_CALLS or threading.current_thread().name != "log-commit":
            return
        for reader in readers:
            seen.update(_seen(reader))
        if next(calls) == call:
            after.append(end(disk))

    disk.before_call = before
    acknowledged = -1
    box = None
    try:
        log = _open(disk)
        readers += [log, open_reader(DIRECTORY, fs=disk)]
        box = _Box(log)
        for _ in range(20):
            box.append()
            acknowledged = box.number
    except (LogError, OSError):
        assert disk.off
    if box is not None:
        box.log.close()
    return (after[0] if after else end(disk)), acknowledged, seen


@promise(
    Fault.KILL,
    Part.POSITIONS,
    "They are where the newest stored append put them, fences and sequences included.",
)
@promise(
    Fault.KILL,
    Part.CATALOGUE,
    "Every stored reading has its series, with the id that it had; ids stay dense.",
)
@promise(
    Fault.KILL,
    Part.SNAPSHOTS,
    "A checkpoint that was being written is swept away; the one before it and the journal are enough.",
)
@promise(Fault.KILL, Part.READERS, "Whatever a reader of any process saw is still there, under its position.")
@pytest.mark.parametrize("call", range(3, 120, 6))
def test_a_kill_at_any_call_leaves_every_part_whole(call: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    disk, acknowledged, seen = _interrupted(SimulatedDisk.kill, call, seed=call)
    _check_seen(disk, seen)
    _goes_on(disk, acknowledged)


@promise(
    Fault.POWER_CUT,
    Part.POSITIONS,
    "They move with their data or not at all, and never fall behind an acknowledgement.",
)
@promise(
    Fault.POWER_CUT,
    Part.CATALOGUE,
    "Every stored reading has its series: the entry is in the append that first needs it.",
)
@promise(
    Fault.POWER_CUT,
    Part.READERS,
    "Whatever a reader of any process saw before the cut is there after it, under its position.",
)
@pytest.mark.parametrize("call", range(4, 120, 4))
def test_a_power_cut_at_any_call_leaves_every_part_whole(call: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    disk, acknowledged, seen = _interrupted(SimulatedDisk.cut_power, call, seed=call)
    _check_seen(disk, seen)
    _goes_on(disk, acknowledged)


def _check_seen(disk: SimulatedDisk, seen: dict[int, tuple[int, float]]) -> None:
    if not seen:
        return
    with _open(disk.copy()) as log:
        assert seen.items() <= _seen(log).items()


@promise(
    Fault.DISK_FULL, Part.READERS, "They go on; nothing of a refused append is ever seen, in any process."
)
@promise(
    Fault.WRITE_ERROR, Part.POSITIONS, "They stay where they are until their append is stored, and move then."
)
@promise(
    Fault.WRITE_ERROR,
    Part.CATALOGUE,
    "Entries of a failed append travel again with the next; ids stay dense.",
)
@promise(
    Fault.WRITE_ERROR, Part.READERS, "They go on; nothing of a failed append is ever seen, in any process."
)
@promise(
    Fault.SYNC_ERROR, Part.POSITIONS, "They stay where they are until their append is stored, and move then."
)
@promise(
    Fault.SYNC_ERROR, Part.CATALOGUE, "Entries of a failed append travel again with the next; ids stay dense."
)
@promise(
    Fault.SYNC_ERROR,
    Part.READERS,
    "They go on; nothing whose sync failed is ever seen, in any process, though its bytes may be in the file.",
)
@pytest.mark.parametrize(
    ("call", "error"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)]
)
@pytest.mark.parametrize("nth", [0, 1, 3])
def test_while_a_disk_refuses_nothing_moves_and_afterwards_everything_goes_on(
    call: str, error: int, nth: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    disk = SimulatedDisk(seed=nth)
    with _open(disk) as log, open_reader(DIRECTORY, fs=disk) as reader:
        box = _Box(log)
        for _ in range(10):
            box.append()
        for spared in range(nth):
            disk.fail(call, error, nth=spared + 1, suffix=".seg")
        disk.fail(call, error, suffix=".seg")
        for _ in range(3):
            with pytest.raises(LogError):
                box.append()
            assert _check_parts(log, 9) == 9
            assert _check_parts(reader, 9) == 9
        disk.heal()
        for _ in range(5):
            box.append()
        assert _check_parts(log, 14) == 14
        assert _check_parts(reader, 14) == 14
    _goes_on(disk, 14)


@promise(
    Fault.DISK_FULL,
    Part.SNAPSHOTS,
    "A checkpoint that cannot be written is left out; the ones before it stay, and nothing is removed that only it would hold.",
)
@promise(
    (Fault.WRITE_ERROR, Fault.SYNC_ERROR),
    Part.SNAPSHOTS,
    "A checkpoint that cannot be written gets no name; the ones before it stay, and the journal replays the rest.",
)
@pytest.mark.parametrize(
    ("call", "error"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)]
)
def test_checkpoints_that_cannot_be_written_cost_nothing_but_a_longer_opening(
    call: str, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    disk = SimulatedDisk()
    log = _open(disk)
    box = _Box(log)
    for _ in range(5):
        box.append()
    log.create_stream("first", 3, READING)  # returns when a checkpoint is written
    kept = {path: data for path, data in disk.contents().items() if path.suffix == ".ckp"}
    assert kept
    disk.fail(call, error, suffix=".tmp")
    for _ in range(20):
        box.append()
    log.create_stream("second", 3, READING)
    assert {path: data for path, data in disk.contents().items() if path.suffix == ".ckp"} == kept
    assert log.retain(size_bytes=0) == 0
    disk = disk.kill()
    log.close()
    _goes_on(disk, 24)


@promise(
    Fault.BIT_FLIP,
    Part.POSITIONS,
    "A damaged group is quarantined whole: its positions go with its data, back to those of the group before.",
)
@promise(
    Fault.BIT_FLIP,
    Part.POSITIONS,
    "Where a checkpoint holds a position already, damage of the group that moved it changes nothing.",
)
@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_position_is_never_that_of_a_damaged_group_alone(
    checkpoints: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    disk = SimulatedDisk()
    with open_log(DIRECTORY, fs=disk) as log:
        box = _Box(log)
        for _ in range(10):
            box.append()
    path = DIRECTORY / "0000000001.seg"
    handle = disk.open_existing(path)
    mark = read_mark(disk, DIRECTORY)
    assert mark is not None
    groups = [
        one for one in walk(disk, handle, SEGMENT_HEADER_BYTES, mark.end) if isinstance(one, StoredGroup)
    ]
    newest = [group for group in groups if len(group.frames) > 1][-1]
    disk.flip(path, newest.end - 9)
    files = disk.contents()
    if not checkpoints:
        files = {path: data for path, data in files.items() if path.suffix != ".ckp"}
    with open_log(DIRECTORY, fs=SimulatedDisk(files)) as log:
        assert list(_seen(log)) == list(range(9))
        assert log.positions() == {"box/at": b"9" if checkpoints else b"8"}
        quarantined = [
            row for row in log.ledger().drop_columns(["time"]).to_pylist() if row["kind"] == "quarantined"
        ]
        assert "readings" in {row["stream"] for row in quarantined}


@promise(
    Fault.CLOCK_STEP,
    (Part.POSITIONS, Part.CATALOGUE),
    "No clock is in them: order is that of the appends, whatever the wall clock does.",
)
@promise(
    Fault.CLOCK_STEP,
    Part.READERS,
    "Arrival never runs backwards, so that finding by arrival time keeps working; each frame says whether the clock was stepped.",
)
@promise(
    Fault.BOOT_1970,
    (Part.POSITIONS, Part.CATALOGUE),
    "No clock is in them: they go on where they were.",
)
@promise(
    Fault.BOOT_1970,
    Part.READERS,
    "Arrival goes on from the newest that is stored; finding by arrival time keeps working.",
)
@pytest.mark.parametrize("boots", [False, True])
def test_parts_do_not_care_what_the_wall_clock_says(boots: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    clock, disk = SimulatedClock(), SimulatedDisk()
    start_ns = clock.wall_ns()
    log = _open(disk, clock)
    box = _Box(log)
    for wall_ns in (start_ns, 68 * YEAR_NS, 10 * SECOND_NS, start_ns + 60 * SECOND_NS):
        if boots:
            log.close()
            clock.boot(wall_ns)
            log = _open(disk, clock)
            box = _Box(log)
        else:
            clock.step(wall_ns)
        for _ in range(5):
            clock.pass_time(SECOND_NS)
            box.append()
        _check_parts(log, box.number)
    frames = list(log.read("readings"))
    arrivals = [frame.arrival_ns for frame in frames]
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) == 20
    for frame in frames:
        behind = log.find("readings", frame.arrival_ns)
        assert next(one.sequence for one in log.read("readings", after=behind)) == frame.sequence
    states = [frame.clock_state & 0x7FFF for frame in frames]
    assert states == sorted(states)
    # a machine that was off cannot know how long: only a clock behind what is stored is a step
    assert len(set(states)) == (3 if boots else 4)
    log.close()
    _goes_on(disk, 19, clock)


@promise(
    Fault.TWO_NODES,
    (Part.POSITIONS, Part.CATALOGUE, Part.SNAPSHOTS),
    "The second is refused before it has changed a byte of the directory.",
)
@promise(
    Fault.TWO_NODES,
    Part.READERS,
    "They need no lock: any number of processes reads beside the one that writes.",
)
def test_a_refused_second_node_changes_nothing_and_readers_are_not_refused() -> None:
    disk = SimulatedDisk()
    with _open(disk) as log:
        box = _Box(log)
        for _ in range(30):
            box.append()
        log.create_stream("done", 3, READING)  # returns when the background work is done as well
        before = disk.contents()
        with pytest.raises(LogLockedError):
            _open(disk)
        with open_reader(DIRECTORY, fs=disk) as one, open_reader(DIRECTORY, fs=disk) as other:
            assert _check_parts(one, 29) == _check_parts(other, 29) == 29
        assert disk.contents() == before
        box.append()
        assert _check_parts(log, 30) == 30
    _goes_on(disk, 30)


@promise(
    Fault.CLONED_BOX,
    (Part.POSITIONS, Part.CATALOGUE),
    "Nothing of a clone's conflicting append is taken over: neither its positions nor its series.",
)
def test_a_clones_positions_and_series_are_not_taken_over() -> None:
    disk = SimulatedDisk()
    with _open(disk) as log:
        box = _Box(log)
        for _ in range(5):
            box.append()
        original = _batch(4)
        other = Batch("readings", original.rows.set_column(2, "value", pa.array([99.0])))
        entry = {"id": 5, "key": "meter/of the clone"}
        catalogue = Batch("catalogue", pa.RecordBatch.from_pylist([entry], log_schema(log, "catalogue")))
        with pytest.raises(ConflictError):
            log.append(
                [catalogue, other],
                claim=box.claim,
                sequence=4,
                positions={"box/at": b"of the clone", "box/other": b"x"},
            )
        assert _check_parts(log, 4) == 4
        assert [frame.rows.column("stream").to_pylist() for frame in log.read("conflicts")] == [
            ["catalogue"],
            ["readings"],
        ]
    _goes_on(disk, 4)


def log_schema(log: Journal, stream: str) -> pa.Schema:
    """The schema of one of the log's streams."""
    return next(state.stream.schema for state in log.streams() if state.stream.name == stream)


def test_the_interrupted_runs_are_interrupted_where_things_happen() -> None:
    acknowledged, seen = zip(
        *(_interrupted(SimulatedDisk.kill, call, seed=call)[1:] for call in range(3, 120, 9)), strict=True
    )
    assert len({*acknowledged}) > 10, "at many places of the same history"
    assert sum(len(one) for one in seen) > 100, "while somebody looked"
