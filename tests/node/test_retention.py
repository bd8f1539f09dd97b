"""Retention on a running node: the journal stays within its size, and what went is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

import ringmain.node
import ringmain.parts.intake
from ringmain.config import load
from ringmain.flows.runner import FlowState
from ringmain.log import open_reader
from ringmain.log.builtin import LedgerKind
from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.stored import assert_account_closes, configuration, query

KEEP_BYTES = 1 << 20
SEGMENT_BYTES = 256 << 10


def journal_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("*.seg"))


def test_the_journal_stays_within_its_size_while_devices_and_flows_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringmain.parts.intake, "RETENTION_INTERVAL_S", 0.1)
    port = free_port()
    text = configuration(port=port, http=free_port(), log='keep_size = "1MiB"')
    file = tmp_path / "ringmain.toml"
    file.write_text(text.replace('segment = "2MiB"', 'segment = "256KiB"'))
    data = tmp_path / "data"
    publisher = Publisher(port, "p0", window=500, rate=4000, series=20)
    node = ringmain.node.Node(load(file)[0])
    try:
        node.start()
        publisher.start()

        def evicted() -> int:
            ledger = node.log.ledger()
            kinds = ledger.column("kind").to_pylist()
            rows = zip(
                kinds, ledger.column("stream").to_pylist(), ledger.column("rows").to_pylist(), strict=True
            )
            return sum(n for kind, stream, n in rows if (kind, stream) == (LedgerKind.EVICTED, "readings"))

        wait_until(lambda: evicted() > 5000, 150, "thousands of readings removed", interval_s=0.05)
        publisher.finish()
        wait_until(
            lambda: journal_bytes(data) <= KEEP_BYTES + 2 * SEGMENT_BYTES, what="the size", interval_s=0.1
        )
        (flow,) = node.flows.values()
        assert flow.status().state is FlowState.RUNNING, flow.status()
        assert flow.status().last_error is None
    finally:
        node.stop()
    kept = query(data, "select count(*) as n from readings")[0]["n"]
    with open_reader(data) as log:
        ledger = log.ledger().select(["kind", "stream", "rows", "reason"]).to_pylist()
    assert {row["kind"] for row in ledger} == {LedgerKind.EVICTED}, ledger
    gone = sum(
        row["rows"] for row in ledger if (row["kind"], row["stream"]) == (LedgerKind.EVICTED, "readings")
    )
    assert kept + gone == len(publisher.acknowledged)
    assert_account_closes(data)
    again = ringmain.node.Node(load(file)[0])
    try:
        again.start()
        (flow,) = again.flows.values()
        wait_until(lambda: flow.status().state is FlowState.RUNNING, what="the flow going on")
    finally:
        again.stop()
