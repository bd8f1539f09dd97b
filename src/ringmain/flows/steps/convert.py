"""`convert`: brings values to one unit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, Bools, arrow, numbers
from ringmain.flows.conversions import Applied, Conversion, UnitTable, applied, conversion_of, with_unit
from ringmain.flows.expression_columns import kind_of
from ringmain.flows.expression_values import Kind
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
from ringmain.flows.totals import LATE
from ringmain.log.interface import StreamKind
from ringmain.model.quality import VALIDITY_MASK, Quality
from ringmain.model.schemas import TIMESTAMP
from ringmain.model.units import canonical_unit

UNCONVERTED = Shape(StreamKind.ROW, LATE)


class Mismatch(StrEnum):
    """What becomes of a row whose unit is unknown, or measures something else."""

    SIDE = "side"
    DROP = "drop"
    KEEP = "keep"


class ConvertSettings(StepSettings, frozen=True, tag="convert", rename={"from_": "from"}):
    """Brings values to one unit: from that of a step before, else of the row (a column `unit`), else of the series.

    Behind it every row has that unit: the flow's output names it in a column `unit`, and expressions see it as `unit`.
    A value whose unit is unknown or measures something else (m3 for kW) is counted and does what `mismatch` says.
    """

    unit: Annotated[str, msgspec.Meta(description="the unit to bring values to, such as kW")]
    from_: Annotated[
        str | None, msgspec.Meta(description="the unit of series for which the catalogue has none")
    ] = None
    columns: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="columns to convert, where rows are no readings; such as mean, min, max of windows"
        ),
    ] = ("value",)
    mismatch: Annotated[
        Mismatch,
        msgspec.Meta(
            description="a row that cannot be converted: side (to the stream TO.unconverted with the reason), drop (only "
            "counted) or keep (without a value, its quality invalid)"
        ),
    ] = Mismatch.SIDE

    def check(self) -> Findings:
        """Units that are none, or do not go together."""
        errors: list[tuple[str, str]] = []
        for key, unit in (("unit", self.unit), ("from", self.from_)):
            try:
                if unit is not None:
                    canonical_unit(unit)
            except ValueError as error:
                errors.append((key, str(error)))
        if not errors and self.from_ is not None:
            try:
                conversion_of(self.from_, self.unit)
            except (ValueError, RuntimeError) as error:
                errors.append(("from", str(error)))
        if not self.columns or len(set(self.columns)) < len(self.columns):
            errors.append(("columns", "expected one column or more, each once"))
        return errors, []

    def plan(self, shape: Shape, around: Surroundings) -> Plan:
        """The same rows, in one unit."""
        self._known(shape)
        for name in self.columns:
            found = shape.schema.field(name).type if name in shape.schema.names else None
            if found != pa.float64():
                told = "there is none of that name" if found is None else f"it holds {found}"
                raise PlanError(
                    "columns",
                    f"expected a column of numbers to convert, such as `columns = ['mean']`, found {name!r}: {told}; "
                    f"the rows have {', '.join(shape.schema.names)}",
                )
        of_series = "series" in shape.schema.names and shape.schema.field("series").type == pa.uint32()
        known = shape.unit is not None or _by_row(shape)
        if not known and not of_series:
            raise PlanError(
                "type", "`convert` takes the unit from the series, and these rows belong to no series"
            )
        attributes = frozenset() if known else frozenset({"unit"})
        side = shape.unit is None and self.mismatch is Mismatch.SIDE
        if side and not shape.readings:
            raise PlanError(
                "mismatch",
                'only readings can go aside; say mismatch = "drop" or "keep" for rows of '
                f"{', '.join(shape.schema.names)}",
            )
        streams = {f"{around.to}.unconverted": UNCONVERTED} if side else {}
        return Plan(shape.changed(unit=canonical_unit(self.unit)), streams=streams, attributes=attributes)

    def make(self, shape: Shape, context: Context) -> Step:
        """The step."""
        known = self._known(shape)
        return Convert(self, context, None if shape.unit is None else known, by_row=_by_row(shape))

    def _known(self, shape: Shape) -> Conversion:
        """The conversion that can be told now. Raises PlanError where units do not go together."""
        source = shape.unit if shape.unit is not None else self.from_
        try:
            conversion_of("W", "kW")  # without pint only a flow whose units are all equal could run
            return conversion_of(self.unit if source is None else source, self.unit)
        except (ValueError, RuntimeError) as error:
            raise PlanError("from" if shape.unit is None else "unit", str(error)) from error


def _by_row(shape: Shape) -> bool:
    """Whether rows tell their unit themselves: those of a stream that was written by a flow with a unit."""
    return "unit" in shape.schema.names and kind_of(shape.schema.field("unit").type) is Kind.TEXT


class Convert(Stateless):
    """See `ConvertSettings`. `known`: the one conversion of all rows; `by_row`: rows have a column `unit`.

    Counts `unconverted`.
    """

    def __init__(
        self, settings: ConvertSettings, context: Context, known: Conversion | None, *, by_row: bool = False
    ) -> None:
        self._columns = settings.columns
        self._mismatch = settings.mismatch
        self._context = context
        self._attributes: Attributes = context.attributes
        self._target = canonical_unit(settings.unit)
        self._side = f"{context.surroundings.to}.unconverted"
        self._by_row = by_row
        self._known = None if known is None else applied(known)
        self._table = (
            None if known is not None else UnitTable(settings.unit, settings.from_, context.attributes)
        )

    def take(self, block: Block) -> Sequence[Block]:
        """The rows in the unit; the same block where it had it."""
        how = self._how(block)
        if how.usable is None:
            return (self._converted(block, how),)
        self._context.count("unconverted", len(block) - int(how.usable.sum()))
        if self._mismatch is Mismatch.KEEP:
            return (self._emptied(self._converted(block, how), ~how.usable),)
        kept = self._converted(block, how).take(how.usable)
        if self._mismatch is Mismatch.DROP:
            return (kept,)
        return (kept, self._aside(block.take(~how.usable)))

    def _how(self, block: Block) -> Applied:
        if self._table is None:
            assert self._known is not None
            return self._known
        if self._by_row:
            return self._table.applied_to(block.rows.column("unit"))
        return self._table.applied(block.series)

    def _converted(self, block: Block, how: Applied) -> Block:
        if self._by_row:
            block = with_unit(block, self._target)
        if how.same:
            return block
        for name in self._columns:
            values = how.to(numbers(block.rows, name, np.float64))
            column = block.rows.column(name)
            if column.null_count:
                mask = column.is_null().to_numpy(zero_copy_only=False)
                block = block.with_column(name, pa.array(values, pa.float64(), mask=mask))
            else:
                block = block.with_column(name, values)
        return block

    def _emptied(self, block: Block, where: Bools) -> Block:
        """The rows without a value at these places."""
        schema = block.rows.schema
        for name in self._columns:
            column = block.rows.column(name)
            empty = np.where(where, np.nan, numbers(block.rows, name, np.float64))
            mask = None
            if schema.field(name).nullable:
                mask = where | column.is_null().to_numpy(zero_copy_only=False)
            block = block.with_column(name, pa.array(empty, pa.float64(), mask=mask))
        if "quality" in schema.names and schema.field("quality").type == pa.uint16():
            invalid = (block.quality & ~np.uint16(VALIDITY_MASK)) | np.uint16(Quality.INVALID)
            block = block.with_column("quality", np.where(where, invalid, block.quality).astype(np.uint16))
        return block

    def _aside(self, block: Block) -> Block:
        """Readings that could not be converted, with the reason."""
        if self._by_row:
            units = block.rows.column("unit").cast(pa.string())
        else:
            units = self._attributes.texts_of("unit", block.series.astype(np.int64))
        words = units.dictionary_encode()
        told = [f"unit {unit} is no unit like {self._target}" for unit in words.dictionary.to_pylist()]
        reasons = pa.array(told, pa.string()).take(words.indices).fill_null("it has no unit")
        columns = [block.rows.column(name) for name in ("series", "time", "value", "quality")]
        arrived = arrow(np.full(len(block), block.arrival_ns, np.int64), TIMESTAMP)
        rows = pa.RecordBatch.from_arrays([*columns, arrived, reasons], schema=LATE)
        return Block(rows, block.arrival_ns, self._side)
