"""A file step by step: the readings and wrong rows of one block of it after the other, from any position on.

A step follows from the file, the position and the settings alone, so that after a crash the same steps come again, the rows
of which part were stored already. Runs on a thread of its own: everything here may take long.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ringmain.log.interface import LogError
from ringmain.runtime.contract import Columns, Letter
from ringmain.sources.file_blocks import KEPT_BYTES, BadLine, Block, TextFile, UnreadableFileError
from ringmain.sources.file_layout import Layout, word_of
from ringmain.sources.file_objects import NdjsonReader
from ringmain.sources.file_settings import FileFormat, FileSettings
from ringmain.sources.file_table import CsvReader, LayoutError, Rows, read_head
from ringmain.sources.file_times import Zone
from ringmain.sources.mapping import Registry

LETTERS_MAX = 300
"""Wrong rows of one step that become a letter each; the others share one more."""
BATCH_ROWS = 65_536
BATCH_VALUES = 1 << 20
"""Of one step of a Parquet file: rows times columns of values."""
_HEAD_BYTES = 64 << 10
_logger = logging.getLogger("ringmain.sources")


class FilePosition(msgspec.Struct, frozen=True, array_like=True):
    """How far a file was read, as stored with the rows: `done` readings of the block at `offset`, line `line`.

    `size` and `digest` tell whether it is the same file still, or the same and longer. `zone`: see `file_times.Zone.save`.
    `finished`: all of it was read; `problem` says why not the rest.
    """

    name: str
    size: int
    digest: bytes
    offset: int = 0
    line: int = 1
    done: int = 0
    zone: bytes = b""
    finished: bool = False
    problem: str = ""
    stamp: tuple[int, int] = (0, 0)
    """The file's inode and time of modification (ns): another file of the same name has others."""

    def is_of(self, path: Path, *, growing: bool) -> bool:
        """Whether this is about the file that lies there now. `growing`: which may be longer, or a copy."""
        state = path.stat()
        if path.name != self.name:
            return False
        if growing:
            return state.st_size >= self.size and digest(path, self.size) == self.digest
        return state.st_size == self.size and (state.st_ino, state.st_mtime_ns) == self.stamp

    @classmethod
    def of(cls, path: Path) -> FilePosition:
        """The beginning of a file."""
        state = path.stat()
        stamp = (state.st_ino, state.st_mtime_ns)
        return cls(path.name, state.st_size, digest(path, state.st_size), stamp=stamp)


def digest(path: Path, size: int) -> bytes:
    """Of the first bytes of a file, as far as they were there when it had this size."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(min(size, _HEAD_BYTES))).digest()


@dataclass(slots=True)
class Step:
    """What a block gave. `behind`: the position once all of it is stored; `received` = rows, of which `empty` hold no value."""

    columns: list[Columns]
    letters: tuple[Letter, ...]
    received: int
    rejected: int
    empty: int
    at: FilePosition
    behind: FilePosition


@dataclass(slots=True)
class _Found:
    """Wrong rows of a step."""

    lines: list[BadLine] = field(default_factory=list)

    def letters(self, name: str, arrival_ns: int) -> tuple[Letter, ...]:
        told = sorted(self.lines, key=lambda line: line.number)
        letters = [
            Letter(name, line.text, f"line {line.number}: {line.reason}", arrival_ns, line.length_bytes)
            for line in told[:LETTERS_MAX]
        ]
        rest = told[LETTERS_MAX:]
        if rest:
            reason = (
                f"{len(rest)} more lines, from {rest[0].number} to {rest[-1].number}: expected rows such as the layout "
                f"says, the first: {rest[0].reason}"
            )
            letters.append(Letter(name, rest[0].text, reason, arrival_ns))
        return tuple(letters)


def kind_of(path: Path, settings: FileSettings) -> FileFormat:
    """The kind of a file, by its name unless the settings say. Raises LayoutError."""
    if settings.format is not FileFormat.AUTO:
        return settings.format
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in (".gz", ".zst", ".zstd")]
    match endings[-1] if endings else "":
        case ".csv" | ".tsv" | ".txt":
            return FileFormat.CSV
        case ".ndjson" | ".jsonl" | ".json":
            return FileFormat.NDJSON
        case ".parquet" | ".pq":
            return FileFormat.PARQUET
    raise LayoutError(
        f"expected a name that ends in .csv, .ndjson or .parquet, found {path.name!r}: say `format`, or narrow `match`"
    )


class FileSteps:
    """The steps of one file from a position on. Raises LayoutError, UnreadableFileError, OSError."""

    def __init__(
        self,
        path: Path,
        start: FilePosition,
        source: str,
        settings: FileSettings,
        registry: Registry,
        timezone: str,
    ) -> None:
        self._path = path
        self._start = start
        self._source = source
        self._settings = settings
        self._registry = registry
        self._zone = Zone(timezone, settings.repeated_hour)
        self._zone.restore(start.zone)

    def steps(self, clock_ns: Any) -> Iterator[Step]:
        """One step after the other; `clock_ns()` is the time of a letter."""
        try:
            yield from self._all(clock_ns)
        except (LayoutError, UnreadableFileError, OSError, LogError, MemoryError):
            raise
        except (
            Exception
        ) as error:  # a mistake of this program, or a type nobody thought of: this file's trouble alone
            _logger.exception("source %s: %s cannot be read", self._source, self._path)
            raise UnreadableFileError(
                f"expected data that can be read as the layout says, found: {type(error).__name__}: {error}"[
                    :300
                ]
            ) from error

    def _all(self, clock_ns: Any) -> Iterator[Step]:
        match kind_of(self._path, self._settings):
            case FileFormat.PARQUET:
                yield from self._parquet(clock_ns)
            case FileFormat.CSV:
                yield from self._csv(clock_ns)
            case _:
                layout = self._layout(None, {})
                objects = NdjsonReader([*layout.texts, *layout.times], layout.values)
                for block in self._blocks(0, 1):
                    at = self._at(block.offset, block.line)
                    yield self._step(block, objects.read(block), layout, at, clock_ns())

    def _csv(self, clock_ns: Any) -> Iterator[Step]:
        head = read_head(self._path, self._settings)
        layout = self._layout(head.names, head.units)
        reader = CsvReader(head, self._settings, layout.texts, layout.values, layout.times)
        for block in self._blocks(head.offset, head.line):
            at = self._at(block.offset, block.line)
            yield self._step(block, reader.read(block), layout, at, clock_ns())

    def _layout(self, names: Sequence[str] | None, units: dict[str, str]) -> Layout:
        settings = self._settings
        if kind_of(self._path, settings) is not FileFormat.CSV:
            settings = msgspec.structs.replace(settings, decimal=".", thousands="")
        return Layout(self._source, settings, self._registry, self._zone, names, units)

    def _blocks(self, offset: int, line: int) -> Iterator[Block]:
        if self._start.offset > offset:
            offset, line = self._start.offset, self._start.line
        file = TextFile(self._path, self._settings.encoding, offset, line)
        try:
            yield from file.blocks()
        finally:
            file.close()

    def _at(self, offset: int, line: int) -> FilePosition:
        done = self._start.done if offset == self._start.offset else 0
        zone = self._zone.save()
        return msgspec.structs.replace(self._start, offset=offset, line=line, done=done, zone=zone)

    def _behind(self, offset: int, line: int) -> FilePosition:
        zone = self._zone.save()
        return msgspec.structs.replace(self._start, offset=offset, line=line, done=0, zone=zone)

    def _step(
        self, block: Block, rows: Sequence[Rows], layout: Layout, at: FilePosition, arrival_ns: int
    ) -> Step:
        found = _Found()
        columns: list[Columns] = []
        received = empty = 0
        lines: list[bytes] | None = None
        for part in rows:
            read = layout.read(part)
            received += read.rows
            empty += read.empty
            if len(read.columns.series):
                columns.append(read.columns)
            for row, reason in sorted(read.bad.items()):
                lines = block.lines() if lines is None else lines
                place = row if part.places is None else part.places[row]
                text = lines[place]
                found.lines.append(BadLine(block.number_of(place), text[:KEPT_BYTES], len(text), reason))
        received += len(block.bad)
        found.lines += block.bad
        return Step(
            columns,
            found.letters(self._path.name, arrival_ns),
            received,
            len(found.lines),
            empty,
            at,
            self._behind(block.end_offset, block.end_line),
        )

    def _parquet(self, clock_ns: Any) -> Iterator[Step]:
        try:
            with pq.ParquetFile(self._path) as file:
                names = file.schema_arrow.names
                layout = self._layout(names, {})
                wanted = list(dict.fromkeys([*layout.texts, *layout.times, *layout.values]))
                yield from self._batches(file, layout, wanted, clock_ns)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UnreadableFileError(f"expected a Parquet file, found: {str(error)[:200]}") from None

    def _batches(
        self, file: pq.ParquetFile, layout: Layout, wanted: list[str], clock_ns: Any
    ) -> Iterator[Step]:
        rows = max(1, min(BATCH_ROWS, BATCH_VALUES // max(1, len(layout.values))))
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count <= self._start.offset:
                first += count
                continue
            for batch in file.iter_batches(rows, [group], wanted, use_threads=False):
                end = first + batch.num_rows
                if end > self._start.offset:
                    at = self._at(first, first + 1)
                    yield self._rows_step(pa.Table.from_batches([batch]), layout, at, end, clock_ns())
                first = end

    def _rows_step(
        self, table: pa.Table, layout: Layout, at: FilePosition, end: int, arrival_ns: int
    ) -> Step:
        read = layout.read(Rows(table, None))
        found = _Found()
        for row, reason in sorted(read.bad.items()):
            text = str({name: word_of(table.column(name)[row]) for name in table.schema.names}).encode()
            found.lines.append(BadLine(at.line + row, text[:KEPT_BYTES], len(text), reason))
        return Step(
            [read.columns] if len(read.columns.series) else [],
            found.letters(self._path.name, arrival_ns),
            read.rows,
            len(found.lines),
            read.empty,
            at,
            self._behind(end, end + 1),
        )
