"""What the supervising process and a part say to each other, over a socket pair that only the two of them hold.

A message is a length (4 bytes, little endian) and so many bytes of MessagePack: a tagged map. The end of the stream
is the end of the other side: a part whose supervisor is gone ends by itself.
"""

from __future__ import annotations

import struct

import msgspec

from ringmain.runtime.part_status import PartStatus

MESSAGE_BYTES_MAX = 16 << 20
_LENGTH = struct.Struct("<I")


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """To a part: the log can be had. `first`: it was never begun before, so that what is said once may be said."""

    first: bool


class Peers(msgspec.Struct, frozen=True, tag="peers"):
    """To the server: every part, and the newest report of each (`report.PartReport` as MessagePack)."""

    started_ns: int
    ready: bool
    parts: tuple[PartStatus, ...]
    reports: dict[str, bytes]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """To the intake: take nothing more, acknowledge what was taken, and go on serving the log."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """To a part: read the configuration file again, and take over what changed."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """To a part: end."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """From a part, once a second at least: it lives. `body` is a `report.PartReport`, empty before it works."""

    body: bytes = b""


class Running(msgspec.Struct, frozen=True, tag="running"):
    """From a part: it works. From the intake: the log can be had."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a part: all its listeners accept, at these addresses."""

    addresses: dict[str, str]


class Informed(msgspec.Struct, frozen=True, tag="informed"):
    """From the server: it has taken in that the node is ready."""


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """From the intake: done with `Drain`."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From a part that is about to end: it cannot be started as things are; the message is for the operator."""

    message: str


class Found(msgspec.Struct, frozen=True, tag="found"):
    """From a part: what its process before was at when it ended."""

    message: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From a part that is about to end: an error that nobody expected, in one line."""

    message: str


ToPart = Begin | Peers | Drain | Reload | Stop
FromPart = Report | Running | Ready | Informed | Drained | Refused | Found | Failed

_encoder = msgspec.msgpack.Encoder()


class MalformedError(Exception):
    """The other side sent something that is no message."""


def encode(message: ToPart | FromPart) -> bytes:
    """The message as it travels."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Incoming:
    """Takes bytes as they come and gives the whole messages in them."""

    def __init__(self, kind: object) -> None:
        """`kind` is `ToPart` or `FromPart`."""
        self._decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(kind)
        self._bytes = bytearray()

    def feed(self, received: bytes) -> list[object]:
        """The messages that are complete now. Raises MalformedError."""
        self._bytes += received
        messages = []
        start = 0
        while len(self._bytes) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes, start)
            if length > MESSAGE_BYTES_MAX:
                raise MalformedError(
                    f"expected a message of at most {MESSAGE_BYTES_MAX} bytes, found {length}"
                )
            end = start + _LENGTH.size + length
            if end > len(self._bytes):
                break
            try:
                messages.append(self._decoder.decode(memoryview(self._bytes)[start + _LENGTH.size : end]))
            except msgspec.MsgspecError as error:
                raise MalformedError(f"expected a message of the parts, found: {error}") from None
            start = end
        del self._bytes[:start]
        return messages
