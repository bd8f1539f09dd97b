"""What compiled loops give is what NumPy gives, bit for bit; and what is kept of series columns is told apart."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ringmain.flows import compiled
from ringmain.flows.block import Ids, Ints
from ringmain.flows.chain import Chain
from ringmain.flows.recent import LEAVING_MAX, RecentReadings
from ringmain.flows.step import StepSettings
from ringmain.flows.steps import counter, settings_of, swinging_door
from ringmain.flows.sweep import KNOWN_ROWS_MAX, Known, Sweep
from tests.flows.recording import Recording, Row
from tests.flows.steps.driving import SECOND, START, Instant, plan_of, record

_SERIES = 40
_WINDOW = {"type": "window", "window": "10s", "grace": "3s"}
_CHAINS = {
    "window": [{**_WINDOW, "values": ["count", "mean", "min", "max"]}],
    "last": [{**_WINDOW, "values": ["last", "delta", "good"], "late": "side"}],
    "group": [{"type": "group", "by": ["place"], "window": "10s", "grace": "3s"}],
    "counter": [{"type": "counter", "max_rate": 9e5}, {**_WINDOW, "values": ["sum"], "late": "side"}],
    "swinging-door": [{"type": "swinging-door", "deviation": 2.0, "max_interval": "9s", "idle": "4s"}],
}


def _fleet(seed: int) -> list[Instant]:
    """Rounds of whole and partial fleets, in order and not, with repeats, stragglers, doubts and odd values."""
    draw = random.Random(seed)
    instants: list[Instant] = []
    shown = [0.0] * _SERIES
    chosen = sorted(draw.sample(range(_SERIES), 25))
    for turn in range(60):
        now = START + turn * SECOND
        kind = draw.choice(["all", "all", "part", "some", "some", "shuffled", "any"])
        ids = {"all": range(_SERIES), "part": range(5, 30), "some": chosen}.get(kind, range(_SERIES))
        if kind == "shuffled":
            ids = draw.sample(range(_SERIES), 30)
        if kind == "any":
            ids = [draw.randrange(_SERIES) for _ in range(30)]
        spread, late, doubt = draw.random() < 0.5, draw.random() < 0.1, draw.random() < 0.2
        rows: list[Row] = []
        for series in ids:
            shown[series] += draw.choice([0, 1, 1, 2, -0.5 if doubt else 1])
            time = now - draw.randrange(400) * 1_000_000 * spread - draw.randrange(30) * SECOND * late
            value = draw.choice([-0.0, float("nan")]) if draw.random() < 0.01 else shown[series]
            rows.append((series, time, value, draw.choice([0, 1, 2, 16, 48]) if doubt else 0))
        instants.append((now, rows))
    return instants


def _outputs(steps: list[StepSettings], log: Recording) -> list[tuple[object, ...]]:
    chain = Chain(plan_of(*steps), log)
    blocks = [block for frame in log.frames for block in chain.step(frame)]
    found = [(block.stream, block.arrival_ns, repr(block.rows.to_pydict())) for block in blocks]
    return [*found, *(tuple(sorted(context.counts.items())) for context in chain.contexts)]


@pytest.mark.parametrize("name", _CHAINS)
def test_frames_are_folded_alike_with_and_without_compiled_loops(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [settings_of(dict(step)) for step in _CHAINS[name]]
    known = {
        number: {"device": f"d/{number // 3}" if number % 7 else None, "place": f"f/{number % 4}"}
        for number in range(_SERIES)
    }
    recordings = [record(_fleet(seed), known=known, tail_s=60) for seed in range(3)]
    monkeypatch.setattr(compiled, "ROWS_MIN", 1)
    by_loops = [_outputs(steps, log) for log in recordings]
    assert all(len(found) > 3 for found in by_loops)
    for module in (compiled, counter, swinging_door):
        monkeypatch.setattr(module, "FAST", False)
    assert [_outputs(steps, log) for log in recordings] == by_loops


def test_readings_that_were_let_go_are_known_whatever_columns_they_shared() -> None:
    draw = random.Random(5)
    columns = [np.array(sorted(draw.sample(range(50), 20)), np.uint32) for _ in range(LEAVING_MAX + 3)]
    recent = RecentReadings(6 * 4096)
    came: list[tuple[Ids, Ints]] = []
    for turn in range(400):
        kind = draw.choice(["shared", "shared", "own", "any"])
        series = draw.choice(columns) if kind == "shared" else draw.choice(columns).copy()
        if kind == "any":
            series = np.array([draw.randrange(50) for _ in range(20)], np.uint32)
        series = np.tile(series, 205 if kind == "any" else 1)
        same_time = draw.random() < 0.5
        first = turn - draw.choice([0, 0, 0, 30])
        time = np.array(
            [first + (0 if same_time else draw.randrange(9)) for _ in range(len(series))], np.int64
        )
        recent.add(series, time, np.zeros(len(series)), None, int(time.min()), int(time.max()), kind != "any")
        came.append((series, time))
        if turn % 7 == 0:
            held = sum(len(rows) for rows in recent.overlapping(-1_000, 1_000))
            series = np.concatenate([series for series, _ in came])
            time = np.concatenate([time for _, time in came])
            gone = np.full(50, -1_000)
            let_go = len(series) - held
            np.maximum.at(gone, series[:let_go], time[:let_go])
            every = np.arange(50)
            for since in (0, turn - 20, turn):
                expected = gone < since
                assert (recent.covers(every, np.full(50, since)) == expected).all()
    assert let_go > 0


def test_what_belongs_to_a_column_is_found_among_that_of_others_of_equal_length_and_ends() -> None:
    known: Known[Sweep] = Known()
    devices = np.arange(100, dtype=np.int32)
    columns = [np.array([0, middle, 99], np.uint32) for middle in range(1, 5)] + [
        np.array([0, 1], np.uint32),
        np.array([7], np.uint32),
    ]
    for column in columns:
        assert known.find(column) is None
        known.add(Sweep(column, devices))
        found = known.find(column.copy())
        assert found is not None
        assert found.ids.tolist() == column.tolist()
    assert known.find(columns[0]) is None  # another of its length and ends came later
    assert known.find(columns[3]) is not None
    assert known.find(columns[4]) is not None


def test_no_more_is_kept_of_columns_than_is_told() -> None:
    known: Known[Sweep] = Known()
    rows = KNOWN_ROWS_MAX // 4
    devices = np.arange(rows + 10, dtype=np.int32)
    columns = [np.arange(first, first + rows, dtype=np.uint32) for first in range(6)]
    for column in columns:
        known.add(Sweep(column, devices))
    assert [known.find(column) is not None for column in columns] == [False, False, True, True, True, True]
    huge = np.arange(KNOWN_ROWS_MAX + 1, dtype=np.uint32)
    known.add(Sweep(huge, np.arange(len(huge), dtype=np.int32)))
    assert known.find(huge) is not None
    assert known.find(columns[5]) is None
