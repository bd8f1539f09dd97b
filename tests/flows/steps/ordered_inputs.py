"""Inputs for steps that need order of time: hostile ones, and any histories to compare a step with its reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import readings_block
from ringmain.flows.readings import EARLIEST_NS, SERIES_MAX
from ringmain.flows.step import READINGS, Context, Shape, StepSettings, Surroundings
from tests.flows.recording import Row
from tests.flows.steps.driving import (
    SECOND,
    START,
    Instant,
    ReferenceStep,
    plan_of,
    record,
    run,
    run_reference,
    same,
)

ODD_TIMES = (-(2**63), 2**63 - 1, EARLIEST_NS - 1, EARLIEST_NS)
ODD_VALUES = (float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1e308, -1e308)


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


def histories(
    values: st.SearchStrategy[float], *, step_s: float = 1.0, span: int = 20
) -> st.SearchStrategy[list[Instant]]:
    """Instants with rows around their arrival: in order, repeated, late, far ahead, odd."""

    @st.composite
    def made(draw: st.DrawFn) -> list[Instant]:
        now = 0
        instants = []
        seen: list[Row] = []
        for _ in range(draw(st.integers(1, 10))):
            now += draw(st.sampled_from([1, 1, 2, 3, 7, 15]))
            rows: list[Row] = []
            for _ in range(draw(st.integers(0, 6))):
                kind = draw(st.integers(0, 9))
                if kind == 0 and seen:
                    rows.append(draw(st.sampled_from(seen)))
                    continue
                series = draw(st.integers(0, 2)) if kind < 9 else draw(st.sampled_from([900, SERIES_MAX]))
                time = at(now * step_s - draw(st.integers(0, span if kind == 1 else 2)) * step_s)
                value = draw(values)
                quality = 0
                if kind == 2:
                    quality = draw(st.sampled_from([1, 2, 3, 4, 8, 12, 0x100, 0x4001]))
                elif kind == 3:
                    value = draw(st.sampled_from(ODD_VALUES))
                elif kind == 4:
                    time = draw(st.sampled_from([*ODD_TIMES, at(now * step_s + 400), at(now * step_s + 299)]))
                rows.append((series, time, value, quality))
            seen += rows
            instants.append((at(now * step_s), rows))
        return instants

    return made()


def agree(
    step: StepSettings,
    reference: ReferenceStep,
    instants: Sequence[Instant],
    chance: random.Random,
    *,
    known: Mapping[int, Mapping[str, str | None]] | None = None,
    tail_s: int = 12,
    zone: str = "UTC",
    ticks: bool = True,
) -> None:
    """The step gives what its reference gives, however rows are cut and however often it is made anew."""
    expected = run_reference([reference], instants, tail_s=tail_s, ticks=ticks)
    plan = plan_of(step, zone=zone)
    for restarts in (None, chance):
        log = record(instants, known=known, cut=chance, tail_s=tail_s, ticks=ticks)
        found = run(plan, log, restarts=restarts)
        assert same(found, expected), f"\nfound    {found}\nexpected {expected}"


def context(max_ahead_ns: int = 300 * SECOND) -> Context:
    return Context(
        Surroundings("test", "out", Path(), ZoneInfo("UTC"), max_ahead_ns=max_ahead_ns), Attributes()
    )


def output(
    step: StepSettings, instants: Sequence[Instant], *, tail_s: int = 3, ticks: bool = True, **about: Any
) -> dict[str, list[tuple[Any, ...]]]:
    """Rows out of a step by stream, as (series, second, value, quality); late and other ones without quality."""
    found = run(plan_of(step, **about), record(instants, tail_s=tail_s, ticks=ticks))
    shown: dict[str, list[tuple[Any, ...]]] = {}
    for stream, rows in found.items():
        last = "quality" if stream == "out" else "reason"
        shown[stream] = [
            (row["series"], (row["time"] - START) / SECOND, row["value"], row[last]) for row in rows
        ]
    return shown


def wide_and_deep(
    step: StepSettings, check: Callable[[list[dict[str, Any]]], None], *, shape: Shape = READINGS
) -> None:
    """The same 2,000 readings as 2,000 series once and as one series 2,000 times are worked on without fuss."""
    random_ = np.random.default_rng(7)
    for series, time in (
        (np.arange(2000), np.full(2000, at(0))),
        (np.zeros(2000, np.int64), at(-2000) + np.arange(2000) * SECOND),
    ):
        made = step.make(shape, context())
        made.advance(at(0))
        value = random_.normal(100, 10, 2000).cumsum()
        made.take(
            readings_block(
                series.astype(np.uint32), time.astype(np.int64), value, np.zeros(2000, np.uint16), at(0)
            )
        )
        blocks = list(made.advance(at(1)))
        check([row for block in blocks for row in block.rows.to_pylist()])
