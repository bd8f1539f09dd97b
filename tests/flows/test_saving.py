"""A picture of a state that is taken while the flow goes on is that of the moment at which it was begun."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ringmain.flows.chain import Chain
from ringmain.flows.device_names import DeviceNames
from ringmain.flows.picture import PIECE_BYTES, Picture
from ringmain.flows.saving import Saver, Saving
from ringmain.flows.settings import WindowSettings
from ringmain.flows.snapshot import Saved, Snapshots, decode, encode
from ringmain.flows.step import TellsWrites
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Frame
from ringmain.testing import SimulatedDisk

from .recording import Recording
from .steps.driving import saved_of
from .test_snapshot import FLOW, planned, some_state
from .test_window_against_model import SETTINGS, START, histories

SECOND = 1_000_000_000


def compacted(saved: Saved, chain: Chain) -> bytes:
    """What a snapshot holds that is taken of a flow that stands still."""
    savings = [*map(Saving.of, chain.steps), Saving()]
    states = [
        state if saving.compact is None else saving.compact(state)
        for state, saving in zip(saved.states, savings, strict=True)
    ]
    return encode("one", replace(saved, states=states))


class Taker:
    """Takes pictures of a chain, each beside a copy of the state as it is."""

    def __init__(self, chain: Chain, *, piece_bytes: int = PIECE_BYTES) -> None:
        self.disk = SimulatedDisk()
        self.snapshots = Snapshots(self.disk, Path("snapshots"), "flow")
        self.saver = Saver(self.snapshots, piece_bytes=piece_bytes)
        self.chain = chain
        self.expected = b""
        self.errors: list[Exception | None] = []

    def begin(self) -> None:
        self.expected = compacted(saved_of(self.chain), self.chain)
        savings = [*map(Saving.of, self.chain.steps), Saving()]
        self.saver.begin(
            "one", saved_of(self.chain), savings, lambda size, error: self.errors.append(error), 0.0
        )

    def taken(self) -> bytes:
        self.saver.go_on(math.inf)
        assert not self.saver.unfinished
        self.saver.finish()
        assert self.errors.pop() is None
        return encode("one", self.snapshots.load("one")[0])


def decoded(data: bytes) -> list[Any]:
    """A snapshot's content in a form whose differences can be read."""
    saved = decode(data)[1]
    parts = [
        {name: part if isinstance(part, bytes) else part.tolist() for name, part in state.items()}
        for state in saved.states
    ]
    return [repr(saved.position), saved.now_ns, repr(parts)]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SETTINGS, histories(), st.integers(1, 12), st.integers(0, 12))
def test_a_picture_taken_while_frames_are_folded_is_the_state_at_which_the_flow_would_have_stood_still(
    flow: WindowSettings, recording: Recording, begin: int, during: int
) -> None:
    inputs = list(recording.frames)
    begin = min(begin, len(inputs))
    stored = Recording()
    chain = Chain(planned(flow), stored)

    def step(frame: Frame) -> None:
        frame = stored.append(frame.stream, frame.rows, frame.arrival_ns)
        for one in chain.step(frame):
            if one.stream == flow.to:
                stored.append(flow.to, one.rows, frame.arrival_ns)

    for frame in inputs[:begin]:
        step(frame)
    taker = Taker(chain)
    taker.begin()
    for frame in inputs[begin : begin + during]:  # nothing but what is about to be written to is copied here
        step(frame)
    assert decoded(taker.taken()) == decoded(taker.expected)


def test_pictures_of_a_fleet_that_windows_close_under_are_those_of_their_moment() -> None:
    flow = WindowSettings(to="out", window="10s", values=FLOW.values, grace="0s", idle="40s")
    recording = Recording()
    chain = Chain(planned(flow), recording)
    assert isinstance(chain.steps[0], TellsWrites)
    dice = np.random.default_rng(3)
    recording.entries({number: f"device-{number % 700}" for number in range(0, 3000, 2)}, START)
    taker = Taker(chain)
    pictures = begun = 0
    for turn in range(60):
        now = START + turn * 3 * SECOND
        ids = np.unique(dice.integers(0, 2000 + 20 * turn, 400)).tolist()
        rows = [
            (number, now - int(dice.integers(0, 3)) * 6 * SECOND, float(dice.normal()), 0) for number in ids
        ]
        recording.readings(rows, now)
        recording.tick(now + 1)
        for frame in recording.frames[-2:] if turn else recording.frames:
            chain.step(frame)
        if taker.saver.unfinished and turn - begun >= turn % 5:
            assert taker.taken() == taker.expected
            pictures += 1
        elif not taker.saver.unfinished:
            taker.begin()
            begun = turn
    assert pictures > 10
    assert chain.contexts[0].counts["windows"] > 1000


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 4000))
def test_a_picture_holds_what_was_there_however_places_are_written_to(
    seed: int, size: int, piece_bytes: int
) -> None:
    chance = random.Random(seed)
    arrays: list[NDArray[Any]] = [
        np.arange(size, dtype=np.int64),
        np.linspace(0, 1, size),
        np.zeros(size, np.bool_),
    ]
    before = [array.copy() for array in arrays]
    rooms = [np.full_like(array, 77) for array in arrays]
    picture = Picture(arrays, rooms, piece_bytes=piece_bytes)
    for _ in range(chance.randint(0, 12)):
        kind = chance.randrange(4)
        places: slice | NDArray[np.int64]
        if kind == 0:
            picture.go_on(0.0)
            continue
        if kind == 1:
            start = chance.randint(0, size + 5)
            places = slice(start, chance.randint(start, size + 9))
        elif kind == 2:
            places = np.arange(chance.randint(0, size), size + chance.randint(0, 9))
        else:
            places = np.array([chance.randint(0, size + 9) for _ in range(chance.randint(0, 2 * size))], int)
        picture.before(places)
        inside = places if isinstance(places, slice) else places[places < size]
        for array in arrays:
            array[inside] = chance.randint(0, 1000)
    picture.go_on(math.inf)
    assert picture.whole
    assert [room.tolist() for room in rooms] == [array.tolist() for array in before]


def test_a_picture_that_is_given_up_is_not_written_and_its_step_is_not_asked_any_more() -> None:
    recording = Recording()
    recording.readings([(number, START + number, 1.0, 0) for number in range(9)], START)
    chain = Chain(planned(FLOW), recording)
    chain.step(recording.frames[0])
    taker = Taker(chain)
    taker.begin()
    assert taker.saver.unfinished
    taker.saver.finish()
    assert not taker.saver.unfinished
    assert taker.snapshots.load("one") == []
    assert taker.errors == []
    chain.step(recording.frames[0])
    taker.begin()
    assert taker.taken() == taker.expected


def test_nothing_is_written_before_what_has_to_be_done_first_is_done(tmp_path: Path) -> None:
    snapshots = Snapshots(LocalFileSystem(), tmp_path / "snapshots", "flow")
    saver = Saver(snapshots)
    saved = some_state()

    def refused() -> None:
        raise InterruptedError("the position was not committed")

    saver.begin("one", saved, [Saving()] * len(saved.states), lambda size, error: None, 0.0)
    with pytest.raises(InterruptedError):
        saver.go_on(math.inf, refused)
    saver.finish()
    assert snapshots.load("one") == []


def test_the_names_of_a_fleet_are_those_that_were_given_before_a_snapshot_and_after() -> None:
    names = DeviceNames()
    for number in range(20_000):
        names.add([f"device-{number}"], 3 * number)
        if number in (0, 8_190, 8_191, 8_192, 16_383):
            stored = names.stored()
            again = DeviceNames.restored({"else": b"", **stored})
            assert again.numbers() == names.numbers() == {3 * one for one in range(number + 1)}
            assert again.stored() == stored
            names = again
    asked = [f"device-{number}" for number in (0, 8_191, 19_999, 20_000)]
    assert names.get_all(asked) == [0, 3 * 8_191, 3 * 19_999, None]
    at_once = DeviceNames()
    at_once.add([f"device-{number}" for number in range(5_000)], 0)
    at_once.add([f"device-{number}" for number in range(5_000, 20_000)], 5_000)
    one_by_one = DeviceNames()
    for number in range(20_000):
        one_by_one.add([f"device-{number}"], number)
    assert at_once.stored() == one_by_one.stored()
    with pytest.raises(KeyError):
        DeviceNames.restored({})
