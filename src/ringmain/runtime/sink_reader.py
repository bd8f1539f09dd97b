"""What a sink reads: frames of its streams and ticks in the order of the log, cut into batches.

A batch is a frame, or as many of its rows as the sink takes at once: cut at multiples of that from the frame's first
row on, so that identities are the same whenever the rows are read. Rows that retention removed before they were
read are counted, out of the running count that each frame carries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from ringmain.log.interface import Frame, LogReader, PositionGoneError, StreamKind
from ringmain.runtime.sink import BatchId, SinkBatch
from ringmain.runtime.sink_position import Mark

TICKS = "ticks"
ROUND_ROWS_MAX = 100_000
"""Rows of one round, which a sink is handed in one call; a frame is not cut for it."""
ROUND_BATCHES_MAX = 256
ROUND_BYTES_MAX = 16 << 20


class SinkReader:
    """Reads on from a mark. `on_missed(text)` is told of rows that were gone before they could be read."""

    def __init__(
        self,
        log: LogReader,
        streams: Sequence[str],
        mark: Mark | None,
        batch_rows_max: int,
        on_missed: Callable[[str], None],
    ) -> None:
        self._log = log
        self._streams = streams
        self._batch_rows_max = batch_rows_max
        self._on_missed = on_missed
        self.mark = mark or Mark(None, {})
        """Behind everything that was read."""
        self._part_of, self._part_rows = self.mark.part_of, self.mark.part_rows
        self.now_ns = 0
        """Log time: the arrival of the newest frame that was read."""
        self._frames: Iterator[Frame] | None = None
        self._known: dict[str, StreamKind] = {}
        self._left: list[SinkBatch] = []
        self._gap = False
        self._expected: dict[str, int] = {}
        self.unknown: tuple[str, ...] = ()
        """Streams that nobody has created yet."""
        self._logger = logging.getLogger("ringmain.sinks")

    def take(self, batches_max: int = ROUND_BATCHES_MAX) -> list[SinkBatch]:
        """The next batches; none when there is nothing durable that was not read. Raises LogError."""
        taken: list[SinkBatch] = []
        rows = size = 0
        while len(taken) < batches_max and rows < ROUND_ROWS_MAX and size < ROUND_BYTES_MAX:
            if not self._left:
                frame = self._next()
                if frame is None:
                    break
                self._left = self._cut(frame)
                continue
            batch = self._left.pop(0)
            taken.append(batch)
            rows += batch.id.rows
            size += batch.rows.nbytes
        return taken

    def skip_to(self, mark: Mark) -> None:
        """Go on behind a mark, whatever was read."""
        self.mark = Mark(mark.position, mark.rows, mark.part_of, mark.part_rows, self.mark.missed)
        self._part_of, self._part_rows = mark.part_of, mark.part_rows
        self._frames, self._left = None, []

    def _next(self) -> Frame | None:
        """The next frame of the streams with rows that were not had yet, ticks passed over."""
        while True:
            if self._frames is None and not self._begin():
                return None
            assert self._frames is not None
            try:
                frame = next(self._frames, None)
            except PositionGoneError as error:
                self._gone(error)
                continue
            if frame is None:
                self._frames = None
                self._check_end()
                return None
            self.now_ns = max(self.now_ns, frame.arrival_ns)
            mark = self.mark
            if frame.stream == TICKS and TICKS not in self._streams:
                self.mark = Mark(frame.position, mark.rows, None, 0, mark.missed)
            elif frame.cumulative_rows <= mark.rows.get(frame.stream, 0) or not frame.row_count:
                self.mark = Mark(frame.position, mark.rows, None, 0, mark.missed)  # had before
            else:
                return frame

    def _begin(self) -> bool:
        """Begin to read what is durable by now; False where there is nothing new."""
        if self._gap:
            self._expected = {state.stream.name: state.rows for state in self._log.streams()}
        end = self._log.end()
        if end is None or end == self.mark.position:
            return False
        if self.unknown or not self._known:
            # asked for after the end: what is not known now has nothing up to there
            self._known = {state.stream.name: state.stream.kind for state in self._log.streams()}
            self.unknown = tuple(name for name in self._streams if name not in self._known)
        self._log.catalogue()  # brings it up to date with the end, where that does not come by itself
        names = list(dict.fromkeys([*(name for name in self._streams if name in self._known), TICKS]))
        try:
            self._frames = iter(self._log.read(names, after=self.mark.position, until=end))
        except PositionGoneError as error:
            self._gone(error)
            return self._begin()
        return True

    def _gone(self, error: PositionGoneError) -> None:
        """Go on with the oldest that there is; `_cut` counts what is missing."""
        self._logger.warning("%s", error)
        self._frames, self._gap = None, True
        self.mark = Mark(None, self.mark.rows, None, 0, self.mark.missed)

    def _check_end(self) -> None:
        """All is read that is there; behind a gap, what a stream should have besides is gone as well."""
        if not self._gap:
            return
        self._gap = False
        rows, missed = dict(self.mark.rows), self.mark.missed
        for name, had in self.mark.rows.items():
            gone = self._expected.get(name, had) - had if name in self._streams else 0
            if gone > 0:
                rows[name] += gone
                missed += gone
                self._tell(gone, name, "the end of what is kept")
        self.mark = Mark(self.mark.position, rows, None, 0, missed)

    def _tell(self, rows: int, stream: str, before: str) -> None:
        self._on_missed(
            f"{rows} rows of stream {stream!r} before {before} were gone before they could be read: removed by retention, "
            "or damaged; the ledger has the place"
        )

    def _cut(self, frame: Frame) -> list[SinkBatch]:
        before = self.mark
        had = before.rows.get(frame.stream)
        first = frame.cumulative_rows - frame.row_count
        missed = before.missed
        if had is not None and first > had:
            missed += first - had
            self._tell(first - had, frame.stream, str(frame.position))
        start = self._part_rows if self._part_of == frame.position else 0
        self._part_of = None
        rows = {**before.rows, frame.stream: frame.cumulative_rows}
        behind = Mark(frame.position, rows, None, 0, missed)
        step = self._batch_rows_max
        # at multiples from the frame's first row on, whatever was done of it before
        bounds = [start, *range((start // step + 1) * step, frame.row_count, step), frame.row_count]
        batches = []
        for low, high in pairwise(bounds):
            mark = (
                behind
                if high == frame.row_count
                else Mark(before.position, before.rows, frame.position, high, missed)
            )
            batches.append(
                SinkBatch(
                    BatchId(frame.stream, frame.position, low, high - low),
                    self._known[frame.stream],
                    frame.rows.slice(low, high - low),
                    frame.arrival_ns,
                    frame.origin_arrival_ns,
                    mark,
                )
            )
        self.mark = behind
        return batches
