"""Producers over the socket while the disk fills and connections break: everything is stored once, and in order."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ringmain.log import connect_log, open_log
from ringmain.log.interface import Appended, Log, LogError, LogFailedError, LogFullError
from ringmain.log.journal import Journal
from ringmain.testing import FaultyFiles
from tests.log.batches import reading_batch, values
from tests.soak import run_campaign

SOAK_CAMPAIGNS = 100


class Producer(threading.Thread):
    """Hands over appends without waiting; what fails, and what comes behind it, it sends again in order."""

    def __init__(self, log: Log, name: str, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.errors: list[LogError] = []
        self.failures = 0
        self._log = log
        self._claim = log.claim(name, epoch=0)
        self._count = count
        self._rng = random.Random(seed)
        self._changed = threading.Condition(threading.RLock())
        self._answers: dict[int, LogError | None] = {}

    def run(self) -> None:
        sequence = 0
        while sequence < self._count:
            stop = min(sequence + self._rng.randrange(1, 40), self._count)
            self._answers.clear()
            handed = 0
            for number in range(sequence, stop):
                # nothing is handed over behind a failure that was told
                with self._changed:
                    if any(self._answers.values()):
                        break
                    handed += 1
                    self._hand_over(number)
            with self._changed:
                assert self._changed.wait_for(lambda: len(self._answers) == handed, 60)  # noqa: B023
            failed = [number for number, error in self._answers.items() if error is not None]
            self.failures += len(failed)
            self.errors += [error for error in self._answers.values() if error is not None]
            sequence = min(failed, default=sequence + handed)

    def _hand_over(self, number: int) -> None:
        self._log.append_nowait(
            [reading_batch(1 + number % 3, value=number)],
            self._answered(number),
            claim=self._claim,
            sequence=number,
            positions={f"{self._claim.name}/at": b"%d" % number},
        )

    def _answered(self, number: int) -> Any:
        def done(_: Appended | None, error: LogError | None) -> None:
            with self._changed:
                assert number not in self._answers, "told twice"
                self._answers[number] = error
                self._changed.notify_all()

        return done


def _chaos(writer: Journal, files: FaultyFiles, rng: random.Random, producers: list[Producer]) -> None:
    """Fill and empty the disk, and break connections, until the producers are done."""
    pause = threading.Event()
    while any(producer.is_alive() for producer in producers):
        what = rng.random()
        if what < 0.5:
            files.space_bytes = rng.choice([0, 200, 5_000])
        else:
            for session in list(writer.listen()._sessions.values()):
                if rng.random() < 0.5:
                    with contextlib.suppress(OSError):  # closed meanwhile
                        session.channel.sock.shutdown(socket.SHUT_RDWR)
        pause.wait(rng.random() * 0.02)
        files.space_bytes = None
        pause.wait(rng.random() * 0.05)


def _campaign(directory: Path, seed: int, count: int) -> int:
    files = FaultyFiles(seed)
    with open_log(directory, fs=files, segment_bytes=64 << 10) as writer:
        writer.listen()
        logs = [connect_log(directory, timeout_s=30) for _ in range(2)]
        producers = [Producer(logs[n % 2], f"p{n}", count, seed * 10 + n) for n in range(3)]
        for producer in producers:
            producer.start()
        _chaos(writer, files, random.Random(seed), producers)
        stored: dict[int, list[float]] = {}
        for frame in writer.read("readings"):
            stored.setdefault(frame.producer, []).append(values([frame])[0])
        assert list(stored.values()) == [[float(n) for n in range(count)]] * 3
        assert writer.positions() == {f"p{n}/at": b"%d" % (count - 1) for n in range(3)}
        for producer in producers:
            assert all(isinstance(error, LogFullError | LogFailedError) for error in producer.errors)
        for log in logs:
            log.close()
    return sum(producer.failures for producer in producers)


def test_a_filling_disk_loses_doubles_and_reorders_nothing_of_producers_that_do_not_wait(
    tmp_path: Path,
) -> None:
    """In process, too: an append handed over while the failure of the one before was being told was once stored."""
    files, rng, pause = FaultyFiles(1), random.Random(1), threading.Event()
    with open_log(tmp_path, fs=files, segment_bytes=64 << 10) as log:
        producers = [Producer(log, f"p{n}", 400, n) for n in range(3)]
        for producer in producers:
            producer.start()
        while any(producer.is_alive() for producer in producers):
            files.space_bytes = rng.choice([0, 200, 5_000])
            pause.wait(rng.random() * 0.02)
            files.space_bytes = None
            pause.wait(rng.random() * 0.05)
        stored: dict[int, list[int]] = {}
        for frame in log.read("readings"):
            stored.setdefault(frame.producer, []).append(frame.sequence)
        assert list(stored.values()) == [list(range(400))] * 3
    assert sum(producer.failures for producer in producers) > 20, "something was to fail"


def test_a_filling_disk_and_breaking_connections_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    assert _campaign(tmp_path, 1, 400) > 20, "something was to fail"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_campaigns_of_chaos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nchaos, seed {2 + item} ", end="", flush=True)
        _campaign(tmp_path / str(item), 2 + item, 1_500)
        shutil.rmtree(tmp_path / str(item))
        return 1

    told = run_campaign("chaos", SOAK_CAMPAIGNS, run, "campaigns")
    with capsys.disabled():
        print(f"\n{told}")
