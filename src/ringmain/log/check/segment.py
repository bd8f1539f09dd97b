"""The checks of one segment after another: its header, the chain, order, gaps, series ids, its index.

Everything is done for all frames of a segment at once. What damage took is told with its rows: from the headers
where they are legible, else from the index; and the running counts of each stream say whether that is all.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID
from ringmain.log.check.index import check_index
from ringmain.log.check.report import Problem, Remedy, legible_rows
from ringmain.log.check.scan import SegmentScan
from ringmain.log.check.sums import stream_sums
from ringmain.log.files import FileSystem, read_around
from ringmain.log.frames import (
    FLAG_OPENING,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    SegmentHeader,
    lsn_of,
    offset_of,
    read_segment_header,
)
from ringmain.log.index import Entries
from ringmain.log.interface import Position, PositionGoneError
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.recovered import Recovered
from ringmain.log.segments import Damage
from ringmain.log.store import Segment

_SHOWN = 5
_DAMAGE_KINDS = ("quarantined", "lost", "cut")


def _lsns_of(entry: LedgerEntry) -> tuple[int, int] | None:
    """The groups that an entry of the ledger is about; None where it is about a time."""
    try:
        return lsn_of(Position.parse(entry.start).offset), lsn_of(Position.parse(entry.end).offset)
    except ValueError:
        return None


class SegmentChecks:
    """Feed it every segment, oldest first."""

    def __init__(self, fs: FileSystem, directory: Path, recovered: Recovered, *, compiled: bool) -> None:
        """`compiled`: take the loops of `check/loops.py`."""
        self._fs = fs
        self._compiled = compiled
        self._directory = directory
        self._store = recovered.store
        self._mark = recovered.mark
        self._removed_lsn = recovered.removed_lsn
        state = self._store.state
        self._names = {identity: entry.stream.name for identity, entry in state.by_id.items()}
        self._ledger = {entry.reason.rpartition(" (")[2].rstrip(")") for entry in state.ledger}
        self._known_lsns = [
            lsns for entry in state.ledger if entry.kind in _DAMAGE_KINDS and (lsns := _lsns_of(entry))
        ]
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.rows: dict[str, int] = {}
        self._previous: Segment | None = None
        self._previous_scan: tuple[int, int] | None = None  # last lsn, end
        self._lsn = 0
        self._arrival_ns = -(2**63)
        self._durable_lsn = 0
        self._cumulative: dict[int, int] = {}
        self._missing: dict[int, int] = {}
        self._series = (-1, 0, 0)
        self._header_of: dict[int, SegmentHeader | None] = {}
        segments = self._store.segments
        first = self._header(segments[0]) if segments else None
        self.complete = (
            not segments or (first is not None and not first.previous_number)
        ) and state.removed_offset < 0

    def in_ledger(self, place: str) -> bool:
        """Whether the ledger has an entry for exactly this place."""
        return place in self._ledger

    def skip(self) -> None:
        """A segment that cannot be looked at: what follows cannot be compared with it."""
        self._previous = None
        self._previous_scan = None
        self._cumulative.clear()
        self.complete = False

    def follows_removed(self, segment: Segment) -> bool:
        """Whether retention took the segment before this one, and left some before that to the next opening."""
        header = self._header(segment)
        return (
            self._previous is not None
            and header is not None
            and header.previous_number != self._previous.number
            and lsn_of(header.previous_offset) <= self._removed_lsn
        )

    def segment(self, segment: Segment, found: SegmentScan) -> None:
        """All checks of one segment."""
        active = segment is self._store.segments[-1]
        sidecar, problems, notes = check_index(
            self._fs, self._directory, segment, found, active=active, compiled=self._compiled
        )
        self.problems += problems
        self.notes += notes
        self._chain(segment, found)
        places = np.array([(one.at, one.end) for one in found.damage], np.uint64)
        inside: list[Entries | None] = [None] * len(places)
        if sidecar is not None and len(places):
            bounds = np.searchsorted(sidecar["group_at"], places).tolist()
            inside = [sidecar[first:behind] for first, behind in bounds]
        for damage, entries in zip(found.damage, inside, strict=True):
            self._damaged(segment, damage, entries)
        self._previous_scan = None if found.damage else (0, SEGMENT_HEADER_BYTES)
        if len(found.groups):
            self._order(segment, found)
            self._counts(segment, found)
            self._streams(segment, found)
        if self._mark is not None and self._mark.segment == segment.number:
            self._marked(segment, found)
        self._previous = segment

    def finish(self) -> None:
        """What is known only at the end."""
        largest, position, frames = self._series
        if frames:
            self.problems.append(
                Problem(
                    "catalogue",
                    f"{frames} frames refer to series up to {largest} where the catalogue had {position}",
                    Remedy.REPORT,
                )
            )
        count = max(self._store.state.series_count, 0)
        if count > len(self._store.catalogue):
            self.problems.append(
                Problem(
                    "catalogue",
                    f"expected entries of {count} series, found {len(self._store.catalogue)}",
                    Remedy.RESTORE,
                    known=bool(self._known_lsns),
                )
            )

    # -- header and chain ------------------------------------------------------------------------------------

    def _header(self, segment: Segment) -> SegmentHeader | None:
        if segment.number not in self._header_of:
            self._header_of[segment.number] = None
            with contextlib.suppress(PositionGoneError), self._store.opened(segment) as handle:
                header = read_segment_header(read_around(self._fs, handle, SEGMENT_HEADER_BYTES, 0))
                if header is not None and header.number == segment.number:
                    self._header_of[segment.number] = header
        return self._header_of[segment.number]

    def _problem(
        self,
        segment: Segment,
        reason: str,
        start: int,
        end: int,
        lsn: int | None = None,
        remedy: Remedy = Remedy.REPORT,
        *,
        known: bool = False,
        rows: dict[str, int | None] | None = None,
    ) -> None:
        where = f"segment {segment.number}"
        self.problems.append(Problem(where, reason, remedy, start, end, lsn, lsn, rows or {}, known))

    def _chain(self, segment: Segment, found: SegmentScan) -> None:
        """The header, and what it says about the segment before."""
        header = self._header(segment)
        size = SEGMENT_HEADER_BYTES
        if header is None:
            self._problem(
                segment, "segment header: magic, number or CRC is wrong", 0, size, remedy=Remedy.RESTORE
            )
            return
        lsns = found.groups["lsn"]
        if len(lsns) and not (found.damage and found.damage[0].at == size) and lsns[0] != header.first_lsn:
            self._problem(
                segment,
                f"segment header: expected first lsn {lsns[0]}, found {header.first_lsn}",
                0,
                size,
                int(lsns[0]),
            )
        previous = self._previous
        if previous is None or header.previous_number != previous.number:
            return
        with self._store.opened(previous) as handle:
            held = self._fs.size(handle)
        there = previous.path.name in self._fs.list_directory(self._directory)  # else removed meanwhile
        if held < header.previous_end and there:
            self.problems.append(
                Problem(
                    f"segment {previous.number}",
                    f"the file ends at byte {held}",
                    Remedy.RESTORE,
                    held,
                    header.previous_end,
                    self._lsn + 1,
                    known=bool(self._known(self._lsn + 1, header.first_lsn)),
                )
            )
        if self._previous_scan is None:
            return
        last_offset, end = self._previous_scan
        if end != header.previous_end or last_offset != header.previous_offset:
            self._problem(
                segment,
                f"segment header: expected that segment {previous.number} ends at byte {end} with {last_offset:x}, "
                f"found byte {header.previous_end} and {header.previous_offset:x}",
                0,
                size,
                header.first_lsn,
            )

    # -- damage ----------------------------------------------------------------------------------------------

    def _damaged(self, segment: Segment, damage: Damage, inside: Entries | None) -> None:
        """Tell damage. `inside`: what the index has of it, None without an index."""
        rows = legible_rows(damage, self._names)
        lsns: NDArray[Any] = np.empty(0, np.uint64)
        if inside is not None:
            lsns = inside["offset"] >> np.uint64(16)
            if not damage.frames:
                rows = {}
                for stream in np.unique(inside["stream"]).tolist():
                    name = self._names.get(stream, "")
                    if not name:
                        continue
                    rows[name] = int(inside["rows"][inside["stream"] == stream].sum())
        header = damage.header
        first = header.lsn if header is not None else int(lsns.min()) if len(lsns) else None
        last = header.lsn if header is not None else int(lsns.max()) if len(lsns) else None
        for identity, name in self._names.items():
            if rows.get(name):
                self._missing[identity] = self._missing.get(identity, 0) + (rows[name] or 0)
        known = self.in_ledger(f"segment {segment.number}, bytes {damage.at} to {damage.end}")
        known = known or (first is not None and self._covered(first, last or first))
        self.problems.append(
            Problem(
                f"segment {segment.number}",
                damage.reason,
                Remedy.RESTORE,
                damage.at,
                damage.end,
                first,
                last,
                rows,
                known,
            )
        )

    def _known(self, first_lsn: int, last_lsn: int) -> bool:
        return any(first <= last_lsn and first_lsn <= last for first, last in self._known_lsns)

    def _covered(self, first_lsn: int, last_lsn: int) -> bool:
        return any(first <= first_lsn and last_lsn <= last for first, last in self._known_lsns)

    # -- order and counts ------------------------------------------------------------------------------------

    def _order(self, segment: Segment, found: SegmentScan) -> None:
        """Arrival times and durable lsns never fall, lsns have no gaps, every group is durable after it is written."""
        groups = found.groups
        if not (self._compiled and self._is_in_order(found)):
            self._tell_order(segment, found)
        self._arrival_ns = int(groups["arrival_ns"].max())
        self._durable_lsn = int(groups["durable_lsn"][-1].astype(np.int64))
        self._lsn = int(groups["lsn"][-1].astype(np.int64))
        self._previous_scan = None
        if not found.damage or found.damage[-1].at < found.at[-1]:
            with_frames = np.flatnonzero(groups["frame_count"])
            last = int(with_frames[-1]) if len(with_frames) else -1
            lsn = int(groups["lsn"][last].astype(np.int64))
            offset = offset_of(lsn, int(groups["frame_count"][last]) - 1) if last >= 0 else 0
            self._previous_scan = offset, int(found.at[-1]) + int(groups["length"][-1])

    def _is_in_order(self, found: SegmentScan) -> bool:
        from ringmain.log.check.loops import in_order

        return in_order(found.groups, found.at, self._arrival_ns, self._durable_lsn)

    def _tell_order(self, segment: Segment, found: SegmentScan) -> None:
        groups = found.groups
        lsns, arrivals, durable = (
            groups[name].astype(np.int64) for name in ("lsn", "arrival_ns", "durable_lsn")
        )
        ends = found.at + groups["length"]

        def tell(number: int, reason: str) -> None:
            self._problem(segment, reason, int(found.at[number]), int(ends[number]), int(lsns[number]))

        before = np.concatenate([[self._arrival_ns], arrivals[:-1]])
        for number in np.flatnonzero(arrivals < before)[:_SHOWN].tolist():
            tell(number, f"arrival time: expected at least {before[number]} ns, found {arrivals[number]} ns")
        before = np.concatenate([[self._durable_lsn], durable[:-1]])
        for number in np.flatnonzero((durable < before) | (durable >= lsns))[:_SHOWN].tolist():
            tell(
                number,
                f"durable lsn: expected {before[number]} to {lsns[number] - 1}, found {durable[number]}",
            )
        # behind a torn tail that was cut, the group that opens the log leaves out lsns that may have been there
        opening = (groups["flags"][1:] & FLAG_OPENING) != 0
        joined = found.at[1:] == ends[:-1]
        for number in (np.flatnonzero((np.diff(lsns) != 1) & ~opening & joined)[:_SHOWN] + 1).tolist():
            tell(
                number, f"lsn: expected {lsns[number - 1] + 1} behind the group before, found {lsns[number]}"
            )

    def _counts(self, segment: Segment, found: SegmentScan) -> None:
        """The running count of each stream grows by the rows of each frame; otherwise frames are missing."""
        frames = found.frames
        sums = stream_sums(frames, compiled=self._compiled)
        streams = sums.streams.tolist()
        before = frames["cumulative_rows"][sums.first].astype(np.int64) - frames["rows"][sums.first]
        expected = np.array(
            [
                self._cumulative.get(stream, 0 if self.complete else there)
                for stream, there in zip(streams, before.tolist(), strict=True)
            ],
            np.int64,
        )
        # the log counts its control records anew with each opening
        if not ((sums.whole & (before == expected)) | (sums.streams == CONTROL_ID)).all():
            self._tell_holes(segment, found, dict(zip(streams, expected.tolist(), strict=True)))
        ends = frames["cumulative_rows"][sums.last].astype(np.int64).tolist()
        for stream, end, rows in zip(streams, ends, sums.rows.tolist(), strict=True):
            self._cumulative[stream] = end
            known = self._names.get(stream)
            if known is not None:
                self.rows[known] = self.rows.get(known, 0) + rows

    def _tell_holes(self, segment: Segment, found: SegmentScan, begun: dict[int, int]) -> None:
        """`begun`: the count that each stream has before its first frame of the segment."""
        frames = found.frames
        order = np.argsort(frames["stream"], kind="stable")
        streams = frames["stream"][order]
        cumulative = frames["cumulative_rows"][order].astype(np.int64)
        before = cumulative - frames["rows"][order]
        expected = np.concatenate([[0], cumulative[:-1]])
        for begin in np.concatenate([[0], np.flatnonzero(streams[1:] != streams[:-1]) + 1]).tolist():
            expected[begin] = begun[int(streams[begin])]
        group_of = np.repeat(np.arange(len(found.groups)), found.groups["frame_count"])
        for place in np.flatnonzero((before != expected) & (streams != CONTROL_ID)).tolist():
            stream, missing = int(streams[place]), int(before[place] - expected[place])
            explained = min(max(missing, 0), self._missing.get(stream, 0))
            self._missing[stream] = self._missing.get(stream, 0) - explained
            if missing == explained:
                continue
            group = int(group_of[order[place]])
            lsn = int(found.groups["lsn"][group])
            name = self._names.get(stream, f"stream {stream}")
            self._problem(
                segment,
                f"{missing - explained} rows fewer than were written to the stream before this group"
                if missing > 0
                else f"the count of the stream falls by {-missing}",
                int(found.at[group]),
                int(found.at[group] + found.groups["length"][group]),
                lsn,
                Remedy.RESTORE if missing > 0 else Remedy.REPORT,
                known=self._known(0, lsn),
                rows={name: missing - explained} if missing > 0 else {name: None},
            )

    def _streams(self, segment: Segment, found: SegmentScan) -> None:
        """Every stream is defined, its first frame can be decoded, series ids are below the catalogue's count."""
        frames = found.frames
        for number, body in found.samples.items():
            frame = FrameHeader._make(frames[number].item())
            group = int(np.searchsorted(found.first, number, side="right")) - 1
            start, lsn = int(found.at[group]), int(found.groups["lsn"][group])
            end = start + int(found.groups["length"][group])
            entry = self._store.state.by_id.get(frame.stream)
            if entry is None:
                self._problem(segment, f"stream {frame.stream} is not defined", start, end, lsn)
            elif entry.layout.decode(frame, body) is None:
                self._problem(
                    segment, f"rows of stream {entry.stream.name} cannot be decoded", start, end, lsn
                )
        if self._compiled and not self._refer_beyond(found):
            return
        # entries of the catalogue itself say which ids there are
        beyond = (found.series_max >= frames["catalogue_position"].astype(np.int64)) & (
            frames["stream"] != CATALOGUE_ID
        )
        if beyond.any():
            largest, position, count = self._series
            largest = max(largest, int(found.series_max[beyond].max()))
            position = max(position, int(frames["catalogue_position"][beyond].max()))
            self._series = largest, position, count + int(beyond.sum())

    def _refer_beyond(self, found: SegmentScan) -> bool:
        from ringmain.log.check.loops import refer_beyond

        return refer_beyond(found.frames, found.series_max, CATALOGUE_ID)

    # -- the mark -------------------------------------------------------------------------------------------

    def _marked(self, segment: Segment, found: SegmentScan) -> None:
        """The mark names the end of its group; a group that was written again since lies in a later segment."""
        mark = self._mark
        assert mark is not None
        place = int(np.searchsorted(found.groups["lsn"], np.uint64(mark.lsn)))
        if place < len(found.groups) and int(found.groups["lsn"][place]) == mark.lsn:
            end = int(found.at[place] + found.groups["length"][place])
            arrival = int(found.groups["arrival_ns"][place])
            if (end, arrival) != (mark.end, mark.arrival_ns):
                self.problems.append(
                    Problem(
                        "mark durable",
                        f"expected lsn {mark.lsn} to end at byte {end} with arrival {arrival} ns, "
                        f"found byte {mark.end} and {mark.arrival_ns} ns",
                        Remedy.REWRITTEN,
                    )
                )
