"""Standing back: what is not on the way to an acknowledgement yields processor, disk and memory to what is.

And what is on that way asks for its turn at once.

Linux only, as far as the system permits, and never an error: a node without these is slower under load, not wrong.
Threads that begin later have what the one has that begins them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from pathlib import Path

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "armv7l": 314, "armv6l": 314, "i686": 289}
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "armv7l": 380, "armv6l": 380, "i686": 351}
_SLICE_NS = 200_000
"""Of the 0.1 to 100 ms that the kernel takes; its own choice is 3 ms."""
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_IDLE = 3 << 13


def yield_processor(nice: int) -> None:
    """Have at least this nice value in every thread: on Linux each has its own (setpriority(2)).

    It counts among processes of one session (sched(7), autogroup): what stands back stays in the node's.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            if os.getpriority(os.PRIO_PROCESS, int(thread)) < nice:
                os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def run_promptly() -> None:
    """Have every thread of the process run soon after it wakes, before others have ended their turn, and in short turns.

    It asks for a short slice (sched_setattr(2), `sched_runtime` of SCHED_OTHER; Linux 6.12 and later, earlier ones take
    no notice). The share of the processor stays what it is.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError, AttributeError):
            nice = os.getpriority(os.PRIO_PROCESS, int(thread))
            attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, _SLICE_NS, 0, 0)
            ctypes.CDLL(None, use_errno=True).syscall(number, int(thread), attributes, 0)


def yield_disk() -> None:
    """Use the disk only when nobody else wants it (ioprio_set(2), class idle). At the start of a process."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE)


def yield_memory(score: int) -> None:
    """Be ended before others when memory runs out: 0 to 1000 (proc(5), oom_score_adj); never lowers it."""
    place = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        place.write_text(str(max(score, int(place.read_text()))))
