"""`sql`: a SELECT over the rows of each window of the flow.

Rows are gathered by event time; a window is worked on once the flow's watermark is `grace` past its end, or every series
has been silent for `idle` (`flow_watermark.py`). What the query may do is decided in `window_query.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.at_work import AtWork, ProcessDiedError
from ringmain.flows.attributes import ATTRIBUTES
from ringmain.flows.block import Block, Bools, Ints, arrow, numbers
from ringmain.flows.flow_watermark import FlowWatermark
from ringmain.flows.instant_rows import AttributeColumns, ipc_batches, ipc_bytes, together
from ringmain.flows.later import Later
from ringmain.flows.ordering_rows import late_rows
from ringmain.flows.ordering_settings import LATE_SHAPE, Lateness, late_stream
from ringmain.flows.readings import EARLIEST_NS, INVALID_BIT, SERIES_MAX
from ringmain.flows.state import NEVER
from ringmain.flows.step import (
    Context,
    Findings,
    PartFailedError,
    Plan,
    PlanError,
    Shape,
    StepSettings,
    StepState,
    Surroundings,
)
from ringmain.flows.window_query import CheckedQuery, QueryError, QueryTimeoutError, WindowQuery, checked
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.model.schemas import READING, TIMESTAMP

HELD_ROWS_MAX = 4_000_000
"""Rows of open windows; with more of them the oldest window is closed (counted as `crowded`)."""
LATE_REASON = "the window of this time was closed"
_MEMORY_MIN_MIB, _MEMORY_MAX_MIB = 32, 16_384
_WINDOW_MIN_NS, _WINDOW_MAX_NS = 1_000_000, 366 * 86_400_000_000_000
_LIMIT_MIN_NS, _LIMIT_MAX_NS = 10_000_000, 86_400_000_000_000
GIVEN_UP = "the query did not come to its end, as often as it was tried"
_OWN = pa.schema([pa.field("start", TIMESTAMP, nullable=False), pa.field("end", TIMESTAMP, nullable=False)])
FAILED = pa.schema(
    [*_OWN, pa.field("rows", pa.int64(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)
"""A window whose query failed: how many rows it had, and why."""


class SqlSettings(StepSettings, frozen=True, kw_only=True, tag="sql"):
    """A SELECT over the rows of each window, in DuckDB's dialect.

    The table `rows` has the window's readings, in order of time and series: series (id), key, time, value (null where it is
    invalid), quality, and the attributes that are asked for. The rows of the result go on with `start` and `end` of the
    window before them; without an ORDER BY they are ordered by all their columns. Of repeats of a series and time the
    newest counts.

    A window closes once the slowest series that still sends is `grace` past its end, or all are silent for `idle`. The
    query runs in one thread, reaches no files and no network, and may not use functions that depend on anything but their
    arguments (`now`, `random` ...). A window whose query fails is a row in the stream `TO.failed`; one whose query runs
    longer than `time_limit` is tried again first, and becomes a dead letter besides.
    """

    query: Annotated[str, msgspec.Meta(description="the SELECT; its table is `rows`")]
    window: Annotated[
        str, msgspec.Meta(description="length of a window, aligned to the UTC epoch, e.g. 1m, 15m, 1h")
    ] = "1m"
    attributes: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="columns of the catalogue that `rows` gets besides key: unit, quantity, medium, device, place, "
            "owner, source, external"
        ),
    ] = ()
    grace: Annotated[
        str,
        msgspec.Meta(description="how far the slowest series must be past a window's end to close it"),
    ] = "10s"
    idle: Annotated[
        str | None,
        msgspec.Meta(
            description="a series that was silent for so long holds no window open; by default the window's length, at "
            "least 30s"
        ),
    ] = None
    late: Annotated[
        Lateness,
        msgspec.Meta(
            description="a reading whose window is closed: side (to the stream TO.late) or drop (counted)"
        ),
    ] = Lateness.SIDE
    memory_mib: Annotated[
        int,
        msgspec.Meta(description="MiB that the query may use", ge=_MEMORY_MIN_MIB, le=_MEMORY_MAX_MIB),
    ] = 256
    time_limit: Annotated[
        str,
        msgspec.Meta(
            description="how long the query may run over one window; one that is stopped is tried again, and given up "
            "after as many tries as a batch has"
        ),
    ] = "60s"

    @property
    def window_ns(self) -> int:
        """Length of a window."""
        return parse_duration(self.window)

    @property
    def grace_ns(self) -> int:
        """See `grace`."""
        return parse_duration(self.grace)

    @property
    def idle_ns(self) -> int:
        """See `idle`."""
        return max(self.window_ns, 30_000_000_000) if self.idle is None else parse_duration(self.idle)

    @property
    def time_limit_s(self) -> float:
        """See `time_limit`."""
        return parse_duration(self.time_limit) / 1e9

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """All but the time limit, which decides no result: what was given up is kept with the flow's position."""
        told = super().definition(around)
        told.pop("time_limit")
        return told

    def check(self) -> Findings:
        """Durations and names."""
        errors: list[tuple[str, str]] = []
        for key in ("window", "grace", "idle", "time_limit"):
            text = getattr(self, key)
            try:
                length = 1 if text is None else parse_duration(text)
            except ValueError as error:
                errors.append((key, str(error)))
                continue
            if key == "window" and not _WINDOW_MIN_NS <= length <= _WINDOW_MAX_NS:
                errors.append((key, f"expected 1ms to 366d, found {text}"))
            if key == "idle" and length <= 0:
                errors.append((key, f"expected more than 0s, found {text}"))
            if key == "time_limit" and not _LIMIT_MIN_NS <= length <= _LIMIT_MAX_NS:
                errors.append((key, f"expected 10ms to 1d, found {text}"))
        errors += [
            ("attributes", f"expected columns of the catalogue ({', '.join(ATTRIBUTES)}), found {name!r}")
            for name in self.attributes
            if name not in ATTRIBUTES
        ]
        if len(set(self.attributes)) != len(self.attributes):
            errors.append(("attributes", f"expected each once, found {', '.join(self.attributes)}"))
        return errors, []

    @property
    def named(self) -> tuple[str, ...]:
        """The attributes that `rows` has."""
        return ("key", *(name for name in self.attributes if name != "key"))

    def rows_schema(self) -> pa.Schema:
        """The columns of `rows`."""
        texts = [pa.field(name, pa.string()) for name in self.named]
        return pa.schema(
            [
                pa.field("series", pa.uint32()),
                texts[0],
                pa.field("time", pa.timestamp("us", tz="UTC")),
                pa.field("value", pa.float64()),
                pa.field("quality", pa.uint16()),
                *texts[1:],
            ]
        )

    def checked(self) -> CheckedQuery:
        """The query. Raises QueryError, ImportError."""
        return checked(self.query, self.rows_schema())

    def output(self) -> pa.Schema:
        """The columns of the step. Raises PlanError."""
        try:
            found = self.checked().schema
        except ImportError:
            raise PlanError("type", "sql needs DuckDB: pip install 'ringmain[serve]'") from None
        except QueryError as error:
            raise PlanError("query", str(error)) from None
        own = [name for name in found.names if name in _OWN.names]
        if own:
            raise PlanError(
                "query", f"the rows have `{own[0]}` of the window already: give the column another name"
            )
        if "series" in found.names and found.field("series").type != pa.uint32():
            raise PlanError(
                "query",
                f"`series` is the id of a series (uint32), found {found.field('series').type}: "
                "select the column of `rows`, or give yours another name",
            )
        return pa.schema([*_OWN, *found])

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows of the query's columns."""
        shape.need_readings("sql")
        streams = {f"{around.to}.failed": Shape(StreamKind.ROW, FAILED)}
        if self.late is Lateness.SIDE:
            streams[late_stream(around)] = LATE_SHAPE
        return Plan(
            Shape(StreamKind.ROW, self.output(), late_safe=False),
            streams,
            attributes=frozenset(self.named),
        )

    def make(self, shape: Shape, context: Context) -> SqlStep:
        """The step."""
        return SqlStep(self, context)


class SqlStep:
    """Rows of open windows, and the query."""

    def __init__(self, settings: SqlSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._window_ns = settings.window_ns
        self._schema = settings.output()
        self._rows_schema = settings.rows_schema()
        self._query = WindowQuery(settings.checked(), settings.memory_mib << 20, settings.time_limit_s)
        self._query_hash = hashlib.sha256(settings.query.encode()).hexdigest()[:16]
        self._at_work = AtWork(context.surroundings.notes, f"sql-{self._query_hash[:8]}")
        self._columns = AttributeColumns(context.attributes, settings.named)
        self._watermark = FlowWatermark(settings.idle_ns)
        self._open: dict[int, list[pa.RecordBatch]] = {}
        self._held = 0
        self._closed = NEVER
        """Windows (by number) below are closed."""

    def take(self, block: Block) -> Sequence[Block]:
        """Put readings into their windows; late ones are set aside at once."""
        time, series = block.time, block.series
        ahead = time > block.arrival_ns + self._context.surroundings.max_ahead_ns
        unusable = (time < EARLIEST_NS) | (series >= SERIES_MAX)
        self._context.count("ahead", int((ahead & ~unusable).sum()))
        self._context.count("unusable", int(unusable.sum()))
        window = time // self._window_ns
        late = window < self._closed
        usable = ~(ahead | unusable)
        self._watermark.take(series[usable], time[usable], block.arrival_ns)
        self._gather(block, usable & ~late, window)
        return self._put_aside(block, usable & late)

    def _gather(self, block: Block, mask: Bools, window: Ints) -> None:
        if not mask.any():
            return
        whole = bool(mask.all())
        numbers_of = window if whole else window[mask]
        rows = block.rows if whole else block.take(mask).rows
        if not rows.schema.equals(READING):
            rows = pa.RecordBatch.from_arrays([rows.column(name) for name in READING.names], schema=READING)
        self._held += rows.num_rows
        for number in np.unique(numbers_of).tolist():
            mine = numbers_of == number
            part = rows if bool(mine.all()) else rows.filter(pa.array(mine))
            self._open.setdefault(number, []).append(part)

    def _put_aside(self, block: Block, late: Bools) -> Sequence[Block]:
        count = int(late.sum())
        self._context.count("late", count)
        if not count or self._settings.late is Lateness.DROP:
            return ()
        arrival = np.full(count, block.arrival_ns, np.int64)
        return (late_rows(block.take(late), arrival, LATE_REASON, late_stream(self._context.surroundings)),)

    def advance(self, now_ns: int) -> Sequence[Block]:
        """Work on the windows that the watermark has passed."""
        if not self._open:
            return ()
        silent = self._watermark.advance(now_ns)
        reached = (self._watermark.value_ns - self._settings.grace_ns) // self._window_ns
        due = sorted(number for number in self._open if silent or number < reached)
        left = sorted(set(self._open) - set(due))
        held = self._held - sum(batch.num_rows for number in due for batch in self._open[number])
        while held > HELD_ROWS_MAX and left:
            number = left.pop(0)
            held -= sum(batch.num_rows for batch in self._open[number])
            due.append(number)
            self._context.count("crowded", 1)
        self._closed = max(self._closed, reached, *(number + 1 for number in due), NEVER)
        self._held = held
        return [block for number in due for block in self._worked(number, now_ns)]

    def _worked(self, number: int, now_ns: int) -> list[Block]:
        rows = self._distinct(together(self._open.pop(number)))
        self._context.count("windows", 1)
        start = np.array([number * self._window_ns], np.int64)
        part = f"sql/{self._query_hash}/{number * self._window_ns}"
        if part in self._context.surroundings.given_up:
            return [self._failed(start, rows, GIVEN_UP, now_ns)]
        try:
            self._at_work.begin(part)
            found = self._query.run(self._table(rows))
        except ProcessDiedError as error:
            raise PartFailedError(part, str(error)) from error
        except QueryError as error:
            return [self._failed(start, rows, str(error), now_ns)]
        except QueryTimeoutError:
            raise PartFailedError(
                part,
                f"the query was stopped: it ran longer than {self._settings.time_limit} over the {rows.num_rows} rows "
                f"of the window from {arrow(start, TIMESTAMP).cast(pa.string())[0]}; make the query or its window "
                "smaller, or raise `time_limit`",
            ) from None
        finally:
            self._at_work.end()
        starts = np.repeat(start, found.num_rows)
        columns = [arrow(starts, TIMESTAMP), arrow(starts + self._window_ns, TIMESTAMP), *found.columns]
        return [Block(pa.RecordBatch.from_arrays(columns, schema=self._schema), now_ns)]

    def _failed(self, start: Ints, rows: pa.RecordBatch, reason: str, now_ns: int) -> Block:
        self._context.count("failed_queries", 1)
        columns = [
            arrow(start, TIMESTAMP),
            arrow(start + self._window_ns, TIMESTAMP),
            pa.array([rows.num_rows], pa.int64()),
            pa.array([reason]),
        ]
        told = pa.RecordBatch.from_arrays(columns, schema=FAILED)
        return Block(told, now_ns, f"{self._context.surroundings.to}.failed")

    def _distinct(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows in order of time and series, of repeats the newest."""
        series, time = numbers(rows, "series", np.uint32), numbers(rows, "time", np.int64)
        order = np.lexsort((series, time))
        sorted_series, sorted_time = series[order], time[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (sorted_series[1:] != sorted_series[:-1]) | (sorted_time[1:] != sorted_time[:-1])
        self._context.count("duplicates", len(order) - int(last.sum()))
        return rows.take(pa.array(order[last]))

    def _table(self, rows: pa.RecordBatch) -> pa.Table:
        """The table `rows`."""
        beside = self._columns.arrays(numbers(rows, "series", np.uint32))
        value, quality = numbers(rows, "value", np.float64), numbers(rows, "quality", np.uint16)
        invalid = np.isnan(value) | ((quality & INVALID_BIT) != 0)
        columns = {
            "series": rows.column("series"),
            "key": beside[0].dictionary_decode(),
            "time": pa.array(numbers(rows, "time", np.int64) // 1000).view(pa.timestamp("us", tz="UTC")),
            "value": pa.array(value, mask=invalid),
            "quality": rows.column("quality"),
            **{
                name: column.dictionary_decode()
                for name, column in zip(self._settings.named[1:], beside[1:], strict=True)
            },
        }
        return pa.table(columns, schema=self._rows_schema)

    def state(self) -> StepState:
        """Rows of open windows, and the watermark."""
        order = sorted(self._open)
        windows = [list(self._open[number]) for number in order]
        held = sum(batch.nbytes for batches in windows for batch in batches)
        return {
            "rows": Later(lambda: ipc_bytes(READING, [together(batches) for batches in windows]), held),
            "windows": np.array(order, np.int64),
            "closed": np.array([self._closed], np.int64),
            **self._watermark.state(),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        rows = state["rows"]
        assert isinstance(rows, bytes)
        windows = np.array(state["windows"], np.int64).tolist()
        self._open = {number: [batch] for number, batch in zip(windows, ipc_batches(rows), strict=True)}
        self._held = sum(batch.num_rows for batches in self._open.values() for batch in batches)
        self._closed = int(np.array(state["closed"], np.int64)[0])
        self._watermark.restore(state)
