"""kill -9 of a process that appends: nothing that it was told is durable is missing afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringmain.log import open_log
from ringmain.log.check.verify import verify
from tests.log.batches import values
from tests.promises import Fault, Part, promise
from tests.soak import run_campaign

APPENDER = """
import os, sys, threading
import numpy as np, pyarrow as pa
from ringmain.log import open_log
from ringmain.log.interface import Batch
from tests.log.batches import readings

log = open_log(sys.argv[1], segment_bytes=64 << 10, prepare_after_bytes=4096)
claim = log.claim("appender", epoch=0)
at = -1 if claim.last_sequence is None else claim.last_sequence
slots = threading.Semaphore(16)
print("open", at, flush=True)

def done_of(number):
    def done(appended, error):
        if error is None:
            os.write(1, b"%d\\n" % number)
        slots.release()
    return done

while True:
    slots.acquire()
    at += 1
    log.append_nowait(
        [Batch("readings", readings(1 + at % 50, value=at * 100.0))], done_of(at),
        claim=claim, sequence=at, positions={"appender": b"%d" % at},
    )
"""


SEGMENT_BYTES = 64 << 10
SOAK_KILLS = 500


@promise(
    Fault.KILL,
    Part.JOURNAL,
    "Everything acknowledged is there, once, in order; the rest wholly or not at all.",
)
@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_missing_after_kills_at_random_moments(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "log", kills=8, seed=11)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_acknowledged_is_missing_after_five_hundred_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: int) -> int:
        kill_again_and_again(tmp_path / f"log{item}", kills=25, seed=item)
        return 25

    told = run_campaign("kills", SOAK_KILLS, run, "kills")
    with capsys.disabled():
        print(f"\n{told}")


def kill_again_and_again(directory: Path, *, kills: int, seed: int) -> None:
    """Kill the appender so often, at moments drawn from the seed, and compare with what it was told."""
    rng = random.Random(seed)
    acknowledged = -1
    for _ in range(kills):
        command = [sys.executable, "-c", APPENDER, str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline().split()
            assert first[:1] == [b"open"], process.stderr.read()
            assert int(first[1]) >= acknowledged, "what was acknowledged came before the kill"
            for _ in range(rng.randrange(1, 400)):
                acknowledged = max(acknowledged, int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if line.endswith(b"\n"):
                    acknowledged = max(acknowledged, int(line))
    log = open_log(directory, segment_bytes=SEGMENT_BYTES)
    frames = list(log.read("readings"))
    stored = [frame.sequence for frame in frames]
    assert stored == list(range(stored[-1] + 1)), f"seed {seed}: each once, in order, without a hole"
    assert stored[-1] >= acknowledged, f"seed {seed}"
    assert log.positions() == {"appender": b"%d" % stored[-1]}
    expected = [number * 100.0 + n for number in stored for n in range(1 + number % 50)]
    assert values(frames) == expected
    assert [frame.cumulative_rows for frame in frames][-1] == len(expected)
    assert set(log.ledger().column("kind").to_pylist()) <= {"cut"}
    log.close()
    report = verify(directory)
    assert [problem for problem in report.problems if problem.where != "catalogue"] == []
    assert report.rows["readings"] == len(expected)
