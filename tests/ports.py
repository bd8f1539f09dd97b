"""TCP ports for servers of which a test has to know the port before they start.

A port that was asked of the kernel (`bind` to 0) and given back may be anybody's a moment later: another test process
gets the same one, or the kernel makes it the local end of an outgoing connection, of which some tests open ten
thousand. So ports come from below the kernel's range for outgoing connections, and each is reserved among all test
processes of the machine by the name of an abstract Unix socket (unix(7)), which ends with the process.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from itertools import count
from pathlib import Path

LOWEST = 10_000
RESERVED_MAX = 200
"""Ports that a process keeps reserved, newest first: more than any test uses at a time."""

_reserved: deque[socket.socket] = deque()
_next = count(os.getpid() * 97)


def free_port() -> int:
    """A TCP port of the loopback that nobody uses, and that nobody else who asks here is given meanwhile."""
    end = max(_lowest_outgoing(), LOWEST + 1000)
    for _ in range(LOWEST, end):
        port = LOWEST + next(_next) % (end - LOWEST)
        if (reservation := _reserve(port)) is None:
            continue
        if not _bindable(port):
            reservation.close()
            continue
        _reserved.append(reservation)
        while len(_reserved) > RESERVED_MAX:
            _reserved.popleft().close()
        return port
    raise RuntimeError(f"expected a free port from {LOWEST} to {end - 1}, found none")


def _lowest_outgoing() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _reserve(port: int) -> socket.socket | None:
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0ringmain-tests-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
