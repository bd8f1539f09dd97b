"""How long a flow with a million series stands still for a snapshot, for every step that keeps something.

What the flow's thread does between two frames, and before a frame writes to what is not copied yet, by processor time:
telling the state, beginning to copy it, each piece. Beside it: one frame that brings all series at once, and restoring.
`python -m bench.flows.snapshot_steps` prints the table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from bench.flows.folding import Empty
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan, FlowSettings, plan_flow
from ringmain.flows.saving import Saver, Saving
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.flows.step import READINGS, Shape, Surroundings
from ringmain.flows.steps import settings_of
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Frame, LogReader, Position, StreamKind
from ringmain.model.schemas import SERIES, TICK, TIMESTAMP

SERIES_COUNT = 1_000_000
_FRAME_ROWS = 10_000
_SECOND = 1_000_000_000
_START = 1_750_000_000 * _SECOND
_COPY_S = 0.002
_KIND = READINGS.schema.field("time").type
_PRICES = pa.schema(
    [
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("key", pa.string()),
        pa.field("price", pa.float64()),
    ]
)
_FUNCTIONS = """
import numpy as np

def arrays(rows, state):
    if "newest" not in state:
        state["newest"] = np.zeros(1 << 20)
    series = rows.column("series").to_numpy()
    state["newest"][series] = rows.column("value").to_numpy()

def entries(rows, state):
    state.update(zip(rows.column("series").to_pylist(), rows.column("value").to_pylist()))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A step to look at. `table`: its settings; `rounds`: how often each series reports before."""

    table: Mapping[str, Any]
    rounds: int = 2
    others: bool = False
    """A row of another stream for each series comes first."""
    known: bool = True
    """The catalogue knows all series, each with a device of four and a feeder."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Of a step with a million series: milliseconds by processor time, and the size of its state in bytes."""

    name: str
    longest_ms: float
    begin_ms: float
    state_bytes: int
    first_ms: float
    """One frame in which all series come first."""
    restore_ms: float


_WINDOW = {"type": "window", "window": "10s", "grace": "2s", "idle": "9h"}
CASES: Mapping[str, Case] = MappingProxyType(
    {
        "window": Case(_WINDOW),
        "window, hopping": Case(_WINDOW | {"window": "15m", "every": "5m"}),
        "window, calendar": Case(_WINDOW | {"window": "1d", "calendar": True, "zone": "Europe/Berlin"}),
        "window, time-weighted": Case(
            _WINDOW | {"values": ["twa", "std", "completeness"], "interval": "10s"}
        ),
        "group": Case({"type": "group", "by": ["place"], "window": "10s", "grace": "2s", "idle": "9h"}),
        "group, hourly": Case(
            {"type": "group", "by": ["place"], "window": "1h", "grace": "2s", "idle": "9h"}
        ),
        "deadband": Case({"type": "deadband", "absolute": 2.0, "max_interval": "15m"}, known=False),
        "deadband, grace": Case({"type": "deadband", "absolute": 2.0, "grace": "1m", "idle": "9h"}),
        "swinging-door": Case({"type": "swinging-door", "deviation": 0.5, "max_interval": "15m"}),
        "counter": Case({"type": "counter", "digits": 9}),
        "validate": Case({"type": "validate", "min": 0.0, "max_rate": 9.0, "stuck": "1h", "spike": 5.0}),
        "fill": Case({"type": "fill", "interval": "1s", "method": "linear", "max_fill": "30s"}),
        "latest-sum": Case({"type": "latest-sum", "by": ["place"]}),
        "join": Case({"type": "join", "with": "prices", "on": ["key"], "columns": ["price"]}, others=True),
        "join, waiting": Case(
            {"type": "join", "with": "prices", "on": ["key"], "columns": ["price"], "wait": "1h"}, others=True
        ),
        "alert": Case({"type": "alert", "above": 253.0, "for": "1m", "clear_below": 250.0}),
        "alert, all": Case(
            {
                "type": "alert",
                "any": [{"above": 253.0}, {"rate_above": 9.0, "per": "1s"}, {"silent": "1h"}, {"bad": 5}],
            }
        ),
        "alert, devices": Case({"type": "alert", "silent": "1h", "subject": "device"}),
        "sql": Case(
            {"type": "sql", "query": "SELECT max(value) AS value FROM rows", "window": "1h", "late": "drop"}
        ),
        "python, arrays": Case({"type": "python", "function": "functions.py:arrays"}),
        "python, entries": Case({"type": "python", "function": "functions.py:entries"}),
    }
)
QUICK = ("deadband", "latest-sum")


def _plan(case: Case, directory: Path) -> FlowPlan:

    settings = settings_of(dict(case.table))
    flow = FlowSettings("out", (settings,))
    schemas = {"prices": Shape(StreamKind.ROW, _PRICES)}
    return plan_flow("bench", flow, Surroundings("bench", "out", directory, ZoneInfo("UTC"), schemas))


class _Frames:
    """Frames of a fleet, one after the other."""

    def __init__(self, series: int) -> None:
        self._series = series
        self._offset = 0
        self._random = np.random.default_rng(5)
        self._values = np.round(self._random.normal(230.0, 2.0, series), 3)
        self._at_ns = _START

    def frame(self, stream: str, rows: pa.RecordBatch, now_ns: int) -> Frame:
        self._offset += 1
        return Frame(
            stream,
            Position(1, 0, self._offset),
            now_ns,
            now_ns,
            0,
            0,
            0,
            rows.num_rows,
            now_ns,
            now_ns,
            self._offset,
            rows,
        )

    def catalogue(self) -> Frame:
        ids = np.arange(self._series, dtype=np.uint32)
        keys = pa.array([f"site/{one}/p" for one in range(self._series)])
        devices = pa.array([f"meter/{one // 4}" for one in range(self._series)])
        places = pa.array([f"feeder/{one * 50 // self._series:03d}" for one in range(self._series)])
        columns = {
            "id": pa.array(ids),
            "key": keys,
            "unit": pa.repeat(pa.scalar("W"), self._series),
            "device": devices,
            "place": places,
        }
        nothing = pa.nulls(self._series, pa.string())
        rows = pa.RecordBatch.from_arrays(
            [columns.get(name, nothing) for name in SERIES.names], schema=SERIES
        )
        return self.frame("catalogue", rows, self._at_ns)

    def others(self) -> Frame:
        rows = pa.RecordBatch.from_arrays(
            [
                pa.array(np.full(self._series, self._at_ns - 3600 * _SECOND)).view(_KIND),
                pa.array([f"site/{one}/p" for one in range(self._series)]),
                pa.array(np.linspace(0, 1, self._series)),
            ],
            schema=_PRICES,
        )
        return self.frame("prices", rows, self._at_ns)

    def readings(self, low: int, high: int) -> Frame:
        self._at_ns += _SECOND * (high - low) // self._series
        series = np.arange(low, high, dtype=np.uint32)
        self._values[low:high] += np.abs(np.round(self._random.normal(0, 0.3, high - low), 3))
        time_ns = pa.array(np.full(high - low, self._at_ns)).view(_KIND)
        quality = pa.array(np.zeros(high - low, np.uint16))
        values = pa.array(self._values[low:high].copy())
        rows = pa.RecordBatch.from_arrays(
            [pa.array(series), time_ns, values, quality], schema=READINGS.schema
        )
        return self.frame("readings", rows, self._at_ns)

    def tick(self) -> Frame:
        self._at_ns += 1
        rows = pa.RecordBatch.from_arrays([pa.array([self._at_ns]).view(_KIND)], schema=TICK)
        return self.frame("ticks", rows, self._at_ns)

    def round(self) -> Iterator[Frame]:
        """Every series once."""
        for low in range(0, self._series, _FRAME_ROWS):
            yield self.readings(low, min(low + _FRAME_ROWS, self._series))


def _saved(chain: Chain) -> Saved:
    assert chain.position is not None
    states = [*chain.state(), chain.attributes.state()]
    return Saved(chain.position, chain.now, 0, chain.newest, (), tuple(chain.instant), states)


def measure(name: str, case: Case, *, pictures: int = 3) -> Pause:
    """The pauses of a step with a million series: of so many pictures the shortest."""
    series = SERIES_COUNT
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "functions.py").write_text(_FUNCTIONS)
        plan = _plan(case, directory)

        def begun() -> tuple[Chain, _Frames, float]:
            chain, frames = Chain(plan, cast(LogReader, Empty())), _Frames(series)
            chain.step(frames.tick())
            for first in ([frames.catalogue()] if case.known else []) + (
                [frames.others()] if case.others else []
            ):
                chain.step(first)
            chain.step(frames.tick())
            began_s = time.process_time()
            chain.step(frames.readings(0, series))
            chain.step(frames.tick())
            return chain, frames, 1000 * (time.process_time() - began_s)

        chain, frames, first_ms = begun()
        for _ in range(case.rounds if pictures > 1 else 0):
            for frame in frames.round():
                chain.step(frame)
        saver = Saver(Snapshots(LocalFileSystem(), directory, "bench"), clock=time.thread_time)
        longest: list[float] = []
        begins: list[float] = []
        for _ in range(pictures):
            longest_ms, begin_ms = _picture(saver, chain, frames)
            longest.append(longest_ms)
            begins.append(begin_ms)
        saver.finish()
        saved = Snapshots(LocalFileSystem(), directory, "bench")
        began_s = time.process_time()
        found = saved.load("bench")[0]
        again = Chain(plan, cast(LogReader, Empty()))
        again.attributes.restore(found.states[-1])
        again.restore(found.states[:-1], found.now_ns, 0, found.position)
        restore_ms = 1000 * (time.process_time() - began_s)
        size = sum(chain.state_bytes())
    return Pause(name, min(longest), min(begins), size, first_ms, restore_ms)


def _picture(saver: Saver, chain: Chain, frames: _Frames) -> tuple[float, float]:
    """The longest of one picture, taken while a round goes on, and its beginning, in ms."""
    saver.finish()
    while not saver.ready(_saved(chain).states):
        saver.finish()
    failed: list[Exception] = []

    def done(_: int | None, error: Exception | None) -> None:
        if error is not None:
            failed.append(error)

    pieces: list[float] = []
    began_s = time.process_time()
    saved = _saved(chain)
    savings = [*map(Saving.of, chain.steps), Saving()]
    saver.begin("bench", saved, savings, done, time.thread_time())
    begin_ms = 1000 * (time.process_time() - began_s)
    pause_s = 0.0
    for frame in frames.round():
        if not saver.unfinished:
            break
        began_s = time.thread_time()
        saver.go_on(_COPY_S)
        pieces.append(1000 * (time.thread_time() - began_s))
        pause_s = max(pause_s, saver.pause_s)
        chain.step(frame)
    while saver.unfinished:
        saver.go_on(_COPY_S)
    saver.finish()
    if failed:
        raise failed[0]
    return max([begin_ms, 1000 * pause_s, *pieces]), begin_ms


def pauses(quick: bool) -> Iterator[Pause]:
    """All of them, or a few."""
    for name, case in CASES.items():
        if not quick or name in QUICK:
            yield measure(name, case, pictures=1 if quick else 3)


def told(quick: bool) -> str:
    """The pauses in one line, the longest first."""
    found = sorted(pauses(quick), key=lambda pause: -pause.longest_ms)
    named = ", ".join(f"{pause.name} {pause.longest_ms:.1f}" for pause in found)
    return f"longest pause by step, ms of processor time: {named}"


def table(found: Sequence[Pause]) -> str:
    """As text."""
    lines = [f"{'step':24}{'longest':>9}{'begin':>9}{'state':>9}{'first':>9}{'restore':>9}"]
    lines += [
        f"{one.name:24}{one.longest_ms:9.1f}{one.begin_ms:9.1f}{one.state_bytes / 1e6:8.0f}M{one.first_ms:9.0f}"
        f"{one.restore_ms:9.0f}"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        print(table([measure(name, CASES[name])]), flush=True)
