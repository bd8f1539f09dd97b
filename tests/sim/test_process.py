"""Simulator processes against a real broker: what a foreign subscriber hears equals the tally."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest

from ringmain.sim.gateways import Plan
from ringmain.sim.profiles import Profiles
from ringmain.sim.tally import Kind, Tally, add

pytestmark = pytest.mark.mosquitto

SECONDS = 6.0
RATE = 1200


class Books:
    """An independent reading of everything that passed the broker, after the mapping contract."""

    def __init__(self) -> None:
        self.messages = 0
        self.letters = 0
        self.rows: list[tuple[str, int, int]] = []

    def enter(self, topic: str, payload: bytes) -> None:
        self.messages += 1
        levels = topic.split("/")
        try:
            body = json.loads(payload.decode("utf-8"), parse_constant=lambda name: None)
        except (ValueError, RecursionError):
            self.letters += 1
            return
        if levels[0] == "tele":
            at = self.time(body["Time"])
            self.row(f"{levels[1]}/p", at, body["ENERGY"]["Power"])
            self.row(f"{levels[1]}/e", at, body["ENERGY"]["Total"])
        elif levels[0] in ("meters", "substations"):
            for element in body if isinstance(body, list) else [body]:
                self.element("/".join(levels[1:]), element)
        else:
            self.letters += 1

    def element(self, key: str, element: Any) -> None:
        time_and_value = element if isinstance(element, list) else [element.get("t"), element.get("v")]
        try:
            at = self.time(time_and_value[0])
        except ValueError:
            self.letters += 1
            return
        if isinstance(time_and_value[1], int | float) and abs(time_and_value[1]) < 1e300:
            self.row(key, at, time_and_value[1])
        else:
            self.letters += 1

    def row(self, key: str, at: int, value: float) -> None:
        self.rows.append((key, at, round(value * 1000)))

    @staticmethod
    def time(text: str | int) -> int:
        return text if isinstance(text, int) else round(datetime.fromisoformat(text).timestamp() * 1000)


def run_simulators(port: int, directory: Path) -> list[Tally]:
    processes = []
    for part in range(2):
        plan = Plan(
            profiles=str(directory / "profiles.npz"), host="127.0.0.1", port=port,
            households=60, rate=RATE, seed=9, seconds=SECONDS, part=part, parts=2,
        )  # fmt: skip
        command = [sys.executable, "-m", "ringmain.sim", msgspec.json.encode(plan).decode()]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    try:
        for process in processes:
            assert b'"prepared"' in process.stdout.readline()
        start_ms = int(time.time() * 1000)
        for process in processes:
            process.stdin.write(b"start %d\n" % start_ms)
            process.stdin.flush()
        while time.time() * 1000 < start_ms + SECONDS * 1000:
            assert b'"progress"' in processes[0].stdout.readline()
        for process in processes:
            process.stdin.write(b"stop\n")
            process.stdin.flush()
        lasts = [process.stdout.read().splitlines()[-1] for process in processes]
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [msgspec.convert(json.loads(last)["tally"], Tally) for last in lasts]


def test_the_tally_is_what_a_foreign_subscriber_heard(
    mosquitto: Any, profiles: Profiles, tmp_path: Path
) -> None:
    broker = mosquitto("max_inflight_messages 0")
    books = Books()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="witness")
    client.on_message = lambda _c, _u, message: books.enter(message.topic, message.payload)
    client.connect("127.0.0.1", broker.port)
    client.subscribe("#", qos=1)
    client.loop_start()
    tally = add(run_simulators(broker.port, tmp_path))
    deadline = time.monotonic() + 60
    while books.messages < tally.messages and time.monotonic() < deadline:
        time.sleep(0.01)
    client.disconnect()
    client.loop_stop()

    assert tally.unacknowledged == tally.resent == 0
    assert all(counts.messages for counts in tally.counts), tally.counts
    assert books.messages == tally.messages
    assert books.letters == tally.letters
    assert len(books.rows) == tally.readings
    assert sum(row[2] for row in books.rows) == tally.milli
    assert len({row[:2] for row in books.rows}) == tally.distinct
    assert len({row[0] for row in books.rows}) == tally.series
    now_ms = time.time() * 1000
    assert sum(row[1] > now_ms + 300_000 for row in books.rows) == tally.ahead
    assert sum(row[1] < 86_400_000 for row in books.rows) == tally.counts[Kind.BOOTED_IN_1970].readings
    assert 0.25 * RATE * SECONDS < tally.readings < 1.25 * RATE * SECONDS, "on a busy machine fewer"


def test_a_simulator_ends_when_its_starter_is_gone(profiles: Profiles, tmp_path: Path) -> None:
    plan = Plan(profiles=str(tmp_path / "p.npz"), host="127.0.0.1", port=1, households=20, rate=100)
    command = [sys.executable, "-m", "ringmain.sim", msgspec.json.encode(plan).decode()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert b'"prepared"' in process.stdout.readline()
    process.stdin.write(b"start %d\n" % (time.time() * 1000))
    process.stdin.flush()
    assert b'"progress"' in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == 3


def test_a_plan_that_cannot_be_read_is_refused_in_one_line() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ringmain.sim", '{"profiles": "x", "hots": 1}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "hots" in answer.stderr
