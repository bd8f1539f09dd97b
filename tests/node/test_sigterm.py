"""SIGTERM under full load: what was acknowledged is there, and the next start goes on where this one ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ringmain.log import open_reader
from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_all_stored,
    assert_no_traceback,
    assert_windows_equal_an_undisturbed_fold,
    configuration,
    wait_for_windows,
)

STOPS = 4
STOP_S_MAX = 60.0
"""Generous: what has to be drained is a few hundred messages, but the machine may be busy with other tests."""


@pytest.mark.timeout(300)
def test_sigterm_under_load_loses_nothing_and_the_next_start_goes_on_from_there(tmp_path: Path) -> None:
    port = free_port()
    text = configuration(port=port, http=free_port())
    data = tmp_path / "node" / "data"
    publishers = [Publisher(port, f"p{number}", window=1000, rate=2500, series=100) for number in range(2)]
    incarnations = set()
    for publisher in publishers:
        publisher.start()
    for stop in range(STOPS):
        acknowledged = sum(len(publisher.acknowledged) for publisher in publishers)
        with RunningNode(tmp_path / "node", text) as node:
            wait_until(
                lambda: sum(len(p.acknowledged) for p in publishers) > acknowledged + 2000,  # noqa: B023
                60,
                "acknowledgements",
            )
            if stop == STOPS - 1:
                for publisher in publishers:
                    publisher.finish()
                wait_for_windows(data)
            began = time.monotonic()
            assert node.stop(STOP_S_MAX) == 0, f"after {time.monotonic() - began:.1f} s"
        assert_no_traceback(node)
        with open_reader(data) as log:
            end = log.end()
            assert end is not None
            incarnations.add(end.incarnation)
            assert log.ledger().num_rows == 0, log.ledger().to_pydict()
    assert len(incarnations) == 1, "a start could not prove that it goes on from the stop before"
    assert "folding its input from the beginning" not in node.stderr(), "a flow lost its snapshot"
    assert_all_stored(data, [message for publisher in publishers for message in publisher.acknowledged])
    assert_windows_equal_an_undisturbed_fold(data, tmp_path / "empty")


def test_a_second_sigterm_or_an_interrupt_ends_a_node_as_well(tmp_path: Path) -> None:
    import signal

    with RunningNode(tmp_path, configuration(port=free_port(), http=free_port())) as node:
        node.process.send_signal(signal.SIGINT)
        assert node.stop() == 0
    assert_no_traceback(node)
