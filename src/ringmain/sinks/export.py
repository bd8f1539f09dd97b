"""A stream to Parquet files on a schedule (type `export`): what a data engineer reads without Ringmain.

A file holds a contiguous range of a stream, in the order of the log; it ends with an interval of log time, with the local
day, or when it is large. Rows appear in whole files only, each row in exactly one, whatever is killed when
(`export_directory.py`). The position moves when a file is whole: until then the log keeps the rows, and they are read
again after a restart.

Left to others: what a file looks like (`export_file.py`, `export_rows.py`), reading and trying again (`runtime`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import zoneinfo
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from ringmain.log.ledger.entries import instant_text
from ringmain.log.settings import parse_size
from ringmain.model.catalogue import Catalogue
from ringmain.model.duration import parse_duration
from ringmain.runtime.counters import Kind, declare
from ringmain.runtime.sink import HELD, Answer, Mark, Retry, SinkBatch, SinkContext, SinkError
from ringmain.sinks.export_directory import ExportDirectory, ExportedFile, next_midnight_ns
from ringmain.sinks.export_file import ExportFile
from ringmain.sinks.types import Findings, SinkSettings, SinkType, Surroundings

NICE = 10
_FILES = declare(
    "ringmain_export_files_total",
    Kind.COUNTER,
    "Files that an export sink has finished.",
    labels=("sink",),
    unit="files",
)
_BYTES = declare(
    "ringmain_export_bytes_total",
    Kind.COUNTER,
    "Bytes of the files that an export sink has finished.",
    labels=("sink",),
    unit="bytes",
)
_REMOVED = declare(
    "ringmain_export_removed_total",
    Kind.COUNTER,
    "Files that an export sink has removed because they were older than `keep`.",
    labels=("sink",),
    unit="files",
)


class ExportSettings(SinkSettings, frozen=True, kw_only=True):
    """`[sinks.NAME]`: streams to Parquet files on a schedule."""

    directory: Annotated[
        str, msgspec.Meta(description="where files go, relative to the configuration file", min_length=1)
    ]
    interval: Annotated[
        str,
        msgspec.Meta(
            description="log time in one file, 1s to 1d; intervals begin at midnight UTC, and a local day ends a file"
        ),
    ] = "1h"
    size: Annotated[
        str, msgspec.Meta(description="rows in memory after which a file ends before its interval does")
    ] = "1GiB"
    compression_level: Annotated[
        int, msgspec.Meta(description="of zstd: higher is smaller and slower", ge=1, le=19)
    ] = 3
    keep: Annotated[
        str | None,
        msgspec.Meta(
            description="files of local days that ended longer ago than this are removed; without it none"
        ),
    ] = None
    keep_free: Annotated[
        str, msgspec.Meta(description="space on the disk below which nothing is written until there is more")
    ] = "256MiB"

    def check(self) -> Findings:
        """Errors and warnings without touching the disk."""
        errors: list[tuple[str, str]] = []
        for key, low, high, bounds in (
            ("interval", 10**9, 86_400 * 10**9, "1s to 1d"),
            ("keep", 86_400 * 10**9, 2**62, "1d or more"),
        ):
            text = getattr(self, key)
            if text is None:
                continue
            try:
                value = parse_duration(text)
            except ValueError as error:
                errors.append((key, str(error)))
            else:
                if not low <= value <= high:
                    errors.append((key, f"expected {bounds}, found {text!r}"))
        for key in ("size", "keep_free"):
            try:
                parse_size(getattr(self, key))
            except ValueError as error:
                errors.append((key, str(error)))
        return errors, []


class ExportSink:
    """Writes files. `settle` tells which rows are in whole ones."""

    def __init__(
        self, name: str, node: str, settings: ExportSettings, directory: Path, timezone: str
    ) -> None:
        self._name = name
        self._node = node
        self._settings = settings
        self._zone = zoneinfo.ZoneInfo(timezone)
        self._root = directory / settings.directory
        self._interval_ns = parse_duration(settings.interval)
        self._size_bytes = parse_size(settings.size)
        self._free_bytes = parse_size(settings.keep_free)
        self._keep_ns = None if settings.keep is None else parse_duration(settings.keep)
        self._logger = logging.getLogger("ringmain.sinks")
        self._context: SinkContext | None = None
        self._directory = ExportDirectory(self._root, name, self._zone)
        self._files: dict[str, ExportFile] = {}
        self._size = 0
        self._end_ns = 0
        self._number = 0
        self._begin_rows: dict[str, int] = {}
        self._mark: Mark | None = None
        self._settled: Mark | None = None
        self._told: Mark | None = None

    # The contract (`runtime.sink.HoldingSink`)

    def open(self, context: SinkContext) -> str:
        """Bring order into the directory. Raises SinkError, OSError."""
        with contextlib.suppress(OSError):  # this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        self._context = context
        self._files, self._size, self._end_ns, self._mark = {}, 0, 0, None
        self._told = None
        try:
            self._settled = self._directory.open(context.committed)
        except OSError as error:
            raise self._trouble(error) from error
        begin = self._settled or context.committed
        self._begin_rows = dict(begin.rows) if begin is not None else {}
        return str(self._root)

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        """Take rows into files; every answer is Held."""
        self._acknowledged()
        answers: list[Answer] = []
        try:
            for batch in batches:
                waits = self._make_room(batch)
                if waits is not None:
                    answers.append(waits)
                    break
                self._take(batch)
                answers.append(HELD)
            for file in self._files.values():
                file.settle_memory()
        except OSError as error:
            raise self._trouble(error) from error
        return answers

    def settle(self, now_ns: int) -> Mark | Retry | None:
        """The mark behind whole files, once; finishes files whose interval has ended."""
        self._acknowledged()
        try:
            if self._files and now_ns >= self._end_ns and self._settled is None:
                waits = self._full(self._files.values())
                if waits is not None:
                    return waits
                self._finish()
            if self._settled is not None and self._keep_ns is not None and now_ns:
                removed = self._directory.remove_older(now_ns, self._keep_ns, self._settings.streams)
                if removed and self._context is not None:
                    self._context.count("ringmain_export_removed_total", removed)
        except OSError as error:
            raise self._trouble(error) from error
        self._told, self._settled = self._settled, None
        return self._told

    def close(self) -> None:
        """Remove files that are not whole: their rows come again."""
        for file in self._files.values():
            file.abandon()
        self._files = {}

    # Files

    def _make_room(self, batch: SinkBatch) -> Retry | None:
        """Finish the open files where the batch belongs into later ones, write what has come together."""
        waits: Retry | None = None
        if self._files and (batch.arrival_ns >= self._end_ns or self._size >= self._size_bytes):
            waits = self._full(self._files.values())
            if waits is None:
                self._finish()
        file = self._files.get(batch.id.stream)
        if file is not None and file.due:
            waits = waits or self._full([file])
            if waits is None:
                file.write_group()
        return waits

    def _take(self, batch: SinkBatch) -> None:
        assert self._context is not None
        if not self._files:
            passed = batch.arrival_ns % self._interval_ns
            self._end_ns = min(
                batch.arrival_ns - passed + self._interval_ns, next_midnight_ns(batch.arrival_ns, self._zone)
            )
        file = self._files.get(batch.id.stream)
        if file is None:
            self._number += 1
            file = self._files[batch.id.stream] = ExportFile(
                self._directory.part(self._number),
                batch.rows.schema,
                self._settings.compression_level,
                self._catalogue(),
                self._context.stopping,
            )
        file.take(batch)
        self._size += batch.rows.nbytes
        self._mark = batch.mark

    def _finish(self) -> None:
        """Make the open files whole."""
        assert self._mark is not None
        assert self._context is not None
        parts: list[Path] = []
        exported: list[ExportedFile] = []
        for stream, file in self._files.items():
            parts.append(file.path)
            exported.append(self._finished(stream, file))
        self._directory.commit(self._begin_rows, self._mark, parts, exported)
        self._context.count("ringmain_export_files_total", len(exported))
        self._context.count("ringmain_export_bytes_total", sum(one.bytes for one in exported))
        self._begin_rows, self._settled = dict(self._mark.rows), self._mark
        self._files, self._size = {}, 0

    def _finished(self, stream: str, file: ExportFile) -> ExportedFile:
        first, last = file.first, file.last
        assert first is not None
        assert last is not None
        place = self._directory.place(stream, first.arrival_ns, str(first.id.position), str(last.id.position))
        end_row = last.mark.rows.get(stream, 0)
        metadata = {
            "ringmain.node": self._node,
            "ringmain.sink": self._name,
            "ringmain.stream": stream,
            "ringmain.first": str(first.id),
            "ringmain.last": str(last.id),
        }
        size = file.finish(metadata)
        times = file.time_range
        return ExportedFile(
            place,
            stream,
            file.rows,
            size,
            end_row - file.rows,
            end_row,
            str(first.id.position),
            str(last.id.position),
            instant_text(first.arrival_ns),
            instant_text(last.arrival_ns),
            None if times is None else instant_text(times[0]),
            None if times is None else instant_text(times[1]),
        )

    def _acknowledged(self) -> None:
        """The runtime calls again, so the mark that it was given is stored."""
        if self._told is not None:
            self._told = None
            self._directory.stored()

    def _full(self, files: Iterable[ExportFile]) -> Retry | None:
        """What to answer while there is too little space for what these have in memory."""
        free = shutil.disk_usage(self._root).free
        wanted = self._free_bytes + sum(file.buffered_bytes for file in files)
        if free >= wanted:
            return None
        return Retry(
            f"expected {wanted >> 20} MiB free on the disk of {self._root}, found {free >> 20} MiB: make space; nothing is "
            "lost meanwhile, as long as the log keeps the rows"
        )

    def _trouble(self, error: OSError) -> SinkError:
        return SinkError(
            f"expected to write to {self._root}, found: {error}",
            "make space, or give this user the right to write there; rows since the last file come again",
        )

    def _catalogue(self) -> Catalogue:
        assert self._context is not None
        return self._context.catalogue


def _build(name: str, settings: ExportSettings, around: Surroundings) -> ExportSink:
    return ExportSink(name, around.node, settings, around.directory, around.timezone)


def _check(settings: ExportSettings) -> Findings:
    return settings.check()


SINK_TYPE = SinkType(
    settings=ExportSettings,
    build=_build,
    check=_check,
    batch_rows_max=lambda settings: 1 << 30,  # frames stay whole: a file is a range of them
)
