"""Blocks of text as Arrow tables of the columns that are wanted, with the lines that are none.

Arrow parses a block as a whole, into the types that its columns should have; only where that fails are columns read as
texts, and told apart later (`file_layout.py`). Lines with too few or too many fields, or that are no JSON objects, are
taken out and told.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from ringmain.sources.file_blocks import KEPT_BYTES, BadLine, Block, TextFile
from ringmain.sources.file_settings import FileSettings

WORDS = pa.dictionary(pa.int32(), pa.string())
HEAD_LINES_MAX = 2_000
COLUMNS_MAX = 20_000
_NUMBERS = ("s", "ms", "us", "ns")


class LayoutError(Exception):
    """The file is not laid out as the settings say; the message says what was expected and found."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the first lines of a CSV file say: names of columns, their units, the separator, where rows begin."""

    names: tuple[str, ...]
    units: dict[str, str]
    separator: str
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a block: `places` are the lines of the block that they stand in (None: each line is a row)."""

    table: pa.Table
    places: list[int] | None


def read_head(path: Path, settings: FileSettings) -> Head:
    """The head of a CSV file. Raises LayoutError, UnreadableFileError, OSError."""
    file = TextFile(path, settings.encoding)
    try:
        block = next(iter(file.blocks(1 << 20)), None)
    finally:
        file.close()
    if block is None:
        raise LayoutError("expected lines of CSV, found an empty file")
    if b"\0" in block.data or (not block.data and block.bad):
        raise LayoutError(
            f"expected lines of text, found other data: {block.bad[0].reason if block.bad else 'NUL'}"
        )
    # lines as they lie in the file: those that are no text are counted as well
    lines = block.data.split(b"\n") if block.numbers is None else None
    separator = settings.separator
    at, line = 0, block.line
    kept: list[str] = []
    wanted = (0 if settings.columns is not None else 1) + settings.units_line
    if lines is None:
        lines = _raw_lines(block)
    skip = settings.skip_lines
    for number, raw in enumerate(lines[:HEAD_LINES_MAX]):
        text = raw.removesuffix(b"\r").decode("utf-8", "replace")
        told = number == 0 and text[:4].lower() == "sep=" and len(text) == 5
        if told:
            separator = text[4]
        elif len(kept) == wanted and skip <= 0:
            break
        elif skip > 0:
            skip -= 1
        elif text.strip() and not (settings.comment and text.startswith(settings.comment)):
            kept.append(text)
        at += len(raw) + 1
        line += 1
    wrong = next((bad for bad in block.bad if settings.skip_lines < bad.number < line), None)
    if wrong is not None:
        raise LayoutError(
            f"expected the lines before the first row to be text, found in line {wrong.number}: {wrong.reason}"
        )
    if len(kept) < wanted:
        raise LayoutError("expected a line with the names of the columns, found none")
    names = settings.columns
    if names is None:
        names = _fields(kept[0], separator)
    if len(names) > COLUMNS_MAX:
        raise LayoutError(f"expected at most {COLUMNS_MAX} columns, found {len(names)}")
    units: dict[str, str] = {}
    if settings.units_line:
        given = _fields(kept[-1], separator)
        units = {
            name: unit.strip(" []()") for name, unit in zip(names, given, strict=False) if unit.strip(" []()")
        }
    return Head(_unique(names), units, separator, _offset_of(path, settings, line, at, block), line)


def _raw_lines(block: Block) -> list[bytes]:
    """Lines of a block of which some were taken out, with empty ones in their places."""
    lines = [b""] * (block.end_line - block.line)
    for number, text in zip(block.numbers or (), block.lines(), strict=True):
        lines[number - block.line] = text
    return lines


def _offset_of(path: Path, settings: FileSettings, line: int, at: int, block: Block) -> int:
    """The offset, in the unpacked file, of a line of the first block."""
    if block.numbers is None and block.data.isascii():
        return min(at, block.end_offset)
    file = TextFile(path, settings.encoding)
    try:
        return file.offset_of_line(line)
    finally:
        file.close()


def _fields(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader(io.StringIO(line), delimiter=separator), [])]
    except csv.Error as error:
        raise LayoutError(
            f"expected a line with the names of the columns, found {line[:80]!r} ({error})"
        ) from None


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, those that come again or are empty numbered."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for place, name in enumerate(names, 1):
        given = name or f"column {place}"
        seen[given] = seen.get(given, 0) + 1
        unique.append(given if seen[given] == 1 else f"{given} ({seen[given]})")
    return tuple(unique)


class CsvReader:
    """Blocks of one CSV file as tables of `texts`, `numbers` and `times` (names of columns)."""

    def __init__(
        self,
        head: Head,
        settings: FileSettings,
        texts: Sequence[str],
        numbers: Sequence[str],
        times: Sequence[str],
    ) -> None:
        self._head = head
        self._settings = settings
        self._wanted = list(dict.fromkeys([*texts, *numbers, *times]))
        self._typed: dict[str, Any] = dict.fromkeys(texts, WORDS)
        plain = not settings.thousands
        self._typed.update({name: pa.float64() if plain else pa.string() for name in numbers})
        if settings.time_format in _NUMBERS and len(times) == 1:
            self._typed.update({name: pa.int64() for name in times})
        elif settings.time_format == "iso" and len(times) == 1:
            self._typed.update(dict.fromkeys(times))  # with or without offset: the first row says
        else:
            self._typed.update(dict.fromkeys(times, WORDS))  # each different text is looked at once
        self._time = times[0] if len(times) == 1 else None
        separator = re.escape(head.separator.encode())
        field = rb'(?:"(?:[^"]|"")*"|[^"%b][^%b]*|)' % (separator, separator)
        self._whole = re.compile(rb"%b(?:%b%b)*" % (field, separator, field))
        words = {name for name, kind in self._typed.items() if kind is WORDS}
        self._as_texts = {name: WORDS if name in words else pa.string() for name in self._wanted}

    def read(self, block: Block) -> list[Rows]:
        """The rows of a block; lines that are none become `block.bad`."""
        data, places = self._without_comments(block)
        if not data:
            return []
        if b'"' in data and not _plainly_quoted(data, self._head.separator):
            data, places = self._without_open_quotes(block, places)
            if not data:
                return []
        lines = block.end_line - block.line if block.numbers is None else len(block.numbers)
        table, ragged = self._parsed(data)
        if table.num_rows + len(ragged) != (lines if places is None else len(places)):
            return self._one_by_one(block, list(range(lines)) if places is None else places)
        if ragged:
            places = self._take_out(block, places, ragged, data)
        return [Rows(table, places)]

    def _parsed(self, data: bytes) -> tuple[pa.Table, list[tuple[int, int]]]:
        """The rows of lines, and (row, number of fields) of those with too few or too many."""
        typed = dict(self._typed)
        if self._time is not None and typed.get(self._time, 1) is None:
            typed[self._time] = self._time_type(data)
        ragged: list[tuple[int, int]] = []
        try:
            return self._parse(data, typed, ragged), ragged
        except pa.ArrowInvalid:
            ragged.clear()
            return self._parse(data, self._as_texts, ragged), ragged

    def _without_open_quotes(self, block: Block, places: list[int] | None) -> tuple[bytes, list[int]]:
        """Lines without those in which a quoted field does not end: Arrow would take the next lines for a part of it."""
        lines = block.lines()
        kept: list[int] = []
        for place in range(len(lines)) if places is None else places:
            line = lines[place]
            if b'"' in line and self._whole.fullmatch(line) is None:
                reason = "expected a quoted field to end in its line, before a separator, found it otherwise"
                block.bad.append(BadLine(block.number_of(place), line[:KEPT_BYTES], len(line), reason))
            else:
                kept.append(place)
        return b"".join(lines[place] + b"\n" for place in kept), kept

    def _one_by_one(self, block: Block, places: list[int]) -> list[Rows]:
        """Each line by itself, where Arrow sees another number of rows than there are lines."""
        lines = block.lines()
        found: list[Rows] = []
        for place in places:
            table, ragged = self._parsed(lines[place] + b"\n")
            if table.num_rows == 1 and not ragged:
                found.append(Rows(table, [place]))
            else:
                count = ragged[0][1] if ragged else 0
                reason = f"expected {len(self._head.names)} fields, found {count}"
                block.bad.append(
                    BadLine(block.number_of(place), lines[place][:KEPT_BYTES], len(lines[place]), reason)
                )
        return found

    def _parse(self, data: bytes, types: dict[str, Any], ragged: list[tuple[int, int]]) -> pa.Table:
        def invalid(row: Any) -> str:
            ragged.append((row.number - 1, row.actual_columns))
            return "skip"

        settings = self._settings
        return pcsv.read_csv(
            pa.BufferReader(data),
            pcsv.ReadOptions(
                column_names=list(self._head.names), use_threads=False, block_size=max(len(data) + 1, 1024)
            ),
            pcsv.ParseOptions(delimiter=self._head.separator, invalid_row_handler=invalid),
            pcsv.ConvertOptions(
                column_types=types,
                include_columns=self._wanted,
                null_values=list(settings.missing),
                strings_can_be_null=True,
                decimal_point=settings.decimal,
                check_utf8=False,
                auto_dict_encode=False,
            ),
        )

    def _time_type(self, data: bytes) -> pa.DataType:
        """How the first row writes its time."""
        line = data[: data.find(b"\n") + 1 or len(data)].decode("utf-8", "replace").strip("\r\n")
        fields = _fields(line, self._head.separator)
        place = self._head.names.index(str(self._time))
        text = fields[place] if place < len(fields) else ""
        offset = text.endswith("Z") or (len(text) > 6 and text[-6] in "+-" and text[-3] == ":")
        return pa.timestamp("ns", tz="UTC") if offset else pa.timestamp("ns")

    def _without_comments(self, block: Block) -> tuple[bytes, list[int] | None]:
        comment = self._settings.comment.encode()
        if not comment or comment not in block.data:
            return block.data, None
        lines = block.lines()
        places = [place for place, line in enumerate(lines) if not line.startswith(comment)]
        return b"".join(lines[place] + b"\n" for place in places), places

    def _take_out(
        self, block: Block, places: list[int] | None, ragged: list[tuple[int, int]], data: bytes
    ) -> list[int]:
        """Tell lines with a wrong number of fields; the places of those that are left."""
        lines = block.lines()
        if places is None:
            places = list(range(len(lines)))
        gone = set()
        for row, count in ragged:
            place = places[row]
            gone.add(row)
            reason = f"expected {len(self._head.names)} fields, found {count}"
            block.bad.append(
                BadLine(block.number_of(place), lines[place][:KEPT_BYTES], len(lines[place]), reason)
            )
        return [place for row, place in enumerate(places) if row not in gone]


def _plainly_quoted(data: bytes, separator: str) -> bool:
    """Whether all quotes stand in pairs around whole fields, without others within: nothing to be looked at by the line."""
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, text[opening - 1], 10)
    behind = np.where(closing + 1 < len(text), text[np.minimum(closing + 1, len(text) - 1)], 10)
    ends = np.cumsum(text == 10)
    return bool(
        np.isin(before, (10, ord(separator))).all()
        and np.isin(behind, (10, 13, ord(separator))).all()
        and (ends[opening] == ends[closing]).all()
    )
