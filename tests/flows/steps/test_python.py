"""The step `python`: what a function gets, may give and may remember; and any history against the reference."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.block import readings_block
from ringmain.flows.chain import Chain, StepFailureError
from ringmain.flows.step import READINGS, PlanError, StepBrokenError
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.python import PythonSettings
from ringmain.flows.steps.sql import SqlSettings
from ringmain.flows.user_function import find_function
from ringmain.flows.user_state import (
    STATE_BYTES_MAX,
    UserStateError,
    decode_state,
    encode_state,
    is_plain,
    problem_of,
)
from tests.flows.reference import python as reference
from tests.flows.steps.driving import SECOND, Instant, plan_of, record, run
from tests.flows.steps.ordered_inputs import ODD_TIMES, ODD_VALUES, agree, at, context, histories

HERE = reference.HERE
ROWS: list[Instant] = [(at(1), [(2, at(1), 5.0, 0), (1, at(1), 7.0, 0), (1, at(0), 6.0, 0)])]


def written(directory: Path, source: str, name: str = "step") -> PythonSettings:
    (directory / "own.py").write_text("import pyarrow as pa\n" + source)
    return PythonSettings(function=f"own.py:{name}")


def outputs(
    step: PythonSettings, instants: list[Instant], directory: Path = Path(), **about: Any
) -> list[Any]:
    log = record(instants, tail_s=2, known=about.pop("known", None))
    return run(plan_of(step, directory=directory), log).get("out", [])


def test_the_rows_of_an_instant_come_together_in_order_of_series_and_time() -> None:
    found = outputs(PythonSettings(function=f"{HERE}:doubled"), ROWS)
    assert [(row["series"], row["time"], row["value"]) for row in found] == [
        (1, at(0), 12.0),
        (1, at(1), 14.0),
        (2, at(1), 10.0),
    ]


def test_a_function_may_give_other_columns_and_look_at_log_time_and_return_its_state() -> None:
    step = PythonSettings(
        function=f"{HERE}:counted", columns={"time": "time", "number": "integer", "rows": "integer"}
    )
    instants: list[Instant] = [*ROWS, (at(5), [(1, at(4), 1.0, 0)])]
    assert outputs(step, instants) == [
        {"time": at(1), "number": 1, "rows": 3},
        {"time": at(5), "number": 2, "rows": 1},
    ]


def test_attributes_of_the_catalogue_stand_beside_the_rows(tmp_path: Path) -> None:
    source = (
        "def step(rows, state):\n"
        "    return pa.record_batch({'place': rows['place'], 'key': rows['key'], 'value': rows['value']})\n"
    )
    (tmp_path / "own.py").write_text("import pyarrow as pa\n" + source)
    step = PythonSettings(
        function="own.py:step",
        attributes=("key", "place"),
        columns={"place": "text", "key": "text", "value": "number"},
    )
    found = outputs(step, ROWS, tmp_path, known={1: {"place": "west"}})
    assert found == [
        {"place": "west", "key": "key/1", "value": 6.0},
        {"place": "west", "key": "key/1", "value": 7.0},
        {"place": None, "key": None, "value": 5.0},
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def step(rows, state):\n    return 5\n", "expected a pyarrow RecordBatch, Table or None, found int"),
        ("def step(rows, state):\n    return rows.drop_columns(['value'])\n", "found them without value"),
        ("def step(rows, state):\n    return rows.append_column('x', rows['value'])\n", "with x"),
        ("def step(rows, state):\n    return rows.set_column(2, 'value', pa.array(['x'] * len(rows)))\n",
         "column 'value': expected double, found string"),
        ("def step(rows, state):\n    return rows.set_column(2, 'value', pa.nulls(len(rows), pa.float64()))\n",
         "'value' must not hold nulls"),
        ("def step(rows, state):\n    return rows.set_column(0, 'series', pa.array([99] * len(rows), pa.uint32()))\n",
         r"expected ids of series that came in \(below 3\), found 99"),
        ("def step(rows, state):\n    state['x'] = (1, 2)\n    return rows\n", r"state\['x'\]: .* found tuple: use a list"),
        ("def step(rows, state):\n    return rows, [1]\n", "state: expected a dict, found list"),
        ("def step(rows, state):\n    raise OSError('gone')\n", "gone"),
    ],
)  # fmt: skip
def test_what_a_function_may_not_give_or_keep_fails_with_its_reason(
    tmp_path: Path, source: str, told: str
) -> None:
    with pytest.raises(StepFailureError, match=told) as failed:
        outputs(written(tmp_path, source), ROWS, tmp_path)
    assert failed.value.step == "1 python"
    assert failed.value.frames


IN_ORDER: list[Instant] = [(at(1), [(series, at(1), 5.0, 0) for series in (1, 2, 5)])]


@pytest.mark.parametrize(
    "given",
    [
        "pa.UInt32Array.from_buffers(pa.uint32(), 3, [None, pa.py_buffer(np.array([1, 2, 6], np.uint32))])",
        "pa.array([1, 2, 6, 7], pa.uint32())[:3]",
        "pa.array([1, 2, 6])",
    ],
)
def test_ids_that_did_not_come_in_are_found_in_rows_that_were_in_order(tmp_path: Path, given: str) -> None:
    source = f"import numpy as np\ndef step(rows, state):\n    ids = {given}\n"
    source += "    return rows.set_column(0, 'series', pa.array(ids))\n"
    with pytest.raises(StepFailureError, match=r"expected ids of series that came in \(below 6\)"):
        outputs(written(tmp_path, source), IN_ORDER, tmp_path)


@pytest.mark.parametrize(
    ("given", "series"),
    [
        ("rows.slice(1)", [2, 5]),
        ("rows.slice(0, 2)", [1, 2]),
        ("rows.slice(3)", None),
        ("rows.schema.empty_table()", None),
        ("pa.table(rows.slice(2))", [5]),
        ("rows.set_column(0, 'series', rows['series'].view(pa.int32()))", [1, 2, 5]),
        ("rows.take(pa.array([2, 0]))", [5, 1]),
    ],
)
def test_parts_of_the_rows_and_their_memory_in_other_types_are_taken(
    tmp_path: Path, given: str, series: list[int] | None
) -> None:
    source = f"def step(rows, state):\n    return {given}\n"
    found = outputs(written(tmp_path, source), IN_ORDER, tmp_path)
    assert [row["series"] for row in found] == (series or [])


def test_the_same_memory_as_numbers_of_another_type_is_not_taken_for_the_ids(tmp_path: Path) -> None:
    source = (
        "def step(rows, state):\n    return rows.set_column(0, 'series', rows['series'].view(pa.float32()))\n"
    )
    with pytest.raises(StepFailureError, match="column 'series': expected uint32, found float"):
        outputs(written(tmp_path, source), IN_ORDER, tmp_path)


def test_a_table_and_columns_that_can_be_cast_are_taken(tmp_path: Path) -> None:
    source = (
        "def step(rows, state):\n"
        "    return pa.table({'quality': pa.array([0] * len(rows)), 'value': pa.array([1] * len(rows)),\n"
        "                     'series': rows['series'], 'time': rows['time'].cast(pa.int64())})\n"
    )
    found = outputs(written(tmp_path, source), ROWS, tmp_path)
    assert [(row["series"], row["value"], row["quality"]) for row in found] == [
        (1, 1.0, 0),
        (1, 1.0, 0),
        (2, 1.0, 0),
    ]


def test_a_function_that_fails_gives_the_same_for_other_instants() -> None:
    plan = plan_of(PythonSettings(function=f"{HERE}:failing"))
    log = record([(at(1), [(1, at(1), 13.0, 0)])], tail_s=1)
    with pytest.raises(StepFailureError, match="ArithmeticError: thirteen"):
        run(plan, log)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("nowhere.py:step", "no such file"),
        ("own.py:other", "no function 'other'; it has later, one, step"),
        ("own.py:one", r"expected `def one\(rows, state\)`"),
        ("own.py:later", "expected a plain function, found `async def later`"),
        ("broken.py:step", r"broken\.py:1: not valid Python"),
        ("no.such.module:step", "no module 'no.such.module'"),
        ("json.decoder:step", "no function 'step'"),
        ("math:sqrt", "with a source file"),
        ("smooth", "expected FILE.py:FUNCTION, MODULE:FUNCTION or the name of an entry point"),
        ("own.py", "expected FILE.py:FUNCTION"),
    ],
)
def test_a_function_that_cannot_be_found_is_told_when_it_is_planned(
    tmp_path: Path, function: str, told: str
) -> None:
    (tmp_path / "own.py").write_text(
        "raise SystemExit('never run while planning')\n"
        "def step(rows, state): ...\ndef one(rows): ...\nasync def later(rows, state): ...\n"
    )
    (tmp_path / "broken.py").write_text("def step(:\n")
    with pytest.raises(PlanError, match=told):
        plan_of(PythonSettings(function=function), directory=tmp_path)


def test_an_entry_point_names_a_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "utility-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: utility\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[ringmain.steps]\ntwice = {HERE}:doubled\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [row["value"] for row in outputs(PythonSettings(function="twice"), ROWS)] == [12.0, 14.0, 10.0]
    with pytest.raises(PlanError, match="installed are twice"):
        find_function("thrice", tmp_path)


def test_the_source_is_part_of_the_definition(tmp_path: Path) -> None:
    step = written(tmp_path, "def step(rows, state):\n    return rows\n")
    around = plan_of(step, directory=tmp_path).around
    first = step.definition(around)
    assert first == step.definition(around)
    written(tmp_path, "def step(rows, state):\n    return None\n")
    assert step.definition(around) != first


def test_settings_are_checked() -> None:
    errors, _ = PythonSettings(
        function="x", attributes=("colour", "unit", "unit"), columns={"a": "float", "id": "series"}
    ).check()
    assert [key for key, _ in errors] == ["attributes", "attributes", "columns", "columns"]


STATES: list[Mapping[str, Any]] = [
    {"n": 1, "x": 1.5, "t": "ü", "b": b"\x00", "none": None, "yes": True, "list": [1, [2.0, {"k": "v"}]]},
    {"by series": {7: 1.0, 8: {"deep": []}}},
    {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "t": np.array([1, 2], "M8[ns]"), "none": np.empty(0)},
    {"scalar": np.array(5.0)},
    {"arrow": pa.array([1, None, 3]), "texts": pa.array(["a", None]).dictionary_encode()},
    {"batch": pa.record_batch({"a": [1, 2], "b": ["x", None]})},
    {"nan": float("nan"), "inf": float("inf"), "minus": -0.0},
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_comes_back_from_a_snapshot_as_it_was(state: dict[str, Any]) -> None:
    stored = encode_state(state)
    back = decode_state(stored)
    assert encode_state(back) == stored
    assert list(back) == list(state)
    assert [type(one) for one in back.values()] == [type(one) for one in state.values()]
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            assert back[name].dtype == value.dtype
            assert back[name].tobytes() == value.tobytes()
            back[name].flat[0:0] = 0  # it can be written to
        elif isinstance(value, pa.Array | pa.RecordBatch):
            assert back[name].equals(value)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"a": {1, 2}}, r"state\['a'\]: .* found set: use a dict or a sorted list"),
        ({"a": [1, {"b": (1,)}]}, r"state\['a'\]\[1\]\['b'\]: .* found tuple"),
        ({"a": datetime.datetime(2026, 1, 1)}, "keep whole nanoseconds"),
        ({"a": np.float64(1.0)}, r"use float"),
        ({"a": 1 << 70}, "whole number of 64 bits"),
        ({(1, 2): 1}, "keys that are text or whole numbers"),
        ({"a": np.array([object()])}, "array of numbers"),
        ({"a": lambda: 1}, "found function"),
        ({"a": bytes(STATE_BYTES_MAX + 1)}, "expected at most 64 MiB"),
        ({"a": "\ud800"}, "cannot be kept"),
    ],
)
def test_a_state_that_cannot_be_kept_is_refused_with_its_place(state: dict[Any, Any], told: str) -> None:
    with pytest.raises(UserStateError, match=told):
        encode_state(state)
    # a glance takes for good only what has no part that is refused; sizes and texts tell when it is encoded
    assert not is_plain(state) or problem_of(state) is None


@pytest.mark.parametrize(
    ("state", "plain"),
    [
        ({}, True),
        ({"a": np.zeros(3), "b": 1.5, "c": "x", "d": None, "e": True, "f": 2**63 - 1, "g": b""}, True),
        ({"a": 2**63}, False),
        ({"a": np.array(["x"])}, False),
        ({"a": []}, False),
        ({"a": {}}, False),
        ({1: 1}, False),
        ({str(number): number for number in range(100)}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_glance_at_a_state_tells_only_what_is_sure(state: Any, plain: bool) -> None:
    assert is_plain(state) == plain
    assert not plain or problem_of(state) is None


def test_a_state_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["me"] = state
    with pytest.raises(UserStateError, match="does it hold itself"):
        encode_state(state)


def test_hostile_rows_reach_the_function_as_they_are() -> None:
    rows = [(1, time, 1.0, 0) for time in ODD_TIMES] + [(2, at(1), value, 2) for value in ODD_VALUES]
    found = outputs(PythonSettings(function=f"{HERE}:doubled"), [(at(1), rows)])
    assert len(found) == len(rows)
    assert [row["time"] for row in found[: len(ODD_TIMES)]] == sorted(ODD_TIMES)


def test_one_series_often_and_many_series_once_are_one_call_each() -> None:
    made = PythonSettings(
        function=f"{HERE}:counted", columns={"time": "time", "number": "integer", "rows": "integer"}
    )
    step = made.make(READINGS, context())
    count = 10_000
    for number, (series, time) in enumerate(
        (
            (np.arange(count), np.full(count, at(1))),
            (np.zeros(count), np.arange(count) * SECOND + at(2)),
        )
    ):
        block = readings_block(
            series.astype(np.uint32), time.astype(np.int64), np.ones(count), np.zeros(count, np.uint16), at(2)
        )
        assert not step.take(block)
        (out,) = step.advance(at(10 * (number + 1)))
        assert out.rows.column("rows").to_pylist() == [count]
        assert out.arrival_ns == at(10 * (number + 1))
    assert not step.advance(at(99))


@examples(derandomize=True, deadline=None, max_examples=40)
@given(reference.settings(), histories(st.floats(-10, 10)), st.randoms(use_true_random=False))
def test_any_history_gives_what_the_reference_gives(
    step: PythonSettings, instants: list[Instant], chance: random.Random
) -> None:
    agree(step, reference.Reference(step), instants, chance)


def test_rows_that_a_function_gave_can_be_kept_by_the_steps_behind_it() -> None:
    """A function that sets a column leaves rows whose schema lets it be null: no snapshot could be taken of them."""
    for behind in (
        PythonSettings(function=f"{HERE}:doubled"),
        SqlSettings(query="select series, sum(value) as total from rows group by series"),
    ):
        plan = plan_of(PythonSettings(function=f"{HERE}:doubled"), behind)
        log = record([*ROWS, (at(2), [(1, at(2), 1.0, 0)])], tail_s=100)
        found = run(plan, log)
        assert found["out"]
        for seed in range(3):
            assert run(plan, log, restarts=random.Random(seed)) == found


def test_a_state_that_cannot_be_kept_is_the_fault_of_the_call_that_left_it_or_of_no_batch(
    tmp_path: Path,
) -> None:
    """Found out some calls later, it made dead letters of one innocent batch after the other."""
    source = """
def step(rows, state):
    number = state["number"] = state.get("number", 0) + 1
    if number == 1:
        state["many"] = list(range({many}))
    if number == {bad}:
        state["bad"] = (1, 2)
    return rows
"""
    instants: list[Instant] = [(at(n), [(1, at(n), float(n), 0)]) for n in range(1, 20)]
    for many, bad, noticed, kind in ((0, 6, 6, UserStateError), (1000, 6, 17, StepBrokenError)):
        own = written(tmp_path, source.format(many=many, bad=bad))
        chain = Chain(plan_of(own, directory=tmp_path))
        with pytest.raises(StepFailureError) as failure:
            [chain.step(frame) for frame in record(instants, tail_s=1).frames]
        assert isinstance(failure.value.cause, kind)
        assert failure.value.held[0].rows.column("value").to_pylist() == [float(noticed)]
    with pytest.raises(StepBrokenError):
        chain.state()


def test_rows_of_groups_are_worked_on_too(tmp_path: Path) -> None:
    step = written(tmp_path, "def step(rows, state):\n    return rows\n")
    total = settings_of({"type": "latest-sum", "by": ["place"]})
    known = {1: {"place": "west"}, 2: {"place": "east"}}
    log = record(ROWS, tail_s=2, known=known)
    found = run(plan_of(total, step, directory=tmp_path), log)["out"]
    assert [(row["place"], row["value"], row["reporting"]) for row in found] == [
        ("west", 7.0, 1),
        ("east", 5.0, 1),
    ]


def test_rows_without_series_do_not_become_rows_of_series() -> None:
    step = PythonSettings(function=f"{HERE}:doubled", columns={"series": "series", "value": "number"})
    with pytest.raises(PlanError, match="rows without series cannot become rows of series"):
        plan_of(settings_of({"type": "latest-sum"}), step)
