"""Feeding a real log, running flows over it, and reading back what they wrote."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ringmain.flows.runner import FlowRunner, FlowState, SnapshotPolicy
from ringmain.flows.settings import Aggregate, WindowSettings
from ringmain.log import open_log
from ringmain.log.interface import Appended, Batch, Claim, LogError, LogReader, Position, StreamKind
from ringmain.log.journal import Journal
from ringmain.model.schemas import TICK, TIMESTAMP
from ringmain.runtime.counters import Counters

from .recording import Row, batch, catalogue, late_rows, window_rows

SECOND = 1_000_000_000
WAITED_FOR = "waited-for"
START = 1_700_000_000 * SECOND
SIMPLE = tuple(map(Aggregate, ("count", "sum", "mean", "min", "max", "first", "last")))


class Feed:
    """Appends readings and ticks whose log time is what the test says (as origin arrival)."""

    def __init__(self, log: Journal, epoch: int | None = None) -> None:
        self._log = log
        self._claim: Claim = log.claim("feed", epoch)
        self._sequence = -1 if self._claim.last_sequence is None else self._claim.last_sequence

    @property
    def sequence(self) -> int:
        """The last one used."""
        return self._sequence

    def readings(self, rows: list[Row], now_ns: int) -> None:
        self.append([Batch("readings", batch(rows), now_ns)])

    def devices(self, devices: dict[int, str | None]) -> None:
        self.append([Batch("catalogue", catalogue(devices))])

    def tick(self, now_ns: int) -> None:
        tick = pa.record_batch([pa.array([now_ns], TIMESTAMP)], schema=TICK)
        self.append([Batch("ticks", tick, now_ns)])

    def append(self, batches: list[Batch]) -> None:
        self._sequence += 1
        self._log.append(batches, claim=self._claim, sequence=self._sequence)


def feed_story(feed: Feed, seed: int, steps: int) -> None:
    """A fixed story for a seed: sweeps, repeats, disorder, late and changed values, clocks ahead, silence."""
    chance = random.Random(seed)
    now = START + 3600 * SECOND * seed
    feed.devices({number: f"device-{number // 3}" for number in range(30)})
    past: list[Row] = []
    for _ in range(steps):
        feed_step(feed, chance, past, now)
        now += chance.choice([1, 1, 1, 2, 5]) * SECOND
        if chance.random() < 0.05:
            now += 45 * SECOND
            feed.tick(now)
    for _ in range(3):
        now += 60 * SECOND
        feed.tick(now)


def feed_step(feed: Feed, chance: random.Random, past: list[Row], now: int) -> None:
    rows: list[Row] = [
        (number, now - chance.randrange(SECOND), chance.uniform(-1, 1) * 10.0 ** chance.randrange(-3, 6), 0)
        for number in range(30)
        if chance.random() < 0.8
    ]
    if past and chance.random() < 0.5:
        rows += chance.sample(past, min(3, len(past)))
    if past and chance.random() < 0.3:
        series, at, _, _ = chance.choice(past)
        rows.append((series, at, chance.random(), 0))
    if chance.random() < 0.3:
        rows.append((chance.randrange(30), now - chance.randrange(40) * SECOND, 1.0, chance.choice([0, 2])))
    if chance.random() < 0.1:
        rows.append((chance.randrange(30), now + 3600 * SECOND, 1.0, 0x80))
    if chance.random() < 0.3:
        chance.shuffle(rows)
    past += rows[:5]
    del past[:-200]
    if rows:
        feed.readings(rows, now)
    if chance.random() < 0.5:
        feed.tick(now)


def runner(
    log: Journal, directory: Path, flow: WindowSettings, name: str = "minute", *, often: bool = False
) -> FlowRunner:
    """A flow over the log; `often`: with a snapshot at every opportunity."""
    policy = SnapshotPolicy(refold_s=-1.0) if often else SnapshotPolicy()
    return FlowRunner(name, flow, log, Counters(), directory / "snapshots", policy=policy)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


def last_input(log: LogReader) -> Position | None:
    """The newest frame that a flow reads."""
    last = None
    for frame in log.read(["catalogue", "readings", "ticks"]):
        last = frame.position
    return last


def run_to_end(log: Journal, flow: FlowRunner, *, stop: bool = True) -> None:
    """Let a started flow fold everything that is in the log, and stop it."""
    end = last_input(log)
    until(lambda: flow.caught_up() or flow.status().state is FlowState.FAILED, "everything folded")
    if not stop:
        assert flow.state is FlowState.RUNNING, flow.status()
        return
    assert flow.stop()
    assert flow.status().last_error is None
    assert flow.committed == end


def emitted(log: LogReader, flow: WindowSettings) -> list[tuple[tuple[object, ...], ...]]:
    """The frames of the window stream, each with its origin arrival and rows, in log order."""
    return [((frame.origin_arrival_ns,), *window_rows(frame.rows)) for frame in log.read(flow.to)]


def put_aside(log: LogReader, flow: WindowSettings) -> list[tuple[object, ...]]:
    """The rows of the late stream, in log order."""
    return [row for frame in log.read(flow.late_stream) for row in late_rows(frame.rows)]


def copy_inputs(source: LogReader, directory: Path) -> Journal:
    """A new log in an empty directory that holds the inputs of another one, frame by frame."""
    log = open_log(directory)
    claim = log.claim("copy")
    for sequence, frame in enumerate(source.read(["catalogue", "readings", "ticks"])):
        copied = Batch(frame.stream, frame.rows, frame.origin_arrival_ns)
        log.append_nowait([copied], _copied, claim=claim, sequence=sequence)
    log.create_stream(WAITED_FOR, StreamKind.ROW, TICK)  # durable, so everything before it is
    return log


def _copied(_: Appended | None, error: LogError | None) -> None:
    assert error is None, error


def undisturbed(
    source: LogReader, directory: Path, flow: WindowSettings
) -> list[tuple[tuple[object, ...], ...]]:
    """What a flow from zero emits over the stored inputs of a log."""
    with copy_inputs(source, directory) as log:
        flowing = runner(log, directory, flow)
        flowing.start()
        run_to_end(log, flowing)
        return emitted(log, flow)
