"""What a window may tell, what has to be added up for it, and what becomes of readings that come too late for it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Aggregate(StrEnum):
    """A column of a window; the value is its name in configuration and in the stream."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    STD = "std"
    """Sample standard deviation (n - 1), from sums of differences to the window's first value; none for one value."""
    RANGE = "range"
    """max - min."""
    DELTA = "delta"
    """last - first."""
    TWA = "twa"
    """Mean over time: the integral divided by the time that has a value."""
    INTEGRAL = "integral"
    """Value times hours: W gives Wh."""
    DURATION = "duration"
    """Seconds for which the value, held until the next one, fulfils the condition `state`."""
    COMPLETENESS = "completeness"
    """Valid readings in percent of those expected, one every `interval`."""
    GOOD = "good"
    """Readings of good quality in percent of all, those without a valid value included."""


class Late(StrEnum):
    """What becomes of a reading whose window is closed."""

    REVISE = "revise"
    SIDE = "side"
    DROP = "drop"


class Accumulator(StrEnum):
    """What is added up besides count, sum, minimum, maximum, first and last, where a column needs it."""

    SHIFTED = "shifted"
    """Differences to the first value."""
    SQUARED = "squared"
    """Their squares."""
    AREA = "area"
    """Value times ns, before the last reading of the window."""
    COVERED = "covered"
    """ns that have a value, before the last reading of the window."""
    ACTIVE = "active"
    """ns for which the condition is fulfilled, before the last reading of the window."""
    READINGS = "readings"
    """Readings, those without a valid value included."""
    GOOD = "good"
    """Readings of good quality."""


BASIC = (
    Aggregate.COUNT,
    Aggregate.SUM,
    Aggregate.MEAN,
    Aggregate.MIN,
    Aggregate.MAX,
    Aggregate.FIRST,
    Aggregate.LAST,
)
"""Columns that need no further setting."""
WEIGHTED = frozenset({Aggregate.TWA, Aggregate.INTEGRAL, Aggregate.DURATION})
"""Columns that depend on how long values hold."""

_NEEDS: dict[Aggregate, tuple[Accumulator, ...]] = {
    Aggregate.STD: (Accumulator.SHIFTED, Accumulator.SQUARED),
    Aggregate.TWA: (Accumulator.AREA, Accumulator.COVERED),
    Aggregate.INTEGRAL: (Accumulator.AREA, Accumulator.COVERED),
    Aggregate.DURATION: (Accumulator.ACTIVE,),
    Aggregate.GOOD: (Accumulator.READINGS, Accumulator.GOOD),
}


def accumulators(columns: tuple[Aggregate, ...]) -> tuple[Accumulator, ...]:
    """What has to be added up for these columns."""
    needed = {found for column in columns for found in _NEEDS.get(column, ())}
    return tuple(found for found in Accumulator if found in needed)


_CONDITION = re.compile(
    r"value\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
)
_COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a value with a number, such as `value > 10`."""

    comparison: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Out of its text. Raises ValueError."""
        found = _CONDITION.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"expected a comparison such as `value > 10` or `value != 0`, found {text!r}")
        return cls(found[1], float(found[2]))

    def fulfilled(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """1.0 where it is, else 0.0."""
        found: NDArray[np.float64] = _COMPARE[self.comparison](value, self.number).astype(np.float64)
        return found

    def __str__(self) -> str:
        return f"value {self.comparison} {self.number!r}"
