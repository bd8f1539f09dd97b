"""The list of series that a utility keeps in a CSV file, for `[catalogue] file = "series.csv"`.

The first line names the columns: `key` (required), `unit`, `quantity`, `medium`, `device`, `place`, `owner`; every
other column is a naming scheme, such as MeLo or OBIS, and its cells are external names. Empty cells say
nothing. UTF-8, also with the mark that spreadsheets write; comma or, as German spreadsheets write it, semicolon.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from pathlib import Path

from ringmain.model.catalogue import EXTERNAL_BYTES_MAX, TEXT_BYTES_MAX, SeriesAttributes, check_key
from ringmain.model.units import canonical_unit

COLUMNS = ("unit", "quantity", "medium", "device", "place", "owner")
_LINE_CHARS_MAX = 64 * 1024
_PROBLEMS_MAX = 20


class SeriesFileError(ValueError):
    """The file cannot be used; the message has a line for each of the first problems: file, line, expected, found."""


def read_series(path: Path) -> list[tuple[str, SeriesAttributes]]:
    """(key, attributes) of each line in the file's order. Raises SeriesFileError, OSError."""
    problems: list[str] = []
    series: list[tuple[str, SeriesAttributes]] = []
    line_of_key: dict[str, int] = {}
    units: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in _rows(path, file):
                try:
                    key, attributes = _entry(row, units)
                except ValueError as error:
                    problems.append(f"{path}:{line}: {error}")
                else:
                    first = line_of_key.setdefault(key, line)
                    if first == line:
                        series.append((key, attributes))
                    else:
                        problems.append(
                            f"{path}:{line}: expected each key once, found {key!r} as in line {first}"
                        )
                if len(problems) >= _PROBLEMS_MAX:
                    problems.append(f"{path}: there may be more; mend these first")
                    break
    except UnicodeDecodeError as error:
        raise SeriesFileError(
            f"{path}: expected UTF-8, found byte 0x{error.object[error.start]:02x}"
        ) from None
    if problems:
        raise SeriesFileError("\n".join(problems))
    return series


def _rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of each line that is not blank. Raises SeriesFileError for what is no table."""
    header = next(file, "")
    separator = ";" if header.count(";") > header.count(",") else ","
    columns = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    _check_header(path, columns)
    reader = csv.reader(_bounded(path, file), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise SeriesFileError(
                f"{path}:{line}: expected cells between separators, found: {error}"
            ) from None
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns):
            found = f"expected {len(columns)} cells ({separator.join(columns)}), found {len(cells)}"
            raise SeriesFileError(
                f"{path}:{line}: {found}: put cells that hold a {separator!r} in double quotes"
            )
        yield line, {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}


def _check_header(path: Path, columns: list[str]) -> None:
    where = f"{path}:1: expected a line that names the columns"
    if "key" not in columns:
        near = difflib.get_close_matches("key", [name.lower() for name in columns], 1)
        hint = f" (is {near[0]!r} meant to be it?)" if near else ""
        raise SeriesFileError(f"{where}, one of them `key`, found {', '.join(columns) or 'nothing'}{hint}")
    for index, name in enumerate(columns):
        if not name:
            raise SeriesFileError(f"{where}, found none for column {index + 1}")
        if name in columns[:index]:
            raise SeriesFileError(f"{where} once each, found {name!r} twice")


def _bounded(path: Path, file: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(file, 2):
        if len(line) > _LINE_CHARS_MAX:
            raise SeriesFileError(f"{path}:{number}: expected a line of at most {_LINE_CHARS_MAX} characters")
        yield line


def _entry(row: dict[str, str], units: dict[str, str]) -> tuple[str, SeriesAttributes]:
    """One line. `units` remembers the units that were looked up. Raises ValueError."""
    key = row.pop("key", "")
    check_key(key)
    texts = {name: row.pop(name, None) for name in COLUMNS}
    for name, text in texts.items():
        if text is not None and len(text.encode()) > TEXT_BYTES_MAX:
            raise ValueError(f"{name}: expected at most {TEXT_BYTES_MAX} bytes, found {text[:60]!r}...")
    unit = texts["unit"]
    if unit is not None:
        if unit not in units:
            units[unit] = canonical_unit(unit)
        texts["unit"] = units[unit]
    if sum(len(name.encode()) + 6 + 6 * len(text) for name, text in row.items()) > EXTERNAL_BYTES_MAX:
        raise ValueError(f"expected external names of well below {EXTERNAL_BYTES_MAX} bytes in all")
    return key, SeriesAttributes(**texts, external=row)
