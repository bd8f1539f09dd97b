"""Charts: readings of one series, windows of one series or of a medium, read from the log for a stretch of time.

Only frames whose time range touches the stretch are read. The newest revision of each time counts. Reading stops
when `TIME_MAX_S` have passed or more than `ROWS_MAX` rows are held, and the answer says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.log.interface import Frame, LogReader
from ringmain.model.quality import VALIDITY_MASK, Validity
from ringmain.serve.keyed import ns_of
from ringmain.serve.overview import worst_quality
from ringmain.serve.shapes import MediumColumns, Points, WindowColumns

TIME_MAX_S = 10.0
ROWS_MAX = 5_000_000
POINTS_MAX = 20_000

_SECOND_NS = 1_000_000_000
_TIME_MIN_NS = -(2**63) + 1
_TIME_MAX_NS = 2**63 - 1
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
_Floats = NDArray[np.float64]


class Gone(Exception):  # noqa: N818  (nothing failed: nobody waits for the answer any more)
    """Whoever asked has left."""


@dataclass(slots=True)
class Reading:
    """One pass over a stream from `low_ns` until before `high_ns`; `truncated` once it stopped early."""

    log: LogReader
    stream: str
    low_ns: int
    high_ns: int
    gone: Event
    truncated: bool = False

    def frames(self, series: int | None = None) -> Iterator[Frame]:
        """Frames that may hold rows of the stretch, and of the series, up to the log's end as it is now."""
        end = self.log.end()
        if end is None:
            return
        deadline = time.monotonic() + TIME_MAX_S
        for frame in self.log.read(
            self.stream,
            until=end,
            time_min_ns=self.low_ns,
            time_max_ns=self.high_ns - 1,
            series=series,
        ):
            if self.gone.is_set():
                raise Gone
            if time.monotonic() > deadline:
                self.truncated = True
                return
            yield frame


def readings(
    log: LogReader, series: int, low_ns: int, high_ns: int, max_points: int, gone: Event
) -> tuple[str, Points, bool]:
    """(resolution, points, truncated) of one series."""
    reading = Reading(log, "readings", low_ns, high_ns, gone)
    columns: list[tuple[NDArray[np.int64], _Floats, NDArray[np.uint16]]] = []
    held = 0
    for frame in reading.frames(series):
        times = ns_of(frame.rows.column("time"))
        at = np.flatnonzero(
            (frame.rows.column("series").to_numpy() == series) & (times >= low_ns) & (times < high_ns)
        )
        if not len(at):
            continue
        columns.append(
            (
                times[at],
                frame.rows.column("value").to_numpy()[at],
                frame.rows.column("quality").to_numpy()[at],
            )
        )
        held += len(at)
        if held > ROWS_MAX:
            reading.truncated = True
            break
    if not columns:
        return "raw", _raw(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16)), reading.truncated
    times, values, qualities = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(times, kind="stable")
    times, values, qualities = times[order], values[order], qualities[order]
    newest = np.append(times[1:] != times[:-1], True)
    times, values, qualities = times[newest], values[newest], qualities[newest]
    if len(times) <= max_points:
        return "raw", _raw(times, values, qualities), reading.truncated
    step_s = bucket_s(high_ns - low_ns, max_points)
    if max_points == 1:  # begins with the stretch: aligned ones could be two
        buckets = np.full(len(times), max(low_ns, _TIME_MIN_NS))
    else:
        step_ns = min(step_s * _SECOND_NS, _TIME_MAX_NS)
        buckets = times // step_ns * step_ns
    points = _bucketed(buckets, values, qualities)
    return f"{_step_name(step_s)} buckets", points, reading.truncated


def bucket_s(stretch_ns: int, max_points: int) -> int:
    """The shortest round bucket, in s, of which at most `max_points` cover the stretch (one may be cut at each end)."""
    room = max(max_points - 1, 1)
    for step_s in _STEPS_S:
        if stretch_ns <= step_s * _SECOND_NS * room:
            return step_s
    days = -(-stretch_ns // (86_400 * _SECOND_NS * room))
    return int(days) * 86_400


def _step_name(step_s: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if step_s % size == 0:
            return f"{step_s // size}{unit}"
    return f"{step_s}s"


def _raw(times: NDArray[np.int64], values: _Floats, qualities: NDArray[np.uint16]) -> Points:
    numbers = floats(values)
    return Points(
        (times // 1_000_000).tolist(), numbers, numbers, numbers, [1] * len(times), qualities.tolist()
    )


def _bucketed(buckets: NDArray[np.int64], values: _Floats, qualities: NDArray[np.uint16]) -> Points:
    """One point for each bucket; `buckets` has, for each reading in order of time, where its bucket starts."""
    starts = np.flatnonzero(np.concatenate(([True], buckets[1:] != buckets[:-1])))
    ends = np.append(starts[1:], len(values))
    # as in windows, what is not a valid value is in no aggregate; such a bucket has quality and nothing else
    valid = ((qualities & VALIDITY_MASK) < Validity.INVALID) & ~np.isnan(values)
    counts = np.add.reduceat(valid.astype(np.int64), starts)
    empty = counts == 0
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(np.where(valid, values, 0.0), starts) / np.maximum(counts, 1)
    return Points(
        time_ms=(buckets[starts] // 1_000_000).tolist(),
        mean=floats(np.where(empty, np.nan, means)),
        min=floats(np.where(empty, np.nan, np.minimum.reduceat(np.where(valid, values, np.inf), starts))),
        max=floats(np.where(empty, np.nan, np.maximum.reduceat(np.where(valid, values, -np.inf), starts))),
        count=counts.tolist(),
        quality=[worst_quality(qualities[a:b]) for a, b in zip(starts, ends, strict=True)],
    )


def floats(values: _Floats) -> list[float | None]:
    """Numbers for JSON: what is not finite is None."""
    found: list[float | None] = values.tolist()
    if np.isfinite(values).all():
        return found
    return [value if ok else None for value, ok in zip(found, np.isfinite(values).tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class _Windows:
    """Rows of a window stream, newest revision each, in order of start and series."""

    series: NDArray[np.uint32]
    start_ns: NDArray[np.int64]
    width_ns: int | None
    columns: dict[str, _Floats]
    revision: NDArray[np.int64]


def _windows(reading: Reading, wanted: NDArray[np.uint32]) -> _Windows | None:
    """The windows of the wanted series (ids, ascending)."""
    rows: list[pa.RecordBatch] = []
    held = 0
    for frame in reading.frames(int(wanted[0]) if len(wanted) == 1 else None):
        start = ns_of(frame.rows.column("start"))
        ids = frame.rows.column("series").to_numpy()
        ours = ids == wanted[0] if len(wanted) == 1 else np.isin(ids, wanted)
        mask = ours & (start >= reading.low_ns) & (start < reading.high_ns)
        if not mask.any():
            continue
        rows.append(frame.rows.filter(pa.array(mask)))
        held += rows[-1].num_rows
        if held > ROWS_MAX:
            reading.truncated = True
            break
    if not rows:
        return None
    table = pa.Table.from_batches(rows).combine_chunks()
    batch = table.to_batches()[0]
    series, start = batch.column("series").to_numpy(), ns_of(batch.column("start"))
    # lexsort is stable: among equals the log's order stays, and the last one counts
    order = np.lexsort((series, start))
    series, start = series[order], start[order]
    last = np.append((series[1:] != series[:-1]) | (start[1:] != start[:-1]), True)
    pick = order[last]
    columns = {
        name: batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)[pick]
        for name in ("count", "sum", "mean", "min", "max")
        if name in batch.schema.names
    }
    if "mean" not in columns and {"sum", "count"} <= set(columns):
        columns["mean"] = columns["sum"] / columns["count"]
    width = None
    if "end" in batch.schema.names:
        width = int(ns_of(batch.column("end"))[pick[0]] - start[last][0])
    revision = batch.column("revision").cast(pa.int64()).to_numpy()[pick]
    return _Windows(series[last], start[last], width, columns, revision)


def windows_of_series(reading: Reading, series: int) -> tuple[int | None, WindowColumns]:
    """(width in ms, windows) of one series."""
    found = _windows(reading, np.array([series], np.uint32))
    if found is None:
        return None, WindowColumns([], [], [], [], [], [])
    absent: list[float | None] = [None] * len(found.series)
    numbers = {name: floats(column) for name, column in found.columns.items()}
    return _ms(found.width_ns), WindowColumns(
        start_ms=(found.start_ns // 1_000_000).tolist(),
        count=[None if n is None else int(n) for n in numbers.get("count", absent)],
        mean=numbers.get("mean", absent),
        min=numbers.get("min", absent),
        max=numbers.get("max", absent),
        revision=found.revision.tolist(),
    )


def windows_of_medium(
    reading: Reading, ids: NDArray[np.uint32], in_watts: Callable[[NDArray[np.uint32], _Floats], _Floats]
) -> tuple[int | None, MediumColumns]:
    """(width in ms, sums by window start) of the power series with these ids; `in_watts` converts their values."""
    found = _windows(reading, np.sort(ids)) if len(ids) else None
    if found is None or "mean" not in found.columns:
        return None, MediumColumns([], [], [], [], [])
    mean = np.nan_to_num(in_watts(found.series, found.columns["mean"]), nan=0.0, posinf=0.0, neginf=0.0)
    starts = np.flatnonzero(np.concatenate(([True], found.start_ns[1:] != found.start_ns[:-1])))
    load = np.add.reduceat(np.maximum(mean, 0.0), starts)
    generation = np.add.reduceat(np.minimum(mean, 0.0), starts)
    return _ms(found.width_ns), MediumColumns(
        start_ms=(found.start_ns[starts] // 1_000_000).tolist(),
        load=load.tolist(),
        generation=generation.tolist(),
        net=(load + generation).tolist(),
        series=np.diff(np.append(starts, len(mean))).tolist(),
    )


def _ms(width_ns: int | None) -> int | None:
    return None if width_ns is None else width_ns // 1_000_000
