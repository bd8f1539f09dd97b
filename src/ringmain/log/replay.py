"""One pass over the segments of a log, oldest first: what is published, what is damaged, what is unproven.

A sealed segment is proven as a whole, by its successor; its frames are read only beyond the checkpoints. The last one is
read to its end: proven groups are published, the unproven tail is handed on up to its first damage, and cut there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ringmain.log.builtin import CATALOGUE_ID, LedgerKind
from ringmain.log.control import needs_body
from ringmain.log.files import FileSystem
from ringmain.log.frames import (
    SEGMENT_HEADER_BYTES,
    SEGMENT_PREPARED,
    lsn_of,
    offset_of,
)
from ringmain.log.index import FrameIndex, Sidecar
from ringmain.log.ledger.findings import findings
from ringmain.log.recovered import Recovered
from ringmain.log.segments import (
    Damage,
    Link,
    StoredGroup,
    bodies_are_sound,
    content_end,
    segment_path,
    sidecar_path,
    walk,
)
from ringmain.log.store import Segment


def _lsns_behind(found: Sequence[StoredGroup | Damage]) -> list[int]:
    """For each the next lsn that is legible behind it; 0 if there is none."""
    lsns: list[int] = []
    behind = 0
    for one in reversed(found):
        lsns.append(behind)
        behind = behind if one.header is None else one.header.lsn
    lsns.reverse()
    return lsns


def _is_damaged_state(group: StoredGroup) -> bool:
    """Whether the log's state is made of a body of this group, and not all of its bodies are sound."""
    return any(needs_body(frame) for frame in group.frames) and not bodies_are_sound(group)


class Replay:
    """One pass over the segments, oldest first, as little of them as the checkpoints allow."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        recovered: Recovered,
        links: list[Link],
        proven: int,
        catalogue_lsn: int,
        beside_writer: bool,
    ) -> None:
        self._fs = fs
        self._beside_writer = beside_writer
        self._directory = directory
        self._recovered = recovered
        self._store = recovered.store
        self._links = links
        self._catalogue_lsn = catalogue_lsn
        mark = recovered.mark
        incarnations = {link.header.incarnation for link in links if link.header is not None}
        if mark is not None and (not links or mark.incarnation in incarnations):
            proven = max(proven, mark.lsn)
        for link in links[1:]:
            if link.header is not None:
                proven = max(proven, lsn_of(link.header.previous_offset))
        self.proven = proven
        self.highest_lsn = proven
        self.highest_found = 0
        self.tail_damaged = False

    def run(self) -> None:
        for place, link in enumerate(self._links):
            successor = self._links[place + 1] if place + 1 < len(self._links) else None
            self._missing_before(place)
            if successor is None:
                self._scan_last(link)
            else:
                self._scan_sealed(link, successor)

    def _missing_before(self, place: int) -> None:
        """A segment that the chain names and that is not there, between two that are."""
        header = self._links[place].header
        if header is None or not header.previous_number:
            return
        removed_lsn = lsn_of(max(self._store.state.removed_offset, 0))
        if header.previous_offset and lsn_of(header.previous_offset) <= removed_lsn:
            return
        if place == 0 or header.previous_number != self._links[place - 1].number:
            # where retention removed it, its lsns lie below those known to be removed, and this is dropped again
            self._recovered.findings += findings(
                LedgerKind.LOST,
                header.previous_number,
                0,
                header.previous_end,
                min(self.highest_found + 1, lsn_of(header.previous_offset)),
                lsn_of(header.previous_offset),
                None,
                "the segment's file is missing, and those before it if any",
            )

    def _segment(self, link: Link, end: int) -> Segment:
        header = link.header
        incarnation = 0 if header is None else header.incarnation
        first_lsn = self.highest_found + 1 if header is None else header.first_lsn
        return Segment(self._directory, link.number, incarnation, first_lsn, end)

    def _scan_sealed(self, link: Link, successor: Link) -> None:
        """A segment with a successor: all of it is proven. Its frames matter only beyond the checkpoints."""
        segment = self._segment(link, self._end_of(link))
        end = segment.end
        following = successor.header
        limit = None if following is None else following.first_lsn
        if following is not None and following.previous_number == link.number:
            last = lsn_of(following.previous_offset)
            if last <= self._store.state.lsn:
                segment.last_offset = following.previous_offset or -1
                if last > self._catalogue_lsn:
                    self._replay_catalogue(segment)
                segment.last_lsn = following.first_lsn - 1
                self._add(segment)
                self.highest_found = max(self.highest_found, segment.last_lsn)
                return
        found = self._groups_and_damage(segment, end, bodies=False)
        if link.end is None:
            self._leave_out_zeros(link, segment, found, last=False)
            segment.end = end = found[-1].end if found else SEGMENT_HEADER_BYTES
        groups = self._told(segment, found)
        if link.end is None:
            # the successor's header is damaged: what a failed write left here must not come back
            limit = limit or self._first_lsn_of(successor)
        self._publish(segment, [g for g in groups if limit is None or g.header.lsn < limit])
        if limit is not None:
            if link.end is None:
                self._drop_beyond(segment, limit)
            self.highest_found = max(self.highest_found, limit - 1)
        self._store.seal(segment)

    def _end_of(self, link: Link) -> int:
        """Where a sealed segment's valid bytes end: as its successor says, else as its index does."""
        if link.end is not None:
            return link.end
        sidecar = Sidecar.read(self._fs, sidecar_path(self._directory, link.number), link.number)
        return link.size if sidecar is None else min(sidecar.end, link.size)

    def _first_lsn_of(self, link: Link) -> int | None:
        with contextlib.suppress(OSError):
            handle = self._fs.open_existing(segment_path(self._directory, link.number))
            try:
                for found in walk(self._fs, handle, SEGMENT_HEADER_BYTES, link.size, bodies=False):
                    if isinstance(found, StoredGroup):
                        return found.header.lsn
            finally:
                self._fs.close(handle)
        return None

    def _drop_beyond(self, segment: Segment, limit: int) -> None:
        if segment.index is not None:
            entries = segment.index.entries()
            kept = entries[entries["offset"] < np.uint64(offset_of(limit, 0))]
            if len(kept):
                segment.end = int(kept[-1]["group_at"]) + int(kept[-1]["group_bytes"])

    def _replay_catalogue(self, segment: Segment) -> None:
        """Read the catalogue frames of a segment whose other frames a checkpoint covers."""
        entries = self._store.load_entries(segment) if segment.index is None else segment.index.entries()
        layout = self._store.state.by_id[CATALOGUE_ID].layout
        wanted = entries[
            (entries["stream"] == CATALOGUE_ID) & (entries["offset"] > offset_of(self._catalogue_lsn, 0xFFFF))
        ]
        with self._store.opened(segment) as handle:
            for entry in wanted:
                at, size = int(entry["group_at"]), int(entry["group_bytes"])
                for found in walk(self._fs, handle, at, at + size):
                    if isinstance(found, StoredGroup):
                        for number, frame in enumerate(found.frames):
                            if frame.stream == CATALOGUE_ID:
                                rows = layout.decode(frame, found.body(number))
                                if rows is not None:
                                    self._store.catalogue.apply(rows)
                    else:
                        self._damaged(segment, found, lsn_of(int(entry["offset"])) - 1)

    def _scan_last(self, link: Link) -> None:
        segment = self._segment(link, link.size)
        start = self._take_index(segment, link.size)
        before = max(segment.first_lsn - 1, self.highest_found)
        found = self._groups_and_damage(segment, link.size, bodies=True, start=start)
        self._leave_out_zeros(link, segment, found, last=True)
        groups = [one for one in found if isinstance(one, StoredGroup)]
        for group in groups:
            self.proven = max(self.proven, group.header.durable_lsn)
        proven = [group for group in groups if group.header.lsn <= self.proven]
        tail = [group for group in groups if group.header.lsn > self.proven]
        if groups:
            self.highest_found = max(self.highest_found, groups[-1].header.lsn)
            self.highest_lsn = max(self.highest_lsn, groups[-1].header.lsn)
        self._publish(segment, proven, start)
        self._sort_damage(segment, found, proven[-1].end if proven else start, tail, before)

    def _leave_out_zeros(
        self, link: Link, segment: Segment, found: list[StoredGroup | Damage], *, last: bool
    ) -> None:
        """Zeros at the end of a prepared segment were never written to: no damage, and nothing that was cut.

        Where the mark says that something durable lay there, they are.
        """
        if not found or not isinstance(found[-1], Damage) or found[-1].end < link.size:
            return
        if link.header is not None and not link.header.flags & SEGMENT_PREPARED:
            return
        damage = found[-1]
        with self._store.opened(segment) as handle:
            end = content_end(self._fs, handle, damage.at, damage.end)
        mark = self._recovered.mark
        if last:
            self._recovered.zeros_from = end
            if mark is not None and mark.segment == link.number:
                end = max(end, min(mark.end, damage.end))
        if end <= damage.at:
            found.pop()
        else:
            found[-1] = replace(damage, end=end)

    def _take_index(self, segment: Segment, size: int) -> int:
        """Use an index written while the segment was active, as far as a checkpoint holds what it covers.

        Returns the byte behind what it covers.
        """
        path = sidecar_path(self._directory, segment.number)
        sidecar = Sidecar.read(self._fs, path, segment.number) if segment.incarnation else None
        if sidecar is None or not len(sidecar.entries) or sidecar.end > size:
            return SEGMENT_HEADER_BYTES
        last = int(sidecar.entries[-1]["offset"])
        if sidecar.last_lsn > self._store.state.lsn or last > self._store.end_offset:
            return SEGMENT_HEADER_BYTES
        segment.index = FrameIndex(sidecar.entries)
        segment.end, segment.last_offset, segment.last_lsn = sidecar.end, last, sidecar.last_lsn
        if lsn_of(last) > self._catalogue_lsn:
            self._replay_catalogue(segment)
        self.highest_found = max(self.highest_found, sidecar.last_lsn)
        return sidecar.end

    def _sort_damage(
        self,
        segment: Segment,
        found: list[StoredGroup | Damage],
        proven_end: int,
        tail: list[StoredGroup],
        after_lsn: int,
    ) -> None:
        """Damage below the mark is quarantined; the unproven tail ends at its first damage and the rest is cut."""
        mark = self._recovered.mark
        marked_end = (
            mark.end if mark is not None and mark.segment == segment.number and mark.lsn <= self.proven else 0
        )
        cut_at: int | None = None
        for one, behind in zip(found, _lsns_behind(found), strict=True):
            if not isinstance(one, Damage):
                after_lsn = one.header.lsn
                continue
            lsn = one.header.lsn if one.header is not None else None
            # between the group before and the one behind there is room for nothing but what was proven
            proven_alone = lsn is None and after_lsn < self.proven and behind == self.proven + 1
            below = one.at < proven_end or (lsn is not None and lsn <= self.proven) or proven_alone
            if below or one.at < marked_end:
                self._damaged(segment, one, after_lsn)
                self.tail_damaged = self.tail_damaged or one.end >= proven_end
            elif cut_at is None:
                cut_at = one.at
            after_lsn = after_lsn if lsn is None else lsn
        carried = [group for group in tail if cut_at is None or group.at < cut_at]
        self._recovered.carried = carried
        if cut_at is None:
            return
        end = max(one.end for one in found)
        lost = [group for group in tail if group.at >= cut_at]
        first = (
            carried[-1].header.lsn if carried else max(self.proven, self.highest_found if not tail else 0)
        ) + 1
        legible = [
            one for one in found if isinstance(one, Damage) and one.header is not None and one.at >= cut_at
        ]
        headers = [group.header for group in lost] + [one.header for one in legible if one.header is not None]
        last = max([first, *(header.lsn for header in headers)])
        whole = all(one.header is not None for one in found if one.at >= cut_at)
        frames = [frame for one in found if one.at >= cut_at for frame in one.frames]
        self._recovered.findings += findings(
            LedgerKind.CUT,
            segment.number,
            cut_at,
            end,
            first,
            last,
            frames if whole else None,
            "torn tail above the highest durable mark; may have been acknowledged",
        )
        # no lsn that may have been handed out is ever given to something else
        self.highest_lsn = max(self.highest_lsn, last, first + (end - cut_at) // SEGMENT_HEADER_BYTES)

    # -- shared ----------------------------------------------------------------------------------------------

    def _told(self, segment: Segment, found: list[StoredGroup | Damage]) -> list[StoredGroup]:
        """The groups among these; the damage is told as findings."""
        lsn = self.highest_found
        for one in found:
            if isinstance(one, Damage):
                self._damaged(segment, one, lsn)
            lsn = lsn if one.header is None else one.header.lsn
        return [one for one in found if isinstance(one, StoredGroup)]

    def _groups_and_damage(
        self, segment: Segment, end: int, *, bodies: bool, start: int = SEGMENT_HEADER_BYTES
    ) -> list[StoredGroup | Damage]:
        lsn = max(segment.first_lsn - 1, self.highest_found)
        found: list[StoredGroup | Damage] = []
        with self._store.opened(segment) as handle:
            for one in walk(
                self._fs,
                handle,
                start,
                end,
                after_lsn=lsn,
                incarnation=segment.incarnation or None,
                bodies=bodies,
                beside_writer=self._beside_writer,
            ):
                if bodies or not isinstance(one, StoredGroup) or not _is_damaged_state(one):
                    found.append(one)
                    continue
                # read wrong, it may be read right the second time; else it is damage, and is told
                self._fs.drop_cache(handle, one.at, one.header.length)
                found += walk(self._fs, handle, one.at, one.end, after_lsn=one.header.lsn - 1)
        return found

    def _publish(
        self, segment: Segment, groups: list[StoredGroup], start: int = SEGMENT_HEADER_BYTES
    ) -> None:
        if groups and not segment.incarnation:
            segment.incarnation = groups[0].header.incarnation
        state_lsn = self._store.state.lsn
        placed = []
        for group in groups:
            if group.header.lsn <= state_lsn and self._catalogue_lsn < group.header.lsn:
                self._apply_catalogue(group)
            placed.append((group.at, group.header, group.frames, group.body))
        end = segment.end
        segment.end = start
        self._store.publish(segment, placed)
        if segment.number != self._links[-1].number:
            segment.end = end
        self._add(segment)

    def _apply_catalogue(self, group: StoredGroup) -> None:
        for number, frame in enumerate(group.frames):
            if frame.stream == CATALOGUE_ID:
                rows = self._store.state.by_id[CATALOGUE_ID].layout.decode(frame, group.body(number))
                if rows is not None:
                    self._store.catalogue.apply(rows)

    def _add(self, segment: Segment) -> None:
        self._store.add_segment(segment)
        if segment.last_offset >= 0:
            lsn = lsn_of(segment.last_offset)
            self.highest_found = max(self.highest_found, lsn)
            self.highest_lsn = max(self.highest_lsn, lsn)

    def _damaged(self, segment: Segment, damage: Damage, after_lsn: int) -> None:
        header = damage.header
        first = after_lsn + 1 if header is None else header.lsn
        self._recovered.findings += findings(
            LedgerKind.QUARANTINED,
            segment.number,
            damage.at,
            damage.end,
            first,
            first if header is None else header.lsn,
            None if header is None else damage.frames,
            f"damaged: {damage.reason}",
        )
