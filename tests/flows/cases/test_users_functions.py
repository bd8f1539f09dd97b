"""`ringmain test` finds out a user's function that depends on anything but its rows and its state."""

from __future__ import annotations

import datetime
import importlib
import os
import random
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ringmain.cli.main import cli
from ringmain.flows.cases.elsewhere import elsewhere
from tests.flows.cases.writing import run, write

FLOW = """
[node]
name = "case"
[flows.own]
to = "own"
[[flows.own.steps]]
type = "filter"
where = "value > 0"
[[flows.own.steps]]
type = "python"
function = "steps.py:step"
"""
INPUT = "series,time,value\n" + "".join(
    f"m{number % 3},2026-03-01T12:00:{number:02d}Z,{number + 1}\n" for number in range(30)
)
HEAD = "import pyarrow as pa\nimport pyarrow.compute as pc\n"


def case(directory: Path, steps: str) -> Path:
    return write(directory, flow=FLOW, input=INPUT, steps=HEAD + steps)


@pytest.mark.parametrize(
    ("before", "factor"),
    [
        ("import time\n", "time.time()"),
        ("from datetime import datetime\n", "datetime.now().hour + datetime.now().day"),
        ("import random\n", "random.random()"),
        ("import numpy as np\n", "np.random.default_rng().random()"),
        ("import os\n", "float(os.urandom(1)[0])"),
        ("import uuid\n", "float(uuid.uuid4().int % 1000)"),
    ],
)
def test_a_function_that_looks_at_clocks_or_dice_is_named(tmp_path: Path, before: str, factor: str) -> None:
    steps = f"{before}def step(rows, state):\n    return rows.set_column(2, 'value', pc.multiply(rows['value'], {factor}))\n"
    result = run(case(tmp_path, steps), update=True)
    assert result.problem is not None
    assert "step" in result.problem or "depends on something else" in result.problem


def test_the_step_of_a_function_that_looks_at_the_clock_has_its_number(tmp_path: Path) -> None:
    # the hour is the same in the first plays, so only the world with another clock tells
    steps = "import time\ndef step(rows, state):\n    return rows if time.time() > 1.7e9 else None\n"
    result = run(case(tmp_path, steps), update=True)
    assert result.problem is not None
    assert result.problem.startswith("own: step 2 python gives other results with another clock")


def test_what_a_function_keeps_outside_of_its_state_is_found_by_a_restart(tmp_path: Path) -> None:
    steps = (
        "seen = []\ndef step(rows, state):\n    seen.append(1)\n    return rows if len(seen) % 2 else None\n"
    )
    result = run(case(tmp_path, steps), update=True)
    assert result.problem is not None
    assert "flows restarted in between" in result.problem


def test_what_a_function_keeps_in_its_state_survives_a_restart(tmp_path: Path) -> None:
    steps = (
        "import numpy as np\n"
        "def step(rows, state):\n"
        "    state['n'] = state.get('n', 0) + 1\n"
        "    sums = state.setdefault('sums', np.zeros(3))\n"
        "    np.add.at(sums, rows['series'].to_numpy(), rows['value'].to_numpy())\n"
        "    state.setdefault('last', []).append(rows['value'])\n"
        "    value = sums[rows['series'].to_numpy()] + state['n'] + len(state['last'])\n"
        "    return rows.set_column(2, 'value', pa.array(value))\n"
    )
    directory = case(tmp_path, steps)
    assert run(directory, update=True).problem is None
    assert run(directory).passed
    assert "m2,2026-03-01T12:00:29Z,225," in (directory / "expected.csv").read_text()


def test_a_function_that_fails_is_told_with_its_place_in_the_source(tmp_path: Path) -> None:
    result = run(case(tmp_path, "def step(rows, state):\n    return rows['volume']\n"), update=True)
    assert result.problem is not None
    assert "step 2 python: KeyError" in result.problem
    assert 'steps.py", line 4' in result.problem


def test_another_world_has_other_clocks_and_dice_and_leaves_no_trace() -> None:
    def look() -> list[object]:
        return [
            time.time(),
            time.monotonic_ns(),
            datetime.datetime.now(),
            datetime.date.today(),
            random.random(),
            np.random.random(),
            os.urandom(4),
            uuid.uuid4(),
        ]

    random.seed(5)
    expected = random.random()
    random.seed(5)
    before = time.time()
    worlds = []
    for seed in (1, 2, 1):
        with elsewhere(seed):
            worlds.append(look())
            assert isinstance(datetime.datetime(2026, 1, 1), datetime.datetime)
    assert worlds[0] == worlds[2]
    assert all(one != other for one, other in zip(worlds[0], worlds[1], strict=True))
    assert random.random() == expected
    assert abs(time.time() - before) < 60
    assert type(datetime.datetime.now()) is datetime.datetime


def test_a_module_that_was_imported_before_is_imported_anew_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "utility_steps.py").write_text(
        "from time import time\ndef step(rows, state):\n    return rows if time() > 1.7e9 else None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("utility_steps")
    flow = FLOW.replace("steps.py:step", "utility_steps:step")
    result = run(write(tmp_path / "case", flow=flow, input=INPUT), update=True)
    assert result.problem is not None
    assert "gives other results with another clock" in result.problem
    assert sys.modules["utility_steps"] is module


def test_times_of_nanoseconds_that_differ_are_told(tmp_path: Path) -> None:
    steps = (
        "import time\nT = pa.timestamp('ns', tz='UTC')\n"
        "def step(rows, state):\n"
        "    return rows.set_column(1, 'time', pa.array([time.time_ns() | 1] * len(rows), pa.int64()).cast(T))\n"
    )
    result = run(case(tmp_path, steps), update=True)
    assert result.problem is not None
    assert "column `time`" in result.problem


@pytest.mark.parametrize("source", ["raise ValueError('not today')\ndef step(rows, state): ...\n",
                                    "raise SystemExit\ndef step(rows, state): ...\n",
                                    "def step(rows, state):\n    raise SystemExit\n"])  # fmt: skip
def test_a_module_that_cannot_be_loaded_and_a_function_that_exits_fail_the_case(
    tmp_path: Path, source: str
) -> None:
    result = run(case(tmp_path, source), update=True)
    assert result.problem is not None
    assert "steps.py" in result.problem


def test_an_order_that_follows_from_hashes_of_texts_is_found(tmp_path: Path) -> None:
    steps = (
        "def step(rows, state):\n"
        "    order = list({f'text {number}' for number in range(50)})\n"
        "    return rows.set_column(2, 'value', pa.array([float(len(order[0]) * 100 + hash(order[0]) % 97)] * len(rows)))\n"
    )
    directory = case(tmp_path, steps)
    run(directory, update=True)
    shown = CliRunner().invoke(cli, ["test", str(directory)])
    assert shown.exit_code == 1
    assert "own: step 2 python gives other results in another process" in shown.stdout
    steady = case(tmp_path / "steady", "def step(rows, state):\n    return rows\n")
    run(steady, update=True)
    assert CliRunner().invoke(cli, ["test", str(steady)]).exit_code == 0
