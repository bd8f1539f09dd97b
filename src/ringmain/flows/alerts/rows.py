"""What an alert looks at: readings as they are, and rows of windows and groups as if they were readings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ringmain.flows.alerts.names import CatalogueNames, GroupNames, Names
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, numbers, readings_block
from ringmain.flows.step import PlanError, Shape, StepState
from ringmain.model.schemas import TIMESTAMP


@dataclass(frozen=True, slots=True)
class RowForm:
    """Where rows of a shape have what an alert looks at. `groups`: the text columns that name a row without series."""

    time: str
    value: str
    of_series: bool
    groups: tuple[str, ...] = ()
    plain: bool = False
    """They are readings already."""


def row_form(shape: Shape, value: str | None) -> RowForm:
    """How rows of a shape are looked at; `value`: the column that a configuration names. Raises PlanError."""
    schema = shape.schema
    of_series = "series" in schema.names and schema.field("series").type == pa.uint32()
    if shape.readings and value in (None, "value"):
        return RowForm("time", "value", of_series=True, plain=True)
    time = next(
        (n for n in ("time", "start") if n in schema.names and schema.field(n).type == TIMESTAMP), None
    )
    groups = () if of_series else tuple(field.name for field in schema if _is_text(field.type))
    if time is None:
        raise PlanError(
            "type",
            "`alert` works on readings, and on rows of windows and groups (time or start), found rows of "
            + ", ".join(schema.names),
        )
    name = value or "value"
    numeric = [field.name for field in schema if _is_number(field.type) and field.name != "series"]
    if name not in numeric:
        raise PlanError("value", f"expected the column to watch, one of {', '.join(numeric)}, found {name!r}")
    return RowForm(time, name, of_series, groups)


class AlertRows:
    """Makes readings of blocks, and knows what their rows are called."""

    def __init__(self, form: RowForm, attributes: Attributes) -> None:
        self._form = form
        self._groups = None if form.of_series else GroupNames(form.groups)
        self.names: Names = self._groups or CatalogueNames(attributes)

    def readings(self, block: Block) -> Block:
        """The block as readings; a row without value is a reading without."""
        form = self._form
        if form.plain:
            return block
        rows = block.rows
        series = block.series if self._groups is None else self._groups.numbers(rows)
        value = rows.column(form.value).cast(pa.float64()).fill_null(np.nan).to_numpy()
        plain = "quality" in rows.schema.names and rows.schema.field("quality").type == pa.uint16()
        quality = block.quality if plain else np.zeros(len(block), np.uint16)
        return readings_block(
            series, numbers(rows, form.time, np.int64), value, quality, block.arrival_ns, block.stream
        )

    def state(self) -> StepState:
        """Everything remembered."""
        return {} if self._groups is None else self._groups.state()

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        if self._groups is not None:
            self._groups.restore(state)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
