"""A log that many flows read: each frame is read and decoded once.

Flows that are at the same place of the log share its newest frames; one that is far behind reads by itself until it has
caught up with the others. When something becomes durable one of those that wait looks, and wakes the others if there is
something for them: a commit costs the same however many flows there are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from ringmain.log.interface import Frame, Log, LogReader, Position

KEPT_BYTES = 64 << 20
"""Of decoded frames at most; they are held once, however many flows there are."""
_AT_ONCE = 32
"""Frames that are read from the log while others wait."""


class SharedFrames:
    """The newest frames of the streams that any flow reads, in log order. From any thread."""

    def __init__(self, log: LogReader, kept_bytes: int = KEPT_BYTES) -> None:
        self._log = log
        self._kept_bytes = kept_bytes
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        self._frames: deque[Frame] = deque()
        self._first = 0
        self._clear(None)
        self.reads = 0
        """Frames taken from the log, by whomever."""
        self.looks = 0
        """How often the log was searched for more of them."""
        self._waiting: dict[threading.Event, frozenset[str]] = {}
        self._waiting_alone: set[threading.Event] = set()
        self._waiting_lock = threading.Lock()
        self._following_lock = threading.Lock()
        self._followers = 0
        self._unsubscribe: Callable[[], None] = lambda: None

    def _clear(self, before: Position | None) -> None:
        """Hold nothing; numbers that somebody has of frames are those of none any more."""
        self._first = self._base = self._first + len(self._frames) + 1
        self._frames.clear()
        self._bytes = 0
        self._before = before
        """What the first frame comes after, while none was let go."""
        self._searched = before
        """Up to here the log was searched for frames behind those that are held."""
        self._places: dict[Position, int] = {}
        self._begun = False

    def announce(self, streams: Sequence[str]) -> None:
        """Somebody is going to read these streams."""
        with self._lock:
            if not set(streams) <= self._streams:
                self._streams |= set(streams)
                self._clear(None)  # frames between those that are held were left out

    def read(self, streams: Sequence[str], after: Position | None) -> Iterator[Frame]:
        """Durable frames of the streams in log order behind a position, as `LogReader.read` gives them."""
        wanted = frozenset(streams)
        number = self._number(after)
        if number is None:
            for frame in self._log.read(list(streams), after=after):
                self.reads += 1
                yield frame
                after = frame.position
                number = self._number(after)
                if number is not None:
                    break
            else:
                return
        while True:
            held = self._held(number)
            if held is None:  # let go in the meantime
                yield from self._log.read(list(streams), after=after)
                return
            if not held:
                return
            for frame in held:
                if frame.stream in wanted:
                    yield frame
                    after = frame.position
            number += len(held)

    def _number(self, after: Position | None) -> int | None:
        """The number of the frame that follows a position, if it is or will be held here."""
        with self._lock:
            if not self._begun:
                self._clear(after)
                self._begun = True
            if after in self._places:
                return self._places[after] + 1
            return self._base if after == self._before and self._first == self._base else None

    def _held(self, number: int) -> list[Frame] | None:
        """A few frames from this one on; empty at the end of the log, None if they were let go."""
        with self._lock:
            if number >= self._first + len(self._frames):
                self._extend()
            begin = number - self._first
            if begin < 0:
                return None
            return [self._frames[place] for place in range(begin, min(begin + _AT_ONCE, len(self._frames)))]

    def _extend(self) -> None:
        end = self._log.end()
        if end is None or end == self._searched:
            return
        self.looks += 1
        came = set()
        frames = self._log.read(sorted(self._streams), after=self._searched, until=end)
        for taken, frame in enumerate(frames, 1):
            self.reads += 1
            self._places[frame.position] = self._first + len(self._frames)
            self._frames.append(frame)
            self._bytes += frame.rows.nbytes
            self._searched = frame.position
            came.add(frame.stream)
            if taken == _AT_ONCE:
                break
        else:
            self._searched = end
        while self._bytes > self._kept_bytes and len(self._frames) > 1:
            gone = self._frames.popleft()
            self._bytes -= gone.rows.nbytes
            self._first += 1
            del self._places[gone.position]
        if came:
            with self._waiting_lock:
                for wake, streams in self._waiting.items():
                    if not came.isdisjoint(streams):
                        wake.set()

    # Waiting for more

    def follow(self, log: Log) -> Callable[[], None]:
        """Be told by the log from now on, until what is returned is called."""
        with self._following_lock:
            self._followers += 1
            if self._followers == 1:
                self._unsubscribe = log.on_durable(self._more)

        def leave() -> None:
            with self._following_lock:
                self._followers -= 1
                if not self._followers:
                    self._unsubscribe()
            self._more()  # whoever leaves may have been the one to look

        return leave

    def wait(
        self,
        streams: Sequence[str],
        after: Position | None,
        end: Position | None,
        wake: threading.Event,
        timeout_s: float,
    ) -> None:
        """Wait for more frames of these streams behind a position, for `wake`, or for the time to pass.

        `end`: that of the log before the caller read to the end. `wake` must have been clear then.
        """
        alone = self._number(after) is None
        with self._waiting_lock:
            if alone:
                self._waiting_alone.add(wake)
            else:
                self._waiting[wake] = frozenset(streams)
        try:
            woken = self._log.end() != end or wake.wait(timeout_s)
        finally:
            with self._waiting_lock:
                self._waiting_alone.discard(wake)
                self._waiting.pop(wake, None)
                others = bool(self._waiting)
        if woken and others:
            with self._lock:
                self._extend()

    def _more(self) -> None:
        """Something became durable: one of those who go together looks, for all of them."""
        with self._waiting_lock:
            for wake in self._waiting:
                wake.set()
                break
            for wake in self._waiting_alone:
                wake.set()
