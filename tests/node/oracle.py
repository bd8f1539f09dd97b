"""What a node should have computed, recomputed in plain Python from `readings` as stored. Shares no code with the product.

Times are ns since 1970. Readings are taken in the order of the log; nothing here knows frames, devices or log time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ringmain
from tests.node.stored import query

MINUTE_NS = 60_000_000_000
MAX_AHEAD_NS = 5 * MINUTE_NS
INVALID = 2

Window = tuple[int, float | None, float | None, float | None, float | None, float | None, float | None]
"""count, sum, mean, min, max, first, last."""
Windows = dict[tuple[str, int], Window]
COLUMNS = "count, sum, mean, min, max, first, last"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `readings`."""

    series: str
    time: int
    value: float
    quality: int
    arrived: int

    @property
    def ahead(self) -> bool:
        """Whether its time was too far ahead of its arrival."""
        return self.time > self.arrived + MAX_AHEAD_NS

    @property
    def valid(self) -> bool:
        """Whether its value may be in an aggregate."""
        return not self.quality & INVALID and not math.isnan(self.value)


def stored(data: Path) -> list[Stored]:
    """`readings` in the order of the log."""
    rows = []
    with ringmain.open(data, read_only=True) as log:
        for batch in log.read("readings"):
            columns = [
                batch.column("series").cast("string").to_pylist(),
                batch.column("time").cast("int64").to_pylist(),
                batch.column("value").to_pylist(),
                batch.column("quality").to_pylist(),
                batch.column("arrived").cast("int64").to_pylist(),
            ]
            rows += [Stored(*row) for row in zip(*columns, strict=True)]
    return rows


def current(rows: Iterable[Stored]) -> dict[tuple[str, int], Stored]:
    """The newest row in the log of each series and time."""
    return {(row.series, row.time): row for row in rows}


def windows(rows: Iterable[Stored], width_ns: int) -> Windows:
    """Every window that has at least one value."""
    values: dict[tuple[str, int], list[float]] = {}
    newest = current(row for row in rows if not row.ahead)
    for row in sorted(newest.values(), key=lambda row: (row.series, row.time)):
        if row.valid:
            values.setdefault((row.series, row.time // width_ns * width_ns), []).append(row.value)
    return {key: aggregate(found) for key, found in values.items()}


def aggregate(values: list[float]) -> Window:
    """The aggregates of values in order of time, added one after the other."""
    total = 0.0
    for value in values:
        total += value
    count = len(values)
    return count, total, total / count, min(values), max(values), values[0], values[-1]


def emitted(data: Path, stream: str) -> Windows:
    """The newest revisions of a window stream as SQL shows them, those without a value aside."""
    rows = query(data, f'select series, epoch_ns(start) as start, {COLUMNS} from "{stream}" where count > 0')
    return {(row["series"], row["start"]): _window(row) for row in rows}


def revisions(data: Path, stream: str) -> dict[tuple[str, int], list[tuple[int, Window]]]:
    """Every revision by series and start, in order of revision."""
    found: dict[tuple[str, int], list[tuple[int, Window]]] = {}
    rows = query(
        data,
        f'select series, epoch_ns(start) as start, revision, {COLUMNS} from "{stream}.all" order by revision',
    )
    for row in rows:
        found.setdefault((row["series"], row["start"]), []).append((row["revision"], _window(row)))
    return found


def set_aside(data: Path, stream: str) -> list[tuple[str, int, int]]:
    """(series, time, arrived) of the late readings of a window stream."""
    rows = query(
        data, f'select series, epoch_ns(time) as time, epoch_ns(arrived) as arrived from "{stream}.late"'
    )
    return [(row["series"], row["time"], row["arrived"]) for row in rows]


def _window(row: dict[str, Any]) -> Window:
    return (
        row["count"],
        row["sum"],
        row["mean"],
        row["min"],
        row["max"],
        row["first"],
        row["last"],
    )


def buckets(rows: Iterable[Stored], step_ns: int, origin_ns: int = 0) -> dict[int, Window]:
    """Aggregates of one series' newest valid values, by bucket, counted from `origin_ns`."""
    values: dict[int, list[float]] = {}
    for row in sorted(current(rows).values(), key=lambda row: row.time):
        if row.valid:
            start = (row.time - origin_ns) // step_ns * step_ns + origin_ns
            values.setdefault(start, []).append(row.value)
    return {start: aggregate(found) for start, found in values.items()}
