"""The columns of a stored frame, and what was found out of them, once for all flows that fold the frame.

Flows that are at the same place share its frames (`frames.py`). What steps work out of the rows alone, whatever the flow,
can be kept here as well: it lives as long as the frame's rows do. From any thread: what two of them work out at the same
time is equal.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pyarrow as pa

from ringmain.flows.block import Block, Columns, Floats
from ringmain.model.schemas import READING


class FrameColumns(Columns):
    """The columns of a frame's readings."""

    looked_over: tuple[Floats, int, int, int, bool] | None = None
    """What `readings.looked_over` gave of them."""


_known: dict[int, tuple[weakref.ref[pa.RecordBatch], FrameColumns]] = {}
"""By identity of the rows: they are compared by content, and have no hash."""


def frame_block(rows: pa.RecordBatch, arrival_ns: int) -> Block:
    """The rows of a stored frame as a block; those of readings have columns that are the same for every caller."""
    block = Block(rows, arrival_ns)
    if rows.schema.equals(READING):
        block.know(_columns(rows, block))
    return block


def _columns(rows: pa.RecordBatch, block: Block) -> FrameColumns:
    key = id(rows)
    known = _known.get(key)
    if known is not None and known[0]() is rows:
        return known[1]
    columns = FrameColumns(*block.columns)
    _known[key] = weakref.ref(rows, _forgetting(key)), columns
    return columns


def _forgetting(key: int) -> Callable[[object], None]:
    def forget(_: object) -> None:
        _known.pop(key, None)

    return forget
