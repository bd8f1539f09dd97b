"""From the files in a directory to the published log: what is durable, what is damaged, what is unproven.

A group is proven durable when a later group's header, the mark, a checkpoint or a later segment says so. Proven
groups are published; one among them that does not check out is quarantined, alone. What lies above is the
unproven tail: it may have been written and never synced, so it is not published but handed to the writer,
which writes and syncs it again first; from its first damaged group on it is cut. Both are told as findings,
for the ledger. Nothing here writes, and nothing here refuses but a newer format: where continuity cannot be
proved, `continuous` is false and the writer begins a new incarnation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ringmain.log.backup.restored import Restored, read_restored
from ringmain.log.builtin import CONTROL_ID, LedgerKind
from ringmain.log.checkpoints import (
    CATALOGUE,
    STATE,
    Checkpoints,
    restore_catalogue,
    restore_state,
)
from ringmain.log.codec import decode_record
from ringmain.log.control import UNREADABLE, Opened, Removed
from ringmain.log.files import FileSystem, read_file
from ringmain.log.frames import (
    Mark,
    lsn_of,
)
from ringmain.log.ledger.findings import findings
from ringmain.log.recovered import Recovered
from ringmain.log.replay import Replay
from ringmain.log.rewound import Disowned, disown
from ringmain.log.segments import (
    StoredGroup,
    chain,
)
from ringmain.log.store import Store
from ringmain.log.writer import MARK_NAME

_MARK_ATTEMPTS = 5
"""The mark is written in place while a node runs: it may be read half old and half new."""


def read_mark(fs: FileSystem, directory: Path) -> Mark | None:
    """The mark of durability; None if there is none that checks out."""
    for _ in range(_MARK_ATTEMPTS):
        try:
            mark = Mark.unpack(read_file(fs, directory / MARK_NAME, 1 << 16))
        except (OSError, ValueError):
            return None
        if mark is not None:
            return mark
    return None


def recover(fs: FileSystem, directory: Path, *, beside_writer: bool = False) -> Recovered:
    """Read a log's directory. Writes nothing. Raises NewerFormatError; OSError when the disk cannot be read.

    `beside_writer`: what is written while this reads need not be found.
    """
    checkpoints = Checkpoints(fs, directory)
    disowned = Disowned()
    while True:
        store = Store(fs, directory)
        try:
            recovered = _recover(fs, directory, store, checkpoints, disowned, beside_writer)
            if not disown(recovered, disowned):
                return recovered
        except BaseException:
            store.close()
            raise
        store.close()


def _recover(
    fs: FileSystem,
    directory: Path,
    store: Store,
    checkpoints: Checkpoints,
    disowned: Disowned,
    beside_writer: bool,
) -> Recovered:
    recovered = Recovered(store, checkpoints)
    # In this order a writer beside this cannot make anything that is read here be ahead of the frames: a checkpoint
    # holds nothing beyond the mark, and the mark nothing beyond the segments.
    catalogue_lsn = _restore(recovered)
    store.state.series_count = max(store.state.series_count, disowned.series_count)
    recovered.mark = read_mark(fs, directory)
    marked = 0 if recovered.mark is None else recovered.mark.segment
    links, recovered.strangers = chain(fs, directory, marked)
    first = links[0].header if links else None
    recovered.is_whole = first is not None and not first.previous_number
    proven = max(store.state.lsn, disowned.lsn)
    scan = Replay(fs, directory, recovered, links, proven, catalogue_lsn, beside_writer)
    scan.run()
    _leave_out_removed(recovered)
    recovered.next_lsn = scan.highest_lsn + 1
    recovered.kept_lsn = scan.highest_found
    if scan.proven > scan.highest_found and scan.proven > 0 and not scan.tail_damaged:
        recovered.continuous = False
        recovered.has_lost_end = True
        recovered.carried = []
        recovered.findings += findings(
            LedgerKind.LOST,
            links[-1].number if links else 0,
            0,
            0,
            scan.highest_found + 1,
            scan.proven,
            None,
            "what was durable is no longer in the directory; the log goes on as a new incarnation",
        )
    lineage = store.state.lineage
    if lineage:
        recovered.incarnation = lineage[-1].id
    elif links:
        known = next((link.header.incarnation for link in reversed(links) if link.header is not None), 0)
        if not known and recovered.carried:
            known = recovered.carried[0].header.incarnation
        recovered.incarnation = known
        if known:
            store.state.opened(Opened(known, 1, 0, 0, ""))
    if recovered.carried:
        # an opening that began an incarnation and did not live to prove it: it is written again, and goes on as that
        recovered.incarnation = recovered.carried[-1].header.incarnation
    _begin_restored(recovered, read_restored(fs, directory))
    if not recovered.incarnation:
        recovered.continuous = False
    return recovered


def _begin_restored(recovered: Recovered, restored: Restored | None) -> None:
    """Behind what was restored from a backup the log is another one: positions beyond it are gone, for readers too."""
    if restored is None or not restored.finished:
        return
    recovered.restored = restored
    state = recovered.store.state
    if any(known.id == restored.incarnation for known in state.lineage):
        return
    first_lsn, kept_lsn = recovered.next_lsn, recovered.kept_lsn
    if recovered.carried and recovered.carried[0].header.incarnation == restored.incarnation:
        first_lsn = recovered.carried[0].header.lsn
        kept_lsn = first_lsn - 1
    else:
        recovered.carried = []
    record = Opened(restored.incarnation, first_lsn, kept_lsn, restored.restored_ns, "", restored.origin)
    state.opened(record)
    recovered.incarnation, recovered.continuous = restored.incarnation, True


def _leave_out_removed(recovered: Recovered) -> None:
    """Segments whose removal is recorded, but was interrupted, are not part of the log any more."""
    store = recovered.store
    removed_lsn = lsn_of(max(store.state.removed_offset, 0))
    told_lsn = max([removed_lsn, *(lsn_of(offset) for offset in _removals(recovered.carried))])
    recovered.removed_lsn = told_lsn
    recovered.findings = [one for one in recovered.findings if one.last_lsn > told_lsn]
    for segment in store.segments[:-1]:
        if segment.last_lsn > removed_lsn:
            return
        store.remove_segment(segment)
        recovered.strangers.append(segment.number)


def _removals(carried: Sequence[StoredGroup]) -> Iterator[int]:
    """Up to where unproven groups say that frames were removed: true, since nothing goes before that is durable."""
    for group in carried:
        for number, frame in enumerate(group.frames):
            data = decode_record(frame, group.body(number)) if frame.stream == CONTROL_ID else None
            if data is not None:
                with contextlib.suppress(*UNREADABLE):
                    yield msgspec.msgpack.decode(data, type=Removed).offset


def _restore(recovered: Recovered) -> int:
    """Load the newest checkpoints that can be read into the store; returns the catalogue's lsn."""
    store = recovered.store
    for checkpoint in recovered.checkpoints.load(STATE):
        restored = restore_state(checkpoint)
        if restored is not None:
            store.state, store.end_offset, store.end_incarnation = restored
            recovered.used.append(checkpoint)
            break
    for checkpoint in recovered.checkpoints.load(CATALOGUE):
        if restore_catalogue(checkpoint, store.catalogue):
            recovered.used.append(checkpoint)
            return checkpoint.lsn
    return 0
