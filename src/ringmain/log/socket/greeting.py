"""The beginning of a connection to the log's socket, as its client: who speaks which version, and what is granted."""

from __future__ import annotations

from pathlib import Path

from ringmain.log.codec import Codec
from ringmain.log.interface import LogError
from ringmain.log.socket.channel import Channel, connect_socket
from ringmain.log.socket.wire import (
    GREETING,
    MESSAGE_BYTES_MAX,
    VERSION,
    Failure,
    Hello,
    Message,
    ProtocolError,
    Type,
    Welcome,
    error_of,
    meta_of,
    pack,
)

_CONNECT_S = 5.0


def connect_and_greet(directory: Path, program: str) -> tuple[Channel, Welcome, list[Message]]:
    """A connection, what it is granted, and the messages that came right behind.

    Raises OSError where nobody listens, RefusedError, ProtocolError when no version is common, LogError.
    """
    sock = connect_socket(directory, _CONNECT_S)
    channel = Channel(sock, MESSAGE_BYTES_MAX)
    try:
        channel.send(pack(Type.HELLO, 0, Hello(GREETING, VERSION, VERSION, program, subscribe=True)))
        sock.settimeout(_CONNECT_S)
        messages: list[Message] = []
        open_ = True
        while not messages and open_:
            messages, open_ = channel.receive()
        sock.setblocking(False)
        if not messages:
            raise LogError("expected a greeting, the other end closed")
        first, *others = messages
        return channel, _welcomed(first), others
    except BaseException:
        channel.close()
        raise


def _welcomed(first: Message) -> Welcome:
    if first.type == Type.ERROR:
        refusal = error_of(meta_of(first, Failure))
        raise refusal if isinstance(refusal, LogError) else LogError(str(refusal))
    if first.type != Type.WELCOME:
        raise ProtocolError(f"expected a welcome, found a message of type {first.type}")
    welcome = meta_of(first, Welcome)
    if not {Codec.ARROW, Codec.IDS_AND_ARROW} <= set(welcome.codecs):
        raise ProtocolError(
            f"expected a log that takes codecs 1 and 2, found one that takes {welcome.codecs}"
        )
    return welcome
