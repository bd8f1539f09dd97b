"""What tests of several rooms share: real MQTT brokers on free ports, waiting, and how they run side by side."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import parallel
from tests.ports import free_port

pytest_plugins = ["tests.promises"]
"""What tests show of each fault, written to docs/durability.md."""

MOSQUITTO = shutil.which("mosquitto") or (
    "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else None
)
PROBE = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe\xe0\x00"
"""CONNECT of a client that leaves at once (MQTT 3.1.1, 3.1 and 3.14)."""


class Mosquitto:
    """A mosquitto of our own: loopback only, persistent, with a directory and a port that survive a restart."""

    def __init__(
        self, directory: Path, lines: Sequence[str] = (), *, listener_lines: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self._lines = lines
        self._listener_lines = listener_lines
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        """Start and wait until it serves clients: one that only accepts connections forgets a SIGTERM."""
        assert MOSQUITTO is not None
        self.directory.mkdir(parents=True, exist_ok=True)
        own = {line.split()[0] for line in (*self._lines, *self._listener_lines)}
        settings = {
            "user": "root",
            "persistence": "true",
            "persistence_location": f"{self.directory}/",
            "autosave_interval": "1",
            "max_queued_messages": "0",
            "allow_anonymous": "true",
            "log_type": "all",
            "sys_interval": "1",
        }
        lines = [f"{key} {value}" for key, value in settings.items() if key not in own]
        lines += [*self._lines, f"listener {self.port} 127.0.0.1", *self._listener_lines]
        path = self.directory / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n")
        with (self.directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(path)], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=60) as probe:
                    probe.sendall(PROBE)
                    with contextlib.suppress(ConnectionError):  # a listener for TLS
                        probe.recv(4)
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mosquitto did not start:\n{self.log[-2000:]}") from None
                time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; with SIGTERM it saves its sessions and queues first."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


def pytest_configure(config: pytest.Config) -> None:
    parallel.let_children_keep_bytecode(os.environ)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # in a process of pytest-xdist
        parallel.order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return parallel.scheduler(config, log)


def _missing_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI everything that a test needs has to be there: what would be skipped elsewhere fails."""
    if os.environ.get("CI") and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _missing_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _missing_in_ci(report)
    return report


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers: `mosquitto("allow_anonymous false", ..., listener_lines=[...])`; all end with the test."""
    if MOSQUITTO is None:
        reason = "mosquitto is not installed: apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    brokers: list[Mosquitto] = []

    def start(*lines: str, listener_lines: Sequence[str] = ()) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(brokers)}", lines, listener_lines=listener_lines)
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.stop(signal.SIGKILL)


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float = 60.0,
    what: str = "the condition",
    *,
    interval_s: float = 0.005,
) -> None:
    """Poll until the condition holds; fail the test when it does not within the time.

    What does not come soon is looked at less often, up to every 50 ms: a condition may ask a node, which has to compute
    its answer on the processor that the awaited event needs as well.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout_s:g} s")
        time.sleep(interval_s)
        interval_s = max(interval_s, min(interval_s * 1.2, 0.05))
