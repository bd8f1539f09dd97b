"""Rows on their way through a flow: an Arrow batch and the log time of what caused it.

A block is never written to. Its columns are NumPy views of the batch's memory; a step that changes a column makes a
new block that shares the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.model.schemas import READING, TIMESTAMP

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.uint32]
Qualities = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one stream or step.

    `arrival_ns`: log time (ns UTC) of what caused them. `stream`: None while they are on their way to the next step and
    the flow's own output; else the name of the stream that they go to past all later steps.
    """

    rows: pa.RecordBatch
    arrival_ns: int
    stream: str | None = None

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def series(self) -> Ids:
        """Series ids."""
        return numbers(self.rows, "series", np.uint32)

    @property
    def time(self) -> Ints:
        """Event time, ns UTC."""
        return numbers(self.rows, "time", np.int64)

    @property
    def value(self) -> Floats:
        """Values, in the unit of the shape."""
        return numbers(self.rows, "value", np.float64)

    @property
    def quality(self) -> Qualities:
        """Quality bits (`model.quality`)."""
        return numbers(self.rows, "quality", np.uint16)

    def take(self, index: Ints | Bools) -> Block:
        """The rows at these places, or where true, in that order."""
        places: Ints = (
            np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64, copy=False)
        )
        columns = [
            taken(column, field.type, places)
            for column, field in zip(self.rows.columns, self.rows.schema, strict=True)
        ]
        return Block(
            pa.RecordBatch.from_arrays(columns, schema=self.rows.schema), self.arrival_ns, self.stream
        )

    def with_column(self, name: str, values: NDArray[Any] | pa.Array) -> Block:
        """The same rows with other values of a column of the same type."""
        place = self.rows.schema.get_field_index(name)
        field = self.rows.schema.field(place)
        array = values if isinstance(values, pa.Array) else arrow(values, field.type)
        columns = self.rows.columns
        columns[place] = array
        return Block(
            pa.RecordBatch.from_arrays(columns, schema=self.rows.schema), self.arrival_ns, self.stream
        )


def readings_block(
    series: Ids, time: Ints, value: Floats, quality: Qualities, arrival_ns: int, stream: str | None = None
) -> Block:
    """A block in the shape of readings out of arrays of equal length, which nobody may write to any more."""
    columns = [
        pa.array(series, pa.uint32()),
        arrow(time, TIMESTAMP),
        pa.array(value, pa.float64()),
        pa.array(quality, pa.uint16()),
    ]
    return Block(pa.RecordBatch.from_arrays(columns, schema=READING), arrival_ns, stream)


def arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """A NumPy column as Arrow, without a copy; int64 ns may become a timestamp."""
    if pa.types.is_timestamp(kind):
        return pa.array(np.ascontiguousarray(values, np.int64)).view(kind)
    return pa.array(values, kind)


def taken(column: pa.Array, kind: pa.DataType, index: Ints) -> pa.Array:
    """The elements of an Arrow column at these places; NumPy takes numbers several times as fast as Arrow does."""
    width = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
    if column.null_count or not pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return column.take(pa.array(index))
    dtype = width[kind.bit_width]
    view: NDArray[Any] = np.frombuffer(column.buffers()[1] or b"", dtype, len(column) + column.offset)[
        column.offset :
    ]
    return pa.Array.from_buffers(kind, len(index), [None, pa.py_buffer(view[index])])


def numbers(rows: pa.RecordBatch, name: str | int, dtype: Any) -> NDArray[Any]:
    """A fixed-width column as a read-only view of the batch's memory; elements that are null hold anything."""
    array = rows.column(name)
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.empty(0, dtype)
    view: NDArray[Any] = np.frombuffer(buffer, dtype, len(array), array.offset * np.dtype(dtype).itemsize)
    view.flags.writeable = False
    return view
