"""What a listener remembers of its clients beyond a connection, and what of it survives a crash.

A session with an expiry above 0 is kept as two named positions of the source, written in the same append as
the readings that they belong to:

    session/CLIENT   that it exists: expiry and user, so that Session Present is answered truly after a restart
                     (a client that hears 0 throws away what it has not got acknowledged: 3.2.2.1.1 in 5)
    qos2/CLIENT      packet identifiers of QoS 2 messages that are stored but not yet released (4.3.3)

Without an expiry (Clean Session in 3.1.1) the session ends with its connection, on the client's side too: it
is kept in memory only. CLIENT is percent-encoded. The set of identifiers takes 8 KiB at most. Bounded: at most
`away_max` sessions of absent clients; beyond that the one longest away ends, and is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import numpy as np

from ringmain.sources.mqtt_codes import MqttError, Reason
from ringmain.sources.mqtt_packets import Will

if TYPE_CHECKING:
    from ringmain.sources.mqtt_device import Device

SESSION = "session/"
RECEIVED = "qos2/"
RECEIVED_MAX = 10_000
"""QoS 2 messages of one session that are stored and not released; a client that leaves more open is closed."""

RECEIVED_TOTAL_MAX = 1_000_000
"""The same, of all sessions together."""

_LIST, _BITMAP = 1, 2
_LIST_MAX = 4096
_RECORD_VERSION = 1
SUFFIX_CHARS_MAX = 100

Put = Callable[[str, "bytes | None"], None]
"""Takes a position that has to become durable with the next append; None removes it."""


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    """Position `session/CLIENT`, as MessagePack."""

    version: int
    client_id: str
    expiry_s: int
    user: str | None


def position_suffix(client_id: str) -> str:
    """CLIENT in the names of a session's positions: ASCII, one level, at most `SUFFIX_CHARS_MAX` characters."""
    quoted = quote(client_id, safe="")
    if len(quoted) <= SUFFIX_CHARS_MAX:
        return quoted
    return "=" + hashlib.sha256(client_id.encode()).hexdigest()


def encode_identifiers(identifiers: set[int]) -> bytes:
    """A set of packet identifiers: a type byte, then uint16 little endian each, or a bitmap of 65,536 bits."""
    if len(identifiers) <= _LIST_MAX:
        return bytes((_LIST,)) + np.fromiter(identifiers, "<u2", len(identifiers)).tobytes()
    bits = np.zeros(65_536, np.uint8)
    bits[np.fromiter(identifiers, np.int64, len(identifiers))] = 1
    return bytes((_BITMAP,)) + np.packbits(bits, bitorder="little").tobytes()


def decode_identifiers(data: bytes) -> set[int]:
    """The inverse of `encode_identifiers`. ValueError for anything else."""
    if data[:1] == bytes((_LIST,)) and len(data) % 2 == 1:
        return set(np.frombuffer(data, "<u2", offset=1).tolist())
    if data[:1] == bytes((_BITMAP,)) and len(data) == 8193:
        return set(
            np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, offset=1), bitorder="little")).tolist()
        )
    raise ValueError(
        f"expected packet identifiers of a session, found {len(data)} bytes starting {data[:1].hex()}"
    )


@dataclass(frozen=True, slots=True)
class PendingWill:
    """A will that waits for its delay; `identity` makes its event unique."""

    will: Will
    identity: str


class Session:
    """One client's state. `received`: identifiers of QoS 2 messages taken but not released."""

    __slots__ = ("away_since_s", "client_id", "device", "expiry_s", "received", "stored", "user", "will")

    def __init__(self, client_id: str, user: str | None) -> None:
        self.client_id = client_id
        self.user = user
        self.expiry_s = 0
        self.received: set[int] = set()
        self.device: Device | None = None
        self.away_since_s = 0.0
        self.will: PendingWill | None = None
        self.stored: bytes | None = None

    @property
    def lasting(self) -> bool:
        """Whether it outlives its connection, and so has to survive a crash."""
        return self.expiry_s > 0

    @property
    def received_name(self) -> str:
        """Name of the position that holds the received identifiers."""
        return RECEIVED + position_suffix(self.client_id)

    @property
    def session_name(self) -> str:
        """Name of the position that says that the session exists."""
        return SESSION + position_suffix(self.client_id)

    def received_position(self) -> bytes | None:
        """Value of that position."""
        return encode_identifiers(self.received) if self.received else None


class Sessions:
    """All sessions of one listener, by client identifier."""

    def __init__(
        self, away_max: int, put: Put, evicted: Callable[[], None], publish_will: Callable[[Session], None]
    ) -> None:
        self._away_max = away_max
        self._put = put
        self._evicted = evicted
        self._publish_will = publish_will
        self._all: dict[str, Session] = {}
        self._away: dict[str, None] = {}
        self._received = 0

    def __len__(self) -> int:
        return len(self._all)

    def restore(self, positions: Mapping[str, bytes], now_s: float) -> list[str]:
        """Take over what was durable; every client is away as of now. Returns what could not be read."""
        unreadable: list[str] = []
        by_suffix: dict[str, Session] = {}
        for name, value in positions.items():
            if not name.startswith(SESSION):
                continue
            try:
                record = msgspec.msgpack.decode(value, type=SessionRecord)
                if record.version != _RECORD_VERSION:
                    raise ValueError(f"expected version {_RECORD_VERSION}, found {record.version}")
            except (ValueError, msgspec.DecodeError) as error:
                unreadable.append(f"{name}: {error}")
                continue
            session = Session(record.client_id, record.user)
            session.expiry_s, session.stored, session.away_since_s = record.expiry_s, value, now_s
            self._all[session.client_id] = by_suffix[name.removeprefix(SESSION)] = session
            self._away[session.client_id] = None
        for name, value in positions.items():
            owner = by_suffix.get(name.removeprefix(RECEIVED)) if name.startswith(RECEIVED) else None
            if owner is not None:
                try:
                    owner.received = decode_identifiers(value)
                    self._received += len(owner.received)
                except ValueError as error:
                    unreadable.append(f"{name}: {error}")
        return unreadable

    def find(self, client_id: str) -> Session | None:
        """The client's session, if there is one."""
        return self._all.get(client_id)

    def open(self, client_id: str, user: str | None, *, clean: bool, expiry_s: int) -> tuple[Session, bool]:
        """The session for a new connection, and whether it was present (3.2.2.1.1). The caller attaches itself."""
        session = self._all.get(client_id)
        if session is not None and clean:
            self.end(session)
            session = None
        present = session is not None
        if session is None:
            session = self._all[client_id] = Session(client_id, user)
        self._away.pop(client_id, None)
        self.set_expiry(session, expiry_s)
        return session, present

    def set_expiry(self, session: Session, expiry_s: int) -> None:
        """Keep the session that long after its connection; 0: not at all. What changes is put for the next append."""
        session.expiry_s = expiry_s
        record = (
            msgspec.msgpack.encode(SessionRecord(_RECORD_VERSION, session.client_id, expiry_s, session.user))
            if expiry_s
            else None
        )
        if record == session.stored:
            return
        self._put(session.session_name, record)
        if record is None or session.stored is None:
            self._put(session.received_name, session.received_position() if record else None)
        session.stored = record

    def receive(self, session: Session, identifier: int) -> bool:
        """Note a QoS 2 message as received; False when it was already. MqttError beyond the bounds."""
        if identifier in session.received:
            return False
        if len(session.received) >= RECEIVED_MAX or self._received >= RECEIVED_TOTAL_MAX:
            text = f"expected at most {RECEIVED_MAX} messages at QoS 2 without PUBREL, found one more"
            raise MqttError(Reason.QUOTA_EXCEEDED, text)
        session.received.add(identifier)
        self._received += 1
        return True

    def release(self, session: Session, identifier: int) -> bool:
        """The client released the message (PUBREL); False when it was not known."""
        if identifier not in session.received:
            return False
        session.received.discard(identifier)
        self._received -= 1
        return True

    def leave(self, session: Session, now_s: float) -> None:
        """Its connection is gone: the session ends, or waits for its client."""
        session.device = None
        session.away_since_s = now_s
        if not session.lasting:
            self.end(session)
            return
        self._away[session.client_id] = None
        if len(self._away) > self._away_max:
            self.end(self._all[next(iter(self._away))])
            self._evicted()

    def end(self, session: Session) -> None:
        """Forget the session. A will that still waits is published (3.1.3.2.2)."""
        if self._all.get(session.client_id) is session:
            del self._all[session.client_id]
            self._away.pop(session.client_id, None)
            self._received -= len(session.received)
        if session.stored is not None:
            session.stored = None
            self._put(session.session_name, None)
            self._put(session.received_name, None)
        if session.will is not None:
            self._publish_will(session)

    def away(self) -> list[Session]:
        """Sessions of absent clients, longest away first."""
        return [self._all[client_id] for client_id in self._away]
