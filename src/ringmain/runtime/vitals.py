"""What a node tells about its processes and its log, asked for only when metrics are read.

`watch_process` once in each process, `watch_log` once in the one that renders; what they add costs nothing between
two scrapes. Memory and processor time come from `/proc/self` (proc(5)).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ringmain.log.interface import StreamState
from ringmain.log.socket.server import SocketCounts
from ringmain.model.catalogue import Catalogue
from ringmain.runtime.counters import Counters, Kind, declare

_RESIDENT = declare(
    "ringmain_process_resident_bytes",
    Kind.GAUGE,
    "Memory of a process of the node that is in RAM.",
    labels=("part",),
    unit="bytes",
)
_CPU = declare(
    "ringmain_process_cpu_seconds_total",
    Kind.COUNTER,
    "Processor time of a process of the node.",
    labels=("part",),
    unit="seconds",
)
_THREADS = declare(
    "ringmain_process_threads",
    Kind.GAUGE,
    "Threads of a process of the node that run Python.",
    labels=("part",),
    unit="threads",
)
_STARTED = declare(
    "ringmain_process_start_time_seconds",
    Kind.GAUGE,
    "When a process of the node started, in Unix time.",
    labels=("part",),
    unit="seconds",
)
_SERIES = declare("ringmain_series", Kind.GAUGE, "Series in the catalogue.", unit="series")
_ROWS = declare(
    "ringmain_log_rows_total", Kind.COUNTER, "Rows ever appended to the streams of the log.", unit="rows"
)
_FRAMES = declare(
    "ringmain_log_frames_total",
    Kind.COUNTER,
    "Frames ever appended to the streams of the log.",
    unit="frames",
)
_AGE = declare(
    "ringmain_log_newest_age_seconds",
    Kind.GAUGE,
    "Time since the newest durable frame of any stream arrived; above 2 the node cannot store.",
    unit="seconds",
)
_CONNECTIONS = declare(
    "ringmain_log_socket_connections",
    Kind.GAUGE,
    "Connections of other processes to the log's socket.",
    unit="connections",
)
_REFUSED = declare(
    "ringmain_log_socket_refused_total",
    Kind.COUNTER,
    "Connections to the log's socket refused: the user may not, or there are too many.",
    unit="connections",
)
_VIOLATIONS = declare(
    "ringmain_log_socket_violations_total",
    Kind.COUNTER,
    "Connections to the log's socket closed for what they sent.",
    unit="connections",
)


class WatchedLog(Protocol):
    """What is asked of the log."""

    def streams(self) -> list[StreamState]:
        """As in `log.interface.LogReader`."""
        ...

    def catalogue(self) -> Catalogue:
        """The series that are durable."""
        ...


def watch_process(counters: Counters, part: str) -> None:
    """Have `counters` ask this process, which is that part of the node, for its figures."""
    started_s = time.time()
    counters.observe_with(_RESIDENT, resident_bytes, part)
    counters.observe_with(_CPU, time.process_time, part)
    counters.observe_with(_THREADS, threading.active_count, part)
    counters.observe_with(_STARTED, lambda: started_s, part)


def watch_log(counters: Counters, log: WatchedLog) -> None:
    """Have `counters` ask the log for its figures."""

    def over_streams(figure: Callable[[Sequence[StreamState]], float]) -> Callable[[], float]:
        return lambda: figure(log.streams())

    counters.observe_with(_SERIES, lambda: len(log.catalogue()))
    counters.observe_with(_ROWS, over_streams(lambda states: sum(state.rows for state in states)))
    counters.observe_with(_FRAMES, over_streams(lambda states: sum(state.frames for state in states)))
    counters.observe_with(_AGE, over_streams(_newest_age_s))


def watch_socket(counters: Counters, counts: Callable[[], SocketCounts]) -> None:
    """Have `counters` ask the log's socket for its figures."""
    counters.observe_with(_CONNECTIONS, lambda: counts().connections)
    counters.observe_with(_REFUSED, lambda: counts().refused)
    counters.observe_with(_VIOLATIONS, lambda: counts().violations)


def resident_bytes() -> int:
    """Memory of this process that is in RAM (`/proc/self/statm`, second field, in pages)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _newest_age_s(states: Sequence[StreamState]) -> float:
    newest_ns = max((state.last_arrival_ns for state in states if state.frames), default=0)
    return max(0.0, (time.time_ns() - newest_ns) / 1e9) if newest_ns else 0.0
