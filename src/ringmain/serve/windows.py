"""The newest windows that flows put out, as the page follows them: by series, and summed by medium.

Kept are the rows of the last minutes (bounded in number), each with the mark at which it came, and for the newest
window starts of each stream the newest mean of every series, from which sums by medium are formed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.log.interface import Frame, StreamState
from ringmain.serve.keyed import ns_of

ROWS_KEPT = 200_000
STARTS_KEPT = 3

_WINDOW_COLUMNS = ("count", "mean", "min", "max")


def window_streams(states: Iterable[StreamState]) -> list[str]:
    """Names of the streams whose rows are windows of series."""
    return [
        state.stream.name
        for state in states
        if {"series", "start", "revision"} <= set(state.stream.schema.names)
        and state.stream.schema.field("series").type == pa.uint32()
    ]


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Rows of one frame of a window stream. Absent columns are NaN."""

    mark: int
    stream: str
    series: NDArray[np.uint32]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    revision: NDArray[np.uint32]

    @classmethod
    def of(cls, frame: Frame, mark: int) -> WindowRows:
        """The rows of a frame."""
        rows = frame.rows
        absent = np.full(rows.num_rows, np.nan)
        numbers = {
            name: rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
            if name in rows.schema.names
            else absent
            for name in _WINDOW_COLUMNS
        }
        if np.isnan(numbers["mean"]).all() and {"sum", "count"} <= set(rows.schema.names):
            # a window that lost its last value has no sum
            numbers["mean"] = rows.column("sum").to_numpy(zero_copy_only=False) / numbers["count"]
        # copies: a view would keep the whole frame in memory
        start = ns_of(rows.column("start")).copy()
        end = ns_of(rows.column("end")).copy() if "end" in rows.schema.names else start
        series = rows.column("series").to_numpy().copy()
        revision = rows.column("revision").cast(pa.uint32()).to_numpy().copy()
        return cls(mark, frame.stream, series, start, end, **numbers, revision=revision)


@dataclass(slots=True)
class _Means:
    """Newest mean by series of one window."""

    mark: int
    values: NDArray[np.float64] = field(default_factory=lambda: np.full(1024, np.nan))


class RecentWindows:
    """The newest windows of all window streams. Written under the lock of `Latest`."""

    def __init__(self) -> None:
        self._frames: deque[WindowRows] = deque()
        self._rows = 0
        self._means: dict[str, dict[int, _Means]] = {}
        self._width_ns: dict[str, int] = {}

    def first_stream(self) -> str | None:
        """The stream of the shortest windows, which the page shows unless told otherwise."""
        return min(self._width_ns, key=lambda name: (self._width_ns[name], name), default=None)

    def take(self, frame: Frame, mark: int) -> None:
        """Add a frame's rows."""
        rows = WindowRows.of(frame, mark)
        self._frames.append(rows)
        self._rows += len(rows.series)
        while self._rows > ROWS_KEPT and len(self._frames) > 1:
            self._rows -= len(self._frames.popleft().series)
        self._width_ns[rows.stream] = int(rows.end_ns[0] - rows.start_ns[0])
        means = self._means.setdefault(rows.stream, {})
        for start in np.unique(rows.start_ns).tolist():
            if len(means) >= STARTS_KEPT and start < min(means) and start not in means:
                continue
            here = rows.start_ns == start
            kept = means.setdefault(start, _Means(mark))
            kept.mark = mark
            top = int(rows.series[here].max())
            if top >= len(kept.values):
                kept.values = np.append(
                    kept.values, np.full(max(top + 1, 2 * len(kept.values)) - len(kept.values), np.nan)
                )
            kept.values[rows.series[here]] = rows.mean[here]
        for start in sorted(means)[:-STARTS_KEPT]:
            del means[start]

    def since(
        self, stream: str, ids: NDArray[np.uint32], mark: int
    ) -> list[tuple[WindowRows, NDArray[np.int64]]]:
        """Rows of these series that came after `mark`: frames, oldest first, and the places of the rows in them."""
        found: list[tuple[WindowRows, NDArray[np.int64]]] = []
        for rows in reversed(self._frames):
            if rows.mark <= mark:
                break
            if rows.stream == stream:
                at = np.flatnonzero(np.isin(rows.series, ids))
                if len(at):
                    found.append((rows, at))
        return found[::-1]

    def means_since(self, stream: str, mark: int) -> list[tuple[int, NDArray[np.float64]]]:
        """(start in ns, mean by series id) of the newest windows that changed after `mark`, oldest first."""
        means = self._means.get(stream, {})
        return [(start, means[start].values.copy()) for start in sorted(means) if means[start].mark > mark]
