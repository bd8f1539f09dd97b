"""How a flow's outputs and its position get into the log together.

Output rows of several input frames travel in one append with the position of the last of them. The rows of one
input frame may need more than one append; then the position stays where it was, and a second one says how many
batches of the next frame are there already: after a crash exactly the missing ones follow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ringmain.flows.block import Block
from ringmain.log.interface import (
    Appended,
    Batch,
    Claim,
    Frame,
    Log,
    LogError,
    LogFailedError,
    LogFullError,
    Position,
)

BATCH_BYTES = 384 * 1024
BATCH_ROWS = 16_384
"""Of one output frame at most: a part of how outputs are cut, so it is the same after every restart."""
_BATCH_OVERHEAD_BYTES = 2048
_APPEND_BYTES = 512 * 1024
"""Of the group's limit a part only: acknowledgements of devices wait for the sync of what a flow appends before them."""
_APPEND_BEHIND_BYTES = 2 * 1024 * 1024
"""While the flow works through what arrived long ago: each append costs a sync and the commit thread's time."""
_SEND_BYTES = 512 * 1024
"""Enough to be handed to the log while folding goes on."""
_BEHIND_NS = 10_000_000_000
_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 5.0


class Partial:
    """How many batches of the frame behind the committed position are in the log, and what lies before them."""

    def __init__(self, batches: int, before: Position | None) -> None:
        self.batches = batches
        self.before = before

    @classmethod
    def parse(cls, text: bytes) -> Partial:
        """Out of the position's text. Raises ValueError."""
        batches, _, before = text.decode().partition(" ")
        return cls(int(batches), Position.parse(before) if before else None)

    def __bytes__(self) -> bytes:
        return f"{self.batches} {self.before or ''}".encode()


class _Sent:
    """An append that the log was handed, and its answer once it comes."""

    def __init__(self, batches: list[Batch], position: Position | None, sequence: int) -> None:
        self.batches = batches
        self.position = position
        self.sequence = sequence
        self.answered = threading.Event()
        self.appended: Appended | None = None
        self.error: LogError | None = None

    def answer(self, appended: Appended | None, error: LogError | None) -> None:
        """On a thread of the log."""
        self.appended, self.error = appended, error
        self.answered.set()


class Committer:
    """Appends outputs and positions under the flow's claim. Used by the flow's thread.

    `pause(seconds, error)` is called while the log takes nothing; False from it gives up (InterruptedError).
    `went_on()` is called when it takes something again.
    """

    def __init__(
        self,
        log: Log,
        claim: Claim,
        committed: Position | None,
        pause: Callable[[float, Exception], bool],
        went_on: Callable[[], None],
    ) -> None:
        self._log = log
        self._claim = claim
        self._pause = pause
        self._went_on = went_on
        self._sequence = 0
        self._batches: list[Batch] = []
        self._bytes = 0
        self._sent: _Sent | None = None
        self._last_append: Position | None = None
        self.committed = committed
        """The position that is in the log."""
        self.position = committed
        """The last frame that was taken, its outputs included."""

    @property
    def pending(self) -> bool:
        """Whether outputs are not known to be in the log."""
        return bool(self._batches) or self._sent is not None

    def would_append(self, frame: Frame, blocks: Sequence[Block]) -> bool:
        """Whether `take` would wait for the log."""
        if not blocks:
            return False
        more = sum(block.rows.nbytes + _BATCH_OVERHEAD_BYTES for block in blocks)
        return bool(self._bytes + more > _limit_bytes(frame) // 2)

    def take(self, frame: Frame, blocks: Sequence[Block], skip: int = 0) -> None:
        """Take over what a frame gave, without its first `skip` batches; appends when enough has come together."""
        if not blocks:
            self.position = frame.position
            return
        batches = cut(frame, blocks)
        sizes = [_size(batch) for batch in batches]
        # how much goes into one append says nothing of what is in the log afterwards
        limit_bytes = _limit_bytes(frame)
        if self._bytes + sum(sizes) > limit_bytes:
            self.commit()
        if sum(sizes) > limit_bytes:
            self._take_large(frame.position, batches, sizes, skip, limit_bytes)
            return
        self._batches += batches[skip:]
        self._bytes += sum(sizes[skip:])
        self.position = frame.position
        if skip:
            self.commit()

    def send(self, sending: threading.Semaphore) -> None:
        """Hand the log what has come together, if that is enough; `commit` waits for it.

        Not while an append before is on its way, nor without a place among those that are `sending` already.
        """
        if self._bytes < _SEND_BYTES:
            return
        if self._sent is not None:
            if not self._sent.answered.is_set() or self._sent.error is not None:
                return
            self._settle()
        if not sending.acquire(blocking=False):
            return
        self._sequence += 1
        sent = self._sent = _Sent(self._batches, self.position, self._sequence)
        self._batches, self._bytes = [], 0

        def answered(appended: Appended | None, error: LogError | None) -> None:
            sending.release()
            sent.answer(appended, error)

        self._log.append_nowait(
            sent.batches,
            answered,
            claim=self._claim,
            sequence=sent.sequence,
            positions=self._named(_moved(sent.position)),
        )

    def commit(self) -> None:
        """Append what is pending with the position; returns when that, and what was sent before, is in the log."""
        self._settle()
        if not self._batches and self.position == self.committed:
            return
        self._append(self._batches, _moved(self.position))
        self.committed = self.position
        self._batches, self._bytes = [], 0

    def _settle(self) -> None:
        """Wait for what was sent, and send it again until the log takes it."""
        sent = self._sent
        if sent is None:
            return
        sent.answered.wait()
        self._sent = None
        if isinstance(sent.error, (LogFullError, LogFailedError)):
            self._wait(_RETRY_MIN_S, sent.error)
            self._append(sent.batches, _moved(sent.position), sent.sequence)
            self._went_on()
        elif sent.error is not None:
            raise sent.error
        elif sent.appended is not None:
            self._last_append = sent.appended.position
        self.committed = sent.position

    def note(self, batches: Sequence[Batch], positions: Mapping[str, bytes | None]) -> None:
        """Append something beside the outputs, with named positions below the flow's (`/definition`, say).

        What was taken and not committed is forgotten if `""` is among the positions; else commit before.
        """
        self._settle()
        self._append(list(batches), dict(positions))

    def write(self, blocks: Sequence[Block], arrival_ns: int) -> None:
        """Append blocks at once, without a position; nothing may be pending."""
        self._settle()
        part: list[Batch] = []
        size = 0
        for batch in cut_at(arrival_ns, blocks):
            if part and size + _size(batch) > _APPEND_BYTES:
                self._append(part, {})
                part, size = [], 0
            part.append(batch)
            size += _size(batch)
        if part:
            self._append(part, {})

    def _take_large(
        self, position: Position, batches: list[Batch], sizes: list[int], skip: int, limit_bytes: int
    ) -> None:
        """Append the outputs of one frame in several appends; nothing is pending."""
        if self._last_append is None:
            self._append([], {"": _text(self.position)})
        before = self._last_append
        start = skip
        while start < len(batches):
            stop, size = start, 0
            while stop < len(batches) and (stop == start or size + sizes[stop] <= limit_bytes):
                size += sizes[stop]
                stop += 1
            part = batches[start:stop]
            if stop == len(batches):
                self._append(part, {"": _text(position), "/partial": None})
            else:
                self._append(part, {"/partial": bytes(Partial(stop, before))})
            start = stop
        self.position = self.committed = position

    def resume(self, partial: Partial) -> None:
        """Go on behind an append that holds a part of a frame's outputs."""
        self._last_append = partial.before

    def _append(
        self, batches: list[Batch], positions: dict[str, bytes | None], sequence: int | None = None
    ) -> None:
        """Append, as often as it takes. `sequence`: that under which it was tried before."""
        if sequence is None:
            self._sequence += 1
            sequence = self._sequence
        named = self._named(positions)
        wait_s = _RETRY_MIN_S
        while True:
            try:
                appended = self._log.append(batches, claim=self._claim, sequence=sequence, positions=named)
            except (LogFullError, LogFailedError) as error:
                self._wait(wait_s, error)
                wait_s = min(2 * wait_s, _RETRY_MAX_S)
            else:
                self._last_append = appended.position
                if wait_s > _RETRY_MIN_S:
                    self._went_on()
                return

    def _wait(self, wait_s: float, error: Exception) -> None:
        if not self._pause(wait_s, error):
            raise InterruptedError("stopped while the log takes nothing") from error

    def _named(self, positions: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        return {self._claim.name + below: value for below, value in positions.items()}


def _moved(position: Position | None) -> dict[str, bytes | None]:
    """What an append notes with outputs up to a position."""
    return {"": _text(position), "/partial": None}


def _limit_bytes(frame: Frame) -> int:
    """Of an append with what this frame gave."""
    behind = time.time_ns() - frame.arrival_ns > _BEHIND_NS
    return _APPEND_BEHIND_BYTES if behind else _APPEND_BYTES


def cut(frame: Frame, blocks: Sequence[Block]) -> list[Batch]:
    """What a frame gave as batches for the log, of limited size each."""
    return cut_at(frame.origin_arrival_ns, blocks)


def cut_at(arrival_ns: int, blocks: Sequence[Block]) -> list[Batch]:
    """Blocks as batches for the log, of limited size each; `arrival_ns`: log time of what caused them."""
    batches: list[Batch] = []
    for block in blocks:
        rows = block.rows
        step = max(1, min(BATCH_ROWS, BATCH_BYTES * rows.num_rows // max(rows.nbytes, 1)))
        batches += [
            Batch(str(block.stream), rows.slice(start, step), arrival_ns)
            for start in range(0, rows.num_rows, step)
        ]
    return batches


def _size(batch: Batch) -> int:
    return int(batch.rows.nbytes) + _BATCH_OVERHEAD_BYTES


def _text(position: Position | None) -> bytes | None:
    return None if position is None else str(position).encode()
