"""Nothing of a benchmark outlives it, however it ends: a process beside it ends what it started when it is gone.

A benchmark that is killed cannot clean up. The guard waits on a pipe that closes with the benchmark; then it ends every
process whose command line names the benchmark's scratch directory, and removes the directory. So whatever a benchmark
starts has to name it: a configuration, a data directory, or simply one more argument.

    python -m bench.guard DIRECTORY       waits for the end of its standard input
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import ROOT, scratch

ROUNDS = 20
"""Times that processes are looked for again: a node that loses a part may just be starting it anew."""


@contextmanager
def guarded_scratch() -> Iterator[Path]:
    """A scratch directory; every process that names it is gone afterwards, even where this process is killed."""
    with scratch() as place:
        guard = subprocess.Popen(
            [sys.executable, "-m", "bench.guard", place],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        previous = signal.signal(signal.SIGTERM, _ended)
        try:
            yield Path(place)
        finally:
            signal.signal(signal.SIGTERM, previous)
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait(30)


def _ended(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def named_by(place: str) -> list[int]:
    """The processes whose command line has an argument that names the directory or something in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if any(one == place.encode() or one.startswith(place.encode() + b"/") for one in arguments):
                    found.append(int(entry.name))
    return found


def main() -> None:
    """See the module."""
    place = str(Path(sys.argv[1]).resolve())
    if not Path(place).is_relative_to(ROOT / ".yardstick") or Path(place) == ROOT / ".yardstick":
        raise SystemExit(f"expected a directory in {ROOT / '.yardstick'}, found {place}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    quiet = 0
    for _ in range(ROUNDS):
        found = named_by(place)
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        if quiet == 2:
            break
        time.sleep(0.1)
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
