"""`derive`: columns computed from the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block, arrow
from ringmain.flows.conditions import expression, settled_text, settled_zone, syntax_errors, unit_warnings
from ringmain.flows.conversions import with_unit
from ringmain.flows.expression import Evaluator, Expression
from ringmain.flows.expression_values import Column, Kind
from ringmain.flows.step import (
    Context,
    Findings,
    Plan,
    PlanError,
    Shape,
    Stateless,
    Step,
    StepSettings,
    Surroundings,
)
from ringmain.log.interface import StreamKind
from ringmain.model.quality import ORIGIN_MASK, Quality
from ringmain.model.schemas import READING, TIMESTAMP
from ringmain.model.units import canonical_unit

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TYPES = {
    Kind.BOOLEAN: pa.bool_(), Kind.INTEGER: pa.int64(), Kind.NUMBER: pa.float64(), Kind.TEXT: pa.string(),
    Kind.TIME: TIMESTAMP,
}  # fmt: skip
_COLUMNS_MAX = 64


class DeriveSettings(StepSettings, frozen=True, tag="derive"):
    """Computes columns from those that a row has: new ones, or another `value`, `quality` or column in place.

    All expressions see the row as it came in. Without a result (NULL) a new column is null, a value is NaN (no value),
    and a quality stays as it was. A value that is replaced counts as calculated where it was measured, unless `quality`
    says otherwise.
    """

    columns: Annotated[
        dict[str, str],
        msgspec.Meta(
            description="expressions by the name of the column, such as { area = 'place_level(1)' }"
        ),
    ] = msgspec.field(default_factory=dict)
    value: Annotated[
        str | None, msgspec.Meta(description="an expression for another value, such as value * 2")
    ] = None
    quality: Annotated[
        str | None,
        msgspec.Meta(
            description="an expression for another quality, such as "
            "case when value > 400 then marked('questionable') else quality end"
        ),
    ] = None
    unit: Annotated[
        str | None,
        msgspec.Meta(description="the unit of the new value; without it the value stays in its unit"),
    ] = None

    def check(self) -> Findings:
        """What is wrong with names and the text of expressions."""
        errors = syntax_errors(self._texts())
        for name in self.columns:
            if not _NAME.fullmatch(name) or name in ("series", "arrived", "value", "quality"):
                errors.append(
                    (
                        f"columns.{name}",
                        "expected a name of letters, digits and `_` that is none of series and arrived (value and "
                        f"quality are settings of their own), found {name!r}",
                    )
                )
        if not self.columns and self.value is None and self.quality is None and self.unit is None:
            errors.append(("type", "expected `columns`, `value`, `quality` or `unit`, found none of them"))
        if len(self.columns) > _COLUMNS_MAX:
            errors.append(("columns", f"expected at most {_COLUMNS_MAX} columns, found {len(self.columns)}"))
        if self.unit is not None:
            try:
                canonical_unit(self.unit)
            except ValueError as error:
                errors.append(("unit", str(error)))
        return errors, unit_warnings(self._texts())

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """The expressions (columns in their order), and the zone if one looks at local time."""
        texts = dict(self._texts())
        return {
            **{key: settled_text(texts[key]) for key in ("value", "quality") if key in texts},
            "columns": [[name, settled_text(text)] for name, text in self.columns.items()],
            "unit": self.unit,
            **settled_zone(around, *texts.values()),
        }

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """The rows with their new columns at the end."""
        compiled = list(self._compiled(shape, around))
        attributes = frozenset(name for one in compiled for name in one.expression.attributes)
        return Plan(self._shape(shape, compiled), attributes=attributes)

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        compiled = list(self._compiled(shape, context.surroundings))
        unit = None if self.unit is None else canonical_unit(self.unit)
        return Derive(compiled, self._shape(shape, compiled).schema, context, unit)

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Each expression with the setting that it stands in, in order of its evaluation."""
        if self.value is not None:
            yield "value", self.value
        if self.quality is not None:
            yield "quality", self.quality
        for name, text in self.columns.items():
            yield f"columns.{name}", text

    def _compiled(self, shape: Shape, around: Surroundings) -> Iterator[Derived]:
        for key, text in self._texts():
            name = key.removeprefix("columns.")
            if name in ("value", "quality"):
                kind = Kind.NUMBER if name == "value" else Kind.INTEGER
                wanted = pa.float64() if name == "value" else pa.uint16()
                if name not in shape.schema.names or shape.schema.field(name).type != wanted:
                    raise PlanError(key, f"the rows have no {name} to replace; use `columns`")
                yield Derived(name, expression(key, text, shape, around, kind), key == "value")
                continue
            compiled = expression(key, text, shape, around)
            if compiled.kind not in _TYPES:
                hint = "write epoch(...)" if compiled.kind is Kind.SPAN else "write cast(NULL as ...)"
                raise PlanError(key, f"a column cannot hold {compiled.kind.value}; {hint}")
            if name == "time" and compiled.kind is not Kind.TIME:
                raise PlanError(key, f"expected an expression that gives a time, found {compiled.kind.value}")
            yield Derived(name, compiled)

    def _shape(self, shape: Shape, compiled: list[Derived]) -> Shape:
        schema = shape.schema
        for one in compiled:
            if one.name in ("value", "quality"):
                continue
            field = pa.field(one.name, _TYPES[one.expression.kind], nullable=one.name != "time")
            place = schema.get_field_index(one.name)
            schema = schema.append(field) if place < 0 else schema.set(place, field)
        kind = shape.kind
        if kind is not StreamKind.ROW and not schema.equals(shape.schema):
            kind = StreamKind.READING if schema.equals(READING) else StreamKind.ROW
        changed = shape.changed(kind=kind, schema=schema)
        if "time" in self.columns:
            changed = changed.changed(late_safe=False)
        return changed if self.unit is None else changed.changed(unit=canonical_unit(self.unit))


@dataclass(frozen=True, slots=True)
class Derived:
    """A column and its expression. `calculated`: it makes measured readings calculated ones."""

    name: str
    expression: Expression
    calculated: bool = False


class Derive(Stateless):
    """See `DeriveSettings`. Counts `no_value` (values lost), `bad_quality` and `no_time` (rows lost)."""

    def __init__(
        self, derived: list[Derived], schema: pa.Schema, context: Context, unit: str | None = None
    ) -> None:
        self._derived: list[tuple[Derived, Evaluator]] = [
            (one, one.expression.evaluator(context.attributes)) for one in derived
        ]
        self._schema = schema
        self._context = context
        names = [one.name for one in derived]
        self._unit = unit if "unit" in schema.names and "unit" not in names else None
        self._calculated = "value" in names and "quality" not in names and "quality" in schema.names

    def take(self, block: Block) -> Sequence[Block]:
        """The rows with their columns."""
        made = {one.name: evaluator.column(block) for one, evaluator in self._derived}
        columns = dict(zip(block.rows.schema.names, block.rows.columns, strict=True))
        for name, column in made.items():
            if name == "value":
                columns[name] = self._value(block, column)
            elif name == "quality":
                columns[name] = self._quality(block, column)
            else:
                columns[name] = _array(column, self._schema.field(name).type)
        if self._unit is not None:
            columns["unit"] = with_unit(block, self._unit).rows.column("unit")
        if self._calculated:
            columns["quality"] = _calculated(block)
        timeless = made["time"].null if "time" in made else None
        if timeless is not None and timeless.any():
            self._context.count("no_time", int(timeless.sum()))
            kept = pa.array(~timeless)
            columns = {name: column.filter(kept) for name, column in columns.items()}
        rows = pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)
        return (Block(rows, block.arrival_ns),) if rows.num_rows else ()

    def _value(self, block: Block, column: Column) -> pa.Array:
        data = column.data
        if column.null is not None:
            self._context.count("no_value", int((column.null & ~np.isnan(block.value)).sum()))
            data = np.where(column.null, np.nan, data)
        return pa.array(np.ascontiguousarray(data, np.float64))

    def _quality(self, block: Block, column: Column) -> pa.Array:
        bad = (column.data < 0) | (column.data > 0xFFFF)
        if column.null is not None:
            bad = bad | column.null
        if bad.any():
            self._context.count("bad_quality", int(bad.sum()))
        return pa.array(np.where(bad, block.quality, column.data).astype(np.uint16))


def _calculated(block: Block) -> pa.Array:
    """Measured becomes calculated; substituted and estimated say more, and stay."""
    quality = block.quality
    measured = (quality & np.uint16(ORIGIN_MASK)) == 0
    return pa.array(np.where(measured, quality | np.uint16(Quality.CALCULATED), quality).astype(np.uint16))


def _array(column: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(column.data, pa.Array):
        return column.data
    if pa.types.is_timestamp(kind):
        whole = arrow(column.data, kind)
        if column.null is None or not column.null.any():
            return whole
        return pa.array(column.data, pa.int64(), mask=np.ascontiguousarray(column.null)).view(kind)
    mask = None if column.null is None else np.ascontiguousarray(column.null)
    return pa.array(np.ascontiguousarray(column.data), kind, mask=mask)
