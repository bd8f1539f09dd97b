"""A replay writes what differs, as revisions; a changed definition is explained and goes on as a person chooses."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given as given_rows
from hypothesis import settings
from hypothesis import strategies as st

import ringmain.flows.runner as runner_module
from ringmain.cli.main import cli
from ringmain.flows.block import Block
from ringmain.flows.comparing import Differing, corrections, missing
from ringmain.flows.control import Action, Command, give, given
from ringmain.flows.control import replayed as replay_outcome
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState
from ringmain.flows.runner import FlowRunner
from ringmain.flows.settings import Aggregate, Late, WindowSettings
from ringmain.flows.step import Context, Plan, Shape, Stateless, StepSettings, Surroundings
from ringmain.flows.steps.alert import AlertSettings, GroupBy
from ringmain.log import open_log, open_reader
from ringmain.log.interface import Log, LogLockedError
from ringmain.log.journal import Journal
from ringmain.model.schemas import TIMESTAMP
from ringmain.runtime.counters import Counters

from .real_log import SECOND, SIMPLE, START, Feed, feed_story, run_to_end, until
from .steps.driving import plain
from .test_runner import crash_at

MINUTE = WindowSettings(
    to="out", window="10s", grace="2s", idle="30s", values=(Aggregate.COUNT, Aggregate.SUM)
)


class Scale(StepSettings, frozen=True, tag="scale"):
    """Multiplies values; `hidden` is a factor that the definition does not tell, as of a user's function."""

    factor: float = 1.0
    hidden: float = 1.0
    below: float = 1e300

    def definition(self, around: Surroundings) -> dict[str, Any]:
        return {"factor": self.factor, "unchanged": (1, 2)}

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        return Plan(shape)

    def make(self, shape: Shape, context: Context) -> ScaleStep:
        return ScaleStep(self)


class ScaleStep(Stateless):
    def __init__(self, settings: Scale) -> None:
        self._settings = settings

    def take(self, block: Block) -> Sequence[Block]:
        block = block.take(block.value < self._settings.below)
        return [block.with_column("value", block.value * self._settings.factor * self._settings.hidden)]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(runner_module, "_WAIT_S", 0.02)


def started(log: Log, directory: Path, settings: FlowSettings | WindowSettings) -> FlowRunner:
    flow = FlowRunner("flow", settings, log, Counters(), directory / "snapshots")
    flow.start()
    return flow


def story(log: Journal) -> None:
    feed = Feed(log)
    for number in range(6):
        now = START + number * SECOND
        feed.readings([(1, now, float(number), 0), (2, now, 10.0 + number, 0)], now)
    feed.tick(START + 7 * SECOND)


def rows(log: Journal, stream: str = "out") -> list[dict[str, Any]]:
    return [row for frame in log.read(stream) for row in plain(frame.rows)]


def newest(log: Journal, stream: str = "out") -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["series"], row["start"]): row for row in rows(log, stream)}


def replayed(log: Journal, flow: FlowRunner, from_ns: int | None = None) -> None:
    command = Command(Action.REPLAY, from_ns=from_ns)
    give(log, "flow", command)
    until(
        lambda: log.positions("flow/flow").get("flow/flow/handled") == command.id.encode(),
        f"the replay is done: {flow.status()}",
    )
    until(lambda: flow.state is FlowState.RUNNING, "it goes on")


def test_a_replay_of_an_unchanged_flow_writes_nothing(tmp_path: Path) -> None:
    for late in (Late.REVISE, Late.SIDE):
        directory = tmp_path / late.value
        with open_log(directory / "data") as log:
            feed_story(Feed(log), 3, 60)
            settings = WindowSettings(to="out", window="10s", grace="5s", late=late, values=SIMPLE)
            flow = started(log, directory, settings)
            run_to_end(log, flow, stop=False)
            before = rows(log)
            assert any(row["revision"] for row in before) == (late is Late.REVISE)
            replayed(log, flow)
            assert flow.stop()
            assert [repr(row) for row in rows(log)] == [repr(row) for row in before]


def test_a_replay_writes_what_differs_from_an_instant_on_and_later_rows_follow_from_it(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        story(log)
        flow = started(log, tmp_path, FlowSettings("out", (Scale(),)))
        run_to_end(log, flow, stop=False)
        assert flow.stop()
        before = rows(log)
        mended = started(log, tmp_path, FlowSettings("out", (Scale(hidden=2.0, below=13.5),)))
        replayed(log, mended, START + 2 * SECOND)
        written = rows(log)[len(before) :]
        assert [
            (row["series"], (row["time"] - START) // SECOND, row["value"])
            for row in written
            if row["quality"] == 0
        ] == [
            (series, second, 2.0 * (second if series == 1 else 10.0 + second))
            for second in range(2, 6)
            for series in (1, 2)
            if series == 1 or second < 4
        ]
        taken_back = [row for row in written if row["quality"]]
        assert [(row["series"], (row["time"] - START) // SECOND, row["quality"]) for row in taken_back] == [
            (2, 4, 2),
            (2, 5, 2),
        ]
        feed = Feed(log)
        feed.readings([(1, START + 20 * SECOND, 12.0, 0)], START + 20 * SECOND)
        feed.tick(START + 21 * SECOND)
        run_to_end(log, mended)
        assert rows(log)[-1]["value"] == 24.0


def test_windows_that_change_get_the_next_revision_and_those_that_are_no_more_lose_their_values(
    tmp_path: Path,
) -> None:
    def settings(below: float) -> FlowSettings:
        return FlowSettings("out", (Scale(below=below), MINUTE.step()))

    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        for number, value in enumerate([1.0, 5.0, 100.0]):
            now = START + 10 * number * SECOND
            feed.readings([(1, now, value, 0), (1, now + 1, 1.0 + 99 * (number == 2), 0)], now)
        feed.tick(START + 100 * SECOND)
        flow = started(log, tmp_path, settings(1e9))
        run_to_end(log, flow)
        assert [(row["count"], row["sum"], row["revision"]) for row in rows(log)] == [
            (2, 2.0, 0),
            (2, 6.0, 0),
            (2, 200.0, 0),
        ]
        mended = started(log, tmp_path, settings(4.0))
        replayed(log, mended)
        assert [(row["count"], row["sum"], row["revision"]) for row in rows(log)[3:]] == [
            (1, 1.0, 1),
            (0, None, 1),
        ]
        replayed(log, mended)
        assert len(rows(log)) == 5
        again = [(1, START + 1, 2.0, 0)]
        feed.readings(again, START + 101 * SECOND)
        feed.tick(START + 110 * SECOND)
        run_to_end(log, mended)
        assert [(row["count"], row["sum"], row["revision"]) for row in rows(log)[5:]] == [(2, 3.0, 1)]


def test_a_changed_definition_stands_still_with_the_choices_and_continues_or_replays_as_told(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        story(log)
        run_to_end(log, started(log, tmp_path, FlowSettings("out", (Scale(),))))
        before = rows(log)
        changed = started(log, tmp_path, FlowSettings("out", (Scale(factor=3.0),)))
        until(lambda: changed.state is FlowState.FAILED, "it stands still")
        told = changed.status().last_error or ""
        assert "(steps.0.factor: was 1.0, now 3.0). Choose" in told
        assert "ringmain flow continue flow" in told
        assert "ringmain replay flow --from" in told
        give(log, "flow", Command(Action.CONTINUE))
        until(lambda: changed.state is FlowState.RUNNING, "it goes on")
        Feed(log).readings([(1, START + 9 * SECOND, 9.0, 0)], START + 9 * SECOND)
        run_to_end(log, changed)
        assert rows(log) == [*before, {"series": 1, "time": START + 9 * SECOND, "value": 27.0, "quality": 0}]
        again = started(log, tmp_path, FlowSettings("out", (Scale(factor=5.0),)))
        until(lambda: again.state is FlowState.FAILED, "it stands still")
        replayed(log, again, START + 4 * SECOND)
        run_to_end(log, again)
        assert [row["value"] for row in rows(log)[13:]] == [20.0, 70.0, 25.0, 75.0, 45.0]


@pytest.mark.parametrize("append", [1, 2, 3])
def test_a_replay_that_dies_on_its_way_is_done_by_the_next_run(tmp_path: Path, append: int) -> None:
    with open_log(tmp_path / "data") as log:
        story(log)
        run_to_end(log, started(log, tmp_path, FlowSettings("out", (Scale(),))))
        before = rows(log)
        give(log, "flow", Command(Action.REPLAY))
        crash_at(log, append, durable=True)
        flow = started(log, tmp_path, FlowSettings("out", (Scale(hidden=2.0),)))
        run_to_end(log, flow)
        values = {(row["series"], row["time"]): row["value"] for row in rows(log)}
        assert values == {(row["series"], row["time"]): 2 * row["value"] for row in before}
        assert len(rows(log)) <= 2 * len(before)
        assert not list((tmp_path / "snapshots").glob("replay-*"))


def side(below: float) -> FlowSettings:
    window = WindowSettings(
        to="out", window="10s", grace="0s", idle="30s", late=Late.SIDE, values=(Aggregate.COUNT,)
    )
    return FlowSettings("out", (Scale(below=below), window.step()))


def outcome(log: Journal, command: Command) -> dict[str, tuple[int, int, int, int]]:
    found = replay_outcome(log, "flow", command)
    assert found is not None
    return {name: (one.changed, one.added, one.taken_back, one.kept) for name, one in found.streams.items()}


def replay_of(log: Journal, flow: FlowRunner) -> Command:
    replayed(log, flow)
    command = given(log, "flow")
    assert command is not None
    return command


def test_what_is_missing_in_the_other_streams_of_a_flow_is_added_and_what_would_no_longer_be_is_counted(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed = Feed(log)
        feed.readings([(1, START, 1.0, 0)], START)
        feed.readings([(1, START + 30 * SECOND, 1.0, 0)], START + 30 * SECOND)
        late = [(1, START + 1, 7.0, 0), (1, START + 2, 7.0, 0), (1, START + 2, 7.0, 0)]
        feed.readings(late, START + 31 * SECOND)
        feed.tick(START + 90 * SECOND)
        run_to_end(log, started(log, tmp_path, side(4.0)))
        assert rows(log, "out.late") == []
        mended = started(log, tmp_path, side(1e9))
        assert outcome(log, replay_of(log, mended)) == {"out": (0, 0, 0, 0), "out.late": (0, 3, 0, 0)}
        assert [(row["time"] - START, row["value"]) for row in rows(log, "out.late")] == [
            (1, 7.0),
            (2, 7.0),
            (2, 7.0),
        ]
        assert outcome(log, replay_of(log, mended)) == {"out": (0, 0, 0, 0), "out.late": (0, 0, 0, 0)}
        assert mended.stop()
        back = started(log, tmp_path, side(4.0))
        assert outcome(log, replay_of(log, back)) == {"out": (0, 0, 0, 0), "out.late": (0, 0, 0, 3)}
        assert len(rows(log, "out.late")) == 3
        assert back.stop()


def test_the_command_waits_when_told_to_and_says_what_was_compared_and_what_differed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_log(data) as log:
        story(log)
        run_to_end(log, started(log, tmp_path, FlowSettings("out", (Scale(),))))
    told: list[Result] = []
    arguments = ["replay", "flow", "--from", "2023-11-14T22:13:24Z", "--wait", "--data", str(data)]
    waiting = threading.Thread(target=lambda: told.append(CliRunner().invoke(cli, arguments)))
    waiting.start()
    until(lambda: given_in(data), "it was told")
    with opened(data) as log:
        flow = started(log, tmp_path, FlowSettings("out", (Scale(hidden=2.0, below=14.0),)))
        until(lambda: not waiting.is_alive(), "it is done")
        assert flow.stop()
    (result,) = told
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1:] == [
        "compared from 2023-11-14T22:13:24Z on:",
        "  out: 2 changed, 0 added, 2 taken back",
    ]


def opened(data: Path) -> Journal:
    """The log, as soon as whoever gave the command has closed it."""
    found: list[Journal] = []

    def try_it() -> bool:
        try:
            found.append(open_log(data))
        except LogLockedError:
            return False
        return True

    until(try_it, "the log is free")
    return found[0]


def given_in(data: Path) -> bool:
    """Whether the command is in the log."""
    with open_reader(data) as log:
        return given(log, "flow") is not None


ROWS = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from([None, 1.0, math.nan]), st.sampled_from(["a", None])),
    max_size=12,
)
SCHEMA = pa.schema([("series", pa.uint32()), ("value", pa.float64()), ("text", pa.string())])


@settings(max_examples=50, derandomize=True, deadline=None)
@given_rows(old=ROWS, new=ROWS)
def test_rows_that_are_missing_are_found_as_often_as_they_are(
    old: list[tuple[object, ...]], new: list[tuple[object, ...]]
) -> None:
    def table(found: list[tuple[object, ...]]) -> pa.Table:
        return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in found], SCHEMA)

    def counted(found: pa.Table) -> Counter[str]:
        return Counter(map(str, found.to_pylist()))

    differing = Differing()
    had, has = counted(table(old)), counted(table(new))
    found = missing(table(old), table(new), differing)
    assert counted(found) == has - had
    assert (differing.added, differing.kept) == ((has - had).total(), (had - has).total())


def test_rows_whose_columns_cannot_be_empty_are_counted_where_they_would_no_longer_be() -> None:
    schema = pa.schema([("time", TIMESTAMP), pa.field("state", pa.binary(), nullable=False)])
    old = pa.table([pa.array([1, 2], pa.int64()).view(TIMESTAMP), pa.array([b"on", b"off"])], schema=schema)
    differing = Differing()
    assert len(corrections(old, old.slice(1), differing)) == 0
    assert (differing.taken_back, differing.kept) == (0, 1)


def test_events_of_others_on_the_same_stream_are_no_part_of_what_is_compared(tmp_path: Path) -> None:
    def hot(limit: float) -> FlowSettings:
        return FlowSettings("alarms", (AlertSettings(above=limit, group=GroupBy.NONE),))

    with open_log(tmp_path / "data") as log:
        story(log)
        other = FlowRunner("other", hot(3.0), log, Counters(), tmp_path / "snapshots")
        other.start()
        run_to_end(log, other)
        flow = started(log, tmp_path, hot(4.0))
        run_to_end(log, flow, stop=False)
        assert outcome(log, replay_of(log, flow)) == {"alarms": (0, 0, 0, 0)}
        assert flow.stop()
