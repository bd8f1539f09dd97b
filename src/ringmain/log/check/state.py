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

from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID, LEDGER_ID
from ringmain.log.check.report import Problem, Remedy
from ringmain.log.check.scan import SegmentScan
from ringmain.log.control import Claimed, ControlState, Moved, Record, producer_id
from ringmain.log.frames import FrameHeader, GroupHeader, offset_of
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX
from ringmain.log.request import INTERNAL
from ringmain.model.catalogue import Catalogue

_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_NO_RECORD = b"none"
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

    def __init__(self, start: Kept | None, kept: list[Kept], *, complete: bool) -> None:
        """`start`: where to begin, None: with nothing; `kept`: what to compare with; `complete`: from the first frame."""
        self.state = ControlState() if start is None else start.state
        self.catalogue = Catalogue()
        self.end_offset = -1 if start is None else start.end_offset
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._kept = sorted(kept, key=lambda one: one.lsn)
        self._complete = complete
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
        numbers = scan.folded[begin:end]
        groups = np.searchsorted(scan.first, numbers, side="right") - 1
        positions = self.state.positions
        streams, bodies = scan.frames["stream"][numbers].tolist(), scan.bodies[begin:end]
        for number, stream, group, body, record in zip(
            numbers.tolist(), streams, groups.tolist(), bodies, _records(streams, bodies), strict=True
        ):
            if type(record) is Moved:  # in most logs nearly all of these are positions
                positions.update(record.values)  # type: ignore[arg-type]
                continue
            if stream != CONTROL_ID:
                problem = self._rows(stream, scan, group, number, body)
            elif isinstance(record, msgspec.MsgspecError):
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
        streams, counted = np.unique(frames["stream"], return_counts=True)
        backwards = frames["stream"][::-1]
        for stream, count in zip(streams.tolist(), counted.tolist(), strict=True):
            entry = state.by_id.get(stream)
            if entry is None:
                continue
            number = behind - 1 - int(np.argmax(backwards == stream))
            group = int(np.searchsorted(scan.first, number, side="right")) - 1
            counts = entry.counts
            counts.rows = int(scan.frames["cumulative_rows"][number])
            counts.frames += count
            counts.last_offset = offset_of(int(scan.groups["lsn"][group]), number - int(scan.first[group]))
            counts.last_incarnation = int(scan.groups["incarnation"][group])
            counts.last_arrival_ns = int(scan.groups["arrival_ns"][group])

    def _appends(self, segment: int, scan: SegmentScan, start: int, stop: int) -> None:
        """The newest append of every producer and epoch, and that no sequence comes twice."""
        chosen = np.flatnonzero(scan.groups["frame_count"][start:stop]) + start
        last = scan.frames[scan.first[chosen + 1] - 1]
        outside = last["producer"] != np.uint64(self._internal)
        chosen, last = chosen[outside], last[outside]
        if not len(chosen):
            return
        order = np.lexsort((last["epoch"], last["producer"]))
        producers, epochs, sequences = (last[name][order] for name in ("producer", "epoch", "sequence"))
        change = (producers[1:] != producers[:-1]) | (epochs[1:] != epochs[:-1])
        begins = np.concatenate([[0], np.flatnonzero(change) + 1])
        ends = np.concatenate([begins[1:], [len(order)]])
        again = np.flatnonzero(~change & (sequences[1:] <= sequences[:-1])) + 1
        for place in again.tolist():
            self._repeated(
                segment, scan, int(chosen[order[place]]), int(chosen[order[place - 1]]), last, order[place]
            )
        state = self.state
        for begin, behind in zip(begins.tolist(), ends.tolist(), strict=True):
            identity, epoch = int(producers[begin]), int(epochs[begin])
            group = int(chosen[order[behind - 1]])
            header = scan.groups[group]
            lsn, sequence = int(header["lsn"]), int(sequences[behind - 1])
            before = self._sequences.get((identity, epoch))
            if before is not None and int(sequences[begin]) <= before[0]:
                self._repeated(segment, scan, int(chosen[order[begin]]), None, last, order[begin], before[1])
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

    def _repeated(
        self,
        segment: int,
        scan: SegmentScan,
        group: int,
        before: int | None,
        last: Any,
        place: Any,
        before_lsn: int = 0,
    ) -> None:
        frame = last[place]
        identity = int(frame["producer"])
        lsn = int(scan.groups["lsn"][group])
        earlier = before_lsn if before is None else int(scan.groups["lsn"][before])
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


def _records(streams: list[int], bodies: list[bytes]) -> list[Record | msgspec.MsgspecError | None]:
    """The control record in each body, or why there is none; None for frames of other streams."""
    packed = [
        body[4 : 4 + int.from_bytes(body[:4], "little")] if stream == CONTROL_ID else _NO_RECORD
        for stream, body in zip(streams, bodies, strict=True)
    ]
    decode = _DECODER.decode
    try:
        return [None if body is _NO_RECORD else decode(body) for body in packed]
    except msgspec.MsgspecError:
        return [None if body is _NO_RECORD else _decoded(body) for body in packed]


def _decoded(packed: bytes) -> Record | msgspec.MsgspecError:
    try:
        return _DECODER.decode(packed)
    except msgspec.MsgspecError as error:
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
