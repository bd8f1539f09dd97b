"""Tables as readings: which column is what, series by key, values, quality; and rows that are no readings, with the reason.

Column by column. A series is looked up once for each different text in a block; the texts themselves stay in dictionaries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.model.catalogue import SeriesAttributes
from ringmain.runtime.contract import Columns
from ringmain.sources.file_settings import ATTRIBUTES, COLUMN, FileSettings, quality_of
from ringmain.sources.file_table import LayoutError, Rows
from ringmain.sources.file_times import Zone, casted, read_times
from ringmain.sources.mapping import Registry

_PLACE = re.compile(r"\{([^{}]+)\}")
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_SPECIAL = {"inf": np.inf, "-inf": -np.inf}
KNOWN_MAX = 1_000_000
"""Series whose ids are remembered; others are looked up with each block."""
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Read:
    """Readings of rows. `bad`: row -> reason. `rows` were looked at, `empty` of them hold no value."""

    columns: Columns
    bad: dict[int, str]
    rows: int
    empty: int


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows by what their series is told from. `of_row`: the group of each; `used`: the groups that there are, in order."""

    of_row: NDArray[Any]
    used: NDArray[np.int64]
    texts: list[tuple[str | None, ...]]
    """Of each used group."""


class Layout:
    """How the tables of one file become readings. Raises LayoutError for a file without the columns that are named."""

    def __init__(
        self,
        source: str,
        settings: FileSettings,
        registry: Registry,
        zone: Zone,
        names: Sequence[str] | None,
        units: Mapping[str, str],
    ) -> None:
        """`names`: columns of the file; None where rows have members of their own."""
        self._source = source
        self._settings = settings
        self._registry = registry
        self._zone = zone
        self._units = units
        self.texts = sorted(settings.places() | ({settings.quality} if settings.quality else set()))
        self.times = settings.time_columns
        known = None if names is None else set(names)
        named = {*self.texts, *self.times}
        values = settings.value_columns
        if values is None:
            if names is None:
                raise LayoutError(
                    "expected a list of members as `value`, found `*`: objects have members of their own"
                )
            values = tuple(name for name in names if name not in named)
        self.values = values
        missing = [
            name for name in (*self.texts, *self.times, *values) if known is not None and name not in known
        ]
        if missing:
            raise LayoutError(
                f"expected columns {', '.join(map(repr, missing))}, found {', '.join(map(repr, list(names or ())[:20]))}"
            )
        self._ids: dict[str, dict[tuple[str | None, ...], int]] = {}
        """By column of values: ids of series by the texts of `_places`."""
        self._known = 0
        self._words = {word: quality_of(meaning) for word, meaning in settings.qualities.items()}
        self._places = [name for name in _PLACE.findall(settings.series) if name != COLUMN]
        extra = [n for key in ATTRIBUTES for n in _PLACE.findall(getattr(settings, key) or "") if n != COLUMN]
        self._places = list(dict.fromkeys([*self._places, *extra]))

    def read(self, rows: Rows) -> Read:
        """The readings of some rows, in their order (and of a row in the order of the columns)."""
        table = rows.table.combine_chunks()
        count = table.num_rows
        if not count:
            return Read(_none(), {}, 0, 0)
        bad: dict[int, str] = {}
        parsed = read_times(self._time_column(table), self._settings.time_format)
        wrong = parsed.bad if parsed.bad is not None else np.zeros(count, np.bool_)
        for row in np.flatnonzero(wrong).tolist():
            bad[row] = (
                f"expected a time ({self._settings.time_format}), found {self._shown(table, self.times, row)}"
            )
        numbers = [self._numbers(table, name, bad, wrong) for name in self.values]
        quality = self._quality(table, bad, wrong)
        groups = self._groups(table)
        series = [self._series(groups, name, bad, wrong) for name in self.values]
        times = self._to_utc(parsed.ns, parsed.local, series[0], wrong, bad, table)
        width = len(self.values)
        there = [~np.isnan(values) & ~wrong for values in numbers]
        if width == 1:
            keep = there[0]
            empty = int(count - np.count_nonzero(keep | wrong))
            if keep.all():
                return Read(Columns(series[0], times, numbers[0], quality), bad, count, empty)
            columns = Columns(series[0][keep], times[keep], numbers[0][keep], quality[keep])
            return Read(columns, bad, count, empty)
        keep2 = np.column_stack(there)
        empty = int(count - np.count_nonzero(keep2.any(axis=1) | wrong))
        keep = keep2.ravel()
        columns = Columns(
            np.column_stack(series).ravel()[keep],
            np.repeat(times, width)[keep],
            np.column_stack(numbers).ravel()[keep],
            np.repeat(quality, width)[keep],
        )
        return Read(columns, bad, count, empty)

    # Columns

    def _time_column(self, table: pa.Table) -> pa.Array:
        if len(self.times) == 1:
            return _one(table.column(self.times[0]))
        parts = [_one(table.column(name)).cast(pa.string()) for name in self.times]
        return pc.binary_join_element_wise(*parts, " ")

    def _to_utc(
        self,
        ns: NDArray[np.int64],
        local: Bools | bool,
        series: NDArray[np.uint32],
        wrong: Bools,
        bad: dict[int, str],
        table: pa.Table,
    ) -> NDArray[np.int64]:
        if isinstance(local, np.ndarray):
            chosen = local & ~wrong
        elif local and wrong.any():
            chosen = ~wrong
        elif local:
            times, gone = self._zone.to_utc(ns, series)
            self._skipped(np.arange(len(ns)), gone, wrong, bad, table)
            return times
        else:
            return ns
        places = np.flatnonzero(chosen)
        result = ns.copy()
        result[places], gone = self._zone.to_utc(ns[places], series[places])
        self._skipped(places, gone, wrong, bad, table)
        return result

    def _skipped(
        self,
        places: NDArray[np.int64],
        gone: Bools | None,
        wrong: Bools,
        bad: dict[int, str],
        table: pa.Table,
    ) -> None:
        if gone is None:
            return
        for row in places[gone].tolist():
            wrong[row] = True
            shown = self._shown(table, self.times, row)
            bad[row] = (
                f"expected a time that the zone has, found {shown}, in the hour that is skipped in spring"
            )

    def _numbers(self, table: pa.Table, name: str, bad: dict[int, str], wrong: Bools) -> NDArray[np.float64]:
        column = _one(table.column(name))
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.dictionary_decode(), kind.value_type
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
            return values
        if pa.types.is_boolean(kind):
            flags: NDArray[np.float64] = (
                column.cast(pa.uint8()).cast(pa.float64()).fill_null(np.nan).to_numpy()
            )
            return flags
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            for row in np.flatnonzero(~wrong).tolist():
                bad[row] = f"expected a number in column {name!r}, found {kind}"
            wrong[:] = True
            return np.full(len(column), np.nan)
        return self._from_texts(column.cast(pa.string()), name, bad, wrong)

    def _from_texts(
        self, column: pa.StringArray, name: str, bad: dict[int, str], wrong: Bools
    ) -> NDArray[np.float64]:
        settings = self._settings
        texts = pc.utf8_trim_whitespace(column)
        if settings.thousands:
            texts = pc.replace_substring(texts, settings.thousands, "")
        if settings.decimal != ".":
            texts = pc.replace_substring(texts, settings.decimal, ".")
        missing = texts.is_null() if not texts.null_count else pc.is_null(texts)
        missing = pc.or_(missing, pc.is_in(texts, pa.array(list(settings.missing), pa.string()))).fill_null(
            True
        )
        match = pc.match_substring_regex(texts.fill_null(""), _NUMBER)
        special = pc.is_in(pc.utf8_lower(texts.fill_null("")), pa.array(list(_SPECIAL)))
        fine = pc.or_(match, special)
        kept = pc.if_else(pc.and_(fine, pc.invert(missing)), texts, None)
        numbers, _ = casted(kept, pa.float64())
        refused = pc.and_(pc.invert(fine), pc.invert(missing)).to_numpy(zero_copy_only=False) & ~wrong
        for row in np.flatnonzero(refused).tolist():
            bad[row] = f"expected a number in column {name!r}, found {str(column[row].as_py())[:40]!r}"
            wrong[row] = True
        values: NDArray[np.float64] = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
        return values

    def _quality(self, table: pa.Table, bad: dict[int, str], wrong: Bools) -> NDArray[np.uint16]:
        name = self._settings.quality
        if name is None:
            return np.zeros(table.num_rows, np.uint16)
        column = _one(table.column(name))
        if pa.types.is_integer(column.type):
            numbers = column.fill_null(0).cast(pa.int64(), safe=False).to_numpy()
            beyond = (numbers < 0) | (numbers > 0xFFFF)
            self._refuse(beyond, column, name, "bits from 0 to 65535", bad, wrong)
            return np.where(beyond, 0, numbers).astype(np.uint16)
        words = (
            column if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()
        )
        bits = [self._bits(word) for word in words.dictionary.to_pylist()]
        table_of = np.array([*(bit if bit is not None else 0 for bit in bits), 0], np.uint16)
        unknown = np.array([*(bit is None for bit in bits), False], np.bool_)
        places = words.indices.fill_null(len(bits)).to_numpy()
        if unknown.any():
            self._refuse(unknown[places], words, name, "bits or a word of `qualities`", bad, wrong)
        bits_of_rows: NDArray[np.uint16] = table_of[places]
        return bits_of_rows

    def _bits(self, word: str | None) -> int | None:
        if word is None or word in self._words:
            return self._words.get(word or "", 0)
        if word.isascii() and word.isdecimal() and int(word) <= 0xFFFF:
            return int(word)
        try:
            return quality_of(word)
        except ValueError:
            return None

    def _refuse(
        self, refused: Bools, column: pa.Array, name: str, expected: str, bad: dict[int, str], wrong: Bools
    ) -> None:
        for row in np.flatnonzero(refused & ~wrong).tolist():
            bad[row] = f"expected {expected} in column {name!r}, found {str(column[row].as_py())[:40]!r}"
            wrong[row] = True

    # Series

    def _groups(self, table: pa.Table) -> _Groups:
        """Which rows have the same texts in `_places`."""
        words = [_dictionary(_one(table.column(name))) for name in self._places]
        if not words:
            return _Groups(np.zeros(table.num_rows, np.int64), np.zeros(1, np.int64), [()])
        texts = [[*column.dictionary.to_pylist(), None] for column in words]
        codes = [
            (column.indices.fill_null(len(known) - 1) if column.null_count else column.indices).to_numpy()
            for column, known in zip(words, texts, strict=True)
        ]
        of_row, count = codes[0], len(texts[0])
        for more, known in zip(codes[1:], texts[1:], strict=True):
            of_row, count = _numbered(of_row.astype(np.int64) * len(known) + more, count * len(known))
        row = np.full(count, -1, np.int64)
        row[of_row] = np.arange(len(of_row))
        used = np.flatnonzero(row >= 0)
        columns = [
            [known[code] for code in more[row[used]].tolist()]
            for more, known in zip(codes, texts, strict=True)
        ]
        return _Groups(of_row, used, list(zip(*columns, strict=True)))

    def _series(self, groups: _Groups, value: str, bad: dict[int, str], wrong: Bools) -> NDArray[np.uint32]:
        known = self._ids.setdefault(value, {})
        found = list(map(known.get, groups.texts))
        problems: dict[int, str] = {}
        if None in found:
            for place, texts in enumerate(groups.texts):
                if found[place] is None:
                    told = self._id(value, texts)
                    if isinstance(told, str):
                        problems[int(groups.used[place])] = told
                    found[place] = 0 if isinstance(told, str) else told
        ids = np.zeros(int(groups.used[-1]) + 1, np.uint32)
        ids[groups.used] = np.array(found, np.uint32)
        if problems:
            refused = np.isin(groups.of_row, np.array(list(problems)))
            for row in np.flatnonzero(refused & ~wrong).tolist():
                bad[row] = problems[int(groups.of_row[row])]
                wrong[row] = True
        chosen: NDArray[np.uint32] = ids[groups.of_row]
        return chosen

    def _id(self, value: str, texts: tuple[str | None, ...]) -> int | str:
        """The id of the series of a column and the texts of `_places`; why there is none."""
        names: dict[str, Any] = {**dict(zip(self._places, texts, strict=True)), COLUMN: value}
        empty = next((name for name in _PLACE.findall(self._settings.series) if not names.get(name)), None)
        if empty is not None:
            return f"expected a text in column {empty!r}, for the key of the series, found none"
        key = _filled(self._settings.series, names)
        texts_of = {name: _filled(getattr(self._settings, name) or "", names) or None for name in ATTRIBUTES}
        attributes = SeriesAttributes(
            unit=texts_of["unit"] or self._units.get(value),
            quantity=texts_of["quantity"],
            medium=texts_of["medium"],
            device=texts_of["device"],
            place=texts_of["place"],
            owner=texts_of["owner"],
        )
        try:
            found = self._registry.register(self._source, key, attributes)
        except ValueError as error:
            return f"expected a key and attributes of a series, found: {error}"
        if found < 0:
            return "expected a known series: this source has as many as [catalogue] max_series allows"
        if self._known < KNOWN_MAX:
            self._known += 1
            self._ids.setdefault(value, {})[texts] = found
        return found

    def _shown(self, table: pa.Table, names: Sequence[str], row: int) -> str:
        return repr(" ".join(word_of(table.column(name)[row]) for name in names)[:60])


def word_of(value: pa.Scalar) -> str:
    """A value as text, whatever it is."""
    if not value.is_valid:
        return ""
    try:
        return str(value.cast(pa.string()).as_py())
    except pa.ArrowException:
        return f"a value of type {value.type}"


def _filled(template: str, names: Mapping[str, Any]) -> str:
    return _PLACE.sub(lambda found: str(names.get(found[1]) or ""), template)


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()


def _numbered(codes: NDArray[np.int64], span: int) -> tuple[NDArray[np.int64], int]:
    """Codes below `span` as numbers without gaps, in the same order, and how many there are."""
    if span > 4 * len(codes) + 65_536:
        used, numbers = np.unique(codes, return_inverse=True)
        return numbers, len(used)
    present = np.zeros(span, np.bool_)
    present[codes] = True
    number = np.cumsum(present) - 1
    return number[codes], int(number[-1]) + 1


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column


def _none() -> Columns:
    return Columns(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16))
