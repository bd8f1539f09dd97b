"""A new incarnation begins once, whatever happens while it begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.backup.backup import backup
from ringmain.log.backup.restore import restore
from ringmain.log.check.verify import verify
from ringmain.log.frames import lsn_of
from ringmain.log.interface import (
    LogError,
    PositionGoneError,
)
from ringmain.log.journal import Journal
from ringmain.testing import SimulatedDisk
from tests.log.backed_up import (
    SEGMENT_BYTES,
    Source,
    cut_after,
    lineage,
    restored_entries,
)
from tests.promises import Fault, Part, promise


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with open_log(tmp_path / "data", segment_bytes=SEGMENT_BYTES) as opened:
        yield opened


@promise(
    Fault.RESTORED_BACKUP,
    Part.JOURNAL,
    "The power may go at any moment of the first opening behind a restore: it is one new incarnation, never two.",
)
def test_the_power_may_go_at_any_moment_of_the_first_opening_and_the_incarnation_is_the_same(
    tmp_path: Path, log: Journal
) -> None:
    Source(log).append(10)
    [(old, _)] = lineage(log)
    backup(tmp_path / "data", tmp_path / "backup", paced=False)
    beyond = Source(log).append(3)
    place = Path("/again")
    whole = SimulatedDisk(seed=3)
    restored = restore(tmp_path / "backup", place, fs=whole).restored
    assert restored is not None
    counting = whole.copy()
    open_log(place, fs=counting).close()
    for at in range(sum(counting.calls.values()) - sum(whole.calls.values())):
        for cut in (0, 1):
            disk = whole.copy()
            cut_after(disk, at)
            try:
                open_log(place, fs=disk).close()
            except (LogError, OSError):
                disk.off = True
            found = disk.kill() if cut == 0 else disk.after_power_cut()
            with open_log(place, fs=found) as again:
                assert lineage(again) == [(old, ""), (restored.incarnation, restored.origin)]
                assert len(restored_entries(again)) == 1
                assert again._store.state.lineage[0].last_lsn < lsn_of(beyond.offset)
                new = Source(again).append(5)
                assert new.incarnation == restored.incarnation
                with pytest.raises(PositionGoneError):
                    again.read("readings", after=beyond)
            assert verify(place, fs=found).problems == []


def test_an_opening_that_begins_an_incarnation_after_a_loss_may_be_cut_off_and_begins_it_once(
    tmp_path: Path, log: Journal
) -> None:
    """Its first group used to be written again under the incarnation before, and was quarantined later."""
    Source(log).append(10)
    log.close()
    place = Path("/data")
    files = {place / one.name: one.read_bytes() for one in (tmp_path / "data").iterdir()}
    segment = max(path for path in files if path.suffix == ".seg")
    with open_reader(tmp_path / "data") as reader:
        frames = list(reader.read("readings"))
        place_of_loss = int(reader._store.entries(reader._store.segments[-1])[-6]["group_at"])
    files[segment] = files[segment][:place_of_loss]
    whole = SimulatedDisk(files, seed=6)
    counting = whole.copy()
    open_log(place, fs=counting).close()
    begun = 0
    for at in range(sum(counting.calls.values())):
        disk = whole.copy()
        cut_after(disk, at)
        with contextlib.suppress(LogError, OSError):
            open_log(place, fs=disk).close()
        found = disk.kill()
        with open_log(place, fs=found) as again:
            assert len(lineage(again)) <= 2
            begun += len(lineage(again)) == 2
            new = Source(again).append(3)
            assert new.incarnation == lineage(again)[-1][0]
        with open_log(place, fs=found) as again:
            assert len(list(again.read("readings", after=frames[0].position))) >= 3
            kinds = [row["kind"] for row in again.ledger().drop_columns(["time"]).to_pylist()]
            assert "quarantined" not in kinds
    assert begun
