"""What stands back does so in every thread, and never comes forward again; what is awaited has its turn soon."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, threading
from pathlib import Path
from ringmain.runtime.priority import yield_disk, yield_memory, yield_processor
end = threading.Event()
early = threading.Thread(target=end.wait)
early.start()
yield_disk()
yield_memory(300)
yield_processor(7)
late = threading.Thread(target=end.wait)
late.start()
nice = [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")]
yield_processor(3)
yield_memory(100)
end.set()
score = Path("/proc/self/oom_score_adj").read_text().strip()
print(nice, os.getpriority(os.PRIO_PROCESS, 0), score)
"""


def test_a_process_that_stands_back_does_so_in_every_thread_and_never_comes_forward_again() -> None:
    before = max(os.getpriority(os.PRIO_PROCESS, 0), 7)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    score = max(300, int(Path("/proc/self/oom_score_adj").read_text()))
    assert done.stdout.strip() == f"{[before] * 3} {before} {score}"


PROMPT = """
import os, threading
from pathlib import Path
from ringmain.runtime.priority import run_promptly
end = threading.Event()
early = threading.Thread(target=end.wait)
early.start()
before = os.getpriority(os.PRIO_PROCESS, 0)
run_promptly()
late = threading.Thread(target=end.wait)
late.start()
tasks = [Path("/proc/self/task") / thread for thread in os.listdir("/proc/self/task")]
told = [(task / "sched").read_text() if (task / "sched").exists() else "" for task in tasks]
slices = [line.split()[-1] for text in told for line in text.splitlines() if line.startswith("se.slice ")]
end.set()
print(len(tasks), os.getpriority(os.PRIO_PROCESS, 0) - before, slices)
"""


def test_every_thread_of_a_process_that_is_awaited_asks_for_short_turns_and_for_no_larger_share() -> None:
    done = subprocess.run([sys.executable, "-c", PROMPT], capture_output=True, text=True, check=True)
    found = re.fullmatch(r"3 0 (\[.*\])\n", done.stdout)
    assert found, done.stdout
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    told = Path("/proc/self/sched")
    if release >= (6, 12) and told.exists() and "se.slice" in told.read_text():
        assert found[1] == str(["200000"] * 3)
