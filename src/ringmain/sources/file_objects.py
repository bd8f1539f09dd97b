"""Blocks of JSON objects, one a line, as Arrow tables of the members that are wanted.

Arrow parses a block at once where its lines are alike. Where one is not, or is no object, the lines are looked at one by one.
A line of more levels than either parser can descend is taken out before: it would end the process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as pjson

from ringmain.sources.file_blocks import KEPT_BYTES, BadLine, Block
from ringmain.sources.file_table import Rows

LEVELS_MAX = 64
"""Of objects and lists within each other: Arrow's parser descends, and a deep line would end the process."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")


class NdjsonReader:
    """Blocks of objects, one a line, as tables of the members that are wanted; other members may hold anything."""

    def __init__(self, others: Sequence[str], numbers: Sequence[str]) -> None:
        """`numbers`: members of values; `others`: those of keys, times and quality."""
        self._wanted = list(dict.fromkeys([*others, *numbers]))
        self._numbers = set(numbers) - set(others)
        places = [f"m{place}" for place in range(len(self._wanted))]
        row = msgspec.defstruct(
            "Row",
            [(place, Any, None) for place in places],
            rename=dict(zip(places, self._wanted, strict=True)),
        )
        self._places = places
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(row)

    def read(self, block: Block) -> list[Rows]:
        """The rows of a block; lines that are none become `block.bad`."""
        lines = block.lines()
        if not lines:
            return []
        if not _too_deep(block, lines):
            table = self._by_arrow(block.data, lines)
            if table is not None:
                return [Rows(table, None)]
        deep = {bad.number for bad in block.bad}
        return self._by_line(block, lines, deep)

    def _by_arrow(self, data: bytes, lines: list[bytes]) -> pa.Table | None:
        """All at once, with the types that the first line has; None where a line has others, or is no object."""
        try:
            first = self._decoder.decode(lines[0])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        kinds = [
            _kind(getattr(first, place), number=name in self._numbers)
            for place, name in zip(self._places, self._wanted, strict=True)
        ]
        if None in kinds:
            return None
        try:
            table = pjson.read_json(
                pa.BufferReader(data),
                pjson.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1024)),
                pjson.ParseOptions(
                    explicit_schema=pa.schema(list(zip(self._wanted, kinds, strict=True))),
                    unexpected_field_behavior="ignore",
                ),
            )
        except pa.ArrowInvalid:
            return None
        return table.select(self._wanted) if table.num_rows == len(lines) else None

    def _by_line(self, block: Block, lines: list[bytes], deep: set[int]) -> list[Rows]:
        """Line by line, as texts."""
        columns: list[list[str | None]] = [[] for _ in self._wanted]
        places: list[int] = []
        for place, line in enumerate(lines):
            number = block.number_of(place)
            if number in deep:
                continue
            try:
                row = self._decoder.decode(line)
                texts = [_text(getattr(row, name)) for name in self._places]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                reason = f"expected a JSON object, found: {error}"[:200]
                block.bad.append(BadLine(number, line[:KEPT_BYTES], len(line), reason))
                continue
            except TypeError as error:
                block.bad.append(BadLine(number, line[:KEPT_BYTES], len(line), str(error)))
                continue
            places.append(place)
            for column, text in zip(columns, texts, strict=True):
                column.append(text)
        if not places:
            return []
        arrays = [pa.array(column, pa.string()) for column in columns]
        return [Rows(pa.table(arrays, names=self._wanted), places)]


def _kind(value: Any, *, number: bool) -> pa.DataType | None:
    """The type of a member like this one; None where there is none."""
    if number:
        value = 0.0 if value is None or (isinstance(value, int) and not isinstance(value, bool)) else value
    match value:
        case None | str():
            return pa.string()
        case bool():
            return pa.bool_()
        case int():
            return pa.int64()
        case float():
            return pa.float64()
    return None


def _text(value: Any) -> str | None:
    """A member as text. Raises TypeError for what is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return str(int(value)) if isinstance(value, bool) else repr(value)
    raise TypeError(f"expected a number or a text as member, found {type(value).__name__}")


def _too_deep(block: Block, lines: list[bytes]) -> list[int]:
    """Places of lines with more levels than a parser that descends can take; they become `block.bad`."""
    opened = block.data.count(b"{") + block.data.count(b"[")
    if opened <= len(lines) + LEVELS_MAX:  # as where each line is one flat object
        return []
    deep = []
    for place, line in enumerate(lines):
        if line.count(b"{") + line.count(b"[") <= LEVELS_MAX:
            continue
        level = deepest = 0
        for found in _BRACKETS.finditer(_STRINGS.sub(b"", line)):
            level += 1 if found[0] in b"{[" else -1
            deepest = max(deepest, level)
        if deepest > LEVELS_MAX:
            reason = f"expected at most {LEVELS_MAX} levels of objects and lists, found {deepest}"
            block.bad.append(BadLine(block.number_of(place), line[:KEPT_BYTES], len(line), reason))
            deep.append(place)
    return deep
