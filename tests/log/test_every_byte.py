"""Every byte of a journal of 1 MiB, damaged in four ways: never a wrong value, and never more missing than was hit.

A damaged group has nothing to do with its neighbours but one, so that every second group is damaged at once, each at
the same distance from its start: a thousand openings damage a million bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import (
    SEGMENT_HEADER_BYTES,
    SEGMENT_PREPARED,
    lsn_of,
    pack_segment_header,
    read_group_header,
    read_segment_header,
)
from ringmain.log.interface import Batch, Frame, StreamKind
from ringmain.testing import SimulatedDisk
from tests.log.batches import NOTE, notes, reading_batch
from tests.soak import run_campaign

HERE = Path("log")
SEGMENT = HERE / "0000000001.seg"
STREAMS = ("readings", "notes")
KINDS: dict[str, Callable[[int], int]] = {
    "one bit": lambda byte: byte ^ 0x10,
    "every bit": lambda byte: byte ^ 0xFF,
    "zero": lambda byte: 0,
    "its neighbour's value": lambda byte: (byte + 1) & 0xFF,
}
OFFSETS_AN_ITEM = 8
ZEROS_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal in memory: its files, where its groups lie and which lsn each has, and its frames by lsn."""

    files: dict[Path, bytes]
    groups: list[tuple[int, int, int]]
    frames: dict[int, list[Frame]]

    @property
    def longest_bytes(self) -> int:
        return max(end - start for start, end, _ in self.groups)


def _journal(size_bytes: int, *, clean: bool) -> _Journal:
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk, segment_bytes=1 << 30, prepare_after_bytes=None)
    log.create_stream("notes", StreamKind.ROW, NOTE)
    claim = log.claim("a", epoch=0)
    number = 0
    while len(disk.contents()[SEGMENT]) < size_bytes:
        for _ in range(8):
            log.append(
                [reading_batch(14, value=number), Batch("notes", notes(f"note {number}"))],
                claim=claim,
                sequence=number,
                positions={"a": b"%d" % number},
            )
            number += 1
    frames: dict[int, list[Frame]] = {}
    for frame in log.read(STREAMS):
        frames.setdefault(lsn_of(frame.position.offset), []).append(frame)
    files = disk.contents()
    if clean:
        log.close()
        files = disk.contents()
    disk.off = True
    log.close()
    raw, at, groups = files[SEGMENT], SEGMENT_HEADER_BYTES, []
    while (header := read_group_header(raw, at)) is not None:
        groups.append((at, at + header.length, header.lsn))
        at += header.length
    if not clean:
        files = {SEGMENT: raw}
    return _Journal(files, groups, frames)


def _prepared(journal: _Journal) -> _Journal:
    """The same in a segment that was written with zeros beforehand."""
    raw = journal.files[SEGMENT]
    header = read_segment_header(raw)
    assert header is not None
    flagged = pack_segment_header(
        incarnation=header.incarnation,
        first_lsn=header.first_lsn,
        number=header.number,
        previous_number=header.previous_number,
        previous_end=header.previous_end,
        previous_offset=header.previous_offset,
        created_ns=header.created_ns,
        flags=SEGMENT_PREPARED,
    )
    zeros = bytes(ZEROS_BYTES)
    return replace(journal, files={**journal.files, SEGMENT: flagged + raw[SEGMENT_HEADER_BYTES:] + zeros})


def _damage(journal: _Journal, offset: int, parity: int, kind: str, *, writing: bool) -> int:
    """Damage the byte at `offset` of every second group; returns how many were. Raises AssertionError."""
    raw = bytearray(journal.files[SEGMENT])
    hit: set[int] = set()
    tried = 0
    for number, (start, end, lsn) in enumerate(journal.groups):
        if number % 2 == parity and start + offset < end:
            tried += 1
            byte = raw[start + offset]
            raw[start + offset] = KINDS[kind](byte)
            if raw[start + offset] != byte:
                hit.add(lsn)
    disk = SimulatedDisk({**journal.files, SEGMENT: bytes(raw)})
    with open_log(HERE, fs=disk) if writing else open_reader(HERE, fs=disk) as log:
        # without the damage of control frames a log that was closed has checkpoints of everything
        known = {state.stream.name for state in log.streams()}
        streams = [name for name in STREAMS if name in known]
        seen: dict[int, list[Frame]] = {}
        for frame in log.read(streams):
            seen.setdefault(lsn_of(frame.position.offset), []).append(frame)
        kinds = set(log.ledger().column("kind").to_pylist())
    where = f"byte {offset} of every second group from {parity} on, {kind}"
    for lsn, frames in seen.items():
        for one, other in zip(frames, [f for f in journal.frames[lsn] if f.stream in known], strict=True):
            same = one.rows.equals(other.rows) and (one.sequence, one.arrival_ns) == (
                other.sequence,
                other.arrival_ns,
            )
            assert same, f"{where}: a wrong value at {one.position}"
    proven = journal.groups[-1][2] if writing else journal.groups[-2][2]
    missing = {lsn for lsn in journal.frames if lsn not in seen and lsn < proven}
    assert missing <= hit, f"{where}: {missing - hit} are missing and were not damaged"
    if writing:
        assert kinds <= {LedgerKind.QUARANTINED, LedgerKind.CUT}
        assert kinds or not hit, f"{where}: nothing of it is in the ledger"
    return tried


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


def _journals(size_bytes: int) -> list[_Journal]:
    """Closed, killed, and each of them in a prepared segment."""
    both = [_journal(size_bytes, clean=clean) for clean in (True, False)]
    return [*both, *(_prepared(journal) for journal in both)]


def _run_item(journals: list[_Journal], item: int) -> int:
    damaged = 0
    for offset in range(item * OFFSETS_AN_ITEM, (item + 1) * OFFSETS_AN_ITEM):
        for number, kind in enumerate(KINDS):
            for parity in (0, 1):
                journal = journals[(offset + number) % 2 + 2 * (offset // 4 % 2)]
                damaged += _damage(journal, offset, parity, kind, writing=(offset // 2 + number) % 2 == 0)
    return damaged


def test_a_sample_of_the_bytes_of_a_large_journal() -> None:
    journals = _journals(100_000)
    assert _run_item(journals, 9) > 2_500


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_byte_of_a_journal_of_one_mebibyte(capsys: pytest.CaptureFixture[str]) -> None:
    journals = _journals(1 << 20)
    longest = max(journal.longest_bytes for journal in journals)
    assert longest < 4096, "the groups are small, so that many are damaged at once"

    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nevery byte, {item * OFFSETS_AN_ITEM} of {longest} ", end="", flush=True)
        _run_item(journals, item)
        return 1

    told = run_campaign(
        "every-byte", -(-longest // OFFSETS_AN_ITEM), run, "strips of eight bytes of every group"
    )
    with capsys.disabled():
        print(f"\n{told}")
