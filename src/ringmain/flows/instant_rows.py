"""The rows of an instant together, in an order that does not depend on how they were cut into blocks.

Unlike `ordering.py` it leaves nothing out: repeats, late and invalid readings stay what they are. For steps that hand
rows to somebody who decides that himself (a user's function, a query).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, numbers
from ringmain.flows.step import StepState

_TIMES = ("time", "start")


class InstantRows:
    """Collects rows (`take`) until the instant has ended (`release`)."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        by_series = "series" in schema.names and schema.field("series").type == pa.uint32()
        self._series = schema.names.index("series") if by_series else None
        self._time = next((name for name in _TIMES if name in schema.names), None)
        self._blocks: list[Block] = []
        self.series_end = 0
        """Rows of series with this id, or a higher one, have not been released so far."""

    def take(self, block: Block) -> None:
        """Rows of the present instant."""
        if len(block):
            self._blocks.append(block)

    def release(self) -> tuple[pa.RecordBatch, int] | None:
        """The rows of the instant in order of series and time, those of equal ones in log order, and its log time."""
        if not self._blocks:
            return None
        blocks, self._blocks = self._blocks, []
        if len(blocks) == 1:
            return self._ordered(blocks[0].rows), blocks[0].arrival_ns
        arrival_ns = max(block.arrival_ns for block in blocks)
        return self._ordered(together([block.rows for block in blocks])), arrival_ns

    def _ordered(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows in order of series and time, as far as they have these; equal ones stay in their order."""
        keys: list[NDArray[np.generic]] = []
        if self._series is not None:
            series = _ids(rows, self._series)
            if np.logical_and.reduce(np.less(series[:-1], series[1:])):
                highest = int(series[-1])
                if highest >= self.series_end:
                    self.series_end = highest + 1
                return rows
            self.series_end = max(self.series_end, int(series.max()) + 1)
            keys.append(series)
        if self._time is not None:
            keys.insert(0, numbers(rows, self._time, np.int64))
        if not keys:
            return rows
        order = np.lexsort(keys)
        if np.less(order[:-1], order[1:]).all():
            return rows
        return rows.take(pa.array(order))

    def state(self) -> StepState:
        """What was collected."""
        return {
            "rows": ipc_bytes(self._schema, [block.rows for block in self._blocks]),
            "arrivals": np.array([block.arrival_ns for block in self._blocks], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        rows, arrivals = state["rows"], state["arrivals"]
        assert isinstance(rows, bytes)
        assert not isinstance(arrivals, bytes)
        batches = ipc_batches(rows)
        self._blocks = [Block(batch, int(arrival)) for batch, arrival in zip(batches, arrivals, strict=True)]


def together(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _ids(rows: pa.RecordBatch, place: int) -> NDArray[np.uint32]:
    """The series ids of rows, of which there is at least one. Leaner than `numbers`: it is done for every call."""
    column = rows.column(place)
    return np.frombuffer(column.buffers()[1], np.uint32, len(column), column.offset * 4)


class AttributeColumns:
    """Attributes of series as columns beside their rows."""

    def __init__(self, attributes: Attributes, names: Sequence[str]) -> None:
        self._attributes = attributes
        self._names = tuple(names)
        self._version = -1
        self._texts: list[pa.Array] = []

    def beside(self, rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """The rows with the attributes of their series behind them. `schema`: of the result."""
        if not self._names:
            return rows
        columns = [*rows.columns, *self.arrays(numbers(rows, "series", np.uint32))]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def arrays(self, series: NDArray[np.uint32]) -> list[pa.DictionaryArray]:
        """The attributes of series, null where there is none."""
        attributes = self._attributes
        if attributes.version != self._version:
            self._version = attributes.version
            self._texts = [pa.array(attributes.texts(name), pa.string()) for name in self._names]
        columns: list[pa.DictionaryArray] = []
        for name, texts in zip(self._names, self._texts, strict=True):
            codes = attributes.codes(name)
            if len(codes) and len(series) and int(series.max()) < len(codes):
                mine = codes[series]
            else:
                mine = np.full(len(series), -1, np.int32)
                known = series < len(codes)
                mine[known] = codes[series[known]]
            missing = mine < 0
            indices = pa.array(mine, mask=missing if missing.any() else None)
            columns.append(pa.DictionaryArray.from_arrays(indices, texts, safe=False))
        return columns


def with_attributes(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The columns of rows with attributes beside them."""
    for name in names:
        schema = schema.append(pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    return schema


def ipc_bytes(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> bytes:
    """Batches as an Arrow IPC stream; nothing for none."""
    if not batches:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=False)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def ipc_batches(stored: bytes) -> list[pa.RecordBatch]:
    """The batches of an Arrow IPC stream, those without rows left out."""
    return [] if not stored else [batch for batch in pa.ipc.open_stream(stored) if batch.num_rows]
