"""Computing a flow's outputs anew beside the old ones, and writing what differs.

The chain folds its input from the beginning of the log into a log of its own beside the node's, where it also looks
back, so that nothing of the old outputs gets into the new ones. When it has come as far as the flow, what the two hold
is compared key by key from the chosen instant on, and the flow's output gets what differs: a row that changed with the
next revision, a row that is new, and one that takes back what is no more. Whoever reads the output therefore sees
revisions and nothing else, at no moment two truths beside each other. A replay that was interrupted begins again; what
it had written then differs no longer.

    rows with a revision      key: texts, series, start and end; taken back: revision + 1 without values
    readings                  key: series and time; taken back: the same time with quality invalid
    events                    key: id; an event that would no longer be is not taken back
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.flows.block import Block
from ringmain.flows.flow import FlowPlan, stored
from ringmain.flows.folding import Folding
from ringmain.flows.output import cut_at
from ringmain.flows.snapshot import Snapshots
from ringmain.flows.takeovers import Takeover
from ringmain.log import open_log
from ringmain.log.files import LocalFileSystem
from ringmain.log.interface import Frame, Log, LogReader, Position
from ringmain.model.quality import Quality

SLICE_NS = 86_400_000_000_000
"""Event time that is compared at once."""


@dataclass(slots=True)
class Differing:
    """How many rows of an output a replay found other than before."""

    changed: int = 0
    added: int = 0
    taken_back: int = 0

    def __str__(self) -> str:
        return f"{self.changed} changed, {self.added} added, {self.taken_back} taken back"


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
        self.differing = Differing()
        self._log = log
        self._directory = directory
        self._stopping = stopping
        shutil.rmtree(directory, ignore_errors=True)
        self._beside = open_log(directory)
        for name, shape in plan.streams.items():
            self._beside.create_stream(name, *stored(shape))
        self._claim = self._beside.claim("replay")
        self._sequence = 0
        none = Snapshots(LocalFileSystem(), directory / "none", plan.name)
        view = cast(LogReader, _Beside(log, self._beside, frozenset(plan.streams)))
        self.folding = Folding(plan, view, none, skipped, stopping, takeovers)
        self.folding.fold_up_to(None)

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
        """What the flow's output has to get, from an instant of event time on (None: all), in order of time."""
        name = self.plan.settings.to
        schema = stored(self.plan.output)[1]
        column = next((name for name in ("start", "time") if name in schema.names), None)
        if column is None:
            raise ValueError(f"{name!r} has neither start nor time: there is nothing to compare its rows by")
        low, high = _extent([(self._log, name), (self._beside, name)])
        if from_ns is not None:
            low = max(low, from_ns)
        while low <= high:
            until = min(high, low - low % SLICE_NS + SLICE_NS - 1)
            old = _rows(self._log, name, schema, column, low, until)
            new = _rows(self._beside, name, schema, column, low, until)
            found = self._compared(old, new)
            if len(found):
                columns = [
                    column.combine_chunks().cast(field.type)
                    if pa.types.is_dictionary(field.type)
                    else column.combine_chunks()
                    for column, field in zip(found.columns, schema, strict=True)
                ]
                yield Block(pa.RecordBatch.from_arrays(columns, schema=schema), self.folding.chain.now, name)
            if self._stopping():
                raise InterruptedError("stopped during a replay")
            low = until + 1

    def _compared(self, old: pa.Table, new: pa.Table) -> pa.Table:
        """The rows that make of the old ones the new ones."""
        schema = new.schema
        keys = key_columns(schema)
        values = [name for name in schema.names if name not in (*keys, "revision")]
        both = pa.concat_tables([old, new])
        group = _groups(both, keys)
        old_at = _last(group[: len(old)])
        new_at = _last(group[len(old) :])
        common, in_old, in_new = np.intersect1d(
            group[: len(old)][old_at], group[len(old) :][new_at], assume_unique=True, return_indices=True
        )
        before, after = old.take(pa.array(old_at[in_old])), new.take(pa.array(new_at[in_new]))
        differs = np.zeros(len(common), np.bool_)
        for name in values:
            differs |= ~_same(before.column(name), after.column(name))
        gone = np.setdiff1d(np.arange(len(old_at)), in_old)
        fresh = np.setdiff1d(np.arange(len(new_at)), in_new)
        if "id" in keys:
            gone = gone[:0]
        lost = old.take(pa.array(old_at[gone]))
        if len(lost):
            lost = _taken_back(lost, values)
            still = _not_taken_back(old.take(pa.array(old_at[gone])), lost, values)
            lost = lost.filter(pa.array(still))
        added = new.take(pa.array(new_at[fresh]))
        changed = after.filter(pa.array(differs))
        if "revision" in schema.names:
            changed = _revised(changed, before.filter(pa.array(differs)))
            added = _revised(added, None)
            lost = _revised(lost, lost)
        self.differing.changed += len(changed)
        self.differing.added += len(added)
        self.differing.taken_back += len(lost)
        found = pa.concat_tables([changed, added, lost])
        order = [(name, "ascending") for name in ("start", "time", "series") if name in schema.names]
        return found.sort_by(order)


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


def key_columns(schema: pa.Schema) -> list[str]:
    """The columns that name a row of an output."""
    names = schema.names
    if "id" in names:
        return ["id"]
    texts = [
        field.name
        for field in schema
        if field.name != "unit" and (pa.types.is_string(field.type) or pa.types.is_dictionary(field.type))
    ]
    times = ["start", "end"] if "start" in names else ["time"]
    return [name for name in (*texts, "series", *times) if name in names]


def _extent(streams: list[tuple[LogReader, str]]) -> tuple[int, int]:
    low, high = 2**62, -(2**62)
    for log, name in streams:
        for frame in log.read(name):
            low, high = min(low, frame.time_min_ns), max(high, frame.time_max_ns)
    return low, high


def _rows(log: LogReader, stream: str, schema: pa.Schema, column: str, low: int, high: int) -> pa.Table:
    """Rows of a stream whose time lies within the bounds, in log order."""
    batches = []
    for frame in log.read(stream, time_min_ns=low, time_max_ns=high):
        times = frame.rows.column(column).cast(pa.int64()).to_numpy()
        inside = (times >= low) & (times <= high)
        batches.append(frame.rows if inside.all() else frame.rows.filter(pa.array(inside)))
    table = pa.Table.from_batches(batches, schema)
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table


def _groups(rows: pa.Table, keys: list[str]) -> NDArray[np.int64]:
    """A number for each row, equal for rows of one key."""
    number = np.zeros(len(rows), np.int64)
    for name in keys:
        column = rows.column(name).combine_chunks()
        codes = pc.dictionary_encode(column, null_encoding="encode")
        if isinstance(codes, pa.ChunkedArray):
            codes = codes.combine_chunks()
        indices = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        number = np.unique(number * (len(codes.dictionary) + 1) + indices, return_inverse=True)[1].astype(
            np.int64
        )
    return number


def _last(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last row of each group, in order of the groups."""
    if not len(group):
        return np.empty(0, np.int64)
    back = np.unique(group[::-1], return_index=True)[1]
    last: NDArray[np.int64] = len(group) - 1 - back
    return last


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where two columns are equal; nothing equals nothing, NaN equals NaN."""
    if not len(left):
        return np.empty(0, np.bool_)
    equal = pc.fill_null(pc.equal(left, right), False)
    equal = pc.or_(equal, pc.and_(pc.is_null(left), pc.is_null(right)))
    if pa.types.is_floating(left.type):
        nan = pc.and_(pc.fill_null(pc.is_nan(left), False), pc.fill_null(pc.is_nan(right), False))
        equal = pc.or_(equal, nan)
    same: NDArray[np.bool_] = equal.combine_chunks().to_numpy(zero_copy_only=False)
    return same


def _taken_back(rows: pa.Table, values: list[str]) -> pa.Table:
    """The rows without what they said."""
    count = len(rows)
    for name in values:
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        if name == "quality":
            column = pa.array(np.full(count, int(Quality.INVALID), np.uint16))
        elif field.nullable:
            column = pa.nulls(count, field.type)
        elif pa.types.is_floating(field.type):
            column = pa.array(np.full(count, np.nan))
        elif pa.types.is_integer(field.type):
            column = pa.array(np.zeros(count, np.int64)).cast(field.type)
        else:
            continue
        rows = rows.set_column(place, field, column)
    return rows


def _not_taken_back(rows: pa.Table, lost: pa.Table, values: list[str]) -> NDArray[np.bool_]:
    """Where rows still say something."""
    differs = np.zeros(len(rows), np.bool_)
    for name in values:
        differs |= ~_same(rows.column(name), lost.column(name))
    return differs


def _revised(rows: pa.Table, before: pa.Table | None) -> pa.Table:
    """The rows with the revision behind that of others; without others the first one."""
    place = rows.schema.get_field_index("revision")
    field = rows.schema.field(place)
    if before is None:
        column = pa.array(np.zeros(len(rows), np.int64)).cast(field.type)
    else:
        column = pc.add(before.column("revision").cast(pa.int64()), 1).cast(field.type)
    return rows.set_column(place, field, column)
