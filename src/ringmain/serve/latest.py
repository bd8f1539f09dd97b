"""The newest value of every series, kept by following the log.

`Latest` is an ordinary consumer: one thread reads what became durable and keeps, by series id, the newest reading
in event time, its arrival, and how often the series sends. It starts `LOOK_BACK_NS` before now, not at the log's
beginning. A reading whose clock ran ahead counts as of its arrival, so that it cannot hide what follows.

The thread sleeps until the log calls, and takes what came in steps of `STEP_S`; with nothing arriving it does nothing.
Whoever wants changes remembers a `mark` and asks what changed after it: nothing is queued for anybody, so a slow
reader costs nothing and gets the newest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ringmain.log.interface import Frame, Log, LogError, Position, PositionGoneError
from ringmain.model.catalogue import Catalogue
from ringmain.model.quality import VALIDITY_MASK
from ringmain.serve.keyed import CHUNK_FRAMES, CHUNK_ROWS, Chunk, ns_of
from ringmain.serve.windows import RecentWindows, window_streams

LOOK_BACK_NS = 3600 * 1_000_000_000
STEP_S = 0.025
LETTERS_KEPT = 20
RETRY_S = 1.0

_NEVER = np.iinfo(np.int64).min
_Number = TypeVar("_Number", bound=np.generic)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """One of the newest dead letters."""

    time_ns: int
    source: str
    topic: str
    reason: str
    payload: bytes
    payload_bytes: int


class Latest:
    """Newest readings by series id: ns, ns for ordering, value, quality bits, ns of arrival, s between readings, number
    of readings, mark of the newest. Arrays only grow, and are replaced then; written by one thread under `lock`.
    """

    def __init__(self, log: Log, catalogue: Catalogue) -> None:
        self.lock = threading.Lock()
        self.catalogue = catalogue
        self.mark = 0
        """Grows whenever something changed."""
        self.letters: deque[KeptLetter] = deque(maxlen=LETTERS_KEPT)
        self.invalid = 0
        self.readings = 0
        self.last_arrival_ns = 0
        self.windows = RecentWindows()
        self._log = log
        self._size = 0
        self.times: NDArray[np.int64] = np.empty(0, np.int64)
        self.order: NDArray[np.int64] = np.empty(0, np.int64)
        self.values: NDArray[np.float64] = np.empty(0, np.float64)
        self.qualities: NDArray[np.uint16] = np.empty(0, np.uint16)
        self.arrivals: NDArray[np.int64] = np.empty(0, np.int64)
        self.intervals: NDArray[np.float32] = np.empty(0, np.float32)
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.marks: NDArray[np.int64] = np.empty(0, np.int64)
        self._resize(1024)
        self._listeners: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow the log."""
        self._thread = threading.Thread(target=self._follow, name="serve-latest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until what was durable at the start has been read."""
        return self._caught_up.wait(timeout_s)

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, on the following thread, whenever something changed; returns the unsubscriber."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def changed(self, ids: NDArray[np.uint32], since: int) -> NDArray[np.uint32]:
        """Which of the ids got a reading after `mark` was `since`."""
        with self.lock:
            known: NDArray[np.uint32] = ids[ids < self._size]
            fresh: NDArray[np.uint32] = known[self.marks[known] > since]
            return fresh

    def all_changed(self, since: int) -> NDArray[np.uint32]:
        """All ids that got a reading after `mark` was `since`."""
        with self.lock:
            return np.flatnonzero(self.marks > since).astype(np.uint32)

    def seen(self, ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Which of the ids have a reading at all."""
        with self.lock:
            known: NDArray[np.uint32] = ids[ids < self._size]
            found: NDArray[np.uint32] = known[self.times[known] != _NEVER]
            return found

    def _resize(self, least: int) -> None:
        size = max(least, 2 * self._size)
        self.times = _grown(self.times, size, _NEVER)
        self.order = _grown(self.order, size, _NEVER)
        self.values = _grown(self.values, size, np.nan)
        self.qualities = _grown(self.qualities, size, 0)
        self.arrivals = _grown(self.arrivals, size, _NEVER)
        self.intervals = _grown(self.intervals, size, 0)
        self.counts = _grown(self.counts, size, 0)
        self.marks = _grown(self.marks, size, 0)
        self._size = size

    def _follow(self) -> None:
        unsubscribe = self._log.on_durable(self._wake.set)
        try:
            after = self._look_back()
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    streams = self._streams()
                    changed = False
                    for frames in _together(self._log.read(streams, after=after)):
                        if self._stop.is_set():
                            return
                        self._take(frames)
                        after = frames[-1].position
                        changed = True
                except (LogError, OSError) as error:
                    if self._stop.wait(RETRY_S):
                        return
                    _log.warning("live values cannot follow the log, trying again: %s", error)
                    after = self._look_back() if isinstance(error, PositionGoneError) else after
                    continue
                self._caught_up.set()
                if changed:
                    for listener in list(self._listeners):
                        listener()
                if self._stop.wait(STEP_S):
                    return
                self._wake.wait()
        finally:
            unsubscribe()
            self._caught_up.set()

    def _look_back(self) -> Position | None:
        """Where to begin. The log keeps one order over all streams: the first position found serves for all."""
        since_ns = time.time_ns() - LOOK_BACK_NS
        places = (self._log.find(name, since_ns) for name in self._streams())
        return next((place for place in places if place is not None), None)

    def window_streams(self) -> list[str]:
        """Names of the streams whose rows are windows of series."""
        return window_streams(self._log.streams())

    def _streams(self) -> list[str]:
        return ["readings", "deadletters", *self.window_streams()]

    def _take(self, frames: list[Frame]) -> None:
        """Frames of one stream."""
        with self.lock:
            self.mark += 1
            if frames[0].stream == "readings":
                self._take_readings(Chunk(frames, sum(frame.row_count for frame in frames)))
                return
            for frame in frames:
                if frame.stream == "deadletters":
                    self._take_letters(frame)
                else:
                    self.windows.take(frame, self.mark)

    def _take_readings(self, chunk: Chunk) -> None:
        ids, times = chunk.ids(), chunk.times("time")
        values = chunk.column("value").to_numpy()
        qualities = chunk.column("quality").to_numpy()
        arrivals = chunk.arrivals()
        self.readings += len(ids)
        self.last_arrival_ns = max(self.last_arrival_ns, int(arrivals[-1]))
        self.invalid += int(np.count_nonzero((qualities & VALIDITY_MASK) >= 2))
        top = int(ids.max())
        if top >= self._size:
            self._resize(top + 1)
        order = np.minimum(times, arrivals)
        before, counted = self.order[ids], self.counts[ids]
        np.add.at(self.counts, ids, 1)
        np.maximum.at(self.order, ids, order)
        # the newest of each series; among equals the later one, which is assigned last
        newest = np.flatnonzero(order == self.order[ids])
        ids = ids[newest]
        self._learn_intervals(ids, order[newest], before[newest], self.counts[ids] - counted[newest])
        self.times[ids], self.values[ids] = times[newest], values[newest]
        self.qualities[ids], self.arrivals[ids] = qualities[newest], arrivals[newest]
        self.marks[ids] = self.mark

    def _learn_intervals(
        self,
        ids: NDArray[np.uint32],
        order: NDArray[np.int64],
        before: NDArray[np.int64],
        readings: NDArray[np.int64],
    ) -> None:
        """Keep a moving mean of the seconds between a series' readings; a gap counts as four intervals at most."""
        again = (before != _NEVER) & (order > before)
        ids, step = ids[again], (order[again] - before[again]) / 1e9 / readings[again]
        known = self.intervals[ids]
        bounded = np.where(known > 0, np.minimum(step, 4 * known), step)
        self.intervals[ids] = np.where(known > 0, known + 0.2 * (bounded - known), bounded)

    def _take_letters(self, frame: Frame) -> None:
        newest = frame.rows.slice(max(frame.row_count - LETTERS_KEPT, 0))
        times = ns_of(newest.column("time"))
        for index, row in enumerate(newest.drop_columns(["time"]).to_pylist()):
            self.letters.appendleft(
                KeptLetter(
                    int(times[index]),
                    row["source"],
                    row["topic"],
                    row["reason"],
                    row["payload"],
                    row["payload_bytes"],
                )
            )


def _grown(array: NDArray[_Number], size: int, fill: float) -> NDArray[_Number]:
    return np.concatenate((array, np.full(size - len(array), fill, array.dtype)))


def _together(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames that follow one another in the same stream, up to about CHUNK_ROWS rows at a time; none is empty."""
    held: list[Frame] = []
    rows = 0
    for frame in frames:
        if not frame.row_count:
            continue
        full = rows >= CHUNK_ROWS or len(held) >= CHUNK_FRAMES
        if held and (full or frame.stream != held[0].stream):
            yield held
            held, rows = [], 0
        held.append(frame)
        rows += frame.row_count
    if held:
        yield held
