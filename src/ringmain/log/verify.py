"""Checks a whole log, read-only: every checksum, the indexes, the checkpoints, positions and the catalogue.

What it reports is what is in the files now; damage that was found before and is in the ledger is still damage
in the file, and is reported with that remark. Works beside a running node: whatever is not proven durable yet
is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID
from ringmain.log.checkpoints import Checkpoints
from ringmain.log.codec import decode_record
from ringmain.log.files import FileSystem, LocalFileSystem
from ringmain.log.frames import SEGMENT_HEADER_BYTES, offset_of
from ringmain.log.index import ENTRY, FrameIndex, Sidecar
from ringmain.log.interface import LogError, PositionGoneError
from ringmain.log.recovery import recover
from ringmain.log.segments import Damage, StoredGroup, sidecar_path, walk
from ringmain.log.store import Segment, Store

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found. `problems`: one line each, empty when all is well; `notes`: worth knowing, no fault."""

    segments: int = 0
    bytes: int = 0
    groups: int = 0
    frames: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    directory: str | Path, progress: Progress | None = None, *, fs: FileSystem | None = None
) -> VerifyReport:
    """Check every durable byte of a log. `progress(done_bytes, all_bytes)` is called now and then.

    Writes nothing. Raises LogError when there is no log, NewerFormatError.
    """
    path = Path(directory)
    files = fs or LocalFileSystem()
    if not files.list_directory(path):
        raise LogError(f"{path}: expected the directory of a log, found none")
    report = VerifyReport()
    recovered = recover(files, path)
    store = recovered.store
    try:
        check = _Check(files, path, store, report, progress)
        for segment in store.segments:
            check.segment(segment)
        check.positions()
        check.catalogue()
        if recovered.carried:
            report.notes.append(
                f"{len(recovered.carried)} groups at the end are not proven durable: the next opening writes them again"
            )
        if recovered.strangers:
            report.notes.append(
                f"{len(recovered.strangers)} segment files do not belong to the log and are ignored"
            )
        report.problems += [
            f"checkpoint {name}: damaged"
            for name in Checkpoints(files, path).damaged()
            if (path / name).exists()
        ]
        if recovered.mark is None and store.segments:
            report.notes.append(
                "the mark of durability is missing or damaged: it is written again with the next append"
            )
        report.problems += [
            f"segment {one.segment}, bytes {one.at} to {one.end}: {one.reason}"
            for one in recovered.findings
            if one.kind != "quarantined"
        ]
    finally:
        store.close()
    return report


class _Check:
    def __init__(
        self, fs: FileSystem, directory: Path, store: Store, report: VerifyReport, progress: Progress | None
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._store = store
        self._report = report
        self._progress = progress
        self._all = sum(segment.end for segment in store.segments)
        self._highest_series = -1
        self._rows: dict[int, int] = {}
        self._lsn = 0
        self._ledger = {(entry.reason.partition(" (")[2].rstrip(")")) for entry in store.state.ledger}

    def segment(self, segment: Segment) -> None:
        """Walk a segment, check its bodies and compare its index."""
        report = self._report
        index = FrameIndex()
        try:
            for found in self._walk(segment):
                if isinstance(found, Damage):
                    place = f"segment {segment.number}, bytes {found.at} to {found.end}"
                    known = " (in the ledger)" if place in self._ledger else ""
                    report.problems.append(f"{place}: {found.reason}{known}")
                    continue
                index.add(found.at, found.header, found.frames)
                self._group(segment, found)
        except (OSError, PositionGoneError) as error:
            report.problems.append(f"segment {segment.number}: cannot be read: {error}")
            return
        report.segments += 1
        report.bytes += segment.end
        self._sidecar(segment, index)

    def _walk(self, segment: Segment) -> Iterator[StoredGroup | Damage]:
        done = self._report.bytes
        with self._store.opened(segment) as handle:
            for found in walk(
                self._fs,
                handle,
                SEGMENT_HEADER_BYTES,
                segment.end,
                after_lsn=max(segment.first_lsn - 1, self._lsn),
                incarnation=segment.incarnation or None,
            ):
                yield found
                if self._progress is not None:
                    self._progress(done + found.end, self._all)

    def _group(self, segment: Segment, found: StoredGroup) -> None:
        report = self._report
        self._lsn = found.header.lsn
        report.groups += 1
        report.frames += len(found.frames)
        for number, frame in enumerate(found.frames):
            place = f"segment {segment.number}, lsn {found.header.lsn}, frame {number}"
            body = found.body(number)
            if frame.stream == CONTROL_ID:
                if decode_record(frame, body) is None:
                    report.problems.append(f"{place}: control record cannot be read")
                continue
            entry = self._store.state.by_id.get(frame.stream)
            if entry is None:
                report.problems.append(f"{place}: stream {frame.stream} is not defined")
                continue
            name = entry.stream.name
            rows = entry.layout.decode(frame, body)
            if rows is None:
                report.problems.append(f"{place}: rows of stream {name} cannot be decoded")
                continue
            report.rows[name] = report.rows.get(name, 0) + frame.rows
            before = self._rows.get(frame.stream)
            if before is not None and frame.cumulative_rows != before + frame.rows:
                report.problems.append(
                    f"{place}: stream {name} has {frame.cumulative_rows - before - frame.rows} rows fewer than were written"
                )
            self._rows[frame.stream] = frame.cumulative_rows
            if entry.layout.series is not None and frame.rows:
                series = rows.column(entry.layout.series).to_numpy()
                self._highest_series = max(self._highest_series, int(series.max()))
            if frame.stream == CATALOGUE_ID and frame.catalogue_position > self._store.state.series_count:
                report.problems.append(f"{place}: refers to a catalogue of {frame.catalogue_position} series")

    def _sidecar(self, segment: Segment, index: FrameIndex) -> None:
        sidecar = Sidecar.read(self._fs, sidecar_path(self._directory, segment.number), segment.number)
        if sidecar is None:
            if segment is not self._store.segments[-1]:
                self._report.notes.append(
                    f"segment {segment.number} has no sound index: it is made from the segment"
                )
            return
        if sidecar.end != segment.end:
            return
        expected, found = index.entries(), sidecar.entries
        if len(expected) != len(found):
            if not any(line.startswith(f"segment {segment.number},") for line in self._report.problems):
                self._report.problems.append(
                    f"segment {segment.number}: its index has {len(found)} entries, expected {len(expected)}"
                )
        elif any(not np.array_equal(expected[name], found[name]) for name in ENTRY.names or ()):
            self._report.problems.append(f"segment {segment.number}: its index differs from its frames")

    def positions(self) -> None:
        """Producers must not be ahead of the log, and counts must agree with the frames."""
        state = self._store.state
        for name, producer in state.producers.items():
            if producer.offset > offset_of(state.lsn, 0xFFFF):
                self._report.problems.append(f"position of {name}: ahead of the log's end")
        for stream_id, rows in self._rows.items():
            entry = state.by_id[stream_id]
            if entry.counts.rows != rows:
                self._report.problems.append(
                    f"stream {entry.stream.name}: counted {entry.counts.rows} rows, its newest frame says {rows}"
                )

    def catalogue(self) -> None:
        """Every series id in use needs an entry."""
        count = len(self._store.catalogue)
        if self._highest_series >= count:
            self._report.problems.append(
                f"catalogue: expected entries up to series {self._highest_series}, found {count}"
            )
