"""The directory that a backup is written to: what is written is synced, read back and compared before it counts.

Writes are synced every 8 MiB and paused in between for as long as the sync took, so that a node on the same disk
keeps its own syncs short; what was read and written is dropped from the page cache. Whatever the target's disk
refuses becomes a `BackupError` that says what is still whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ringmain.log.backup.manifest import (
    BLOCK_BYTES,
    CONTROL,
    MANIFEST_NAME,
    SEGMENTS,
    STEP_BYTES,
    BackupError,
    Manifest,
    StoredFile,
    digest_of,
    read_manifest,
    write_manifest,
)
from ringmain.log.files import FileSystem, publish_file, read_around, write_all
from ringmain.log.lock import LOCK_NAME

_PAUSE_S_MAX = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OURS = {MANIFEST_NAME, MANIFEST_NAME + ".tmp", SEGMENTS, CONTROL, LOCK_NAME, "lost+found"}


class Target:
    """The directory that is written to. Whatever its disk refuses is a BackupError that says what is still there."""

    def __init__(self, fs: FileSystem, path: Path, paced: bool) -> None:
        self.fs = fs
        self.path = path
        self._paced = paced
        self.written_bytes = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One backup at a time, where the file system can lock."""
        with self.guarded():
            strangers = set(self.fs.list_directory(self.path)) - _OURS
            if strangers:
                raise BackupError(
                    f"{self.path}: expected an empty directory or an earlier backup, found {min(strangers)!r} in it"
                )
            for directory in (self.path, self.path / SEGMENTS, self.path / CONTROL):
                self.fs.make_directory(directory)
        handle = None
        try:
            handle = self.fs.lock(self.path / LOCK_NAME)
        except BlockingIOError:
            raise BackupError(
                f"{self.path}: another backup into this directory is under way: wait for it"
            ) from None
        except OSError as error:
            if error.errno in _FULL:
                raise self._refused(error) from error
        try:
            yield
        finally:
            if handle is not None:
                self.fs.close(handle)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Errors of the target's disk, named."""
        try:
            yield
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> BackupError:
        if error.errno in _FULL:
            return BackupError(
                f"{self.path}: no space for the backup ({error.strerror}) after {self.written_bytes} bytes: free space and "
                "run it again, it goes on with what is there; an earlier backup there is still whole"
            )
        return BackupError(
            f"{self.path}: cannot be written ({error}): an earlier backup there is still whole"
        )

    def earlier(self) -> Manifest | None:
        """The manifest of the backup that the target holds already."""
        if MANIFEST_NAME not in self.fs.list_directory(self.path):
            return None
        try:
            return read_manifest(self.fs, self.path)
        except BackupError as error:
            raise BackupError(f"{error}; for a new backup give another target, or empty this one") from None

    def has(self, file: StoredFile) -> bool:
        """Whether a file of an earlier backup is still there, by its size; its bytes are compared by `check`."""
        try:
            handle = self.fs.open_existing(self.path / file.stored)
        except OSError:
            return False
        try:
            return self.fs.size(handle) == file.bytes
        finally:
            self.fs.close(handle)

    def put(self, path: str, stored: str, parts: Sequence[bytes]) -> StoredFile:
        """Write a small file, and read it back."""
        whole = b"".join(parts)
        digest = hashlib.sha256(whole).hexdigest()
        with self.guarded():
            publish_file(self.fs, self.path / stored, [whole])
            self._compare(self.path / stored, len(whole), digest)
        self.written_bytes += len(whole)
        return StoredFile(path, stored, len(whole), digest)

    def copy(
        self, fs: FileSystem, handle: int, size: int, stored: str, told: Callable[[int], None], *, drop: bool
    ) -> str:
        """Copy the first `size` bytes of an open file, and read them back; their SHA-256. What it lacks is zero bytes."""
        final = self.path / stored
        temporary = final.with_name(final.name + ".tmp")
        digest = hashlib.sha256()
        with self.guarded():
            out = self.fs.create(temporary)
            try:
                synced = 0
                for at in range(0, size, BLOCK_BYTES):
                    wanted = min(BLOCK_BYTES, size - at)
                    block = read_around(fs, handle, wanted, at).ljust(wanted, b"\0")
                    digest.update(block)
                    end = write_all(self.fs, out, [block], at)
                    told(len(block))
                    if end - synced >= STEP_BYTES or end == size:
                        self._sync(out, synced, end)
                        if drop:
                            fs.drop_cache(handle, synced, end - synced)
                        synced = end
            finally:
                self.fs.close(out)
            self._compare(temporary, size, digest.hexdigest())
            self.fs.rename(temporary, final)
        self.written_bytes += size
        return digest.hexdigest()

    def _sync(self, out: int, start: int, end: int) -> None:
        began_s = time.monotonic()
        self.fs.fdatasync(out)
        self.fs.drop_cache(out, start, end - start)
        if self._paced:
            time.sleep(min(time.monotonic() - began_s, _PAUSE_S_MAX))

    def _compare(self, path: Path, size: int, digest: str) -> None:
        if digest_of(self.fs, path, size) != digest:
            raise BackupError(
                f"{path}: what was read back is not what was written: this disk cannot be trusted"
            )

    def finish(self, manifest: Manifest) -> None:
        """The manifest last; then what it does not name goes."""
        with self.guarded():
            self.fs.sync_directory(self.path / SEGMENTS)
            write_manifest(self.fs, self.path, manifest)
        needed = {file.stored for file in manifest.all_files()}
        for directory in (SEGMENTS, CONTROL):
            for name in self.fs.list_directory(self.path / directory):
                if f"{directory}/{name}" not in needed:
                    with contextlib.suppress(OSError):
                        self.fs.remove(self.path / directory / name)
