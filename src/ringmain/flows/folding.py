"""A flow's chain at a position of the log: taken up from a snapshot or the input, and saved again.

State is nothing but the fold over the input, so what is done here is only ever faster or slower, never other: the
newest usable snapshot is loaded and the input between it and the committed position folded again without output.
Frames that were passed over once, because a step failed on them, are passed over again. The chain is told of changes
of the definition (`takeovers.py`) where they were made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from msgspec import structs

from ringmain.flows.block import Block
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan, definition_hash
from ringmain.flows.later import made
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.flows.step import StepState
from ringmain.flows.takeovers import Takeover
from ringmain.log.interface import Frame, LogReader, Position, PositionGoneError

_logger = logging.getLogger("ringmain.flow")


class FlowStoppedError(Exception):
    """The flow cannot go on by itself; the message says what to do."""


class Folding:
    """The chain of a plan and what has been folded into it.

    `stopping()` ends a long fold with InterruptedError. `takeovers`: changes of the definition on the way.
    """

    def __init__(
        self,
        plan: FlowPlan,
        log: LogReader,
        snapshots: Snapshots,
        skipped: tuple[Position, ...],
        stopping: Callable[[], bool],
        takeovers: tuple[Takeover, ...] = (),
    ) -> None:
        self.plan = plan
        if skipped:  # steps that look back do not see their rows either
            log = cast(LogReader, _LeftOut(log, frozenset(skipped)))
        self._log = log
        self._snapshots = snapshots
        self._definition = definition_hash(plan)
        self._stopping = stopping
        self.skipped = skipped
        self._skip = frozenset(skipped)
        self.chain = Chain(plan, log)
        self._takeovers = takeovers
        self._due: list[Takeover] = []
        """Changes that the chain was not told of yet, the oldest first."""
        self._begin()

    @property
    def position(self) -> Position | None:
        """The last frame that was folded."""
        return self.chain.position

    def step(self, frame: Frame, *, emit: bool = True) -> list[Block]:
        """Fold a frame, or pass over its rows. Raises StepFailureError."""
        left_out = frame.position in self._skip
        if not self._due:
            return self.chain.step(frame, emit=emit, left_out=left_out)
        told = self._taken_over(frame.position)
        given = self.chain.step(frame, emit=emit, left_out=left_out)
        return [*told, *given] if emit else []

    def settle(self) -> list[Block]:
        """The changes that were made up to here are all: tell the chain of those that it does not know; what follows."""
        return self._taken_over(None)

    def _begin(self) -> None:
        """The chain is a new one, or restored."""
        era = self.chain.era
        self._due = [] if era is None else [one for one in self._takeovers if one.number > era]

    def _taken_over(self, following: Position | None) -> list[Block]:
        """Tell the chain of changes before the frame at `following` (None: of all up to here); what follows."""
        told: list[Block] = []
        while self._due and self._passed(self._due[0].position, following):
            told += self.chain.take_over(self._due[0].number)
            del self._due[0]
        return told

    def _passed(self, behind: Position | None, following: Position | None) -> bool:
        """Whether a change behind one frame comes before another (None: the end)."""
        here = self.chain.position
        if behind is None or behind == here or following is None:
            return True
        if behind.incarnation == following.incarnation:
            return behind.offset < following.offset
        return here is not None and here.incarnation == behind.incarnation

    def fold_up_to(self, committed: Position | None) -> None:
        """Bring the chain to the committed position. Raises FlowStoppedError where that cannot be proved to be right."""
        name = self.plan.name
        if committed is None:
            self._name_known()
            return
        for saved in self._snapshots.load(self._definition):
            if not self._usable(saved):
                _logger.warning("flow %s: a snapshot is passed over: it holds a batch that was skipped", name)
                continue
            self.chain = Chain(self.plan, self._log)
            self._restore(saved)
            self._begin()
            try:
                self._fold_silently(committed)
            except PositionGoneError as error:
                _logger.warning("flow %s: a snapshot is passed over: %s", name, error)
                continue
            if self.chain.position == committed:
                return
            _logger.warning("flow %s: a snapshot is passed over: it is not of this log", name)
        _logger.info("flow %s: no usable snapshot, folding its input from the beginning", name)
        self.chain = Chain(self.plan, self._log)
        self._begin()
        self._fold_silently(committed, whole=True)
        if self.chain.position != committed:
            raise FlowStoppedError(
                f"the frame at its position {committed} is not in the log any more, and no snapshot replaces it: "
                "name a new stream in `to` to begin anew with what the log holds"
            )

    def fold_what_is_there(self, committed: Position, before: Saved | None, kept: int) -> int:
        """Bring the chain to the committed position, over what the log holds of the input.

        `before`: a state in which the first `kept` steps are these; they are taken from there where its position is in
        the log. How many were is returned. Raises FlowStoppedError where the committed position is not.
        """
        taken = 0
        self._begin_anew()
        if before is not None and kept and self._usable(before):
            try:
                self._fold_silently(before.position)
                if self.chain.position == before.position:
                    self._take_steps(before, kept)
                    taken = kept
            except (PositionGoneError, KeyError, ValueError, AssertionError) as error:
                _logger.warning("flow %s: a snapshot is passed over: %s", self.plan.name, error)
                self._begin_anew()
        try:
            self._fold_silently(committed)
        except PositionGoneError as error:
            _logger.warning("flow %s: %s", self.plan.name, error)
        if self.chain.position != committed:
            raise FlowStoppedError(
                f"retention has taken the frame at its position {committed} and what came behind it: the rows from there to "
                "the beginning of the log would be missing in its output. Name a new stream in `to` to begin anew with "
                "what the log holds"
            )
        return taken

    def _begin_anew(self) -> None:
        self.chain = Chain(self.plan, self._log)
        self._begin()
        self._name_known()

    def _take_steps(self, before: Saved, kept: int) -> None:
        """The first steps as they are in a state at the chain's position, the others as they are."""
        chain = self.chain
        own: list[StepState] = [
            {
                name: np.copy(part) if isinstance(part, np.ndarray) else made(part)
                for name, part in one.items()
            }
            for one in [*chain.state(), chain.attributes.state()]
        ]
        saved = self.saved()
        states: list[StepState] = [*before.states[:kept], *own[kept:]]
        self.chain = Chain(self.plan, self._log)
        self._restore(replace(saved, states=states))
        self._begin()

    def _usable(self, saved: Saved) -> bool:
        """Whether the snapshot was made without the frames that are to be passed over."""
        if not set(saved.skipped) <= self._skip:
            return False
        return all(
            position.incarnation == saved.position.incarnation and position.offset > saved.position.offset
            for position in self._skip - set(saved.skipped)
        )

    def _restore(self, saved: Saved) -> None:
        chain = self.chain
        chain.attributes.restore(saved.states[-1])
        chain.restore(saved.states[:-1], saved.now_ns, saved.lead_ns, saved.position)
        chain.newest = saved.newest_ns
        chain.instant = list(saved.instant)

    def saved(self) -> Saved:
        """What a snapshot has to hold; views, valid until the next frame is folded."""
        chain = self.chain
        if chain.position is None:
            raise ValueError("expected the state behind a frame, found the state before the first")
        return Saved(
            chain.position,
            chain.now,
            chain.lead_ns,
            chain.newest,
            self.skipped,
            tuple(chain.instant),
            [*chain.state(), chain.attributes.state()],
        )

    def _fold_silently(self, committed: Position, *, whole: bool = False) -> None:
        """Fold what lies between the state and the position; its outputs are in the log already."""
        seen: set[str] = set()
        if self.chain.position == committed:
            return
        for frame in self._log.read(self.chain.streams, after=self.chain.position, until=committed):
            if whole and frame.stream not in seen:
                seen.add(frame.stream)
                if frame.cumulative_rows != frame.row_count:
                    raise FlowStoppedError(
                        f"the first {frame.cumulative_rows - frame.row_count} rows of {frame.stream!r} have been "
                        "removed from the log, and no snapshot holds what followed from them: "
                        f"`ringmain flow continue {self.plan.name}` goes on with what the log holds, or name a new "
                        "stream in `to` to begin anew with it"
                    )
            self.step(frame, emit=False)
            if self._stopping():
                raise InterruptedError("stopped while folding up to the position")

    def _name_known(self) -> None:
        """Where the beginning of the catalogue is gone from the log, take what is known of series now."""
        first = next(iter(self._log.read("catalogue")), None)
        if first is not None and first.cumulative_rows != first.row_count:
            for entries in self._log.catalogue().to_batches():
                self.chain.learn(entries)


class _LeftOut:
    """A log whose frames at some positions hold no rows. Everything else is as it is."""

    def __init__(self, log: LogReader, positions: frozenset[Position]) -> None:
        self._log = log
        self._positions = positions

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, streams: str | Sequence[str], *args: object, **kwargs: object) -> Iterator[Frame]:
        """As the log's; counts stay, which tell whether rows were removed."""
        for frame in self._log.read(streams, *args, **kwargs):  # type: ignore[arg-type]
            left_out = frame.position in self._positions
            yield structs.replace(frame, rows=frame.rows.slice(0, 0)) if left_out else frame
