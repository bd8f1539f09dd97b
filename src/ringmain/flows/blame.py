"""Which of the frames of an instant a step fails on.

A step that works on whole instants fails on all frames of one, though mostly one of them is at fault. To find it, the
input is folded again with some of them left out, by halves: nothing is written, and what a flow decides by it is kept with
its position (`poison.py`), so it does not matter that a clock bounds the search. Frames that were not looked at in time
count as at fault.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ringmain.flows.chain import StepFailureError
from ringmain.flows.folding import FlowStoppedError, Folding
from ringmain.log.interface import LogReader, Position, PositionGoneError

SEARCH_S = 30.0
_logger = logging.getLogger("ringmain.flow")

Fold = Callable[[tuple[Position, ...]], Folding]
"""A fold that has not begun, which leaves out these frames besides those that the flow leaves out anyway."""


def at_fault(
    failure: StepFailureError,
    fold: Fold,
    log: LogReader,
    committed: Position | None,
    behind: Position | None,
) -> tuple[Position, ...]:
    """Those of the failure's frames without which the step works on the others; empty: it fails without them all.

    `behind`: the last frame that was folded before the failure.
    """
    frames = failure.frames
    if len(frames) < 2:
        return frames
    until_s = time.monotonic() + SEARCH_S

    def fails(left_out: Sequence[Position]) -> bool:
        return _fails(fold(tuple(left_out)), log, committed, behind)

    kept: list[Position] = []

    def keep(group: Sequence[Position]) -> None:
        """Keep those of a group that do no harm beside the ones that are kept."""
        if time.monotonic() > until_s:
            return
        wanted = {*kept, *group}
        if not fails([frame for frame in frames if frame not in wanted]):
            kept.extend(group)
        elif len(group) > 1:
            half = len(group) // 2
            keep(group[:half])
            keep(group[half:])

    try:
        if fails(frames):
            return ()
        half = len(frames) // 2
        keep(frames[:half])
        keep(frames[half:])
    except (FlowStoppedError, PositionGoneError) as error:
        _logger.warning("which of %d batches a step fails on cannot be found out: %s", len(frames), error)
        return frames
    found = tuple(frame for frame in frames if frame not in kept)
    return found or frames  # it works on all of them now, after as many tries as there may be


def _fails(folding: Folding, log: LogReader, committed: Position | None, behind: Position | None) -> bool:
    """Whether a step fails on the instant, or before."""
    following: Position | None = None
    try:
        folding.fold_up_to(committed)
        for frame in log.read(folding.chain.streams, after=committed):
            following = frame.position
            folding.step(frame)
            if (
                behind is None
                or following.incarnation != behind.incarnation
                or following.offset > behind.offset
            ):
                return False
    except StepFailureError as error:
        return following is None or following not in error.frames  # else on what comes behind the instant
    return False
