"""The folds of the step `join`: with a stream, whose rows come in log order, and with a file, which is there whole.

With a stream, rows wait for the end of their instant, so that it makes no difference which of two streams' rows of one
instant stands first in the log. With a file each row is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows.asof import AsOf
from ringmain.flows.block import Block, Bools, Ints, numbers
from ringmain.flows.grouping import Term
from ringmain.flows.joining import JoinKeys
from ringmain.flows.ordering_rows import kept, restored, stored
from ringmain.flows.pending import Pending
from ringmain.flows.reference_data import ReferenceData
from ringmain.flows.state import NEVER
from ringmain.flows.step import Context, PlanError, Stateless, StepState
from ringmain.model.schemas import TIMESTAMP

if TYPE_CHECKING:
    from ringmain.flows.steps.join import JoinSettings

HELD_ROWS_MAX = 1 << 20
"""Rows that wait for the other stream; with more of them the oldest go on (counted as `crowded`)."""
_TIMES = ("time", "start", "valid_from")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that a join adds: their new names, and what they are on the other side."""

    names: tuple[str, ...]
    schema: pa.Schema

    def added_to(self, schema: pa.Schema) -> pa.Schema:
        """A schema with these columns behind its own. Raises PlanError."""
        taken = next((name for name in self.names if name in schema.names), None)
        if taken is not None:
            raise PlanError(
                "columns",
                f"the rows have a column {taken!r} already: give the new one another name, e.g. "
                f"columns = {{ other_{taken} = {taken!r} }}",
            )
        fields = [pa.field(name, field.type) for name, field in zip(self.names, self.schema, strict=True)]
        return pa.schema([*schema, *fields])

    def of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """These columns of rows of the other side."""
        columns = [rows.column(rows.schema.get_field_index(field.name)) for field in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def time_column(schema: pa.Schema, name: str | None) -> str:
    """The column of a stream that is its time. Raises ValueError."""
    names = [name] if name is not None else [found for found in _TIMES if found in schema.names]
    if not names or names[0] not in schema.names:
        wanted = "time, start or valid_from" if name is None else name
        raise ValueError(f"no column {wanted}; it has {', '.join(schema.names)}")
    kind = schema.field(names[0]).type
    if not pa.types.is_timestamp(kind):
        raise ValueError(f"column {names[0]} holds {kind}, expected a time")
    return names[0]


def row_times(block: Block) -> Ints:
    """The time of each row: of a window its start."""
    return numbers(block.rows, "time" if "time" in block.rows.schema.names else "start", np.int64)


class _Matching:
    """Puts the columns of what was found beside rows."""

    def __init__(self, settings: JoinSettings, schema: pa.Schema, context: Context) -> None:
        self._schema = schema
        self._context = context
        self._unmatched = settings.unmatched.value
        self._stream = f"{context.surroundings.to}.unmatched"
        self._tolerance_ns = settings.tolerance_ns

    def matched(self, block: Block, table: AsOf, key: Ints, time: Ints) -> list[Block]:
        """A block joined; rows without a match as told."""
        places = table.find(key, time)
        if self._tolerance_ns is not None and len(table):
            found = places >= 0
            age = (time - table.time[np.where(found, places, 0)]).view(
                np.uint64
            )  # may be more than int64 holds
            old = found & (age > np.uint64(self._tolerance_ns))
            places[old] = -1
        missing: Bools = places < 0
        count = int(missing.sum())
        blocks: list[Block] = []
        if count:
            self._context.count("unmatched", count)
            if self._unmatched != "null":
                if self._unmatched == "side":
                    aside = block.take(missing)
                    blocks.append(Block(aside.rows, block.arrival_ns, self._stream))
                if count == len(block):
                    return blocks
                block, places = block.take(~missing), places[~missing]
        columns = [*block.rows.columns, *table.columns(places)]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        blocks.insert(0, Block(rows, block.arrival_ns))
        return blocks


class FileJoin(Stateless):
    """With a file."""

    def __init__(
        self,
        settings: JoinSettings,
        terms: tuple[Term, ...],
        data: ReferenceData,
        columns: Columns,
        schema: pa.Schema,
        context: Context,
    ) -> None:
        self._keys = JoinKeys(terms, None, context.attributes)
        texts = [data.texts(term.name) for term in terms]
        key = self._keys.of_texts(texts, data.rows.num_rows)
        self._table = AsOf(columns.schema)
        have = key >= 0
        rows = columns.of(data.rows)
        self._table.add(
            rows if have.all() else rows.filter(pa.array(have)),
            key[have],
            data.valid_from[have],
            data.valid_to[have],
        )
        self._matching = _Matching(settings, schema, context)

    def take(self, block: Block) -> list[Block]:
        """Each row with what the file holds for its time."""
        if not len(block):
            return []
        return self._matching.matched(block, self._table, self._keys.of(block), row_times(block))


class StreamJoin:
    """With a stream."""

    def __init__(
        self,
        settings: JoinSettings,
        terms: tuple[Term, ...],
        others: tuple[Term, ...],
        columns: Columns,
        schema: pa.Schema,
        context: Context,
    ) -> None:
        self._settings = settings
        self._wait_ns = settings.wait_ns
        self._keep_ns = settings.keep_ns
        self._max_ahead_ns = context.surroundings.max_ahead_ns
        self._by_time = settings.versions.value == "time"
        self._keys = JoinKeys(terms, others, context.attributes, by_series=settings.by_series)
        self._columns = columns
        self._context = context
        self._table = AsOf(columns.schema)
        self._matching = _Matching(settings, schema, context)
        self._now = NEVER
        self._newest = NEVER
        """The newest time of a row that was joined."""
        self._pending = Pending()
        self._other = Pending("other")
        self._held: list[tuple[int, Block]] = []
        """Rows that wait, with the log time of their instant."""
        self._only = _OneSeries(settings.series, context) if settings.series is not None else None

    def take(self, block: Block) -> tuple[()]:
        """Collect the instant."""
        self._pending.take(block)
        return ()

    def take_other(self, stream: str, block: Block) -> tuple[()]:
        """Collect rows of the other stream."""
        self._other.take(block)
        return ()

    def advance(self, now_ns: int) -> list[Block]:
        """The instant has ended: what of it, and of what waited, can be joined."""
        moment, self._now = self._now, now_ns
        learnt = False
        for block in self._other.end():
            learnt |= self._learn(block.rows)
        blocks = self._pending.end()
        if not self._wait_ns:
            return [joined for block in blocks for joined in self._join(block, self._keys.of(block))]
        self._held += [(moment, block) for block in blocks]
        return self._release(now_ns, learnt, len(blocks))

    def _learn(self, rows: pa.RecordBatch) -> bool:
        """Take over rows of the other stream; whether there were any that can be used."""
        key = self._keys.of_other(rows)
        usable = key >= 0
        if self._only is not None:
            usable &= self._only.rows(rows)
        time = np.zeros(rows.num_rows, np.int64)
        if self._by_time:
            column = rows.column(time_column(rows.schema, self._settings.time))
            if column.null_count:
                timed = column.is_valid().to_numpy(zero_copy_only=False)
                self._context.count("unusable_reference", int((usable & ~timed).sum()))
                usable &= timed
            time = pc.fill_null(column.cast(TIMESTAMP).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
            if self._newest != NEVER:
                self._context.count("late_reference", int((time[usable] <= self._newest).sum()))
        if self._only is None:
            self._context.count("unusable_reference", int((key < 0).sum()))
        if not usable.any():
            return False
        chosen = self._columns.of(rows)
        if not usable.all():
            chosen, key, time = chosen.filter(pa.array(usable)), key[usable], time[usable]
        horizon = NEVER if self._newest == NEVER else max(self._newest - self._keep_ns, NEVER + 1)
        self._context.count("forgotten", self._table.add(chosen, key, time, horizon=horizon))
        return True

    def _join(self, block: Block, key: Ints) -> list[Block]:
        time = row_times(block)
        if not self._by_time:
            return self._matching.matched(block, self._table, key, np.zeros(len(block), np.int64))
        newest = int(time.max())
        if newest > self._newest:
            limit = block.arrival_ns + self._max_ahead_ns
            if newest > limit:
                newest = int(time[time <= limit].max(initial=NEVER))
            self._newest = max(newest, self._newest)
        return self._matching.matched(block, self._table, key, time)

    def _release(self, now_ns: int, learnt: bool, fresh: int) -> list[Block]:
        """Join what need not wait any longer, in the order in which it came."""
        spare = sum(len(block) for _, block in self._held) - HELD_ROWS_MAX
        until = NEVER
        for moment, block in self._held:
            if spare <= 0 and moment != until:
                break
            until = moment
            spare -= len(block)
            self._context.count("crowded", len(block))
        held, self._held = self._held, []
        out: list[Block] = []
        for number, (moment, block) in enumerate(held):
            if moment <= until or now_ns - moment >= self._wait_ns:
                out += self._join(block, self._keys.of(block))
                continue
            if not learnt and number < len(held) - fresh:
                self._held.append((moment, block))
                continue
            key = self._keys.of(block)
            ready = (key < 0) | (row_times(block) <= self._table.known(key))
            if ready.any():
                part = block if ready.all() else block.take(ready)
                out += self._join(part, key[ready])
            if not ready.all():
                self._held.append((moment, block if not ready.any() else block.take(~ready)))
        return out

    # State

    def state(self) -> StepState:
        """Everything remembered."""
        held = Pending("held")
        held.blocks = [block for _, block in self._held]
        return {
            "moments": np.array([self._now, self._newest], np.int64),
            **self._pending.state(),
            **self._other.state(),
            **held.state(),
            "held_moment": np.array([moment for moment, _ in self._held], np.int64),
            "table_rows": stored([self._table.rows]),
            "table_key": self._table.key,
            "table_time": self._table.time,
            "table_newest": self._table.newest,
            **self._keys.state(),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._now, self._newest = (int(moment) for moment in kept(state, "moments", np.int64))
        self._pending.restore(state)
        self._other.restore(state)
        held = Pending("held")
        held.restore(state)
        moments = kept(state, "held_moment", np.int64).tolist()
        self._held = list(zip(moments, held.blocks, strict=True))
        self._keys.restore(state)
        rows = restored(state["table_rows"])
        assert rows is not None
        self._table.newest = kept(state, "table_newest", np.int64)
        self._table.add(rows, kept(state, "table_key", np.int64), kept(state, "table_time", np.int64))


class _OneSeries:
    """Which rows are of the series with a key."""

    def __init__(self, key: str, context: Context) -> None:
        self._key = key
        self._attributes = context.attributes
        self._version = -1
        self._ids: Ints = np.empty(0, np.int64)

    def rows(self, rows: pa.RecordBatch) -> Bools:
        """Where they are."""
        attributes = self._attributes
        if attributes.version != self._version:
            changed = attributes.changed_since(self._version)
            self._version = attributes.version
            self._ids = self._ids[~np.isin(self._ids, changed)]
            codes = attributes.codes("key")[changed]
            texts = attributes.texts("key")
            mine = [code >= 0 and texts[code] == self._key for code in codes.tolist()]
            self._ids = (
                np.union1d(self._ids, changed[np.array(mine, np.bool_)]) if len(changed) else self._ids
            )
        found: Bools = np.isin(numbers(rows, "series", np.uint32), self._ids)
        return found
