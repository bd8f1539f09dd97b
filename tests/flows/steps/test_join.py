"""The step `join`: hand-made cases, files, hostile input, and any history against the row-by-row reference."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.flows.aggregates import Late
from ringmain.flows.chain import Chain
from ringmain.flows.flow import definition_hash, definition_of
from ringmain.flows.reference_data import reference_data
from ringmain.flows.step import PlanError, Shape
from ringmain.flows.steps import settings_of
from ringmain.flows.steps.join import ColumnType, JoinSettings, Unmatched, Versions
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import SERIES, TIMESTAMP
from tests.flows.recording import Recording, batch
from tests.flows.reference import join as reference
from tests.flows.steps.driving import SECOND, START, plan_of, run, same

PRICES = pa.schema(
    [
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("tariff", pa.string()),
        pa.field("price", pa.float64()),
    ]
)
SCHEMAS = {"prices": Shape(StreamKind.ROW, PRICES)}
KNOWN = {
    0: {"place": "area/a", "device": "m0", "external": '{"tariff": "day"}'},
    1: {"place": "area/a", "device": "m1", "external": '{"tariff": "night"}'},
    2: {"place": "area/b", "device": "m2", "external": "[broken"},
    3: {"place": None, "device": None, "external": None},
}
Price = tuple[float, str | None, float | None]


def at(second: float) -> int:
    return START + int(second * SECOND)


def prices(rows: list[Price]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([at(row[0]) for row in rows], pa.int64()).cast(TIMESTAMP),
            pa.array([row[1] for row in rows], pa.string()),
            pa.array([row[2] for row in rows], pa.float64()),
        ],
        schema=PRICES,
    )


class Story(Recording):
    """A log told in seconds."""

    def __init__(self, known: dict[int, dict[str, str | None]] = KNOWN) -> None:
        super().__init__()
        entries = [{"id": n, "key": f"key/{n}", "source": "test", **about} for n, about in known.items()]
        self.append("catalogue", pa.RecordBatch.from_pylist(entries, schema=SERIES), at(0))

    def price(self, second: float, *rows: Price) -> None:
        self.append("prices", prices(list(rows)), at(second))

    def read(self, second: float, *rows: tuple[int, float]) -> None:  # type: ignore[override]
        self.append("readings", batch([(n, at(time), 1.0, 0) for n, time in rows]), at(second))


def joined(step: JoinSettings, story: Story, *, until: float = 100, **around: Any) -> list[Any]:
    story.tick(at(until))
    out = run(plan_of(step, schemas=SCHEMAS, **around), story)
    assert set(out) <= {"out"}
    return [(row["series"], (row["time"] - START) // SECOND, row["price"]) for row in out.get("out", [])]


def test_a_reading_gets_the_newest_row_that_is_not_later_than_itself() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0), (10, "day", 20.0), (20, "day", 30.0))
    story.read(15, (0, 9.9), (0, 10), (0, 15), (1, 19), (0, 25))
    step = JoinSettings(with_="prices", columns=("price",))
    assert joined(step, story) == [(0, 9, 10.0), (0, 10, 20.0), (0, 15, 20.0), (1, 19, 20.0), (0, 25, 30.0)]


def test_a_row_is_not_used_when_it_is_older_than_the_tolerance() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0))
    story.read(15, (0, 5), (0, 6), (0, -1))
    step = JoinSettings(with_="prices", columns=("price",), tolerance="5s")
    assert joined(step, story) == [(0, 5, 10.0), (0, 6, None), (0, -1, None)]


def test_rows_are_joined_by_an_external_name_of_the_series() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0), (0, "night", 5.0), (3, "night", 6.0), (0, None, 99.0))
    story.read(5, (0, 1), (1, 1), (2, 1), (3, 1), (1, 4))
    step = JoinSettings(with_="prices", on=("external.tariff",))
    assert joined(step, story) == [(0, 1, 10.0), (1, 1, 5.0), (2, 1, None), (3, 1, None), (1, 4, 6.0)]


def test_rows_are_joined_with_those_of_their_own_series() -> None:
    schema = pa.schema(
        [pa.field("series", pa.uint32()), pa.field("start", TIMESTAMP), pa.field("price", pa.float64())]
    )
    story = Story()
    story.append(
        "limits",
        pa.RecordBatch.from_arrays(
            [
                pa.array([1, 2], pa.uint32()),
                pa.array([at(0), at(2)], pa.int64()).cast(TIMESTAMP),
                pa.array([1.0, 2.0]),
            ],
            schema=schema,
        ),
        at(0),
    )
    story.read(3, (0, 3), (1, 3), (2, 1), (2, 3))
    story.tick(at(9))
    step = JoinSettings(with_="limits", on=("series",))
    rows = run(plan_of(step, schemas={"limits": Shape(StreamKind.ROW, schema)}), story)["out"]
    assert [row["price"] for row in rows] == [None, 1.0, None, 2.0]


def test_the_temperature_of_one_series_is_joined_to_all_others_of_the_same_stream() -> None:
    story = Story()
    story.append("readings", batch([(3, at(0), -4.5, 0), (0, at(1), 7.0, 0)]), at(1))
    story.append("readings", batch([(0, at(3), 8.0, 0), (3, at(2), -5.0, 0)]), at(3))
    story.tick(at(9))
    step = JoinSettings(with_="readings", series="key/3", columns={"temperature": "value"})
    rows = run(plan_of(step), story)["out"]
    assert [(row["series"], row["temperature"]) for row in rows] == [
        (3, -4.5),
        (0, -4.5),
        (0, -5.0),
        (3, -5.0),
    ]


def test_rows_of_one_instant_are_joined_whichever_stands_first_in_the_log() -> None:
    one, other = Story(), Story()
    one.price(5, (5, "day", 10.0))
    one.read(5, (0, 5))
    other.read(5, (0, 5))
    other.price(5, (5, "day", 10.0))
    step = JoinSettings(with_="prices", columns=("price",))
    assert joined(step, one) == joined(step, other) == [(0, 5, 10.0)]


def test_a_row_that_comes_later_than_the_reading_counts_for_later_readings_only() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0))
    story.read(5, (0, 5))
    story.price(6, (4, "day", 20.0))
    story.read(7, (0, 5), (0, 3))
    story.tick(at(100))
    chain = Chain(plan_of(JoinSettings(with_="prices", columns=("price",)), schemas=SCHEMAS))
    rows = [row for frame in story.frames for block in chain.step(frame) for row in block.rows.to_pylist()]
    assert [row["price"] for row in rows] == [10.0, 20.0, 10.0]
    assert chain.contexts[0].counts == {"late_reference": 1}


def test_a_reading_waits_for_the_other_stream_but_not_for_longer_than_told() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0))
    story.read(5, (0, 5))
    story.tick(at(8))
    story.price(9, (5, "day", 20.0))
    story.read(12, (0, 12))
    for second in range(13, 30):
        story.tick(at(second))
    plan = plan_of(JoinSettings(with_="prices", columns=("price",), wait="10s"), schemas=SCHEMAS)
    chain = Chain(plan)
    found = [
        ((chain.now - START) // SECOND, row["price"])
        for frame in story.frames
        for block in chain.step(frame)
        for row in block.rows.to_pylist()
    ]
    assert found == [(12, 20.0), (22, 20.0)]


def test_another_row_of_the_same_time_replaces_the_one_before() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0), (0, "day", 11.0))
    story.read(1, (0, 1))
    story.price(2, (0, "day", 12.0))
    story.read(3, (0, 1))
    assert joined(JoinSettings(with_="prices", columns=("price",)), story) == [(0, 1, 11.0), (0, 1, 12.0)]


def test_a_table_is_joined_as_it_stands_whatever_the_times() -> None:
    story = Story()
    story.price(0, (50, "day", 10.0), (50, "night", 5.0))
    story.read(1, (0, 1), (1, 1))
    story.price(2, (40, "day", 12.0))
    story.read(3, (0, 1), (1, 1))
    step = JoinSettings(with_="prices", on=("external.tariff",), columns=("price",), versions=Versions.NEWEST)
    assert joined(step, story) == [(0, 1, 10.0), (1, 1, 5.0), (0, 1, 12.0), (1, 1, 5.0)]


@pytest.mark.parametrize("unmatched", list(Unmatched))
def test_a_row_without_a_match_is_kept_dropped_or_put_aside_and_counted(unmatched: Unmatched) -> None:
    story = Story()
    story.price(2, (2, "day", 10.0))
    story.read(3, (0, 1), (0, 3))
    story.tick(at(9))
    plan = plan_of(JoinSettings(with_="prices", columns=("price",), unmatched=unmatched), schemas=SCHEMAS)
    chain = Chain(plan)
    found: dict[str, list[int]] = {}
    for frame in story.frames:
        for block in chain.step(frame):
            times = [(time - START) // SECOND for time in block.time.tolist()]
            found.setdefault(str(block.stream), []).extend(times)
    assert (
        found
        == {
            Unmatched.NULL: {"out": [1, 3]},
            Unmatched.DROP: {"out": [3]},
            Unmatched.SIDE: {"out": [3], "out.unmatched": [1]},
        }[unmatched]
    )
    assert chain.contexts[0].counts["unmatched"] == 1


def test_what_waits_is_bounded_and_the_oldest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringmain.flows.join_step.HELD_ROWS_MAX", 3)
    story = Story()
    for second in range(1, 5):
        story.read(second, (0, second), (1, second))
    step = JoinSettings(with_="prices", columns=("price",), wait="1h")
    assert [row[1] for row in joined(step, story, until=9)] == [1, 1, 2, 2, 3, 3]


def test_rows_that_nobody_can_need_any_more_are_forgotten() -> None:
    story = Story()
    for second in range(0, 100, 2):
        story.price(second, (second, "day", float(second)))
        story.read(second + 1, (0, second + 1))
    story.tick(at(200))
    plan = plan_of(JoinSettings(with_="prices", columns=("price",), keep="10s"), schemas=SCHEMAS)
    chain = Chain(plan)
    rows = [row for frame in story.frames for block in chain.step(frame) for row in block.rows.to_pylist()]
    assert [row["price"] for row in rows] == [float(second) for second in range(0, 100, 2)]
    assert len(chain.state()[0]["table_key"]) <= 8


# Files


def file_step(tmp_path: Path, text: str, **more: Any) -> JoinSettings:
    (tmp_path / "meters.csv").write_text(text)
    return JoinSettings(file="meters.csv", **more)


def test_a_file_tells_for_each_meter_what_holds_at_the_time_of_the_reading(tmp_path: Path) -> None:
    step = file_step(
        tmp_path,
        "meter,customer,factor,valid_from,valid_to\n"
        "m0,ann,1.0,2025-06-15T15:00:00Z,2025-06-15T15:06:45Z\n"
        "m0,bob,2.0,2025-06-15T15:06:45Z,\n"
        "m1,cem,,,2025-06-15T15:06:50Z\n",
        on={"meter": "device"},
    )
    story = Story()
    story.read(10, (0, 4), (0, 5), (1, 9), (1, 10), (2, 5), (3, 5))
    story.tick(at(99))
    rows = run(plan_of(step, directory=tmp_path), story)["out"]
    assert [(row["customer"], row["factor"]) for row in rows] == [
        ("ann", 1.0),
        ("bob", 2.0),
        ("cem", None),
        (None, None),
        (None, None),
        (None, None),
    ]


def test_a_parquet_file_gives_what_the_same_csv_gives(tmp_path: Path) -> None:
    step = file_step(tmp_path, "device,limit\nm0,7.5\nm1,8.5\n", on=("device",))
    pyarrow.parquet.write_table(
        pa.table({"device": pa.array(["m0", "m1"]).dictionary_encode(), "limit": [7.5, 8.5]}),
        tmp_path / "m.parquet",
    )
    story = Story()
    story.read(1, (0, 1), (1, 1), (2, 1))
    story.tick(at(9))
    rows = run(plan_of(step, directory=tmp_path), story)
    other = run(plan_of(JoinSettings(file="m.parquet", on=("device",)), directory=tmp_path), story)
    assert rows == other
    assert [row["limit"] for row in rows["out"]] == [7.5, 8.5, None]


def test_dates_and_times_without_a_zone_are_of_the_nodes_zone(tmp_path: Path) -> None:
    texts = ["2026-03-29", "2026-10-25", "2026-07-01T06:00", "2026-07-01T06:00:00.5Z", "0001-01-01"]
    rows = "".join(f"a,{text},9999-12-31\n" for text in texts)
    (tmp_path / "t.csv").write_text(f"device,valid_from,valid_to\n{rows}")
    data = reference_data(tmp_path / "t.csv", ("device",), ZoneInfo("Europe/Berlin"))
    utc = ["2026-03-28T23:00", "2026-10-24T22:00", "2026-07-01T04:00", "2026-07-01T06:00:00.5"]
    assert data.valid_from.tolist() == [*(np.datetime64(text, "ns").astype(int) for text in utc), -(2**63)]
    assert set(data.valid_to.tolist()) == {2**63 - 1}


def test_keys_in_a_file_are_text_with_their_leading_zeros(tmp_path: Path) -> None:
    story = Story({0: {"device": "007"}, 1: {"device": "7"}})
    story.read(1, (0, 1), (1, 1))
    story.tick(at(9))
    step = file_step(tmp_path, "device,limit\n007,1\n", on=("device",))
    rows = run(plan_of(step, directory=tmp_path), story)["out"]
    assert [row["limit"] for row in rows] == [1, None]


def test_a_changed_file_is_a_changed_definition_and_a_moved_one_is_not(tmp_path: Path) -> None:
    text = "device,limit\nm0,7.5\n"
    step = file_step(tmp_path, text, on=("device",))
    before = definition_hash(plan_of(step, directory=tmp_path))
    (tmp_path / "other.csv").write_text(text)
    moved = JoinSettings(file="other.csv", on=("device",))
    assert definition_hash(plan_of(moved, directory=tmp_path)) == before
    (tmp_path / "meters.csv").write_text("device,limit\nm0,8.5\n")
    plan = plan_of(step, directory=tmp_path)
    assert definition_hash(plan) != before
    assert definition_of(plan)["steps"][0]["file"].startswith("sha256:")


def test_what_means_the_same_is_the_same_definition() -> None:
    step = JoinSettings(with_="prices", on=("tariff",), tolerance="60s", wait="1m")
    other = JoinSettings(with_="prices", on={"tariff": "tariff"}, tolerance="1m", wait="60s")
    around = plan_of(JoinSettings(with_="prices"), schemas=SCHEMAS).around
    assert step.definition(around) == other.definition(around)
    assert step.definition(around) != JoinSettings(with_="prices", on=("tariff",)).definition(around)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("customer\nann\n", "no column 'device'"),
        ("device,x\nm0,1\nm0,2\n", "rows 1 and 2 hold for the same time"),
        (
            "device,x,valid_from,valid_to\nm0,1,2026-01-02,2026-01-01\n",
            "row 1: valid_to is not behind valid_from",
        ),
        ("device,x,valid_from\nm0,1,yesterday\n", "row 1: expected a date or time .* found 'yesterday'"),
        ("device,x,valid_from\nm0,1,\nm0,2,2026-13-01\n", "row 2: expected a date or time"),
        ("device,x\nm0\n", "neither CSV nor Parquet"),
        ("", "neither CSV nor Parquet"),
        ("PAR1nonsense", "neither CSV nor Parquet"),
        ("device\nm0\n", "no column to add"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, message: str
) -> None:
    step = file_step(tmp_path, text, on=("device",))
    with pytest.raises(PlanError, match=message):
        plan_of(step, directory=tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.csv"):
        plan_of(JoinSettings(file="none.csv"), directory=tmp_path)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({}, "with"),
        ({"with": "prices", "file": "x.csv"}, "with"),
        ({"file": "x.csv", "wait": "1s"}, "wait"),
        ({"file": "x.csv", "on": ["series"]}, "on"),
        ({"with": "prices", "on": ["place["]}, "on"),
        ({"with": "prices", "tolerance": "far"}, "tolerance"),
        ({"with": "prices", "versions": "newest", "wait": "1s"}, "wait"),
    ],
)
def test_settings_that_contradict_each_other_are_named(table: dict[str, Any], key: str) -> None:
    errors, _ = settings_of({"type": "join", **table}).check()
    assert [error[0] for error in errors] == [key]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            JoinSettings(with_="nothing", columns=("price",)),
            "no column 'price' in 'nothing'; it has series, time",
        ),
        (
            JoinSettings(with_="prices", schema={"price": ColumnType.TEXT}),
            "declared as text and holds double",
        ),
        (JoinSettings(with_="prices", schema={"cost": ColumnType.NUMBER}), "no column 'cost' in 'prices'"),
        (JoinSettings(with_="prices", on=("plaice",)), "found 'plaice'"),
        (JoinSettings(with_="prices", on=("place",)), "rows without series have no attribute 'place'"),
        (JoinSettings(with_="prices", columns=("cost",)), "no column 'cost'"),
        (JoinSettings(with_="prices", columns={"value": "price"}), "have a column 'value' already"),
        (JoinSettings(with_="prices", time="tariff"), "expected a time"),
        (JoinSettings(with_="prices", on=("series",)), "has no series"),
    ],
)
def test_what_does_not_fit_the_streams_is_named(step: JoinSettings, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_of(step, schemas=SCHEMAS)


def test_a_stream_that_no_flow_writes_is_declared_by_its_columns() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0))
    story.read(1, (0, 1))
    story.tick(at(9))
    step = JoinSettings(
        with_="prices",
        schema={"time": ColumnType.TIMESTAMP, "tariff": ColumnType.TEXT, "price": ColumnType.NUMBER},
        columns=("price",),
    )
    assert [row["price"] for row in run(plan_of(step), story)["out"]] == [10.0]


def test_windows_are_joined_as_of_their_start() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0), (60, "day", 20.0))
    story.read(61, (0, 30), (0, 59), (0, 60), (0, 61))
    story.tick(at(130))
    story.tick(at(131))
    window = WindowStepSettings(window="10s", grace="0s", late=Late.SIDE)
    join = JoinSettings(with_="prices", columns=("price",))
    rows = run(plan_of(window, join, schemas=SCHEMAS), story)["out"]
    assert [((row["start"] - START) // SECOND, row["price"]) for row in rows] == [
        (30, 10.0),
        (50, 10.0),
        (60, 20.0),
    ]


# Any history

SECONDS = st.sampled_from([-40, -3, -1, 0, 0, 0, 1, 2, 400])


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[int, str, list[Any]]]:
    now, told = 0, []
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0, 0, 1, 1, 3, 12]))
        if draw(st.booleans()):
            rows = st.tuples(
                SECONDS.map(lambda s, now=now: now + s),
                st.sampled_from([None, "day", "night"]),
                st.sampled_from([None, 1.0, 2.0, -0.0]),
            )
            told.append((now, "prices", draw(st.lists(rows, max_size=5))))
        else:
            rows = st.tuples(st.integers(0, 5), SECONDS.map(lambda s, now=now: now + s))
            told.append((now, "readings", draw(st.lists(rows, max_size=6))))
    return told


STREAM_STEPS = st.builds(
    JoinSettings,
    with_=st.just("prices"),
    on=st.sampled_from([(), ("external.tariff",)]),
    columns=st.just({"cost": "price"}),
    tolerance=st.sampled_from([None, "2s"]),
    wait=st.sampled_from(["0s", "0s", "1s", "5s"]),
    unmatched=st.sampled_from(list(Unmatched)),
)
NEWEST_STEPS = st.builds(
    JoinSettings,
    with_=st.just("prices"),
    on=st.sampled_from([(), ("external.tariff",)]),
    columns=st.just({"cost": "price"}),
    versions=st.just(Versions.NEWEST),
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(STREAM_STEPS | NEWEST_STEPS, stories(), st.integers(0, 2**32))
def test_every_history_gives_the_rows_of_the_reference_however_cut_and_restarted(
    step: JoinSettings, told: list[tuple[int, str, list[Any]]], seed: int
) -> None:
    rng = random.Random(seed)
    whole, cut = Story(), Story()
    model = reference.Reference(step, KNOWN, added={"cost": "price"})
    expected: dict[str, list[dict[str, Any]]] = {}
    now = -1

    def advance(to: int) -> None:
        nonlocal now
        if to > now:
            now = to
            for row in model.advance(at(to)):
                expected.setdefault(row.pop("stream", "out"), []).append(row)

    for second, stream, rows in [
        *told,
        *((second, "ticks", []) for second in range(told[-1][0] + 1, told[-1][0] + 9)),
    ]:
        if stream == "ticks":
            advance(second)
            for log in (whole, cut):
                log.tick(at(second))
            continue
        advance(second)
        for row in rows:
            if stream == "prices":
                model.take_other({"time": at(row[0]), "tariff": row[1], "price": row[2]})
            else:
                found = {"series": row[0], "time": at(row[1]), "value": 1.0, "quality": 0}
                for given_row in model.take(found, at(second)):
                    expected.setdefault(given_row.pop("stream", "out"), []).append(given_row)
        tell = Story.price if stream == "prices" else Story.read
        tell(whole, second, *rows)
        rest = list(rows)
        while rest:
            size = rng.randint(1, 3)
            tell(cut, second, *rest[:size])
            rest = rest[size:]
    plan = plan_of(step, schemas=SCHEMAS)
    found = run(plan, whole)
    assert same(found, expected), (found, expected)
    assert same(run(plan, cut, restarts=rng), expected)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(reference.settings(), stories(), st.integers(0, 2**32))
def test_a_file_gives_every_row_what_the_reference_gives(
    step: JoinSettings, told: list[tuple[int, str, list[Any]]], seed: int
) -> None:
    known = {
        **KNOWN,
        0: {"place": "area/a", "medium": "electricity"},
        1: {"place": "area/b", "medium": "gas"},
    }
    model = reference.Reference(step, known)
    story = Story(known)
    expected: dict[str, list[dict[str, Any]]] = {}
    for second, stream, rows in told:
        if stream == "readings":
            story.read(second, *rows)
            for number, time in rows:
                row = {"series": number, "time": at(time), "value": 1.0, "quality": 0}
                for given_row in model.take(row, at(second)):
                    expected.setdefault(given_row.pop("stream", "out"), []).append(given_row)
    assert same(run(plan_of(step), story, restarts=random.Random(seed)), expected)


def test_hostile_rows_on_both_sides_are_counted_and_match_nothing() -> None:
    schema = pa.schema(
        [pa.field("series", pa.uint32()), pa.field("measured", TIMESTAMP), pa.field("price", pa.float64())]
    )
    story = Story()
    times = pa.array([None, -(2**63), 2**63 - 1, at(0), at(0)], pa.int64()).cast(TIMESTAMP)
    limits = [pa.array([0, 0, 0, 2**32 - 1, 2**24], pa.uint32()), times, pa.array([1.0, 2.0, 3.0, 4.0, 5.0])]
    story.append("limits", pa.RecordBatch.from_arrays(limits, schema=schema), at(0))
    rows = [
        (0, at(1), 1.0, 0),
        (0, 2**63 - 1, math.nan, 2),
        (0, -(2**63), 1.0, 0),
        (2**32 - 1, at(1), 1.0, 0),
    ]
    story.append("readings", batch(rows), at(1))
    story.tick(at(9))
    step = JoinSettings(with_="limits", on=("series",), time="measured", tolerance="1h")
    chain = Chain(plan_of(step, schemas={"limits": Shape(StreamKind.ROW, schema)}))
    found = [
        price
        for frame in story.frames
        for block in chain.step(frame)
        for price in block.rows.column("price").to_pylist()
    ]
    assert found == [None, 3.0, 2.0, None]
    assert chain.contexts[0].counts == {"unusable_reference": 3, "unmatched": 2}


def test_ten_thousand_series_and_odd_ids_are_joined() -> None:
    story = Story()
    story.price(0, (0, "day", 10.0))
    rows = [(n, at(1), 1.0, 0) for n in [*range(10_000), 2**24, 2**32 - 1]]
    story.append("readings", batch(rows), at(1))
    story.append("readings", batch([]), at(1))
    step = JoinSettings(with_="prices", on=("external.tariff",))
    found = joined(step, story)
    assert len(found) == 10_002
    assert [row[2] for row in found[:3]] == [10.0, None, None]
