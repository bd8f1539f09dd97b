"""What a window may tell, and what becomes of readings that come too late for it: the words of the configuration."""

from __future__ import annotations

from enum import StrEnum


class Aggregate(StrEnum):
    """A column of a window; the value is its name in configuration and in the stream."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"


class Late(StrEnum):
    """What becomes of a reading whose window is closed."""

    REVISE = "revise"
    SIDE = "side"
    DROP = "drop"
