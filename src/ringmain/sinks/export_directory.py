"""The directory of an export sink: which files are whole, what is written down about them, and what is swept.

    DIRECTORY/STREAM/date=2026-11-23/20261123T130000Z_FIRST_LAST.parquet      whole files, FIRST and LAST are positions
    DIRECTORY/_ringmain/SINK/manifest.ndjson                                  a line a file
    DIRECTORY/_ringmain/SINK/commit.json                                      files whose position may not be stored yet
    DIRECTORY/_ringmain/SINK/*.part                                           not whole

Exactly once: files are written and synced under other names; then `commit.json` says which they are and which rows of the
log they hold; then they get their names; then the log stores the position. Opened after a crash in between, the
directory gives the files of `commit.json` their names, and the position that goes with them; whatever else is not whole
is removed, and its rows come again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from urllib.parse import quote

import msgspec

from ringmain.runtime.sink import Mark, SinkError

INNER = "_ringmain"
_TAIL_BYTES = 1 << 20


class ExportedFile(msgspec.Struct, frozen=True):
    """A file of the manifest: path from the directory, rows `first_row` to `end_row` - 1 of all ever in its stream.

    Arrivals and times are RFC 3339 in UTC; times are null where rows have none.
    """

    file: str
    stream: str
    rows: int
    bytes: int
    first_row: int
    end_row: int
    first_position: str
    last_position: str
    arrived_from: str
    arrived_to: str
    time_min: str | None
    time_max: str | None


class _Removed(msgspec.Struct, frozen=True):
    removed: str


class _Pending(msgspec.Struct, frozen=True):
    """`commit.json`: `parts` are names of files not renamed yet, maybe, in the order of `files`."""

    begin_rows: dict[str, int]
    mark: str
    parts: list[str]
    files: list[ExportedFile]


class ExportDirectory:
    """Used by one thread. Every method may raise OSError."""

    def __init__(self, root: Path, sink: str, zone: tzinfo) -> None:
        self.root = root
        self._inner = root / INNER / quote(sink, safe="")
        self._zone = zone
        self._pending: _Pending | None = None
        self._life = ""

    def open(self, committed: Mark | None) -> Mark | None:
        """Bring order into what an earlier run left; the mark behind files that the log does not know of yet, or None.

        Raises SinkError where the directory holds rows of another log, or of this one as it was before a restore.
        """
        self._life = secrets.token_hex(4)
        self._inner.mkdir(parents=True, exist_ok=True)
        rows = dict(committed.rows) if committed is not None else {}
        found = self._read_pending()
        adopted: Mark | None = None
        if found is not None:
            mark = Mark.decode(found.mark.encode())
            if any(end > rows.get(stream, 0) for stream, end in mark.rows.items()):
                if any(rows.get(stream, 0) < begin for stream, begin in found.begin_rows.items()):
                    raise self._foreign(committed)
                adopted = mark
            self._publish(found)
            if adopted is not None:
                rows, self._pending = dict(mark.rows), found
            else:
                self._forget()
        for name in os.listdir(self._inner):
            if name.endswith(".part"):
                (self._inner / name).unlink()
        self._check_manifest(rows, committed)
        return adopted

    def part(self, number: int) -> Path:
        """The path of a file that is not whole."""
        return self._inner / f"{self._life}-{number}.part"

    def place(self, stream: str, arrival_ns: int, first: str, last: str) -> str:
        """The path, from the directory, of a whole file."""
        at = datetime.fromtimestamp(arrival_ns // 10**9, self._zone)
        name = quote(stream, safe="")
        if name[:1] in "._":
            name = f"%{ord(name[0]):02X}{name[1:]}"
        utc = datetime.fromtimestamp(arrival_ns // 10**9, tz=UTC)
        return f"{name}/date={at:%Y-%m-%d}/{utc:%Y%m%dT%H%M%SZ}_{first}_{last}.parquet"

    def commit(
        self, begin_rows: dict[str, int], mark: Mark, parts: Sequence[Path], files: Sequence[ExportedFile]
    ) -> None:
        """Give synced files their names; from here on they count. Those of the last `commit` stay pending with them."""
        before = self._pending
        pending = _Pending(
            begin_rows if before is None else before.begin_rows,
            mark.encode().decode(),
            [*(before.parts if before is not None else ()), *(part.name for part in parts)],
            [*(before.files if before is not None else ()), *files],
        )
        self._write(self._inner / "commit.json", msgspec.json.encode(pending))
        self._pending = pending
        self._publish(pending)

    def stored(self) -> None:
        """The log has stored the position behind everything committed."""
        if self._pending is not None:
            self._pending = None
            self._forget()

    def remove_older(self, now_ns: int, keep_ns: int, streams: Sequence[str]) -> int:
        """Remove files of days that ended longer than `keep_ns` ago; how many."""
        oldest = datetime.fromtimestamp((now_ns - keep_ns) // 10**9, self._zone).date()
        removed = 0
        for stream in streams:
            parent = self.root / self.place(stream, now_ns, "", "").partition("/")[0]
            if not parent.is_dir():
                continue
            for day in sorted(os.listdir(parent)):
                try:
                    date = datetime.strptime(day, "date=%Y-%m-%d").date()
                except ValueError:
                    continue
                if date >= oldest:
                    continue
                for name in sorted(os.listdir(parent / day)):
                    if name.endswith(".parquet") and name.count("_") == 2:
                        (parent / day / name).unlink()
                        self._note([msgspec.json.encode(_Removed(f"{parent.name}/{day}/{name}"))])
                        removed += 1
                if not os.listdir(parent / day):
                    (parent / day).rmdir()
        return removed

    def _publish(self, pending: _Pending) -> None:
        """Rename what is not renamed yet, and write it down."""
        for part, file in zip(pending.parts, pending.files, strict=True):
            source, target = self._inner / part, self.root / file.file
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(source, target)
                for directory in (target.parent, target.parent.parent, self.root):
                    _sync_directory(directory)
        told = {line.file for line in self._tail()}
        self._note([msgspec.json.encode(file) for file in pending.files if file.file not in told])

    def _note(self, lines: Sequence[bytes]) -> None:
        """Append lines to the manifest, behind the last whole one."""
        if not lines:
            return
        path = self._inner / "manifest.ndjson"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(handle).st_size
            tail = os.pread(handle, min(size, 1 << 16), max(0, size - (1 << 16)))
            torn = len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(handle, size - torn)
            os.pwrite(handle, b"".join(line + b"\n" for line in lines), size - torn)
            os.fsync(handle)
        finally:
            os.close(handle)
        _sync_directory(self._inner)

    def _tail(self) -> list[ExportedFile]:
        """The files in the last lines of the manifest."""
        try:
            with (self._inner / "manifest.ndjson").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        found: list[ExportedFile] = []
        for line in lines[1:] if size > _TAIL_BYTES else lines:
            with contextlib.suppress(msgspec.MsgspecError):  # a removed file, or a line torn by a power cut
                found.append(msgspec.json.decode(line, type=ExportedFile))
        return found

    def _check_manifest(self, rows: dict[str, int], committed: Mark | None) -> None:
        for line in self._tail():
            if line.end_row > rows.get(line.stream, 0):
                raise self._foreign(committed)

    def _foreign(self, committed: Mark | None) -> SinkError:
        at = "nothing yet" if committed is None else f"rows up to {committed.position}"
        return SinkError(
            f"expected in {self.root} what this sink of this log has exported, which is {at}, found files with more: of "
            "another log, or of this one before it was restored from a backup",
            "give another `directory`, or move these files away (with the directory `_ringmain`)",
        )

    def _read_pending(self) -> _Pending | None:
        try:
            return msgspec.json.decode((self._inner / "commit.json").read_bytes(), type=_Pending)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise SinkError(
                f"expected {self._inner / 'commit.json'} as this sink wrote it, found: {error}",
                "remove it if the newest files of the manifest are there; their rows may come twice",
            ) from None

    def _forget(self) -> None:
        (self._inner / "commit.json").unlink(missing_ok=True)
        _sync_directory(self._inner)

    def _write(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(new, path)
        _sync_directory(path.parent)


def next_midnight_ns(arrival_ns: int, zone: tzinfo) -> int:
    """The next beginning of a local day behind an instant."""
    local = datetime.fromtimestamp(arrival_ns // 10**9, zone)
    day = (local + timedelta(days=1)).date()
    following = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(following.timestamp()) * 10**9


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
