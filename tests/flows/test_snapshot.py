"""A snapshot holds the whole state, and nothing damaged is ever taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.definition import definition_hash
from ringmain.flows.history import LogHistory
from ringmain.flows.settings import Aggregate, WindowSettings
from ringmain.flows.snapshot import Snapshots, decode, encode
from ringmain.flows.window import WindowFold
from ringmain.log.files import LocalFileSystem
from tests.promises import Fault, Part, promise

from .recording import Recording, late_rows, window_rows
from .test_window_against_model import SETTINGS, START, histories

FLOW = WindowSettings(to="out", window="10s", values=tuple(Aggregate))


def some_state(flow: WindowSettings = FLOW) -> WindowFold:
    recording = Recording()
    recording.entries({0: "a", 1: None, 2: "a"}, START)
    recording.readings([(n, START + n, float(n), 0) for n in range(3)], START)
    fold = WindowFold(flow, LogHistory(recording, flow))
    for frame in recording.frames:
        fold.step(frame)
    return fold


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SETTINGS, histories(), st.integers(0, 30), st.booleans())
def test_a_fold_that_goes_on_from_a_snapshot_gives_what_the_unbroken_one_gives(
    flow: WindowSettings, recording: Recording, cut: int, silent: bool
) -> None:
    inputs = list(recording.frames)
    cut = min(cut, len(inputs) - 1)
    rows: list[list[object]] = []
    unbroken, stored = [], Recording()
    fold = WindowFold(flow, LogHistory(stored, flow))
    for number, frame in enumerate(inputs):
        frame = stored.append(frame.stream, frame.rows, frame.arrival_ns)
        if number == cut and fold.state.position is not None:
            definition, state = decode(encode("definition", fold.state), flow)
            assert definition == "definition"
            history = LogHistory(stored, flow)
            history.restart(state)
            other = WindowFold(flow, history, state)
        outputs = fold.step(frame)
        unbroken.append(outputs)
        if number >= cut > 0:
            if silent and number == cut:
                other.step(frame, emit=False)
                history.restart_emitted(other.state)
            else:
                again = other.step(frame)
                rows.append([window_rows(one) for one in again.windows])
                rows.append([late_rows(one) for one in again.late])
        for one in outputs.windows:
            stored.append(flow.to, one, frame.arrival_ns)
    if cut > 0:
        expected: list[list[object]] = []
        for outputs in unbroken[cut + silent :]:
            expected.append([window_rows(one) for one in outputs.windows])
            expected.append([late_rows(one) for one in outputs.late])
        assert repr(rows) == repr(expected)


@promise(Fault.BIT_FLIP, Part.SNAPSHOTS, "Any byte of a flow's snapshot: it is not used.")
def test_every_damaged_byte_is_noticed() -> None:
    data = encode("definition", some_state().state)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        with pytest.raises(ValueError):
            decode(bytes(damaged), FLOW)
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError):
            decode(data[:size], FLOW)


def test_the_two_newest_are_kept_and_those_of_another_definition_are_not_given(tmp_path: Path) -> None:
    snapshots = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "a/b c")
    fold = some_state()
    assert snapshots.load("one", FLOW) == []
    for definition in ("one", "two", "one"):
        snapshots.save(definition, fold.state)
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    assert [state.position for state in snapshots.load("one", FLOW)] == [fold.state.position]
    other = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "a")
    assert other.load("one", FLOW) == []


def test_the_definition_is_what_is_computed_and_not_how_it_is_written() -> None:
    same = WindowSettings(to="out", window="10000ms", grace="10000ms", values=FLOW.values)
    assert definition_hash(same) == definition_hash(FLOW)
    assert definition_hash(WindowSettings(to="out", window="11s", values=FLOW.values)) != definition_hash(
        FLOW
    )
