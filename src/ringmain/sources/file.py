"""Recorded readings in files as a source (type `file`): CSV, NDJSON and Parquet, replayed flat out or in event time.

A file's position travels in the append of the rows up to it, so that after a crash reading goes on behind what is stored:
no row is missing, none comes twice. A directory is watched: a file is taken once it does not change any more, in the order
of names, and moved to done/ when all of it is durable. What is no file of readings goes to bad/ with the reason as a
dead letter; single rows that are no readings become dead letters with file, line and reason.

Left to others: what a file looks like inside (`file_steps.py`, `file_layout.py`), queueing and retry (runtime).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from ringmain.runtime.contract import Columns, Intake, Letter, SourceError, Submission
from ringmain.runtime.counters import Kind, declare
from ringmain.sources.file_blocks import UnreadableFileError
from ringmain.sources.file_settings import After, FileSettings, Findings
from ringmain.sources.file_steps import FilePosition, FileSteps, Step
from ringmain.sources.file_table import LayoutError
from ringmain.sources.mapping import Registry
from ringmain.sources.types import SourceType, Surroundings

PIECE_ROWS = 80_000
"""Readings of one submission: with letters and position it has to fit one append."""
PACE_S = 0.1
"""Rows that are due within this time come together."""
POSITION = "file"
NICE = 5
DONE, BAD = "done", "bad"

declare(
    "ringmain_file_files_total",
    Kind.COUNTER,
    "Files that a file source has finished, by what became of them (done, bad).",
    labels=("source", "result"),
    unit="files",
)


class FileSource:
    """A file, or the files of a directory, as readings."""

    def __init__(
        self, name: str, settings: FileSettings, registry: Registry, directory: Path, timezone: str
    ) -> None:
        self._name = name
        self._settings = settings
        self._registry = registry
        self._path = directory / settings.path
        self._timezone = settings.timezone or timezone
        self._faster = settings.times_faster()
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._logger = logging.getLogger(f"ringmain.sources.{name}")

    async def run(self, intake: Intake, started: Callable[[str], None]) -> None:
        """Serve until cancelled. Raises SourceError when there is neither file nor directory, or the file is none."""
        if not self._path.exists():
            raise SourceError(
                f"expected a file or directory {self._path}, found none", "check `path`, or put it there"
            )
        stored = intake.positions().get(POSITION)
        position = None if stored is None else msgspec.msgpack.decode(stored, type=FilePosition)
        try:
            if self._path.is_dir():
                for name in (DONE, BAD) if self._settings.after is After.MOVE else (BAD,):
                    (self._path / name).mkdir(exist_ok=True)
                started(f"{self._path}/")
                await self._watch(intake, position)
            else:
                started(str(self._path))
                await self._single(intake, position)
        except asyncio.CancelledError:
            await intake.drained()
            raise

    async def _single(self, intake: Intake, position: FilePosition | None) -> None:
        """Replay one file once, and what is appended to it between two starts."""
        position = await self._file(intake, self._path, position)
        if position.problem:
            raise SourceError(
                f"{self._path}: {position.problem}",
                "mend or replace the file: one that differs is read again",
            )
        await asyncio.Event().wait()

    async def _watch(self, intake: Intake, position: FilePosition | None) -> None:
        poll_s = self._settings.seconds("poll")
        while True:
            path = await asyncio.to_thread(self._next)
            if path is None:
                await asyncio.sleep(poll_s)
                continue
            position = await self._file(intake, path, position)
            target = await asyncio.to_thread(self._put_away, path, bad=bool(position.problem))
            intake.count("ringmain_file_files_total", result="bad" if position.problem else "done")
            self._logger.info("source %s: %s is %s", self._name, path.name, target)

    def _next(self) -> Path | None:
        """The first file by name that has not changed for long enough."""
        settle_s, now_s = self._settings.seconds("settle"), time.monotonic()
        seen: dict[str, tuple[int, int, float]] = {}
        ready: list[str] = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not fnmatch.fnmatchcase(entry.name, self._settings.match):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if not entry.is_file():
                        continue
                    state = entry.stat()
                    before = self._seen.get(entry.name)
                    same = before is not None and before[:2] == (state.st_size, state.st_mtime_ns)
                    since_s = before[2] if same and before is not None else now_s
                    seen[entry.name] = (state.st_size, state.st_mtime_ns, since_s)
                    if now_s - since_s >= settle_s:
                        ready.append(entry.name)
        self._seen = seen
        return self._path / min(ready) if ready else None

    def _put_away(self, path: Path, *, bad: bool) -> str:
        """Move the file, or delete it; what became of it."""
        self._seen.pop(path.name, None)
        if not bad and self._settings.after is After.DELETE:
            path.unlink(missing_ok=True)
            return "deleted"
        folder = path.parent / (BAD if bad else DONE)
        target, number = folder / path.name, 0
        while target.exists():
            number += 1
            target = folder / f"{path.name}.{number}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, target)
        return f"in {folder.name}/"

    # One file

    async def _file(self, intake: Intake, path: Path, position: FilePosition | None) -> FilePosition:
        """Store what is not stored of the file; the position at its end, durable."""
        try:
            start = await asyncio.to_thread(_start, path, position, growing=path == self._path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if start.finished:
            return start
        steps = FileSteps(path, start, self._name, self._settings, self._registry, self._timezone).steps(
            time.time_ns
        )
        behind, problem = start, ""
        pace = _Pace(self._faster) if self._faster is not None else None
        ahead = asyncio.ensure_future(asyncio.to_thread(_next_step, steps))
        try:
            while (step := await ahead) is not None:
                ahead = asyncio.ensure_future(asyncio.to_thread(_next_step, steps))
                await self._store(intake, step, pace)
                behind = step.behind
        except (LayoutError, UnreadableFileError) as error:
            problem = str(error)
        except OSError as error:
            if error.errno not in (errno.EIO, None):
                raise _unreadable(path, error) from error
            problem = f"expected to read the rest of the file, found: {error}"
        finally:
            if not ahead.done():
                with contextlib.suppress(Exception):
                    await asyncio.shield(ahead)
        end = msgspec.structs.replace(behind, done=0, finished=True, problem=problem[:500])
        letters: tuple[Letter, ...] = ()
        if problem:
            where = f"behind line {behind.line - 1}" if behind.line > 1 else "from the beginning on"
            reason = f"{problem} ({where}; what came before is stored)"
            letters = (Letter(path.name, b"", reason, time.time_ns(), end.size),)
            self._logger.error("source %s: %s: %s", self._name, path.name, reason)
        count = len(letters)
        intake.submit(
            Submission(
                durable=_nothing,
                letters=letters,
                positions={POSITION: msgspec.msgpack.encode(end)},
                received=count,
                rejected=count,
            )
        )
        await intake.drained()
        return end

    async def _store(self, intake: Intake, step: Step, pace: _Pace | None) -> None:
        """Hand over what of a step is not stored yet, in pieces that are appends of their own."""
        columns = _joined(step.columns)
        total = len(columns.series)
        done = min(step.at.done, total)
        first = done == 0
        bounds = [*range(done + PIECE_ROWS, total, PIECE_ROWS), total] if total > done else [total]
        if pace is not None:
            bounds = pace.bounds(columns.time, done, bounds)
        for bound in bounds:
            if pace is not None and bound > done:
                await pace.until_due(columns.time[done:bound])
            await intake.wait_ready()
            last = bound == total
            position = step.behind if last else msgspec.structs.replace(step.at, done=bound)
            part = slice(done, bound)
            intake.submit(
                Submission(
                    durable=_nothing,
                    columns=Columns(
                        columns.series[part], columns.time[part], columns.value[part], columns.quality[part]
                    ),
                    letters=step.letters if first else (),
                    positions={POSITION: msgspec.msgpack.encode(position)},
                    received=step.received if first else 0,
                    rejected=step.rejected if first else 0,
                    ignored=step.empty if first else 0,
                )
            )
            first, done = False, bound


class _Pace:
    """Event time as it passes: `faster` times as fast as it was recorded, from the first row on."""

    def __init__(self, faster: float) -> None:
        self._faster = faster
        self._began_s = 0.0
        self._first_ns: int | None = None
        self._latest_ns = 0

    def bounds(
        self, times: np.ndarray[tuple[int], np.dtype[np.int64]], done: int, bounds: list[int]
    ) -> list[int]:
        """Where to cut rows so that none comes much before it is due, besides at `bounds`."""
        if len(times) <= done:
            return bounds
        steps = np.maximum.accumulate(times[done:]) // max(1, int(PACE_S * self._faster * 1e9))
        cuts = np.flatnonzero(np.diff(steps)) + 1 + done
        return sorted({*cuts.tolist(), *bounds})

    async def until_due(self, times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Wait until the first of these rows is due; rows older than what came are due at once."""
        now_ns = int(times[0])
        if self._first_ns is None:
            self._first_ns, self._began_s = now_ns, time.monotonic()
        self._latest_ns = max(self._latest_ns, now_ns)
        due_s = self._began_s + (now_ns - self._first_ns) / 1e9 / self._faster
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


def _next_step(steps: Iterator[Step]) -> Step | None:
    """The next step, None behind the last. On a thread that stands back behind those that acknowledge."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return next(steps, None)


def _start(path: Path, position: FilePosition | None, *, growing: bool) -> FilePosition:
    """Where to go on in the file that lies there."""
    fresh = FilePosition.of(path)
    if position is None or not position.is_of(path, growing=growing):
        return fresh
    if fresh.size == position.size:
        return position
    # longer than it was
    return msgspec.structs.replace(
        position, size=fresh.size, digest=fresh.digest, stamp=fresh.stamp, finished=False, problem=""
    )


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path}: expected a file that this process may read, found: {error.strerror or error}",
        "check its rights",
    )


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Columns(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16))
    return Columns(
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.quality for part in parts]),
    )


def _nothing() -> None:
    """Nobody is told: the position says it."""


def _build(name: str, settings: FileSettings, surroundings: Surroundings) -> FileSource:
    return FileSource(name, settings, surroundings.registry, surroundings.directory, surroundings.timezone)


def _check(settings: FileSettings) -> Findings:
    return settings.check()


SOURCE_TYPE = SourceType(settings=FileSettings, build=_build, check=_check)
