"""Ports that tests are given belong to one test process at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests import ports

ASK = """
import sys
from itertools import count
from tests import ports
ports._next = count(0)
print(*(ports.free_port() for _ in range(20)), flush=True)
sys.stdin.read()
"""


def test_ports_are_below_those_of_outgoing_connections_and_none_is_given_twice() -> None:
    given = [ports.free_port() for _ in range(100)]
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(given)) == len(given)
    assert all(ports.LOWEST <= port < lowest for port in given)


def test_another_process_is_given_other_ports_until_this_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASK],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        assert len(theirs) == 20
        monkeypatch.setattr(ports, "_next", count(0))
        assert not theirs & {ports.free_port() for _ in range(20)}
    monkeypatch.setattr(ports, "_next", count(0))
    assert theirs & {ports.free_port() for _ in range(20)}


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        monkeypatch.setattr(ports, "_next", count(port - ports.LOWEST))
        ports._reserved.pop().close()
        assert ports.free_port() != port
