"""A source as the log sees one, for tests of accounts: every append carries its account row."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
from crc32c import crc32c

from ringmain.log.frames import (
    SEGMENT_HEADER_BYTES,
    headers_bytes,
    read_frame_headers,
    read_group_header,
)
from ringmain.log.interface import Batch, Log
from ringmain.log.ledger.accountant import Accountant
from ringmain.log.ledger.result import SourceAccount
from ringmain.log.ledger.row import AccountRow
from ringmain.model.schemas import DEAD_LETTER, TIMESTAMP
from tests.log.batches import reading_batch


class TestSource:
    """Appends readings and dead letters of one source, and counts them as sources do."""

    __test__ = False

    def __init__(self, log: Log, name: str = "field", *, unacknowledged: int = 0) -> None:
        self.log = log
        self.name = name
        self.claim = log.claim(f"source/{name}")
        self.row = AccountRow(name, self.claim.epoch)
        self.sequence = 0
        self.reasons: dict[str, int] = {}
        self._unacknowledged = unacknowledged

    def prepared(
        self, readings: int = 3, letters: int = 0, reason: str = "expected a number"
    ) -> tuple[list[Batch], AccountRow]:
        """The batches of the next append, its account row among them."""
        row = self.row
        reasons = ((reason, self.reasons.get(reason, 0) + letters),) if letters else ()
        row = AccountRow(
            self.name,
            row.epoch,
            row.messages + readings + letters,
            row.accepted + readings,
            row.rejected + letters,
            0,
            0,
            row.unacknowledged + self._unacknowledged,
            row.readings + readings,
            0,
            row.letters + letters,
            reasons,
        )
        batches = [reading_batch(readings, value=self.sequence)] if readings else []
        if letters:
            batches.append(Batch("deadletters", letter_rows(self.name, letters, reason)))
        return [*batches, Batch("accounts", row)], row

    def append(self, readings: int = 3, letters: int = 0, reason: str = "expected a number") -> None:
        """One append, durable on return."""
        batches, row = self.prepared(readings, letters, reason)
        self.sequence += 1
        self.log.append(batches, claim=self.claim, sequence=self.sequence)
        self.row = row
        self.reasons.update(row.reasons)


def letter_rows(source: str, count: int, reason: str) -> pa.RecordBatch:
    """Dead letters that are all alike."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array([source] * count, pa.string()),
            pa.array(["t"] * count, pa.string()),
            pa.array([b"x"] * count, pa.binary()),
            pa.array(np.ones(count, np.int64)),
            pa.array(np.zeros(count, np.int64)).cast(TIMESTAMP),
            pa.array([reason] * count, pa.string()),
        ],
        schema=DEAD_LETTER,
    )


def accounts_of(log: Log) -> dict[str, SourceAccount]:
    """The accounts of a log by source, by a scan of all of it."""
    accountant = Accountant(log)  # type: ignore[arg-type]
    accountant.advance()
    return {account.source: account for account in accountant.accounts()}


def groups_of(raw: bytes) -> list[tuple[int, int, int]]:
    """(start, end, producer of the last frame; 0 without frames, or where the headers are damaged) of each group."""
    found, at = [], SEGMENT_HEADER_BYTES
    while (header := read_group_header(raw, at)) is not None:
        frames = read_frame_headers(raw, header, at)
        found.append((at, at + header.length, frames[-1].producer if frames else 0))
        at += header.length
    return found


def remove_group(directory: Path, number: int, place: int) -> tuple[int, dict[int, int]]:
    """Take a group out of a segment by hand, so that everything else checks out.

    Returns its producer and its rows by stream id. The index goes, and the next segment's header gets the new end.
    """
    path = directory / f"{number:010}.seg"
    raw = path.read_bytes()
    start, end, producer = groups_of(raw)[place]
    header = read_group_header(raw, start)
    assert header is not None
    frames = read_frame_headers(raw, header, start)
    assert frames is not None
    rows: dict[int, int] = {}
    for frame in frames:
        rows[frame.stream] = rows.get(frame.stream, 0) + frame.rows
    path.write_bytes(raw[:start] + raw[end:])
    path.with_suffix(".idx").unlink(missing_ok=True)
    following = directory / f"{number + 1:010}.seg"
    if following.exists():
        head = bytearray(following.read_bytes())
        (previous_end,) = struct.unpack_from("<Q", head, 40)
        struct.pack_into("<Q", head, 40, previous_end - (end - start))
        struct.pack_into("<I", head, 12, 0)
        struct.pack_into("<I", head, 12, crc32c(bytes(head[:SEGMENT_HEADER_BYTES])))
        following.write_bytes(head)
    return producer, rows


def damage_group(directory: Path, number: int, place: int, *, header: bool = False) -> None:
    """Flip a bit of a group: of its last body, or of its headers."""
    path = directory / f"{number:010}.seg"
    raw = bytearray(path.read_bytes())
    start, end, _ = groups_of(bytes(raw))[place]
    found = read_group_header(bytes(raw), start)
    assert found is not None
    at = start + 20 if header else min(start + headers_bytes(found) + 30, end - 1)
    raw[at] ^= 4
    path.write_bytes(raw)
