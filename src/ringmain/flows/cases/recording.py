"""A log in memory: what a case's flows fold, and what steps that look back into the log find in it.

It answers as a `LogReader` does, for one thread. Nothing is durable and nothing is removed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ringmain.flows.block import numbers
from ringmain.log.interface import Frame, Position, Stream, StreamKind, StreamState
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import SERIES, TICK, TIMESTAMP

CATALOGUE, TICKS = "catalogue", "ticks"
_TIME_MIN, _TIME_MAX = -(2**63), 2**63 - 1


class Recording:
    """Frames in log order; the place of a frame is its offset."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.frames: list[Frame] = []
        self._now_ns = _TIME_MIN
        """Arrival never runs backwards; what follows from an instant comes when it has ended."""
        self._catalogue = catalogue
        self._streams: dict[str, Stream] = {}
        self._rows: dict[str, int] = {}
        self._places: dict[str, list[int]] = {}
        self.create(CATALOGUE, StreamKind.CONTROL, SERIES)
        self.create(TICKS, StreamKind.CONTROL, TICK)

    def create(self, name: str, kind: StreamKind, schema: pa.Schema) -> None:
        """Make a stream known."""
        self._streams.setdefault(name, Stream(name, kind, schema, len(self._streams)))
        self._rows.setdefault(name, 0)
        self._places.setdefault(name, [])

    def append(self, stream: str, rows: pa.RecordBatch, arrival_ns: int) -> Frame:
        """Store rows of a stream that was created, with their arrival."""
        return self._append(stream, rows, arrival_ns, *_bounds(rows))

    def tick(self, now_ns: int) -> Frame:
        """Store a tick."""
        time = pa.Array.from_buffers(
            TIMESTAMP, 1, [None, pa.py_buffer(now_ns.to_bytes(8, "little", signed=True))]
        )
        return self._append(TICKS, pa.RecordBatch.from_arrays([time], schema=TICK), now_ns, now_ns, now_ns)

    def _append(
        self, stream: str, rows: pa.RecordBatch, arrival_ns: int, time_min_ns: int, time_max_ns: int
    ) -> Frame:
        place, size = len(self.frames), rows.num_rows
        count = self._rows[stream] = self._rows[stream] + size
        self._now_ns = max(self._now_ns, arrival_ns)
        frame = Frame(
            stream,
            Position(1, 0, place),
            self._now_ns,
            arrival_ns,
            0,
            0,
            place,
            size,
            time_min_ns,
            time_max_ns,
            count,
            rows,
        )
        self.frames.append(frame)
        self._places[stream].append(place)
        return frame

    # LogReader

    def streams(self) -> list[StreamState]:
        """Every stream by name."""
        states = []
        for name in sorted(self._streams):
            places = self._places[name]
            last = self.frames[places[-1]] if places else None
            states.append(
                StreamState(
                    self._streams[name],
                    self._rows[name],
                    len(places),
                    None if last is None else last.position,
                    0 if last is None else last.arrival_ns,
                )
            )
        return states

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
        series: int | None = None,
    ) -> Iterator[Frame]:
        """Frames of the streams in order; does not wait for more."""
        begin = 0 if after is None else after.offset + 1
        end = len(self.frames) if until is None else until.offset + 1
        for place in self._between([streams] if isinstance(streams, str) else streams, begin, end):
            frame = self.frames[place]
            if time_min_ns is not None and frame.time_max_ns < time_min_ns:
                continue
            if time_max_ns is not None and frame.time_min_ns > time_max_ns:
                continue
            yield frame

    def _between(self, streams: Sequence[str], begin: int, end: int) -> list[int]:
        found: list[int] = []
        for name in dict.fromkeys(streams):
            places = self._places.get(name, [])
            found += places[bisect_left(places, begin) : bisect_left(places, end)]
        return found if len(streams) == 1 else sorted(found)

    def end(self) -> Position | None:
        """The newest frame's position."""
        return self.frames[-1].position if self.frames else None

    def find(self, stream: str, arrival_ns: int) -> Position | None:
        """The newest position of the stream whose arrival is before that time."""
        places = self._places.get(stream, [])
        place = bisect_left(places, arrival_ns, key=lambda offset: self.frames[offset].arrival_ns)
        return self.frames[places[place - 1]].position if place else None

    def positions(self, prefix: str = "") -> dict[str, bytes]:
        """None are kept."""
        return {}

    def catalogue(self) -> Catalogue:
        """The catalogue of the case."""
        return self._catalogue

    def ledger(self) -> pa.RecordBatch:
        """Nothing is missing here."""
        raise NotImplementedError("a recording in memory has no ledger")

    def close(self) -> None:
        """Nothing is open."""


def _bounds(rows: pa.RecordBatch) -> tuple[int, int]:
    for name in ("time", "start"):
        if rows.num_rows and name in rows.schema.names:
            times = numbers(rows, name, np.int64)
            return int(times.min()), int(times.max())
    return _TIME_MIN, _TIME_MAX
