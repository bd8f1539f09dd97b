"""A log to back up, and ways to look at one that was restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from ringmain.log.interface import (
    Batch,
    Frame,
    LogReader,
    Position,
)
from ringmain.log.journal import Journal
from ringmain.model.schemas import SERIES
from ringmain.testing import SimulatedDisk
from tests.log.batches import reading_batch

SEGMENT_BYTES = 30_000
"""Of the log that is backed up: several segments after few appends."""


def catalogue(count: int) -> Batch:
    rows = [{"id": number, "key": f"s{number}"} for number in range(count)]
    return Batch("catalogue", pa.RecordBatch.from_pylist(rows, SERIES))


class Source:
    """A library producer with epoch 0: it numbers its appends, and numbers go on where it left off."""

    def __init__(self, log: Journal, name: str = "importer") -> None:
        self.log = log
        self.claim = log.claim(name, 0)
        self.sequence = -1 if self.claim.last_sequence is None else self.claim.last_sequence

    def append(self, count: int = 1) -> Position:
        """Append so many batches; the position of the last."""
        appended = None
        for _ in range(count):
            self.sequence += 1
            batches = [reading_batch(50, value=1000.0 * self.sequence)]
            if self.sequence == 0:
                batches.insert(0, catalogue(50))
            appended = self.log.append(batches, claim=self.claim, sequence=self.sequence)
        assert appended is not None
        assert appended.position is not None
        return appended.position


def contents(frames: Iterator[Frame]) -> list[tuple[object, ...]]:
    return [
        (
            one.stream,
            str(one.position),
            one.arrival_ns,
            one.producer,
            one.sequence,
            one.rows.serialize().to_pybytes(),
        )
        for one in frames
        if one.stream != "ledger"
    ]


def everything(reader: LogReader, until: Position | None = None) -> list[tuple[object, ...]]:
    names = ["catalogue", "readings", "events", "deadletters"]
    return contents(reader.read(names, until=until))


def lineage(log: Journal) -> list[tuple[int, str]]:
    return [(one.id, one.origin) for one in log._store.state.lineage]


def restored_entries(log: LogReader) -> list[dict[str, object]]:
    rows = log.ledger().drop_columns(["time"]).to_pylist()
    return [row for row in rows if "restored from the backup of" in row["reason"]]


def cut_after(disk: SimulatedDisk, calls: int) -> None:
    """Let the machine go off at the call with that number."""
    left = calls

    def count(name: str, path: Path | None) -> None:
        nonlocal left
        del name, path
        if left == 0:
            disk.off = True
        left -= 1

    disk.before_call = count
