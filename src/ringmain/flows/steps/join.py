"""The step `join`: rows of another stream, or of a file, beside those of the flow."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from ringmain.flows.grouping import By, Term, attributes_of, named_terms, resolved, terms_of
from ringmain.flows.join_step import Columns, FileJoin, StreamJoin, time_column
from ringmain.flows.ordering_settings import duration_errors, durations_told
from ringmain.flows.reference_data import VALID_FROM, VALID_TO, ReferenceData, reference_data
from ringmain.flows.step import (
    READINGS,
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    Step,
    StepSettings,
    Surroundings,
)
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.model.schemas import TIMESTAMP


class Versions(StrEnum):
    """Which of the rows of one key holds."""

    TIME = "time"
    NEWEST = "newest"


class ColumnType(StrEnum):
    """What a column of a stream holds."""

    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    SERIES = "series"


_ARROW = {
    ColumnType.TEXT: pa.string(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.TIMESTAMP: TIMESTAMP,
    ColumnType.SERIES: pa.uint32(),
}


class Unmatched(StrEnum):
    """What becomes of a row for which nothing is found."""

    NULL = "null"
    DROP = "drop"
    SIDE = "side"


class JoinSettings(StepSettings, frozen=True, kw_only=True, tag="join", rename={"with_": "with"}):
    """Adds columns of another stream (tariff, weather, topology), or of a file of reference data, to each row.

    As of its time: of the rows with the same key the newest whose time is not later than the row's. A row is joined
    with what is known when its instant ends, or waits for more (`wait`); it is not joined again when rows of the other
    stream come later than that (counted as `late_reference`).
    """

    with_: Annotated[str | None, msgspec.Meta(description="the other stream")] = None
    file: Annotated[
        str | None,
        msgspec.Meta(
            description="a CSV or Parquet file instead; its columns valid_from and valid_to, if there, tell when a row "
            "holds"
        ),
    ] = None
    on: Annotated[
        By,
        msgspec.Meta(
            description="what must be equal: an attribute of the series, a part of one, or a column (device, place[:2], "
            "external.NAME), or series. A table where the other side calls it otherwise: { meter = 'device' } for its "
            "column meter. Nothing: all rows are joined with the same ones"
        ),
    ] = ()
    columns: Annotated[
        tuple[str, ...] | dict[str, str] | None,
        msgspec.Meta(
            description="columns of the other side to add, or a table of new names: { temperature = 'value' }; all but "
            "keys and times by default"
        ),
    ] = None
    schema: Annotated[
        dict[str, ColumnType] | None,
        msgspec.Meta(
            description="the other stream's columns and their types (text, number, integer, bool, timestamp, series), where "
            "it is neither readings nor written by a flow of this file: { time = 'timestamp', price = 'number' }"
        ),
    ] = None
    time: Annotated[
        str | None,
        msgspec.Meta(
            description="column of the other stream that is its time: time, start or valid_from by default"
        ),
    ] = None
    versions: Annotated[
        Versions,
        msgspec.Meta(
            description="time (the newest row that is not later than the reading) or newest (the newest row in the log, "
            "whatever its time: a table of which each row replaces the one before with its key)"
        ),
    ] = Versions.TIME
    series: Annotated[
        str | None, msgspec.Meta(description="only rows of this series (key) of the other stream")
    ] = None
    tolerance: Annotated[
        str | None,
        msgspec.Meta(description="how much older than the row the other one may be; none: any age"),
    ] = None
    wait: Annotated[
        str,
        msgspec.Meta(
            description="hold a row back until the other stream has one of its key that is not older, but for no longer "
            "than this (log time)"
        ),
    ] = "0s"
    unmatched: Annotated[
        Unmatched,
        msgspec.Meta(
            description="a row for which nothing is found: null (no values), drop, side (to TO.unmatched)"
        ),
    ] = Unmatched.NULL
    keep: Annotated[
        str,
        msgspec.Meta(
            description="how far behind the newest reading rows of the other stream are kept for late ones"
        ),
    ] = "35d"

    @property
    def tolerance_ns(self) -> int | None:
        """See `tolerance`."""
        return None if self.tolerance is None else parse_duration(self.tolerance)

    @property
    def wait_ns(self) -> int:
        """See `wait`."""
        return parse_duration(self.wait)

    @property
    def keep_ns(self) -> int:
        """See `keep`."""
        return parse_duration(self.keep)

    @property
    def by_series(self) -> bool:
        """Whether the series is the key."""
        return tuple(self.on) == ("series",)

    def check(self) -> Findings:
        """Errors that the settings alone show."""
        errors = duration_errors(self, ("tolerance", "wait", "keep"))
        if (self.with_ is None) == (self.file is None):
            errors.append(("with", "expected either `with` (a stream) or `file`, found both or neither"))
        if self.file is not None:
            for key, default in (
                ("time", None),
                ("series", None),
                ("wait", "0s"),
                ("versions", Versions.TIME),
            ):
                if getattr(self, key) != default:
                    errors.append((key, f"expected no `{key}` with a file: it belongs to a stream"))
            if self.by_series:
                errors.append(("on", "a file knows no series: expected `key` or another attribute"))
        if not self.by_series:
            try:
                terms_of(self.on)
            except ValueError as error:
                errors.append(("on", str(error)))
        if self.versions is Versions.NEWEST:
            for key, default in (("tolerance", None), ("wait", "0s")):
                if getattr(self, key) != default:
                    errors.append(
                        (key, f'expected no `{key}` with versions = "newest": no time is looked at')
                    )
        return errors, []

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results; of a file its content, not its name."""
        told = durations_told(super().definition(around), ("tolerance", "wait", "keep"))
        if not self.by_series:
            told["on"] = named_terms(self.on)
        if self.file is not None:
            told["file"] = f"sha256:{hashlib.sha256((around.directory / self.file).read_bytes()).hexdigest()}"
        return told

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """The rows with more columns."""
        names = shape.schema.names
        if "time" not in names and "start" not in names:
            raise PlanError(
                "type", f"`join` goes by the column time or start, found rows of {', '.join(names)}"
            )
        terms = self._terms(shape)
        if self.file is not None:
            _, columns = self._file(around)
            needed: tuple[Term, ...] = terms
            late_safe = shape.late_safe
        else:
            others, columns = self._stream(around, terms)
            needed = (*terms, *others, *((Term("key", "key"),) if self.series is not None else ()))
            late_safe = False
        schema = columns.added_to(shape.schema)
        streams = {f"{around.to}.unmatched": shape} if self.unmatched is Unmatched.SIDE else {}
        kind = StreamKind.ROW if shape.kind is StreamKind.READING else shape.kind
        return Plan(
            shape.changed(kind=kind, schema=schema, late_safe=late_safe),
            streams=streams,
            attributes=attributes_of(needed),
            reads=() if self.with_ is None else (self.with_,),
        )

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        terms = self._terms(shape)
        around = context.surroundings
        if self.file is not None:
            data, columns = self._file(around)
            return FileJoin(self, terms, data, columns, columns.added_to(shape.schema), context)
        others, columns = self._stream(around, terms)
        return StreamJoin(self, terms, others, columns, columns.added_to(shape.schema), context)

    def _terms(self, shape: Shape) -> tuple[Term, ...]:
        if self.by_series:
            if "series" not in shape.schema.names:
                raise PlanError("on", f"rows have no series, they have {', '.join(shape.schema.names)}")
            return ()
        return resolved(terms_of(self.on), shape, "on")

    def _file(self, around: Surroundings) -> tuple[ReferenceData, Columns]:
        assert self.file is not None
        keys = tuple(term.name for term in terms_of(self.on))
        try:
            data = reference_data(around.directory / self.file, keys, around.zone)
        except (OSError, ValueError) as error:
            raise PlanError("file", str(error)) from error
        return data, self._columns(data.rows.schema, (*keys, VALID_FROM, VALID_TO), self.file)

    def _stream(self, around: Surroundings, terms: tuple[Term, ...]) -> tuple[tuple[Term, ...], Columns]:
        """Terms of the other side, and the columns of it that are added."""
        assert self.with_ is not None
        other = self._other(self.with_, around)
        names = other.schema.names
        if (self.by_series or self.series is not None) and "series" not in names:
            raise PlanError("on", f"{self.with_!r} has no series; it has {', '.join(names)}")
        plain = tuple(Term(term.name, term.name) for term in terms)
        others = resolved(plain, other, "on") if plain else ()
        timed = () if self.versions is Versions.NEWEST else (self._time(other.schema),)
        return others, self._columns(
            other.schema, ("series", *(term.name for term in others), *timed), self.with_
        )

    def _other(self, name: str, around: Surroundings) -> Shape:
        """What rows of the other stream look like: as known, as declared, or as readings."""
        declared = self.schema or {}
        known = READINGS if name == "readings" else around.schemas.get(name)
        if known is None:
            fields = [pa.field(column, _ARROW[kind]) for column, kind in declared.items()]
            return Shape(StreamKind.ROW, pa.schema(fields)) if fields else READINGS
        for column, kind in declared.items():
            if column not in known.schema.names:
                raise PlanError(
                    "schema", f"no column {column!r} in {name!r}; it has {', '.join(known.schema.names)}"
                )
            found = known.schema.field(column).type
            plain = found.value_type if pa.types.is_dictionary(found) else found
            if plain != _ARROW[kind]:
                raise PlanError(
                    "schema", f"column {column!r} of {name!r} is declared as {kind} and holds {found}"
                )
        return known

    def _time(self, schema: pa.Schema) -> str:
        try:
            return time_column(schema, self.time)
        except ValueError as error:
            raise PlanError("time", f"{self.with_!r}: {error}") from error

    def _columns(self, schema: pa.Schema, left_out: tuple[str, ...], where: str) -> Columns:
        names = [name for name in schema.names if name not in left_out]
        chosen = self.columns
        given = (
            dict(chosen)
            if isinstance(chosen, dict)
            else {name: name for name in (names if chosen is None else chosen)}
        )
        unknown = next((name for name in given.values() if name not in schema.names), None)
        if unknown is not None:
            raise PlanError(
                "columns", f"no column {unknown!r} in {where!r}; it has {', '.join(schema.names)}"
            )
        if not given:
            raise PlanError(
                "columns", f"{where!r} has no column to add but keys and times: name those that you want"
            )
        return Columns(tuple(given), pa.schema([schema.field(name) for name in given.values()]))
