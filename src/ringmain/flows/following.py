"""A flow on its way: it folds what is durable, commits what follows, and saves its state now and then."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ringmain.flows.block import Block
from ringmain.flows.chain import StepFailureError
from ringmain.flows.counting import FlowCounters
from ringmain.flows.flow import definition_hash
from ringmain.flows.flow_status import SnapshotPolicy
from ringmain.flows.folding import Folding
from ringmain.flows.frames import SharedFrames
from ringmain.flows.later import size_of
from ringmain.flows.output import Committer, Partial
from ringmain.flows.saving import Saver, Saving
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.flows.step import StepState
from ringmain.flows.turns import Turns
from ringmain.log.interface import Frame, LogReader, Position

_POSITION_EVERY_S = 10.0
_AT_A_TIME_S = 1.0
_TURN_S = 0.01
_SENDING = 8
_TRY_AGAIN_S = 0.1
_COPY_S = 0.002
"""How long the state is copied at a time while a picture of it is taken; frames are folded in between."""
_logger = logging.getLogger("ringmain.flow")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the flows of a process have in common."""

    frames: SharedFrames
    turns: Turns
    sending: threading.Semaphore
    """Outputs that are handed to the log and waited for later: so many that a sync has enough to do, and no more."""

    @classmethod
    def of(cls, log: LogReader) -> Shared:
        """For flows over this log."""
        return cls(SharedFrames(log), Turns(1), threading.Semaphore(_SENDING))


class _End:
    """Until when to fold, and how far that has come."""

    def __init__(self, until_s: float, stopping: Callable[[], bool]) -> None:
        self._until_s = until_s
        self._stopping = stopping
        self.all_folded = False
        """There is no more frame."""
        self.large: tuple[Frame, list[Block]] | None = None
        """What a frame gave that was not taken over yet."""

    @property
    def reached(self) -> bool:
        """Whether to end, what is `large` being taken over."""
        return self.all_folded or self._stopping() or time.perf_counter() >= self._until_s


class Following:
    """One run of a flow, used by its thread; what it has come to may be read by any."""

    def __init__(
        self,
        folding: Folding,
        committer: Committer,
        partial: Partial | None,
        counting: FlowCounters,
        snapshots: Snapshots,
        policy: SnapshotPolicy,
        shared: Shared,
    ) -> None:
        self.folding = folding
        self.committer = committer
        self.definition = definition_hash(folding.plan)
        self.streams = folding.chain.streams
        self.position = self.settled = folding.position
        """The last frame folded; the one up to which all that follows is durable."""
        self.folded_arrival_ns = max(0, folding.chain.now)
        self.thread: int | None = None
        """The one that folds at this moment (`threading.get_ident`)."""
        self._shared = shared
        shared.frames.announce(self.streams)
        self._partial = partial
        self._counting = counting
        self._saver = Saver(snapshots)
        self._policy = policy
        now_s = time.perf_counter()
        self._position_at_s = now_s
        self._snapshot_at_s = now_s
        self._try_at_s = 0.0
        self._folding_s = 0.0
        self._snapshot_rows = 0
        self._snapshot_position: Position | None = folding.position

    def fold_available(self, stopping: Callable[[], bool]) -> bool:
        """Fold what is durable, for about a second at most, and commit what follows from it; whether there may be more.

        Raises StepFailureError.
        """
        folding, committer = self.folding, self.committer
        started_s = time.perf_counter()
        frames = self._shared.frames.read(self.streams, folding.position)
        end = _End(started_s + _AT_A_TIME_S, stopping)
        try:
            while not end.reached:
                self._shared.turns.have(lambda: self._turn(frames, end))
                self._take_large(end)
                self._saver.go_on(_COPY_S, self._copied)
        except StepFailureError:
            committer.commit()  # what the frames before gave
            raise
        now_s = time.perf_counter()
        self._folding_s += now_s - started_s
        self._counting.count(folding.chain)
        if committer.pending or now_s - self._position_at_s >= _POSITION_EVERY_S:
            committer.commit()
            self._position_at_s = now_s
        self.settled = self.position
        since_s = now_s - self._snapshot_at_s
        if now_s >= self._try_at_s and (
            self._folding_s > self._policy.refold_s
            or (since_s > self._policy.interval_s and folding.chain.rows[0].rows_in > self._snapshot_rows)
        ):
            self._take_picture()
        return not end.all_folded or self._saver.unfinished

    def finish(self) -> None:
        """Wait until a snapshot that is being written is; one of which not everything is copied is given up."""
        self._saver.finish()

    def _turn(self, frames: Iterator[Frame], end: _End) -> bool:
        """Fold for a while, in whatever thread; whether to go on with the next turn."""
        folding, committer = self.folding, self.committer
        self.thread = threading.get_ident()
        until_s = time.perf_counter() + _TURN_S
        try:
            for frame in frames:
                blocks = folding.step(frame)
                self.position = frame.position
                self.folded_arrival_ns = max(self.folded_arrival_ns, frame.arrival_ns)
                if self._partial is not None or committer.would_append(frame, blocks):
                    end.large = frame, blocks
                    return False
                committer.take(frame, blocks)
                if blocks:
                    committer.send(self._shared.sending)
                if time.perf_counter() >= until_s:
                    return not (end.reached or self._saver.unfinished)
            end.all_folded = True
            return False
        finally:
            self.thread = None

    def _take_large(self, end: _End) -> None:
        """Take over what a frame gave that the log has to be waited for, in the flow's own thread."""
        if end.large is None:
            return
        frame, blocks = end.large
        end.large = None
        skip = self._partial.batches if self._partial is not None else 0
        self.committer.take(frame, blocks, skip)
        if self._partial is not None:
            self._partial = None
            self.folding.chain.emitted_until(None)

    def save(self) -> None:
        """Commit, save the state, which is then that of the committed position, and wait until it is written."""
        self.committer.commit()
        if self._saver.unfinished and self.folding.position == self._snapshot_position:
            self._saver.go_on(math.inf)
        self._saver.finish()
        if self.folding.position is not None and self.folding.position != self._snapshot_position:
            self._begin_picture(self.folding.saved(), time.perf_counter())
            self._saver.go_on(math.inf)
        self._saver.finish()

    def _take_picture(self) -> None:
        """Begin to save the state, if there is memory for it. A snapshot that fails costs time at the next start only."""
        folding = self.folding
        if folding.position is None or folding.position == self._snapshot_position:
            return
        started_s = time.perf_counter()
        saved = folding.saved()
        if not self._saver.ready(saved.states):
            self._try_at_s = started_s + _TRY_AGAIN_S
            return
        self._begin_picture(saved, started_s)

    def _begin_picture(self, saved: Saved, started_s: float) -> None:
        self._folding_s = 0.0
        self._snapshot_at_s = started_s
        savings = [*map(Saving.of, self.folding.chain.steps), Saving()]
        self._saver.begin(self.definition, saved, savings, self._saved, started_s)
        self._counting.sized([_size(state) for state in saved.states[:-1]])
        self._snapshot_rows = self.folding.chain.rows[0].rows_in
        self._snapshot_position = self.folding.position

    def _copied(self) -> None:
        """All of the state is copied: it may be written once its position is committed."""
        self._counting.paused(self._saver.pause_s)
        self.committer.commit()

    def _saved(self, size_bytes: int | None, error: Exception | None) -> None:
        """A snapshot was written, or not. On the thread that did."""
        if size_bytes is not None:
            self._counting.snapshot_taken(size_bytes)
            return
        self._snapshot_position = None
        self._counting.snapshot_failed()
        _logger.warning("flow %s: no snapshot: %s", self.folding.plan.name, error)


def _size(state: StepState) -> int:
    return sum(map(size_of, state.values()))
