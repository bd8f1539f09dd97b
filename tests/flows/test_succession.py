"""Alarms that are open when their flow's definition changes, or is taken away, are closed once, and told anew if they hold."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import ringmain.flows.runner as runner_module
import ringmain.flows.succession as succession
from ringmain.config import NodeConfig, load
from ringmain.flows.control import Action, Command, give
from ringmain.flows.flow import FlowSettings
from ringmain.flows.flow_status import FlowState
from ringmain.flows.removal import Removal
from ringmain.flows.runner import FlowRunner
from ringmain.flows.step import StepSettings
from ringmain.flows.steps.alert import AlertSettings, GroupBy
from ringmain.log import open_log
from ringmain.log.interface import StreamKind
from ringmain.log.journal import Journal
from ringmain.model.alarm import Alarm
from ringmain.model.schemas import EVENT
from ringmain.parts.flows import FlowsPart
from ringmain.runtime.counters import Counters

from .real_log import SECOND, START, Feed, run_to_end, until
from .steps.driving import plain
from .test_replay import Scale
from .test_runner import crash_at

Told = tuple[str, str, float, str | None]
"""What happened, to which series, at which second, and its note."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(runner_module, "_WAIT_S", 0.02)


def above(limit: float, **more: Any) -> AlertSettings:
    settings: dict[str, Any] = {"group": GroupBy.NONE, **more}
    return AlertSettings(above=limit, **settings)


def flow_of(*steps: StepSettings, to: str = "alarms") -> FlowSettings:
    return FlowSettings(to, steps)


def started(log: Journal, directory: Path, settings: FlowSettings, name: str = "hot") -> FlowRunner:
    flow = FlowRunner(name, settings, log, Counters(), directory / "snapshots")
    flow.start()
    return flow


def ran(log: Journal, directory: Path, settings: FlowSettings, name: str = "hot") -> None:
    run_to_end(log, started(log, directory, settings, name))


def told_to(log: Journal, directory: Path, settings: FlowSettings, command: Command) -> None:
    """A flow of other settings stands still, is given the command, and runs to the end."""
    give(log, "hot", command)
    flow = started(log, directory, settings)
    until(
        lambda: log.positions("flow/hot").get("flow/hot/handled") == command.id.encode(),
        f"it is done: {flow.status()}",
    )
    run_to_end(log, flow)


def feed(log: Journal, second: float, *values: float) -> None:
    """A value of each series from 1 on, and a tick behind it."""
    now = START + int(second * SECOND)
    to = Feed(log)
    to.readings([(series, now, value, 0) for series, value in enumerate(values, 1)], now)
    to.tick(now + SECOND // 2)


def rows(log: Journal, stream: str = "alarms") -> list[dict[str, Any]]:
    return [row for frame in log.read(stream) for row in plain(frame.rows)]


def data(row: dict[str, Any]) -> Alarm:
    return msgspec.json.decode(row["data"], type=Alarm)


def told(found: Sequence[dict[str, Any]]) -> list[Told]:
    return [
        (row["type"].rpartition(".")[2], row["subject"], (row["time"] - START) / SECOND, data(row).note)
        for row in found
    ]


def still_open(found: Sequence[dict[str, Any]]) -> set[str]:
    """Ids of alarms whose newest event does not close them."""
    newest = {data(row).alert: row["type"] for row in found}
    return {alert for alert, kind in newest.items() if not kind.endswith("closed")}


def each_event_is_there_once(found: Sequence[dict[str, Any]]) -> bool:
    return len({row["id"] for row in found}) == len(found)


def test_under_a_changed_definition_what_was_open_is_closed_and_what_holds_opens_anew(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0, 120.0, 50.0)
        ran(log, tmp_path, flow_of(above(90)))
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.CONTINUE))
        assert told(rows(log)) == [
            ("opened", "series/1", 0, None),
            ("opened", "series/2", 0, None),
            ("closed", "series/1", 0.5, "definition changed"),
            ("closed", "series/2", 0.5, "definition changed"),
            ("opened", "series/2", 0.5, None),
        ]
        old, new = data(rows(log)[1]), data(rows(log)[4])
        assert old.alert != new.alert
        assert (new.since, new.opened, new.condition) == (
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.5Z",
            "above 100",
        )
        feed(log, 5, 95.0, 80.0, 130.0)
        ran(log, tmp_path, flow_of(above(100)))
        assert told(rows(log)[5:]) == [
            ("closed", "series/2", 5, None),
            ("opened", "series/3", 5, None),
        ]
        assert data(rows(log)[5]).alert == new.alert
        assert each_event_is_there_once(rows(log))


def test_alarms_of_other_flows_on_the_same_stream_are_left_alone(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0)
        ran(log, tmp_path, flow_of(above(80)), "warm")
        ran(log, tmp_path, flow_of(above(90)))
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.CONTINUE))
        assert [(row["source"], row["type"][15:]) for row in rows(log)] == [
            ("flow/warm", "opened"),
            ("flow/hot", "opened"),
            ("flow/hot", "closed"),
        ]


def test_a_group_alarm_is_closed_with_its_members_and_told_anew_as_a_group(tmp_path: Path) -> None:
    def together(limit: float) -> FlowSettings:
        return flow_of(above(limit, group=GroupBy.ALL, group_above=2))

    with open_log(tmp_path / "data") as log:
        feed(log, 0, 101.0)
        feed(log, 1, 101.0, 102.0, 103.0, 104.0)
        ran(log, tmp_path, together(90))
        before = len(rows(log))
        told_to(log, tmp_path, together(100), Command(Action.CONTINUE))
        found = rows(log)[before:]
        assert told(found) == [
            ("closed", "series/1", 1.5, "definition changed"),
            ("closed", "all", 1.5, "definition changed"),
            ("opened", "all", 1.5, None),
        ]
        assert (data(found[2]).count, data(found[2]).standing, data(found[2]).suppressed) == (4, 4, 4)
        feed(log, 3, 1.0, 1.0, 1.0, 1.0)
        ran(log, tmp_path, together(100))
        assert still_open(rows(log)) == set()


@pytest.mark.parametrize(
    ("append", "durable"), [(1, True), (2, False), (3, True), (4, False), (6, True), (7, True)]
)
def test_it_is_told_once_wherever_the_flow_dies_and_goes_on_with_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append: int, durable: bool
) -> None:
    monkeypatch.setattr(succession, "_AT_ONCE", 1)  # an append each

    def story(directory: Path, *, dies: bool) -> list[dict[str, Any]]:
        with open_log(directory / "data") as log:
            feed(log, 0, 95.0, 120.0, 130.0)
            ran(log, directory, flow_of(above(90)))
            give(log, "hot", Command(Action.CONTINUE, id="go"))
            if dies:
                crash_at(log, append, durable=durable)
                flow = started(log, directory, flow_of(above(100)))
                until(lambda: bool(log.positions("flow/hot").get("flow/hot/handled")), "it began")
                flow.stop()
                shutil.rmtree(directory / "snapshots", ignore_errors=True)
            ran(log, directory, flow_of(above(100)))
            feed(log, 9, 95.0, 80.0, 140.0)
            if dies:
                shutil.rmtree(directory / "snapshots", ignore_errors=True)
            ran(log, directory, flow_of(above(100)))
            return rows(log)

    assert story(tmp_path / "killed", dies=True) == story(tmp_path / "undisturbed", dies=False)


def test_definitions_that_go_back_and_forth_never_share_an_alarm(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 120.0)
        ran(log, tmp_path, flow_of(above(90)))
        for limit in (100, 90, 100, 90):
            told_to(log, tmp_path, flow_of(above(limit)), Command(Action.CONTINUE))
            assert len(still_open(rows(log))) == 1
        assert len({data(row).alert for row in rows(log)}) == 5
        assert [row["type"][15:] for row in rows(log)] == ["opened", *["closed", "opened"] * 4]
        assert each_event_is_there_once(rows(log))


def test_alarms_of_a_flow_that_was_removed_are_closed_once_and_told_anew_when_it_is_back(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0, 120.0)
        ran(log, tmp_path, flow_of(above(90)))
        for _ in range(2):
            removal = Removal(log, ["another"])
            removal.start()
            until(lambda: "flow/hot/removed" in log.positions("flow/hot"), "closed")
            assert removal.stop()
        closed = rows(log)[2:]
        assert [(row["type"][15:], row["subject"], data(row).note) for row in closed] == [
            ("closed", "series/1", "removed"),
            ("closed", "series/2", "removed"),
        ]
        assert [row["id"] for row in closed] == [f"{data(row).alert}-1" for row in closed]
        ran(log, tmp_path, flow_of(above(90)))
        back = rows(log)[4:]
        assert [(row["type"][15:], row["subject"]) for row in back] == [
            ("opened", "series/1"),
            ("opened", "series/2"),
        ]
        assert not {data(row).alert for row in back} & {data(row).alert for row in closed}
        assert "flow/hot/removed" not in log.positions("flow/hot")
        ran(log, tmp_path, flow_of(above(90)))
        assert len(rows(log)) == 6


def test_a_flow_that_is_wanted_or_raises_no_alarms_is_not_touched_when_others_are_removed(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0)
        ran(log, tmp_path, flow_of(above(90)))
        ran(log, tmp_path, flow_of(Scale(), to="scaled"), "scale")
        before = log.positions("flow/")
        removal = Removal(log, ["hot"])
        removal.start()
        removal._thread.join()
        assert log.positions("flow/") == before
        assert still_open(rows(log)) == {data(rows(log)[0]).alert}


def test_a_new_output_closes_what_the_old_one_tells_and_its_alarms_have_ids_of_their_own(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0)
        ran(log, tmp_path, flow_of(above(90)))
        ran(log, tmp_path, flow_of(above(90), to="alarms.new"))
        assert [(row["type"][15:], data(row).note) for row in rows(log)] == [
            ("opened", None),
            ("closed", "definition changed"),
        ]
        (new,) = rows(log, "alarms.new")
        assert new["type"].endswith("opened")
        assert data(new).alert != data(rows(log)[0]).alert


def test_a_replay_under_a_changed_definition_leaves_open_what_the_new_one_finds_open(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0, 120.0)
        feed(log, 5, 95.0, 120.0)
        ran(log, tmp_path, flow_of(above(90)))
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.REPLAY))
        found = rows(log)
        newest = {data(row).alert: row for row in found}
        (one,) = still_open(found)
        assert newest[one]["subject"] == "series/2"
        notes = [data(row).note for row in newest.values() if data(row).alert != one]
        assert notes == ["definition changed"] * len(notes)
        feed(log, 9, 1.0, 1.0)
        ran(log, tmp_path, flow_of(above(100)))
        assert still_open(rows(log)) == set()


def test_a_replay_that_finds_the_same_alarms_open_writes_nothing(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0, 120.0)
        ran(log, tmp_path, flow_of(above(90)))
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.CONTINUE))
        feed(log, 3, 95.0, 130.0)
        ran(log, tmp_path, flow_of(above(100)))
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.REPLAY))
        before = rows(log)
        told_to(log, tmp_path, flow_of(above(100)), Command(Action.REPLAY))
        assert rows(log) == before
        assert len(still_open(before)) == 1


def test_a_replay_that_finds_other_alarms_open_closes_those_that_nobody_watches_any_more(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0, 120.0)
        ran(log, tmp_path, flow_of(Scale(), above(90)))
        mended = flow_of(Scale(hidden=0.8), above(90))
        told_to(log, tmp_path, mended, Command(Action.REPLAY))
        found = rows(log)
        newest = {data(row).alert: row for row in found}
        assert [newest[alert]["subject"] for alert in still_open(found)] == ["series/2"]
        assert "computed anew" in {data(row).note for row in found}
        feed(log, 4, 10.0, 10.0)
        ran(log, tmp_path, mended)
        assert still_open(rows(log)) == set()
        assert each_event_is_there_once(rows(log)[-1:])


def test_a_changed_text_changes_no_alarm(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0)
        ran(log, tmp_path, flow_of(above(90)))
        ran(log, tmp_path, flow_of(above(90, text="hot!")))
        assert len(rows(log)) == 1


def test_a_changed_definition_that_waits_for_a_person_closes_nothing(tmp_path: Path) -> None:
    with open_log(tmp_path / "data") as log:
        feed(log, 0, 95.0)
        ran(log, tmp_path, flow_of(above(90)))
        flow = started(log, tmp_path, flow_of(above(100)))
        until(lambda: flow.state is FlowState.FAILED, "it stands still")
        assert flow.stop()
        assert len(rows(log)) == 1


def configured(directory: Path, text: str) -> NodeConfig:
    file = directory / "node.toml"
    file.write_text(f'[node]\nname = "n"\ndata = "data"\n{text}')
    return load(file)[0]


def test_an_alert_that_is_renamed_or_removed_in_the_configuration_leaves_no_alarm_open(
    tmp_path: Path,
) -> None:
    hot, warm = (f'[alerts.{name}]\nabove = 90\ngroup = "none"\n' for name in ("hot", "warm"))
    with open_log(tmp_path / "data") as log:
        log.create_stream("alarms", StreamKind.EVENT, EVENT)
        feed(log, 0, 95.0)
        part = FlowsPart(configured(tmp_path, hot), log, Counters())
        part.start()
        until(lambda: len(rows(log)) == 1, "it is open")
        assert part.reload(configured(tmp_path, warm)) == ["flow hot ended", "flow warm is new"]
        until(lambda: len(rows(log)) == 3, "the one is closed, the other open")
        part.stop()
        last = {row["source"]: (row["type"][15:], data(row).note) for row in rows(log)}
        assert last == {"flow/hot": ("closed", "removed"), "flow/warm": ("opened", None)}
        nothing = FlowsPart(configured(tmp_path, ""), log, Counters())
        nothing.start()
        until(lambda: len(rows(log)) == 4, "closed at the start of a node that does not have it")
        nothing.stop()
        assert still_open(rows(log)) == set()
        again = FlowsPart(configured(tmp_path, hot), log, Counters())
        again.start()
        until(lambda: len(rows(log)) == 5, "it is back, and told anew")
        again.stop()
        assert (rows(log)[4]["source"], len(still_open(rows(log)))) == ("flow/hot", 1)
        assert each_event_is_there_once([row for row in rows(log) if row["source"] == "flow/hot"])
