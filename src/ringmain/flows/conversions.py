"""How the values of series become values in one unit: looked up once a unit, kept by series id.

A value becomes `value * multiplier / divisor + offset`. Where the factor is one over a short number it is a division,
so that 1001 W are 1.001 kW, the number nearest to it, and not 1.0009999999999999. Where there is nothing to add the
offset is -0.0, which leaves every value as it is, so that a series' values do not depend on its neighbours' units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, Bools, Floats, Ids
from ringmain.model.units import conversion

_NONE, _SAME = 0, 1


@dataclass(frozen=True, slots=True)
class Conversion:
    """value * multiplier / divisor + offset."""

    multiplier: float = 1.0
    divisor: float = 1.0
    offset: float = -0.0

    @property
    def same(self) -> bool:
        """Whether nothing changes."""
        return self == SAME


SAME = Conversion()


def conversion_of(source: str, target: str) -> Conversion:
    """How values of one unit become those of another. Raises ValueError, and RuntimeError without pint."""
    try:
        factor, offset = conversion(source, target)
    except (TypeError, ArithmeticError) as error:  # pint over fractions, for dB and the like
        raise ValueError(
            f"expected units that differ by a factor, found {source!r} and {target!r}: one is logarithmic"
        ) from error
    divisor = float(f"{1.0 / factor:.12g}") if 0.0 < factor < 1.0 else 1.0
    exact = divisor != 1.0 and 1.0 / divisor == factor
    return Conversion(1.0 if exact else factor, divisor if exact else 1.0, offset if offset else -0.0)


@dataclass(frozen=True, slots=True)
class Applied:
    """What to do with the rows of a block: numbers or one element a row. `usable=None`: every row can be converted."""

    same: bool
    multiplier: Floats | float
    divisor: Floats | float
    offset: Floats | float
    usable: Bools | None = None

    def to(self, values: Floats) -> Floats:
        """The values converted."""
        if self.same:
            return values
        converted = values
        if not isinstance(self.multiplier, float) or self.multiplier != 1.0:
            converted = converted * self.multiplier
        if not isinstance(self.divisor, float) or self.divisor != 1.0:
            converted = converted / self.divisor
        if not isinstance(self.offset, float) or self.offset != 0.0:
            converted = converted + self.offset
        return converted


def applied(one: Conversion) -> Applied:
    """The same conversion for every row."""
    return Applied(one.same, one.multiplier, one.divisor, one.offset)


def with_unit(block: Block, unit: str) -> Block:
    """The rows with that unit in their column `unit`."""
    kind = block.rows.schema.field("unit").type
    column = pa.DictionaryArray.from_arrays(np.zeros(len(block), np.int32), pa.array([unit], pa.string()))
    return block.with_column("unit", column.cast(kind) if column.type != kind else column)


class UnitTable:
    """The conversions of series to one unit. `assumed`: the unit of series that the catalogue gives none."""

    def __init__(self, target: str, assumed: str | None, attributes: Attributes) -> None:
        self._target = target
        self._assumed = assumed
        self._attributes = attributes
        self._version = -1
        self._known: dict[str | None, int] = {}
        self._conversions = [SAME, SAME]
        self._columns = np.empty((3, 0))
        unknown = self._number(None)
        self._numbers: NDArray[np.int32] = np.full(1, unknown, np.int32)
        self._unknown = unknown
        self._series: Ids = np.empty(0, np.uint32)
        self._applied: Applied | None = None

    def applied(self, series: Ids) -> Applied:
        """What to do with rows of these series; worked out once for a run of blocks with the same series."""
        if self._version != self._attributes.version:
            self._refresh()
        elif (
            self._applied is not None
            and len(series) == len(self._series)
            and bool((series == self._series).all())
        ):
            return self._applied
        self._series = series.copy()
        self._applied = self._worked_out(self._numbers.take(series.astype(np.int64), mode="clip"))
        return self._applied

    def applied_to(self, units: pa.Array) -> Applied:
        """What to do with rows that tell their unit themselves (text, one element a row)."""
        encoded = units if pa.types.is_dictionary(units.type) else units.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
        used, places = np.unique(codes, return_inverse=True)
        known = encoded.dictionary
        numbers = [self._number(None if code < 0 else known[code].as_py()) for code in used.tolist()]
        return self._worked_out(np.array(numbers, np.int32)[places])

    def _worked_out(self, numbers: NDArray[np.int32]) -> Applied:
        if not len(numbers):
            return applied(SAME)
        first = int(numbers[0])
        if (numbers == first).all():
            one = applied(self._conversions[first])
            if first != _NONE:
                return one
            return Applied(True, 1.0, 1.0, -0.0, np.zeros(len(numbers), np.bool_))
        usable = numbers != _NONE
        index = numbers.astype(np.int64)
        multiplier, divisor, offset = (column.take(index) for column in self._columns)
        return Applied(False, multiplier, divisor, offset, None if usable.all() else usable)

    def _refresh(self) -> None:
        """Look up the units of series of which something was learnt; the last element is that of an unknown series."""
        changed = self._attributes.changed_since(self._version)
        self._version = self._attributes.version
        self._applied = None
        if not len(changed):
            return
        size = int(changed[-1]) + 2
        if size > len(self._numbers):
            larger = np.full(max(size, 2 * len(self._numbers)), self._unknown, np.int32)
            larger[: len(self._numbers)] = self._numbers
            self._numbers = larger
        units = self._attributes.texts_of("unit", changed).dictionary_encode()
        numbers = np.array([self._number(unit) for unit in units.dictionary.to_pylist()] or [0], np.int32)
        places = units.indices.fill_null(0).to_numpy()
        there = units.indices.is_valid().to_numpy(zero_copy_only=False)
        self._numbers[changed] = np.where(there, numbers[places], self._unknown)

    def _number(self, unit: str | None) -> int:
        """The number of the conversion from a unit."""
        found = self._known.get(unit)
        if found is None:
            found = self._known[unit] = self._looked_up(self._assumed if unit is None else unit)
            told = [(one.multiplier, one.divisor, one.offset) for one in self._conversions]
            self._columns = np.array(told).T.copy()
        return found

    def _looked_up(self, unit: str | None) -> int:
        if unit is None:
            return _NONE
        try:
            one = conversion_of(unit, self._target)
        except ValueError:
            return _NONE
        if one.same:
            return _SAME
        self._conversions.append(one)
        return len(self._conversions) - 1
