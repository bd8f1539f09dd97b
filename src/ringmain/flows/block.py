"""Rows on their way through a flow, and the log time of what caused them.

A block is never written to. It is an Arrow batch, or the NumPy columns of readings that a step has formed; either is
made of the other, without a copy, when somebody asks for it. A step that changes a column makes a new block that shares
the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.model.schemas import READING, TIMESTAMP

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.uint32]
Qualities = NDArray[np.uint16]

_WIDTHS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_UINT32, _FLOAT64, _UINT16 = pa.uint32(), pa.float64(), pa.uint16()
_IDS, _INTS, _FLOATS, _QUALITIES = (np.dtype(one) for one in (np.uint32, np.int64, np.float64, np.uint16))


class Columns(NamedTuple):
    """Readings as NumPy columns of equal length, which nobody writes to."""

    series: Ids
    """Series ids."""
    time: Ints
    """Event time, ns UTC."""
    value: Floats
    """Values, in the unit of the shape."""
    quality: Qualities
    """Quality bits (`model.quality`)."""


class Block:
    """Rows of one stream or step; see the module."""

    __slots__ = ("_columns", "_rows", "arrival_ns", "stream")

    def __init__(self, rows: pa.RecordBatch, arrival_ns: int, stream: str | None = None) -> None:
        self._rows: pa.RecordBatch | None = rows
        self._columns: Columns | None = None
        self.arrival_ns = arrival_ns
        """Log time (ns UTC) of what caused them."""
        self.stream = stream
        """None while they are on their way to the next step and the flow's own output; else the name of the stream that
        they go to past all later steps."""

    def __len__(self) -> int:
        return len(self.columns.series) if self._rows is None else int(self._rows.num_rows)

    @property
    def rows(self) -> pa.RecordBatch:
        """The rows as Arrow has them."""
        if self._rows is None:
            series, time, value, quality = self.columns
            arrays = [
                pa.array(series, _UINT32),
                arrow(time, TIMESTAMP),
                pa.array(value, _FLOAT64),
                pa.array(quality, _UINT16),
            ]
            self._rows = pa.RecordBatch.from_arrays(arrays, schema=READING)
        return self._rows

    @property
    def columns(self) -> Columns:
        """The four columns that readings have, of rows that have them."""
        if self._columns is None:
            rows = self.rows
            count = rows.num_rows
            if rows.schema.equals(READING):
                series, time, value, quality = rows.columns
            else:
                series, time, value, quality = map(rows.column, Columns._fields)
            self._columns = Columns(
                _view(series, _IDS, count),
                _view(time, _INTS, count),
                _view(value, _FLOATS, count),
                _view(quality, _QUALITIES, count),
            )
        return self._columns

    def know(self, columns: Columns) -> None:
        """The columns of its rows, where somebody has them already."""
        self._columns = columns

    @property
    def series(self) -> Ids:
        """Series ids."""
        return numbers(self.rows, "series", np.uint32) if self._columns is None else self._columns.series

    @property
    def time(self) -> Ints:
        """Event time, ns UTC."""
        return numbers(self.rows, "time", np.int64) if self._columns is None else self._columns.time

    @property
    def value(self) -> Floats:
        """Values, in the unit of the shape."""
        return numbers(self.rows, "value", np.float64) if self._columns is None else self._columns.value

    @property
    def quality(self) -> Qualities:
        """Quality bits (`model.quality`)."""
        return numbers(self.rows, "quality", np.uint16) if self._columns is None else self._columns.quality

    def at(self, arrival_ns: int) -> Block:
        """The same rows with another log time."""
        block = Block.__new__(Block)
        block._rows, block._columns = self._rows, self._columns
        block.arrival_ns, block.stream = arrival_ns, self.stream
        return block

    def take(self, index: Ints | Bools) -> Block:
        """The rows at these places, or where true, in that order."""
        places: Ints = (
            np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64, copy=False)
        )
        rows = self._rows
        if rows is None:
            series, time, value, quality = self.columns
            return readings_block(
                series[places], time[places], value[places], quality[places], self.arrival_ns, self.stream
            )
        arrays = [
            taken(column, field.type, places) for column, field in zip(rows.columns, rows.schema, strict=True)
        ]
        return Block(pa.RecordBatch.from_arrays(arrays, schema=rows.schema), self.arrival_ns, self.stream)

    def with_column(self, name: str, values: NDArray[Any] | pa.Array) -> Block:
        """The same rows with other values of a column of the same type."""
        rows = self.rows
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        array = values if isinstance(values, pa.Array) else arrow(values, field.type)
        columns = rows.columns
        columns[place] = array
        return Block(pa.RecordBatch.from_arrays(columns, schema=rows.schema), self.arrival_ns, self.stream)


def readings_block(
    series: Ids, time: Ints, value: Floats, quality: Qualities, arrival_ns: int, stream: str | None = None
) -> Block:
    """A block in the shape of readings out of arrays of equal length, which nobody may write to any more."""
    block = Block.__new__(Block)
    block._rows = None
    block._columns = Columns(
        np.ascontiguousarray(series, np.uint32),
        np.ascontiguousarray(time, np.int64),
        np.ascontiguousarray(value, np.float64),
        np.ascontiguousarray(quality, np.uint16),
    )
    for column in block._columns:
        column.flags.writeable = False
    block.arrival_ns, block.stream = arrival_ns, stream
    return block


def arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """A NumPy column as Arrow, without a copy; int64 ns may become a timestamp."""
    if pa.types.is_timestamp(kind):
        return pa.array(np.ascontiguousarray(values, np.int64)).view(kind)
    return pa.array(values, kind)


def taken(column: pa.Array, kind: pa.DataType, index: Ints) -> pa.Array:
    """The elements of an Arrow column at these places; NumPy takes numbers several times as fast as Arrow does."""
    if column.null_count or not pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return column.take(pa.array(index))
    dtype = _WIDTHS[kind.bit_width]
    view: NDArray[Any] = np.frombuffer(column.buffers()[1] or b"", dtype, len(column) + column.offset)[
        column.offset :
    ]
    return pa.Array.from_buffers(kind, len(index), [None, pa.py_buffer(view[index])])


def numbers(rows: pa.RecordBatch, name: str | int, dtype: Any) -> NDArray[Any]:
    """A fixed-width column as a read-only view of the batch's memory; elements that are null hold anything."""
    return _view(rows.column(name), np.dtype(dtype), rows.num_rows)


def _view(array: pa.Array, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    buffer = array.buffers()[1]
    if buffer is None or not count:
        return np.empty(0, dtype)
    view: NDArray[Any] = np.frombuffer(buffer, dtype, count, array.offset * dtype.itemsize)
    view.flags.writeable = False
    return view
