"""A random history of devices, reproducible by its seed, and a client that publishes it."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator, Sequence

from tests.node.oracle import MINUTE_NS
from tests.node.publisher import connect_packet, publish_packet

START_NS = 1_795_392_000_000_000_000
"""2026-11-23T00:00:00Z, about where the devices' clocks begin."""

Message = tuple[str, str]


class Feed:
    """A client that publishes at QoS 1 and waits for every acknowledgement."""

    def __init__(self, port: int, name: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.connection.sendall(connect_packet(name))
        self._expect(4)

    def send(self, messages: Sequence[Message]) -> None:
        """Publish in one piece, and return once all are acknowledged."""
        packets = (
            publish_packet(topic, payload.encode(), number + 1)
            for number, (topic, payload) in enumerate(messages)
        )
        self.connection.sendall(b"".join(packets))
        self._expect(4 * len(messages))

    def _expect(self, size: int) -> None:
        received = b""
        while len(received) < size:
            chunk = self.connection.recv(size - len(received))
            assert chunk, "the node closed the connection"
            received += chunk

    def close(self) -> None:
        self.connection.close()


class History:
    """A random history: devices with clocks of their own, and everything that goes wrong with them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clocks = {f"m{n}": START_NS + self.random.randrange(3600) * 10**9 for n in range(12)}
        self.sent: list[tuple[str, int, float]] = []
        self.dead_letters = 0

    def messages(self, count: int) -> Iterator[list[Message]]:
        """About `count` messages, in bursts."""
        left = count
        while left > 0:
            burst = [self._message() for _ in range(self.random.choice((1, 2, 5, 20, 60)))]
            left -= len(burst)
            yield burst

    def _message(self) -> Message:
        rng = self.random
        device = rng.choice(list(self.clocks))
        kind = rng.random()
        if kind < 0.04:
            self.dead_letters += 1
            return f"meters/{device}/p", rng.choice(
                ['{"t": 1', '{"t": 1, "v": "x"}', "[]x", '{"t": -5, "v": 1}']
            )
        if kind < 0.16:
            return self._plug(device)
        if kind < 0.28:
            return self._array(device)
        series = f"{device}/{rng.choice(('p', 'power', 'f'))}"
        at, value = self._reading(series)
        if kind < 0.6:
            return f"fast/{series}", f'{{"t": {at // 10**6}, "v": {value!r}}}'
        quality = rng.choice((None, None, None, 0, 1, 2, 64, "invalid"))
        body = {"t": at, "v": value} | ({} if quality is None else {"q": quality})
        return f"meters/{series}", json.dumps(body)

    def _reading(self, series: str) -> tuple[int, float]:
        rng = self.random
        device = series.partition("/")[0]
        value = rng.choice((rng.uniform(-1e6, 1e6), float(rng.randrange(-5, 5)), rng.gauss(0, 1) * 1e-9))
        kind = rng.random()
        if kind < 0.06 and self.sent:
            earlier = rng.choice(self.sent[-200:])
            series_before, at, before = earlier
            if series_before == series:
                return at, before if rng.random() < 0.5 else value
        if kind < 0.62:
            self.clocks[device] += rng.choice((10**9, 7 * 10**9, 20_001_000_000, 0, 125_000_000))
            at = self.clocks[device]
        elif kind < 0.72:
            at = self.clocks[device] - rng.randrange(10**10)  # within grace
        elif kind < 0.84:
            at = self.clocks[device] - rng.randrange(10**6 * 3600 * 2) * 1000  # late
        elif kind < 0.88:
            at = time.time_ns() + rng.randrange(6 * 60, 10**6) * 10**9  # ahead of every clock
        elif kind < 0.91:
            at = rng.randrange(100) * 10**9  # 1970
        elif kind < 0.96:
            at = self.clocks[device] // MINUTE_NS * MINUTE_NS + rng.choice((-1, 0, 1)) * 10**6  # borders
        else:
            mine = [row for row in self.sent[-400:] if row[0] == series]
            at = rng.choice(mine)[1] if mine else self.clocks[device]
        at = max(at // 10**6 * 10**6, 0)
        self.sent.append((series, at, value))
        return at, value

    def _plug(self, device: str) -> Message:
        at, value = self._reading(f"{device}/p")
        seconds = time.gmtime(at // 10**9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", seconds) + self.random.choice(("Z", "+00:00", ".25Z"))
        body = {"Time": stamp, "ENERGY": {"Power": value, "Total": round(abs(value), 3)}}
        return f"tele/{device}/SENSOR", json.dumps(body)

    def _array(self, device: str) -> Message:
        series = f"{device}/{self.random.choice(('p', 'power'))}"
        readings = [self._reading(series) for _ in range(self.random.randrange(1, 12))]
        # ms below 17 April 1970 would be read as seconds: those times are sent as text
        stamps = [
            at // 10**6 if at > 10**17 else f"1970-01-01T00:{at // 60_000_000_000:02}:00Z"
            for at, _ in readings
        ]
        if self.random.random() < 0.5:
            return f"meters/{series}", json.dumps(
                [[t, v] for t, (_, v) in zip(stamps, readings, strict=True)]
            )
        return f"meters/{series}", json.dumps(
            [{"t": t, "v": v} for t, (_, v) in zip(stamps, readings, strict=True)]
        )
