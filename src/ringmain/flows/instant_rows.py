"""The rows of an instant together, in an order that does not depend on how they were cut into blocks.

Unlike `ordering.py` it leaves nothing out: repeats, late and invalid readings stay what they are. For steps that hand
rows to somebody who decides that himself (a user's function, a query).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, numbers
from ringmain.flows.compiled import compiled, machine_code, worth
from ringmain.flows.later import rows_later
from ringmain.flows.step import StepState

_TIMES = ("time", "start")


class InstantRows:
    """Collects rows (`take`) until the instant has ended (`release`)."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        by_series = "series" in schema.names and schema.field("series").type == pa.uint32()
        self._series = schema.names.index("series") if by_series else None
        self._time = next((name for name in _TIMES if name in schema.names), None)
        self._look: Callable[[NDArray[np.uint32]], np.int64] | None = None
        """`_last_if_rising` as machine code, once there was an instant for which it is worth it."""
        self._blocks: list[Block] = []
        self.series_end = 0
        """Rows of series with this id, or a higher one, have not been released so far."""

    def take(self, block: Block) -> None:
        """Rows of the present instant."""
        if len(block):
            self._blocks.append(block)

    def release(self) -> tuple[pa.RecordBatch, int, pa.Array | None] | None:
        """The rows of the instant in order of series and time, those of equal ones in log order, and its log time.

        And the column of series where one was looked at and the rows are in the order in which they came.
        """
        blocks = self._blocks
        if not blocks:
            return None
        self._blocks = []
        if len(blocks) == 1:
            rows, arrival_ns = blocks[0].rows, blocks[0].arrival_ns
        else:
            rows = together([block.rows for block in blocks])
            arrival_ns = max(block.arrival_ns for block in blocks)
        if self._series is None:
            return self._by_time(rows), arrival_ns, None
        column = rows.column(self._series)
        try:
            series: NDArray[np.uint32] = column.to_numpy()  # leanest for a whole column
        except pa.ArrowInvalid:  # it holds nulls
            series = numbers(rows, self._series, np.uint32)
        if self._look is None and worth(len(series)):
            self._look = machine_code(_last_if_rising)
        highest = (self._look or _last_if_rising_numpy)(series)
        if highest < 0:
            return self._by_series(rows, series), arrival_ns, None
        if highest >= self.series_end:
            self.series_end = int(highest) + 1
        return rows, arrival_ns, column

    def _by_time(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows in order of time, if they have one."""
        if self._time is None:
            return rows
        return _taken(rows, np.argsort(numbers(rows, self._time, np.int64), kind="stable"))

    def _by_series(self, rows: pa.RecordBatch, series: NDArray[np.uint32]) -> pa.RecordBatch:
        """Rows in order of series and, if they have one, of time; equal ones stay in their order."""
        self.series_end = max(self.series_end, int(series.max()) + 1)
        if self._time is None:
            return _taken(rows, np.argsort(series, kind="stable"))
        return _taken(rows, np.lexsort((numbers(rows, self._time, np.int64), series)))

    def state(self) -> StepState:
        """What was collected."""
        return {
            "rows": rows_later([block.rows for block in self._blocks], partial(ipc_bytes, self._schema)),
            "arrivals": np.array([block.arrival_ns for block in self._blocks], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        rows, arrivals = state["rows"], state["arrivals"]
        assert isinstance(rows, bytes)
        assert isinstance(arrivals, np.ndarray)
        batches = ipc_batches(rows)
        self._blocks = [Block(batch, int(arrival)) for batch, arrival in zip(batches, arrivals, strict=True)]


def together(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _taken(rows: pa.RecordBatch, order: NDArray[np.intp]) -> pa.RecordBatch:
    return rows if np.less(order[:-1], order[1:]).all() else rows.take(pa.array(order))


@compiled
def _last_if_rising(series: NDArray[np.uint32]) -> np.int64:
    """The last id where each is higher than the one before it, else -1. Of one id at least."""
    rising = True
    for place in range(1, len(series)):
        rising &= series[place - 1] < series[place]
    return np.int64(series[-1]) if rising else np.int64(-1)


def _last_if_rising_numpy(series: NDArray[np.uint32]) -> np.int64:
    """The same with NumPy."""
    rising = np.logical_and.reduce(np.less(series[:-1], series[1:]))
    return np.int64(series[-1]) if rising else np.int64(-1)


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
