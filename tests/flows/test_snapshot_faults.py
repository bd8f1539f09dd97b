"""A snapshot on a disk that fails, fills up or loses power: the one before it stays, and none is ever wrong."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.flows.aggregates import BASIC
from ringmain.flows.settings import Late, WindowSettings
from ringmain.flows.snapshot import Saved, Snapshots, encode
from ringmain.log import open_log
from ringmain.log.interface import Batch, ConflictError
from ringmain.model.schemas import TICK, TIMESTAMP
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.promises import Fault, Part, promise

from .real_log import Feed, emitted, feed_story, run_to_end, runner, undisturbed
from .recording import batch, catalogue
from .test_snapshot import some_state

DIRECTORY = Path("snapshots")
DEFINITION = "definition"
SECOND = 10**9
YEAR = 365 * 86_400 * SECOND


def _states(count: int) -> list[Saved]:
    states = [some_state() for _ in range(count)]
    for number, saved in enumerate(states):
        saved.now_ns += number
    return states


def _loaded(disk: SimulatedDisk) -> list[bytes]:
    found = Snapshots(disk, DIRECTORY, "flow").load(DEFINITION)
    return [encode(DEFINITION, state) for state in found]


@promise(
    Fault.DISK_FULL, Part.SNAPSHOTS, "A flow's snapshot is left out and tried again; the one before it stays."
)
@promise(
    (Fault.WRITE_ERROR, Fault.SYNC_ERROR),
    Part.SNAPSHOTS,
    "A flow's snapshot is left out and tried again; the one before it stays.",
)
@pytest.mark.parametrize(
    ("call", "error"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)]
)
def test_a_snapshot_that_cannot_be_written_leaves_the_one_before(call: str, error: int) -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk, DIRECTORY, "flow")
    first, second = _states(2)
    snapshots.save(DEFINITION, first)
    disk.fail(call, error)
    for _ in range(2):
        with pytest.raises(OSError, match="injected"):
            snapshots.save(DEFINITION, second)
        assert _loaded(disk) == [encode(DEFINITION, first)]
    disk.heal()
    snapshots.save(DEFINITION, second)
    assert _loaded(disk) == [encode(DEFINITION, second), encode(DEFINITION, first)]


@promise(
    Fault.POWER_CUT,
    Part.SNAPSHOTS,
    "A flow's snapshot has its name only once it is durable: after the cut there is a whole one, the new or the one before.",
)
@pytest.mark.parametrize("call", range(1, 7))
def test_after_a_power_cut_at_any_call_there_is_a_whole_snapshot(call: int) -> None:
    states = [encode(DEFINITION, fold) for fold in _states(3)]
    for seed in range(30):
        disk = SimulatedDisk(seed=seed)
        snapshots = Snapshots(disk, DIRECTORY, "flow")
        first, second, third = _states(3)
        snapshots.save(DEFINITION, first)
        snapshots.save(DEFINITION, second)
        after: list[SimulatedDisk] = []
        left = call

        def before(
            name: str, _: Path | None, disk: SimulatedDisk = disk, after: list[SimulatedDisk] = after
        ) -> None:
            nonlocal left
            left -= name in CHANGING_CALLS
            if left == 0 and not after:
                after.append(disk.cut_power())

        disk.before_call = before
        with contextlib.suppress(OSError):
            snapshots.save(DEFINITION, third)
        loaded = _loaded(after[0] if after else disk.cut_power())
        assert loaded
        assert set(loaded) <= set(states)
        assert loaded[0] in states[1:], "never older than the one before"


CLOCKED = WindowSettings(
    to="readings.10s", window="10s", grace="5s", idle="30s", values=BASIC, late=Late.REVISE
)


@promise(
    Fault.CLOCK_STEP,
    Part.SNAPSHOTS,
    "A flow that goes on from one emits what a fold from zero emits: both see the arrival times of the log.",
)
@promise(
    Fault.BOOT_1970,
    Part.SNAPSHOTS,
    "A flow that goes on from one emits what a fold from zero emits: both see the arrival times of the log.",
)
@pytest.mark.parametrize("boots", [False, True])
def test_a_flow_goes_on_from_its_snapshot_whatever_the_wall_clock_did(tmp_path: Path, boots: bool) -> None:
    clock = SimulatedClock()
    start_ns = clock.wall_ns()
    sequence = 0
    for wall_ns in (start_ns, 68 * YEAR, 5 * SECOND, start_ns + 300 * SECOND):
        if boots:
            clock.boot(wall_ns)
        with open_log(tmp_path / "log", clock=clock) as log:
            flow = runner(log, tmp_path, CLOCKED, often=True)
            flow.start()
            if not boots:
                clock.step(wall_ns)
            claim = log.claim("feed", 0)
            for step in range(15):
                clock.pass_time(2 * SECOND)
                now = clock.wall_ns()
                sequence += 1
                rows = [(number, now - SECOND, float(sequence), 0) for number in range(3)]
                tick = pa.record_batch([pa.array([now], TIMESTAMP)], schema=TICK)
                batches = [Batch("readings", batch(rows)), Batch("ticks", tick)]
                if step == 0:
                    batches.insert(0, Batch("catalogue", catalogue({0: "a", 1: "a", 2: None})))
                log.append(batches, claim=claim, sequence=sequence)
            run_to_end(log, flow)
    assert list((tmp_path / "snapshots").iterdir())
    with open_log(tmp_path / "log", clock=clock) as log:
        found = emitted(log, CLOCKED)
        assert sum(len(frame) - 1 for frame in found) > 20
        assert repr(found) == repr(undisturbed(log, tmp_path / "zero", CLOCKED))


@promise(
    Fault.CLONED_BOX,
    Part.SNAPSHOTS,
    "A flow folds its input streams, into which nothing of a clone's conflicting batch comes: it emits what it would without.",
)
def test_a_clones_batch_changes_nothing_of_what_a_flow_emits(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        feed = Feed(log, epoch=0)
        for life in range(2):
            flow = runner(log, tmp_path, CLOCKED, often=True)
            flow.start()
            feed_story(feed, life, 15)
            with pytest.raises(ConflictError):
                log.append(
                    [Batch("readings", batch([(0, 0, 99.0, 0)]))],
                    claim=log.claim("feed", 0),
                    sequence=feed.sequence,
                )
            feed = Feed(log, epoch=0)
            run_to_end(log, flow)
        assert len(list(log.read("conflicts"))) == 2
        found = emitted(log, CLOCKED)
        assert sum(len(frame) - 1 for frame in found) > 100
        assert repr(found) == repr(undisturbed(log, tmp_path / "zero", CLOCKED))
