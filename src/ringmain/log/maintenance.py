"""Keeps reopening quick and disk use bounded: sidecars, checkpoints, retention.

A checkpoint of the control state follows each sealed segment and every few thousand groups; one of the
catalogue only when it has grown enough to be worth it, or before a segment that holds its entries goes.
Segments are removed whole and oldest first, only when two checkpoints hold whatever control data they hold,
and after every process that opens the log can know from a checkpoint that they are gone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from ringmain.log.background import BackgroundTasks
from ringmain.log.builtin import CATALOGUE_ID
from ringmain.log.checkpoints import CATALOGUE, STATE, Checkpoints, encode_catalogue, encode_state
from ringmain.log.control import Removed
from ringmain.log.files import FileSystem
from ringmain.log.frames import lsn_of
from ringmain.log.index import Sidecar
from ringmain.log.interface import LogClosedError, LogError
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.ledger.eviction import removal_of
from ringmain.log.ledger.removal import remove_files
from ringmain.log.segments import segment_numbers, segment_path, sidecar_path
from ringmain.log.store import Segment, Store

_GROUPS_BETWEEN = 8_192
_PARTIAL_ENTRIES = 4_096
_CATALOGUE_GROWTH = 0.25
_CATALOGUE_STEP = 10_000


class Maintenance:
    """The background work of one open log."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        store: Store,
        checkpoints: Checkpoints,
        background: BackgroundTasks,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._store = store
        self._checkpoints = checkpoints
        self._background = background
        self._call: Callable[[Callable[[], None]], bool] = lambda _: False
        self._groups = 0
        self._catalogue_version = -1
        self._catalogue_count = 0
        self._retaining = threading.Lock()
        self._untold: list[tuple[list[LedgerEntry], Removed]] = []
        self._stopped = False
        self._writing = threading.Lock()

    def attach(self, call: Callable[[Callable[[], None]], bool]) -> None:
        """How to run a function on the commit thread."""
        self._call = call

    # -- sidecars and checkpoints ----------------------------------------------------------------------------

    def sealed(self, segment: Segment) -> None:
        """A segment is complete: write its index beside it, and a checkpoint."""
        index = segment.index
        entries = None if index is None else index.entries().copy()
        self._store.seal(segment)
        if entries is None:
            return
        sidecar = Sidecar(segment.number, segment.end, segment.last_lsn, entries)
        path = sidecar_path(self._directory, segment.number)
        self._background.put(f"sidecar {segment.number}", lambda: sidecar.write(self._fs, path))
        self._groups = _GROUPS_BETWEEN

    def after_round(self, groups: int, lsns: int) -> None:
        """Some groups became durable; called on the commit thread."""
        del lsns
        self._groups += groups
        if self._groups >= _GROUPS_BETWEEN:
            self._groups = 0
            self._schedule(final=False)

    def _schedule(self, *, final: bool) -> None:
        """Copy the state now, write it in the background."""
        lsn, incarnation, body = self._snapshot()
        self._background.put("checkpoint of the state", lambda: self._write(STATE, lsn, incarnation, body))
        self._write_partial_index()
        if self._catalogue_is_due(final):
            self._background.put("checkpoint of the catalogue", self._write_catalogue)

    def _write_partial_index(self) -> None:
        """A long active segment: keep its index so far, so that reopening walks only what comes behind it.

        Recovery uses it only where a checkpoint of the state holds all that it covers.
        """
        segments = self._store.segments
        index = segments[-1].index if segments else None
        if index is None or index.count < _PARTIAL_ENTRIES:
            return
        active = segments[-1]
        sidecar = Sidecar(active.number, active.end, active.last_lsn, index.entries().copy())
        path = sidecar_path(self._directory, sidecar.number)
        self._background.put(f"sidecar {sidecar.number}", lambda: sidecar.write(self._fs, path, synced=False))

    def _snapshot(self) -> tuple[int, int, bytes]:
        store = self._store
        with store.lock:
            body = encode_state(store.state, store.end_offset, store.end_incarnation)
            incarnation = store.state.lineage[-1].id if store.state.lineage else 0
            return store.state.lsn, incarnation, body

    def _write(self, kind: str, lsn: int, incarnation: int, body: bytes) -> None:
        with self._writing:
            if not self._checkpoints.lsns[kind] or self._checkpoints.lsns[kind][-1] <= lsn:
                self._checkpoints.write(kind, lsn, incarnation, body)

    def _catalogue_is_due(self, final: bool) -> bool:
        catalogue = self._store.catalogue
        if catalogue.version == self._catalogue_version or not len(catalogue):
            return False
        grown = len(catalogue) - self._catalogue_count
        return final or grown >= max(_CATALOGUE_STEP, int(self._catalogue_count * _CATALOGUE_GROWTH))

    def _write_catalogue(self) -> None:
        store = self._store
        with store.lock:
            # entries applied after this belong to later groups and are applied again on replay: harmless
            lsn = store.state.lsn
            incarnation = store.state.lineage[-1].id if store.state.lineage else 0
            version, count = store.catalogue.version, len(store.catalogue)
        self._write(CATALOGUE, lsn, incarnation, encode_catalogue(store.catalogue))
        self._catalogue_version, self._catalogue_count = version, count

    def checkpoint(self, *, final: bool = False) -> None:
        """Write a checkpoint of what is durable now; returns when it is written or has failed."""
        self._on_commit_thread(lambda: self._schedule(final=final))
        self._background.drain()

    def checkpoint_soon(self) -> None:
        """Write a checkpoint of the state before long; several such wishes make one."""
        self._background.put(
            "wish for a checkpoint", lambda: self._on_commit_thread(lambda: self._schedule(final=False))
        )

    def _on_commit_thread(self, function: Callable[[], None]) -> None:
        ran = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                ran.set()

        if self._call(run):
            ran.wait()

    def stop_retention(self) -> None:
        """No segment is removed any more when this returns."""
        with self._retaining:
            self._stopped = True

    # -- retention -------------------------------------------------------------------------------------------

    def retain(
        self,
        now_ns: int,
        age_of: Callable[[int], int],
        age_ns: int | None,
        size_bytes: int | None,
        tell: Callable[[list[LedgerEntry], Removed], bool],
    ) -> int:
        """Remove oldest segments while the log is older or larger than allowed; returns how many went.

        `age_of(arrival_ns)` is how long ago that was.

        `tell(entries, removed)` writes durably what goes, before it goes; False when the disk is too full for
        that: then it is told afterwards, in the space that was made, or with the next call. Raises what it raises.
        """
        with self._retaining:
            if self._stopped:
                raise LogClosedError("the log is closed: open it again")
            while self._untold and tell(*self._untold[0]):
                del self._untold[0]
            victims = self._victims(age_of, age_ns, size_bytes)
            victims = self._covered(victims) if victims else []
            if not victims:
                return 0
            entries, removed = removal_of(self._store, victims, now_ns)
            told = self._store.state.removed_offset >= removed.offset or tell(entries, removed)
            if told:
                # A crash may keep the removals and lose the proof of the group that tells them. On a full disk that
                # proof must wait for the space that is made here; the ledger would say "lost" in between.
                self.checkpoint()
            else:
                with self._store.lock:
                    self._store.state.removed(removed)
            for segment in victims:
                self._store.remove_segment(segment)
            remove_files(self._fs, self._directory, victims)
            if not told:
                self._untold.append((entries, removed))
                with contextlib.suppress(LogError):
                    while self._untold and tell(*self._untold[0]):
                        del self._untold[0]
            return len(victims)

    def _victims(
        self, age_of: Callable[[int], int], age_ns: int | None, size_bytes: int | None
    ) -> list[Segment]:
        segments = self._store.segments
        total = sum(segment.end for segment in segments)
        victims: list[Segment] = []
        for segment in segments[:-1]:
            entries = self._store.entries(segment)
            newest = int(entries[-1]["arrival_ns"]) if len(entries) else 0
            too_old = age_ns is not None and age_of(newest) > age_ns
            too_large = size_bytes is not None and total > size_bytes
            if not (too_old or too_large):
                break
            victims.append(segment)
            total -= segment.end
        return victims

    def _covered(self, victims: list[Segment]) -> list[Segment]:
        """The oldest of them whose control data two checkpoints of each kind hold, after writing those that miss.

        On a full disk none can be written: what the ones that are there hold may go all the same.
        """
        series = [self._last_series_lsn(segment) for segment in victims]
        lsn, series_lsn = max(segment.last_lsn for segment in victims), max(series)
        with contextlib.suppress(OSError):
            for _ in range(2):
                if self._checkpoints.safe_lsn(STATE) < lsn:
                    self.checkpoint()
                if self._checkpoints.safe_lsn(CATALOGUE) < series_lsn:
                    self._write_catalogue()
        state_lsn, catalogue_lsn = self._checkpoints.safe_lsn(STATE), self._checkpoints.safe_lsn(CATALOGUE)
        covered = [
            segment.last_lsn <= state_lsn and needed <= catalogue_lsn
            for segment, needed in zip(victims, series, strict=True)
        ]
        return victims if all(covered) else victims[: covered.index(False)]

    def _last_series_lsn(self, segment: Segment) -> int:
        entries = self._store.entries(segment)
        offsets = entries["offset"][entries["stream"] == CATALOGUE_ID]
        return lsn_of(int(offsets[-1])) if len(offsets) else 0

    def sweep(self, strangers: list[int]) -> None:
        """Remove segment files that do not belong to the log, and what interrupted writes left behind."""
        for number in strangers:
            with contextlib.suppress(OSError):
                self._fs.remove(segment_path(self._directory, number))
        kept = set(segment_numbers(self._fs, self._directory))
        for name in self._fs.list_directory(self._directory):
            orphan = name.endswith(".tmp") or (
                name.endswith(".idx") and name[:-4].isdigit() and int(name[:-4]) not in kept
            )
            if orphan:
                with contextlib.suppress(OSError):
                    self._fs.remove(self._directory / name)
