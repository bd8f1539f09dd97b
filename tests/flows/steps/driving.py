"""Drives a chain of steps over recorded rows for tests: cut anew, restarted, and beside the slow reference."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast
from zoneinfo import ZoneInfo

import pyarrow as pa

from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan, FlowSettings, plan_flow
from ringmain.flows.snapshot import Saved, decode, encode
from ringmain.flows.step import Shape, StepSettings, Surroundings
from ringmain.log.interface import Frame
from ringmain.model.schemas import SERIES
from tests.flows.recording import Recording, Row, batch

SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND
Known = Mapping[int, Mapping[str, str | None]]
Instant = tuple[int, Sequence[Row]]
"""Arrival (ns), and rows as (series, time ns, value, quality), in log order."""
Others = Sequence[Mapping[str, Sequence[dict[str, Any]]]]
"""For each instant the rows of further streams, by stream."""


class ReferenceStep(Protocol):
    """The slow, obvious form of a step: one row (a dict) after the other."""

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]: ...

    def advance(self, now_ns: int) -> list[dict[str, Any]]: ...


class ReadingOthers(ReferenceStep, Protocol):
    """One that looks at a further stream."""

    reads: str

    def take_other(self, row: dict[str, Any]) -> None: ...


def plan_of(
    *steps: StepSettings,
    to: str = "out",
    from_: str = "readings",
    zone: str = "UTC",
    schemas: Mapping[str, Shape] | None = None,
    directory: Path = Path(),
    value: str | None = None,
    max_ahead_ns: int = 300 * SECOND,
) -> FlowPlan:
    """The plan of a flow of these steps."""
    settings = FlowSettings(to, steps, from_, value, max_ahead_ns)
    errors = settings.check()[0]
    assert not errors, errors
    around = Surroundings("test", to, directory, ZoneInfo(zone), schemas or {}, max_ahead_ns, from_)
    return plan_flow("test", settings, around)


def record(
    instants: Sequence[Instant],
    *,
    known: Known | None = None,
    cut: random.Random | None = None,
    tail_s: int = 0,
    ticks: bool = True,
    others: Others = (),
    schemas: Mapping[str, Shape] = MappingProxyType({}),
) -> Recording:
    """Instants as frames: the catalogue first, ticks every second of log time, the rows of an instant cut at random.

    Rows of `others` stand anywhere among those of their instant; `schemas` tells their columns.
    """
    log = Recording()
    first = min((arrival for arrival, _ in instants), default=START)
    if known is not None:
        entries = [
            {"id": number, "key": f"key/{number}", "source": "test", **found}
            for number, found in known.items()
        ]
        log.append("catalogue", pa.RecordBatch.from_pylist(entries, schema=SERIES), first)
    clock = first
    for number, (arrival, rows) in enumerate(instants):
        while ticks and clock + SECOND < arrival:
            clock += SECOND
            log.tick(clock)
        waiting: dict[str, list[Any]] = {"readings": list(rows)}
        waiting |= {stream: list(more) for stream, more in others[number].items()} if others else {}
        while any(waiting.values()):
            left = sorted(stream for stream, more in waiting.items() if more)
            stream = left[0] if cut is None else cut.choice(left)
            some = waiting[stream]
            size = len(some) if cut is None else cut.randint(1, len(some))
            rows_now = (
                batch(some[:size]) if stream == "readings" else _rows(some[:size], schemas[stream].schema)
            )
            log.append(stream, rows_now, arrival)
            del some[:size]
    for number in range(tail_s):
        log.tick(max(clock, instants[-1][0]) + (number + 1) * SECOND)
    return log


def _rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows with times in ns."""
    columns = []
    for field in schema:
        timed = pa.types.is_timestamp(field.type)
        column = pa.array([row[field.name] for row in rows], pa.int64() if timed else field.type)
        columns.append(column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def run(
    plan: FlowPlan,
    log: Recording,
    *,
    restarts: random.Random | None = None,
    frames: Sequence[Frame] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """What each stream gets from the recorded frames; with `restarts`, out of a chain that is made anew now and then."""
    chain = Chain(plan, log)
    out: dict[str, list[dict[str, Any]]] = {}
    for frame in frames if frames is not None else log.frames:
        if restarts is not None and restarts.random() < 0.4 and chain.position is not None:
            chain = restarted(chain, log)
        for block in chain.step(frame):
            assert block.stream is not None
            out.setdefault(block.stream, []).extend(plain(block.rows))
    return out


def restarted(chain: Chain, log: Recording) -> Chain:
    """A new chain out of a snapshot of the old one."""
    found = decode(encode("definition", saved_of(chain)))[1]
    new = Chain(chain.plan, log)
    new.attributes.restore(found.states[-1])
    new.restore(found.states[:-1], found.now_ns, found.lead_ns, found.position)
    return new


def saved_of(chain: Chain) -> Saved:
    """What a snapshot of the chain holds."""
    assert chain.position is not None
    states = [*chain.state(), chain.attributes.state()]
    return Saved(chain.position, chain.now, chain.lead_ns, chain.newest, (), tuple(chain.instant), states)


def run_reference(
    steps: Sequence[ReferenceStep],
    instants: Sequence[Instant],
    *,
    tail_s: int = 0,
    ticks: bool = True,
    others: Others = (),
) -> dict[str, list[dict[str, Any]]]:
    """What the references give of the same instants. A row with a key `stream` leaves the chain for that stream."""
    out: dict[str, list[dict[str, Any]]] = {}
    now = min((arrival for arrival, _ in instants), default=START) - 1

    def onwards(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = []
        for row in rows:
            stream = row.pop("stream", None)
            if stream is None:
                kept.append(row)
            else:
                out.setdefault(stream, []).append(row)
        return kept

    def advance(to: int) -> None:
        nonlocal now
        if to <= now:
            return
        carried: list[dict[str, Any]] = []
        for step in steps:
            given = [given for row in carried for given in onwards(step.take(row, now))]
            carried = given + onwards(step.advance(to))
        out.setdefault("out", []).extend(carried)
        now = to

    clock = min((arrival for arrival, _ in instants), default=START)
    for number, (arrival, rows) in enumerate(instants):
        while ticks and clock + SECOND < arrival:
            clock += SECOND
            advance(clock)
        others_rows = others[number] if others else {}
        if rows or any(others_rows.values()):
            advance(arrival)
        for step in steps:
            for row in others_rows.get(getattr(step, "reads", ""), ()):
                cast(ReadingOthers, step).take_other(dict(row))
        for series, time, value, quality in rows:
            carried = [{"series": series, "time": time, "value": value, "quality": quality}]
            for step in steps:
                carried = [given for row in carried for given in onwards(step.take(row, now))]
            out.setdefault("out", []).extend(carried)
    for number in range(tail_s):
        advance(max(clock, instants[-1][0]) + (number + 1) * SECOND)
    return {stream: rows for stream, rows in out.items() if rows}


def same(left: object, right: object) -> bool:
    """Equal to the bit, NaN equal to NaN."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as integers (ns)."""
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names).to_pylist()
