"""Random chains of steps over random histories, each step with its slow, row-by-row form."""

from __future__ import annotations

import importlib
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from ringmain.flows.aggregates import Late
from ringmain.flows.flow import FlowPlan, StepPlan, stored, tag_of
from ringmain.flows.grouping_totals import GroupValue
from ringmain.flows.step import READINGS, PlanError, Shape, StepSettings
from ringmain.flows.steps.derive import DeriveSettings
from ringmain.flows.steps.filter import FilterSettings
from ringmain.flows.steps.group import GroupSettings
from ringmain.flows.steps.join import JoinSettings, Unmatched, Versions
from ringmain.flows.steps.python import PythonSettings
from ringmain.flows.steps.route import RouteCase, RouteSettings
from ringmain.flows.steps.validate import ValidateSettings
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import TIMESTAMP
from tests.flows.reference import join as join_reference
from tests.flows.reference import python as python_reference
from tests.flows.steps.driving import (
    SECOND,
    START,
    Instant,
    Others,
    ReferenceStep,
    plan_of,
    record,
    run_reference,
    same,
)
from tests.flows.steps.growing import run_growing
from tests.flows.steps.ordered_inputs import histories
from tests.flows.steps.row_wise import KNOWN as PLACES

KNOWN = {series: {**about, "device": "box" if series < 2 else None} for series, about in PLACES.items()}
SCHEMAS = {
    "prices": Shape(
        StreamKind.ROW,
        pa.schema(
            [
                pa.field("time", TIMESTAMP, nullable=False),
                pa.field("medium", pa.string()),
                pa.field("price", pa.float64()),
            ]
        ),
    ),
    "forecasts": READINGS,
}
ROW_WISE = ("filter", "convert", "derive", "route", "join_file")
IN_ORDER = ("deadband", "swinging_door", "validate", "counter", "fill", "python", "join_stream")
SUMMING = ("window", "group", "latest_sum", "sql", "alert")
ANY_ROWS = ("filter", "derive", "route", "join_file", "join_stream", "python")
"""Steps that take rows without values too."""
TAIL_S = 40
VALUES = st.sampled_from([0.0, 0.1, 1.0, 1.5, 2.0, 7.0, 10.0, 99.5, -3.0, 1e6])
STEPS_MAX = 5

_DIRECTORY = tempfile.TemporaryDirectory(prefix="ringmain-chains-")
_FILE_ROWS: list[dict[str, Any]] = [
    {"place": "area-1/ss-1", "medium": "electricity", "label": "x", "number": 1.5, "valid_from": START - 500 * SECOND},
    {"place": "area-1/ss-1", "medium": "electricity", "label": "y", "number": 2.5, "valid_from": START + 5 * SECOND},
    {"place": "area-1/ss-2", "medium": "gas", "label": None, "number": 3.5, "valid_from": START, "valid_to": START + 8 * SECOND},
]  # fmt: skip
_FILE = join_reference.csv_file(Path(_DIRECTORY.name), _FILE_ROWS)
_WHOLE = join_reference.csv_file(
    Path(tempfile.mkdtemp(dir=_DIRECTORY.name)),
    [{name: row[name] for name in ("label", "number", "valid_from")} for row in _FILE_ROWS[:2]],
)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.flows.reference.{name}")


# Chains


@st.composite
def chains(draw: st.DrawFn) -> list[StepSettings]:
    """Steps of which each fits what those before it give."""
    steps: list[StepSettings] = []
    for _ in range(draw(st.integers(1, STEPS_MAX))):
        last = planned(steps).steps[-1].plan if steps else None
        if last is not None and (not last.chained or last.shape.kind is StreamKind.EVENT):
            break
        shape = READINGS if last is None else last.shape
        name = draw(st.sampled_from(ROW_WISE + IN_ORDER + SUMMING if shape.readings else ANY_ROWS))
        step = draw(_settings(name, shape, len(steps)))
        try:
            planned([*steps, step])
        except PlanError:
            continue  # it does not fit, and is refused before anything runs
        steps.append(step)
    return steps or [FilterSettings(where="true")]


def planned(steps: Sequence[StepSettings]) -> FlowPlan:
    """The plan of a flow of these steps."""
    return plan_of(*steps, schemas=SCHEMAS)


def _settings(name: str, shape: Shape, number: int) -> st.SearchStrategy[Any]:
    if name == "join_file":
        return _file_joins(shape, number)
    if name == "join_stream":
        return _stream_joins(shape, number)
    if name == "group":
        return _groups(shape)
    if not shape.readings:
        return _settings_of_rows(name, shape, number)
    if name == "window":
        return _module(name).settings(tuple(Late))  # type: ignore[no-any-return]
    found: st.SearchStrategy[Any] = _module(name).settings()
    return found | _counted() if name == "python" and shape.schema == READINGS.schema else found


def _conditions(shape: Shape) -> list[str]:
    """Conditions on the columns of rows that are no readings."""
    found = ["1 = 1", "null = 1"]
    for field in shape.schema:
        name = f'"{field.name}"'
        if field.name in ("series", "unit"):  # these mean something else in an expression
            continue
        if pa.types.is_floating(field.type):
            found += [f"{name} > 1", f"{name} is null or {name} < 5"]
        elif pa.types.is_integer(field.type):
            found.append(f"{name} >= 2")
        elif pa.types.is_timestamp(field.type):
            found.append(f"hour({name}) >= 15")
        elif pa.types.is_string(field.type):
            found += [f"{name} like 'area-1/%'", f"{name} is null"]
    return found


def _settings_of_rows(name: str, shape: Shape, number: int) -> st.SearchStrategy[Any]:
    conditions = st.sampled_from(_conditions(shape))
    if name == "filter":
        return st.builds(FilterSettings, where=conditions)
    if name == "derive":
        return st.builds(lambda text: DeriveSettings(columns={f"derived_{number}": text}), conditions)
    if name == "route":
        case = st.builds(
            RouteCase, where=conditions, to=st.sampled_from(["next", "drop", "routed.a", "routed.c"])
        )
        return st.builds(
            RouteSettings,
            cases=st.lists(case, min_size=1, max_size=2).map(tuple),
            otherwise=st.sampled_from(["next", "drop", "routed.c"]),
        )
    return _counted()


def _counted() -> st.SearchStrategy[PythonSettings]:
    return st.just(
        PythonSettings(
            function=f"{python_reference.HERE}:counted",
            columns={"time": "time", "number": "integer", "rows": "integer"},
        )
    )


def _groups(shape: Shape) -> st.SearchStrategy[GroupSettings]:
    labels = [name for name in shape.schema.names if name.startswith("label_")]
    return st.builds(
        GroupSettings,
        by=st.sampled_from(
            [
                (),
                ("place",),
                ("place[1]", "medium"),
                {"feeder": "place[:2]"},
                ("device",),
                *[(label,) for label in labels],
            ]
        ),
        window=st.sampled_from(["1s", "10s"]),
        values=st.lists(st.sampled_from(list(GroupValue)), min_size=1, unique=True).map(tuple),
        late=st.sampled_from(list(Late)),
        grace=st.sampled_from(["0s", "3s", "25s"]),
        idle=st.sampled_from(["5s", "30s"]),
    )


def _file_joins(shape: Shape, number: int) -> st.SearchStrategy[JoinSettings]:
    """With a file; new columns have the step's number in their names."""
    placed = not {"series", "place"}.isdisjoint(shape.schema.names)
    by_place: list[tuple[str, ...]] = [("place",), ("place", "medium")] if placed else []

    def made(on: tuple[str, ...], tolerance: str | None, unmatched: Unmatched) -> JoinSettings:
        return JoinSettings(
            file=str(_FILE if on else _WHOLE),
            on=on,
            columns={f"label_{number}": "label", f"number_{number}": "number"},
            tolerance=tolerance,
            unmatched=unmatched,
        )

    return st.builds(
        made,
        st.sampled_from([(), *by_place]),
        st.sampled_from([None, "4s", "600s"]),
        st.sampled_from(list(Unmatched)),
    )


def _stream_joins(shape: Shape, number: int) -> st.SearchStrategy[JoinSettings]:
    keys: list[tuple[str, ...]] = [(), ("medium",)] if "series" in shape.schema.names else [()]
    prices = st.builds(
        lambda on, more, wait, tolerance, unmatched: JoinSettings(
            with_="prices",
            on=on,
            columns={f"price_{number}": "price"},
            unmatched=unmatched,
            **({"versions": Versions.NEWEST} if more else {"wait": wait, "tolerance": tolerance}),
        ),
        st.sampled_from(keys),
        st.sampled_from([False, False, True]),
        st.sampled_from(["0s", "0s", "1s", "5s"]),
        st.sampled_from([None, "2s"]),
        st.sampled_from(list(Unmatched)),
    )
    if "series" not in shape.schema.names:
        return prices
    of_series = st.builds(
        lambda with_, wait, tolerance: JoinSettings(
            with_=with_,
            on=("series",) if with_ == "forecasts" else (),
            series="key/1" if with_ == "readings" else None,
            columns={f"other_{number}": "value"},
            wait=wait,
            tolerance=tolerance,
        ),
        st.sampled_from(["forecasts", "readings"]),
        st.sampled_from(["0s", "3s"]),
        st.sampled_from([None, "2s"]),
    )
    return prices | of_series


# What further streams hold


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Instant], Others]:
    """A history of readings, and what the further streams hold at its instants."""
    instants = draw(histories(VALUES))
    others = []
    for arrival, _ in instants:
        times = st.sampled_from([-40, -3, -1, 0, 0, 0, 1, 2]).map(
            lambda s, arrival=arrival: arrival + s * SECOND
        )
        price = st.fixed_dictionaries(
            {
                "time": times,
                "medium": st.sampled_from([None, "electricity", "gas"]),
                "price": st.sampled_from([None, 1.0, 2.0, -0.0]),
            }
        )
        forecast = st.fixed_dictionaries(
            {
                "series": st.sampled_from([0, 1, 2, 900]),
                "time": times,
                "value": st.sampled_from([5.0, 6.5]),
                "quality": st.just(0),
            }
        )
        others.append(
            {
                "prices": draw(st.lists(price, max_size=2)),
                "forecasts": draw(st.lists(forecast, max_size=2)),
            }
        )
    return instants, others


# References


class Fitted:
    """A reference that sees the columns which the step before leaves, and no others.

    `held`: streams for which its rows wait for the end of their instant, because a row-wise step before it writes them.
    """

    def __init__(self, step: StepPlan, *, first: bool, held: frozenset[str]) -> None:
        self.step = step
        self.held_streams = held
        self.held: list[dict[str, Any]] = []
        name = tag_of(step.settings).replace("-", "_")
        more: dict[str, Any] = {}
        known: Any = KNOWN
        unit = step.before.unit
        if name == "alert" and unit is not None:  # it tells the unit of the rows
            known = {series: {**told, "unit": unit} for series, told in KNOWN.items()}
        if name == "alert":
            more["first"] = first
        if name in ("latest_sum", "group"):
            more["unit"] = unit
        self.reads: str = ""
        if isinstance(step.settings, JoinSettings):
            columns = step.settings.columns
            assert isinstance(columns, dict)
            more |= {"rows": _FILE_ROWS if step.settings.on else _FILE_ROWS[:2], "added": columns}
            self.reads = step.settings.with_ or ""
        self.reference = _module(name).Reference(step.settings, known, **more)

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        names = [*self.step.before.schema.names]
        if self.step.before.unit is not None and "unit" not in names:
            row = {**row, "unit": self.step.before.unit}
            names.append("unit")
        given = self._out(self.reference.take({name: row[name] for name in names}, now_ns))
        self.held += [row for row in given if row.get("stream") in self.held_streams]
        return [row for row in given if row.get("stream") not in self.held_streams]

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        held, self.held = self.held, []
        return [*held, *self._out(self.reference.advance(now_ns))]

    def take_other(self, row: dict[str, Any]) -> None:
        settings = self.step.settings
        assert isinstance(settings, JoinSettings)
        if settings.series is None or f"key/{row['series']}" == settings.series:
            self.reference.take_other(row)

    def _out(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows in the columns that are stored, where they go on."""
        shape = self.step.plan.shape
        if shape.kind is StreamKind.EVENT:
            return rows
        return [row if "stream" in row else {name: row[name] for name in shape.schema.names} for row in rows]


def _is_row_wise(step: StepSettings) -> bool:
    if isinstance(step, JoinSettings):
        return step.file is not None
    if isinstance(step, ValidateSettings):
        return not step.remembers
    return tag_of(step) in ("filter", "convert", "derive", "route")


def expected_of(plan: FlowPlan, instants: list[Instant], others: Others) -> dict[str, list[dict[str, Any]]]:
    """The rows of the references, in the columns of their streams."""
    steps: list[ReferenceStep] = []
    row_wise, written = True, frozenset[str]()
    for number, step in enumerate(plan.steps):
        row_wise = row_wise and _is_row_wise(step.settings)
        held = written & step.plan.streams.keys() if row_wise else frozenset()
        steps.append(Fitted(step, first=number == 0, held=held))
        written |= step.plan.streams.keys()
    shown = [
        {
            **more,
            "readings": [dict(zip(("series", "time", "value", "quality"), row, strict=True)) for row in rows],
        }
        for more, (_, rows) in zip(others, instants, strict=True)
    ]
    found = run_reference(steps, instants, tail_s=TAIL_S, others=shown)
    for stream, rows in found.items():
        shape = plan.streams[stream]
        if shape.kind is StreamKind.EVENT:
            continue
        names = stored(shape)[1].names
        rows[:] = [{"unit": shape.unit, **row} if shape.unit is not None else row for row in rows]
        rows[:] = [{name: row[name] for name in names} for row in rows]
    return found


def check(steps: list[StepSettings], story: tuple[list[Instant], Others], seed: int) -> None:
    """The chain gives what the references give: rows cut anew, then also made anew out of snapshots."""
    instants, others = story
    plan = planned(steps)
    expected = expected_of(plan, instants, others)
    chance = random.Random(seed)
    for restarts in (None, chance):
        log = record(instants, known=KNOWN, cut=chance, tail_s=TAIL_S, others=others, schemas=SCHEMAS)
        found = run_growing(plan, log.frames, restarts)
        assert same(found, expected), f"\n{steps}\nfound    {found}\nexpected {expected}"
