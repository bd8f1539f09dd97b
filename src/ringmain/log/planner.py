"""Decides what becomes of each append: refused, duplicate, conflict, or a group with its place in the log.

The commit thread plans appends in the order in which they came. Planned state runs ahead of what is durable:
counts of rows, identities of producers, claims. Each plan leaves behind how to take it back, so that appends
whose write failed are forgotten exactly and may be sent again. Lsns are the exception: one that was given to a
group is never given to another, even when the first failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from msgspec.structs import astuple

from ringmain.log.builtin import CONFLICT, CONFLICTS_ID, CONTROL_ID, LEDGER, LEDGER_ID, LedgerKind
from ringmain.log.clock import Stamp
from ringmain.log.codec import Body, Layout, decode_record, encode_record
from ringmain.log.control import Claimed, ControlState, Moved, Producer, decode_claim, producer_id
from ringmain.log.frames import (
    FRAME,
    FRAME_HEADER_BYTES,
    GROUP,
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    VERSION,
    FrameHeader,
    GroupHeader,
    lsn_of,
    offset_of,
    seal_group,
)
from ringmain.log.interface import (
    GROUP_BYTES_MAX,
    PRODUCERS_MAX,
    Appended,
    ConflictError,
    FencedError,
    LogError,
    Position,
    StreamKind,
    TooLargeError,
)
from ringmain.log.ledger.entries import LedgerEntry, ledger_batch
from ringmain.log.request import INTERNAL, EncodedFrame, Request, checksum, internal_frame, too_large
from ringmain.log.writer import PreparedGroup

_logger = logging.getLogger(__name__)
_CONFLICT_PART_BYTES = 512 * 1024
_CONFLICT_PARTS_MAX = 7
_MASK64 = 2**64 - 1
_LEDGER_LAYOUT = Layout(LEDGER)


@dataclass(slots=True)
class Plan:
    """The outcome of planning: a group to write or none, and the answer once everything before is durable."""

    request: Request
    group: PreparedGroup | None
    answer: Any = None
    error: LogError | None = None
    depends_lsn: int = 0
    undo: list[Callable[[], None]] = field(default_factory=list)
    behind_failed: bool = False


class Planner:
    """Planned state. Used by the commit thread alone."""

    def __init__(self, state: ControlState, incarnation: int, next_lsn: int) -> None:
        self.incarnation = incarnation
        self.next_lsn = next_lsn
        self.durable_lsn = state.lsn
        self.series_count = state.series_count
        self._state = state
        self._undo: list[Callable[[], None]] = []  # of the request that is being planned
        self._internal_id = producer_id(INTERNAL.name)
        self._rows = {stream_id: entry.counts.rows for stream_id, entry in state.by_id.items()}
        self._producers: dict[str, Producer] = {}
        self._ids: dict[int, str] = {}
        for name, producer in state.producers.items():
            self._producers[name] = _copy(producer)
            self._ids[producer.id] = name

    # -- deciding --------------------------------------------------------------------------------------------

    def plan(self, request: Request, stamp: Stamp) -> Plan:
        """What becomes of the request. Never raises; what is refused leaves nothing planned behind."""
        self._undo = []
        try:
            if request.claiming is not None:
                return self._plan_claim(request, *request.claiming, stamp)
            if request.record is not None or request.claim is INTERNAL:
                return self._group(request, None, request.frames, stamp)
            return self._plan_append(request, stamp)
        except LogError as refused:
            error = refused
        except Exception as unexpected:
            _logger.exception("an append of %r cannot be planned", request.claim.name)
            error = LogError(f"claim {request.claim.name!r}: the append cannot be stored ({unexpected!r})")
        for take_back in reversed(self._undo):
            take_back()
        return Plan(request, None, error=error)

    def _plan_append(self, request: Request, stamp: Stamp) -> Plan:
        claim = request.claim
        producer = self._producers.get(claim.name)
        if producer is None or producer.fence != claim.fence or producer.epoch != claim.epoch:
            newest = 0 if producer is None else producer.fence
            raise FencedError(
                f"claim {claim.name!r} with fence {claim.fence} is no longer the owner: fence {newest} is; stop this copy"
            )
        if request.positions:
            self._check_owned(claim.name, request.positions)
        known, digest, offset, arrival = producer.last(claim.epoch)
        if request.sequence > known:
            return self._group(request, producer, request.frames, stamp)
        if request.sequence < known:
            return Plan(request, None, Appended(None, arrival, duplicate=True), depends_lsn=lsn_of(offset))
        if digest == request.digest:
            incarnation = self._state.incarnation_at(lsn_of(offset)) or self.incarnation
            position = Position(incarnation, 0, offset)
            return Plan(
                request, None, Appended(position, arrival, duplicate=True), depends_lsn=lsn_of(offset)
            )
        return self._plan_conflict(request, stamp)

    def _check_owned(self, name: str, positions: Mapping[str, bytes | None]) -> None:
        prefix = name + "/"
        for position in positions:
            if position == name:
                continue
            if not position.startswith(prefix):
                raise FencedError(
                    f"position {position!r} does not belong to claim {name!r}: expected it or a name below it"
                )
            owner = position
            while len(owner) > len(name):
                if owner in self._producers:
                    raise FencedError(
                        f"position {position!r} belongs to the claim {owner!r}, not to {name!r}"
                    )
                owner = owner.rpartition("/")[0]

    def _plan_claim(self, request: Request, name: str, epoch: int, stamp: Stamp) -> Plan:
        producer = self._producers.get(name)
        if producer is None:
            identity = producer_id(name)
            if len(self._producers) >= PRODUCERS_MAX:
                raise LogError(f"a log has at most {PRODUCERS_MAX} producers: {name!r} is refused")
            if identity in self._ids or identity == self._internal_id:
                raise LogError(
                    f"claim {name!r} has the same 64-bit id as {self._ids.get(identity)!r}: choose another name"
                )
            producer = Producer(name, identity, 0, epoch)
            self._producers[name] = producer
            self._ids[identity] = name

            def forget() -> None:
                del self._producers[name]
                del self._ids[identity]

            self._undo.append(forget)
        else:
            self._undo.append(self._restorer(name, producer))
        producer.own(producer.fence + 1, epoch)
        record = Claimed(name, producer.id, producer.fence, epoch)
        request.record = record
        source = name.removeprefix("source/")
        uncounted = self._state.accounts.uncounted(source, epoch, stamp.arrival_ns)
        told = [] if uncounted is None else [_ledger_frame([uncounted])]
        plan = self._group(request, None, told, stamp)
        sequence = producer.last(epoch)[0]
        plan.answer = (producer.fence, None if sequence < 0 else sequence)
        return plan

    def _plan_conflict(self, request: Request, stamp: Stamp) -> Plan:
        claim = request.claim
        error = ConflictError(
            f"producer {claim.name!r} sent epoch {claim.epoch} sequence {request.sequence} before, with another body: "
            "two boxes with one identity, or a restored one; the batch is kept in stream conflicts"
        )
        layout = Layout(CONFLICT)
        frames = [
            self._conflict_frame(layout, request, frame, part, parts, body, stamp)
            for frame, part, parts, body in _parts(request)
        ]
        request.series_count = 0  # the series that it brought are not taken over
        frames.append(_ledger_frame(self._conflict_entries(request, len(frames), stamp)))
        plan = self._group(request, None, frames, stamp)
        plan.error = error
        return plan

    def _conflict_entries(self, request: Request, frame_count: int, stamp: Stamp) -> list[LedgerEntry]:
        """What the ledger says of a refused append: an entry for each data stream; the place is where it is kept."""
        first, last = (
            str(Position(self.incarnation, 0, offset_of(self.next_lsn, place)))
            for place in (0, max(frame_count - 1, 0))
        )
        rows: dict[str | None, list[int]] = {}
        for frame in request.frames:
            if frame.kind != StreamKind.CONTROL:
                sums = rows.setdefault(frame.stream, [0, 0])
                sums[0] += frame.body.rows
                sums[1] += frame.body.length
        source = request.claim.name.removeprefix("source/")
        reason = "same identity with another body; kept in stream conflicts"
        return [
            LedgerEntry(
                LedgerKind.CONFLICT, stream, source, first, last, size, count, reason, stamp.arrival_ns
            )
            for stream, (count, size) in (rows or {None: [0, 0]}).items()
        ]

    def _conflict_frame(
        self,
        layout: Layout,
        request: Request,
        frame: EncodedFrame,
        part: int,
        parts: int,
        body: bytes,
        stamp: Stamp,
    ) -> EncodedFrame:
        row = {
            "claim": request.claim.name,
            "epoch": request.claim.epoch,
            "sequence": request.sequence,
            "stream": frame.stream,
            "rows": frame.body.rows,
            "part": part,
            "parts": parts,
            "body": body,
            "time": stamp.arrival_ns,
        }
        columns = [
            pa.array([row[column.name]], pa.int64() if column.name == "time" else column.type)
            for column in CONFLICT
        ]
        columns[-1] = columns[-1].cast(CONFLICT.field("time").type)
        encoded = layout.encode(pa.RecordBatch.from_arrays(columns, schema=CONFLICT))
        return internal_frame(CONFLICTS_ID, "conflicts", CONFLICTS_ID, encoded)

    def absorb(self, group: PreparedGroup) -> None:
        """Plan on top of a group that recovery found and that is still to be written again."""
        for number, frame in enumerate(group.frames):
            self._rows[frame.stream] = frame.cumulative_rows
            self.series_count = max(self.series_count, frame.catalogue_position)
            data = decode_record(frame, group.body(number)) if frame.stream == CONTROL_ID else None
            claimed = None if data is None else decode_claim(data)
            if claimed is not None:
                owner = self._producers.setdefault(
                    claimed.name, Producer(claimed.name, claimed.producer, claimed.fence, claimed.epoch)
                )
                owner.own(claimed.fence, claimed.epoch)
                self._ids[claimed.producer] = claimed.name
        if group.frames:
            last = group.frames[-1]
            producer = self._producers.get(self._ids.get(last.producer, ""))
            if producer is not None:
                offset = offset_of(group.header.lsn, len(group.frames) - 1)
                producer.appended(
                    last.epoch, last.sequence, group.header.digest, offset, group.header.arrival_ns
                )

    # -- building --------------------------------------------------------------------------------------------

    def _group(
        self, request: Request, producer: Producer | None, frames: Sequence[EncodedFrame], stamp: Stamp
    ) -> Plan:
        claim = request.claim
        if producer is None:
            identity, epoch, sequence = self._internal_id, 0, 0
        else:
            identity, epoch, sequence = producer.id, claim.epoch, request.sequence
        parts = list(frames)
        if request.record is not None:
            parts.append(_control_frame(encode_record(request.record), identity, epoch, sequence))
        elif producer is not None and (request.positions or not parts):
            moved = Moved(dict(request.positions or {}))
            parts.append(_control_frame(encode_record(moved), identity, epoch, sequence))
        lsn = self.next_lsn
        undo = self._undo
        if request.series_count > self.series_count:
            self.series_count = request.series_count
        headers = bytearray(GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * len(parts))
        place = GROUP_HEADER_BYTES
        length = len(headers)
        buffers: list[Any] = [headers]
        frame_headers: list[FrameHeader] = []
        arrival = stamp.arrival_ns
        for part in parts:
            body = part.body
            before = self._rows.get(part.stream_id, 0)
            rows = before + body.rows
            self._rows[part.stream_id] = rows
            undo.append(self._rows_restorer(part.stream_id, before))
            header = FrameHeader(
                body.length,
                part.crc,
                part.stream_id,
                0,
                body.codec,
                part.kind,
                part.schema_id,
                body.rows,
                self.series_count,
                identity,
                epoch,
                sequence,
                body.time_min_ns,
                body.time_max_ns,
                arrival if part.origin_arrival_ns is None else part.origin_arrival_ns,
                rows,
                0,
            )
            FRAME.pack_into(headers, place, *header)
            place += FRAME_HEADER_BYTES
            length += body.length
            buffers.extend(body.buffers)
            frame_headers.append(header)
        if length > GROUP_BYTES_MAX:
            raise TooLargeError(too_large(length))
        self.next_lsn = lsn + 1
        group = GroupHeader(
            GROUP_MAGIC,
            VERSION,
            request.flags,
            length,
            0,
            self.incarnation,
            lsn,
            self.durable_lsn,
            arrival,
            stamp.wall_ns,
            len(parts),
            stamp.state,
            request.digest,
        )
        GROUP.pack_into(headers, 0, *group)
        seal_group(headers)
        answer = None
        if producer is not None:
            undo.append(self._restorer(claim.name, producer))
            offset = offset_of(lsn, len(parts) - 1)
            producer.appended(epoch, sequence, request.digest, offset, arrival)
            answer = Appended(Position(self.incarnation, 0, offset), arrival)
        prepared = PreparedGroup(group, frame_headers, buffers, [part.body for part in parts])
        return Plan(request, prepared, answer, undo=undo)

    def _rows_restorer(self, stream_id: int, rows: int) -> Callable[[], None]:
        def restore() -> None:
            self._rows[stream_id] = rows

        return restore

    def _restorer(self, name: str, producer: Producer) -> Callable[[], None]:
        before = astuple(producer)

        def restore() -> None:
            self._producers[name] = Producer(*before)

        return restore

    def take_back(self, plans: Sequence[Plan]) -> None:
        """Forget plans whose groups did not become durable; they are the newest ones."""
        for plan in reversed(plans):
            for undo in reversed(plan.undo):
                undo()


def _control_frame(body: Body, producer: int, epoch: int, sequence: int) -> EncodedFrame:
    crc = checksum(body, producer, epoch, sequence, StreamKind.CONTROL)
    return EncodedFrame(CONTROL_ID, "control", StreamKind.CONTROL, 0, body, crc, None)


def _ledger_frame(entries: list[LedgerEntry]) -> EncodedFrame:
    return internal_frame(LEDGER_ID, "ledger", LEDGER_ID, _LEDGER_LAYOUT.encode(ledger_batch(entries)))


def _parts(request: Request) -> list[tuple[EncodedFrame, int, int, bytes]]:
    """The bodies of a refused append in pieces that fit a frame, as many as fit a group."""
    pieces: list[tuple[EncodedFrame, int, int, bytes]] = []
    for frame in request.frames:
        whole = b"".join(frame.body.buffers)
        parts = -(-len(whole) // _CONFLICT_PART_BYTES) or 1
        for part in range(parts):
            if len(pieces) == _CONFLICT_PARTS_MAX:
                return pieces
            pieces.append(
                (frame, part, parts, whole[part * _CONFLICT_PART_BYTES : (part + 1) * _CONFLICT_PART_BYTES])
            )
    return pieces


def _copy(producer: Producer) -> Producer:
    return Producer(*astuple(producer))
