"""A snapshot holds the whole state, and nothing damaged is ever taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.aggregates import BASIC
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan, definition_hash
from ringmain.flows.settings import WindowSettings
from ringmain.flows.snapshot import Saved, Snapshots, decode, encode
from ringmain.log.files import LocalFileSystem
from tests.promises import Fault, Part, promise

from .recording import Recording
from .steps.driving import plain, plan_of, restarted, saved_of
from .test_window_against_model import SETTINGS, START, histories

FLOW = WindowSettings(to="out", window="10s", values=BASIC)


def planned(flow: WindowSettings) -> FlowPlan:
    return plan_of(flow.step(), to=flow.to, max_ahead_ns=flow.max_ahead_ns)


def some_state(flow: WindowSettings = FLOW) -> Saved:
    recording = Recording()
    recording.entries({0: "a", 1: None, 2: "a"}, START)
    recording.readings([(n, START + n, float(n), 0) for n in range(3)], START)
    chain = Chain(planned(flow), recording)
    for frame in recording.frames:
        chain.step(frame)
    return saved_of(chain)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SETTINGS, histories(), st.integers(0, 30), st.booleans())
def test_a_fold_that_goes_on_from_a_snapshot_gives_what_the_unbroken_one_gives(
    flow: WindowSettings, recording: Recording, cut: int, silent: bool
) -> None:
    inputs = list(recording.frames)
    cut = min(cut, len(inputs) - 1)
    stored = Recording()
    chain = Chain(planned(flow), stored)
    other: Chain | None = None
    for number, frame in enumerate(inputs):
        frame = stored.append(frame.stream, frame.rows, frame.arrival_ns)
        if number == cut and chain.position is not None:
            other = restarted(chain, stored)
        blocks = chain.step(frame)
        if other is not None:
            again = other.step(frame, emit=not (silent and number == cut))
            if not (silent and number == cut):
                assert [(one.stream, repr(plain(one.rows))) for one in again] == [
                    (one.stream, repr(plain(one.rows))) for one in blocks
                ]
        for one in blocks:
            if one.stream == flow.to:
                stored.append(flow.to, one.rows, frame.arrival_ns)
    assert (other is not None) == (cut > 0)


@promise(Fault.BIT_FLIP, Part.SNAPSHOTS, "Any byte of a flow's snapshot: it is not used.")
def test_every_damaged_byte_is_noticed() -> None:
    data = encode("definition", some_state())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        with pytest.raises(ValueError):
            decode(bytes(damaged))
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError):
            decode(data[:size])


def test_the_two_newest_are_kept_and_those_of_another_definition_are_not_given(tmp_path: Path) -> None:
    snapshots = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "a/b c")
    saved = some_state()
    assert snapshots.load("one") == []
    for definition in ("one", "two", "one"):
        snapshots.save(definition, saved)
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    assert [state.position for state in snapshots.load("one")] == [saved.position]
    other = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "a")
    assert other.load("one") == []


def test_the_definition_is_what_is_computed_and_not_how_it_is_written() -> None:
    def hashed(**changes: object) -> str:
        return definition_hash(planned(WindowSettings(**{"to": "out", "values": FLOW.values, **changes})))  # type: ignore[arg-type]

    assert hashed(window="10000ms", grace="10000ms") == hashed(window="10s")
    assert hashed(window="11s") != hashed(window="10s")
