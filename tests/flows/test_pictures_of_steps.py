"""A picture of any chain, taken piece by piece while it goes on, is its state at the moment at which it was begun."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.chain import Chain
from ringmain.flows.step import StepSettings, TellsWrites
from ringmain.flows.steps import settings_of
from ringmain.log.interface import Frame
from tests.flows.random_chains import KNOWN, SCHEMAS, TAIL_S, chains, planned, stories
from tests.flows.recording import Recording
from tests.flows.steps.driving import SECOND, START, Instant, Others, plain, record
from tests.flows.test_saving import Taker, decoded

CASES = examples(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


class Going:
    """A chain over a log that grows with what it gives."""

    def __init__(self, steps: Sequence[StepSettings], log: Sequence[Frame] = ()) -> None:
        self.log = Recording()
        for frame in log:
            self.log.append(frame.stream, frame.rows, frame.origin_arrival_ns)
        self.chain = Chain(planned(steps), self.log)

    def step(self, frame: Frame) -> list[tuple[str, str]]:
        """What follows from a frame: stream and row."""
        out = []
        for block in self.chain.step(self.log.append(frame.stream, frame.rows, frame.origin_arrival_ns)):
            assert block.stream is not None
            self.log.append(block.stream, block.rows, frame.origin_arrival_ns)
            out += [(block.stream, repr(row)) for row in plain(block.rows)]
        return out


def check(steps: Sequence[StepSettings], frames: Sequence[Frame], begin: int, chance: random.Random) -> None:
    """Take a picture behind `begin` frames, a piece now and then, and go on from it as well."""
    going = Going(steps)
    for frame in frames[:begin]:
        going.step(frame)
    if going.chain.position is None:
        return
    taker = Taker(going.chain, piece_bytes=64)
    taker.begin()
    before = list(going.log.frames)
    out = []
    for frame in frames[begin:]:
        if chance.random() < 0.3:
            taker.saver.go_on(0.0)
        out += going.step(frame)
    assert decoded(taker.taken()) == decoded(taker.expected), steps
    found = taker.snapshots.load("one")[0]
    again = Going(steps, before)
    again.chain.attributes.restore(found.states[-1])
    again.chain.restore(found.states[:-1], found.now_ns, found.lead_ns, found.position)
    assert [row for frame in frames[begin:] for row in again.step(frame)] == out, steps


@CASES
@given(chains(), stories(), st.integers(0, 2**32))
def test_a_picture_of_any_chain_is_its_state_at_the_moment_at_which_it_was_begun(
    steps: list[StepSettings], story: tuple[list[Instant], Others], seed: int
) -> None:
    chance = random.Random(seed)
    log = record(story[0], known=KNOWN, cut=chance, tail_s=TAIL_S, others=story[1], schemas=SCHEMAS)
    check(steps, log.frames, chance.randint(1, len(log.frames)), chance)


TELLING: list[dict[str, Any]] = [
    {
        "type": "window",
        "window": "10s",
        "grace": "2s",
        "idle": "20s",
        "late": "side",
        "values": ["twa", "std"],
    },
    {
        "type": "window",
        "window": "20s",
        "every": "5s",
        "grace": "2s",
        "idle": "20s",
        "values": ["mean", "std"],
    },
    {"type": "group", "by": ["place"], "window": "10s", "grace": "2s", "idle": "20s"},
    {"type": "group", "by": ["place"], "window": "10s", "grace": "2s", "idle": "20s", "late": "drop"},
    {"type": "deadband", "absolute": 1.0, "grace": "3s"},
    {"type": "swinging-door", "deviation": 1.0, "max_interval": "20s", "idle": "5s"},
    {"type": "counter", "digits": 3, "reset": "zero", "max_gap": "10s"},
    {"type": "validate", "max_rate": 1.0, "stuck": "9s", "spike": 3.0, "spike_values": 5},
    {
        "type": "alert",
        "any": [{"above": 5.0}, {"rate_above": 2.0, "per": "1s"}, {"silent": "8s"}, {"bad": 2, "of": 5}],
        "for": "2s",
        "clear_for": "3s",
    },
    {"type": "alert", "silent": "8s", "subject": "device"},
    {"type": "fill", "interval": "2s", "method": "linear", "max_fill": "1m", "grace": "3s"},
    {"type": "fill", "interval": "1h", "method": "last-week", "max_fill": "2h"},
]
SERIES = 400


@pytest.mark.parametrize("number", range(len(TELLING)))
def test_a_step_says_of_every_place_that_it_is_about_to_write_to(number: int) -> None:
    dice = np.random.default_rng(number)
    chance = random.Random(number)
    log = Recording()
    log.entries({one: f"box-{one // 4}" for one in range(SERIES // 2)}, START)
    now = START
    for turn in range(50):
        now += int(dice.integers(1, 5)) * SECOND // 2
        if turn == 25:
            log.entries({one: f"box-{one // 3}" for one in range(SERIES // 2)}, now)
        low = int(dice.integers(0, SERIES // 2))
        chosen = range(low, low + 100) if turn % 3 else dice.integers(0, SERIES + turn, 60).tolist()
        rows = [
            (
                one,
                now - int(dice.integers(0, 12 if turn % 4 else 1)) * SECOND,
                float(dice.integers(0, 9)),
                int(dice.choice([0, 0, 0, 2])),
            )
            for one in chosen
        ]
        log.readings(rows, now)
        log.tick(now + 1)
    step = settings_of(TELLING[number])
    assert isinstance(Chain(planned([step]), log).steps[0], TellsWrites)
    for begin in (21, 53, 80):
        check([step], log.frames, begin, chance)
