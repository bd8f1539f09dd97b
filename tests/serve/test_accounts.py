"""The accounts that the page shows: kept up to date from a real log, with a difference made visible."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ringmain.log import open_log, open_reader
from ringmain.log.control import producer_id
from ringmain.runtime.counters import Counters
from ringmain.serve.accounts import AccountKeeper
from ringmain.serve.shapes import AccountsInfo
from tests.log.accounting import TestSource, groups_of, remove_group
from tests.log.batches import reading_batch

WITHIN_S = 60.0


def _wait(keeper: AccountKeeper, wanted: Callable[[AccountsInfo], bool]) -> AccountsInfo:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        found = keeper.accounts()
        if found is not None and wanted(found):
            return found
        time.sleep(0.005)
    raise AssertionError(f"not as wanted within {WITHIN_S} s: {keeper.accounts()}")


def test_the_equation_follows_what_is_appended(tmp_path: Path) -> None:
    counters = Counters()
    with open_log(tmp_path) as log:
        field = TestSource(log)
        field.append(3, letters=1)
        keeper = AccountKeeper(log, counters, time.time_ns, interval_s=0.01)
        keeper.start()
        try:
            first = _wait(keeper, lambda found: bool(found.sources))
            assert first.closes
            field.append(5)
            (account,) = _wait(keeper, lambda found: found.sources[0].received == 9).sources
        finally:
            keeper.stop()
    assert (account.source, account.counted) == ("field", True)
    assert (account.accepted, account.rejected, account.difference_messages) == (8, 1, 0)
    readings = account.rows[0]
    assert (readings.stream, readings.handed_over, readings.found, readings.difference) == (
        "readings",
        8,
        8,
        0,
    )
    assert counters.value("ringmain_account_difference_rows", "field") == 0


def test_rows_that_are_missing_are_a_difference_and_a_metric(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field = TestSource(log)
        for _ in range(9):
            field.append(4)
    groups = groups_of((tmp_path / "0000000001.seg").read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("source/field")]
    remove_group(tmp_path, 1, places[4])
    counters = Counters()
    with open_reader(tmp_path) as reader:
        keeper = AccountKeeper(reader, counters, time.time_ns, interval_s=0.01)
        keeper.start()
        try:
            found = _wait(keeper, lambda accounts: bool(accounts.sources))
        finally:
            keeper.stop()
    assert not found.closes
    assert found.sources[0].rows[0].difference == 4
    assert counters.value("ringmain_account_difference_rows", "field") == 4


def test_rows_of_a_producer_without_account_that_are_missing_open_the_ledger(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        importer = log.claim("importer")
        for number in range(9):
            log.append([reading_batch(number)], claim=importer, sequence=number)
    groups = groups_of((tmp_path / "0000000001.seg").read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("importer")]
    remove_group(tmp_path, 1, places[4])
    with open_reader(tmp_path) as reader:
        keeper = AccountKeeper(reader, Counters(), time.time_ns, interval_s=0.01)
        keeper.start()
        try:
            assert not _wait(keeper, lambda accounts: bool(accounts.sources)).closes
        finally:
            keeper.stop()
