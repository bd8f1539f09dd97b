"""What is found out of a frame's rows is found out once, for as long as they are there."""

from __future__ import annotations

import gc

import numpy as np
import pyarrow as pa

import ringmain.flows.frame_columns as module
from ringmain.flows.block import Block
from ringmain.flows.frame_columns import frame_block
from ringmain.flows.readings import accepted

from .real_log import SECOND, START
from .recording import Recording


def _rows(*values: float) -> pa.RecordBatch:
    log = Recording()
    return log.readings([(number, START, value, 0) for number, value in enumerate(values)], START).rows


def test_every_flow_gets_the_same_columns_of_a_frame_and_what_was_found_out_of_them() -> None:
    rows = _rows(1.0, -0.0, float("nan"))
    one, other = frame_block(rows, START), frame_block(rows, START + SECOND)
    assert one.columns is other.columns
    assert other.arrival_ns == START + SECOND
    first, second = (accepted(block.columns, START, SECOND) for block in (one, other))
    assert first.value is second.value
    alone = accepted(Block(rows, START).columns, START, SECOND)
    assert first.value.tobytes() == alone.value.tobytes()
    assert first.grade is not None
    assert alone.grade is not None
    assert np.array_equal(first.grade, alone.grade)


def test_frames_of_equal_rows_are_not_taken_for_one_another_and_are_forgotten_with_their_rows() -> None:
    gc.collect()  # what earlier tests left
    before = len(module._known)
    for _ in range(200):  # places in memory come again
        rows = _rows(1.0)
        block = frame_block(rows, START)
        assert block.rows is rows
        assert np.shares_memory(block.columns.value, rows.column("value").to_numpy())
    del rows, block
    gc.collect()
    assert len(module._known) <= before


def test_rows_that_are_no_readings_have_no_columns_kept() -> None:
    gc.collect()
    before = len(module._known)
    rows = pa.record_batch({"series": pa.array([1], pa.uint32())})
    assert frame_block(rows, START).rows is rows
    assert len(module._known) <= before
    assert id(rows) not in module._known
