"""The messages of the log's socket: their bytes, what is in them, and the errors that travel by kind.

Every message is a 24-byte header, a MessagePack map that is padded to 8 bytes, and data: raw frames as the
journal keeps them, or an Arrow IPC stream. One CRC-32C covers all of it. `docs/wire-protocol.md` is the
specification; this module is its words in code, for both ends, and knows nothing of sockets.

Reading raises `ProtocolError` for whatever is not a message: a peer may send anything.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import msgspec
from crc32c import crc32c

from ringmain.log.interface import (
    GROUP_BYTES_MAX,
    ConflictError,
    FencedError,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
    PositionGoneError,
    TooLargeError,
    UnknownStreamError,
)

SOCKET_NAME = "log.sock"
VERSION = 1
"""Version of the protocol that this code speaks; a peer says which it does, from and to."""
GREETING = "ringmain-log"
HEADER = struct.Struct("<IIBBHIQ")
HEADER_BYTES = HEADER.size
MESSAGE_BYTES_MAX = GROUP_BYTES_MAX + (1 << 20)
"""Bytes of a message without its header."""
HELLO_BYTES_MAX = 4096
"""The same for the first message of a connection, before anything is known of the peer."""
INFLIGHT_BYTES_MAX = 16 << 20
"""Bytes of appends of one connection that may wait for their answer."""
INFLIGHT_APPENDS_MAX = 4096
PAGE_BYTES = 256 << 10
"""Answers that list something come in pages of about this size."""
_CRC_AT = 4
_PADDING = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")


class Type(IntEnum):
    """What a message is. Below 64: from the client; from 64 on: from the log."""

    HELLO = 1
    APPEND = 2
    CLAIM = 3
    CREATE = 4
    REGISTER = 5
    RETAIN = 6
    STREAMS = 7
    POSITIONS = 8
    LEDGER = 9
    CATALOGUE = 10
    FIND = 11
    READ = 12
    CREDIT = 14
    STOP = 15
    END = 16
    WELCOME = 64
    ANSWER = 65
    APPENDED = 66
    DURABLE = 67
    FRAMES = 68
    READ_END = 69
    ERROR = 127


class ProtocolError(LogError):
    """The peer does not speak the protocol of the log's socket."""


class RefusedError(LogError):
    """The policy of the log does not grant this to the peer."""


# -- maps ----------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct):
    """First message of a client: the versions that it speaks, and what it is, for people.

    `subscribe`: it wants to be told how far the log is durable.
    """

    greeting: str
    version_min: int
    version_max: int
    program: str = ""
    subscribe: bool = False


class Welcome(msgspec.Struct):
    """The answer to `Hello`: the version that is spoken from now on, the log, its limits, and the grant."""

    version: int
    program: str
    incarnation: int
    format_version: int
    codecs: list[int]
    message_bytes_max: int
    frame_bytes_max: int
    group_bytes_max: int
    inflight_bytes_max: int
    inflight_appends_max: int
    append: bool
    claims: str
    streams: list[str]
    files: bool
    registrar: bool


class AppendHead(msgspec.Struct):
    """An append; its data is `frames` frame headers and then their bodies in the same order."""

    claim: str
    fence: int
    epoch: int
    sequence: int
    frames: int
    failures_seen: int = 0
    positions: dict[str, bytes | None] | None = None


class Placed(msgspec.Struct):
    """The answer to an append: where its last frame lies; offset None for a duplicate that is older than the last."""

    incarnation: int
    offset: int | None
    arrival_ns: int
    duplicate: bool


class ClaimName(msgspec.Struct):
    """Own a name; epoch None: the log draws one."""

    name: str
    epoch: int | None = None


class ClaimGiven(msgspec.Struct):
    """The claim. Positions below it are asked for with `PrefixAfter`."""

    fence: int
    epoch: int
    last_sequence: int | None


class NewStream(msgspec.Struct):
    """A stream to be there; `schema` is an Arrow IPC schema message."""

    name: str
    kind: int
    schema: bytes


class StreamTold(msgspec.Struct):
    """A stream with its counts; `last` is (incarnation, offset) of its newest durable frame."""

    id: int
    name: str
    kind: int
    schema_id: int
    schema: bytes
    rows: int = 0
    frames: int = 0
    last: tuple[int, int] | None = None
    last_arrival_ns: int = 0


class PrefixAfter(msgspec.Struct):
    """A page of what has names: those that start with `prefix` and sort behind `after`."""

    prefix: str = ""
    after: str | None = None


class StreamPage(msgspec.Struct):
    """Streams by name. `more`: ask again, after the last of them."""

    streams: list[StreamTold]
    more: bool


class PositionPage(msgspec.Struct):
    """Named positions by name. `more`: ask again, after the last of them."""

    positions: dict[str, bytes]
    more: bool


class Series(msgspec.Struct):
    """Series that the source brings: they get ids, new ones where a key is new."""

    source: str
    keys: list[str]
    attributes: list[SeriesTold | None] | None = None


class SeriesTold(msgspec.Struct, omit_defaults=True):
    """What is known about a series."""

    unit: str | None = None
    quantity: str | None = None
    medium: str | None = None
    device: str | None = None
    place: str | None = None
    owner: str | None = None
    external: dict[str, str] = {}


class SeriesIds(msgspec.Struct):
    """Ids in the order of the keys; -1 where the source has brought as many series as it may."""

    ids: list[int]


class From(msgspec.Struct):
    """Catalogue entries with ids from this one on; the answer's data is an Arrow IPC stream of some of them."""

    series: int


class CataloguePage(msgspec.Struct):
    """`next`: the first id that is not in this page, None when there is none; `count` of series as `series_count`."""

    next: int | None
    count: int


class FindTime(msgspec.Struct):
    """The newest position of a stream that arrived before a time."""

    stream: str
    arrival_ns: int


class PositionTold(msgspec.Struct):
    """(incarnation, partition, offset), or None."""

    position: tuple[int, int, int] | None


class Limits(msgspec.Struct):
    """Retention: remove whole oldest segments beyond these."""

    age_ns: int | None = None
    size_bytes: int | None = None


class Count(msgspec.Struct):
    """A number of something."""

    count: int


class ReadFrom(msgspec.Struct):
    """A read, with the meaning of `LogReader.read`. `credit_bytes`: how much may come before more is granted."""

    streams: list[str]
    credit_bytes: int
    after: tuple[int, int, int] | None = None
    until: tuple[int, int, int] | None = None
    follow: bool = False
    timeout_ms: int | None = None
    time_min_ns: int | None = None
    time_max_ns: int | None = None
    series: int | None = None


class Credit(msgspec.Struct):
    """So many bytes more may come for a read."""

    bytes: int


class Nothing(msgspec.Struct):
    """An empty map."""


class DurableUpTo(msgspec.Struct):
    """How far the log is durable: everything in segment up to byte `end`. Each tells all that came before."""

    incarnation: int
    lsn: int
    segment: int
    end: int
    arrival_ns: int


class Failure(msgspec.Struct):
    """Why not: a kind that a program understands and a message for people."""

    kind: str
    message: str


# -- bytes ---------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """A message as it came; `meta` is the map and `data` what lies behind it, views of what was received."""

    type: int
    request: int
    meta: memoryview
    data: memoryview


_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}
M = TypeVar("M", bound=msgspec.Struct)


def pack(
    kind: Type, request: int, meta: msgspec.Struct, data: Sequence[Any] = (), data_bytes: int = 0
) -> list[Any]:
    """The buffers of a message. `data_bytes` is the sum of the buffers of `data`."""
    body = _encode(meta)
    size = len(body)
    body += _PADDING[size % 8]
    head = bytearray(HEADER_BYTES + len(body))
    HEADER.pack_into(head, 0, len(body) + data_bytes, 0, kind, 0, 0, size, request)
    head[HEADER_BYTES:] = body
    crc = crc32c(head)
    for buffer in data:
        crc = crc32c(buffer, crc)
    struct.pack_into("<I", head, _CRC_AT, crc)
    return [head, *data]


def unpack(raw: memoryview) -> Message:
    """The message in these bytes, which are those of one message. Raises ProtocolError."""
    length, crc, kind, flags, reserved, size, request = HEADER.unpack_from(raw)
    zeroed = crc32c(raw[8:], crc32c(b"\0\0\0\0", crc32c(raw[:4])))
    if zeroed != crc:
        raise ProtocolError(
            f"expected a message with CRC-32C {zeroed:08x}, found {crc:08x}: it was damaged on its way"
        )
    padded = (size + 7) // 8 * 8
    if flags or reserved or padded > length:
        raise ProtocolError(
            f"expected flags and reserved bits of zero and a map within {length} bytes, found {flags}, {reserved}, {size}"
        )
    start = HEADER_BYTES
    return Message(kind, request, raw[start : start + size], raw[start + padded :])


def message_bytes(header: bytes | bytearray | memoryview, limit: int) -> int:
    """The bytes of the message whose header this is, header included. Raises ProtocolError beyond `limit`."""
    length = int.from_bytes(header[:4], "little")
    if length > limit or length % 8:
        raise ProtocolError(
            f"expected a message of at most {limit} bytes in steps of 8, found a length of {length}"
        )
    return HEADER_BYTES + length


def meta_of(message: Message, kind: type[M]) -> M:
    """The map of a message. Raises ProtocolError when it is not such a one."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        found: M = decoder.decode(message.meta)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"message of type {message.type}: expected a map as for {kind.__name__}: {error}"
        ) from None
    return found


# -- errors --------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[LogError]] = {
    "unknown-stream": UnknownStreamError,
    "too-large": TooLargeError,
    "fenced": FencedError,
    "conflict": ConflictError,
    "full": LogFullError,
    "failed": LogFailedError,
    "position-gone": PositionGoneError,
    "refused": RefusedError,
    "protocol": ProtocolError,
    "log": LogError,
}
_OF_TYPE: dict[type[Exception], str] = {kind: name for name, kind in _KINDS.items()}
WRITER_STOPS = "the process that writes the log is stopping: send again when it is back"


def failure_of(error: Exception) -> Failure:
    """An error as it travels. A log that is closed is, for whoever is not in its process, one that failed."""
    if isinstance(error, LogClosedError):
        return Failure("failed", WRITER_STOPS)
    name = _OF_TYPE.get(type(error))
    if name is not None:
        return Failure(name, str(error))
    if isinstance(error, ValueError):
        return Failure("value", str(error))
    return Failure(
        "log", str(error) if isinstance(error, LogError) else f"the log's socket failed: {error!r}"
    )


def error_of(failure: Failure) -> LogError | ValueError:
    """The error that travelled."""
    if failure.kind == "value":
        return ValueError(failure.message)
    return _KINDS.get(failure.kind, LogError)(failure.message)
