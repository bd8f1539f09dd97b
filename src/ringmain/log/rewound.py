"""Checkpoints of a log that lost its end: they may hold what the frames do not have any more.

A standby that was rewound, a file system that lost its newest files: the log goes on as a new incarnation behind
what is there, and so must its state.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringmain.log.checkpoints import STATE, Checkpoint
from ringmain.log.frames import SEGMENT_HEADER_BYTES, lsn_of, offset_of
from ringmain.log.recovered import Recovered
from ringmain.log.segments import StoredGroup, walk


@dataclass(slots=True)
class Disowned:
    """What checkpoints that are not used said all the same: up to where lsns and series ids were given out."""

    lsn: int = 0
    series_count: int = 0


def disown(recovered: Recovered, disowned: Disowned) -> bool:
    """Leave out checkpoints that hold groups which the log lost with its end; True: recover again, without them.

    What was appended behind the loss is else taken for a duplicate of what is nowhere, and positions are ahead of the
    frames. Where retention took the beginning and every checkpoint is ahead, the newest is all that is known of it: it
    is kept, and only what producers appended is told from the frames.
    """
    store, again = recovered.store, False
    for used in recovered.used:
        if not _is_ahead(recovered, used):
            continue
        loaded = recovered.checkpoints.load(used.kind)
        ahead = [one for one in loaded if _is_ahead(recovered, one)]
        if len(ahead) == len(loaded) and not recovered.is_whole:
            if used.kind == STATE:
                _tell_producers_from_frames(recovered)
            continue
        recovered.checkpoints.disown(ahead)
        disowned.lsn = max([disowned.lsn, *(one.lsn for one in ahead)])
        disowned.series_count = max(disowned.series_count, store.state.series_count, len(store.catalogue))
        again = True
    return again


def _is_ahead(recovered: Recovered, checkpoint: Checkpoint) -> bool:
    if recovered.has_lost_end and checkpoint.lsn > recovered.kept_lsn:
        return True
    return any(
        known.id == checkpoint.incarnation and 0 <= known.last_lsn < checkpoint.lsn
        for known in recovered.store.state.lineage
    )


def _tell_producers_from_frames(recovered: Recovered) -> None:
    """Forget appends that are in no incarnation of the log, and find the newest ones that are there instead."""
    store = recovered.store
    lineage = store.state.lineage

    def is_lost(offset: int) -> bool:
        lsn = lsn_of(offset)
        if recovered.has_lost_end and lsn > recovered.kept_lsn:
            return True
        following = lineage[1:]
        return any(
            0 <= known.last_lsn < lsn < later.first_lsn
            for known, later in zip(lineage, following, strict=False)
        )

    ahead = {}
    for producer in store.state.producers.values():
        if is_lost(producer.offset):
            producer.sequence, producer.digest, producer.offset, producer.arrival_ns = -1, 0, 0, 0
            ahead[producer.id] = producer
        if is_lost(producer.zero_offset):
            producer.zero_sequence, producer.zero_digest = -1, 0
            producer.zero_offset, producer.zero_arrival_ns = 0, 0
            ahead[producer.id] = producer
    for segment in store.segments if ahead else ():
        with store.opened(segment) as handle:
            for group in walk(store.fs, handle, SEGMENT_HEADER_BYTES, segment.end, bodies=False):
                if isinstance(group, StoredGroup) and group.frames and group.frames[-1].producer in ahead:
                    last, header = group.frames[-1], group.header
                    offset = offset_of(header.lsn, len(group.frames) - 1)
                    ahead[last.producer].appended(
                        last.epoch, last.sequence, header.digest, offset, header.arrival_ns
                    )
