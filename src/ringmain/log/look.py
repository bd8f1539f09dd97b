"""Recovery beside a writer: one moment of a log, whatever a node does to it while it is looked at.

`recover` reads checkpoints, the mark and the segments in this order, so that nothing that it read is ahead of the
frames that it finds. Two things may still come in between: retention takes segments that a checkpoint which was read
before does not cover, and a group that was not there when its place was read may be there, and the next one with it,
a moment later. Both are gone when the directory is looked at again; what is found twice at one place is so.

Left to others: what to do about damage that is there, and about a log that retention never leaves alone
(`PositionGoneError`).
"""

from __future__ import annotations

from pathlib import Path

from ringmain.log.builtin import LedgerKind
from ringmain.log.files import FileSystem
from ringmain.log.interface import PositionGoneError
from ringmain.log.ledger.findings import Finding, warn_of
from ringmain.log.lock import LOCK_NAME
from ringmain.log.recovered import Recovered
from ringmain.log.recovery import recover
from ringmain.log.segments import segment_numbers
from ringmain.log.writer import MARK_NAME

_ATTEMPTS = 16
_FILES = (LOCK_NAME, MARK_NAME)
_SUFFIXES = (".seg", ".idx", ".ckp")


def holds_log(fs: FileSystem, directory: Path) -> bool:
    """Whether anything of a log lies there: what a node that has just begun has is its lock."""
    return any(name in _FILES or name.endswith(_SUFFIXES) for name in fs.list_directory(directory))


def recover_beside(fs: FileSystem, directory: Path) -> Recovered:
    """As `recover`, of a log that may have a writer.

    Raises PositionGoneError where retention takes segments at every look; NewerFormatError, OSError.
    """
    before: set[tuple[object, ...]] = set()
    for attempt in range(_ATTEMPTS):
        first = segment_numbers(fs, directory)[:1]
        try:
            recovered = recover(fs, directory, beside_writer=True)
        except PositionGoneError:  # retention took a segment that was being read
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        found = {_place(one) for one in recovered.findings if _may_be_passing(one, recovered)}
        if segment_numbers(fs, directory)[:1] == first and found <= before:
            # what is not proven durable yet is no torn tail while somebody writes
            warn_of([one for one in recovered.findings if one.kind != LedgerKind.CUT])
            return recovered
        before = found
        recovered.store.close()
    raise PositionGoneError(
        f"{directory}: the log changed each of {_ATTEMPTS} times that it was looked at: try again, or keep more of it"
    )


def _may_be_passing(finding: Finding, recovered: Recovered) -> bool:
    """Whether it may be gone at the next look: what is missing, and damage of what is proven where a writer writes."""
    segments = recovered.store.segments
    active = segments[-1].number if segments else 0
    return finding.kind == LedgerKind.LOST or (
        finding.kind == LedgerKind.QUARANTINED and finding.segment >= active
    )


def _place(finding: Finding) -> tuple[object, ...]:
    return finding.kind, finding.segment, finding.at, finding.first_lsn
