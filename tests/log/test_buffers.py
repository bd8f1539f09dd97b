"""Memory for reading: used again when nobody looks at it any more, and never before."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log import files, open_log
from ringmain.log.buffers import FREE_BYTES, LARGEST_BYTES, SMALLEST_BYTES, ReadBuffers
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Batch
from ringmain.model.schemas import READING

MIB = 1 << 20


def _taken(pool: ReadBuffers, size: int = MIB) -> memoryview:
    taken = pool.take(size)
    assert taken is not None
    return taken


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_a_block_is_taken_again_when_its_last_view_is_gone() -> None:
    pool = ReadBuffers()
    block = _taken(pool, MIB - 8)
    assert len(block) == MIB - 8
    where = _address(block)
    del block
    assert pool.free_bytes() == MIB
    again = _taken(pool)
    assert _address(again) == where
    assert pool.free_bytes() == 0


def test_any_kind_of_view_keeps_a_block() -> None:
    """Slices, NumPy arrays, Arrow buffers, arrays and batches, however far they are from what was taken."""
    pool = ReadBuffers()
    block = _taken(pool)
    whole = pa.py_buffer(block[8:808])
    views: list[Any] = [
        block[5:6].toreadonly(),
        np.frombuffer(block, np.uint8)[3:9][::2],
        pa.UInt64Array.from_buffers(pa.uint64(), 100, [None, whole]).slice(3, 2),
        pa.RecordBatch.from_arrays(
            [pa.UInt64Array.from_buffers(pa.uint64(), 100, [None, whole])], ["a"]
        ).slice(5),
        pa.Array.from_buffers(pa.float64(), 9, [None, pa.py_buffer(block)]).to_numpy(zero_copy_only=True)[4:],
    ]
    del block, whole
    while views:
        assert pool.free_bytes() == 0, f"given back with {len(views)} views of it"
        views.pop()
    assert pool.free_bytes() == MIB


def test_a_block_that_a_finalizer_still_sees_is_not_given_out() -> None:
    """A cycle is told to be gone before its finalizers have run: they must not see what others read meanwhile."""
    pool = ReadBuffers()
    seen = []

    class Late:
        def __init__(self) -> None:
            self.me = self
            self.block = _taken(pool)
            self.block[:4] = b"mine"

        def __del__(self) -> None:
            other = _taken(pool)
            other[:4] = b"read"
            seen.append(bytes(self.block[:4]))

    gc.collect()
    Late()
    gc.collect()
    assert seen == [b"mine"]


def test_small_and_huge_sizes_are_left_to_others() -> None:
    pool = ReadBuffers()
    assert pool.take(SMALLEST_BYTES - 1) is None
    assert pool.take(LARGEST_BYTES + 1) is None
    assert pool.take(0) is None
    assert len(_taken(pool, LARGEST_BYTES)) == LARGEST_BYTES


def test_what_is_free_is_bounded() -> None:
    pool = ReadBuffers()
    sizes = [size for size in (128 << 10, 256 << 10, 512 << 10, MIB, 2 * MIB, 4 * MIB) for _ in range(40)]
    blocks = [_taken(pool, size) for size in sizes]
    blocks.clear()
    assert FREE_BYTES // 2 < pool.free_bytes() <= FREE_BYTES


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(SMALLEST_BYTES, LARGEST_BYTES), st.integers(0, 5)), max_size=40))
def test_no_two_holders_ever_share_a_byte(steps: list[tuple[int, int]]) -> None:
    pool = ReadBuffers()
    held: list[tuple[memoryview, int]] = []
    for number, (size, let_go) in enumerate(steps):
        view = _taken(pool, size)
        view[0] = view[size - 1] = number
        held.append((view[:1], number))
        held.append((view[size - 1 :].toreadonly(), number))
        del view
        for _ in range(min(let_go, len(held))):
            held.pop(len(held) // 2)
        assert all(view[0] == mark for view, mark in held)


def test_rows_that_are_kept_stay_as_they_were_while_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ReadBuffers()
    monkeypatch.setattr(files, "BUFFERS", pool)
    log = open_log(tmp_path / "log")
    claim = log.claim("a")
    count = 8_000
    for number in range(24):
        values = np.full(count, number, np.float64)
        columns = [
            pa.array(np.full(count, number, np.uint32)),
            pa.array(np.arange(count)).view(READING.field("time").type),
            pa.array(values),
            pa.array(np.zeros(count, np.uint16)),
        ]
        log.append(
            [Batch("readings", pa.RecordBatch.from_arrays(columns, schema=READING))],
            claim=claim,
            sequence=number,
        )
    kept = []
    before = pool.free_bytes()
    for _ in range(3):
        for number, frame in enumerate(log.read("readings")):
            if number % 5 == 0:
                kept.append((number, frame.rows))
            assert frame.rows.column(2)[count - 1].as_py() == number
        del frame
    for number, rows in kept:
        assert np.all(rows.column(2).to_numpy() == number)
        assert np.all(rows.column(0).to_numpy() == number)
    log.close()
    kept.clear()
    del rows
    assert pool.free_bytes() > before


class _Counted(LocalFileSystem):
    read_bytes = 0

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        self.read_bytes += size
        return super().pread(handle, size, offset)

    def pread_into(self, handle: int, buffer: memoryview, offset: int) -> int:
        self.read_bytes += len(buffer)
        return super().pread_into(handle, buffer, offset)


def test_whoever_takes_a_few_frames_has_only_few_read(tmp_path: Path) -> None:
    """Readers that begin anew behind each few frames must not read all that lies behind them each time."""
    fs = _Counted()
    log = open_log(tmp_path / "log", fs=fs)
    claim = log.claim("a")
    row = pa.RecordBatch.from_arrays(
        [pa.array([1], one.type) if one.name != "time" else pa.array([1]).view(one.type) for one in READING],
        schema=READING,
    )
    done = [log.append([Batch("readings", row)], claim=claim, sequence=n) for n in range(300)]
    assert len(done) == 300
    before, after, found = fs.read_bytes, None, 0
    whole = (tmp_path / "log" / "0000000001.seg").stat().st_size
    while frames := list(itertools.islice(log.read("readings", after=after), 32)):
        after = frames[-1].position
        found += len(frames)
    assert found == 300
    assert fs.read_bytes - before < 2 * whole
    log.close()
