"""Puts a backup into an empty directory, as a log that goes on under a new incarnation at its next opening.

Every file is compared with the manifest's SHA-256 on its way, written, synced, read back from the disk and compared
again; then the log is verified as a whole. The note in the directory (`backup/restored.py`) says unfinished until all of
that is done: neither a writer nor a reader opens a half-restored log, and the same restore may be started again.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ringmain.log.backup.manifest import (
    BLOCK_BYTES,
    STEP_BYTES,
    BackupError,
    Manifest,
    StoredFile,
    TargetFiles,
    digest_of,
    read_manifest,
)
from ringmain.log.backup.restored import RESTORED_NAME, Restored, read_restored, write_restored
from ringmain.log.check.verify import VerifyReport, verify
from ringmain.log.files import FileSystem, LocalFileSystem, write_all
from ringmain.log.lock import LOCK_NAME, refuse_network, take_lock

Progress = Callable[[int, int], None]
_SNAPSHOTS = "snapshots"
_ALLOWED = {"lost+found", LOCK_NAME}
_OF_A_RESTORE = re.compile(r"[0-9]{10}\.(seg|idx)|(state|catalogue)-[0-9a-f]{12}\.ckp|durable|.*\.tmp")


@dataclass(slots=True)
class RestoreReport:
    """What was checked or restored.

    `verified`: of the restored log, None after `check`; as every file is the backup's bit for bit, what it found was so
    before the backup.
    """

    manifest: Manifest
    files: int
    bytes: int
    restored: Restored | None = None
    verified: VerifyReport | None = None
    notes: list[str] = field(default_factory=list)


def check(
    backup: str | Path, *, progress: Progress | None = None, fs: FileSystem | None = None
) -> RestoreReport:
    """Compare every file of a backup with its manifest, and restore nothing.

    Raises BackupError that names the file which is missing or damaged.
    """
    path = Path(backup)
    files = fs or TargetFiles()
    manifest = read_manifest(files, path)
    needed = manifest.all_files()
    whole, done = sum(file.bytes for file in needed), 0
    for file in needed:
        try:
            found = digest_of(files, path / file.stored, file.bytes)
        except OSError as error:
            raise _damaged(path / file.stored, f"cannot be read ({error.strerror})") from None
        if found != file.sha256:
            raise _damaged(path / file.stored, f"expected SHA-256 {file.sha256}, found {found}")
        done += file.bytes
        if progress is not None:
            progress(done, whole)
    return RestoreReport(manifest, len(needed), whole)


def _damaged(path: Path, what: str) -> BackupError:
    return BackupError(f"{path}: {what}: this backup is damaged; restore from another one")


def restore(
    backup: str | Path,
    directory: str | Path,
    *,
    progress: Progress | None = None,
    fs: FileSystem | None = None,
    backup_fs: FileSystem | None = None,
) -> RestoreReport:
    """Put the log of a backup into an empty or missing directory, and verify it there.

    Raises BackupError (damaged backup, directory not empty, disk full: the directory then is not opened by anything
    but another restore), LogError on a network file system, LogLockedError.
    """
    files = fs or LocalFileSystem()
    stored = backup_fs or TargetFiles()
    source, target = Path(backup), Path(directory)
    manifest = read_manifest(stored, source)
    _refuse_occupied(files, target)
    try:
        files.make_directory(target)
        refuse_network(files, target)
        lock = take_lock(files, target)
    except OSError as error:
        raise BackupError(f"{target}: cannot be written: {error.strerror or error}") from error
    try:
        return _restore(files, stored, source, target, manifest, progress)
    except OSError as error:
        raise BackupError(
            f"{target}: the restore cannot go on ({error.strerror or error}): what is there is a part of a log and is not "
            "opened; make space or choose another disk, and run it again"
        ) from error
    finally:
        files.close(lock)


def _refuse_occupied(fs: FileSystem, directory: Path) -> None:
    """Raise BackupError unless the directory is empty, missing, or holds what an interrupted restore left."""
    found = set(fs.list_directory(directory)) - _ALLOWED
    if not found or found == {RESTORED_NAME + ".tmp"}:
        return
    unfinished = False
    if RESTORED_NAME in found:
        restored = read_restored(fs, directory)
        unfinished = restored is not None and not restored.finished
        found -= {RESTORED_NAME, _SNAPSHOTS}
    strangers = sorted(name for name in found if not unfinished or not _OF_A_RESTORE.fullmatch(name))
    if strangers:
        raise BackupError(
            f"{directory}: expected an empty directory or none, found {strangers[0]!r} in it"
            f"{f' and {len(strangers) - 1} more' if len(strangers) > 1 else ''}: restore into another one, "
            "or move what is there away"
        )


def _restore(
    fs: FileSystem,
    backup_fs: FileSystem,
    source: Path,
    directory: Path,
    manifest: Manifest,
    progress: Progress | None,
) -> RestoreReport:
    restored = Restored(False, secrets.randbits(64) or 1, manifest.taken_ns, time.time_ns(), manifest.end)
    write_restored(fs, directory, restored)
    for place in (directory, directory / _SNAPSHOTS):
        for name in fs.list_directory(place):
            if place != directory or _OF_A_RESTORE.fullmatch(name):
                fs.remove(place / name)
    if any(file.path.startswith(f"{_SNAPSHOTS}/") for file in manifest.files):
        fs.make_directory(directory / _SNAPSHOTS)
    whole, done = sum(file.bytes for file in manifest.files), 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, 3 * whole)

    for file in manifest.files:
        _copy(fs, backup_fs, source, directory, file, told)
    for place in {(directory / file.path).parent for file in manifest.files}:
        fs.sync_directory(place)
    report = RestoreReport(manifest, len(manifest.files), whole, notes=list(manifest.notes))
    report.verified = verify(
        directory, fs=fs, progress=None if progress is None else _last_third(progress, whole)
    )
    report.restored = Restored(True, restored.incarnation, manifest.taken_ns, time.time_ns(), manifest.end)
    write_restored(fs, directory, report.restored)
    return report


def _last_third(progress: Progress, whole: int) -> Progress:
    return lambda done, all_bytes: progress(2 * whole + whole * done // max(all_bytes, 1), 3 * whole)


def _copy(
    fs: FileSystem,
    backup_fs: FileSystem,
    source: Path,
    directory: Path,
    file: StoredFile,
    told: Callable[[int], None],
) -> None:
    path = source / file.stored
    try:
        handle = backup_fs.open_existing(path)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None
    try:
        size = backup_fs.size(handle)
        if size != file.bytes:
            raise _damaged(path, f"expected {file.bytes} bytes, found {size}")
        digest = hashlib.sha256()
        out = fs.create(directory / file.path)
        try:
            synced = 0
            for at in range(0, size, BLOCK_BYTES):
                try:
                    block = backup_fs.pread(handle, min(BLOCK_BYTES, size - at), at)
                except OSError as error:
                    raise _damaged(path, f"cannot be read at byte {at} ({error.strerror})") from None
                digest.update(block)
                end = write_all(fs, out, [block], at)
                told(len(block))
                if end - synced >= STEP_BYTES:
                    fs.fdatasync(out)
                    fs.drop_cache(out, synced, end - synced)
                    synced = end
            fs.fdatasync(out)
            fs.drop_cache(out, 0, size)
        finally:
            fs.close(out)
        backup_fs.drop_cache(handle, 0, size)
    finally:
        backup_fs.close(handle)
    if digest.hexdigest() != file.sha256:
        raise _damaged(path, f"expected SHA-256 {file.sha256}, found {digest.hexdigest()}")
    if digest_of(fs, directory / file.path, size) != file.sha256:
        raise BackupError(
            f"{directory / file.path}: what was read back is not what was written: this disk cannot be trusted; "
            "restore onto another one"
        )
    told(size)
