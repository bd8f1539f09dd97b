"""What differs between the rows that a stream got and those that were expected of it.

Rows belong together when series, time (or start, or id) and revision are equal, the first with the first; where none of
these is named, the first row with the first. Of those that
do, the columns that the expectation names are compared: numbers up to the case's tolerance, everything else exactly.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows.cases.layout import CaseError
from ringmain.flows.cases.tables import Texts, cell_text, rfc3339

_KEYS = ("series", "group", "subject", "id", "time", "start", "revision")


class Kind(StrEnum):
    """How a row differs."""

    MISSING = "missing"
    UNEXPECTED = "unexpected"
    DIFFERENT = "different"
    ORDER = "out of order"


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not as expected. `key`: its columns that name it; `column`, `expected`, `found`: the first that differs."""

    kind: Kind
    stream: str
    key: str
    column: str = ""
    expected: str = ""
    found: str = ""


def expected_rows(texts: Texts, schema: pa.Schema, stream: str) -> pa.Table:
    """Expected rows in the types of the stream as people see it (`schema`: with key columns). Raises CaseError."""
    columns: dict[str, pa.Array] = {}
    for name in texts.rows.column_names:
        place = schema.get_field_index(name)
        if place < 0:
            raise CaseError(
                f"{texts.path}:1: stream {stream!r} has no column `{name}`; it has {', '.join(schema.names)}"
            )
        kind = schema.field(place).type
        columns[name] = texts.column(name, kind.value_type if pa.types.is_dictionary(kind) else kind)
    return pa.table(columns)


def compare(stream: str, found: pa.Table, expected: pa.Table, tolerance: float) -> list[Difference]:
    """How `found` differs from `expected`, in the order of the rows."""
    columns = expected.column_names
    keys = [name for name in _KEYS if name in columns]
    wanted = _rows(expected.select(columns))
    given = _rows(found.select(columns))
    places: dict[tuple[Any, ...], deque[int]] = defaultdict(deque)
    for place, row in enumerate(given):
        places[tuple(row[name] for name in keys)].append(place)
    differences: list[Difference] = []
    order: list[tuple[int, str]] = []
    for number, row in enumerate(wanted):
        key = tuple(row[name] for name in keys)
        if not places[key]:
            differences.append(Difference(Kind.MISSING, stream, _named(row, keys, number), *_rest(row, keys)))
            continue
        place = places[key].popleft()
        order.append((place, _named(row, keys, number)))
        other = given[place]
        differences += [
            Difference(
                Kind.DIFFERENT,
                stream,
                _named(row, keys, number),
                name,
                _shown(row[name]),
                _shown(other[name]),
            )
            for name in columns
            if not _same(row[name], other[name], tolerance)
        ]
    left = sorted(place for queue in places.values() for place in queue)
    for place in left:
        row = given[place]
        column, value = _rest(row, keys)
        differences.append(Difference(Kind.UNEXPECTED, stream, _named(row, keys, place), column, "", value))
    if not differences:
        differences += _disorder(stream, order)
    return differences


def _disorder(stream: str, order: Sequence[tuple[int, str]]) -> list[Difference]:
    for number, (place, name) in enumerate(order):
        if place != number:
            return [Difference(Kind.ORDER, stream, name, "", f"as row {number + 1}", f"as row {place + 1}")]
    return []


def _rest(row: dict[str, Any], keys: Sequence[str]) -> tuple[str, str]:
    """The first column that is no key, and what it says."""
    for name, value in row.items():
        if name not in keys and name != "arrived":
            return name, _shown(value)
    return "", ""


def _named(row: dict[str, Any], keys: Sequence[str], place: int) -> str:
    return " ".join(_shown(row[name]) for name in keys if row[name] is not None) or f"row {place + 1}"


def _shown(value: Any) -> str:
    return "—" if value is None else cell_text(value)


def _same(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        return expected == found or math.isclose(expected, found, rel_tol=tolerance, abs_tol=0.0)
    return bool(expected == found)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    columns = [
        (rfc3339(column) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def first_change(one: pa.Table, other: pa.Table) -> str | None:
    """Where two outputs of the same flow differ, to the last bit; None: nowhere."""
    if one.num_rows != other.num_rows:
        return f"{one.num_rows} rows, and {other.num_rows}"
    for name in one.column_names:
        left, right = _bits(one.column(name)), _bits(other.column(name))
        places = np.flatnonzero(np.asarray(pc.fill_null(pc.not_equal(left, right), False)))
        missing = np.flatnonzero(np.asarray(pc.not_equal(left.is_null(), right.is_null())))
        both = np.union1d(places, missing)
        if len(both):
            place = int(both[0])
            was, now = (_rows(table.select([name]).slice(place, 1))[0][name] for table in (one, other))
            return f"row {place + 1}, column `{name}`: {_shown(was)}, and {_shown(now)}"
    return None


def _bits(column: pa.ChunkedArray) -> pa.Array:
    """Values that are equal only where every bit is."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        valid = array.is_valid()
        bits = pa.array(array.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.int64))
        return pc.if_else(valid, bits, pa.scalar(None, pa.int64()))
    return array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
