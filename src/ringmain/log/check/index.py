"""Compares the index of a segment, entry by entry, with the frames that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ringmain.log.check.report import Problem, Remedy
from ringmain.log.check.scan import SegmentScan
from ringmain.log.files import FileSystem
from ringmain.log.index import Entries, Sidecar
from ringmain.log.segments import sidecar_path
from ringmain.log.store import Segment


def check_index(
    fs: FileSystem, directory: Path, segment: Segment, found: SegmentScan, *, active: bool, compiled: bool
) -> tuple[Entries | None, list[Problem], list[str]]:
    """(the index's entries if it checks out, problems, notes). `active`: of the segment that still grows.

    That one covers the beginning of its segment and is not synced. Entries of damaged ranges are not compared.
    Raises NewerFormatError.
    """
    path = sidecar_path(directory, segment.number)
    sidecar = Sidecar.read(fs, path, segment.number)
    if sidecar is None and path.name in fs.list_directory(directory):
        sidecar = Sidecar.read(fs, path, segment.number)  # it may just have been replaced
        if sidecar is None and active:
            return None, [], [f"index {path.name} is damaged, as a power cut may leave it, and not used"]
        if sidecar is None:
            return None, [_problem(path, "its CRC is wrong, or it is cut short")], []
    if sidecar is None:
        missing = f"segment {segment.number} has no index: it is made from the segment"
        return None, [], [] if active else [missing]
    if not active and sidecar.end != segment.end:
        note = f"segment {segment.number}: its index is out of date and not used"
        return sidecar.entries, [], [note]
    upto = min(sidecar.end, segment.end)
    if compiled and not found.damage and _is_exact(found, sidecar.entries, upto):
        return sidecar.entries, [], []
    expected, compared = found.entries(), sidecar.entries
    expected = expected[expected["group_at"] < upto]
    compared = compared[compared["group_at"] < upto]
    if found.damage:
        ends = np.array([damage.end for damage in found.damage], np.uint64)
        begins = np.array([damage.at for damage in found.damage], np.uint64)
        nearest = np.searchsorted(begins, compared["group_at"].astype(np.uint64), side="right") - 1
        compared = compared[(nearest < 0) | (compared["group_at"] >= ends[nearest])]
    problems = []
    if len(expected) != len(compared):
        problems.append(_problem(path, f"expected entries of {len(expected)} frames, found {len(compared)}"))
    elif not np.array_equal(_words(expected), _words(compared)):
        problems.append(_problem(path, "its entries differ from the frames"))
    return sidecar.entries, problems, []


def _is_exact(found: SegmentScan, entries: Entries, upto: int) -> bool:
    """Whether the entries are those of all frames before a byte, and there are no others."""
    from ringmain.log.check.loops import are_indexed

    count = len(entries)
    if count and entries["group_at"][-1] >= upto:
        return False
    if count < len(found.frames):
        group = int(np.searchsorted(found.first, count, side="right")) - 1
        if found.at[group] < upto:
            return False
    return are_indexed(found.groups, found.at, found.frames, found.body_at, entries)


def _words(entries: Entries) -> NDArray[np.uint64]:
    """All bytes of entries: there are none between their fields."""
    return np.ascontiguousarray(entries).view(np.uint64)


def _problem(path: Path, reason: str) -> Problem:
    return Problem(f"index {path.name}", reason, Remedy.REBUILD)
