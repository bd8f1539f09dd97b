"""Appends on their way to the commit thread: encoded, checksummed and measured on the caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from crc32c import crc32c

from ringmain.log.builtin import CATALOGUE_ID, OF_THE_LOG_ALONE
from ringmain.log.codec import Body
from ringmain.log.control import ControlState, Record, producer_id
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, body_crc
from ringmain.log.interface import GROUP_BYTES_MAX, Batch, Claim, LogError, StreamKind, TooLargeError

INTERNAL = Claim("ringmain.log", 0, 0)
"""The log itself as a producer: it needs no claim, and its records have no sequence."""


@dataclass(slots=True)
class EncodedFrame:
    """One batch of an append, encoded and checksummed on the caller's thread."""

    stream_id: int
    stream: str
    kind: int
    schema_id: int
    body: Body
    crc: int
    origin_arrival_ns: int | None


@dataclass(slots=True)
class Request:
    """An append on its way. `record`: a claim or control record instead of batches; `flags` of its group."""

    claim: Claim
    sequence: int
    frames: list[EncodedFrame]
    digest: int
    size: int
    done: Callable[[Any, LogError | None], None] | None
    positions: Mapping[str, bytes | None] | None = None
    record: Record | None = None
    claiming: tuple[str, int] | None = None
    flags: int = 0
    series_count: int = 0
    number: int = 0
    """Counts the requests as they were handed over."""
    in_callback: bool = False
    """Handed over by a callback of the log."""
    waited: bool = False
    """Whoever handed it over waits for the answer: it is told before the callback has returned."""
    refusal: Callable[[], LogError | None] | None = None
    """Asked when everything handed over before is decided: why this one is not to be stored behind it."""


def encode_append(
    state: ControlState,
    batches: Sequence[Batch],
    claim: Claim,
    sequence: int,
    positions: Mapping[str, bytes | None] | None,
) -> Request:
    """An append as a request. Raises UnknownStreamError, TooLargeError, LogError for columns that do not fit.

    The digest identifies its contents: of the data frames, or of the control frames where there are no others,
    so that a repeat may carry other catalogue entries than the first time.
    """
    if not 0 <= sequence < 2**63:
        raise LogError(f"claim {claim.name!r}: expected a sequence from 0 to 2**63 - 1, found {sequence}")
    if positions:
        _check_positions(positions)
    producer = producer_id(claim.name)
    frames: list[EncodedFrame] = []
    size = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * (len(batches) + 1)
    digest = control_digest = series_count = 0
    for batch in batches:
        entry = state.entry(batch.stream)
        stream = entry.stream
        if stream.id in OF_THE_LOG_ALONE:
            raise LogError(of_the_log_alone(stream.name))
        body = entry.layout.encode(batch.rows)
        crc = checksum(body, producer, claim.epoch, sequence, stream.kind)
        origin_ns = batch.origin_arrival_ns
        frames.append(
            EncodedFrame(stream.id, stream.name, stream.kind, entry.schema_id, body, crc, origin_ns)
        )
        size += body.length
        mixed = b"%d %d %d" % (stream.id, crc, body.ids_crc)
        if stream.kind == StreamKind.CONTROL:
            control_digest = crc32c(mixed, control_digest)
        else:
            digest = crc32c(mixed, digest)
        if stream.id == CATALOGUE_ID and isinstance(batch.rows, pa.RecordBatch) and batch.rows.num_rows:
            series_count = max(series_count, 1 + max(batch.rows.column("id").to_pylist()))
    if size > GROUP_BYTES_MAX:
        raise TooLargeError(too_large(size))
    return Request(
        claim, sequence, frames, digest or control_digest, size, None, positions, series_count=series_count
    )


def _check_positions(positions: Mapping[str, bytes | None]) -> None:
    """Raise LogError for what a record of positions would not give back as it was."""
    for name, value in positions.items():
        if not isinstance(name, str) or not name.isprintable():
            raise LogError(f"expected a position name of printable text, found {name!r}")
        if value is not None and not isinstance(value, bytes):
            raise LogError(f"position {name!r}: expected bytes or None, found {type(value).__name__}")


def internal_frame(stream_id: int, stream: str, schema_id: int, body: Body) -> EncodedFrame:
    """A frame that the log itself writes."""
    identity = producer_id(INTERNAL.name)
    crc = checksum(body, identity, 0, 0, StreamKind.CONTROL)
    return EncodedFrame(stream_id, stream, StreamKind.CONTROL, schema_id, body, crc, None)


def checksum(body: Body, producer: int, epoch: int, sequence: int, kind: int) -> int:
    """The body CRC of an encoded body under an identity."""
    return body_crc(
        body.checked,
        producer=producer,
        epoch=epoch,
        sequence=sequence,
        codec=body.codec,
        kind=kind,
        rows=body.rows,
        time_min_ns=body.time_min_ns,
        time_max_ns=body.time_max_ns,
    )


def of_the_log_alone(stream: str) -> str:
    """The message of an append to a stream that the log itself writes."""
    return f"stream {stream!r} is written by the log alone: expected another stream to append to"


def too_large(size: int) -> str:
    """The message of a group beyond its limit."""
    return f"an append holds at most {GROUP_BYTES_MAX} bytes (4 MiB), this one needs {size}: split it, or use load()"
