"""`python`: a function of the user's, called with the rows of an instant and what it remembers.

The function is called once for each instant that has rows, in order of series and time, so that it does not matter how
rows were cut into frames. What it raises ends the batch there: tried again, then a dead letter (`runner.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows.at_work import AtWork
from ringmain.flows.attributes import ATTRIBUTES
from ringmain.flows.block import Block
from ringmain.flows.instant_rows import AttributeColumns, InstantRows, together, with_attributes
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    StepBrokenError,
    StepSettings,
    StepState,
    Surroundings,
)
from ringmain.flows.user_function import UserFunction, find_function
from ringmain.flows.user_state import (
    UserStateError,
    decode_state,
    encode_state,
    entries_of,
    is_plain,
    problem_of,
)
from ringmain.log.interface import StreamKind
from ringmain.model.schemas import READING, TIMESTAMP

COLUMN_TYPES: dict[str, pa.DataType] = {
    "series": pa.uint32(),
    "time": TIMESTAMP,
    "number": pa.float64(),
    "integer": pa.int64(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "quality": pa.uint16(),
}
_BATCH = pa.RecordBatch
CHECKED_AT_ONCE, CHECKED_EVERY = 64, 1024
"""A state of so few entries is checked after each call, a larger one less often, but after so many; and with every
snapshot."""


class PythonSettings(StepSettings, frozen=True, kw_only=True, tag="python"):
    """A function of your own, called with the rows of an instant and a dict that it remembers.

    `def step(rows: pa.RecordBatch, state: dict) -> pa.RecordBatch | None` gets the rows that arrived at one moment of log
    time, in order of series and time, and returns the rows that go on; `None` means none. What it puts into `state`, it
    finds there at the next call, after a restart as well: plain data and arrays of NumPy or Arrow. A third parameter
    `now_ns` gets log time. It may return `(rows, state)` too, with another dict. Times have nanoseconds, which `to_pylist()`
    refuses: leave them in their column, or take `rows["time"].cast("int64")`.

    The function must depend on nothing else: no clock, no randomness, no files that change. `ringmain test` runs it with
    other clocks and dice, and names it when its results differ. Its source is part of the flow's definition. An exception
    is tried again, then the batch becomes a dead letter with the traceback, and the flow goes on.
    """

    function: Annotated[
        str,
        msgspec.Meta(
            description="FILE.py:FUNCTION relative to the configuration file, MODULE:FUNCTION, or the name of an entry "
            "point of group `ringmain.steps`"
        ),
    ]
    attributes: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="columns of the catalogue that the rows get besides their own: key, unit, quantity, medium, "
            "device, place, owner, source, external"
        ),
    ] = ()
    columns: Annotated[
        dict[str, str] | None,
        msgspec.Meta(
            description="columns that come out, each with its type (series, time, number, integer, text, bool, quality), "
            "where they are not those that come in"
        ),
    ] = None

    def check(self) -> Findings:
        """Names and types."""
        errors = [
            ("attributes", f"expected columns of the catalogue ({', '.join(ATTRIBUTES)}), found {name!r}")
            for name in self.attributes
            if name not in ATTRIBUTES
        ]
        if len(set(self.attributes)) != len(self.attributes):
            errors.append(("attributes", f"expected each once, found {', '.join(self.attributes)}"))
        for name, kind in (self.columns or {}).items():
            if kind not in COLUMN_TYPES:
                errors.append(
                    ("columns", f"{name}: expected one of {', '.join(COLUMN_TYPES)}, found {kind!r}")
                )
            if kind == "series" and name != "series":
                errors.append(("columns", f"the column of series ids is called series, found {name!r}"))
        if self.columns is not None and not self.columns:
            errors.append(("columns", "expected at least one column, found none"))
        return errors, []

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """Rows as they came, or of the columns that are stated."""
        find_function(self.function, around.directory)
        taken = [name for name in self.attributes if name in shape.schema.names]
        if taken:
            raise PlanError("attributes", f"the rows have a column {taken[0]!r} already")
        if self.attributes and not _of_series(shape.schema):
            raise PlanError("attributes", "rows without series have no attributes")
        if not _of_series(shape.schema) and _of_series(self._shape(shape).schema):
            raise PlanError("columns", "rows without series cannot become rows of series")
        return Plan(self._shape(shape), attributes=frozenset(self.attributes))

    def _shape(self, shape: Shape) -> Shape:
        if self.columns is None:
            return shape.changed(late_safe=False)
        schema = pa.schema(
            [
                pa.field(name, COLUMN_TYPES[kind], nullable=name not in READING.names)
                for name, kind in self.columns.items()
            ]
        )
        kind = StreamKind.READING if schema.equals(READING) else StreamKind.ROW
        return Shape(kind, schema, shape.unit if "value" in schema.names else None, late_safe=False)

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """The settings, and a hash of the function's source."""
        return {
            **super().definition(around),
            "source_sha256": find_function(self.function, around.directory).source_hash,
        }

    def make(self, shape: Shape, context: Context) -> PythonStep:
        """The step; loads the function."""
        function = find_function(self.function, context.surroundings.directory)
        return PythonStep(self, function, shape, self._shape(shape).schema, context)


def _same(column: pa.Array, other: pa.Array) -> bool:
    """Whether two columns of one type, neither with nulls, are seen at once to hold the same: the same memory."""
    return (
        type(column) is type(other)
        and len(column) == len(other)
        and column.offset == other.offset
        and column.buffers()[1].address == other.buffers()[1].address
    )


def _of_series(schema: pa.Schema) -> bool:
    """Whether rows belong to series: totals have a column of that name too, which counts them."""
    return "series" in schema.names and schema.field("series").type == pa.uint32()


class PythonStep:
    """Calls the function."""

    def __init__(
        self,
        settings: PythonSettings,
        function: UserFunction,
        shape: Shape,
        schema: pa.Schema,
        context: Context,
    ) -> None:
        self.function = function
        self._call: Callable[..., Any] = function.load()
        self._with_now = function.parameters == 3
        self._rows = InstantRows(shape.schema)
        self._given = with_attributes(shape.schema, settings.attributes)
        self._beside = AttributeColumns(context.attributes, settings.attributes)
        self._added = frozenset(settings.attributes)
        self._schema = schema
        self._names: list[str] = schema.names
        self._fitting: tuple[list[str], list[int]] = (self._names, list(range(len(self._names))))
        """Names of columns that the function gave, in another order or more of them; where each of the step's is."""
        self._gives_series = _of_series(shape.schema) and _of_series(schema)
        self._series_out = self._names.index("series") if self._gives_series else -1
        self._required = [place for place, field in enumerate(schema) if not field.nullable]
        self._remembered: dict[str, Any] = {}
        self._context = context
        self._at_work = AtWork(context.surroundings.notes, f"{function.name}-{function.source_hash[:8]}")
        self._calls = self._checked = 0
        self._check_at = 1

    def take(self, block: Block) -> Sequence[Block]:
        """Collect the rows of the instant."""
        self._rows.take(block)
        return ()

    def advance(self, now_ns: int) -> Sequence[Block]:
        """Call the function with the rows of the instant that has ended."""
        released = self._rows.release()
        if released is None:
            return ()
        rows, arrival_ns, series = released
        if self._added:
            rows = self._beside.beside(rows, self._given)
        self._at_work.begin(self._context.position or "")
        try:
            given = (
                self._call(rows, self._remembered, arrival_ns)
                if self._with_now
                else self._call(rows, self._remembered)
            )
        except (SystemExit, GeneratorExit) as error:  # these would end the flow's thread without a word
            raise RuntimeError(f"{self.function.text} ended with {type(error).__name__}") from error
        finally:
            self._at_work.end()
        if type(given) is tuple and len(given) == 2:
            given, self._remembered = given
        self._calls += 1
        calls = self._calls
        if calls >= self._check_at:
            self._check(calls)
        out = self._returned(given, series)
        return () if out is None or not out.num_rows else (Block(out, now_ns),)

    def _returned(self, given: Any, series: pa.Array | None) -> pa.RecordBatch | None:
        """What the function gave for some rows, in the columns of the step. Raises TypeError, ValueError that tell."""
        if type(given) is not _BATCH:
            given = self._batch(given)
            if given is None:
                return None
        columns = given.columns
        names = given.schema.names
        if names != self._names:
            if names != self._fitting[0]:
                self._fitting = (names, self._places(names))
            columns = [columns[place] for place in self._fitting[1]]
        for place in self._required:
            if columns[place].null_count:
                raise ValueError(f"{self.function.text}: column {self._names[place]!r} must not hold nulls")
        try:
            out = pa.RecordBatch.from_arrays(columns, schema=self._schema)  # casts where types differ
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            self._tell_misfit(columns)
            raise
        if self._gives_series and (series is None or not _same(columns[self._series_out], series)):
            self._check_series(out)
        return out

    def _batch(self, given: Any) -> pa.RecordBatch | None:
        """What it gave, as a batch. Raises TypeError."""
        if isinstance(given, pa.Table):
            batches = given.combine_chunks().to_batches()
            return together(batches) if batches else None
        if given is not None and not isinstance(given, pa.RecordBatch):
            raise TypeError(
                f"{self.function.text}: expected a pyarrow RecordBatch, Table or None, found {type(given).__name__}"
            )
        return given

    def _check_series(self, out: pa.RecordBatch) -> None:
        highest = pc.max(out.column(self._series_out)).as_py()
        if highest is not None and highest >= self._rows.series_end:
            raise ValueError(
                f"{self.function.text}: expected ids of series that came in (below {self._rows.series_end}), "
                f"found {highest}"
            )

    def _places(self, names: list[str]) -> list[int]:
        """Where the columns of the step are among those that the function gave. Raises ValueError."""
        unknown = [name for name in names if name not in self._names and name not in self._added]
        missing = [name for name in self._names if name not in names]
        if unknown or missing:
            told = "; ".join(
                f"{what} {', '.join(found)}"
                for what, found in (("without", missing), ("with", unknown))
                if found
            )
            raise ValueError(
                f"{self.function.text}: expected columns {', '.join(self._names)}, found them {told}: "
                "say in `columns` what comes out"
            )
        return [names.index(name) for name in self._names]

    def _tell_misfit(self, columns: list[pa.Array]) -> None:
        """Raise ValueError if one of the columns cannot be of its field's type."""
        for column, field in zip(columns, self._schema, strict=True):
            try:
                column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(
                    f"{self.function.text}: column {field.name!r}: expected {field.type}, found {column.type}: {error}"
                ) from None

    def _check(self, calls: int) -> None:
        """Raise UserStateError if the last call left what cannot be kept, StepBrokenError if one before it did."""
        if calls % CHECKED_EVERY and is_plain(self._remembered):
            self._checked, self._check_at = calls, calls + 1
            return
        problem = problem_of(self._remembered)
        if problem is not None and self._checked < calls - 1:
            raise StepBrokenError(
                f"{self.function.text}: {problem}; it came with one of the last {calls - self._checked} calls"
            )
        if problem is not None:
            raise UserStateError(problem)
        if calls % CHECKED_EVERY == 0:
            self._encoded()
        self._checked = calls
        entries = entries_of(self._remembered)
        self._check_at = min(
            calls + 1 + entries // CHECKED_AT_ONCE, (calls // CHECKED_EVERY + 1) * CHECKED_EVERY
        )

    def _encoded(self) -> bytes:
        """The state as bytes. No batch is to blame for one that cannot be kept: it may have grown for long."""
        try:
            return encode_state(self._remembered)
        except UserStateError as error:
            raise StepBrokenError(f"{self.function.text}: {error}") from error

    def state(self) -> StepState:
        """What the function remembers, and rows of the instant. Raises StepBrokenError."""
        return {
            "remembered": self._encoded(),
            "calls": np.array([self._calls, self._rows.series_end], np.int64),
            **self._rows.state(),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        remembered, calls = state["remembered"], state["calls"]
        assert isinstance(remembered, bytes)
        assert isinstance(calls, np.ndarray)
        self._remembered = decode_state(remembered)
        self._calls, self._rows.series_end = int(calls[0]), int(calls[1])
        self._checked, self._check_at = self._calls, self._calls + 1
        self._rows.restore(state)
