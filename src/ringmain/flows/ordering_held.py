"""Readings held back until their series is far enough ahead, or silent: the `grace` of `flows.ordering`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block, Bools, Ints
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering_rows import joined, kept, restored, stored
from ringmain.flows.picture import Picture
from ringmain.flows.step import StepState

HELD_ROWS_MAX = 4_000_000
"""With more readings held than this all are let go."""
BLOCK_ROWS_MIN = 4096
"""Smaller blocks are joined."""
_FOREVER = 2**63 - 1


class HeldRows:
    """Readings in log order, with the newest time of each series and when it came.

    Nothing is sorted here: which readings may go is told by their series' newest time, block by block; in a fleet that
    reports in rounds whole blocks go at once.
    """

    def __init__(self, grace_ns: int, idle_ns: int) -> None:
        self._grace_ns = grace_ns
        self._idle_ns = idle_ns
        self._blocks: list[Block] = []
        self._newest: Ints = np.empty(0, np.int64)
        """By series: the newest time that came."""
        self._seen: Ints = np.empty(0, np.int64)
        """By series: the log time at which a reading came last."""
        self._idle_at = _FOREVER
        """No series with readings held is silent for long enough before this log time."""
        self.picture: Picture | None = None
        """Told of a series before it is written to."""

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def idle_at(self) -> int:
        """The log time (ns) before which only new readings let any go."""
        return self._idle_at

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        self._newest = grown(self._newest, size, NEVER)
        self._seen = grown(self._seen, size, NEVER)

    def add(self, block: Block, seen_ns: Ints) -> None:
        """Hold readings; `seen_ns`: the log time at which each came."""
        series = block.series
        if self.picture is not None:
            self.picture.before(series)
        np.maximum.at(self._newest, series, block.time)
        np.maximum.at(self._seen, series, seen_ns)
        self._idle_at = min(self._idle_at, int(seen_ns.min()) + self._idle_ns)
        if self._blocks and len(self._blocks[-1]) < BLOCK_ROWS_MIN:
            block = Block(joined([self._blocks.pop().rows, block.rows]), 0)
        self._blocks.append(block)

    def let_go(self, now_ns: int) -> tuple[list[pa.RecordBatch], bool]:
        """The readings that need not be held any longer, in log order; whether that is as there were too many."""
        if len(self) > HELD_ROWS_MAX:
            going = [block.rows for block in self._blocks]
            self._blocks, self._idle_at = [], _FOREVER
            return going, True
        look = now_ns >= self._idle_at
        going, staying = [], []
        idle_at = _FOREVER
        for block in self._blocks:
            series = block.series
            ready: Bools = block.time <= self._newest[series] - self._grace_ns
            if look:
                ready |= self._seen[series] <= now_ns - self._idle_ns
            count = int(ready.sum())
            if count == len(block):
                going.append(block.rows)
                continue
            if count:
                going.append(block.take(ready).rows)
                block = block.take(~ready)
            staying.append(block)
            if look:
                idle_at = min(idle_at, int(self._seen[block.series].min()) + self._idle_ns)
        self._blocks = staying
        if look or not staying:
            self._idle_at = idle_at
        return going, False

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "held_rows": stored([block.rows for block in self._blocks]),
            "held_newest": self._newest,
            "held_seen": self._seen,
            "held_idle_at": np.array([self._idle_at], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        rows = restored(state["held_rows"])
        self._blocks = [] if rows is None else [Block(rows, 0)]
        self._newest = kept(state, "held_newest", np.int64)
        self._seen = kept(state, "held_seen", np.int64)
        self._idle_at = int(kept(state, "held_idle_at", np.int64)[0])
