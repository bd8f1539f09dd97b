"""Folds the log's own state from its frames a second time, and compares: positions, producers, counts, catalogue.

The fold begins with nothing where every frame since the first is there, otherwise with the oldest checkpoint;
it is compared with every newer checkpoint at its lsn and with what recovery makes of the directory. Behind
damage nothing can be compared any more: what the damaged group said is not known here, and the damage is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID, LEDGER_ID
from ringmain.log.check.report import Problem, Remedy
from ringmain.log.check.scan import SegmentScan
from ringmain.log.check.sums import last_frames, producer_sums, stream_sums
from ringmain.log.control import UNREADABLE, Claimed, ControlState, Moved, Record, producer_id
from ringmain.log.frames import FrameHeader, GroupHeader, offset_of
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX
from ringmain.log.request import INTERNAL
from ringmain.model.catalogue import Catalogue

_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_NO_RECORD = b"none"
_POSITIONS_BEGIN = msgspec.msgpack.encode(Moved({}))[:-1]
"""What every record of positions begins with; then a map comes."""
_Unreadable = msgspec.MsgspecError | UnicodeDecodeError | RecursionError
_SHOWN = 5
"""Differences of one kind that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A state that somebody kept: a checkpoint, or what recovery made of the directory."""

    name: str
    lsn: int
    state: ControlState
    end_offset: int
    remedy: Remedy


class StateFold:
    """The fold. Feed it the segments in order."""

    def __init__(self, start: Kept | None, kept: list[Kept], *, complete: bool, compiled: bool) -> None:
        """`start`: where to begin, None: with nothing; `kept`: what to compare with; `complete`: from the first frame.

        `compiled`: take the loops of `check/loops.py` and `check/replaced.py`.
        """
        self.state = ControlState() if start is None else start.state
        self.catalogue = Catalogue()
        self.end_offset = -1 if start is None else start.end_offset
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._kept = sorted(kept, key=lambda one: one.lsn)
        self._complete = complete
        self._compiled = compiled
        self._broken = ""
        self._claimed_at: dict[int, int] = {}
        self._sequences: dict[tuple[int, int], tuple[int, int]] = {}
        self._internal = producer_id(INTERNAL.name)

    def broken(self, why: str) -> None:
        """From here on nothing can be compared."""
        self._broken = self._broken or why

    @property
    def is_broken(self) -> bool:
        """Whether something is missing in what was folded."""
        return bool(self._broken)

    def feed(self, segment: int, scan: SegmentScan) -> None:
        """The sound groups of the next segment."""
        lsns = scan.groups["lsn"].astype(np.int64)
        start = int(np.searchsorted(lsns, self.state.lsn, side="right"))
        while self._kept and len(lsns) and self._kept[0].lsn < lsns[-1]:
            stop = int(np.searchsorted(lsns, self._kept[0].lsn, side="right"))
            start = self._section(segment, scan, start, stop)
            self._compare(self._kept.pop(0))
        self._section(segment, scan, start, len(lsns))

    def finish(self) -> None:
        """No more segments."""
        for kept in self._kept:
            self._compare(kept)

    # -- folding ---------------------------------------------------------------------------------------------

    def _section(self, segment: int, scan: SegmentScan, start: int, stop: int) -> int:
        if start >= stop:
            return start
        first, behind = int(scan.first[start]), int(scan.first[stop])
        begin, end = np.searchsorted(scan.folded, (first, behind)).tolist()
        chosen, bodies, records = self._records(scan, begin, end)
        numbers = scan.folded[chosen]
        groups = np.searchsorted(scan.first, numbers, side="right") - 1
        positions = self.state.positions
        streams = scan.frames["stream"][numbers].tolist()
        for number, stream, group, body, record in zip(
            numbers.tolist(), streams, groups.tolist(), bodies, records, strict=True
        ):
            if type(record) is Moved:  # in most logs nearly all of these are positions
                positions.update(record.values)  # type: ignore[arg-type]
                continue
            if stream != CONTROL_ID:
                problem = self._rows(stream, scan, group, number, body)
            elif isinstance(record, UNREADABLE):
                problem = f"control record cannot be read ({record})"
            else:
                assert record is not None
                problem = self._record(scan.groups[group], record, body)
            if problem:
                self._contradiction(segment, scan, group, problem)
        for name in [name for name, value in positions.items() if value is None]:
            positions.pop(name)
        self._headers(scan, start, stop, first, behind)
        self._appends(segment, scan, start, stop)
        return stop

    def _records(
        self, scan: SegmentScan, begin: int, end: int
    ) -> tuple[NDArray[np.int64], list[bytes], list[Record | _Unreadable | None]]:
        """(numbers of folded frames that say something, their bodies, the control record in each).

        Of positions that are named again and again only the last record says something, if all can be read.
        """
        streams = scan.frames["stream"][scan.folded[begin:end]]
        chosen = np.arange(begin, end)
        if self._compiled:
            from ringmain.log.check.replaced import not_replaced

            starts = scan.bodies.starts[begin : end + 1]
            needed = not_replaced(streams, scan.bodies.data, starts, _POSITIONS_BEGIN)
            found = _decoded(scan, chosen[needed], streams[needed])
            if not any(isinstance(record, UNREADABLE) for record in found[2]):
                return found
        return _decoded(scan, chosen, streams)

    def _record(self, group: Any, record: Record, body: bytes) -> str:
        before = self.state.producers.get(record.name) if isinstance(record, Claimed) else None
        epoch = None if before is None else before.epoch
        header = GroupHeader._make(group.item())
        if not self.state.apply_record(body[4 : 4 + int.from_bytes(body[:4], "little")], header):
            return "control record cannot be applied"
        if isinstance(record, Claimed) and record.epoch != epoch:
            self._claimed_at[record.producer] = header.lsn
        return ""

    def _rows(self, stream: int, scan: SegmentScan, group: int, number: int, body: bytes) -> str:
        entry = self.state.by_id[stream]
        rows = entry.layout.decode(FrameHeader._make(scan.frames[number].item()), body)
        if rows is None:
            return f"rows of stream {entry.stream.name} cannot be decoded"
        if stream == LEDGER_ID:
            place = number - int(scan.first[group])
            self.state.apply_ledger(rows, offset_of(int(scan.groups["lsn"][group]), place))
        elif stream == CATALOGUE_ID:
            return "; ".join(self.catalogue.apply(rows).problems[:_SHOWN])
        return ""

    def _headers(self, scan: SegmentScan, start: int, stop: int, first: int, behind: int) -> None:
        """As `ControlState.apply_headers`, for many groups at once."""
        state, groups = self.state, scan.groups[start:stop]
        state.lsn = int(groups["lsn"][-1])
        state.arrival_ns = max(state.arrival_ns, int(groups["arrival_ns"].max()))
        state.clock_segment = max(state.clock_segment, int((groups["clock_state"] & 0x7FFF).max()))
        if first == behind:
            return
        last = start + int(np.flatnonzero(groups["frame_count"])[-1])
        self.end_offset = offset_of(int(scan.groups["lsn"][last]), int(scan.groups["frame_count"][last]) - 1)
        frames = scan.frames[first:behind]
        state.series_count = max(state.series_count, int(frames["catalogue_position"].max()))
        sums = stream_sums(frames, compiled=self._compiled)
        for stream, count, last in zip(
            sums.streams.tolist(), sums.frames.tolist(), sums.last.tolist(), strict=True
        ):
            entry = state.by_id.get(stream)
            if entry is None:
                continue
            number = first + last
            group = int(np.searchsorted(scan.first, number, side="right")) - 1
            counts = entry.counts
            counts.rows = int(scan.frames["cumulative_rows"][number])
            counts.frames += count
            counts.last_offset = offset_of(int(scan.groups["lsn"][group]), number - int(scan.first[group]))
            counts.last_incarnation = int(scan.groups["incarnation"][group])
            counts.last_arrival_ns = int(scan.groups["arrival_ns"][group])

    def _appends(self, segment: int, scan: SegmentScan, start: int, stop: int) -> None:
        """The newest append of every producer and epoch, and that no sequence comes twice."""
        groups, first = scan.groups[start:stop], scan.first[start : stop + 1]
        sums = producer_sums(groups, first, scan.frames, self._internal, compiled=self._compiled)
        if not sums.rising.all():
            self._tell_repeated(segment, scan, start, stop)
        state = self.state
        for identity, epoch, begin, last in zip(
            sums.producers.tolist(),
            sums.epochs.tolist(),
            sums.first.tolist(),
            sums.last.tolist(),
            strict=True,
        ):
            group = start + last
            header = scan.groups[group]
            lsn, sequence = int(header["lsn"]), int(scan.frames["sequence"][scan.first[group + 1] - 1])
            before = self._sequences.get((identity, epoch))
            if before is not None:
                frame = scan.frames[scan.first[start + begin + 1] - 1]
                if int(frame["sequence"]) <= before[0]:
                    self._repeated(segment, scan, start + begin, before[1], frame)
            self._sequences[identity, epoch] = sequence, lsn
            producer = state.producers_by_id.get(identity)
            if producer is None:
                if self._complete and not self._broken:
                    self._contradiction(segment, scan, group, f"producer {identity:016x} has no claim")
                continue
            if epoch and epoch == producer.epoch and lsn < self._claimed_at.get(identity, 0):
                continue  # the same epoch was claimed again later: the log then forgets what it held before
            offset = offset_of(lsn, int(header["frame_count"]) - 1)
            producer.appended(epoch, sequence, int(header["digest"]), offset, int(header["arrival_ns"]))

    def _tell_repeated(self, segment: int, scan: SegmentScan, start: int, stop: int) -> None:
        """Every sequence among these groups that is not above the one before."""
        groups, first = scan.groups[start:stop], scan.first[start : stop + 1]
        chosen, last = last_frames(groups, first, scan.frames, self._internal)
        order = np.lexsort((last["epoch"], last["producer"]))
        producers, epochs, sequences = (last[name][order] for name in ("producer", "epoch", "sequence"))
        same = (producers[1:] == producers[:-1]) & (epochs[1:] == epochs[:-1])
        for place in (np.flatnonzero(same & (sequences[1:] <= sequences[:-1])) + 1).tolist():
            group, before = (start + int(chosen[order[one]]) for one in (place, place - 1))
            self._repeated(segment, scan, group, int(scan.groups["lsn"][before]), last[order[place]])

    def _repeated(
        self,
        segment: int,
        scan: SegmentScan,
        group: int,
        earlier: int,
        frame: Any,
    ) -> None:
        """The last frame of a group has a sequence that is not above that of lsn `earlier`."""
        identity = int(frame["producer"])
        lsn = int(scan.groups["lsn"][group])
        if int(frame["epoch"]) and earlier < self._claimed_at.get(identity, 0) <= lsn:
            return
        known = self.state.producers_by_id.get(identity)
        name = f"{identity:016x}" if known is None else repr(known.name)
        self._contradiction(
            segment,
            scan,
            group,
            f"producer {name}: expected a sequence above that of lsn {earlier} in epoch {int(frame['epoch']):x}, "
            f"found {int(frame['sequence'])}",
        )

    def _contradiction(self, segment: int, scan: SegmentScan, group: int, reason: str) -> None:
        at, header = int(scan.at[group]), scan.groups[group]
        self.problems.append(
            Problem(
                f"segment {segment}",
                reason,
                Remedy.REPORT,
                at,
                at + int(header["length"]),
                int(header["lsn"]),
            )
        )

    # -- comparing -------------------------------------------------------------------------------------------

    def _compare(self, kept: Kept) -> None:
        if self._broken:
            self.notes.append(f"{kept.name} is not compared with the frames: {self._broken}")
            return
        differences = list(_differences(self.state, self.end_offset, kept))
        if differences:
            more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
            self.problems.append(
                Problem(
                    kept.name,
                    f"differs from the frames up to lsn {kept.lsn}: "
                    + "; ".join(differences[:_SHOWN])
                    + more,
                    kept.remedy,
                )
            )


def _decoded(
    scan: SegmentScan, chosen: NDArray[np.int64], streams: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], list[bytes], list[Record | _Unreadable | None]]:
    """(`chosen`, the body of each, and the control record in it or why there is none; None for other streams)."""
    starts, ends = scan.bodies.starts[chosen].tolist(), scan.bodies.starts[chosen + 1].tolist()
    data = scan.bodies.data.data
    bodies = [bytes(data[start:end]) for start, end in zip(starts, ends, strict=True)]
    packed = [
        body[4 : 4 + int.from_bytes(body[:4], "little")] if stream == CONTROL_ID else _NO_RECORD
        for stream, body in zip(streams.tolist(), bodies, strict=True)
    ]
    decode = _DECODER.decode
    try:
        return chosen, bodies, [None if body is _NO_RECORD else decode(body) for body in packed]
    except UNREADABLE:
        return chosen, bodies, [None if body is _NO_RECORD else _record_of(body) for body in packed]


def _record_of(packed: bytes) -> Record | _Unreadable:
    try:
        return _DECODER.decode(packed)
    except UNREADABLE as error:
        return error


def _differences(folded: ControlState, end_offset: int, kept: Kept) -> Iterator[str]:
    """What of a kept state is not as the frames say."""
    state = kept.state
    for name in ("lsn", "arrival_ns", "clock_segment", "series_count", "ledger_offset", "next_stream_id"):
        expected, found = getattr(folded, name), getattr(state, name)
        if expected != found:
            yield f"{name}: expected {expected}, found {found}"
    if end_offset != kept.end_offset:
        yield f"end: expected {end_offset:x}, found {kept.end_offset:x}"
    yield from _entries("position", folded.positions, state.positions)
    yield from _entries("producer", folded.producers, state.producers)
    if folded.lineage:  # else the record of the first opening is not durable yet
        yield from _entries(
            "incarnation",
            {f"{one.id:016x}": one for one in folded.lineage},
            {f"{one.id:016x}": one for one in state.lineage},
        )
    expected_streams, found_streams = (
        {
            name: (
                entry.stream.id,
                entry.stream.kind,
                entry.schema_id,
                entry.layout.schema,
                _counts(entry.counts),
            )
            for name, entry in one.streams.items()
        }
        for one in (folded, state)
    )
    yield from _entries("stream", expected_streams, found_streams)
    if len(folded.ledger) < LEDGER_ENTRIES_MAX // 2 and folded.ledger != state.ledger:
        yield f"ledger: expected {len(folded.ledger)} entries, found {len(state.ledger)}, not the same"


def _counts(counts: Any) -> tuple[int, ...]:
    return (
        counts.rows,
        counts.frames,
        counts.last_offset,
        counts.last_incarnation,
        counts.last_arrival_ns,
    )


def _entries(kind: str, expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"{kind} {name!r} is missing"
        elif name not in expected:
            yield f"{kind} {name!r} comes from no frame"
        elif expected[name] != found[name]:
            yield f"{kind} {name!r}: expected {_shown(expected[name])}, found {_shown(found[name])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
