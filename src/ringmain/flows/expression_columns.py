"""The columns of a block as expressions see them: by kind, with NaN as NULL, and the words for quality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block, Bools, Ids, numbers
from ringmain.flows.expression_values import Column, Kind, settled, texts
from ringmain.model.quality import ORIGIN_MASK, VALIDITY_MASK, Quality, Validity

_TICK_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ORIGINS = {
    "measured": Quality.GOOD, "substituted": Quality.SUBSTITUTED, "estimated": Quality.ESTIMATED,
    "calculated": Quality.CALCULATED,
}  # fmt: skip


def kind_of(found: pa.DataType) -> Kind | None:
    """What a column of an Arrow type is in an expression; None if expressions cannot read it."""
    if pa.types.is_boolean(found):
        return Kind.BOOLEAN
    if pa.types.is_integer(found):
        return Kind.INTEGER
    if pa.types.is_floating(found):
        return Kind.NUMBER
    if pa.types.is_timestamp(found):
        return Kind.TIME
    if pa.types.is_dictionary(found):
        found = found.value_type
    return Kind.TEXT if pa.types.is_string(found) or pa.types.is_large_string(found) else None


class BlockRows:
    """A block as `expression_values.Rows`; each column is made once."""

    __slots__ = ("_block", "_columns", "_part")

    def __init__(self, block: Block, part: Callable[[int, Ids], Column]) -> None:
        self._block = block
        self._columns: dict[str, Column] = {}
        self._part = part

    def column(self, name: str) -> Column:
        """A column of the rows, or `quality WORD`: whether that is so."""
        found = self._columns.get(name)
        if found is None:
            made = self._quality(name[8:]) if name.startswith("quality ") else column_of(self._block, name)
            found = self._columns[name] = made
        return found

    def attribute(self, name: str) -> Column:
        """Parts of the catalogue come by `part`."""
        raise AssertionError(f"attribute {name} is a part")

    def part(self, number: int) -> Column:
        """A part that depends on the series only."""
        return self._part(number, self._block.series)

    def arrived(self) -> Column:
        """Log time of what caused the block."""
        return Column(np.array([self._block.arrival_ns], np.int64))

    def _quality(self, word: str) -> Column:
        quality = self._block.quality
        if word in _ORIGINS:
            return Column((quality & ORIGIN_MASK) == _ORIGINS[word])
        validity = quality & VALIDITY_MASK
        if word == "questionable":
            return Column(validity == Validity.QUESTIONABLE)
        if word in ("valid", "good", "invalid"):
            good: Bools = validity < Validity.INVALID if word != "good" else validity == Validity.GOOD
            if "value" in self._block.rows.schema.names:
                missing = self.column("value").null
                good = good if missing is None else good & ~missing
            return Column(~good if word == "invalid" else good)
        return Column((quality & Quality[word.upper()]) != 0)


def column_of(block: Block, name: str) -> Column:
    """A column of a block's rows."""
    array = block.rows.column(block.rows.schema.get_field_index(name))
    found = array.type
    null = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if pa.types.is_boolean(found):
        return Column(array.fill_null(False).to_numpy(zero_copy_only=False), null)
    if pa.types.is_timestamp(found):
        ticks = numbers(block.rows, name, np.int64)
        unit = _TICK_NS[found.unit]
        if unit == 1:
            return Column(ticks, null)
        beyond = np.abs(ticks) > (2**63 - 1) // unit
        if beyond.any():
            null = beyond if null is None else null | beyond
        return Column(np.where(beyond, 0, ticks) * unit, null)
    if pa.types.is_floating(found):
        dtype = {16: np.float16, 32: np.float32, 64: np.float64}[found.bit_width]
        return settled(numbers(block.rows, name, dtype).astype(np.float64, copy=False), null)
    if pa.types.is_integer(found):
        whole = numbers(block.rows, name, np.dtype(found.to_pandas_dtype()))
        if found == pa.uint64():
            beyond = whole >= np.uint64(2**63)
            if beyond.any():
                null = beyond if null is None else null | beyond
        return Column(whole.astype(np.int64), null)
    return texts(array.cast(pa.string()))
