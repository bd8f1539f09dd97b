"""A segment whose file is shorter than it was when the next one was begun: damage like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.backup.backup import backup
from ringmain.log.builtin import LedgerKind
from ringmain.log.ledger.accountant import Accountant
from tests.log.accounting import TestSource

SHORT = "0000000003.seg"


@pytest.fixture(params=[0, 1500])
def shortened(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A log that was closed, in which a segment in the middle has so many bytes only."""
    with open_log(tmp_path / "log", segment_bytes=4096) as log:
        source = TestSource(log)
        for _ in range(30):
            source.append()
    with (tmp_path / "log" / SHORT).open("r+b") as file:
        file.truncate(request.param)
    return tmp_path / "log"


def test_what_a_short_segment_lacks_is_named_by_the_account_and_in_the_ledger_when_it_is_read(
    shortened: Path,
) -> None:
    with open_reader(shortened) as reader:
        accountant = Accountant(reader)
        accountant.advance()
        assert len(accountant.damaged) == 1
        assert "segment 3" in accountant.damaged[0]
    with open_log(shortened) as log:
        assert 0 < sum(frame.row_count for frame in log.read("readings")) < 90
    with open_log(shortened) as log:
        entries = log.ledger().drop_columns(["time"]).to_pylist()
        assert entries
        for entry in entries:
            assert entry["kind"] == LedgerKind.QUARANTINED
            assert "segment 3" in entry["reason"]


def test_a_backup_takes_a_short_segment_as_it_is_and_tells_the_damage(
    shortened: Path, tmp_path: Path
) -> None:
    report = backup(shortened, tmp_path / "backup")
    assert any("segment 3" in problem for problem in report.problems)
