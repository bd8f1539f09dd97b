"""What a replay has to write: the rows that make of a stream as it is one as it is to be.

Everything here is tables in, tables out. Which rows are one and the same is told by their key (`key_columns`), or where a
stream is a list of things that happened (`missing`) by all that they say.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.model.quality import Quality


class Differing(msgspec.Struct):
    """How many rows of a stream a replay found other than before. `kept`: they would no longer be, and stay."""

    changed: int = 0
    added: int = 0
    taken_back: int = 0
    kept: int = 0

    def __str__(self) -> str:
        kept = f", {self.kept} kept that would no longer be" if self.kept else ""
        return f"{self.changed} changed, {self.added} added, {self.taken_back} taken back{kept}"


def time_column(schema: pa.Schema) -> str | None:
    """The column of event time by which rows are compared; None: there is none."""
    return next((name for name in ("start", "time") if name in schema.names), None)


def corrections(old: pa.Table, new: pa.Table, differing: Differing) -> pa.Table:
    """The rows that make of the old ones the new ones, in order of time; counted in `differing`."""
    schema = new.schema
    keys = key_columns(schema)
    values = [name for name in schema.names if name not in (*keys, "revision")]
    group = _groups(pa.concat_tables([old, new]), keys)
    old_at, new_at = _last(group[: len(old)]), _last(group[len(old) :])
    common, in_old, in_new = np.intersect1d(
        group[: len(old)][old_at], group[len(old) :][new_at], assume_unique=True, return_indices=True
    )
    before, after = old.take(pa.array(old_at[in_old])), new.take(pa.array(new_at[in_new]))
    differs = np.zeros(len(common), np.bool_)
    for name in values:
        differs |= ~_same(before.column(name), after.column(name))
    gone = old.take(pa.array(old_at[np.setdiff1d(np.arange(len(old_at)), in_old)]))
    added = new.take(pa.array(new_at[np.setdiff1d(np.arange(len(new_at)), in_new)]))
    changed = after.filter(pa.array(differs))
    lost = _lost(gone, keys, values, differing)
    if "revision" in schema.names:
        changed = _revised(changed, before.filter(pa.array(differs)))
        added = _revised(added, None)
        lost = _revised(lost, lost)
    differing.changed += len(changed)
    differing.added += len(added)
    differing.taken_back += len(lost)
    order = [(name, "ascending") for name in ("start", "time", "series") if name in schema.names]
    return pa.concat_tables([changed, added, lost]).sort_by(order)


def missing(old: pa.Table, new: pa.Table, differing: Differing) -> pa.Table:
    """The new rows that are not among the old ones, as often as they are missing, in their order."""
    if not len(old) and not len(new):
        return new
    group = _groups(pa.concat_tables([old, new]), new.schema.names)
    size = int(group.max()) + 1
    had, has = np.bincount(group[: len(old)], minlength=size), np.bincount(group[len(old) :], minlength=size)
    of_new = group[len(old) :]
    order = np.argsort(of_new, kind="stable")
    first = np.concatenate(([0], np.cumsum(has)[:-1]))
    nth = np.empty(len(of_new), np.int64)
    nth[order] = np.arange(len(of_new)) - first[of_new[order]]
    found = new.filter(pa.array(nth >= had[of_new]))
    differing.added += len(found)
    differing.kept += int(np.maximum(had - has, 0).sum())
    return found


def as_rows(found: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """One batch of a stream's schema."""
    columns: list[Any] = []
    for column, field in zip(found.columns, schema, strict=True):
        whole = column.combine_chunks()
        columns.append(whole.cast(field.type) if pa.types.is_dictionary(field.type) else whole)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _lost(gone: pa.Table, keys: list[str], values: list[str], differing: Differing) -> pa.Table:
    """What takes back rows that would no longer be, where that can be said and was not said before."""
    if not len(gone) or "id" in keys:
        differing.kept += len(gone)
        return gone.slice(0, 0)
    lost = _taken_back(gone, values)
    still = _not_taken_back(gone, lost, values)
    if not any(_can_be_taken_back(gone.schema.field(name)) for name in values):
        differing.kept += len(gone)
    return lost.filter(pa.array(still))


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


def _can_be_taken_back(field: pa.Field) -> bool:
    """Whether a row can say that it has no value there."""
    number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    return bool(field.nullable or number)


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
