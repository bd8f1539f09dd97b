"""What a backup holds: the manifest, its only entrance, and the names of the files beside it.

    BACKUP/manifest.json    which files make up the log, where each lies, its size and SHA-256; written last
    BACKUP/segments/        segments NUMBER-END.seg, valid up to byte END, each with its index; never changed
    BACKUP/control/         what belongs to one moment: mark, checkpoints, snapshots of flows, configuration

A directory without a manifest is no backup; files that no manifest names belong to a backup that was interrupted.
A manifest is replaced by rename, so an earlier backup stays whole until the next one is.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from ringmain.log.files import FileSystem, LocalFileSystem, publish_file, read_file
from ringmain.log.interface import LogError

MANIFEST_NAME = "manifest.json"
SEGMENTS = "segments"
CONTROL = "control"
FORMAT = 1
_MANIFEST_BYTES_MAX = 1 << 30
_RESTORED_PATH = re.compile(r"(snapshots/)?[A-Za-z0-9%_~-][A-Za-z0-9%._~-]{0,250}")
_STORED_PATH = re.compile(rf"({SEGMENTS}|{CONTROL})/[0-9][A-Za-z0-9%._~-]{{0,250}}")


class BackupError(LogError):
    """A backup cannot be made, or cannot be used."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file of the log: `path` in its directory, `stored` in the backup. `problems`: damage that it came with."""

    path: str
    stored: str
    bytes: int
    sha256: str
    problems: list[str] = []


class Configuration(msgspec.Struct, frozen=True):
    """The node's configuration file, kept beside the log and not restored into it."""

    name: str
    file: StoredFile


class Manifest(msgspec.Struct, frozen=True):
    """A backup. `end`: position of its newest frame as text; `taken_ns`: when that was the newest durable one (UTC)."""

    format: int
    version: str
    generation: int
    incarnation: str
    end: str
    lsn: int
    taken_ns: int
    arrival_ns: int
    rows: dict[str, int]
    files: list[StoredFile]
    configuration: Configuration | None = None
    notes: list[str] = []

    def all_files(self) -> list[StoredFile]:
        """Every file that the backup needs."""
        return [*self.files, *([self.configuration.file] if self.configuration is not None else [])]


class _Envelope(msgspec.Struct, frozen=True):
    sha256: str
    manifest: msgspec.Raw


class _Format(msgspec.Struct, frozen=True):
    format: int


class TargetFiles(LocalFileSystem):
    """Where backups are written to: as a local disk, and file systems that cannot sync a directory are good enough."""

    def sync_directory(self, path: Path) -> None:
        try:
            super().sync_directory(path)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise


_NOT_SUPPORTED = (22, 95)
"""EINVAL and EOPNOTSUPP."""


def read_manifest(fs: FileSystem, backup: Path) -> Manifest:
    """The manifest of a backup. Raises BackupError where there is none that checks out."""
    path = backup / MANIFEST_NAME
    try:
        raw = read_file(fs, path, _MANIFEST_BYTES_MAX)
    except FileNotFoundError:
        raise BackupError(
            f"{backup}: expected a backup, found no {MANIFEST_NAME}: it is written last, so a backup that was "
            "interrupted has none; run `ringmain log backup` with this target again"
        ) from None
    except (OSError, ValueError) as error:
        raise BackupError(f"{path}: expected the list of a backup's files, found: {error}") from None
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
        if hashlib.sha256(envelope.manifest).hexdigest() != envelope.sha256:
            raise BackupError(
                f"{path}: its SHA-256 is wrong: this backup is damaged; restore from another one"
            )
        found = msgspec.json.decode(envelope.manifest, type=_Format).format
        if found > FORMAT:
            raise BackupError(
                f"{path}: the backup has format {found}, this Ringmain reads up to format {FORMAT}: "
                "restore it with the Ringmain that wrote it, or a newer one"
            )
        manifest = msgspec.json.decode(envelope.manifest, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupError(
            f"{path}: expected the list of a backup's files, found {len(raw)} other bytes ({error}): "
            "this backup is damaged; restore from another one"
        ) from None
    for file in manifest.all_files():
        if (
            not _RESTORED_PATH.fullmatch(file.path)
            or not _STORED_PATH.fullmatch(file.stored)
            or file.bytes < 0
        ):
            raise BackupError(
                f"{path}: expected names of a log's files, found {file.path!r} in {file.stored!r}"
            )
    return manifest


def write_manifest(fs: FileSystem, backup: Path, manifest: Manifest) -> None:
    """Make the backup one: from here on it is the one that TARGET holds. Raises OSError."""
    body = msgspec.json.encode(manifest)
    digest = hashlib.sha256(body).hexdigest()
    publish_file(fs, backup / MANIFEST_NAME, [f'{{"sha256":"{digest}","manifest":'.encode(), body, b"}\n"])


def digest_of(fs: FileSystem, path: Path, size: int) -> str:
    """SHA-256 of a file of that size as it is on the disk now. Raises BackupError for another size, OSError."""
    handle = fs.open_existing(path)
    try:
        found = fs.size(handle)
        if found != size:
            raise BackupError(f"{path}: expected {size} bytes, found {found}: this backup is damaged")
        digest = hashlib.sha256()
        for at in range(0, size, BLOCK_BYTES):
            digest.update(fs.pread(handle, min(BLOCK_BYTES, size - at), at))
            if at % STEP_BYTES == 0:
                fs.drop_cache(handle, 0, at)
        fs.drop_cache(handle, 0, size)
        return digest.hexdigest()
    finally:
        fs.close(handle)


BLOCK_BYTES = 1 << 20
"""Bytes read and written at a time."""
STEP_BYTES = 8 << 20
"""Bytes after which what was written is synced, so that it never piles up in front of the node's own syncs."""
