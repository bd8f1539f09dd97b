"""One accepted socket: bytes in, replies out. What the bytes mean is its `Device`'s (`mqtt_device.py`).

Reads into a buffer that all connections share; only what is left of an incomplete packet is kept, in a buffer
that grows with what really came. Promises: a peer that does not read its replies, or sends nothing, or sends
one byte at a time, costs a bounded amount; while the intake is full, nothing is read.
"""

from __future__ import annotations

import asyncio
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from ringmain.sources import mqtt_metrics as metrics
from ringmain.sources.mqtt_codes import MqttError, Reason
from ringmain.sources.mqtt_device import Device
from ringmain.sources.mqtt_metrics import Cause
from ringmain.sources.mqtt_oversized import Oversized
from ringmain.sources.mqtt_publish import take
from ringmain.sources.mqtt_shared import Shared

HELD_BYTES_MAX = 4096
"""Rest of an incomplete packet that is copied in front of the next read; a longer one gets its own buffer."""

PARTIAL_BYTES_MAX = 256 * 1024 * 1024
"""Own buffers of all connections together; who makes it more is closed."""

STRANGER_READ_BYTES = 4096
"""How much is read at once of a peer that has not been accepted yet."""

PAUSED_READ_BYTES = 512
"""How much is read of a peer that was to be paused when its bytes were already announced."""

REPLY_BYTES_HIGH = 64 * 1024
"""Unwritten replies beyond which a connection is not read from."""

REPLY_BYTES_MAX = 2 * 1024 * 1024
"""Unwritten replies beyond which it is closed: those of everything that was read before it was paused."""

READ_REPLIES_WITHIN_S = 30.0
"""How long a peer may leave its replies unread before it is closed."""

CLOSE_TIMEOUT_S = 5.0
ALL_PACKETS = 1 << 62
FAST_SKIPS_MAX = 64
"""Packets that the general path takes between two attempts of the compiled one that brought nothing."""


class Pause(IntFlag):
    """Why a connection is not read from."""

    INTAKE = 1
    REPLIES = 2
    LOGIN = 4
    STOP = 8


class Connection(asyncio.BufferedProtocol):
    """The protocol of one accepted socket."""

    def __init__(self, shared: Shared, *, secure: bool = False) -> None:
        """`secure`: a TLS handshake comes first."""
        self.shared = shared
        self.device = Device(shared, self)
        self.closed = False
        self.replies = bytearray()
        self.need = 2
        """Size of the next packet as far as it is known: nothing is looked at before that many bytes are here."""
        self.seen_s = 0.0
        """Loop time at which bytes last came."""
        self.gated = False
        """CONNACK waits for something durable: nothing may leave before it."""
        self._pause = Pause(0)
        self._held = b""
        self._own: bytearray | None = None
        self._own_size = 0
        self._oversized: Oversized | None = None
        self._fast_skips = 1
        self._shaking = secure
        shared.handshakes += secure
        self._transport: asyncio.Transport

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted, and its TLS handshake, if any, is done."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        shared = self.shared
        self.handshake_ended(failed=False)
        shared.connections.add(self)
        shared.intake.count(metrics.CONNECTIONS.name, 1)
        transport.set_write_buffer_limits(high=REPLY_BYTES_HIGH)
        if shared.closing:
            self.device.end(Cause.SHUTDOWN)
        elif len(shared.connections) > shared.limits.max_connections:
            self.abort(Cause.CONNECTION_LIMIT)
        else:
            self.device.begin()

    def handshake_ended(self, *, failed: bool) -> None:
        """The TLS handshake is over, if there is one and it was not over before."""
        if self._shaking:
            self._shaking = False
            self.shared.handshakes -= 1
            if failed:
                self.shared.ended(Cause.TLS)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: behind what is kept of an incomplete packet."""
        if self._own is not None:
            view = memoryview(self._own)[self._own_size :]
        else:
            view = self.shared.view
            held = len(self._held)
            if held:
                view[:held] = self._held
                view = view[held:]
        if not self.device.open:
            return view[:STRANGER_READ_BYTES]
        if not self.shared.intake.ready:
            self.shared.waiting.add(self)
            self.pause(Pause.INTAKE)
            return view[:PAUSED_READ_BYTES]
        return view

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` more have come."""
        shared = self.shared
        self.seen_s = shared.loop.time()
        if self.closed:
            return
        own = self._own
        waits = self._pause & Pause.LOGIN
        if own is None:
            size = len(self._held) + nbytes
            if size < self.need or waits:
                self._hold(shared.view[:size])
                return
            self._held = b""
            self._process(shared.view[:size], shared.array)
        else:
            self._own_size += nbytes
            if self._own_size < self.need or waits:
                if self._own_size == len(own):
                    self._hold(memoryview(own))
                return
            self._drop_own()
            self._process(memoryview(own)[: self._own_size], np.frombuffer(own, np.uint8))
        shared.gathering.flush_if_full()

    def pause_writing(self) -> None:
        """The peer does not read its replies: read nothing more from it, and part after a while."""
        self.pause(Pause.REPLIES)
        until_s = self.shared.loop.time() + READ_REPLIES_WITHIN_S

        def due(now_s: float) -> float | None:
            if self.closed or not self._pause & Pause.REPLIES:
                return None
            if now_s < until_s:
                return until_s
            self.abort(Cause.SLOW_READER)
            return None

        self.shared.deadlines.ask(due, until_s)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.resume(Pause.REPLIES)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.device.end(Cause.LOST)
        self.shared.connections.discard(self)
        self.shared.waiting.discard(self)
        self.shared.intake.count(metrics.CONNECTIONS.name, -1)

    # --- reading

    def pause(self, why: Pause) -> None:
        """Read nothing until `why` is resumed."""
        if not self._pause and not self.closed:
            self._transport.pause_reading()
        self._pause |= why

    def resume(self, why: Pause) -> None:
        """`why` is over; reading goes on when nothing else stands against it."""
        had, self._pause = self._pause, self._pause & ~why
        if had and not self._pause and not self.closed:
            self.seen_s = self.shared.loop.time()
            self._transport.resume_reading()

    def intake_ready(self) -> None:
        """The intake takes more again."""
        self.resume(Pause.INTAKE)

    @property
    def paused(self) -> bool:
        """Whether it is by our doing that nothing comes."""
        return bool(self._pause)

    def login_began(self) -> None:
        """Nothing more is looked at until the password is checked."""
        self.pause(Pause.LOGIN)

    def login_ended(self) -> None:
        """Go on with what came behind CONNECT while its password was checked."""
        self._pause &= ~Pause.LOGIN
        held, self._held = self._held, b""
        if self._own is not None:
            held = bytes(self._own[: self._own_size])
            self._drop_own()
        if held and not self.closed:
            self._process(memoryview(held), np.frombuffer(held, np.uint8))
        if not self._pause and not self.closed:
            self._transport.resume_reading()

    def _process(self, view: memoryview, array: NDArray[np.uint8]) -> None:
        """Take every whole packet in `view` (the start of `array`) and keep the rest."""
        try:
            at = self._packets(view, array)
        except MqttError as error:
            self.device.fail(error)
            return
        except Exception as error:
            self.device.fail(self.shared.internal_error(error))
            return
        if not self.closed and at < len(view):
            self._hold(view[at:])

    def _packets(self, view: memoryview, array: NDArray[np.uint8]) -> int:
        """Hand whole packets to the compiled path, and to the general one what that leaves; the offset behind."""
        size = len(view)
        at = self._oversized.resume(self, bytes(view), 0) if self._oversized is not None else 0
        self.need = 2
        data, base = b"", 0
        while at < size and not self.closed and not self._pause & Pause.LOGIN and self._oversized is None:
            packets = ALL_PACKETS
            fast = self.shared.fast
            if fast is not None and self.device.open:
                before = at
                at = fast.read(self, array, at, size)
                if at == size:
                    break
                self._fast_skips = 1 if at > before else min(self._fast_skips * 2, FAST_SKIPS_MAX)
                packets = self._fast_skips
            if not data:
                data, base = bytes(view[at:]), at
            before = at
            at = base + take(self, data, at - base, packets)
            if at == before:
                break
        return at

    def _hold(self, rest: memoryview) -> None:
        """Keep the beginning of an incomplete packet until more comes."""
        size = len(rest)
        if size <= HELD_BYTES_MAX:
            self._held = bytes(rest)
            return
        own = bytearray(min(max(self.need, size + 1), max(4 * size, 16_384)))
        own[:size] = rest
        self._drop_own()
        self._own, self._own_size, self._held = own, size, b""
        self.shared.partial_bytes += len(own)
        if self.shared.partial_bytes > PARTIAL_BYTES_MAX:
            text = f"expected at most {PARTIAL_BYTES_MAX} bytes of incomplete packets from all clients"
            self.device.fail(MqttError(Reason.QUOTA_EXCEEDED, text))

    def _drop_own(self) -> None:
        """Let go of this connection's own buffer."""
        if self._own is not None:
            self.shared.partial_bytes -= len(self._own)
            self._own = None

    def oversized(self, data: bytes, at: int, body: int, stop: int) -> int:
        """A packet longer than is taken begins at `at`: refuse it, or begin to skip it; the offset behind it."""
        self.shared.intake.count(metrics.OVERSIZED.name)
        self._oversized = Oversized.begin(self.device, data, at, body, stop)
        return self._oversized.resume(self, data, at)

    def oversized_done(self) -> None:
        """The oversized packet has been skipped to its end."""
        self._oversized = None

    # --- writing

    def reply(self, data: bytes) -> None:
        """A reply that leaves with the batch: after everything that came before it is durable."""
        self.shared.gathering.begin()
        if not self.replies:
            self.shared.gathering.touched.append(self)
        self.replies += data

    def take_replies(self) -> tuple[bytes, int]:
        """The replies of the batch that is being closed, and how many messages they acknowledge finally."""
        data = bytes(self.replies)
        self.replies.clear()
        return data, self.device.take_releasing()

    def write_replies(self, data: bytes, released: int) -> None:
        """The batch of these replies is durable."""
        if self.closed:
            return
        self.gated = False
        self.device.release(released)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > REPLY_BYTES_MAX:
            self.abort(Cause.SLOW_READER)

    def send(self, data: bytes) -> None:
        """A reply that nothing has to be durable for; behind CONNACK all the same (MQTT-3.2.0-1)."""
        if self.gated:
            self.reply(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what is left, close, and let go of all buffers."""
        self.closed = True
        self._drop_own()
        self._held = b""
        if self._transport.is_closing():
            return  # it is lost, and one of TLS cannot be asked anything any more
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self.shared.loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self, cause: Cause) -> None:
        """Close without waiting for the peer to read."""
        self.device.end(cause)
        self._transport.abort()

    def about(self, name: str) -> object:
        """What the transport knows of the peer (`asyncio.BaseTransport.get_extra_info`)."""
        return self._transport.get_extra_info(name)
