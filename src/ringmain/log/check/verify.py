"""Checks a whole log, read-only: every checksum, the indexes, the chain, checkpoints, positions and the catalogue.

What it reports is what is in the files now; damage that was found before and is in the ledger is still damage
in the file, and is reported with that remark. Works beside a running node: whatever is not proven durable yet
is left out. Segments are read by `check/scan.py`, two at a time; `check/state.py` folds the log's own state from
them a second time and compares it with what is kept; the checks of a segment are in `check/segment.py`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from crc32c import crc32c

from ringmain.log.builtin import LedgerKind
from ringmain.log.check.report import Problem, Remedy, VerifyReport
from ringmain.log.check.scan import Form, SegmentScan, can_compile, scan
from ringmain.log.check.segment import SegmentChecks
from ringmain.log.check.state import Kept, StateFold
from ringmain.log.checkpoints import (
    CATALOGUE,
    STATE,
    Checkpoint,
    Checkpoints,
    restore_catalogue,
    restore_state,
)
from ringmain.log.files import FileSystem, LocalFileSystem, read_file
from ringmain.log.frames import MARK_BYTES
from ringmain.log.interface import LogError, PositionGoneError
from ringmain.log.lock import refuse_network
from ringmain.log.look import recover_beside
from ringmain.log.recovered import Recovered
from ringmain.log.recovery import read_mark
from ringmain.log.store import Segment, Store
from ringmain.log.writer import MARK_NAME
from ringmain.model.catalogue import Catalogue

__all__ = ["Problem", "Remedy", "VerifyReport", "verify"]

Progress = Callable[[int, int], None]

THREADS = 2
"""Segments that are read at the same time, where there are so many cores."""
_COMPILED_FROM_FRAMES = 500_000
_LOOPS = "ringmain.log.check.kernel"
"""What takes long to be imported, unless it has been."""
_SNAPSHOT_MAGIC = b"RMFLOW"
_SNAPSHOT_VERSION = 3


def verify(
    directory: str | Path,
    progress: Progress | None = None,
    *,
    fs: FileSystem | None = None,
    form: Form | None = None,
) -> VerifyReport:
    """Check every durable byte of a log. `progress(done_bytes, all_bytes)` is called now and then, from any thread.

    `form`: how groups are checked (None: what takes the least time). Writes nothing. Raises LogError when there is no
    log or it lies on a network, NewerFormatError, OSError when it cannot be read.
    """
    path = Path(directory)
    files = fs or LocalFileSystem()
    refuse_network(files, path)
    names = files.list_directory(path)
    if not any(name.endswith((".seg", ".ckp")) for name in names):
        raise LogError(f"{path}: expected the directory of a log, found no segment in it")
    report = VerifyReport()
    checkpoints = Checkpoints(files, path)
    # checkpoints are read before recovery, so that none is ahead of what it finds
    states, catalogues = checkpoints.load(STATE), checkpoints.load(CATALOGUE)
    recovered = recover_beside(files, path)
    states, catalogues = recovered.checkpoints.owned(states), recovered.checkpoints.owned(catalogues)
    try:
        run = _Verification(files, path, recovered, report, progress, form)
        run.segments(states)
        run.catalogue(catalogues)
        run.directory(checkpoints)
    finally:
        recovered.store.close()
    return report


class _Verification:
    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        recovered: Recovered,
        report: VerifyReport,
        progress: Progress | None,
        form: Form | None,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._recovered = recovered
        self._store: Store = recovered.store
        self._report = report
        self._progress = progress
        self._all = sum(segment.end for segment in self._store.segments)
        self._done = 0
        self._progress_lock = threading.Lock()
        self._form = form or self._fastest()
        self._folded: StateFold | None = None
        self._complete = False

    def _fastest(self) -> Form:
        """The compiled loops take half the time for small frames, and nearly half a second to be loaded."""
        frames = sum(entry.counts.frames for entry in self._store.state.streams.values())
        worth = frames >= _COMPILED_FROM_FRAMES or _LOOPS in sys.modules
        return Form.COMPILED if worth and can_compile() else Form.CHAINED

    # -- segments --------------------------------------------------------------------------------------------

    def segments(self, states: list[Checkpoint]) -> None:
        """Read every segment, check it, and compare the state that its frames make."""
        report = self._report
        checks = SegmentChecks(
            self._fs, self._directory, self._recovered, compiled=self._form == Form.COMPILED
        )
        self._complete = checks.complete
        fold = self._folded = self._fold(states)
        for segment, outcome in self._scans():
            told, noted = len(checks.problems), len(checks.notes)
            try:
                found = outcome.result()
                if checks.follows_removed(segment):
                    fold.broken("a crash interrupted the removal of segments")
                    checks.skip()
                checks.segment(segment, found)
                gone = len(checks.problems) > told and not self._is_there(segment)
            except PositionGoneError:
                gone = True
            except OSError as error:
                report.problems.append(
                    Problem(f"segment {segment.number}", f"cannot be read: {error}", Remedy.RESTORE)
                )
                fold.broken(f"segment {segment.number} cannot be read")
                checks.skip()
                continue
            if gone:
                del checks.problems[told:], checks.notes[noted:]
                report.notes.append(f"segment {segment.number} was removed by retention meanwhile")
                fold.broken("a segment was removed meanwhile")
                checks.skip()
                continue
            report.segments += 1
            report.bytes += segment.end
            report.groups += len(found.groups)
            report.frames += len(found.frames)
            if found.damage:
                fold.broken(f"segment {segment.number} is damaged")
            fold.feed(segment.number, found)
        checks.finish()
        fold.finish()
        for finding in self._recovered.findings:
            if finding.kind == LedgerKind.LOST:
                where = f"segment {finding.segment}"
                report.problems.append(
                    Problem(
                        where,
                        finding.reason,
                        Remedy.RESTORE,
                        finding.at,
                        finding.end,
                        finding.first_lsn,
                        finding.last_lsn,
                        known=checks.in_ledger(f"{where}, bytes {finding.at} to {finding.end}"),
                    )
                )
            elif finding.kind == LedgerKind.CUT:
                report.notes.append(
                    f"segment {finding.segment}, bytes {finding.at} to {finding.end}: a torn tail that is not proven "
                    "durable; the next opening cuts it"
                )
        report.problems += [*checks.problems, *fold.problems]
        report.notes += [*checks.notes, *fold.notes]
        report.rows = checks.rows
        self._tell(self._all - self._done)
        if self._recovered.carried:
            report.notes.append(
                f"{len(self._recovered.carried)} groups at the end are not proven durable: the next opening writes them again"
            )
        if self._recovered.strangers:
            report.notes.append(
                f"{len(self._recovered.strangers)} segment files do not belong to the log and are ignored"
            )

    def _is_there(self, segment: Segment) -> bool:
        """Retention removes the name of a segment, then cuts its file to nothing."""
        return segment.path.name in self._fs.list_directory(self._directory)

    def _fold(self, states: list[Checkpoint]) -> StateFold:
        kept: list[Kept] = []
        for checkpoint in states:
            name = f"{checkpoint.kind}-{checkpoint.number:012x}.ckp"
            restored = restore_state(checkpoint)
            if restored is None:
                self._report.problems.append(
                    Problem(f"checkpoint {name}", "its contents cannot be read", Remedy.REPLACED)
                )
                continue
            state, end_offset, _ = restored
            kept.append(Kept(f"checkpoint {name}", checkpoint.lsn, state, end_offset, Remedy.REPLAY))
        store = self._store
        kept = [one for one in kept if one.lsn <= store.state.lsn]
        start: Kept | None = None
        lineage = store.state.lineage
        if not self._complete or len(lineage) > 1:
            # one from before what retention removed has no frames to be compared with
            first_lsn = store.segments[0].first_lsn if store.segments else 0
            kept = sorted((one for one in kept if one.lsn >= first_lsn - 1), key=lambda one: one.lsn)
            start = kept.pop(0) if kept else None
        fold = StateFold(
            start,
            [
                *kept,
                Kept(
                    "the state that recovery finds",
                    store.state.lsn,
                    store.state,
                    store.end_offset,
                    Remedy.REPORT,
                ),
            ],
            complete=self._complete and start is None,
            compiled=self._form == Form.COMPILED,
        )
        if start is None and (not self._complete or len(lineage) > 1):
            fold.broken("the frames begin in the middle, and there is no checkpoint to begin with")
        elif start is not None and len(lineage) > 1 and start.lsn < lineage[-1].first_lsn:
            fold.broken("the log went on as a new incarnation since the older checkpoint")
        if any(one.kind != LedgerKind.CUT for one in self._recovered.findings):
            fold.broken("the log is damaged")
        return fold

    def _scans(self) -> Iterator[tuple[Segment, Future[SegmentScan]]]:
        """Every segment with its scan, in order, a few ahead of whoever asks."""
        threads = min(THREADS, len(os.sched_getaffinity(0)))
        lsn = 0
        with ThreadPoolExecutor(threads, "verify") as executor:
            ahead: deque[tuple[Segment, Future[SegmentScan]]] = deque()
            for segment in self._store.segments:
                ahead.append((segment, executor.submit(self._scan, segment, lsn)))
                lsn = max(lsn, segment.first_lsn - 1)
                if len(ahead) > threads:
                    yield ahead.popleft()
            yield from ahead

    def _scan(self, segment: Segment, lsn: int) -> SegmentScan:
        with self._store.opened(segment) as handle:
            return scan(
                self._fs,
                handle,
                segment.end,
                after_lsn=max(segment.first_lsn - 1, lsn),
                incarnation=segment.incarnation,
                form=self._form,
                done=self._tell,
            )

    def _tell(self, size: int) -> None:
        if self._progress is None:
            return
        with self._progress_lock:
            self._done += size
            self._progress(min(self._done, self._all), self._all)

    # -- the catalogue ---------------------------------------------------------------------------------------

    def catalogue(self, checkpoints: list[Checkpoint]) -> None:
        """The catalogue's checkpoints against what recovery finds, and that against the frames."""
        found = self._store.catalogue
        report = self._report
        for checkpoint in checkpoints:
            name = f"checkpoint {checkpoint.kind}-{checkpoint.number:012x}.ckp"
            kept = Catalogue()
            if not restore_catalogue(checkpoint, kept):
                report.problems.append(Problem(name, "its contents cannot be read", Remedy.REPLACED))
            elif not kept.keys().equals(found.keys()[: len(kept)]):
                report.problems.append(
                    Problem(
                        name, "its keys are not those of the catalogue that recovery finds", Remedy.REPLAY
                    )
                )
        fold = self._folded
        assert fold is not None
        if not self._complete or fold.is_broken or len(self._store.state.lineage) > 1 or not report.sound:
            return  # not all of it is folded
        folded = fold.catalogue
        if len(folded) != len(found) or folded.to_batches() != found.to_batches():
            report.problems.append(
                Problem(
                    "catalogue",
                    f"expected {len(folded)} series as the frames have them, found {len(found)}, not the same",
                    Remedy.REPORT,
                )
            )

    # -- other files -----------------------------------------------------------------------------------------

    def directory(self, checkpoints: Checkpoints) -> None:
        """Checkpoints that do not check out, the mark, snapshots of flows."""
        report = self._report
        report.problems += [
            Problem(f"checkpoint {name}", "its CRC is wrong, or it is cut short", Remedy.REPLACED)
            for name in checkpoints.damaged()
            if name in self._fs.list_directory(self._directory)  # else replaced meanwhile
        ]
        if self._store.segments:
            self._mark()
        folder = self._directory / "snapshots"
        for name in sorted(self._fs.list_directory(folder)):
            if name.endswith(".snapshot"):
                self._snapshot(folder / name)

    def _mark(self) -> None:
        if read_mark(self._fs, self._directory) is not None:
            return
        try:
            raw = read_file(self._fs, self._directory / MARK_NAME, 1 << 16)
        except (OSError, ValueError):
            raw = b""
        # it is not synced, and no loss: groups are proven durable by those behind them as well
        what = "missing" if len(raw) < MARK_BYTES else "damaged, as a power cut may leave it"
        self._report.notes.append(
            f"the mark of durability ({MARK_NAME}) is {what}: it is written again with the next append"
        )

    def _snapshot(self, path: Path) -> None:
        """A flow's snapshot: magic with its version, CRC of everything behind the first 12 bytes."""
        try:
            raw = read_file(self._fs, path)
        except FileNotFoundError:
            return  # replaced meanwhile
        where = f"snapshot {path.name}"
        version = raw[6:8]
        if raw[:6] != _SNAPSHOT_MAGIC or not version.isdigit():
            reason = "it is no snapshot of a flow"
        elif len(raw) < 16 or crc32c(memoryview(raw)[12:]) != int.from_bytes(raw[8:12], "little"):
            reason = "its CRC is wrong"
        elif int(version) > _SNAPSHOT_VERSION:
            reason = (
                f"it has format version {int(version)}, this Ringmain reads up to version {_SNAPSHOT_VERSION}"
            )
        else:
            return
        self._report.problems.append(Problem(where, reason, Remedy.REFOLD, 0, len(raw)))
