"""What stands back does so in every thread, and never comes forward again."""

from __future__ import annotations

import os
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
