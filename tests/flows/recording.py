"""A log in memory for tests of the step alone: it holds frames in order and answers as a `LogReader` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.history import LogHistory
from ringmain.flows.settings import WindowSettings
from ringmain.flows.window import WindowFold
from ringmain.log.interface import Frame, Position, StreamState
from ringmain.model.schemas import READING, SERIES, TICK, TIMESTAMP

Row = tuple[int, int, float, int]


class Recording:
    """Frames in log order. `lead_ns`: how far their origin arrival is ahead of their arrival."""

    def __init__(self, lead_ns: int = 0) -> None:
        self._lead_ns = lead_ns
        self.frames: list[Frame] = []
        self._rows: dict[str, int] = {}

    def __repr__(self) -> str:
        lines = [
            f"{frame.stream} at {frame.arrival_ns / 1e9:.0f}: "
            + "; ".join(str(list(row.values())) for row in frame.rows.to_pylist())
            for frame in self.frames
        ]
        return "\n  ".join(["Recording", *lines])

    def append(self, stream: str, rows: pa.RecordBatch, arrival_ns: int) -> Frame:
        time_min, time_max = -(2**63), 2**63 - 1
        for name in ("time", "start"):
            if name in rows.schema.names and rows.num_rows:
                times = rows.column(name).to_numpy().astype(np.int64)
                time_min, time_max = int(times.min()), int(times.max())
        before = self._rows.get(stream, 0)
        self._rows[stream] = before + rows.num_rows
        frame = Frame(
            stream,
            Position(1, 0, len(self.frames)),
            arrival_ns - self._lead_ns,
            arrival_ns,
            0,
            0,
            0,
            rows.num_rows,
            time_min,
            time_max,
            before + rows.num_rows,
            rows,
        )
        self.frames.append(frame)
        return frame

    def readings(self, rows: Sequence[Row], arrival_ns: int) -> Frame:
        return self.append("readings", batch(rows), arrival_ns)

    def tick(self, now_ns: int) -> Frame:
        return self.append("ticks", pa.record_batch([pa.array([now_ns], TIMESTAMP)], schema=TICK), now_ns)

    def entries(self, devices: dict[int, str | None], arrival_ns: int) -> Frame:
        return self.append("catalogue", catalogue(devices), arrival_ns)

    # LogReader

    def streams(self) -> list[StreamState]:
        return []

    def read(
        self,
        streams: str | Sequence[str],
        after: Position | None = None,
        until: Position | None = None,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
        time_min_ns: int | None = None,
        time_max_ns: int | None = None,
    ) -> Iterator[Frame]:
        assert not follow
        names = {streams} if isinstance(streams, str) else set(streams)
        begin = 0 if after is None else after.offset + 1
        end = len(self.frames) if until is None else until.offset + 1
        for frame in self.frames[begin:end]:
            if frame.stream not in names:
                continue
            if time_min_ns is not None and frame.time_max_ns < time_min_ns:
                continue
            if time_max_ns is not None and frame.time_min_ns > time_max_ns:
                continue
            yield frame

    def end(self) -> Position | None:
        return self.frames[-1].position if self.frames else None

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        found = None
        for frame in self.frames:
            if frame.stream == stream and frame.arrival_ns < arrival_ns:
                found = frame.position
        return found

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        return {}

    def close(self) -> None:
        pass


def batch(rows: Sequence[Row]) -> pa.RecordBatch:
    series, time, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.record_batch(
        [
            pa.array(series, pa.uint32()),
            pa.array(time, pa.int64()).cast(TIMESTAMP),
            pa.array(value, pa.float64()),
            pa.array(quality, pa.uint16()),
        ],
        schema=READING,
    )


def catalogue(devices: dict[int, str | None]) -> pa.RecordBatch:
    entries = [
        {"id": number, "key": f"key/{number}", "device": device, "source": "test"}
        for number, device in devices.items()
    ]
    return pa.RecordBatch.from_pylist(entries, schema=SERIES)


def window_rows(rows: pa.RecordBatch) -> list[tuple[object, ...]]:
    """Rows of a window stream as (series, start, revision, values...)."""
    columns = [rows.column("series").to_pylist(), rows.column("start").cast(pa.int64()).to_pylist()]
    columns.append(rows.column("revision").to_pylist())
    columns += [rows.column(name).to_pylist() for name in rows.schema.names[3:-1]]
    return list(zip(*columns, strict=True))


def late_rows(rows: pa.RecordBatch) -> list[tuple[object, ...]]:
    """Rows of a late stream as (series, time, value, quality, arrived)."""
    columns = [
        rows.column("series").to_pylist(),
        rows.column("time").cast(pa.int64()).to_pylist(),
        rows.column("value").to_pylist(),
        rows.column("quality").to_pylist(),
        rows.column("arrived").cast(pa.int64()).to_pylist(),
    ]
    return list(zip(*columns, strict=True))


def fold(
    recording: Recording,
    settings: WindowSettings,
    *,
    recent_rows: int = 1 << 20,
    recent_windows: int = 1 << 18,
    lead_ns: int = 0,
    readings_max: int = 1 << 20,
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], WindowFold]:
    """Run the step over a recording. Rows, late rows, the fold.

    The step looks back into a log that grows as it goes: inputs up to the frame, and what was emitted.
    """
    stored = Recording(lead_ns)
    step = WindowFold(
        settings.told(),
        LogHistory(
            stored,
            settings.told(),
            recent_rows=recent_rows,
            recent_windows=recent_windows,
            readings_max=readings_max,
        ),
    )
    windows: list[tuple[object, ...]] = []
    late: list[tuple[object, ...]] = []
    for frame in recording.frames:
        frame = stored.append(frame.stream, frame.rows, frame.origin_arrival_ns)
        outputs = step.step(frame)
        for rows in outputs.windows:
            stored.append(settings.to, rows, frame.origin_arrival_ns)
            windows += window_rows(rows)
        for rows in outputs.late:
            late += late_rows(rows)
    return windows, late, step


def recut(recording: Recording, cuts: Sequence[int]) -> Recording:
    """The same rows and arrivals in other frames: neighbours with equal arrival joined, then cut by `cuts`."""
    joined: list[Frame] = []
    for frame in recording.frames:
        last = joined[-1] if joined else None
        if (
            last is not None
            and frame.stream == last.stream == "readings"
            and frame.arrival_ns == last.arrival_ns
        ):
            rows = pa.Table.from_batches([last.rows, frame.rows]).combine_chunks().to_batches()
            joined[-1] = msgspec.structs.replace(last, rows=rows[0] if rows else last.rows)
        else:
            joined.append(frame)
    other = Recording()
    sizes = iter(cuts)
    for frame in joined:
        if frame.stream != "readings":
            other.append(frame.stream, frame.rows, frame.arrival_ns)
            continue
        start = 0
        while start < frame.rows.num_rows:
            size = next(sizes, 1 << 30)
            other.append("readings", frame.rows.slice(start, size), frame.arrival_ns)
            start += size
    return other
