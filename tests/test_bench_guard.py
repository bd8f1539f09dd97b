"""What a benchmark started ends with it, also where it is killed and cannot clean up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_until

ROOT = Path(__file__).parents[1]
BENCHMARK = """
import subprocess, sys, time
from bench.guard import guarded_scratch
with guarded_scratch() as place:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{place}/node.toml"],
                             start_new_session=True)
    print(place, child.pid, flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, None])
def test_no_process_that_names_the_scratch_directory_outlives_the_benchmark(
    ending: signal.Signals | None,
) -> None:
    command = [sys.executable, "-c", BENCHMARK, "wait" if ending else "end"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as benchmark:
        assert benchmark.stdout is not None
        place, child = benchmark.stdout.readline().split()
        if ending is not None:
            assert psutil.pid_exists(int(child))
            benchmark.send_signal(ending)
        benchmark.wait(60)
    wait_until(lambda: not psutil.pid_exists(int(child)), 60, "the end of what it started")
    wait_until(lambda: not Path(place).exists(), 60, "the removal of its directory")
