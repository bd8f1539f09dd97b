"""Rows of groups (an area's load, a feeder's sum) as readings, for a step that follows series one by one.

Each group becomes a series of this step alone, numbered in order of appearance; what the catalogue says of a series,
the group's own texts say here: `key` is them joined by `/`, `place` and `unit` are the columns of these names. A row
without a value is a reading that takes the value back. Late rows are counted and go nowhere, since a late stream is of
series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import ATTRIBUTES, Attributes
from ringmain.flows.block import Block, numbers, readings_block
from ringmain.flows.step import Context, Shape, Step, StepState
from ringmain.flows.totals import LATE
from ringmain.model.quality import Quality
from ringmain.model.schemas import SERIES, TIMESTAMP

ALL = "all"
"""The key of the one group of rows without texts."""
_SEPARATOR = "\x1f"


def group_columns(shape: Shape) -> tuple[str, ...] | None:
    """The columns of texts that name a group, where rows are values of groups; None: they are something else."""
    schema = shape.schema
    names = schema.names
    fits = "time" in names and schema.field("time").type == TIMESTAMP
    fits &= "value" in names and pa.types.is_float64(schema.field("value").type)
    fits &= "quality" in names and pa.types.is_uint16(schema.field("quality").type)
    if not fits or shape.readings:
        return None
    return tuple(name for name in names if name != "unit" and _is_text(schema.field(name).type))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind))


class OfGroups:
    """A step over groups. `make` makes it for readings."""

    def __init__(self, make: Callable[[Context], Step], shape: Shape, context: Context) -> None:
        self._columns = group_columns(shape) or ()
        self._unit = shape.unit
        self._with_unit = "unit" in shape.schema.names and _is_text(shape.schema.field("unit").type)
        self._outer = context
        self._attributes = Attributes(ATTRIBUTES)
        self._inner = replace(context, attributes=self._attributes)
        self._step = make(self._inner)
        self._groups: dict[str, int] = {}
        """By texts (and unit): the number of the group."""

    def take(self, block: Block) -> Sequence[Block]:
        """Rows of groups."""
        self._follow_chain()
        rows = block.rows
        value = rows.column("value")
        missing = value.is_null().to_numpy(zero_copy_only=False)
        quality = numbers(rows, "quality", np.uint16) | np.where(missing, np.uint16(Quality.INVALID), 0)
        given = readings_block(
            self._numbers(rows),
            numbers(rows, "time", np.int64),
            value.fill_null(np.nan).to_numpy(),
            quality.astype(np.uint16),
            block.arrival_ns,
        )
        return self._without_late(self._step.take(given))

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The end of an instant."""
        self._follow_chain()
        return self._without_late(self._step.advance(now_ns))

    def _follow_chain(self) -> None:
        inner, outer = self._inner, self._outer
        inner.position, inner.emit, inner.lead_ns = outer.position, outer.emit, outer.lead_ns
        inner.emitted_until = outer.emitted_until

    def _without_late(self, blocks: Sequence[Block]) -> Sequence[Block]:
        return [block for block in blocks if not block.rows.schema.equals(LATE)]

    def _numbers(self, rows: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """The group of each row; new ones get the next number."""
        names = [*self._columns, *(["unit"] if self._with_unit else [])]
        columns = [rows.column(name) for name in names]
        texts = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in columns
        ]
        found = np.empty(rows.num_rows, np.uint32)
        new: list[str] = []
        for place, row in enumerate(zip(*(column.to_pylist() for column in texts), strict=True)):
            key = _SEPARATOR.join("" if text is None else text for text in row)
            number = self._groups.get(key)
            if number is None:
                number = self._groups[key] = len(self._groups)
                new.append(key)
            found[place] = number
        if not names and rows.num_rows:
            found[:] = 0
            if not self._groups:
                self._groups[""] = 0
                new.append("")
        self._learn(new, len(self._groups) - len(new))
        return found

    def _learn(self, keys: Sequence[str], first: int) -> None:
        if not keys:
            return
        entries = []
        for number, key in enumerate(keys, first):
            row = key.split(_SEPARATOR) if self._columns or self._with_unit else []
            told = dict(zip([*self._columns, *(["unit"] if self._with_unit else [])], row, strict=True))
            unit = told.pop("unit", "") or self._unit
            name = "/".join(text for text in told.values() if text) or ALL
            place = told.get("place") or next((text for text in told.values() if text), None)
            entries.append(
                {
                    "id": number,
                    "key": name,
                    "unit": unit,
                    "place": place,
                    "device": told.get("device") or None,
                }
            )
        self._attributes.learn(pa.RecordBatch.from_pylist(entries, schema=SERIES))

    def state(self) -> StepState:
        """The groups, and what the step remembers of them."""
        return {"groups_of_rows": msgspec.json.encode(list(self._groups)), **self._step.state()}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        known = state["groups_of_rows"]
        assert isinstance(known, bytes)
        keys = msgspec.json.decode(known, type=list[str])
        self._groups = {key: number for number, key in enumerate(keys)}
        self._learn(keys, 0)
        self._step.restore({name: part for name, part in state.items() if name != "groups_of_rows"})
