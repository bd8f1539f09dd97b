"""Rows that wait for the end of their instant, or longer: blocks in the order in which they came."""

from __future__ import annotations

import numpy as np

from ringmain.flows.block import Block, Ints
from ringmain.flows.ordering_rows import joined, kept, restored, stored
from ringmain.flows.step import StepState


class Pending:
    """Blocks of one shape. `name` begins the names of its parts in a state."""

    def __init__(self, name: str = "pending") -> None:
        self._name = name
        self.blocks: list[Block] = []

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def take(self, block: Block) -> None:
        """One more."""
        if len(block):
            self.blocks.append(block)

    def end(self) -> list[Block]:
        """All of them; none is left."""
        blocks, self.blocks = self.blocks, []
        return blocks

    def state(self) -> StepState:
        """The blocks."""
        return {
            f"{self._name}_rows": stored([block.rows for block in self.blocks]),
            f"{self._name}_arrival": np.array([block.arrival_ns for block in self.blocks], np.int64),
            f"{self._name}_length": np.array([len(block) for block in self.blocks], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        rows = restored(state[f"{self._name}_rows"])
        arrivals = kept(state, f"{self._name}_arrival", np.int64).tolist()
        lengths = kept(state, f"{self._name}_length", np.int64).tolist()
        start = 0
        for arrival, length in zip(arrivals, lengths, strict=True):
            assert rows is not None
            self.blocks.append(Block(rows.slice(start, length), arrival))
            start += length


def together(blocks: list[Block]) -> tuple[Block, Ints | int]:
    """Blocks (at least one) as one, and the arrival of its rows."""
    if len(blocks) == 1:
        return blocks[0], blocks[0].arrival_ns
    arrival = np.repeat(
        np.array([block.arrival_ns for block in blocks], np.int64), [len(block) for block in blocks]
    )
    return Block(joined([block.rows for block in blocks]), blocks[-1].arrival_ns), arrival
