"""Flows from log to log: a recorded load is folded by a real flow, its outputs and positions durable.

The clock runs from the start of the flow (of many: from when all of them wait for the first reading) until everything
that follows from the load is durable. `rate` is readings of
the input by the wall clock, `rate_per_core` by processor time of the process; goals are a core's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.flows import snapshot_steps
from bench.harness import CpuClock, Row, scratch
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState, SnapshotPolicy
from ringmain.flows.following import Shared
from ringmain.flows.frames import SharedFrames
from ringmain.flows.runner import FlowRunner
from ringmain.flows.steps import settings_of, step_type
from ringmain.log import Journal, open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Batch, Claim, Frame, Position
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING, TICK, TIMESTAMP
from ringmain.parts.intake import SWITCH_INTERVAL_S
from ringmain.runtime.counters import Counters

ROWS = 10_000
START_NS = 1_767_225_600_000_000_000
SECOND_NS = 1_000_000_000
DURABILITY = "outputs and position in one append, fdatasync before it counts"


@dataclass(frozen=True, slots=True)
class Load:
    """What is recorded before the clock runs. Every series reports once a second of event time."""

    series: int = 10_000
    walk: float = 0.5
    registers: bool = False
    """Register readings that only grow, instead of values that wander."""
    described: bool = True
    """Series have catalogue entries."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row: its flow's steps as a configuration has them."""

    name: str
    steps: Sequence[dict[str, Any]]
    goal: str
    load: Load = field(default_factory=Load)
    flows: int = 1
    files: Callable[[Path], None] = lambda directory: None
    note: str = ""


def _reference_file(directory: Path) -> None:
    lines = ["key,tariff,price"]
    lines += [f"feeder/{number:03d},{number % 7},{0.2 + number / 10_000:.4f}" for number in range(1_000)]
    (directory / "tariffs.csv").write_text("\n".join(lines) + "\n")


_WINDOW = {"type": "window", "window": "1m", "values": ["count", "mean", "min", "max"]}
_FILTER = {"type": "filter", "where": "medium = 'electricity' and value > -1e9"}
CASES = (
    Case("window", [_WINDOW], ">= 10 M readings/s a core", note="per series, late = revise, repeats dropped"),
    Case(
        "chain",
        [
            _FILTER,
            {"type": "convert", "unit": "kW"},
            {"type": "deadband", "absolute": 0.0005},
            {**_WINDOW, "late": "side"},
        ],
        ">= 5 M readings/s a core",
        note="filter + convert + deadband + window",
    ),
    Case(
        "grouped",
        [{"type": "group", "by": ["place"], "window": "1m"}],
        ">= 8 M readings/s a core",
        note="10 k series in 50 feeders",
    ),
    Case(
        "join",
        [{"type": "join", "file": "tariffs.csv", "on": {"key": "place"}}],
        ">= 5 M readings/s a core",
        files=_reference_file,
        note="with 1 k rows of reference data",
    ),
    Case(
        "swinging-door",
        [{"type": "swinging-door", "deviation": 1.0, "max_interval": "15m"}],
        ">= 8 M readings/s a core",
    ),
    Case(
        "counter",
        [{"type": "counter"}, {**_WINDOW, "late": "side"}],
        ">= 8 M readings/s a core",
        Load(registers=True),
    ),
    Case(
        "alert",
        [{"type": "alert", "above": 260.0, "clear_below": 250.0, "for": "1m"}],
        ">= 8 M readings/s a core",
        Load(series=100_000),
        note="threshold, hysteresis, hold time over 100 k series",
    ),
    Case(
        "hundred-flows",
        [_WINDOW],
        ">= 0.3 M readings/s x 100",
        flows=100,
        note="readings of the input, each folded by 100 flows",
    ),
)


def rows(quick: bool) -> Iterator[Row]:
    """Every row of flows; the peers only in a full run."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    chosen = os.environ.get("BENCH_FLOWS", "").split()
    for case in CASES:
        if chosen and case.name not in chosen:
            continue
        if any(step_type(str(step["type"])) is None for step in case.steps):
            continue
        with scratch() as directory:  # libraries are loaded and kernels compiled before the clock runs
            _measured(replace(case, flows=1), max(10, case.load.series // ROWS), Path(directory))
        with scratch() as directory:
            if case.flows > 1:
                yield _many(case, 120 if quick else 400, Path(directory))
            else:
                yield _measured(case, 450 if quick else 3_000, Path(directory))
    if not chosen or "python-step" in chosen:
        yield _python_step()
    if not chosen or "late" in chosen:
        yield _late(quick)
    if not chosen or "snapshot" in chosen:
        with scratch() as directory:
            yield _snapshots(quick, Path(directory))
    if "peers" in chosen or not (quick or chosen):
        with scratch() as directory:
            yield _peers(quick, Path(directory))


class _Gate(SharedFrames):
    """Frames that flows get only up to a position, until it is opened."""

    def __init__(self, log: Journal, until: Position) -> None:
        super().__init__(log)
        self._until = until
        self._opened = False

    def read(self, streams: Sequence[str], after: Position | None) -> Iterator[Frame]:
        for frame in super().read(streams, after):
            if not self._opened and frame.position.offset > self._until.offset:
                return
            yield frame

    def open(self, log: Journal, claim: Claim) -> None:
        """Let them have all of it; a tick more wakes them."""
        self._opened = True
        tick = pa.record_batch([pa.array([START_NS], TIMESTAMP)], schema=TICK)
        log.append([Batch("ticks", tick)], claim=claim, sequence=1)


def _many(case: Case, batches: int, directory: Path) -> Row:
    """What many flows do once all of them have started, know the catalogue and wait for readings; their start beside."""
    case.files(directory)
    with open_log(directory / "data") as log:
        readings = record(log, case.load, batches)
        [*_, entries] = log.read("catalogue")
        gate = _Gate(log, entries.position)
        flows = _flows(case, log, directory, replace(Shared.of(log), frames=gate))
        claim = log.claim("gate")
        clock = CpuClock()
        for flow in flows:
            flow.start()
        _wait(case, flows, lambda flow: flow.status().position == str(entries.position))
        start_s, start_cpu_s = clock.wall_seconds(), clock.cpu_seconds()
        clock = CpuClock()
        gate.open(log, claim)
        _wait(case, flows, FlowRunner.caught_up)
        seconds, cpu_seconds = clock.wall_seconds(), clock.cpu_seconds()
        for flow in flows:
            flow.stop()
    started = f"; started before, in {start_s:.1f} s with {start_cpu_s:.1f} s of processor time"
    return _row(case, readings, seconds, cpu_seconds, case.note + started)


def _flows(case: Case, log: Journal, directory: Path, shared: Shared) -> list[FlowRunner]:
    steps = tuple(settings_of(dict(step)) for step in case.steps)
    return [
        FlowRunner(
            f"bench-{number}",
            FlowSettings(f"out.{number}", steps),
            log,
            Counters(),
            directory / "snapshots",
            directory=directory,
            policy=SnapshotPolicy(refold_s=1e9, interval_s=1e9),
            shared=shared,
        )
        for number in range(case.flows)
    ]


def _wait(case: Case, flows: Sequence[FlowRunner], so_far: Callable[[FlowRunner], bool]) -> None:
    """Wait until every flow is so far."""
    for flow in flows:
        while not so_far(flow):
            if flow.state is FlowState.FAILED:
                raise RuntimeError(f"{case.name}: {flow.status().last_error}")
            time.sleep(0.002 if len(flows) == 1 else 0.01)


def _measured(case: Case, batches: int, directory: Path) -> Row:
    case.files(directory)
    with open_log(directory / "data") as log:
        readings = record(log, case.load, batches)
        flows = _flows(case, log, directory, Shared.of(log))
        clock = CpuClock()
        for flow in flows:
            flow.start()
        _wait(case, flows, FlowRunner.caught_up)
        seconds, cpu_seconds = clock.wall_seconds(), clock.cpu_seconds()
        for flow in flows:
            flow.stop()
    return _row(case, readings, seconds, cpu_seconds, case.note)


def _row(case: Case, readings: int, seconds: float, cpu_seconds: float, note: str) -> Row:
    return Row(
        name=case.name,
        unit="readings",
        rate=readings / seconds,
        rate_per_core=readings / cpu_seconds,
        cores=round(cpu_seconds / seconds, 2),
        seconds=round(seconds, 2),
        goal=case.goal,
        durability=DURABILITY,
        note=note,
    )


def _python_step() -> Row:
    from bench.flows.python_step import measure

    rate, overhead = measure(2.0)
    return Row(
        name="python-step",
        unit="readings",
        rate=rate,
        goal="overhead <= 5 % of the function",
        note=f"overhead {100 * overhead:.1f} % of a function of batches of {ROWS}: what the step adds, the median of calls",
    )


def _late(quick: bool) -> Row:
    from bench.flows import late

    corrections = 3_000 if quick else 20_000
    return Row(
        name="late",
        unit="windows",
        rate=late.run(corrections=corrections),
        goal=">= 1 k windows/s",
        durability=DURABILITY,
        note=f"{corrections:,} corrections all over 35 days: windows of one hour long gone from memory, from log to log",
    )


def _peers(quick: bool, directory: Path) -> Row:
    os.environ["POLARS_MAX_THREADS"] = "1"
    from bench.flow_peers import rates

    ours = _measured(CASES[0], 400 if quick else 3_000, directory)
    return Row(
        name="peers",
        unit="readings",
        rate=ours.rate,
        rate_per_core=ours.rate_per_core,
        peers=rates(quick),
        durability=DURABILITY,
        note="window per series from log to log, beside others at count, mean, min and max of one-minute windows",
    )


def _snapshots(quick: bool, directory: Path) -> Row:
    """The longest that a flow with a million series does nothing but copy its state, at a time, and how many pictures.

    By the wall clock: of beginning, of each piece copied between frames, of copying what a frame is about to write to.
    """
    load = Load(series=1_000_000, described=False)
    with open_log(directory / "data") as log:
        readings = record(log, load, 1_200 if quick else 3_000)
        counters = Counters()
        flow = FlowRunner(
            "bench",
            FlowSettings("out", (settings_of({**_WINDOW, "idle": "9h"}),)),
            log,
            counters,
            directory / "snapshots",
            policy=SnapshotPolicy(refold_s=0.02, interval_s=1e9),
        )
        pauses: list[float] = []
        flow.start()
        until_s = time.monotonic() + 60.0
        while not flow.caught_up() or (not pauses and time.monotonic() < until_s):
            pause = counters.value("ringmain_flow_snapshot_pause_seconds", "bench")
            if pause and (not pauses or pauses[-1] != pause):
                pauses.append(pause)
            time.sleep(0.002)
        written = counters.value("ringmain_flow_snapshots_total", "bench")
        size = counters.value("ringmain_flow_snapshot_bytes", "bench")
        flow.stop()
    if not pauses:
        raise RuntimeError("snapshot: none was taken")
    shown = ", ".join(f"{1000 * pause:.1f}" for pause in pauses)
    return Row(
        name="snapshot",
        unit="ms",
        value=1000 * max(pauses),
        goal="no pause > 20 ms",
        durability="written beside, synced every 8 MiB, read back",
        note=f"{len(pauses)} taken (longest hold-up of each: {shown} ms), {written:.0f} written of {size / 1e6:.0f} MB, "
        f"while {readings:,} readings were folded; {snapshot_steps.told(quick)}",
    )


def record(log: Journal, load: Load, batches: int) -> int:
    """Fill the log with a catalogue, readings and ticks; the number of readings."""
    registry = SeriesRegistry(log, max_series=load.series)
    for number in range(load.series if load.described else 0):
        registry.register(
            "bench",
            f"bench/{number}/p",
            SeriesAttributes(
                unit="Wh" if load.registers else "W",
                medium="electricity",
                device=f"bench/{number // 4}",
                place=f"feeder/{number * 50 // load.series:03d}",
            ),
        )
    claim = log.claim("bench")
    entries, token = registry.unsaved()
    sequence = 0
    for entry in entries:
        sequence += 1
        log.append([Batch("catalogue", entry)], claim=claim, sequence=sequence)
    registry.saved(token)
    random = np.random.default_rng(7)
    values = np.full(load.series, 230.0)
    quality = pa.array(np.zeros(ROWS, np.uint16))
    kind = READING.field("time").type
    failed: list[Exception] = []
    parts = load.series // ROWS
    for number in range(batches):
        turn, part = divmod(number, parts)
        now = START_NS + turn * SECOND_NS + part * SECOND_NS // parts
        low, high = part * ROWS, part * ROWS + ROWS
        if load.registers:
            values[low:high] += random.integers(1, 9, ROWS)
        else:
            values[low:high] = np.round(values[low:high] + random.normal(0, load.walk, ROWS), 3)
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array(np.arange(low, high, dtype=np.uint32)),
                pa.array(np.full(ROWS, now)).view(kind),
                pa.array(values[low:high].copy()),
                quality,
            ],
            schema=READING,
        )
        appended = [Batch("readings", batch, now)]
        if part == parts - 1:
            tick = pa.record_batch([pa.array([now + 1], TIMESTAMP)], schema=TICK)
            appended.append(Batch("ticks", tick, now + 1))
        sequence += 1
        log.append_nowait(
            appended,
            lambda _, error: failed.append(error) if error is not None else None,
            claim=claim,
            sequence=sequence,
        )
        if number % 32 == 0:
            sequence += 1
            log.append([], claim=claim, sequence=sequence, positions={"bench": b"paced"})
    sequence += 1
    tick = pa.record_batch(
        [pa.array([START_NS + batches * SECOND_NS + 3_600 * SECOND_NS], TIMESTAMP)], schema=TICK
    )
    log.append([Batch("ticks", tick)], claim=claim, sequence=sequence)
    if failed:
        raise failed[0]
    return batches * ROWS
