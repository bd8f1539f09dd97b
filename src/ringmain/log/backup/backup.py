"""Copies a log to another place while its node runs: everything that was durable at one moment, and nothing else.

The copy is made from outside: the node is not asked and does not notice. The moment is that of one look at the mark
of durability. Segments up to it are copied, each up to its valid end; the control state and the catalogue of that
moment are written as fresh checkpoints; snapshots of flows are taken before the moment, so that none is ahead of it.
Every file is synced and read back from the disk, and compared, before the manifest names it. Where TARGET holds an
earlier backup of the same log, segments that lie there already are not copied again, and that backup stays whole
until the new manifest replaces its own.

Retention goes on meanwhile and is not held up: when it takes a segment that was still to be copied, a later moment
is chosen and the copy goes on from there. Writes are synced every 8 MiB and paused in between, and what was read
is dropped from memory, so that the node keeps its disk and its page cache. Damage of the source is copied as it is,
and told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringmain import __version__
from ringmain.log.backup.manifest import (
    CONTROL,
    FORMAT,
    SEGMENTS,
    BackupError,
    Configuration,
    Manifest,
    StoredFile,
    TargetFiles,
    digest_of,
)
from ringmain.log.backup.restored import refuse_unfinished
from ringmain.log.backup.target import Target
from ringmain.log.check.scan import Form, scan
from ringmain.log.checkpoints import (
    CATALOGUE,
    STATE,
    checkpoint_name,
    encode_catalogue,
    encode_state,
    pack_checkpoint,
)
from ringmain.log.files import FileSystem, LocalFileSystem, read_around
from ringmain.log.frames import SEGMENT_HEADER_BYTES, Mark
from ringmain.log.index import Sidecar
from ringmain.log.interface import Position, PositionGoneError
from ringmain.log.look import recover_beside
from ringmain.log.segments import segment_numbers, segment_path, sidecar_path
from ringmain.log.store import Segment, Store
from ringmain.log.writer import MARK_NAME

Progress = Callable[[int, int], None]
_ATTEMPTS = 16


@dataclass(slots=True)
class BackupReport:
    """What a backup did: segments and bytes copied now, and those that lay in the target already."""

    manifest: Manifest
    copied_segments: int = 0
    copied_bytes: int = 0
    kept_segments: int = 0
    kept_bytes: int = 0

    @property
    def problems(self) -> list[str]:
        """Damage that the log came with, a line each."""
        return [problem for file in self.manifest.files for problem in file.problems]


class _SegmentGoneError(Exception):
    """Retention took a segment that was to be copied."""


def backup(
    source: str | Path,
    target: str | Path,
    *,
    configuration: Path | None = None,
    paced: bool = True,
    progress: Progress | None = None,
    fs: FileSystem | None = None,
    target_fs: FileSystem | None = None,
) -> BackupReport:
    """Copy the log in `source` to `target`, which is empty, missing, or holds an earlier backup of the same log.

    `configuration` is a file that is kept beside it. `paced=False`: as quickly as the disks can. `progress(done_bytes,
    all_bytes)` is called now and then; the second may change. Raises BackupError, NewerFormatError; the earlier
    backup in `target` is as it was then.
    """
    files = fs or LocalFileSystem()
    kept = Target(target_fs or TargetFiles(), Path(target), paced)
    path = Path(source)
    _refuse_nested(path, kept.path)
    if not segment_numbers(files, path):
        raise BackupError(f"{path}: expected the directory of a log, found no segments there")
    refuse_unfinished(files, path)
    with kept.locked():
        return _Run(files, path, kept, configuration, progress).run()


def _refuse_nested(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise BackupError(f"{target}: expected a directory outside of the log's own, {source}")


@dataclass(frozen=True, slots=True)
class _Moment:
    """A log as it was durable at one moment."""

    store: Store
    segments: list[Segment]
    end: Position
    taken_ns: int
    notes: list[str]


class _Run:
    """One backup."""

    def __init__(
        self,
        fs: FileSystem,
        source: Path,
        target: Target,
        configuration: Path | None,
        progress: Progress | None,
    ) -> None:
        self._fs = fs
        self._source = source
        self._target = target
        self._configuration = configuration
        self._progress = progress
        self._earlier = target.earlier()
        self._there = {file.stored: file for file in self._earlier.files} if self._earlier else {}
        self._generation = 1 if self._earlier is None else self._earlier.generation + 1
        self._done_bytes = 0
        self._all_bytes = 0
        self._notes: list[str] = []
        self._copied: set[str] = set()

    def run(self) -> BackupReport:
        configuration = self._keep_configuration()
        for attempt in range(_ATTEMPTS):
            first = segment_numbers(self._fs, self._source)[:1]
            snapshots = self._snapshots()
            moment = self._look()
            try:
                if segment_numbers(self._fs, self._source)[:1] != first:
                    continue  # retention took what the snapshots may need: look again
                self._continues(moment)
                self._done_bytes, self._all_bytes = 0, sum(segment.end for segment in moment.segments)
                # newest first: retention takes the oldest, and those of the next moment are then there already
                segments = [self._segment(moment, segment) for segment in reversed(moment.segments)]
                files = [file for pair in reversed(segments) for file in pair]
                return self._finish(moment, [*files, *snapshots], configuration)
            except (_SegmentGoneError, PositionGoneError):
                self._notes.append(
                    f"retention removed segments from {first[0]} on while they were copied: the backup began again from "
                    f"what is kept (attempt {attempt + 2})"
                )
            finally:
                moment.store.close()
        raise BackupError(
            f"{self._source}: retention removes segments more quickly than they can be copied: keep more "
            "(keep_age, keep_size in [log]), or give a quicker target"
        )

    # -- the moment ------------------------------------------------------------------------------------------

    def _look(self) -> _Moment:
        taken_ns = time.time_ns()
        recovered = recover_beside(self._fs, self._source)
        store = recovered.store
        segments = list(store.segments)
        while segments and segments[-1].end <= SEGMENT_HEADER_BYTES:
            segments.pop()  # nothing in it is proven durable yet
        end = store.end()
        if not segments or end is None:
            store.close()
            raise BackupError(f"{self._source}: the log holds nothing that is proven durable: open it once")
        notes = [
            f"the log lacks something that was durable: {found.reason}"
            for found in recovered.findings
            if found.kind == "lost"
        ]
        return _Moment(store, segments, end, taken_ns, notes)

    def _continues(self, moment: _Moment) -> None:
        """What the target holds must be the past of this log: an older or diverged copy must not replace it."""
        earlier = self._earlier
        if earlier is None:
            return
        state = moment.store.state
        try:
            state.check_position(Position.parse(earlier.end), [])
            continues = state.lsn >= earlier.lsn
        except (PositionGoneError, ValueError):
            continues = False
        if not continues:
            raise BackupError(
                f"{self._target.path}: holds the backup of a log up to position {earlier.end}, which the log in {self._source} "
                "does not continue: it is another one, or an older copy; give another target"
            )

    # -- files -----------------------------------------------------------------------------------------------

    def _told(self, size: int) -> None:
        self._done_bytes += size
        if self._progress is not None:
            self._progress(self._done_bytes, self._all_bytes)

    def _segment(self, moment: _Moment, segment: Segment) -> list[StoredFile]:
        """A segment and its index, copied unless they lie there already."""
        stored = f"{SEGMENTS}/{segment.number:010}-{segment.end:012}.seg"
        try:
            handle = self._fs.open_existing(segment.path)
        except FileNotFoundError:
            raise _SegmentGoneError from None
        try:
            kept = self._lying_there(segment, stored, read_around(self._fs, handle, SEGMENT_HEADER_BYTES, 0))
            if kept is not None:
                self._told(segment.end)
            else:
                sealed = segment is not moment.store.segments[-1]
                digest = self._target.copy(self._fs, handle, segment.end, stored, self._told, drop=sealed)
                if self._fs.size(handle) < segment.end and not self._is_there(segment):
                    raise _SegmentGoneError  # retention removed it, and cut it, while it was copied
                kept = self._stored(segment, stored, digest)
                self._copied.add(stored)
        finally:
            self._fs.close(handle)
        self._there[stored] = kept
        return [kept, self._index(moment, segment)]

    def _is_there(self, segment: Segment) -> bool:
        try:
            self._fs.close(self._fs.open_existing(segment.path))
        except FileNotFoundError:
            return False
        return True

    def _stored(self, segment: Segment, stored: str, digest: str) -> StoredFile:
        """The copied segment with the damage that it came with: its checksums are looked at in the copy."""
        target = self._target
        with target.guarded():
            handle = target.fs.open_existing(target.path / stored)
            try:
                found = scan(
                    target.fs,
                    handle,
                    segment.end,
                    after_lsn=max(segment.first_lsn - 1, 0),
                    incarnation=segment.incarnation,
                    form=Form.CHAINED,
                )
                problems = [
                    f"segment {segment.number}, bytes {damage.at} to {damage.end}: {damage.reason}"
                    for damage in found.damage
                ]
                target.fs.drop_cache(handle, 0, segment.end)
            finally:
                target.fs.close(handle)
        return StoredFile(segment_path(Path(), segment.number).name, stored, segment.end, digest, problems)

    def _lying_there(self, segment: Segment, stored: str, header: bytes) -> StoredFile | None:
        """The same segment in the target: in its backup, or left by one that was interrupted."""
        target = self._target
        try:
            handle = target.fs.open_existing(target.path / stored)
        except OSError:
            return None
        try:
            same = target.fs.size(handle) == segment.end and (
                target.fs.pread(handle, SEGMENT_HEADER_BYTES, 0) == header
            )
        except OSError:
            same = False
        finally:
            target.fs.close(handle)
        if not same:
            return None
        if stored in self._there:
            return self._there[stored]
        with target.guarded():
            left = self._stored(segment, stored, digest_of(target.fs, target.path / stored, segment.end))
        return None if left.problems else left

    def _index(self, moment: _Moment, segment: Segment) -> StoredFile:
        target = self._target
        stored = f"{SEGMENTS}/{segment.number:010}-{segment.end:012}.idx"
        known = self._there.get(stored)
        if known is not None and target.has(known):
            return known
        entries = moment.store.entries(segment)
        sidecar = Sidecar(segment.number, segment.end, segment.last_lsn, entries)
        self._there[stored] = target.put(sidecar_path(Path(), segment.number).name, stored, sidecar.pack())
        return self._there[stored]

    def _snapshots(self) -> list[StoredFile]:
        """Snapshots of flows, in the directory beside the segments."""
        directory = self._source / "snapshots"
        for _ in range(_ATTEMPTS):
            names = [name for name in self._fs.list_directory(directory) if name.endswith(".snapshot")]
            try:
                return [
                    self._small(directory / name, f"snapshots/{name}", f"snapshot-{number:04}")
                    for number, name in enumerate(sorted(names))
                ]
            except FileNotFoundError:  # a newer one took its place
                continue
        return []

    def _small(self, path: Path, restored: str, name: str) -> StoredFile:
        stored = f"{CONTROL}/{self._generation:06}.{name}"
        handle = self._fs.open_existing(path)
        try:
            size = self._fs.size(handle)
            digest = self._target.copy(self._fs, handle, size, stored, lambda _: None, drop=False)
            return StoredFile(restored, stored, size, digest)
        finally:
            self._fs.close(handle)

    def _keep_configuration(self) -> Configuration | None:
        path = self._configuration
        if path is None:
            return None
        return Configuration(path.name, self._small(path, "configuration", "configuration"))

    def _control(self, moment: _Moment) -> list[StoredFile]:
        """The mark, and two checkpoints each of state and catalogue: of this moment, whatever the source's are of."""
        store, last = moment.store, moment.segments[-1]
        with store.lock:
            state = encode_state(store.state, store.end_offset, store.end_incarnation)
            lsn, arrival_ns = store.state.lsn, store.state.arrival_ns
        bodies = {STATE: state, CATALOGUE: encode_catalogue(store.catalogue)}
        contents = {
            checkpoint_name(kind, number): pack_checkpoint(lsn, last.incarnation, body)
            for kind, body in bodies.items()
            for number in (1, 2)
        }
        contents[MARK_NAME] = [Mark(last.incarnation, lsn, last.number, last.end, arrival_ns).pack()]
        return [
            self._target.put(name, f"{CONTROL}/{self._generation:06}.{name}", parts)
            for name, parts in contents.items()
        ]

    def _finish(
        self, moment: _Moment, files: list[StoredFile], configuration: Configuration | None
    ) -> BackupReport:
        state = moment.store.state
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            generation=self._generation,
            incarnation=f"{moment.segments[-1].incarnation:016x}",
            end=str(moment.end),
            lsn=state.lsn,
            taken_ns=moment.taken_ns,
            arrival_ns=state.arrival_ns,
            rows={one.stream.name: one.rows for one in state.stream_states()},
            files=[*files, *self._control(moment)],
            configuration=configuration,
            notes=[*self._notes, *moment.notes],
        )
        self._target.finish(manifest)
        copied = [file for file in files if file.stored in self._copied]
        copied_bytes = sum(file.bytes for file in copied)
        return BackupReport(
            manifest,
            len(copied),
            copied_bytes,
            len(moment.segments) - len(copied),
            sum(segment.end for segment in moment.segments) - copied_bytes,
        )
