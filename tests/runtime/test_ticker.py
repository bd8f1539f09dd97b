"""Time goes on in the log, whatever else happens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.log import open_log
from ringmain.log.interface import Log
from ringmain.runtime.counters import Counters
from ringmain.runtime.ticker import Ticker
from tests.conftest import wait_until
from tests.runtime.disk import TestDisk


@pytest.fixture
def disk() -> TestDisk:
    return TestDisk()


@pytest.fixture
def log(tmp_path: Path, disk: TestDisk) -> Iterator[Log]:
    log = open_log(tmp_path / "data", fs=disk)
    yield log
    disk.mend()
    disk.release()
    log.close()


def ticks(log: Log) -> list[int]:
    return [t for frame in log.read("ticks") for t in frame.rows.column("time").cast(pa.int64()).to_pylist()]


def test_each_tick_is_one_row_with_the_time_of_the_clock(log: Log) -> None:
    clock = itertools.count(1000)
    counters = Counters()
    ticker = Ticker(log, counters, interval_s=0.005, clock_ns=lambda: next(clock))
    ticker.start()
    wait_until(lambda: counters.value("ringmain_ticks_total") >= 3)
    ticker.stop()
    stored = ticks(log)
    assert stored == list(range(1000, 1000 + len(stored)))
    assert len(stored) == counters.value("ringmain_ticks_total")


def test_while_a_sync_hangs_ticks_are_left_out_and_go_on_after_it(log: Log, disk: TestDisk) -> None:
    counters = Counters()
    ticker = Ticker(log, counters, interval_s=0.005)
    ticker.start()
    wait_until(lambda: counters.value("ringmain_ticks_total") >= 1)
    disk.hold()
    wait_until(lambda: counters.value("ringmain_ticks_skipped_total") >= 3)
    before = counters.value("ringmain_ticks_total")
    disk.release()
    wait_until(lambda: counters.value("ringmain_ticks_total") >= before + 2)
    ticker.stop()


def test_on_a_full_disk_ticks_are_left_out_and_go_on_when_space_returns(log: Log, disk: TestDisk) -> None:
    counters = Counters()
    ticker = Ticker(log, counters, interval_s=0.005)
    ticker.start()
    wait_until(lambda: counters.value("ringmain_ticks_total") >= 1)
    disk.fill()
    wait_until(lambda: counters.value("ringmain_ticks_skipped_total") >= 2)
    disk.mend()
    before = counters.value("ringmain_ticks_total")
    wait_until(lambda: counters.value("ringmain_ticks_total") >= before + 2)
    ticker.stop()
    assert len(ticks(log)) == counters.value("ringmain_ticks_total")


def test_a_second_ticker_ends_the_first(log: Log) -> None:
    first, second = Counters(), Counters()
    old = Ticker(log, first, interval_s=0.005)
    old.start()
    wait_until(lambda: first.value("ringmain_ticks_total") >= 1)
    new = Ticker(log, second, interval_s=0.005)
    new.start()
    wait_until(lambda: second.value("ringmain_ticks_total") >= 2)
    old.stop()
    count = first.value("ringmain_ticks_total")
    seen = second.value("ringmain_ticks_total")
    wait_until(lambda: second.value("ringmain_ticks_total") >= seen + 2)
    assert first.value("ringmain_ticks_total") == count
    new.stop()


def test_stopping_a_ticker_that_never_started_does_nothing(log: Log) -> None:
    Ticker(log, Counters()).stop()
    assert ticks(log) == []
