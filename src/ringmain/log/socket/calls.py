"""What may be asked of the log through its socket, besides appends and reads; each answered under a grant.

Runs on a thread for calls, where it may wait for the log. An answer that lists something comes in pages, so that no
answer is larger than a message, however many streams or positions there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from ringmain.log.control import StreamEntry
from ringmain.log.interface import LogError, Position, StreamKind
from ringmain.log.ledger.entries import ledger_batch
from ringmain.log.reader import find
from ringmain.log.socket.access import Grant
from ringmain.log.socket.served import Registrar, Served
from ringmain.log.socket.wire import (
    PAGE_BYTES,
    CataloguePage,
    ClaimGiven,
    ClaimName,
    Count,
    FindTime,
    From,
    Limits,
    Message,
    NewStream,
    Nothing,
    PositionPage,
    PositionTold,
    PrefixAfter,
    ProtocolError,
    RefusedError,
    Series,
    SeriesIds,
    StreamPage,
    StreamTold,
    Type,
    meta_of,
)
from ringmain.model.catalogue import SeriesAttributes

_KEYS_MAX = 65_536
PRODUCERS_OF_OTHERS_MAX = 1_024
"""Names that another user may claim."""

Answer = tuple[msgspec.Struct, Sequence[Any], int]
"""The map, the data, and the bytes of the data."""


class SocketCalls:
    """Answers calls of one connection."""

    def __init__(self, served: Served, registrar: Registrar | None, grant: Grant) -> None:
        self._served = served
        self._registrar = registrar
        self._grant = grant

    def answer_to(self, message: Message) -> Answer:
        """The answer. Raises LogError that is to be told, ProtocolError."""
        return _CALLS[Type(message.type)](self, message)

    def check_readable(self, name: str) -> None:
        """Raise RefusedError for a stream that the grant does not show."""
        if not self._grant.may_read(name):
            raise RefusedError(f"stream {name!r}: {self._grant.told()}")

    def _claim(self, message: Message) -> Answer:
        wanted = meta_of(message, ClaimName)
        if not self._grant.may_claim(wanted.name):
            raise RefusedError(f"claim {wanted.name!r}: {self._grant.told()}")
        self._check_producers(wanted.name)
        claim = self._served.claim(wanted.name, wanted.epoch)
        return ClaimGiven(claim.fence, claim.epoch, claim.last_sequence), (), 0

    def _check_producers(self, name: str) -> None:
        """A log has places for so many producers: another user must not take them all."""
        if self._grant.everything:
            return
        store = self._served.store
        with store.lock:
            known = store.state.producers
            taken = 0 if name in known else sum(1 for one in known if self._grant.may_claim(one))
        if taken >= PRODUCERS_OF_OTHERS_MAX:
            raise RefusedError(
                f"claim {name!r}: expected at most {PRODUCERS_OF_OTHERS_MAX} names below {self._grant.claims!r}"
            )

    def _create(self, message: Message) -> Answer:
        self._check_everything("creating streams")
        wanted = meta_of(message, NewStream)
        try:
            kind = StreamKind(wanted.kind)
            schema = pa.ipc.read_schema(pa.py_buffer(wanted.schema))
        except (pa.ArrowException, ValueError, OSError) as error:
            raise ProtocolError(
                f"stream {wanted.name!r}: expected a kind and an Arrow schema: {error}"
            ) from None
        stream = self._served.create_stream(wanted.name, kind, schema)
        return _told(self._served.store.state.by_id[stream.id]), (), 0

    def _register(self, message: Message) -> Answer:
        wanted = meta_of(message, Series)
        registrar = self._registrar
        if registrar is None:
            raise LogError(
                "the process that writes this log gives no ids: append the entries of the catalogue yourself"
            )
        if not self._grant.append:
            raise RefusedError(f"registering series: {self._grant.told()}")
        if len(wanted.keys) > _KEYS_MAX or (wanted.attributes and len(wanted.attributes) != len(wanted.keys)):
            raise ProtocolError(f"expected at most {_KEYS_MAX} keys, and attributes for each or none")
        # the limit of series is one a source: others are one source each, whatever they call themselves
        source = wanted.source if self._grant.everything else self._grant.claims
        ids: list[int] = []
        for number, key in enumerate(wanted.keys):
            told = wanted.attributes[number] if wanted.attributes else None
            attributes = (
                SeriesAttributes() if told is None else SeriesAttributes(**msgspec.structs.asdict(told))
            )
            ids.append(registrar.register(source, key, attributes))
        registrar.save()
        return SeriesIds(ids), (), 0

    def _retain(self, message: Message) -> Answer:
        self._check_everything("retention")
        limits = meta_of(message, Limits)
        return Count(self._served.retain(limits.age_ns, limits.size_bytes)), (), 0

    def _streams(self, message: Message) -> Answer:
        wanted = meta_of(message, PrefixAfter)
        store = self._served.store
        page: list[StreamTold] = []
        size = 0
        with store.lock:
            for name in sorted(store.state.streams):
                if not name.startswith(wanted.prefix) or (wanted.after is not None and name <= wanted.after):
                    continue
                if not self._grant.may_read(name):
                    continue
                if size > PAGE_BYTES:
                    return StreamPage(page, more=True), (), 0
                page.append(_told(store.state.streams[name]))
                size += len(page[-1].schema) + 256
        return StreamPage(page, more=False), (), 0

    def _positions(self, message: Message) -> Answer:
        wanted = meta_of(message, PrefixAfter)
        store = self._served.store
        page: dict[str, bytes] = {}
        size = 0
        with store.lock:  # commits wait for this: what takes long is done behind it
            found = [
                one
                for one in store.state.positions.items()
                if one[0].startswith(wanted.prefix) and (wanted.after is None or one[0] > wanted.after)
            ]
        for name, value in sorted(found):
            if not self._grant.may_claim(name):
                continue
            if size > PAGE_BYTES:
                return PositionPage(page, more=True), (), 0
            page[name] = value
            size += len(name) + len(value)
        return PositionPage(page, more=False), (), 0

    def _ledger(self, message: Message) -> Answer:
        self.check_readable("ledger")
        meta_of(message, Nothing)
        store = self._served.store
        entries = store.state.ledger_shown()
        data = _ipc([ledger_batch(entries)])
        return Nothing(), (data,), len(data)

    def _catalogue(self, message: Message) -> Answer:
        self.check_readable("catalogue")
        first = meta_of(message, From).series
        if not 0 <= first < 2**32:
            raise ProtocolError(f"expected an id of a series, found {first}")
        store = self._served.store
        with store.lock:
            count = max(store.state.series_count, len(store.catalogue))
        batches = store.catalogue.to_batches(first, PAGE_BYTES)
        if not batches:
            return CataloguePage(None, count), (), 0
        page = batches[0]
        data = _ipc([page])
        return CataloguePage(first + page.num_rows if len(batches) > 1 else None, count), (data,), len(data)

    def _find(self, message: Message) -> Answer:
        wanted = meta_of(message, FindTime)
        self.check_readable(wanted.stream)
        if not -(2**63) <= wanted.arrival_ns < 2**63:
            raise ProtocolError(f"expected nanoseconds of 64 bits, found {wanted.arrival_ns}")
        return _position(find(self._served.store, wanted.stream, wanted.arrival_ns)), (), 0

    def _end(self, message: Message) -> Answer:
        meta_of(message, Nothing)
        return _position(self._served.store.end()), (), 0

    def _check_everything(self, what: str) -> None:
        if not self._grant.everything:
            raise RefusedError(f"{what}: {self._grant.told()}")


_CALLS: dict[Type, Callable[[SocketCalls, Message], Answer]] = {
    Type.CLAIM: SocketCalls._claim,
    Type.CREATE: SocketCalls._create,
    Type.REGISTER: SocketCalls._register,
    Type.RETAIN: SocketCalls._retain,
    Type.STREAMS: SocketCalls._streams,
    Type.POSITIONS: SocketCalls._positions,
    Type.LEDGER: SocketCalls._ledger,
    Type.CATALOGUE: SocketCalls._catalogue,
    Type.FIND: SocketCalls._find,
    Type.END: SocketCalls._end,
}
CALLS = frozenset(_CALLS)
"""The types of messages that are calls."""


def _told(entry: StreamEntry) -> StreamTold:
    counts = entry.counts
    last = (counts.last_incarnation, counts.last_offset) if counts.last_offset >= 0 else None
    stream = entry.stream
    schema = stream.schema.serialize().to_pybytes()
    return StreamTold(
        stream.id,
        stream.name,
        stream.kind,
        entry.schema_id,
        schema,
        counts.rows,
        counts.frames,
        last,
        counts.last_arrival_ns,
    )


def _position(position: Position | None) -> PositionTold:
    if position is None:
        return PositionTold(None)
    return PositionTold((position.incarnation, position.partition, position.offset))


def _ipc(batches: list[pa.RecordBatch]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    raw = bytes(sink.getvalue().to_pybytes())
    return raw + b"\0" * (-len(raw) % 8)
