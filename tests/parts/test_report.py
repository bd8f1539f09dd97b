"""What the page shows of a node whose parts are processes: also of those that are gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringmain.config import NodeConfig, load
from ringmain.parts import report as report_module
from ringmain.parts.messages import (
    MESSAGE_BYTES_MAX,
    Begin,
    FromPart,
    Incoming,
    MalformedError,
    Peers,
    Report,
    Running,
    ToPart,
    encode,
)
from ringmain.parts.report import Board, PartReport, encode_report
from ringmain.runtime.counters import Counters
from ringmain.runtime.part_status import FLOWS, INTAKE, SERVER, PartState, PartStatus
from ringmain.runtime.source_metrics import QUEUE_ROWS, READINGS
from ringmain.runtime.status import SourceState, SourceStatus, StorageState
from ringmain.serve.status import FlowView, LogView, NodeStatus
from tests.node.stored import configuration

SOURCE = SourceStatus(
    name="field",
    type="mqtt-listener",
    address="mqtt://127.0.0.1:1883",
    state=SourceState.RUNNING,
    since_ns=1,
    last_error=None,
    restarts=0,
    storage=StorageState.FULL,
    queue_rows=0,
    received=7,
    readings=5,
    letters=2,
    events=0,
    last_reading_ns=3,
)


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    file = tmp_path / "ringmain.toml"
    file.write_text(configuration(port=1883, http=8080))
    return load(file)[0]


def peers(intake: PartState, flows: PartState = PartState.RUNNING) -> Peers:
    counters = Counters()
    counters.add(READINGS, 7, "field")
    counters.cell(QUEUE_ROWS, "field").set(3)
    why = None if intake is PartState.RUNNING else "it was ended by signal SIGKILL"
    return Peers(
        started_ns=5,
        ready=intake is flows is PartState.RUNNING,
        parts=(
            PartStatus(INTAKE, 11, intake, 6, 1, why),
            PartStatus(FLOWS, 12, flows, 6),
            PartStatus(SERVER, 13, PartState.RUNNING, 6),
        ),
        reports={
            INTAKE: encode_report(PartReport(sources=(SOURCE,), metrics=counters.snapshot())),
            FLOWS: encode_report(PartReport(flows=(FlowView("minute", "readings.1m", "running", 0.5),))),
        },
    )


def status(board: Board) -> NodeStatus:
    """Its status; the log's state is the worst that a source found."""
    return board.status(lambda storage: LogView(1, 1, max(storage, key=list(StorageState).index)))


def test_a_node_whose_parts_all_work_is_shown_as_one_node(config: NodeConfig) -> None:
    counters = Counters()
    board = Board(config, counters)
    assert [source.state for source in status(board).sources] == [SourceState.STARTING]
    assert [flow.state for flow in status(board).flows] == ["starting"]
    assert not status(board).ready
    board.take(peers(PartState.RUNNING))
    now = status(board)
    assert (now.ready, now.started_ns, now.sources) == (True, 5, (SOURCE,))
    assert now.log.state is StorageState.FULL
    assert [flow.lag_s for flow in now.flows] == [0.5]
    assert counters.value(READINGS.name, "field") == 7
    assert counters.value(QUEUE_ROWS.name, "field") == 3
    assert counters.value("ringmain_part_restarts_total", INTAKE) == 1


def test_of_a_part_that_is_gone_counters_stay_gauges_go_and_its_sources_say_why_they_stand_still(
    config: NodeConfig,
) -> None:
    counters = Counters()
    board = Board(config, counters)
    board.take(peers(PartState.RUNNING))
    board.take(replace_reports(peers(PartState.BACKOFF, PartState.STARTING), {}))
    now = status(board)
    assert not now.ready
    (source,) = now.sources
    assert (source.state, source.received) == (SourceState.BACKOFF, 7)
    assert source.last_error == "the process 'intake' is in state backoff: it was ended by signal SIGKILL"
    assert [flow.state for flow in now.flows] == ["starting"]
    assert counters.value(READINGS.name, "field") == 7
    assert f'{QUEUE_ROWS.name}{{source="field"}}' not in counters.render()
    assert counters.value("ringmain_part_running", INTAKE) == 0


def replace_reports(told: Peers, reports: dict[str, bytes]) -> Peers:
    return Peers(told.started_ns, told.ready, told.parts, reports)


def test_when_the_supervising_process_is_silent_nothing_is_said_to_work(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(config, Counters())
    board.take(peers(PartState.RUNNING))
    assert status(board).ready
    monkeypatch.setattr(report_module, "SILENT_S", -1.0)
    now = status(board)
    assert not now.ready
    assert {part.name: part.state for part in now.parts} == {
        INTAKE: PartState.SILENT,
        FLOWS: PartState.SILENT,
        SERVER: PartState.RUNNING,
    }


def test_messages_arrive_however_their_bytes_are_cut() -> None:
    sent = [Running(), Report(b"x" * 300), Running()]
    data = b"".join(encode(message) for message in sent)
    incoming = Incoming(FromPart)
    assert [message for at in range(len(data)) for message in incoming.feed(data[at : at + 1])] == sent
    assert Incoming(FromPart).feed(data) == sent


@pytest.mark.parametrize(
    "data",
    [
        (MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"),
        (3).to_bytes(4, "little") + b"abc",
        encode(Begin(first=True)),
    ],
    ids=["a length beyond all bounds", "no MessagePack", "a message of the other side"],
)
def test_what_is_no_message_is_told_and_not_waited_for(data: bytes) -> None:
    with pytest.raises(MalformedError, match="expected a message"):
        Incoming(FromPart).feed(data)
    assert Incoming(ToPart).feed(encode(Begin(first=True))) == [Begin(first=True)]


def test_statuses_stay_as_they_are_on_their_way(config: NodeConfig) -> None:
    one = replace(SOURCE, last_error="näh", state=SourceState.FAILED)
    board = Board(config, Counters())
    told = peers(PartState.RUNNING)
    board.take(replace_reports(told, {INTAKE: encode_report(PartReport(sources=(one,)))}))
    assert status(board).sources == (one,)
