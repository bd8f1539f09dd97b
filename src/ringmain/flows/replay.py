"""Computing a flow's outputs anew beside the old ones, and writing what differs.

The chain folds its input from the beginning of the log into a log of its own beside the node's, where it also looks
back, so that nothing of the old outputs gets into the new ones. When it has come as far as the flow, what the two hold
is compared from the chosen instant on, and the flow's streams get what differs, as `comparing.py` finds it. Whoever reads
the output therefore sees revisions and nothing else, at no moment two truths beside each other. A replay that was
interrupted begins again; what it had written then differs no longer.

    output, rows with a revision   by texts, series, start and end; taken back: revision + 1 without values
    output, readings               by series and time; taken back: the same time with quality invalid
    output, events                 by id; what would no longer be stays, but for open alarms, which are closed
                                   (`succession.py`)
    other streams of the flow      (late rows, routes) row by row; what is missing is added, what would no longer be stays
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows.alerts.events import source_of
from ringmain.flows.block import Block
from ringmain.flows.comparing import Differing, as_rows, corrections, missing, time_column
from ringmain.flows.flow import FlowPlan, stored
from ringmain.flows.folding import Folding
from ringmain.flows.output import cut_at
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.takeovers import Takeover
from ringmain.log import open_log
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Frame, Log, LogReader, Position

SLICE_NS = 86_400_000_000_000
"""Event time that is compared at once."""


class Replay:
    """One replay. `directory`: where its own log is, removed by `close`. `stopping()` ends it (InterruptedError)."""

    def __init__(
        self,
        plan: FlowPlan,
        log: Log,
        directory: Path,
        skipped: tuple[Position, ...],
        stopping: Callable[[], bool],
        takeovers: tuple[Takeover, ...] = (),
    ) -> None:
        self.plan = plan
        self.differing: dict[str, Differing] = {}
        """By stream, as far as `differences` has come."""
        self._log = log
        self._directory = directory
        self._stopping = stopping
        shutil.rmtree(directory, ignore_errors=True)
        self._beside = open_log(directory)
        try:
            for name, shape in plan.streams.items():
                self._beside.create_stream(name, *stored(shape))
            self._claim = self._beside.claim("replay")
            self._sequence = 0
            none = Snapshots(LocalFileSystem(), directory / "none", plan.name)
            view = cast(LogReader, _Beside(log, self._beside, frozenset(plan.streams)))
            self.folding = Folding(plan, view, none, skipped, stopping, takeovers)
            self.folding.fold_up_to(None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove what was built beside."""
        self._beside.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def fold_up_to(self, committed: Position | None) -> None:
        """Fold the input up to a position. Raises StepFailureError, InterruptedError, LogError of the log beside."""
        folding = self.folding
        if committed is None or folding.position == committed:
            return
        for frame in self._log.read(folding.chain.streams, after=folding.position, until=committed):
            self._keep(frame.origin_arrival_ns, folding.step(frame))
            if self._stopping():
                raise InterruptedError("stopped during a replay")
        self._keep(folding.chain.now, folding.settle())

    def _keep(self, arrival_ns: int, blocks: list[Block]) -> None:
        for batch in cut_at(arrival_ns, blocks):
            self._sequence += 1
            self._beside.append([batch], claim=self._claim, sequence=self._sequence)

    def differences(self, from_ns: int | None) -> Iterator[Block]:
        """What the flow's streams have to get, from an instant of event time on (None: all), in order of time."""
        for name in self.plan.streams:
            schema = stored(self.plan.streams[name])[1]
            differing = self.differing.setdefault(name, Differing())
            corrected = name == self.plan.settings.to and time_column(schema) is not None
            for old, new in self._slices(name, schema, from_ns):
                found = corrections(old, new, differing) if corrected else missing(old, new, differing)
                if len(found):
                    yield Block(as_rows(found, schema), self.folding.chain.now, name)
                if self._stopping():
                    raise InterruptedError("stopped during a replay")

    def _slices(
        self, name: str, schema: pa.Schema, from_ns: int | None
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows of a stream as they are and as they are to be, a stretch of event time after the other."""
        column = time_column(schema)
        if column is None:
            yield self._own(_rows(self._log, name, schema)), _rows(self._beside, name, schema)
            return
        low, high = _extent([(self._log, name), (self._beside, name)])
        if from_ns is not None:
            low = max(low, from_ns)
        while low <= high:
            until = min(high, low - low % SLICE_NS + SLICE_NS - 1)
            old = _rows(self._log, name, schema, column, low, until)
            yield self._own(old), _rows(self._beside, name, schema, column, low, until)
            low = until + 1

    def _own(self, rows: pa.Table) -> pa.Table:
        """Without the events of others that write to the same stream."""
        if "source" not in rows.schema.names or "id" not in rows.schema.names:
            return rows
        return rows.filter(pc.equal(rows.column("source"), source_of(self.plan.name)))


class _Beside:
    """The log as the replayed chain sees it: the flow's own streams are those beside."""

    def __init__(self, log: LogReader, beside: LogReader, own: frozenset[str]) -> None:
        self._log = log
        self._other = beside
        self._own = own

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(
        self, streams: object, after: Position | None = None, until: Position | None = None, **kwargs: object
    ) -> Iterator[Frame]:
        """Frames of the log; those of the flow's own streams come from the log beside, all of them."""
        if isinstance(streams, str) and streams in self._own:
            return self._other.read(streams, **kwargs)  # type: ignore[arg-type]
        return self._log.read(streams, after, until, **kwargs)  # type: ignore[arg-type]


def _extent(streams: list[tuple[LogReader, str]]) -> tuple[int, int]:
    low, high = 2**62, -(2**62)
    for log, name in streams:
        for frame in log.read(name):
            low, high = min(low, frame.time_min_ns), max(high, frame.time_max_ns)
    return low, high


def _rows(
    log: LogReader,
    stream: str,
    schema: pa.Schema,
    column: str | None = None,
    low: int | None = None,
    high: int | None = None,
) -> pa.Table:
    """Rows of a stream whose time lies within the bounds, if there are any, in log order."""
    batches = []
    for frame in log.read(stream, time_min_ns=low, time_max_ns=high):
        if column is None or low is None or high is None:
            batches.append(frame.rows)
            continue
        times = frame.rows.column(column).cast(pa.int64()).to_numpy()
        inside = (times >= low) & (times <= high)
        batches.append(frame.rows if inside.all() else frame.rows.filter(pa.array(inside)))
    table = pa.Table.from_batches(batches, schema)
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table
