"""Rows as `flows.ordering` gives them, and the small things that steps need which work on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.block import Block, Bools, Floats, Ids, Ints, Qualities, arrow, readings_block
from ringmain.flows.later import Part, rows_later
from ringmain.flows.step import StepState
from ringmain.flows.sweep import Places
from ringmain.flows.totals import LATE
from ringmain.model.schemas import READING

ROUND_ROWS_MIN = 32


@dataclass(frozen=True, slots=True)
class Round:
    """Rows of which no two belong to one series: their places among all rows, and in arrays by series."""

    rows: Places
    series: Places


@dataclass(frozen=True, slots=True)
class Ordered:
    """Readings in order of series and time, one for each series and time. At least one.

    `size`: every series is below. `unique`: each occurs once, and then `places` says where they are in arrays by series.
    """

    series: Ids
    time: Ints
    value: Floats
    quality: Qualities
    size: int
    unique: bool
    places: Places
    source: pa.RecordBatch
    index: Ints | None
    """Row of `source` of each reading; None: they are in that order."""

    def __post_init__(self) -> None:
        """Nobody writes to the columns; and compiled loops are made for one kind of array only."""
        for column in (self.series, self.time, self.value, self.quality):
            column.flags.writeable = False

    def __len__(self) -> int:
        return len(self.series)

    @property
    def starts(self) -> Ints:
        """The first row of each series."""
        return np.flatnonzero(np.concatenate(([True], self.series[1:] != self.series[:-1])))

    @property
    def narrow(self) -> bool:
        """Whether rounds have so few rows that a plain loop over all rows is faster than NumPy round by round."""
        if self.unique:
            return False
        starts = self.starts
        longest = int(np.diff(np.concatenate((starts, [len(self)]))).max())
        return len(self) < ROUND_ROWS_MIN * longest

    def rounds(self) -> Iterator[Round]:
        """All rows: the first one of each series, then the second ones, and so on."""
        if self.unique:
            yield Round(slice(0, len(self)), self.places)
            return
        starts = self.starts
        counts = np.diff(np.concatenate((starts, [len(self)])))
        for place in range(int(counts.max())):
            rows = starts if not place else starts[counts > place] + place
            yield Round(rows, self.series[rows].astype(np.int64))

    def block(self, rows: Ints | Bools | None, now_ns: int, quality: Qualities | None = None) -> Block:
        """Some of the rows (None: all) with all their columns, in order of time and series.

        `quality`: another one for each of all the rows.
        """
        if rows is None:
            chosen: Ints | None = None
        else:
            chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        time = self.time if chosen is None else self.time[chosen]
        order = time_order(time)
        if order is not None:
            chosen = order if chosen is None else chosen[order]
        if chosen is None and self.index is None and quality is None:
            return Block(self.source, now_ns)
        if self.source.schema.equals(READING):
            bits = self.quality if quality is None else quality
            if chosen is None:
                return readings_block(self.series, self.time, self.value, bits, now_ns)
            return readings_block(
                self.series[chosen], self.time[chosen], self.value[chosen], bits[chosen], now_ns
            )
        block = Block(self.source, now_ns)
        if chosen is not None:
            block = block.take(chosen if self.index is None else self.index[chosen])
        elif self.index is not None:
            block = block.take(self.index)
        if quality is not None:
            block = block.with_column("quality", quality if chosen is None else quality[chosen])
        return block


def time_order(time: Ints) -> Ints | None:
    """What sorts rows that are in order of series by time and series; None: they are so already."""
    if len(time) < 2 or not (time[1:] < time[:-1]).any():
        return None
    first = int(time.min())
    if int(time.max()) - first < 1 << 39 and len(time) < 1 << 24:
        packed = (time - first) << 24
        packed |= np.arange(len(time))
        packed.sort()
        packed &= (1 << 24) - 1
        return packed
    return np.argsort(time, kind="stable")


def readings_in_order(series: Ids, time: Ints, value: Floats, quality: Qualities, now_ns: int) -> Block:
    """Readings in any order, as a block in order of time and series."""
    if len(series) > 1 and (series[1:] < series[:-1]).any():
        order: Ints | None = np.lexsort((series, time))
    else:
        order = time_order(time)
    if order is not None:
        series, time, value, quality = series[order], time[order], value[order], quality[order]
    return readings_block(series, time, value, quality, now_ns)


def series_places(series: Ids) -> Places:
    """Where rising series ids are in arrays by series."""
    first, last = int(series[0]), int(series[-1])
    return slice(first, last + 1) if last - first + 1 == len(series) else series.astype(np.int64)


def same_value(one: Floats, other: Floats) -> Bools:
    """Where values are equal; NaN equals NaN."""
    same: Bools = (one == other) | (np.isnan(one) & np.isnan(other))
    return same


def late_rows(block: Block, arrival: Ints, reason: str, stream: str) -> Block:
    """Readings as rows of a late stream (schema `totals.LATE`)."""
    rows = block.rows
    columns = [
        rows.column("series"),
        rows.column("time"),
        rows.column("value"),
        rows.column("quality"),
        arrow(arrival, LATE.field("arrived").type),
        pa.array([reason]).take(pa.array(np.zeros(len(block), np.int64))),
    ]
    return Block(pa.RecordBatch.from_arrays(columns, schema=LATE), int(arrival.max()), stream)


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, with rows, as one."""
    if len(batches) == 1:
        return batches[0]
    whole: pa.RecordBatch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    return whole


def stored(batches: list[pa.RecordBatch]) -> Part:
    """Rows as a part of a state; empty for none."""
    return rows_later(batches, _encoded)


def _encoded(batches: list[pa.RecordBatch]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    rows = joined(batches)
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def restored(state: Part) -> pa.RecordBatch | None:
    """The rows that `stored` made bytes of; None for none."""
    assert isinstance(state, bytes)
    return pa.ipc.open_stream(state).read_next_batch() if state else None


def kept(state: StepState, name: str, dtype: Any) -> NDArray[Any]:
    """A copy of an array of a state, to go on with."""
    array = state[name]
    assert isinstance(array, np.ndarray)
    return np.array(array, dtype)
