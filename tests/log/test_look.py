"""A log that is looked at while its node goes on: one moment of it, whatever comes between two reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ringmain.log import open_log
from ringmain.log.backup.backup import backup
from ringmain.log.backup.restore import restore
from ringmain.log.builtin import LedgerKind
from ringmain.log.interface import Batch
from ringmain.log.journal import Journal
from ringmain.log.look import recover_beside
from ringmain.log.recovered import Recovered
from ringmain.model.schemas import SERIES
from ringmain.testing import FaultyFiles
from tests.log.backed_up import Source
from tests.log.batches import wait_until

SEGMENT_BYTES = 16_000
PREPARE_AFTER_BYTES = 2_000


class Node:
    """A log with several segments, of which the last was prepared with zeros, and what a node does to it."""

    def __init__(self, log: Journal) -> None:
        self.log = log
        self.source = Source(log)
        self.source.append(20)
        self.prepared()

    def prepared(self) -> None:
        """Few segments, and the active one ends with zeros, at least half of it."""
        self.log.retain(size_bytes=2 * SEGMENT_BYTES)
        writer = self.log._writer
        while not writer._is_prepared or writer.active_end[1] > SEGMENT_BYTES // 2:
            self.source.append()
            if writer.active_end[1] > PREPARE_AFTER_BYTES:
                wait_until(lambda: self.log._preparer.is_ready or writer._is_prepared)
        self.log._maintenance.checkpoint()

    def append(self) -> None:
        self.source.append(2)

    def append_and_checkpoint(self) -> None:
        self.source.append()
        self.log._maintenance.checkpoint()

    def roll(self) -> None:
        number = self.log._writer.active_end[0]
        while self.log._writer.active_end[0] == number:
            self.source.append()
        self.source.append()
        self.log._maintenance.checkpoint()

    def add_series(self) -> None:
        known = len(self.log.catalogue())
        rows = [{"id": number, "key": f"s{number}"} for number in range(known, known + 10)]
        self.source.sequence += 1
        self.log.append(
            [Batch("catalogue", pa.RecordBatch.from_pylist(rows, SERIES))],
            claim=self.source.claim,
            sequence=self.source.sequence,
        )
        self.log._maintenance.checkpoint(final=True)

    def retain(self) -> None:
        self.source.append(3)
        self.log.retain(size_bytes=2 * SEGMENT_BYTES)


ACTS: list[Callable[[Node], None]] = [
    Node.append,
    Node.append_and_checkpoint,
    Node.roll,
    Node.add_series,
    Node.retain,
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_log(
        tmp_path / "data", segment_bytes=SEGMENT_BYTES, prepare_after_bytes=PREPARE_AFTER_BYTES
    ) as log:
        yield Node(log)


def at_call(number: int, act: Callable[[], None]) -> FaultyFiles:
    """Files of which the call with that number, and no other, finds the log changed."""
    files = FaultyFiles()
    left = number

    def count(name: str, path: Path | None) -> None:
        nonlocal left
        del name, path
        left -= 1
        if left == -1:
            act()

    files.before_call = count
    return files


def is_one_moment(recovered: Recovered) -> bool:
    """Whether state, catalogue and frames are of the same moment, and nothing is damaged or missing."""
    store = recovered.store
    last = store.segments[-1]
    rows = {state.stream.name: state.rows for state in store.state.stream_states()}
    return (
        (store.state.lsn, store.end_offset) == (last.last_lsn, last.last_offset)
        and rows["catalogue"] == len(store.catalogue)
        and recovered.continuous
        and all(one.kind == LedgerKind.CUT for one in recovered.findings)
    )


def open_files() -> list[str]:
    """What this process has open, by name."""
    found = []
    for handle in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
    return found


def looked(files: FaultyFiles, directory: Path) -> bool:
    recovered = recover_beside(files, directory)
    try:
        return is_one_moment(recovered)
    finally:
        recovered.store.close()


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_log_that_changes_between_any_two_reads_of_a_look_is_seen_as_it_was_at_one_moment(
    tmp_path: Path, node: Node, act: Callable[[Node], None]
) -> None:
    torn = []
    back = 0
    while True:
        node.prepared()
        quiet = FaultyFiles()
        assert looked(quiet, tmp_path / "data")
        back += 1  # counted from the last read, where the zeros are that the node writes to
        call = sum(quiet.calls.values()) - back
        if call < 0:
            break
        if not looked(at_call(call, lambda: act(node)), tmp_path / "data"):
            torn.append(back)
    assert back > 20
    assert torn == []
    assert [name for name in open_files() if name.endswith(".seg (deleted)")] == []


def test_a_backup_of_a_log_that_rolls_while_it_is_looked_at_is_sound(tmp_path: Path, node: Node) -> None:
    for call in (6, 10, 14, 22):
        node.prepared()
        files = at_call(call, node.roll)
        report = backup(tmp_path / "data", tmp_path / f"backup-{call}", paced=False, fs=files)
        restored = restore(tmp_path / f"backup-{call}", tmp_path / f"again-{call}")
        assert restored.verified is not None
        assert restored.verified.problems == []
        assert report.manifest.notes == []


def test_a_log_that_is_written_to_with_every_read_is_looked_at_in_a_few_reads(tmp_path: Path) -> None:
    with open_log(tmp_path / "data", segment_bytes=1 << 20, prepare_after_bytes=PREPARE_AFTER_BYTES) as log:
        source = Source(log)
        while not log._writer._is_prepared:
            source.append()
            if log._writer.active_end[1] > PREPARE_AFTER_BYTES:
                wait_until(lambda: log._preparer.is_ready or log._writer._is_prepared)
        before = log.end()
        files = FaultyFiles()
        reads = 0

        def write(name: str, path: Path | None) -> None:
            nonlocal reads
            if name == "read" and path is not None and path.suffix == ".seg":
                reads += 1
                source.append()

        files.before_call = write
        recovered = recover_beside(files, tmp_path / "data")
        recovered.store.close()
    assert 0 < reads < 50
    assert before is not None
    assert recovered.store.end_offset >= before.offset
