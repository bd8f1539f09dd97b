"""The window as a step of a chain: what it gives depends on nothing but the rows, however they are cut and restarted."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.aggregates import Aggregate, Late
from ringmain.flows.block import Block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan
from ringmain.flows.settings import WindowSettings
from ringmain.flows.step import (
    Context,
    Plan,
    PlanError,
    Shape,
    Step,
    StepSettings,
    StepState,
    Surroundings,
)
from ringmain.flows.steps.filter import FilterSettings
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.log.interface import Frame
from ringmain.model.schemas import READING
from tests.flows.recording import Recording
from tests.flows.reference.window import Reference, overlapping
from tests.flows.reference.window import settings as any_settings
from tests.flows.steps.driving import (
    SECOND,
    START,
    Instant,
    plan_of,
    record,
    restarted,
    run_reference,
    same,
)

common = settings(max_examples=20, derandomize=True, deadline=None)
KNOWN = {number: {"device": device} for number, device in enumerate(["a", "a", "b", None, "c", "c"])}


@st.composite
def instants(draw: st.DrawFn) -> list[Instant]:
    """Rows of a few devices, most in order, some late, changed, repeated, invalid or far ahead."""
    now = START
    found: list[Instant] = []
    past: list[tuple[int, int, float, int]] = []
    for _ in range(draw(st.integers(1, 10))):
        now += draw(st.sampled_from([1, 1, 2, 7, 7, 31])) * SECOND
        rows = draw(
            st.lists(
                st.tuples(
                    st.integers(0, 5),
                    st.sampled_from([0, 0, 0, -1, -2, -3, -12, -60, 1, 29, 31, 10**6]).map(
                        lambda seconds, at=now: at + seconds * SECOND
                    ),
                    st.sampled_from([0.1, 0.2, 1e16, -1e16, -0.0, 7.0, math.nan]),
                    st.sampled_from([0, 0, 0, 0, 1, 2, 0x80]),
                ),
                min_size=1,
                max_size=10,
            )
        )
        if past and draw(st.booleans()):
            rows += draw(st.lists(st.sampled_from(past), max_size=3))
        past += rows
        found.append((now, rows))
    return found


def run_growing(
    plan: FlowPlan, frames: list[Frame], restarts: random.Random | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What each stream gets; the log that the chain looks back into grows with the frames and with what it gave."""
    log = Recording()
    chain = Chain(plan, log)
    out: dict[str, list[dict[str, Any]]] = {}
    for frame in frames:
        if restarts is not None and restarts.random() < 0.4 and chain.position is not None:
            chain = restarted(chain, log)
        stored = log.append(frame.stream, frame.rows, frame.origin_arrival_ns)
        for block in chain.step(stored):
            assert block.stream is not None
            log.append(block.stream, block.rows, frame.origin_arrival_ns)
            out.setdefault(block.stream, []).extend(plain(block.rows))
    return out


def plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names).to_pylist()


def expected(step: WindowStepSettings, story: list[Instant]) -> dict[str, list[dict[str, Any]]]:
    return run_reference([Reference(step, KNOWN)], story, tail_s=33)


@common
@given(any_settings(), instants(), st.integers(0, 2**32))
def test_every_row_is_that_of_the_reference_however_frames_are_cut_and_chains_restarted(
    step: WindowStepSettings, story: list[Instant], seed: int
) -> None:
    chance = random.Random(seed)
    log = record(story, known=KNOWN, cut=chance, tail_s=33)
    reference = expected(step, story)
    plan = plan_of(step)
    assert same(run_growing(plan, log.frames), reference)
    assert same(run_growing(plan, log.frames, chance), reference)


@common
@given(any_settings((Late.SIDE, Late.DROP)), instants(), st.integers(0, 2**32))
def test_behind_a_step_with_a_memory_open_windows_are_kept_in_memory_with_the_same_result(
    step: WindowStepSettings, story: list[Instant], seed: int
) -> None:
    chance = random.Random(seed)
    log = record(story, known=KNOWN, cut=chance, tail_s=33)
    plan = plan_of(Remembering(), step)
    assert same(run_growing(plan, log.frames), expected(step, story))
    assert same(run_growing(plan, log.frames, chance), expected(step, story))


@common
@given(overlapping(), instants(), st.integers(0, 2**32))
def test_windows_that_overlap_are_those_of_the_reference_however_frames_are_cut_and_chains_restarted(
    step: WindowStepSettings, story: list[Instant], seed: int
) -> None:
    chance = random.Random(seed)
    log = record(story, known=KNOWN, cut=chance, tail_s=33)
    reference = expected(step, story)
    plan = plan_of(step)
    assert same(run_growing(plan, log.frames), reference)
    assert same(run_growing(plan, log.frames, chance), reference)


class Remembering(StepSettings, frozen=True, tag="remembering"):
    """A step that gives what it gets when the instant ends, as one with a memory does."""

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        return Plan(shape.changed(late_safe=False))

    def make(self, shape: Shape, context: Context) -> Step:
        return RememberingStep()


class RememberingStep:
    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def take(self, block: Block) -> list[Block]:
        self.blocks.append(block)
        return []

    def advance(self, now_ns: int) -> list[Block]:
        given, self.blocks = self.blocks, []
        return given

    def state(self) -> StepState:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, READING) as writer:
            for block in self.blocks:
                writer.write_batch(block.rows)
        arrivals = np.array([block.arrival_ns for block in self.blocks], np.int64)
        return {"rows": sink.getvalue().to_pybytes(), "arrivals": arrivals}

    def restore(self, state: StepState) -> None:
        rows = pa.ipc.open_stream(state["rows"])
        for batch, arrival in zip(rows, np.asarray(state["arrivals"]).tolist(), strict=True):
            self.blocks.append(Block(batch, arrival))


def test_a_window_that_revises_cannot_stand_behind_a_step_with_a_memory_nor_before_any() -> None:
    with pytest.raises(PlanError, match="computed again from the log") as caught:
        plan_of(Remembering(), WindowStepSettings())
    assert caught.value.key == "steps.1.late"
    with pytest.raises(PlanError, match="no step can follow `window`"):
        plan_of(WindowStepSettings(), Remembering())
    plan = plan_of(Remembering(), WindowStepSettings(late=Late.SIDE))
    assert list(plan.streams) == ["out", "out.late"]


def test_behind_a_filter_a_window_is_computed_again_from_what_passed_the_filter() -> None:
    story: list[Instant] = [
        (
            START + second * SECOND,
            [(0, START + second * SECOND, 1.0, 0), (1, START + second * SECOND, -1.0, 0)],
        )
        for second in range(30)
    ]
    story.append((START + 40 * SECOND, [(0, START + 3 * SECOND, 50.0, 0), (0, START + 4 * SECOND, -9.0, 0)]))
    frames = record(story, tail_s=3).frames
    window = WindowStepSettings(window="10s", values=(Aggregate.COUNT, Aggregate.SUM), idle="1h")
    for restarts in (None, random.Random(2)):
        told = run_growing(plan_of(FilterSettings(where="value > 0"), window), frames, restarts)
        assert list(told) == ["out"]
        rows = [(row["start"] - START, row["count"], row["sum"], row["revision"]) for row in told["out"]]
        assert rows == [(0, 10, 10.0, 0), (0, 10, 59.0, 1)]


def test_a_revision_reaches_a_flow_over_the_windows_as_a_correction_and_revises_its_windows() -> None:
    first = WindowStepSettings(window="10s", grace="0s", idle="1h", values=(Aggregate.COUNT, Aggregate.SUM))
    second = WindowStepSettings(window="30s", grace="0s", idle="1h", values=(Aggregate.COUNT, Aggregate.MAX))
    story: list[Instant] = [
        (START + second_ * SECOND, [(0, START + second_ * SECOND, 1.0, 0)]) for second_ in range(60)
    ]
    story.append((START + 62 * SECOND, [(0, START + 12 * SECOND, 8.0, 0)]))
    one = plan_of(first, to="tens")
    other = plan_of(second, to="out", from_="tens", value="sum", schemas=dict(one.streams))
    log = Recording()
    chains = [Chain(one, log), Chain(other, log)]
    told = []
    pending = list(record(story, tail_s=5).frames)
    while pending:
        frame = pending.pop(0)
        stored = log.append(frame.stream, frame.rows, frame.origin_arrival_ns)
        for chain in chains:
            if frame.stream in chain.streams:
                for block in chain.step(stored):
                    assert block.stream is not None
                    if block.stream == "tens":
                        pending.insert(0, msgspec.structs.replace(frame, stream="tens", rows=block.rows))
                    else:
                        log.append(block.stream, block.rows, frame.origin_arrival_ns)
                        told += plain(block.rows)
    begin = (START // SECOND) // 30 * 30 * SECOND
    rows = [((row["start"] - begin) // SECOND, row["count"], row["max"], row["revision"]) for row in told]
    assert rows[-1][3] == 1
    assert rows[-1][2] == 17.0
    assert rows[-1][0] == (START + 10 * SECOND - begin) // SECOND // 30 * 30
    assert [row for row in rows if row[0] == rows[-1][0]] == [
        (rows[-1][0], rows[-1][1], 10.0, 0),
        (rows[-1][0], rows[-1][1], 17.0, 1),
    ]


def test_late_readings_are_counted_by_the_source_that_the_catalogue_names() -> None:
    known = {0: {"source": "mqtt"}, 1: {"source": "files"}, 2: {"source": "mqtt"}}
    story: list[Instant] = [
        (START, [(number, START, 1.0, 0) for number in range(4)]),
        (START + 60 * SECOND, [(number, START + 60 * SECOND, 1.0, 0) for number in range(4)]),
        (START + 70 * SECOND, [(0, START, 2.0, 0), (0, START + 1, 2.0, 0), (1, START, 2.0, 0)]),
        (START + 80 * SECOND, [(2, START, 2.0, 0), (3, START, 2.0, 0)]),
    ]
    for late in Late:
        log = record(story, known=known, tail_s=2)
        chain = Chain(plan_of(WindowStepSettings(window="10s", late=late)), log)
        for frame in log.frames:
            chain.step(frame)
        told = {name: rows for name, rows in chain.contexts[0].counts.items() if name.startswith("late")}
        assert told == {"late": 5, "late from mqtt": 3, "late from files": 1, "late from unknown": 1}


def test_the_short_form_is_a_chain_of_one_window_step() -> None:
    short = WindowSettings(to="out", window="60s", values=(Aggregate.LAST,), grace="1s")
    assert short.step() == WindowStepSettings(window="60s", values=(Aggregate.LAST,), grace="1s")


def test_durations_that_are_equal_are_the_same_definition() -> None:
    around = plan_of(WindowStepSettings()).around
    one = WindowStepSettings(window="60s", idle="1m", max_ahead="5m")
    assert one.definition(around) == WindowStepSettings(window="1m", idle="60s").definition(around)
    assert one.definition(around) != WindowStepSettings(window="1m", idle="61s").definition(around)
