"""Rows of two row-wise steps that write one stream, in an order that does not depend on batches.

Two such steps (`route` and `route`) see the rows of an instant in as many blocks as there are frames, so their rows would
alternate by frame. The later one's rows for that stream wait here until the instant has ended: within an instant they
stand behind all those of the step before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ringmain.flows.block import Block
from ringmain.flows.pending import Pending
from ringmain.flows.step import Step, StepState


class HoldingBack:
    """A step whose rows for some streams wait for the end of their instant."""

    def __init__(self, step: Step, streams: Collection[str]) -> None:
        self._step = step
        self._held = {stream: Pending(f"held_{number}") for number, stream in enumerate(sorted(streams))}

    def take(self, block: Block) -> Sequence[Block]:
        """What the step gives at once, but for those streams."""
        at_once = []
        for given in self._step.take(block):
            held = None if given.stream is None else self._held.get(given.stream)
            if held is None:
                at_once.append(given)
            else:
                held.take(given)
        return at_once

    def advance(self, now_ns: int) -> Sequence[Block]:
        """What waited, and what the step gives."""
        out = [
            Block(block.rows, block.arrival_ns, stream)
            for stream, held in self._held.items()
            for block in held.end()
        ]
        return [*out, *self._step.advance(now_ns)]

    def state(self) -> StepState:
        """The step's, and what waits."""
        found = dict(self._step.state())
        for held in self._held.values():
            found |= held.state()
        return found

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        for held in self._held.values():
            held.restore(state)
        self._step.restore(state)
