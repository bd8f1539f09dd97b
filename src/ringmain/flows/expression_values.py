"""What expressions compute with: columns of one kind with their NULLs, and nodes that give such columns.

There is no NaN inside an expression: a computation without a result gives NULL, and so does a column that holds NaN.
A column of one element stands for a constant and goes with columns of any length, as NumPy broadcasts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.block import Bools


class Kind(Enum):
    """What a value is; the text is how messages call it."""

    NULL = "NULL"
    BOOLEAN = "a truth value"
    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "text"
    TIME = "a time"
    SPAN = "an interval"

    @property
    def numeric(self) -> bool:
        """Whether arithmetic takes it."""
        return self in (Kind.INTEGER, Kind.NUMBER)


DTYPES = {
    Kind.NULL: np.dtype(np.bool_),
    Kind.BOOLEAN: np.dtype(np.bool_),
    Kind.INTEGER: np.dtype(np.int64),
    Kind.NUMBER: np.dtype(np.float64),
    Kind.TIME: np.dtype(np.int64),
    Kind.SPAN: np.dtype(np.int64),
}
"""How `Column.data` of each kind is stored; times and intervals in ns. Text is an Arrow string array."""


@dataclass(frozen=True, slots=True)
class Column:
    """Values and where there are none (`null=None`: everywhere there is one).

    A truth value is False where it is NULL; other data are anything there. Text has its NULLs in the array as well.
    """

    data: Any
    null: Bools | None = None

    def __len__(self) -> int:
        return len(self.data)


class Level(IntEnum):
    """What a value depends on."""

    CONSTANT = 0
    SERIES = 1
    """Only on what the catalogue says of the series."""
    ROW = 2


class Rows(Protocol):
    """What expressions are computed over: rows of a block, or series of the catalogue."""

    def column(self, name: str) -> Column:
        """A column of the rows."""
        ...

    def attribute(self, name: str) -> Column:
        """A column of the catalogue (text), one element a series."""
        ...

    def part(self, number: int) -> Column:
        """A part that depends on the series only, one element a row."""
        ...

    def arrived(self) -> Column:
        """Log time (ns UTC) of what caused the rows."""
        ...


Kernel = Callable[..., Column]
"""Columns in, a column of the result out."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a compiled expression. `constant`: its value, where it has one (None may be NULL: see `level`)."""

    kind: Kind
    level: Level
    evaluate: Callable[[Rows], Column]
    at: int
    constant: Any = None


def either(left: Bools | None, right: Bools | None) -> Bools | None:
    """NULL where one of both is."""
    if left is None:
        return right
    return left if right is None else left | right


def truths(data: Bools, null: Bools | None) -> Column:
    """A column of truth values, False where NULL."""
    return Column(data, None) if null is None else Column(data & ~null, null)


def settled(data: NDArray[np.float64], null: Bools | None) -> Column:
    """A column of numbers that may hold NaN, which becomes NULL."""
    nan = np.isnan(data)
    return Column(data, either(null, nan) if nan.any() else null)


def texts(array: pa.Array) -> Column:
    """A column of text."""
    null = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    return Column(array, null)


def constant(value: Any, kind: Kind) -> Column:
    """A column of one element; None is NULL."""
    if kind is Kind.TEXT:
        return texts(pa.array([value], pa.string()))
    filled = 0 if value is None else value
    return Column(np.array([filled], DTYPES[kind]), np.array([True]) if value is None else None)
